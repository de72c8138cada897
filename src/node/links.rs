//! Connections as the node sees them: who is connected, how to reach the others, and what waits for a dial.
//!
//! Built on the dialing core of `channels`. Three things are added to it:
//!
//! * an address book, because a message may name a peer that nobody here has met;
//! * a bounded queue for each peer that is being dialed, so that "send to" and "dial" are one verb for the cores above;
//! * an end for connections that nobody needs: membership probes members at random, and would in time connect everybody with everybody;
//! * a rest for peers that were too slow: for a while, four times as long each time, they stay connected for membership and direct messages and take no part in the overlay.
//!   Otherwise they would come back at once, and fill the same queues again.
//!
//! What a peer can make it store: [`Params::book_max`] addresses, oldest forgotten first, and one of [`RESTS_MAX`] rests. Queues fill only by our own sending:
//! [`Params::waiting_peers_max`] peers with [`Params::waiting_frames_max`] frames and [`Params::waiting_bytes_max`] bytes each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::dial::{self, ConnectionId, DialFailure, Direction};
use meshwork_channels::{ChannelId, PeerId, Time, Timers};

use super::api::{Action, CallId, Candidate, CloseReason};

/// The parameters of the connections; see [`Config`](super::Config) for what people write.
#[derive(Clone, Debug)]
pub struct Params {
    /// Of the dialing core.
    pub dial: dial::Params,
    /// Addresses that are remembered.
    pub book_max: usize,
    /// Peers that frames wait for.
    pub waiting_peers_max: usize,
    /// Frames that wait for one peer.
    pub waiting_frames_max: usize,
    /// Bytes that wait for one peer.
    pub waiting_bytes_max: usize,
    /// Connections beyond those to neighbors that are kept open.
    pub light_max: usize,
    /// A connection to a peer that is no neighbor is closed after this time without use.
    pub light_idle: Duration,
}

/// Addresses from discovery that are known as such; the oldest gives way.
const DOORS_MAX: usize = 1_024;
/// How long frames wait for a peer at most: longer than two dials that nobody answers. A guess.
const PATIENCE: Duration = Duration::from_secs(10);

/// Datagrams that wait for one peer; the oldest gives way, for a late probe is worth nothing.
const WAITING_DATAGRAMS_MAX: usize = 8;

/// The first rest of a peer that was too slow. Short, because a machine that stood still for some seconds is as good as before. A guess.
const REST: Duration = Duration::from_secs(2);
/// The longest rest: shorter than payloads are kept by default, so that what the peer broadcasts meanwhile still spreads afterwards.
const REST_MAX: Duration = Duration::from_secs(64);
/// A peer that kept up for so long after a rest starts anew with a short one. A guess.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);
/// Rests that are remembered; the one that ends first makes room.
pub const RESTS_MAX: usize = 1_024;

/// What the connections tell the node.
#[derive(Debug)]
pub(crate) enum Notice {
    /// The first connection to a peer stands.
    Up { peer: PeerId, incarnation: u64, address: SocketAddr, join: bool },
    /// The last connection to a peer is gone (`lost`), or none could be made. Not `broken` when either side closed it because nobody needed it.
    Down { peer: PeerId, broken: bool, lost: bool },
    /// Another connection to a peer is the one to send on.
    Replaced(PeerId),
    /// No connection to a peer could be made, though somebody waited for one.
    Unreached(PeerId),
    /// A call could not be sent.
    Failed(CallId),
}

#[derive(Debug)]
struct Peer {
    incarnation: u64,
    last_used: Time,
}

/// What is known of the connection that is being handled.
#[derive(Debug)]
struct Arriving {
    incarnation: u64,
    address: SocketAddr,
    join: bool,
}

