//! One UDP socket, the handshakes on it, and the connections that came of them.

mod config;
mod life;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::{ConnectError, Connecting, ConnectionError, ConnectionIdGenerator, Incoming, Runtime, TransportConfig};
use quinn_proto::RandomConnectionIdGenerator;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

pub use self::config::{BindError, EndpointConfig};
use super::Clock;
use super::admission::{self, Admitted, Context, Failure, Tag, Versions};
use super::close::{CloseCode, DialError, Refusal};
use super::event::{self, Event, Events, Outlet};
use super::gate::{Decision, Gate, Knock};
use super::governed::{Accepting, Governed};
use super::inbox::{Handler, Inbox, Inboxes};
use super::link::{Facts, Inner, Link};
use super::queues::BulkTimes;
use super::reader::Place;
use super::seconds::Attached;
use super::socket::{Socket, deepen};
use super::stream::StreamListener;
use super::tls::{self, Tls, Unwanted};
use super::tuning::{DRAWN_ID_BYTES, LOOPBACK_PACKET_BYTES_MAX, bulk_transport, no_tokens, own_ids, transport, widened};
use crate::address::{canonical, is_dialable};
use crate::agreement::Table;
use crate::channel::{ChannelId, ChannelSpec};
use crate::dial::{ConnectionId, Direction};
use crate::identity::{ClusterName, ClusterSecret, PeerId};
use crate::limits;
use crate::sender;
use crate::time::Time;

/// First packets that wait to be looked at.
const INCOMING_MAX: usize = 1_024;
/// Bytes that one of them may bring along.
const INCOMING_BYTES_MAX: u64 = 16 * 1_024;
/// Bytes that all of them may bring along.
const INCOMING_TOTAL_BYTES_MAX: u64 = 4 * 1_024 * 1_024;

/// How long [`Endpoint::shutdown`] waits, after the drain, for peers to learn of the end. Close frames leave at once; the rest of the time
/// answers packets that were on their way.
const LINGER: Duration = Duration::from_secs(1);

/// How often one reason for turning somebody away is told.
const REFUSAL_EVERY: Duration = Duration::from_secs(1);

/// What an endpoint has seen since it was bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointStats {
    /// Inbound handshakes and admissions in progress now.
    pub half_open: usize,
    /// Admitted connections now, each counted once however many QUIC connections it consists of.
    pub links: usize,
    /// Second connections of links now, open or being opened, in both directions.
    pub second_connections: usize,
    /// First packets that were looked at.
    pub knocks: u64,
    /// Handshakes that others began and that we answered.
    pub handshakes: u64,
    /// Newcomers that were asked to prove their address first.
    pub retries: u64,
    /// Inbound connections that were admitted.
    pub admitted: u64,
    /// Dials begun.
    pub dials: u64,
    /// Dials that led to a connection.
    pub dials_admitted: u64,
    refused: [u64; Refusal::ALL.len()],
}

impl EndpointStats {
    /// Inbound connections that were turned away for this reason.
    pub fn refused(&self, reason: Refusal) -> u64 {
        self.refused[reason as usize]
    }

