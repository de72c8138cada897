//! Messages that go straight from a stream to the application: no loop in between, and many at a time.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::task::{Poll, ready};

use tokio::sync::{Semaphore, mpsc};

use super::batch::Batch;
use super::link::Link;
use super::reading::{Reading, Taken, Waiting};
use super::stream::Listeners;
use crate::channel::ChannelId;

/// Batches that may wait; their bytes are what is bounded.
const BATCHES_MAX: usize = 1_024;

/// What arrives on one channel for whoever took it over, bounded in bytes. While it is full nothing more of the channel is read, and flow control holds the senders.
#[derive(Debug)]
pub struct Inbox {
    queue: mpsc::Receiver<Batch>,
    room: Arc<Semaphore>,
    last: Last,
    bytes_max: u32,
}

/// The stream whose messages came last, while few come together.
type Last = Arc<Mutex<Weak<Reading>>>;

impl Inbox {
    fn last(&self) -> Weak<Reading> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The next messages; `None` when the endpoint is gone or another inbox took the channel over. Safe to cancel.
    pub async fn recv(&mut self) -> Option<Batch> {
        // Where the last ones came from, the next ones are likely to come. Read there, they spare a change of tasks.
        let mut waiting = self.last().upgrade().map(Waiting::at);
        let Inbox { queue, room, .. } = self;
        let taken = poll_fn(|context| {
            let progress = ready!(tokio::task::coop::poll_proceed(context));
            let mut taken = queue.poll_recv(context).map(Taken::Queued);
            if let (Poll::Pending, Some(waiting)) = (&taken, &mut waiting) {
                let is_own = |slot: &Slot| matches!(&slot.taker, Taker::Inbox(inbox) if Arc::ptr_eq(&inbox.room, room));
                taken = waiting.poll(context, |context| queue.poll_recv(context), is_own);
            }
            if taken.is_ready() {
                progress.made_progress();
            }
            taken
        })
        .await;
        match taken {
            Taken::Queued(batch) => Some(self.release(batch?)),
            Taken::Read(batch) => {
                if !batch.is_few() {
                    *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Weak::new();
                }
                Some(batch)
            }
        }
    }

    /// The next messages if there are any now.
    pub fn try_recv(&mut self) -> Option<Batch> {
        let batch = self.queue.try_recv().ok()?;
        Some(self.release(batch))
    }

    fn release(&self, batch: Batch) -> Batch {
        self.room.add_permits(batch.weight.min(self.bytes_max) as usize);
        batch
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        // Whoever waits for room learns that there will be none.
        self.room.close();
    }
}

/// Takes messages where they arrive, on the task that reads their stream: what it takes long for, the stream waits for.
pub type Handler = Arc<dyn Fn(&Link, Batch) + Send + Sync>;

/// Where the messages of a channel go.
#[derive(Clone)]
pub(super) struct Slot {
    /// Frames of this kind are messages.
    pub(super) kind: u16,
    pub(super) taker: Taker,
}

#[derive(Clone)]
pub(super) enum Taker {
    Inbox(InboxSender),
    Handler(Handler),
}

/// The other end of an [`Inbox`].
#[derive(Clone)]
pub(super) struct InboxSender {
    queue: mpsc::Sender<Batch>,
    room: Arc<Semaphore>,
    last: Last,
    bytes_max: u32,
}

impl InboxSender {
    /// Says which stream messages came from, and whether they were few.
    pub(super) fn spoke(&self, reading: &Arc<Reading>, is_few: bool) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_few {
            *last = Weak::new();
        } else if !std::ptr::eq(last.as_ptr(), Arc::as_ptr(reading)) {
            *last = Arc::downgrade(reading);
        }
    }

    /// Waits for room; gives the batch back when nobody listens any more.
    pub(super) async fn send(&self, batch: Batch) -> Result<(), Batch> {
        let weight = batch.weight.min(self.bytes_max);
        let Ok(room) = self.room.acquire_many(weight).await else { return Err(batch) };
        let Ok(place) = self.queue.reserve().await else { return Err(batch) };
        // Only now: a reader that is ended while it waits takes no room along.
        room.forget();
        place.send(batch);
        Ok(())
    }

    /// Gives the batch back when there is no room now or nobody listens any more.
    pub(super) fn try_send(&self, batch: Batch) -> Result<(), Batch> {
        let Ok(room) = self.room.try_acquire_many(batch.weight.min(self.bytes_max)) else { return Err(batch) };
        let Ok(place) = self.queue.try_reserve() else { return Err(batch) };
        room.forget();
        place.send(batch);
        Ok(())
    }
}

/// Who took over which channel.
#[derive(Default)]
pub(super) struct Inboxes {
    slots: RwLock<BTreeMap<ChannelId, Slot>>,
    /// Who takes byte streams.
    pub(super) streams: Listeners,
}

impl Inboxes {
    pub(super) fn take_over(&self, channel: ChannelId, kind: u16, bytes_max: u32) -> Inbox {
        let (sender, queue) = mpsc::channel(BATCHES_MAX);
        let room = Arc::new(Semaphore::new(bytes_max as usize));
        let last = Last::default();
        let inbox = InboxSender { queue: sender, room: room.clone(), last: last.clone(), bytes_max };
        self.replace(channel, Slot { kind, taker: Taker::Inbox(inbox) });
        Inbox { queue, room, last, bytes_max }
    }

    pub(super) fn handle(&self, channel: ChannelId, kind: u16, handler: Handler) {
        self.replace(channel, Slot { kind, taker: Taker::Handler(handler) });
    }

    fn replace(&self, channel: ChannelId, slot: Slot) {
        let before = self.slots.write().unwrap_or_else(PoisonError::into_inner).insert(channel, slot);
        if let Some(Slot { taker: Taker::Inbox(before), .. }) = before {
            // Whoever waits for room there goes on here.
            before.room.close();
        }
    }

    /// Where the messages of a channel go; nowhere but to the driver, unless somebody took it over and still listens.
    pub(super) fn of(&self, channel: ChannelId) -> Option<Slot> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.get(&channel).filter(|slot| !matches!(&slot.taker, Taker::Inbox(inbox) if inbox.room.is_closed())).cloned()
    }
}
