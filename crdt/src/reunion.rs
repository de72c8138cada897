//! What came together when members were back that had been held for dead, so that people can be told what a partition did to their data.
//!
//! A write counts where its writer was held for dead and the write was made in that time, however it arrives: once for its key, and as an
//! *overlap* if this side had written the key in the same time. Registers have no clocks that would tell whether one writer had seen the other's
//! write, so time decides: who writes a key shortly before a partition, and whose write is replaced within it, may be counted as overlapping.
//!
//! Whoever holds the later of two writes is never told of the earlier one. So each side counts those of its writes that were replaced or joined, and the
//! overlaps of both together are all that there were.
//!
//! What a peer can make it store: nothing. Members are at most [`APART_MAX`]; those that have been gone for longest are forgotten first.

use std::collections::BTreeMap;
use std::time::Duration;

use meshwork_channels::{PeerId, Time, WallTime};
use serde::Serialize;

use crate::hlc::Stamp;
use crate::store::Marker;

/// Members whose absence is remembered.
const APART_MAX: usize = 4_096;
/// How long before a member is suspected it may have heard our writes and we its: about two periods of its probes.
const UNNOTICED: Duration = Duration::from_secs(2);
/// How long a member may have been gone that others held for dead before us.
const NOTICED: Duration = Duration::from_secs(10);

/// What came together: the writes of others that were made while they were apart from this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reunion {
    /// Members that are back since the last report.
    pub members: usize,
    /// Keys that changed here by what they wrote.
    pub taken: u64,
    /// How many of these this side had written meanwhile as well.
    pub overlaps: u64,
}

/// How a write counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Alone,
    Overlapping,
}

#[derive(Clone, Copy, Debug)]
struct Apart {
    since: Stamp,
    is_down: bool,
    back: Option<Stamp>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Apartness {
    apart: BTreeMap<PeerId, Apart>,
    came: Reunion,
    due: Option<Time>,
}

impl Apartness {
    pub(crate) fn suspected(&mut self, member: PeerId, wall: WallTime) {
        self.begin(member, wall, UNNOTICED);
    }

    pub(crate) fn failed(&mut self, member: PeerId, wall: WallTime) {
        self.begin(member, wall, NOTICED);
        if let Some(apart) = self.apart.get_mut(&member) {
            (apart.is_down, apart.back) = (true, None);
        }
    }

    fn begin(&mut self, member: PeerId, wall: WallTime, before: Duration) {
        let since = stamp(WallTime::from_micros(wall.as_micros().saturating_sub(before.as_micros() as u64)));
        if self.apart.len() >= APART_MAX && !self.apart.contains_key(&member) {
            let oldest = self.apart.iter().min_by_key(|(_, apart)| apart.since).map(|(oldest, _)| *oldest);
            oldest.map(|oldest| self.apart.remove(&oldest));
        }
        let new = Apart { since, is_down: false, back: None };
        let apart = self.apart.entry(member).or_insert(new);
        if apart.back.is_some() && self.due.is_none() {
            // That was another time, and nothing came of it.
            *apart = new;
        }
    }

    /// A member answers again, or is back. If it wrote anything that came before it was held for alive, more may come until `due`.
    pub(crate) fn back(&mut self, member: PeerId, wall: WallTime, due: Time) {
        match self.apart.get_mut(&member) {
            Some(apart) if apart.is_down => {
                apart.back = Some(stamp(wall));
                self.due = self.due.max(Some(due).filter(|_| self.came.taken > 0));
            }
            _ => drop(self.apart.remove(&member)),
        }
    }

    /// How a write counts that is about to replace what is held.
    pub(crate) fn of<'a>(&self, at: Stamp, origin: &PeerId, held: impl FnOnce() -> Option<&'a Marker>) -> Option<Came> {
        let apart = self.within(at, origin)?;
        match held() {
            // Its key was counted.
            Some(held) if self.within(held.stamp, &held.origin).is_some() => None,
            Some(held) if held.stamp > apart.since => Some(Came::Overlapping),
            _ => Some(Came::Alone),
        }
    }

    fn within(&self, at: Stamp, origin: &PeerId) -> Option<&Apart> {
        self.apart.get(origin).filter(|apart| apart.is_down && apart.since < at && apart.back.is_none_or(|back| at <= back))
    }

    /// Counts a write; others may come until `due`.
    pub(crate) fn count(&mut self, came: Came, due: Time) {
        self.came.taken += 1;
        self.came.overlaps += u64::from(came == Came::Overlapping);
        self.due = Some(due);
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.due
    }

    /// What came together, once nothing more came for as long as it may take and somebody is held for alive again.
    pub(crate) fn report(&mut self, now: Time) -> Option<Reunion> {
        self.due.take_if(|due| *due <= now)?;
        let before = self.apart.len();
        self.apart.retain(|_, apart| apart.back.is_none());
        if self.apart.len() == before {
            return None;
        }
        Some(Reunion { members: before - self.apart.len(), ..std::mem::take(&mut self.came) })
    }
}

fn stamp(wall: WallTime) -> Stamp {
    Stamp::from_parts(wall.as_millis(), 0)
}
