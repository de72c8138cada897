//! One replica of the map: it stamps and applies writes, hands them to the broadcast as deltas, takes those of others, and repairs with
//! its neighbors what broadcasts missed.
//!
//! Sources: state-based registers in which the last writer wins (Shapiro, Preguiça, Baquero and Zawirski, "Conflict-free Replicated Data
//! Types", SSS 2011; the `LWWReg` of the `crdts` crate), shipped as deltas (Almeida, Shoker and Baquero, "Delta State Replicated Data
//! Types", JPDC 2018, section 4: a delta is a small state that is joined like any other), compared by digests of hash ranges (Demers et
//! al., "Epidemic Algorithms for Replicated Database Maintenance", PODC 1987, section 1.3, with its checksums; the shards are a hash tree
//! of one level), and stamped by the [hybrid logical clock](crate::hlc).
//!
//! Deviations:
//!
//! 1. Deltas are not kept until acknowledged (Almeida, algorithm 2): broadcast delivers nearly all, and comparing *content* finds what was
//!    lost whatever the cause, also damage that no log of deltas knows about.
//! 2. What repair brings is not broadcast again. Otherwise every node that lacked an entry would flood what all of them obtain by
//!    themselves.
//! 3. The marker that orders writes ends with a hash of the value, so that two values under one stamp and origin still have one order.
//! 4. A stamp is judged against the later of our wall clock and the lower median of those that at least two neighbors report. A node whose
//!    clock was set back would otherwise refuse the whole cluster; one lying neighbor moves nothing. Stamps of our own writes use the same
//!    time, so that a slow clock does not lose every conflict.
//!
//! Invariants: two replicas that merged the same writes in any order, any number of times, hold the same and have equal digests; a write
//! stamped here is newer than everything that this replica holds; an entry is applied whole or refused whole.
//!
//! What a peer can make it store: entries, up to the keys and bytes of [`Config`], and one small record for each
//! neighbor that the overlay reports. Tombstones count as keys and stay: collecting them needs to know what every member has seen,
//! which is a part of its own. A replica that is full refuses new keys, counts them, and keeps accepting changes of those it holds. An
//! entry that one replica refuses keeps its digest apart from the others', which costs one bounded comparison per period. Entries carry
//! no signature: a member can write under another member's name in repair, as it can write any key.
//!
//! Known limits, which belong to the work on signatures and collection: a writer whose clock is ahead keeps what the others refuse, and
//! once their clocks have come that far it is accepted and wins over what was written in between; broadcasts that are still under way
//! look like differences to repair, which costs bytes but is never wrong.
//!
//! Who talks to it: the node, which feeds it messages, broadcasts and the neighbors of the overlay, and the services that read and write.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::buggify::{Buggify, Site};
use meshwork_channels::{Bounded, DecodeError, Misbehavior, Now, PeerId, Time, WallTime, decode, encode, limits};

pub use crate::config::{Config, Params};
use crate::digest::Digest;
use crate::hlc::{Clock, Stamp};
use crate::key::{Key, KeyError};
use crate::repair::{Repair, Turn};
pub use crate::store::Quota;
use crate::store::{Merged, Register, Store};
pub use crate::wire::Message;
use crate::wire::{self, Delta, FRAME_BUDGET_BYTES, Value, WRITES_MAX, Write, entry_bytes_max};

/// How long writes wait where [`Site::DeltaLate`] fires.
const FLUSH_LATE: Duration = Duration::from_secs(1);
/// Frames of one flush. The next follow after `flush_delay`, so that a burst of large writes reaches the overlay in pieces.
const FLUSH_FRAMES_MAX: usize = 16;

/// What can happen to a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The peer is a neighbor from now on.
    NeighborUp(PeerId),
    /// The peer is no neighbor any more.
    NeighborDown(PeerId),
    /// A message of repair arrived.
    Received {
        /// The peer that sent it over its own connection.
        from: PeerId,
        /// The message.
        message: Message,
    },
    /// A broadcast arrived.
    Delta {
        /// The node that wrote and broadcast it, which need not be the one that passed it on.
        origin: PeerId,
        /// What [`Action::Broadcast`] held there.
        bytes: Bytes,
    },
    /// The moment of [`State::next_deadline`] has come.
    DeadlineReached,
}

/// What a replica decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a message to a peer; it may be lost.
    Send {
        /// The peer.
        to: PeerId,
        /// The message, encoded less than [`limits::CONTROL_BYTES_MAX`].
        message: Message,
    },
    /// Broadcast a delta, at most [`limits::BROADCAST_BYTES_MAX`], to every node.
    Broadcast(Bytes),
    /// What [`State::get`] returns for a key has changed, by a write here or elsewhere.
    Changed {
        /// The key.
        key: Key,
        /// The value from now on; `None` once it was removed.
        value: Option<Bytes>,
        /// When it was written.
        stamp: Stamp,
    },
    /// The peer broke a rule. For a delta the peer is its origin, although a node that passed it on may be to blame.
    Misbehaved {
        /// The peer.
        peer: PeerId,
        /// The rule.
        what: Misbehavior,
    },
}

