//! The map itself: one flat value per key, bounded, with the sums that name its content.
//!
//! Invariants, each checked after every input in debug builds or by the tests: the digest and the sums of the shards are those of the
//! entries; the sketch is that of the items of the entries; the index holds exactly the keys; keys and bytes stay within their bounds.
//!
//! The item of an entry begins with the upper half of the hash of its key and ends with 32 bits of the hash of the whole entry. So the index of
//! keys finds what an item names, without an index of items, and the old and the new item of a key that changed show that they belong
//! together. Two entries are as unlikely to share an item as two hashes of 64 bits; that a write leaves an item what it was has one chance in
//! 2^32, and then digests differ where sketches do not, and the shards are compared.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use meshwork_channels::{PeerId, encode};

use crate::digest::{Digest, Hasher};
use crate::hlc::Stamp;
use crate::key::Key;
use crate::origin::{Origin, Origins};
use crate::register::Register;
use crate::signed::{SIGNED_BYTES, Signed};
use crate::sketch::Sketch;
use crate::value::{Kind, State, Step, Typed, Unfit, Value};
use crate::wire::{Body, EXPIRY_BYTES_MAX, KeyHash, Name, Range, Row, SHARDS, ShardSum};

/// Entries from which on a sketch is kept. Fewer are cheaper to go through when somebody asks, and a simulation holds very many small stores.
const SKETCH_KEPT_MIN: usize = 64;
/// Cells of a sketch that begins: all that differs between two stores too small to keep one is found with them.
const SKETCH_CELLS_MIN: usize = 4 * SKETCH_KEPT_MIN;

/// What orders two writes of one register. It ends with the hash of the value, so equal markers cannot stand for different values: two
/// replicas that met those in another order would differ for good.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Marker {
    pub(crate) stamp: Stamp,
    pub(crate) origin: Origin,
    pub(crate) value_hash: u64,
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A register that was removed.
    Removed,
    /// A register in which the last writer wins.
    Register(Bytes),
    /// One that expires at a moment, in seconds since the Unix epoch.
    Until(Box<(u32, Bytes)>),
    /// One that expired, with the hash of its value.
    Expired(u32, u64),
    /// One that its origin signed, or that was removed so.
    Signed(Box<Signed>),
    /// Anything else.
    Typed(Box<Measured>),
}

/// A typed value with the length of its encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Measured {
    pub(crate) typed: Typed,
    len: usize,
}

/// An entry: what a key holds, and what orders or names it. Of a register the marker is that of its last write; of a typed value it has the
/// greatest stamp and origin of all writes, and the hash of everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) marker: Marker,
    pub(crate) content: Content,
}

impl Held {
    /// Bytes of the value.
    pub(crate) fn len(&self) -> usize {
        match &self.content {
            Content::Removed | Content::Expired(..) => 0,
            Content::Register(bytes) => bytes.len(),
            Content::Until(until) => until.1.len(),
            Content::Signed(signed) => signed.value.as_ref().map_or(0, Bytes::len),
            Content::Typed(sized) => sized.len,
        }
    }

    /// At most how many bytes take its place in an entry on the wire.
    pub(crate) fn encoded_len(&self) -> usize {
        self.len()
            + match self.content {
                Content::Until(_) | Content::Expired(..) => EXPIRY_BYTES_MAX,
                Content::Signed(_) => SIGNED_BYTES,
                Content::Removed | Content::Register(_) | Content::Typed(_) => 0,
            }
    }

    pub(crate) fn is_live(&self) -> bool {
        match &self.content {
            Content::Removed | Content::Expired(..) => false,
            Content::Register(_) | Content::Until(_) => true,
            Content::Signed(signed) => signed.value.is_some(),
            Content::Typed(sized) => sized.typed.is_live(),
        }
    }

    /// When it expires or expired.
    pub(crate) fn expiry(&self) -> Option<u32> {
        match &self.content {
            Content::Removed | Content::Register(_) | Content::Signed(_) => None,
            Content::Until(until) => Some(until.0),
            Content::Expired(until, _) => Some(*until),
            Content::Typed(sized) => sized.typed.expiry(),
        }
    }

