//! Partial views: a handful of symmetric links for each node, whatever the size of the cluster, and a reserve to replace them.
//!
//! **Paper.** J. Leitão, J. Pereira, L. Rodrigues, *HyParView: a membership protocol for reliable gossip-based broadcast*, DSN 2007;
//! sections 4.2 (join), 4.3 (active view), 4.4 (disconnect), 4.5 (passive view). The active view is reactive, the passive one is shuffled.
//!
//! **Deviations**, each with its reason and with the [`Improvement`] by which [`Config::without`] undoes it, if it has one;
//! [`Config::paper`] undoes all of those:
//!
//! 1. *A link has a number*, drawn by the side that asks, and stands only once the other side said so. Replies, farewells and checks quote
//!    it, so a late one never touches a newer link; [`Message::Alive`] names it every `alive_period`, and a node that does not hold it says
//!    so. One-way links end within that period whatever was lost. No switch: without losses it changes nothing.
//! 2. *A full contact keeps its view* ([`Improvement::KeepView`], [`Improvement::Splice`]). The paper evicts for every joiner, which under
//!    a storm of joins makes chains of evictions and a clustered graph. Here walks look for places, and a walk that ends at a full node
//!    *splices* the joiner into one of its links: the node gives up a neighbor for the joiner and sends that neighbor to the joiner. Nobody
//!    ends with fewer links than before, the new links are those of a random edge, and evictions have a rate.
//! 3. *A storm is mixed* ([`Improvement::StormMixing`]). Joiners beyond a rate are collected for a moment and introduced to one another at
//!    random, each with one walk that ties it to the older overlay. Otherwise each knows only those just before it. Measured with 5,000
//!    joins at once through one contact: clustering 0.025 without and 0.002 with this rule (0.001 is random), mean path 6.0 and 5.3.
//! 4. *Views fill* ([`Improvement::FillInParallel`], [`Improvement::OwnWalks`]). The paper tries one replacement at a time. Here several
//!    are asked at once and again at once on refusal, within a budget per retry; and a node that misses neighbors sends a walk of its own,
//!    which the first node with a free slot answers, so that two half-full views find each other.
//! 5. *A high priority has a rate* ([`Improvement::LimitHigh`]), per node and per peer, because any node can claim it.
//! 6. *A healed partition is bridged* ([`Improvement::Heal`]). Full views on both sides would never meet; peers that come back are asked
//!    with [`Priority::Heal`], which a full node accepts by splicing, and each node does so for few of them.
//! 7. *Isolation is never final* ([`Improvement::Reseed`]). Contacts and past neighbors are remembered and tried for ever, with a growing
//!    wait.
//! 8. *A closed group opens* ([`Improvement::OpenClosedGroups`]). Nodes whose views hold only each other, while the rest is full, would
//!    stay apart from the rest for ever, because the active view of the paper only reacts. A node that sees the same few origins in all
//!    shuffles asks, every `rewire_period`, a peer from beyond for a link.
//! 9. *The evicted learn replacements* with the farewell ([`Improvement::FarewellPeers`]); they would otherwise have to wait for a shuffle.
//! 10. *A joiner learns candidates* with the answer, and so does whoever is refused ([`Improvement::AnswerPeers`]), for the same reason.
//! 11. *The newest links are spared* when one has to go ([`Improvement::SpareNewest`]), or newcomers would only push each other out.
//! 12. *The passive view learns more* ([`Improvement::LearnMore`]): the membership names peers anyway, and whoever was refused has a free
//!     slot.
//! 13. *Some neighbors are near* ([`Improvement::NearLinks`]). The paper links whom chance brings. Here a node and a peer that both gain by
//!     it become neighbors in the place of one neighbor of each, and those two become neighbors of each other: the exchange between four of
//!     J. Leitão, J. Marques, J. Pereira, L. Rodrigues, *X-BOT: a protocol for resilient optimization of unstructured overlay networks*, SRDS
//!     2009, after which each has as many links as before. At least `random_len_min` links of each node stay as chance has it, as in C.
//!     Tang, R. Chang, C. Ward, *GoCast: gossip-enhanced overlay multicast for fast and dependable group communication*, DSN 2005; no swap
//!     closes a triangle; and links that broadcasts need are spared. Unlike in X-BOT nobody measures how far the two that were given up are from
//!     each other, because theirs is one of the links that stay random. Measured with 10,000 nodes, links of 10 to 50 ms and senders in turn:
//!     the last node is reached after 387 ms without and 258 ms with this rule ten seconds after all joined at once, and after 359 ms and 219
//!     ms a minute after they joined one by one. The header of `near.rs` says how it goes.
//!
//! **Invariants** (checked after every input): the views hold neither us nor each other's peers and keep their bounds; no peer is both a
//! neighbor and asked to become one; slots taken and slots kept free for requests in flight never exceed the active view; a
//! `NeighborUp` alternates with a `NeighborDown` for each peer.
//!
//! **What a peer can make us store**: one passive entry for each peer it names, in a view of fixed size; one entry in the list of a storm, of
//! fixed size too, once at a time; the last probe that was answered. **What it can make us do**: forward its walks one for one for at most `active_walk_len` steps, evict at
//! most `evictions_per_second` neighbors, each of which is told where to go; give up for it a neighbor that is farther, by a measure that it cannot
//! better.
//!
//! The node routes [`crate::topology::Input`] in and carries out [`crate::topology::Action`]; Plumtree runs over the neighbors.

