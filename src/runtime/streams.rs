//! What the application receives: bounded streams that tell what was lost, and never hold up the node.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use meshwork_channels::{ChannelId, PeerId, limits};
use tokio::sync::{broadcast, mpsc, watch};

use super::calls::{Abandoned, GivenUp};
use super::{Command, Error};
use crate::node::{self, SendError};

/// A message that a peer sent to this node alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectMessage {
    /// Who sent it.
    pub from: PeerId,
    /// On this channel.
    pub channel: ChannelId,
    /// The bytes.
    pub payload: Bytes,
}

/// So many items were lost, because the subscriber fell behind. The next ones follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lagged(pub u64);

impl fmt::Display for Lagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fell behind and lost {} items", self.0)
    }
}

impl std::error::Error for Lagged {}

/// Subscribes; to a node that has stopped, the subscription has ended.
pub(super) fn subscribe<T: Clone>(sender: &broadcast::WeakSender<T>) -> broadcast::Receiver<T> {
    sender.upgrade().unwrap_or_else(|| broadcast::Sender::new(1)).subscribe()
}

/// A stream of what happens from the moment of the subscription on.
#[derive(Debug)]
pub struct Subscription<T> {
    receiver: broadcast::Receiver<T>,
}

impl<T: Clone> Subscription<T> {
    pub(super) fn new(receiver: broadcast::Receiver<T>) -> Self {
        Subscription { receiver }
    }

    /// The next item; none once the node has stopped. Items that were lost are passed over in silence: use [`Subscription::try_next`] to be
    /// told of them.
    pub async fn next(&mut self) -> Option<T> {
        loop {
            match self.try_next().await {
                Some(Ok(item)) => return Some(item),
                Some(Err(Lagged(_))) => {}
                None => return None,
            }
        }
    }

    /// The next item, or how many were lost before it; none once the node has stopped.
    pub async fn try_next(&mut self) -> Option<Result<T, Lagged>> {
        match self.receiver.recv().await {
            Ok(item) => Some(Ok(item)),
            Err(broadcast::error::RecvError::Lagged(lost)) => Some(Err(Lagged(lost))),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// The requests of other nodes.
#[derive(Debug)]
pub struct Requests {
    receiver: mpsc::Receiver<Request>,
}

impl Requests {
    pub(super) fn new(receiver: mpsc::Receiver<Request>) -> Self {
        Requests { receiver }
    }

    /// The next request; none once the node has stopped or somebody else serves. Requests that were cancelled while they waited are passed over.
    pub async fn next(&mut self) -> Option<Request> {
        loop {
            let request = self.receiver.recv().await?;
            if !request.is_cancelled() {
                return Some(request);
            }
        }
    }
}

/// A request of another node. It is answered once; dropped without an answer, it is answered `Busy`.
///
/// A handler that works for a while can stop when nobody waits for it any more:
///
/// ```no_run
/// # async fn work(_: &[u8]) -> Vec<u8> { Vec::new() }
/// # async fn serve(node: meshwork::Node) -> Result<(), Box<dyn std::error::Error>> {
/// let mut requests = node.serve().await?;
/// while let Some(request) = requests.next().await {
///     tokio::spawn(async move {
///         tokio::select! {
///             answer = work(request.payload()) => drop(request.respond(answer).await),
///             () = request.cancelled() => {}
///         }
///     });
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Request {
    pub(super) token: node::RequestToken,
    pub(super) payload: Bytes,
    /// None once it is answered.
    pub(super) commands: Option<mpsc::Sender<Command>>,
    pub(super) given_up: Arc<GivenUp>,
    /// Nothing comes; it closes when nobody waits for the answer any more.
    pub(super) awaited: watch::Receiver<()>,
}

impl Request {
    /// Who asks.
    pub fn from(&self) -> PeerId {
        self.token.from
    }

    /// What is asked.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Whether it is known that nobody waits for the answer any more: the asker gave the request up, its time is over there, the asker started anew, or this node
    /// has stopped. An answer goes nowhere then, and costs nothing but itself.
    ///
    /// The asker tells on a connection that stands. If it is cut off or dies, the handler is not told before it is back, and works in vain.
    pub fn is_cancelled(&self) -> bool {
        self.awaited.has_changed().is_err()
    }

    /// Waits until [`Request::is_cancelled`]; for ever, if that never comes. It can be dropped and called again at any time.
    pub async fn cancelled(&self) {
        let mut awaited = self.awaited.clone();
        while awaited.changed().await.is_ok() {}
    }

    /// Answers, with at most 1 MiB ([`limits::MESSAGE_BYTES_MAX`]). Dropped before it is done, it answers `Busy`.
    ///
    /// # Errors
    ///
    /// [`Error::Send`] when the answer is too large, and the asker is told that this node is busy; [`Error::Stopped`] when the node has stopped, and the asker
    /// gets no answer.
    pub async fn respond(mut self, answer: impl Into<Bytes>) -> Result<(), Error> {
        let answer = answer.into();
        if answer.len() > limits::MESSAGE_BYTES_MAX {
            return Err(Error::Send(SendError::TooLarge { len: answer.len(), len_max: limits::MESSAGE_BYTES_MAX }));
        }
        let Some(commands) = &self.commands else { return Ok(()) };
        let room = commands.reserve().await.map_err(|_| Error::Stopped)?;
        room.send(Command::Respond { token: self.token, answer: Ok(answer) });
        self.commands = None;
        Ok(())
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if self.commands.take().is_some() {
            self.given_up.leave(Abandoned::Request(self.token));
        }
    }
}
