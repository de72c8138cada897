//! The line between a node and the network: how fast it is in each direction, and what waits before it.
//!
//! `channels::link::bottleneck` is the same rule with loss and delay behind it. Here a million nodes may have lines, so a line is two moments and a count, and what it
//! is like is said once for all of them.

use serde::{Deserialize, Serialize};

/// What the lines of the nodes carry. Headers are not counted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// Kilobits per second from a node to the network; 0 for no limit.
    pub up: u64,
    /// Kilobits per second from the network to a node; 0 for no limit.
    pub down: u64,
    /// Bytes that may wait before a line in each direction.
    pub queue: u64,
}

impl Default for Capacity {
    fn default() -> Self {
        Capacity { up: 0, down: 0, queue: 64_000 }
    }
}

/// What happens when a queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The packet is dropped at the tail, as a datagram is.
    Drop,
    /// The packet waits: what QUIC's congestion control does with a stream, which it takes from its sender no faster than the line carries it.
    Wait,
}

/// The line of a node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Line {
    /// When all that was let into the direction to the network has left, in nanoseconds since the start.
    pub(super) up: u64,
    /// The same for the direction from the network.
    pub(super) down: u64,
    /// Packets that the node has sent.
    pub(super) packets: u64,
    pub(super) up_meter: Meter,
    pub(super) down_meter: Meter,
}

/// The bytes of a second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    second: u64,
    bytes: u64,
}

impl Meter {
    /// Adds bytes that are through at a moment in microseconds; gives those of its second so far. Must be told in the order of time.
    pub(super) fn add(&mut self, at: u64, bytes: usize) -> u64 {
        let second = at / 1_000_000;
        if second != self.second {
            *self = Meter { second, bytes: 0 };
        }
        self.bytes += bytes as u64;
        self.bytes
    }
}

/// Lets bytes through one direction of a line at a moment in microseconds; gives after how many more they are through, and none when they are dropped.
/// Must be asked in the order of time.
pub(super) fn pass(free_at: &mut u64, kilobits: u64, queue: u64, bytes: usize, now: u64, full: Full) -> Option<u64> {
    if kilobits == 0 {
        return Some(0);
    }
    let (bytes, nanos) = (bytes as u64, now * 1_000);
    let time_for = |bytes: u64| bytes * 8_000_000 / kilobits;
    let start = (*free_at).max(nanos);
    if full == Full::Drop && start - nanos > time_for(queue.saturating_sub(bytes)) {
        return None;
    }
    *free_at = start + time_for(bytes);
    Some(free_at.div_ceil(1_000) - now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_carries_what_is_configured() {
        // 100,000 packets of 1,000 bytes over 50 Mbit/s: 16 s.
        let mut free_at = 0;
        let last = (0..100_000).filter_map(|_| pass(&mut free_at, 50_000, 0, 1_000, 5, Full::Wait)).last();
        assert_eq!(last, Some(16_000_000));
        // What is offered three times as fast as it can leave, so that two thirds of it are dropped.
        let (mut free_at, mut carried, mut through_at) = (0, 0_u64, 0);
        for number in 0..100_000_u64 {
            let now = number * 100;
            if let Some(after) = pass(&mut free_at, 10_000, 20_000, 375, now, Full::Drop) {
                carried += 375;
                through_at = now + after;
            }
        }
        let kilobits = carried as f64 * 8e3 / through_at as f64;
        assert!((kilobits / 10_000.0 - 1.0).abs() < 0.02, "{kilobits} kbit/s");
    }

    #[test]
    fn the_tail_is_dropped_when_the_queue_is_full() {
        let mut free_at = 0;
        // A byte takes a microsecond. Ten packets of 1,000 bytes wait in a queue of 10,000, behind none.
        let mut offer = |now, full| pass(&mut free_at, 8_000, 10_000, 1_000, now, full);
        for number in 1..=10 {
            assert_eq!(offer(0, Full::Drop), Some(1_000 * number));
        }
        assert_eq!(offer(0, Full::Drop), None);
        assert_eq!(offer(0, Full::Wait), Some(11_000));
        assert_eq!(offer(2_000, Full::Drop), Some(10_000));
        assert_eq!(offer(1_000_000, Full::Drop), Some(1_000), "after a pause the line is as new");
    }

    #[test]
    fn a_line_without_a_limit_keeps_nobody() {
        let mut free_at = 0;
        assert_eq!(pass(&mut free_at, 0, 0, 1_000_000, 7, Full::Drop), Some(0));
        assert_eq!(free_at, 0);
    }
}
