//! A limit on how often something may be done.

use std::time::Duration;

use meshwork_channels::Time;

/// A token bucket that stores one number: the moment at which it is full again (the virtual scheduling form of the leaky bucket, ITU-T I.371).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    full_at: Time,
}

impl Rate {
    /// Takes a token out of `burst`, each of which comes back after `period`; says whether there was one.
    pub(super) fn take(&mut self, now: Time, burst: u32, period: Duration) -> bool {
        let allowed = self.allows(now, burst, period);
        if allowed {
            self.full_at = self.full_at.max(now) + period;
        }
        allowed
    }

    /// Whether there is a token.
    pub(super) fn allows(&self, now: Time, burst: u32, period: Duration) -> bool {
        self.full_at.since(now) + period <= period.saturating_mul(burst)
    }
}
