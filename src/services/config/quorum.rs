//! A read that asks several nodes: what they agree on, or what a strategy makes of what they do not agree on.
//!
//! This is the session of one read as a pure state machine; whoever asks sends the questions and hands in the answers. It says what a
//! majority held when it answered. It is not linearizable: no node promises not to change its answer.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use meshwork_channels::{PeerId, Time};

use super::Path;
use super::conflict::{Candidate, Choice, Strategy, resolve};

/// How a read ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All answers are the same.
    Agree(Choice),
    /// They are not; this is what the strategy chose, with the answers.
    Resolved {
        /// The choice.
        choice: Choice,
        /// The answers, by node.
        answers: Vec<(PeerId, Candidate)>,
    },
    /// Too few answered in time.
    Timeout {
        /// The answers that came, by node.
        partial: Vec<(PeerId, Candidate)>,
    },
}

/// More answers are wanted than there are nodes, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoQuorum {
    /// How many are wanted.
    pub required: usize,
    /// How many nodes there are.
    pub nodes: usize,
}

impl fmt::Display for NoQuorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answers of {} nodes cannot be had", self.required, self.nodes)
    }
}

impl std::error::Error for NoQuorum {}

/// A read under way. It holds at most one answer of each node that it asked.
#[derive(Clone, Debug)]
pub struct Quorum {
    path: Path,
    strategy: Strategy,
    required: usize,
    deadline: Time,
    answers: BTreeMap<PeerId, Option<Candidate>>,
    is_over: bool,
}

impl Quorum {
    /// Asks `nodes`, which should include this one, for `required` answers, or for more than half of them.
    ///
    /// # Errors
    ///
    /// [`NoQuorum`]: there are fewer nodes than that, or none are wanted.
    pub fn new(
        path: Path,
        strategy: Strategy,
        nodes: impl IntoIterator<Item = PeerId>,
        required: Option<usize>,
        now: Time,
        timeout: Duration,
    ) -> Result<Self, NoQuorum> {
        let answers: BTreeMap<_, _> = nodes.into_iter().map(|node| (node, None)).collect();
        let required = required.unwrap_or(answers.len() / 2 + 1);
        if required == 0 || required > answers.len() {
            return Err(NoQuorum { required, nodes: answers.len() });
        }
        Ok(Quorum { path, strategy, required, deadline: now + timeout, answers, is_over: false })
    }

    /// Takes the answer of a node. Without effect are a second one, one of a node that was not asked, and one that comes when all is over.
    pub fn answered(&mut self, from: PeerId, answer: Candidate) -> Option<Outcome> {
        let slot = self.answers.get_mut(&from).filter(|slot| slot.is_none() && !self.is_over)?;
        *slot = Some(answer);
        let answers = self.so_far();
        if answers.len() < self.required {
            return None;
        }
        self.is_over = true;
        let candidates: Vec<Candidate> = answers.iter().map(|(_, answer)| answer.clone()).collect();
        let choice = resolve(self.strategy, &self.path, &candidates)?;
        let agree = candidates.iter().all(|candidate| candidate.value == choice.value);
        Some(if agree { Outcome::Agree(choice) } else { Outcome::Resolved { choice, answers } })
    }

    /// Gives up once the time is over.
    pub fn deadline_reached(&mut self, now: Time) -> Option<Outcome> {
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return None;
        }
        self.is_over = true;
        Some(Outcome::Timeout { partial: self.so_far() })
    }

    /// When [`Quorum::deadline_reached`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        (!self.is_over).then_some(self.deadline)
    }

    /// The path that is read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The answers so far, by node.
    pub fn so_far(&self) -> Vec<(PeerId, Candidate)> {
        self.answers.iter().filter_map(|(node, answer)| Some((*node, answer.clone()?))).collect()
    }
}
