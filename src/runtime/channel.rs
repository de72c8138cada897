//! The fast way of messages to one peer: from the application into the queue of the connection, and from the stream to the application, past the
//! protocol thread.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::agreement::Disagreement;
use meshwork_channels::channel::Reliability;
use meshwork_channels::quic::{Batch, Bodies, Handler, Inbox, Link, MessageError};
use meshwork_channels::{ChannelId, ChannelSpec, PeerId, frame, limits, random};

use super::{ChannelError, Command, DirectMessage, Error, Node, Shared};
use crate::node::{MESSAGE, SendError};

/// Bytes of messages that wait for a [`Receiver`], 64 for each message included.
const INBOX_BYTES_MAX: u32 = 4 * 1_024 * 1_024;
/// The same where the latest is kept: what waits here cannot be replaced any more.
const LATEST_INBOX_BYTES_MAX: u32 = 16 * 1_024;

/// Bytes of messages that wait for the receiver of a channel.
pub(super) fn inbox_bytes_max(spec: Option<&ChannelSpec>) -> u32 {
    if spec.is_some_and(|spec| spec.reliability == Reliability::Latest) { LATEST_INBOX_BYTES_MAX } else { INBOX_BYTES_MAX }
}

/// Sends messages on one channel to one peer.
///
/// Messages that one sender sends arrive in order, each at most once, as long as the connection stands; a [`Receiver`] there gets them in batches.
/// A clone is a sender of its own, and may get another lane of the channel. When the connection breaks, the next send connects again.
pub struct Sender {
    shared: Arc<Shared>,
    link: Link,
    channel: ChannelId,
    /// What carries it: the channel, or the fallback for a peer that does not have it.
    carrier: ChannelId,
    reliability: Reliability,
    /// Bytes of the largest message.
    len_max: usize,
    ttl: Option<Duration>,
    /// A hash of the key.
    key: Option<u64>,
    /// The same as long as the link: messages on several lanes overtake each other.
    lane: u8,
}

/// Why a message was not queued. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrySendError {
    /// The queue to the peer is full: it takes less than is sent.
    Full,
    /// There is no connection at the moment; [`Sender::send`] makes one.
    Disconnected,
    /// The message is larger than 1 MiB ([`limits::MESSAGE_BYTES_MAX`]), or than the queue of the channel.
    TooLarge,
}

impl fmt::Display for TrySendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrySendError::Full => f.write_str("the queue to the peer is full"),
            TrySendError::Disconnected => f.write_str("the peer is not connected"),
            TrySendError::TooLarge => f.write_str("the message is larger than the channel takes"),
        }
    }
}

impl std::error::Error for TrySendError {}

impl Sender {
    pub(super) async fn connect(node: &Node, to: PeerId, channel: ChannelId) -> Result<Self, Error> {
        Sender::reach(node, to, channel).await.map(|sender| sender.placed(None))
    }

    async fn reach(node: &Node, to: PeerId, channel: ChannelId) -> Result<Self, Error> {
        let link = node.ask(|reply| Command::Connect { to, channel, reply }).await??;
        Sender::over(node.shared.clone(), link, channel).map_err(|problem| Error::Channel(Box::new(ChannelError::of(to, problem))))
    }

    /// The same with a lane for this key, or for a sender without one.
    fn placed(self, key: Option<u64>) -> Self {
        Sender { key, lane: self.link.lane_for(self.carrier, key), ..self }
    }

    /// The same on the same lane.
    fn copy(&self) -> Self {
        Sender { shared: self.shared.clone(), link: self.link.clone(), ..*self }
    }

    fn over(shared: Arc<Shared>, link: Link, channel: ChannelId) -> Result<Self, Disagreement> {
        let carrier = link.route(channel)?;
        let (mut reliability, mut len_max) = (Reliability::Ordered, limits::MESSAGE_BYTES_MAX);
        if let Some(spec) = link.channel(carrier) {
            reliability = spec.reliability;
            // One that the queue could never hold would wait for ever.
            len_max = len_max.min(spec.queued_bytes_max.saturating_sub(frame::OVERHEAD_BYTES_MAX));
        }
        Ok(Sender { shared, link, channel, carrier, reliability, len_max, ttl: None, key: None, lane: 0 })
    }

    /// The peer.
    pub fn peer(&self) -> PeerId {
        self.link.peer()
    }

    /// The channel.
    pub fn channel(&self) -> ChannelId {
        self.channel
    }

    /// What carries it: the channel, or for a peer that does not have it the one that was given to
    /// [`Builder::channel_fallback`](super::Builder::channel_fallback).
    pub fn carrier(&self) -> ChannelId {
        self.carrier
    }

