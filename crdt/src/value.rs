//! What a key can hold besides a plain register: flat types, each a join-semilattice of its own.
//!
//! Sources: the counters, registers and sets of Shapiro, Preguiça, Baquero and Zawirski ("A comprehensive study of Convergent and Commutative
//! Replicated Data Types", INRIA 7506, 2011); the set whose removals leave nothing behind of Bieniusa et al. ("An optimized conflict-free
//! replicated set", INRIA 8083, 2012); changes that are small states, and the rule that a change with a gap before it may not be applied, of Almeida,
//! Shoker and Baquero ("Delta State Replicated Data Types", JPDC 2018, section 4); the causal length that counts how often a key came and went of Yu
//! and Rostad ("A low-cost set CRDT based on causal lengths", PaPoC 2020).
//!
//! Deviations:
//!
//! 1. A key has a causal length and a kind, and those are joined first, as pairs: whoever came and went more often wins, and of two kinds that were put
//!    under one key at once the later in [`Kind`]. To remove a key of these kinds therefore wins over what is done to it at the same time; the members
//!    of a [`Set`](Kind::Set) alone follow the other rule, in which adding wins. Nothing is nested, which is where published maps were measured to diverge.
//! 2. Actors are 64 bits, not whole identities: clocks are most of what these types take.
//! 3. The types are ours and not those of the `crdts` crate, which the tests hold beside them: its sets and registers keep hash maps, whose encoding has no
//!    one order that a digest could cover, and keep what comes too early, without a bound. Here a [`Change`] that comes too early is refused whole and repair
//!    brings the state.
//!
//! Invariants: what is kept in order is in order; a member or sibling has a dot that its clock covers; every list has its bound, and the whole fits
//! in a frame.

use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::{Bounded, PeerId};
use serde::{Deserialize, Serialize};

use crate::hlc::Stamp;
use crate::register::{Register, until};
use crate::wire::fixed;

mod witness;

/// Actors of one value.
pub const ACTORS_MAX: usize = 1_024;
/// Steps of one actor on one value, and how often a key comes and goes: more than anybody ever does, so that adding one never overflows.
const STEPS_MAX: u64 = 1 << 62;
const LENGTH_MAX: u32 = 1 << 30;
/// Members of a set, siblings of a register, and steps of one change.
pub const MEMBERS_MAX: usize = 1_024;

/// What a key holds. Each is a type of its own under which a key is written until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A register in which the last writer wins: one of two concurrent writes is lost.
    Lww,
    /// A register in which the highest score wins, whoever wrote it and when.
    Best,
    /// A register that keeps every concurrent write, for whoever reads it to choose.
    Mv,
    /// A counter that goes up and down; nothing is lost.
    Count,
    /// A counter that only goes up.
    GCount,
    /// A set in which adding a member wins over removing it at the same time.
    Set,
    /// A set that only grows.
    GSet,
}

impl Kind {
    /// The short name of the kind, as research has it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Lww => "lww",
            Kind::Best => "best",
            Kind::Mv => "mv",
            Kind::Count => "count",
            Kind::GCount => "g_count",
            Kind::Set => "set",
            Kind::GSet => "g_set",
        }
    }
}

/// What to do to a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Write a [`Kind::Lww`].
    Set(Bytes),
    /// Write a [`Kind::Lww`] that expires: after this time it is gone everywhere, as if removed, unless it was written again meanwhile. How long it lives is that
    /// of its last write, whichever wins; keys of other kinds do not expire. From [`LIFETIME_MIN`](crate::register::LIFETIME_MIN) to
    /// [`LIFETIME_MAX`](crate::register::LIFETIME_MAX), in whole seconds of the time of the cluster, rounded up.
    SetFor(Bytes, Duration),
    /// Write a [`Kind::Best`] with its score, which is a number. It has no effect where a better one is known.
    Best(f64, Bytes),
    /// Write a [`Kind::Mv`] in place of all siblings that are known here.
    Put(Bytes),
    /// Add to a [`Kind::Count`].
    Add(i64),
    /// Add to a [`Kind::GCount`].
    Grow(u64),
    /// Add a member to a [`Kind::Set`].
    Insert(Bytes),
    /// Take a member out of a [`Kind::Set`]. Who adds it at the same time wins.
    Take(Bytes),
    /// Add a member to a [`Kind::GSet`].
    Include(Bytes),
    /// Remove the key, of whatever kind. What others do to it at the same time is lost, unless it is a [`Kind::Lww`] and they were later.
    Remove,
}

