//! How long things took, counted: a fixed number of buckets that get wider with the value.
//!
//! The structure is the log-linear one of HdrHistogram (Tene): each power of two is divided into 16 buckets of equal width, and below 16 µs each
//! microsecond has its own. A count is exact, the largest value is exact, and a quantile is the upper end of the bucket that it falls into: never
//! less than the true one, and above it by less than 1 µs below 16 µs, and by at most one 16th from there on. Values from [`Histogram::BUCKETED_MAX`]
//! on share the last bucket, whose upper end is the largest value.
//!
//! Memory is nothing until something is recorded. From then on it is 4 bytes for each bucket between the least and the largest value, in steps of 8 buckets, and so at most
//! 1.5 KiB; twice that when a bucket has counted more than `u32` holds. Adding two histograms is exact: it gives what one would have counted.

use std::fmt;
use std::time::Duration;

/// Each power of two is divided into 2 to this power.
const DIVISION_BITS: u32 = 4;
const DIVISIONS: usize = 1 << DIVISION_BITS;
/// Powers of two above the linear part.
const OCTAVES: usize = 23;
const BUCKETS: usize = DIVISIONS * (OCTAVES + 1);

/// Buckets that are made at once: half a power of two.
const STEP: usize = 8;

/// Counts of durations in buckets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: Counts,
    /// The number of the first bucket that is there, a multiple of [`STEP`].
    first: u16,
    count: u64,
    max: Duration,
}

/// The buckets from the first to the last that hold something, to whole steps.
#[derive(Clone, PartialEq, Eq)]
enum Counts {
    Narrow(Box<[u32]>),
    /// One of them has outgrown the narrow form.
    Wide(Box<[u64]>),
}

impl Default for Counts {
    fn default() -> Self {
        Counts::Narrow(Box::default())
    }
}

impl Counts {
    fn len(&self) -> usize {
        match self {
            Counts::Narrow(counts) => counts.len(),
            Counts::Wide(counts) => counts.len(),
        }
    }

    fn get(&self, index: usize) -> u64 {
        match self {
            Counts::Narrow(counts) => counts[index].into(),
            Counts::Wide(counts) => counts[index],
        }
    }

    /// The same with empty ones before and behind, `len` in all.
    fn resized(&self, before: usize, len: usize) -> Self {
        fn resize<T: Copy + Default>(counts: &[T], before: usize, len: usize) -> Box<[T]> {
            let mut resized = vec![T::default(); len];
            resized[before..before + counts.len()].copy_from_slice(counts);
            resized.into()
        }
        match self {
            Counts::Narrow(counts) => Counts::Narrow(resize(counts, before, len)),
            Counts::Wide(counts) => Counts::Wide(resize(counts, before, len)),
        }
    }
}

impl Histogram {
    /// Values from here on, about 134 seconds, are counted in the last bucket.
    pub const BUCKETED_MAX: Duration = Duration::from_micros(lower_end(BUCKETS));

    /// Counts a value `times` times. Parts of a microsecond count for the bucket of the whole one below; the largest value keeps them.
    pub fn record(&mut self, value: Duration, times: u64) {
        if times == 0 {
            return;
        }
        self.put(bucket_of(value), times);
        self.count = self.count.saturating_add(times);
        self.max = self.max.max(value);
    }

    fn put(&mut self, bucket: usize, times: u64) {
        if let Counts::Narrow(counts) = &mut self.counts
            && let Some(count) = counts.get_mut(bucket.wrapping_sub(self.first.into()))
            && let Ok(times) = u32::try_from(times)
            && let Some(sum) = count.checked_add(times)
        {
            *count = sum;
            return;
        }
        self.put_slowly(bucket, times);
    }

