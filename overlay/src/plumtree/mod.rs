//! How a payload reaches every node: it is pushed along a tree, announced beside it, and pulled where the tree is broken.
//!
//! The source is "Epidemic Broadcast Trees" (Leitão, Pereira, Rodrigues, SRDS 2007): sections 3.4 to 3.6 (gossip, tree construction, fault
//! tolerance and tree repair), 3.7 (changes of the neighbors) and 3.8 (optimization). A link between neighbors is *eager* when payloads are
//! pushed over it, else *lazy*; the eager links become a tree, because every link that brings a duplicate is pruned, and stay one, because
//! a payload that is announced and does not come is grafted from an announcer.
//!
//! Deviations, each for what the papers or their implementations lose, and with the [`Improvement`] by which [`Config::without`] undoes it,
//! if it has one; [`Config::paper`] undoes all of those:
//!
//! 1. A new neighbor is told everything that is still held ([`Improvement::Backlog`]; section 3.7 tells it nothing), so what was sent while
//!    a node was cut off arrives afterwards. Every few seconds one neighbor at random is told what came since it was told last
//!    ([`Improvement::Summary`]), since a push can be lost where no lazy link exists.
//! 2. A graft is always answered, if only by "gone" ([`Improvement::AnswerGone`]), and is retried at every announcer until the payload came
//!    or no announcer is left ([`Improvement::RetryGrafts`]).
//! 3. Only what is on its first way through the tree shapes the tree ([`Improvement::FirstWayOnly`]). Payloads that repair, and what
//!    follows from them, never cause a prune.
//! 4. A duplicate does not prune a link when the payload did not come over another eager link: some link must stay; nor while the last
//!    prune is on its way ([`Improvement::SparePrunes`]).
//! 5. Waiting times are measured, not configured ([`Improvement::MeasuredTimers`]): how long the tree lags behind announcements, how long a
//!    neighbor takes to answer.
//! 6. Announcements are batched, longer where messages are frequent ([`Improvement::Batching`]), and are not sent to a neighbor that is
//!    known to have the payload ([`Improvement::SkipHolders`]).
//! 7. An identity is (origin, incarnation, channel, sequence), so delivered messages are remembered as intervals, for good. No switch: it
//!    decides what is a duplicate only where the paper leaves that open.
//! 8. A node whose links are all lazy makes one of them eager when it broadcasts ([`Improvement::RaiseLazy`]).
//! 9. The tree is optimized, where it is at all, by announcements that came before their payload: what is announced later came over links
//!    that are slower, however few they are.
//! 10. *A flood makes the tree and nothing else prunes it* ([`Improvement::RootedTree`]). By the paper every payload shapes the tree, so two
//!     payloads at the same time cut one circle in two places, a payload that is pulled because it is late closes another circle, and its
//!     duplicate then cuts the way that was only slow: with senders in turn the tree grows longer with every message (measured with 10,000
//!     nodes, links of 10 to 50 ms: the last node is reached after 389 ms in the second message and after 1,050 ms in the fourth). Here
//!     [`Push::Shape`] goes over all links; who brings it first belongs to the tree, and its duplicates prune. Of two such floods the one with
//!     the larger number stays. It is sent by who broadcasts first, by who sends most if the tree is not its own, by who lost half of its
//!     neighbors at once, and else once in 512 broadcasts. A new link stays out of the tree, unless the node has no other.
//! 11. *A pull changes the tree only where it is broken.* What was pulled goes on as [`Push::Pulled`]. Where the tree brings it as well, the
//!     two waves meet, and [`Message::Met`] goes back to the node that pulled: it only waited too briefly, and learns for how long to wait. If
//!     no such news comes, the pulled link joins the tree. Who lost a link of the tree does not wait for that.
//! 12. *What others than the main sender send is flooded over some links first* ([`Improvement::Flood`], [`Config::flood_len`]), so that it
//!     enters the tree in many places. With 10,000 nodes and four links half of the nodes have it after 238 ms instead of 311.
//!
//! 13. *The tree is trimmed between floods* ([`Improvement::Trim`]). What is mended closes circles too, where several nodes of one piece mend it,
//!     and makes ways longer. [`Push::Trim`] goes down the tree as any payload, its duplicates prune, and when the root sends it, who hears of
//!     a way that is two links shorter takes that one (section 3.8). As one is sent at a time, at most every 5 s, it leaves one way to each
//!     node that it reaches. It is sent by the root, and else by one in so many as have broadcast since the last. With 2,000 nodes, of which one
//!     crashes each second, and a message every ten seconds: 10.2 links and a redundancy of 0.09 instead of 14.1 and 0.14, and no circle left.
//! 14. *Who loses the way to the root takes another one at once* ([`Improvement::Regraft`]) and does not wait until a payload was announced and
//!     did not come, which the whole piece below it would wait for too and pull in many places. There the last node has it after 359 ms
//!     instead of 638.
//!
//! What it aims at: each message that any node of a connected overlay still holds is delivered once on every node.
//!
//! Invariants: nothing is delivered twice while its stream is remembered; a message is missing only while an announcer is known; at most
//! `asked_max` requests to one neighbor are open; what is waiting to be asked for has a neighbor with open requests, or a deadline.
//!
//! What a peer can make us store, each with its bound in [`Config`] and its counter in [`Counters`]: payloads (count, bytes, age), streams
//! and their intervals, missing messages (for each neighbor and in total) and their announcers. What it can make us do: serve grafts, up
//! to a rate. Work for one message is bounded by these and by the size of a frame.
//!
//! The overlay tells this core who the neighbors are and carries its messages; the application above it receives what it delivers.

