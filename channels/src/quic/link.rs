//! One admitted connection as its owner sees it.

use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quinn::SendDatagramError;
use tokio::sync::Notify;

use super::Clock;
use super::admission::{Tag, tag};
use super::close::{CloseCode, CloseReason};
use super::inbox::Inboxes;
use super::metrics::{ConnectionMetrics, ConnectionRole, LinkMetrics};
use super::queues::{Bulk, BulkTimes, Drain, Queues};
use super::reader::Arrivals;
use super::received::Received;
use super::seconds::{Seconds, Way};
use super::stream::Streams;
use super::writer::{Writer, write_now};
use crate::address::canonical;
use crate::agreement::{Disagreement, Table};
use crate::channel::{ChannelId, ChannelSpec, Class, Path};
use crate::compress::{BODY_BYTES_MIN, COMPRESSED, Packer};
use crate::dial::{ConnectionId, Direction};
use crate::error::{DecodeError, Misbehavior};
use crate::identity::PeerId;
use crate::time::Time;
use crate::{codec, frame, limits, sender};

/// What a datagram with messages of a channel of best effort begins with: this byte, the number of the channel as two bytes, high first; whole frames follow. The
/// first bytes below are the owner's.
pub(super) const DATAGRAM_MESSAGES: u8 = 0x80;
/// Bytes before the first frame.
pub(super) const DATAGRAM_HEAD_BYTES: usize = 3;

/// On the channel of control: how many frames of a channel that keeps the latest were taken, as the channel and the count since the connection stands.
pub(super) const CREDIT: u16 = frame::FIRST_KIND_OF_LINKS;

/// An admitted connection to a peer. Clones are the same connection; none of its methods waits.
///
/// Dropping all clones does not close it: the endpoint keeps it until one side closes it.
#[derive(Clone)]
pub struct Link(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) id: ConnectionId,
    pub(super) peer: PeerId,
    pub(super) incarnation: u64,
    pub(super) version: u16,
    pub(super) direction: Direction,
    pub(super) observed: SocketAddr,
    pub(super) connection: quinn::Connection,
    pub(super) clock: Clock,
    pub(super) params: sender::Params,
    /// The channels that the application of the peer defined.
    table: Table,
    channel_fallback: Option<ChannelId>,
    queues: Mutex<Queues>,
    /// Who writes on the first connection; none before it begins and after it has ended.
    writer: Mutex<Option<Writer>>,
    /// Something to do for the writer.
    pub(super) wake: Notify,
    /// Something to do for the writer of the second connection.
    pub(super) wake_bulk: Notify,
    /// A second connection is wanted.
    pub(super) bulk_wanted: Notify,
    /// There is room again for somebody who waits for it.
    pub(super) room: Notify,
    /// What names this connection to the peer.
    pub(super) tag: Tag,
    /// Our second connection, the peer's, and what earlier ones carried.
    pub(super) seconds: Seconds,
    pub(super) times: BulkTimes,
    pub(super) arrivals: Arrivals,
    pub(super) inboxes: Arc<Inboxes>,
    /// The byte streams of the application.
    pub(super) streams: Streams,
    /// A drain has a deadline now.
    pub(super) draining: Notify,
    /// The first reason that this side had for closing.
    ours: OnceLock<CloseReason>,
    /// Whether what is sent gets smaller, one for each channel of the params.
    packers: Vec<Packer>,
    pub(super) received: Received,
    pub(super) datagrams_refused: AtomicU64,
}

/// What [`Inner::new`] needs beside the connection.
pub(super) struct Facts {
    pub(super) id: ConnectionId,
    pub(super) peer: PeerId,
    pub(super) incarnation: u64,
    pub(super) version: u16,
    pub(super) direction: Direction,
    pub(super) observed: SocketAddr,
    pub(super) table: Table,
    pub(super) channel_fallback: Option<ChannelId>,
}

