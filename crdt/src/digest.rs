//! Sums that name the content of a replica: equal content gives equal sums on every replica, in whatever order it arrived.
//!
//! Each entry has a hash over its key and its marker, and a sum over a set of entries is the sum of their hashes, so that changing one
//! entry costs one subtraction and one addition. The hash is SipHash-2-4 with 128 bits of output (Aumasson and Bernstein, "SipHash: a
//! fast short-input PRF", INDOCRYPT 2012) under a key that the whole cluster shares: whoever does not know the key cannot make two
//! contents with one sum. Hashes are taken over fields in a fixed layout, never over bytes that a peer encoded.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::key::Key;
use crate::signed::Signed;
use crate::store::Marker;

/// The content of a replica in 24 bytes. Two replicas hold the same entries, tombstones included, exactly when their digests are equal
/// (but for a chance of about one in 2^128).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest {
    /// How many keys, tombstones included.
    pub keys: u64,
    /// The sum over all entries.
    #[serde(with = "crate::wire::fixed_wide")]
    pub sum: u128,
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:032x}", self.keys, self.sum)
    }
}

/// The hashes under one key, each purpose in a domain of its own.
#[derive(Clone, Copy)]
pub(crate) struct Hasher {
    key: [u64; 2],
    /// Bits of a key's hash that count, so that tests can make hashes collide.
    #[cfg(test)]
    pub(crate) key_mask: u64,
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher(***)")
    }
}

impl Hasher {
    pub(crate) fn new(key: [u8; 16]) -> Self {
        let key = u128::from_le_bytes(key);
        Hasher {
            key: [key as u64, (key >> 64) as u64],
            #[cfg(test)]
            key_mask: u64::MAX,
        }
    }

    /// Where a key stands in the order in which replicas compare; its top byte is its shard.
    pub(crate) fn key(&self, key: &Key) -> u64 {
        let mut sip = Sip::new(self.key);
        sip.write(&[0]);
        sip.write(key.as_bytes());
        let hash = sip.finish() as u64;
        #[cfg(test)]
        let hash = hash & self.key_mask;
        hash
    }

    /// The hash of a value, or of the lack of one.
    pub(crate) fn value(&self, value: Option<&Bytes>) -> u64 {
        let mut sip = Sip::new(self.key);
        sip.write(&[1, u8::from(value.is_some())]);
        sip.write(value.map_or(&[], |value| value));
        sip.finish() as u64
    }

    /// The hash of a value that expires, by its own hash and when, the same before and after.
    pub(crate) fn expiring(&self, until: u32, value: u64) -> u64 {
        let mut sip = Sip::new(self.key);
        sip.write(&[4]);
        sip.write(&until.to_le_bytes());
        sip.write(&value.to_le_bytes());
        sip.finish() as u64
    }

    /// The hash of what was signed with its signature, of which a liar can make several for one value.
    pub(crate) fn signed(&self, Signed { value, signature }: &Signed) -> u64 {
        let mut sip = Sip::new(self.key);
        sip.write(&[5, u8::from(value.is_some())]);
        sip.write(signature);
        sip.write(value.as_ref().map_or(&[], |value| value));
        sip.finish() as u64
    }

    /// The hash of what a key holds that is no plain register, in its one encoding.
    pub(crate) fn typed(&self, encoded: &[u8]) -> u64 {
        let mut sip = Sip::new(self.key);
        sip.write(&[3]);
        sip.write(encoded);
        sip.finish() as u64
    }

    /// The hash of an entry. What follows the key has a fixed length, so no two entries are written alike.
    pub(crate) fn entry(&self, key: &Key, marker: &Marker) -> u128 {
        let mut sip = Sip::new(self.key);
        sip.write(&[2]);
        sip.write(key.as_bytes());
        sip.write(&marker.stamp.to_bits().to_le_bytes());
        sip.write(marker.origin.as_bytes());
        sip.write(&marker.value_hash.to_le_bytes());
        sip.finish()
    }
}

