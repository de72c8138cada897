//! One replica of the map: it stamps and applies writes, hands them to the broadcast as deltas, takes those of others, and repairs with
//! its neighbors what broadcasts missed.
//!
//! Sources: state-based registers in which the last writer wins (Shapiro, Preguiça, Baquero and Zawirski, "Conflict-free Replicated Data
//! Types", SSS 2011; the `LWWReg` of the `crdts` crate), shipped as deltas (Almeida, Shoker and Baquero, "Delta State Replicated Data
//! Types", JPDC 2018, section 4: a delta is a small state that is joined like any other), compared by digests of hash ranges (Demers et
//! al., "Epidemic Algorithms for Replicated Database Maintenance", PODC 1987, section 1.3, with its checksums; the shards are a hash tree
//! of one level) and by [sketches](crate::sketch), and stamped by the [hybrid logical clock](crate::hlc).
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
//! neighbor that the overlay reports. Tombstones count as keys until [every member knows](crate::floor) of the removal. A replica that is full refuses new
//! keys, counts them, and keeps accepting changes of those it holds. An entry that one replica refuses keeps its digest apart from the others', which costs one
//! bounded comparison per period.
//!
//! What a member can do to others: it can write and remove any key, and tell others that nobody waited for them. Under the prefixes of [`Config::signed`]
//! it can do so in its own name only, or in one that it made up: an entry that its origin did not [sign](crate::signed) is refused before it changes
//! anything, whoever hands it on. It can still bring back what somebody signed once all forgot that it was removed, and make others verify one signature
//! for each entry that it signs, and for each forgery that it broadcasts; of a peer that hands on too many, nothing that is signed is taken for a while.
//! Elsewhere entries carry no signature: a member can write under another member's name in repair, and name others as the writers of siblings.
//!
//! A value can be written [to expire](crate::register), in the past or in the far future, which is a tombstone or a value like any other; one that is told
//! to have expired before its time is refused as a stamp ahead is.
//!
//! Known limits: a writer whose clock is ahead keeps what the others refuse, and
//! once their clocks have come that far it is accepted and wins over what was written in between; broadcasts that are still under way
//! look like differences to repair, which costs bytes but is never wrong.
//!
//! Who talks to it: the node, which feeds it messages, broadcasts and the neighbors of the overlay, and the services that read and write.

mod api;
mod collect;
mod confirm;
mod durable;
mod expire;
mod outbox;
mod sign;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::buggify::{Buggify, Site};
use meshwork_channels::{DecodeError, Misbehavior, Now, PeerId, Time, WallTime, decode, encode, limits, random};

pub use crate::config::{Config, Params};
use crate::confirm::Confirms;
use crate::digest::Digest;
use crate::floor;
use crate::hlc::{Clock, Stamp};
use crate::key::Key;
use crate::register::{LIFETIME_MAX, LIFETIME_MIN, until};
use crate::repair::{Repair, Turn};
use crate::reunion::Apartness;
pub use crate::reunion::Reunion;
use crate::signed::Signing;
pub use crate::store::Quota;
use crate::store::{Held, Merged, Store};
use crate::value::{self, Actor, MEMBERS_MAX, Step, Unfit, Unsuited};
pub use crate::value::{Kind, Op, Value, Written};
pub use crate::wire::Message;
use crate::wire::{self, Body, Decline, Delta, FRAME_BUDGET_BYTES, Write, entry_bytes_max};
pub use api::{Action, Counters, Entry, Input, SetError};
pub use durable::Restored;
use durable::Unrecorded;
use outbox::{Outbox, Pending};

/// Writes of one batch.
pub const BATCH_LEN_MAX: usize = 256;
/// How long writes wait where [`Site::DeltaLate`] fires.
const FLUSH_LATE: Duration = Duration::from_secs(1);
/// Frames of one flush. The next follow after `flush_delay`, so that a burst of large writes reaches the overlay in pieces.
const FLUSH_FRAMES_MAX: usize = 16;

