//! What is measured of the channels to a peer: counts that are exact, and times with a stated resolution.
//!
//! A message is a frame: on the channels that applications use, each message is one, and the node's own protocols send some too. Of one channel to one peer, at any
//! moment, all that was accepted is accounted for:
//!
//! ```text
//! accepted = sent + waiting + dropped (conflated + oldest + unwanted + lost + expired)
//! ```
//!
//! *Accepted* is what the queue took. *Sent* is what QUIC took to the last byte; it may still be on its way, and what is on its way when a connection breaks may have
//! arrived or not: only the peer's `received` says which. *Lost* is what a broken connection found in the queue, or not wholly in the hands of QUIC.
//!
//! Two reads are equal when nothing happened in between, but for [`ChannelMetrics::busy_last`], which changes at the end of a window of 10 s, and is zero from the
//! second end on after the last message; and for [`ChannelMetrics::lanes_active`], which is one again when the channel was quiet for a minute.

use std::time::Duration;

use crate::channel::ChannelId;
use crate::histogram::Histogram;
use crate::time::Time;

/// The window of [`ChannelMetrics::busy_last`]. Windows follow one another from the origin of the clock on.
pub const WINDOW: Duration = Duration::from_secs(10);

/// How many changes of the number of lanes are kept for a channel to a peer: the latest ones.
pub const LANE_CHANGES_MAX: usize = 16;

/// A number of messages, and of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Messages.
    pub messages: u64,
    /// Their bytes: with or without what precedes each message on the wire, as said where it is used.
    pub bytes: u64,
}

impl Volume {
    fn add(&mut self, other: Volume) {
        self.messages = self.messages.saturating_add(other.messages);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    fn raise(&mut self, other: Volume) {
        self.messages = self.messages.max(other.messages);
        self.bytes = self.bytes.max(other.bytes);
    }
}

/// Messages that were not queued, by reason. A sender that waits and tries again is refused each time that it finds no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// The queue of the channel to the peer was full.
    pub channel_full: u64,
    /// That queue had room, but those of all channels to the peer together had none.
    pub peer_full: u64,
}

impl Refused {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.channel_full.saturating_add(self.peer_full)
    }
}

/// Messages that were queued and not sent, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// A later one of the same key took its place.
    pub conflated: u64,
    /// It was the oldest of a full queue whose channel drops the oldest.
    pub oldest: u64,
    /// The peer does not take the channel.
    pub unwanted: u64,
    /// The connection was gone before QUIC had all of it.
    pub lost: u64,
    /// Its time was over before it left.
    pub expired: u64,
}

impl Dropped {
    /// All of them.
    pub fn total(&self) -> u64 {
        let all = [self.conflated, self.oldest, self.unwanted, self.lost, self.expired];
        all.into_iter().fold(0, u64::saturating_add)
    }

    fn add(&mut self, other: &Dropped) {
        self.conflated = self.conflated.saturating_add(other.conflated);
        self.oldest = self.oldest.saturating_add(other.oldest);
        self.unwanted = self.unwanted.saturating_add(other.unwanted);
        self.lost = self.lost.saturating_add(other.lost);
        self.expired = self.expired.saturating_add(other.expired);
    }
}

/// For how long streams held back what was ready, by cause; the times of several lanes add up. A time is added when it is over. It begins when a stream took less than it was
/// offered. QUIC does not tell the window of the peer, that of congestion control and the copies kept for retransmission apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blocked {
    /// The peer had not allowed one more stream.
    pub opening: Duration,
    /// The stream took nothing.
    pub stream: Duration,
}

impl Blocked {
    fn add(&mut self, other: Blocked) {
        self.opening = self.opening.saturating_add(other.opening);
        self.stream = self.stream.saturating_add(other.stream);
    }
}

