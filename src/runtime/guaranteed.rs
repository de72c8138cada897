//! Guaranteed delivery as the application uses it: receipts for what was sent, and messages that are acknowledged one by one.
//!
//! What arrived waits in an [`Inbox`] that the protocol thread and the application share. It needs no bound of its own: the node hands out only so
//! many messages of each peer that were not acknowledged.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::reliable::Sequence;
use meshwork_channels::{ChannelId, PeerId};
use tokio::sync::{Notify, oneshot};

use super::Error;
use crate::node::{self, SendError, Settlement};

/// Sends that wait for room at once, over all peers, and their bytes.
const WAITING_MAX: usize = 4_096;
const WAITING_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// Tells what became of a message: a future that is ready when the application of the peer acknowledged it, or when it is known that it will not. The
/// message does not depend on it: a receipt may be dropped.
#[derive(Debug)]
pub struct Receipt {
    sequence: Sequence,
    outcome: oneshot::Receiver<Result<(), ReceiptError>>,
}

impl Receipt {
    /// The number of the message among those that this life of the node sends to the peer on the channel. With the incarnation of this node and the channel it
    /// names the message to the receiver.
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }
}

impl Future for Receipt {
    type Output = Result<(), ReceiptError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.outcome).poll(context).map(|outcome| outcome.unwrap_or(Err(ReceiptError::Stopped)))
    }
}

/// Why a message was not acknowledged. Whether it may have arrived is said by each variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptError {
    /// Its time was over before it was sent. It did not arrive.
    Expired,
    /// The peer left the cluster, or was gone for too long.
    Undelivered {
        /// Whether it was sent: then it may have arrived all the same.
        transmitted: bool,
    },
    /// The peer does not have the channel, or has it on other terms, which was not known when the message was kept. It may have arrived if an earlier life of
    /// the peer had the channel.
    Disagreed,
    /// This node has stopped. The message may have arrived.
    Stopped,
}

impl fmt::Display for ReceiptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReceiptError::Expired => "the time of the message was over before it could be sent",
            ReceiptError::Undelivered { transmitted: false } => "the peer is gone; the message was never sent",
            ReceiptError::Undelivered { transmitted: true } => "the peer is gone; the message was sent and not acknowledged",
            ReceiptError::Disagreed => "the peer does not have the channel, or has it on other terms",
            ReceiptError::Stopped => "the node has stopped",
        })
    }
}

impl std::error::Error for ReceiptError {}

/// The messages of guaranteed delivery that other nodes sent to this one, in order for each sender and channel; on channels of
/// [`Reliability::AtLeastOnce`](meshwork_channels::channel::Reliability::AtLeastOnce) in order unless something had to be sent again.
///
/// There is one such stream in a node: a later one takes over from an earlier one, with everything that was not acknowledged and is not in the hands of the
/// application. While nobody takes them, messages wait, and so do their senders.
#[derive(Debug)]
pub struct GuaranteedMessages {
    inbox: Arc<Inbox>,
    turn: u64,
}

impl GuaranteedMessages {
    /// The next message; none once the node has stopped or somebody else took over. Safe to cancel.
    pub async fn next(&mut self) -> Option<GuaranteedMessage> {
        loop {
            let mut arrived = pin!(self.inbox.arrived.notified());
            arrived.as_mut().enable();
            {
                let mut waiting = self.inbox.waiting();
                if waiting.is_closed || waiting.turn != self.turn {
                    return None;
                }
                if let Some(content) = waiting.contents.pop_front() {
                    return Some(GuaranteedMessage { content: Some(content), inbox: self.inbox.clone() });
                }
            }
            arrived.await;
        }
    }
}

/// A message of guaranteed delivery. It counts as taken when [`GuaranteedMessage::acknowledge`] is called, and only then: do so after its effect is there to
/// stay.
///
/// Dropped without that, it is handed out again, before later ones of its sender and channel that were not handed out yet. If the process dies before, the next one gets it
/// from its sender, under the same incarnation and sequence: whoever remembers those of what it did does nothing twice.
pub struct GuaranteedMessage {
    /// There until it is acknowledged or dropped.
    content: Option<Content>,
    inbox: Arc<Inbox>,
}

impl GuaranteedMessage {
    /// Who sent it.
    pub fn from(&self) -> PeerId {
        self.content().from
    }

