//! Entries on the wire: each origin once, and stamps by how much later they are than the first.

use std::collections::BTreeMap;

use meshwork_channels::{Bounded, PeerId};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Body, ENTRIES_MAX, Entry};
use crate::hlc::Stamp;
use crate::key::Key;

/// At most how many bytes an entry takes beside its origin, and how many that takes once.
pub(crate) const fn bytes_max(key_len: usize, value_len: usize) -> usize {
    // The length and bytes of the key, the stamp, which origin, the tag and length and bytes of the value.
    2 + key_len + 10 + 2 + 1 + 3 + value_len
}

pub(crate) const ORIGIN_BYTES: usize = 32;

#[derive(Serialize)]
struct Packed<'a> {
    first: Stamp,
    origins: Vec<PeerId>,
    entries: Vec<Short<&'a Key, &'a Body>>,
}

#[derive(Deserialize)]
struct Unpacked {
    first: Stamp,
    origins: Bounded<PeerId, ENTRIES_MAX>,
    entries: Bounded<Short<Key, Body>, ENTRIES_MAX>,
}

#[derive(Serialize, Deserialize)]
struct Short<K, B> {
    key: K,
    later: u64,
    origin: u16,
    body: B,
}

pub(super) fn serialize<S: Serializer>(entries: &Bounded<Entry, ENTRIES_MAX>, serializer: S) -> Result<S::Ok, S::Error> {
    let first = entries.iter().map(|entry| entry.stamp).min().unwrap_or_default();
    let (mut origins, mut places) = (Vec::new(), BTreeMap::new());
    let mut short = Vec::with_capacity(entries.len());
    for Entry { key, stamp, origin, body } in entries.iter() {
        let place = *places.entry(origin).or_insert_with(|| {
            origins.push(*origin);
            origins.len() as u16 - 1
        });
        short.push(Short { key, later: stamp.to_bits() - first.to_bits(), origin: place, body });
    }
    Packed { first, origins, entries: short }.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bounded<Entry, ENTRIES_MAX>, D::Error> {
    let Unpacked { first, origins, entries } = Unpacked::deserialize(deserializer)?;
    let entry = |Short { key, later, origin, body }| {
        let stamp = Stamp::from_bits(first.to_bits().checked_add(later)?);
        Some(Entry { key, stamp, origin: *origins.get(usize::from(origin))?, body })
    };
    let entries = entries.into_vec().into_iter().map(entry).collect::<Option<Vec<Entry>>>();
    Ok(Bounded::first_of(entries.ok_or_else(|| D::Error::custom("an origin that is not named, or a stamp behind all"))?))
}