impl Inner {
    pub(super) fn new(
        facts: Facts,
        connection: quinn::Connection,
        params: sender::Params,
        inboxes: Arc<Inboxes>,
        clock: Clock,
        times: BulkTimes,
    ) -> Self {
        let Facts { id, peer, incarnation, version, direction, observed, table, channel_fallback } = facts;
        let queues = Queues::new(sender::State::new(params.clone()));
        let (channels, received) = (params.channels().len(), Received::new(&params));
        Inner {
            id,
            peer,
            incarnation,
            version,
            direction,
            observed,
            tag: tag(&connection),
            connection,
            clock,
            params,
            table,
            channel_fallback,
            queues: Mutex::new(queues),
            writer: Mutex::default(),
            wake: Notify::new(),
            wake_bulk: Notify::new(),
            bulk_wanted: Notify::new(),
            room: Notify::new(),
            seconds: Seconds::default(),
            times,
            arrivals: Arrivals::default(),
            inboxes,
            streams: Streams::default(),
            draining: Notify::new(),
            ours: OnceLock::new(),
            packers: std::iter::repeat_with(Packer::default).take(channels).collect(),
            received,
            datagrams_refused: AtomicU64::new(0),
        }
    }

    /// What the peer may send on a connection before we read it: enough that the defined channels, if nobody reads them, leave the built-in ones
    /// their room.
    pub(super) fn window(&self, path: Path, built_in: u32) -> u64 {
        // Until there is a second connection, the first carries everything.
        let defined = self.params.channels().iter().filter(|spec| spec.id.is_defined() && (path == Path::Urgent || spec.path == path));
        let lanes: u32 = defined.map(|spec| u32::from(spec.lanes)).sum();
        u64::from(built_in) + u64::from(lanes) * u64::from(limits::STREAM_WINDOW_BYTES)
    }

    /// Tells the peer how much of a channel that keeps the latest was taken here.
    pub(super) fn give_credit(self: &Arc<Self>, channel: ChannelId) {
        let Some(total) = self.received.frames(&self.params, channel) else { return };
        let frame = frame::encode(CREDIT, &codec::encode(&(channel, total)));
        let now = self.clock.now();
        let mut queues = self.queues();
        // A full queue of control is the end of the link soon, and the next credit counts for this one too.
        if !queues.closed && queues.state.push(ChannelId::CONTROL, frame, now).is_ok() {
            self.rouse(queues, ChannelId::CONTROL);
        }
    }

    /// Takes what the peer says of a channel that keeps the latest.
    pub(super) fn on_credit(self: &Arc<Self>, body: &[u8]) -> Result<(), DecodeError> {
        let (channel, total) = codec::decode(body)?;
        let now = self.clock.now();
        let mut queues = self.queues();
        if !queues.state.credit(channel, total, now) && !queues.closed {
            return Err(DecodeError::Invalid);
        }
        self.rouse(queues, channel);
        Ok(())
    }

    /// A message compressed, where the channel says so and it pays.
    fn pack(&self, channel: ChannelId, kind: u16, body: &[u8]) -> Option<Bytes> {
        if body.len() < BODY_BYTES_MIN {
            return None;
        }
        let index = self.params.index(channel)?;
        if self.params.channels()[index].is_compressed { self.packers[index].pack(kind, body) } else { None }
    }

    /// Whether both sides have the channel on the same terms.
    pub(super) fn is_agreed(&self, spec: &ChannelSpec) -> bool {
        self.table.check(spec).is_ok()
    }

