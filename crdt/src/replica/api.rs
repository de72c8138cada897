//! What can happen to a replica, what it decides, and what it says to whoever writes.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::{Misbehavior, PeerId, limits};

use super::{Kind, Message, Quota, Value};
use crate::confirm::{ConfirmId, Confirmed};
use crate::hlc::Stamp;
use crate::key::{Key, KeyError};
use crate::register::{LIFETIME_MAX, LIFETIME_MIN};
use crate::reunion::Reunion;

/// What can happen to a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The peer is a neighbor from now on.
    NeighborUp(PeerId),
    /// The peer is no neighbor any more.
    NeighborDown(PeerId),
    /// A message of repair arrived.
    Received {
        /// The peer that sent it over its own connection.
        from: PeerId,
        /// The message.
        message: Message,
    },
    /// A broadcast arrived.
    Delta {
        /// The node that wrote and broadcast it, which need not be the one that passed it on.
        origin: PeerId,
        /// What [`Action::Broadcast`] held there.
        bytes: Bytes,
    },
    /// The member said that it leaves the cluster.
    Left(PeerId),
    /// The member does not answer.
    Suspected(PeerId),
    /// The member is held for dead.
    Failed(PeerId),
    /// A member answers again that was suspected, or is back that was held for dead.
    Returned(PeerId),
    /// The peer cannot be reached: whoever waits for its word asks another.
    Unreached(PeerId),
    /// The moment of [`State::next_deadline`](super::State::next_deadline) has come.
    DeadlineReached,
}

/// What a replica decides.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send a message to a peer; it may be lost.
    Send {
        /// The peer.
        to: PeerId,
        /// The message, encoded less than [`limits::CONTROL_BYTES_MAX`](meshwork_channels::limits::CONTROL_BYTES_MAX).
        message: Message,
    },
    /// Broadcast a delta, at most [`limits::BROADCAST_BYTES_MAX`](meshwork_channels::limits::BROADCAST_BYTES_MAX), to every node.
    Broadcast(Bytes),
    /// What [`State::read`](super::State::read) returns for a key has changed, by a write here or elsewhere.
    Changed {
        /// The key.
        key: Key,
        /// What one reads from now on; `None` once it was removed or expired.
        value: Option<Value>,
        /// When it was written: of counters and sets not always later than the change before.
        stamp: Stamp,
        /// The number of the change on this replica, from one on.
        revision: u64,
    },
    /// Members are back that were held for dead, and what they wrote meanwhile is here.
    Reunited(Reunion),
    /// What [`State::confirm`](super::State::confirm), [`State::ask`](super::State::ask) or [`State::await_write`](super::State::await_write) began is over.
    Confirmed {
        /// Which.
        id: ConfirmId,
        /// How it ended.
        confirmed: Confirmed,
    },
    /// The peer broke a rule. For a delta the peer is its origin, although a node that passed it on may be to blame.
    Misbehaved {
        /// The peer.
        peer: PeerId,
        /// The rule.
        what: Misbehavior,
    },
}

/// A value of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The value.
    pub value: &'a Bytes,
    /// When it was written.
    pub stamp: Stamp,
    /// Who wrote it.
    pub origin: PeerId,
}

/// Why a write was not made. Nothing was changed, and no stamp was spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetError {
    /// The key is empty.
    KeyEmpty,
    /// The key is too long.
    KeyTooLong {
        /// Its length in bytes.
        len: usize,
        /// The longest length.
        len_max: usize,
    },
    /// The value is too large.
    ValueTooLarge {
        /// Its length in bytes.
        len: usize,
        /// The largest length.
        len_max: usize,
    },
    /// The replica is full.
    Full {
        /// The bound that is reached.
        quota: Quota,
        /// The value that was not written; of a batch, that of its first write.
        value: Bytes,
    },
    /// The key is of another kind, until it is removed.
    WrongKind {
        /// Its kind.
        held: Kind,
    },
    /// The value is to live for less than [`LIFETIME_MIN`] or for more than [`LIFETIME_MAX`].
    Lifetime {
        /// For how long it was to live.
        lifetime: Duration,
    },
    /// The score is not a number.
    NotANumber,
    /// A set, or what it takes to keep apart who wrote a value, has reached its bound: so many members, or half the bytes of a value.
    TooManyMembers {
        /// The most members.
        len_max: usize,
    },
    /// The batch has more writes, or more bytes, than one message carries.
    BatchTooLarge {
        /// The most writes.
        len_max: usize,
        /// The most bytes of keys and values together.
        bytes_max: usize,
    },
    /// The batch writes a key twice.
    KeyRepeated(Key),
    /// One write of several in a batch cannot be made.
    InBatch {
        /// Its key; of one that is too long, the beginning.
        key: String,
        /// Why not.
        error: Box<SetError>,
    },
    /// Every entry of the key is [signed](crate::signed): it can be set or removed, and nothing else. Values of other kinds are joined of what several
    /// wrote, and what is left of one that expired is no longer what was signed.
    Signed {
        /// The prefix by which it is.
        prefix: String,
    },
    /// The key begins with `@`, so it belongs to a service and is written through it. A replica takes such keys; a node refuses them from applications.
    KeyReserved,
}

impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetError::KeyEmpty => KeyError::Empty.fmt(f),
            SetError::KeyTooLong { len, len_max } => KeyError::TooLong { len: *len, len_max: *len_max }.fmt(f),
            SetError::ValueTooLarge { len, len_max } => write!(f, "a value has at most {len_max} bytes; this has {len}"),
            SetError::Full { quota: Quota::Keys(max), .. } => write!(f, "the replica keeps at most {max} keys, removed ones included"),
            SetError::Full { quota: Quota::Bytes(max), .. } => write!(f, "the replica keeps at most {max} bytes"),
            SetError::WrongKind { held } => write!(f, "the key holds a value of the kind `{}`; remove it first", held.name()),
            SetError::Lifetime { lifetime } => {
                write!(f, "a value that expires lives for {LIFETIME_MIN:?} to {LIFETIME_MAX:?}; this is to live for {lifetime:?}")
            }
            SetError::NotANumber => f.write_str("a score is a number"),
            SetError::TooManyMembers { len_max } => {
                write!(f, "a value has at most {len_max} members, in half the bytes of a value; more are keys of their own")
            }
            SetError::BatchTooLarge { len_max, bytes_max } => write!(f, "a batch has at most {len_max} writes and {bytes_max} bytes"),
            SetError::Signed { prefix } => {
                write!(f, "keys under `{prefix}` hold plain registers that their writer signs: they are set without an expiry, or removed")
            }
            SetError::KeyReserved => f.write_str("keys that begin with `@` belong to services"),
            SetError::KeyRepeated(key) => write!(f, "a batch writes each key once; this one writes `{key}` again"),
            SetError::InBatch { key, error } => write!(f, "`{key}`: {error}"),
        }
    }
}

impl std::error::Error for SetError {}

impl SetError {
    /// The same error, of the write of this key in a batch.
    pub fn in_batch(self, key: &str) -> Self {
        let key = key[..key.floor_char_boundary(limits::KEY_BYTES_MAX)].to_owned();
        SetError::InBatch { key, error: Box::new(self) }
    }
}

impl From<KeyError> for SetError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Empty => SetError::KeyEmpty,
            KeyError::TooLong { len, len_max } => SetError::KeyTooLong { len, len_max },
        }
    }
}

/// What a replica did so far. Entries are counted one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Writes and removals made here.
    pub written: u64,
    /// Deltas handed to the broadcast.
    pub broadcasts: u64,
    /// Deltas that arrived.
    pub deltas: u64,
    /// Entries of deltas that replaced older ones.
    pub applied: u64,
    /// Entries from neighbors that replaced older ones.
    pub repaired: u64,
    /// Entries that were known already, or older than what is known.
    pub known: u64,
    /// Entries that did not fit within the bounds.
    pub refused: u64,
    /// Values that were there and expired.
    pub expired: u64,
    /// Removed or expired keys that were forgotten, because every member knows of it.
    pub collected: u64,
    /// Entries that were given up, because others did not wait for this node and may have removed them.
    pub given_up: u64,
    /// Removals by nodes that were away, made again here, because they came too late to be heard of by all.
    pub removed_again: u64,
    /// Steps that came before what they rest on, and were left to repair.
    pub gaps: u64,
    /// Entries returned to a neighbor that had sent less than is held here.
    pub sent_back: u64,
    /// Entries whose stamps were too far ahead, or that were told to have expired before their time.
    pub stamp_ahead: u64,
    /// Entries that their origin had not signed, under keys where each is signed.
    pub forged: u64,
    /// Signed entries under keys where none is signed.
    pub stray_signatures: u64,
    /// Comparisons begun here.
    pub probes: u64,
    /// Digests of neighbors that were equal.
    pub equal: u64,
    /// Digests of neighbors that differed.
    pub different: u64,
    /// Comparisons in which a sketch told what differs.
    pub sketched: u64,
    /// Comparisons in which it did not, so that shards had to.
    pub sketches_failed: u64,
    /// Comparisons led from the first rows to the last.
    pub completed: u64,
    /// Comparisons given up, because the peer fell silent or went on without end.
    pub abandoned: u64,
    /// Entries sent to neighbors.
    pub entries_sent: u64,
    /// Questions of others about a write or a key that were answered.
    pub confirmed: u64,
    /// Requests that were not answered, because the peer asked too much, and signed entries that were not looked at, because it handed on too many forgeries.
    pub throttled: u64,
    /// Rules broken by peers.
    pub misbehaved: u64,
}