    /// Makes the bucket, or makes it wide enough.
    #[cold]
    fn put_slowly(&mut self, bucket: usize, times: u64) {
        let (first, len) = (usize::from(self.first), self.counts.len());
        let is_empty = len == 0;
        let from = (bucket - bucket % STEP).min(if is_empty { BUCKETS } else { first });
        let to = (bucket - bucket % STEP + STEP).max(first + len);
        if is_empty || from < first || to > first + len {
            self.counts = self.counts.resized(if is_empty { 0 } else { first - from }, to - from);
            self.first = u16::try_from(from).expect("there are 384 buckets");
        }
        let at = bucket - from;
        let sum = self.counts.get(at).saturating_add(times);
        match &mut self.counts {
            Counts::Wide(counts) => counts[at] = sum,
            Counts::Narrow(counts) => match u32::try_from(sum) {
                Ok(sum) => counts[at] = sum,
                Err(_) => {
                    let mut wide: Box<[u64]> = counts.iter().map(|count| u64::from(*count)).collect();
                    wide[at] = sum;
                    self.counts = Counts::Wide(wide);
                }
            },
        }
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: &Histogram) {
        for (bucket, times) in other.filled() {
            self.put(bucket, times);
        }
        self.count = self.count.saturating_add(other.count);
        self.max = self.max.max(other.max);
    }

    /// The numbers of the buckets that hold something, in order, and how many.
    fn filled(&self) -> impl Iterator<Item = (usize, u64)> {
        let counts = (0..self.counts.len()).map(|at| (usize::from(self.first) + at, self.counts.get(at)));
        counts.filter(|(_, count)| *count > 0)
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The largest value; zero when there is none.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// A value that at least this share of all values (0 to 1, others are cut to that) do not exceed, with the error that the module states; zero when
    /// nothing was counted.
    pub fn quantile(&self, share: f64) -> Duration {
        // The rank of the value among all, from one on. A share that is no number counts as zero.
        let rank = ((share.clamp(0.0, 1.0) * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut below = 0_u64;
        for (upper_end, count) in self.buckets() {
            below = below.saturating_add(count);
            if below >= rank {
                return upper_end.min(self.max);
            }
        }
        self.max
    }

    /// The buckets that hold something, in order: values below this end, and not below the end of the bucket before, and how many. The end of the last bucket of
    /// all is [`Duration::MAX`].
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        self.filled().map(|(index, count)| {
            let upper_end = if index + 1 == BUCKETS { Duration::MAX } else { Duration::from_micros(lower_end(index + 1)) };
            (upper_end, count)
        })
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99) = (self.quantile(0.5), self.quantile(0.99));
        write!(f, "Histogram({} values, p50 {p50:?}, p99 {p99:?}, max {:?})", self.count, self.max)
    }
}

/// The bucket of a value: linear up to twice the divisions, then the highest bits of the value choose it.
fn bucket_of(value: Duration) -> usize {
    let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
    if micros < DIVISIONS as u64 {
        return micros as usize;
    }
    let octave = micros.ilog2() - DIVISION_BITS;
    // The highest bit and the DIVISION_BITS below it.
    let head = (micros >> octave) as usize;
    (octave as usize * DIVISIONS + head).min(BUCKETS - 1)
}

/// The smallest value of a bucket in microseconds; for the bucket after the last one, the end of the range.
const fn lower_end(index: usize) -> u64 {
    if index < DIVISIONS {
        return index as u64;
    }
    let octave = index / DIVISIONS - 1;
    ((DIVISIONS + index % DIVISIONS) as u64) << octave
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;
    use crate::random;

    fn micros(value: u64) -> Duration {
        Duration::from_micros(value)
    }

    #[test]
    fn every_value_lies_between_the_ends_of_its_bucket() {
        let mut values: Vec<u64> = (0..2_000).collect();
        values.extend((0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]));
        for value in values {
            let bucket = bucket_of(micros(value));
            assert!(lower_end(bucket) <= value, "{value}");
            assert!(value < lower_end(bucket + 1) || bucket == BUCKETS - 1, "{value}");
        }
        assert!((1..=BUCKETS).all(|index| lower_end(index - 1) < lower_end(index)));
        assert_eq!(Histogram::BUCKETED_MAX, micros(1 << 27));
        assert_eq!(bucket_of(Histogram::BUCKETED_MAX - micros(1)), BUCKETS - 1);
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_keep_to_the_stated_error() {
        let mut rng = random::generator(1, "histogram", 0);
        for round in 0..200 {
            let bits = rng.random_range(0..37);
            let mut values: Vec<Duration> = (0..rng.random_range(1..3_000))
                .map(|_| {
                    let top = 1_u64 << rng.random_range(0..=bits);
                    Duration::from_nanos(rng.random_range(0..=top))
                })
                .collect();
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.record(*value, 1));
            values.sort_unstable();
            assert_eq!((histogram.count(), histogram.max()), (values.len() as u64, values[values.len() - 1]));
            for share in [0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0] {
                let rank = ((share * values.len() as f64).ceil() as usize).max(1);
                let (exact, told) = (values[rank - 1], histogram.quantile(share));
                let bound = if exact < micros(16) { exact + micros(1) } else { exact + exact / 16 + micros(1) };
                assert!(exact <= told && told <= bound, "round {round}, {share}: {exact:?} told as {told:?}");
            }
        }
    }