    /// Never held across a wait. A panic elsewhere while it was held leaves counters that are off by one frame at most.
    pub(super) fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never held across a wait.
    pub(super) fn writer(&self) -> MutexGuard<'_, Option<Writer>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None while somebody writes.
    pub(super) fn try_writer(&self) -> Option<MutexGuard<'_, Option<Writer>>> {
        self.writer.try_lock().ok()
    }

    /// Closes the connection; the first reason stands.
    pub(super) fn end(&self, reason: CloseReason) {
        let code = match reason {
            CloseReason::Ours(code) => code,
            CloseReason::Misbehaved(Misbehavior::Undecodable(_)) => CloseCode::Undecodable,
            _ => CloseCode::Misbehaved,
        };
        let _ = self.ours.set(reason);
        self.queues().closed = true;
        self.connection.close(code.var_int(), &[]);
        self.seconds.close(|_| true);
    }

    /// Refuses what comes now that the connection is gone, and forgets what was queued: an owner may keep the link.
    pub(super) fn mark_closed(&self) {
        let mut queues = self.queues();
        queues.closed = true;
        queues.clear(self.clock.now());
        drop(queues);
        self.room.notify_waiters();
        self.streams.bulk_changed.notify_waiters();
    }

    pub(super) fn ours(&self) -> Option<CloseReason> {
        self.ours.get().copied()
    }

    /// Wakes whoever sends what was queued on a channel, or has a connection opened for it.
    fn rouse(self: &Arc<Self>, queues: MutexGuard<'_, Queues>, channel: ChannelId) {
        let path = self.params.path(channel);
        if queues.carries(Path::Urgent, path) && queues.is_lone(|| self.clock.now()) {
            drop(queues);
            return write_now(self);
        }
        if path == Path::Urgent {
            drop(queues);
            return self.wake.notify_one();
        }
        match queues.bulk {
            Bulk::Open => {
                drop(queues);
                self.wake_bulk.notify_one();
            }
            Bulk::Opening => {}
            bulk if queues.state.queued(channel).bytes > limits::BULK_OPENS_AT_BYTES && bulk.may_open(|| self.clock.now()) => {
                self.open_second(queues);
            }
            Bulk::Closed | Bulk::Closing | Bulk::Refused(_) => {
                drop(queues);
                self.wake.notify_one();
            }
        }
    }

    /// Has a second connection opened that may be opened now.
    pub(super) fn open_second(&self, mut queues: MutexGuard<'_, Queues>) {
        queues.bulk = Bulk::Opening;
        queues.moves = queues.moves.wrapping_add(1);
        drop(queues);
        self.bulk_wanted.notify_one();
        // The writer ends the streams that move.
        self.wake.notify_one();
    }

    pub(super) fn set_bulk(&self, bulk: Bulk) {
        self.queues().bulk = bulk;
        self.wake.notify_one();
        self.wake_bulk.notify_one();
        self.streams.bulk_changed.notify_waiters();
    }
}

/// Bytes of kind and body that a frame on this channel may have, in both directions.
pub(super) fn frame_bytes_max(spec: &ChannelSpec) -> usize {
    if spec.class == Class::Control { limits::CONTROL_BYTES_MAX } else { limits::FRAME_BYTES_MAX }
}

impl Link {
    /// The number of the connection, unique at this endpoint.
    pub fn id(&self) -> ConnectionId {
        self.0.id
    }

    /// The peer at the other end.
    pub fn peer(&self) -> PeerId {
        self.0.peer
    }

    /// The incarnation that the peer gave when it was admitted.
    pub fn incarnation(&self) -> u64 {
        self.0.incarnation
    }

    /// The wire version that the two sides agreed on.
    pub fn version(&self) -> u16 {
        self.0.version
    }

    /// Who dialed.
    pub fn direction(&self) -> Direction {
        self.0.direction
    }

    /// The address of the peer now. It changes when the peer moves to another network.
    pub fn address(&self) -> SocketAddr {
        canonical(self.0.connection.remote_address())
    }

    /// Our own address as the peer saw it at admission: a hint that the peer could invent.
    pub fn observed(&self) -> SocketAddr {
        self.0.observed
    }