mod announce;
mod config;
mod counters;
mod identity;
mod improvement;
pub mod message;
mod neighbor;
mod repair;
mod seen;
mod store;
#[cfg(test)]
mod tests;
mod tree;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::buggify::Site;
use meshwork_channels::limits::BROADCAST_BYTES_MAX;
use meshwork_channels::random::{Generator, generator};
use meshwork_channels::{ChannelId, Misbehavior, Time};
use rand::RngExt;

pub use self::config::{Config, Params};
pub use self::counters::Counters;
pub use self::identity::{MessageId, Stream};
pub use self::improvement::Improvement;
pub use self::message::Message;
use self::message::{LinkNews, Push};
use self::neighbor::{Estimate, Neighbor, Quota, micros, weighed};
use self::repair::Missing;
use self::seen::Seen;
use self::store::{Held, Passed, Store};
use self::tree::Tree;
use crate::identifier::Identifier;
use crate::sorted::{Sorted, SortedSet, reserve};
use crate::tally::Tally;

/// How long a prune is given to arrive before a further duplicate repeats it, and the least time between two repeated backlogs.
const SETTLE: Duration = Duration::from_secs(1);
/// Peers that are remembered because they announced something before they were neighbors.
const EARLY_MAX: usize = 32;
/// Pulled payloads of which it is not known yet whether the tree brings them too.
const PULLED_MAX: usize = 32;
/// Identities after which an announcement does not wait any longer.
const ANNOUNCE_IDS_MAX: usize = 512;
/// Links that a way through an announcer must save for the tree to be trimmed to it. The paper has 3 for one sender.
const TRIM_THRESHOLD: u16 = 2;
/// Messages that a busy node wants in one announcement.
const ANNOUNCE_IDS: u32 = 10;

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<I> {
    /// The overlay took a peer as a neighbor. For a peer that is one already: nothing.
    NeighborUp(I),
    /// A peer is no neighbor any more. For a peer that is none: nothing.
    NeighborDown(I),
    /// So many nodes are in the cluster, as far as anybody can say. Until it is told nothing is flooded.
    ClusterSize(u32),
    /// A message of this core arrived.
    Received {
        /// The peer that sent it over its own connection, neighbor or not.
        from: I,
        /// The message.
        message: Message<I>,
    },
    /// The moment of [`State::next_deadline`] has come.
    DeadlineReached,
}

/// What is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<I> {
    /// Send a message to a peer that is a neighbor, or that has just asked for something.
    Send {
        /// The peer.
        to: I,
        /// The message.
        message: Message<I>,
    },
    /// Hand a payload to the application, for the only time.
    Deliver {
        /// Its identity.
        id: MessageId<I>,
        /// The payload.
        payload: Bytes,
        /// The peer that sent it to us, which need not be its origin.
        from: I,
        /// How many links it has crossed, 1 from its origin.
        hops: u16,
    },
    /// The peer broke a rule.
    Misbehaved {
        /// The peer.
        peer: I,
        /// The rule.
        what: Misbehavior,
    },
}

/// Why a broadcast was refused. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BroadcastError {
    /// The payload is larger than `payload_len_max` of [`Config`].
    TooLarge {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        len_max: usize,
    },
}

