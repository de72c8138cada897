//! How instances are, by what callers on this node met.
//!
//! What callers met stays on this node: another one may reach what this one cannot. The mark of an instance is a circuit breaker (Nygard,
//! "Release It!", 2007, chapter 5): after some failures in a row it counts as unhealthy, after a while one caller tries it, and what that
//! one meets decides. What a node finds out about its own instances it says with [`State::update`].

use std::time::Duration;

use meshwork_channels::{Now, Time};
use meshwork_crdt::Key;

use super::State;
use super::details::{Health, Id};

/// What callers on this node met.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    /// Failures since the last success.
    failures: u32,
    /// Set once there were too many: when the next caller may try.
    retry_at: Option<Time>,
    /// How long it took to answer, and when that was measured.
    latency: Option<(Duration, Time)>,
}

impl State {
    /// A caller on this node got no answer from an instance. One that is not known: nothing.
    pub fn report_failure(&mut self, id: &Id, now: Now) {
        let (failures_max, retry_period) = (self.config.failures_max, self.config.retry_period);
        if let Some(mark) = self.mark(id) {
            mark.failures = mark.failures.saturating_add(1);
            if mark.failures >= failures_max {
                mark.retry_at = Some(now.time + retry_period);
            }
        }
    }

    /// A caller on this node got an answer from an instance after so long. One that is not known: nothing.
    pub fn report_success(&mut self, id: &Id, latency: Duration, now: Now) {
        if let Some(mark) = self.mark(id) {
            // The weight of TCP's smoothed round-trip time is an eighth; a quarter, because requests are rarer than segments.
            let smoothed = mark.latency.map_or(latency, |(before, _)| before.saturating_mul(3).saturating_add(latency) / 4);
            *mark = Mark { failures: 0, retry_at: None, latency: Some((smoothed, now.time)) };
        }
    }

    /// The mark of a known instance; so there are never more than instances.
    fn mark(&mut self, id: &Id) -> Option<&mut Mark> {
        let key = id.key().ok().filter(|key| self.index.get(key).is_some_and(|known| known.capabilities.is_some()))?;
        Some(self.marks.entry(key).or_default())
    }

    /// The health of an instance as it looks from here.
    pub(super) fn health_here(&self, key: &Key, reported: Health) -> Health {
        let is_marked = self.marks.get(key).is_some_and(|mark| mark.retry_at.is_some());
        if is_marked { Health::Unhealthy } else { reported }
    }

    /// Whether one caller may try an instance that is marked.
    pub(super) fn is_trial_due(&self, key: &Key, now: Time) -> bool {
        self.marks.get(key).and_then(|mark| mark.retry_at).is_some_and(|at| at <= now)
    }

    /// One caller tries it; the next may after another period, whatever became of that one.
    pub(super) fn begin_trial(&mut self, key: &Key, now: Time) {
        if let Some(mark) = self.marks.get_mut(key) {
            mark.retry_at = Some(now + self.config.retry_period);
        }
    }

    pub(super) fn latency(&self, key: &Key, now: Time) -> Option<Duration> {
        let (latency, at) = self.marks.get(key)?.latency?;
        (now.since(at) < self.config.latency_life).then_some(latency)
    }
}
