//! The digest of a run: 128 bits that are equal exactly when two runs did the same things in the same order.
//!
//! It only ever takes fixed-width integers and bytes, so it is the same in debug and release builds and on every machine.

use std::fmt;

/// A running digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    low: u64,
    high: u64,
}

impl Default for Digest {
    fn default() -> Self {
        Digest { low: 0x243f_6a88_85a3_08d3, high: 0x1319_8a2e_0370_7344 }
    }
}

/// Multiplies to 128 bits and folds the halves: every input bit reaches every output bit.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a).wrapping_mul(u128::from(b));
    (product as u64) ^ ((product >> 64) as u64)
}

impl Digest {
    /// Takes in one number.
    pub fn number(&mut self, value: u64) {
        self.low = fold(self.low ^ value, 0x9e37_79b9_7f4a_7c15) ^ self.high.rotate_left(23);
        self.high = fold(self.high.wrapping_add(value), 0xd6e8_feb8_6659_fd93) ^ self.low;
    }

    /// Takes in bytes and their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(hash_bytes(bytes));
    }

    /// The digest of everything taken in so far.
    pub fn value(&self) -> u128 {
        (u128::from(self.high) << 64) | u128::from(self.low)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.value())
    }
}

/// A digest that does not depend on the order in which things are taken in, so that several threads can each have a part of it.
///
/// Whoever uses it puts into each event what gives it its place: its moment, its node and its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    low: u64,
    high: u64,
}

impl Sum {
    /// Takes in one event.
    pub fn event(&mut self, numbers: &[u64]) {
        let mut digest = Digest::default();
        numbers.iter().for_each(|number| digest.number(*number));
        self.low = self.low.wrapping_add(digest.low);
        self.high = self.high.wrapping_add(digest.high);
    }

    /// The digest of everything taken in so far.
    pub fn value(&self) -> u128 {
        (u128::from(self.high) << 64) | u128::from(self.low)
    }

    /// Takes in everything that another has taken in.
    pub fn add(&mut self, other: &Sum) {
        self.low = self.low.wrapping_add(other.low);
        self.high = self.high.wrapping_add(other.high);
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.high, self.low)
    }
}

/// 64 bits of bytes and their length.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = fold(bytes.len() as u64 ^ 0xa409_3822_299f_31d0, 0x9e37_79b9_7f4a_7c15);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        hash = fold(hash ^ u64::from_le_bytes(word), 0xe703_7ed1_a0b4_28db).wrapping_add(hash.rotate_left(29));
    }
    let rest = chunks.remainder();
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    fold(hash ^ u64::from_le_bytes(word), 0x8ebc_6af0_9c88_c6e3) ^ hash.rotate_left(31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(numbers: &[u64]) -> u128 {
        let mut digest = Digest::default();
        numbers.iter().for_each(|number| digest.number(*number));
        digest.value()
    }

    #[test]
    fn depends_on_every_number_and_their_order() {
        let all = [of(&[]), of(&[0]), of(&[0, 0]), of(&[1, 2]), of(&[2, 1]), of(&[1, 2, 0])];
        for (index, one) in all.iter().enumerate() {
            assert!(all[..index].iter().all(|other| other != one));
        }
    }

    #[test]
    fn bytes_are_told_apart_by_content_and_length() {
        assert_ne!(hash_bytes(b""), hash_bytes(b"\0"));
        assert_ne!(hash_bytes(b"12345678"), hash_bytes(b"12345678\0"));
        assert_ne!(hash_bytes(b"abcdefghi"), hash_bytes(b"abcdefgh\0"));
        assert_ne!(hash_bytes(b"abcdefghi"), hash_bytes(b"abcdefgii"));
    }

    #[test]
    fn a_sum_does_not_depend_on_order_or_on_how_it_is_divided() {
        let of = |events: &[[u64; 2]]| {
            let mut sum = Sum::default();
            events.iter().for_each(|event| sum.event(event));
            sum
        };
        let mut parts = of(&[[1, 2]]);
        parts.add(&of(&[[3, 4], [5, 6]]));
        assert_eq!(parts, of(&[[5, 6], [1, 2], [3, 4]]));
        assert_ne!(parts, of(&[[5, 6], [2, 1], [3, 4]]));
    }

    #[test]
    fn is_pinned() {
        // Digests are compared across builds and machines; a change here breaks every recorded one.
        let mut digest = Digest::default();
        digest.number(7);
        digest.bytes(b"meshwork");
        assert_eq!(digest.to_string(), "da81ffe0605b929f58508e24d70aecd2");
    }
}
