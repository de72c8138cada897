//! Whether this process itself is well: a timer that fires late says that it stood still, and then it knows little of others (Lifeguard, section IV).

use std::time::Duration;

use meshwork_channels::Time;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::detector::Kind;
use super::improvement::Improvement;
use super::{Key, State};
use crate::identifier::Identifier;

/// Standing still counts up to so often: suspicions last up to one more times as long then (Lifeguard's S = 8).
const UNWELL_MAX: u32 = 7;
/// Probe periods without standing still for which one time is forgiven.
const FORGIVEN_PERIODS: u32 = 5;

/// How well this process was of late.
#[derive(Clone, Copy, Debug)]
pub(super) struct Health {
    /// Up to when lateness has been allowed for.
    allowed: Time,
    /// How often it stood still, as of `at`.
    unwell: u32,
    at: Time,
}

impl Health {
    pub(super) fn new(now: Time) -> Self {
        Health { allowed: now, unwell: 0, at: now }
    }

    /// How often this process stood still of late; each time is forgiven after some probes that came in time.
    pub(super) fn unwell(&self, probe_period: Duration, now: Time) -> u32 {
        let forgiven = now.since(self.at).as_nanos() / (FORGIVEN_PERIODS * probe_period).as_nanos().max(1);
        self.unwell.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }
}

impl<I: Identifier + Serialize + DeserializeOwned> State<I> {
    /// When this process stood still, nothing that fell due meanwhile says anything about others: everything is put off by as much, and by
    /// the time that the answers that wait to be read may take.
    pub(super) fn allow_for_lateness(&mut self, now: Time) {
        let Some(due) = self.timers.next_deadline() else { return };
        // What was allowed for is allowed for once: inputs that have piled up come before the deadline that is late, and each would put everything off again.
        let late = now.since(due.max(self.health.allowed));
        if late <= self.params.lateness_max() || !self.params.has(Improvement::LocalHealth) {
            return;
        }
        self.counters.freezes += 1;
        let unwell = self.health.unwell(self.params.config().probe_period, now);
        self.health = Health { allowed: now, unwell: (unwell + 1).min(UNWELL_MAX), at: now };
        let shift = late + self.params.config().probe_rtt;
        let foca = Kind::ALL.into_iter().map(Key::Foca);
        let suspicions = self.suspicions.keys().flat_map(|peer| [Key::LastPing(*peer), Key::Suspicion(*peer)]);
        let hints = self.hints.keys().map(|peer| Key::Hint(*peer));
        for key in foca.chain(suspicions).chain(hints) {
            if let Some(at) = self.timers.get(&key) {
                self.timers.set(key, at + shift);
            }
        }
    }
}
