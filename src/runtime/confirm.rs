//! Writes that other nodes hold before they are answered, reads that ask several nodes, and writes of other nodes that are waited for.

use std::fmt;
use std::time::Duration;

use meshwork_channels::{Now, PeerId};
use meshwork_crdt::confirm::{ConfirmError, Confirmed};
use meshwork_crdt::replica::SetError;
use meshwork_crdt::{Key, Op, Value, WriteToken};
use tokio::sync::oneshot;

use super::{Command, Config, ConfirmVerb, Node, State, Stopped, calls};
use crate::node::{self, Action, CallId, Level, WriteError};
use crate::services::config::{self, Found, ReadError};

/// A write that enough other nodes hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acked {
    /// The name of the write, to [wait for it](State::read_after) elsewhere; none when nothing had to be changed.
    pub token: Option<WriteToken>,
    /// The other nodes that hold it.
    pub by: Vec<PeerId>,
}

/// Why it is not known that enough nodes hold a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AckError {
    /// The node has stopped. Whether the write was made is open.
    Stopped,
    /// The write was refused. Nothing was changed.
    Set(SetError),
    /// There are too few nodes, or too much waits for them already. Nothing was changed.
    Refused(ConfirmError),
    /// The time was over. **The write was made**, is visible, and goes to all nodes as any other: it is only not known how many have it.
    TimedOut {
        /// The name of the write; none when nothing had to be changed.
        token: Option<WriteToken>,
        /// Who holds it, and what the others said.
        confirmed: Confirmed,
    },
}

impl fmt::Display for AckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AckError::Stopped => Stopped.fmt(f),
            AckError::Set(error) => error.fmt(f),
            AckError::Refused(error) => write!(f, "not written: {error}"),
            AckError::TimedOut { confirmed, .. } => write!(f, "written, and in time held by {confirmed}"),
        }
    }
}

impl std::error::Error for AckError {}

impl From<Stopped> for AckError {
    fn from(Stopped: Stopped) -> Self {
        AckError::Stopped
    }
}

impl From<WriteError> for AckError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Set(error) => AckError::Set(error),
            WriteError::Confirm(error) => AckError::Refused(error),
        }
    }
}

/// What this node and those that it asked hold, put together.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen<T> {
    /// What one reads of that.
    pub value: T,
    /// The other nodes that answered.
    pub by: Vec<PeerId>,
}

/// Why a read did not hear of enough nodes, or not of the write that it waited for.
#[derive(Clone, Debug, PartialEq)]
pub enum QuorumError<T> {
    /// The node has stopped.
    Stopped,
    /// There are too few nodes, or too much waits for them already. Nobody was asked.
    Refused(ConfirmError),
    /// The time was over.
    TimedOut {
        /// What this node holds, with what those that answered hold.
        value: T,
        /// Who answered, and what the others said.
        confirmed: Confirmed,
    },
}

impl<T> fmt::Display for QuorumError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuorumError::Stopped => Stopped.fmt(f),
            QuorumError::Refused(error) => error.fmt(f),
            QuorumError::TimedOut { confirmed, .. } if confirmed.required == 0 => f.write_str("the write did not arrive in time"),
            QuorumError::TimedOut { confirmed, .. } => write!(f, "answered in time by {confirmed}"),
        }
    }
}

impl<T: fmt::Debug> std::error::Error for QuorumError<T> {}

impl<T> From<Stopped> for QuorumError<T> {
    fn from(Stopped: Stopped) -> Self {
        QuorumError::Stopped
    }
}

impl<T> From<ConfirmError> for QuorumError<T> {
    fn from(error: ConfirmError) -> Self {
        QuorumError::Refused(error)
    }
}

