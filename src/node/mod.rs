//! The node: a pure state machine that composes overlay, replicated state, requests and connections with one routing loop.
//!
//! It reads no clock, draws from no system generator, starts nothing and touches no socket. A driver feeds it [`Input`]s, carries out its
//! [`Action`]s without ever waiting, and wakes it at [`Node::next_deadline`]. Two drivers exist: the runtime with tokio and quinn, and the
//! simulator. Both drive this very type; nothing that decides anything lives in a driver.
//!
//! ```text
//! Input ─▶ links (who is connected) ─▶ overlay (who is there, who is a neighbor, what was broadcast) ─▶ state (what converges) ─▶ Action
//! ```
//!
//! Invariants: the application sees a broadcast at most once in a life of the node; nothing is sent on a connection that is not admitted; after
//! [`Node::leave`] nobody is dialed. What a peer can make it store: what it can make the parts store (each states its bounds), plus
//! [`COMPLAINTS_MAX`] entries that keep complaints about peers to one a second.

mod api;
mod choice;
mod config;
pub mod guaranteed;
pub mod links;
mod requests;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::dial::{ConnectionId, DialFailure};
use meshwork_channels::frame::Frame;
use meshwork_channels::reliable::{self, Sequence};
use meshwork_channels::{Bounded, ChannelId, DecodeError, Misbehavior, Now, PeerId, Time, Timers, decode, frame, limits, random};
use meshwork_crdt::Stamp;
use meshwork_crdt::replica::{self, SetError};
use meshwork_overlay::plumtree::BroadcastError;
use meshwork_overlay::swim::Status;
use rand::RngExt;

pub use api::{
    Action, CallError, CallId, Candidate, CloseReason, Delivery, Event, Input, Member, MessageId, Refusal, RequestToken, Settlement,
};
#[cfg(feature = "net")]
pub(crate) use wire::MESSAGE;

pub use choice::{BULK_BYTES, Hint, choose};
pub use config::{Config, ConfigError, Kind, Links as LinksConfig, Params, UnknownKind};

use guaranteed::Guaranteed;
use links::{Links, Notice};
use requests::{Calls, Seen, Verdict};

/// Pairs of peer and rule whose complaints are held back to one a second.
pub const COMPLAINTS_MAX: usize = 1_024;

/// How often a node without neighbors tries to find some.
const ALONE_PERIOD: Duration = Duration::from_secs(1);
/// How often connections that nobody needs are looked for.
const PRUNE_PERIOD: Duration = Duration::from_secs(5);
/// Requests of our own that may be under way at once.
const CALLS_MAX: usize = 65_536;
/// How long a connection may take that the application waits for: longer than two dials that nobody answers.
const CONNECT_PATIENCE: Duration = Duration::from_secs(15);

/// Who a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its public key.
    pub peer: PeerId,
    /// Which life of it: larger than that of every earlier one.
    pub incarnation: u64,
    /// Where others reach it.
    pub address: SocketAddr,
}

/// A broadcast that is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Which message.
    pub id: MessageId,
    /// Neighbors at that moment. With none, the message waits for the first one for as long as payloads are kept.
    pub neighbors: usize,
}

/// A message that cannot be sent. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The payload is too large.
    TooLarge {
        /// Its bytes.
        len: usize,
        /// The most that are allowed.
        len_max: usize,
    },
    /// Applications cannot send on this channel.
    UnknownChannel(ChannelId),
    /// The channel makes another promise: those for messages that are acknowledged carry nothing else, and no other defined channel carries them.
    Unsuited(ChannelId),
    /// The message is addressed to this very node.
    Myself,
    /// Nobody here knows how to reach this peer.
    UnknownPeer(PeerId),
    /// Too many requests wait for answers.
    TooManyCalls,
    /// As much as may be is kept for the peer already, because it has not taken it. Try again when something is settled.
    Full,
    /// Messages of guaranteed delivery are under way to or from as many peers as may be.
    TooManyPeers,
    /// The node is leaving.
    Leaving,
}

impl std::fmt::Display for SendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SendError::TooLarge { len, len_max } => write!(f, "the payload has {len} bytes; {len_max} are allowed"),
            SendError::UnknownChannel(channel) => write!(f, "applications cannot send on the channel `{channel}`"),
            SendError::Unsuited(channel) => write!(f, "the reliability of the channel `{channel}` is not what this call is for"),
            SendError::Myself => f.write_str("a node cannot send to itself"),
            SendError::UnknownPeer(peer) => write!(f, "no address of {} is known", peer.short()),
            SendError::TooManyCalls => write!(f, "{CALLS_MAX} requests wait for answers already"),
            SendError::Full => f.write_str("the window to the peer is full; it has to take something first"),
            SendError::TooManyPeers => write!(f, "messages are under way to or from {} peers already", guaranteed::PEERS_MAX),
            SendError::Leaving => f.write_str("this node is leaving the cluster"),
        }
    }
}

impl std::error::Error for SendError {}

/// Whether the node has company.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connectivity {
    /// It has never had a neighbor.
    Alone,
    /// It has neighbors.
    Connected,
    /// It had neighbors and lost the last one.
    Isolated,
}

impl Connectivity {
    /// A short stable name for logs and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Connectivity::Alone => "alone",
            Connectivity::Connected => "connected",
            Connectivity::Isolated => "isolated",
        }
    }
}

