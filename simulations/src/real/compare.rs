//! How far what processes did is from what simulated nodes did.

use serde::Serialize;

use crate::record::Record;
use crate::run::percentile;

/// One side of a comparison: what a run of a plan gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Side {
    /// Broadcasts that were sent.
    pub messages: usize,
    /// Deliveries that were owed.
    pub owed: u64,
    /// The share of them that was made.
    pub delivery: f64,
    /// From sending to delivery, in microseconds, in order.
    pub latencies: Vec<u64>,
    /// The mean over the messages of the most links that one of its deliveries crossed.
    pub last_hop: f64,
}

/// A side in numbers, latencies in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Broadcasts that were sent.
    pub messages: usize,
    /// The share of owed deliveries that was made.
    pub delivery: f64,
    /// Deliveries whose latency counts.
    pub deliveries: usize,
    /// Half of the latencies are not above it.
    pub latency_p50_ms: f64,
    /// 90 of 100 are not.
    pub latency_p90_ms: f64,
    /// 99 of 100 are not.
    pub latency_p99_ms: f64,
    /// The mean last hop.
    pub last_hop_mean: f64,
}

impl Side {
    /// What was seen in a run.
    pub fn of(record: &Record) -> Self {
        let (owed, had) = record.owed();
        let hops: Vec<f64> = record.messages().map(|(_, message)| f64::from(message.hops_max)).collect();
        Side {
            messages: hops.len(),
            owed,
            delivery: if owed == 0 { 1.0 } else { had as f64 / owed as f64 },
            latencies: record.latencies(),
            last_hop: if hops.is_empty() { 0.0 } else { hops.iter().sum::<f64>() / hops.len() as f64 },
        }
    }

    /// Adds another run.
    pub fn add(&mut self, other: &Side) {
        let (messages, owed) = (self.messages + other.messages, self.owed + other.owed);
        let mean = |one: f64, by: f64, two: f64, other_by: f64| {
            if by + other_by == 0.0 { 0.0 } else { (one * by + two * other_by) / (by + other_by) }
        };
        self.last_hop = mean(self.last_hop, self.messages as f64, other.last_hop, other.messages as f64);
        self.delivery = mean(self.delivery, self.owed as f64, other.delivery, other.owed as f64);
        (self.messages, self.owed) = (messages, owed);
        self.latencies.extend_from_slice(&other.latencies);
        self.latencies.sort_unstable();
    }

    /// The side in numbers.
    pub fn figures(&self) -> Figures {
        let millis = |percent| percentile(&self.latencies, percent) as f64 / 1e3;
        Figures {
            messages: self.messages,
            delivery: self.delivery,
            deliveries: self.latencies.len(),
            latency_p50_ms: millis(50),
            latency_p90_ms: millis(90),
            latency_p99_ms: millis(99),
            last_hop_mean: self.last_hop,
        }
    }
}

/// The distance of two samples, each in order, by Kolmogorov and Smirnov: the most by which the shares of values up to some value differ. 0 for equal distributions, 1 for
/// samples that do not overlap, and 1 when one is empty and the other is not.
pub fn distance(one: &[u64], two: &[u64]) -> f64 {
    if one.is_empty() || two.is_empty() {
        return if one.is_empty() && two.is_empty() { 0.0 } else { 1.0 };
    }
    let (mut i, mut j, mut most) = (0, 0, 0.0_f64);
    while i < one.len() && j < two.len() {
        // All values of both that are equal count before the shares are compared.
        let value = one[i].min(two[j]);
        i += one[i..].iter().take_while(|other| **other == value).count();
        j += two[j..].iter().take_while(|other| **other == value).count();
        most = most.max((i as f64 / one.len() as f64 - j as f64 / two.len() as f64).abs());
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_is_the_most_by_which_the_shares_differ() {
        assert_eq!(distance(&[1, 2, 3, 4], &[1, 2, 3, 4]), 0.0);
        assert_eq!(distance(&[1, 2], &[3, 4]), 1.0);
        assert_eq!(distance(&[3, 4], &[1, 2]), 1.0);
        // After 2, three quarters of the one and a quarter of the other.
        assert_eq!(distance(&[1, 1, 2, 9], &[2, 5, 6, 7]), 0.5);
        assert_eq!(distance(&[1, 2, 2, 2], &[2, 2, 2, 3]), 0.25);
        assert_eq!(distance(&[5, 5, 5], &[5]), 0.0, "the sizes may differ");
        assert_eq!((distance(&[], &[]), distance(&[], &[1]), distance(&[1], &[])), (0.0, 1.0, 1.0));
    }

    /// Shifting a uniform sample by a tenth of its range moves a tenth of it.
    #[test]
    fn the_distance_of_shifted_samples_is_the_shift() {
        let one: Vec<u64> = (0..1_000).collect();
        let two: Vec<u64> = (100..1_100).collect();
        assert!((distance(&one, &two) - 0.1).abs() < 1e-9);
    }

    #[test]
    fn sides_are_added_by_their_weight() {
        let mut sum = Side::default();
        sum.add(&Side { messages: 1, owed: 4, delivery: 1.0, latencies: vec![4_000, 9_000], last_hop: 3.0 });
        sum.add(&Side { messages: 3, owed: 12, delivery: 0.5, latencies: vec![1_000], last_hop: 1.0 });
        let figures = sum.figures();
        assert_eq!((figures.messages, figures.deliveries, figures.delivery, figures.last_hop_mean), (4, 3, 0.625, 1.5));
        assert_eq!((figures.latency_p50_ms, figures.latency_p99_ms), (4.0, 9.0));
    }
}
