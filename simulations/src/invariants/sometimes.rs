//! What must happen in some of many runs: faults of every kind, and what the protocols have for them. If one never does, the runs do not try what they are for.

use std::collections::BTreeMap;

use meshwork_channels::buggify::{Buggify, Site};

use crate::rare;
use crate::run::Outcome;

/// Faults, as the schedule names them. They are counted by how often they had an effect.
pub const FAULTS: [&str; 14] = [
    "crash",
    "restart",
    "leave",
    "strike",
    "pause",
    "slow",
    "break",
    "partition",
    "one_way",
    "bridge",
    "clog",
    "weather",
    "clock",
    "attack",
];

/// What the protocols do about them, and the metric that says how often.
const ANSWERS: [(&str, &str); 11] = [
    ("a link of the tree is cut after a duplicate", "prunes"),
    ("a missing payload is asked for", "grafts"),
    ("a member is suspected", "suspicions"),
    ("a living member is held for dead, and comes back", "living_held_for_dead"),
    ("a dead member is found out", "detection_max"),
    ("a dial fails", "dials_failed"),
    ("a packet is lost", "losses"),
    ("a frame is lost with its connection", "frames_lost"),
    ("repair brings what a replica lacked", "repaired"),
    ("a node goes on from its disk", "restored"),
    ("a crash takes what was not synced", "torn"),
];

/// How often what must happen sometimes did.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// By fault: in how many runs it had an effect, and how often altogether.
    pub faults: BTreeMap<&'static str, (u64, u64)>,
    /// By answer: in how many runs it was seen.
    pub answers: BTreeMap<&'static str, u64>,
    /// By place of rare behavior: in how many runs it was active, in how many of those it fired, and how often altogether. Empty in a build without them.
    pub rare: BTreeMap<&'static str, (u64, u64, u64)>,
}

impl Coverage {
    /// Adds a run.
    pub fn add(&mut self, outcome: &Outcome) {
        for fault in FAULTS {
            let count = outcome.metric(fault).unwrap_or(0.0) as u64;
            let (runs, sum) = self.faults.entry(fault).or_default();
            (*runs, *sum) = (*runs + u64::from(count > 0), *sum + count);
        }
        for (answer, metric) in ANSWERS {
            *self.answers.entry(answer).or_default() += u64::from(outcome.metric(metric).is_some_and(|value| value > 0.0));
        }
        for site in Site::ALL.into_iter().filter(|_| Buggify::IS_BUILT) {
            let fired = outcome.metric(rare::metric(site)).map(|count| count as u64);
            let (active, runs, sum) = self.rare.entry(rare::metric(site)).or_default();
            *active += u64::from(fired.is_some());
            *runs += u64::from(fired.is_some_and(|count| count > 0));
            *sum += fired.unwrap_or(0);
        }
    }

    /// What never happened.
    pub fn never(&self) -> Vec<&'static str> {
        let faults = self.faults.iter().filter(|(_, (runs, _))| *runs == 0).map(|(name, _)| *name);
        let rare = self.rare.iter().filter(|(_, (_, runs, _))| *runs == 0).map(|(name, _)| *name);
        faults.chain(rare).chain(self.answers.iter().filter(|(_, runs)| **runs == 0).map(|(name, _)| *name)).collect()
    }
}
