//! The payloads that are kept for whoever missed them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::Time;

use super::message::Push;
use super::{Counters, MessageId};
use crate::identifier::Identifier;
use crate::tally::Tally;

/// Above so many payloads there is an index; fewer are found by looking at each, the latest first.
const UNINDEXED_MAX: usize = 64;

/// What is bounded. A payload that alone is above a bound is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) retention: Duration,
    pub(crate) bytes_max: usize,
    pub(crate) payloads_max: usize,
}

/// A payload that is kept.
#[derive(Clone, Debug)]
pub(crate) struct Held<I> {
    pub(crate) payload: Bytes,
    /// How many links it had crossed when it came; 0 for our own.
    pub(crate) hops: u16,
    /// Who sent it; ourselves for our own.
    pub(crate) from: I,
    /// How it was passed on.
    pub(crate) passed: Passed,
}

/// How a payload was passed on, as far as its duplicates ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// To make the tree, over all links, or to trim it.
    Shaping,
    /// From a node that pulled it.
    Pulled,
    /// In another way.
    Otherwise,
}

impl From<Push> for Passed {
    fn from(push: Push) -> Self {
        match push {
            Push::Shape(_) | Push::Trim { .. } => Passed::Shaping,
            Push::Pulled => Passed::Pulled,
            Push::Eager | Push::Answer | Push::Late | Push::Flood(_) => Passed::Otherwise,
        }
    }
}

/// On which way a payload came; see [`Held`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way<I> {
    pub(crate) from: I,
    pub(crate) passed: Passed,
}

impl<I: Copy> Held<I> {
    fn way(&self) -> Way<I> {
        Way { from: self.from, passed: self.passed }
    }
}

#[derive(Clone, Debug)]
struct Entry<I> {
    at: Time,
    id: MessageId<I>,
    held: Held<I>,
}

/// Entries in the order of arrival, in pieces of one size: they never move, and a piece that is given back is just what the next one needs.
#[derive(Clone, Debug)]
#[repr(C)]
struct Queue<I> {
    len: usize,
    /// Entries of the first piece that are gone.
    gone: usize,
    pieces: VecDeque<Vec<Entry<I>>>,
}

/// Entries in a piece.
const PIECE: usize = 3;

impl<I: Identifier> Queue<I> {
    const fn new() -> Self {
        Queue { pieces: VecDeque::new(), gone: 0, len: 0 }
    }

    fn get(&self, at: usize) -> Option<&Entry<I>> {
        let at = at + self.gone;
        self.pieces.get(at / PIECE)?.get(at % PIECE)
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry<I>> {
        (0..self.len).filter_map(|at| self.get(at))
    }

    fn push_back(&mut self, entry: Entry<I>) {
        if self.pieces.back().is_none_or(|piece| piece.len() == PIECE) {
            if self.pieces.len() == self.pieces.capacity() {
                self.pieces.reserve_exact((self.pieces.len() / 2).max(2));
            }
            self.pieces.push_back(Vec::with_capacity(PIECE));
        }
        if let Some(piece) = self.pieces.back_mut() {
            piece.push(entry);
            self.len += 1;
        }
    }

    /// Forgets the first; gives its identity and the length of its payload.
    fn pop_front(&mut self) -> Option<(MessageId<I>, usize)> {
        let entry = self.pieces.front_mut()?.get_mut(self.gone)?;
        // The rest of the piece stays for a while, the bytes need not.
        let popped = (entry.id, std::mem::take(&mut entry.held.payload).len());
        self.gone += 1;
        self.len -= 1;
        if self.gone == PIECE || self.len == 0 {
            self.pieces.pop_front();
            self.gone = 0;
        }
        if self.len == 0 {
            self.pieces = VecDeque::new();
        }
        Some(popped)
    }
}

#[expect(clippy::box_collection, reason = "a pointer is all that a simulated million pays for what is rarely there")]
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct Store<I> {
    /// When the first of them came.
    oldest_at: Time,
    /// Which of them came last and on which way: what is asked for is mostly that.
    newest: Option<(MessageId<I>, Way<I>)>,
    bytes: usize,
    /// In the order of arrival.
    entries: Queue<I>,
    /// How many entries were removed: the number of an entry is its place plus this.
    removed: u64,
    /// The numbers of the entries, once there are many.
    index: Option<Box<BTreeMap<MessageId<I>, u64>>>,
}

impl<I: Identifier> Store<I> {
    pub(crate) const fn new() -> Self {
        Store { entries: Queue::new(), newest: None, oldest_at: Time::MAX, removed: 0, index: None, bytes: 0 }
    }

