//! Full mesh: every member is a neighbor. For clusters of up to some hundred nodes, where one hop to everybody is worth the connections.
//!
//! A link stands once both sides hold a number of the other: each side draws one for its half, says it with [`Message::Link`], and repeats
//! what it heard. The exchange is symmetric, so it does not matter who starts or whether both do, and idempotent, so it is repeated every
//! second until it succeeds, and now and then afterwards: a side that has lost the link answers with a new number, and both start over.
//!
//! **Invariants** (checked after every input): never more neighbors than `neighbors_len_max`, counting those still being linked; the list of
//! neighbors is that of the halves that were confirmed; this node is not in it.
//!
//! **What a peer can make us store**: one entry, and only while there is one free. A peer that is no member and no contact is forgotten after
//! a few attempts.
//!
//! The node routes [`crate::topology::Input`] in and carries out [`crate::topology::Action`].

use std::time::Duration;

use meshwork_channels::random::{Generator, generator};
use meshwork_channels::{ConfigError, Misbehavior, Time, Timers};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::identifier::Identifier;
use crate::topology::{Action, DownReason, Input, Message as TopologyMessage};

#[cfg(test)]
mod tests;

/// A peer that nobody vouched for gets this many attempts.
const STRANGER_ATTEMPTS: u32 = 5;

/// How the mesh is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Neighbors, 1 to 4,096. A member beyond is refused and counted ([`State::refused`]); every node should have the same bound, above the
    /// size of the cluster. Each costs a connection. Default 256 (guess: a quarter of the connections that an endpoint admits).
    pub neighbors_len_max: usize,
    /// Time between two attempts to link with a member. Default 1 s (guess).
    pub retry_period: Duration,
    /// The longest time between two attempts with a peer that is not known to be up, or that has no place for us. Default 30 s (guess).
    pub retry_period_max: Duration,
    /// Attempts made at once; the rest follows a tenth of `retry_period` later, 1 to 4,096. Default 32 (guess).
    pub attempts_len_max: usize,
    /// Time between two checks that the neighbors hold our links too. Default 10 s (guess).
    pub alive_period: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            neighbors_len_max: 256,
            retry_period: Duration::from_secs(1),
            retry_period_max: Duration::from_secs(30),
            attempts_len_max: 32,
            alive_period: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// Checks every field, alone and against the others.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] with the first field that cannot work.
    pub fn build(self) -> Result<Params, ConfigError> {
        for (field, value) in [("neighbors_len_max", self.neighbors_len_max), ("attempts_len_max", self.attempts_len_max)] {
            if !(1..=4_096).contains(&value) {
                return Err(ConfigError::new(field, value, "1 to 4096"));
            }
        }
        let (least, most) = (Duration::from_millis(10), Duration::from_secs(24 * 3_600));
        for (field, value, least) in [
            ("retry_period", self.retry_period, least),
            ("retry_period_max", self.retry_period_max, self.retry_period),
            ("alive_period", self.alive_period, least),
        ] {
            if !(least..=most).contains(&value) {
                return Err(ConfigError::new(field, format_args!("{value:?}"), format_args!("{least:?} to {most:?}")));
            }
        }
        Ok(Params(self))
    }
}

/// A [`Config`] that was found to work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(Config);

/// A message. The wire enum only grows at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Makes the half of the sender known, and tells which half of the receiver it knows.
    Link {
        /// The number of the sender's half.
        mine: u32,
        /// The number of the receiver's half, once it was heard.
        yours: Option<u32>,
    },
    /// There is no link, or none any more.
    Unlink {
        /// The number of the sender's half, or that of the receiver's when the sender has none.
        link: u32,
        /// Why.
        reason: Unlinked,
    },
}

impl Message {
    /// A short stable name for logs and counters.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Link { .. } => "link",
            Message::Unlink { .. } => "unlink",
        }
    }
}

/// Why there is no link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Unlinked {
    /// The sender leaves the cluster.
    Leaving,
    /// The sender has as many neighbors as it may have. Ask again, but not soon.
    Full,
}