/// The rest of a peer that was too slow.
#[derive(Debug)]
struct Rest {
    until: Time,
    /// The connection on which it was too slow.
    connection: ConnectionId,
    len: Duration,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<(ChannelId, Bytes, Option<CallId>)>,
    datagrams: VecDeque<Bytes>,
    bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Links {
    params: Params,
    dial: dial::State,
    dial_actions: Vec<dial::Action>,
    peers: BTreeMap<PeerId, Peer>,
    by_connection: BTreeMap<ConnectionId, PeerId>,
    /// Where peers are, and whether a connection to them said so.
    book: BTreeMap<PeerId, (SocketAddr, bool)>,
    book_order: VecDeque<PeerId>,
    /// Addresses from discovery: a peer found behind one may be the door to a part of the cluster that we do not know.
    doors: BTreeSet<SocketAddr>,
    door_order: VecDeque<SocketAddr>,
    waiting: BTreeMap<PeerId, Waiting>,
    /// When waiting for a peer is over, whatever its dials do: an address may be kept for ever, or lead to somebody else by now.
    patience: Timers<PeerId>,
    rests: BTreeMap<PeerId, Rest>,
    arriving: Option<Arriving>,
    /// Whether the connection whose end is being handled was closed because nobody needed it.
    unneeded: bool,
    /// Frames given up because their queue was full or their peer could not be reached.
    pub(crate) dropped: u64,
    leaving: bool,
}

impl Links {
    pub(crate) fn new(me: PeerId, params: Params, seed: u64) -> Self {
        Links {
            dial: dial::State::new(me, params.dial.clone(), seed),
            params,
            dial_actions: Vec::new(),
            peers: BTreeMap::new(),
            by_connection: BTreeMap::new(),
            book: BTreeMap::new(),
            book_order: VecDeque::new(),
            doors: BTreeSet::new(),
            door_order: VecDeque::new(),
            waiting: BTreeMap::new(),
            patience: Timers::new(),
            rests: BTreeMap::new(),
            arriving: None,
            unneeded: false,
            dropped: 0,
            leaving: false,
        }
    }

    pub(crate) fn peer_of(&self, connection: ConnectionId) -> Option<PeerId> {
        self.by_connection.get(&connection).copied()
    }

    pub(crate) fn connection_of(&self, peer: PeerId) -> Option<ConnectionId> {
        self.dial.connection_of(&peer)
    }

    pub(crate) fn incarnation_of(&self, peer: PeerId) -> Option<u64> {
        self.peers.get(&peer).map(|peer| peer.incarnation)
    }

    /// The connection to a peer that we send on, and the life of the peer.
    pub(crate) fn link_of(&self, peer: PeerId) -> Option<(ConnectionId, u64)> {
        Some((self.connection_of(peer)?, self.incarnation_of(peer)?))
    }

    pub(crate) fn connections(&self) -> impl Iterator<Item = (PeerId, ConnectionId)> + '_ {
        self.peers.keys().filter_map(|peer| Some((*peer, self.dial.connection_of(peer)?)))
    }

    pub(crate) fn address_of(&self, peer: PeerId) -> Option<SocketAddr> {
        self.book.get(&peer).map(|(address, _)| *address)
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        [self.dial.next_deadline(), self.patience.next_deadline()].into_iter().flatten().min()
    }

    /// Remembers how to reach a peer, on somebody's word. The word of a connection to the peer itself outweighs it.
    pub(crate) fn learn(&mut self, peer: PeerId, address: SocketAddr) {
        let is_first_hand = self.book.get(&peer).is_some_and(|(_, first_hand)| *first_hand);
        if address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast() && !is_first_hand {
            self.remember(peer, address, false);
        }
    }

    fn remember(&mut self, peer: PeerId, address: SocketAddr, first_hand: bool) {
        if self.book.insert(peer, (address, first_hand)).is_none() {
            self.book_order.push_back(peer);
            if self.book_order.len() > self.params.book_max
                && let Some(oldest) = self.book_order.pop_front()
            {
                self.book.remove(&oldest);
            }
        }
    }

