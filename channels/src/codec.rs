//! One way to turn wire types into bytes and back, total in both directions.
//!
//! The encoding is postcard. Wire types follow four rules, so that no bytes can cost more memory than four times the frame that carried
//! them: every collection is a [`Bounded`] (or bytes, which borrow the frame's length), fat enum variants are boxed, no type is recursive,
//! and no element is of size zero.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use bytes::Bytes;
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::DecodeError;
use crate::limits;

/// Encodes a wire type.
///
/// # Panics
///
/// Never for wire types: postcard fails only for sequences of unknown length and for foreign serializers that return errors.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Bytes {
    let mut bytes = Vec::new();
    encode_into(value, &mut bytes);
    Bytes::from(bytes)
}

/// Appends the encoding of a wire type.
///
/// # Panics
///
/// As [`encode`].
pub fn encode_into<T: Serialize + ?Sized>(value: &T, bytes: &mut Vec<u8>) {
    let taken = std::mem::take(bytes);
    *bytes = postcard::to_extend(value, taken).expect("wire types have known lengths and infallible serializers");
}

/// Decodes a wire type from all of `bytes`.
///
/// # Errors
///
/// A [`DecodeError`] when the bytes are not exactly one value within its limits. Nothing is kept of them then.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(DecodeError::Trailing),
        Err(postcard::Error::DeserializeUnexpectedEnd) => Err(DecodeError::Truncated),
        Err(postcard::Error::SerdeDeCustom) => Err(DecodeError::TooLong),
        Err(_) => Err(DecodeError::Invalid),
    }
}

/// A list of at most `N` elements on the wire. Decoding refuses the element after the last before it reads it.
///
/// That `N` elements fit in four times the largest frame is checked at compile time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bounded<T, const N: usize>(Vec<T>);

impl<T, const N: usize> Bounded<T, N> {
    /// An empty list.
    pub const fn new() -> Self {
        Bounded(Vec::new())
    }

    /// The first `N` elements of `items`; says nothing of the rest, so callers that must not lose any check the length first.
    pub fn first_of(items: impl IntoIterator<Item = T>) -> Self {
        Bounded(items.into_iter().take(N).collect())
    }

    /// Appends an element, or gives it back when the list is full.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.0.len() < N {
            self.0.push(item);
            Ok(())
        } else {
            Err(item)
        }
    }

    /// The elements.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const N: usize> Default for Bounded<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, const N: usize> Deref for Bounded<T, N> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const N: usize> IntoIterator for Bounded<T, N> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T, const N: usize> IntoIterator for &'a Bounded<T, N> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// The list is longer than its bound; it is given back.
impl<T, const N: usize> TryFrom<Vec<T>> for Bounded<T, N> {
    type Error = Vec<T>;
    fn try_from(items: Vec<T>) -> Result<Self, Vec<T>> {
        if items.len() <= N { Ok(Bounded(items)) } else { Err(items) }
    }
}

impl<T: fmt::Debug, const N: usize> fmt::Debug for Bounded<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Serialize, const N: usize> Serialize for Bounded<T, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Bounded<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const {
            assert!(size_of::<T>() > 0, "a list of empty elements can be long for free");
            assert!(N * size_of::<T>() <= 4 * limits::FRAME_BYTES_MAX, "a full list must fit in four frames of memory");
        }
        let human_readable = deserializer.is_human_readable();
        deserializer.deserialize_seq(Elements::<T, N> { human_readable, element: PhantomData })
    }
}

struct Elements<T, const N: usize> {
    human_readable: bool,
    element: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Elements<T, N> {
    type Value = Bounded<T, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {N} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        // postcard hints the claimed length, so a list that claims too much is refused unread.
        let claimed = sequence.size_hint();
        if claimed.is_some_and(|claimed| claimed > N) {
            return Err(serde::de::Error::custom("too many elements"));
        }
        // It hints no claim above the bytes that are left, so what is reserved here is bounded by the frame as well as by N, and nothing is
        // copied to a larger place while the list grows. Without a hint the list is bound to end too early: its elements are not kept.
        let keep = claimed.is_some() || self.human_readable;
        let mut items = Vec::with_capacity(claimed.unwrap_or(0));
        let mut len = 0;
        while let Some(item) = sequence.next_element()? {
            if len == N {
                return Err(serde::de::Error::custom("too many elements"));
            }
            len += 1;
            if keep {
                items.push(item);
            }
        }
        Ok(Bounded(items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_list_round_trips() {
        let list: Bounded<u16, 3> = Bounded::first_of([1, 2, 300]);
        let bytes = encode(&list);
        assert_eq!(&bytes[..], [3, 1, 2, 0xac, 2]);
        assert_eq!(decode::<Bounded<u16, 3>>(&bytes), Ok(list));
    }

    #[test]
    fn what_is_too_long_is_refused() {
        assert_eq!(decode::<Bounded<u8, 3>>(&[4, 1, 2, 3, 4]), Err(DecodeError::TooLong));
        assert_eq!(decode::<Bounded<u8, 3>>(&[1, 1, 2]), Err(DecodeError::Trailing));
        assert_eq!(decode::<Bounded<u8, 3>>(&[2, 1]), Err(DecodeError::Truncated));
        assert_eq!(decode::<Bounded<u8, 3>>(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), Err(DecodeError::Truncated));
    }
}
