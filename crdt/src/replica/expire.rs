//! How values expire that were written for some time only.

use std::time::Duration;

use meshwork_channels::Now;

use super::{Action, State};
use crate::store::Held;

/// Values that expire at one input. The others follow at once, so that many that were written together do not hold up everything else.
pub(super) const EXPIRED_MAX: usize = 1_024;

impl State {
    /// Hides what expired.
    pub(super) fn expire(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.store.next_expiry().is_none() {
            return;
        }
        let second = self.repair.second(now);
        for _ in 0..EXPIRED_MAX {
            let Some((key, stamp)) = self.store.expire_next(second) else { break };
            self.counters.expired += 1;
            self.note(&key);
            actions.push(self.changed(key, None, stamp));
        }
        self.confirms.settle(&self.store, actions);
    }

    /// Follows a change of what expires next, or of the clocks.
    pub(super) fn await_expiry(&mut self, now: Now) {
        let left = |until: u32| Duration::from_millis((u64::from(until) * 1_000).saturating_sub(self.wall(now).as_millis()));
        self.expire_at = self.store.next_expiry().map(|until| now.time + left(until));
    }

    /// Whether somebody let it expire whose clock is further ahead of ours than clocks may be.
    pub(super) fn has_expired_early(&self, held: &Held, now: Now) -> bool {
        let latest = self.wall(now).as_millis().saturating_add(self.config.stamp_ahead_max.as_millis() as u64);
        held.expiry().is_some_and(|until| !held.is_live() && u64::from(until) * 1_000 > latest)
    }
}