impl State<'_> {
    /// Writes a register, and returns when so many other nodes hold it in memory, or something newer. Unlike the broadcast, which goes out as ever, this asks them one by one, neighbors
    /// first, and others in place of those that decline or say nothing.
    ///
    /// Dropping the future ends the waiting and not the write.
    ///
    /// # Errors
    ///
    /// An [`AckError`], of which each says whether the write was made.
    pub async fn set_with(
        &self,
        key: impl Into<String>,
        value: impl Into<bytes::Bytes>,
        level: Level,
        timeout: Duration,
    ) -> Result<Acked, AckError> {
        self.apply_with(key, Op::Set(value.into()), level, timeout).await
    }

    /// Does something to a key as [`State::apply`] does, and returns when so many other nodes hold what the key holds then. Where nothing has to be changed, they are
    /// asked all the same; so what is not done twice can be tried again after [`AckError::TimedOut`]. Only where this node knows nothing of the key, not even that it was
    /// removed, there is nothing to hold, and nobody is asked.
    ///
    /// # Errors
    ///
    /// As [`State::set_with`].
    pub async fn apply_with(&self, key: impl Into<String>, op: Op, level: Level, timeout: Duration) -> Result<Acked, AckError> {
        let key = key.into();
        let begin = move |node: &mut node::Node, now, actions: &mut Vec<Action>| node.apply_with(&key, op, level, timeout, now, actions);
        let (token, confirmed) = self.node.confirm(true, begin).await??;
        match confirmed {
            Confirmed { is_enough: true, by, .. } => Ok(Acked { token, by }),
            confirmed => Err(AckError::TimedOut { token, confirmed }),
        }
    }

    /// Does something to a key as [`State::apply`] does, and gives the write a name, for [`State::read_after`] on another node. None when that changes nothing.
    ///
    /// # Errors
    ///
    /// As [`State::set`].
    pub async fn apply_named(&self, key: impl Into<String>, op: Op) -> Result<Option<WriteToken>, super::Error> {
        let key = key.into();
        self.node.write_with(move |node, now, actions| node.apply_named(&key, op, now, actions)).await?.map_err(super::Error::Set)
    }

    /// What a key holds once so many other nodes were asked and what they hold was joined to what this one holds, which keeps it.
    ///
    /// # Errors
    ///
    /// A [`QuorumError`]; when the time was over, it has what was seen.
    pub async fn read_quorum(
        &self,
        key: impl Into<String>,
        level: Level,
        timeout: Duration,
    ) -> Result<Seen<Option<Value>>, QuorumError<Option<Value>>> {
        let key = key.into();
        // A key that cannot be holds nothing anywhere.
        let Ok(asked) = Key::try_from(&*key) else { return Ok(Seen { value: None, by: Vec::new() }) };
        self.node.seen(move |node, now, actions| node.ask(asked, level, timeout, now, actions), move |node| node.state().read(&key)).await
    }

    /// What the key of a write holds once that write has arrived here, or what took its place. The node waits for it and asks nobody.
    ///
    /// A write whose key was removed so long ago that its removal is forgotten does not arrive any more.
    ///
    /// # Errors
    ///
    /// A [`QuorumError`]; when the time was over, it has what the key holds.
    pub async fn read_after(&self, token: &WriteToken, timeout: Duration) -> Result<Option<Value>, QuorumError<Option<Value>>> {
        let (token, key) = (token.clone(), token.key().clone());
        let begin = move |node: &mut node::Node, now, actions: &mut Vec<Action>| node.await_write(token, timeout, now, actions);
        Ok(self.node.seen(begin, move |node| node.state().read(&key)).await?.value)
    }
}

impl Config<'_> {
    /// The visible value at a path once so many other nodes were asked what was set for the cluster there and this was joined to what this node knows. The other layers are those
    /// of this node. It asks for the one value at the path, and not for those below it.
    ///
    /// # Errors
    ///
    /// A [`QuorumError`]; when the time was over, it has what was seen. What it has, and what is returned, is a [`ReadError`] where there is no value.
    pub async fn read_quorum(
        &self,
        path: config::Path,
        level: Level,
        timeout: Duration,
    ) -> Result<Seen<Result<Found, ReadError>>, QuorumError<Result<Found, ReadError>>> {
        let key = path.key();
        let begin = move |node: &mut node::Node, now, actions: &mut Vec<Action>| node.ask(key, level, timeout, now, actions);
        self.node.seen(begin, move |node| node.services().config.read(node.state(), path.as_str())).await
    }
}

impl Node {
    /// Begins something that other nodes confirm, and waits for its end.
    async fn confirm<T: Send + 'static, E: Send + 'static>(
        &self,
        is_write: bool,
        begin: impl FnOnce(&mut node::Node, Now, &mut Vec<Action>) -> Result<(CallId, T), E> + Send + 'static,
    ) -> Result<Result<(T, Confirmed), E>, Stopped> {
        let waiting = calls::Waiting::new(&self.shared.given_up);
        let (told, begun) = oneshot::channel();
        let begin: ConfirmVerb = Box::new(move |node, now, actions| {
            let (call, begun) = match begin(node, now, actions) {
                Ok((call, kept)) => (Some(call), Ok(kept)),
                Err(error) => (None, Err(error)),
            };
            let _ = told.send(begun);
            call
        });
        let (reply, confirmed) = oneshot::channel();
        let queue = if is_write { &self.shared.writes } else { &self.shared.commands };
        let command = Command::Confirm { begin, ticket: waiting.ticket(), reply };
        queue.send(command).await.map_err(|_| Stopped)?;
        let begun = begun.await.map_err(|_| Stopped)?;
        let outcome = match begun {
            Ok(kept) => Ok((kept, confirmed.await.map_err(|_| Stopped)?)),
            Err(error) => Err(error),
        };
        waiting.end();
        Ok(outcome)
    }

    /// Asks other nodes or waits for a write, and reads what there is then.
    async fn seen<T: Send + 'static>(
        &self,
        begin: impl FnOnce(&mut node::Node, Now, &mut Vec<Action>) -> Result<CallId, ConfirmError> + Send + 'static,
        read: impl FnOnce(&node::Node) -> T + Send + 'static,
    ) -> Result<Seen<T>, QuorumError<T>> {
        let begin = move |node: &mut node::Node, now, actions: &mut Vec<Action>| Ok((begin(node, now, actions)?, ()));
        let ((), confirmed) = self.confirm::<_, ConfirmError>(false, begin).await??;
        let value = self.look(read).await?;
        match confirmed {
            Confirmed { is_enough: true, by, .. } => Ok(Seen { value, by }),
            confirmed => Err(QuorumError::TimedOut { value, confirmed }),
        }
    }
}
