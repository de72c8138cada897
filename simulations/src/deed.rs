//! What a node does to the replicated state, as data: every operation that there is on a key, with numbers for values and members.
//!
//! A key has a kind and a number, and both are in its name, so that no two kinds meet under one key: what comes of that is tried out beside the replica itself.

use meshwork::crdt::Kind;
use serde::{Deserialize, Serialize};

/// The most by which a deed counts up or down: the sum of a million of them is far from the limits of a counter.
pub const BY_MAX: u64 = 1 << 40;
/// The longest time for which something is written, in seconds: it is over well before a run is judged.
pub const SECONDS_MAX: u32 = 10;
/// The most changes of one batch.
pub const BATCH_LEN_MAX: usize = 64;

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "deed", rename_all = "snake_case")]
pub enum Deed {
    /// Write a register in which the last writer wins.
    Set {
        /// The number of the write, which is its value.
        write: u32,
    },
    /// Write a register in which the last writer wins, for some time.
    SetFor {
        /// The number of the write, which is its value.
        write: u32,
        /// How long it lives, at most [`SECONDS_MAX`].
        seconds: u32,
    },
    /// Write a register in which the highest score wins.
    Best {
        /// The score.
        score: u32,
        /// The number of the write.
        write: u32,
    },
    /// Write a register that keeps concurrent writes.
    Put {
        /// The number of the write.
        write: u32,
    },
    /// Add to a counter that goes both ways.
    Add {
        /// What is added, at most [`BY_MAX`] either way.
        by: i64,
    },
    /// Add to a counter that grows.
    Grow {
        /// What is added, at most [`BY_MAX`].
        by: u64,
    },
    /// Add a member to a set.
    Insert {
        /// The number of the member.
        member: u32,
    },
    /// Take a member out of a set.
    Take {
        /// The number of the member.
        member: u32,
    },
    /// Add a member to a set that grows.
    Include {
        /// The number of the member.
        member: u32,
    },
    /// Remove the key.
    Remove,
}

impl Deed {
    /// Whether a key of a kind can have it done to it.
    fn is_for(self, kind: Kind) -> bool {
        match self {
            Deed::Set { .. } | Deed::SetFor { .. } => kind == Kind::Lww,
            Deed::Best { .. } => kind == Kind::Best,
            Deed::Put { .. } => kind == Kind::Mv,
            Deed::Add { .. } => kind == Kind::Count,
            Deed::Grow { .. } => kind == Kind::GCount,
            Deed::Insert { .. } | Deed::Take { .. } => kind == Kind::Set,
            Deed::Include { .. } => kind == Kind::GSet,
            Deed::Remove => true,
        }
    }
}

/// A key: what it holds, and its number among those of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// What it holds.
    pub kind: Kind,
    /// Its number.
    pub key: u32,
}

impl Place {
    /// The name of the key: `key-7` of a plain register, `set-7` of a set.
    pub fn name(self) -> String {
        let kind = if self.kind == Kind::Lww { "key" } else { self.kind.name() };
        format!("{kind}-{}", self.key)
    }
}

/// Something that is done to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// To which.
    #[serde(flatten)]
    pub place: Place,
    /// What.
    #[serde(flatten)]
    pub deed: Deed,
}

impl Change {
    /// Something that is done to a plain register.
    pub fn plain(key: u32, deed: Deed) -> Self {
        Change { place: Place { kind: Kind::Lww, key }, deed }
    }

    /// Whether it can be done.
    pub(crate) fn is_sound(&self) -> bool {
        let is_small = match self.deed {
            Deed::Add { by } => by.unsigned_abs() <= BY_MAX,
            Deed::Grow { by } => by <= BY_MAX,
            Deed::SetFor { seconds, .. } => (1..=SECONDS_MAX).contains(&seconds),
            _ => true,
        };
        is_small && self.deed.is_for(self.place.kind)
    }
}
