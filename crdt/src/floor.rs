//! Below which moment removals may be forgotten: the floor, and the table of members that it follows from.
//!
//! A removed key leaves a tombstone, because whoever still holds an older write of it would bring it back. Once every member holds the tombstone, nobody
//! does, and it may go: causal stability (Baquero, Almeida and Shoker, "Pure Operation-Based Replicated Data Types", 2017, section 5), here told by
//! watermarks as in a timestamp table (Wuu and Bernstein, "Efficient Solutions to the Replicated Log and Dictionary Problems", PODC 1984), with times in
//! place of counters.
//!
//! Of every member a replica knows through which moment it holds all that the member wrote (`through`), and what the member says of itself: that it
//! holds everything of everybody up to `complete`. A replica that holds all that another held adopts the other's `through`; the least of them is its own
//! `complete`, and the least `complete` of all members is where the floor may be.
//!
//! Deviations:
//!
//! 1. Rows are times and not vectors of counters: one number for each member, which grows while a member is idle.
//! 2. Whoever left is not waited for after `collect_after`, time for a restart, and whoever was silent for `absent_max` is not either, **as long as fewer than half of all are silent**: so of
//!    two parts of a cluster at most one goes on without the other. A cluster of which half is gone for good keeps its tombstones.
//! 3. Whoever was not waited for is told so when it is back, before anything else is taken from it, and gives up what others may have removed. One that
//!    nobody remembers is a stranger, who may bring what it likes: two clusters that meet lose nothing.
//!    Whoever restarts from its disk knows nobody, and concludes nothing before it knows more than half as many as before.
//! 4. The floor stays `collect_after` behind the clock, and moves in steps, so that replicas are seldom at different ones.
//!
//! Invariants: no field of a row shrinks; the table is bounded, and the floor stands still where it is too small.

use std::collections::BTreeMap;
use std::time::Duration;

use meshwork_channels::{PeerId, WallTime};

use crate::hlc::Stamp;
use crate::journal::Collected;
use crate::wire::Known;

/// Members in the table.
pub(crate) const MEMBERS_MAX: usize = 16_384;
/// Steps of the floor, and comparisons of tables, in the time that a removal is kept at least.
const STEPS: u32 = 6;
const COMPARISONS: u32 = 12;
/// How far ahead of our clock the times of others may be before they are cut, in seconds.
const AHEAD_MAX: u32 = 60;
/// How long what was handed to a journal may take to the disk, in seconds: twice what it waits before it syncs at most.
const SYNCED: u32 = 120;
/// For how many times `absent_max` those are remembered that are not waited for.
const REMEMBERED: u32 = 8;

/// Seconds since the Unix epoch.
pub(crate) fn seconds(wall: WallTime) -> u32 {
    u32::try_from(wall.as_millis() / 1_000).unwrap_or(u32::MAX)
}

/// The second of a stamp.
pub(crate) fn second_of(stamp: Stamp) -> u32 {
    u32::try_from(stamp.millis() / 1_000).unwrap_or(u32::MAX)
}

/// The first stamp of a second.
pub(crate) fn begin_of(second: u32) -> Stamp {
    Stamp::from_parts(u64::from(second) * 1_000, 0)
}

/// What a crash leaves of `complete`. Others are told no more: they would forget what is removed here only until then.
#[derive(Clone, Debug)]
struct Written {
    durable: u32,
    /// What was handed to the journal after that, and when.
    next: Option<(u32, u32)>,
}

