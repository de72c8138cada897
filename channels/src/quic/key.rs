//! The key pair that is a node's identity.

use std::fmt;
use std::sync::Arc;

use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::identity::{PeerId, Signer};

/// Bytes above which something is not an ed25519 key in PKCS#8 (83 with the public key, 48 without).
const PKCS8_BYTES_MAX: usize = 128;

/// The ed25519 key pair of a node. Its public half is the [`PeerId`]; the private half never prints.
#[derive(Clone)]
pub struct NodeKey {
    peer: PeerId,
    pkcs8: Arc<[u8]>,
    pair: Arc<Ed25519KeyPair>,
}

impl NodeKey {
    /// A new key from the system generator.
    ///
    /// # Errors
    ///
    /// [`NodeKeyError::NoRandomness`] when the system generator fails.
    pub fn generate() -> Result<Self, NodeKeyError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| NodeKeyError::NoRandomness)?;
        Self::from_pkcs8(document.as_ref())
    }

    /// The key that [`NodeKey::expose_pkcs8`] gave, or that another tool wrote as PKCS#8 DER (version 1 or 2).
    ///
    /// # Errors
    ///
    /// [`NodeKeyError::NotAKey`] when the bytes are anything but one ed25519 key, or its two halves do not belong together.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, NodeKeyError> {
        if pkcs8.len() > PKCS8_BYTES_MAX {
            return Err(NodeKeyError::NotAKey);
        }
        // Version 1 documents hold no public half to compare with; version 2 documents are compared.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(|_| NodeKeyError::NotAKey)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| NodeKeyError::NotAKey)?;
        Ok(NodeKey { peer: PeerId::from_bytes(public), pkcs8: pkcs8.into(), pair: Arc::new(pair) })
    }

    /// The identity that this key proves.
    pub fn peer_id(&self) -> PeerId {
        self.peer
    }

    /// The private key as PKCS#8 DER, for storing with mode 0600.
    pub fn expose_pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }
}

/// Ed25519 (RFC 8032). What it signs must begin with bytes that say for what, because the same key proves the identity in handshakes: those of TLS 1.3 begin
/// with 64 spaces.
impl Signer for NodeKey {
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.pair.sign(message).as_ref().try_into().expect("a signature of ed25519 has 64 bytes")
    }

    fn verify(&self, origin: &PeerId, message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ED25519, origin.as_bytes()).verify(message, signature).is_ok()
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({:?}, ***)", self.peer)
    }
}

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKeyError {
    /// The system generator failed.
    NoRandomness,
    /// The bytes are not one ed25519 key in PKCS#8 DER.
    NotAKey,
}

impl fmt::Display for NodeKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NodeKeyError::NoRandomness => "the random generator of the system failed",
            NodeKeyError::NotAKey => "the bytes are not an ed25519 key in PKCS#8 DER",
        })
    }
}

impl std::error::Error for NodeKeyError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_storage_and_hides() {
        let key = NodeKey::generate().unwrap();
        let stored = NodeKey::from_pkcs8(key.expose_pkcs8()).unwrap();
        assert_eq!(key.peer_id(), stored.peer_id());
        assert_eq!(format!("{key:?}"), format!("NodeKey({}, ***)", key.peer_id().short()));
        assert_ne!(key.peer_id(), NodeKey::generate().unwrap().peer_id());
    }

    #[test]
    fn a_private_half_alone_is_a_key() {
        // RFC 8410, section 10.3: the same key without and with its public half.
        let private = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20\xd4\xee\x72\xdb\xf9\x13\x58\x4a\xd5\xb6\xd8\xf1\xf7\x69\xf8\xad\x3a\xfe\x7c\x28\xcb\xf1\xd4\xfb\xe0\x97\xa8\x8f\x44\x75\x58\x42";
        let public = [
            0x19, 0xbf, 0x44, 0x09, 0x69, 0x84, 0xcd, 0xfe, 0x85, 0x41, 0xba, 0xc1, 0x67, 0xdc, 0x3b, 0x96, 0xc8, 0x50, 0x86, 0xaa, 0x30,
            0xb6, 0xb6, 0xcb, 0x0c, 0x5c, 0x38, 0xad, 0x70, 0x31, 0x66, 0xe1,
        ];
        assert_eq!(NodeKey::from_pkcs8(private).unwrap().peer_id(), PeerId::from_bytes(public));
    }

    #[test]
    fn what_one_node_signed_no_other_did() {
        let (ours, theirs) = (NodeKey::generate().unwrap(), NodeKey::generate().unwrap());
        let signature = ours.sign(b"word");
        assert!(theirs.verify(&ours.peer_id(), b"word", &signature));
        assert!(!theirs.verify(&theirs.peer_id(), b"word", &signature));
        assert!(!theirs.verify(&ours.peer_id(), b"Word", &signature));
        assert!(!theirs.verify(&ours.peer_id(), b"word", &theirs.sign(b"word")));
        assert!(!theirs.verify(&PeerId::from_bytes([7; 32]), b"word", &signature));
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        let mut torn = NodeKey::generate().unwrap().expose_pkcs8().to_vec();
        let last = torn.len() - 1;
        torn[last] ^= 1;
        for bytes in [&b""[..], b"key", &[0x30; 4_096], &torn, &torn[..last]] {
            assert_eq!(NodeKey::from_pkcs8(bytes).err(), Some(NodeKeyError::NotAKey));
        }
    }
}
