//! Who a node is, and which cluster it belongs to.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits;

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A node: its 32-byte ed25519 public key. It stays the same across restarts and addresses.
///
/// It prints as 52 characters of lower-case base32 (RFC 4648 without padding); [`PeerId::short`] gives the first ten for logs and tables.
#[derive(Clone, Copy, Eq, Serialize, Deserialize)]
pub struct PeerId([u8; 32]);

impl PeerId {
    /// The identity whose public key is `bytes`.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        PeerId(bytes)
    }

    /// The public key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first ten characters of the printed form: enough to tell the nodes of one cluster apart by eye.
    pub fn short(&self) -> String {
        let mut printed = self.to_string();
        printed.truncate(10);
        printed
    }
}

// Identities are compared more than anything else is done with them, and nearly always differ in their first bytes: looking at those first, without a call, is
// several times faster than comparing slices. The order is that of the bytes.
impl PeerId {
    #[inline]
    fn head(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl PartialEq for PeerId {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.head() == other.head() && self.0 == other.0
    }
}

impl Hash for PeerId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PartialOrd for PeerId {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PeerId {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.head().cmp(&other.head()).then_with(|| self.0.cmp(&other.0))
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32_encode(&self.0))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for PeerId {
    type Err = ParseIdentityError;

    fn from_str(text: &str) -> Result<Self, ParseIdentityError> {
        let bytes = base32_decode(text).ok_or(ParseIdentityError)?;
        Ok(PeerId(bytes.try_into().map_err(|_| ParseIdentityError)?))
    }
}

/// The text is not 52 characters of base32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseIdentityError;

impl fmt::Display for ParseIdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a peer id is 52 characters of base32 (a to z, 2 to 7)")
    }
}

impl std::error::Error for ParseIdentityError {}

/// Writes bytes as lower-case base32 (RFC 4648, no padding).
pub fn base32_encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(8).div_ceil(5));
    let (mut bits, mut len) = (0_u32, 0_u32);
    for byte in bytes {
        bits = (bits << 8) | u32::from(*byte);
        len += 8;
        while len >= 5 {
            len -= 5;
            text.push(char::from(BASE32[(bits >> len) as usize & 31]));
        }
        bits &= (1 << len) - 1;
    }
    if len > 0 {
        text.push(char::from(BASE32[(bits << (5 - len)) as usize & 31]));
    }
    text
}

/// Reads base32 in either case; `None` when a character or the length does not belong, or unused bits are set.
pub fn base32_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len().saturating_mul(5) / 8);
    let (mut bits, mut len) = (0_u32, 0_u32);
    for character in text.bytes() {
        let value = match character {
            b'a'..=b'z' => character - b'a',
            b'A'..=b'Z' => character - b'A',
            b'2'..=b'7' => character - b'2' + 26,
            _ => return None,
        };
        bits = (bits << 5) | u32::from(value);
        len += 5;
        if len >= 8 {
            len -= 8;
            bytes.push((bits >> len) as u8);
            bits &= (1 << len) - 1;
        }
    }
    // One text for one value: a spare character or a set spare bit is refused.
    (len < 5 && bits == 0).then_some(bytes)
}

/// The name of a cluster: 1 to 64 bytes without control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterName(String);

impl ClusterName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ClusterName {
    type Err = ClusterNameError;

    fn from_str(text: &str) -> Result<Self, ClusterNameError> {
        if text.is_empty() || text.len() > limits::CLUSTER_NAME_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(ClusterNameError { len: text.len() });
        }
        Ok(ClusterName(text.to_owned()))
    }
}

/// The text cannot name a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterNameError {
    /// Its length in bytes.
    pub len: usize,
}

impl fmt::Display for ClusterNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a cluster name has 1 to {} bytes and no control characters; this has {} bytes", limits::CLUSTER_NAME_BYTES_MAX, self.len)
    }
}

impl std::error::Error for ClusterNameError {}

/// The random 256-bit secret whose knowledge admits a node to a cluster. It never prints.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret([u8; 32]);

impl ClusterSecret {
    /// The secret with these bytes. They must come from a system generator, never from a passphrase: whoever completes a handshake
    /// obtains a proof that can be attacked offline.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        ClusterSecret(bytes)
    }

    /// The bytes, for key derivation and for storing with mode 0600.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(***)")
    }
}

/// Signs in the name of one node, and verifies what others signed. A [`PeerId`] is a public key, so verification needs nothing else.
///
/// With the feature `quic`, the key of a node is one.
pub trait Signer: fmt::Debug + Send + Sync {
    /// The signature of this node.
    fn sign(&self, message: &[u8]) -> [u8; 64];

    /// Whether a node signed a message.
    fn verify(&self, origin: &PeerId, message: &[u8], signature: &[u8; 64]) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_ids_print_and_parse() {
        let id = PeerId::from_bytes(std::array::from_fn(|index| index as u8));
        assert_eq!(id.to_string(), "aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypq");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        assert_eq!(id.short(), "aaaqeayeau");
    }

    #[test]
    fn one_text_for_one_identity() {
        for text in
            ["", "a", "aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypr", "1aaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypq"]
        {
            assert_eq!(text.parse::<PeerId>(), Err(ParseIdentityError), "{text}");
        }
    }

    #[test]
    fn peer_ids_are_ordered_by_their_bytes() {
        let ids = [
            [0; 32],
            [1; 32],
            std::array::from_fn(|index| u8::from(index == 31)),
            std::array::from_fn(|index| u8::from(index == 8)),
            [255; 32],
        ];
        for left in ids {
            for right in ids {
                let (a, b) = (PeerId::from_bytes(left), PeerId::from_bytes(right));
                assert_eq!((a == b, a.cmp(&b)), (left == right, left.cmp(&right)));
            }
        }
    }

    #[test]
    fn a_cluster_name_has_bounds() {
        assert!("my-cluster".parse::<ClusterName>().is_ok());
        assert!("".parse::<ClusterName>().is_err());
        assert!("a\nb".parse::<ClusterName>().is_err());
        assert!("x".repeat(65).parse::<ClusterName>().is_err());
    }

    #[test]
    fn a_secret_never_prints() {
        assert_eq!(format!("{:?}", ClusterSecret::from_bytes([7; 32])), "ClusterSecret(***)");
    }
}
