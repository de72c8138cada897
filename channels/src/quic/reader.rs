//! The receiving half of a connection: one task for each stream, one for datagrams. How a stream of frames is read, and by whom, stands in `reading`.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quinn::{RecvStream, VarInt};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::batch::{Batch, Bodies};
use super::close::{CloseReason, stop};
use super::event::{Event, NobodyListens, Outlet};
use super::inbox::{Handler, Slot, Taker};
use super::link::{DATAGRAM_HEAD_BYTES, DATAGRAM_MESSAGES, Inner, Link, frame_bytes_max};
use super::reading::{Found, Reading};
use crate::channel::{ChannelId, Class, Path, Reliability};
use crate::error::{DecodeError, Misbehavior};
use crate::frame::{Decoder, Frame, Preamble};
use crate::limits;

/// What one read takes from a stream.
const READ_BYTES_MAX: usize = 64 * 1_024;

/// Streams that a peer may open in vain before that is misbehavior.
pub(super) const REFUSED_STREAMS_MAX: u32 = 1_024;

/// Whose turn it is: the streams of a lane are read one after the other, in the order of their numbers, on whatever connection they come.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    lanes: Mutex<Lanes>,
    moved_on: Notify,
}

#[derive(Debug, Default)]
struct Lanes {
    turns: BTreeMap<(ChannelId, u8), Turn>,
    /// Those who may still bring a waiting stream its turn: readers that do not wait for theirs, and loops that accept streams.
    busy: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    /// The number of the stream that is read, or is read next.
    number: u32,
    is_reading: bool,
    /// Which streams ahead wait: bit `n` stands for the one with the number `number + n`.
    ahead: u32,
}

impl Arrivals {
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when every stream that is left waits for one that cannot come any more.
    pub(super) async fn stuck(&self) {
        loop {
            let mut moved_on = pin!(self.moved_on.notified());
            moved_on.as_mut().enable();
            if self.lanes().busy == 0 {
                return;
            }
            moved_on.await;
        }
    }
}

/// Somebody who may bring waiting streams their turn; made before its task, so that none is overlooked.
pub(super) struct Place {
    link: Arc<Inner>,
    /// The stream whose turn it waits for.
    waiting: Option<Preamble>,
}

impl Place {
    pub(super) fn of(link: Arc<Inner>) -> Self {
        link.arrivals.lanes().busy += 1;
        Place { link, waiting: None }
    }

    /// Waits for the turn of a stream. An error is the code to stop it with.
    async fn begin(&mut self, preamble: Preamble) -> Result<(), VarInt> {
        let link = self.link.clone();
        loop {
            let mut moved_on = pin!(link.arrivals.moved_on.notified());
            moved_on.as_mut().enable();
            {
                let mut lanes = link.arrivals.lanes();
                let turn = lanes.turns.entry((preamble.channel, preamble.lane)).or_default();
                let ahead = preamble.number.wrapping_sub(turn.number);
                if self.waiting.is_some() {
                    if ahead == 0 {
                        // Whoever read the one before has handed the turn over.
                        self.waiting = None;
                        return Ok(());
                    }
                } else {
                    match ahead {
                        0 if !turn.is_reading => {
                            turn.is_reading = true;
                            return Ok(());
                        }
                        1..=limits::STREAMS_AHEAD_MAX if turn.ahead & (1 << ahead) == 0 => turn.ahead |= 1 << ahead,
                        _ => return Err(stop::DUPLICATE),
                    }
                    self.waiting = Some(preamble);
                    lanes.busy -= 1;
                    if lanes.busy == 0 {
                        link.arrivals.moved_on.notify_waiters();
                        // Which has consumed what was enabled above, and nothing has changed for this one.
                        continue;
                    }
                }
            }
            moved_on.await;
        }
    }

    /// The stream was read to its end: the next one of its lane is.
    fn end(&self, preamble: Preamble) {
        let mut lanes = self.link.arrivals.lanes();
        let turn = lanes.turns.entry((preamble.channel, preamble.lane)).or_default();
        let ahead = turn.ahead >> 1;
        // The turn is handed over here, so that the one who waits counts as busy from now on.
        let is_handed = ahead & 1 == 1;
        *turn = Turn { number: preamble.number.wrapping_add(1), is_reading: is_handed, ahead: ahead & !1 };
        lanes.busy += usize::from(is_handed);
        drop(lanes);
        self.link.arrivals.moved_on.notify_waiters();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lanes = self.link.arrivals.lanes();
        if let Some(preamble) = self.waiting {
            let turn = lanes.turns.entry((preamble.channel, preamble.lane)).or_default();
            let ahead = preamble.number.wrapping_sub(turn.number);
            if ahead != 0 {
                turn.ahead &= !1_u32.checked_shl(ahead).unwrap_or(0);
                return;
            }
        }
        lanes.busy -= 1;
        if lanes.busy == 0 {
            drop(lanes);
            self.link.arrivals.moved_on.notify_waiters();
        }
    }
}

