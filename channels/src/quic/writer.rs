//! The sending half of a connection: one [`Writer`] owns every outgoing stream, and one task drives it. When nothing has happened for a while, a sender of a
//! message drives it too: waking the task would take longer than what the task does.
//!
//! There is one stream for each lane of a channel, opened with its first frame and kept as long as the connection carries the channel: when a second connection is
//! opened for bulk, the streams of those channels end here and go on there under the next number.
//! The task takes frames from the [`sender`](crate::sender)
//! in the order that it decides, at most some 64 KiB ahead for each stream, and offers them to all streams in the same turn: a stream that
//! takes nothing holds back its own channel only. Small frames of channels of best effort leave in datagrams, many in one, as long as few wait below. Below, QUIC sends streams in the order of their priorities, which are those of the
//! classes.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use quinn::{ConnectionError, SendStream, WriteError};

use super::close::CloseCode;
use super::close::CloseReason;
use super::link::{DATAGRAM_HEAD_BYTES, DATAGRAM_MESSAGES, Inner};
use super::queues::{Bulk, Drain, Queues};
use super::stream::Carrier;
use crate::channel::{ChannelId, ChannelSpec, Class, Path, Reliability};
use crate::frame::Preamble;
use crate::limits;
use crate::sender::{BLOCK_BYTES, FLOOR_ONE_IN, Popped};
use crate::time::Time;

/// Bytes of a channel that the writer takes ahead of its stream.
const LANE_BYTES_MAX: usize = 64 * 1_024;
/// The largest piece that is handed to QUIC, which counts a piece until all of it is acknowledged: at 1 % loss most pieces of 64 KiB wait for a packet that is sent
/// again.
const SEGMENT_BYTES_MAX: usize = 16 * 1_024;
/// Small frames are joined up to this size: QUIC searches its pieces one by one.
const JOINED_BYTES_MAX: usize = 16 * 1_024;
/// Pieces in one write.
const SEGMENTS_MAX: usize = 32;
/// How often the send window of a connection for bulk is fitted to its congestion window.
const FIT_EVERY: Duration = Duration::from_millis(2);
/// What QUIC is given beyond two congestion windows, one of which may wait behind what was lost: enough that a window that doubles finds something to send.
const AHEAD_BYTES: u64 = 128 * 1_024;
/// How long messages of best effort wait when many datagrams wait below: the least that a timer waits.
const DATAGRAM_PAUSE: Duration = Duration::from_millis(1);
/// Turns after which the task lets others run.
const TURNS_MAX: usize = 32;

/// Sends until the connection ends. When a drain is ordered, sends what is left and closes.
pub(super) async fn write(link: Arc<Inner>) {
    *link.writer() = Some(Writer::new(link.clone(), link.connection.clone(), Path::Urgent));
    let lent = Lent(link.clone());
    let drained = loop {
        match lent.step().await {
            Step::Again => {}
            Step::Lost => return,
            Step::Drained(drain) => break drain,
        }
    };
    let writer = link.writer().take();
    if let Some(mut writer) = writer {
        writer.finish().await;
    }
    link.streams.finished().await;
    link.end(CloseReason::Ours(drained.code));
}

/// Sends on the second connection of a link until it is idle for long or the link is drained, and closes it then; the first connection carries its channels
/// afterwards. Ends at once when the connection is lost.
pub(super) async fn write_bulk(link: Arc<Inner>, connection: quinn::Connection) {
    let mut writer = Writer::new(link.clone(), connection.clone(), Path::Bulk);
    loop {
        match tokio::time::timeout(link.times.idle, writer.step()).await {
            Ok(Step::Again) => {}
            Ok(Step::Lost) => return,
            Ok(Step::Drained(_)) => break,
            Err(_) if !writer.is_empty() => {}
            Err(_) => {
                let mut queues = link.queues();
                let is_waiting = queues.state.is_waiting(|spec| spec.path == Path::Bulk);
                if !is_waiting && link.streams.count(Carrier::Ours) == 0 {
                    // From here on nothing more comes to this writer.
                    queues.bulk = Bulk::Closing;
                    break;
                }
            }
        }
    }
    writer.finish().await;
    link.streams.finished().await;
    if connection.close_reason().is_none() {
        connection.close(CloseCode::Idle.var_int(), &[]);
        // Only now may the first connection end, or another second one be opened.
        link.set_bulk(Bulk::Closed);
    }
}