    /// When it expires, if it did not yet.
    pub(crate) fn due(&self) -> Option<u32> {
        self.expiry().filter(|_| self.is_live())
    }

    pub(crate) fn is_typed(&self) -> bool {
        matches!(self.content, Content::Typed(_))
    }

    pub(crate) fn read(&self) -> Option<Value> {
        match &self.content {
            Content::Removed | Content::Expired(..) => None,
            Content::Register(bytes) => Some(Value::Lww(bytes.clone())),
            Content::Until(until) => Some(Value::Lww(until.1.clone())),
            Content::Signed(signed) => signed.value.clone().map(Value::Lww),
            Content::Typed(sized) => sized.typed.read(),
        }
    }

    pub(crate) fn body(&self) -> Body {
        match &self.content {
            Content::Removed => Body::Removed,
            Content::Register(bytes) => Body::Register(bytes.clone()),
            Content::Until(until) => Body::Until(until.0, until.1.clone()),
            Content::Expired(until, hash) => Body::Expired(*until, *hash),
            Content::Signed(signed) => Body::Signed(signed.clone()),
            Content::Typed(sized) => Body::Step(Box::new(Step::Whole(sized.typed.clone()))),
        }
    }

    /// The values of a register with when and by whom they were written, in no order.
    pub(crate) fn written(&self) -> impl Iterator<Item = (&Bytes, Stamp, PeerId)> {
        let (plain, typed) = match &self.content {
            Content::Removed | Content::Expired(..) => (None, None),
            Content::Register(bytes) => (Some(bytes), None),
            Content::Until(until) => (Some(&until.1), None),
            Content::Signed(signed) => (signed.value.as_ref(), None),
            Content::Typed(measured) => (None, Some(measured.typed.written())),
        };
        let plain = plain.map(|value| (value, self.marker.stamp, *self.marker.origin));
        plain.into_iter().chain(typed.into_iter().flatten())
    }

    /// Whether this holds more than what somebody sent.
    pub(crate) fn is_beyond(&self, stamp: Stamp, origin: PeerId, body: &Body) -> bool {
        let order = (self.marker.stamp, *self.marker.origin).cmp(&(stamp, origin));
        match (&self.content, body) {
            (Content::Typed(ours), Body::Step(theirs)) => {
                order.is_ne() || !matches!(&**theirs, Step::Whole(theirs) if theirs.is_same_write(&ours.typed))
            }
            (Content::Typed(_), _) => true,
            _ => match (self.body().register(), body.register()) {
                (Some(ours), Some(theirs)) => order.is_gt() || (order.is_eq() && !ours.is_same_write(&theirs)),
                // It was refused.
                _ => false,
            },
        }
    }

    /// The latest stamp in it.
    pub(crate) fn latest(&self) -> Stamp {
        match &self.content {
            Content::Removed | Content::Register(_) | Content::Until(_) | Content::Expired(..) | Content::Signed(_) => self.marker.stamp,
            Content::Typed(measured) => measured.typed.latest().unwrap_or_default().max(self.marker.stamp),
        }
    }

    /// Whether it takes more than half of what a value may: further writes of this node are refused then, so that those which others make at the same time
    /// can still be joined.
    pub(crate) fn is_crowded(&self, value_bytes_max: usize) -> bool {
        match &self.content {
            Content::Removed | Content::Register(_) | Content::Until(_) | Content::Expired(..) | Content::Signed(_) => false,
            Content::Typed(measured) if measured.typed.len() <= 1 => measured.len > value_bytes_max,
            Content::Typed(measured) => measured.len > value_bytes_max / 2,
        }
    }

    pub(crate) fn kind(&self) -> Option<Kind> {
        match &self.content {
            Content::Removed | Content::Expired(..) => None,
            Content::Register(_) | Content::Until(_) => Some(Kind::Lww),
            Content::Signed(signed) => signed.value.as_ref().map(|_| Kind::Lww),
            Content::Typed(measured) => measured.typed.kind(),
        }
    }

