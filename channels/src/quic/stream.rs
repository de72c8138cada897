//! Byte streams of the application: both ways, with a flow control of their own, on the connection that the channel's path names.
//!
//! A byte stream is a bidirectional QUIC stream. The opener writes a preamble of four bytes; the acceptor answers with one byte once somebody listens on the channel, or ends the stream with a
//! code that says why not. From there on the bytes are the application's.
//!
//! # Windows
//!
//! What a peer sent and nobody read is bounded for each stream ([`limits::STREAM_WINDOW_BYTES`]) and for each connection, and whoever exhausts the second bound would stop everything else
//! on that connection. So every byte stream that is open brings its own window along: the windows of a connection are those of its channels and one for each of the most byte streams that were
//! ever open on it at once. They never shrink again: QUIC takes back what it promised only as it is used, and streams opened and closed in turn would add to it each time.
//!
//! # What a peer can make us hold
//!
//! | What | Bound |
//! |---|---|
//! | byte streams that it opened | [`limits::URGENT_BYTE_STREAMS_MAX`] on the first connection and [`limits::BULK_BYTE_STREAMS_MAX`] on its second; more wait at the peer |
//! | byte streams that all peers opened | [`limits::BYTE_STREAMS_MAX`]; more are refused |
//! | bytes that it sent and nobody read | [`limits::STREAM_WINDOW_BYTES`] for each stream |
//! | streams without a preamble | those of the first row, for [`limits::ADMISSION_TIMEOUT`] each; 1,024 in all end the link |

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll, Waker, ready};

use quinn::{ConnectionError, ReadError, ReadExactError, RecvStream, SendStream, VarInt, WriteError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::close::{CloseReason, stop};
use super::link::{Inner, Link};
use super::queues::Bulk;
use super::reader::StreamEnd;
use crate::channel::{ChannelId, Class, Path};
use crate::identity::PeerId;
use crate::limits;

/// The version of the preamble, and what tells it from other uses of such streams to come.
const VERSION: u8 = 1;
const BYTE_STREAM: u8 = b'B';
const PREAMBLE_BYTES: usize = 4;
/// What the acceptor says before its first byte of the application.
const ACCEPTED: u8 = 1;

/// Why one side ends a stream. Numbers below [`APPLICATION`] are ours and only grow; those above are the application's.
mod code {
    use quinn::VarInt;

    pub(super) const NO_LISTENER: VarInt = VarInt::from_u32(3);
    pub(super) const TOO_MANY: VarInt = VarInt::from_u32(4);
    pub(super) const NO_PREAMBLE: VarInt = VarInt::from_u32(5);
    pub(super) const DROPPED: VarInt = VarInt::from_u32(6);
}

/// The wire code of the application's code zero.
const APPLICATION: u64 = 1 << 32;

fn application_code(code: u32) -> VarInt {
    VarInt::from_u64(APPLICATION + u64::from(code)).unwrap_or(VarInt::MAX)
}

fn preamble(channel: ChannelId) -> [u8; PREAMBLE_BYTES] {
    let [high, low] = channel.0.to_be_bytes();
    [VERSION, BYTE_STREAM, high, low]
}

/// The channel that a preamble names; `None` when it is no preamble.
fn channel_of(preamble: [u8; PREAMBLE_BYTES]) -> Option<ChannelId> {
    match preamble {
        [VERSION, BYTE_STREAM, high, low] => Some(ChannelId(u16::from_be_bytes([high, low]))),
        _ => None,
    }
}

/// Why a byte stream ended other than by its end. It is the source of the [`io::Error`]s of a [`ByteStream`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// The peer ended this direction with [`ByteStream::reset`] and this code.
    Reset(u32),
    /// The peer dropped its end: of a direction that it sent on before it had finished, of one that it read before it had read everything.
    Dropped,
    /// The peer ended it with a code that this version does not know.
    Unknown(u64),
    /// The link to the peer ended.
    LinkClosed(CloseReason),
    /// This side has finished or reset its direction already.
    Finished,
}