impl fmt::Display for BroadcastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BroadcastError::TooLarge { len, len_max } => write!(f, "a broadcast of {len} bytes is above the limit of {len_max}"),
        }
    }
}

impl std::error::Error for BroadcastError {}

/// A part of the state of a node, for [`State::warm`], each in front of what it points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<I> {
    /// The state itself.
    State,
    /// Who the neighbors are, and what was seen of the stream that was used last.
    Peers,
    /// Where payloads are kept, and what was seen of other streams.
    Pieces,
    /// One neighbor, behind `Peers`.
    Neighbor(I),
    /// All neighbors and the newest payload, behind `Pieces`.
    Neighbors,
}

/// The broadcast of one node.
///
/// The fields lie in the memory as they stand here: what an announcement reads comes first, in as few cache lines as it needs.
#[expect(clippy::box_collection, reason = "a pointer is all that a simulated million pays for what is rarely there")]
#[derive(Clone, Debug)]
#[repr(C)]
pub struct State<I> {
    /// In order; `neighbors` has the same order.
    peers: Vec<I>,
    neighbors: Vec<Neighbor<I>>,
    seen: Seen<I>,
    me: I,
    /// Whether a neighbor may be wanted for something.
    is_wanting: bool,
    incarnation: u64,
    params: Params,
    /// When the waiting announcements go out; [`Time::MAX`] when none wait, as for the other two moments.
    announce_at: Time,
    /// When the next summary goes out, or what is held is past its retention.
    summary_at: Time,
    /// When a neighbor that may not be asked for more now may be asked again.
    ask_at: Time,
    missing: Sorted<MessageId<I>, Missing<I>>,
    /// The deadlines of missing messages.
    missing_due: SortedSet<(Time, MessageId<I>)>,
    store: Store<I>,
    /// When a message last went through.
    passed_at: Time,
    /// How long the tree lags behind announcements.
    tree_lag: Estimate,
    tree: Tree,
    /// The mean interval between messages that went through, in microseconds.
    passed_interval: u32,
    counters: Tally<Counters>,
    generator: Generator,
    /// Peers that announced something before they were neighbors, and when; in the order of arrival.
    early: Vec<(I, Time)>,
    /// What was pulled of late, and may yet turn out to come down the tree.
    pulled: Option<Box<Vec<Pulled<I>>>>,
    aside: Option<Box<Aside>>,
}

/// A payload that was pulled though it was on its first way.
#[derive(Clone, Debug)]
struct Pulled<I> {
    id: MessageId<I>,
    /// Who sent it.
    from: I,
    /// When it was first announced.
    since: Time,
    /// When the tree counts as broken unless it has brought it by then.
    due: Time,
}

/// What most nodes of a simulated million never need.
#[derive(Clone, Debug)]
struct Aside {
    /// What peers that are no neighbors may ask of us, together.
    strangers_quota: Quota,
    /// The last sequence number of each channel that we broadcast on.
    sequences: Sorted<ChannelId, u64>,
}

impl<I: Identifier> State<I> {
    /// The broadcast of the node `me` in its life `incarnation`, which is larger than that of every earlier life. `seed` feeds its generator.
    pub fn new(me: I, incarnation: u64, params: Params, seed: u64) -> Self {
        State {
            me,
            incarnation,
            params,
            generator: generator(seed, "plumtree", 0),
            counters: Tally::new(),
            neighbors: Vec::new(),
            peers: Vec::new(),
            early: Vec::new(),
            seen: Seen::new(),
            store: Store::new(),
            announce_at: Time::MAX,
            passed_at: Time::ZERO,
            passed_interval: micros(SETTLE),
            summary_at: Time::MAX,
            missing: Sorted::new(),
            missing_due: Sorted::new(),
            is_wanting: false,
            ask_at: Time::MAX,
            tree_lag: Estimate::default(),
            tree: Tree::new(),
            pulled: None,
            aside: None,
        }
    }

    /// Handles one input; appends what was decided.
    pub fn handle(&mut self, input: Input<I>, now: Time, actions: &mut Vec<Action<I>>) {
        self.store.expire(now, self.params.store(), &mut self.counters);
        match input {
            Input::NeighborUp(peer) => self.on_neighbor_up(peer, now, actions),
            Input::NeighborDown(peer) => self.on_neighbor_down(peer, now, actions),
            Input::ClusterSize(nodes) => self.tree.grows_to(nodes),
            Input::Received { from, message } => match message {
                Message::Gossip { id, hops, push, payload } => self.on_gossip(from, id, hops, push, payload, now, actions),
                Message::IHave { link, groups } => self.on_ihave(from, link, &groups, now, actions),
                Message::Graft { eager, groups } => self.on_graft(from, eager, &groups, now, actions),
                Message::Prune { shape } => self.on_prune(from, shape, now),
                Message::Gone { groups } => self.on_gone(from, &groups, now),
                Message::Met { id } => self.on_met(from, id, now, actions),
            },
            Input::DeadlineReached => self.on_deadline_reached(now, actions),
        }
        self.finish(now, actions);
    }

