//! Registers that their writers sign: under such keys nobody can write in the name of another.
//!
//! Which keys these are says [`Config::signed`](crate::config::Config::signed). An entry under one of them is a register in which the last writer wins, with
//! the signature of the node that wrote it; so is its removal. The name of a node is its public key, so whoever holds such an entry can prove who wrote it,
//! and whoever takes one in verifies that, from whomever it came.
//!
//! What is signed, in this order: for what (so that no other signature of the same key can be taken for this one), the cluster (so that it holds in no other),
//! the key with its length, the stamp, whether there is a value, and the value. The writer needs not be named: its key verifies nothing that another signed.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use meshwork_channels::{PeerId, Signer};
use serde::{Deserialize, Serialize};

use crate::hlc::Stamp;

/// Prefixes of signed keys.
pub const PREFIXES_MAX: usize = 16;
/// How many bytes more such a register takes than its value: that there is one, and the signature.
pub(crate) const SIGNED_BYTES: usize = 1 + 64;

const PURPOSE: &[u8] = b"meshwork signed register 1\0";

/// What a signed register holds.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Signed {
    /// The value; `None` once it was removed.
    pub value: Option<Bytes>,
    /// The signature of its origin, by Ed25519 on real nodes.
    #[serde(with = "halves")]
    pub signature: [u8; 64],
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, ..] = self.signature;
        write!(f, "Signed({:?}, {a:02x}{b:02x}…)", self.value)
    }
}

/// Which entries are signed, and by whom they are here.
#[derive(Clone, Debug)]
pub(crate) struct Signing {
    prefixes: Arc<[String]>,
    signer: Arc<dyn Signer>,
    cluster: [u8; 32],
}

impl Signing {
    pub(crate) fn new(prefixes: Vec<String>, signer: Arc<dyn Signer>, cluster: [u8; 32]) -> Self {
        Signing { prefixes: prefixes.into(), signer, cluster }
    }

    /// The prefix by which a key is signed.
    pub(crate) fn prefix_of(&self, key: &str) -> Option<&str> {
        self.prefixes.iter().find(|prefix| key.starts_with(prefix.as_str())).map(|prefix| prefix.as_str())
    }

    pub(crate) fn sign(&self, key: &str, stamp: Stamp, value: Option<Bytes>) -> Signed {
        let signature = self.signer.sign(&self.message(key, stamp, value.as_ref()));
        Signed { value, signature }
    }

    pub(crate) fn is_by(&self, origin: &PeerId, key: &str, stamp: Stamp, signed: &Signed) -> bool {
        self.signer.verify(origin, &self.message(key, stamp, signed.value.as_ref()), &signed.signature)
    }

    /// What follows the key has fixed lengths but for the value, which is the last.
    fn message(&self, key: &str, stamp: Stamp, value: Option<&Bytes>) -> Vec<u8> {
        let mut message = Vec::with_capacity(PURPOSE.len() + 32 + 4 + key.len() + 8 + 1 + value.map_or(0, Bytes::len));
        message.extend_from_slice(PURPOSE);
        message.extend_from_slice(&self.cluster);
        message.extend_from_slice(&(key.len() as u32).to_be_bytes());
        message.extend_from_slice(key.as_bytes());
        message.extend_from_slice(&stamp.to_bits().to_be_bytes());
        message.push(u8::from(value.is_some()));
        message.extend_from_slice(value.map_or(&[], |value| value));
        message
    }
}

/// 64 bytes as they are.
mod halves {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 64], serializer: S) -> Result<S::Ok, S::Error> {
        let (halves, _) = bytes.as_chunks::<32>();
        (halves[0], halves[1]).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 64], D::Error> {
        let (first, last) = <([u8; 32], [u8; 32])>::deserialize(deserializer)?;
        Ok(std::array::from_fn(|index| if index < 32 { first[index] } else { last[index - 32] }))
    }
}
