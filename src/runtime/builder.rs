//! Settings of a node, and its start.

#![expect(clippy::disallowed_methods, reason = "the start reads the clock and starts the protocol thread")]
#![expect(clippy::disallowed_types, reason = "a socket that never sends tells which address leads to the network")]

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use meshwork_channels::identity::{ClusterNameError, base32_encode};
use meshwork_channels::quic::{self, NodeKey};
use meshwork_channels::token::{JoinToken, TokenError};
use meshwork_channels::{Bounded, ChannelId, ChannelSpec, ClusterName, ClusterSecret, PeerId, WallTime, agreement, governor, limits};
use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::app::{Driven, Running, hosted};
use super::driver::{self, Driver};
use super::durable::{self, Durability};
use super::guaranteed::Inbox;
use super::journal::OpenError;
use super::storage::{self, DataDir, StorageError};
use super::watchdog::{self, Pulse};
use super::{COMMANDS_MAX, Node, Shared, Subscription};
use crate::app::Application;
use crate::node::{self, Candidate, ConfigError, Identity};

/// Items that a subscriber may fall behind before it loses some.
const SUBSCRIPTION_MAX: usize = 16_384;
/// The most bulk in flight to one peer on a local network, of a node on the runtime of its program: no thread must wake before it goes on, and so less fills the line. Measured on loopback, urgent messages beside bulk
/// have a p99 of 0.6 ms then, of 1.2 ms with 512 KiB.
const LAN_WINDOW_SHARED_BYTES: u64 = 256 * 1_024;
/// Events that a subscriber may fall behind before it loses some.
const EVENTS_MAX: usize = 4_096;

/// Settings of a node. Made by [`Node::builder`].
pub struct Builder {
    cluster: String,
    joins: Vec<String>,
    listen: Option<SocketAddr>,
    advertise: Option<SocketAddr>,
    data_dir: Option<PathBuf>,
    durability: Option<Durability>,
    key: Option<NodeKey>,
    secrets: Secrets,
    mdns: bool,
    runtime: Option<Handle>,
    config: node::Config,
    channels: Vec<ChannelSpec>,
    channel_fallback: Option<ChannelId>,
    events: broadcast::Sender<node::Event>,
}

/// Tokens hold secrets, so what to join is told by number.
impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("cluster", &self.cluster)
            .field("joins", &self.joins.len())
            .field("listen", &self.listen)
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

enum Secrets {
    /// That of a token, else that of the user.
    Found,
    Given(Vec<ClusterSecret>),
    None,
}

