//! What is replicated: keys, and values behind a byte that names their format.

use bytes::Bytes;
use meshwork_channels::{DecodeError, decode};
use meshwork_crdt::Key;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::value::{Name, Value};

/// What the keys of this service begin with.
pub const SPACE: &str = "@variables/";
pub(super) const DEFINITIONS: &str = "@variables/def/";
pub(super) const VALUES: &str = "@variables/val/";

/// The format that this version writes and reads.
pub(super) const FORMAT: u8 = 1;

/// A write of a variable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) value: Value,
    pub(super) version: u64,
    pub(super) score: Option<f64>,
    pub(super) agent: Option<Name>,
}

/// Why a replicated value cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    OtherFormat(u8),
    Undecodable(DecodeError),
}

pub(super) fn seal<T: Serialize>(value: &T) -> Bytes {
    let mut bytes = vec![FORMAT];
    meshwork_channels::codec::encode_into(value, &mut bytes);
    Bytes::from(bytes)
}

pub(super) fn open<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    match bytes {
        [FORMAT, body @ ..] => decode(body).map_err(Unreadable::Undecodable),
        [format, ..] => Err(Unreadable::OtherFormat(*format)),
        [] => Err(Unreadable::Undecodable(DecodeError::Truncated)),
    }
}

pub(super) fn definition_key(name: &Name) -> Key {
    key(DEFINITIONS, name)
}

pub(super) fn value_key(name: &Name) -> Key {
    key(VALUES, name)
}

fn key(prefix: &str, name: &Name) -> Key {
    Key::try_from(format!("{prefix}{name}").as_str()).expect("a prefix and a name are shorter than a key may be")
}
