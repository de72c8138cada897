//! What replicas say to each other: deltas in broadcasts, and the messages of repair between neighbors.
//!
//! Enums grow at their ends only. Hashes and stamps have a fixed width, because they use all their bits. What orders an entry is
//! computed again from the value that arrived; a value of another kind than a register is kept as it came, once it is found sound.

use std::fmt;

use bytes::Bytes;
use meshwork_channels::{Bounded, PeerId, WallTime, limits};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::hlc::Stamp;
use crate::key::Key;
use crate::register::Register;
use crate::signed::{SIGNED_BYTES, Signed};
use crate::sketch;
use crate::value::Step;

pub(crate) mod packed;

/// Shards of the key space: the top byte of a key's hash.
pub const SHARDS: usize = 256;
/// Ranges of one message.
pub const RANGES_MAX: usize = SHARDS;
/// Rows, or wanted hashes, of one message.
pub const ROWS_MAX: usize = 2_048;
/// Bits that are told of each shard's sum beside a sketch: two shards that differ look alike once in four.
pub const GLIMPSE_BITS: usize = 2;
/// Bytes of those of all shards.
pub const GLIMPSE_BYTES: usize = SHARDS * GLIMPSE_BITS / 8;
/// Names of one message: as many as all cells of a sketch can give away.
pub const NAMES_MAX: usize = sketch::CELLS_MAX;
/// Entries of one frame.
pub const ENTRIES_MAX: usize = 1_024;
/// Members of one message.
pub const KNOWN_MAX: usize = 1_024;
/// Writes of one delta.
pub const WRITES_MAX: usize = 1_024;

/// Bytes that a sender fills in one frame or delta: the smaller of both limits, less room for what wraps the message.
pub(crate) const FRAME_BUDGET_BYTES: usize = limits::CONTROL_BYTES_MAX - 512;
const _: () = assert!(limits::BROADCAST_BYTES_MAX >= limits::CONTROL_BYTES_MAX, "one budget serves both");
/// At most how many bytes more a register takes that expires or expired: the moment, and a hash where there is no value.
pub(crate) const EXPIRY_BYTES_MAX: usize = 10;
/// At most how many bytes the largest register takes: signed ones do not expire.
pub(crate) const VALUE_ENCODED_MAX: usize =
    limits::VALUE_BYTES_MAX + if SIGNED_BYTES > EXPIRY_BYTES_MAX { SIGNED_BYTES } else { EXPIRY_BYTES_MAX };
const _: () = assert!(entry_bytes_max(limits::KEY_BYTES_MAX, VALUE_ENCODED_MAX) <= FRAME_BUDGET_BYTES, "the largest entry fits");
const _: () = assert!(
    packed::ORIGIN_BYTES + packed::bytes_max(limits::KEY_BYTES_MAX, VALUE_ENCODED_MAX) <= FRAME_BUDGET_BYTES,
    "also by itself in a frame of repair"
);

/// At most how many bytes an entry takes on the wire.
pub(crate) const fn entry_bytes_max(key_len: usize, value_len: usize) -> usize {
    // The length and bytes of the key, stamp, origin, tag and length and bytes of the value.
    2 + key_len + 8 + 32 + 1 + 3 + value_len
}

/// What was written. New kinds are added at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// The key was removed: a tombstone.
    Removed,
    /// A register in which the last writer wins.
    Register(Bytes),
    /// A value of another kind, or a part of it.
    Step(Box<Step>),
    /// A register with a value until a moment, in seconds since the Unix epoch.
    Until(u32, Bytes),
    /// A register whose value expired at a moment; its hash stands for it.
    Expired(u32, #[serde(with = "fixed")] u64),
    /// A register that its origin signed, or the removal of one.
    Signed(Box<Signed>),
}

