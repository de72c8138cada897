//! Names of writes: whoever is handed one, on whatever node, can wait until that write has arrived there.
//!
//! A stamp alone does not name a write of a counter or a set: what one holds with a later stamp need not hold an earlier write of somebody else. So a token of
//! such a write carries the step itself, without its values.
//!
//! A token is text that comes from anywhere: it is checked like a message, and the worst that a made-up one does is to be waited for in vain.

use std::fmt;
use std::str::FromStr;

use meshwork_channels::identity::{base32_decode, base32_encode};
use meshwork_channels::{PeerId, decode, encode, limits};
use serde::{Deserialize, Serialize};

use crate::hlc::Stamp;
use crate::key::Key;
use crate::register::Register;
use crate::store::Held;
use crate::value::{State, Step, Typed};

/// What every token begins with.
const PREFIX: &str = "write1";
/// Characters of a token: as many as the largest write may need.
const TEXT_MAX: usize = PREFIX.len() + limits::CONTROL_BYTES_MAX * 8 / 5;

/// The name of a write, to wait for it elsewhere. As text it has some 80 characters and 1.6 for each byte of the key; of a member of a growing set, which is its own name, as
/// many for each byte of that as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteToken {
    key: Key,
    stamp: Stamp,
    origin: PeerId,
    /// `None` for a plain register and its removal, which stamp and origin name.
    step: Option<Box<Step>>,
}

impl WriteToken {
    pub(crate) fn new(key: Key, stamp: Stamp, origin: PeerId, step: Option<&Step>) -> Self {
        WriteToken { key, stamp, origin, step: step.map(|step| Box::new(step.witness())) }
    }

    /// The key that was written.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// When.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// By which node.
    pub fn origin(&self) -> PeerId {
        self.origin
    }

    /// Whether what its key holds is that write, or holds it, or took its place.
    pub(crate) fn is_in(&self, held: &Held) -> bool {
        match &self.step {
            None if !held.is_typed() => (held.marker.stamp, *held.marker.origin) >= (self.stamp, self.origin),
            None => Step::Whole(Typed { length: 1, state: Some(State::Lww(self.stamp, self.origin, Register::Removed)) })
                .is_in(&held.to_typed()),
            Some(step) => step.is_in(&held.to_typed()),
        }
    }
}

impl fmt::Display for WriteToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", base32_encode(&encode(self)))
    }
}

/// The text is no token of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteTokenError;

impl fmt::Display for WriteTokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a token of a write begins with `{PREFIX}`, and is whole")
    }
}

impl std::error::Error for WriteTokenError {}

impl FromStr for WriteToken {
    type Err = WriteTokenError;

    fn from_str(text: &str) -> Result<Self, WriteTokenError> {
        let text = text.strip_prefix(PREFIX).filter(|text| text.len() <= TEXT_MAX).ok_or(WriteTokenError)?;
        let token: WriteToken = decode(&base32_decode(text).ok_or(WriteTokenError)?).map_err(|_| WriteTokenError)?;
        if token.step.as_ref().is_some_and(|step| !step.is_sound()) {
            return Err(WriteTokenError);
        }
        Ok(token)
    }
}