/// One side of a link.
#[derive(Clone, Debug)]
struct Half<I> {
    peer: I,
    /// Drawn anew whenever the link has to start over, so that old messages confirm nothing.
    mine: u32,
    theirs: Option<u32>,
    /// Which number of theirs we have repeated to them.
    repeated: Option<u32>,
    is_up: bool,
    is_member: bool,
    is_contact: bool,
    attempts: u32,
    /// The next attempt.
    due: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Attempts,
    Alive,
}

/// The links of one node.
#[derive(Clone, Debug)]
pub struct State<I> {
    me: I,
    params: Config,
    random: Generator,
    /// In the order of the peers.
    halves: Vec<Half<I>>,
    /// The peers of the halves that are up, in order.
    neighbors: Vec<I>,
    refused: u64,
    has_left: bool,
    timers: Timers<Key>,
}

impl<I: Identifier> State<I> {
    /// A node that knows nobody; `seed` feeds its generator.
    pub fn new(me: I, params: Params, seed: u64) -> Self {
        State {
            me,
            params: params.0,
            random: generator(seed, "mesh", 0),
            halves: Vec::new(),
            neighbors: Vec::new(),
            refused: 0,
            has_left: false,
            timers: Timers::new(),
        }
    }

    /// Handles one input; appends what was decided.
    pub fn handle(&mut self, input: Input<I>, now: Time, actions: &mut Vec<Action<I>>) {
        match input {
            Input::Join { contact } => self.on_join_wanted(contact, now, actions),
            Input::Received { from, message } => self.on_received(from, message, now, actions),
            Input::Unreachable(peer) => self.on_unreachable(peer, now, actions),
            Input::MemberUp(peer) | Input::MemberBack(peer) => self.on_member_up(peer, now, actions),
            Input::MemberDown(peer) => self.on_member_down(peer, DownReason::Failed, now, actions),
            Input::MemberLeft(peer) => self.on_member_down(peer, DownReason::Left, now, actions),
            // Nobody is given up for another.
            Input::Carrying(_) => {}
            Input::Leave => self.on_leave(actions),
            Input::DeadlineReached => {
                while let Some((_, key)) = self.timers.pop_due(now) {
                    match key {
                        Key::Attempts => self.on_attempts_due(now, actions),
                        Key::Alive => self.on_alive_due(now, actions),
                    }
                }
            }
        }
        self.check();
    }