    /// Inbound connections that were turned away.
    pub fn refused_total(&self) -> u64 {
        self.refused.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// One UDP socket on which a node dials and accepts. Dropping it closes every connection at once; [`Endpoint::shutdown`] is kinder.
pub struct Endpoint {
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

struct Shared {
    quinn: quinn::Endpoint,
    local: SocketAddr,
    tls: Tls,
    transport: Arc<TransportConfig>,
    bulk_transport: Arc<TransportConfig>,
    /// For second connections that others open, on the loopback interface.
    second_server: Option<Arc<quinn::ServerConfig>>,
    own: PeerId,
    cluster: ClusterName,
    secrets: Vec<ClusterSecret>,
    incarnation: u64,
    allow: Mutex<Option<BTreeSet<PeerId>>>,
    channels: sender::Params,
    table: Table,
    channel_fallback: Option<ChannelId>,
    times: BulkTimes,
    /// Second connections that are open or being opened, in both directions.
    seconds: AtomicUsize,
    inboxes: Arc<Inboxes>,
    clock: Clock,
    outlet: Outlet,
    door: Mutex<Door>,
    links: Mutex<Links>,
    tasks: Mutex<JoinSet<()>>,
    /// A link was removed, or a task may have ended.
    changed: Notify,
    stopping: AtomicBool,
    half_open: AtomicUsize,
    last_id: AtomicU64,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    knocks: AtomicU64,
    handshakes: AtomicU64,
    retries: AtomicU64,
    admitted: AtomicU64,
    dials: AtomicU64,
    dials_admitted: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

#[derive(Default)]
struct Door {
    gate: Gate,
    told: [Option<Time>; Refusal::ALL.len()],
}

#[derive(Default)]
struct Links {
    all: BTreeMap<ConnectionId, Link>,
    inbound: usize,
}

/// A place among the half-open connections, given back when it is dropped.
struct HalfOpen(Arc<Shared>);

impl HalfOpen {
    fn take(shared: &Arc<Shared>) -> Self {
        shared.half_open.fetch_add(1, Ordering::Relaxed);
        HalfOpen(shared.clone())
    }
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        self.0.half_open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A second connection in the count of those that are no strangers, given back when it is dropped.
struct Counted(Arc<Shared>);

impl Counted {
    fn one(shared: &Arc<Shared>) -> Self {
        shared.seconds.fetch_add(1, Ordering::Relaxed);
        Counted(shared.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.seconds.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Endpoint {
    /// Binds the socket and starts to accept. Must be called inside a tokio runtime whose I/O and time drivers are on.
    ///
    /// # Errors
    ///
    /// A [`BindError`]; nothing was started then.
    pub fn bind(config: EndpointConfig) -> Result<(Endpoint, Events), BindError> {
        config.check()?;
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(BindError::NoRuntime);
        }
        let EndpointConfig { listen, key, cluster, secrets, incarnation, allow, channels, channel_fallback, .. } = config;
        let EndpointConfig { events_max, event_bytes_max, bulk_idle, bulk_retry, governor, origin, .. } = config;
        let protocols = if secrets.is_empty() {
            vec![tls::protocol_name(&cluster, None)]
        } else {
            secrets.iter().map(|secret| tls::protocol_name(&cluster, Some(secret))).collect()
        };
        let tls = Tls::new(&key, protocols)?;

        let loopback = listen.ip().to_canonical().is_loopback();
        let governed = Arc::new(Accepting(Arc::new(Governed::new(governor.clone(), origin))));
        let accepted = |mut transport: TransportConfig| {
            transport.congestion_controller_factory(governed.clone());
            Arc::new(transport)
        };
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(tls.server()));
        server
            .transport_config(accepted(transport(loopback, 1)))
            .validation_token_config(no_tokens())
            .max_incoming(INCOMING_MAX)
            .incoming_buffer_size(INCOMING_BYTES_MAX)
            .incoming_buffer_size_total(INCOMING_TOTAL_BYTES_MAX);
        let mut socket = quinn::EndpointConfig::default();
        socket.cid_generator(own_ids);
        let mut second_server = None;
        if loopback {
            let mut second = server.clone();
            second.transport_config(accepted(widened(transport(loopback, 1))));
            second_server = Some(Arc::new(second));
            socket.max_udp_payload_size(LOOPBACK_PACKET_BYTES_MAX).expect("the size is in the range that QUIC allows");
        }
        let runtime = Arc::new(quinn::TokioRuntime);
        let no_socket = |error| BindError::Socket { listen, error };
        let bound = UdpSocket::bind(listen).map_err(no_socket)?;
        deepen(&bound).map_err(no_socket)?;
        let bound = Socket::new(runtime.wrap_udp_socket(bound).map_err(no_socket)?);
        let quinn = quinn::Endpoint::new_with_abstract_socket(socket, Some(server), Arc::new(bound), runtime).map_err(no_socket)?;
        let local = quinn.local_addr().map_err(no_socket)?;

        let (outlet, events) = event::queue(events_max, event_bytes_max);
        if secrets.is_empty() {
            tracing::warn!(%local, %cluster, "no cluster secret: every program on this machine can join");
        }
        let shared = Arc::new(Shared {
            quinn,
            local,
            tls,
            transport: Arc::new(transport(loopback, 0)),
            bulk_transport: Arc::new(bulk_transport(loopback, governor, origin)),
            second_server,
            own: key.peer_id(),
            cluster,
            secrets,
            incarnation,
            allow: Mutex::new(allow),
            table: Table::of(&channels),
            channels,
            channel_fallback,
            times: BulkTimes { idle: bulk_idle, retry: bulk_retry },
            seconds: AtomicUsize::new(0),
            inboxes: Arc::default(),
            clock: Clock { origin },
            outlet,
            door: Mutex::default(),
            links: Mutex::default(),
            tasks: Mutex::default(),
            changed: Notify::new(),
            stopping: AtomicBool::new(false),
            half_open: AtomicUsize::new(0),
            last_id: AtomicU64::new(0),
            counts: Counts::default(),
        });
        let accepting = tokio::spawn(accept(shared.clone())).abort_handle();
        tracing::info!(peer = %shared.own.short(), %local, cluster = %shared.cluster, "listening");
        Ok((Endpoint { shared, accepting }, events))
    }

    /// The address of the socket.
    pub fn local_address(&self) -> SocketAddr {
        self.shared.local
    }

    /// The identity of this node.
    pub fn peer_id(&self) -> PeerId {
        self.shared.own
    }

    /// Dials an address, and takes nobody but `expected` there if one is given. The result comes as [`Event::Connected`] or
    /// [`Event::DialFailed`], within [`limits::HANDSHAKE_TIMEOUT`] and [`limits::ADMISSION_TIMEOUT`] unless the owner is behind with its
    /// events. How many dials go on at once is the caller's to limit.
    pub fn dial(&self, address: SocketAddr, expected: Option<PeerId>) {
        let shared = self.shared.clone();
        shared.counts.dials.fetch_add(1, Ordering::Relaxed);
        self.shared.spawn(async move {
            // Apart: the task lives as long as the link, and would hold the place for it.
            match Box::pin(shared.reach(address, expected)).await {
                Ok(link) => {
                    shared.counts.dials_admitted.fetch_add(1, Ordering::Relaxed);
                    shared.serve(link, None).await;
                }
                Err(error) => {
                    tracing::debug!(%address, ?expected, %error, "dial failed");
                    let _ = shared.outlet.send(Event::DialFailed { address, expected, error }).await;
                }
            }
        });
    }

    /// Changes who may come, and closes the connections of those who may not any more with [`CloseCode::NotAllowed`].
    pub fn set_allow(&self, allow: Option<BTreeSet<PeerId>>) {
        *self.shared.allow.lock().unwrap_or_else(PoisonError::into_inner) = allow;
        // Whoever is being admitted meanwhile is looked at again when its link is made.
        for link in self.links() {
            if !self.shared.is_allowed(link.peer()) {
                link.close(CloseCode::NotAllowed);
            }
        }
    }

    /// Takes over a channel: its frames of this kind come from the inbox from now on, and not as [`Event::Frame`]. A later call takes over from an earlier one.
    /// At most `bytes_max` bytes wait there, and one batch more.
    pub fn inbox(&self, channel: ChannelId, kind: u16, bytes_max: u32) -> Inbox {
        self.shared.inboxes.take_over(channel, kind, bytes_max)
    }

    /// Gives frames of this kind on a channel to a handler, from now on, in place of whoever took them before. It is called where they arrive, on this
    /// endpoint's runtime, for several links and lanes at once and for one lane in order. It must not block: what it keeps waiting is the endpoint. When it panics, that is
    /// logged and the rest of the batch is lost.
    pub fn handle(&self, channel: ChannelId, kind: u16, handler: Handler) {
        self.shared.inboxes.handle(channel, kind, handler);
    }

    /// Listens for the byte streams that peers open on a channel. A later call takes over from an earlier one. On a channel of the class
    /// [`Control`](crate::channel::Class::Control) none come.
    pub fn accept_streams(&self, channel: ChannelId) -> StreamListener {
        self.shared.inboxes.streams.take_over(channel)
    }

    /// What the params say about a channel.
    pub fn channel(&self, channel: ChannelId) -> Option<&ChannelSpec> {
        self.shared.channels.channel(channel)
    }

    /// The admitted connections, in the order in which they were admitted.
    pub fn links(&self) -> Vec<Link> {
        self.shared.links().all.values().cloned().collect()
    }

    /// What the endpoint has seen.
    pub fn stats(&self) -> EndpointStats {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.shared.counts;
        EndpointStats {
            half_open: self.shared.half_open.load(Ordering::Relaxed),
            links: self.shared.links().all.len(),
            second_connections: self.shared.seconds.load(Ordering::Relaxed),
            knocks: load(&counts.knocks),
            handshakes: load(&counts.handshakes),
            retries: load(&counts.retries),
            admitted: load(&counts.admitted),
            dials: load(&counts.dials),
            dials_admitted: load(&counts.dials_admitted),
            refused: std::array::from_fn(|index| load(&counts.refused[index])),
        }
    }

    /// Stops accepting and dialing, sends what is queued on every connection for at most `limit`, closes them all with `code`, and waits
    /// a moment until the peers know. [`Event::Closed`] of every connection is reported if the owner takes its events meanwhile.
    pub async fn shutdown(&self, code: CloseCode, limit: Duration) {
        let shared = &self.shared;
        shared.stopping.store(true, Ordering::SeqCst);
        shared.quinn.set_server_config(None);
        self.accepting.abort();
        for link in self.links() {
            link.drain(code, limit);
        }
        // Each connection keeps the limit by itself; the moment more is for their last events.
        let _ = timeout(limit.saturating_add(LINGER), shared.without_links()).await;
        shared.quinn.close(code.var_int(), &[]);
        shared.inboxes.streams.close();
        let _ = timeout(LINGER, shared.quinn.wait_idle()).await;
        shared.tasks().abort_all();
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.inboxes.streams.close();
        // Here and not by the tasks of the connections, which may never run again: whoever waits on a byte stream must learn of it.
        self.links().iter().for_each(|link| link.close(CloseCode::Shutdown));
        self.shared.quinn.close(CloseCode::Shutdown.var_int(), &[]);
        self.shared.tasks().abort_all();
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({:?}, {})", self.shared.own, self.shared.local)
    }
}

/// Looks at every first packet. Whatever becomes of one, the next is looked at.
async fn accept(shared: Arc<Shared>) {
    loop {
        let incoming = tokio::select! {
            incoming = shared.quinn.accept() => incoming,
            () = shared.outlet.closed() => None,
        };
        let Some(incoming) = incoming else { break };
        shared.consider(incoming);
    }
    // Nobody would hear of a connection any more.
    shared.quinn.close(CloseCode::Shutdown.var_int(), &[]);
}

impl Shared {
    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    async fn without_links(&self) {
        loop {
            let changed = self.changed.notified();
            if self.links().all.is_empty() {
                return;
            }
            changed.await;
        }
    }

    fn consider(self: &Arc<Self>, incoming: Incoming) {
        self.counts.knocks.fetch_add(1, Ordering::Relaxed);
        let address = canonical(incoming.remote_address());
        let validated = incoming.remote_address_validated();
        let (links, inbound) = {
            let links = self.links();
            (links.all.len(), links.inbound)
        };
        let knock = Knock {
            validated,
            half_open: self.half_open.load(Ordering::Relaxed),
            remembered: self.quinn.open_connections().saturating_sub(links + self.seconds.load(Ordering::Relaxed)),
            inbound,
            loaded: self.outlet.is_loaded(),
        };
        let decision = self.door.lock().unwrap_or_else(PoisonError::into_inner).gate.judge(knock, self.clock.now());
        tracing::trace!(%address, ?knock, ?decision, "knock");
        match decision {
            Decision::Retry => {
                // It can be asked for a token as long as it has not shown one, and then it would be validated.
                if incoming.retry().is_ok() {
                    self.counts.retries.fetch_add(1, Ordering::Relaxed);
                }
            }
            Decision::Refuse => {
                incoming.refuse();
                self.turn_away(address, Refusal::Busy);
            }
            Decision::Accept => match self.accept(incoming) {
                Ok(connecting) => {
                    self.counts.handshakes.fetch_add(1, Ordering::Relaxed);
                    let (shared, place) = (self.clone(), HalfOpen::take(self));
                    self.spawn(async move {
                        // Apart: the task lives as long as the link, and would hold the place for it.
                        match Box::pin(shared.receive(connecting)).await {
                            Ok(Guest::First(link)) => {
                                shared.counts.admitted.fetch_add(1, Ordering::Relaxed);
                                shared.serve(link, Some(place)).await;
                            }
                            Ok(Guest::Second(attached, source, connection)) => {
                                drop(place);
                                Box::pin(shared.serve_bulk(attached, source, connection)).await;
                            }
                            Err(reason) => shared.turn_away(address, reason),
                        }
                    });
                }
                Err(error) => self.turn_away(address, Refusal::of_handshake(&error)),
            },
        }
    }

    /// Begins to answer a handshake.
    fn accept(&self, incoming: Incoming) -> Result<Connecting, ConnectionError> {
        match &self.second_server {
            Some(second) if incoming.orig_dst_cid().len() < DRAWN_ID_BYTES => incoming.accept_with(second.clone()),
            _ => incoming.accept(),
        }
    }

    /// Counts, and tells now and then.
    fn turn_away(&self, address: SocketAddr, reason: Refusal) {
        self.counts.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
        let now = self.clock.now();
        {
            let mut door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
            let told = &mut door.told[reason as usize];
            if told.is_some_and(|told| now.since(told) < REFUSAL_EVERY) {
                return;
            }
            *told = Some(now);
        }
        tracing::warn!(%address, %reason, "turned an inbound connection away");
        self.outlet.try_send(Event::Refused { address, reason });
    }

    fn is_allowed(&self, peer: PeerId) -> bool {
        let allow = self.allow.lock().unwrap_or_else(PoisonError::into_inner);
        allow.as_ref().is_none_or(|allow| allow.contains(&peer))
    }

    fn context<'a>(&'a self, connection: &quinn::Connection, peer: PeerId) -> Option<Context<'a>> {
        let chosen = self.tls.chosen(connection)?;
        let secret = self.secrets.get(chosen);
        Some(Context { own: self.own, incarnation: self.incarnation, cluster: &self.cluster, secret, peer, table: &self.table })
    }

    /// The accepting side of a connection, from the handshake to the admission.
    async fn receive(self: &Arc<Self>, connecting: Connecting) -> Result<Guest, Refusal> {
        let connection = match timeout(limits::HANDSHAKE_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(Refusal::of_handshake(&error)),
            Err(_) => return Err(Refusal::TimedOut),
        };
        let turn_away = |code: CloseCode, reason: Refusal| {
            connection.close(code.var_int(), &[]);
            reason
        };
        let peer = tls::peer_of(&connection).ok_or_else(|| turn_away(CloseCode::NotAdmitted, Refusal::BadKey))?;
        if peer == self.own {
            return Err(turn_away(CloseCode::Duplicate, Refusal::Myself));
        }
        if !self.is_allowed(peer) {
            return Err(turn_away(CloseCode::NotAllowed, Refusal::NotAllowed));
        }
        let context = self.context(&connection, peer).ok_or_else(|| turn_away(CloseCode::NotAdmitted, Refusal::WrongCluster))?;
        let judge = |admitted: &Admitted| match admitted.attach {
            None => Some(None),
            Some(tag) => {
                let link = self.links().all.values().find(|link| link.peer() == peer && link.0.tag == tag).cloned()?;
                // Before the place is taken, so that the link does not give up on streams that are still to come.
                let source = Place::of(link.0.clone());
                // One is enough, and the first connection may be gone by now.
                Attached::take(link).map(|attached| Some((attached, source)))
            }
        };
        let (admitted, second) = match admission::answer(&connection, context, judge).await {
            Ok(admitted) => admitted,
            Err(failure) => return Err(turn_away(failure.close_code(), failure.refusal())),
        };
        if let Some((attached, source)) = second {
            return Ok(Guest::Second(attached, source, connection));
        }
        self.enlist(connection.clone(), peer, admitted, Direction::Inbound)
            .map(Guest::First)
            .map_err(|code| turn_away(code, if code == CloseCode::NotAllowed { Refusal::NotAllowed } else { Refusal::Busy }))
    }

    /// The dialing side of a connection to a peer.
    async fn reach(self: &Arc<Self>, address: SocketAddr, expected: Option<PeerId>) -> Result<Link, DialError> {
        let (connection, peer, admitted) = self.connect(address, expected, self.transport.clone(), None).await?;
        self.enlist(connection.clone(), peer, admitted, Direction::Outbound).map_err(|code| {
            connection.close(code.var_int(), &[]);
            match code {
                CloseCode::Full => DialError::Full,
                CloseCode::NotAllowed => DialError::NotAllowed,
                _ => DialError::Stopped,
            }
        })
    }

    /// The dialing side of any connection, from the first packet to the admission.
    async fn connect(
        self: &Arc<Self>,
        address: SocketAddr,
        expected: Option<PeerId>,
        transport: Arc<TransportConfig>,
        attach: Option<Tag>,
    ) -> Result<(quinn::Connection, PeerId, Admitted), DialError> {
        if expected == Some(self.own) {
            return Err(DialError::Myself);
        }
        if expected.is_some_and(|expected| !self.is_allowed(expected)) {
            return Err(DialError::NotAllowed);
        }
        if !is_dialable(address) {
            return Err(DialError::Unreachable);
        }
        let (crypto, verdict) = self.tls.client(expected);
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(transport);
        if attach.is_some() && self.second_server.is_some() {
            config.initial_dst_cid_provider(Arc::new(|| RandomConnectionIdGenerator::new(DRAWN_ID_BYTES - 1).generate_cid()));
        }
        let connecting = self.quinn.connect_with(config, address, self.tls.server_name()).map_err(|error| match error {
            ConnectError::EndpointStopping => DialError::Stopped,
            _ => DialError::Unreachable,
        })?;
        let connection = match timeout(limits::HANDSHAKE_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                return Err(match verdict.get() {
                    Some(Unwanted::Myself) => DialError::Myself,
                    Some(Unwanted::NotExpected(found)) => DialError::NotExpected { found: *found },
                    None => DialError::of(&error),
                });
            }
            Err(_) => return Err(DialError::TimedOut),
        };
        let give_up = |code: CloseCode, failure: DialError| {
            connection.close(code.var_int(), &[]);
            failure
        };
        let peer = tls::peer_of(&connection).ok_or_else(|| give_up(CloseCode::NotAdmitted, DialError::Handshake))?;
        if !self.is_allowed(peer) {
            return Err(give_up(CloseCode::NotAllowed, DialError::NotAllowed));
        }
        let context = self.context(&connection, peer).ok_or_else(|| give_up(CloseCode::NotAdmitted, DialError::WrongCluster))?;
        let admitted = match admission::ask(&connection, context, attach).await {
            Ok(admitted) => admitted,
            Err(failure) => {
                let code = failure.close_code();
                return Err(give_up(
                    code,
                    match failure {
                        Failure::TimedOut => DialError::TimedOut,
                        Failure::Lost(error) => DialError::of(&error),
                        Failure::Incompatible(theirs) => DialError::Incompatible { ours: Versions::OURS, theirs: Some(theirs) },
                        Failure::Undecodable(_) | Failure::OutOfTurn => DialError::Undecodable,
                        Failure::BadProof | Failure::Unwanted => DialError::NotAdmitted,
                    },
                ));
            }
        };
        Ok((connection, peer, admitted))
    }

    /// Makes a link of an admitted connection, if there is room for one more.
    fn enlist(&self, connection: quinn::Connection, peer: PeerId, admitted: Admitted, direction: Direction) -> Result<Link, CloseCode> {
        let mut links = self.links();
        // Under the lock: a shutdown sees either this link or no link after it.
        if self.stopping.load(Ordering::SeqCst) {
            return Err(CloseCode::Shutdown);
        }
        if !self.is_allowed(peer) {
            return Err(CloseCode::NotAllowed);
        }
        if links.all.len() >= limits::CONNECTIONS_MAX {
            return Err(CloseCode::Full);
        }
        let id = ConnectionId(self.last_id.fetch_add(1, Ordering::Relaxed) + 1);
        let Admitted { incarnation, version, observed, attach: _, table } = admitted;
        let facts = Facts { id, peer, incarnation, version, direction, observed, table, channel_fallback: self.channel_fallback };
        let link = Link(Arc::new(Inner::new(facts, connection, self.channels.clone(), self.inboxes.clone(), self.clock, self.times)));
        links.all.insert(id, link.clone());
        links.inbound += usize::from(direction == Direction::Inbound);
        Ok(link)
    }

    fn strike(&self, link: &Link) {
        let mut links = self.links();
        if links.all.remove(&link.id()).is_some() && link.direction() == Direction::Inbound {
            links.inbound -= 1;
        }
        drop(links);
        self.changed.notify_waiters();
    }
}

/// Who was admitted.
enum Guest {
    /// A peer.
    First(Link),
    /// The second connection of a peer that is connected.
    Second(Attached, Place, quinn::Connection),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_needs_a_runtime() {
        let key = crate::quic::key::NodeKey::generate().unwrap();
        let config = EndpointConfig::new("127.0.0.1:0".parse().unwrap(), key, "test".parse().unwrap());
        assert!(matches!(Endpoint::bind(config), Err(BindError::NoRuntime)));
    }
}
