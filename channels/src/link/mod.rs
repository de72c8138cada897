//! The model of a network link: how long a packet takes, and whether it arrives.
//!
//! It has no state. Every answer is a function of the seed, the two ends and a number of the packet that the caller counts up, so it does not
//! depend on the order in which packets are asked for, on other links, or on the number of threads. The same model serves the simulator and
//! benchmarks over shaped links. Only integers, comparisons and the four arithmetic operations on floating-point numbers are used, so that
//! all machines agree to the last bit.
//!
//! - A pair of ends has one base latency, the same in both directions; each packet adds its own jitter.
//! - A datagram is lost or not ([`Params::datagram`]). Jitter alone reorders datagrams.
//! - On a reliable stream loss is time, not absence: a lost packet is sent again after a probe timeout that doubles from try to try (RFC 9002,
//!   sections 6.2.1 and 6.2.2.1), and after [`Config::tries_max`] losses in a row the connection breaks ([`Params::stream`]).
//!   Every retry waits for the timeout, as the last packet of a burst does; in the middle of a busy stream acknowledgements find a loss
//!   sooner (RFC 9002, section 6.1), so the model errs on the slow side.
//! - **Order is the caller's.** Frames of one stream arrive in the order in which they were sent: whoever schedules arrivals delivers none before the
//!   one ahead of it, by taking the later of the two moments.
//!
//! Bandwidth and queues have state: they are in [`bottleneck`]. Partitions and stalls are the caller's.

pub mod bottleneck;

use std::time::Duration;

use crate::error::ConfigError;
use crate::random::{hash, unit};

/// Bytes of a frame that one packet carries: the smallest packet that QUIC promises, less its headers.
const PACKET_BYTES: usize = 1_150;

/// A distribution of durations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Latency {
    /// Always the same.
    Constant(Duration),
    /// Every value from `min` to `max` alike.
    Uniform {
        /// The least.
        min: Duration,
        /// The most; not below the least.
        max: Duration,
    },
    /// The values at evenly spaced quantiles, from the least to the most; straight lines between them. For measured distributions.
    Quantiles(Vec<Duration>),
}

/// Quantiles of the standard normal distribution at `0.5 + index / 32`; the last stands for infinity.
const NORMAL: [f64; 17] =
    [0.0, 0.0784, 0.1573, 0.2372, 0.3186, 0.4023, 0.4888, 0.5791, 0.6745, 0.7764, 0.8871, 1.01, 1.1503, 1.318, 1.5341, 1.8627, 3.0];

impl Latency {
    /// A log-normal distribution with a median and the standard deviation of the logarithm, cut off at three of those: what paths of the
    /// Internet look like, many near the median and few far above.
    pub fn log_normal(median: Duration, sigma: f64) -> Latency {
        let lower = NORMAL[1..].iter().rev().map(|z| -z);
        let at = |z: f64| Duration::from_nanos((median.as_nanos() as f64 * exp(sigma * z)) as u64);
        Latency::Quantiles(lower.chain(NORMAL).map(at).collect())
    }

    /// The value for a hash.
    fn draw(&self, hash: u64) -> Duration {
        match self {
            Latency::Constant(duration) => *duration,
            Latency::Uniform { min, max } => between(*min, *max, hash >> 11),
            Latency::Quantiles(values) => {
                // The hash is a position along all the lines, in 53 bits after the point.
                let position = u128::from(hash >> 11) * (values.len().max(1) - 1) as u128;
                let index = (position >> 53) as usize;
                let rest = position as u64 & ((1 << 53) - 1);
                match (values.get(index), values.get(index + 1)) {
                    (Some(low), Some(high)) => between(*low, *high, rest),
                    (Some(last), None) => *last,
                    (None, _) => Duration::ZERO,
                }
            }
        }
    }

    fn min(&self) -> Duration {
        match self {
            Latency::Constant(duration) => *duration,
            Latency::Uniform { min, .. } => *min,
            Latency::Quantiles(values) => values.first().copied().unwrap_or_default(),
        }
    }

    fn max(&self) -> Duration {
        match self {
            Latency::Constant(duration) => *duration,
            Latency::Uniform { max, .. } => *max,
            Latency::Quantiles(values) => values.last().copied().unwrap_or_default(),
        }
    }

    fn check(&self, field: &'static str) -> Result<(), ConfigError> {
        let ordered = match self {
            Latency::Constant(_) => true,
            Latency::Uniform { min, max } => min <= max,
            Latency::Quantiles(values) => !values.is_empty() && values.is_sorted(),
        };
        if !ordered {
            return Err(ConfigError::new(field, format_args!("{self:?}"), "in ascending order"));
        }
        if self.max() > LATENCY_MAX {
            return Err(ConfigError::new(field, format_args!("{self:?}"), format_args!("at most {LATENCY_MAX:?}")));
        }
        Ok(())
    }
}

/// Longer latencies are mistakes, and would make sums of them hard to trust.
const LATENCY_MAX: Duration = Duration::from_secs(3_600);

/// The point between two durations that is `part` / 2^53 of the way.
fn between(low: Duration, high: Duration, part: u64) -> Duration {
    let span = high.saturating_sub(low).as_nanos();
    low + Duration::from_nanos(((span * u128::from(part)) >> 53) as u64)
}

/// The exponential function from multiplications alone: the one of the standard library differs from platform to platform.
fn exp(x: f64) -> f64 {
    // exp(x) = exp(x / 1024)^1024, and four terms of the series are exact enough for a small argument.
    let small = x / 1_024.0;
    let mut power = 1.0 + small * (1.0 + small / 2.0 * (1.0 + small / 3.0 * (1.0 + small / 4.0)));
    for _ in 0..10 {
        power *= power;
    }
    power
}