    /// When [`Input::DeadlineReached`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.next_deadline()
    }

    /// The neighbors, in order.
    pub fn neighbors(&self) -> &[I] {
        &self.neighbors
    }

    /// How often a peer was refused because the mesh is full. Anything but zero means that `neighbors_len_max` is too small for the cluster.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn on_join_wanted(&mut self, contact: I, now: Time, actions: &mut Vec<Action<I>>) {
        self.has_left = false;
        if let Some(index) = self.half(contact, now) {
            self.halves[index].is_contact = true;
            self.attempt_now(index, now, actions);
        }
    }

    fn on_member_up(&mut self, peer: I, now: Time, actions: &mut Vec<Action<I>>) {
        if self.has_left {
            return;
        }
        if let Some(index) = self.half(peer, now) {
            self.halves[index].is_member = true;
            self.attempt_now(index, now, actions);
        }
    }

    fn on_member_down(&mut self, peer: I, reason: DownReason, now: Time, actions: &mut Vec<Action<I>>) {
        let Ok(index) = self.find(peer) else { return };
        self.take_down(index, reason, now, actions);
        self.halves[index].is_member = false;
        if !self.halves[index].is_contact {
            self.halves.remove(index);
        }
    }

    fn on_unreachable(&mut self, peer: I, now: Time, actions: &mut Vec<Action<I>>) {
        let Ok(index) = self.find(peer) else { return };
        self.take_down(index, DownReason::Disconnected, now, actions);
        if !self.halves[index].is_member && !self.halves[index].is_contact {
            self.halves.remove(index);
        }
    }

    fn on_leave(&mut self, actions: &mut Vec<Action<I>>) {
        for half in std::mem::take(&mut self.halves) {
            if half.theirs.is_some() {
                send(half.peer, Message::Unlink { link: half.mine, reason: Unlinked::Leaving }, actions);
            }
            if half.is_up {
                actions.push(Action::NeighborDown(half.peer, DownReason::Leaving));
            }
        }
        self.neighbors.clear();
        self.timers = Timers::new();
        self.has_left = true;
    }

    fn on_received(&mut self, from: I, message: TopologyMessage<I>, now: Time, actions: &mut Vec<Action<I>>) {
        let what = match message {
            _ if from == self.me => Misbehavior::OwnName,
            TopologyMessage::Mesh(Message::Link { mine, yours }) => return self.on_link(from, mine, yours, now, actions),
            TopologyMessage::Mesh(Message::Unlink { link, reason }) => return self.on_unlink(from, link, reason, now, actions),
            TopologyMessage::Hyparview(_) => Misbehavior::WrongTopology,
        };
        actions.push(Action::Misbehaved { peer: from, what });
    }

    fn on_link(&mut self, from: I, theirs: u32, ours: Option<u32>, now: Time, actions: &mut Vec<Action<I>>) {
        if self.has_left {
            return send(from, Message::Unlink { link: theirs, reason: Unlinked::Leaving }, actions);
        }
        let Some(index) = self.half(from, now) else {
            return send(from, Message::Unlink { link: theirs, reason: Unlinked::Full }, actions);
        };
        if self.halves[index].theirs != Some(theirs) {
            // A new half on the other side: whatever stood before has ended there.
            self.take_down(index, DownReason::Disconnected, now, actions);
            self.halves[index].theirs = Some(theirs);
        }
        let half = &mut self.halves[index];
        let confirms = ours == Some(half.mine);
        // Answered when the other side has yet to hear our number, or that we heard theirs; so an exchange ends after three messages.
        if !confirms || half.repeated != Some(theirs) {
            half.repeated = Some(theirs);
            send(from, Message::Link { mine: half.mine, yours: Some(theirs) }, actions);
        }
        if confirms && !half.is_up {
            half.is_up = true;
            half.attempts = 0;
            if let Err(place) = self.neighbors.binary_search(&from) {
                self.neighbors.insert(place, from);
            }
            actions.push(Action::NeighborUp(from));
            // A random phase, or nodes that start together would check together for ever.
            let phase = self.random.random_range(0.5..1.0);
            self.timers.set_if_absent(Key::Alive, now + self.params.alive_period.mul_f64(phase));
        }
    }

    fn on_unlink(&mut self, from: I, link: u32, reason: Unlinked, now: Time, actions: &mut Vec<Action<I>>) {
        let Ok(index) = self.find(from) else { return };
        // It names its own half, or ours when it has none. Anything else is about an earlier link.
        if self.halves[index].theirs != Some(link) && self.halves[index].mine != link {
            return;
        }
        match reason {
            Unlinked::Leaving => {
                self.take_down(index, DownReason::Left, now, actions);
                self.halves.remove(index);
            }
            Unlinked::Full => {
                self.take_down(index, DownReason::EvictedUs, now, actions);
                self.halves[index].attempts = u32::MAX;
                self.halves[index].due = now + self.params.retry_period_max;
                if !self.halves[index].is_member && !self.halves[index].is_contact {
                    self.halves.remove(index);
                }
            }
        }
    }

    fn on_attempts_due(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        // Nobody vouches for them, and they did not complete the exchange.
        self.halves.retain(|half| half.is_up || half.is_member || half.is_contact || half.attempts < STRANGER_ATTEMPTS);
        let mut left = self.params.attempts_len_max;
        let mut due: Vec<(Time, usize)> = Vec::new();
        for (index, half) in self.halves.iter().enumerate() {
            if !half.is_up && half.due <= now {
                due.push((half.due, index));
            }
        }
        // Those who wait longest come first, so that a bound on each round starves nobody.
        due.sort_unstable();
        for (_, index) in due {
            if left == 0 {
                self.timers.set(Key::Attempts, now + self.params.retry_period / 10);
                return;
            }
            left -= 1;
            self.attempt(index, now, actions);
        }
        self.arm_attempts();
    }

    fn on_alive_due(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        for half in self.halves.iter().filter(|half| half.is_up) {
            send(half.peer, Message::Link { mine: half.mine, yours: half.theirs }, actions);
        }
        if !self.neighbors.is_empty() {
            self.timers.set(Key::Alive, now + self.params.alive_period);
        }
    }

    /// Tries at once if the link does not stand and was not just tried.
    fn attempt_now(&mut self, index: usize, now: Time, actions: &mut Vec<Action<I>>) {
        let half = &mut self.halves[index];
        // Somebody has seen the peer alive, so what failed before does not count.
        let is_fresh = half.attempts == 0;
        half.attempts = half.attempts.min(1);
        if half.is_up {
            return;
        }
        if is_fresh {
            self.attempt(index, now, actions);
        } else {
            half.due = half.due.min(now + self.params.retry_period);
        }
        self.arm_attempts();
    }

    fn attempt(&mut self, index: usize, now: Time, actions: &mut Vec<Action<I>>) {
        let half = &mut self.halves[index];
        half.attempts = half.attempts.saturating_add(1);
        // A member is there and the link is missing: every second. For anybody else the wait grows.
        let wait = match half.is_member && half.attempts < u32::MAX {
            true => self.params.retry_period,
            false => self.params.retry_period.saturating_mul(1 << half.attempts.min(16)).min(self.params.retry_period_max),
        };
        half.due = now + wait.mul_f64(self.random.random_range(0.75..1.0));
        // Says that nothing was heard, even if something was: only then is an answer sure to come, whatever was lost before.
        half.repeated = None;
        send(half.peer, Message::Link { mine: half.mine, yours: None }, actions);
    }

    fn arm_attempts(&mut self) {
        match self.halves.iter().filter(|half| !half.is_up).map(|half| half.due).min() {
            Some(due) => self.timers.set(Key::Attempts, due),
            None => {
                self.timers.cancel(&Key::Attempts);
            }
        }
    }

    /// Ends what stood or was about to: the next exchange starts from nothing.
    fn take_down(&mut self, index: usize, reason: DownReason, now: Time, actions: &mut Vec<Action<I>>) {
        let half = &mut self.halves[index];
        let peer = half.peer;
        half.theirs = None;
        half.repeated = None;
        if half.is_up {
            half.is_up = false;
            half.mine = self.random.random();
            half.attempts = 0;
            half.due = now + self.params.retry_period;
            if let Ok(place) = self.neighbors.binary_search(&peer) {
                self.neighbors.remove(place);
            }
            actions.push(Action::NeighborDown(peer, reason));
        }
        let due = half.due;
        if self.timers.get(&Key::Attempts).is_none_or(|at| at > due) {
            self.timers.set(Key::Attempts, due);
        }
    }

    fn find(&self, peer: I) -> Result<usize, usize> {
        self.halves.binary_search_by(|half| half.peer.cmp(&peer))
    }

    /// The half towards a peer, made if there is place for one.
    fn half(&mut self, peer: I, now: Time) -> Option<usize> {
        if peer == self.me {
            return None;
        }
        match self.find(peer) {
            Ok(index) => Some(index),
            Err(_) if self.halves.len() >= self.params.neighbors_len_max => {
                self.refused += 1;
                None
            }
            Err(index) => {
                let mine = self.random.random();
                let due = now + self.params.retry_period;
                let half =
                    Half { peer, mine, theirs: None, repeated: None, is_up: false, is_member: false, is_contact: false, attempts: 0, due };
                self.halves.insert(index, half);
                if self.timers.get(&Key::Attempts).is_none_or(|at| at > due) {
                    self.timers.set(Key::Attempts, due);
                }
                Some(index)
            }
        }
    }

    /// The invariants.
    fn check(&self) {
        debug_assert!(self.halves.len() <= self.params.neighbors_len_max, "the mesh keeps its bound");
        debug_assert!(self.halves.is_sorted_by(|a, b| a.peer < b.peer), "the halves are in order, without repetition");
        debug_assert!(
            self.halves.iter().filter(|half| half.is_up).map(|half| half.peer).eq(self.neighbors.iter().copied()),
            "the neighbors are the halves that are up"
        );
        debug_assert!(self.find(self.me).is_err(), "no link leads to this node");
        debug_assert!(
            self.halves.iter().all(|half| half.is_up) || self.timers.get(&Key::Attempts).is_some(),
            "a link that does not stand is retried"
        );
    }
}

fn send<I>(to: I, message: Message, actions: &mut Vec<Action<I>>) {
    actions.push(Action::Send { to, message: TopologyMessage::Mesh(message) });
}