    /// On which channel what is meant for `channel` goes to this peer: on that one, or on the fallback when the peer does not have it. Of a channel that no
    /// params name, the queue will say so.
    ///
    /// # Errors
    ///
    /// What the two sides do not agree on.
    pub fn route(&self, channel: ChannelId) -> Result<ChannelId, Disagreement> {
        let Some(spec) = self.0.params.channel(channel) else { return Ok(channel) };
        match (self.0.table.check(spec), self.0.channel_fallback) {
            (Ok(()), _) => Ok(channel),
            (Err(Disagreement::Unknown { .. }), Some(fallback)) => Ok(fallback),
            (Err(problem), _) => Err(problem),
        }
    }

    /// What the params of the endpoint say about a channel.
    pub fn channel(&self, channel: ChannelId) -> Option<&ChannelSpec> {
        self.0.params.channel(channel)
    }

    /// The channels that the application of the peer defined.
    pub fn channels_of_peer(&self) -> &Table {
        &self.0.table
    }

    /// Queues a whole frame ([`frame::encode`]) on a channel, or on the fallback when the peer does not have it.
    ///
    /// # Errors
    ///
    /// The frame is given back and nothing changed. On [`SendError::Refused`] the channel's [`Overflow`](crate::channel::Overflow) says
    /// what the caller owes.
    pub fn try_send(&self, channel: ChannelId, frame: Bytes) -> Result<(), SendError> {
        let channel = match self.route(channel) {
            Ok(channel) => channel,
            Err(problem) => return Err(SendError::Disagreed(frame, Box::new(problem))),
        };
        if let Some(spec) = self.0.params.channel(channel) {
            let len_max = frame_bytes_max(spec);
            // The length prefix is not part of what the peer limits.
            let len = frame.len();
            if len > len_max + frame::OVERHEAD_BYTES_MAX || frame_len(&frame).is_some_and(|len| len > len_max as u64) {
                return Err(SendError::TooLarge { frame, len, len_max });
            }
        }
        let now = self.0.clock.now();
        let mut queues = self.0.queues();
        if queues.closed || queues.drain.is_some() {
            return Err(SendError::Closed(frame));
        }
        queues.state.push(channel, frame, now).map_err(SendError::Refused)?;
        self.0.rouse(queues, channel);
        Ok(())
    }

    /// The lane for a new sender on a channel, which keeps it: of those with a key, by a hash of it, the same as long as the link stands; of others, one that is not
    /// blocked, among as many as help ([`ChannelMetrics::lanes_active`](crate::metrics::ChannelMetrics::lanes_active)).
    pub fn lane_for(&self, channel: ChannelId, key: Option<u64>) -> u8 {
        let now = self.0.clock.now();
        self.0.queues().state.lane_for(channel, key, now)
    }

    /// Encodes and queues a message on a lane of a channel, on the way that costs least.
    ///
    /// # Errors
    ///
    /// Nothing was queued.
    pub fn try_send_message(&self, channel: ChannelId, lane: u8, kind: u16, body: &[u8]) -> Result<(), MessageError> {
        let packed = self.0.pack(channel, kind, body);
        let (kind, body) = packed.as_ref().map_or((kind, body), |packed| (COMPRESSED, &packed[..]));
        let mut queues = self.0.queues();
        if queues.closed || queues.drain.is_some() {
            return Err(MessageError::Closed);
        }
        let pushed = queues.state.push_message(channel, lane, kind, body, || self.0.clock.now());
        self.roused(queues, channel, pushed)
    }

    /// Queues a message on a lane of a channel without copying it when it is large.
    ///
    /// # Errors
    ///
    /// Nothing was queued.
    pub fn try_send_shared(&self, channel: ChannelId, lane: u8, kind: u16, body: Bytes) -> Result<(), MessageError> {
        let (kind, body) = self.0.pack(channel, kind, &body).map_or((kind, body), |packed| (COMPRESSED, packed));
        let mut queues = self.0.queues();
        if queues.closed || queues.drain.is_some() {
            return Err(MessageError::Closed);
        }
        let pushed = queues.state.push_shared(channel, lane, kind, body, || self.0.clock.now());
        self.roused(queues, channel, pushed)
    }