    /// Sends a payload to every other node, and returns its identity. It is not delivered to this node, and nobody answers: a node without
    /// neighbors keeps the payload for the neighbors that it gets within the retention.
    ///
    /// # Errors
    ///
    /// [`BroadcastError::TooLarge`]; nothing was sent, and no sequence number was used.
    pub fn broadcast(
        &mut self,
        channel: ChannelId,
        payload: Bytes,
        now: Time,
        actions: &mut Vec<Action<I>>,
    ) -> Result<MessageId<I>, BroadcastError> {
        let len_max = self.params.config().payload_len_max;
        if payload.len() > len_max {
            return Err(BroadcastError::TooLarge { len: payload.len(), len_max });
        }
        self.store.expire(now, self.params.store(), &mut self.counters);
        let sequence = self.sequence(channel) + 1;
        self.aside().sequences.insert(channel, sequence);
        let id = MessageId { origin: self.me, incarnation: self.incarnation, channel, sequence };
        self.counters.count(|counters| counters.broadcasts += 1);
        if self.params.has(Improvement::RaiseLazy) && !self.neighbors.is_empty() && self.neighbors.iter().all(|neighbor| !neighbor.eager) {
            // Without an eager link the payload would wait to be pulled. The receiver makes the link eager too, or prunes it again.
            let chosen = self.generator.random_range(0..self.neighbors.len());
            self.neighbors[chosen].eager = true;
        }
        let push = self.push_of_own(now);
        self.pass_on(id, &payload, 0, push, self.me, &[], now, actions);
        self.keep(id, Held { payload, hops: 0, from: self.me, passed: push.into() }, now);
        self.finish(now, actions);
        Ok(id)
    }

    /// Whether trees are made by floods and mended only where they are broken.
    fn is_rooted(&self) -> bool {
        self.params.has(Improvement::RootedTree)
    }

    /// Whether a pull mends the tree at once. A payload that is late is no proof that the tree is broken, and a link more closes a circle.
    fn is_tree_broken(&self) -> bool {
        !self.is_rooted() || self.tree.has_lost_link() || self.neighbors.iter().all(|neighbor| !neighbor.eager)
    }

    fn push_of_own(&mut self, now: Time) -> Push {
        if !self.is_rooted() {
            return Push::Eager;
        }
        let len = if self.params.has(Improvement::Flood) { self.flood_len() } else { 0 };
        let trims = self.params.has(Improvement::Trim);
        self.tree.starts(len, trims, self.seen.streams_len() > 0, self.neighbors.len(), now, &mut self.generator)
    }

    fn flood_len(&self) -> u8 {
        self.tree.flood_len(self.params.config().flood_len, self.neighbors.len())
    }