impl Written {
    fn durable(&self, now: u32) -> u32 {
        self.next.filter(|(_, at)| at.saturating_add(SYNCED) <= now).map_or(self.durable, |(complete, _)| complete)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Floor {
    me: PeerId,
    /// `None`: nothing is ever forgotten.
    collect_after: Option<u32>,
    absent_max: u32,
    members: BTreeMap<PeerId, Known>,
    position: Collected,
    /// `None` while the replica lives in memory only.
    written: Option<Written>,
    /// As many members must be known before anything follows from what they say: who restarts and meets another that does would take the two for the whole
    /// cluster, and what both hold for all that there is.
    members_min: usize,
    /// When this replica was last told that nobody waited for it.
    back: u32,
    /// When it last gave up what others may have removed.
    given_up: u32,
    /// Somebody found no place in the table.
    is_short: bool,
}

impl Floor {
    pub(crate) fn new(me: PeerId, collect_after: Option<Duration>, absent_max: Duration) -> Self {
        let whole = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        Floor {
            me,
            collect_after: collect_after.map(whole),
            absent_max: whole(absent_max),
            members: BTreeMap::new(),
            position: Collected::default(),
            written: None,
            members_min: 0,
            back: 0,
            given_up: 0,
            is_short: false,
        }
    }

    pub(crate) fn position(&self) -> Collected {
        self.position
    }

    /// Goes on from what is on the disk.
    pub(crate) fn resume(&mut self, position: Collected) {
        self.position = position;
        // One of the part that went on without this replica, if any did, is among so many.
        self.members_min = position.members as usize / 2 + 1;
        self.written = Some(Written { durable: position.complete, next: None });
    }

    /// The position was handed to the journal, behind all that it rests on.
    pub(crate) fn write_down(&mut self, now: u32) {
        if let Some(written) = &mut self.written {
            written.durable = written.durable(now);
            written.next.take_if(|(_, at)| at.saturating_add(SYNCED) <= now);
            written.next.get_or_insert((self.position.complete, now));
        }
    }

    /// The journal had no room for it.
    pub(crate) fn give_back(&mut self) {
        if let Some(written) = &mut self.written {
            written.next = None;
        }
    }

    /// A life without a journal begins: what an earlier one wrote comes from others, who know of it.
    pub(crate) fn begin(&mut self, now: u32) {
        if self.position == Collected::default() {
            self.position.acknowledged = now;
        }
    }

    /// How often tables are compared.
    pub(crate) fn period(&self) -> Option<Duration> {
        Some(Duration::from_secs(self.collect_after?.into()) / COMPARISONS)
    }

    /// All members, this one included, which wrote nothing after `through` yet.
    pub(crate) fn table(&self, through: Stamp, now: u32) -> Vec<Known> {
        let complete = self.durable(now);
        let me = Known { member: self.me, heard: now, left: 0, back: self.back, through: second_of(through), complete };
        self.members.values().copied().chain([me]).collect()
    }

    fn durable(&self, now: u32) -> u32 {
        self.written.as_ref().map_or(self.position.complete, |written| written.durable(now))
    }

    /// Those that are not waited for; a peer first, if it is one of them.
    pub(crate) fn away(&self, first: PeerId, now: u32) -> impl Iterator<Item = Known> {
        let others = self.members.values().filter(move |known| self.is_gone(known, now) && known.member != first);
        self.members.get(&first).into_iter().chain(others).copied()
    }

    /// Whether nobody waits for a member, until it says that it is back.
    pub(crate) fn is_away(&self, member: PeerId, now: u32) -> bool {
        self.members.get(&member).is_some_and(|known| self.is_gone(known, now))
    }

    fn is_gone(&self, known: &Known, now: u32) -> bool {
        known.left > known.back && known.left.saturating_add(self.collect_after.unwrap_or(0)) <= now
    }

    /// A member is there, whatever it wrote. Whoever left and is back before anybody stopped to wait for it missed nothing.
    pub(crate) fn met(&mut self, member: PeerId, now: u32) {
        if !self.is_away(member, now) {
            let left = self.members.get(&member).filter(|known| known.left > known.back).map(|known| known.left);
            let back = left.map_or(0, |left| now.max(left.saturating_add(1)));
            self.take(Known { member, heard: now, left: 0, back, through: 0, complete: 0 }, now);
        }
    }

    /// A member said that it leaves.
    pub(crate) fn left(&mut self, member: PeerId, now: u32) {
        if let Some(known) = self.members.get_mut(&member) {
            known.left = known.left.max(now);
        }
    }

    /// A member that was not waited for gave up what it had to.
    pub(crate) fn is_back(&mut self, member: PeerId, back: u32, now: u32) {
        if let Some(known) = self.members.get_mut(&member) {
            known.back = known.back.max(back.min(now.saturating_add(AHEAD_MAX)));
            known.heard = known.heard.max(now);
        }
    }

    /// Before which moment somebody may have forgotten removals. Whoever tells it may itself have been away, or be new, and not know how far the others are.
    pub(crate) fn highest(&self, now: u32) -> u32 {
        now.saturating_sub(self.collect_after.unwrap_or(0))
    }

    /// Others went on without this replica since `left`, and forgot what was removed before `floor`. Gives when it is back, and whether it has to give up
    /// what is older: not if it missed nothing until then, or did so lately.
    pub(crate) fn went_on_without_me(&mut self, left: u32, floor: u32, now: u32) -> (u32, bool) {
        // Whoever left again after that is away again, and for so long that nobody waits any more: nobody can make us do so more often.
        let is_away_again = left > self.given_up && self.credible(left, now) == left;
        let did_lately = self.given_up > 0 && self.given_up.saturating_add(self.absent_max / 2) >= now && !is_away_again;
        let is_to_give_up = self.position.complete < floor && !did_lately;
        if is_to_give_up {
            self.given_up = now;
        }
        self.back = self.back.max(now).max(left.min(now.saturating_add(AHEAD_MAX)).saturating_add(1));
        // Whoever told this goes by its own clock, however far that is ahead.
        (self.back.max(left.saturating_add(1)), is_to_give_up)
    }

    /// Takes what another says of members, but not what it holds of them.
    pub(crate) fn heard(&mut self, from: PeerId, table: &[Known], now: u32) {
        for known in table {
            if known.member != self.me {
                self.take(Known { through: 0, ..*known }, now);
            }
        }
        // By our clock, whatever its own says.
        if let Some(known) = self.members.get_mut(&from) {
            known.heard = known.heard.max(now);
        }
        self.count(now);
    }

    /// Whether enough members are known.
    fn count(&mut self, now: u32) -> bool {
        let members = self.awaited(now).count() + 1;
        if members < self.members_min {
            return false;
        }
        self.members_min = 0;
        self.position.members = members as u32;
        true
    }

    /// This replica holds all that another held when it told this; whether the floor rose.
    pub(crate) fn adopt(&mut self, table: &[Known], now: u32) -> bool {
        for known in table {
            if known.member != self.me {
                self.take(*known, now);
            }
        }
        let Some(collect_after) = self.collect_after else { return false };
        let was_short = self.is_short;
        self.leave_behind(now);
        if was_short || !self.count(now) {
            return false;
        }
        let Some(through) = self.awaited(now).map(|known| known.through).min() else { return false };
        self.position.complete = self.position.complete.max(through.min(now));
        let mut others: Vec<u32> = self.awaited(now).map(|known| known.complete).collect();
        others.sort_unstable();
        // Of two parts the one that goes on without the other has more than half, and so one of these.
        let median = others[(others.len() - 1) / 2];
        self.position.acknowledged = self.position.acknowledged.max(median.min(self.position.complete));
        // Others take this floor for theirs.
        let floor = others[0].min(self.durable(now)).min(now.saturating_sub(collect_after));
        self.raise(floor - floor % (collect_after / STEPS).max(1))
    }

    /// Takes the floor of another; whether it rose. What is too near is no floor.
    pub(crate) fn rise(&mut self, floor: u32, now: u32) -> bool {
        self.collect_after.is_some() && self.credible(floor, now) == floor && self.raise(floor)
    }

    /// As far as another may have its floor: clocks differ a little.
    pub(crate) fn credible(&self, floor: u32, now: u32) -> u32 {
        floor.min(now.saturating_sub(self.collect_after.unwrap_or(0) / 2))
    }

    fn raise(&mut self, floor: u32) -> bool {
        let is_higher = floor > self.position.floor;
        self.position.floor = self.position.floor.max(floor);
        is_higher
    }

    fn take(&mut self, known: Known, now: u32) {
        let cut = |second: u32| second.min(now.saturating_add(AHEAD_MAX));
        let Known { member, heard, left, back, through, complete } = known;
        let new = Known { member, heard: cut(heard), left: cut(left), back: cut(back), through: cut(through), complete: cut(complete) };
        if let Some(held) = self.members.get_mut(&member) {
            held.heard = held.heard.max(new.heard);
            held.left = held.left.max(new.left);
            held.back = held.back.max(new.back);
            held.through = held.through.max(new.through);
            held.complete = held.complete.max(new.complete);
        } else if self.members.len() < MEMBERS_MAX {
            if !self.is_over(&new, now) {
                self.members.insert(member, new);
            }
        } else if !self.is_gone(&new, now) {
            self.is_short = true;
        }
    }

    fn awaited(&self, now: u32) -> impl Iterator<Item = &Known> {
        self.members.values().filter(move |known| !self.is_gone(known, now))
    }

    /// Whether somebody has been away for so long that nobody remembers it.
    fn is_over(&self, known: &Known, now: u32) -> bool {
        self.is_gone(known, now) && known.left.saturating_add(self.absent_max.saturating_mul(REMEMBERED)) < now
    }

    /// Goes on without those that have been silent for long, by deviation 2.
    fn leave_behind(&mut self, now: u32) {
        let silent_since = now.saturating_sub(self.absent_max);
        // Those that a partition cut off fall silent one after the other, and are counted as soon as the first of them could be left.
        let suspected_since = now.saturating_sub(self.absent_max / 2);
        let suspected = self.awaited(now).filter(|known| known.heard < suspected_since).count();
        if suspected * 2 < self.awaited(now).count() + 1 {
            let left = now.saturating_sub(self.collect_after.unwrap_or(0));
            for known in self.members.values_mut().filter(|known| known.heard < silent_since && known.left <= known.back) {
                known.left = left;
            }
        }
        let members = std::mem::take(&mut self.members);
        self.members = members.into_iter().filter(|(_, known)| !self.is_over(known, now)).collect();
        self.is_short &= self.members.len() == MEMBERS_MAX;
    }
}
