//! Which instances the replica holds, found by name, capability and node without looking at all of them.
//!
//! It holds keys and what was said about them, not what the replica holds: whoever finds a key here reads the entry there. It is what a pass
//! over the replica would make of it, and no larger: for each entry a record of some hundred bytes and one for each of its at most
//! [`CAPABILITIES_MAX`](super::limits::CAPABILITIES_MAX) capabilities.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meshwork_channels::{PeerId, random};
use meshwork_crdt::Key;
use meshwork_crdt::replica::Entry;

use super::PREFIX;
use super::details::Parts;

/// What the application was told of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing, or that it is gone.
    Nothing,
    /// That it is there.
    Shown,
    /// That its node is away.
    Hidden,
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Names the entry, so that being told twice of one change is noticed.
    pub(super) fingerprint: u64,
    /// Its capabilities; `None` when the entry is no instance.
    pub(super) capabilities: Option<Vec<Arc<str>>>,
    pub(super) told: Told,
}

/// Keys in groups. An ordered set of pairs rather than a set for each group: a stranger can make as many groups as there are pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Groups<T> {
    counts: BTreeMap<T, usize>,
    pairs: BTreeSet<(T, Key)>,
}

impl<T> Default for Groups<T> {
    fn default() -> Self {
        Groups { counts: BTreeMap::new(), pairs: BTreeSet::new() }
    }
}

impl<T: Clone + Ord> Groups<T> {
    fn insert(&mut self, group: T, key: Key) {
        if self.pairs.insert((group.clone(), key)) {
            *self.counts.entry(group).or_default() += 1;
        }
    }

    fn remove(&mut self, group: &T, key: &Key) {
        if self.pairs.remove(&(group.clone(), key.clone()))
            && let Some(count) = self.counts.get_mut(group)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(group);
            }
        }
    }

    fn len(&self, group: &T) -> usize {
        self.counts.get(group).copied().unwrap_or(0)
    }

    fn keys<'a>(&'a self, group: T) -> impl Iterator<Item = &'a Key> + use<'a, T> {
        let first = (group.clone(), first_key());
        self.pairs.range(first..).take_while(move |(of, _)| *of == group).map(|(_, key)| key)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    known: BTreeMap<Key, Known>,
    by_name: Groups<Arc<str>>,
    by_capability: Groups<Arc<str>>,
    /// All keys, also those whose entries are no instances.
    by_node: Groups<PeerId>,
}

impl Index {
    pub(super) fn get(&self, key: &str) -> Option<&Known> {
        self.known.get(key)
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn set_told(&mut self, key: &Key, told: Told) {
        if let Some(known) = self.known.get_mut(key) {
            known.told = told;
        }
    }

    /// What hangs on the replica alone.
    #[cfg(test)]
    pub(super) fn without_told(&self) -> Self {
        let mut index = self.clone();
        index.known.values_mut().for_each(|known| known.told = Told::Nothing);
        index
    }

    pub(super) fn insert(&mut self, key: Key, parts: &Parts<'_>, known: Known) {
        self.remove(&key, parts);
        self.by_node.insert(parts.node, key.clone());
        if let Some(capabilities) = &known.capabilities {
            self.by_name.insert(parts.name.into(), key.clone());
            for capability in capabilities {
                self.by_capability.insert(capability.clone(), key.clone());
            }
        }
        self.known.insert(key, known);
    }

    pub(super) fn remove(&mut self, key: &Key, parts: &Parts<'_>) -> Option<Known> {
        let known = self.known.remove(key)?;
        self.by_node.remove(&parts.node, key);
        self.by_name.remove(&parts.name.into(), key);
        for capability in known.capabilities.iter().flatten() {
            self.by_capability.remove(capability, key);
        }
        Some(known)
    }

    /// The group as the others spell it, so that equal capabilities share their bytes.
    pub(super) fn shared(&self, capability: &str) -> Arc<str> {
        self.by_capability.counts.get_key_value(capability).map_or_else(|| capability.into(), |(shared, _)| shared.clone())
    }

    /// The keys of a node, ascending.
    pub(super) fn keys_of(&self, node: PeerId) -> impl Iterator<Item = &Key> + use<'_> {
        self.by_node.keys(node)
    }

    /// Whether a node has any key.
    pub(super) fn has_node(&self, node: PeerId) -> bool {
        self.by_node.len(&node) > 0
    }

    /// The fewest keys that hold all instances with what is asked for, ascending.
    pub(super) fn candidates<'a>(
        &'a self,
        namespace: Option<&str>,
        name: Option<&str>,
        node: Option<PeerId>,
        capabilities: &BTreeSet<String>,
    ) -> Box<dyn Iterator<Item = &'a Key> + 'a> {
        let mut best: Option<(usize, Box<dyn Iterator<Item = &'a Key> + 'a>)> = None;
        let texts = name.map(|name| (&self.by_name, name)).into_iter();
        for (groups, text) in texts.chain(capabilities.iter().map(|capability| (&self.by_capability, capability.as_str()))) {
            let group = Arc::from(text);
            let len = groups.len(&group);
            if best.as_ref().is_none_or(|(least, _)| len < *least) {
                best = Some((len, Box::new(groups.keys(group))));
            }
        }
        if let Some(node) = node
            && best.as_ref().is_none_or(|(least, _)| self.by_node.len(&node) < *least)
        {
            best = Some((0, Box::new(self.by_node.keys(node))));
        }
        match (best, namespace) {
            (Some((_, keys)), _) => keys,
            (None, Some(namespace)) => {
                let prefix = format!("{PREFIX}{namespace}/");
                let from = Key::try_from(&*prefix).unwrap_or_else(|_| first_key());
                Box::new(self.known.range(from..).map(|(key, _)| key).take_while(move |key| key.starts_with(&prefix)))
            }
            (None, None) => Box::new(self.known.keys()),
        }
    }
}

/// Below every key of this space.
fn first_key() -> Key {
    Key::try_from(PREFIX).expect("the prefix is a key")
}

/// Names what an entry says and who says so. It is only compared with that of the same key, so whoever makes two that are equal hides a
/// change of what is its own.
pub(super) fn fingerprint(entry: &Entry<'_>) -> u64 {
    let word = |bytes: &[u8]| bytes.iter().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
    let words = entry.value.chunks(8).chain(entry.origin.as_bytes().chunks(8)).map(word);
    random::hash(&words.chain([entry.value.len() as u64]).collect::<Vec<_>>())
}