/// What happened inside a node, counted since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Broken rules by name, over all peers.
    pub misbehaved: BTreeMap<&'static str, u64>,
    /// Frames and datagrams of kinds that this version does not know.
    pub skipped: u64,
    /// Broadcasts handed to the application.
    pub delivered: u64,
    /// Peers that were too slow for a channel that may not lose frames.
    pub stalled: u64,
    /// Frames that were given up because their peer could not be reached or too many waited for it.
    pub dropped: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Alone,
    Prune,
}

/// A node of a cluster, without clock, socket or thread.
#[derive(Debug)]
pub struct Node {
    identity: Identity,
    links: Links,
    overlay: meshwork_overlay::State<PeerId>,
    state: replica::State,
    calls: Calls,
    seen: Seen,
    guaranteed: Guaranteed,
    /// The channels that the application defined, in the order of their numbers.
    channels: Arc<[ChannelId]>,
    timers: Timers<Timer>,
    generator: random::Generator,
    connectivity: Connectivity,
    leaving: bool,
    counters: Counters,
    complaints: BTreeMap<(PeerId, &'static str), Time>,
    // Reused buffers, empty between inputs.
    notices: Vec<Notice>,
    overlay_actions: Vec<meshwork_overlay::Action<PeerId>>,
    state_actions: Vec<replica::Action>,
}

impl Node {
    /// A node that knows nobody yet. `seed` feeds every generator; `now` starts its timers.
    pub fn new(identity: Identity, params: Params, seed: u64, now: Now) -> Self {
        let Identity { peer, incarnation, address } = identity;
        let mut generator = random::generator(seed, "node", 0);
        let mut timers = Timers::new();
        timers.set(Timer::Alone, now.time + ALONE_PERIOD.mul_f64(generator.random_range(0.5..1.5)));
        timers.set(Timer::Prune, now.time + PRUNE_PERIOD.mul_f64(generator.random_range(0.5..1.5)));
        Node {
            links: Links::new(peer, params.links, random::hash(&[seed, 1])),
            overlay: meshwork_overlay::State::new(peer, incarnation, address, params.overlay, random::hash(&[seed, 2]), now.time),
            state: replica::State::new(peer, params.state, random::hash(&[seed, 3])),
            identity,
            calls: Calls::default(),
            seen: Seen::default(),
            guaranteed: Guaranteed::new(params.guaranteed),
            channels: params.channels,
            timers,
            generator,
            connectivity: Connectivity::Alone,
            leaving: false,
            counters: Counters::default(),
            complaints: BTreeMap::new(),
            notices: Vec::new(),
            overlay_actions: Vec::new(),
            state_actions: Vec::new(),
        }
    }

    /// Handles one input; appends what was decided.
    pub fn handle(&mut self, input: Input, now: Now, actions: &mut Vec<Action>) {
        match input {
            Input::Connected { connection, peer, incarnation, address, direction } => {
                self.links.on_connected(connection, peer, incarnation, address, direction, now.time, &mut self.notices, actions);
            }
            Input::Disconnected { connection, peer, unneeded } => {
                self.links.on_disconnected(connection, peer, unneeded, now.time, &mut self.notices, actions);
            }
            Input::DialFailed { address, failure } => {
                if matches!(failure, DialFailure::WrongCluster | DialFailure::NotAdmitted | DialFailure::NotExpected) {
                    actions.push(Action::Event(Event::DialFailed(address, failure)));
                }
                self.links.on_dial_failed(address, failure, now.time, &mut self.notices, actions);
            }
            Input::Frame { connection, channel, frame } => self.on_frame(connection, channel, frame, now, actions),
            Input::Datagram { connection, bytes } => self.on_datagram(connection, &bytes, now, actions),
            Input::Discovered { source: _, candidates } => {
                let me = self.identity.address;
                let others =
                    candidates.into_iter().filter(|candidate| candidate.address != me && candidate.peer != Some(self.identity.peer));
                self.links.on_discovered(others.collect(), now.time, &mut self.notices, actions);
            }
            Input::Stalled { connection } => {
                if let Some(peer) = self.links.on_slow(connection, now.time) {
                    self.counters.stalled += 1;
                    actions.push(Action::Event(Event::SlowPeer(peer)));
                    // No neighbor from now on, even if another connection to it still stands.
                    self.notices.push(Notice::Down { peer, broken: false, lost: false });
                    actions.push(Action::Close { connection, reason: CloseReason::TooSlow });
                }
            }
            Input::Misbehaved { connection, what } => {
                if let Some(peer) = self.links.peer_of(connection) {
                    // The driver has closed it where that was called for.
                    self.on_misbehaved(peer, None, what, now, actions);
                }
            }
            Input::Used { connection } => {
                if let Some(peer) = self.links.peer_of(connection) {
                    self.links.received(peer, now.time);
                }
            }
            // What may be lost was.
            Input::Refused { call: CallId::NOBODY } => {}
            Input::Refused { call } => {
                // One that went out before may have arrived: it stays open for the answer.
                if self.calls.times_sent(call).is_none_or(|times| times <= 1) {
                    self.calls.forget(call);
                    actions.push(Action::Answer { call, outcome: Err(CallError::Full) });
                }
            }
            Input::Taken { from, incarnation, channel, sequence } => {
                self.guaranteed.on_taken(from, incarnation, channel, sequence, now.time, actions);
            }
            Input::Disagreed { connection, channel } => {
                if let Some(peer) = self.links.peer_of(connection) {
                    self.guaranteed.on_disagreed(peer, channel, actions);
                }
            }
            Input::Respond { token, answer } => self.on_respond(token, answer, now, actions),
            Input::DeadlineReached => self.on_deadline(now, actions),
        }
        self.route(now, actions);
    }

