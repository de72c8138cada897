//! How eagerly to dial.

use std::time::Duration;

use crate::error::ConfigError;

/// How eagerly to dial. [`Config::build`] checks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The longest delay before the second try. Lower finds a restarted peer sooner and costs a dead one more dials. A guess: a restart
    /// takes that long.
    pub backoff_min: Duration,
    /// Where doubling ends, so how long a peer that comes back may stay unnoticed by us. A guess: one dial in 15 s on average is nothing.
    pub backoff_max: Duration,
    /// Dials of an address that need not be kept. With five, the delays between them take 4 s at most: longer than
    /// a restart. A guess.
    pub tries_max: u32,
    /// A connection that lived this long makes the next delay the shortest again.
    /// A guess: longer than the idle timeout, so that a connection that never worked does not count.
    pub settled_after: Duration,
    /// Dials in flight. From the limits of the security design.
    pub in_flight_max: usize,
    /// Dials in a second, in the long run. From the limits of the security design.
    pub per_second: u32,
    /// Dials at once after a quiet time; more make a start with many configured addresses faster. From the limits of the security design.
    pub burst: u32,
    /// How long a dial may stay unanswered. Only a driver that lost it gets here: longer than handshake and admission together.
    pub dial_timeout: Duration,
    /// How long an address is left alone that turned out to be ourselves, another cluster or one that does not admit us. A guess: about
    /// how long people take to mend such a thing.
    pub blocked_for: Duration,
    /// How long a replaced connection is still read. A guess: many round trips, and few bytes.
    pub linger: Duration,
    /// Addresses in the table. A guess: one dialed every 100 ms would take 7 minutes for all.
    pub addresses_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            backoff_min: Duration::from_millis(250),
            backoff_max: Duration::from_secs(30),
            tries_max: 5,
            settled_after: Duration::from_secs(15),
            in_flight_max: 64,
            per_second: 10,
            burst: 20,
            dial_timeout: Duration::from_secs(15),
            blocked_for: Duration::from_secs(300),
            linger: Duration::from_secs(1),
            addresses_max: 4_096,
        }
    }
}

impl Config {
    /// Checks the fields against each other.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names the field.
    pub fn build(self) -> Result<Params, ConfigError> {
        let at_least_one = [
            ("tries_max", u64::from(self.tries_max)),
            ("in_flight_max", self.in_flight_max as u64),
            ("per_second", u64::from(self.per_second)),
            ("burst", u64::from(self.burst)),
            ("addresses_max", self.addresses_max as u64),
        ];
        if let Some((field, value)) = at_least_one.into_iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::new(field, value, "at least 1"));
        }
        let secs = |duration: Duration| format!("{duration:?}");
        if self.backoff_min.is_zero() {
            return Err(ConfigError::new("backoff_min", secs(self.backoff_min), "more than zero"));
        }
        if self.backoff_max < self.backoff_min {
            return Err(ConfigError::new("backoff_max", secs(self.backoff_max), "at least backoff_min"));
        }
        if self.dial_timeout.is_zero() {
            return Err(ConfigError::new("dial_timeout", secs(self.dial_timeout), "more than zero"));
        }
        Ok(Params(self))
    }
}

/// A checked [`Config`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(pub(super) Config);
