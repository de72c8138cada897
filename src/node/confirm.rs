//! Writes that wait until several nodes hold them, reads that ask several, and writes of others that are waited for: whom to ask is decided here, and what that comes to in
//! [`confirm`](meshwork_crdt::confirm).

use std::fmt;
use std::time::Duration;

use meshwork_channels::{Now, PeerId};
use meshwork_crdt::confirm::{Call, ConfirmError, ConfirmId, PEERS_MAX};
use meshwork_crdt::replica::SetError;
use meshwork_crdt::{Key, Op, WriteToken};
use meshwork_overlay::swim::Status;

use super::verbs::check_key;
use super::{Action, CallId, Node};

/// How many nodes it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// So many other nodes.
    Acked(usize),
    /// More than half of the members that this node knows, itself included. Members that failed count for as long as they are known, those that left do not.
    Quorum,
}

/// A write that other nodes should hold was not made. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The write was refused.
    Set(SetError),
    /// There are too few nodes, or too much waits for them.
    Confirm(ConfirmError),
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Set(error) => error.fmt(f),
            WriteError::Confirm(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for WriteError {}

impl From<ConfirmError> for WriteError {
    fn from(error: ConfirmError) -> Self {
        WriteError::Confirm(error)
    }
}

impl Node {
    /// Does something to a key of the replicated state, and has what the key holds then held by others. [`Action::Confirmed`] tells how that ended. The token is none where
    /// nothing changed, which is confirmed all the same.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; nothing was changed then.
    pub fn apply_with(
        &mut self,
        key: &str,
        op: Op,
        level: Level,
        within: Duration,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Result<(CallId, Option<WriteToken>), WriteError> {
        check_key(key).map_err(WriteError::Set)?;
        let (peers, required) = self.whom_to_ask(level);
        self.state.check_confirm(peers.len(), required)?;
        let token = self.state.apply_named(key, op, now, &mut self.state_actions).map_err(WriteError::Set)?;
        let call = self.calls.next_id();
        let asked = Call { id: ConfirmId(call.0), peers, required, within };
        let begun = self.state.confirm(key, asked, now, &mut self.state_actions);
        self.route(now, actions);
        begun?;
        Ok((call, token))
    }

    /// Does something to a key of the replicated state, and names that write. None when it changes nothing.
    ///
    /// # Errors
    ///
    /// [`SetError`]; nothing was changed then.
    pub fn apply_named(&mut self, key: &str, op: Op, now: Now, actions: &mut Vec<Action>) -> Result<Option<WriteToken>, SetError> {
        check_key(key)?;
        let token = self.state.apply_named(key, op, now, &mut self.state_actions)?;
        self.route(now, actions);
        Ok(token)
    }

    /// Asks others what they hold under a key of the replicated state. [`Action::Confirmed`] tells when enough have answered, or the time is over; what was answered is held here
    /// then.
    ///
    /// # Errors
    ///
    /// [`ConfirmError`]; nobody was asked then.
    pub fn ask(&mut self, key: Key, level: Level, within: Duration, now: Now, actions: &mut Vec<Action>) -> Result<CallId, ConfirmError> {
        let (peers, required) = self.whom_to_ask(level);
        let call = self.calls.next_id();
        let asked = Call { id: ConfirmId(call.0), peers, required, within };
        self.state.ask(key, asked, now, &mut self.state_actions)?;
        self.route(now, actions);
        Ok(call)
    }

    /// Waits until this node holds a write, or what took its place. [`Action::Confirmed`] tells when it does, or that the time is over.
    ///
    /// # Errors
    ///
    /// [`ConfirmError::TooMany`]; nothing is waited for then.
    pub fn await_write(
        &mut self,
        token: WriteToken,
        within: Duration,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Result<CallId, ConfirmError> {
        let call = self.calls.next_id();
        self.state.await_write(ConfirmId(call.0), token, within, now, &mut self.state_actions)?;
        self.route(now, actions);
        Ok(call)
    }

    /// Who can be asked, the likeliest to answer first, and how many others it takes.
    fn whom_to_ask(&self, level: Level) -> (Vec<PeerId>, usize) {
        let me = self.identity.peer;
        let others = || self.members().filter(|member| member.peer != me && member.status != Status::Left);
        let required = match level {
            Level::Acked(required) => required,
            // Of n others and this node, half of them rounded up make a majority with it.
            Level::Quorum => others().count().div_ceil(2),
        };
        let (up, down): (Vec<_>, Vec<_>) = others().partition(|member| member.status.is_up());
        let is_neighbor = |peer: &PeerId| self.neighbors().binary_search(peer).is_ok();
        let (near, far): (Vec<_>, Vec<_>) = up.into_iter().map(|member| member.peer).partition(is_neighbor);
        let peers = near.into_iter().chain(far).chain(down.into_iter().map(|member| member.peer));
        (peers.take(PEERS_MAX).collect(), required)
    }
}
