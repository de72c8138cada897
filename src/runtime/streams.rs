//! What the application receives: bounded streams that tell what was lost, and never hold up the node.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use meshwork_channels::{ChannelId, PeerId};
use meshwork_crdt::Stamp;
use tokio::sync::{broadcast, mpsc};

use super::{Command, Node, Stopped};
use crate::node::{self, Refusal};

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

/// A key of the replicated state changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// Its value; none when it was removed.
    pub value: Option<Bytes>,
    /// The stamp of the write; none for a value that was there when the watch began, or began again.
    pub stamp: Option<Stamp>,
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

    /// The next request; none once the node has stopped or somebody else serves.
    pub async fn next(&mut self) -> Option<Request> {
        self.receiver.recv().await
    }
}

/// A request of another node. It is answered once; dropped without an answer, it is answered `Busy`.
#[derive(Debug)]
pub struct Request {
    pub(super) token: node::RequestToken,
    pub(super) payload: Bytes,
    pub(super) commands: Option<mpsc::Sender<Command>>,
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

    /// Answers.
    ///
    /// # Errors
    ///
    /// [`Stopped`] when the node has stopped; the asker gets no answer then.
    pub async fn respond(mut self, answer: impl Into<Bytes>) -> Result<(), Stopped> {
        let Some(commands) = self.commands.take() else { return Ok(()) };
        commands.send(Command::Respond { token: self.token, answer: Ok(answer.into()) }).await.map_err(|_| Stopped)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if let Some(commands) = self.commands.take() {
            // When the queue is full or closed the asker's time runs out instead.
            let _ = commands.try_send(Command::Respond { token: self.token, answer: Err(Refusal::Busy) });
        }
    }
}

/// The keys under a prefix: first as they are, then every change.
#[derive(Debug)]
pub struct Watch {
    node: Node,
    prefix: String,
    changes: broadcast::Receiver<Change>,
    present: VecDeque<(String, Bytes)>,
}

impl Watch {
    pub(super) async fn start(node: Node, prefix: String) -> Result<Self, Stopped> {
        // Subscribed before the snapshot is taken, so that nothing falls between the two.
        let changes = subscribe(&node.shared.changes);
        let present = node.state().entries(prefix.clone()).await?.into();
        Ok(Watch { node, prefix, changes, present })
    }

    /// The next change; none once the node has stopped.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            if let Some((key, value)) = self.present.pop_front() {
                return Some(Change { key, value: Some(value), stamp: None });
            }
            match self.changes.recv().await {
                Ok(change) if change.key.starts_with(&self.prefix) => return Some(change),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    self.present = self.node.state().entries(self.prefix.clone()).await.ok()?.into();
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