use std::collections::VecDeque;
use std::time::Duration;

use meshwork_channels::buggify::Site;
use meshwork_channels::random::{Generator, generator};
use meshwork_channels::{Misbehavior, Time};
use rand::RngExt;
use rand::seq::{IteratorRandom, SliceRandom};

use crate::identifier::Identifier;
use crate::sorted::reserve;
use crate::tally::Tally;
use crate::topology::{Action, DownReason, Input, Message as TopologyMessage};

mod config;
mod deadlines;
mod fill;
mod heal;
mod improvement;
mod join;
mod link;
mod message;
mod near;
#[cfg(test)]
mod network;
mod passive;
mod rate;
mod sampling;
#[cfg(test)]
mod tests;

pub use config::{Config, Params};
use deadlines::Deadlines;
pub use improvement::Improvement;
pub use message::{CANDIDATES_LEN_MAX, Farewell, Message, Peers, Priority, SHUFFLE_LEN_MAX};
use near::Near;
use passive::{Passive, Spare};
use rate::Rate;

/// Contacts, and as many past neighbors, kept for the day on which no neighbor is left.
const CONTACTS_LEN_MAX: usize = 8;
/// Shuffles whose origins are remembered, and how few different ones among them mark a closed group: 16 draws give at most 7 when there
/// are 7 nodes, and about 11 when there are 20. Fewer draws than the minimum say nothing, between the two the share decides.
const ORIGINS_LEN: usize = 16;
const ORIGINS_LEN_MIN: usize = 6;
const ORIGINS_FEW: usize = 7;
/// Peers from beyond a healed partition that wait to be asked. Few are asked at all, so a sample is enough.
const RETURNED_LEN_MAX: usize = 16;
/// Peers remembered because we evicted for them.
const FAVORED_LEN_MAX: usize = 16;
/// Nodes without a neighbor that ask full nodes make each evict, so they ask few at once.
const HIGH_REQUESTS_MAX: usize = 2;
/// Joiners of a storm that are introduced to one another; measured with 20 joins a second through one contact, where a storm had four of them:
/// clustering 0.005 when they were, 0.0003 is random.
const STORM_LEN_MIN: usize = 32;
/// Neighbors that we give along if we know too few other peers.
const ACTIVE_CANDIDATES_LEN: usize = 2;
/// No node has more neighbors than this, so a walk that claims to miss more is cut to it.
const MISSING_MAX: u8 = 32;

/// What has happened so far, counted from the start of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Neighbors given up for another peer.
    pub evictions: u64,
    /// Requests that we refused, because no slot was free or a rate was used up.
    pub refusals: u64,
    /// Requests of ours that were refused.
    pub refused: u64,
    /// Requests of ours that nobody answered in time.
    pub timeouts: u64,
    /// Walks for a joiner that ended here without a neighbor for it.
    pub walks_lost: u64,
    /// Joiners that were dealt with as a storm.
    pub storm_joiners: u64,
    /// Links that stood on one side only, found by a check or by a late answer.
    pub one_way_links: u64,
    /// Links across a healed partition, or out of a closed group, that we asked for and got.
    pub healed: u64,
    /// Neighbors taken in the place of another because they are nearer; each side counts it.
    pub swaps: u64,
    /// Answers to shuffles that this node no longer waited for; nothing was learned from them.
    pub unasked: u64,
}

/// What is known of a link, beside its peer.
#[derive(Clone, Copy, Debug)]
struct Link {
    number: u32,
    /// The round trip for which it was chosen, in microseconds; 0 if it was not.
    distance: u32,
    since: Time,
}

