//! The map itself: one register per key in which the last writer wins, bounded, with the sums that name its content.
//!
//! Invariants, each checked after every input in debug builds or by the tests: the digest and the sums of the shards are those of the
//! entries; the index holds exactly the keys; keys and bytes stay within their bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use crdts::{CvRDT, LWWReg};
use meshwork_channels::PeerId;

use crate::digest::{Digest, Hasher};
use crate::hlc::Stamp;
use crate::key::Key;
use crate::wire::{KeyHash, Range, Row, SHARDS, ShardSum};

/// What orders two writes of one key. It ends with the hash of the value, so equal markers cannot stand for different values: a register
/// of the `crdts` crate that met those would keep what it holds, and two replicas would differ for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Marker {
    pub(crate) stamp: Stamp,
    pub(crate) origin: PeerId,
    pub(crate) value_hash: u64,
}

/// The value, `None` once removed, with its marker.
pub(crate) type Register = LWWReg<Option<Bytes>, Marker>;

/// What a merge did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merged {
    /// Nothing: the same or something newer was there.
    Known,
    /// It replaced the entry; the value differs as well if `is_visible`.
    Replaced { is_visible: bool },
    /// Nothing: it does not fit.
    Refused,
}

/// Which bound of a replica is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// It keeps no more keys than these, removed ones included.
    Keys(usize),
    /// It keeps no more bytes of keys and values than these.
    Bytes(usize),
}

/// The bounds of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) keys_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) value_bytes_max: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Store {
    hasher: Hasher,
    bounds: Bounds,
    entries: BTreeMap<Key, Register>,
    /// The keys in the order in which replicas compare.
    index: BTreeSet<(u64, Key)>,
    /// The sum of each shard; empty until the first entry, because a simulation holds very many empty stores.
    shards: Vec<u64>,
    digest: Digest,
    live: usize,
    bytes: usize,
}

impl Store {
    pub(crate) fn new(digest_key: [u8; 16], bounds: Bounds) -> Self {
        Store {
            hasher: Hasher::new(digest_key),
            bounds,
            entries: BTreeMap::new(),
            index: BTreeSet::new(),
            shards: Vec::new(),
            digest: Digest::default(),
            live: 0,
            bytes: 0,
        }
    }