impl Op {
    /// The kind of key that it is for; `None` for [`Op::Remove`].
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Op::Set(_) | Op::SetFor(..) => Some(Kind::Lww),
            Op::Best(..) => Some(Kind::Best),
            Op::Put(_) => Some(Kind::Mv),
            Op::Add(_) => Some(Kind::Count),
            Op::Grow(_) => Some(Kind::GCount),
            Op::Insert(_) | Op::Take(_) => Some(Kind::Set),
            Op::Include(_) => Some(Kind::GSet),
            Op::Remove => None,
        }
    }

    /// Bytes of the value that it carries.
    pub(crate) fn value_len(&self) -> usize {
        match self {
            Op::Set(value) | Op::SetFor(value, _) | Op::Best(_, value) | Op::Put(value) => value.len(),
            Op::Insert(value) | Op::Take(value) | Op::Include(value) => value.len(),
            Op::Add(_) | Op::Grow(_) | Op::Remove => 0,
        }
    }
}

/// What one reads of a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a [`Kind::Lww`].
    Lww(Bytes),
    /// Of a [`Kind::Best`], with its score.
    Best(f64, Bytes),
    /// Of a [`Kind::Mv`]: the siblings, the latest first.
    Mv(Vec<Written>),
    /// Of a [`Kind::Count`]: the sum, at the limits of the type where it is beyond them.
    Count(i64),
    /// Of a [`Kind::GCount`]: the sum, likewise.
    GCount(u64),
    /// Of a [`Kind::Set`]: its members in order, each once.
    Set(Vec<Bytes>),
    /// Of a [`Kind::GSet`], likewise.
    GSet(Vec<Bytes>),
}

impl Value {
    /// The one value of a register of any kind; of siblings the latest.
    pub fn bytes(&self) -> Option<&Bytes> {
        match self {
            Value::Lww(value) | Value::Best(_, value) => Some(value),
            Value::Mv(siblings) => siblings.first().map(|written| &written.value),
            Value::Count(_) | Value::GCount(_) | Value::Set(_) | Value::GSet(_) => None,
        }
    }
}

/// A value with when and by whom it was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Written {
    /// When.
    pub stamp: Stamp,
    /// By which node.
    pub origin: PeerId,
    /// What.
    pub value: Bytes,
}

/// Who counts and adds: one life of one store, so that no two ever number their steps alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Actor(#[serde(with = "fixed")] pub u64);

/// One step of one actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Dot {
    /// Whose.
    pub actor: Actor,
    /// Which of its steps on this value, from one on.
    pub step: u64,
}

/// A small map in the order of its keys. One that came from a peer is in order only if [`Ascending::is_sound`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(deserialize = "K: Deserialize<'de>, V: Deserialize<'de>"))]
pub struct Ascending<K, V, const N: usize>(Bounded<(K, V), N>);

impl<K: Serialize, V: Serialize, const N: usize> Ascending<K, V, N> {
    /// An empty one.
    pub fn new() -> Self {
        Ascending(Bounded::new())
    }
}

