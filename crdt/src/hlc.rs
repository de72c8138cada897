//! The hybrid logical clock: stamps that respect causality and stay close to the wall clock.
//!
//! Kulkarni, Demirbas, Madappa, Avva and Leone, "Logical Physical Clocks" (OPODIS 2014), section 3: an event that happened before another
//! has the smaller stamp, and a stamp is never further from the wall clocks of the cluster than these are from each other.
//!
//! Deviations:
//!
//! 1. Both parts share 64 bits, as the authors propose for compact stamps: here 48 bits of milliseconds since the Unix epoch, then a
//!    counter of 16 bits. A counter that overflows carries into the milliseconds, so 65,536 stamps within one millisecond cost one
//!    millisecond of drift, and no stamp is given twice.
//! 2. Receiving does not make a stamp of its own; it only raises the floor under the next one, because nobody reads the others.
//! 3. A stamp too far ahead is refused *before* anything is merged. Protecting the clock alone, as the authors do, would let the store take
//!    the value all the same, and one node with a wrong clock would win every conflict.
//!
//! Invariants: stamps given out by one clock strictly increase, also when the wall clock steps back; every stamp given out after another
//! one was accepted is greater than it.

use std::fmt;
use std::time::Duration;

use meshwork_channels::WallTime;
use serde::{Deserialize, Serialize};

use crate::wire::fixed;

/// Bits of the counter.
const COUNTER_BITS: u32 = 16;
/// The wall clock is cut here (the year 6429), which leaves as many milliseconds again for what the counter carries over.
const WALL_MILLIS_MAX: u64 = 1 << 47;

/// The moment of a write: milliseconds since the Unix epoch and a counter, ordered like the number that holds both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp(#[serde(with = "fixed")] u64);

impl Stamp {
    /// Before every write.
    pub const ZERO: Stamp = Stamp(0);
    /// After every write.
    pub const MAX: Stamp = Stamp(u64::MAX);

    /// The stamp with these parts; `millis` is cut to its 48 bits.
    pub const fn from_parts(millis: u64, counter: u16) -> Self {
        let millis = if millis >> (64 - COUNTER_BITS) == 0 { millis } else { u64::MAX >> COUNTER_BITS };
        Stamp(millis << COUNTER_BITS | counter as u64)
    }

    /// The stamp whose bits are `bits`.
    pub const fn from_bits(bits: u64) -> Self {
        Stamp(bits)
    }

    /// Both parts in one number that orders as stamps do.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Milliseconds since the Unix epoch.
    pub const fn millis(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// Which of the stamps within one millisecond.
    pub const fn counter(self) -> u16 {
        self.0 as u16
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.millis(), self.counter())
    }
}

/// A stamp of another node is further ahead of the wall clock than allowed. The clock is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// How far ahead.
    pub by: Duration,
}

/// The clock of one replica.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    last: Stamp,
}

impl Clock {
    /// A clock that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The greatest stamp given out or accepted so far.
    pub fn last(&self) -> Stamp {
        self.last
    }

    /// The stamp of a write that happens now.
    pub fn tick(&mut self, wall: WallTime) -> Stamp {
        // Section 3, local events: the wall clock if it is ahead, else the last stamp with its counter raised.
        let wall = Stamp::from_parts(wall.as_millis().min(WALL_MILLIS_MAX), 0);
        self.last = wall.max(Stamp(self.last.0.saturating_add(1)));
        self.last
    }

    /// A stamp behind all that are given out while the wall clock is at most so far `ahead`; where the last stamp is ahead of it, behind that one by so many
    /// milliseconds, of which each holds 65,536 stamps.
    pub(crate) fn reservation(&self, wall: WallTime, ahead: Duration, spare_millis: u64) -> Stamp {
        let ahead = u64::try_from(ahead.as_millis()).unwrap_or(u64::MAX);
        let from_wall = wall.as_millis().min(WALL_MILLIS_MAX).saturating_add(ahead);
        Stamp::from_parts(from_wall.max(self.last.millis().saturating_add(spare_millis)), u16::MAX)
    }

    /// Goes on behind a stamp of an earlier life.
    pub(crate) fn resume(&mut self, stamp: Stamp) {
        self.last = self.last.max(stamp);
    }

    /// Takes note of the stamp of another node, so that what is written from now on comes after it.
    ///
    /// # Errors
    ///
    /// [`Ahead`] when the stamp is more than `ahead_max` after `wall`; nothing was changed.
    pub fn observe(&mut self, stamp: Stamp, wall: WallTime, ahead_max: Duration) -> Result<(), Ahead> {
        let wall_millis = wall.as_millis().min(WALL_MILLIS_MAX);
        let ahead = Duration::from_millis(stamp.millis().saturating_sub(wall_millis));
        if ahead > ahead_max {
            return Err(Ahead { by: ahead });
        }
        self.last = self.last.max(stamp);
        Ok(())
    }
}