/// A live entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The value.
    pub value: &'a Bytes,
    /// When it was written.
    pub stamp: Stamp,
    /// Who wrote it.
    pub origin: PeerId,
}

/// Why a write was not made. Nothing was changed, and no stamp was spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetError {
    /// The key is empty.
    KeyEmpty,
    /// The key is too long.
    KeyTooLong {
        /// Its length in bytes.
        len: usize,
        /// The longest length.
        len_max: usize,
    },
    /// The value is too large.
    ValueTooLarge {
        /// Its length in bytes.
        len: usize,
        /// The largest length.
        len_max: usize,
    },
    /// The replica is full.
    Full {
        /// The bound that is reached.
        quota: Quota,
        /// The value that was not written.
        value: Bytes,
    },
}

impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetError::KeyEmpty => KeyError::Empty.fmt(f),
            SetError::KeyTooLong { len, len_max } => KeyError::TooLong { len: *len, len_max: *len_max }.fmt(f),
            SetError::ValueTooLarge { len, len_max } => write!(f, "a value has at most {len_max} bytes; this has {len}"),
            SetError::Full { quota: Quota::Keys(max), .. } => write!(f, "the replica keeps at most {max} keys, removed ones included"),
            SetError::Full { quota: Quota::Bytes(max), .. } => write!(f, "the replica keeps at most {max} bytes"),
        }
    }
}

impl std::error::Error for SetError {}

impl From<KeyError> for SetError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Empty => SetError::KeyEmpty,
            KeyError::TooLong { len, len_max } => SetError::KeyTooLong { len, len_max },
        }
    }
}

/// What a replica did so far. Entries are counted one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Writes and removals made here.
    pub written: u64,
    /// Deltas handed to the broadcast.
    pub broadcasts: u64,
    /// Deltas that arrived.
    pub deltas: u64,
    /// Entries of deltas that replaced older ones.
    pub applied: u64,
    /// Entries from neighbors that replaced older ones.
    pub repaired: u64,
    /// Entries that were known already, or older than what is known.
    pub known: u64,
    /// Entries that did not fit within the bounds.
    pub refused: u64,
    /// Entries whose stamps were too far ahead.
    pub stamp_ahead: u64,
    /// Comparisons begun here.
    pub probes: u64,
    /// Digests of neighbors that were equal.
    pub equal: u64,
    /// Digests of neighbors that differed.
    pub different: u64,
    /// Comparisons led from the first rows to the last.
    pub completed: u64,
    /// Comparisons given up, because the peer fell silent or went on without end.
    pub abandoned: u64,
    /// Entries sent to neighbors.
    pub entries_sent: u64,
    /// Requests that were not answered, because the peer asked too much.
    pub throttled: u64,
    /// Rules broken by peers.
    pub misbehaved: u64,
}

/// A replica.
#[derive(Clone, Debug)]
pub struct State {
    me: PeerId,
    config: Config,
    buggify: Buggify,
    clock: Clock,
    store: Store,
    /// Keys written here and not yet broadcast.
    outbox: BTreeSet<Key>,
    flushed_at: Option<Time>,
    flush_at: Option<Time>,
    repair: Repair,
    counters: Counters,
}

/// How an entry of another node fared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Joined {
    Replaced,
    Unchanged,
    Ahead,
}

impl State {
    /// An empty replica of the node `me`; `seed` feeds its generator.
    pub fn new(me: PeerId, params: Params, seed: u64) -> Self {
        let store = Store::new(params.digest_key, params.bounds());
        let repair = Repair::new(me, params.config.clone(), params.buggify.clone(), seed);
        State {
            me,
            config: params.config,
            buggify: params.buggify,
            clock: Clock::new(),
            store,
            outbox: BTreeSet::new(),
            flushed_at: None,
            flush_at: None,
            repair,
            counters: Counters::default(),
        }
    }

    /// Handles one input; appends what was decided.
    pub fn handle(&mut self, input: Input, now: Now, actions: &mut Vec<Action>) {
        match input {
            Input::NeighborUp(peer) => self.repair.neighbor_up(peer, now.time),
            Input::NeighborDown(peer) => self.repair.neighbor_down(peer),
            Input::Received { from, message: Message::Entries { entries } } => self.on_entries(from, entries.into_vec(), now, actions),
            Input::Received { from, message } => {
                let (repair, mut turn) = self.turn(now, actions);
                repair.received(from, message, &mut turn);
            }
            Input::Delta { origin, bytes } => self.on_delta(origin, &bytes, now, actions),
            Input::DeadlineReached => {
                if self.flush_at.is_some_and(|at| at <= now.time) {
                    self.flush(now.time, actions);
                }
                let (repair, mut turn) = self.turn(now, actions);
                repair.deadline_reached(&mut turn);
            }
        }
        self.check();
    }