    /// A sender for the messages with this key: they keep their order among each other, and on a channel with several lanes they do not wait for a lost packet of
    /// another lane. The lane of a key stays the same as long as the connection stands; a key that is new gets none that is blocked.
    pub fn with_key(&self, key: &[u8]) -> Sender {
        let words = key.chunks(8).map(|chunk| chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        let words: Vec<u64> = std::iter::once(key.len() as u64).chain(words).collect();
        self.copy().placed(Some(random::hash(&words)))
    }

    /// A sender for messages that are worth nothing after this time: one that still waits here when it would leave is dropped then, and counted as expired. A
    /// message that has left arrives. The newest of a key on a channel that keeps the latest does not expire.
    ///
    /// How long [`Sender::send`] waits for room is not part of it; `tokio::time::timeout` around it bounds that too, and a send that is given up was not sent.
    pub fn with_ttl(&self, ttl: Duration) -> Sender {
        Sender { ttl: Some(ttl), ..self.copy() }
    }

    fn queue(&self, payload: &[u8]) -> Result<(), MessageError> {
        match self.ttl {
            None => self.link.try_send_message(self.carrier, self.lane, MESSAGE, payload),
            Some(ttl) => self.link.try_send_within(self.carrier, self.lane, MESSAGE, payload, ttl),
        }
    }

    /// Queues a message if there is room now. On a channel of best effort there always is: what gives way is dropped and counted.
    ///
    /// # Errors
    ///
    /// [`TrySendError`]; nothing was queued then.
    pub fn try_send(&mut self, payload: &[u8]) -> Result<(), TrySendError> {
        if payload.len() > self.len_max {
            return Err(TrySendError::TooLarge);
        }
        match self.reliability {
            // There is no sender for channels whose messages are acknowledged.
            Reliability::Ordered | Reliability::AtLeastOnce | Reliability::Guaranteed => self.queue(payload).map_err(refused),
            Reliability::Latest => self.try_send_latest(&[], payload),
            // What is refused is dropped, and the queue has counted it.
            Reliability::BestEffort => match self.queue(payload) {
                Ok(()) | Err(MessageError::Refused(..)) => Ok(()),
                Err(MessageError::Closed) => Err(TrySendError::Disconnected),
            },
        }
    }

    /// Queues a message without copying it when it is large, if there is room now.
    ///
    /// # Errors
    ///
    /// [`TrySendError`]; nothing was queued then.
    pub fn try_send_bytes(&mut self, payload: Bytes) -> Result<(), TrySendError> {
        if payload.len() > self.len_max {
            return Err(TrySendError::TooLarge);
        }
        if self.reliability != Reliability::Ordered || self.ttl.is_some() {
            return self.try_send(&payload);
        }
        self.link.try_send_shared(self.carrier, self.lane, MESSAGE, payload).map_err(refused)
    }

    /// Queues a message that takes the place of one that still waits with the same key, if there is room now. The peer gets the newest message of each key
    /// as long as the connection stands, none after a newer one of its key, and of those before it only what was under way already. The key
    /// stays here: who needs it there puts it into the payload.
    ///
    /// On a channel of another kind ([`ChannelSpec::latest`](meshwork_channels::ChannelSpec::latest)) every message is sent.
    ///
    /// # Errors
    ///
    /// [`TrySendError`], also for a key of more than 256 bytes ([`limits::LATEST_KEY_BYTES_MAX`]); nothing was queued then. It is
    /// [`TrySendError::Full`] only when as many other keys wait as there may be.
    pub fn try_send_latest(&mut self, key: &[u8], payload: &[u8]) -> Result<(), TrySendError> {
        if payload.len() > self.len_max || key.len() > limits::LATEST_KEY_BYTES_MAX {
            return Err(TrySendError::TooLarge);
        }
        if self.reliability != Reliability::Latest {
            return self.try_send(payload);
        }
        self.link.try_send_latest(self.carrier, Bytes::copy_from_slice(key), MESSAGE, payload).map_err(refused)
    }

    /// Queues a message that takes the place of one that still waits with the same key, as [`Sender::try_send_latest`]; waits like [`Sender::send`].
    ///
    /// # Errors
    ///
    /// As [`Sender::send`].
    pub async fn send_latest(&mut self, key: &[u8], payload: impl AsRef<[u8]>) -> Result<(), Error> {
        let payload = payload.as_ref();
        loop {
            match self.try_send_latest(key, payload) {
                Ok(()) => return Ok(()),
                Err(error) => self.recover(error, key.len().max(payload.len())).await?,
            }
        }
    }

    /// Queues a message without copying it when it is large; waits like [`Sender::send`].
    ///
    /// # Errors
    ///
    /// As [`Sender::send`].
    pub async fn send_bytes(&mut self, payload: Bytes) -> Result<(), Error> {
        loop {
            match self.try_send_bytes(payload.clone()) {
                Ok(()) => return Ok(()),
                Err(error) => self.recover(error, payload.len()).await?,
            }
        }
    }

    /// Queues a message; waits for room, and for a connection if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Send`] when it is larger than 1 MiB, [`Error::Call`] when the peer cannot be reached, [`Error::Stopped`]. It was not sent then.
    pub async fn send(&mut self, payload: impl AsRef<[u8]>) -> Result<(), Error> {
        let payload = payload.as_ref();
        loop {
            match self.try_send(payload) {
                Ok(()) => return Ok(()),
                Err(error) => self.recover(error, payload.len()).await?,
            }
        }
    }

    /// Waits until it makes sense to try again.
    async fn recover(&mut self, error: TrySendError, len: usize) -> Result<(), Error> {
        match error {
            TrySendError::Full => self.link.room(self.carrier, len).await,
            TrySendError::TooLarge => return Err(Error::Send(SendError::TooLarge { len, len_max: self.len_max })),
            TrySendError::Disconnected => {
                let node = Node { shared: self.shared.clone() };
                let again = Sender::reach(&node, self.peer(), self.channel).await?.placed(self.key);
                *self = Sender { ttl: self.ttl, ..again };
            }
        }
        Ok(())
    }
}

/// Calls `handler` for each message, with a sender back to where it came from.
pub(super) fn handler(node: &Node, channel: ChannelId, handler: impl Fn(DirectMessage, &mut Sender) + Send + Sync + 'static) -> Handler {
    // A handler alone does not keep the node running.
    let shared = Arc::downgrade(&node.shared);
    Arc::new(move |link: &Link, batch: Batch| {
        let Some(shared) = shared.upgrade() else { return };
        // What came on a channel can go back on it.
        let Ok(back) = Sender::over(shared, link.clone(), channel) else { return };
        let mut back = Sender { lane: batch.lane, ..back };
        for payload in batch.bodies {
            handler(DirectMessage { from: batch.peer, channel, payload }, &mut back);
        }
    })
}

fn refused(error: MessageError) -> TrySendError {
    match error {
        MessageError::Refused(..) => TrySendError::Full,
        MessageError::Closed => TrySendError::Disconnected,
    }
}

impl Clone for Sender {
    fn clone(&self) -> Self {
        self.copy().placed(self.key)
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sender({:?}, {:?})", self.peer(), self.channel)
    }
}

/// What all peers send on one channel to this node alone, in batches. At most 4 MiB wait; while nobody takes them, the senders wait.
#[derive(Debug)]
pub struct Receiver {
    channel: ChannelId,
    inbox: Inbox,
    batch: Option<(PeerId, Bodies)>,
}

impl Receiver {
    pub(super) fn new(channel: ChannelId, inbox: Inbox) -> Self {
        Receiver { channel, inbox, batch: None }
    }

