//! Named channels: streams of their own between two peers, so that one never waits behind another.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of a channel on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChannelId(pub u16);

impl ChannelId {
    /// Overlay, membership and repair. Applications cannot send here.
    pub const CONTROL: ChannelId = ChannelId(0);
    /// Urgent application messages.
    pub const COORDINATION: ChannelId = ChannelId(1);
    /// Application data.
    pub const DATA: ChannelId = ChannelId(2);
    /// Background traffic of the application: whatever may wait.
    pub const GOSSIP: ChannelId = ChannelId(3);
    /// Application events; what a broadcast uses unless told otherwise.
    pub const EVENTS: ChannelId = ChannelId(4);
    /// The replicated state: its deltas and its repair. Applications cannot send here.
    pub const STATE: ChannelId = ChannelId(5);

    /// The channels that every node has, in the order of their numbers.
    pub const BUILT_IN: [ChannelId; 6] = [Self::CONTROL, Self::COORDINATION, Self::DATA, Self::GOSSIP, Self::EVENTS, Self::STATE];

    /// The name of a built-in channel.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::CONTROL => "control",
            Self::COORDINATION => "coordination",
            Self::DATA => "data",
            Self::GOSSIP => "gossip",
            Self::EVENTS => "events",
            Self::STATE => "state",
            _ => return None,
        })
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "channel-{}", self.0),
        }
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which channels go first: a frame of a higher class always leaves before one of a lower class, but for the floor of
/// [`crate::sender`], which keeps the lower ones alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Whatever may wait.
    Low,
    /// Data of the application.
    Medium,
    /// Urgent messages of the application.
    High,
    /// What keeps the cluster together. Its queues have memory of their own, which no other class can take.
    Control,
}

impl Class {
    /// The classes from the lowest to the highest.
    pub const ALL: [Class; 4] = [Class::Low, Class::Medium, Class::High, Class::Control];

    /// A short stable name for tables.
    pub fn name(self) -> &'static str {
        match self {
            Class::Low => "low",
            Class::Medium => "medium",
            Class::High => "high",
            Class::Control => "control",
        }
    }
}

/// What happens when the queue of a channel to one peer is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Overflow {
    /// The connection ends. For frames that the protocols cannot lose one of: a peer that reconnects is brought up to date, a peer that
    /// silently missed a frame is not.
    Disconnect,
    /// The producer gets the frame back and decides.
    Refuse,
    /// The frame is dropped and counted.
    Drop,
    /// The oldest frames that wait are dropped and counted, and the new one is taken.
    DropOldest,
}

impl Overflow {
    /// A short stable name for tables.
    pub fn name(self) -> &'static str {
        match self {
            Overflow::Disconnect => "disconnect",
            Overflow::Refuse => "refuse",
            Overflow::Drop => "drop",
            Overflow::DropOldest => "drop-oldest",
        }
    }
}

/// Which of the two connections to a peer carries a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// The one that is always open, for what is small and must not wait.
    Urgent,
    /// One of its own, opened when much waits and closed when it is idle, whose congestion control keeps the queues of the network short. Until then, and
    /// with a peer that refuses it, the urgent one.
    Bulk,
}

/// What becomes of messages that the network, a full queue or a broken connection gets in the way of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reliability {
    /// Complete and in order while the connection stands.
    Ordered,
    /// A later message with the same key takes the place of one that still waits; the newest always arrives.
    Latest,
}

impl Reliability {
    /// A short stable name for tables.
    pub fn name(self) -> &'static str {
        match self {
            Reliability::Ordered => "ordered",
            Reliability::Latest => "latest",
        }
    }
}

/// How one channel is queued towards each peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelSpec {
    /// The number on the wire.
    pub id: ChannelId,
    /// The name that people use.
    pub name: Cow<'static, str>,
    /// Which channels it waits for.
    pub class: Class,
    /// Which connection carries it.
    pub path: Path,
    /// What may happen to its messages.
    pub reliability: Reliability,
    /// Streams side by side, 1 to 16: order holds within each. They keep one lost packet from holding up everything; they add no throughput. The
    /// key of a message chooses its lane.
    pub lanes: u8,
    /// Frames that may wait for one peer. More ride out longer stalls, and make what is delivered after a stall older.
    pub queued_frames_max: usize,
    /// Bytes that may wait for one peer; at least one frame of the largest size
    /// ([`limits::FRAME_BYTES_MAX`](crate::limits::FRAME_BYTES_MAX)), or such a frame could never leave.
    pub queued_bytes_max: usize,
    /// What happens to a frame above either number.
    pub overflow: Overflow,
}

impl ChannelSpec {
    /// The channels that every node has, in the order of their numbers. Together they hold at most 16 MiB for one peer.
    ///
    /// The buffered frames of the four application channels are the numbers that the feature list chose for them; `control` and `state` are not in
    /// that list: the frames of the one are a guess of several bursts of a large cluster, those of the other follow `gossip`. The bytes are guesses too: they share 16 MiB, which
    /// is two send windows, so that a peer that stalls costs little and one round trip of a fast link still fits.
    ///
    /// | channel | class | path | lanes | frames | bytes | when full |
    /// |---|---|---|---|---|---|---|
    /// | control | control | urgent | 1 | 4,096 | 4 MiB | the connection ends: an overlay that lost one of its messages is wrong until it reconnects |
    /// | coordination | high | urgent | 3 | 1,000 | 2 MiB | the producer is told |
    /// | data | medium | bulk | 5 | 10,000 | 3 MiB | the producer is told |
    /// | gossip | low | bulk | 1 | 5,000 | 2 MiB | the connection ends: repair starts afresh with the next one |
    /// | events | medium | bulk | 2 | 5,000 | 3 MiB | the connection ends: a relayed broadcast has no producer here that could be told |
    /// | state | low | bulk | 1 | 5,000 | 2 MiB | the connection ends: replicas compare afresh with the next one |
    pub fn built_in() -> [ChannelSpec; 6] {
        ChannelId::BUILT_IN.map(|id| {
            const MIB: usize = 1_024 * 1_024;
            let (class, queued_frames_max, queued_bytes_max, overflow) = match id {
                ChannelId::CONTROL => (Class::Control, 4_096, 4 * MIB, Overflow::Disconnect),
                ChannelId::COORDINATION => (Class::High, 1_000, 2 * MIB, Overflow::Refuse),
                ChannelId::DATA => (Class::Medium, 10_000, 3 * MIB, Overflow::Refuse),
                ChannelId::GOSSIP => (Class::Low, 5_000, 2 * MIB, Overflow::Disconnect),
                ChannelId::STATE => (Class::Low, 5_000, 2 * MIB, Overflow::Disconnect),
                _ => (Class::Medium, 5_000, 3 * MIB, Overflow::Disconnect),
            };
            let (path, lanes) = match id {
                ChannelId::CONTROL => (Path::Urgent, 1),
                ChannelId::COORDINATION => (Path::Urgent, 3),
                ChannelId::DATA => (Path::Bulk, 5),
                ChannelId::EVENTS => (Path::Bulk, 2),
                _ => (Path::Bulk, 1),
            };
            let name = Cow::Borrowed(id.name().unwrap_or_default());
            ChannelSpec { id, name, class, path, reliability: Reliability::Ordered, lanes, queued_frames_max, queued_bytes_max, overflow }
        })
    }
}
