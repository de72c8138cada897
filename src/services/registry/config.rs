//! What people may set about the registry.

use std::time::Duration;

use meshwork_channels::error::ConfigError;
use serde::{Deserialize, Serialize};

use super::details::check_text;
use super::limits::ZONE_BYTES_MAX;

/// How the registry of one node behaves. Nodes may differ in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where this node is, in any words, such as a rack or a data center. What it registers without a zone gets this one. Default none.
    pub zone: Option<String>,
    /// How long the instances of a node that is only suspected stay visible. Raising it spares nodes that stall, lowering it hides dead
    /// ones earlier. Default 30 s (the rule of Phoenix.Tracker); the membership itself decides a suspicion earlier than that.
    pub down_period: Duration,
    /// How long after a node went down its instances are removed for good. Raising it keeps what dead nodes left for longer, lowering it
    /// makes a node that was cut off for longer than this register again. Default 20 min (the rule of Phoenix.Tracker).
    pub permdown: Duration,
    /// Failures in a row, reported by callers on this node, after which an instance counts as unhealthy here. Lowering it makes one lost
    /// request matter. Default 3 (guess).
    pub failures_max: u32,
    /// How long such an instance is then left in peace before one caller tries it again. Raising it spares callers, lowering it finds
    /// what recovered earlier. Default 5 s (guess).
    pub retry_period: Duration,
    /// How long a measured latency counts. Raising it keeps callers away from an instance that was slow once, lowering it makes them try
    /// slow ones more often. Default 10 s (guess).
    pub latency_life: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            zone: None,
            down_period: Duration::from_secs(30),
            permdown: Duration::from_secs(20 * 60),
            failures_max: 3,
            retry_period: Duration::from_secs(5),
            latency_life: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// Checks the fields.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names the first field outside its limits.
    pub fn build(self) -> Result<Params, ConfigError> {
        let (milli, day) = (Duration::from_millis(1), Duration::from_secs(24 * 3_600));
        if let Some(zone) = &self.zone
            && check_text("zone", zone, ZONE_BYTES_MAX).is_err()
        {
            return Err(ConfigError::new("zone", format_args!("{zone:?}"), format_args!("1 to {ZONE_BYTES_MAX} bytes, none of control")));
        }
        if self.failures_max == 0 {
            return Err(ConfigError::new("failures_max", 0, "at least 1"));
        }
        for (field, value, least) in [
            ("down_period", self.down_period, Duration::ZERO),
            ("permdown", self.permdown, milli),
            ("retry_period", self.retry_period, milli),
            ("latency_life", self.latency_life, milli),
        ] {
            if value < least || value > day {
                return Err(ConfigError::new(field, format_args!("{value:?}"), format_args!("{least:?} to {day:?}")));
            }
        }
        Ok(Params(self))
    }
}

/// A checked [`Config`].
#[derive(Clone, Debug)]
pub struct Params(pub(super) Config);
