//! The wall clock of a node: ahead of the true time or behind it, and as fast as it is.

use meshwork_channels::WallTime;
use meshwork_channels::random::hash;

/// The wall clock at the start of every run: 2026-01-01, in microseconds since the Unix epoch.
const EPOCH: u64 = 1_767_225_600_000_000;
const SKEW: u64 = 0x736b_6577;

/// A wall clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct WallClock {
    /// What it was ahead of the true time at `since`, in microseconds.
    ahead: i64,
    /// By how many millionths it goes too fast since then.
    drift: i32,
    since: u64,
}

impl WallClock {
    /// That of a node, drawn within `skew_max` microseconds of the true time.
    pub(super) fn drawn(seed: u64, node: u32, skew_max: u64) -> Self {
        let ahead = match skew_max {
            0 => 0,
            max => (hash(&[seed, SKEW, u64::from(node)]) % (2 * max + 1)) as i64 - max as i64,
        };
        WallClock { ahead, drift: 0, since: 0 }
    }

    /// What it shows at a moment, in microseconds since the start.
    pub(super) fn at(&self, now: u64) -> WallTime {
        WallTime::from_micros((EPOCH + now).saturating_add_signed(self.ahead_at(now)))
    }

    /// Sets it ahead by so much, and lets it drift from now on.
    pub(super) fn set(&mut self, now: u64, jump: i64, drift: i32) {
        *self = WallClock { ahead: self.ahead_at(now).saturating_add(jump), drift, since: now };
    }

    fn ahead_at(&self, now: u64) -> i64 {
        self.ahead.saturating_add(now.saturating_sub(self.since) as i64 * i64::from(self.drift) / 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_jumps_and_drifts_from_where_it_was() {
        let shows = |clock: &WallClock, now| clock.at(now).as_micros() as i64 - (EPOCH + now) as i64;
        let mut clock = WallClock::drawn(1, 2, 0);
        assert_eq!(shows(&clock, 5), 0);
        clock.set(1_000_000, 300, 100);
        assert_eq!((shows(&clock, 1_000_000), shows(&clock, 3_000_000)), (300, 500));
        clock.set(3_000_000, -1_000, 0);
        assert_eq!(shows(&clock, 9_000_000), -500);
        assert!((0..100).all(|node| shows(&WallClock::drawn(1, node, 50), 0).abs() <= 50));
        assert!((0..100).any(|node| shows(&WallClock::drawn(1, node, 50), 0) < 0));
    }
}