    /// On which channel.
    pub fn channel(&self) -> ChannelId {
        self.content().channel
    }

    /// Which life of the sender sent it: a later start has a larger number.
    pub fn incarnation(&self) -> u64 {
        self.content().incarnation
    }

    /// Its number among those that this life of the sender sent here on this channel. Numbers ascend, with gaps where messages expired.
    pub fn sequence(&self) -> Sequence {
        self.content().sequence
    }

    /// The bytes.
    pub fn payload(&self) -> &Bytes {
        &self.content().payload
    }

    /// Says that the message has had its effect: it is not delivered again, and the sender learns of it. An acknowledgment is lost when this node stops before it is sent;
    /// then the next life of this node gets the message again.
    pub fn acknowledge(mut self) {
        if let Some(content) = self.content.take() {
            let Content { from, channel, incarnation, sequence, .. } = content;
            let mut waiting = self.inbox.waiting();
            if !waiting.is_closed {
                waiting.taken.push(node::Input::Taken { from, incarnation, channel, sequence });
                drop(waiting);
                self.inbox.taken.notify_one();
            }
        }
    }

    fn content(&self) -> &Content {
        self.content.as_ref().expect("it is taken out only where the message ends")
    }
}

impl Drop for GuaranteedMessage {
    fn drop(&mut self) {
        if let Some(content) = self.content.take() {
            self.inbox.give_back(content);
        }
    }
}

impl fmt::Debug for GuaranteedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Content { from, channel, incarnation, sequence, payload } = self.content();
        write!(f, "GuaranteedMessage({from:?} life {incarnation}, {channel} {sequence}, {} bytes)", payload.len())
    }
}

/// What a message is.
pub(super) struct Content {
    pub(super) from: PeerId,
    pub(super) channel: ChannelId,
    pub(super) incarnation: u64,
    pub(super) sequence: Sequence,
    pub(super) payload: Bytes,
}

impl Content {
    fn lane(&self) -> (PeerId, ChannelId, u64) {
        (self.from, self.channel, self.incarnation)
    }
}

/// What arrived, between the protocol thread and the application.
#[derive(Default)]
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    /// Something was acknowledged.
    taken: Notify,
}

#[derive(Default)]
struct Waiting {
    contents: VecDeque<Content>,
    /// For the node; not more than it handed out.
    taken: Vec<node::Input>,
    /// Whose stream is served.
    turn: u64,
    is_closed: bool,
}

impl Inbox {
    /// A stream that takes over.
    pub(super) fn take_over(self: &Arc<Self>) -> GuaranteedMessages {
        let mut waiting = self.waiting();
        waiting.turn += 1;
        let turn = waiting.turn;
        drop(waiting);
        self.arrived.notify_waiters();
        GuaranteedMessages { inbox: self.clone(), turn }
    }

    pub(super) fn push(&self, content: Content) {
        self.waiting().contents.push_back(content);
        self.arrived.notify_waiters();
    }

    /// Ends when something was acknowledged since the last time.
    pub(super) async fn acknowledged(&self) {
        self.taken.notified().await;
    }

    pub(super) fn drain_taken(&self) -> Vec<node::Input> {
        std::mem::take(&mut self.waiting().taken)
    }

    /// The node has stopped.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting();
        waiting.is_closed = true;
        waiting.contents.clear();
        waiting.taken.clear();
        drop(waiting);
        self.arrived.notify_waiters();
    }

    /// Puts a message back before the later ones of its lane.
    fn give_back(&self, content: Content) {
        let mut waiting = self.waiting();
        if waiting.is_closed {
            return;
        }
        let is_later = |other: &Content| other.lane() == content.lane() && other.sequence > content.sequence;
        match waiting.contents.iter().position(is_later) {
            Some(place) => waiting.contents.insert(place, content),
            None => waiting.contents.push_back(content),
        }
        drop(waiting);
        self.arrived.notify_waiters();
    }

    /// Never held across a wait, and nothing that is done under it can panic halfway.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The side of the protocol thread: when it ends, however it does, nobody waits any more.
pub(super) struct Owned(pub(super) Arc<Inbox>);

impl std::ops::Deref for Owned {
    type Target = Inbox;