impl Body {
    /// What a register holds by it; `None` if it is a step.
    pub(crate) fn register(&self) -> Option<Register> {
        Some(match self {
            Body::Removed => Register::Removed,
            Body::Register(value) => Register::Value(value.clone()),
            Body::Until(until, value) => Register::Until(*until, value.clone()),
            Body::Expired(until, hash) => Register::Expired(*until, *hash),
            Body::Signed(signed) => Register::Signed(signed.clone()),
            Body::Step(_) => return None,
        })
    }

    /// Whether it leaves anything to read.
    pub(crate) fn is_live(&self) -> bool {
        match self {
            Body::Removed | Body::Expired(..) => false,
            Body::Register(_) | Body::Until(..) => true,
            Body::Signed(signed) => signed.value.is_some(),
            Body::Step(step) => !matches!(&**step, Step::Whole(typed) if !typed.is_live()),
        }
    }
}

/// A write of the node that broadcasts it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The key.
    pub key: Key,
    /// When it was written.
    pub stamp: Stamp,
    /// What was written.
    pub body: Body,
}

/// The payload of a broadcast. Its writes are those of who sends the broadcast, who need not name itself. The siblings in a value name their own writers,
/// which nobody verifies; of [`Body::Signed`] everybody does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delta {
    /// Writes, in the order of their keys.
    Writes(Bounded<Write, WRITES_MAX>),
}

/// An entry that one neighbor hands to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// When it was written.
    pub stamp: Stamp,
    /// Who wrote it.
    pub origin: PeerId,
    /// What was written.
    pub body: Body,
}

/// The keyed hash of a key; replicas compare in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyHash(#[serde(with = "fixed")] pub u64);

/// The sum over the entries of one shard; zero for an empty one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardSum(#[serde(with = "fixed")] pub u64);

/// A part of the space of key hashes, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first hash.
    pub first: KeyHash,
    /// The last hash.
    pub last: KeyHash,
}

/// The upper half of the keyed hash of a key, and of the items of its entries in a sketch. Among a million keys one in four thousand shares
/// it with another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Name(#[serde(with = "fixed_narrow")] pub u32);

impl Name {
    pub(crate) fn of(hash: u64) -> Self {
        Name((hash >> 32) as u32)
    }

    /// The hashes of all keys of this name.
    pub(crate) fn range(self) -> Range {
        let first = u64::from(self.0) << 32;
        Range { first: KeyHash(first), last: KeyHash(first | u64::from(u32::MAX)) }
    }
}

/// What its sender holds under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The name.
    pub name: Name,
    /// The stamp of the entry; [`Stamp::ZERO`] where there is none, [`Stamp::MAX`] where there are several.
    pub stamp: Stamp,
}

/// What names an entry without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Row {
    /// The hash of the key.
    pub key: KeyHash,
    /// When it was written.
    pub stamp: Stamp,
    /// The keyed hash of the whole entry.
    #[serde(with = "fixed")]
    pub entry: u64,
}

/// What is known of a member, in seconds since the Unix epoch; each field is the greatest that anybody told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The member.
    pub member: PeerId,
    /// When it was last heard of.
    pub heard: u32,
    /// Since when nobody waits for it, because it left or was silent for long; zero if that never was.
    pub left: u32,
    /// When it was last back from that.
    pub back: u32,
    /// Everything that it stamped before is held by the sender.
    pub through: u32,
    /// Everything that anybody stamped before is held by the member, as it said.
    pub complete: u32,
}

/// Why a replica does not confirm what it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decline {
    /// It has no room for it.
    Full,
    /// The stamp is too far ahead of its clock.
    Ahead,
    /// One of both was away for so long that nobody waits for it: see [`Message::Away`].
    Away,
    /// It was asked too much at once.
    Busy,
    /// It has expired by its clock.
    Expired,
    /// Its origin did not sign it under a key where each entry is signed, or did where none is.
    Signature,
}

impl fmt::Display for Decline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Decline::Full => "no room",
            Decline::Ahead => "the stamp is too far ahead",
            Decline::Away => "it was away for too long",
            Decline::Busy => "asked too much at once",
            Decline::Expired => "expired by its clock",
            Decline::Signature => "its signature, or the lack of one, is refused",
        })
    }
}