/// A replica.
#[derive(Clone, Debug)]
pub struct State {
    me: PeerId,
    config: Config,
    buggify: Buggify,
    clock: Clock,
    store: Store,
    /// `None` where nothing is signed.
    signing: Option<Signing>,
    actor: Actor,
    /// Names that it had before in this life, under which it goes on where there are steps of theirs.
    former_actors: BTreeSet<Actor>,
    revision: u64,
    /// The stamp of the last write of this node.
    written_at: Stamp,
    outbox: Outbox,
    repair: Repair,
    apartness: Apartness,
    confirms: Confirms,
    /// When the next entry expires.
    expire_at: Option<Time>,
    counters: Counters,
    /// `None` while the replica lives in memory only.
    unrecorded: Option<Box<Unrecorded>>,
}

/// How an entry of another node fared, the worse the later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Joined {
    Replaced,
    Unchanged,
    Refused,
    Gap,
    Ahead,
    Stray,
    Forged,
    Unsound,
}

impl Joined {
    /// What its sender did wrong.
    fn fault(self) -> Option<Misbehavior> {
        match self {
            Joined::Replaced | Joined::Unchanged | Joined::Refused | Joined::Gap => None,
            Joined::Ahead => Some(Misbehavior::StampAhead),
            Joined::Stray => Some(Misbehavior::StraySignature),
            Joined::Forged => Some(Misbehavior::ForgedOrigin),
            Joined::Unsound => Some(Misbehavior::Undecodable(DecodeError::Invalid)),
        }
    }
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
            signing: params.signing,
            actor: Actor(random::hash(&[first_word(me), seed])),
            former_actors: BTreeSet::new(),
            revision: 0,
            written_at: Stamp::ZERO,
            outbox: Outbox::default(),
            repair,
            apartness: Apartness::default(),
            confirms: Confirms::new(random::hash(&[first_word(me), seed, 1])),
            expire_at: None,
            counters: Counters::default(),
            unrecorded: None,
        }
    }

    /// Handles one input; appends what was decided.
    pub fn handle(&mut self, input: Input, now: Now, actions: &mut Vec<Action>) {
        self.expire(now, actions);
        match input {
            Input::NeighborUp(peer) => {
                self.begin(now);
                self.repair.neighbor_up(peer, now);
            }
            Input::NeighborDown(peer) => self.repair.neighbor_down(peer),
            Input::Received { from, message: Message::Entries { entries } } => self.on_entries(from, entries.into_vec(), now, actions),
            Input::Received { from, message: Message::Away { floor, table } } => self.on_away(from, floor, &table, now, actions),
            Input::Received { from, message: Message::Hold { id, entries } } => self.on_hold(from, id, entries.into_vec(), now, actions),
            Input::Received { from, message: Message::Ask { id, key } } => self.on_ask(from, id, &key, now, actions),
            Input::Received { from, message: Message::Answer { id, entries } } => {
                self.on_answer(from, id, entries.into_vec(), now, actions);
            }
            Input::Received { from, message: Message::Held { id } } => self.on_held(from, id, now, actions),
            Input::Received { from, message: Message::Declined { id, why } } => self.confirms.on_declined(from, id, why, actions),
            Input::Received { from, message } => {
                if message == Message::AskMembers {
                    // What is written from now on is stamped later than what the answer says.
                    self.clock.resume(Stamp::from_parts(self.wall(now).as_millis(), 0));
                }
                let (repair, mut turn) = self.turn(now, actions);
                repair.received(from, message, &mut turn);
            }
            Input::Suspected(member) => self.apartness.suspected(member, self.wall(now)),
            Input::Failed(member) => {
                self.apartness.failed(member, self.wall(now));
                self.confirms.on_unreached(member, actions);
            }
            Input::Returned(member) => self.apartness.back(member, self.wall(now), now.time + self.patience()),
            Input::Left(member) => {
                self.on_left(member, now);
                self.confirms.on_unreached(member, actions);
            }
            Input::Unreached(peer) => self.confirms.on_unreached(peer, actions),
            Input::Delta { origin, bytes } => self.on_delta(origin, &bytes, now, actions),
            Input::DeadlineReached => {
                if self.outbox.flush_at.is_some_and(|at| at <= now.time) {
                    self.flush(now.time, actions);
                }
                let (repair, mut turn) = self.turn(now, actions);
                repair.deadline_reached(&mut turn);
                actions.extend(self.apartness.report(now.time).map(Action::Reunited));
                self.confirms.deadline_reached(now.time, actions);
            }
        }
        self.collect();
        self.confirms.settle(&self.store, actions);
        self.await_expiry(now);
        self.check();
    }

    /// Takes another name for the steps of this replica on counters and sets. Whoever starts without what it held before must have one that it never
    /// had, or its steps would be taken for those that it forgot.
    pub fn with_actor(self, actor: Actor) -> Self {
        State { actor, ..self }
    }

    /// Writes a register in which the last writer wins. It is visible here at once, and elsewhere after the next delta.
    ///
    /// The value is kept as it is: one that is a slice of a larger buffer keeps that buffer alive.
    ///
    /// # Errors
    ///
    /// A [`SetError`]; nothing was changed.
    pub fn set(&mut self, key: &str, value: Bytes, now: Now, actions: &mut Vec<Action>) -> Result<Stamp, SetError> {
        let stamp = self.apply(key, Op::Set(value), now, actions)?;
        Ok(stamp.expect("to write a register is always news"))
    }

    /// Removes a key and leaves a tombstone, so that older writes of it stay without effect. `Ok(None)` when the key has no value:
    /// nothing was changed then.
    ///
    /// # Errors
    ///
    /// [`SetError::KeyEmpty`] or [`SetError::KeyTooLong`]; nothing was changed.
    pub fn remove(&mut self, key: &str, now: Now, actions: &mut Vec<Action>) -> Result<Option<Stamp>, SetError> {
        self.apply(key, Op::Remove, now, actions)
    }

    /// Does something to a key. `Ok(None)` when that changes nothing: the key is not there, the member known, a better one written.
    ///
    /// # Errors
    ///
    /// A [`SetError`]; nothing was changed.
    pub fn apply(&mut self, key: &str, op: Op, now: Now, actions: &mut Vec<Action>) -> Result<Option<Stamp>, SetError> {
        self.apply_and(key, op, now, actions, |_, pending| pending.stamp)
    }

    fn apply_and<T>(
        &mut self,
        key: &str,
        op: Op,
        now: Now,
        actions: &mut Vec<Action>,
        tell: impl FnOnce(&Key, &Pending) -> T,
    ) -> Result<Option<T>, SetError> {
        let written = self.write([(Key::try_from(key)?, op)].into(), now, actions)?;
        let told = written.first().map(|(key, pending)| tell(key, pending));
        written.into_iter().for_each(|(key, pending)| self.outbox.push(key, pending));
        match self.outbox.flushed_at.map(|at| at + self.config.flush_delay) {
            _ if self.outbox.is_empty() => {}
            Some(at) if at > now.time => self.outbox.flush_at = Some(at),
            _ if self.buggify.happens(Site::DeltaLate) => self.outbox.flush_at = Some(now.time + FLUSH_LATE),
            _ => self.flush(now.time, actions),
        }
        self.check();
        Ok(told)
    }

    /// Does something to several keys, all of it or nothing, under one stamp. It travels as one message, so that every node that the broadcast reaches sees
    /// all of it at once; a node that repair brings up to date may see a part of it for a moment. `Ok(None)` when nothing changes.
    ///
    /// # Errors
    ///
    /// A [`SetError`]; nothing was changed.
    pub fn batch(&mut self, writes: Vec<(Key, Op)>, now: Now, actions: &mut Vec<Action>) -> Result<Option<Stamp>, SetError> {
        if writes.len() > BATCH_LEN_MAX {
            return Err(SetError::BatchTooLarge { len_max: BATCH_LEN_MAX, bytes_max: FRAME_BUDGET_BYTES });
        }
        let written = self.write(writes, now, actions)?;
        let stamp = written.first().map(|(_, pending)| pending.stamp);
        if stamp.is_some() {
            // What waits goes first: a delta holds the batch and nothing else, and is not cut.
            while !self.outbox.is_empty() {
                self.flush(now.time, actions);
            }
            written.into_iter().for_each(|(key, pending)| self.outbox.push(key, pending));
            self.flush(now.time, actions);
        }
        self.check();
        Ok(stamp)
    }

    /// The value of a register: the one of the last writer, the best one, or the latest of several siblings.
    pub fn get(&self, key: &str) -> Option<&Bytes> {
        Some(self.entry(key)?.value)
    }

    /// The value of a register, with when and by whom it was written.
    pub fn entry(&self, key: &str) -> Option<Entry<'_>> {
        latest(self.store.get(key)?)
    }

    /// All values of a register, the latest first: more than one only after concurrent [`Op::Put`]s.
    pub fn siblings(&self, key: &str) -> impl Iterator<Item = Entry<'_>> {
        let mut all: Vec<Entry<'_>> = self.store.get(key).into_iter().flat_map(Held::written).map(entry).collect();
        all.sort_unstable_by_key(|entry| std::cmp::Reverse((entry.stamp, entry.origin)));
        all.into_iter()
    }

    /// What a key holds, of whatever kind.
    pub fn read(&self, key: &str) -> Option<Value> {
        self.store.get(key)?.read()
    }

    /// Of what kind a key is, while it is there.
    pub fn kind(&self, key: &str) -> Option<Kind> {
        self.store.get(key)?.kind()
    }

    /// The registers whose keys start with `prefix`, in the order of their keys.
    pub fn iter<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a Key, Entry<'a>)> {
        self.store.iter(prefix).filter_map(|(key, held)| Some((key, latest(held)?)))
    }

    /// The keys that start with `prefix` and hold something, of whatever kind, in order.
    pub fn keys<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a Key, Kind)> {
        self.store.iter(prefix).filter_map(|(key, held)| Some((key, held.kind()?)))
    }

    /// How many keys have a value.
    pub fn len(&self) -> usize {
        self.store.live()
    }

    /// Whether no key has a value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many keys are kept that were removed, as tombstones, or have expired.
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

    /// The number of the last [`Action::Changed`].
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// When [`Input::DeadlineReached`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        let deadlines = [self.repair.next_deadline(), self.apartness.next_deadline(), self.confirms.next_deadline()];
        deadlines.into_iter().chain([self.outbox.flush_at, self.expire_at]).flatten().min()
    }

    /// What the replica did so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Something happens for the first time.
    fn begin(&mut self, now: Now) {
        if self.unrecorded.is_none() {
            self.repair.floor_mut().begin(floor::seconds(now.wall));
        }
    }

    fn check(&self) {
        self.store.check();
        self.repair.check();
        self.confirms.check();
        debug_assert!(self.outbox.is_empty() || self.outbox.flush_at.is_some(), "what waits for a delta has a deadline");
    }

    fn turn<'a>(&'a mut self, now: Now, actions: &'a mut Vec<Action>) -> (&'a mut Repair, Turn<'a>) {
        (&mut self.repair, Turn { store: &self.store, clock: self.clock.last(), now, actions, counters: &mut self.counters })
    }

    /// The time of deviation 4.
    fn wall(&self, now: Now) -> WallTime {
        self.repair.cluster_wall(now.time).map_or(now.wall, |wall| wall.max(now.wall))
    }

    /// For how long what was written elsewhere may still come, once a neighbor is there that has it.
    fn patience(&self) -> Duration {
        2 * self.config.repair_period.unwrap_or_default()
    }

    /// Makes writes, all or none; what is to be told of them.
    fn write(&mut self, writes: Vec<(Key, Op)>, now: Now, actions: &mut Vec<Action>) -> Result<Vec<(Key, Pending)>, SetError> {
        self.begin(now);
        self.expire(now, actions);
        let mut clock = self.clock;
        let stamp = clock.tick(self.wall(now));
        let mut planned: BTreeMap<Key, (Held, Pending)> = BTreeMap::new();
        let mut first = Bytes::new();
        let is_batch = writes.len() > 1;
        for (key, op) in writes {
            if let (true, Op::Set(value) | Op::SetFor(value, _) | Op::Best(_, value) | Op::Put(value)) = (planned.is_empty(), &op) {
                first = value.clone();
            }
            if planned.contains_key(&key) {
                return Err(SetError::KeyRepeated(key));
            }
            if let Some(plan) = self.plan(&key, op, stamp).map_err(|error| if is_batch { error.in_batch(&key) } else { error })? {
                planned.insert(key, plan);
            }
        }
        if planned.is_empty() {
            return Ok(Vec::new());
        }
        let len = |held: &Held, pending: &Pending| pending.step.as_ref().map_or(held.encoded_len(), |step| encode(step).len());
        let bytes = |(key, (held, pending)): (&Key, &(Held, Pending))| entry_bytes_max(key.len(), len(held, pending));
        if planned.len() > 1 && planned.iter().map(bytes).sum::<usize>() > FRAME_BUDGET_BYTES {
            return Err(SetError::BatchTooLarge { len_max: BATCH_LEN_MAX, bytes_max: FRAME_BUDGET_BYTES });
        }
        if let Err(quota) = self.store.room_for(planned.iter().map(|(key, (held, _))| (&**key, held.len()))) {
            return Err(SetError::Full { quota, value: first });
        }
        self.clock = clock;
        self.written_at = stamp;
        let mut written = Vec::with_capacity(planned.len());
        for (key, (held, pending)) in planned {
            let merged = self.store.replace(key.clone(), held);
            debug_assert!(matches!(merged, Merged::Replaced { .. }), "a new stamp is newer than all that is held, and room was checked");
            self.counters.written += 1;
            self.note(&key);
            if let Merged::Replaced { visible: Some(value) } = merged {
                actions.push(self.changed(key.clone(), value, stamp));
            }
            written.push((key, pending));
        }
        self.confirms.settle(&self.store, actions);
        self.await_expiry(now);
        Ok(written)
    }

    /// What a key holds after a write, and what to tell of it; `None` when nothing changes.
    fn plan(&self, key: &Key, op: Op, stamp: Stamp) -> Result<Option<(Held, Pending)>, SetError> {
        let (len, len_max) = (op.value_len(), self.config.value_bytes_max);
        if len > len_max {
            return Err(SetError::ValueTooLarge { len, len_max });
        }
        if let Op::SetFor(_, lifetime) = op
            && !(LIFETIME_MIN..=LIFETIME_MAX).contains(&lifetime)
        {
            return Err(SetError::Lifetime { lifetime });
        }
        self.check_signable(key, &op)?;
        let held = self.store.get(key);
        let body = match (held, op) {
            (held, Op::Remove) if held.is_none_or(|held| !held.is_live()) => return Ok(None),
            (held, Op::Remove) if held.is_some_and(|held| !held.is_typed()) => self.register(key, stamp, None),
            (held, Op::Set(value)) if held.is_none_or(|held| !held.is_typed()) => self.register(key, stamp, Some(value)),
            (held, Op::SetFor(value, lifetime)) if held.is_none_or(|held| !held.is_typed()) => Body::Until(until(stamp, lifetime), value),
            (held, op) => {
                let typed = held.map(Held::to_typed);
                let known = |is_meant: &dyn Fn(&Actor) -> bool| typed.as_ref().and_then(|typed| typed.actor(is_meant));
                let is_former = |actor: &Actor| self.former_actors.contains(actor);
                let actor = known(&|actor| *actor == self.actor).or_else(|| known(&is_former)).unwrap_or(self.actor);
                let step = value::step(typed.as_deref(), &op, actor, stamp, self.me).map_err(|unsuited| match unsuited {
                    Unsuited::Kind(held) => SetError::WrongKind { held },
                    Unsuited::NotANumber => SetError::NotANumber,
                    Unsuited::Full => SetError::TooManyMembers { len_max: MEMBERS_MAX },
                })?;
                let Some(step) = step else { return Ok(None) };
                Body::Step(Box::new(step))
            }
        };
        let joined = self.store.joined(key, stamp, self.me, &body);
        let Some(new) = joined.map_err(|_| SetError::TooManyMembers { len_max: MEMBERS_MAX })? else { return Ok(None) };
        // What others add at the same time must have room beside it; what does not grow always has.
        if new.is_crowded(len_max) && held.is_none_or(|held| held.len() < new.len()) {
            return Err(SetError::TooManyMembers { len_max: MEMBERS_MAX });
        }
        let step = if let Body::Step(step) = body { Some(*step) } else { None };
        Ok(Some((new, Pending { stamp, step })))
    }

    /// Hands what was written here to the broadcast.
    fn flush(&mut self, now: Time, actions: &mut Vec<Action>) {
        for _ in 0..FLUSH_FRAMES_MAX {
            let Some(delta) = self.outbox.next_delta(&self.store, self.me, self.config.value_bytes_max) else { break };
            self.counters.broadcasts += 1;
            actions.push(Action::Broadcast(encode(&delta)));
        }
        self.outbox.flushed_at = Some(now);
        self.outbox.flush_at = (!self.outbox.is_empty()).then(|| now + self.config.flush_delay);
    }

    fn on_delta(&mut self, origin: PeerId, bytes: &[u8], now: Now, actions: &mut Vec<Action>) {
        self.counters.deltas += 1;
        let delta = if bytes.len() > limits::BROADCAST_BYTES_MAX { Err(DecodeError::TooLong) } else { decode(bytes) };
        let writes = match delta {
            Ok(Delta::Writes(writes)) => writes,
            Err(error) => return self.misbehaved(origin, Misbehavior::Undecodable(error), actions),
        };
        let mut worst = Joined::Replaced;
        let mut gaps = 0;
        for Write { key, stamp, body } in writes {
            let joined = self.join(&key, stamp, origin, &body, now, actions);
            self.counters.applied += u64::from(joined == Joined::Replaced);
            gaps += u64::from(joined == Joined::Gap);
            worst = worst.max(joined);
        }
        if gaps > 0 {
            self.counters.gaps += gaps;
            self.repair.hurry(now.time);
        }
        if let Some(what) = worst.fault() {
            self.misbehaved(origin, what, actions);
        }
    }

    fn on_entries(&mut self, from: PeerId, entries: Vec<wire::Entry>, now: Now, actions: &mut Vec<Action>) {
        if self.config.repair_period.is_none() {
            return;
        }
        if self.is_kept_out(from, now, actions) {
            return;
        }
        self.repair.entries_arrived(from, now.time);
        self.take(from, entries, now, actions);
    }

    fn is_kept_out(&mut self, peer: PeerId, now: Now, actions: &mut Vec<Action>) -> bool {
        let (repair, mut turn) = self.turn(now, actions);
        repair.is_kept_out(peer, &mut turn)
    }

    /// Joins entries of another replica, and sends it what goes beyond them. Why not all of them are held now, if so.
    fn take(&mut self, from: PeerId, entries: Vec<wire::Entry>, now: Now, actions: &mut Vec<Action>) -> Option<Decline> {
        let mut declined = None;
        let mut worst = Joined::Replaced;
        let mut lacking = Vec::new();
        for wire::Entry { key, stamp, origin, body } in entries {
            if matches!(&body, Body::Step(step) if !matches!(**step, Step::Whole(_))) {
                worst = Joined::Unsound;
                declined = Some(Decline::Full);
                continue;
            }
            let is_signed = matches!(body, Body::Signed(_));
            if is_signed && !self.repair.is_believed(from, now.time) {
                self.counters.throttled += 1;
                self.repair.lacks(from);
                declined = Some(Decline::Busy);
                continue;
            }
            let joined = self.join(&key, stamp, origin, &body, now, actions);
            if is_signed && joined == Joined::Forged {
                self.repair.believe_less(from, now.time);
            }
            worst = worst.max(joined);
            // A value for which there is no room is not missing: it brings back nothing, and who waited for it would wait for ever where removals take the room.
            let is_lacking = match joined {
                Joined::Replaced | Joined::Unchanged => false,
                Joined::Refused => self.store.get(&key).is_some(),
                Joined::Gap | Joined::Ahead | Joined::Stray | Joined::Forged | Joined::Unsound => true,
            };
            if is_lacking {
                self.repair.lacks(from);
            }
            match joined {
                joined @ (Joined::Replaced | Joined::Unchanged) => {
                    self.counters.repaired += u64::from(joined == Joined::Replaced);
                    // Only of what was taken: two replicas that refuse each other's would send theirs for ever.
                    if self.store.get(&key).is_some_and(|held| held.is_beyond(stamp, origin, &body)) {
                        lacking.push(key);
                    }
                }
                Joined::Refused | Joined::Gap | Joined::Unsound => declined = Some(Decline::Full),
                Joined::Ahead => declined = declined.or(Some(Decline::Ahead)),
                Joined::Stray | Joined::Forged => declined = declined.or(Some(Decline::Signature)),
            }
        }
        if let Some(what) = worst.fault() {
            self.misbehaved(from, what, actions);
        }
        let (repair, mut turn) = self.turn(now, actions);
        repair.send_back(from, &lacking, &mut turn);
        declined
    }

    fn join(&mut self, key: &Key, stamp: Stamp, origin: PeerId, body: &Body, now: Now, actions: &mut Vec<Action>) -> Joined {
        if matches!(body, Body::Step(step) if !step.is_sound()) {
            return Joined::Unsound;
        }
        if let Some(refused) = self.wrongly_signed(key, origin, body) {
            return refused;
        }
        let joined = match self.store.joined(key, stamp, origin, body) {
            Ok(Some(joined)) => joined,
            // What is known already is no fault of who says it again, even if our clock stepped back in between.
            Ok(None) => {
                self.counters.known += 1;
                return Joined::Unchanged;
            }
            Err(Unfit::Gap) => return Joined::Gap,
            Err(Unfit::TooMany) => return self.refuse(key, origin),
        };
        if self.has_expired_early(&joined, now) {
            tracing::debug!(key = %key, origin = ?origin, "entry refused: it is told to have expired, and its time has not come");
            self.counters.stamp_ahead += 1;
            return Joined::Ahead;
        }
        let latest = joined.latest().max(stamp);
        let mut clock = self.clock;
        if let Err(ahead) = clock.observe(latest, self.wall(now), self.config.stamp_ahead_max) {
            tracing::debug!(key = %key, origin = ?origin, ahead = ?ahead.by, "entry refused: its stamp is too far ahead");
            self.counters.stamp_ahead += 1;
            return Joined::Ahead;
        }
        // Verifying costs more than all else, so it comes last, and only where the entry would be taken.
        if self.signing_of(key).is_some() && self.store.room_for([(&**key, joined.len())]).is_err() {
            return self.refuse(key, origin);
        }
        if !self.is_by_origin(key, stamp, &origin, body) {
            return self.forged(key, origin);
        }
        self.clock = clock;
        let is_over = joined.due().is_some_and(|until| until <= self.repair.second(now));
        let joined = if is_over { self.store.expired(joined) } else { joined };
        let joined = self.renewed(key, joined, now);
        let came = self.apartness.of(stamp, &origin, || self.store.get(key).map(|held| &held.marker));
        match self.store.replace(key.clone(), joined) {
            Merged::Refused => self.refuse(key, origin),
            Merged::Replaced { visible } => {
                self.note(key);
                if let Some(came) = came {
                    self.apartness.count(came, now.time + self.patience());
                }
                if let Some(value) = visible {
                    actions.push(self.changed(key.clone(), value, stamp));
                }
                Joined::Replaced
            }
        }
    }

    /// An entry was replaced, whether one can read that or not.
    fn note(&mut self, key: &Key) {
        self.confirms.touch(key);
        if let Some(unrecorded) = &mut self.unrecorded {
            unrecorded.note(key);
        }
    }

    fn changed(&mut self, key: Key, value: Option<Value>, stamp: Stamp) -> Action {
        self.revision += 1;
        Action::Changed { key, value, stamp, revision: self.revision }
    }

    fn refuse(&mut self, key: &Key, origin: PeerId) -> Joined {
        tracing::debug!(%key, ?origin, "entry refused: it does not fit");
        self.counters.refused += 1;
        Joined::Refused
    }

    fn misbehaved(&mut self, peer: PeerId, what: Misbehavior, actions: &mut Vec<Action>) {
        self.counters.misbehaved += 1;
        actions.push(Action::Misbehaved { peer, what });
    }

    /// The half that repairs, for tests of what its parts are good for.
    #[cfg(test)]
    pub(crate) fn repair(&mut self) -> &mut Repair {
        &mut self.repair
    }

    /// The store, for the tests of its invariants.
    #[cfg(test)]
    pub(crate) fn store(&mut self) -> &mut Store {
        &mut self.store
    }
}

fn entry((value, stamp, origin): (&Bytes, Stamp, PeerId)) -> Entry<'_> {
    Entry { value, stamp, origin }
}

fn latest(held: &Held) -> Option<Entry<'_>> {
    held.written().max_by_key(|(_, stamp, origin)| (*stamp, *origin)).map(entry)
}

fn first_word(peer: PeerId) -> u64 {
    let (words, _) = peer.as_bytes().as_chunks::<8>();
    u64::from_le_bytes(words[0])
}