/// SipHash-2-4-128 over pieces.
struct Sip {
    v: [u64; 4],
    /// Bytes that do not fill a word yet, lowest first.
    tail: u64,
    len: usize,
}

impl Sip {
    fn new(key: [u64; 2]) -> Self {
        let v = [
            key[0] ^ 0x736f_6d65_7073_6575,
            key[1] ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            key[0] ^ 0x6c79_6765_6e65_7261,
            key[1] ^ 0x7465_6462_7974_6573,
        ];
        Sip { v, tail: 0, len: 0 }
    }

    fn write(&mut self, mut bytes: &[u8]) {
        while !self.len.is_multiple_of(8) {
            let Some((byte, rest)) = bytes.split_first() else { return };
            bytes = rest;
            self.push(*byte);
        }
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.absorb(u64::from_le_bytes(*word));
        }
        self.len = self.len.wrapping_add(words.len() * 8);
        rest.iter().for_each(|byte| self.push(*byte));
    }

    fn push(&mut self, byte: u8) {
        self.tail |= u64::from(byte) << (8 * (self.len % 8));
        self.len = self.len.wrapping_add(1);
        if self.len.is_multiple_of(8) {
            let word = std::mem::take(&mut self.tail);
            self.absorb(word);
        }
    }

    fn absorb(&mut self, word: u64) {
        self.v[3] ^= word;
        self.rounds(2);
        self.v[0] ^= word;
    }

    fn rounds(&mut self, count: u32) {
        let [mut a, mut b, mut c, mut d] = self.v;
        for _ in 0..count {
            a = a.wrapping_add(b);
            b = b.rotate_left(13) ^ a;
            a = a.rotate_left(32);
            c = c.wrapping_add(d);
            d = d.rotate_left(16) ^ c;
            a = a.wrapping_add(d);
            d = d.rotate_left(21) ^ a;
            c = c.wrapping_add(b);
            b = b.rotate_left(17) ^ c;
            c = c.rotate_left(32);
        }
        self.v = [a, b, c, d];
    }

    fn finish(mut self) -> u128 {
        self.absorb(((self.len as u64) << 56) | self.tail);
        self.v[2] ^= 0xee;
        self.rounds(4);
        let low = self.v.iter().fold(0, |all, word| all ^ word);
        self.v[1] ^= 0xdd;
        self.rounds(4);
        let high = self.v.iter().fold(0, |all, word| all ^ word);
        u128::from(high) << 64 | u128::from(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors that the authors publish with their reference code: key 00 01 … 0f, message 00 01 … of each length.
    #[test]
    fn agrees_with_the_vectors_of_the_authors() {
        let expected = [
            "a3817f04ba25a8e66df67214c7550293",
            "da87c1d86b99af44347659119b22fc45",
            "8177228da4a45dc7fca38bdef60affe4",
            "9c70b60c5267a94e5f33b6b02985ed51",
            "f88164c12d9c8faf7d0f6e7c7bcd5579",
            "1368875980776f8854527a07690e9627",
            "14eeca338b208613485ea0308fd7a15e",
            "a1f1ebbed8dbc153c0b84aa61ff08239",
            "3b62a9ba6258f5610f83e264f31497b4",
            "264499060ad9baabc47f8b02bb6d71ed",
        ];
        let key = Hasher::new(std::array::from_fn(|index| index as u8)).key;
        let message: Vec<u8> = (0..10).collect();
        for (len, expected) in expected.iter().enumerate() {
            for cut in 0..=len {
                let mut sip = Sip::new(key);
                sip.write(&message[..cut]);
                sip.write(&message[cut..len]);
                let printed: String = sip.finish().to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(printed, *expected, "length {len} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_missing_value_is_not_an_empty_one() {
        let hasher = Hasher::new([7; 16]);
        assert_ne!(hasher.value(None), hasher.value(Some(&Bytes::new())));
        assert_eq!(format!("{hasher:?}"), "Hasher(***)");
    }
}