/// A message between two replicas. Every one fits in [`limits::CONTROL_BYTES_MAX`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// "This is my digest."
    Probe {
        /// The digest of the sender.
        digest: Digest,
        /// Its wall clock.
        wall: WallTime,
    },
    /// "Mine is the same." Answers `Probe`.
    Equal {
        /// The wall clock of the sender.
        wall: WallTime,
    },
    /// "Mine differs; these are my shards." Answers `Probe`.
    Shards {
        /// How many keys the sender holds, tombstones included.
        keys: u64,
        /// Its wall clock.
        wall: WallTime,
        /// The sum of each of the [`SHARDS`] shards.
        sums: Bounded<ShardSum, SHARDS>,
    },
    /// "We differ within these ranges and you hold fewer keys: you compare." Answers `Shards`.
    Lead {
        /// Ascending and disjoint.
        ranges: Bounded<Range, RANGES_MAX>,
    },
    /// "Within these ranges I hold exactly these rows." Sent by the leader.
    Compare {
        /// Told back by the answer.
        round: u32,
        /// Ascending and disjoint.
        ranges: Bounded<Range, RANGES_MAX>,
        /// Ascending, each within a range.
        rows: Bounded<Row, ROWS_MAX>,
    },
    /// "You lack these." Sent by both, as often as needed.
    Entries {
        /// The entries.
        #[serde(with = "packed")]
        entries: Bounded<Entry, ENTRIES_MAX>,
    },
    /// "Up to here you have from me what you lack, and I want these of you." Ends the answer to `Compare`.
    Compared {
        /// The round of the `Compare`.
        round: u32,
        /// The last hash that the answer covers.
        through: KeyHash,
        /// Keys of which the leader has a newer entry; ascending, none after `through`.
        want: Bounded<KeyHash, ROWS_MAX>,
    },
    /// "Mine differs, perhaps by little: this is the beginning of my sketch." Answers `Probe`.
    Differs {
        /// How many keys the sender holds, tombstones included.
        keys: u64,
        /// Its wall clock.
        wall: WallTime,
        /// Names the state of the sketch: cells of two states do not belong together.
        #[serde(with = "fixed")]
        version: u64,
        /// The lowest [`GLIMPSE_BITS`] bits of each shard's sum, from which the receiver estimates how many cells it needs; the first shard is
        /// in the lowest bits.
        glimpse: Bounded<u8, GLIMPSE_BYTES>,
        /// The first cells.
        cells: sketch::Cells,
    },
    /// "These are not enough."
    AskCells {
        /// Of which state of the sketch. If there is another now, the cells before `first` are sent as well.
        #[serde(with = "fixed")]
        version: u64,
        /// The first cell.
        first: u16,
        /// The cell behind the last one.
        end: u16,
    },
    /// Answers `AskCells`.
    Cells {
        /// Of which state of the sketch.
        #[serde(with = "fixed")]
        version: u64,
        /// The cells.
        cells: sketch::Cells,
    },
    /// "Cells do not tell what differs: send your shards." Answered by `Shards`.
    AskShards,
    /// "This is what I hold under the names that differ." Answered by what the receiver holds under them that is newer or missing, and by
    /// `Compared`, which asks for the others: there a hash stands for all keys of its name. Sent by the leader.
    Want {
        /// Told back by the answer.
        round: u32,
        /// Ascending.
        names: Bounded<Named, NAMES_MAX>,
    },
    /// "Removals before this are forgotten here." Sent before `Probe`, and before an answer to it that is not
    /// `Equal`.
    Floor {
        /// Seconds since the Unix epoch.
        floor: u32,
    },
    /// "Tell me of the members." Sent before `Probe`.
    AskMembers,
    /// Answers `AskMembers`, in as many messages as it takes.
    Members {
        /// How many messages of entries the sender has sent on this link.
        frames: u32,
        /// What it knows.
        table: Bounded<Known, KNOWN_MAX>,
        /// Whether this is the last of them.
        is_last: bool,
    },
    /// "How many messages of entries have you sent me?" Whoever got all of them holds what the other held when it answered `AskMembers`.
    AskFrames,
    /// Answers `AskFrames`.
    Frames {
        /// As in `Members`.
        frames: u32,
    },
    /// "Nobody waited for you." Answers everything from a member that is not waited for.
    Away {
        /// Removals before this may be forgotten somewhere, in seconds since the Unix epoch.
        floor: u32,
        /// Those that are not waited for, the receiver first.
        table: Bounded<Known, KNOWN_MAX>,
    },
    /// "I gave up what others may have removed meanwhile." Answers `Away`.
    Back {
        /// Seconds since the Unix epoch.
        back: u32,
    },
    /// "Hold these, and say so." Answered by `Held` or `Declined`.
    Hold {
        /// Told back by the answer.
        #[serde(with = "fixed")]
        id: u64,
        /// The entries.
        #[serde(with = "packed")]
        entries: Bounded<Entry, ENTRIES_MAX>,
    },
    /// "I hold them, or something newer." Answers `Hold`.
    Held {
        /// That of the `Hold`.
        #[serde(with = "fixed")]
        id: u64,
    },
    /// "What do you hold under this key?" Answered by `Answer` or `Declined`.
    Ask {
        /// Told back by the answer.
        #[serde(with = "fixed")]
        id: u64,
        /// The key.
        key: Key,
    },
    /// "This, or nothing." Answers `Ask`.
    Answer {
        /// That of the `Ask`.
        #[serde(with = "fixed")]
        id: u64,
        /// At most one.
        #[serde(with = "packed")]
        entries: Bounded<Entry, ENTRIES_MAX>,
    },
    /// "I do not." Answers `Hold` and `Ask`.
    Declined {
        /// That of the question.
        #[serde(with = "fixed")]
        id: u64,
        /// Why.
        why: Decline,
    },
}

