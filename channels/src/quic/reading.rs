//! One stream of frames while it is read: by its task, or by whoever waits for the messages of its channel.
//!
//! A task for each stream finds frames as they arrive and hands them on. Where a receiver waits for them, that hand-over is a change of tasks for each message that comes
//! alone, and often one of threads. So whoever waits in [`Inbox::recv`](super::inbox::Inbox::recv) and finds nothing there can be woken in the place of the task, and reads the stream itself.
//!
//! Invariants:
//!
//! - Messages keep their order: nobody reads while the task holds something that it has not handed on, and a receiver looks into its queue once more when it has the stream.
//! - Something that arrives wakes somebody who reads it. A receiver that was woken and does not read wakes the task; whoever read either finds nothing more, and is then woken by what
//!   follows, or wakes the task.
//! - A receiver takes messages alone. What else it finds it leaves to the task.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::Bytes;
use quinn::{ReadError, RecvStream};

use super::batch::{Batch, Bodies};
use super::inbox::Slot;
use super::link::{CREDIT, Inner, frame_bytes_max};
use super::reader::Fault;
use crate::channel::{ChannelId, Reliability};
use crate::compress::{self, COMPRESSED};
use crate::error::DecodeError;
use crate::frame::{Decoder, Frame, Preamble};

/// Pieces of a stream that are taken at once, each of one packet at most: about what a stream may send without an answer on a fast link.
const CHUNKS_MAX: usize = 32;

/// Bytes of messages that are told together: compressed ones may be many times what came.
const BATCH_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// Frames that are told together in one piece of memory of their own. What they came in may be much larger: QUIC keeps what was received at once in one piece, and joins what waits for long,
/// so that a message which is kept, or that waits for somebody to take it, would hold what is none of it.
const RUN_BYTES_MAX: usize = 64 * 1_024;

/// Bodies up to this size may be slices of a received batch of packets, which a kept body of a few bytes would keep whole. Copying them
/// makes what an event holds what it counts. Larger ones span packets, so the decoder has copied them together.
const COPIED_BYTES_MAX: usize = 8 * 1_024;

/// A stream whose preamble was read and whose turn it is.
pub(super) struct Reading {
    pub(super) link: Arc<Inner>,
    pub(super) preamble: Preamble,
    /// The channel keeps the latest: its sender wants to know what was taken.
    is_latest: bool,
    /// Bytes of a message that was sent compressed.
    opened_bytes_max: usize,
    source: Mutex<Source>,
    bell: Arc<Bell>,
}

/// What reading has found.
pub(super) enum Found {
    /// Messages for whoever took the channel over.
    Messages(Slot, Batch),
    /// A frame for the owner of the endpoint.
    Frame(Frame),
    /// The stream is over.
    End(Result<(), Fault>),
}

struct Source {
    stream: RecvStream,
    decoder: Decoder,
    // What arrived together is told together: each time that somebody is woken for it costs as much as hundreds of small messages.
    // Lanes that carry little have room for little: there are many of them.
    chunks: Vec<Bytes>,
    arrived: usize,
    taken: usize,
    /// Messages that are not told yet, and to whom they will be.
    gathered: Option<(Slot, Bodies)>,
    /// In how many blocks messages were told last time: the next time it will be about as many.
    usual: usize,
    /// Why no more frames can be found.
    fault: Option<DecodeError>,
    /// Frames were taken that the sender does not know of.
    is_credit_due: bool,
    /// What a receiver found and left to the task.
    left: Option<Found>,
    /// The task has not handed on what it found.
    is_held: bool,
}

/// Who is woken when something arrives.
#[derive(Default)]
struct Bell(Mutex<Listeners>);

#[derive(Default)]
struct Listeners {
    task: Option<Waker>,
    /// Whoever waits for messages; it goes before the task.
    receiver: Option<Waker>,
}

impl Bell {
    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_task(&self) {
        let task = self.listeners().task.clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let mut listeners = self.listeners();
        let woken = listeners.receiver.take().or_else(|| listeners.task.clone());
        drop(listeners);
        if let Some(woken) = woken {
            woken.wake();
        }
    }
}

