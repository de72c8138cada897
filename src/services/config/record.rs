//! What one entry of the replica holds: a value, and those that were there before.
//!
//! The history is part of the entry, rather than entries of its own, for three reasons: it arrives together with what it is the history of;
//! it needs no further keys, of which a replica keeps the tombstones; and a node that missed some changes still learns of them from the
//! next. A removal is an entry without a value, so that what was removed can be brought back.

use bytes::Bytes;
use meshwork_channels::{Bounded, DecodeError, PeerId, decode, encode};
use meshwork_crdt::Stamp;
use serde::{Deserialize, Serialize};

use super::limits::{HISTORY_MAX, RECORD_BYTES_MAX};
use super::value::{Tokens, Value};
use super::{Hidden, Path};

/// The version of the encoding, its first byte.
pub(super) const VERSION: u8 = 1;

/// A change of a value in the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What was changed.
    pub path: Path,
    /// When.
    pub stamp: Stamp,
    /// Who proposed it. Of the newest change the replica knows that; of older ones, whoever wrote the next change says so.
    pub proposer: PeerId,
    /// The value from then on; `None` once it was removed.
    pub value: Option<Value>,
}

/// A former value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Past {
    pub stamp: Stamp,
    pub proposer: PeerId,
    pub value: Option<Value>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Record {
    pub value: Option<Value>,
    /// Newest first.
    pub past: Vec<Past>,
    /// Whether older values were left out.
    pub is_cut: bool,
    /// Tells this write from others. A replica does not tell of a newer write of equal bytes, although it can change which of a value and a map
    /// at one path is the newer.
    pub mark: u64,
}

#[derive(Serialize, Deserialize)]
struct WirePast {
    stamp: Stamp,
    proposer: PeerId,
    value: Option<Tokens>,
}

#[derive(Serialize, Deserialize)]
struct WireRecord {
    value: Option<Tokens>,
    past: Bounded<WirePast, HISTORY_MAX>,
    is_cut: bool,
    mark: u64,
}

impl Record {
    /// Cuts the history to what fits and encodes. The value itself was checked.
    pub(super) fn encode(mut self) -> Bytes {
        self.is_cut |= self.past.len() > HISTORY_MAX;
        self.past.truncate(HISTORY_MAX);
        loop {
            let tokens = |value: &Option<Value>| value.as_ref().and_then(|value| value.tokens().ok());
            let past = self.past.iter().map(|past| WirePast { stamp: past.stamp, proposer: past.proposer, value: tokens(&past.value) });
            let wire = WireRecord { value: tokens(&self.value), past: Bounded::first_of(past), is_cut: self.is_cut, mark: self.mark };
            let bytes = encode(&(VERSION, wire));
            if bytes.len() <= RECORD_BYTES_MAX || self.past.pop().is_none() {
                return bytes;
            }
            self.is_cut = true;
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Record, Hidden> {
        let undecodable = Hidden::Undecodable;
        let (version, rest) = bytes.split_first().ok_or(undecodable(DecodeError::Truncated))?;
        if *version != VERSION {
            return Err(Hidden::UnknownVersion(*version));
        }
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(undecodable(DecodeError::TooLong));
        }
        let value = |tokens: Option<Tokens>| match tokens.map(Value::from_tokens).transpose() {
            Ok(Some(value)) if !value.is_leaf() => Err(undecodable(DecodeError::Invalid)),
            Ok(value) => Ok(value),
            Err(error) => Err(undecodable(error)),
        };
        let wire: WireRecord = decode(rest).map_err(undecodable)?;
        let past = |past: WirePast| Ok(Past { stamp: past.stamp, proposer: past.proposer, value: value(past.value)? });
        let past = wire.past.into_iter().map(past).collect::<Result<_, _>>()?;
        Ok(Record { value: value(wire.value)?, past, is_cut: wire.is_cut, mark: wire.mark })
    }
}