impl Message {
    /// A short stable name for logs, counters and tables.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Probe { .. } => "probe",
            Message::Equal { .. } => "equal",
            Message::Shards { .. } => "shards",
            Message::Lead { .. } => "lead",
            Message::Compare { .. } => "compare",
            Message::Entries { .. } => "entries",
            Message::Compared { .. } => "compared",
            Message::Differs { .. } => "differs",
            Message::AskCells { .. } => "ask_cells",
            Message::Cells { .. } => "cells",
            Message::AskShards => "ask_shards",
            Message::Want { .. } => "want",
            Message::Floor { .. } => "floor",
            Message::AskMembers => "ask_members",
            Message::Members { .. } => "members",
            Message::AskFrames => "ask_frames",
            Message::Frames { .. } => "frames",
            Message::Away { .. } => "away",
            Message::Back { .. } => "back",
            Message::Hold { .. } => "hold",
            Message::Held { .. } => "held",
            Message::Ask { .. } => "ask",
            Message::Answer { .. } => "answer",
            Message::Declined { .. } => "declined",
        }
    }

    /// Whether its sender says it again where it is lost, so that it need not find room at all costs.
    pub fn is_said_again(&self) -> bool {
        matches!(
            self,
            Message::Hold { .. } | Message::Held { .. } | Message::Ask { .. } | Message::Answer { .. } | Message::Declined { .. }
        )
    }
}

/// 64 bits as eight bytes, highest first, so that bytes order as numbers do.
pub(crate) mod fixed {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        value.to_be_bytes().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        <[u8; 8]>::deserialize(deserializer).map(u64::from_be_bytes)
    }
}

/// 32 bits as four bytes, highest first.
pub(crate) mod fixed_narrow {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        value.to_be_bytes().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        <[u8; 4]>::deserialize(deserializer).map(u32::from_be_bytes)
    }
}

/// 128 bits as sixteen bytes, highest first.
pub(crate) mod fixed_wide {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        value.to_be_bytes().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        <[u8; 16]>::deserialize(deserializer).map(u128::from_be_bytes)
    }
}