    /// Queues a message that is dropped if it still waits after `ttl`.
    ///
    /// # Errors
    ///
    /// Nothing was queued.
    pub fn try_send_within(&self, channel: ChannelId, lane: u8, kind: u16, body: &[u8], ttl: Duration) -> Result<(), MessageError> {
        let packed = self.0.pack(channel, kind, body);
        let (kind, body) = packed.as_ref().map_or((kind, body), |packed| (COMPRESSED, &packed[..]));
        let now = self.0.clock.now();
        let mut queues = self.0.queues();
        if queues.closed || queues.drain.is_some() {
            return Err(MessageError::Closed);
        }
        let pushed = queues.state.push_until(channel, lane, kind, body, now + ttl, now);
        self.roused(queues, channel, pushed)
    }

    /// Queues a message that takes the place of one that waits with the same key, on a channel that keeps the latest.
    ///
    /// # Errors
    ///
    /// Nothing was queued.
    pub fn try_send_latest(&self, channel: ChannelId, key: Bytes, kind: u16, body: &[u8]) -> Result<(), MessageError> {
        let frame = frame::encode(kind, body);
        let now = self.0.clock.now();
        let mut queues = self.0.queues();
        if queues.closed || queues.drain.is_some() {
            return Err(MessageError::Closed);
        }
        let waited = queues.state.is_lane_waiting(channel, 0);
        let pushed = queues.state.push_latest(channel, key, frame, now);
        self.roused(queues, channel, pushed.map(|()| waited).map_err(|refused| (refused.reason, refused.overflow)))
    }

    fn roused(
        &self,
        queues: MutexGuard<'_, Queues>,
        channel: ChannelId,
        pushed: Result<bool, (sender::Reason, crate::channel::Overflow)>,
    ) -> Result<(), MessageError> {
        let waited = pushed.map_err(|(reason, overflow)| MessageError::Refused(reason, overflow))?;
        // Whoever sends what waited on this lane has been woken for it, unless enough waits by now for another connection.
        if !waited || matches!(queues.bulk, Bulk::Closed | Bulk::Refused(_)) {
            self.0.rouse(queues, channel);
        }
        Ok(())
    }

    /// Waits until there may be room on a channel that refused a message, or the connection is closed.
    pub async fn room(&self, channel: ChannelId, bytes: usize) {
        loop {
            let mut room = pin!(self.0.room.notified());
            {
                let mut queues = self.0.queues();
                let queued = queues.state.queued(channel);
                let has_room = self.0.params.channel(channel).is_none_or(|spec| {
                    // Half of the queue, so that each wake-up is for many messages.
                    queued.frames <= spec.queued_frames_max / 2
                        && queued.bytes.saturating_add(bytes) <= (spec.queued_bytes_max / 2).max(bytes)
                        && !queues.state.is_peer_full(channel, bytes)
                });
                if queues.closed || has_room {
                    return;
                }
                queues.want_room();
                room.as_mut().enable();
            }
            room.await;
        }
    }

    /// Sends bytes that may be lost, reordered or, when the link is busy, dropped in favor of later ones.
    ///
    /// # Errors
    ///
    /// The bytes were not sent.
    pub fn try_send_datagram(&self, bytes: Bytes) -> Result<(), DatagramError> {
        let len_max = self.0.connection.max_datagram_size().map_or(0, |max| max.min(limits::DATAGRAM_BYTES_MAX));
        let len = bytes.len();
        if len > len_max {
            return Err(if self.is_closed() { DatagramError::Closed } else { DatagramError::TooLarge { len, len_max } });
        }
        self.0.connection.send_datagram(bytes).map_err(|error| match error {
            SendDatagramError::TooLarge | SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled => {
                DatagramError::TooLarge { len, len_max }
            }
            SendDatagramError::ConnectionLost(_) => DatagramError::Closed,
        })
    }

