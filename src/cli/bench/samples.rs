//! Latencies: recorded in microseconds with three digits, kept whole.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency that is told from others: an hour.
const MICROS_MAX: u64 = 3_600_000_000;

/// A histogram of latencies.
#[derive(Clone, Debug)]
pub(super) struct Samples(Histogram<u64>);

impl Samples {
    pub(super) fn new() -> Self {
        Samples(Histogram::new_with_max(MICROS_MAX, 3).expect("three digits and an hour are a legal histogram"))
    }

    pub(super) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(MICROS_MAX).min(MICROS_MAX));
    }

    pub(super) fn add(&mut self, other: &Samples) {
        self.0.add(&other.0).expect("all histograms have the same bounds");
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that so large a part of all does not exceed, in milliseconds.
    pub(super) fn quantile_ms(&self, part: f64) -> f64 {
        if self.0.is_empty() { 0.0 } else { self.0.value_at_quantile(part) as f64 / 1e3 }
    }

    /// Microseconds and how often, for each value that was recorded.
    pub(super) fn raw(&self) -> Vec<(u64, u64)> {
        self.0.iter_recorded().map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value())).collect()
    }

    pub(super) fn summary(&self) -> Summary {
        Summary {
            count: self.count(),
            p50_ms: self.quantile_ms(0.5),
            p99_ms: self.quantile_ms(0.99),
            p999_ms: self.quantile_ms(0.999),
            max_ms: self.quantile_ms(1.0),
        }
    }
}

/// What is told of a histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) count: u64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    pub(super) max_ms: f64,
}

/// The middle of some numbers; of an even count, the mean of the two in the middle. Nothing has the middle zero.
pub(super) fn median(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.into_iter().collect();
    numbers.sort_by(f64::total_cmp);
    match numbers.len() {
        0 => 0.0,
        count if count % 2 == 1 => numbers[count / 2],
        count => (numbers[count / 2 - 1] + numbers[count / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_good_to_three_digits() {
        let mut samples = Samples::new();
        assert_eq!(samples.summary(), Summary::default());
        for millis in 1..=1_000 {
            samples.record(Duration::from_millis(millis));
        }
        for (part, expected) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let found = samples.quantile_ms(part);
            assert!((found / expected - 1.0).abs() < 2e-3, "{found} for {expected}");
        }
        assert_eq!(samples.raw().iter().map(|(_, count)| count).sum::<u64>(), 1_000);
        samples.record(Duration::MAX);
        assert_eq!(samples.count(), 1_001);
    }

    #[test]
    fn the_middle_is_no_mean() {
        assert_eq!(median([]), 0.0);
        assert_eq!(median([3.0, 1.0, 100.0]), 3.0);
        assert_eq!(median([1.0, 3.0]), 2.0);
    }
}
