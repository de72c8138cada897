//! What a node holds of the cluster, and the events that follow from its changes.

use std::net::SocketAddr;
use std::time::Duration;

use foca::{Incarnation, Member as Update, State as Verdict};
use meshwork_channels::Time;
use serde::{Deserialize, Serialize};

use super::identity::Identity;
use super::message::{LEFT, Record};
use crate::identifier::Identifier;

/// Generations that one peer may go up in a minute by hearsay. A node renews at most three times a minute.
const RAISES_MAX: u8 = 6;
const RAISES_WINDOW: Duration = Duration::from_secs(60);

/// What a node holds of a member. The wire enum only grows at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Status {
    /// It answers.
    Alive,
    /// It did not answer; it counts as up until the suspicion is over.
    Suspect,
    /// It is held for dead.
    Down,
    /// It said that it leaves.
    Left,
}

impl Status {
    /// Whether the member takes part: alive, or only suspected.
    pub fn is_up(self) -> bool {
        matches!(self, Status::Alive | Status::Suspect)
    }

    /// A short stable name for logs and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Status::Alive => "alive",
            Status::Suspect => "suspect",
            Status::Down => "down",
            Status::Left => "left",
        }
    }
}

/// A member of the cluster, as one node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<I> {
    /// Who it is.
    pub peer: I,
    /// Which of its runs: it grows when the process starts again, and when a living node was held for dead.
    pub generation: u64,
    /// Where it listens.
    pub address: SocketAddr,
    /// What this node holds of it.
    pub status: Status,
}

/// A change of the [`View`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<I> {
    /// A member that was not there before, or that had left.
    Joined(Member<I>),
    /// A member that was suspected, or down, is alive.
    Recovered {
        /// The member.
        member: Member<I>,
        /// Whether it had been reported as failed, rather than only as suspected.
        was_down: bool,
    },
    /// A member that is up has another generation or address: its process started again, or it came back from being held for dead elsewhere.
    Updated(Member<I>),
    /// A member is suspected.
    Suspected(Member<I>),
    /// A member is held for dead.
    Failed(Member<I>),
    /// A member left.
    Left(Member<I>),
    /// This node goes on under a higher generation, because the old one was held for dead or was taken.
    Renewed {
        /// The generation from now on.
        generation: u64,
    },
}

impl<I> Event<I> {
    /// The member that it is about; none when it is about this node.
    pub fn member(&self) -> Option<&Member<I>> {
        match self {
            Event::Joined(member)
            | Event::Recovered { member, .. }
            | Event::Updated(member)
            | Event::Suspected(member)
            | Event::Failed(member)
            | Event::Left(member) => Some(member),
            Event::Renewed { .. } => None,
        }
    }
}

/// All members that a node knows, but itself, in the order of their names; at most one entry for each peer.
#[derive(Clone, Debug)]
pub struct View<I> {
    entries: Vec<Entry<I>>,
    up: usize,
    suspects: usize,
    version: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Entry<I> {
    pub(super) member: Member<I>,
    pub(super) incarnation: Incarnation,
    /// Whether foca holds this entry too. A verdict that this node has come to doubt is kept here alone, so that nobody is told of it.
    pub(super) is_settled: bool,
    /// Whether it was ever reported as joined.
    is_announced: bool,
    flaps: u8,
    raises: u8,
    flapped: Time,
    raised: Time,
    /// When a tombstone is forgotten.
    pub(super) expires: Time,
}

impl<I: Identifier> Entry<I> {
    pub(super) fn identity(&self) -> Identity<I> {
        Identity { peer: self.member.peer, generation: self.member.generation, address: self.member.address }
    }

    pub(super) fn update(&self) -> Update<Identity<I>> {
        let verdict = match self.member.status {
            Status::Alive => Verdict::Alive,
            Status::Suspect => Verdict::Suspect,
            Status::Down | Status::Left => Verdict::Down,
        };
        Update::new(self.identity(), self.incarnation, verdict)
    }

    /// For how long the member has been gone.
    pub(super) fn gone_for(&self, life: Duration, now: Time) -> Duration {
        life.saturating_sub(self.expires.since(now))
    }

    pub(super) fn record(&self, life: Duration, now: Time) -> Record<I> {
        let gone = if self.member.status.is_up() { 0 } else { self.gone_for(life, now).as_secs() };
        Record {
            peer: self.member.peer,
            generation: self.member.generation,
            address: self.member.address,
            incarnation: self.incarnation,
            status: self.member.status,
            down_for_secs: u32::try_from(gone).unwrap_or(u32::MAX),
        }
    }

    /// How often the member came back from being down, less one for each quiet spell since.
    pub(super) fn flaps(&self, quiet: Duration, now: Time) -> u32 {
        let spells = now.since(self.flapped).as_nanos().checked_div(quiet.as_nanos()).unwrap_or(0);
        u32::from(self.flaps).saturating_sub(u32::try_from(spells).unwrap_or(u32::MAX))
    }

    /// Whether hearsay has raised the generation too often of late.
    pub(super) fn is_raised_too_often(&self, now: Time) -> bool {
        self.raises >= RAISES_MAX && now.since(self.raised) < RAISES_WINDOW
    }
}

impl<I: Identifier> View<I> {
    pub(super) fn new() -> Self {
        View { entries: Vec::new(), up: 0, suspects: 0, version: 0 }
    }

    /// The members, in the order of their names, tombstones included.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member<I>> {
        self.entries.iter().map(|entry| &entry.member)
    }

    /// The members that are up, in the order of their names.
    pub fn up(&self) -> impl Iterator<Item = &Member<I>> {
        self.members().filter(|member| member.status.is_up())
    }

    /// What is held of a peer.
    pub fn member(&self, peer: I) -> Option<&Member<I>> {
        self.entry(peer).map(|entry| &entry.member)
    }

