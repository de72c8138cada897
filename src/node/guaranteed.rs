//! Messages that survive their connection: one [`reliable`] core for each peer that such messages went to or came from.
//!
//! The core counts on two things that connections do not give by themselves: that both sides mean the same link, and that nothing is lost on
//! it but with it. Two connections to one peer may stand side by side for a while, and the two sides may move from one to the other at
//! different moments. So:
//!
//! 1. A link of the core is one connection: the one that we send on. When that changes, a new link begins.
//! 2. A connection becomes a link once. One that was left, or on which the peer spoke while we meant another, was *spent*: the peer believes
//!    that we heard what we passed over. When it should become the link it is closed instead, and the next one begins afresh.
//!
//! With something to deliver and no connection, the node dials again and again, unless membership holds the peer for dead. What is kept for a
//! peer that is neither connected nor an up member for [`ABANDON_AFTER`] is given back, as is what is kept for one that left.
//!
//! What a peer can make this node store: what its core says, for at most [`PEERS_MAX`] peers. A core with nothing kept and nothing untaken is
//! forgotten when its peer is gone for [`FORGET_AFTER`], or when another peer needs the place. Numbers of messages are not used again even then:
//! the next core of any peer begins above them, or the peer would take new messages for old ones. What is lost with the memory is who had
//! sent what: if a peer that was cut off for that long sends again what we took and could not acknowledge, it is delivered twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::channel::Reliability;
use meshwork_channels::dial::ConnectionId;
use meshwork_channels::frame::{self, Frame};
use meshwork_channels::reliable::{self, Sequence};
use meshwork_channels::{ChannelId, ChannelSpec, Misbehavior, PeerId, Time, Timers, decode, encode};

use super::SendError;
use super::api::{Action, CloseReason, Settlement};

/// Peers with such messages; see the header for who makes room.
pub const PEERS_MAX: usize = 4_096;
/// What is kept for a peer that is neither connected nor an up member is given back after this time. Longer rides out longer partitions and
/// tells later. A guess: well above what finding a failure takes.
pub const ABANDON_AFTER: Duration = Duration::from_secs(300);
/// A peer that is neither connected nor an up member, and with which nothing is open, is forgotten after this time. Much longer than
/// [`ABANDON_AFTER`], so that the peer has given up what we could take for new.
pub const FORGET_AFTER: Duration = Duration::from_secs(3_600);

/// The first wait before another dial, and the longest; it doubles between them. Guesses.
const REDIAL: Duration = Duration::from_secs(2);
const REDIAL_MAX: Duration = Duration::from_secs(30);
/// Connections of one peer that are remembered as spent: more than stand side by side.
const SPENT_MAX: usize = 8;
/// Frames carry no lane, so there is one.
const LANE: u8 = 0;
/// Where acknowledgments go: they are small, and whoever waits for them is stopped.
const ACKNOWLEDGE_ON: ChannelId = ChannelId::COORDINATION;

/// What two nodes promise each other: on the built-in channels, which all have, and on those that an application defined with such a promise. What
/// is kept on one of these for a peer is what may wait there, beside what is kept on all the others.
pub(crate) fn params<'a>(defined: impl IntoIterator<Item = &'a ChannelSpec>) -> reliable::Params {
    const MIB: usize = 1_024 * 1_024;
    let channel = |id, window_messages_max, window_bytes_max| reliable::Channel {
        id,
        reliability: reliable::Reliability::Guaranteed,
        lanes: 1,
        window_messages_max,
        window_bytes_max,
    };
    let mut config = reliable::Config {
        // The windows of messages are the queues of the channels, as in the core's own defaults.
        channels: vec![
            channel(ChannelId::COORDINATION, 1_000, 2 * MIB),
            channel(ChannelId::DATA, 10_000, 4 * MIB),
            channel(ChannelId::GOSSIP, 5_000, 2 * MIB),
            channel(ChannelId::EVENTS, 5_000, 4 * MIB),
        ],
        // Many peers may send to one slow application: less for each than the core would allow.
        untaken_peer_messages_max: 4_096,
        untaken_peer_bytes_max: 4 * MIB,
        ..reliable::Config::default()
    };
    for spec in defined {
        let reliability = match spec.reliability {
            Reliability::AtLeastOnce => reliable::Reliability::AtLeastOnce,
            Reliability::Guaranteed => reliable::Reliability::Guaranteed,
            Reliability::Ordered | Reliability::Latest | Reliability::BestEffort => continue,
        };
        let kept = channel(spec.id, spec.queued_frames_max, spec.queued_bytes_max);
        config.channels.push(reliable::Channel { reliability, ..kept });
        config.peer_messages_max = config.peer_messages_max.saturating_add(spec.queued_frames_max);
        config.peer_bytes_max = config.peer_bytes_max.saturating_add(spec.queued_bytes_max);
    }
    config.build().expect("the built-in part is constant, and a table of channels has numbers once and queues for the largest frame")
}