/// Who drives a writer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// Its task.
    Task,
    /// Whoever queued something, on any thread.
    Sender,
}

enum Step {
    /// There may be more to send.
    Again,
    /// Everything is sent and it was the last.
    Drained(Drain),
    /// The connection is gone.
    Lost,
}

/// The writer of the first connection where senders find it, until this is dropped.
struct Lent(Arc<Inner>);

impl Lent {
    async fn step(&self) -> Step {
        let mut woken = pin!(self.0.wake.notified());
        poll_fn(|context| {
            let mut writer = self.0.writer();
            let Some(writer) = writer.as_mut() else { return Poll::Ready(Step::Lost) };
            match writer.poll(By::Task, context) {
                Poll::Ready(step) => Poll::Ready(step),
                Poll::Pending => woken.as_mut().poll(context).map(|()| Step::Again),
            }
        })
        .await
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // It holds the link that holds it.
        let writer = self.0.writer().take();
        drop(writer);
    }
}

/// Wakes the task, whoever drove the writer.
impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        self.wake.notify_one();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake.notify_one();
    }
}

/// Sends what was queued, unless somebody else does that right now.
pub(super) fn write_now(link: &Arc<Inner>) {
    if let Some(mut writer) = link.try_writer()
        && let Some(writer) = writer.as_mut()
        && writer.poll(By::Sender, &mut Context::from_waker(&Waker::from(link.clone()))).is_pending()
    {
        return;
    }
    // It is busy and may have looked already, or it has come to an end that the task must see.
    link.wake.notify_one();
}

pub(super) struct Writer {
    link: Arc<Inner>,
    connection: quinn::Connection,
    path: Path,
    lanes: Lanes,
    /// Streams that ended, until the peer's transport has all of them.
    ended: Vec<Ending>,
    /// The moves that were seen: streams from before the last one have ended, even if the channels are back by now.
    moves: u32,
    /// When the send window was last fitted to the congestion window.
    fitted: Time,
    /// Datagrams taken in this turn, without their heads.
    datagrams: Vec<(ChannelId, Bytes)>,
    order: Order,
    has_best_effort: bool,
    /// Frames of best effort wait until fewer datagrams do.
    is_starved: bool,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

/// The lanes that have a stream, in the order of their channels and numbers: few, and room for no more of them.
#[derive(Default)]
struct Lanes {
    all: Vec<(LaneKey, Lane)>,
}

impl Lanes {
    fn place(&self, key: LaneKey) -> Result<usize, usize> {
        self.all.binary_search_by_key(&key, |(key, _)| *key)
    }

    fn get(&self, key: LaneKey) -> Option<&Lane> {
        self.place(key).ok().map(|place| &self.all[place].1)
    }

    fn get_mut(&mut self, key: LaneKey) -> Option<&mut Lane> {
        self.place(key).ok().map(|place| &mut self.all[place].1)
    }