impl StreamError {
    fn of_code(code: VarInt) -> Self {
        let number = code.into_inner();
        match number.checked_sub(APPLICATION).map(u32::try_from) {
            Some(Ok(code)) => StreamError::Reset(code),
            _ if code == code::DROPPED => StreamError::Dropped,
            _ => StreamError::Unknown(number),
        }
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamError::Reset(code) => write!(f, "the peer reset the stream with code {code}"),
            StreamError::Dropped => f.write_str("the peer dropped the stream"),
            StreamError::Unknown(code) => write!(f, "the peer ended the stream with the unknown code {code}"),
            StreamError::LinkClosed(reason) => write!(f, "the link ended: {reason}"),
            StreamError::Finished => f.write_str("this side has finished the stream"),
        }
    }
}

impl std::error::Error for StreamError {}

/// Why a byte stream was not opened. The application of the peer has seen nothing of it, but for [`OpenError::Ended`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// There is no such channel, here or at the peer, or it is not for applications.
    UnknownChannel(ChannelId),
    /// Nobody listens on that channel at the peer.
    NoListener,
    /// The peer holds as many streams as it may, of all its peers together.
    TooMany,
    /// The link ended.
    Closed(CloseReason),
    /// The peer accepted it and ended it at once, or refused it for a reason that this version does not know.
    Ended(StreamError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::UnknownChannel(channel) => write!(f, "no byte streams on {channel}"),
            OpenError::NoListener => f.write_str("nobody listens for streams on that channel at the peer"),
            OpenError::TooMany => f.write_str("the peer holds as many streams as it may"),
            OpenError::Closed(reason) => write!(f, "the link ended: {reason}"),
            OpenError::Ended(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

/// Which QUIC connection of a link carries a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    First,
    /// Our second one.
    Ours,
    /// The peer's second one.
    Theirs,
}

/// The byte streams of a link.
#[derive(Default)]
pub(super) struct Streams {
    open: Mutex<[Open; 3]>,
    /// Directions that were finished, until the peer's transport has all of them.
    finishing: Mutex<Vec<Finishing>>,
    /// How the second connection stands has changed, or the link is over.
    pub(super) bulk_changed: Notify,
}

/// The byte streams of one connection.
#[derive(Clone, Copy, Default)]
struct Open {
    now: usize,
    /// The most at once, on the connection with this number.
    high: usize,
    connection: usize,
}

type Finishing = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Streams {
    /// Never held across a wait, and may be taken while the queues of the link are held.
    fn open(&self) -> MutexGuard<'_, [Open; 3]> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finishing(&self) -> MutexGuard<'_, Vec<Finishing>> {
        self.finishing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are open on a connection.
    pub(super) fn count(&self, carrier: Carrier) -> usize {
        self.open()[carrier as usize].now
    }

    /// How many are open.
    pub(super) fn total(&self) -> usize {
        self.open().iter().map(|open| open.now).sum()
    }

    /// Ends when the peer's transport has everything that was finished before, or the connections are gone.
    pub(super) async fn finished(&self) {
        loop {
            let Some(next) = self.finishing().pop() else { return };
            next.await;
        }
    }

    /// Remembers a direction that was finished, and forgets those that have arrived.
    fn finish(&self, stream: &SendStream) {
        let stopped = stream.stopped();
        let mut finishing = self.finishing();
        // Nobody waits for them before the link ends.
        let mut context = Context::from_waker(Waker::noop());
        finishing.retain_mut(|stream| stream.as_mut().poll(&mut context).is_pending());
        finishing.push(Box::pin(async move { drop(stopped.await) }));
    }
}

/// The windows of a connection: see the header.
fn fit_windows(link: &Inner, carrier: Carrier, connection: &quinn::Connection, high: usize) {
    let streams = u64::from(limits::STREAM_WINDOW_BYTES).saturating_mul(high as u64);
    let receive = match carrier {
        Carrier::First => link.window(Path::Urgent, limits::WINDOW_BYTES),
        Carrier::Ours => limits::WINDOW_BYTES_BEFORE_ADMISSION.into(),
        Carrier::Theirs => link.window(Path::Bulk, limits::BULK_WINDOW_BYTES),
    };
    let receive = receive.saturating_add(streams);
    connection.set_receive_window(VarInt::from_u64(receive).unwrap_or(VarInt::MAX));
    if carrier != Carrier::Ours {
        // The writer of our second one fits its send window.
        connection.set_send_window(limits::SEND_WINDOW_BYTES.saturating_add(streams));
    }
}

/// Raises the windows of the first connection to what an admitted peer may use.
pub(super) fn open_windows(link: &Inner) {
    // Under the lock: a stream that is opened meanwhile sees these windows or is seen here.
    let open = link.streams.open();
    fit_windows(link, Carrier::First, &link.connection, open[Carrier::First as usize].high);
}

/// A stream that is counted until this is dropped.
struct Hold {
    link: Arc<Inner>,
    connection: quinn::Connection,
    carrier: Carrier,
    channel: ChannelId,
    /// Counted among those of all peers.
    is_inbound: bool,
}

impl Hold {
    fn take(link: &Arc<Inner>, connection: quinn::Connection, carrier: Carrier, channel: ChannelId) -> Self {
        let mut all = link.streams.open();
        let open = &mut all[carrier as usize];
        if open.connection != connection.stable_id() {
            (open.connection, open.high) = (connection.stable_id(), 0);
        }
        open.now += 1;
        if open.now > open.high {
            open.high = open.now;
            fit_windows(link, carrier, &connection, open.high);
        }
        drop(all);
        Hold { link: link.clone(), connection, carrier, channel, is_inbound: false }
    }

    fn take_inbound(link: &Arc<Inner>, connection: quinn::Connection, carrier: Carrier, channel: ChannelId) -> Option<Self> {
        let inbound = &link.inboxes.streams.inbound;
        if inbound.fetch_add(1, Ordering::Relaxed) >= limits::BYTE_STREAMS_MAX {
            inbound.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let mut hold = Hold::take(link, connection, carrier, channel);
        hold.is_inbound = true;
        Some(hold)
    }

    /// Why the link ended, when one of its connections was lost with this error.
    fn reason(&self, error: &ConnectionError) -> CloseReason {
        self.link.over(error)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.link.streams.open()[self.carrier as usize].now -= 1;
        if self.is_inbound {
            self.link.inboxes.streams.inbound.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Inner {
    /// Why the link ended, when one of its connections was lost with this error. The first connection knows best.
    fn over(&self, error: &ConnectionError) -> CloseReason {
        let ours = self.ours().or_else(|| self.queues().drain.map(|drain| CloseReason::Ours(drain.code)));
        match self.connection.close_reason() {
            Some(first) => CloseReason::of(&first, ours),
            None => CloseReason::of(error, ours),
        }
    }

    /// Takes the connection that carries byte streams of a path, and waits while it is opened.
    async fn carry_stream(self: &Arc<Self>, path: Path, channel: ChannelId) -> Result<Hold, OpenError> {
        loop {
            let mut changed = pin!(self.streams.bulk_changed.notified());
            changed.as_mut().enable();
            {
                let queues = self.queues();
                if queues.is_closed() {
                    drop(queues);
                    return Err(OpenError::Closed(self.over(&ConnectionError::LocallyClosed)));
                }
                let first = || Hold::take(self, self.connection.clone(), Carrier::First, channel);
                match queues.bulk {
                    _ if path == Path::Urgent => return Ok(first()),
                    // Counted before the queues are let go of: the writer that closes it when idle looks under the same lock.
                    Bulk::Open => {
                        if let Some(second) = self.seconds.ours() {
                            return Ok(Hold::take(self, second, Carrier::Ours, channel));
                        }
                        // It is gone, and the link with it in a moment.
                    }
                    Bulk::Refused(until) if self.clock.now() < until => return Ok(first()),
                    Bulk::Closed | Bulk::Refused(_) => self.open_second(queues),
                    Bulk::Opening | Bulk::Closing => {}
                }
            }
            changed.await;
        }
    }
}

impl Link {
    /// Opens a byte stream to whoever listens on this channel at the peer. It rides on the connection of the channel's [`Path`]; for bulk the second connection is opened first, if the peer takes
    /// one, and stays open as long as the stream.
    ///
    /// Done when the peer answers, one round trip later. Waits as long as the peer holds as many streams of ours as it may ([`limits::URGENT_BYTE_STREAMS_MAX`],
    /// [`limits::BULK_BYTE_STREAMS_MAX`]) or does not answer: put a limit around it that suits you. Safe to cancel.
    ///
    /// # Errors
    ///
    /// An [`OpenError`]; there is no stream then.
    pub async fn open_stream(&self, channel: ChannelId) -> Result<ByteStream, OpenError> {
        let (class, path) = match self.0.params.channel(channel) {
            Some(spec) if spec.class != Class::Control => (spec.class, spec.path),
            _ => return Err(OpenError::UnknownChannel(channel)),
        };
        let hold = self.0.carry_stream(path, channel).await?;
        let (send, receive) = hold.connection.open_bi().await.map_err(|error| OpenError::Closed(hold.reason(&error)))?;
        if hold.carrier == Carrier::First {
            // Only a stream that is gone has no priority, and then the first write says so.
            let _ = send.set_priority(class as i32);
        }
        // From here on a future that is dropped resets the stream.
        let mut stream = ByteStream::new(hold, send, receive);
        let refused = |code: VarInt| match code {
            stop::UNKNOWN_CHANNEL => OpenError::UnknownChannel(channel),
            code::NO_LISTENER => OpenError::NoListener,
            code::TOO_MANY => OpenError::TooMany,
            code => OpenError::Ended(StreamError::of_code(code)),
        };
        let lost = |stream: &ByteStream, error: &ConnectionError| OpenError::Closed(stream.reader.hold.reason(error));
        match stream.writer.stream.write_all(&preamble(channel)).await {
            // The answer says why.
            Ok(()) | Err(WriteError::Stopped(_)) => {}
            Err(WriteError::ConnectionLost(error)) => return Err(lost(&stream, &error)),
            Err(_) => return Err(OpenError::Ended(StreamError::Finished)),
        }
        let mut answer = [0];
        match stream.reader.stream.read_exact(&mut answer).await {
            Ok(()) if answer == [ACCEPTED] => Ok(stream),
            Ok(()) => Err(OpenError::Ended(StreamError::Unknown(answer[0].into()))),
            Err(ReadExactError::ReadError(ReadError::Reset(code))) => Err(refused(code)),
            Err(ReadExactError::ReadError(ReadError::ConnectionLost(error))) => Err(lost(&stream, &error)),
            Err(_) => Err(OpenError::Ended(StreamError::Dropped)),
        }
    }

    /// Byte streams that are open on this link, in both directions.
    pub fn byte_streams(&self) -> usize {
        self.0.streams.total()
    }
}

/// Who listens for byte streams on which channel.
#[derive(Default)]
pub(super) struct Listeners {
    queues: RwLock<BTreeMap<ChannelId, mpsc::Sender<ByteStream>>>,
    /// Streams that peers opened.
    inbound: AtomicUsize,
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listeners({} streams)", self.inbound.load(Ordering::Relaxed))
    }
}

impl Listeners {
    pub(super) fn take_over(&self, channel: ChannelId) -> StreamListener {
        let (sender, queue) = mpsc::channel(limits::BYTE_STREAMS_MAX);
        self.queues.write().unwrap_or_else(PoisonError::into_inner).insert(channel, sender);
        StreamListener { channel, queue }
    }

    fn of(&self, channel: ChannelId) -> Option<mpsc::Sender<ByteStream>> {
        self.queues.read().unwrap_or_else(PoisonError::into_inner).get(&channel).cloned()
    }

    /// Nobody listens any more.
    pub(super) fn close(&self) {
        self.queues.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The byte streams that peers open on one channel. Dropping it ends those that were not accepted, and refuses what comes.
pub struct StreamListener {
    channel: ChannelId,
    queue: mpsc::Receiver<ByteStream>,
}

impl StreamListener {
    /// The next stream; `None` once the endpoint is gone or another listener took the channel over. Safe to cancel.
    pub async fn accept(&mut self) -> Option<ByteStream> {
        self.queue.recv().await
    }

    /// The channel.
    pub fn channel(&self) -> ChannelId {
        self.channel
    }
}

impl fmt::Debug for StreamListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamListener({:?})", self.channel)
    }
}

/// Takes a stream that the peer opened to whoever listens on its channel, or ends it.
pub(super) async fn receive_stream(
    (mut send, mut receive): (SendStream, RecvStream),
    carrier: Carrier,
    link: Arc<Inner>,
    connection: quinn::Connection,
) -> StreamEnd {
    let mut bytes = [0; PREAMBLE_BYTES];
    let read = timeout(limits::ADMISSION_TIMEOUT, receive.read_exact(&mut bytes)).await;
    let channel = match read {
        Ok(Ok(())) => channel_of(bytes).ok_or(code::NO_PREAMBLE),
        // Whoever opened it changed its mind, or the connection is gone.
        Ok(Err(ReadExactError::ReadError(_))) => return StreamEnd::Over,
        Ok(Err(ReadExactError::FinishedEarly(_))) | Err(_) => Err(code::NO_PREAMBLE),
    };
    let place = channel.and_then(|channel| match link.params.channel(channel) {
        Some(spec) if spec.class != Class::Control => {
            let queue = link.inboxes.streams.of(channel).ok_or(code::NO_LISTENER)?;
            let place = queue.try_reserve_owned().map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => code::TOO_MANY,
                mpsc::error::TrySendError::Closed(_) => code::NO_LISTENER,
            })?;
            let hold = Hold::take_inbound(&link, connection, carrier, channel).ok_or(code::TOO_MANY)?;
            Ok((place, hold, spec.class))
        }
        _ => Err(stop::UNKNOWN_CHANNEL),
    });
    match place {
        Ok((place, hold, class)) => {
            if carrier == Carrier::First {
                let _ = send.set_priority(class as i32);
            }
            let mut stream = ByteStream::new(hold, send, receive);
            let answered = timeout(limits::ADMISSION_TIMEOUT, stream.writer.stream.write_all(&[ACCEPTED])).await;
            if matches!(answered, Ok(Ok(()))) {
                place.send(stream);
            }
            StreamEnd::Over
        }
        Err(code) => {
            tracing::debug!(peer = %link.peer.short(), %code, "refused a byte stream");
            let _ = send.reset(code);
            let _ = receive.stop(code);
            // An honest peer may ask as often as it likes whether somebody listens.
            if code == code::NO_PREAMBLE { StreamEnd::Refused } else { StreamEnd::Over }
        }
    }
}

/// Bytes both ways between the applications of two nodes, in order, with flow control from end to end: at most [`limits::STREAM_WINDOW_BYTES`] of what one side wrote wait for the other to read
/// them, and a stream that nobody reads delays no other.
///
/// [`AsyncWrite::poll_shutdown`] finishes the direction of this side, and the other reads to the end of what was written before; what was finished still goes out when the node leaves. Dropping
/// an end that was not finished resets it, and what was not sent is lost. Each write is kept as it came until it is acknowledged: write some KiB at a time, through a buffer if need be.
///
/// When the peer resets its direction or the link ends, reading fails with [`io::ErrorKind::ConnectionReset`]; when the peer reads no more, writing fails with
/// [`io::ErrorKind::BrokenPipe`], and when the link ended, with `ConnectionReset`. The source of these errors is a [`StreamError`].
pub struct ByteStream {
    reader: ByteReader,
    writer: ByteWriter,
}

/// The direction of a [`ByteStream`] in which the peer sends. Dropping it before the end tells the peer that nobody reads.
pub struct ByteReader {
    stream: RecvStream,
    hold: Arc<Hold>,
}

/// The direction of a [`ByteStream`] in which this side sends. Dropping it before it is shut down resets it.
pub struct ByteWriter {
    stream: SendStream,
    hold: Arc<Hold>,
    is_finished: bool,
}

impl ByteStream {
    fn new(hold: Hold, send: SendStream, receive: RecvStream) -> Self {
        let hold = Arc::new(hold);
        ByteStream {
            reader: ByteReader { stream: receive, hold: hold.clone() },
            writer: ByteWriter { stream: send, hold, is_finished: false },
        }
    }

    /// The peer at the other end.
    pub fn peer(&self) -> PeerId {
        self.reader.hold.link.peer
    }

    /// The channel.
    pub fn channel(&self) -> ChannelId {
        self.reader.hold.channel
    }

    /// Both directions, borrowed.
    pub fn split(&mut self) -> (&mut ByteReader, &mut ByteWriter) {
        (&mut self.reader, &mut self.writer)
    }

    /// Both directions, each on its own.
    pub fn into_split(self) -> (ByteReader, ByteWriter) {
        (self.reader, self.writer)
    }

    /// Ends both directions at once: the peer gets the code, and what it has not read is lost.
    pub fn reset(mut self, code: u32) {
        self.writer.reset_with(application_code(code));
        // A stream that was read to its end has nothing to stop.
        let _ = self.reader.stream.stop(application_code(code));
    }
}

impl ByteReader {
    /// The peer at the other end.
    pub fn peer(&self) -> PeerId {
        self.hold.link.peer
    }

    /// Reads no more: the peer gets the code when it writes.
    pub fn stop(mut self, code: u32) {
        let _ = self.stream.stop(application_code(code));
    }

    fn error(&self, error: ReadError) -> io::Error {
        let cause = match error {
            ReadError::Reset(code) => StreamError::of_code(code),
            ReadError::ConnectionLost(error) => StreamError::LinkClosed(self.hold.reason(&error)),
            // Neither happens: a stopped stream is gone, and nothing is sent before the handshake is over.
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => StreamError::Finished,
        };
        io::Error::new(io::ErrorKind::ConnectionReset, cause)
    }
}

impl ByteWriter {
    /// The peer at the other end.
    pub fn peer(&self) -> PeerId {
        self.hold.link.peer
    }

    /// Ends the direction at once: the peer gets the code, and what it has not read is lost.
    pub fn reset(mut self, code: u32) {
        self.reset_with(application_code(code));
    }

    fn reset_with(&mut self, code: VarInt) {
        // A stream that is gone needs no reset.
        let _ = self.stream.reset(code);
        self.is_finished = true;
    }

    fn error(&self, error: WriteError) -> io::Error {
        let (kind, cause) = match error {
            WriteError::Stopped(code) => (io::ErrorKind::BrokenPipe, StreamError::of_code(code)),
            WriteError::ConnectionLost(error) => (io::ErrorKind::ConnectionReset, StreamError::LinkClosed(self.hold.reason(&error))),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => (io::ErrorKind::BrokenPipe, StreamError::Finished),
        };
        io::Error::new(kind, cause)
    }
}

impl Drop for ByteReader {
    fn drop(&mut self) {
        // One that was read to its end, or was stopped, is gone.
        let _ = self.stream.stop(code::DROPPED);
    }
}

impl Drop for ByteWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = self.stream.reset(code::DROPPED);
        }
    }
}

