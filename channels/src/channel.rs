//! Named channels: streams of their own between two peers, so that one never waits behind another.
//!
//! Every node has the built-in ones. An application defines more with [`ChannelSpec::new`]; their numbers follow from their names
//! ([`ChannelId::named`]), so that nodes agree on them without asking, and what must be equal at both ends is compared when two nodes
//! connect ([`crate::agreement`]).

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

    /// The first number of a channel that an application defined: the upper half of all numbers is theirs.
    pub const FIRST_DEFINED: u16 = 0x8000;

    /// The channel with this name: a built-in one, or the one that an application defines under it. The number is a hash of the name, the
    /// same on every node and in every version. Two names can share a number; a node refuses to start with both.
    pub const fn named(name: &str) -> ChannelId {
        let mut index = 0;
        while index < Self::BUILT_IN.len() {
            if let Some(built_in) = Self::BUILT_IN[index].name()
                && is_equal(built_in.as_bytes(), name.as_bytes())
            {
                return Self::BUILT_IN[index];
            }
            index += 1;
        }
        // FNV-1a in 32 bits (Fowler, Noll, Vo), folded to fifteen: short, and cheap enough for a constant.
        let (bytes, mut hash, mut index) = (name.as_bytes(), 0x811c_9dc5_u32, 0);
        while index < bytes.len() {
            hash = (hash ^ bytes[index] as u32).wrapping_mul(0x0100_0193);
            index += 1;
        }
        ChannelId(Self::FIRST_DEFINED | ((hash >> 15) ^ hash) as u16 & (Self::FIRST_DEFINED - 1))
    }

    /// Whether an application defined the channel.
    pub const fn is_defined(self) -> bool {
        self.0 >= Self::FIRST_DEFINED
    }

    /// The name of a built-in channel.
    pub const fn name(self) -> Option<&'static str> {
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

const fn is_equal(a: &[u8], b: &[u8]) -> bool {
    let mut index = 0;
    while index < a.len() && index < b.len() && a[index] == b[index] {
        index += 1;
    }
    index == a.len() && index == b.len()
}

/// As [`ChannelId::named`].
impl From<&str> for ChannelId {
    fn from(name: &str) -> Self {
        ChannelId::named(name)
    }
}

/// The number of the channel.
impl From<&ChannelSpec> for ChannelId {
    fn from(spec: &ChannelSpec) -> Self {
        spec.id
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
///
/// On the wire by position: variants are only ever added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reliability {
    /// Complete and in order while the connection stands.
    Ordered,
    /// A later message with the same key takes the place of one that still waits; while the connection stands, the newest always arrives.
    Latest,
    /// Whoever sends never waits; messages may be lost and overtake each other. Small ones travel in datagrams, many in one.
    BestEffort,
    /// Kept until the application of the peer acknowledged it, across connections ([`reliable`](crate::reliable)), and sent again when that takes
    /// long. Complete; in order unless something was sent again. A peer that died before it acknowledged sees a message twice.
    AtLeastOnce,
    /// Kept until the application of the peer acknowledged it, across connections ([`reliable`](crate::reliable)). Complete, in order, and once in one
    /// life of the peer.
    Guaranteed,
}

impl Reliability {
    /// All of them, in the order of their numbers on the wire.
    pub const ALL: [Reliability; 5] =
        [Reliability::Ordered, Reliability::Latest, Reliability::BestEffort, Reliability::AtLeastOnce, Reliability::Guaranteed];

    /// Whether messages are acknowledged by the application of the peer, and kept until then.
    pub fn is_acknowledged(self) -> bool {
        matches!(self, Reliability::AtLeastOnce | Reliability::Guaranteed)
    }

    /// A short stable name for tables.
    pub fn name(self) -> &'static str {
        match self {
            Reliability::Ordered => "ordered",
            Reliability::Latest => "latest",
            Reliability::BestEffort => "best-effort",
            Reliability::AtLeastOnce => "at-least-once",
            Reliability::Guaranteed => "guaranteed",
        }
    }
}

/// Bytes of the name of a channel that an application defines.
pub const NAME_BYTES_MAX: usize = 32;
/// Channels that an application may define.
pub const DEFINED_MAX: usize = 32;
/// Lanes of all of them together: each is a stream, and a peer takes [`limits::STREAMS_MAX`](crate::limits::STREAMS_MAX).
pub const DEFINED_LANES_MAX: usize = 32;
/// Bytes that all of them together may hold for one peer.
pub const DEFINED_BYTES_MAX: usize = 64 * MIB;