/// A value has more actors or members than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl<K: Ord + Clone, V: Clone, const N: usize> Ascending<K, V, N> {
    fn from_vec(items: Vec<(K, V)>) -> Result<Self, TooMany> {
        Bounded::try_from(items).map(Ascending).map_err(|_| TooMany)
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.0.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a key holds.
    pub fn get(&self, key: &K) -> Option<&V> {
        let index = self.0.binary_search_by(|(held, _)| held.cmp(key)).ok()?;
        Some(&self.0[index].1)
    }

    /// Whether each key is greater than the one before it.
    pub fn is_sound(&self) -> bool {
        self.0.is_sorted_by(|(a, _), (b, _)| a < b)
    }

    /// Both, with `join` of what both hold.
    fn union(&self, other: &Self, join: impl Fn(&V, &V) -> V) -> Result<Self, TooMany> {
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut all = Vec::with_capacity(self.len().max(other.len()));
        loop {
            all.push(match (ours.peek(), theirs.peek()) {
                (Some((a, x)), Some((b, y))) if a == b => {
                    let both = (a.clone(), join(x, y));
                    ours.next();
                    theirs.next();
                    both
                }
                (Some((a, _)), Some((b, _))) if a > b => theirs.next().expect("it was there").clone(),
                (Some(_), _) => ours.next().expect("it was there").clone(),
                (None, Some(_)) => theirs.next().expect("it was there").clone(),
                (None, None) => break,
            });
        }
        Self::from_vec(all)
    }

    fn with(&self, key: K, value: V) -> Result<Self, TooMany> {
        self.union(&Ascending(Bounded::first_of([(key, value)])), |_, new| new.clone())
    }
}

impl<K, V, const N: usize> Default for Ascending<K, V, N> {
    fn default() -> Self {
        Ascending(Bounded::new())
    }
}

/// The steps that are known of each actor: all up to this one.
type Clock = Ascending<Actor, u64, ACTORS_MAX>;

/// Members or siblings that are there, each under the step that brought it, and all steps that are known. What is known and not there is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(deserialize = "P: Deserialize<'de>"))]
pub struct Dotted<P> {
    clock: Clock,
    live: Ascending<Dot, P, MEMBERS_MAX>,
}

impl<P> Default for Dotted<P> {
    fn default() -> Self {
        Dotted { clock: Ascending::default(), live: Ascending::default() }
    }
}

/// Steps of one actor in a row, without what is the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(deserialize = "P: Deserialize<'de>"))]
pub struct Change<P> {
    actor: Actor,
    /// The step before them.
    after: u64,
    /// The last of them.
    last: u64,
    /// What they brought that is still there.
    adds: Ascending<u64, P, MEMBERS_MAX>,
    /// What is gone.
    removes: Ascending<Dot, (), MEMBERS_MAX>,
}

/// A change rests on steps that are not known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    Gap,
    TooMany,
}

impl From<TooMany> for Unfit {
    fn from(_: TooMany) -> Self {
        Unfit::TooMany
    }
}

impl<P: Clone + Ord> Dotted<P> {
    fn step(&self, actor: Actor) -> u64 {
        self.clock.get(&actor).copied().unwrap_or(0)
    }

    fn covers(&self, dot: &Dot) -> bool {
        dot.step <= self.step(dot.actor)
    }

    fn is_sound(&self) -> bool {
        let (clock, live) = (&self.clock, &self.live);
        clock.is_sound()
            && live.is_sound()
            && clock.iter().all(|(_, step)| (1..=STEPS_MAX).contains(step))
            && live.iter().all(|(dot, _)| dot.step > 0 && self.covers(dot))
    }

    fn join(&self, other: &Self) -> Result<Self, TooMany> {
        let stays = |(dot, _): &&(Dot, P), there: &Self| there.live.get(dot).is_some() || !there.covers(dot);
        let ours = Ascending::from_vec(self.live.iter().filter(|held| stays(held, other)).cloned().collect())?;
        let theirs = Ascending::from_vec(other.live.iter().filter(|held| stays(held, self)).cloned().collect())?;
        Ok(Dotted {
            clock: self.clock.union(&other.clock, |a, b| *a.max(b))?,
            // One dot names one payload, unless somebody lies; then both sides still choose alike.
            live: ours.union(&theirs, |a, b| a.max(b).clone())?,
        })
    }