    /// When [`Input::DeadlineReached`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        let missing = self.missing_due.first().map_or(Time::MAX, |((at, _), ())| *at);
        Some(self.announce_at.min(self.summary_at).min(self.ask_at).min(missing)).filter(|at| *at < Time::MAX)
    }

    /// Reads a part of what an input will read, as [`hyparview::State::warm`](crate::hyparview::State::warm) does.
    pub fn warm(&self, part: Part<I>) -> u64 {
        match part {
            Part::State => {
                let lens = self.neighbors.len() + self.peers.len() + self.store.len() + self.seen.streams_len() + self.missing.len();
                let times = self.announce_at.as_nanos() ^ self.ask_at.as_nanos() ^ self.summary_at.as_nanos();
                (lens + self.missing_due.len()) as u64 ^ times ^ self.passed_at.as_nanos() ^ self.tree_lag.warm()
            }
            Part::Peers => self.peers.first().map_or(0, |peer| u64::from(*peer == self.me)) ^ self.seen.warm(false),
            Part::Pieces => self.store.warm() ^ self.seen.warm(true),
            Part::Neighbor(peer) => self.find(&peer).map_or(0, |at| self.neighbors[at].warm()),
            Part::Neighbors => self.neighbors.iter().fold(self.store.warm_newest(), |read, neighbor| read ^ neighbor.warm()),
        }
    }

    /// What happened so far; zeros in a node that [counts nothing](Self::uncounted).
    pub fn counters(&self) -> &Counters {
        static ZEROS: Counters = Counters::new();
        self.counters.read().unwrap_or(&ZEROS)
    }

    /// The same node without counters, for a driver of so many nodes that nobody looks at one.
    pub fn uncounted(mut self) -> Self {
        self.counters = Tally::nothing();
        self
    }

    /// The neighbors, in order, each with whether payloads are pushed to it.
    pub fn neighbors(&self) -> impl Iterator<Item = (I, bool)> {
        self.neighbors.iter().map(|neighbor| (neighbor.peer, neighbor.eager))
    }

    /// The neighbors in the tree, if a flood has made one; in order.
    pub fn carrying(&self) -> impl Iterator<Item = I> + '_ {
        self.neighbors.iter().filter(|neighbor| neighbor.eager && self.tree.number() != 0).map(|neighbor| neighbor.peer)
    }

    /// How many messages were announced and are not here yet.
    pub fn missing_len(&self) -> usize {
        self.missing.len()
    }

    /// How many payloads are kept.
    pub fn payloads_len(&self) -> usize {
        self.store.len()
    }

    /// How many bytes of payloads are kept.
    pub fn payload_bytes(&self) -> usize {
        self.store.bytes()
    }

    /// Whether the message was delivered here, or sent by us.
    pub fn is_seen(&self, id: &MessageId<I>) -> bool {
        // What is held counts as well: its stream may have been forgotten at the bound.
        self.is_own(&id.stream()) && id.sequence != 0 && id.sequence <= self.sequence(id.channel)
            || self.seen.contains(id)
            || self.seen.has_forgotten() && self.store.contains(id)
    }

    /// Section 3.7: a new neighbor starts eager. It is told everything that we hold, since it may have been cut off.
    fn on_neighbor_up(&mut self, peer: I, now: Time, actions: &mut Vec<Action<I>>) {
        let Err(at) = self.find(&peer) else { return };
        if peer == self.me {
            return;
        }
        // A link more closes a circle, so only a node outside the tree takes one into it.
        let is_outside = self.neighbors.iter().all(|neighbor| !neighbor.eager);
        reserve(&mut self.neighbors);
        let mut neighbor = Neighbor::new(peer, self.store.begin(), now);
        neighbor.eager = is_outside || !self.is_rooted();
        self.neighbors.insert(at, neighbor);
        reserve(&mut self.peers);
        self.peers.insert(at, peer);
        let unheard = self.early.iter().any(|(early, since)| *early == peer && now - *since <= 10 * SETTLE);
        self.early.retain(|(early, _)| *early != peer);
        if self.early.is_empty() {
            self.early = Vec::new();
        }
        self.send_backlog(peer, if unheard { LinkNews::OpenedUnheard } else { LinkNews::Opened }, actions);
        self.plan_summary(now);
        if is_outside && self.is_rooted() {
            actions.push(Action::Send { to: peer, message: Message::Graft { eager: true, groups: message::Groups::new() } });
        }
    }

    /// Section 3.7: a lost neighbor is forgotten, and what it was asked for is asked for elsewhere.
    fn on_neighbor_down(&mut self, peer: I, now: Time, actions: &mut Vec<Action<I>>) {
        self.early.retain(|(early, _)| *early != peer);
        if let Ok(at) = self.find(&peer) {
            self.forget_announcer(peer, now);
            self.tree.loses(self.neighbors[at].eager, now);
            let lost = self.neighbors.remove(at);
            self.peers.remove(at);
            if lost.is_parent && lost.eager && self.is_rooted() && self.params.has(Improvement::Regraft) {
                self.regraft(actions);
            }
        }
    }

    /// Sections 3.4 and 3.5: a payload that is new is delivered and passed on, one that is not prunes the link that brought it.
    #[allow(clippy::too_many_arguments)]
    fn on_gossip(&mut self, from: I, id: MessageId<I>, hops: u16, push: Push, payload: Bytes, now: Time, actions: &mut Vec<Action<I>>) {
        if payload.len() > BROADCAST_BYTES_MAX {
            actions.push(Action::Misbehaved { peer: from, what: Misbehavior::TooMany });
            return;
        }
        self.counters.count(|counters| counters.payload_bytes_received += payload.len() as u64);
        if push == Push::Answer {
            self.on_answers(from, 1);
        }
        if self.is_own(&id.stream()) && !self.is_seen(&id) {
            // Nobody but us numbers our messages.
            actions.push(Action::Misbehaved { peer: from, what: Misbehavior::OwnName });
            return;
        }
        if self.is_seen(&id) {
            self.on_duplicate(from, id, push, now, actions);
            return;
        }
        if self.seen.is_impossible(&id, now, self.params.seen()) {
            self.counters.count(|counters| counters.sequences_refused += 1);
            actions.push(Action::Misbehaved { peer: from, what: Misbehavior::SequenceAhead });
            return;
        }
        let hops = hops.max(1);
        if let Some((first, last)) = self.seen.insert(&id, now, self.params.seen(), &mut self.counters) {
            self.forget_missing(id.stream().message(first), id.stream().message(last));
        }
        let missing = self.take_missing(&id, from, push, now);
        let is_pulled = push == Push::Answer;
        let was_pushed = matches!(push, Push::Eager | Push::Pulled | Push::Trim { .. });
        let push = match push {
            _ if !self.params.has(Improvement::FirstWayOnly) => Push::Eager,
            Push::Shape(number) if !self.is_rooted() || !self.tree.is_made(number, now) => Push::Eager,
            Push::Trim { shape, .. } if !self.is_rooted() || !self.tree.is_trimmed(shape, now) => Push::Eager,
            Push::Shape(_) | Push::Trim { .. } | Push::Eager | Push::Pulled | Push::Late => push,
            Push::Flood(left) => left.min(self.flood_len()).checked_sub(1).map_or(Push::Eager, Push::Flood),
            // A graft that follows an announcement on its first way mends the tree; the payload goes on as if the tree had brought it.
            Push::Answer if missing.as_ref().is_some_and(Missing::is_fresh) => {
                if self.find(&from).is_ok_and(|at| self.neighbors[at].eager) { Push::Eager } else { Push::Pulled }
            }
            Push::Answer => Push::Late,
        };
        let makes_ours = push == Push::Shape(self.tree.number());
        if was_pushed || makes_ours || !self.params.has(Improvement::FirstWayOnly) {
            if push != Push::Pulled {
                self.tree.brings();
            }
            // Algorithm 1: who brings a payload first belongs into the tree.
            if let Some(neighbor) = self.neighbor_mut(&from) {
                neighbor.eager = true;
            }
            if makes_ours || matches!(push, Push::Trim { .. }) {
                self.is_shaped_by(from, hops, missing.as_ref());
            }
            // Section 3.8: an announcer was nearer to the origin than who brought the payload.
            let threshold = match push {
                Push::Trim { from_root, .. } => from_root.then_some(TRIM_THRESHOLD),
                _ if self.is_rooted() => None,
                _ => self.params.config().optimization_threshold,
            };
            if let (Some(threshold), Some(nearest)) = (threshold, missing.as_ref().and_then(Missing::nearest)) {
                self.optimize(nearest, from, hops, threshold, now, actions);
            }
        }
        if is_pulled && let Some(missing) = missing.as_ref().filter(|missing| missing.is_fresh()) {
            self.on_pulled(id, from, missing.since(), now);
        }
        self.tree.passes();
        self.counters.count(|counters| counters.delivered += 1);
        actions.push(Action::Deliver { id, payload: payload.clone(), from, hops });
        let have = missing.filter(|_| self.params.has(Improvement::SkipHolders)).map_or(Vec::new(), Missing::into_announcers);
        self.pass_on(id, &payload, hops, push, from, &have, now, actions);
        self.keep(id, Held { payload, hops, from, passed: push.into() }, now);
    }

    /// Section 3.5: a duplicate shows that the link closes a circle, so the link leaves the tree on both sides.
    fn on_duplicate(&mut self, from: I, id: MessageId<I>, push: Push, now: Time, actions: &mut Vec<Action<I>>) {
        self.counters.count(|counters| counters.duplicates += 1);
        let way = self.store.way(&id);
        if let (Push::Eager | Push::Shape(_) | Push::Trim { .. }, Some(way)) = (push, way) {
            self.on_meeting(&id, way, now, actions);
        }
        let spares = self.params.has(Improvement::SparePrunes);
        let skips = self.params.has(Improvement::SkipHolders);
        let is_eager = |peer: &I| self.find(peer).is_ok_and(|at| self.neighbors[at].eager);
        // Of a tree that is made by floods nothing else takes links away, or two payloads at once would cut a circle in two places.
        let closes_circle = match push {
            Push::Shape(shape) | Push::Trim { shape, .. } => {
                shape == self.tree.number() && way.is_none_or(|way| way.passed == Passed::Shaping)
            }
            Push::Eager => !self.is_rooted(),
            _ => !self.params.has(Improvement::FirstWayOnly),
        };
        let other_way = match way.map(|way| way.from) {
            Some(first) if first != self.me => first != from && is_eager(&first),
            // Our own, or too old to know who brought it: any other eager link will do.
            Some(_) | None => self.neighbors.iter().any(|neighbor| neighbor.eager && neighbor.peer != from),
        };
        let Some(neighbor) = self.neighbor_mut(&from) else {
            self.counters.count(|counters| counters.strangers_ignored += 1);
            return;
        };
        if skips {
            neighbor.announce.remove(&id);
        }
        // More duplicates are on their way when the first one comes; they need no prune of their own.
        let told = !neighbor.eager && neighbor.is_settling(now);
        if closes_circle && (!spares || other_way && !told) {
            self.prune(from, now, actions);
        }
    }

    /// Section 3.5: the neighbor gets this payload over another link.
    fn on_prune(&mut self, from: I, shape: u32, now: Time) {
        self.counters.count(|counters| counters.prunes_received += 1);
        if shape != self.tree.number() {
            // Of a tree that was made at the same time as this one, and gave way to it.
            return;
        }
        match self.neighbor_mut(&from) {
            Some(neighbor) => {
                // Its side is lazy too, so what still comes was on its way.
                neighbor.prune(now);
            }
            None => self.counters.count(|counters| counters.strangers_ignored += 1),
        }
    }

    fn on_deadline_reached(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        while let Some((at, id)) = self.missing_due.first().map(|(due, ())| *due)
            && at <= now
        {
            self.missing_due.remove(&(at, id));
            self.on_missing_due(id, now, actions);
        }
        if self.ask_at <= now {
            self.ask_at = Time::MAX;
        }
        if self.summary_at <= now {
            self.send_summary(now, actions);
        }
    }

    /// What ends every input: requests and announcements that came together go out together.
    fn finish(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        self.send_grafts(now, actions);
        if self.announce_at <= now {
            self.announce_at = Time::MAX;
            for at in 0..self.neighbors.len() {
                self.announce_to(at, actions);
            }
        }
        self.check();
    }

    /// Pushes a payload over eager links and notes it for the next announcement over lazy ones, except to `from`, who brought it, and to those
    /// that `have` it.
    #[allow(clippy::too_many_arguments)]
    fn pass_on(
        &mut self,
        id: MessageId<I>,
        payload: &Bytes,
        hops: u16,
        push: Push,
        from: I,
        have: &[I],
        now: Time,
        actions: &mut Vec<Action<I>>,
    ) {
        let hops = hops.saturating_add(1);
        let makes_ours = push == Push::Shape(self.tree.number());
        let interval = (now - self.passed_at).min(SETTLE);
        self.passed_at = now;
        self.passed_interval = weighed(self.passed_interval, 7, micros(interval));
        let mut full = false;
        for neighbor in self.neighbors.iter_mut().filter(|neighbor| neighbor.peer != from && !have.contains(&neighbor.peer)) {
            // All links belong to the tree again until they bring what came before.
            neighbor.eager |= makes_ours;
            if neighbor.eager || matches!(push, Push::Flood(_) | Push::Shape(_)) {
                self.counters.count(|counters| counters.pushes_sent += 1);
                self.counters.count(|counters| counters.payload_bytes_sent += payload.len() as u64);
                actions.push(Action::Send { to: neighbor.peer, message: Message::Gossip { id, hops, push, payload: payload.clone() } });
                if self.params.buggify().happens(Site::PushTwice) {
                    actions.push(Action::Send { to: neighbor.peer, message: Message::Gossip { id, hops, push, payload: payload.clone() } });
                }
            } else {
                neighbor.announce.insert(id, if push.is_first_way() { hops } else { 0 });
                full |= neighbor.announce.len() >= ANNOUNCE_IDS_MAX;
                if !self.params.has(Improvement::Batching) {
                    // At the end of this input.
                    self.announce_at = now;
                } else if self.announce_at == Time::MAX {
                    let config = self.params.config();
                    // Waiting pays where company is near: on a quiet node it would only delay.
                    let (least, most) = (config.announce_delay_min, config.announce_delay_max);
                    let interval = Duration::from_micros(self.passed_interval.into());
                    let delay = if interval >= most { least } else { (interval * ANNOUNCE_IDS).clamp(least, most) };
                    let delay = if self.params.buggify().happens(Site::AnnounceLate) { most } else { delay };
                    self.announce_at = now + delay;
                }
            }
        }
        if full {
            self.announce_at = now;
        }
    }

    /// Keeps a payload for those who missed it, and makes sure that a summary tells of it.
    fn keep(&mut self, id: MessageId<I>, held: Held<I>, now: Time) {
        self.store.insert(id, held, now, self.params.store(), &mut self.counters);
        self.plan_summary(now);
    }

    /// Takes a link out of the tree.
    fn prune(&mut self, peer: I, now: Time, actions: &mut Vec<Action<I>>) {
        let shape = self.tree.number();
        if let Some(neighbor) = self.neighbor_mut(&peer) {
            neighbor.prune(now);
            self.counters.count(|counters| counters.prunes_sent += 1);
            actions.push(Action::Send { to: peer, message: Message::Prune { shape } });
        }
    }

    /// Section 3.8: when an announcer is nearer to the origin than who pushed the payload, by a threshold, it takes the other's place.
    fn optimize(
        &mut self,
        (announcer, announced_hops): (I, u16),
        pusher: I,
        hops: u16,
        threshold: u16,
        now: Time,
        actions: &mut Vec<Action<I>>,
    ) {
        if announcer == pusher || hops.saturating_sub(announced_hops) < threshold || self.find(&pusher).is_err() {
            return;
        }
        let Some(neighbor) = self.neighbor_mut(&announcer) else { return };
        if neighbor.eager {
            return;
        }
        (neighbor.eager, neighbor.is_parent) = (true, true);
        self.counters.count(|counters| counters.optimizations += 1);
        actions.push(Action::Send { to: announcer, message: Message::Graft { eager: true, groups: message::Groups::new() } });
        if let Some(neighbor) = self.neighbor_mut(&pusher) {
            neighbor.is_parent = false;
        }
        self.prune(pusher, now, actions);
    }

    fn aside(&mut self) -> &mut Aside {
        self.aside.get_or_insert_with(|| Box::new(Aside { strangers_quota: Quota::default(), sequences: Sorted::new() }))
    }

    fn is_own(&self, stream: &Stream<I>) -> bool {
        stream.origin == self.me && stream.incarnation == self.incarnation
    }

    fn sequence(&self, channel: ChannelId) -> u64 {
        self.aside.as_ref().and_then(|aside| aside.sequences.get(&channel).copied()).unwrap_or(0)
    }

    fn find(&self, peer: &I) -> Result<usize, usize> {
        self.peers.binary_search(peer)
    }

    fn neighbor_mut(&mut self, peer: &I) -> Option<&mut Neighbor<I>> {
        self.find(peer).ok().map(|at| &mut self.neighbors[at])
    }

    /// The invariants.
    fn check(&self) {
        let config = self.params.config();
        assert!(self.store.len() <= config.payloads_max && self.store.bytes() <= config.payload_bytes_max, "the store keeps its bounds");
        assert!(self.missing.len() <= config.missing_max, "missing messages keep their bound");
        assert!(self.seen.streams_len() <= config.streams_max, "streams keep their bound");
        debug_assert!(self.seen.ranges_len() <= config.ranges_max + config.streams_max, "intervals keep their bound");
        debug_assert!(self.neighbors.is_sorted_by(|a, b| a.peer < b.peer), "each neighbor stands once, in order");
        debug_assert!(self.neighbors.iter().map(|neighbor| neighbor.peer).eq(self.peers.iter().copied()), "both lists are the same");
        for neighbor in &self.neighbors {
            debug_assert!(neighbor.asked_len as usize <= config.asked_max, "open requests keep their bound");
            debug_assert!(
                neighbor.announced_len as usize <= config.missing_per_neighbor_max,
                "announcements of one neighbor keep their bound"
            );
            debug_assert!(neighbor.is_asking_empty(), "what is asked for is sent");
            debug_assert!(
                neighbor.is_ready_empty() || neighbor.asked_len > 0 || self.ask_at < Time::MAX,
                "what is ready to be asked for is asked for, or something will free the room for it"
            );
        }
        self.check_missing();
    }
}