    /// Closes the connection at once; what is queued is lost. Frames that arrived before may still be reported until the
    /// [`Event::Closed`](super::Event::Closed) that follows.
    pub fn close(&self, code: CloseCode) {
        self.0.end(CloseReason::Ours(code));
    }

    /// Takes no more frames, sends what is queued, and closes the connection when the peer's transport has it all or the limit is over.
    pub fn drain(&self, code: CloseCode, limit: Duration) {
        self.0.queues().drain.get_or_insert(Drain { code, limit });
        self.0.draining.notify_one();
        self.0.wake.notify_one();
    }

    /// Whether the connection is closed or closing.
    pub fn is_closed(&self) -> bool {
        self.0.connection.close_reason().is_some()
    }

    /// What waits to be sent, on all channels: queued, or held by the writer for streams that take nothing.
    pub fn queued(&self) -> sender::Queued {
        let queues = self.0.queues();
        let total = queues.state.total();
        sender::Queued { bytes: total.bytes.saturating_add(queues.held()), ..total }
    }

    /// The channel whose queue is fullest, in frames or in bytes, among those whose overflow ends the connection, what waits there, and the bytes of it that the transport has taken so far; `None` while
    /// nothing waits before the writer.
    pub fn fullest(&self) -> Option<(ChannelId, sender::Queued, u64)> {
        self.0.queues().state.fullest()
    }

    /// Bytes that the transport has taken of all channels but those of control.
    pub fn taken_bytes(&self) -> u64 {
        let queues = self.0.queues();
        let channels = self.0.params.channels().iter().zip(queues.state.counters());
        channels.filter(|(spec, _)| spec.class != Class::Control).map(|(_, (_, counters))| counters.sent_bytes).sum()
    }

    /// Frames that were queued for the peer and received from it on all channels but those of control.
    pub fn carried_frames(&self) -> u64 {
        let sent: Vec<_> = self.0.queues().state.counters().map(|(_, counters)| counters.frames).collect();
        let channels = self.0.params.channels().iter().zip(sent).zip(self.0.received.channels());
        let carried = channels.filter(|((spec, _), _)| spec.class != Class::Control);
        carried.map(|((_, sent), received)| sent + received.messages).sum()
    }

    /// Since when something waits and the transport took nothing, on the clock of
    /// [`EndpointConfig::origin`](super::EndpointConfig::origin); `None` while nothing waits.
    pub fn stalled_since(&self) -> Option<Time> {
        self.0.queues().stalled_since()
    }

    /// What is measured of the link: exact counts for each channel and lane, and what QUIC says of the connections. What was counted stays readable when the link is
    /// closed; its last figures stand with its [`Event::Closed`](super::Event::Closed).
    pub fn metrics(&self) -> LinkMetrics {
        let mut connections = vec![(self.0.connection.clone(), ConnectionRole::First)];
        connections.extend(self.0.seconds.open().into_iter().map(|(way, connection)| match way {
            Way::Ours => (connection, ConnectionRole::OurSecond),
            Way::Theirs => (connection, ConnectionRole::TheirSecond),
        }));
        let (mut channels, unknown_channel) = {
            let now = self.0.clock.now();
            let mut queues = self.0.queues();
            queues.state.turn(now);
            (queues.state.metrics(now), queues.state.unknown())
        };
        self.0.received.tell(&mut channels);
        let connections = connections.iter().map(|(connection, role)| ConnectionMetrics::of(connection, *role));
        LinkMetrics { channels, unknown_channel, connections: connections.collect() }
    }

