//! Full mesh.
use meshwork_channels::Time;
use serde::{Deserialize, Serialize};

use crate::identifier::Identifier;
use crate::topology::{Action, Input};

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Link.
    Link,
}

/// Parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {}

/// The state.
#[derive(Clone, Debug)]
pub struct State<I> {
    active: Vec<I>,
}

impl<I: Identifier> State<I> {
    /// New.
    pub fn new(_me: I, _params: Params, _seed: u64) -> Self {
        State { active: Vec::new() }
    }
    /// Handle.
    pub fn handle(&mut self, _input: Input<I>, _now: Time, _actions: &mut Vec<Action<I>>) {}
    /// Deadline.
    pub fn next_deadline(&self) -> Option<Time> {
        None
    }
    /// Neighbors.
    pub fn neighbors(&self) -> &[I] {
        &self.active
    }
}
