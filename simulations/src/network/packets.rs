//! What becomes of single packets, beside the time that their pair takes: some are late, some come twice, and losses come in bursts.

use meshwork_channels::random::{hash, unit};
use serde::{Deserialize, Serialize};

use super::{BURST, BURST_LOSS, DUPLICATE, REORDER};

/// What may happen to a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trouble {
    /// The share of packets that are late, so that others overtake them. On a stream the frame is late.
    pub reorder: f64,
    /// By how much, in microseconds.
    pub reorder_by: u64,
    /// The share of datagrams that arrive twice. QUIC would drop the second (RFC 9000, section 12.3), so this is harsher than a network can be.
    pub duplicate: f64,
    /// Losses that come together, beside those that are independent.
    pub burst: Option<Burst>,
}

impl Trouble {
    /// How much later a packet is, in microseconds.
    pub(super) fn late(&self, seed: u64, from: u32, to: u32, sequence: u64) -> u64 {
        let is_late = self.reorder > 0.0 && unit(hash(&[seed, REORDER, u64::from(from), u64::from(to), sequence])) < self.reorder;
        if is_late { self.reorder_by } else { 0 }
    }

    /// Whether a datagram comes twice.
    pub(super) fn is_double(&self, seed: u64, from: u32, to: u32, sequence: u64) -> bool {
        self.duplicate > 0.0 && unit(hash(&[seed, DUPLICATE, u64::from(from), u64::from(to), sequence])) < self.duplicate
    }
}

/// A line that is good or bad from packet to packet, and loses some of them while it is bad (Gilbert, *Capacity of a burst-noise channel*, 1960; Elliott,
/// *Estimates of error rates for codes on burst-noise channels*, 1963).
///
/// It is the line of the sender: what a node sends in a row, to whomever, shares a burst. Bursts are `1 / leave` packets long in the mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Burst {
    /// The chance that a good line is bad at the next packet.
    pub enter: f64,
    /// The chance that a bad line is good at the next packet. Together with `enter` at most 1, or losses would avoid one another.
    pub leave: f64,
    /// The share of packets that a bad line loses.
    pub loss: f64,
}

impl Burst {
    /// The share of packets that are lost in the long run.
    pub fn mean_loss(&self) -> f64 {
        self.enter / (self.enter + self.leave) * self.loss
    }

    /// Whether the line of a node loses its packet with this number, counted from 1.
    pub fn loses(&self, seed: u64, node: u32, packet: u64) -> bool {
        unit(hash(&[seed, BURST_LOSS, u64::from(node), packet])) < self.loss && self.is_bad(seed, node, packet)
    }

    /// Whether the line of a node is bad at a packet.
    ///
    /// No state is kept for it. A draw below `enter` makes the line bad and one in the last `leave` makes it good, whatever it was before; others change nothing. So
    /// the last draw that decided is looked for backwards, which takes `1 / (enter + leave)` steps in the mean.
    fn is_bad(&self, seed: u64, node: u32, packet: u64) -> bool {
        let draw = |packet| unit(hash(&[seed, BURST, u64::from(node), packet]));
        for before in (1..=packet).rev() {
            let draw = draw(before);
            if draw < self.enter {
                return true;
            }
            if draw >= 1.0 - self.leave {
                return false;
            }
        }
        draw(0) < self.enter / (self.enter + self.leave)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_lose_as_much_and_are_as_long_as_configured() {
        for burst in [
            Burst { enter: 0.02, leave: 0.25, loss: 1.0 },
            Burst { enter: 0.05, leave: 0.4, loss: 0.5 },
            Burst { enter: 0.1, leave: 0.9, loss: 1.0 },
        ] {
            // Bursts make the mean of 100,000 packets rough, so several lines are taken together.
            let (mut lost, mut bad, mut bursts) = (0, 0, 0);
            for node in 0..10 {
                let mut was_bad = false;
                for packet in 1..=100_000 {
                    lost += u32::from(burst.loses(1, node, packet));
                    let is_bad = burst.is_bad(1, node, packet);
                    bad += u32::from(is_bad);
                    bursts += u32::from(is_bad && !was_bad);
                    was_bad = is_bad;
                }
            }
            let near = |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 0.02, "{found}, not {expected}: {burst:?}");
            near(f64::from(lost) / 1e6, burst.mean_loss());
            near(f64::from(bad) / f64::from(bursts), 1.0 / burst.leave);
        }
    }

    #[test]
    fn the_shares_that_are_late_and_double_are_those_configured() {
        let trouble = Trouble { reorder: 0.2, reorder_by: 7, duplicate: 0.3, burst: None };
        let late: u64 = (0..100_000).map(|sequence| trouble.late(1, 2, 3, sequence)).sum();
        let double = (0..100_000).filter(|sequence| trouble.is_double(1, 2, 3, *sequence)).count();
        assert!((late as f64 / 7.0 / 20_000.0 - 1.0).abs() < 0.02, "{late}");
        assert!((double as f64 / 30_000.0 - 1.0).abs() < 0.02, "{double}");
    }
}