/// Why a peer was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// It is our way in.
    Join,
    /// To fill a free slot.
    Fill(Priority),
    /// It is a joiner, and we are full and will evict for it.
    Evict,
    /// It was beyond a partition, and we will evict for it if we are full.
    Heal,
    /// It took our place at a neighbor, and has one to spare.
    Succeed,
    /// It is nearer than a neighbor that we will give up for it.
    Near,
    /// It was told to ask us, in the place of a neighbor that gave us up; nothing was sent.
    Awaited,
}

impl Purpose {
    /// Whether a slot is kept free until the answer comes.
    fn keeps_slot(self) -> bool {
        matches!(self, Purpose::Join | Purpose::Fill(_) | Purpose::Succeed | Purpose::Awaited)
    }
}

/// A request that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Request<I> {
    peer: I,
    link: u32,
    purpose: Purpose,
    until: Time,
}

/// The shuffle whose answer is awaited.
#[derive(Clone, Debug)]
struct Shuffling<I> {
    nonce: u32,
    /// What we gave: the first to make room for what we get (section 4.5).
    sent: Vec<I>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Alive,
    Fill,
    Heal,
    Near,
    Requests,
    Rewire,
    Shuffle,
    Storm,
}

impl Key {
    /// In order.
    const ALL: [Key; 8] = [Key::Alive, Key::Fill, Key::Heal, Key::Near, Key::Requests, Key::Rewire, Key::Shuffle, Key::Storm];
}

/// A part of the state of a node, for [`State::warm`], each in front of what it points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The state itself.
    State,
    /// The links to the neighbors.
    Links,
    /// The passive view.
    Passive,
}

/// The views of one node.
///
/// The fields lie in the memory as they stand here: what the check of a link reads comes first, then what a shuffle reads, then the rest.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct State<I> {
    /// In order; `links` has the same order.
    active: Vec<I>,
    links: Vec<Link>,
    me: I,
    has_left: bool,
    requests_left: u8,
    timers: Deadlines,
    params: Params,
    requests: Vec<Request<I>>,
    /// Where the last shuffles that came by began.
    origins: VecDeque<I>,
    random: Generator,
    passive: Passive<I>,
    /// Retries since anything changed.
    fruitless: u32,
    /// A joiner asks nobody by itself before this moment: its walks are under way.
    fill_after: Time,
    shuffling: Option<Shuffling<I>>,
    /// Past and present neighbors, the latest last.
    acquaintances: Vec<I>,
    counters: Tally<Counters>,
    /// Peers for which we evicted, and when.
    favored: Vec<(I, Time)>,
    /// Given by the caller, the latest last.
    contacts: Vec<I>,
    /// Counts through contacts and acquaintances.
    contact_turn: usize,
    joins: Rate,
    evictions: Rate,
    near: Option<Box<Near<I>>>,
    aside: Option<Box<Aside<I>>>,
}

/// What most nodes of a simulated million never need.
#[derive(Clone, Debug)]
struct Aside<I> {
    /// Joiners of a storm, with the link that each asked for.
    storm: Vec<(I, u32)>,
    /// Peers from beyond a healed partition, in no order.
    returned: Vec<I>,
    heals_asked: Rate,
    heals_granted: Rate,
}

impl<I> Default for Aside<I> {
    fn default() -> Self {
        Aside { storm: Vec::new(), returned: Vec::new(), heals_asked: Rate::default(), heals_granted: Rate::default() }
    }
}

impl<I: Identifier> State<I> {
    /// A node that knows nobody; `seed` feeds its generator.
    pub fn new(me: I, params: Params, seed: u64) -> Self {
        State {
            me,
            random: generator(seed, "hyparview", 0),
            active: Vec::new(),
            links: Vec::new(),
            passive: Passive::new(),
            requests: Vec::new(),
            shuffling: None,
            favored: Vec::new(),
            contacts: Vec::new(),
            acquaintances: Vec::new(),
            contact_turn: 0,
            fruitless: 0,
            requests_left: params.requests_per_retry,
            fill_after: Time::ZERO,
            joins: Rate::default(),
            evictions: Rate::default(),
            near: None,
            aside: None,
            origins: VecDeque::new(),
            has_left: false,
            counters: Tally::new(),
            timers: Deadlines::new(),
            params,
        }
    }