    /// Writes a value. It is visible here at once, and elsewhere after the next delta.
    ///
    /// The value is kept as it is: one that is a slice of a larger buffer keeps that buffer alive.
    ///
    /// # Errors
    ///
    /// A [`SetError`]; nothing was changed.
    pub fn set(&mut self, key: &str, value: Bytes, now: Now, actions: &mut Vec<Action>) -> Result<Stamp, SetError> {
        let key = Key::try_from(key)?;
        let len_max = self.config.value_bytes_max;
        if value.len() > len_max {
            return Err(SetError::ValueTooLarge { len: value.len(), len_max });
        }
        if let Err(quota) = self.store.room(&key, value.len()) {
            return Err(SetError::Full { quota, value });
        }
        Ok(self.write(key, Some(value), now, actions))
    }

    /// Removes a key and leaves a tombstone, so that older writes of it stay without effect. `Ok(None)` when the key has no value:
    /// nothing was changed then.
    ///
    /// # Errors
    ///
    /// [`SetError::KeyEmpty`] or [`SetError::KeyTooLong`]; nothing was changed.
    pub fn remove(&mut self, key: &str, now: Now, actions: &mut Vec<Action>) -> Result<Option<Stamp>, SetError> {
        let key = Key::try_from(key)?;
        if self.get(&key).is_none() {
            return Ok(None);
        }
        Ok(Some(self.write(key, None, now, actions)))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Bytes> {
        self.store.get(key)?.val.as_ref()
    }

    /// The value of a key, with when and by whom it was written.
    pub fn entry(&self, key: &str) -> Option<Entry<'_>> {
        live(self.store.get(key)?)
    }