    #[test]
    fn adding_is_as_if_one_had_counted_all() {
        let mut rng = random::generator(2, "histogram", 0);
        let (mut all, mut parts) = (Histogram::default(), [Histogram::default(), Histogram::default(), Histogram::default()]);
        for _ in 0..10_000 {
            let (value, times) = (micros(1 << rng.random_range(0..40)), rng.random_range(0..5));
            all.record(value, times);
            // The last one stays empty.
            parts[rng.random_range(0..2)].record(value, times);
        }
        let mut sum = Histogram::default();
        parts.iter().for_each(|part| sum.add(part));
        assert_eq!(sum, all);
        assert_eq!(sum.buckets().map(|(_, count)| count).sum::<u64>(), sum.count());
        assert!(sum.buckets().map(|(end, _)| end).is_sorted());
        assert_eq!(sum.buckets().last().unwrap().0, Duration::MAX);
    }

    #[test]
    fn memory_is_that_of_the_buckets_between_the_ends() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.counts.len(), 0);
        histogram.record(micros(5), 1);
        assert_eq!((histogram.first, histogram.counts.len()), (0, STEP));
        let mut histogram = Histogram::default();
        for value in [100, 90, 130] {
            histogram.record(micros(value), 1);
        }
        assert_eq!((histogram.first, histogram.counts.len()), (48, 3 * STEP), "from 64 to 192 µs");
        histogram.record(Duration::MAX, 1);
        histogram.record(Duration::ZERO, 1);
        assert_eq!((histogram.first, histogram.counts.len()), (0, BUCKETS));
        assert_eq!(histogram.buckets().map(|(_, count)| count).collect::<Vec<_>>(), [1, 1, 1, 1, 1]);
    }

    #[test]
    fn counts_outgrow_the_narrow_form() {
        let most = u64::from(u32::MAX);
        let mut histogram = Histogram::default();
        histogram.record(micros(3), most);
        assert!(matches!(histogram.counts, Counts::Narrow(_)));
        histogram.record(micros(1_000), 1);
        histogram.record(micros(3), 1);
        assert!(matches!(histogram.counts, Counts::Wide(_)));
        histogram.record(micros(3), 1);
        histogram.record(micros(50_000), 2);
        assert_eq!(histogram.buckets().map(|(_, count)| count).collect::<Vec<_>>(), [most + 2, 1, 2]);
        let mut half = Histogram::default();
        half.record(micros(1_000), most);
        half.add(&half.clone());
        assert_eq!(half.buckets().next().map(|(_, count)| count), Some(2 * most));
        let mut sum = Histogram::default();
        sum.add(&histogram);
        assert_eq!(sum, histogram);
    }

    #[test]
    fn odd_input_is_answered() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.quantile(0.5), histogram.max(), histogram.is_empty()), (Duration::ZERO, Duration::ZERO, true));
        histogram.record(micros(5), 0);
        assert_eq!(histogram, Histogram::default());
        histogram.record(Duration::from_nanos(5_300), 3);
        assert_eq!(histogram.quantile(f64::NAN), Duration::from_nanos(5_300), "no quantile is above the largest value");
        histogram.record(Duration::MAX, u64::MAX);
        histogram.record(Duration::ZERO, 7);
        assert_eq!(histogram.count(), u64::MAX);
        for share in [-1.0, 0.0, 1.0, 2.0, f64::INFINITY] {
            histogram.quantile(share);
        }
        assert_eq!(histogram.quantile(1.0), Duration::MAX);
        let copy = histogram.clone();
        histogram.add(&copy);
        assert_eq!(histogram.count(), u64::MAX);
        assert_eq!(format!("{:?}", Histogram::default()), "Histogram(0 values, p50 0ns, p99 0ns, max 0ns)");
    }
}