    /// A register with the marker that belongs to it.
    pub(crate) fn register(&self, stamp: Stamp, origin: PeerId, value: Option<Bytes>) -> Register {
        let marker = Marker { stamp, origin, value_hash: self.hasher.value(value.as_ref()) };
        Register { val: value, marker }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Register> {
        self.entries.get(key)
    }

    /// All entries from `prefix` on that start with it, tombstones included.
    pub(crate) fn iter<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a Key, &'a Register)> {
        self.entries.range::<str, _>((Bound::Included(prefix), Bound::Unbounded)).take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// Entries with a value.
    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// All entries.
    pub(crate) fn keys(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of keys and values.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    pub(crate) fn shard_sums(&self) -> impl Iterator<Item = ShardSum> {
        (0..SHARDS).map(|shard| ShardSum(self.shards.get(shard).copied().unwrap_or(0)))
    }

    /// The entries of a range in the order of their hashes. Keys whose hashes collide come one after the other.
    pub(crate) fn rows(&self, range: Range) -> impl Iterator<Item = (Row, &Key, &Register)> {
        let index = if range.first <= range.last { Some(self.index.range((range.first.0, Key::below_all())..)) } else { None };
        index.into_iter().flatten().take_while(move |(hash, _)| *hash <= range.last.0).filter_map(|(hash, key)| {
            let register = self.entries.get(key)?;
            let entry = (self.hasher.entry(key, &register.marker) >> 64) as u64;
            Some((Row { key: KeyHash(*hash), stamp: register.marker.stamp, entry }, key, register))
        })
    }

    /// Whether merging this would change anything if there is room.
    pub(crate) fn is_news(&self, key: &Key, register: &Register) -> bool {
        self.entries.get(key).is_none_or(|held| held.marker < register.marker)
    }

    /// Whether there is room for a value under this key, in place of what the key holds now.
    pub(crate) fn room(&self, key: &str, value_len: usize) -> Result<(), Quota> {
        let Bounds { keys_max, bytes_max, .. } = self.bounds;
        let freed = match self.entries.get(key) {
            Some(held) => key.len() + value_len_of(held),
            None if self.entries.len() >= keys_max => return Err(Quota::Keys(keys_max)),
            None => 0,
        };
        // What does not grow always fits, so that a full replica can still shrink.
        let needed = key.len() + value_len;
        if needed > freed && self.bytes - freed + needed > bytes_max {
            return Err(Quota::Bytes(bytes_max));
        }
        Ok(())
    }

    /// Joins a register with what the key holds.
    pub(crate) fn merge(&mut self, key: Key, register: Register) -> Merged {
        if !self.is_news(&key, &register) {
            return Merged::Known;
        }
        let value_len = value_len_of(&register);
        if value_len > self.bounds.value_bytes_max || self.room(&key, value_len).is_err() {
            return Merged::Refused;
        }
        let hash = self.hasher.key(&key);
        let added = self.hasher.entry(&key, &register.marker);
        self.shards.resize(SHARDS, 0);
        let shard = &mut self.shards[(hash >> 56) as usize];
        *shard = shard.wrapping_add(added as u64);
        self.digest.sum = self.digest.sum.wrapping_add(added);
        self.bytes += value_len;
        self.live += usize::from(register.val.is_some());

        let Some(held) = self.entries.get_mut(&key) else {
            let is_visible = register.val.is_some();
            self.bytes += key.len();
            self.digest.keys += 1;
            self.index.insert((hash, key.clone()));
            self.entries.insert(key, register);
            return Merged::Replaced { is_visible };
        };
        let removed = self.hasher.entry(&key, &held.marker);
        *shard = shard.wrapping_sub(removed as u64);
        self.digest.sum = self.digest.sum.wrapping_sub(removed);
        self.bytes -= value_len_of(held);
        self.live -= usize::from(held.val.is_some());
        let is_visible = held.val != register.val;
        held.merge(register);
        Merged::Replaced { is_visible }
    }

    /// The invariants that cost nothing to check.
    pub(crate) fn check(&self) {
        debug_assert_eq!(self.entries.len(), self.index.len(), "the index holds exactly the keys");
        debug_assert_eq!(self.entries.len() as u64, self.digest.keys, "the digest counts the keys");
        debug_assert!(self.entries.len() <= self.bounds.keys_max, "keys are bounded");
        debug_assert!(self.bytes <= self.bounds.bytes_max, "bytes are bounded");
        debug_assert!(self.live <= self.entries.len(), "a live key is a key");
    }

    /// Keeps only some bits of the hashes of keys, so that they collide. For an empty store.
    #[cfg(test)]
    pub(crate) fn mask_key_hashes(&mut self, mask: u64) {
        self.hasher.key_mask = mask;
    }

    /// The invariants that cost a pass over everything.
    #[cfg(test)]
    pub(crate) fn check_sums(&self) {
        let mut shards = vec![0_u64; SHARDS];
        let mut digest = Digest::default();
        let (mut bytes, mut live) = (0, 0);
        for (key, register) in &self.entries {
            let hash = self.hasher.key(key);
            assert!(self.index.contains(&(hash, key.clone())));
            assert_eq!(register.marker.value_hash, self.hasher.value(register.val.as_ref()));
            let entry = self.hasher.entry(key, &register.marker);
            shards[(hash >> 56) as usize] = shards[(hash >> 56) as usize].wrapping_add(entry as u64);
            digest.sum = digest.sum.wrapping_add(entry);
            digest.keys += 1;
            bytes += key.len() + value_len_of(register);
            live += usize::from(register.val.is_some());
        }
        assert_eq!(digest, self.digest);
        assert!(self.shard_sums().map(|sum| sum.0).eq(shards));
        assert_eq!((bytes, live), (self.bytes, self.live));
        self.check();
    }
}

fn value_len_of(register: &Register) -> usize {
    register.val.as_ref().map_or(0, Bytes::len)
}
