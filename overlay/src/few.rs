//! A list on the wire that mostly holds one element, and then needs no memory of its own.
//!
//! Most announcements name one message. As a list of one group of one range that would be two allocations where it is made and two where it
//! is read; here the one lies in the message itself.

use std::fmt;
use std::ops::Deref;
use std::{iter, slice, vec};

use meshwork_channels::Bounded;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A list of at most `N` elements. Its bytes and its limits are those of [`Bounded`].
#[derive(Clone, PartialEq, Eq)]
pub struct Few<T, const N: usize>(Kept<T>);

/// What holds the elements: each list has one form only.
#[derive(Clone, PartialEq, Eq)]
enum Kept<T> {
    Nothing,
    One(T),
    /// At least two.
    Many(Vec<T>),
}

impl<T, const N: usize> Few<T, N> {
    /// An empty list.
    pub const fn new() -> Self {
        Few(Kept::Nothing)
    }

    /// A list of one element.
    pub const fn one(item: T) -> Self {
        const { assert!(N > 0, "a list has room for one") };
        Few(Kept::One(item))
    }

    /// The first `N` elements of `items`; says nothing of the rest, so callers that must not lose any check the length first.
    pub fn first_of(items: impl IntoIterator<Item = T>) -> Self {
        let mut items = items.into_iter().take(N);
        let Some(first) = items.next() else { return Self::new() };
        match items.next() {
            None => Self::one(first),
            Some(second) => Few(Kept::Many(iter::once(first).chain(iter::once(second)).chain(items).collect())),
        }
    }

    /// The elements.
    pub fn into_vec(self) -> Vec<T> {
        match self.0 {
            Kept::Nothing => Vec::new(),
            Kept::One(item) => vec![item],
            Kept::Many(items) => items,
        }
    }
}

impl<T, const N: usize> From<Bounded<T, N>> for Few<T, N> {
    fn from(list: Bounded<T, N>) -> Self {
        let mut items = list.into_vec();
        match items.len() {
            0 | 1 => items.pop().map_or(Self::new(), Self::one),
            _ => Few(Kept::Many(items)),
        }
    }
}

impl<T, const N: usize> Default for Few<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, const N: usize> Deref for Few<T, N> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        match &self.0 {
            Kept::Nothing => &[],
            Kept::One(item) => slice::from_ref(item),
            Kept::Many(items) => items,
        }
    }
}

impl<T, const N: usize> IntoIterator for Few<T, N> {
    type Item = T;
    type IntoIter = vec::IntoIter<T>;
    fn into_iter(self) -> Self::IntoIter {
        self.into_vec().into_iter()
    }
}

impl<'a, T, const N: usize> IntoIterator for &'a Few<T, N> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: fmt::Debug, const N: usize> fmt::Debug for Few<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.deref().fmt(f)
    }
}

impl<T: Serialize, const N: usize> Serialize for Few<T, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Few<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Bounded::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use meshwork_channels::{decode, encode};

    use super::*;

    #[test]
    fn it_is_a_bounded_list_in_other_clothes() {
        for len in 0..6_u32 {
            let few: Few<u32, 4> = Few::first_of(0..len);
            let bounded: Bounded<u32, 4> = Bounded::first_of(0..len);
            assert_eq!(&few[..], &bounded[..]);
            assert_eq!(format!("{few:?}"), format!("{bounded:?}"));
            assert_eq!(few, Few::from(bounded.clone()), "one form for each list");
            assert_eq!(few.clone().into_vec(), bounded.clone().into_vec());
            let bytes = encode(&bounded);
            assert_eq!(encode(&few), bytes);
            assert_eq!(decode::<Few<u32, 4>>(&bytes), Ok(few));
        }
        assert_eq!(Few::<u32, 4>::one(7), Few::first_of([7]));
        let long: Bounded<u32, 5> = Bounded::first_of(0..5);
        assert!(decode::<Few<u32, 4>>(&encode(&long)).is_err());
    }

    #[test]
    fn it_takes_no_more_room_than_a_list() {
        assert!(size_of::<Few<[u64; 2], 4>>() <= size_of::<Vec<[u64; 2]>>());
    }
}