    /// The step of an actor that brings a payload, or none, and takes away what it names.
    fn change(&self, actor: Actor, payload: Option<P>, is_gone: impl Fn(&P) -> bool) -> Result<Change<P>, TooMany> {
        let after = self.step(actor);
        let removes = self.live.iter().filter(|(_, held)| is_gone(held)).map(|(dot, _)| (*dot, ())).collect();
        let last = after + u64::from(payload.is_some());
        if last > STEPS_MAX {
            return Err(TooMany);
        }
        let adds = payload.map(|payload| (last, payload)).into_iter().collect();
        Ok(Change { actor, after, last, adds: Ascending::from_vec(adds)?, removes: Ascending::from_vec(removes)? })
    }

    fn changed(&self, change: &Change<P>) -> Result<Self, Unfit> {
        let known = self.step(change.actor);
        let is_known = |dot: &Dot| self.covers(dot) || (dot.actor == change.actor && dot.step <= change.last);
        if known < change.after || !change.removes.iter().all(|(dot, ())| is_known(dot)) {
            return Err(Unfit::Gap);
        }
        let news = change.adds.iter().filter(|(step, _)| *step > known);
        let news = news.map(|(step, payload)| (Dot { actor: change.actor, step: *step }, payload.clone())).collect();
        let held = self.live.iter().filter(|(dot, _)| change.removes.get(dot).is_none()).cloned().collect();
        let held = Ascending::<Dot, P, MEMBERS_MAX>::from_vec(held)?;
        let clock = match change.last > known {
            true => self.clock.with(change.actor, change.last)?,
            false => self.clock.clone(),
        };
        Ok(Dotted { clock, live: held.union(&Ascending::from_vec(news)?, |a, _| a.clone())? })
    }
}

impl<P: Clone> Change<P> {
    fn is_sound(&self) -> bool {
        self.after <= self.last
            && self.last <= STEPS_MAX
            && self.adds.is_sound()
            && self.removes.is_sound()
            && self.adds.iter().all(|(step, _)| *step > self.after && *step <= self.last)
            && self.removes.iter().all(|(dot, ())| (1..=STEPS_MAX).contains(&dot.step))
    }

    /// This and what followed it as one; `None` when that is more than a change may be, or it did not follow.
    fn then(self, later: Self) -> Option<Self> {
        if (later.actor, later.after) != (self.actor, self.last) {
            return None;
        }
        let dot = |step: u64| Dot { actor: self.actor, step };
        let adds = self.adds.iter().filter(|(step, _)| later.removes.get(&dot(*step)).is_none()).cloned();
        Some(Change {
            actor: self.actor,
            after: self.after,
            last: later.last,
            adds: Ascending::from_vec(adds.chain(later.adds.iter().cloned()).collect()).ok()?,
            // Also of what these steps brought: repair may have brought it to others in between.
            removes: self.removes.union(&later.removes, |(), ()| ()).ok()?,
        })
    }
}

/// What a key holds, of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// A [`Kind::Lww`] under a key that was of another kind before; `None` once it was removed.
    Lww(Stamp, PeerId, Register),
    /// A [`Kind::Best`], with the bits of its score such that they order as scores do.
    Best(#[serde(with = "fixed")] u64, Written),
    /// A [`Kind::Mv`].
    Mv(Dotted<Written>),
    /// A [`Kind::Count`]: what each actor added and subtracted.
    Count(Ascending<Actor, (u64, u64), ACTORS_MAX>),
    /// A [`Kind::GCount`].
    GCount(Ascending<Actor, u64, ACTORS_MAX>),
    /// A [`Kind::Set`].
    Set(Dotted<Bytes>),
    /// A [`Kind::GSet`].
    GSet(Ascending<Bytes, (), MEMBERS_MAX>),
}

