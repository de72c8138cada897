//! Which of several instances the next request goes to.
//!
//! A [`Balancer`] belongs to one client of one service; it remembers what it picked, and no more than the candidates that it was given
//! last. Unhealthy and excluded candidates are never picked.
//!
//! The weighted policy is the smooth weighted round robin of nginx (`ngx_http_upstream_round_robin.c`, since 1.3.1): every candidate earns
//! its weight, the richest is picked and pays what all earned together. Shares are exact over a round, and a heavy candidate is not picked
//! many times in a row.

use std::collections::BTreeMap;
use std::time::Duration;

use meshwork_crdt::Key;

use super::details::Health;

/// How to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// In turn, each as often as its weight says.
    Weighted,
    /// The one with the least latency. One without a fresh measurement goes first, but not twice in a row, so that it is measured and
    /// requests do not pile up on it meanwhile.
    LeastLatency,
    /// In turn among those of the best health.
    HealthFirst,
}

/// What a balancer looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its key, unlike that of every other candidate.
    pub key: Key,
    /// Its weight, at least 1.
    pub weight: u16,
    /// Its health.
    pub health: Health,
    /// How long it took to answer lately.
    pub latency: Option<Duration>,
    /// Whether it was tried already for this request, without success.
    pub is_excluded: bool,
}

/// Picks one of several instances, again and again.
#[derive(Clone, Debug, Default)]
pub struct Balancer {
    policy: Policy,
    last: Option<Key>,
    /// What weighted candidates have earned and not paid.
    credits: BTreeMap<Key, i64>,
}

impl Balancer {
    /// A balancer that has picked nothing.
    pub fn new(policy: Policy) -> Self {
        Balancer { policy, ..Self::default() }
    }

    /// The position of the one to use; `None` when none can be used.
    pub fn pick(&mut self, candidates: &[Candidate]) -> Option<usize> {
        let is_usable = |index: &usize| !candidates[*index].is_excluded && candidates[*index].health != Health::Unhealthy;
        let mut usable: Vec<usize> = (0..candidates.len()).filter(is_usable).collect();
        let picked = match self.policy {
            Policy::RoundRobin => self.next(candidates, &usable),
            Policy::Weighted => self.richest(candidates, &usable),
            Policy::LeastLatency => {
                let is_unmeasured = |index: &usize| {
                    let candidate = &candidates[*index];
                    candidate.latency.is_none() && self.last.as_ref() != Some(&candidate.key)
                };
                let unmeasured: Vec<usize> = usable.iter().copied().filter(is_unmeasured).collect();
                let fastest = || usable.iter().copied().min_by_key(|index| candidates[*index].latency.unwrap_or(Duration::MAX));
                self.next(candidates, &unmeasured).or_else(fastest)
            }
            Policy::HealthFirst => {
                let best = usable.iter().map(|index| candidates[*index].health).min();
                usable.retain(|index| Some(candidates[*index].health) == best);
                self.next(candidates, &usable)
            }
        };
        if let Some(index) = picked {
            self.last = Some(candidates[index].key.clone());
        }
        picked
    }

    /// The one whose key follows that of the last one. Keys rather than positions, so that whoever comes or goes costs nobody its turn.
    fn next(&self, candidates: &[Candidate], usable: &[usize]) -> Option<usize> {
        let has_had_its_turn = |index: usize| self.last.as_ref().is_some_and(|last| candidates[index].key <= *last);
        usable.iter().copied().min_by_key(|index| (has_had_its_turn(*index), &candidates[*index].key))
    }

    fn richest(&mut self, candidates: &[Candidate], usable: &[usize]) -> Option<usize> {
        let before = std::mem::take(&mut self.credits);
        self.credits =
            candidates.iter().map(|candidate| (candidate.key.clone(), before.get(&candidate.key).copied().unwrap_or(0))).collect();
        let mut richest: Option<(i64, usize)> = None;
        let mut total = 0;
        for index in usable.iter().copied() {
            let Some(credit) = self.credits.get_mut(&candidates[index].key) else { continue };
            let weight = i64::from(candidates[index].weight);
            *credit += weight;
            total += weight;
            if richest.is_none_or(|(most, _)| *credit > most) {
                richest = Some((*credit, index));
            }
        }
        let (_, index) = richest?;
        *self.credits.get_mut(&candidates[index].key)? -= total;
        Some(index)
    }
}