    /// The same as a typed value.
    pub(crate) fn to_typed(&self) -> Cow<'_, Typed> {
        match &self.content {
            Content::Typed(sized) => Cow::Borrowed(&sized.typed),
            // Where keys are signed, this is never asked for: it would leave the signature behind.
            Content::Signed(signed) => {
                let register = signed.value.clone().map_or(Register::Removed, Register::Value);
                Cow::Owned(Typed { length: 1, state: Some(State::Lww(self.marker.stamp, *self.marker.origin, register)) })
            }
            _ => {
                let register = self.body().register().unwrap_or(Register::Removed);
                Cow::Owned(Typed { length: 1, state: Some(State::Lww(self.marker.stamp, *self.marker.origin, register)) })
            }
        }
    }
}

/// What stands for an entry in a sketch.
fn item(key_hash: u64, entry: u128) -> u64 {
    (u64::from(Name::of(key_hash).0) << 32) | (entry >> 96) as u64
}

/// What a merge did.
#[derive(Debug, PartialEq)]
pub(crate) enum Merged {
    /// It replaced the entry. What one reads of it from now on, if that differs.
    Replaced { visible: Option<Option<Value>> },
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
    entries: BTreeMap<Key, Held>,
    origins: Origins,
    /// The keys of those that expire and did not yet, by when.
    expiring: BTreeSet<(u32, Key)>,
    /// The keys in the order in which replicas compare.
    index: BTreeSet<(u64, Key)>,
    /// The sum of each shard; empty until the first entry, because a simulation holds very many empty stores.
    shards: Vec<u64>,
    /// Of all entries; of none while there are few.
    sketch: Sketch,
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
            origins: Origins::default(),
            expiring: BTreeSet::new(),
            index: BTreeSet::new(),
            shards: Vec::new(),
            sketch: Sketch::new(),
            digest: Digest::default(),
            live: 0,
            bytes: 0,
        }
    }

    /// The entry that a write of a register makes.
    pub(crate) fn register(&self, stamp: Stamp, origin: PeerId, register: Register) -> Held {
        let hash = |value: &Bytes| self.hasher.value(Some(value));
        let (value_hash, content) = match register {
            Register::Removed => (self.hasher.value(None), Content::Removed),
            Register::Value(value) => (hash(&value), Content::Register(value)),
            Register::Until(until, value) => (self.hasher.expiring(until, hash(&value)), Content::Until(Box::new((until, value)))),
            Register::Expired(until, value) => (self.hasher.expiring(until, value), Content::Expired(until, value)),
            Register::Signed(signed) => (self.hasher.signed(&signed), Content::Signed(signed)),
        };
        Held { marker: Marker { stamp, origin: self.origins.of(origin), value_hash }, content }
    }

    fn typed(&self, stamp: Stamp, origin: PeerId, typed: Typed) -> Held {
        let encoded = encode(&typed);
        // Its hash and the room that it takes are those of what is left of it, if that is more.
        let expired = typed.expired(|value| self.hasher.value(Some(value))).map(|expired| encode(&expired));
        let (hashed, len) = (expired.as_ref().unwrap_or(&encoded), encoded.len().max(expired.as_ref().map_or(0, Bytes::len)));
        let marker = Marker { stamp, origin: self.origins.of(origin), value_hash: self.hasher.typed(hashed) };
        Held { marker, content: Content::Typed(Box::new(Measured { typed, len })) }
    }

    /// What is left of an entry that expired. What orders and names it stays what it was.
    pub(crate) fn expired(&self, held: Held) -> Held {
        let hash = |value: &Bytes| self.hasher.value(Some(value));
        let content = match held.content {
            Content::Until(until) => Content::Expired(until.0, hash(&until.1)),
            Content::Typed(measured) => Content::Typed(match measured.typed.expired(hash) {
                Some(typed) => Box::new(Measured { len: encode(&typed).len(), typed }),
                None => measured,
            }),
            other => other,
        };
        Held { content, ..held }
    }

    /// When the next entry expires.
    pub(crate) fn next_expiry(&self) -> Option<u32> {
        self.expiring.first().map(|(until, _)| *until)
    }

    /// Leaves of one entry only what is left at a moment; its key, and when it was written.
    pub(crate) fn expire_next(&mut self, second: u32) -> Option<(Key, Stamp)> {
        let key = self.expiring.first().filter(|(until, _)| *until <= second)?.1.clone();
        self.expiring.pop_first();
        let expired = self.expired(self.entries.get(&key)?.clone());
        let held = self.entries.get_mut(&key)?;
        self.bytes = self.bytes - held.len() + expired.len();
        self.live -= 1;
        *held = expired;
        Some((key, held.marker.stamp))
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Held> {
        self.entries.get(key)
    }

    /// All entries from `prefix` on that start with it, tombstones included.
    pub(crate) fn iter<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a Key, &'a Held)> {
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

    /// The sketch of all items.
    pub(crate) fn sketch(&self) -> Cow<'_, Sketch> {
        match self.sketch.items() {
            0 => Cow::Owned(Sketch::of(self.items(), SKETCH_CELLS_MIN)),
            _ => Cow::Borrowed(&self.sketch),
        }
    }

    fn items(&self) -> impl Iterator<Item = u64> {
        self.entries.iter().map(|(key, held)| item(self.hasher.key(key), self.hasher.entry(key, &held.marker)))
    }

    /// The entries of a range in the order of the hashes of their keys, each with its hash. Keys whose hashes collide come one after the other.
    pub(crate) fn held(&self, range: Range) -> impl Iterator<Item = (u64, &Key, &Held)> {
        let index = if range.first <= range.last { Some(self.index.range((range.first.0, Key::below_all())..)) } else { None };
        index
            .into_iter()
            .flatten()
            .take_while(move |(hash, _)| *hash <= range.last.0)
            .filter_map(|(hash, key)| Some((*hash, key, self.entries.get(key)?)))
    }

    /// The same with their rows.
    pub(crate) fn rows(&self, range: Range) -> impl Iterator<Item = (Row, &Key, &Held)> {
        self.held(range).map(|(hash, key, held)| {
            let entry = (self.hasher.entry(key, &held.marker) >> 64) as u64;
            (Row { key: KeyHash(hash), stamp: held.marker.stamp, entry }, key, held)
        })
    }

    /// What a key would hold after a write; `None` when that is what it holds.
    pub(crate) fn joined(&self, key: &str, stamp: Stamp, origin: PeerId, body: &Body) -> Result<Option<Held>, Unfit> {
        let held = self.entries.get(key);
        let step = match (held, body) {
            (_, Body::Step(step)) => Cow::Borrowed(&**step),
            (_, body) => {
                let new = self.register(stamp, origin, body.register().unwrap_or(Register::Removed));
                if held.is_none_or(|held| !held.is_typed()) {
                    return Ok(Some(new).filter(|new| held.is_none_or(|held| held.marker < new.marker)));
                }
                Cow::Owned(Step::Whole(new.to_typed().into_owned()))
            }
        };
        let before = held.map(Held::to_typed);
        let typed = Typed::after(before.as_deref(), &step)?;
        let latest = held.map_or((stamp, origin), |held| (held.marker.stamp, *held.marker.origin).max((stamp, origin)));
        let new = self.typed(latest.0, latest.1, typed);
        Ok(Some(new).filter(|new| held.is_none_or(|held| held.marker != new.marker)))
    }

    /// Whether there is room for values under keys of which each is named once.
    pub(crate) fn room_for<'a>(&self, values: impl IntoIterator<Item = (&'a str, usize)>) -> Result<(), Quota> {
        let Bounds { keys_max, bytes_max, .. } = self.bounds;
        let (mut keys, mut freed, mut needed) = (self.entries.len(), 0, 0);
        for (key, value_len) in values {
            needed += key.len() + value_len;
            match self.entries.get(key) {
                Some(held) => freed += key.len() + held.len(),
                None => keys += 1,
            }
        }
        if keys > keys_max {
            return Err(Quota::Keys(keys_max));
        }
        // What does not grow always fits, so that a full replica can still shrink.
        if needed > freed && self.bytes - freed + needed > bytes_max {
            return Err(Quota::Bytes(bytes_max));
        }
        Ok(())
    }

    /// Puts the result of [`Store::joined`] in place of what the key holds.
    pub(crate) fn replace(&mut self, key: Key, mut new: Held) -> Merged {
        let Bounds { keys_max, bytes_max, value_bytes_max } = self.bounds;
        let len = new.len();
        let held = self.entries.get_mut(&key);
        // As `room_for` has it; the key is looked up once.
        let has_room = match &held {
            Some(held) => len <= held.len() || self.bytes - held.len() + len <= bytes_max,
            None => self.digest.keys < keys_max as u64 && self.bytes + key.len() + len <= bytes_max,
        };
        if len > value_bytes_max || !has_room {
            return Merged::Refused;
        }
        let hash = self.hasher.key(&key);
        let added = self.hasher.entry(&key, &new.marker);
        self.origins.keep(&mut new.marker.origin);
        self.shards.resize(SHARDS, 0);
        let shard = &mut self.shards[(hash >> 56) as usize];
        *shard = shard.wrapping_add(added as u64);
        self.digest.sum = self.digest.sum.wrapping_add(added);
        self.bytes += len;
        self.live += usize::from(new.is_live());
        self.expiring.extend(new.due().map(|until| (until, key.clone())));

        let Some(held) = held else {
            let visible = new.is_live().then(|| new.read());
            self.bytes += key.len();
            self.digest.keys += 1;
            self.index.insert((hash, key.clone()));
            self.entries.insert(key, new);
            self.keep_sketch(None, item(hash, added));
            return Merged::Replaced { visible };
        };
        let removed = self.hasher.entry(&key, &held.marker);
        *shard = shard.wrapping_sub(removed as u64);
        self.digest.sum = self.digest.sum.wrapping_sub(removed);
        self.bytes -= held.len();
        self.live -= usize::from(held.is_live());
        let visible = match (&held.content, &new.content) {
            (Content::Register(old), Content::Register(new)) => (old != new).then(|| Some(Value::Lww(new.clone()))),
            (Content::Removed, Content::Removed) => None,
            _ => Some(new.read()).filter(|value| held.read() != *value),
        };
        let new_due = new.due();
        let old = std::mem::replace(held, new);
        if let Some(until) = old.due().filter(|until| new_due != Some(*until)) {
            self.expiring.remove(&(until, key));
        }
        self.origins.release(old.marker.origin);
        self.keep_sketch(Some(item(hash, removed)), item(hash, added));
        Merged::Replaced { visible }
    }

    /// Forgets a key altogether.
    pub(crate) fn forget(&mut self, key: &Key) {
        let Some(held) = self.entries.remove(key) else { return };
        let (hash, removed) = (self.hasher.key(key), self.hasher.entry(key, &held.marker));
        let shard = &mut self.shards[(hash >> 56) as usize];
        *shard = shard.wrapping_sub(removed as u64);
        self.digest.sum = self.digest.sum.wrapping_sub(removed);
        self.digest.keys -= 1;
        self.bytes -= key.len() + held.len();
        self.live -= usize::from(held.is_live());
        self.index.remove(&(hash, key.clone()));
        if let Some(until) = held.due() {
            self.expiring.remove(&(until, key.clone()));
        }
        match self.sketch.items() {
            0 => {}
            1 => self.sketch = Sketch::new(),
            _ => self.sketch.remove(item(hash, removed)),
        }
        self.origins.release(held.marker.origin);
    }

    /// The same content as a new write.
    pub(crate) fn again(&self, held: Held, stamp: Stamp, origin: PeerId) -> Held {
        let marker = Marker { stamp, origin: self.origins.of(origin), value_hash: held.marker.value_hash };
        Held { marker, content: held.content }
    }

    /// Follows a change of the entries.
    fn keep_sketch(&mut self, removed: Option<u64>, added: u64) {
        if self.sketch.items() == 0 {
            if self.entries.len() >= SKETCH_KEPT_MIN {
                self.sketch = Sketch::of(self.items(), SKETCH_CELLS_MIN);
            }
            return;
        }
        if let Some(removed) = removed {
            self.sketch.remove(removed);
        }
        self.sketch.insert(added);
        if self.sketch.is_short() {
            let mut sketch = std::mem::take(&mut self.sketch);
            sketch.grow(self.items());
            self.sketch = sketch;
        }
    }

    /// The invariants that cost nothing to check.
    pub(crate) fn check(&self) {
        debug_assert!(self.sketch.items() == 0 || self.sketch.items() == self.entries.len(), "a sketch that is kept is of all entries");
        debug_assert_eq!(self.entries.len(), self.index.len(), "the index holds exactly the keys");
        debug_assert_eq!(self.entries.len() as u64, self.digest.keys, "the digest counts the keys");
        debug_assert!(self.entries.len() <= self.bounds.keys_max, "keys are bounded");
        debug_assert!(self.bytes <= self.bounds.bytes_max, "bytes are bounded");
        debug_assert!(self.live <= self.entries.len(), "a live key is a key");
        debug_assert!(self.expiring.len() <= self.live, "only what is live expires");
    }

    /// How many origins are kept.
    #[cfg(test)]
    pub(crate) fn origins(&self) -> usize {
        self.origins.len()
    }

    /// The sketch that is kept, to put something wrong into it.
    #[cfg(test)]
    pub(crate) fn sketch_mut(&mut self) -> &mut Sketch {
        &mut self.sketch
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
            match &register.content {
                Content::Removed => assert_eq!(register.marker.value_hash, self.hasher.value(None)),
                Content::Register(bytes) => assert_eq!(register.marker.value_hash, self.hasher.value(Some(bytes))),
                Content::Until(until) => {
                    assert_eq!(register.marker.value_hash, self.hasher.expiring(until.0, self.hasher.value(Some(&until.1))));
                }
                Content::Expired(until, hash) => assert_eq!(register.marker.value_hash, self.hasher.expiring(*until, *hash)),
                Content::Signed(signed) => assert_eq!(register.marker.value_hash, self.hasher.signed(signed)),
                Content::Typed(sized) => {
                    assert!(sized.typed.is_sound(), "{:?}", sized.typed);
                    let named = sized.typed.expired(|value| self.hasher.value(Some(value)));
                    assert_eq!(register.marker.value_hash, self.hasher.typed(&encode(named.as_ref().unwrap_or(&sized.typed))));
                    assert_eq!(meshwork_channels::decode::<Typed>(&encode(&sized.typed)).as_ref(), Ok(&sized.typed));
                }
            }
            let entry = self.hasher.entry(key, &register.marker);
            shards[(hash >> 56) as usize] = shards[(hash >> 56) as usize].wrapping_add(entry as u64);
            digest.sum = digest.sum.wrapping_add(entry);
            digest.keys += 1;
            bytes += key.len() + register.len();
            live += usize::from(register.is_live());
        }
        assert_eq!(digest, self.digest);
        let origins: BTreeSet<&Origin> = self.entries.values().map(|held| &held.marker.origin).collect();
        assert!(origins.iter().all(|origin| self.origins.of(***origin) == **origin));
        let sketch = self.sketch();
        assert_eq!(*sketch, Sketch::of(self.items(), sketch.cell_count()));
        assert!(self.entries.len() < SKETCH_KEPT_MIN || self.sketch.items() > 0);
        assert!(self.shard_sums().map(|sum| sum.0).eq(shards));
        assert_eq!((bytes, live), (self.bytes, self.live));
        let expiring = self.entries.iter().filter_map(|(key, held)| Some((held.due()?, key.clone())));
        assert_eq!(expiring.collect::<BTreeSet<_>>(), self.expiring);
        self.check();
    }
}