    pub(crate) fn on_discovered(&mut self, candidates: Vec<Candidate>, now: Time, notices: &mut Vec<Notice>, actions: &mut Vec<Action>) {
        for candidate in candidates {
            if candidate.peer.is_some_and(|peer| self.peers.contains_key(&peer)) {
                continue;
            }
            if self.doors.insert(candidate.address) {
                self.door_order.push_back(candidate.address);
                if self.door_order.len() > DOORS_MAX
                    && let Some(oldest) = self.door_order.pop_front()
                {
                    self.doors.remove(&oldest);
                }
            }
            self.want(candidate.peer, candidate.address, candidate.keep, now, notices, actions);
        }
    }

    fn want(
        &mut self,
        peer: Option<PeerId>,
        address: SocketAddr,
        keep: bool,
        now: Time,
        notices: &mut Vec<Notice>,
        actions: &mut Vec<Action>,
    ) {
        if !self.leaving {
            self.dial.handle(dial::Input::Want { peer, address, keep }, now, &mut self.dial_actions);
            self.route(now, notices, actions);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one input, and where its consequences go")]
    pub(crate) fn on_connected(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        incarnation: u64,
        address: SocketAddr,
        direction: Direction,
        now: Time,
        notices: &mut Vec<Notice>,
        actions: &mut Vec<Action>,
    ) {
        if self.leaving {
            actions.push(Action::Close { connection, reason: CloseReason::Leaving });
            return;
        }
        self.by_connection.insert(connection, peer);
        self.remember(peer, address, true);
        self.arriving = Some(Arriving { incarnation, address, join: direction == Direction::Outbound && self.doors.contains(&address) });
        self.dial.handle(dial::Input::Connected { connection, peer, incarnation, address, direction }, now, &mut self.dial_actions);
        self.route(now, notices, actions);
        self.arriving = None;
        self.flush(peer, actions);
    }

    pub(crate) fn on_disconnected(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        unneeded: bool,
        now: Time,
        notices: &mut Vec<Notice>,
        actions: &mut Vec<Action>,
    ) {
        self.by_connection.remove(&connection);
        self.unneeded = unneeded;
        let input = if unneeded { dial::Input::Unneeded { connection, peer } } else { dial::Input::Disconnected { connection, peer } };
        self.dial.handle(input, now, &mut self.dial_actions);
        self.route(now, notices, actions);
        self.unneeded = false;
    }

    pub(crate) fn on_dial_failed(
        &mut self,
        address: SocketAddr,
        failure: DialFailure,
        now: Time,
        notices: &mut Vec<Notice>,
        actions: &mut Vec<Action>,
    ) {
        self.dial.handle(dial::Input::Failed { address, reason: failure }, now, &mut self.dial_actions);
        self.route(now, notices, actions);
    }

    pub(crate) fn on_deadline(&mut self, now: Time, notices: &mut Vec<Notice>, actions: &mut Vec<Action>) {
        while let Some((_, peer)) = self.patience.pop_due(now) {
            self.give_up(peer, notices);
        }
        if self.dial.next_deadline().is_some_and(|at| at <= now) {
            self.dial.handle(dial::Input::DeadlineReached, now, &mut self.dial_actions);
            self.route(now, notices, actions);
        }
    }

    /// The peer of a connection on which it was too slow; none when that was said before. From now on it rests.
    pub(crate) fn on_slow(&mut self, connection: ConnectionId, now: Time) -> Option<PeerId> {
        let peer = self.peer_of(connection)?;
        let len = match self.rests.get(&peer) {
            Some(rest) if rest.connection == connection => return None,
            Some(rest) if now.since(rest.until) < FORGIVEN_AFTER => (rest.len * 4).min(REST_MAX),
            _ => REST,
        };
        if self.rests.len() >= RESTS_MAX
            && !self.rests.contains_key(&peer)
            && let Some(first) = self.rests.iter().min_by_key(|(_, rest)| rest.until).map(|(peer, _)| *peer)
        {
            self.rests.remove(&first);
        }
        self.rests.insert(peer, Rest { until: now + len, connection, len });
        Some(peer)
    }

    /// Whether a peer rests: it was too slow, and takes no part in the overlay until its rest is over.
    pub(crate) fn is_resting(&self, peer: PeerId, now: Time) -> bool {
        self.rests.get(&peer).is_some_and(|rest| now < rest.until)
    }

    /// Sends a whole frame to a peer, dialing it first if need be.
    #[expect(clippy::too_many_arguments, reason = "what, to whom, for whom, and where its consequences go")]
    pub(crate) fn send(
        &mut self,
        to: PeerId,
        address: Option<SocketAddr>,
        channel: ChannelId,
        frame: Bytes,
        call: Option<CallId>,
        now: Time,
        notices: &mut Vec<Notice>,
        actions: &mut Vec<Action>,
    ) {
        if let Some(connection) = self.dial.connection_of(&to) {
            self.used(to, now);
            actions.push(Action::Send { connection, channel, frame, call });
            return;
        }
        let queue_len = self.waiting.len();
        let refused = match self.waiting.get(&to) {
            Some(waiting) => {
                waiting.frames.len() >= self.params.waiting_frames_max || waiting.bytes + frame.len() > self.params.waiting_bytes_max
            }
            None => queue_len >= self.params.waiting_peers_max,
        };
        if refused {
            self.dropped += 1;
            notices.extend(call.map(Notice::Failed));
            return;
        }
        self.patience.set_if_absent(to, now + PATIENCE);
        let waiting = self.waiting.entry(to).or_default();
        waiting.bytes += frame.len();
        waiting.frames.push_back((channel, frame, call));
        self.dial_waiting(to, address, now, notices, actions);
    }

    /// Sends a datagram to a peer, dialing it first if need be.
    pub(crate) fn send_datagram(
        &mut self,
        to: PeerId,
        address: SocketAddr,
        bytes: Bytes,
        now: Time,
        notices: &mut Vec<Notice>,
        actions: &mut Vec<Action>,
    ) {
        if let Some(connection) = self.dial.connection_of(&to) {
            self.used(to, now);
            actions.push(Action::SendDatagram { connection, bytes });
            return;
        }
        if !self.waiting.contains_key(&to) && self.waiting.len() >= self.params.waiting_peers_max {
            self.dropped += 1;
            return;
        }
        self.patience.set_if_absent(to, now + PATIENCE);
        let waiting = self.waiting.entry(to).or_default();
        if waiting.datagrams.len() == WAITING_DATAGRAMS_MAX {
            waiting.datagrams.pop_front();
            self.dropped += 1;
        }
        waiting.datagrams.push_back(bytes);
        self.dial_waiting(to, Some(address), now, notices, actions);
    }

    /// Dials a peer that somebody waits for. [`Notice::Up`] or [`Notice::Unreached`] follows.
    pub(crate) fn wait_for(
        &mut self,
        to: PeerId,
        address: Option<SocketAddr>,
        now: Time,
        notices: &mut Vec<Notice>,
        actions: &mut Vec<Action>,
    ) {
        self.patience.set_if_absent(to, now + PATIENCE);
        self.waiting.entry(to).or_default();
        self.dial_waiting(to, address, now, notices, actions);
    }

    fn dial_waiting(&mut self, to: PeerId, address: Option<SocketAddr>, now: Time, notices: &mut Vec<Notice>, actions: &mut Vec<Action>) {
        match address.or_else(|| self.address_of(to)) {
            Some(address) if !self.leaving => self.want(Some(to), address, false, now, notices, actions),
            _ => self.give_up(to, notices),
        }
    }

    fn used(&mut self, peer: PeerId, now: Time) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.last_used = now;
        }
    }

