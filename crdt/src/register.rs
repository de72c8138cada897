//! What a register holds in which the last writer wins, and when that expires.
//!
//! When it expires is part of what was written, as a moment of the time that stamps go by. Each replica hides what has expired by itself: nothing is said, and
//! nothing that orders or names the write changes, so that replicas that did so already and those that did not yet hold the same. A hash stays in place of the
//! value, from which the marker of the write can be computed again.

use std::cmp::Ordering;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::hlc::Stamp;
use crate::signed::Signed;
use crate::wire::{Body, fixed};

/// The shortest time for which a value can be written.
pub const LIFETIME_MIN: Duration = Duration::from_secs(1);
/// The longest time for which a value can be written, unless it is written for ever: ten years.
pub const LIFETIME_MAX: Duration = Duration::from_secs(3_650 * 24 * 3_600);

/// What a register holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Register {
    /// Nothing: it was removed.
    Removed,
    /// A value.
    Value(Bytes),
    /// A value until a moment, in seconds since the Unix epoch.
    Until(u32, Bytes),
    /// Nothing since a moment: the hash of the value stands for it.
    Expired(u32, #[serde(with = "fixed")] u64),
    /// What its origin signed. It is never part of a value of another kind, and so has no encoding but that of its [`Body`].
    #[serde(skip)]
    Signed(Box<Signed>),
}

impl Register {
    pub(crate) fn value(&self) -> Option<&Bytes> {
        match self {
            Register::Value(value) | Register::Until(_, value) => Some(value),
            Register::Signed(signed) => signed.value.as_ref(),
            Register::Removed | Register::Expired(..) => None,
        }
    }

    /// When it expires or expired.
    pub(crate) fn expiry(&self) -> Option<u32> {
        match self {
            Register::Until(until, _) | Register::Expired(until, _) => Some(*until),
            Register::Removed | Register::Value(_) | Register::Signed(_) => None,
        }
    }

    /// What is left of it once it expired; `None` if it does not expire.
    pub(crate) fn expired(&self, hash: impl Fn(&Bytes) -> u64) -> Option<Self> {
        if let Register::Until(until, value) = self { Some(Register::Expired(*until, hash(value))) } else { None }
    }

    /// Whether it is the same write as one of the same stamp and origin, expired or not.
    pub(crate) fn is_same_write(&self, other: &Self) -> bool {
        self == other || self.expiry().is_some_and(|until| other.expiry() == Some(until))
    }
}

/// The order of what is written under one stamp, which only a liar does twice. It grows when a value expires.
impl Ord for Register {
    fn cmp(&self, other: &Self) -> Ordering {
        fn rank(register: &Register) -> (u8, u32, bool, &[u8], u64, Option<&Signed>) {
            match register {
                Register::Removed => (0, 0, false, &[], 0, None),
                Register::Value(value) => (1, 0, false, value, 0, None),
                Register::Until(until, value) => (2, *until, false, value, 0, None),
                Register::Expired(until, hash) => (2, *until, true, &[], *hash, None),
                Register::Signed(signed) => (3, 0, false, &[], 0, Some(signed)),
            }
        }
        rank(self).cmp(&rank(other))
    }
}

impl PartialOrd for Register {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<Register> for Body {
    fn from(register: Register) -> Self {
        match register {
            Register::Removed => Body::Removed,
            Register::Value(value) => Body::Register(value),
            Register::Until(until, value) => Body::Until(until, value),
            Register::Expired(until, hash) => Body::Expired(until, hash),
            Register::Signed(signed) => Body::Signed(signed),
        }
    }
}

/// The second in which what was written at `stamp` has lived for `lifetime`, rounded up.
pub(crate) fn until(stamp: Stamp, lifetime: Duration) -> u32 {
    let millis = u128::from(stamp.millis()) + lifetime.as_millis();
    u32::try_from(millis.div_ceil(1_000)).unwrap_or(u32::MAX)
}