    /// Takes the place of a lane with this key if there is one.
    fn insert(&mut self, key: LaneKey, lane: Lane) {
        match self.place(key) {
            Ok(place) => self.all[place].1 = lane,
            Err(place) => self.all.insert(place, (key, lane)),
        }
    }
}

/// One lane's stream and what waits for it.
struct Lane {
    class: Class,
    /// When it last wrote, among all lanes.
    turn: u64,
    stream: LaneStream,
    /// Frames taken in this turn.
    fresh: Vec<Bytes>,
    segments: VecDeque<Bytes>,
    /// Bytes of both.
    bytes: usize,
    /// Bytes of the preamble that are still among the segments. They are no channel's traffic.
    preamble: usize,
    /// Whether another connection carries the channel by now, and this stream ends with what it holds.
    is_ending: bool,
    /// Since when the stream takes less than it is offered, and whether that is because it is not open.
    blocked: Option<(Time, bool)>,
}

type Ending = Pin<Box<dyn Future<Output = ()> + Send>>;
type Opening = Pin<Box<dyn Future<Output = Result<SendStream, ConnectionError>> + Send>>;

enum LaneStream {
    /// The peer has not allowed one more stream yet.
    Opening(Opening),
    Open(SendStream),
    /// The peer does not want this channel: its frames are dropped.
    Unwanted,
}

impl Writer {
    fn new(link: Arc<Inner>, connection: quinn::Connection, path: Path) -> Self {
        let is_best_effort = |spec: &ChannelSpec| spec.reliability == Reliability::BestEffort;
        let has_best_effort = path == Path::Urgent && link.params.channels().iter().any(is_best_effort);
        Writer {
            link,
            connection,
            path,
            lanes: Lanes::default(),
            ended: Vec::new(),
            moves: 0,
            fitted: Time::ZERO,
            datagrams: Vec::new(),
            order: Order::default(),
            has_best_effort,
            is_starved: false,
            pause: None,
        }
    }

    /// One turn of a writer that its task has for itself.
    async fn step(&mut self) -> Step {
        let link = self.link.clone();
        let mut woken = pin!(link.wake_bulk.notified());
        poll_fn(|context| match self.poll(By::Task, context) {
            Poll::Ready(step) => Poll::Ready(step),
            Poll::Pending => woken.as_mut().poll(context).map(|()| Step::Again),
        })
        .await
    }

