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
mod complaints;
mod config;
mod confirm;
mod durable;
pub mod guaranteed;
pub mod links;
mod requests;
mod verbs;
mod wire;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::dial::{ConnectionId, DialFailure};
use meshwork_channels::frame::Frame;
use meshwork_channels::reliable::{self};
use meshwork_channels::{Bounded, ChannelId, DecodeError, Misbehavior, Now, PeerId, Time, Timers, decode, random};
use meshwork_crdt::replica::{self};
use meshwork_crdt::value::Actor;
use meshwork_overlay::swim::Status;
use rand::RngExt;

pub use api::{
    Action, CallError, CallId, Candidate, CloseReason, Connectivity, Counters, Delivery, Event, Input, Member, MessageId, Refusal,
    RequestToken, SendError, Sent, Settlement,
};
#[cfg(feature = "net")]
pub(crate) use wire::MESSAGE;

pub use choice::{BULK_BYTES, Hint, choose};
pub use config::{Config, ConfigError, Kind, Links as LinksConfig, Params, UnknownKind};

pub use confirm::{Level, WriteError};

use complaints::Complaints;
pub use complaints::MAX as COMPLAINTS_MAX;
use guaranteed::Guaranteed;
use links::{Links, Notice};
use requests::{Calls, Seen, Verdict};

use crate::services::Services;

/// Peers that are worth remembering at once.
pub const REMEMBERED_MAX: usize = 32;

/// How often a node without neighbors tries to find some.
const ALONE_PERIOD: Duration = Duration::from_secs(1);
/// How often connections that nobody needs are looked for.
const PRUNE_PERIOD: Duration = Duration::from_secs(5);

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