/// One lane of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneMetrics {
    /// What QUIC took, in bytes on the stream.
    pub sent: Volume,
    /// What waits: queued, or begun and not wholly taken by QUIC; in bytes on the stream.
    pub waiting: Volume,
    /// Messages that were queued and not sent, for whatever reason.
    pub dropped: u64,
    /// What arrived, in bytes of content.
    pub received: Volume,
    /// Whether it holds something of which QUIC took nothing for half a second or longer, while it took something else: new senders and new keys get another lane.
    pub is_blocked: bool,
}

/// A change of the number of lanes that new senders without a key are spread over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneChange {
    /// When, since the origin of the clock: for a node, since it was started.
    pub at: Time,
    /// The lanes before.
    pub from: u8,
    /// The lanes that were decided on. A change that was taken back is over; one of another outcome stands until the next.
    pub to: u8,
    /// Bytes per second that QUIC took of the channel before.
    pub before_bytes_per_s: u64,
    /// The same after; none where it was not measured.
    pub after_bytes_per_s: Option<u64>,
    /// What it was made for.
    pub reason: LaneReason,
    /// What became of it.
    pub outcome: LaneOutcome,
}

/// What the number of lanes is changed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneReason {
    /// Something waited for more than nine tenths of two seconds, and at the end of each half second.
    Saturated,
    /// The channel was quiet for a minute.
    Idle,
}

impl LaneReason {
    /// A short stable name for tables.
    pub fn name(self) -> &'static str {
        match self {
            LaneReason::Saturated => "saturated",
            LaneReason::Idle => "idle",
        }
    }
}

/// What became of a change of the number of lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneOutcome {
    /// It is not decided yet.
    Measuring,
    /// It stands: the channel carried a tenth more, or it was idle.
    Kept,
    /// It was taken back: the channel carried less than a tenth more.
    Reverted,
    /// It was taken back without a measurement: no new sender came in ten seconds, so nothing used the lane, or the load ended.
    Unused,
}

impl LaneOutcome {
    /// A short stable name for tables.
    pub fn name(self) -> &'static str {
        match self {
            LaneOutcome::Measuring => "measuring",
            LaneOutcome::Kept => "kept",
            LaneOutcome::Reverted => "reverted",
            LaneOutcome::Unused => "unused",
        }
    }
}

/// One channel to one peer, or to several when they were added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelMetrics {
    /// The channel.
    pub channel: ChannelId,
    /// What the queue took, in bytes of content: what an application handed over, or the node's own protocols.
    pub accepted: Volume,
    /// What QUIC took, in bytes on the stream: content, and some three bytes for each message.
    pub sent: Volume,
    /// What arrived, in bytes of content; counted when the receiver is handed it.
    pub received: Volume,
    /// What waits: queued, or begun and not wholly taken by QUIC; in bytes on the stream.
    pub waiting: Volume,
    /// The most that was ever queued, messages and bytes each for themselves, in bytes on the stream. What QUIC was being offered is not among them: at most
    /// some 64 KiB for each lane. Of several peers, the most of any.
    pub queued_high: Volume,
    /// What was not queued.
    pub refused: Refused,
    /// What was queued and not sent.
    pub dropped: Dropped,
    /// How often a stream took something; see [`ChannelMetrics::messages_per_write`].
    pub writes: u64,
    /// For each message that was sent: the time from the call that queued it until QUIC had all of it. Its count is `sent.messages`. The resolution is 1 µs and one 16th;
    /// a message in a burst is stamped with the time of one that came up to 31 messages before it, as a rule less than 16 µs: no wait is understated.
    pub waited: Histogram,
    /// For how long something waited, altogether; of several peers, the sum.
    pub busy: Duration,
    /// For how long something waited in the last whole window of [`WINDOW`]; of several peers, the longest.
    pub busy_last: Duration,
    /// For how long streams held something back.
    pub blocked: Blocked,
    /// The lanes in order.
    pub lanes: Vec<LaneMetrics>,
    /// How many of them new senders without a key are spread over: the first ones. Of several peers, the most of any; zero without a connection. Keys are spread over all.
    pub lanes_active: u8,
    /// How that number changed, in order: the latest [`LANE_CHANGES_MAX`]; of several peers, those of all.
    pub lane_changes: Vec<LaneChange>,
}