    fn poll(&mut self, by: By, context: &mut Context<'_>) -> Poll<Step> {
        for _ in 0..TURNS_MAX {
            let took = self.take();
            match self.offer(context) {
                Ok(wrote) if !took && !wrote => {
                    if self.is_starved {
                        if by == By::Sender {
                            // A sender may know no timers; the task does.
                            return Poll::Ready(Step::Again);
                        }
                        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(DATAGRAM_PAUSE)));
                        if pause.as_mut().poll(context).is_ready() {
                            self.pause = None;
                            continue;
                        }
                    }
                    let queues = self.link.queues();
                    return match queues.drain {
                        Some(drain) if self.is_empty() && self.is_last(&queues) => Poll::Ready(Step::Drained(drain)),
                        _ => Poll::Pending,
                    };
                }
                Ok(_) => {}
                Err(_) => return Poll::Ready(Step::Lost),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether nothing more can come to this writer.
    fn is_last(&self, queues: &Queues) -> bool {
        match self.path {
            Path::Urgent => queues.state.is_empty() && matches!(queues.bulk, Bulk::Closed | Bulk::Refused(_)),
            Path::Bulk => !queues.state.is_waiting(|spec| spec.path == Path::Bulk),
        }
    }

    /// Keeps little more in QUIC's hands than it may have under way: what waits there is out of the sender's order, and old when it leaves.
    fn fit(&mut self, now: Time) {
        if self.path == Path::Bulk && now.since(self.fitted) >= FIT_EVERY {
            self.fitted = now;
            let window = self.connection.stats().path.cwnd;
            // What byte streams wrote takes no room from the lanes.
            let streams = self.link.streams.count(Carrier::Ours) as u64 * u64::from(limits::STREAM_WINDOW_BYTES);
            self.connection.set_send_window((2 * window + AHEAD_BYTES).min(limits::BULK_SEND_WINDOW_BYTES) + streams);
        }
    }

    /// Takes frames for every lane whose stream has room. Says whether it took any.
    fn take(&mut self) -> bool {
        let now = self.link.clock.now();
        self.fit(now);
        let params = &self.link.params;
        // What a datagram holds, and how many bytes of them may still wait below.
        let (datagram_bytes, mut room) = if self.has_best_effort {
            let bytes = self.connection.max_datagram_size().map_or(0, |max| max.min(limits::DATAGRAM_BYTES_MAX));
            let room = self.connection.datagram_send_buffer_space().saturating_sub(limits::DATAGRAM_RESERVE_BYTES);
            (bytes.saturating_sub(DATAGRAM_HEAD_BYTES), room)
        } else {
            (0, 0)
        };
        let mut queues = self.link.queues();
        queues.state.turn(now);
        queues.state.set_datagram_bytes_max(datagram_bytes);
        let mut took = false;
        let (urgent, bulk) = (queues.carries(self.path, Path::Urgent), queues.carries(self.path, Path::Bulk));
        if !bulk || (self.path == Path::Urgent && queues.moves != self.moves) {
            self.moves = queues.moves;
            for ((channel, _), lane) in &mut self.lanes.all {
                lane.is_ending |= params.path(*channel) == Path::Bulk;
            }
        }
        while let Some(Popped { channel, lane: number, bytes, .. }) = queues.state.pop(BLOCK_BYTES, |channel, lane| {
            let (path, reliability) =
                params.channel(channel).map_or((Path::Urgent, Reliability::Ordered), |spec| (spec.path, spec.reliability));
            let carries = if path == Path::Urgent { urgent } else { bulk };
            let has_room = reliability != Reliability::BestEffort || room >= datagram_bytes;
            carries && has_room && self.lanes.get((channel, lane)).is_none_or(|lane| lane.bytes < LANE_BYTES_MAX && !lane.is_ending)
        }) {
            took = true;
            if bytes.len() <= datagram_bytes && params.channel(channel).is_some_and(|spec| spec.reliability == Reliability::BestEffort) {
                room = room.saturating_sub(bytes.len() + DATAGRAM_HEAD_BYTES);
                queues.state.sent(channel, number, bytes.len(), now);
                self.datagrams.push((channel, bytes));
                continue;
            }
            if self.lanes.get((channel, number)).is_none() {
                let preamble = Preamble { channel, lane: number, number: queues.next_number(channel, number) };
                // On the connection for bulk the order is the sender's alone, with its floor for the lower classes.
                let class = params.channel(channel).map_or(Class::Low, |spec| spec.class);
                let priority = priority(if self.path == Path::Urgent { class } else { Class::Low });
                self.lanes.insert((channel, number), Lane::open(&self.connection, preamble, class, priority));
            }
            let Some(lane) = self.lanes.get_mut((channel, number)) else { continue };
            if matches!(lane.stream, LaneStream::Unwanted) {
                queues.state.unwanted(channel, number, bytes.len(), now);
                continue;
            }
            queues.taken(self.path, bytes.len(), now);
            lane.bytes += bytes.len();
            lane.fresh.push(bytes);
        }
        let is_room_wanted = took && queues.is_room_wanted();
        self.is_starved =
            self.has_best_effort && room < datagram_bytes && queues.state.is_waiting(|spec| spec.reliability == Reliability::BestEffort);
        drop(queues);
        for (channel, frames) in self.datagrams.drain(..) {
            let mut datagram = BytesMut::with_capacity(DATAGRAM_HEAD_BYTES + frames.len());
            datagram.put_u8(DATAGRAM_MESSAGES);
            datagram.put_u16(channel.0);
            datagram.put_slice(&frames);
            // It fails when the path has become narrower since, or is gone: lost on the way, as any datagram may be.
            let _ = self.connection.send_datagram(datagram.freeze());
        }
        if is_room_wanted {
            self.link.room.notify_waiters();
        }
        took
    }

    /// Offers every stream what waits for it. Says whether any took something.
    fn offer(&mut self, context: &mut Context<'_>) -> Result<bool, ConnectionError> {
        let mut wrote_any = false;
        let waiting = self.lanes.all.iter().filter(|(_, lane)| lane.is_waiting());
        self.order.begin(waiting.map(|(at, lane)| (lane.class, lane.turn, *at)));
        let mut nth = 0;
        while let Some((class, segments_max, (channel, number))) = self.order.get(nth) {
            nth += 1;
            let Some(lane) = self.lanes.get_mut((channel, number)) else { continue };
            let before = lane.bytes;
            let wrote = lane.offer(channel, segments_max, context, &self.link)?;
            if wrote > 0 || lane.bytes < before {
                wrote_any = true;
                lane.turn = self.order.wrote(class, wrote);
                let now = self.link.clock.now();
                let mut queues = self.link.queues();
                queues.written(self.path, channel, number, wrote, now);
                // What an unwanted lane gave up.
                queues.dropped(self.path, channel, number, before - lane.bytes - wrote, now);
                if let Some((since, is_opening)) = lane.blocked.take() {
                    queues.state.blocked(channel, is_opening, now.since(since));
                }
                lane.blocked = (lane.bytes > 0).then_some((now, false));
            } else if lane.bytes > 0 && lane.blocked.is_none() {
                lane.blocked = Some((self.link.clock.now(), matches!(lane.stream, LaneStream::Opening(_))));
            }
        }
        let ended = &mut self.ended;
        self.lanes.all.retain_mut(|(_, lane)| {
            let is_over = lane.is_over();
            if is_over && let LaneStream::Open(stream) = &lane.stream {
                let stopped = stream.stopped();
                ended.push(Box::pin(async move { drop(stopped.await) }));
            }
            !is_over
        });
        ended.retain_mut(|stream| stream.as_mut().poll(context).is_pending());
        Ok(wrote_any)
    }

    fn is_empty(&self) -> bool {
        self.lanes.all.iter().all(|(_, lane)| lane.bytes == 0 && lane.segments.is_empty())
    }

    /// Ends the streams, and waits until the peer's transport has all of them or the connection is gone.
    async fn finish(&mut self) {
        let mut streams: Vec<_> = self
            .lanes
            .all
            .iter_mut()
            .filter_map(|(_, lane)| match &mut lane.stream {
                LaneStream::Open(stream) => Some(stream),
                LaneStream::Opening(_) | LaneStream::Unwanted => None,
            })
            .collect();
        for stream in &mut streams {
            let _ = stream.finish();
        }
        for stream in streams {
            let _ = stream.stopped().await;
        }
        for stream in self.ended.drain(..) {
            stream.await;
        }
    }
}

/// The order in which lanes are offered to their streams. All streams of a connection share one window: when it is full, whoever is offered first takes what becomes
/// free. So the classes go first to last, as in the [`sender`](crate::sender), with the same floor: a class that waits is offered first, for one piece, when 63 times
/// as much went past it. Inside a class it is the turn of the lane that has not written for longest.
#[derive(Default)]
struct Order {
    lanes: Vec<(Reverse<Class>, u64, LaneKey)>,
    /// How many of them go first for one piece.
    owed: usize,
    /// The classes of which any waits.
    waits: [bool; Class::ALL.len()],
    /// What went past each class while it waited.
    passed: [u64; Class::ALL.len()],
    turns: u64,
}

type LaneKey = (ChannelId, u8);

impl Order {
    /// What has to go past a class before it goes first.
    const PASSED: u64 = FLOOR_ONE_IN * SEGMENT_BYTES_MAX as u64;

