//! A map in the order of its keys that is small while it holds little.
//!
//! A node of a simulated million holds a dozen maps of a few entries each. A B-tree takes room for eleven entries with the first; this one is
//! a sorted list of just the size that it needs, and becomes a B-tree when it grows beyond what is moved quickly.

use std::collections::{BTreeMap, btree_map};
use std::ops::RangeInclusive;
use std::slice;

/// Above so many entries it is a B-tree.
const FEW_MAX: usize = 64;
/// Below so many it is a list again.
const MANY_MIN: usize = 16;

/// A map in the order of its keys.
#[expect(clippy::box_collection, reason = "the form that is usual is all the room that the map takes")]
#[derive(Clone, Debug)]
pub(crate) enum Sorted<K, V> {
    Few(Vec<(K, V)>),
    Many(Box<BTreeMap<K, V>>),
}

/// A set in order.
pub(crate) type SortedSet<K> = Sorted<K, ()>;

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> Sorted<K, V> {
    pub(crate) const fn new() -> Self {
        Sorted::Few(Vec::new())
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Sorted::Few(few) => few.len(),
            Sorted::Many(many) => many.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Copy + Ord, V> Sorted<K, V> {
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        match self {
            Sorted::Few(few) => find(few, key).ok().map(|at| &few[at].1),
            Sorted::Many(many) => many.get(key),
        }
    }

    /// The same, faster when the entry lies at a place.
    pub(crate) fn get_near(&self, place: usize, key: &K) -> Option<&V> {
        match self {
            Sorted::Few(few) if few.get(place).is_some_and(|(other, _)| other == key) => Some(&few[place].1),
            _ => self.get(key),
        }
    }

    /// Where the entry lies, if it lies at a place.
    pub(crate) fn place(&self, key: &K) -> u32 {
        match self {
            Sorted::Few(few) => find(few, key).unwrap_or_default() as u32,
            Sorted::Many(_) => 0,
        }
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        match self {
            Sorted::Few(few) => find(few, key).ok().map(|at| &mut few[at].1),
            Sorted::Many(many) => many.get_mut(key),
        }
    }

    /// The same, faster when the entry lies at a place; where it was found is the place from then on.
    pub(crate) fn get_mut_near(&mut self, place: &mut u32, key: &K) -> Option<&mut V> {
        match self {
            Sorted::Few(few) => {
                if few.get(*place as usize).is_none_or(|(other, _)| other != key) {
                    *place = find(few, key).ok()? as u32;
                }
                Some(&mut few[*place as usize].1)
            }
            Sorted::Many(many) => many.get_mut(key),
        }
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        let few = match self {
            Sorted::Few(few) => few,
            Sorted::Many(many) => {
                many.insert(key, value);
                return;
            }
        };
        match find(few, &key) {
            Ok(at) => few[at].1 = value,
            Err(_) if few.len() == FEW_MAX => {
                let mut many: BTreeMap<K, V> = std::mem::take(few).into_iter().collect();
                many.insert(key, value);
                *self = Sorted::Many(Box::new(many));
            }
            Err(at) => {
                reserve(few);
                few.insert(at, (key, value));
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        match self {
            Sorted::Few(few) => {
                let (_, value) = few.remove(find(few, key).ok()?);
                if few.is_empty() {
                    *few = Vec::new();
                }
                Some(value)
            }
            Sorted::Many(many) => {
                let value = many.remove(key)?;
                if many.len() < MANY_MIN {
                    *self = Sorted::Few(std::mem::take(&mut **many).into_iter().collect());
                }
                Some(value)
            }
        }
    }

    pub(crate) fn first(&self) -> Option<(&K, &V)> {
        match self {
            Sorted::Few(few) => few.first().map(|(key, value)| (key, value)),
            Sorted::Many(many) => many.first_key_value(),
        }
    }

    pub(crate) fn iter(&self) -> Iter<'_, K, V> {
        match self {
            Sorted::Few(few) => Iter::Few(few.iter()),
            Sorted::Many(many) => Iter::Many(many.range(..)),
        }
    }

    pub(crate) fn range(&self, keys: RangeInclusive<K>) -> Iter<'_, K, V> {
        match self {
            // A range that ends before it starts holds nothing; a B-tree panics on it, and a peer can ask for one.
            _ if keys.is_empty() => Iter::Few(Default::default()),
            Sorted::Few(few) => {
                let start = few.partition_point(|(key, _)| key < keys.start());
                let end = few.partition_point(|(key, _)| key <= keys.end());
                Iter::Few(few[start..end].iter())
            }
            Sorted::Many(many) => Iter::Many(many.range(keys)),
        }
    }
}

fn find<K: Ord, V>(few: &[(K, V)], key: &K) -> Result<usize, usize> {
    few.binary_search_by(|(other, _)| other.cmp(key))
}

/// Makes room for one more in small steps: what doubles is half empty on average. The first one often stays alone.
pub(crate) fn reserve<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(match list.len() {
            0 => 1,
            len @ 1..16 => 2 - len % 2,
            len => len / 4,
        });
    }
}

/// The entries in order.
#[derive(Clone, Debug)]
pub(crate) enum Iter<'a, K, V> {
    Few(slice::Iter<'a, (K, V)>),
    Many(btree_map::Range<'a, K, V>),
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Iter::Few(few) => few.next().map(|(key, value)| (key, value)),
            Iter::Many(many) => many.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use meshwork_channels::random::hash;

    use super::*;

    #[test]
    fn agrees_with_a_b_tree_while_it_grows_and_shrinks() {
        let (mut sorted, mut model) = (Sorted::new(), BTreeMap::new());
        let mut was_many = 0;
        for step in 0..6_000_u64 {
            let key = hash(&[step, 1]) % 100;
            // Grows for a while, then shrinks for a while.
            let grows = step / 500 % 2 == 0;
            if hash(&[step, 2]) % 16 < if grows { 15 } else { 1 } {
                sorted.insert(key, step);
                model.insert(key, step);
            } else {
                assert_eq!(sorted.remove(&key), model.remove(&key));
            }
            was_many += u32::from(matches!(sorted, Sorted::Many(_)));
            assert_eq!((sorted.len(), sorted.is_empty()), (model.len(), model.is_empty()));
            assert!(sorted.iter().eq(model.iter()));
            assert_eq!(sorted.first(), model.first_key_value());
            assert_eq!((sorted.get(&key), sorted.contains(&key)), (model.get(&key), model.contains_key(&key)));
            assert_eq!(sorted.get_mut(&key), model.get_mut(&key));
            let mut place = (hash(&[step, 5]) % 100) as u32;
            assert_eq!(sorted.get_near(place as usize, &key), model.get(&key));
            assert_eq!(sorted.get_mut_near(&mut place, &key), model.get_mut(&key));
            assert!(!sorted.contains(&key) || place == sorted.place(&key) || matches!(sorted, Sorted::Many(_)));
            let (from, to) = (hash(&[step, 3]) % 100, hash(&[step, 4]) % 100);
            assert!(from > to || sorted.range(from..=to).eq(model.range(from..=to)));
            assert!(from <= to || sorted.range(from..=to).next().is_none());
        }
        assert!((1_000..5_000).contains(&was_many), "both forms were used: {was_many}");
    }
}