    /// When [`Input::DeadlineReached`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        [
            self.timers.next_deadline(),
            self.links.next_deadline(),
            self.calls.next_deadline(),
            self.guaranteed.next_deadline(),
            self.overlay.next_deadline(),
            self.state.next_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Broadcasts a payload to every node of the cluster but this one, on an application channel.
    ///
    /// Every node that is connected to this one, directly or through others, from now until the message has spread gets it exactly once; nodes that are cut off
    /// get it when they are linked again, as long as some node still holds the payload.
    ///
    /// # Errors
    ///
    /// [`SendError`] when the payload is larger than [`limits::BROADCAST_BYTES_MAX`], the channel is not for applications, or the node is leaving.
    /// Nothing was sent then.
    pub fn broadcast(&mut self, channel: ChannelId, payload: Bytes, now: Now, actions: &mut Vec<Action>) -> Result<Sent, SendError> {
        self.check_channel(channel)?;
        // Whoever passes a broadcast on needs its channel, and not every node has one that was defined.
        if channel.is_defined() {
            return Err(SendError::UnknownChannel(channel));
        }
        let id = self
            .overlay
            .broadcast(channel, payload, now.time, &mut self.overlay_actions)
            .map_err(|BroadcastError::TooLarge { len, len_max }| SendError::TooLarge { len, len_max })?;
        self.route(now, actions);
        Ok(Sent { id, neighbors: self.neighbors().len() })
    }