    /// Notes that a peer used its connection.
    pub(crate) fn received(&mut self, peer: PeerId, now: Time) {
        self.used(peer, now);
    }

    fn flush(&mut self, peer: PeerId, actions: &mut Vec<Action>) {
        let (Some(connection), Some(waiting)) = (self.dial.connection_of(&peer), self.waiting.remove(&peer)) else { return };
        self.patience.cancel(&peer);
        actions.extend(waiting.frames.into_iter().map(|(channel, frame, call)| Action::Send { connection, channel, frame, call }));
        actions.extend(waiting.datagrams.into_iter().map(|bytes| Action::SendDatagram { connection, bytes }));
    }

    /// Drops what waits for a peer and says that it cannot be reached.
    fn give_up(&mut self, peer: PeerId, notices: &mut Vec<Notice>) {
        self.patience.cancel(&peer);
        // Where it said that it is, it is not: the word of others counts again.
        if let Some((_, first_hand)) = self.book.get_mut(&peer) {
            *first_hand = false;
        }
        if let Some(waiting) = self.waiting.remove(&peer) {
            self.dropped += (waiting.frames.len() + waiting.datagrams.len()) as u64;
            notices.extend(waiting.frames.into_iter().filter_map(|(_, _, call)| call).map(Notice::Failed));
        }
        notices.push(Notice::Unreached(peer));
        notices.push(Notice::Down { peer, broken: true, lost: false });
    }