    /// Puts the lanes in order that wait for their streams: of which class, since which turn.
    fn begin(&mut self, waiting: impl Iterator<Item = (Class, u64, LaneKey)>) {
        self.lanes.clear();
        self.waits = Default::default();
        for (class, turn, lane) in waiting {
            self.waits[class as usize] = true;
            self.lanes.push((Reverse(class), turn, lane));
        }
        self.lanes.sort_unstable();
        self.owed = 0;
        for class in Class::ALL.into_iter().rev().filter(|class| self.passed[*class as usize] >= Self::PASSED) {
            if let Some(first) = self.lanes.iter().skip(self.owed).position(|(Reverse(other), ..)| *other == class) {
                self.lanes[..=self.owed + first].rotate_right(1);
                self.owed += 1;
            }
        }
    }

    /// The lane that is offered as the `nth`: its class, and the most pieces that it may write.
    fn get(&self, nth: usize) -> Option<(Class, usize, LaneKey)> {
        self.lanes.get(nth).map(|(Reverse(class), _, lane)| (*class, if nth < self.owed { 1 } else { usize::MAX }, *lane))
    }

    /// Takes note that a lane of a class wrote, and gives the turn at which it did.
    fn wrote(&mut self, class: Class, bytes: usize) -> u64 {
        let bytes = bytes as u64;
        let passed = &mut self.passed[class as usize];
        *passed = passed.saturating_sub(FLOOR_ONE_IN.saturating_mul(bytes));
        for (passed, _) in self.passed.iter_mut().zip(self.waits).take(class as usize).filter(|(_, waits)| *waits) {
            // A class whose own streams took nothing for long is not owed all of that.
            *passed = passed.saturating_add(bytes).min(2 * Self::PASSED);
        }
        self.turns += 1;
        self.turns
    }
}

impl Lane {
    /// Whether its stream is to be offered something, or is not open yet.
    fn is_waiting(&self) -> bool {
        matches!(self.stream, LaneStream::Opening(_)) || !self.fresh.is_empty() || !self.segments.is_empty()
    }