    /// How many other members are up.
    pub fn up_len(&self) -> usize {
        self.up
    }

    /// How many of those are suspected.
    pub(super) fn suspects_len(&self) -> usize {
        self.suspects
    }

    /// How many entries there are, tombstones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no other member was ever heard of.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn entries(&self) -> &[Entry<I>] {
        &self.entries
    }

    pub(super) fn entry(&self, peer: I) -> Option<&Entry<I>> {
        self.position(peer).ok().map(|at| &self.entries[at])
    }

    fn position(&self, peer: I) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| entry.member.peer.cmp(&peer))
    }

    /// Takes over what foca holds of a member; appends the events that follow, and says whether others should hear of it.
    pub(super) fn take_over(&mut self, update: &Update<Identity<I>>, life: Duration, now: Time, events: &mut Vec<Event<I>>) -> bool {
        let incarnation = update.incarnation();
        let status = match update.state() {
            Verdict::Alive => Status::Alive,
            Verdict::Suspect => Status::Suspect,
            Verdict::Down if incarnation == LEFT => Status::Left,
            Verdict::Down => Status::Down,
        };
        let Identity { peer, generation, address } = *update.id();
        let member = Member { peer, generation, address, status };
        let was_suspect = self.member(peer).is_some_and(|known| known.status == Status::Suspect);
        self.suspects = self.suspects + usize::from(status == Status::Suspect) - usize::from(was_suspect);
        let at = match self.position(peer) {
            Ok(at) => at,
            Err(at) => {
                self.entries.insert(
                    at,
                    Entry {
                        member,
                        incarnation,
                        is_settled: true,
                        is_announced: status.is_up(),
                        flaps: 0,
                        raises: 0,
                        flapped: now,
                        raised: now,
                        expires: now + life,
                    },
                );
                self.version += 1;
                if status.is_up() {
                    self.up += 1;
                    events.push(Event::Joined(member));
                }
                if status == Status::Suspect {
                    events.push(Event::Suspected(member));
                }
                return true;
            }
        };

        let entry = &mut self.entries[at];
        let before = entry.member;
        let is_refuted = entry.incarnation != incarnation;
        entry.incarnation = incarnation;
        entry.is_settled = true;
        if before == member {
            return is_refuted;
        }
        entry.member = member;
        self.version += 1;
        let is_renamed = (before.generation, before.address) != (generation, address);
        if generation > before.generation {
            let is_recent = now.since(entry.raised) < RAISES_WINDOW;
            entry.raises = if is_recent { entry.raises.saturating_add(1) } else { 1 };
            if !is_recent {
                entry.raised = now;
            }
        }
        match (before.status.is_up(), status.is_up()) {
            (true, true) => {
                if is_renamed {
                    events.push(Event::Updated(member));
                } else if status == Status::Alive {
                    events.push(Event::Recovered { member, was_down: false });
                }
                if status == Status::Suspect && (is_renamed || before.status == Status::Alive) {
                    events.push(Event::Suspected(member));
                }
            }
            (true, false) => {
                self.up -= 1;
                entry.expires = now + life;
                events.push(if status == Status::Left { Event::Left(member) } else { Event::Failed(member) });
            }
            (false, true) => {
                self.up += 1;
                if entry.is_announced && before.status == Status::Down {
                    entry.flaps = entry.flaps.saturating_add(1).min(8);
                    entry.flapped = now;
                    events.push(Event::Recovered { member, was_down: true });
                } else {
                    events.push(Event::Joined(member));
                }
                entry.is_announced = true;
                if status == Status::Suspect {
                    events.push(Event::Suspected(member));
                }
            }
            (false, false) => {
                if is_renamed {
                    entry.expires = now + life;
                }
            }
        }
        true
    }

    /// Notes that the member that is held for dead in this generation had left.
    pub(super) fn mark_left(&mut self, peer: I, generation: u64) {
        if let Ok(at) = self.position(peer) {
            let entry = &mut self.entries[at];
            if entry.member.status == Status::Down && entry.member.generation == generation {
                entry.member.status = Status::Left;
                entry.incarnation = LEFT;
                self.version += 1;
            }
        }
    }

    /// Lets a tombstone be as old as the node that told of it says.
    pub(super) fn age(&mut self, record: &Record<I>, life: Duration, now: Time) {
        if let Ok(at) = self.position(record.peer) {
            let entry = &mut self.entries[at];
            if !entry.member.status.is_up() && entry.member.generation == record.generation {
                let left = life.saturating_sub(Duration::from_secs(u64::from(record.down_for_secs)));
                entry.expires = entry.expires.min(now + left);
            }
        }
    }

    /// Those that failed since `span` ago and of whom others are told.
    pub(super) fn failed_of_late(&self, span: Duration, life: Duration, now: Time) -> usize {
        self.entries.iter().filter(|entry| entry.is_failed_of_late(span, life, now)).count()
    }

    /// Keeps the failures since `span` ago to this node alone.
    pub(super) fn unsettle(&mut self, span: Duration, life: Duration, now: Time) {
        for entry in &mut self.entries {
            if entry.is_failed_of_late(span, life, now) {
                entry.is_settled = false;
            }
        }
        self.version += 1;
    }

    pub(super) fn remove(&mut self, peer: I) {
        if let Ok(at) = self.position(peer) {
            debug_assert!(!self.entries[at].member.status.is_up(), "only tombstones are removed");
            self.entries.remove(at);
            self.version += 1;
        }
    }
}

impl<I> Entry<I> {
    fn is_failed_of_late(&self, span: Duration, life: Duration, now: Time) -> bool {
        self.member.status == Status::Down && self.is_settled && self.expires.since(now) > life.saturating_sub(span)
    }
}