    /// The entries whose keys start with `prefix`, in the order of their keys.
    pub fn iter<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a Key, Entry<'a>)> {
        self.store.iter(prefix).filter_map(|(key, register)| Some((key, live(register)?)))
    }

    /// How many keys have a value.
    pub fn len(&self) -> usize {
        self.store.live()
    }

    /// Whether no key has a value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many removed keys are kept as tombstones.
    pub fn tombstones(&self) -> usize {
        self.store.keys() - self.store.live()
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.store.bytes()
    }

    /// The digest of everything that the replica holds.
    pub fn digest(&self) -> Digest {
        self.store.digest()
    }

    /// The greatest stamp given out or accepted so far.
    pub fn last_stamp(&self) -> Stamp {
        self.clock.last()
    }

    /// When [`Input::DeadlineReached`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        [self.flush_at, self.repair.next_deadline()].into_iter().flatten().min()
    }

    /// What the replica did so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn check(&self) {
        self.store.check();
        self.repair.check();
        debug_assert!(self.outbox.is_empty() || self.flush_at.is_some(), "what waits for a delta has a deadline");
    }

    fn turn<'a>(&'a mut self, now: Now, actions: &'a mut Vec<Action>) -> (&'a mut Repair, Turn<'a>) {
        (&mut self.repair, Turn { store: &self.store, now, actions, counters: &mut self.counters })
    }

    /// The time of deviation 4.
    fn wall(&self, now: Now) -> WallTime {
        self.repair.cluster_wall(now.time).map_or(now.wall, |wall| wall.max(now.wall))
    }

    fn write(&mut self, key: Key, value: Option<Bytes>, now: Now, actions: &mut Vec<Action>) -> Stamp {
        let stamp = self.clock.tick(self.wall(now));
        let register = self.store.register(stamp, self.me, value.clone());
        let merged = self.store.merge(key.clone(), register);
        debug_assert!(matches!(merged, Merged::Replaced { .. }), "a new stamp is newer than all that is held, and room was checked");
        self.counters.written += 1;
        if merged == (Merged::Replaced { is_visible: true }) {
            actions.push(Action::Changed { key: key.clone(), value, stamp });
        }
        self.outbox.insert(key);
        match self.flushed_at.map(|at| at + self.config.flush_delay) {
            Some(at) if at > now.time => self.flush_at = Some(at),
            _ if self.buggify.happens(Site::DeltaLate) => self.flush_at = Some(now.time + FLUSH_LATE),
            _ => self.flush(now.time, actions),
        }
        self.check();
        stamp
    }

    /// Hands what was written here to the broadcast.
    fn flush(&mut self, now: Time, actions: &mut Vec<Action>) {
        for _ in 0..FLUSH_FRAMES_MAX {
            let Some(delta) = self.next_delta() else { break };
            self.counters.broadcasts += 1;
            actions.push(Action::Broadcast(encode(&delta)));
        }
        self.flushed_at = Some(now);
        self.flush_at = (!self.outbox.is_empty()).then(|| now + self.config.flush_delay);
    }

    fn next_delta(&mut self) -> Option<Delta> {
        let mut writes = Bounded::<Write, WRITES_MAX>::new();
        let mut bytes = 0;
        while let Some(key) = self.outbox.pop_first() {
            // Overwritten from elsewhere since: that write has its own broadcast.
            let Some(register) = self.store.get(&key).filter(|register| register.marker.origin == self.me) else { continue };
            bytes += entry_bytes_max(key.len(), register.val.as_ref().map_or(0, Bytes::len));
            if writes.len() == WRITES_MAX || bytes > FRAME_BUDGET_BYTES {
                self.outbox.insert(key);
                break;
            }
            let write = Write { key, stamp: register.marker.stamp, value: Value::from_option(register.val.clone()) };
            writes.push(write).expect("the length was checked above");
        }
        (!writes.is_empty()).then_some(Delta::Writes(writes))
    }

    fn on_delta(&mut self, origin: PeerId, bytes: &[u8], now: Now, actions: &mut Vec<Action>) {
        self.counters.deltas += 1;
        let delta = if bytes.len() > limits::BROADCAST_BYTES_MAX { Err(DecodeError::TooLong) } else { decode(bytes) };
        let writes = match delta {
            Ok(Delta::Writes(writes)) => writes,
            Err(error) => return self.misbehaved(origin, Misbehavior::Undecodable(error), actions),
        };
        let wall = self.wall(now);
        let mut is_ahead = false;
        for Write { key, stamp, value } in writes {
            match self.join(key, stamp, origin, value, wall, actions) {
                Joined::Replaced => self.counters.applied += 1,
                Joined::Unchanged => {}
                Joined::Ahead => is_ahead = true,
            }
        }
        if is_ahead {
            self.misbehaved(origin, Misbehavior::StampAhead, actions);
        }
    }

    fn on_entries(&mut self, from: PeerId, entries: Vec<wire::Entry>, now: Now, actions: &mut Vec<Action>) {
        if self.config.repair_period.is_none() {
            return;
        }
        let wall = self.wall(now);
        let mut is_ahead = false;
        for wire::Entry { key, stamp, origin, value } in entries {
            match self.join(key, stamp, origin, value, wall, actions) {
                Joined::Replaced => self.counters.repaired += 1,
                Joined::Unchanged => {}
                Joined::Ahead => is_ahead = true,
            }
        }
        if is_ahead {
            self.misbehaved(from, Misbehavior::StampAhead, actions);
        }
        self.repair.entries_arrived(from, now.time);
    }

    fn join(&mut self, key: Key, stamp: Stamp, origin: PeerId, value: Value, wall: WallTime, actions: &mut Vec<Action>) -> Joined {
        let value = value.into_option();
        let register = self.store.register(stamp, origin, value.clone());
        // What is known already is no fault of who says it again, even if our clock stepped back in between.
        if !self.store.is_news(&key, &register) {
            self.counters.known += 1;
            return Joined::Unchanged;
        }
        if let Err(ahead) = self.clock.observe(stamp, wall, self.config.stamp_ahead_max) {
            tracing::debug!(key = %key, origin = ?origin, ahead = ?ahead.by, "entry refused: its stamp is too far ahead");
            self.counters.stamp_ahead += 1;
            return Joined::Ahead;
        }
        match self.store.merge(key.clone(), register) {
            Merged::Known => Joined::Unchanged,
            Merged::Refused => {
                tracing::debug!(key = %key, origin = ?origin, "entry refused: it does not fit");
                self.counters.refused += 1;
                Joined::Unchanged
            }
            Merged::Replaced { is_visible } => {
                if is_visible {
                    actions.push(Action::Changed { key, value, stamp });
                }
                Joined::Replaced
            }
        }
    }

    fn misbehaved(&mut self, peer: PeerId, what: Misbehavior, actions: &mut Vec<Action>) {
        self.counters.misbehaved += 1;
        actions.push(Action::Misbehaved { peer, what });
    }

    /// The store, for the tests of its invariants.
    #[cfg(test)]
    pub(crate) fn store(&mut self) -> &mut Store {
        &mut self.store
    }
}

fn live(register: &Register) -> Option<Entry<'_>> {
    let value = register.val.as_ref()?;
    Some(Entry { value, stamp: register.marker.stamp, origin: register.marker.origin })
}