    /// Sends a payload to one peer, dialing it if need be. It arrives at most once, in order with others on the same channel while
    /// the connection stands.
    ///
    /// The driver ends the call once the payload is queued on a connection; [`Action::Answer`] tells that it could not be.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing was sent then.
    pub fn send(
        &mut self,
        to: PeerId,
        channel: ChannelId,
        payload: &[u8],
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Result<CallId, SendError> {
        self.check_channel(channel)?;
        self.check_direct(to, payload)?;
        let call = self.calls.next_id();
        let frame = frame::encode(wire::MESSAGE, payload);
        let address = self.address_of(to);
        self.links.send(to, address, channel, frame, Some(call), now.time, &mut self.notices, actions);
        self.route(now, actions);
        Ok(call)
    }

    /// Sends a payload to one peer with guaranteed delivery: it is kept until the application of the peer took it, and sent again on the next
    /// connection as often as it takes. While both processes live it arrives exactly once, in order with others of this kind on the same channel; if the peer starts
    /// anew before it acknowledged, it arrives again under the same incarnation and sequence. After `ttl` it is not sent any more, if it was not sent before.
    ///
    /// [`Action::Settled`] tells how it ended.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing was kept or sent then. After [`SendError::Full`] it can be tried again when something to this peer was settled.
    pub fn send_guaranteed(
        &mut self,
        to: PeerId,
        channel: ChannelId,
        payload: Bytes,
        ttl: Option<Duration>,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Result<Sequence, SendError> {
        self.check_direct(to, &payload)?;
        if !self.guaranteed.has(channel) {
            return Err(if self.takes(channel) { SendError::Unsuited(channel) } else { SendError::UnknownChannel(channel) });
        }
        let link = self.links.link_of(to);
        let sent = self.guaranteed.send(to, link, channel, payload, ttl, now.time, actions);
        self.route(now, actions);
        sent
    }

    /// Connects to one peer if it is not connected, so that messages can go past this node, straight to the connection. [`Action::Answer`] tells when it stands.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing was done then.
    pub fn connect(&mut self, to: PeerId, channel: ChannelId, now: Now, actions: &mut Vec<Action>) -> Result<CallId, SendError> {
        self.check_channel(channel)?;
        self.check_direct(to, &[])?;
        if self.calls.len() >= CALLS_MAX {
            return Err(SendError::TooManyCalls);
        }
        let call = self.calls.next_id();
        if self.links.connection_of(to).is_some() {
            actions.push(Action::Answer { call, outcome: Ok(Bytes::new()) });
            return Ok(call);
        }
        // A call without a frame: all that it waits for is the connection.
        self.calls.open(call, to, Bytes::new(), CONNECT_PATIENCE, now.time);
        let address = self.address_of(to);
        self.links.wait_for(to, address, now.time, &mut self.notices, actions);
        self.route(now, actions);
        Ok(call)
    }

    /// The connection to a peer.
    pub fn connection_of(&self, peer: PeerId) -> Option<ConnectionId> {
        self.links.connection_of(peer)
    }

    /// Asks one peer, dialing it if need be, and waits at most `timeout` for the answer. If the connection breaks the request is sent again; the
    /// peer's handler runs once all the same.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing was sent then. Later failures are told by [`Action::Answer`].
    pub fn request(
        &mut self,
        to: PeerId,
        payload: Bytes,
        timeout: Duration,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Result<CallId, SendError> {
        self.check_direct(to, &payload)?;
        if self.calls.len() >= CALLS_MAX {
            return Err(SendError::TooManyCalls);
        }
        let call = self.calls.next_id();
        let frame = wire::encode(wire::REQUEST, &wire::Request { id: call.0, payload });
        self.calls.open(call, to, frame, timeout, now.time);
        if self.links.connection_of(to).is_some() {
            self.send_call(call, to, now, actions);
        } else {
            let address = self.address_of(to);
            self.links.wait_for(to, address, now.time, &mut self.notices, actions);
        }
        self.route(now, actions);
        Ok(call)
    }

    /// Gives a call up: it is forgotten at once, and [`Action::Answer`] will not come for it. A peer that was asked is told if it is connected, so that its
    /// handler can stop; it may have acted all the same. A call that is over, or that waits for no answer, is none of this.
    pub fn cancel(&mut self, call: CallId, now: Now, actions: &mut Vec<Action>) {
        if let Some(asked) = self.calls.cancel(call) {
            self.send_cancel(call, asked, now, actions);
            self.route(now, actions);
        }
    }

    /// Writes a key of the replicated state. The write is visible here at once and everywhere soon.
    ///
    /// # Errors
    ///
    /// [`SetError`]; nothing was changed then.
    pub fn set(&mut self, key: &str, value: Bytes, now: Now, actions: &mut Vec<Action>) -> Result<Stamp, SetError> {
        let stamp = self.state.set(key, value, now, &mut self.state_actions)?;
        self.route(now, actions);
        Ok(stamp)
    }

    /// Removes a key of the replicated state; none when it has no value here.
    ///
    /// # Errors
    ///
    /// [`SetError`]; nothing was changed then.
    pub fn remove(&mut self, key: &str, now: Now, actions: &mut Vec<Action>) -> Result<Option<Stamp>, SetError> {
        let stamp = self.state.remove(key, now, &mut self.state_actions)?;
        self.route(now, actions);
        Ok(stamp)
    }

    /// The value of a key of the replicated state.
    pub fn get(&self, key: &str) -> Option<&Bytes> {
        self.state.get(key)
    }

    /// Says goodbye to the cluster. The driver goes on for a moment so that it is heard, then closes the connections. From now on nobody is
    /// dialed, nobody is let in, and calls of the application are refused.
    pub fn leave(&mut self, now: Now, actions: &mut Vec<Action>) {
        if !self.leaving {
            self.leaving = true;
            self.overlay.handle(meshwork_overlay::Input::Leave, now.time, &mut self.overlay_actions);
            self.route(now, actions);
            self.links.leave();
        }
    }

    /// The public key of this node.
    pub fn id(&self) -> PeerId {
        self.identity.peer
    }

    /// Which life of the node this is.
    pub fn incarnation(&self) -> u64 {
        self.identity.incarnation
    }

    /// Where others reach this node.
    pub fn address(&self) -> SocketAddr {
        self.identity.address
    }

    /// The members of the cluster, this node included, in the order of their identities; those that failed or left lately too.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        let me = self.overlay.membership().me();
        let others = || self.overlay.membership().view().members().copied();
        others().take_while(move |member| member.peer < me.peer).chain([me]).chain(others().skip_while(move |member| member.peer < me.peer))
    }

    /// The neighbors in the overlay, in order.
    pub fn neighbors(&self) -> &[PeerId] {
        self.overlay.topology().neighbors()
    }

    /// The peers that are connected, with the connection that carries what we send.
    pub fn connections(&self) -> impl Iterator<Item = (PeerId, ConnectionId)> {
        self.links.connections()
    }

    /// Whether the node has company.
    pub fn connectivity(&self) -> Connectivity {
        self.connectivity
    }

    /// The replicated state.
    pub fn state(&self) -> &replica::State {
        &self.state
    }

    /// The overlay.
    pub fn overlay(&self) -> &meshwork_overlay::State<PeerId> {
        &self.overlay
    }

    /// Requests and connections of this node's application that wait for their answers.
    pub fn open_calls(&self) -> usize {
        self.calls.len()
    }

    /// Requests of other nodes that were handed out and are not answered, cancelled ones included.
    pub fn open_requests(&self) -> usize {
        self.seen.running()
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        Counters { dropped: self.links.dropped + self.guaranteed.skipped, ..self.counters.clone() }
    }

    /// Whether the application may send what is not acknowledged on a channel.
    pub(crate) fn check_channel(&self, channel: ChannelId) -> Result<(), SendError> {
        if self.leaving {
            return Err(SendError::Leaving);
        }
        match self.takes(channel) {
            true if self.guaranteed.owns(channel) => Err(SendError::Unsuited(channel)),
            true => Ok(()),
            false => Err(SendError::UnknownChannel(channel)),
        }
    }

    /// Whether messages of the application may come and go on a channel.
    fn takes(&self, channel: ChannelId) -> bool {
        is_application(channel) || self.channels.binary_search(&channel).is_ok()
    }

    fn check_direct(&self, to: PeerId, payload: &[u8]) -> Result<(), SendError> {
        if self.leaving {
            Err(SendError::Leaving)
        } else if payload.len() > limits::MESSAGE_BYTES_MAX {
            Err(SendError::TooLarge { len: payload.len(), len_max: limits::MESSAGE_BYTES_MAX })
        } else if to == self.identity.peer {
            Err(SendError::Myself)
        } else if self.links.connection_of(to).is_none() && self.address_of(to).is_none() {
            Err(SendError::UnknownPeer(to))
        } else {
            Ok(())
        }
    }

    fn address_of(&self, peer: PeerId) -> Option<SocketAddr> {
        self.overlay.membership().member(peer).map(|member| member.address).or_else(|| self.links.address_of(peer))
    }

    /// Answers a request that was handed out. A second answer to the same request does nothing.
    fn on_respond(&mut self, token: RequestToken, answer: Result<Bytes, Refusal>, now: Now, actions: &mut Vec<Action>) {
        let outcome = match answer {
            Ok(payload) => wire::Outcome::Done(payload),
            Err(Refusal::NoHandler) => wire::Outcome::NoHandler,
            Err(Refusal::Busy) => wire::Outcome::Busy,
        };
        let frame = wire::encode(wire::RESPONSE, &wire::Response { id: token.id, outcome });
        if self.seen.on_answer(token, &frame) && self.links.incarnation_of(token.from) == Some(token.incarnation) {
            self.links.send(token.from, None, ChannelId::COORDINATION, frame, None, now.time, &mut self.notices, actions);
        }
    }

    fn on_frame(&mut self, connection: ConnectionId, channel: ChannelId, frame: Frame, now: Now, actions: &mut Vec<Action>) {
        // A frame of a connection that was given up meanwhile.
        let Some(peer) = self.links.peer_of(connection) else { return };
        self.links.received(peer, now.time);
        let handled = match frame.kind {
            wire::OVERLAY => self.on_overlay(peer, channel, &frame.body, now),
            wire::STATE => self.on_state(peer, channel, &frame.body, now),
            wire::MESSAGE if self.takes(channel) && !self.guaranteed.owns(channel) => {
                actions.push(Action::Message { from: peer, channel, payload: frame.body });
                Ok(())
            }
            reliable::KIND_DATA | reliable::KIND_MESSAGE if self.guaranteed.has(channel) => {
                let link = self.links.link_of(peer);
                self.guaranteed.on_frame(peer, connection, link, channel, frame, now.time, actions)
            }
            wire::MESSAGE | reliable::KIND_DATA | reliable::KIND_MESSAGE => Err(Misbehavior::WrongChannel),
            wire::REQUEST => self.on_request(peer, &frame.body, now, actions),
            wire::RESPONSE => self.on_response(peer, &frame.body, actions),
            wire::CANCEL => self.on_cancel(peer, &frame.body, actions),
            _ => {
                self.counters.skipped += 1;
                Ok(())
            }
        };
        if let Err(what) = handled {
            self.on_misbehaved(peer, Some(connection), what, now, actions);
        }
    }

    fn on_overlay(&mut self, from: PeerId, channel: ChannelId, body: &[u8], now: Now) -> Result<(), Misbehavior> {
        let wire::Overlay { addresses, message } = decoded(body)?;
        // Nobody broadcasts on the control channel, and whoever did would be served before everything else.
        let is_payload = matches!(&message, meshwork_overlay::Message::Plumtree(message) if message.channel().is_some());
        if message.channel() != channel || is_payload && !is_application(channel) && channel != ChannelId::STATE {
            return Err(Misbehavior::WrongChannel);
        }
        let mut named = Vec::new();
        message.visit_peers(&mut |peer| named.push(peer));
        for (peer, address) in addresses {
            if peer != self.identity.peer && named.contains(&peer) {
                self.links.learn(peer, address);
            }
        }
        if self.rests(from, &message, now) {
            self.links.dropped += 1;
            return Ok(());
        }
        self.overlay.handle(meshwork_overlay::Input::Received { from, message }, now.time, &mut self.overlay_actions);
        Ok(())
    }

    fn on_state(&mut self, from: PeerId, channel: ChannelId, body: &[u8], now: Now) -> Result<(), Misbehavior> {
        if channel != ChannelId::STATE {
            return Err(Misbehavior::WrongChannel);
        }
        let message = decoded(body)?;
        self.state.handle(replica::Input::Received { from, message }, now, &mut self.state_actions);
        Ok(())
    }

    fn on_request(&mut self, from: PeerId, body: &[u8], now: Now, actions: &mut Vec<Action>) -> Result<(), Misbehavior> {
        let wire::Request { id, payload } = decoded(body)?;
        let Some(incarnation) = self.links.incarnation_of(from) else { return Ok(()) };
        let token = RequestToken { from, incarnation, id };
        match self.seen.on_request(token) {
            Verdict::New => actions.push(Action::Request { token, payload }),
            Verdict::Running | Verdict::Over => {}
            Verdict::Busy => {
                let frame = wire::encode(wire::RESPONSE, &wire::Response { id, outcome: wire::Outcome::Busy });
                self.links.send(from, None, ChannelId::COORDINATION, frame, None, now.time, &mut self.notices, actions);
            }
            Verdict::Answered(frame) => {
                self.links.send(from, None, ChannelId::COORDINATION, frame, None, now.time, &mut self.notices, actions);
            }
        }
        Ok(())
    }

    fn on_response(&mut self, from: PeerId, body: &[u8], actions: &mut Vec<Action>) -> Result<(), Misbehavior> {
        let wire::Response { id, outcome } = decoded(body)?;
        let call = CallId(id);
        // A late answer is no fault: the call may have timed out.
        if self.calls.close(call, from) {
            let outcome = match outcome {
                wire::Outcome::Done(payload) => Ok(payload),
                wire::Outcome::NoHandler => Err(CallError::NoHandler),
                wire::Outcome::Busy => Err(CallError::Busy),
            };
            actions.push(Action::Answer { call, outcome });
        }
        Ok(())
    }

    fn on_cancel(&mut self, from: PeerId, body: &[u8], actions: &mut Vec<Action>) -> Result<(), Misbehavior> {
        let wire::Cancel { id } = decoded(body)?;
        let Some(incarnation) = self.links.incarnation_of(from) else { return Ok(()) };
        let token = RequestToken { from, incarnation, id };
        // One that is unknown is no fault: it may have crossed the answer.
        if self.seen.on_cancel(token) {
            actions.push(Action::Cancelled { token });
        }
        Ok(())
    }

    /// Tells a peer that nobody waits for its answer, if that takes no dial and no room that others need.
    fn send_cancel(&mut self, call: CallId, asked: PeerId, now: Now, actions: &mut Vec<Action>) {
        if self.links.connection_of(asked).is_some() {
            let frame = wire::encode(wire::CANCEL, &wire::Cancel { id: call.0 });
            self.links.send(asked, None, ChannelId::COORDINATION, frame, Some(CallId::NOBODY), now.time, &mut self.notices, actions);
        }
    }

    fn on_datagram(&mut self, connection: ConnectionId, bytes: &Bytes, now: Now, actions: &mut Vec<Action>) {
        let Some(peer) = self.links.peer_of(connection) else { return };
        self.links.received(peer, now.time);
        match bytes.first() {
            Some(&wire::DATAGRAM_MEMBERSHIP) => {
                let bytes = bytes.slice(1..);
                self.overlay.handle(meshwork_overlay::Input::Datagram { from: peer, bytes }, now.time, &mut self.overlay_actions);
            }
            Some(_) => self.counters.skipped += 1,
            None => self.on_misbehaved(peer, Some(connection), Misbehavior::Undecodable(DecodeError::Truncated), now, actions),
        }
    }

    fn on_deadline(&mut self, now: Now, actions: &mut Vec<Action>) {
        while let Some((_, timer)) = self.timers.pop_due(now.time) {
            match timer {
                Timer::Alone => self.on_alone_due(now, actions),
                Timer::Prune => {
                    let is_needed = |peer| self.calls.awaits(peer) || self.seen.serves(peer) || self.guaranteed.needs(peer);
                    self.links.prune(self.overlay.topology().neighbors(), is_needed, now.time, actions);
                    let membership = self.overlay.membership();
                    let is_up = |peer| membership.member(peer).is_some_and(|member| member.status.is_up());
                    self.guaranteed.sweep(is_up, now.time, actions);
                    self.timers.set(Timer::Prune, now.time + PRUNE_PERIOD);
                }
            }
        }
        self.links.on_deadline(now.time, &mut self.notices, actions);
        self.guaranteed.on_deadline(now.time, actions);
        while let Some((call, asked)) = self.calls.pop_due(now.time) {
            actions.push(Action::Answer { call, outcome: Err(CallError::TimedOut) });
            if let Some(asked) = asked {
                self.send_cancel(call, asked, now, actions);
            }
        }
        if self.overlay.next_deadline().is_some_and(|at| at <= now.time) {
            self.overlay.handle(meshwork_overlay::Input::DeadlineReached, now.time, &mut self.overlay_actions);
        }
        if self.state.next_deadline().is_some_and(|at| at <= now.time) {
            self.state.handle(replica::Input::DeadlineReached, now, &mut self.state_actions);
        }
    }

    /// A node without neighbors asks a random peer that it is connected to, or dials a random member that it once knew.
    fn on_alone_due(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.timers.set(Timer::Alone, now.time + ALONE_PERIOD);
        if self.leaving || !self.neighbors().is_empty() {
            return;
        }
        let connected: Vec<PeerId> = self.links.connections().map(|(peer, _)| peer).collect();
        if !connected.is_empty() {
            let contact = connected[self.generator.random_range(0..connected.len())];
            self.overlay.handle(meshwork_overlay::Input::Join { contact }, now.time, &mut self.overlay_actions);
            return;
        }
        let me = self.identity.peer;
        let known: Vec<Candidate> = self
            .members()
            .filter(|member| member.peer != me && member.status != Status::Left)
            .map(|member| Candidate { address: member.address, peer: Some(member.peer), keep: false })
            .collect();
        if !known.is_empty() {
            let candidate = known[self.generator.random_range(0..known.len())];
            self.links.on_discovered(vec![candidate], now.time, &mut self.notices, actions);
        }
    }

    fn on_misbehaved(&mut self, peer: PeerId, connection: Option<ConnectionId>, what: Misbehavior, now: Now, actions: &mut Vec<Action>) {
        *self.counters.misbehaved.entry(what.name()).or_default() += 1;
        let last = self.complaints.get(&(peer, what.name())).copied();
        if last.is_none_or(|last| now.time.since(last) >= Duration::from_secs(1)) {
            if self.complaints.len() >= COMPLAINTS_MAX {
                self.complaints.clear();
            }
            self.complaints.insert((peer, what.name()), now.time);
            actions.push(Action::Event(Event::Misbehaved(peer, what)));
        }
        if what.is_fatal()
            && let Some(connection) = connection
        {
            actions.push(Action::Close { connection, reason: CloseReason::Misbehaved });
        }
    }

    /// Routes what the parts decided until nothing is left. One arm for each arrow of the picture.
    fn route(&mut self, now: Now, actions: &mut Vec<Action>) {
        while !(self.notices.is_empty()
            && self.overlay_actions.is_empty()
            && self.state_actions.is_empty()
            && !self.guaranteed.has_decided())
        {
            for notice in std::mem::take(&mut self.notices) {
                self.on_notice(notice, now, actions);
            }
            for action in std::mem::take(&mut self.overlay_actions) {
                self.on_overlay_action(action, now, actions);
            }
            for action in std::mem::take(&mut self.state_actions) {
                self.on_state_action(action, now, actions);
            }
            for (peer, connection, what) in std::mem::take(&mut self.guaranteed.faults) {
                self.on_misbehaved(peer, connection, what, now, actions);
            }
            for peer in std::mem::take(&mut self.guaranteed.wanted) {
                self.reach(peer, now, actions);
            }
        }
    }

    /// Dials a peer for which something is kept, unless it is held for dead: then it comes by itself, or what is kept is given back.
    fn reach(&mut self, peer: PeerId, now: Now, actions: &mut Vec<Action>) {
        let is_up = self.overlay.membership().member(peer).is_none_or(|member| member.status.is_up());
        if is_up && !self.leaving && self.links.connection_of(peer).is_none() {
            let address = self.address_of(peer);
            self.links.wait_for(peer, address, now.time, &mut self.notices, actions);
        }
    }

    fn on_notice(&mut self, notice: Notice, now: Now, actions: &mut Vec<Action>) {
        use meshwork_overlay::Input as Overlay;
        match notice {
            Notice::Up { peer, incarnation, address, join } => {
                let known = self.overlay.membership().member(peer).is_some_and(|member| member.status == Status::Alive);
                self.overlay.handle(Overlay::Connected { peer, address, generation: incarnation }, now.time, &mut self.overlay_actions);
                if join && (!known || self.neighbors().is_empty()) {
                    self.overlay.handle(Overlay::Join { contact: peer }, now.time, &mut self.overlay_actions);
                }
                let former = self.seen.on_incarnation(peer, incarnation);
                actions.extend(former.into_iter().map(|token| Action::Cancelled { token }));
                for call in self.calls.to_peer(peer) {
                    self.send_call(call, peer, now, actions);
                }
                self.guaranteed.set_link(peer, self.links.link_of(peer), now.time, actions);
            }
            Notice::Replaced(peer) => self.guaranteed.set_link(peer, self.links.link_of(peer), now.time, actions),
            Notice::Unreached(peer) => {
                for call in self.calls.to_peer(peer) {
                    if self.calls.times_sent(call) == Some(0) {
                        self.calls.forget(call);
                        actions.push(Action::Answer { call, outcome: Err(CallError::Unreachable) });
                    }
                }
            }
            Notice::Down { peer, broken, lost } => {
                self.overlay.handle(Overlay::Disconnected { peer, broken }, now.time, &mut self.overlay_actions);
                // A request that went out is sent again on the next connection.
                if lost && self.calls.awaits(peer) {
                    let address = self.address_of(peer);
                    self.links.wait_for(peer, address, now.time, &mut self.notices, actions);
                }
                self.guaranteed.set_link(peer, self.links.link_of(peer), now.time, actions);
            }
            Notice::Failed(CallId::NOBODY) => {}
            Notice::Failed(call) => {
                self.calls.forget(call);
                actions.push(Action::Answer { call, outcome: Err(CallError::Unreachable) });
            }
        }
    }

    fn send_call(&mut self, call: CallId, to: PeerId, now: Now, actions: &mut Vec<Action>) {
        if let Some(frame) = self.calls.send(call) {
            if frame.is_empty() {
                self.calls.forget(call);
                actions.push(Action::Answer { call, outcome: Ok(frame) });
                return;
            }
            self.links.send(to, None, ChannelId::COORDINATION, frame, Some(call), now.time, &mut self.notices, actions);
        }
    }

    fn on_overlay_action(&mut self, action: meshwork_overlay::Action<PeerId>, now: Now, actions: &mut Vec<Action>) {
        use meshwork_overlay::Action as Overlay;
        match action {
            // As if it were lost: whoever sends it has an answer to that, and tries again until the rest is over.
            Overlay::Send { to, message, .. } if self.rests(to, &message, now) => self.links.dropped += 1,
            Overlay::Send { to, address, message } => {
                let channel = message.channel();
                let frame = self.overlay_frame(message);
                self.links.send(to, address, channel, frame, None, now.time, &mut self.notices, actions);
            }
            Overlay::Datagram { to, address, bytes } => {
                let mut datagram = Vec::with_capacity(1 + bytes.len());
                datagram.push(wire::DATAGRAM_MEMBERSHIP);
                datagram.extend_from_slice(&bytes);
                self.links.send_datagram(to, address, datagram.into(), now.time, &mut self.notices, actions);
            }
            Overlay::Deliver { id, payload, .. } if id.channel == ChannelId::STATE => {
                self.on_delta(id.origin, payload, now);
            }
            Overlay::Deliver { id, payload, hops } => {
                self.counters.delivered += 1;
                actions.push(Action::Deliver(Delivery { id, payload, hops }));
            }
            Overlay::NeighborUp(peer) => {
                self.state.handle(replica::Input::NeighborUp(peer), now, &mut self.state_actions);
                actions.push(Action::Event(Event::NeighborUp(peer)));
                self.on_neighbors(actions);
            }
            Overlay::NeighborDown(peer, reason) => {
                self.state.handle(replica::Input::NeighborDown(peer), now, &mut self.state_actions);
                actions.push(Action::Event(Event::NeighborDown(peer, reason)));
                self.on_neighbors(actions);
            }
            Overlay::Member(event) => {
                let event = member_event(event);
                let left = match &event {
                    Some(Event::MemberLeft(member)) => Some(member.peer),
                    _ => None,
                };
                actions.extend(event.map(Action::Event));
                if let Some(peer) = left {
                    self.guaranteed.abandon(peer, actions);
                }
            }
            Overlay::Misbehaved { peer, what } => self.on_misbehaved(peer, self.links.connection_of(peer), what, now, actions),
        }
    }

    /// A broadcast carries no signature: whoever passed it on may have made it up, so a broken rule is counted and held against nobody.
    /// Otherwise one liar could make every node throw out whomever it names.
    fn on_delta(&mut self, origin: PeerId, bytes: Bytes, now: Now) {
        let first = self.state_actions.len();
        self.state.handle(replica::Input::Delta { origin, bytes }, now, &mut self.state_actions);
        for action in self.state_actions.split_off(first) {
            match action {
                replica::Action::Misbehaved { what, .. } => *self.counters.misbehaved.entry(what.name()).or_default() += 1,
                other => self.state_actions.push(other),
            }
        }
    }

    fn on_state_action(&mut self, action: replica::Action, now: Now, actions: &mut Vec<Action>) {
        use replica::Action as State;
        match action {
            State::Send { to, message } => {
                let frame = wire::encode(wire::STATE, &message);
                self.links.send(to, None, ChannelId::STATE, frame, None, now.time, &mut self.notices, actions);
            }
            State::Broadcast(bytes) => {
                // The replica cuts its deltas below the limit; one that is refused all the same is repaired by comparison.
                let sent = self.overlay.broadcast(ChannelId::STATE, bytes, now.time, &mut self.overlay_actions);
                debug_assert!(sent.is_ok(), "a delta fits a broadcast");
            }
            State::Changed { key, value, stamp } => actions.push(Action::Changed { key: key.to_string(), value, stamp }),
            State::Misbehaved { peer, what } => self.on_misbehaved(peer, self.links.connection_of(peer), what, now, actions),
        }
    }

    /// Whether a message is passed over because its peer was too slow and rests. What keeps the peer a member passes.
    fn rests(&self, peer: PeerId, message: &meshwork_overlay::Message<PeerId>, now: Now) -> bool {
        !matches!(message, meshwork_overlay::Message::Swim(_)) && self.links.is_resting(peer, now.time)
    }

    fn on_neighbors(&mut self, actions: &mut Vec<Action>) {
        let connectivity = match (self.connectivity, self.neighbors().is_empty()) {
            (Connectivity::Connected, true) => Connectivity::Isolated,
            (_, false) => Connectivity::Connected,
            (alone, true) => alone,
        };
        if connectivity != self.connectivity {
            self.connectivity = connectivity;
            actions.push(Action::Event(if connectivity == Connectivity::Connected { Event::Connected } else { Event::Isolated }));
        }
    }

    /// A frame with the message and the addresses of the peers that it names.
    fn overlay_frame(&self, message: meshwork_overlay::Message<PeerId>) -> Bytes {
        let mut addresses = Vec::new();
        message.visit_peers(&mut |peer| {
            let address = if peer == self.identity.peer { Some(self.identity.address) } else { self.address_of(peer) };
            addresses.extend(address.map(|address| (peer, address)));
        });
        wire::encode(wire::OVERLAY, &wire::Overlay { addresses: Bounded::first_of(addresses), message })
    }
}

/// Whether this is a built-in channel on which applications may send.
pub(crate) fn is_application(channel: ChannelId) -> bool {
    channel.name().is_some() && channel != ChannelId::CONTROL && channel != ChannelId::STATE
}

fn decoded<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Misbehavior> {
    decode(body).map_err(Misbehavior::Undecodable)
}

fn member_event(event: meshwork_overlay::swim::Event<PeerId>) -> Option<Event> {
    use meshwork_overlay::swim::Event as Swim;
    Some(match event {
        Swim::Joined(member) | Swim::Recovered { member, was_down: true } => Event::MemberJoined(member),
        Swim::Updated(member) => Event::MemberUpdated(member),
        Swim::Suspected(member) => Event::MemberSuspected(member),
        Swim::Recovered { member, was_down: false } => Event::MemberRecovered(member),
        Swim::Failed(member) => Event::MemberFailed(member),
        Swim::Left(member) => Event::MemberLeft(member),
        // Its own generation is this node's business.
        Swim::Renewed { .. } => return None,
    })
}