    fn open(connection: &quinn::Connection, preamble: Preamble, class: Class, priority: i32) -> Self {
        let connection = connection.clone();
        let opening = Box::pin(async move {
            let stream = connection.open_uni().await?;
            // Only a stream that is gone has no priority, and then the first write says so.
            let _ = stream.set_priority(priority);
            Ok(stream)
        });
        let preamble = preamble.encode();
        let len = preamble.len();
        Lane {
            class,
            turn: 0,
            stream: LaneStream::Opening(opening),
            fresh: Vec::new(),
            segments: VecDeque::from([preamble]),
            bytes: 0,
            preamble: len,
            is_ending: false,
            blocked: None,
        }
    }

    /// Ends a stream that is to end and has sent everything; says whether it is over.
    fn is_over(&mut self) -> bool {
        if !self.is_ending || !self.segments.is_empty() || !self.fresh.is_empty() {
            return false;
        }
        if let LaneStream::Open(stream) = &mut self.stream {
            // A stream that is gone has ended.
            let _ = stream.finish();
        }
        true
    }

    /// Writes as much as the stream takes now; the bytes of frames that it took.
    fn offer(
        &mut self,
        channel: ChannelId,
        segments_max: usize,
        context: &mut Context<'_>,
        link: &Inner,
    ) -> Result<usize, ConnectionError> {
        if let LaneStream::Opening(opening) = &mut self.stream {
            match opening.as_mut().poll(context) {
                Poll::Ready(stream) => self.stream = LaneStream::Open(stream?),
                Poll::Pending => return Ok(0),
            }
        }
        let LaneStream::Open(stream) = &mut self.stream else { return Ok(0) };
        join(&mut self.fresh, &mut self.segments);
        let (mut wrote, mut left) = (0, segments_max);
        while !self.segments.is_empty() && left > 0 {
            let segments = self.segments.make_contiguous();
            let len = segments.len().min(SEGMENTS_MAX).min(left);
            // Nothing is lost when the attempt is dropped, and the stream wakes this task whatever became of it.
            let outcome = pin!(stream.write_chunks(&mut segments[..len])).poll(context);
            match outcome {
                Poll::Ready(Ok(written)) => {
                    self.segments.drain(..written.chunks);
                    left -= written.chunks;
                    let preamble = written.bytes.min(self.preamble);
                    self.preamble -= preamble;
                    self.bytes -= written.bytes - preamble;
                    wrote += written.bytes - preamble;
                }
                Poll::Pending => break,
                Poll::Ready(Err(WriteError::ConnectionLost(error))) => return Err(error),
                Poll::Ready(Err(error)) => {
                    tracing::debug!(peer = %link.peer.short(), ?channel, %error, "the peer does not want this channel");
                    self.stream = LaneStream::Unwanted;
                    self.segments = VecDeque::new();
                    self.bytes = 0;
                    break;
                }
            }
        }
        Ok(wrote)
    }
}

/// Joins small frames and cuts large ones, in order.
fn join(fresh: &mut Vec<Bytes>, segments: &mut VecDeque<Bytes>) {
    let mut frames = fresh.drain(..).peekable();
    while let Some(mut frame) = frames.next() {
        if frames.peek().is_some_and(|next| frame.len() + next.len() <= JOINED_BYTES_MAX) {
            let mut joined = frame.to_vec();
            while let Some(next) = frames.next_if(|next| joined.len() + next.len() <= JOINED_BYTES_MAX) {
                joined.extend_from_slice(&next);
            }
            segments.push_back(Bytes::from(joined));
            continue;
        }
        while frame.len() > SEGMENT_BYTES_MAX {
            segments.push_back(frame.split_to(SEGMENT_BYTES_MAX));
        }
        segments.push_back(frame);
    }
}

/// The order in which QUIC sends streams that are all ready.
fn priority(class: Class) -> i32 {
    class as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(frames: &[usize]) -> Vec<usize> {
        let mut fresh: Vec<Bytes> = frames.iter().enumerate().map(|(index, len)| Bytes::from(vec![index as u8; *len])).collect();
        let all = fresh.concat();
        let mut segments = VecDeque::new();
        join(&mut fresh, &mut segments);
        assert!(fresh.is_empty());
        assert_eq!(segments.make_contiguous().concat(), all, "the bytes stay in order");
        segments.iter().map(Bytes::len).collect()
    }

    #[test]
    fn small_frames_share_a_write_and_large_ones_are_cut() {
        assert_eq!(joined(&[]), [0; 0]);
        assert_eq!(joined(&[10]), [10]);
        assert_eq!(joined(&[10, 20, 30]), [60]);
        assert_eq!(joined(&[10_000, 6_384, 1]), [16_384, 1]);
        assert_eq!(joined(&[1, 40_000, 1, 2]), [1, 16_384, 16_384, 7_232, 3]);
    }

    /// What lanes of these classes, which always have 64 KiB to write, get of a window in which `room` bytes become free at a time.
    fn shares(classes: &[Class], room: usize, stuck: &[u8]) -> Vec<f64> {
        let mut order = Order::default();
        let (mut turns, mut wrote) = (vec![0; classes.len()], vec![0_usize; classes.len()]);
        for _ in 0..20_000 {
            let mut room = room;
            // Channels are numbered against their classes.
            order.begin(classes.iter().zip(&turns).enumerate().map(|(lane, (class, turn))| (*class, *turn, (ChannelId::DATA, lane as u8))));
            let mut nth = 0;
            while let Some((class, pieces, (_, lane))) = order.get(nth) {
                nth += 1;
                let bytes = room.min(pieces.saturating_mul(SEGMENT_BYTES_MAX)).min(LANE_BYTES_MAX);
                if bytes > 0 && !stuck.contains(&lane) {
                    room -= bytes;
                    wrote[usize::from(lane)] += bytes;
                    turns[usize::from(lane)] = order.wrote(class, bytes);
                }
            }
        }
        let all: usize = wrote.iter().sum();
        wrote.iter().map(|bytes| *bytes as f64 / all as f64).collect()
    }

    #[test]
    fn a_full_window_goes_to_the_highest_class_but_for_the_floor() {
        for room in [1_200, 10_000, 30_000, 64_000] {
            let found = shares(&[Class::Low, Class::Medium, Class::High], room, &[]);
            assert!(found[0] > 0.01 && found[0] < 0.02 && found[1] > 0.01 && found[1] < 0.02, "{room}: {found:?}");
            let even = shares(&[Class::Low, Class::High, Class::High, Class::High], room, &[]);
            assert!(even[1..].iter().all(|part| (0.31..0.34).contains(part)), "{room}: {even:?}");
        }
    }

    #[test]
    fn a_stream_that_takes_nothing_is_passed_by_and_keeps_nobody_from_the_floor() {
        let found = shares(&[Class::Low, Class::Medium, Class::High], 10_000, &[2]);
        assert!(found[1] > 0.97 && found[0] > 0.01, "{found:?}");
        let found = shares(&[Class::Low, Class::Medium, Class::High], 10_000, &[0]);
        assert!(found[2] > 0.97 && found[1] > 0.01, "{found:?}");
    }

    #[test]
    fn higher_classes_have_higher_priorities() {
        assert!(Class::ALL.windows(2).all(|pair| priority(pair[0]) < priority(pair[1])));
    }
}