impl ChannelMetrics {
    /// A channel that has seen nothing.
    pub fn new(channel: ChannelId) -> Self {
        ChannelMetrics {
            channel,
            accepted: Volume::default(),
            sent: Volume::default(),
            received: Volume::default(),
            waiting: Volume::default(),
            queued_high: Volume::default(),
            refused: Refused::default(),
            dropped: Dropped::default(),
            writes: 0,
            waited: Histogram::default(),
            busy: Duration::ZERO,
            busy_last: Duration::ZERO,
            blocked: Blocked::default(),
            lanes: Vec::new(),
            lanes_active: 0,
            lane_changes: Vec::new(),
        }
    }

    /// The share of the last whole window of [`WINDOW`] in which something waited, 0 to 1. It changes at the end of a window only.
    pub fn utilization(&self) -> f64 {
        self.busy_last.as_secs_f64() / WINDOW.as_secs_f64()
    }

    /// How many messages a stream took at one go, on average; zero when it took nothing.
    pub fn messages_per_write(&self) -> f64 {
        if self.writes == 0 { 0.0 } else { self.sent.messages as f64 / self.writes as f64 }
    }

    /// Whether it has seen nothing.
    pub fn is_unused(&self) -> bool {
        self.accepted.messages == 0 && self.received.messages == 0 && self.refused.total() == 0
    }

    /// Adds the same channel of another connection or peer.
    pub fn add(&mut self, other: &ChannelMetrics) {
        self.accepted.add(other.accepted);
        self.sent.add(other.sent);
        self.received.add(other.received);
        self.waiting.add(other.waiting);
        self.queued_high.raise(other.queued_high);
        self.refused.channel_full = self.refused.channel_full.saturating_add(other.refused.channel_full);
        self.refused.peer_full = self.refused.peer_full.saturating_add(other.refused.peer_full);
        self.dropped.add(&other.dropped);
        self.writes = self.writes.saturating_add(other.writes);
        self.waited.add(&other.waited);
        self.busy = self.busy.saturating_add(other.busy);
        self.busy_last = self.busy_last.max(other.busy_last);
        self.blocked.add(other.blocked);
        if self.lanes.len() < other.lanes.len() {
            self.lanes.resize(other.lanes.len(), LaneMetrics::default());
        }
        for (lane, other) in self.lanes.iter_mut().zip(&other.lanes) {
            lane.sent.add(other.sent);
            lane.waiting.add(other.waiting);
            lane.dropped = lane.dropped.saturating_add(other.dropped);
            lane.received.add(other.received);
            lane.is_blocked |= other.is_blocked;
        }
        self.lanes_active = self.lanes_active.max(other.lanes_active);
        self.lane_changes.extend(&other.lane_changes);
        self.lane_changes.sort_by_key(|change| change.at);
        self.lane_changes.drain(..self.lane_changes.len().saturating_sub(LANE_CHANGES_MAX));
    }

    /// The same for a connection that is over: what it has seen, and nothing of the present.
    pub fn into_past(mut self) -> Self {
        (self.busy_last, self.lanes_active) = (Duration::ZERO, 0);
        self.lanes.iter_mut().for_each(|lane| lane.is_blocked = false);
        self
    }
}

/// Adds channels to those of the same number.
pub fn add_channels(sum: &mut Vec<ChannelMetrics>, channels: &[ChannelMetrics]) {
    for channel in channels {
        match sum.binary_search_by_key(&channel.channel, |channel| channel.channel) {
            Ok(at) => sum[at].add(channel),
            Err(at) => sum.insert(at, channel.clone()),
        }
    }
}
