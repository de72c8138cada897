//! Who is there, and what follows for what they registered.
//!
//! The rules are those of Phoenix.Tracker (`phoenix_pubsub`, since 1.0: `down_period`, `permdown_period`): a node that goes away takes its
//! entries out of every view without any write, and brings them back without any; only what stays away for long is removed. One deviation:
//! there each node removes for itself, here the removal is a write, so one member is chosen to make it.

use std::time::Duration;

use meshwork_channels::{Now, PeerId, Time, random};
use meshwork_crdt::{Key, replica};

use super::index::Told;
use super::limits::{MINORITY_WAIT, PASS_PERIOD, PASS_WRITES_MAX};
use super::{Event, State, Timer, Write};

/// How a member is. Members that are away are known only as long as they have entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Up,
    /// Its instances are visible until [`Timer::Hide`].
    Suspected,
    /// It went away at this moment, or at this moment its first entry came without it.
    Away(Time),
}

impl State {
    /// The membership says that a node is there, whatever it said before.
    pub fn member_up(&mut self, peer: PeerId, replica: &replica::State, events: &mut Vec<Event>) {
        if peer == self.me {
            return;
        }
        let was_visible = self.is_visible(peer);
        self.members.insert(peer, Standing::Up);
        self.timers.cancel(&Timer::Hide(peer));
        if !was_visible {
            for key in self.index.keys_of(peer).cloned().collect::<Vec<Key>>() {
                self.show(&key, replica, events);
            }
        }
    }

    /// The membership suspects a node. One that is not there: nothing.
    pub fn member_suspected(&mut self, peer: PeerId, now: Now) {
        if self.members.get(&peer) == Some(&Standing::Up) {
            self.members.insert(peer, Standing::Suspected);
            self.timers.set(Timer::Hide(peer), now.time + self.config.down_period);
        }
    }

    /// The membership says that a node is gone, by itself or not.
    pub fn member_down(&mut self, peer: PeerId, now: Now, events: &mut Vec<Event>) {
        if !self.is_visible(peer) || peer == self.me {
            return;
        }
        self.members.remove(&peer);
        self.timers.cancel(&Timer::Hide(peer));
        for key in self.index.keys_of(peer).cloned().collect::<Vec<Key>>() {
            self.hide(&key, events);
        }
        self.note_member(peer, now);
    }

    /// Whether what a node registered is to be seen. Who was never heard of is not there: a new node is told of the living by its membership,
    /// and of the dead by nobody.
    pub(super) fn is_visible(&self, peer: PeerId) -> bool {
        peer == self.me || matches!(self.members.get(&peer), Some(Standing::Up | Standing::Suspected))
    }

    /// Keeps in mind since when a node that has entries is away, and forgets one that has none.
    pub(super) fn note_member(&mut self, peer: PeerId, now: Now) {
        let standing = self.members.get(&peer).copied();
        match (standing, self.index.has_node(peer)) {
            (None, true) if peer != self.me => {
                self.members.insert(peer, Standing::Away(now.time));
                self.arm_purge(now.time + self.config.permdown);
            }
            (Some(Standing::Away(_)), false) => drop(self.members.remove(&peer)),
            _ => {}
        }
    }

    /// A suspicion lasted for `down_period`.
    pub(super) fn on_hide_due(&mut self, peer: PeerId, now: Now, events: &mut Vec<Event>) {
        self.member_down(peer, now, events);
    }

    /// Removes what nodes left that have been away for `permdown`.
    ///
    /// Every member orders all members by a hash of each and of the node in question. The first removes; the next one only does after another
    /// `permdown`, in case that the first is unable to or starts anew before its time has come. Members that know different ones may both
    /// remove, which does no harm.
    pub(super) fn on_purge_due(&mut self, now: Now, writes: &mut Vec<Write>) {
        let mut room = PASS_WRITES_MAX;
        let mut next = Time::MAX;
        let away = self.members.values().filter(|standing| matches!(standing, Standing::Away(_))).count();
        let is_minority = away > 1 + self.living().count();
        for (peer, standing) in &self.members {
            let Standing::Away(since) = *standing else { continue };
            let mut due = since + self.config.permdown;
            if due <= now.time {
                let wait = self.config.permdown.saturating_mul(1 + self.rank(*peer));
                due = since + if is_minority { wait.max(MINORITY_WAIT) } else { wait };
            }
            if due > now.time {
                next = next.min(due);
                continue;
            }
            // Again after the next pass, until the removals have come back as changes and the node is forgotten.
            next = next.min(now.time + PASS_PERIOD);
            for key in self.index.keys_of(*peer).take(room) {
                writes.push(Write::remove(key.clone()));
                self.counters.purged += 1;
                room -= 1;
            }
        }
        if next < Time::MAX {
            self.arm_purge(next.max(now.time + PASS_PERIOD));
        }
    }

    fn arm_purge(&mut self, at: Time) {
        if self.timers.get(&Timer::Purge).is_none_or(|before| at < before) {
            self.timers.set(Timer::Purge, at);
        }
    }

    /// How many living members go before this node in removing what `peer` left.
    pub(super) fn rank(&self, peer: PeerId) -> u32 {
        let mine = (score(self.me, peer), self.me);
        let before = self.living().filter(|member| (score(*member, peer), *member) < mine).count();
        u32::try_from(before).unwrap_or(u32::MAX - 1)
    }

    fn living(&self) -> impl Iterator<Item = PeerId> {
        self.members.iter().filter(|(_, standing)| **standing == Standing::Up).map(|(member, _)| *member)
    }

    fn show(&mut self, key: &Key, replica: &replica::State, events: &mut Vec<Event>) {
        let Some(known) = self.index.get(key) else { return };
        let Some(Ok(instance)) = self.read(key, replica) else { return };
        events.push(match known.told {
            Told::Nothing => Event::Registered(instance),
            Told::Hidden => Event::Shown(instance),
            Told::Shown => return,
        });
        self.index.set_told(key, Told::Shown);
    }

    fn hide(&mut self, key: &Key, events: &mut Vec<Event>) {
        if self.index.get(key).is_some_and(|known| known.told == Told::Shown)
            && let Some(parts) = super::Parts::of(key)
        {
            events.push(Event::Hidden(parts.id()));
            self.index.set_told(key, Told::Hidden);
        }
    }

    /// How long a node has been away, if it is and has entries.
    pub fn away_for(&self, peer: PeerId, now: Now) -> Option<Duration> {
        match self.members.get(&peer)? {
            Standing::Away(since) => Some(now.time.since(*since)),
            _ => None,
        }
    }
}

fn score(member: PeerId, peer: PeerId) -> u64 {
    let head = |peer: PeerId| peer.as_bytes().iter().take(8).fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
    random::hash(&[head(member), head(peer)])
}