const MIB: usize = 1_024 * 1_024;

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
    /// Streams side by side, 1 to 16: order holds within each. They keep one lost packet from holding up everything; they add little throughput, unless it is the
    /// window of a stream or a slow handler that bounds it. Keys are spread over all lanes; senders without a key share the first one, and those who come when the
    /// channel is saturated get more of them while that helps ([`ChannelMetrics::lane_changes`](crate::metrics::ChannelMetrics::lane_changes)).
    pub lanes: u8,
    /// Frames that may wait for one peer. More ride out longer stalls, and make what is delivered after a stall older.
    pub queued_frames_max: usize,
    /// Bytes that may wait for one peer; at least one frame of the largest size
    /// ([`limits::FRAME_BYTES_MAX`](crate::limits::FRAME_BYTES_MAX)), or such a frame could never leave.
    pub queued_bytes_max: usize,
    /// What happens to a frame above either number.
    pub overflow: Overflow,
    /// Whether messages of 512 bytes and more are compressed (LZ4) where that makes them at least a tenth smaller. For the sender to say: every receiver opens them.
    pub is_compressed: bool,
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
            ChannelSpec {
                id,
                name,
                class,
                path,
                reliability: Reliability::Ordered,
                lanes,
                queued_frames_max,
                queued_bytes_max,
                overflow,
                is_compressed: false,
            }
        })
    }

    /// A channel of the application, for [`Ordered`](Reliability::Ordered) messages of the class [`Medium`](Class::Medium) on the path for
    /// [`Bulk`](Path::Bulk): one lane, at most 1,000 messages and 2 MiB that wait for one peer, and producers that are told when it is full. The
    /// numbers are guesses between those of the built-in channels `coordination` and `data`.
    ///
    /// The name has 1 to 32 letters, digits, `-`, `_` and `.` of ASCII, and is none of a built-in channel; it is checked when the node starts.
    pub fn new(name: impl Into<Cow<'static, str>>) -> ChannelSpec {
        let name = name.into();
        ChannelSpec {
            id: ChannelId::named(&name),
            name,
            class: Class::Medium,
            path: Path::Bulk,
            reliability: Reliability::Ordered,
            lanes: 1,
            queued_frames_max: 1_000,
            queued_bytes_max: 2 * MIB,
            overflow: Overflow::Refuse,
            is_compressed: false,
        }
    }

    /// Compresses messages of 512 bytes and more where that makes them at least a tenth smaller: for networks that are slower than the processor. Lengths then
    /// tell something of the content, so never put secrets and what others choose into one message.
    pub fn compressed(mut self) -> Self {
        self.is_compressed = true;
        self
    }

    /// Sets the class. [`Class::Control`] is refused when the node starts: it is for what keeps the cluster together.
    pub fn class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// Sets which connection carries the channel.
    pub fn path(mut self, path: Path) -> Self {
        self.path = path;
        self
    }

    /// Sets the number of lanes, 1 to 16. Both ends must have the same.
    pub fn lanes(mut self, lanes: u8) -> Self {
        self.lanes = lanes;
        self
    }

    /// Sets how many messages and bytes may wait for one peer.
    pub fn queue(mut self, frames_max: usize, bytes_max: usize) -> Self {
        (self.queued_frames_max, self.queued_bytes_max) = (frames_max, bytes_max);
        self
    }

    /// Sets what happens to a message that finds the queue full: for a channel of the application [`Overflow::Refuse`], or [`Overflow::Drop`] and
    /// [`Overflow::DropOldest`] where order matters more than completeness.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Keeps the latest message of each key ([`Reliability::Latest`]): on the connection that is always open, in one lane, for at most 1,024 keys.
    pub fn latest(mut self) -> Self {
        (self.reliability, self.path, self.lanes, self.overflow) = (Reliability::Latest, Path::Urgent, 1, Overflow::Refuse);
        self.queued_frames_max = 1_024;
        self
    }

    /// May lose messages and never makes anybody wait ([`Reliability::BestEffort`]): one lane on the connection that is always open, where the oldest
    /// give way when 32 KiB wait, for what is that late is worth nothing. That is also the largest message; [`ChannelSpec::queue`] changes both.
    pub fn best_effort(mut self) -> Self {
        (self.reliability, self.path, self.lanes, self.overflow) = (Reliability::BestEffort, Path::Urgent, 1, Overflow::DropOldest);
        self.queued_bytes_max = 32 * 1_024;
        self
    }

    /// Delivers each message at least once ([`Reliability::AtLeastOnce`]): it is kept here until the application of the peer acknowledged it, and sent
    /// again after a second, and on the next connection. One lane, and [`ChannelSpec::queue`] sets how much is kept for one peer. It costs the receiver less
    /// order than [`ChannelSpec::guaranteed`] and the sender some traffic: what the peer's application holds for more than a second is sent twice.
    pub fn at_least_once(mut self) -> Self {
        (self.reliability, self.lanes, self.overflow) = (Reliability::AtLeastOnce, 1, Overflow::Refuse);
        self
    }

    /// Delivers each message once and in order ([`Reliability::Guaranteed`]), as long as the processes at both ends live: it is kept here until the
    /// application of the peer acknowledged it, and sent again on the next connection. One lane, and [`ChannelSpec::queue`] sets how much is kept for one
    /// peer.
    pub fn guaranteed(mut self) -> Self {
        (self.reliability, self.lanes, self.overflow) = (Reliability::Guaranteed, 1, Overflow::Refuse);
        self
    }

    /// Ready-made: what agents tell of themselves and nobody misses. Class low, best effort ([`ChannelSpec::best_effort`]).
    pub fn telemetry() -> ChannelSpec {
        ChannelSpec::new("telemetry").class(Class::Low).best_effort()
    }

    /// Ready-made: many messages of medium size. Class medium, two lanes for bulk, 10,000 messages and 4 MiB.
    pub fn bulk_data() -> ChannelSpec {
        ChannelSpec::new("bulk_data").lanes(2).queue(10_000, 4 * MIB)
    }

    /// Ready-made: few large messages. Class low, one lane for bulk, 64 messages and 8 MiB.
    pub fn large_data() -> ChannelSpec {
        ChannelSpec::new("large_data").class(Class::Low).queue(64, 8 * MIB)
    }

    /// Ready-made: whatever may wait for everything else. Class low, one lane for bulk.
    pub fn background() -> ChannelSpec {
        ChannelSpec::new("background").class(Class::Low)
    }

    /// Ready-made: the newest value of each key, and no old one if a newer one waits ([`ChannelSpec::latest`]).
    pub fn state_updates() -> ChannelSpec {
        ChannelSpec::new("state_updates").latest()
    }

    /// Ready-made: what must not wait. Class high, two lanes on the connection that is always open.
    pub fn high_priority() -> ChannelSpec {
        ChannelSpec::new("high_priority").class(Class::High).path(Path::Urgent).lanes(2)
    }

    /// Ready-made: data of users apart from that of the application itself. Class medium, two lanes for bulk.
    pub fn user_data() -> ChannelSpec {
        ChannelSpec::new("user_data").lanes(2)
    }

    /// All that are ready-made. A node has those that its builder is given.
    pub fn ready_made() -> [ChannelSpec; 7] {
        [
            Self::telemetry(),
            Self::bulk_data(),
            Self::large_data(),
            Self::background(),
            Self::state_updates(),
            Self::high_priority(),
            Self::user_data(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_name_is_stable() {
        let names = ["", "video", "telemetry", "state_updates", "a-very-long-name-of-32-bytes.....", "control", "events"];
        let ids = names.map(|name| ChannelId::named(name).0);
        assert_eq!(ids, GOLDEN);
        assert_eq!(ChannelId::from("data"), ChannelId::DATA);
    }

    const GOLDEN: [u16; 7] = [40956, 38558, 44577, 36892, 35121, 0, 4];

    #[test]
    fn ready_made_channels_have_names_and_numbers_of_their_own() {
        let ready = ChannelSpec::ready_made();
        for (index, spec) in ready.iter().enumerate() {
            assert!(spec.id.is_defined() && spec.id == ChannelId::named(&spec.name));
            assert!(ready[..index].iter().all(|other| other.id != spec.id && other.name != spec.name), "{}", spec.name);
        }
        assert!(ready.iter().map(|spec| usize::from(spec.lanes)).sum::<usize>() <= DEFINED_LANES_MAX);
        assert!(ready.iter().map(|spec| spec.queued_bytes_max).sum::<usize>() <= DEFINED_BYTES_MAX);
    }
}