    fn deref(&self) -> &Inbox {
        &self.0
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("waiting", &self.waiting().contents.len()).finish()
    }
}

/// A send that the application asked for.
pub(crate) struct GuaranteedSend {
    pub(crate) to: PeerId,
    pub(crate) channel: ChannelId,
    pub(crate) payload: Bytes,
    pub(crate) ttl: Option<Duration>,
    pub(crate) reply: oneshot::Sender<Result<Receipt, Error>>,
}

/// Who waits for what became of a message.
type Expected = VecDeque<(Sequence, oneshot::Sender<Result<(), ReceiptError>>)>;

/// The receipts that are open, and the sends that wait for room. Belongs to the protocol thread.
#[derive(Default)]
pub(super) struct Outbox {
    receipts: BTreeMap<(PeerId, ChannelId), Expected>,
    waiting: BTreeMap<(PeerId, ChannelId), VecDeque<GuaranteedSend>>,
    waiting_len: usize,
    waiting_bytes: usize,
    /// Peers to which something was settled since their sends were tried last.
    roomy: Vec<PeerId>,
}

impl Outbox {
    /// Queues a send behind others to the same peer and channel; refused, it is answered.
    pub(super) fn wait(&mut self, send: GuaranteedSend) {
        if self.waiting_len >= WAITING_MAX || self.waiting_bytes + send.payload.len() > WAITING_BYTES_MAX {
            let _ = send.reply.send(Err(Error::Send(SendError::Full)));
            return;
        }
        self.waiting_len += 1;
        self.waiting_bytes += send.payload.len();
        self.waiting.entry((send.to, send.channel)).or_default().push_back(send);
    }

    /// Whether others wait already, so that a send would overtake them.
    pub(super) fn is_waiting(&self, to: PeerId, channel: ChannelId) -> bool {
        self.waiting.contains_key(&(to, channel))
    }

    fn take(&mut self, key: (PeerId, ChannelId)) -> Option<VecDeque<GuaranteedSend>> {
        let sends = self.waiting.remove(&key)?;
        self.waiting_len -= sends.len();
        self.waiting_bytes -= sends.iter().map(|send| send.payload.len()).sum::<usize>();
        Some(sends)
    }

    /// The channels of a peer on which sends may find room now.
    pub(super) fn take_roomy(&mut self) -> Vec<VecDeque<GuaranteedSend>> {
        let mut taken = Vec::new();
        for peer in std::mem::take(&mut self.roomy) {
            let keys: Vec<_> = self.waiting.range((peer, ChannelId(0))..=(peer, ChannelId(u16::MAX))).map(|(key, _)| *key).collect();
            taken.extend(keys.into_iter().filter_map(|key| self.take(key)));
        }
        taken
    }

    /// A receipt for a message that the node took.
    pub(super) fn expect(&mut self, to: PeerId, channel: ChannelId, sequence: Sequence) -> Receipt {
        let (sender, outcome) = oneshot::channel();
        self.receipts.entry((to, channel)).or_default().push_back((sequence, sender));
        Receipt { sequence, outcome }
    }

    /// Tells whoever waits.
    pub(super) fn settle(&mut self, to: PeerId, channel: ChannelId, sequence: Sequence, outcome: &Settlement) {
        if !self.roomy.contains(&to) {
            self.roomy.push(to);
        }
        let Some(expected) = self.receipts.get_mut(&(to, channel)) else { return };
        let error = match outcome {
            Settlement::Taken => {
                while let Some((_, sender)) = expected.pop_front_if(|(number, _)| *number <= sequence) {
                    // Whoever asked may have gone away.
                    let _ = sender.send(Ok(()));
                }
                None
            }
            Settlement::Expired => Some(ReceiptError::Expired),
            Settlement::Disagreed { .. } => Some(ReceiptError::Disagreed),
            Settlement::Undelivered { transmitted, .. } => Some(ReceiptError::Undelivered { transmitted: *transmitted }),
        };
        if let Some(error) = error
            && let Ok(place) = expected.binary_search_by_key(&sequence, |(number, _)| *number)
            && let Some((_, sender)) = expected.remove(place)
        {
            let _ = sender.send(Err(error));
        }
        if expected.is_empty() {
            self.receipts.remove(&(to, channel));
        }
    }
}