    /// Handles one input; appends what was decided.
    pub fn handle(&mut self, input: Input<I>, now: Time, actions: &mut Vec<Action<I>>) {
        match input {
            Input::Join { contact } => self.on_join_wanted(contact, now, actions),
            Input::Received { from, message } => self.on_received(from, message, now, actions),
            Input::Unreachable(peer) => self.on_lost(peer, DownReason::Disconnected, now, actions),
            Input::MemberUp(peer) => self.on_member_up(peer, now, actions),
            Input::MemberBack(peer) => self.on_member_back(peer, now, actions),
            Input::MemberDown(peer) => self.on_lost(peer, DownReason::Failed, now, actions),
            Input::MemberLeft(peer) => self.on_lost(peer, DownReason::Left, now, actions),
            Input::Carrying(peers) => self.on_carrying(peers),
            Input::Leave => self.on_leave(actions),
            Input::DeadlineReached => self.on_deadline_reached(now, actions),
        }
        self.check();
    }

    /// When [`Input::DeadlineReached`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.next_deadline()
    }

    /// The active view, in order.
    pub fn neighbors(&self) -> &[I] {
        &self.active
    }

    /// The number of the link to a neighbor; both sides hold the same.
    pub fn link(&self, peer: I) -> Option<u32> {
        self.link_of(peer)
    }

    /// The passive view, in order.
    pub fn passive(&self) -> impl Iterator<Item = I> + '_ {
        self.passive.iter()
    }

    /// Reads a part of what an input will read; the number means nothing. A driver of very many nodes, whose state is in no cache, calls this for
    /// several nodes before their inputs, part by part, so that the memory answers to many reads at once instead of to one after the other.
    pub fn warm(&self, part: Part) -> u64 {
        match part {
            Part::State => {
                let lens = self.active.len() + self.links.len() + self.requests.len() + self.passive.len();
                lens as u64 ^ self.timers.warm() ^ self.fill_after.as_nanos() ^ u64::from(self.has_left)
            }
            Part::Links => {
                let number = |link: Option<&Link>| link.map_or(0, |link| u64::from(link.number));
                let me = self.active.first().map_or(0, |peer| u64::from(*peer == self.me));
                number(self.links.first()) ^ number(self.links.last()) ^ me
            }
            Part::Passive => self.passive.warm(),
        }
    }

    /// What has happened so far; zeros in a node that [counts nothing](Self::uncounted).
    pub fn counters(&self) -> Counters {
        self.counters.read().copied().unwrap_or_default()
    }

    /// The same node without counters, for a driver of so many nodes that nobody looks at one.
    pub fn uncounted(mut self) -> Self {
        self.counters = Tally::nothing();
        self
    }

    fn on_received(&mut self, from: I, message: TopologyMessage<I>, now: Time, actions: &mut Vec<Action<I>>) {
        let TopologyMessage::Hyparview(message) = message else {
            return misbehaved(from, Misbehavior::WrongTopology, actions);
        };
        if from == self.me {
            return misbehaved(from, Misbehavior::OwnName, actions);
        }
        if let Err(what) = self.vet(from, &message) {
            return misbehaved(from, what, actions);
        }
        if self.has_left {
            return self.turn_away(from, &message, actions);
        }
        match message {
            Message::Join { link } => self.on_join(from, link, now, actions),
            Message::ForwardJoin { joiner, ttl, missing } => self.on_forward_join(from, joiner, ttl, missing, now, actions),
            Message::Neighbor { link, priority } => self.on_neighbor(from, link, priority, now, actions),
            Message::NeighborReply { link, accepted, peers } => self.on_neighbor_reply(from, link, accepted, &peers, now, actions),
            Message::Disconnect { link, reason, peers } => self.on_disconnect(from, link, reason, &peers, now, actions),
            Message::Shuffle { origin, nonce, ttl, peers } => self.on_shuffle(from, origin, nonce, ttl, peers, now, actions),
            Message::ShuffleReply { nonce, peers } => self.on_shuffle_reply(nonce, &peers, now, actions),
            Message::Alive { link } => self.on_alive(from, link, now, actions),
            Message::Probe { nonce } => self.on_probe(from, nonce, now, actions),
            Message::ProbeReply { nonce, token } => self.on_probe_reply(from, nonce, token, now, actions),
            Message::Swap { link, token, old, others } => self.on_swap(from, link, token, old, &others, now, actions),
        }
    }

    fn on_deadline_reached(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        while let Some(key) = self.timers.pop_due(now) {
            match key {
                Key::Alive => self.on_alive_due(now, actions),
                Key::Fill => self.on_fill_due(now, actions),
                Key::Heal => self.on_heal_due(now, actions),
                Key::Near => self.on_near_due(now, actions),
                Key::Requests => self.on_requests_due(now, actions),
                Key::Rewire => self.on_rewire_due(now),
                Key::Shuffle => self.on_shuffle_due(now, actions),
                Key::Storm => self.end_storm(actions),
            }
        }
    }

    /// The rules that a message breaks by itself, whatever the state. Senders leave out of a list the peer that will read it, except in
    /// shuffles, which anybody may read.
    fn vet(&self, from: I, message: &Message<I>) -> Result<(), Misbehavior> {
        match message {
            Message::ForwardJoin { joiner, .. } if *joiner == self.me => Err(Misbehavior::OwnName),
            Message::Swap { old, .. } if *old == self.me || *old == from => Err(Misbehavior::OwnName),
            Message::Shuffle { origin, peers, .. } if *origin == self.me || peers.contains(origin) => Err(Misbehavior::OwnName),
            Message::NeighborReply { peers, .. } | Message::Disconnect { peers, .. } if peers.len() > CANDIDATES_LEN_MAX => {
                Err(Misbehavior::TooMany)
            }
            Message::NeighborReply { peers, .. } | Message::Disconnect { peers, .. } | Message::ShuffleReply { peers, .. }
                if peers.contains(&self.me) || peers.contains(&from) =>
            {
                Err(Misbehavior::OwnName)
            }
            _ => Ok(()),
        }
    }

    fn link_of(&self, peer: I) -> Option<u32> {
        self.active.binary_search(&peer).ok().map(|index| self.links[index].number)
    }

    fn request_of(&self, peer: I) -> Option<&Request<I>> {
        self.requests.iter().find(|request| request.peer == peer)
    }

    fn take_request(&mut self, peer: I, link: u32) -> Option<Request<I>> {
        let index = self.requests.iter().position(|request| request.peer == peer && request.link == link)?;
        Some(self.requests.remove(index))
    }

    fn random_neighbor(&mut self, but: &[I]) -> Option<I> {
        self.active.iter().copied().filter(|peer| !but.contains(peer)).choose(&mut self.random)
    }

    /// The invariants.
    fn check(&self) {
        debug_assert!(self.active.is_sorted_by(|a, b| a < b), "the active view is in order, without repetition");
        debug_assert!(self.active.len() == self.links.len(), "every neighbor has a link");
        debug_assert!(self.active.len() + self.kept() <= self.params.active_len_max, "no more slots are taken or kept than there are");
        debug_assert!(self.passive.len() <= self.params.passive_len_max, "the passive view keeps its bound");
        debug_assert!(self.link_of(self.me).is_none() && !self.passive.contains(self.me), "no view holds this node");
        debug_assert!(self.active.iter().all(|peer| !self.passive.contains(*peer)), "the views are disjoint");
        debug_assert!(self.requests.iter().all(|request| self.link_of(request.peer).is_none()), "no neighbor is asked to become one");
        debug_assert!(self.aside.as_ref().is_none_or(|aside| aside.storm.len() < self.params.storm_len_max), "a storm keeps its bound");
        debug_assert!(self.requests.is_empty() || self.timers.get(Key::Requests).is_some(), "every request ends");
        debug_assert!(
            self.has_left
                || self.active.is_empty()
                || self.active.len() == self.params.active_len_max
                || self.timers.get(Key::Fill).is_some(),
            "a view that is not full is retried"
        );
    }
}

fn send<I>(to: I, message: Message<I>, actions: &mut Vec<Action<I>>) {
    actions.push(Action::Send { to, message: TopologyMessage::Hyparview(message) });
}

fn misbehaved<I>(peer: I, what: Misbehavior, actions: &mut Vec<Action<I>>) {
    actions.push(Action::Misbehaved { peer, what });
}

fn per_second(count: u32) -> Duration {
    Duration::from_secs(1) / count.max(1)
}

/// Appends a peer to a short list, the latest last.
fn remember<I: Identifier>(known: &mut Vec<I>, peer: I) {
    known.retain(|other| *other != peer);
    if known.len() >= CONTACTS_LEN_MAX {
        known.remove(0);
    }
    known.push(peer);
}

/// Up to `len` random ones of `items` (Waterman's reservoir), in no particular order.
fn sample<T>(items: impl Iterator<Item = T>, len: usize, random: &mut Generator) -> Vec<T> {
    let mut chosen = Vec::with_capacity(len);
    for (seen, item) in items.enumerate() {
        if chosen.len() < len {
            chosen.push(item);
        } else if let Some(place) = chosen.get_mut(random.random_range(0..=seen)) {
            *place = item;
        }
    }
    chosen
}