    /// The next message; none once the node has stopped or another receiver took the channel over. Safe to cancel.
    ///
    /// Small payloads share memory with others that arrived with them, up to 64 KiB, and larger ones up to the window of their stream, 2 MiB: copy what you keep for long.
    pub async fn recv(&mut self) -> Option<DirectMessage> {
        loop {
            if let Some(message) = self.next_of_batch() {
                return Some(message);
            }
            if let Some(batch) = self.inbox.try_recv() {
                self.begin(batch);
                continue;
            }
            let batch = self.inbox.recv().await?;
            self.begin(batch);
        }
    }

    /// Waits for messages and appends those that are there, at most `max`; their number, which is zero only once the node has stopped or another receiver took the
    /// channel over. Safe to cancel.
    pub async fn recv_many(&mut self, messages: &mut Vec<DirectMessage>, max: usize) -> usize {
        let before = messages.len();
        if max == 0 {
            return 0;
        }
        let Some(first) = self.recv().await else { return 0 };
        messages.push(first);
        while messages.len() - before < max {
            if let Some(message) = self.next_of_batch() {
                messages.push(message);
            } else if let Some(batch) = self.inbox.try_recv() {
                self.begin(batch);
            } else {
                break;
            }
        }
        messages.len() - before
    }

    fn begin(&mut self, batch: Batch) {
        self.batch = Some((batch.peer, batch.bodies));
    }

    fn next_of_batch(&mut self) -> Option<DirectMessage> {
        let (from, bodies) = self.batch.as_mut()?;
        let payload = bodies.next()?;
        Some(DirectMessage { from: *from, channel: self.channel, payload })
    }
}