/// Waits until the streams of a connection that is over have been read, or wait for others in vain.
pub(super) async fn read_the_rest(readers: &mut JoinSet<StreamEnd>, link: &Inner) {
    tokio::select! {
        () = async { while readers.join_next().await.is_some() {} } => {}
        () = link.arrivals.stuck() => {}
    }
    readers.shutdown().await;
}

/// How the reading of one stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// It was read to its end, or the connection is gone.
    Over,
    /// It was stopped: its channel is unknown, or has a stream already.
    Refused,
}

/// Reads one stream to its end and reports its frames. Waits while the owner is behind; then flow control makes the peer wait.
pub(super) async fn read_stream(mut stream: RecvStream, path: Path, mut place: Place, outlet: Outlet) -> StreamEnd {
    let link = place.link.clone();
    // Nothing but the preamble is read under this limit.
    let mut decoder = Decoder::new(0);
    let preamble = match preamble(&mut stream, &mut decoder).await {
        Ok(Some(preamble)) => preamble,
        Ok(None) => return StreamEnd::Over,
        Err(error) => {
            link.end(CloseReason::Misbehaved(Misbehavior::Undecodable(error)));
            return StreamEnd::Over;
        }
    };
    let refused = match link.params.channel(preamble.channel) {
        // What keeps the cluster together never waits behind bulk; other channels come where their sender has them.
        Some(spec) if path == Path::Bulk && spec.class == Class::Control => {
            link.end(CloseReason::Misbehaved(Misbehavior::WrongChannel));
            return StreamEnd::Over;
        }
        Some(spec) if preamble.lane < spec.lanes && link.is_agreed(spec) => {
            decoder.set_frame_bytes_max(frame_bytes_max(spec));
            place.begin(preamble).await.err()
        }
        _ => Some(stop::UNKNOWN_CHANNEL),
    };
    if let Some(code) = refused {
        tracing::debug!(peer = %link.peer.short(), ?preamble, %code, "stopped a stream");
        let _ = stream.stop(code);
        return StreamEnd::Refused;
    }
    let reading = Arc::new(Reading::new(link.clone(), preamble, stream, decoder));
    match read_frames(&reading, &outlet).await {
        Ok(()) => place.end(preamble),
        // The next stream of the lane must not be taken for what followed.
        Err(Fault::NobodyListens | Fault::Lost) => {}
        Err(Fault::Undecodable(error)) => link.end(CloseReason::Misbehaved(Misbehavior::Undecodable(error))),
    }
    StreamEnd::Over
}

#[derive(Clone, Copy)]
pub(super) enum Fault {
    Undecodable(DecodeError),
    NobodyListens,
    /// The connection is gone.
    Lost,
}

impl From<NobodyListens> for Fault {
    fn from(_: NobodyListens) -> Self {
        Fault::NobodyListens
    }
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        Fault::Undecodable(error)
    }
}

/// What a stream begins with; `None` when the stream ended before it said.
async fn preamble(stream: &mut RecvStream, decoder: &mut Decoder) -> Result<Option<Preamble>, DecodeError> {
    loop {
        match stream.read_chunk(READ_BYTES_MAX, true).await {
            Ok(Some(chunk)) => decoder.push(chunk.bytes),
            Ok(None) | Err(_) => return Ok(None),
        }
        if let Some(preamble) = decoder.preamble()? {
            return Ok(Some(preamble));
        }
    }
}

async fn read_frames(reading: &Arc<Reading>, outlet: &Outlet) -> Result<(), Fault> {
    let (link, channel) = (&reading.link, reading.preamble.channel);
    loop {
        match poll_fn(|context| reading.poll(context)).await {
            Found::Messages(slot, batch) => match deliver_now(slot, batch, reading) {
                // One who takes everything at once must not keep others from their turn.
                None => tokio::task::coop::consume_budget().await,
                // Apart, for it is rare: every reader would hold the place for it as long as its stream lives.
                Some((slot, batch)) => Box::pin(deliver_or_lose(slot, batch, channel, link, outlet)).await?,
            },
            Found::Frame(frame) => outlet.send(Event::Frame { connection: link.id, channel, frame }).await?,
            Found::End(end) => return end,
        }
    }
}

/// Hands messages to who takes those of their channel; gives them back where that takes a wait.
fn deliver_now(slot: Slot, batch: Batch, reading: &Arc<Reading>) -> Option<(Slot, Batch)> {
    match &slot.taker {
        Taker::Inbox(inbox) => {
            let is_few = batch.is_few();
            match inbox.try_send(batch) {
                Ok(()) => {
                    inbox.spoke(reading, is_few);
                    None
                }
                Err(batch) => Some((slot, batch)),
            }
        }
        Taker::Handler(handler) => {
            call(handler, &reading.link, reading.preamble.channel, batch);
            None
        }
    }
}