impl State {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            State::Lww(..) => Kind::Lww,
            State::Best(..) => Kind::Best,
            State::Mv(_) => Kind::Mv,
            State::Count(_) => Kind::Count,
            State::GCount(_) => Kind::GCount,
            State::Set(_) => Kind::Set,
            State::GSet(_) => Kind::GSet,
        }
    }

    fn empty(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Lww | Kind::Best => None,
            Kind::Mv => Some(State::Mv(Dotted::default())),
            Kind::Count => Some(State::Count(Ascending::default())),
            Kind::GCount => Some(State::GCount(Ascending::default())),
            Kind::Set => Some(State::Set(Dotted::default())),
            Kind::GSet => Some(State::GSet(Ascending::default())),
        }
    }

    fn is_sound(&self) -> bool {
        match self {
            State::Lww(..) | State::Best(..) => true,
            State::Mv(siblings) => siblings.is_sound(),
            State::Count(tally) => tally.is_sound(),
            State::GCount(tally) => tally.is_sound(),
            State::Set(members) => members.is_sound(),
            State::GSet(members) => members.is_sound(),
        }
    }

    fn join(&self, other: &Self) -> Result<Self, TooMany> {
        Ok(match (self, other) {
            (State::Lww(a, x, u), State::Lww(b, y, v)) => {
                if (a, x, u) < (b, y, v) {
                    other.clone()
                } else {
                    self.clone()
                }
            }
            (State::Best(a, x), State::Best(b, y)) => {
                if (a, x) < (b, y) {
                    other.clone()
                } else {
                    self.clone()
                }
            }
            (State::Mv(a), State::Mv(b)) => State::Mv(a.join(b)?),
            (State::Count(a), State::Count(b)) => State::Count(a.union(b, |x, y| (x.0.max(y.0), x.1.max(y.1)))?),
            (State::GCount(a), State::GCount(b)) => State::GCount(a.union(b, |x, y| *x.max(y))?),
            (State::Set(a), State::Set(b)) => State::Set(a.join(b)?),
            (State::GSet(a), State::GSet(b)) => State::GSet(a.union(b, |(), ()| ())?),
            _ => {
                if self.kind() < other.kind() {
                    other.clone()
                } else {
                    self.clone()
                }
            }
        })
    }

    fn read(&self) -> Option<Value> {
        let sum = |sum: i128| sum.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        Some(match self {
            State::Lww(_, _, register) => Value::Lww(register.value()?.clone()),
            State::Best(bits, written) => Value::Best(score(*bits), written.value.clone()),
            State::Mv(siblings) => {
                let mut all: Vec<Written> = siblings.live.iter().map(|(_, written)| written.clone()).collect();
                all.sort_unstable_by(|a, b| b.cmp(a));
                Value::Mv(all)
            }
            State::Count(tally) => Value::Count(sum(tally.iter().map(|(_, (up, down))| i128::from(*up) - i128::from(*down)).sum())),
            State::GCount(tally) => Value::GCount(tally.iter().fold(0, |sum, (_, up)| sum.saturating_add(*up))),
            State::Set(members) => {
                let mut all: Vec<Bytes> = members.live.iter().map(|(_, member)| member.clone()).collect();
                all.sort_unstable();
                all.dedup();
                Value::Set(all)
            }
            State::GSet(members) => Value::GSet(members.iter().map(|(member, ())| member.clone()).collect()),
        })
    }

    /// How many members or siblings it has.
    fn len(&self) -> usize {
        match self {
            State::Lww(..) | State::Best(..) => 1,
            State::Mv(siblings) => siblings.live.len(),
            State::Count(tally) => tally.len(),
            State::GCount(tally) => tally.len(),
            State::Set(members) => members.live.len(),
            State::GSet(members) => members.len(),
        }
    }
}

