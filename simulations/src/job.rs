//! A run that was planned, at either depth: whole nodes, or the overlay alone.

use crate::plan::Plan;
use crate::scale;

/// A run that was planned.
#[derive(Clone, Debug)]
pub enum Job {
    /// Of whole nodes.
    Whole(Box<Plan>),
    /// Of the overlay alone.
    Overlay(Box<scale::Plan>),
}

impl Job {
    /// What people call it.
    pub fn name(&self) -> &str {
        match self {
            Job::Whole(plan) => &plan.scenario,
            Job::Overlay(plan) => &plan.name,
        }
    }

    /// What feeds every draw.
    pub fn seed(&self) -> u64 {
        match self {
            Job::Whole(plan) => plan.setup.seed,
            Job::Overlay(plan) => plan.setup.seed,
        }
    }

    /// How many nodes it has.
    pub fn nodes(&self) -> u32 {
        match self {
            Job::Whole(plan) => plan.setup.nodes,
            Job::Overlay(plan) => plan.setup.nodes,
        }
    }

    /// When it is over at the latest, in microseconds since its start.
    pub fn ends_at(&self) -> u64 {
        match self {
            Job::Whole(plan) => plan.ends_at(),
            Job::Overlay(plan) => plan.setup.ends_at(),
        }
    }

    /// What it is, in a line.
    pub fn describe(&self) -> String {
        match self {
            Job::Whole(plan) => plan.describe(),
            Job::Overlay(plan) => plan.describe(),
        }
    }

    /// What is typed to see it again.
    pub fn replay(&self) -> &str {
        match self {
            Job::Whole(plan) => &plan.replay,
            Job::Overlay(plan) => &plan.replay,
        }
    }

    /// The same, to be changed.
    pub fn replay_mut(&mut self) -> &mut String {
        match self {
            Job::Whole(plan) => &mut plan.replay,
            Job::Overlay(plan) => &mut plan.replay,
        }
    }

    /// The plan, if it is one of whole nodes.
    pub fn into_whole(self) -> Option<Plan> {
        match self {
            Job::Whole(plan) => Some(*plan),
            Job::Overlay(_) => None,
        }
    }
}