/// Why a node could not start. Nothing runs then.
#[derive(Debug)]
pub enum StartError {
    /// The name of the cluster cannot be used.
    ClusterName(ClusterNameError),
    /// The configuration cannot be used.
    Config(ConfigError),
    /// What was given to join is neither a token nor an address.
    Join {
        /// The text, or `a token`, which is never shown.
        given: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A token admits to another cluster than the one that was named.
    OtherCluster {
        /// The name given to the builder.
        named: String,
        /// The name in the token.
        token: String,
    },
    /// A file or folder could not be used.
    Storage(StorageError),
    /// The replicated state in the data folder cannot be used.
    State(OpenError),
    /// The socket could not be opened, or admission is off on an address that others reach.
    Bind(quic::BindError),
    /// The system gave no thread or no random key.
    System(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::ClusterName(error) => error.fmt(f),
            StartError::Config(error) => write!(f, "configuration: {error}"),
            StartError::Join { given, problem } => write!(f, "cannot join `{given}`: {problem}"),
            StartError::OtherCluster { named, token } => {
                write!(f, "the token admits to the cluster `{token}`, but `{named}` was named; name that one, or none")
            }
            StartError::Storage(error) => error.fmt(f),
            StartError::State(error) => {
                error.fmt(f)?;
                match error {
                    OpenError::Damaged { path, .. } => write!(
                        f,
                        "; put a copy of the folder {} in its place, or move it away to start without what it holds: other nodes give back what reached them",
                        path.parent().unwrap_or(path).display()
                    ),
                    OpenError::Config(_) | OpenError::Storage(_) => Ok(()),
                }
            }
            StartError::Bind(error) => error.fmt(f),
            StartError::System(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for StartError {}

impl From<StorageError> for StartError {
    fn from(error: StorageError) -> Self {
        StartError::Storage(error)
    }
}

impl Builder {
    pub(super) fn new(cluster: String) -> Self {
        Builder {
            cluster,
            joins: Vec::new(),
            listen: None,
            advertise: None,
            data_dir: None,
            durability: None,
            key: None,
            secrets: Secrets::Found,
            mdns: true,
            runtime: None,
            config: node::Config::default(),
            channels: Vec::new(),
            channel_fallback: None,
            events: broadcast::Sender::new(EVENTS_MAX),
        }
    }

    /// What happens in the cluster from the start on, the first dials included: [`Node::events`] begins later.
    pub fn events(&self) -> Subscription<node::Event> {
        Subscription::new(self.events.subscribe())
    }

    /// Joins through a node at this address (`host:port`), or with a token that another node printed. Several can be given; each is tried
    /// for ever, so the order in which nodes start does not matter.
    pub fn join(mut self, address_or_token: impl Into<String>) -> Self {
        self.joins.push(address_or_token.into());
        self
    }

    /// Listens on this UDP address. Default: a free port on every IPv4 interface, or on loopback without a secret.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// Tells others to reach this node at this address. Default: the listening address, and where that is "every interface", the one that leads
    /// to the network.
    pub fn advertise(mut self, address: SocketAddr) -> Self {
        self.advertise = Some(address);
        self
    }

    /// Keeps key, incarnation, known peers and the replicated state in this folder, so that the node is the same after a restart. Default: in memory.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// How the replicated state is kept in the data folder. Default: [`Durability::DEFAULT`] with a data folder, else not at all.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Uses this key, and none from the data folder.
    pub fn key(mut self, key: NodeKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Admits and is admitted by this secret. Given several times, the first is used and all are accepted (at most four), for rotation. Default: that of a join token, else one that
    /// is made once for this user and cluster and kept in the state folder.
    pub fn secret(mut self, secret: ClusterSecret) -> Self {
        match &mut self.secrets {
            Secrets::Given(secrets) => secrets.push(secret),
            Secrets::Found | Secrets::None => self.secrets = Secrets::Given(vec![secret]),
        }
        self
    }

    /// Runs without admission, for tests: whoever reaches the node is let in. It listens on loopback only and refuses anything else.
    pub fn insecure_without_secret(mut self) -> Self {
        self.secrets = Secrets::None;
        self
    }

    /// Whether to find others, and be found, by mDNS on the local network. Default: yes.
    pub fn mdns(mut self, on: bool) -> Self {
        self.mdns = on;
        self
    }

    /// Runs the node on this runtime, which needs its drivers for time and I/O, and not on a thread of its own. Messages then change threads less often, so they take a fraction of the
    /// time while little happens; but code of the application that blocks this runtime stops the node too, and for two seconds or more makes it look dead to others. The node
    /// ends with the runtime. Default: a thread of its own.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// The configuration of the protocols. Default: the one for local networks.
    pub fn config(mut self, config: node::Config) -> Self {
        self.config = config;
        self
    }

    /// Defines a channel beside the built-in ones, for messages to one peer ([`Node::send`], [`Node::sender`], [`Node::receiver`]). Given several times, all
    /// of them; at most 32, with 32 lanes and 64 MiB of queues together.
    ///
    /// Nodes tell each other at connecting which channels they have. What is sent to a peer without it, or with it on other terms, is refused with
    /// [`ChannelError`](super::ChannelError).
    ///
    /// ```no_run
    /// # async fn run(peer: meshwork::PeerId) -> Result<(), Box<dyn std::error::Error>> {
    /// use meshwork::{ChannelSpec, Node};
    ///
    /// let node = Node::builder("my-cluster").channel(ChannelSpec::new("video").lanes(2)).channel(ChannelSpec::telemetry()).start().await?;
    /// node.sender(peer, "video").await?.send("frame").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn channel(mut self, spec: ChannelSpec) -> Self {
        self.channels.push(spec);
        self
    }

    /// Sends on this built-in channel what is meant for a defined one that the peer does not have. Default: it is refused. Where messages are acknowledged,
    /// there is no fallback.
    pub fn channel_fallback(mut self, channel: impl Into<ChannelId>) -> Self {
        self.channel_fallback = Some(channel.into());
        self
    }

    /// Starts the node. It listens when this returns, and joins from then on: [`Node::events`] tells when it has.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing runs then.
    pub async fn start(self) -> Result<Node, StartError> {
        self.launch(None).await
    }

    /// Starts the node with an [`Application`] beside it, which runs where the node does. The handle passes inputs to the application and its outputs back; the node is in
    /// it. What other nodes broadcast, send and write reaches the application and, but for messages of guaranteed delivery, the subscriptions of the node too; a channel with a
    /// [`Node::receiver`] or a [`Node::on_message`] of its own passes the application by.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing runs then.
    pub async fn start_with<A>(self, app: A) -> Result<Running<A>, StartError>
    where
        A: Application<Input: Send + 'static, Output: Clone + Send> + Send + 'static,
    {
        let mut seed = [0; 8];
        quic::system_random(&mut seed).map_err(|error| StartError::System(error.to_string()))?;
        let (app, running) = hosted(app, u64::from_le_bytes(seed));
        self.launch(Some(app)).await.map(running)
    }

    async fn launch(self, app: Option<Box<dyn Driven>>) -> Result<Node, StartError> {
        let mut named: ClusterName = self.cluster.parse().map_err(StartError::ClusterName)?;
        let channels = agreement::with_defined(self.channels)
            .map_err(|error| StartError::Config(ConfigError { field: error.field.to_owned(), problem: error.to_string() }))?;
        self.config.check().map_err(StartError::Config)?;
        let refused = |field: &str, problem: String| StartError::Config(ConfigError { field: field.to_owned(), problem });
        if let Some((address, why)) = self.advertise.and_then(|address| Some((address, why_unreachable(address)?))) {
            return Err(refused("advertise", format!("nobody can reach this node at {address}: {why}")));
        }
        if self.data_dir.as_ref().is_some_and(|dir| dir.as_os_str().is_empty()) {
            return Err(refused("data_dir", "the name of the folder is empty".to_owned()));
        }
        let acknowledged = channels.channels().iter().filter(|spec| spec.reliability.is_acknowledged()).map(|spec| spec.id).collect();
        let wall = WallTime::from_micros(
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX)),
        );

        let mut candidates = Vec::new();
        let mut token_secrets = Vec::new();
        for join in &self.joins {
            let join = join.trim();
            if looks_like_a_token(join) {
                let token = JoinToken::parse(join).and_then(|token| token.check(wall).map(|()| token));
                let token = token.map_err(|error: TokenError| StartError::Join { given: "a token".into(), problem: error.to_string() })?;
                if named.as_str() == Node::CLUSTER_OF_TOKEN {
                    named = token.cluster.clone();
                } else if named != token.cluster {
                    return Err(StartError::OtherCluster { named: named.to_string(), token: token.cluster.to_string() });
                }
                token_secrets.push(token.secret.clone());
                candidates.extend(token_candidates(&token));
            } else {
                let addresses = resolve(join).await?;
                candidates.extend(addresses.into_iter().map(|address| Candidate { address, peer: None, keep: true }));
            }
        }
        if named.as_str() == Node::CLUSTER_OF_TOKEN {
            let problem = "the name of the cluster is to come from a join token, and none was given".to_owned();
            return Err(StartError::Join { given: self.joins.join(", "), problem });
        }
        let secrets = match self.secrets {
            Secrets::Given(secrets) => secrets,
            Secrets::None => Vec::new(),
            Secrets::Found if !token_secrets.is_empty() => {
                token_secrets.dedup();
                token_secrets
            }
            Secrets::Found => vec![storage::user_secret(&named)?],
        };

        let data_dir = self.data_dir.as_deref().map(DataDir::open).transpose()?;
        let key = match (self.key, &data_dir) {
            (Some(key), _) => key,
            (None, Some(dir)) => dir.key()?,
            (None, None) => NodeKey::generate().map_err(|error| StartError::System(error.to_string()))?,
        };
        let incarnation = match &data_dir {
            Some(dir) => dir.next_incarnation()?,
            None => storage::wall_clock_incarnation(),
        };
        let peer = key.peer_id();
        if let Some(dir) = &data_dir {
            candidates.extend(dir.peers().into_iter().map(|(peer, address)| Candidate { address, peer: Some(peer), keep: false }));
        }

        let kept = match (&self.data_dir, self.durability) {
            (Some(dir), durability) => durable::open(dir, durability.unwrap_or(Durability::DEFAULT)).await.map_err(StartError::State)?,
            (None, None | Some(Durability::None)) => None,
            (None, Some(_)) => {
                return Err(refused("durability", "the state is kept in a data folder, and none is named".to_owned()));
            }
        };

        let default_ip = if secrets.is_empty() { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
        let listen = self.listen.unwrap_or(SocketAddr::from((default_ip, 0)));
        let tag = base32_encode(&quic::derived(secrets.first(), &named, "mdns")[..10]);
        let digest_key = quic::derived(secrets.first(), &named, "digest");
        let digest_key = std::array::from_fn(|index| digest_key[index]);
        // By the name of the cluster alone: what was signed holds on when its secret is changed.
        let signed_in = quic::derived(None, &named, "signed");
        let params = self.config.build_signed(Arc::new(key.clone()), signed_in).map_err(StartError::Config)?.with_channels(&channels);
        let params = node::Params { state: params.state.with_digest_key(digest_key), ..params };
        let token_secret = secrets.first().cloned();
        let origin = Instant::now();
        let channel_fallback = self.channel_fallback;
        if let Some(channel) = channel_fallback.filter(|channel| !node::is_application(*channel)) {
            return Err(refused("channel_fallback", format!("`{channel}` is no built-in channel on which applications send")));
        }
        let governor = match self.runtime {
            Some(_) => governor::Config { lan_window: LAN_WINDOW_SHARED_BYTES, ..governor::Config::default() }
                .build()
                .expect("a window between the least and the largest"),
            None => governor::Params::default(),
        };
        let config = quic::EndpointConfig {
            governor,
            channels,
            channel_fallback,
            secrets,
            incarnation,
            origin,
            ..quic::EndpointConfig::new(listen, key, named.clone())
        };

        let journal = kept.as_ref().map(|(keeper, _)| keeper.status());
        let channels = params.channels.clone();
        let (commands, command_queue) = mpsc::channel(COMMANDS_MAX);
        let (writes, write_queue) = mpsc::channel(COMMANDS_MAX);
        let pulse = Arc::new(Pulse::default());
        let inbox = Arc::new(Inbox::default());
        let given_up = Arc::new(super::calls::GivenUp::default());
        let advertise = self.advertise;
        let seeds: Vec<SocketAddr> = candidates.iter().map(|candidate| candidate.address).collect();
        let streams = driver::Streams {
            events: self.events,
            deliveries: broadcast::Sender::new(SUBSCRIPTION_MAX),
            messages: broadcast::Sender::new(SUBSCRIPTION_MAX),
            changes: broadcast::Sender::new(SUBSCRIPTION_MAX),
            services: broadcast::Sender::new(SUBSCRIPTION_MAX),
        };
        let (ready, started) = oneshot::channel();
        let make = {
            let (streams, pulse, inbox, commands) = (streams.clone(), pulse.clone(), inbox.clone(), commands.downgrade());
            let given_up = given_up.clone();
            let mdns = self.mdns;
            move || {
                let (endpoint, endpoint_events) = match quic::Endpoint::bind(config) {
                    Ok(bound) => bound,
                    Err(error) => {
                        let _ = ready.send(Err(StartError::Bind(error)));
                        return None;
                    }
                };
                let listening = endpoint.local_address();
                let address = advertise.unwrap_or_else(|| reachable_address(listening, &seeds));
                let identity = Identity { peer, incarnation, address };
                let mdns = mdns.then_some((tag, listening));
                let parts = driver::Parts {
                    origin,
                    identity,
                    params,
                    endpoint,
                    endpoint_events,
                    command_queue,
                    write_queue,
                    streams,
                    pulse,
                    inbox,
                    given_up,
                    data_dir,
                    kept,
                    candidates,
                    mdns,
                    app,
                };
                let driver = Driver::new(parts, commands);
                let _ = ready.send(Ok((identity, listening)));
                Some(driver)
            }
        };
        match self.runtime {
            None => driver::start_thread(peer, make).map_err(StartError::System)?,
            Some(runtime) => {
                let _inside = runtime.enter();
                if let Some(driver) = make() {
                    runtime.spawn(driver.run());
                }
            }
        }
        watchdog::start(peer, &pulse).map_err(StartError::System)?;
        let (identity, listening) = started.await.map_err(|_| StartError::System("the protocol thread ended before it began".into()))??;
        let token = token_secret.map(|secret| {
            let expires = Some(wall + limits::TOKEN_LIFE);
            let (seeds, peers) = (Bounded::first_of([identity.address]), Bounded::first_of([identity.peer]));
            JoinToken { cluster: named.clone(), secret, expires, seeds, peers }.encode()
        });
        Ok(Node {
            shared: Arc::new(Shared {
                cluster: named,
                identity,
                listening,
                token,
                channels,
                acknowledged,
                commands,
                writes,
                events: streams.events.downgrade(),
                deliveries: streams.deliveries.downgrade(),
                messages: streams.messages.downgrade(),
                changes: streams.changes.downgrade(),
                services: streams.services.downgrade(),
                pulse,
                inbox,
                given_up,
                journal,
            }),
        })
    }
}

impl Node {
    /// Given as the name of the cluster, takes the name from the join token.
    pub const CLUSTER_OF_TOKEN: &'static str = "*";
}

/// Whether a text is meant as a token, right or wrong; then it is never shown. An address has a colon, a token has none.
fn looks_like_a_token(text: &str) -> bool {
    !text.contains(':') && text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("mesh"))
}

/// Where a token says that the cluster is. Identities belong to addresses by position; without them, whoever proves to know the secret will do.
fn token_candidates(token: &JoinToken) -> Vec<Candidate> {
    let peers: &[PeerId] = &token.peers;
    let pinned = peers.len() == token.seeds.len();
    token
        .seeds
        .iter()
        .enumerate()
        .map(|(index, address)| Candidate { address: *address, peer: if pinned { peers.get(index).copied() } else { None }, keep: true })
        .collect()
}

/// The addresses behind `host:port`.
async fn resolve(join: &str) -> Result<Vec<SocketAddr>, StartError> {
    if let Ok(address) = SocketAddr::from_str(join) {
        return Ok(vec![address]);
    }
    let problem = |problem: String| StartError::Join { given: join.chars().take(80).flat_map(char::escape_debug).collect(), problem };
    if !join.contains(':') {
        return Err(problem("an address is `host:port`, a token begins with `mesh1`".into()));
    }
    let host = join.to_owned();
    // The system resolver blocks; it gets a thread of its own, so that any executor can start a node.
    let (reply, answer) = oneshot::channel();
    std::thread::Builder::new()
        .name("meshwork-resolve".into())
        .spawn(move || {
            let _ = reply.send(host.to_socket_addrs().map(|addresses| addresses.filter(SocketAddr::is_ipv4).take(8).collect::<Vec<_>>()));
        })
        .map_err(|error| problem(error.to_string()))?;
    match answer.await {
        Ok(Ok(addresses)) if addresses.is_empty() => Err(problem("the name has no IPv4 address".into())),
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(problem(error.to_string())),
        Err(_) => Err(problem("the resolver gave no answer".into())),
    }
}

/// What makes an address one that nobody can send to.
fn why_unreachable(address: SocketAddr) -> Option<&'static str> {
    match address.ip() {
        ip if ip.is_unspecified() => Some("it stands for every interface of whoever reads it"),
        ip if ip.is_multicast() || ip == Ipv4Addr::BROADCAST => Some("it belongs to no node alone"),
        _ if address.port() == 0 => Some("its port is 0"),
        _ => None,
    }
}

/// The address at which others reach a socket that listens on every interface: the source address of packets to a seed, else to the multicast
/// group of mDNS. Nothing is sent for it.
fn reachable_address(listening: SocketAddr, seeds: &[SocketAddr]) -> SocketAddr {
    if !listening.ip().is_unspecified() {
        return listening;
    }
    let mdns = SocketAddr::from((Ipv4Addr::new(224, 0, 0, 251), 5353));
    let source_towards = |to: &SocketAddr| -> Option<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let ip = seeds.iter().chain([&mdns]).filter_map(source_towards).find(|ip| !ip.is_unspecified());
    SocketAddr::new(ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), listening.port())
}