    /// What the connection has seen so far.
    pub fn stats(&self) -> LinkStats {
        let transport = self.0.connection.stats();
        let mut traffic = self.0.seconds.traffic();
        traffic.add(&self.0.connection);
        let counters: Vec<_> = self.0.queues().state.counters().collect();
        let channels = counters.into_iter().zip(self.0.received.channels()).zip(self.0.received.dropped()).map(
            |(((channel, sent), received), dropped)| ChannelStats {
                channel,
                sent,
                received_frames: received.messages,
                received_bytes: received.bytes,
                received_dropped: dropped,
            },
        );
        LinkStats {
            rtt: transport.path.rtt,
            congestion_window_bytes: transport.path.cwnd,
            packet_bytes_max: transport.path.current_mtu,
            packets_sent: traffic.packets_sent,
            packets_lost: traffic.packets_lost,
            bytes_sent: traffic.bytes_sent,
            bytes_received: traffic.bytes_received,
            datagrams_sent: transport.frame_tx.datagram,
            datagrams_received: transport.frame_rx.datagram,
            datagrams_refused: self.0.datagrams_refused.load(Ordering::Relaxed),
            channels: channels.collect(),
        }
    }
}

/// The length that a frame claims: kind and body.
fn frame_len(frame: &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for (index, byte) in frame.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { id, peer, direction, .. } = &*self.0;
        write!(f, "Link({id:?}, {peer:?}, {direction:?}, {})", self.address())
    }
}

/// Why a frame was not queued. Nothing changed; the frame is given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The queue of the channel, or of the peer, is full, or there is no such channel.
    Refused(sender::Refused),
    /// The peer would refuse such a frame on this channel.
    TooLarge {
        /// The frame.
        frame: Bytes,
        /// Its bytes.
        len: usize,
        /// The most bytes of kind and body.
        len_max: usize,
    },
    /// The connection is closed or closing.
    Closed(Bytes),
    /// The two sides do not agree on the channel.
    Disagreed(Bytes, Box<Disagreement>),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Refused(refused) => refused.fmt(f),
            SendError::TooLarge { len, len_max, .. } => write!(f, "a frame of {len} bytes is above the limit of {len_max}"),
            SendError::Closed(_) => f.write_str("the connection is closed"),
            SendError::Disagreed(_, problem) => problem.fmt(f),
        }
    }
}

impl std::error::Error for SendError {}

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// There is no room for it, or no such channel.
    Refused(sender::Reason, crate::channel::Overflow),
    /// The connection is closed or closing.
    Closed,
}

/// Why a datagram was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramError {
    /// It does not fit in a packet of this path.
    TooLarge {
        /// Its bytes.
        len: usize,
        /// The most bytes.
        len_max: usize,
    },
    /// The connection is closed or closing.
    Closed,
}

impl fmt::Display for DatagramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatagramError::TooLarge { len, len_max } => write!(f, "a datagram of {len} bytes is above the limit of {len_max}"),
            DatagramError::Closed => f.write_str("the connection is closed"),
        }
    }
}

impl std::error::Error for DatagramError {}

/// What one connection has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStats {
    /// The smoothed round-trip time.
    pub rtt: Duration,
    /// What congestion control lets be in flight.
    pub congestion_window_bytes: u64,
    /// The largest packet that the path carries, as far as is known.
    pub packet_bytes_max: u16,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets that were lost.
    pub packets_lost: u64,
    /// Bytes sent, with all headers above UDP.
    pub bytes_sent: u64,
    /// Bytes received, with all headers above UDP.
    pub bytes_received: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Datagrams received and not reported because they were too large.
    pub datagrams_refused: u64,
    /// The channels in the order of their numbers.
    pub channels: Vec<ChannelStats>,
}

/// What one channel of a connection has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelStats {
    /// The channel.
    pub channel: ChannelId,
    /// What was queued and sent.
    pub sent: sender::Counters,
    /// Frames received.
    pub received_frames: u64,
    /// Bytes of their bodies.
    pub received_bytes: u64,
    /// Those of best effort that were dropped here, because the application takes them too slowly.
    pub received_dropped: u64,
}
