//! Who this node is to others: it refutes what is said of its present run, goes on under a new generation when it is held for dead, and yields when it
//! was itself that was cut off.

use std::time::Duration;

use foca::State as Verdict;
use meshwork_channels::{Misbehavior, Time};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::identity::Identity;
use super::improvement::Improvement;
use super::message::LEFT;
use super::{Action, Event, GENERATION_JUMP_MAX, Key, State, Status, misbehaved};
use crate::identifier::Identifier;

/// Verdicts older than this are past dispute.
pub(super) const OF_LATE: Duration = Duration::from_secs(600);
const RENEWALS_WINDOW: Duration = Duration::from_secs(60);

impl<I: Identifier + Serialize + DeserializeOwned> State<I> {
    /// Somebody speaks of a run of this node.
    pub(super) fn on_own_name(
        &mut self,
        from: I,
        identity: &Identity<I>,
        incarnation: u16,
        verdict: Verdict,
        now: Time,
        actions: &mut Vec<Action<I>>,
    ) {
        if *identity == self.me {
            match verdict {
                Verdict::Alive => {}
                Verdict::Suspect => self.refute(incarnation, now, actions),
                Verdict::Down => self.renew_above(self.me.generation, now, actions),
            }
        } else if identity.generation >= self.me.generation {
            // An earlier run of ours with a clock that was ahead, another node with our key, or a lie.
            if identity.generation - self.me.generation > GENERATION_JUMP_MAX {
                misbehaved(from, Misbehavior::GenerationAhead, actions);
            } else {
                self.renew_above(identity.generation, now, actions);
            }
        }
    }

    fn refute(&mut self, incarnation: u16, now: Time, actions: &mut Vec<Action<I>>) {
        if incarnation >= LEFT - 1 {
            self.renew_above(self.me.generation, now, actions);
        } else if incarnation >= self.detector.incarnation() {
            self.counters.refutations += 1;
            self.detector.refute(incarnation);
            self.tell(self.me.peer, None, now);
        }
    }

    /// Goes on under a generation above `generation`, now or as soon as the budget allows.
    pub(super) fn renew_above(&mut self, generation: u64, now: Time, actions: &mut Vec<Action<I>>) {
        let wanted = generation.saturating_add(1).max(self.wanted.unwrap_or(0));
        if wanted <= self.me.generation {
            return;
        }
        self.wanted = Some(wanted);
        while self.renewals.front().is_some_and(|at| now.since(*at) >= RENEWALS_WINDOW) {
            self.renewals.pop_front();
        }
        match self.renewals.front().copied() {
            Some(first) if self.renewals.len() >= self.params.config().renewals_per_minute_max => {
                // Others take nothing from us until then. If we went on probing them, we would hold them all for dead.
                self.stop_foca();
                self.timers.set(Key::Renew, first + RENEWALS_WINDOW);
            }
            _ => self.renew(now, actions),
        }
    }

    pub(super) fn renew(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        let Some(wanted) = self.wanted.take() else { return };
        self.renewals.push_back(now);
        self.counters.renewals += 1;
        tracing::info!(peer = ?self.me.peer, generation = wanted, "was held for dead, goes on under a new generation");
        self.me.generation = wanted;
        if self.is_minority(now) {
            self.withdraw_verdicts(now);
        }
        self.rebuild(now);
        self.detector.introduce();
        self.tell(self.me.peer, None, now);
        self.start_series(now);
        actions.push(Action::Event(Event::Renewed { generation: wanted }));
    }

    /// Whether this node lately lost more members than it has left, so that it was rather itself that was cut off.
    fn is_minority(&self, now: Time) -> bool {
        self.params.has(Improvement::MinorityYield)
            && self.view.failed_of_late(OF_LATE, self.params.config().tombstone_life, now) > self.view.up_len()
    }

    fn withdraw_verdicts(&mut self, now: Time) {
        self.counters.yields += 1;
        self.view.unsettle(OF_LATE, self.params.config().tombstone_life, now);
    }

    /// A peer speaks in person. If we hold it for dead, it may be us who were cut off.
    pub(super) fn hear_from(&mut self, peer: I, now: Time) {
        let is_down = self.view.entry(peer).is_some_and(|entry| entry.member.status == Status::Down && entry.is_settled);
        if is_down && self.is_minority(now) {
            self.withdraw_verdicts(now);
            self.rebuild(now);
            self.start_series(now);
        }
    }
}