/// The part of the [`Counters`] that no part of the node counts.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    skipped: u64,
    delivered: u64,
    stalled: u64,
    repair_bytes: u64,
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
    services: Services,
    calls: Calls,
    seen: Seen,
    guaranteed: Guaranteed,
    /// The channels that the application defined, in the order of their numbers.
    channels: Arc<[ChannelId]>,
    timers: Timers<Timer>,
    generator: random::Generator,
    connectivity: Connectivity,
    leaving: bool,
    tally: Tally,
    complaints: Complaints,
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
            state: replica::State::new(peer, params.state, random::hash(&[seed, 3])).with_actor(Actor(random::hash(&[
                seed,
                4,
                incarnation,
            ]))),
            services: Services::new(peer, params.services),
            identity,
            calls: Calls::default(),
            seen: Seen::default(),
            guaranteed: Guaranteed::new(params.guaranteed),
            channels: params.channels,
            timers,
            generator,
            connectivity: Connectivity::Alone,
            leaving: false,
            tally: Tally::default(),
            complaints: Complaints::default(),
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
                    self.tally.stalled += 1;
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
            self.services.next_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The connection to a peer.
    pub fn connection_of(&self, peer: PeerId) -> Option<ConnectionId> {
        self.links.connection_of(peer)
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

    /// Living members and where they are, for whoever writes them down: with a node that starts again and asks them the cluster is found again.
    pub fn worth_remembering(&self) -> impl Iterator<Item = (PeerId, SocketAddr)> {
        let me = self.identity.peer;
        let others = self.members().filter(move |member| member.peer != me && member.status == Status::Alive);
        others.map(|member| (member.peer, member.address)).take(REMEMBERED_MAX)
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
        let Tally { skipped, delivered, stalled, repair_bytes } = self.tally;
        Counters {
            misbehaved: self.complaints.counts().clone(),
            skipped,
            delivered,
            stalled,
            repair_bytes,
            dropped: self.links.dropped + self.guaranteed.skipped,
        }
    }

    /// Whether messages of the application may come and go on a channel.
    fn takes(&self, channel: ChannelId) -> bool {
        is_application(channel) || self.channels.binary_search(&channel).is_ok()
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
                self.tally.skipped += 1;
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
            Some(_) => self.tally.skipped += 1,
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
        if self.services.next_deadline().is_some_and(|at| at <= now.time) {
            for write in self.services.deadline_reached(&self.state, now) {
                // What does not fit is tried again by the service.
                let _ = self.state.apply(&write.key, write.op, now, &mut self.state_actions);
            }
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
        if self.complaints.take(peer, what.name(), now.time) {
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
            && self.services.told.is_empty()
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
            actions.extend(self.services.told.take().map(Action::Service));
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
                self.state.handle(replica::Input::Unreached(peer), now, &mut self.state_actions);
                for call in self.calls.to_peer(peer) {
                    if self.calls.times_sent(call) == Some(0) {
                        self.calls.forget(call);
                        actions.push(Action::Answer { call, outcome: Err(CallError::Unreachable) });
                    }
                }
            }
            Notice::Down { peer, broken, lost } => {
                let never_stood = broken && !lost;
                let input = if never_stood { Overlay::Unreached(peer) } else { Overlay::Disconnected { peer, broken } };
                self.overlay.handle(input, now.time, &mut self.overlay_actions);
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
                self.tally.delivered += 1;
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
                self.services.on_member(&event, &self.state, now);
                if let Some(event) = member_event(event) {
                    self.on_member_event(&event, now, actions);
                    actions.push(Action::Event(event));
                }
            }
            Overlay::Misbehaved { peer, what } => self.on_misbehaved(peer, self.links.connection_of(peer), what, now, actions),
        }
    }

    fn on_member_event(&mut self, event: &Event, now: Now, actions: &mut Vec<Action>) {
        use replica::Input as State;
        let input = match event {
            Event::MemberLeft(member) => {
                self.guaranteed.abandon(member.peer, actions);
                State::Left(member.peer)
            }
            Event::MemberSuspected(member) => State::Suspected(member.peer),
            Event::MemberFailed(member) => State::Failed(member.peer),
            Event::MemberJoined(member) | Event::MemberRecovered(member) => State::Returned(member.peer),
            _ => return,
        };
        self.state.handle(input, now, &mut self.state_actions);
    }

    /// A broadcast carries no signature: whoever passed it on may have made it up, so a broken rule is counted and held against nobody.
    /// Otherwise one liar could make every node throw out whomever it names.
    fn on_delta(&mut self, origin: PeerId, bytes: Bytes, now: Now) {
        let first = self.state_actions.len();
        self.state.handle(replica::Input::Delta { origin, bytes }, now, &mut self.state_actions);
        for action in self.state_actions.split_off(first) {
            match action {
                replica::Action::Misbehaved { what, .. } => self.complaints.count(what.name()),
                other => self.state_actions.push(other),
            }
        }
    }

    fn on_state_action(&mut self, action: replica::Action, now: Now, actions: &mut Vec<Action>) {
        use replica::Action as State;
        match action {
            State::Send { to, message } => {
                let frame = wire::encode(wire::STATE, &message);
                self.tally.repair_bytes += frame.len() as u64;
                let call = message.is_said_again().then_some(CallId::NOBODY);
                // Not only neighbors are asked what they hold.
                let address = call.and_then(|_| self.address_of(to));
                self.links.send(to, address, ChannelId::STATE, frame, call, now.time, &mut self.notices, actions);
            }
            State::Broadcast(bytes) => {
                // The replica cuts its deltas below the limit; one that is refused all the same is repaired by comparison.
                let sent = self.overlay.broadcast(ChannelId::STATE, bytes, now.time, &mut self.overlay_actions);
                debug_assert!(sent.is_ok(), "a delta fits a broadcast");
            }
            State::Changed { key, value, stamp, revision } => {
                self.services.on_changed(&key, &self.state, now);
                actions.push(Action::Changed { key, value, stamp, revision });
            }
            State::Reunited(reunion) => actions.push(Action::Event(Event::Reunited(reunion))),
            State::Confirmed { id, confirmed } => actions.push(Action::Confirmed { call: CallId(id.0), confirmed }),
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