impl Reading {
    pub(super) fn new(link: Arc<Inner>, preamble: Preamble, stream: RecvStream, decoder: Decoder) -> Self {
        let spec = link.params.channel(preamble.channel);
        let is_latest = spec.is_some_and(|spec| spec.reliability == Reliability::Latest);
        let opened_bytes_max = spec.map_or(0, frame_bytes_max);
        let source = Source {
            stream,
            decoder,
            chunks: vec![Bytes::new(); 2],
            arrived: 0,
            taken: 0,
            gathered: None,
            usual: 0,
            fault: None,
            is_credit_due: false,
            left: None,
            is_held: false,
        };
        Reading { link, preamble, is_latest, opened_bytes_max, source: Mutex::new(source), bell: Arc::default() }
    }

    /// What the task goes on with.
    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<Found> {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut listeners = self.bell.listeners();
            if !listeners.task.as_ref().is_some_and(|task| task.will_wake(context.waker())) {
                listeners.task = Some(context.waker().clone());
            }
        }
        source.is_held = false;
        let found = ready!(source.poll(self, &mut Context::from_waker(&Waker::from(self.bell.clone()))));
        source.is_held = true;
        Poll::Ready(found)
    }
}

impl Source {
    fn poll(&mut self, reading: &Reading, context: &mut Context<'_>) -> Poll<Found> {
        loop {
            if let Some(found) = self.left.take().or_else(|| self.decode(reading)) {
                return Poll::Ready(found);
            }
            ready!(self.poll_more(reading, context));
        }
    }

    /// Finds the next in what has arrived; `None` when that was all.
    fn decode(&mut self, reading: &Reading) -> Option<Found> {
        let (link, Preamble { channel, lane, .. }) = (&reading.link, reading.preamble);
        let (mut slot, mut bodies) = match self.gathered.take() {
            Some((slot, bodies)) => (Some(slot), bodies),
            None => (None, Bodies::default()),
        };
        // Who takes the messages is looked up when there is one.
        let mut is_known = slot.is_some();
        let (mut frames, mut bytes) = (0, 0);
        let mut found = None;
        'told: while self.fault.is_none() {
            loop {
                if !is_known && self.decoder.held_bytes() > 0 {
                    is_known = true;
                    slot = link.inboxes.of(channel);
                    bodies.reserve(if slot.is_some() { self.usual } else { 0 });
                }
                if let Some(slot) = &slot {
                    let (mut run_frames, mut run_bytes) = (0, 0);
                    let run = self.decoder.run(slot.kind, RUN_BYTES_MAX, |body_len| {
                        run_frames += 1;
                        run_bytes += body_len;
                    });
                    if run_frames > 0 {
                        frames += run_frames as u64;
                        bytes += run_bytes as u64;
                        bodies.push_run(Bytes::copy_from_slice(&run), run_frames, run_bytes);
                        if bodies.bytes() > BATCH_BYTES_MAX {
                            break 'told;
                        }
                        continue;
                    }
                }
                let Frame { kind, body } = match self.decoder.next() {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break,
                    Err(error) => {
                        self.fault = Some(error);
                        break 'told;
                    }
                };
                frames += 1;
                bytes += body.len() as u64;
                if kind == CREDIT && channel == ChannelId::CONTROL {
                    if let Err(error) = link.on_credit(&body) {
                        self.fault = Some(error);
                        break 'told;
                    }
                    continue;
                }
                let (kind, body) = match kind {
                    COMPRESSED => match compress::unpack(&body, reading.opened_bytes_max) {
                        Ok(frame) => frame,
                        Err(error) => {
                            self.fault = Some(error);
                            break 'told;
                        }
                    },
                    kind => (kind, body),
                };
                if slot.as_ref().is_some_and(|slot| slot.kind == kind) {
                    bodies.push(body);
                    if bodies.bytes() > BATCH_BYTES_MAX {
                        break 'told;
                    }
                    continue;
                }
                let body = if body.len() <= COPIED_BYTES_MAX { Bytes::copy_from_slice(&body) } else { body };
                found = Some(Found::Frame(Frame { kind, body }));
                break 'told;
            }
            let Some(chunk) = self.chunks[..self.arrived].get_mut(self.taken) else { break };
            self.decoder.push(std::mem::take(chunk));
            self.taken += 1;
        }
        if frames > 0 {
            self.is_credit_due = true;
            link.received.count(&link.params, channel, lane, frames, bytes);
        }
        match (found, slot) {
            (Some(found), Some(slot)) if bodies.len() > 0 => {
                self.gathered = Some((slot, bodies));
                Some(found)
            }
            (Some(found), _) => Some(found),
            (None, Some(slot)) if bodies.len() > 0 => {
                self.usual = bodies.blocks();
                Some(Found::Messages(slot, Batch::new(link.peer, link.incarnation, lane, bodies)))
            }
            _ => self.fault.map(|error| Found::End(Err(Fault::Undecodable(error)))),
        }
    }

    /// Takes what has arrived. To be called when all that arrived before was handed on.
    fn poll_more(&mut self, reading: &Reading, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::take(&mut self.is_credit_due) && reading.is_latest {
            reading.link.give_credit(reading.preamble.channel);
        }
        // Nothing is lost when the attempt is dropped, and the stream wakes the bell whatever became of it.
        let read = pin!(self.stream.read_chunks(&mut self.chunks)).poll(context);
        match ready!(read) {
            Ok(Some(count)) => {
                (self.arrived, self.taken) = (count, 0);
                if count == self.chunks.len() {
                    self.chunks.resize(CHUNKS_MAX, Bytes::new());
                }
            }
            Ok(None) if self.decoder.held_bytes() == 0 => self.left = Some(Found::End(Ok(()))),
            // Its own writers end what they began: the order of the lane has a hole.
            Ok(None) | Err(ReadError::Reset(_)) => self.left = Some(Found::End(Err(Fault::Undecodable(DecodeError::Truncated)))),
            // What was whole has been reported.
            Err(_) => self.left = Some(Found::End(Err(Fault::Lost))),
        }
        Poll::Ready(())
    }
}