    pub(crate) fn get(&self, id: &MessageId<I>) -> Option<&Held<I>> {
        let entry = match &self.index {
            Some(index) => self.entries.get((index.get(id)? - self.removed) as usize),
            // What is asked for is mostly what has just come.
            None => self.entries.iter().rev().find(|entry| entry.id.sequence == id.sequence && entry.id == *id),
        };
        entry.map(|entry| &entry.held)
    }

    /// On which way what is kept came.
    pub(crate) fn way(&self, id: &MessageId<I>) -> Option<Way<I>> {
        match self.newest {
            Some((newest, way)) if newest == *id => Some(way),
            _ => self.get(id).map(Held::way),
        }
    }

    /// How many links a payload had crossed that came last and shaped the tree.
    pub(crate) fn shaped_hops(&self, id: &MessageId<I>) -> Option<u16> {
        let is_it = matches!(self.newest, Some((newest, Way { passed: Passed::Shaping, .. })) if newest == *id);
        if is_it { self.get(id).map(|held| held.hops) } else { None }
    }

    /// Reads where the pieces lie; see [`super::State::warm`].
    pub(crate) fn warm(&self) -> u64 {
        self.entries.pieces.back().map_or(0, |piece| piece.len() as u64)
    }

    /// Reads what came last.
    pub(crate) fn warm_newest(&self) -> u64 {
        self.entries.get(self.entries.len.wrapping_sub(1)).map_or(0, |entry| entry.at.as_nanos() ^ u64::from(entry.held.hops))
    }

    pub(crate) fn contains(&self, id: &MessageId<I>) -> bool {
        self.get(id).is_some()
    }