/// What a key holds, with how often it came and went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Typed {
    /// The causal length: odd while the key is there, even while it is not.
    pub(crate) length: u32,
    /// `None` while it is not.
    pub(crate) state: Option<State>,
}

/// A write of a key that is no plain register, as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// All of it, or a part that is a state of its own.
    Whole(Typed),
    /// Of a [`Kind::Mv`] of this causal length.
    Mv(u32, Change<Written>),
    /// Of a [`Kind::Set`] of this causal length.
    Set(u32, Change<Bytes>),
}

impl Step {
    /// Whether no list is out of order and no part contradicts another.
    pub(crate) fn is_sound(&self) -> bool {
        match self {
            Step::Whole(typed) => typed.is_sound(),
            Step::Mv(length, change) => *length <= LENGTH_MAX && !length.is_multiple_of(2) && change.is_sound(),
            Step::Set(length, change) => *length <= LENGTH_MAX && !length.is_multiple_of(2) && change.is_sound(),
        }
    }

    /// This and what followed it as one; `None` when they are better told by all that the key holds.
    pub(crate) fn then(self, later: Self) -> Option<Self> {
        match (self, later) {
            (Step::Whole(a), Step::Whole(b)) => a.join(&b).ok().map(Step::Whole),
            (Step::Mv(a, one), Step::Mv(b, other)) if a == b => Some(Step::Mv(a, one.then(other)?)),
            (Step::Set(a, one), Step::Set(b, other)) if a == b => Some(Step::Set(a, one.then(other)?)),
            _ => None,
        }
    }
}

impl Typed {
    pub(crate) fn is_sound(&self) -> bool {
        let has_parity = (1..=LENGTH_MAX).contains(&self.length) && self.state.is_some() != self.length.is_multiple_of(2);
        // A register that was nothing else before travels as one.
        let is_plain = self.length == 1 && matches!(self.state, Some(State::Lww(..)));
        has_parity && !is_plain && self.state.as_ref().is_none_or(State::is_sound)
    }

    fn rank(&self) -> (u32, Option<Kind>) {
        (self.length, self.state.as_ref().map(State::kind))
    }

    pub(crate) fn is_live(&self) -> bool {
        self.state.as_ref().is_some_and(|state| !matches!(state, State::Lww(_, _, register) if register.value().is_none()))
    }

    pub(crate) fn join(&self, other: &Self) -> Result<Self, TooMany> {
        if self.rank() != other.rank() {
            return Ok(if self.rank() < other.rank() { other.clone() } else { self.clone() });
        }
        let state = match (&self.state, &other.state) {
            (Some(ours), Some(theirs)) => Some(ours.join(theirs)?),
            _ => None,
        };
        Ok(Typed { length: self.length, state })
    }

    /// What this becomes by a step; `None` when there is nothing yet.
    pub(crate) fn after(held: Option<&Self>, step: &Step) -> Result<Self, Unfit> {
        let (length, kind) = match step {
            Step::Whole(typed) => return Ok(held.map_or_else(|| Ok(typed.clone()), |held| held.join(typed))?),
            Step::Mv(length, _) => (*length, Kind::Mv),
            Step::Set(length, _) => (*length, Kind::Set),
        };
        let base = match held {
            Some(held) if held.rank() > (length, Some(kind)) => return Ok(held.clone()),
            Some(held) if held.rank() == (length, Some(kind)) => held.state.clone(),
            // Of what the key was before nothing counts any more.
            _ => State::empty(kind),
        };
        let state = match (base, step) {
            (Some(State::Mv(siblings)), Step::Mv(_, change)) => State::Mv(siblings.changed(change)?),
            (Some(State::Set(members)), Step::Set(_, change)) => State::Set(members.changed(change)?),
            _ => return Err(Unfit::Gap),
        };
        Ok(Typed { length, state: Some(state) })
    }

