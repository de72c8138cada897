//! The narrowest place of a path: a rate, a queue before it, and the way behind it.
//!
//! Unlike the rest of the model it has state, one for each direction of a path: when the line will be free. Packets leave in the order in which they came;
//! one that would have to wait longer than the queue is long is dropped, as a router without active queue management does (tail drop). Loss and delay are those of the path
//! behind: independent of the queue, drawn by number of packet, so that a run repeats.

use std::time::Duration;

use crate::error::ConfigError;
use crate::random::{hash, unit};
use crate::time::Time;

/// What a bottleneck is like. [`Config::build`] checks it.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Bytes that it carries in a second; at least 1,000.
    pub bytes_per_second: u64,
    /// Bytes that may wait before it; at least 1,500, or no full packet could.
    pub queue_bytes: u64,
    /// One way, behind it.
    pub delay: Duration,
    /// The part of packets that are lost behind it, from 0 to 1, each independently of the others.
    pub loss: f64,
}

impl Config {
    /// Checks the fields.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names the field.
    pub fn build(self) -> Result<Params, ConfigError> {
        if self.bytes_per_second < 1_000 {
            return Err(ConfigError::new("bytes_per_second", self.bytes_per_second, "at least 1,000"));
        }
        if self.queue_bytes < 1_500 {
            return Err(ConfigError::new("queue_bytes", self.queue_bytes, "at least 1,500"));
        }
        if self.delay > super::LATENCY_MAX {
            return Err(ConfigError::new("delay", format_args!("{:?}", self.delay), format_args!("at most {:?}", super::LATENCY_MAX)));
        }
        if !(0.0..=1.0).contains(&self.loss) {
            return Err(ConfigError::new("loss", self.loss, "from 0 to 1"));
        }
        Ok(Params(self))
    }
}

/// A checked [`Config`].
#[derive(Clone, Debug, PartialEq)]
pub struct Params(Config);

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives at this moment.
    Arrives(Time),
    /// There was no room in the queue.
    Dropped,
    /// It went through and was lost behind.
    Lost,
}

/// One direction of a bottleneck.
#[derive(Clone, Debug)]
pub struct State {
    params: Params,
    seed: u64,
    /// When all that was let in has left.
    free_at: Time,
    offered: u64,
}

impl State {
    /// An empty queue. `seed` decides which packets are lost.
    pub fn new(params: Params, seed: u64) -> Self {
        State { params, seed, free_at: Time::ZERO, offered: 0 }
    }

    /// Offers a packet of `bytes` bytes. Packets must be offered in the order of time.
    pub fn offer(&mut self, bytes: usize, now: Time) -> Fate {
        let Config { queue_bytes, delay, loss, .. } = self.params.0;
        let bytes = bytes as u64;
        self.offered += 1;
        let start = self.free_at.max(now);
        if self.time_for(queue_bytes.saturating_sub(bytes)) < start.since(now) {
            return Fate::Dropped;
        }
        self.free_at = start + self.time_for(bytes);
        if unit(hash(&[self.seed, self.offered])) < loss {
            return Fate::Lost;
        }
        Fate::Arrives(self.free_at + delay)
    }

    /// How long a packet that is offered now waits before it leaves.
    pub fn wait(&self, now: Time) -> Duration {
        self.free_at.since(now)
    }

    fn time_for(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.params.0.bytes_per_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(loss: f64) -> State {
        let config = Config { bytes_per_second: 1_000_000, queue_bytes: 10_000, delay: Duration::from_millis(10), loss };
        State::new(config.build().unwrap(), 1)
    }

    #[test]
    fn packets_leave_one_after_the_other_and_the_queue_ends() {
        let mut line = line(0.0);
        let at = |micros| Time::ZERO + Duration::from_micros(micros);
        assert_eq!(line.offer(1_000, Time::ZERO), Fate::Arrives(at(11_000)));
        for waiting in 1..10 {
            assert_eq!(line.offer(1_000, Time::ZERO), Fate::Arrives(at(11_000 + 1_000 * waiting)));
        }
        assert_eq!(line.offer(1_000, Time::ZERO), Fate::Dropped);
        assert_eq!(line.wait(Time::ZERO), Duration::from_millis(10));
        // One has left, so there is room for one.
        assert_eq!(line.offer(1_000, at(1_000)), Fate::Arrives(at(21_000)));
        assert_eq!(line.offer(1_000, at(1_000)), Fate::Dropped);
        // After a pause the line is as new.
        assert_eq!(line.offer(500, at(1_000_000)), Fate::Arrives(at(1_010_500)));
    }

    #[test]
    fn the_share_that_is_lost_is_the_one_asked_for() {
        let mut line = line(0.1);
        let lost = (0..20_000).filter(|index| line.offer(100, Time::ZERO + Duration::from_millis(*index)) == Fate::Lost).count();
        assert!((1_800..2_200).contains(&lost), "{lost}");
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let config = Config { bytes_per_second: 1_000_000, queue_bytes: 10_000, delay: Duration::ZERO, loss: 0.0 };
        let field = |config: Config| config.build().unwrap_err().field;
        assert_eq!(field(Config { bytes_per_second: 0, ..config.clone() }), "bytes_per_second");
        assert_eq!(field(Config { queue_bytes: 1, ..config.clone() }), "queue_bytes");
        assert_eq!(field(Config { loss: f64::NAN, ..config.clone() }), "loss");
        assert_eq!(field(Config { delay: Duration::MAX, ..config }), "delay");
    }
}
