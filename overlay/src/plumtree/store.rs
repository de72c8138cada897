//! The payloads that are kept for whoever missed them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::Time;

use super::{Counters, MessageId};
use crate::identifier::Identifier;

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
}

#[derive(Clone, Debug)]
struct Entry<I> {
    at: Time,
    id: MessageId<I>,
    held: Held<I>,
}

#[derive(Clone, Debug)]
pub(crate) struct Store<I> {
    /// In the order of arrival.
    entries: VecDeque<Entry<I>>,
    /// When the first of them came.
    oldest_at: Time,
    /// How many entries were removed: the number of an entry is its place plus this.
    removed: u64,
    /// The numbers of the entries, once there are many.
    index: Option<Box<BTreeMap<MessageId<I>, u64>>>,
    bytes: usize,
}

impl<I: Identifier> Store<I> {
    pub(crate) const fn new() -> Self {
        Store { entries: VecDeque::new(), oldest_at: Time::MAX, removed: 0, index: None, bytes: 0 }
    }

    pub(crate) fn get(&self, id: &MessageId<I>) -> Option<&Held<I>> {
        let entry = match &self.index {
            Some(index) => self.entries.get((index.get(id)? - self.removed) as usize),
            // What is asked for is mostly what has just come.
            None => self.entries.iter().rev().find(|entry| entry.id.sequence == id.sequence && entry.id == *id),
        };
        entry.map(|entry| &entry.held)
    }

    pub(crate) fn contains(&self, id: &MessageId<I>) -> bool {
        self.get(id).is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The identities, in order, from `from` on.
    pub(crate) fn ids_from(&self, from: Option<MessageId<I>>) -> impl Iterator<Item = MessageId<I>> {
        use std::ops::Bound::{Included, Unbounded};
        let mut few = Vec::new();
        if self.index.is_none() {
            few.extend(self.entries.iter().map(|entry| entry.id).filter(|id| from.is_none_or(|from| *id >= from)));
            few.sort_unstable();
        }
        let many = self.index.iter().flat_map(move |index| index.range((from.map_or(Unbounded, Included), Unbounded)));
        few.into_iter().chain(many.map(|(id, _)| *id))
    }

    /// Keeps a payload that is not kept yet, at the cost of the oldest ones.
    pub(crate) fn insert(&mut self, id: MessageId<I>, held: Held<I>, now: Time, bounds: &Bounds, counters: &mut Counters) {
        self.bytes += held.payload.len();
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact((self.entries.len() / 4).max(2));
        }
        self.oldest_at = self.oldest_at.min(now);
        let number = self.removed + self.entries.len() as u64;
        self.entries.push_back(Entry { at: now, id, held });
        match &mut self.index {
            Some(index) => {
                index.insert(id, number);
            }
            None if self.entries.len() > UNINDEXED_MAX => {
                let removed = self.removed;
                self.index = Some(Box::new((removed..).zip(&self.entries).map(|(number, entry)| (entry.id, number)).collect()));
            }
            None => {}
        }
        while self.entries.len() > bounds.payloads_max || self.bytes > bounds.bytes_max {
            counters.payloads_evicted += 1;
            if !self.remove_oldest() {
                return;
            }
        }
    }

    /// Drops what has been kept for long enough.
    pub(crate) fn expire(&mut self, now: Time, bounds: &Bounds, counters: &mut Counters) {
        while now - self.oldest_at >= bounds.retention && !self.entries.is_empty() {
            counters.payloads_expired += 1;
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) -> bool {
        let Some(entry) = self.entries.pop_front() else { return false };
        self.oldest_at = self.entries.front().map_or(Time::MAX, |entry| entry.at);
        self.removed += 1;
        self.bytes -= entry.held.payload.len();
        if let Some(index) = &mut self.index {
            index.remove(&entry.id);
            if self.entries.is_empty() {
                self.index = None;
            }
        }
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
        true
    }
}