    /// When the first of them came; [`Time::MAX`] where there is none.
    pub(crate) fn oldest_at(&self) -> Time {
        self.oldest_at
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many have come so far, as a mark in their order of arrival; modulo 2³².
    pub(crate) fn arrived(&self) -> u32 {
        self.removed.wrapping_add(self.entries.len as u64) as u32
    }

    /// The mark before everything that is kept.
    pub(crate) fn begin(&self) -> u32 {
        self.removed as u32
    }

    /// How many of those that are kept came after a mark.
    pub(crate) fn len_after(&self, mark: u32) -> usize {
        self.entries.len.min(self.arrived().wrapping_sub(mark) as usize)
    }

    /// Those that came after a mark, in the order of arrival: their identities, and who sent them.
    pub(crate) fn after(&self, mark: u32) -> impl Iterator<Item = (MessageId<I>, I)> {
        let len = self.entries.len;
        (len - self.len_after(mark)..len).filter_map(|at| self.entries.get(at)).map(|entry| (entry.id, entry.held.from))
    }

    /// Keeps a payload that is not kept yet, at the cost of the oldest ones.
    pub(crate) fn insert(&mut self, id: MessageId<I>, held: Held<I>, now: Time, bounds: &Bounds, counters: &mut Tally<Counters>) {
        self.bytes += held.payload.len();
        self.oldest_at = self.oldest_at.min(now);
        self.newest = Some((id, held.way()));
        let number = self.removed + self.entries.len as u64;
        self.entries.push_back(Entry { at: now, id, held });
        match &mut self.index {
            Some(index) => {
                index.insert(id, number);
            }
            None if self.entries.len > UNINDEXED_MAX => {
                let removed = self.removed;
                self.index = Some(Box::new((removed..).zip(self.entries.iter()).map(|(number, entry)| (entry.id, number)).collect()));
            }
            None => {}
        }
        while self.entries.len > bounds.payloads_max || self.bytes > bounds.bytes_max {
            counters.count(|counters| counters.payloads_evicted += 1);
            if !self.remove_oldest() {
                return;
            }
        }
    }

    /// Drops what has been kept for long enough.
    pub(crate) fn expire(&mut self, now: Time, bounds: &Bounds, counters: &mut Tally<Counters>) {
        while now - self.oldest_at >= bounds.retention && self.entries.len > 0 {
            counters.count(|counters| counters.payloads_expired += 1);
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) -> bool {
        let Some((id, len)) = self.entries.pop_front() else { return false };
        self.oldest_at = self.entries.get(0).map_or(Time::MAX, |entry| entry.at);
        self.removed += 1;
        self.bytes -= len;
        if self.entries.len == 0 {
            self.newest = None;
        }
        if let Some(index) = &mut self.index {
            index.remove(&id);
            if self.entries.len == 0 {
                self.index = None;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use meshwork_channels::ChannelId;
    use meshwork_channels::random::hash;

    use super::*;

    fn id(origin: u32, sequence: u64) -> MessageId<u32> {
        MessageId { origin, incarnation: 1, channel: ChannelId::EVENTS, sequence }
    }

    #[test]
    fn agrees_with_a_list_whatever_comes_and_goes() {
        let bounds = Bounds { retention: Duration::from_secs(50), bytes_max: 900, payloads_max: 90 };
        let (mut store, mut counters) = (Store::new(), Tally::new());
        let mut model: VecDeque<(Time, MessageId<u32>, Bytes)> = VecDeque::new();
        let mut longest = 0;
        for step in 1..3_000_u64 {
            // Fast and slow in turn, so that it fills beyond what is found without an index, and empties.
            let now = Time::from_millis(if step / 500 % 2 == 0 { step * 400 } else { (step - step % 500) * 400 + step % 500 * 9_000 });
            let new = id((hash(&[step, 1]) % 9) as u32, step);
            let payload = Bytes::from(vec![0; (hash(&[step, 2]) % 20) as usize]);
            store.expire(now, &bounds, &mut counters);
            while model.front().is_some_and(|(at, ..)| now - *at >= bounds.retention) {
                model.pop_front();
            }
            store.insert(
                new,
                Held { payload: payload.clone(), hops: step as u16, from: 7, passed: Passed::Otherwise },
                now,
                &bounds,
                &mut counters,
            );
            model.push_back((now, new, payload));
            let bytes = |model: &VecDeque<(Time, MessageId<u32>, Bytes)>| model.iter().map(|(.., payload)| payload.len()).sum::<usize>();
            while model.len() > bounds.payloads_max || bytes(&model) > bounds.bytes_max {
                model.pop_front();
            }
            longest = longest.max(model.len());
            assert_eq!((store.len(), store.bytes()), (model.len(), bytes(&model)), "step {step}");
            let asked = id((hash(&[step, 3]) % 9) as u32, step - hash(&[step, 4]) % step.min(120));
            assert_eq!(store.contains(&asked), model.iter().any(|(_, id, _)| *id == asked));
            assert_eq!(store.get(&new).map(|held| held.hops), Some(step as u16));
            assert_eq!((store.way(&new).map(|way| way.from), store.way(&asked).is_some()), (Some(7), store.contains(&asked)));
            let mark = (step - hash(&[step, 4]) % step.min(120)) as u32;
            assert!(store.after(mark).eq(model.iter().filter(|(_, id, _)| id.sequence > u64::from(mark)).map(|(_, id, _)| (*id, 7))));
            assert_eq!((store.arrived(), store.len_after(store.begin())), (step as u32, model.len()));
        }
        assert!(longest > UNINDEXED_MAX, "{longest} at most");
        let counters: &Counters = counters.read().unwrap();
        assert!(counters.payloads_evicted > 100 && counters.payloads_expired > 100);
    }
}