async fn deliver_or_lose(slot: Slot, batch: Batch, channel: ChannelId, link: &Arc<Inner>, outlet: &Outlet) -> Result<(), Fault> {
    tokio::select! {
        biased;
        delivered = deliver(slot, batch, channel, link, outlet) => Ok(delivered?),
        // An application that takes nothing shall not keep the end of a connection from those who must know of it.
        () = abandoned(link) => Err(Fault::Lost),
    }
}

/// Hands messages to the inbox of their channel, or to the next one that takes it over; when nobody listens there any more they go where they would have
/// gone without.
async fn deliver(mut slot: Slot, mut batch: Batch, channel: ChannelId, link: &Arc<Inner>, outlet: &Outlet) -> Result<(), NobodyListens> {
    let kind = slot.kind;
    loop {
        match &slot.taker {
            Taker::Inbox(inbox) => match inbox.send(batch).await {
                Ok(()) => return Ok(()),
                Err(refused) => batch = refused,
            },
            Taker::Handler(handler) => {
                call(handler, link, channel, batch);
                return Ok(());
            }
        }
        match link.inboxes.of(channel) {
            Some(next) if next.kind == kind => slot = next,
            _ => break,
        }
    }
    for body in batch.bodies {
        let frame = Frame { kind, body: Bytes::copy_from_slice(&body) };
        outlet.send(Event::Frame { connection: link.id, channel, frame }).await?;
    }
    Ok(())
}

/// Calls a handler of the application, which may panic.
fn call(handler: &Handler, link: &Arc<Inner>, channel: ChannelId, batch: Batch) {
    if catch_unwind(AssertUnwindSafe(|| handler(&Link(link.clone()), batch))).is_err() {
        tracing::error!(peer = %link.peer.short(), ?channel, "a handler of messages panicked; the rest of the batch is lost");
    }
}

/// Ends some time after the connection.
async fn abandoned(link: &Inner) {
    link.connection.closed().await;
    tokio::time::sleep(limits::IDLE_TIMEOUT).await;
}

/// Hands out the messages of a datagram. What finds no room is dropped: datagrams wait for nobody.
async fn read_messages(mut datagram: Bytes, link: &Arc<Inner>, outlet: &Outlet) -> Result<(), Fault> {
    let head = datagram.get(1..DATAGRAM_HEAD_BYTES).and_then(|head| <[u8; 2]>::try_from(head).ok()).ok_or(DecodeError::Truncated)?;
    let channel = ChannelId(u16::from_be_bytes(head));
    let spec = link.params.channel(channel).filter(|spec| spec.reliability == Reliability::BestEffort && link.is_agreed(spec));
    if spec.is_none() {
        link.datagrams_refused.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    }
    let mut decoder = Decoder::new(limits::DATAGRAM_BYTES_MAX);
    decoder.push(datagram.split_off(DATAGRAM_HEAD_BYTES));
    let slot = link.inboxes.of(channel);
    let (mut bodies, mut frames, mut bytes) = (Bodies::default(), 0, 0);
    while let Some(Frame { kind, body }) = decoder.next()? {
        frames += 1;
        bytes += body.len() as u64;
        if slot.as_ref().is_some_and(|slot| slot.kind == kind) {
            bodies.push(body);
        } else {
            outlet.send(Event::Frame { connection: link.id, channel, frame: Frame { kind, body } }).await?;
        }
    }
    if decoder.held_bytes() > 0 {
        return Err(Fault::Undecodable(DecodeError::Truncated));
    }
    link.received.count(&link.params, channel, 0, frames, bytes);
    if let Some(slot) = slot {
        let batch = Batch::new(link.peer, link.incarnation, 0, bodies);
        match &slot.taker {
            Taker::Inbox(inbox) => {
                if let Err(batch) = inbox.try_send(batch) {
                    link.received.count_dropped(&link.params, channel, batch.bodies.len() as u64);
                }
            }
            Taker::Handler(handler) => call(handler, link, channel, batch),
        }
    }
    Ok(())
}

/// Reports datagrams until the connection ends. While the owner is behind, the oldest ones are dropped.
pub(super) async fn read_datagrams(link: Arc<Inner>, outlet: Outlet) {
    while let Ok(bytes) = link.connection.read_datagram().await {
        if bytes.len() > limits::DATAGRAM_BYTES_MAX {
            link.datagrams_refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let bytes = Bytes::copy_from_slice(&bytes);
        if bytes.first() == Some(&DATAGRAM_MESSAGES) {
            match read_messages(bytes, &link, &outlet).await {
                Ok(()) => continue,
                Err(Fault::Undecodable(error)) => return link.end(CloseReason::Misbehaved(Misbehavior::Undecodable(error))),
                Err(Fault::NobodyListens | Fault::Lost) => return,
            }
        }
        if outlet.send(Event::Datagram { connection: link.id, bytes }).await.is_err() {
            return;
        }
    }
}