/// A broken rule, with the connection that it was broken on.
pub(crate) type Fault = (PeerId, Option<ConnectionId>, Misbehavior);

#[derive(Debug)]
struct Peer {
    state: reliable::State,
    /// The connection that is the link, with its number for the core.
    link: Option<(ConnectionId, u64)>,
    spent: VecDeque<ConnectionId>,
    /// Since when it is neither connected nor an up member.
    gone_since: Option<Time>,
    redial: Duration,
}

impl Peer {
    fn is_idle(&self) -> bool {
        self.state.kept().messages == 0 && self.state.untaken().messages == 0
    }

    fn spend(&mut self, connection: ConnectionId) {
        if !self.spent.contains(&connection) {
            if self.spent.len() == SPENT_MAX {
                self.spent.pop_front();
            }
            self.spent.push_back(connection);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// Of the core of a peer.
    Core(PeerId),
    /// Something waits for a peer that is not connected.
    Redial(PeerId),
}

#[derive(Debug)]
pub(crate) struct Guaranteed {
    params: reliable::Params,
    peers: BTreeMap<PeerId, Peer>,
    timers: Timers<Key>,
    /// Links so far.
    generation: u64,
    /// Where the next core begins to count.
    first: Sequence,
    /// Peers to be dialed.
    pub(crate) wanted: BTreeSet<PeerId>,
    /// Faults of peers, for the node to judge.
    pub(crate) faults: Vec<Fault>,
    /// Frames that were passed over because no further peer had a place.
    pub(crate) skipped: u64,
    /// Reused, empty between inputs.
    decided: Vec<reliable::Action>,
}

impl Guaranteed {
    pub(crate) fn new(params: reliable::Params) -> Self {
        Guaranteed {
            params,
            peers: BTreeMap::new(),
            timers: Timers::new(),
            generation: 0,
            first: reliable::FIRST,
            wanted: BTreeSet::new(),
            faults: Vec::new(),
            skipped: 0,
            decided: Vec::new(),
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.timers.next_deadline()
    }

    /// Whether there are such messages on a channel.
    pub(crate) fn has(&self, channel: ChannelId) -> bool {
        self.params.channel(channel).is_some()
    }

    /// Whether there is nothing else on a channel.
    pub(crate) fn owns(&self, channel: ChannelId) -> bool {
        channel.is_defined() && self.has(channel)
    }

    /// Whether the node has to act on what was decided here.
    pub(crate) fn has_decided(&self) -> bool {
        !(self.wanted.is_empty() && self.faults.is_empty())
    }

    /// Whether the connection to a peer is of use here.
    pub(crate) fn needs(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(|peer| !peer.is_idle())
    }

    /// Takes a message for a peer. `link` is its present connection, with the life of the process there.
    #[expect(clippy::too_many_arguments, reason = "the public verb, and the link of the peer")]
    pub(crate) fn send(
        &mut self,
        to: PeerId,
        link: Option<(ConnectionId, u64)>,
        channel: ChannelId,
        payload: Bytes,
        ttl: Option<Duration>,
        now: Time,
        actions: &mut Vec<Action>,
    ) -> Result<Sequence, SendError> {
        let len = payload.len();
        if !self.open(to, link, now, actions) {
            return Err(SendError::TooManyPeers);
        }
        let Some(peer) = self.peers.get_mut(&to) else { return Err(SendError::TooManyPeers) };
        let deadline = ttl.map(|ttl| now + ttl);
        let sent = peer.state.send(channel, LANE, payload, deadline, now, &mut self.decided);
        if sent.is_ok() && peer.link.is_none() && self.timers.set_if_absent(Key::Redial(to), now + REDIAL) {
            peer.redial = REDIAL;
            self.wanted.insert(to);
        }
        self.settle(to, actions);
        sent.map_err(|refused| match refused.reason {
            reliable::Reason::ChannelFull | reliable::Reason::PeerFull | reliable::Reason::Exhausted => SendError::Full,
            reliable::Reason::TooLarge => SendError::TooLarge { len, len_max: meshwork_channels::limits::MESSAGE_BYTES_MAX },
            reliable::Reason::UnknownLane => SendError::UnknownChannel(channel),
        })
    }

    /// The connection to a peer is another one now, or there is none any more.
    pub(crate) fn set_link(&mut self, peer: PeerId, link: Option<(ConnectionId, u64)>, now: Time, actions: &mut Vec<Action>) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        if state.link.map(|(connection, _)| connection) == link.map(|(connection, _)| connection) {
            return;
        }
        if let Some((connection, generation)) = state.link.take() {
            state.spend(connection);
            state.state.handle(reliable::Input::Disconnected { generation }, now, &mut self.decided);
        }
        match link {
            Some((connection, _)) if state.spent.contains(&connection) => {
                self.timers.set_if_absent(Key::Redial(peer), now + REDIAL);
                actions.push(Action::Close { connection, reason: CloseReason::Duplicate });
            }
            Some((connection, incarnation)) => {
                self.generation += 1;
                state.link = Some((connection, self.generation));
                state.gone_since = None;
                self.timers.cancel(&Key::Redial(peer));
                let input = reliable::Input::Connected { generation: self.generation, incarnation };
                state.state.handle(input, now, &mut self.decided);
            }
            None => {
                if state.state.kept().messages > 0 {
                    state.redial = REDIAL;
                    self.timers.set(Key::Redial(peer), now + REDIAL);
                    self.wanted.insert(peer);
                }
            }
        }
        self.settle(peer, actions);
    }

    /// A frame of one of the two kinds arrived. `link` is the present connection of its sender.
    #[expect(clippy::too_many_arguments, reason = "the fields of one input, and the link of the peer")]
    pub(crate) fn on_frame(
        &mut self,
        from: PeerId,
        connection: ConnectionId,
        link: Option<(ConnectionId, u64)>,
        channel: ChannelId,
        frame: Frame,
        now: Time,
        actions: &mut Vec<Action>,
    ) -> Result<(), Misbehavior> {
        let decoded = match frame.kind {
            reliable::KIND_DATA => reliable::decode_data(&frame.body).map(Decoded::Data),
            _ => decode(&frame.body).map(Decoded::Message),
        };
        let decoded = decoded.map_err(Misbehavior::Undecodable)?;
        if !self.open(from, link, now, actions) {
            self.skipped += 1;
            return Ok(());
        }
        let Some(peer) = self.peers.get_mut(&from) else { return Ok(()) };
        let generation = match peer.link {
            Some((present, generation)) if present == connection => generation,
            _ => {
                peer.spend(connection);
                return Ok(());
            }
        };
        let input = match decoded {
            Decoded::Data((sequence, payload)) => reliable::Input::Data { generation, channel, lane: LANE, sequence, payload },
            Decoded::Message(message) => reliable::Input::Received { generation, message },
        };
        peer.state.handle(input, now, &mut self.decided);
        self.settle(from, actions);
        Ok(())
    }

    /// The application took a message.
    pub(crate) fn on_taken(
        &mut self,
        from: PeerId,
        incarnation: u64,
        channel: ChannelId,
        sequence: Sequence,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        if let Some(peer) = self.peers.get_mut(&from) {
            let input = reliable::Input::Taken { sender_incarnation: incarnation, channel, lane: LANE, sequence };
            peer.state.handle(input, now, &mut self.decided);
            self.settle(from, actions);
        }
    }

    /// A peer does not have a channel, or has it on other terms: what is kept on it is given back.
    pub(crate) fn on_disagreed(&mut self, peer: PeerId, channel: ChannelId, actions: &mut Vec<Action>) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let first = actions.len();
        state.state.abandon_on(channel, &mut self.decided);
        self.settle(peer, actions);
        for action in &mut actions[first..] {
            if let Action::Settled { outcome, .. } = action
                && let Settlement::Undelivered { payload, .. } = outcome
            {
                *outcome = Settlement::Disagreed { payload: std::mem::take(payload) };
            }
        }
    }

    /// A peer is gone for good: what is kept for it is given back.
    pub(crate) fn abandon(&mut self, peer: PeerId, actions: &mut Vec<Action>) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.state.abandon(&mut self.decided);
            self.timers.cancel(&Key::Redial(peer));
            self.settle(peer, actions);
        }
    }

    pub(crate) fn on_deadline(&mut self, now: Time, actions: &mut Vec<Action>) {
        while let Some((_, key)) = self.timers.pop_due(now) {
            match key {
                Key::Core(peer) => {
                    if let Some(state) = self.peers.get_mut(&peer) {
                        state.state.handle(reliable::Input::DeadlineReached, now, &mut self.decided);
                        self.settle(peer, actions);
                    }
                }
                Key::Redial(peer) => {
                    if let Some(state) = self.peers.get_mut(&peer)
                        && state.link.is_none()
                        && state.state.kept().messages > 0
                    {
                        state.redial = state.redial.saturating_mul(2).min(REDIAL_MAX);
                        self.timers.set(Key::Redial(peer), now + state.redial);
                        self.wanted.insert(peer);
                    }
                }
            }
        }
    }

    /// Gives up on peers that are gone, and forgets those with which nothing is open. Called every few seconds.
    pub(crate) fn sweep(&mut self, is_up: impl Fn(PeerId) -> bool, now: Time, actions: &mut Vec<Action>) {
        let (mut over, mut forgotten) = (Vec::new(), Vec::new());
        for (id, peer) in &mut self.peers {
            if peer.link.is_some() || is_up(*id) {
                peer.gone_since = None;
                continue;
            }
            let gone = now.since(*peer.gone_since.get_or_insert(now));
            if gone >= ABANDON_AFTER && peer.state.kept().messages > 0 {
                over.push(*id);
            }
            if gone >= FORGET_AFTER && peer.is_idle() {
                forgotten.push(*id);
            }
        }
        for peer in over {
            self.abandon(peer, actions);
        }
        for peer in forgotten {
            self.forget(peer);
        }
    }

    /// Sees to it that there is a core for a peer; false when there is no place for one.
    fn open(&mut self, peer: PeerId, link: Option<(ConnectionId, u64)>, now: Time, actions: &mut Vec<Action>) -> bool {
        if self.peers.contains_key(&peer) {
            return true;
        }
        if self.peers.len() >= PEERS_MAX {
            // Whoever is gone longest makes room. Without one that is gone there is no safe choice.
            let idle = self.peers.iter().filter(|(_, peer)| peer.is_idle() && peer.link.is_none());
            let Some((oldest, _)) = idle.min_by_key(|(_, peer)| peer.gone_since.unwrap_or(Time::MAX)) else { return false };
            self.forget(*oldest);
        }
        let state = reliable::State::starting_at(self.first, self.params.clone());
        self.peers.insert(peer, Peer { state, link: None, spent: VecDeque::new(), gone_since: None, redial: REDIAL });
        self.set_link(peer, link, now, actions);
        true
    }

    fn forget(&mut self, peer: PeerId) {
        if let Some(state) = self.peers.remove(&peer) {
            self.first = self.first.max(state.state.next_sequence());
        }
        self.timers.cancel(&Key::Core(peer));
        self.timers.cancel(&Key::Redial(peer));
    }

    /// Passes on what the core of a peer decided, and takes its deadline over.
    fn settle(&mut self, id: PeerId, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get(&id) else { return };
        let connection = peer.link.map(|(connection, _)| connection);
        match peer.state.next_deadline() {
            Some(at) => self.timers.set(Key::Core(id), at),
            None => drop(self.timers.cancel(&Key::Core(id))),
        }
        for action in self.decided.drain(..) {
            let settled = |channel, sequence, outcome| Action::Settled { to: id, channel, sequence, outcome };
            actions.push(match action {
                reliable::Action::Transmit { channel, lane: _, sequence, payload } => {
                    // Only with a link.
                    let Some(connection) = connection else { continue };
                    Action::SendGuaranteed { connection, channel, frame: reliable::encode_data(sequence, &payload) }
                }
                reliable::Action::Send { on, message } => {
                    let Some(connection) = connection else { continue };
                    let channel = on.map_or(ACKNOWLEDGE_ON, |(channel, _)| channel);
                    Action::SendGuaranteed { connection, channel, frame: frame::encode(reliable::KIND_MESSAGE, &encode(&message)) }
                }
                reliable::Action::Deliver { channel, lane: _, sequence, payload, sender_incarnation } => {
                    Action::DeliverGuaranteed { from: id, incarnation: sender_incarnation, channel, sequence, payload }
                }
                reliable::Action::Delivered { channel, lane: _, sequence } => settled(channel, sequence, Settlement::Taken),
                reliable::Action::Expired { channel, lane: _, sequence } => settled(channel, sequence, Settlement::Expired),
                reliable::Action::Undelivered { channel, lane: _, sequence, payload, transmitted } => {
                    settled(channel, sequence, Settlement::Undelivered { payload, transmitted })
                }
                reliable::Action::Misbehaved(what) => {
                    self.faults.push((id, connection, what));
                    continue;
                }
            });
        }
    }
}

enum Decoded {
    Data((Sequence, Bytes)),
    Message(reliable::Message),
}