/// Somebody who waits for messages and is woken in the place of the task that reads them, until this is dropped.
pub(super) struct Waiting {
    reading: Arc<Reading>,
    /// Its waker was left at the bell, and not taken back.
    is_listening: bool,
}

impl Waiting {
    pub(super) fn at(reading: Arc<Reading>) -> Self {
        Waiting { reading, is_listening: false }
    }

    /// Messages that have arrived on the stream: those that `queued` finds, which came first, or else those in the stream. Whoever waits is woken for more.
    /// `is_own` says whether messages are for whoever waits.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        queued: impl FnOnce(&mut Context<'_>) -> Poll<Option<Batch>>,
        is_own: impl FnOnce(&Slot) -> bool,
    ) -> Poll<Taken> {
        {
            let mut listeners = self.reading.bell.listeners();
            if !self.is_listening || listeners.receiver.is_some() {
                self.is_listening = true;
                listeners.receiver = Some(context.waker().clone());
                return Poll::Pending;
            }
        }
        // Something has arrived. From here on it must be read, or the task be woken for it.
        self.is_listening = false;
        let reading = self.reading.clone();
        let mut source = match reading.source.try_lock() {
            Ok(source) => source,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                reading.bell.wake_task();
                return Poll::Pending;
            }
        };
        if source.is_held || source.left.is_some() {
            reading.bell.wake_task();
            return Poll::Pending;
        }
        if let Poll::Ready(batch) = queued(context) {
            reading.bell.wake_task();
            return Poll::Ready(Taken::Queued(batch));
        }
        let bell = Waker::from(reading.bell.clone());
        let mut on_bell = Context::from_waker(&bell);
        match source.poll(&reading, &mut on_bell) {
            Poll::Ready(Found::Messages(slot, batch)) if is_own(&slot) => {
                // Nobody is woken for what follows unless nothing is there now.
                if source.decoder.held_bytes() > 0
                    || source.taken < source.arrived
                    || source.fault.is_some()
                    || source.poll_more(&reading, &mut on_bell).is_ready()
                {
                    reading.bell.wake_task();
                }
                Poll::Ready(Taken::Read(batch))
            }
            Poll::Ready(other) => {
                source.left = Some(other);
                reading.bell.wake_task();
                Poll::Pending
            }
            Poll::Pending => {
                // The task was quicker, or it is a part of a message. What follows is for whoever waits.
                self.is_listening = true;
                reading.bell.listeners().receiver = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Where messages came from.
pub(super) enum Taken {
    /// From the queue; none when it is closed.
    Queued(Option<Batch>),
    /// From the stream.
    Read(Batch),
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Was woken, and will not read.
        if self.is_listening && self.reading.bell.listeners().receiver.take().is_none() {
            self.reading.bell.wake_task();
        }
    }
}