impl AsyncRead for ByteReader {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let read = ready!(self.stream.poll_read_buf(context, buffer));
        Poll::Ready(read.map_err(|error| self.error(error)))
    }
}

impl AsyncWrite for ByteWriter {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        Poll::Ready(written.map_err(|error| self.error(error)))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing waits here.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_finished {
            // Fails only for a stream that is gone, and reading says why.
            let _ = self.stream.finish();
            self.is_finished = true;
            self.hold.link.streams.finish(&self.stream);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for ByteStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(context, buffer)
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(context)
    }
}

impl fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ByteStream({:?}, {:?}, {:?})", self.peer(), self.channel(), self.reader.hold.carrier)
    }
}

impl fmt::Debug for ByteReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ByteReader({:?}, {:?})", self.peer(), self.hold.channel)
    }
}

impl fmt::Debug for ByteWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ByteWriter({:?}, {:?})", self.peer(), self.hold.channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preamble_is_four_golden_bytes() {
        assert_eq!(preamble(ChannelId::DATA), [0x01, 0x42, 0x00, 0x02]);
        assert_eq!(preamble(ChannelId(0x1234)), [0x01, 0x42, 0x12, 0x34]);
        assert_eq!(ACCEPTED, 0x01);
        for channel in [ChannelId(0), ChannelId::DATA, ChannelId(u16::MAX)] {
            assert_eq!(channel_of(preamble(channel)), Some(channel));
        }
        for garbage in [[0, 0x42, 0, 2], [2, 0x42, 0, 2], [1, 0, 0, 2], [0xff; 4]] {
            assert_eq!(channel_of(garbage), None);
        }
    }

    #[test]
    fn codes_of_the_application_and_ours_stay_apart() {
        for code in [0, 7, u32::MAX] {
            assert_eq!(StreamError::of_code(application_code(code)), StreamError::Reset(code));
        }
        assert_eq!(StreamError::of_code(code::DROPPED), StreamError::Dropped);
        let ours = [stop::UNKNOWN_CHANNEL, code::NO_LISTENER, code::TOO_MANY, code::NO_PREAMBLE, code::DROPPED];
        assert_eq!(ours.map(VarInt::into_inner), [1, 3, 4, 5, 6]);
        for unknown in [0, APPLICATION - 1, 2 * APPLICATION, VarInt::MAX.into_inner()] {
            assert_eq!(StreamError::of_code(VarInt::from_u64(unknown).unwrap()), StreamError::Unknown(unknown));
        }
    }
}
