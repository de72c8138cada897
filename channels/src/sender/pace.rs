//! How much of a channel that keeps the latest may be under way: enough that the path is not idle, and no more, for whatever is under way
//! cannot be replaced any more.
//!
//! The peer says how many messages its application has taken or has within reach ([`Pace::on_credit`]). The window of bytes that are sent
//! and not credited grows while credit comes about as fast as it ever did: it doubles until that first takes longer, then by a sixteenth for each round trip.
//! When credit takes longer by a sixteenth and 3 ms, messages wait somewhere on the way, in the network or at a reader that is slow, and would wait better here: the
//! window becomes a quarter smaller than what was under way without that wait, and at most half. So the queue runs dry each time, and the least round trip is seen
//! again. Two messages may be under way whatever their size.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Time;

/// Messages that may be under way whatever the window says.
const FRAMES_MIN: usize = 2;
/// The bounds of the window. The lower one is what a path of 1 Mbit/s and 32 ms carries.
const WINDOW_BYTES_MIN: usize = 4 * 1_024;
const WINDOW_BYTES_MAX: usize = 512 * 1_024;
/// What it begins with.
const WINDOW_BYTES: usize = 16 * 1_024;
/// What a message weighs at least, so that tiny ones are bounded in number.
const FRAME_WEIGHT_MIN: usize = 64;
/// Delay that says nothing: tasks that wait for their turn on a busy machine.
const NOISE: Duration = Duration::from_millis(3);
/// The least round trip gives way to later ones by this part of the difference, for routes change.
const FORGET_ONE_IN: u32 = 256;

/// The window of one channel to one peer.
#[derive(Debug)]
pub(super) struct Pace {
    window: usize,
    /// The weight of each message that was sent and not credited, and their sum.
    under_way: VecDeque<u32>,
    bytes: usize,
    credited: u64,
    /// The number of a message whose round trip is measured, and when it left.
    probe: Option<(u64, Time)>,
    least: Option<Duration>,
    /// Whether the window held anything back since the probe left.
    was_full: bool,
    /// Whether it has been too large.
    was_wide: bool,
}

impl Default for Pace {
    fn default() -> Self {
        let under_way = VecDeque::new();
        Pace { window: WINDOW_BYTES, under_way, bytes: 0, credited: 0, probe: None, least: None, was_full: false, was_wide: false }
    }
}

impl Pace {
    /// Whether another message may leave.
    pub(super) fn is_open(&mut self) -> bool {
        let is_open = self.under_way.len() < FRAMES_MIN || self.bytes < self.window;
        self.was_full |= !is_open;
        is_open
    }

    /// Lets everything leave: nobody is there any more.
    pub(super) fn give_up(&mut self) {
        self.window = usize::MAX;
    }

    /// A message left.
    pub(super) fn on_sent(&mut self, len: usize, now: Time) {
        let weight = len.max(FRAME_WEIGHT_MIN);
        self.under_way.push_back(u32::try_from(weight).unwrap_or(u32::MAX));
        self.bytes = self.bytes.saturating_add(weight);
        if self.probe.is_none() {
            self.probe = Some((self.credited.saturating_add(self.under_way.len() as u64), now));
            self.was_full = false;
        }
    }

    /// The peer has `total` messages since the connection stands. An older number than the last says nothing; one that was never reached gives false.
    pub(super) fn on_credit(&mut self, total: u64, now: Time) -> bool {
        let fresh = total.saturating_sub(self.credited);
        if fresh > self.under_way.len() as u64 {
            return false;
        }
        for _ in 0..fresh {
            let weight = self.under_way.pop_front().unwrap_or(0);
            self.bytes = self.bytes.saturating_sub(weight as usize);
        }
        self.credited = self.credited.max(total);
        if let Some((_, since)) = self.probe.take_if(|(number, _)| *number <= self.credited) {
            self.on_round_trip(now.since(since));
        }
        true
    }

    fn on_round_trip(&mut self, took: Duration) {
        let least = self.least.map_or(took, |least| took.min(least + took.saturating_sub(least) / FORGET_ONE_IN));
        self.least = Some(least);
        if took > least + least / 16 + NOISE {
            self.was_wide = true;
            let part = (least.as_secs_f64() / took.as_secs_f64() * 3.0 / 4.0).max(0.5);
            self.window = ((self.window as f64 * part) as usize).max(WINDOW_BYTES_MIN);
        } else if self.was_full {
            let more = if self.was_wide { self.window / 16 } else { self.window };
            self.window = self.window.saturating_add(more).min(WINDOW_BYTES_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    /// Sends as much as the window lets, credited after `delay` milliseconds; the bytes of each round.
    fn rounds(pace: &mut Pace, len: usize, start: u64, delays: &[u64]) -> Vec<usize> {
        let (mut now, mut total) = (start, pace.credited);
        let round = |delay: &u64| {
            let mut sent = 0;
            while pace.is_open() {
                pace.on_sent(len, at(now));
                sent += len;
                total += 1;
            }
            now += delay;
            assert!(pace.on_credit(total, at(now)));
            sent
        };
        delays.iter().map(round).collect()
    }

    #[test]
    fn the_window_grows_while_credit_comes_fast_and_shrinks_when_it_does_not() {
        let mut pace = Pace::default();
        assert_eq!(rounds(&mut pace, 1_024, 0, &[20; 8]), [16, 32, 64, 128, 256, 512, 512, 512].map(|kib| kib * 1_024));
        let slow = rounds(&mut pace, 1_024, 10_000, &[200; 9]);
        assert_eq!(slow[..], [512, 256, 128, 64, 32, 16, 8, 4, 4].map(|kib| kib * 1_024));
    }

    #[test]
    fn two_messages_are_under_way_whatever_their_size_and_tiny_ones_are_bounded_too() {
        let mut pace = Pace::default();
        assert_eq!(rounds(&mut pace, 1_000_000, 0, &[20])[0], 2_000_000);
        let mut pace = Pace::default();
        assert_eq!(rounds(&mut pace, 1, 0, &[20])[0], WINDOW_BYTES / FRAME_WEIGHT_MIN);
    }

    #[test]
    fn a_window_that_holds_nothing_back_stays() {
        let mut pace = Pace::default();
        for round in 1..=50 {
            pace.on_sent(100, at(round * 20));
            assert!(pace.is_open() && pace.on_credit(round, at(round * 20 + 10)));
        }
        assert_eq!(pace.window, WINDOW_BYTES);
    }

    #[test]
    fn credit_for_what_was_never_sent_is_refused_and_old_credit_ignored() {
        let mut pace = Pace::default();
        assert!(!pace.on_credit(1, at(0)));
        assert!(!pace.on_credit(u64::MAX, at(0)));
        (0..3).for_each(|_| pace.on_sent(10, at(0)));
        assert!(pace.on_credit(2, at(1)) && pace.on_credit(2, at(1)) && pace.on_credit(0, at(1)));
        assert!(!pace.on_credit(4, at(1)));
        assert_eq!((pace.under_way.len(), pace.bytes), (1, 64));
    }
}