    pub(crate) fn read(&self) -> Option<Value> {
        self.state.as_ref()?.read()
    }

    /// The kind while it is there.
    pub(crate) fn kind(&self) -> Option<Kind> {
        self.state.as_ref().filter(|_| self.is_live()).map(State::kind)
    }

    /// The values of a register with when and by whom they were written, in no order.
    pub(crate) fn written(&self) -> impl Iterator<Item = (&Bytes, Stamp, PeerId)> {
        let (one, siblings) = match &self.state {
            Some(State::Lww(stamp, origin, register)) => (register.value().map(|value| (value, *stamp, *origin)), None),
            Some(State::Best(_, written)) => (Some((&written.value, written.stamp, written.origin)), None),
            Some(State::Mv(siblings)) => (None, Some(siblings)),
            _ => (None, None),
        };
        let siblings = siblings.into_iter().flat_map(|siblings| siblings.live.iter());
        one.into_iter().chain(siblings.map(|(_, written)| (&written.value, written.stamp, written.origin)))
    }

    /// The latest stamp of what was written to it, or removed from it; `None` where nothing has a stamp of its own.
    pub(crate) fn latest(&self) -> Option<Stamp> {
        match self.state.as_ref()? {
            State::Lww(stamp, ..) => Some(*stamp),
            State::Best(_, written) => Some(written.stamp),
            State::Mv(siblings) => siblings.live.iter().map(|(_, written)| written.stamp).max(),
            State::Count(_) | State::GCount(_) | State::Set(_) | State::GSet(_) => None,
        }
    }

    /// When it expires or expired.
    pub(crate) fn expiry(&self) -> Option<u32> {
        if let Some(State::Lww(_, _, register)) = &self.state { register.expiry() } else { None }
    }

    /// What is left of it once it expired; `None` if it does not expire.
    pub(crate) fn expired(&self, hash: impl Fn(&Bytes) -> u64) -> Option<Self> {
        let Some(State::Lww(stamp, origin, register)) = &self.state else { return None };
        Some(Typed { length: self.length, state: Some(State::Lww(*stamp, *origin, register.expired(hash)?)) })
    }

    /// Whether it is the same, expired or not.
    pub(crate) fn is_same_write(&self, other: &Self) -> bool {
        match (&self.state, &other.state) {
            (Some(State::Lww(a, x, u)), Some(State::Lww(b, y, v))) => (self.length, a, x) == (other.length, b, y) && u.is_same_write(v),
            _ => self == other,
        }
    }

    /// How many members, siblings or actors it has.
    pub(crate) fn len(&self) -> usize {
        self.state.as_ref().map_or(0, State::len)
    }

    /// One of those of whom steps are known here.
    pub(crate) fn actor(&self, is_meant: impl Fn(&Actor) -> bool) -> Option<Actor> {
        let steps = |clock: &Clock| clock.iter().map(|(actor, _)| *actor).find(&is_meant);
        match self.state.as_ref()? {
            State::Mv(siblings) => steps(&siblings.clock),
            State::Set(members) => steps(&members.clock),
            State::GCount(tally) => steps(tally),
            State::Count(tally) => tally.iter().map(|(actor, _)| *actor).find(&is_meant),
            State::Lww(..) | State::Best(..) | State::GSet(_) => None,
        }
    }
}

/// Why an operation cannot be done to what a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsuited {
    /// The key is of another kind.
    Kind(Kind),
    /// The score is not a number.
    NotANumber,
    /// The value has as many members or actors as it may.
    Full,
}

impl From<TooMany> for Unsuited {
    fn from(_: TooMany) -> Self {
        Unsuited::Full
    }
}