/// What a link is like. [`Config::build`] checks it.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// One way, drawn once for each pair of ends.
    pub latency: Latency,
    /// Added to that, drawn for each packet.
    pub jitter: Latency,
    /// The part of packets that are lost, from 0 to 1, each independently of the others.
    pub loss: f64,
    /// Losses of one packet in a row that break a connection. Seven last about as long as the idle timeout on a link of 20 ms.
    pub tries_max: u32,
    /// What a receiver may wait before it acknowledges; a part of every probe timeout. The default is that of RFC 9002.
    pub ack_delay: Duration,
}

impl Config {
    /// Machines in one room: 0.1 to 0.5 ms, nothing lost.
    pub fn lan() -> Self {
        Config {
            latency: Latency::Uniform { min: Duration::from_micros(100), max: Duration::from_micros(500) },
            jitter: Latency::Uniform { min: Duration::ZERO, max: Duration::from_micros(50) },
            loss: 0.0,
            tries_max: 7,
            ack_delay: Duration::from_millis(25),
        }
    }

    /// Machines on several continents: 40 ms in the median, some over 100 ms, one packet in 1,000 lost. A guess at an ordinary path; use
    /// measured quantiles for an extraordinary one.
    pub fn wan() -> Self {
        Config {
            latency: Latency::log_normal(Duration::from_millis(40), 0.5),
            jitter: Latency::log_normal(Duration::from_millis(1), 1.0),
            loss: 0.001,
            ..Self::lan()
        }
    }

    /// Checks the fields.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names the field.
    pub fn build(self) -> Result<Params, ConfigError> {
        self.latency.check("latency")?;
        self.jitter.check("jitter")?;
        if !(0.0..=1.0).contains(&self.loss) {
            return Err(ConfigError::new("loss", self.loss, "from 0 to 1"));
        }
        if !(1..=30).contains(&self.tries_max) {
            return Err(ConfigError::new("tries_max", self.tries_max, "from 1 to 30"));
        }
        if self.ack_delay > LATENCY_MAX {
            return Err(ConfigError::new("ack_delay", format_args!("{:?}", self.ack_delay), format_args!("at most {LATENCY_MAX:?}")));
        }
        Ok(Params(self))
    }
}

/// A checked [`Config`], and the model itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Params(Config);

/// What becomes of a frame on a reliable stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFate {
    /// It arrives after this time, unless it has to wait for the one ahead of it.
    After(Duration),
    /// It never arrives: after this time the sender gives the connection up.
    Breaks(Duration),
}

/// One number for each use of chance, so that none shifts another.
#[derive(Clone, Copy)]
enum Purpose {
    Base = 1,
    Jitter,
    DatagramLoss,
    StreamLoss,
}

impl Params {
    /// The latency of a pair of ends without jitter; the same in both directions.
    pub fn base(&self, seed: u64, a: u64, b: u64) -> Duration {
        self.0.latency.draw(hash(&[seed, Purpose::Base as u64, a.min(b), a.max(b)]))
    }

    /// How long the packet `sequence` takes from `source` to `destination` when it is not lost.
    pub fn delay(&self, seed: u64, source: u64, destination: u64, sequence: u64) -> Duration {
        let jitter = self.0.jitter.draw(hash(&[seed, Purpose::Jitter as u64, source, destination, sequence]));
        self.base(seed, source, destination) + jitter
    }

    /// No packet takes less, whatever the seed and the ends: how far ahead a parallel simulation may look.
    pub fn delay_min(&self) -> Duration {
        self.0.latency.min() + self.0.jitter.min()
    }

    /// How long the datagram `sequence` takes; `None` when it is lost.
    pub fn datagram(&self, seed: u64, source: u64, destination: u64, sequence: u64) -> Option<Duration> {
        let draw = hash(&[seed, Purpose::DatagramLoss as u64, source, destination, sequence]);
        (unit(draw) >= self.0.loss).then(|| self.delay(seed, source, destination, sequence))
    }

    /// What becomes of the frame `sequence` of `bytes` bytes on a reliable stream. Takes time for each packet of it when packets can be
    /// lost.
    ///
    /// The frame is there when its last packet is, so the packet that is lost most often decides.
    pub fn stream(&self, seed: u64, source: u64, destination: u64, sequence: u64, bytes: usize) -> StreamFate {
        let packets = if self.0.loss > 0.0 { bytes.div_ceil(PACKET_BYTES).max(1) as u64 } else { 0 };
        let is_lost = |packet: u64, tries: u32| {
            let draw = hash(&[seed, Purpose::StreamLoss as u64, source, destination, sequence, packet, u64::from(tries)]);
            unit(draw) < self.0.loss
        };
        let mut losses = 0;
        for packet in 0..packets {
            // A packet that is lost fewer times than the worst so far changes nothing.
            let mut tries = 0;
            while is_lost(packet, tries) {
                tries += 1;
                if tries >= self.0.tries_max {
                    return StreamFate::Breaks(self.waits(self.base(seed, source, destination), tries));
                }
            }
            losses = losses.max(tries);
        }
        let waits = self.waits(self.base(seed, source, destination), losses);
        StreamFate::After(self.delay(seed, source, destination, sequence).saturating_add(waits))
    }

    /// The probe timeouts before as many tries, each twice the one before.
    fn waits(&self, base: Duration, tries: u32) -> Duration {
        let round_trip = (base + self.0.jitter.max()) * 2;
        let timeout = round_trip + self.0.ack_delay;
        timeout.saturating_mul(1_u32.checked_shl(tries).map_or(u32::MAX, |doubled| doubled - 1))
    }
}

#[cfg(test)]
mod tests;