    /// Closes connections that nobody needs: those to peers that are no neighbors, when they are many or long unused.
    pub(crate) fn prune(&mut self, neighbors: &[PeerId], is_needed: impl Fn(PeerId) -> bool, now: Time, actions: &mut Vec<Action>) {
        let is_light = |id: &PeerId| neighbors.binary_search(id).is_err() && !is_needed(*id);
        let mut light: Vec<(Time, PeerId)> =
            self.peers.iter().filter(|(id, _)| is_light(id)).map(|(id, peer)| (peer.last_used, *id)).collect();
        light.sort_unstable();
        let surplus = light.len().saturating_sub(self.params.light_max);
        for (index, (last_used, peer)) in light.into_iter().enumerate() {
            let unused = now.since(last_used);
            if unused >= self.params.light_idle || (index < surplus && unused >= Duration::from_secs(1)) {
                actions
                    .extend(self.dial.connection_of(&peer).map(|connection| Action::Close { connection, reason: CloseReason::Unneeded }));
            }
        }
    }

    /// From now on nobody is dialed and nobody is let in.
    pub(crate) fn leave(&mut self) {
        self.leaving = true;
    }

    fn route(&mut self, now: Time, notices: &mut Vec<Notice>, actions: &mut Vec<Action>) {
        for action in std::mem::take(&mut self.dial_actions) {
            match action {
                dial::Action::Dial { .. } if self.leaving => {}
                dial::Action::Dial { address, expected } => actions.push(Action::Dial { address, expected }),
                dial::Action::Close { connection, .. } => {
                    self.by_connection.remove(&connection);
                    actions.push(Action::Close { connection, reason: CloseReason::Duplicate });
                }
                dial::Action::Up { peer, .. } => {
                    // A peer goes up only while its connection is being handled.
                    if let Some(Arriving { incarnation, address, join }) = self.arriving {
                        self.peers.insert(peer, Peer { incarnation, last_used: now });
                        notices.push(Notice::Up { peer, incarnation, address, join });
                    }
                }
                dial::Action::Replaced { peer, .. } => notices.push(Notice::Replaced(peer)),
                dial::Action::Down { peer } => {
                    self.peers.remove(&peer);
                    notices.push(Notice::Down { peer, broken: !self.unneeded, lost: true });
                }
                dial::Action::GaveUp { peer, .. } => {
                    if let Some(peer) = peer.filter(|peer| !self.peers.contains_key(peer)) {
                        self.give_up(peer, notices);
                    }
                }
            }
        }
    }
}