/// The step that does an operation to what a key holds; `None` when that changes nothing.
pub(crate) fn step(held: Option<&Typed>, op: &Op, actor: Actor, stamp: Stamp, origin: PeerId) -> Result<Option<Step>, Unsuited> {
    let is_live = held.is_some_and(Typed::is_live);
    let length = held.map_or(1, |held| held.length + u32::from(held.length.is_multiple_of(2)));
    if length >= LENGTH_MAX {
        return Err(Unsuited::Full);
    }
    let whole = |state: State| Ok(Some(Step::Whole(Typed { length, state: Some(state) })));
    let Some(kind) = op.kind() else {
        let Some(Typed { state: Some(state), .. }) = held.filter(|_| is_live) else { return Ok(None) };
        return match state {
            State::Lww(..) => whole(State::Lww(stamp, origin, Register::Removed)),
            _ => Ok(Some(Step::Whole(Typed { length: length + 1, state: None }))),
        };
    };
    let state = held.and_then(|held| held.state.as_ref());
    if let Some(held) = state.map(State::kind).filter(|held| *held != kind && is_live) {
        return Err(Unsuited::Kind(held));
    }
    // A register that was removed at this length is of the least kind, which any other outdoes.
    let state = state.filter(|state| state.kind() == kind);
    let written = |value: &Bytes| Written { stamp, origin, value: value.clone() };
    match (op, state) {
        (Op::Set(value), _) => whole(State::Lww(stamp, origin, Register::Value(value.clone()))),
        (Op::SetFor(value, lifetime), _) => whole(State::Lww(stamp, origin, Register::Until(until(stamp, *lifetime), value.clone()))),
        (Op::Best(score, _), _) if score.is_nan() => Err(Unsuited::NotANumber),
        (Op::Best(score, value), held) => {
            let new = State::Best(bits(*score), written(value));
            let is_better = !matches!((held, &new), (Some(State::Best(held, _)), State::Best(new, _)) if new <= held);
            if is_better { whole(new) } else { Ok(None) }
        }
        (Op::Put(value), held) => {
            let none = Dotted::default();
            let siblings = if let Some(State::Mv(siblings)) = held { siblings } else { &none };
            Ok(Some(Step::Mv(length, siblings.change(actor, Some(written(value)), |_| true)?)))
        }
        (Op::Insert(member), held) => {
            let none = Dotted::default();
            let members = if let Some(State::Set(members)) = held { members } else { &none };
            Ok(Some(Step::Set(length, members.change(actor, Some(member.clone()), |held| held == member)?)))
        }
        (Op::Take(member), Some(State::Set(members))) => {
            let change = members.change(actor, None, |held| held == member)?;
            Ok((!change.removes.is_empty()).then_some(Step::Set(length, change)))
        }
        (Op::Add(by), held) => {
            let (up, down) = match held {
                Some(State::Count(tally)) => tally.get(&actor).copied().unwrap_or((0, 0)),
                _ => (0, 0),
            };
            let sum = (up.saturating_add((*by).max(0) as u64), down.saturating_add(by.min(&0).unsigned_abs()));
            whole(State::Count(Ascending::default().with(actor, sum)?))
        }
        (Op::Grow(by), held) => {
            let up = match held {
                Some(State::GCount(tally)) => tally.get(&actor).copied().unwrap_or(0),
                _ => 0,
            };
            whole(State::GCount(Ascending::default().with(actor, up.saturating_add(*by))?))
        }
        (Op::Include(member), Some(State::GSet(members))) if members.get(member).is_some() => Ok(None),
        (Op::Include(member), _) => whole(State::GSet(Ascending::default().with(member.clone(), ())?)),
        (Op::Take(_) | Op::Remove, _) => Ok(None),
    }
}

/// The bits of a number such that they order as numbers do.
fn bits(score: f64) -> u64 {
    // The two zeros are one number.
    let bits = (score + 0.0).to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

fn score(bits: u64) -> f64 {
    f64::from_bits(if bits >> 63 == 1 { bits & !(1 << 63) } else { !bits })
}
