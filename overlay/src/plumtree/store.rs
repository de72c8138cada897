//! The payloads that are kept for whoever missed them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::Time;

use super::{Counters, MessageId};
use crate::identifier::Identifier;

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
    /// Who sent it; `None` for our own.
    pub(crate) from: Option<I>,
}

#[derive(Clone, Debug)]
pub(crate) struct Store<I> {
    held: BTreeMap<MessageId<I>, Held<I>>,
    /// In the order of arrival.
    order: VecDeque<(Time, MessageId<I>)>,
    bytes: usize,
}

impl<I: Identifier> Store<I> {
    pub(crate) const fn new() -> Self {
        Store { held: BTreeMap::new(), order: VecDeque::new(), bytes: 0 }
    }

    pub(crate) fn get(&self, id: &MessageId<I>) -> Option<&Held<I>> {
        self.held.get(id)
    }

    pub(crate) fn contains(&self, id: &MessageId<I>) -> bool {
        self.held.contains_key(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The identities, in order, from `from` on.
    pub(crate) fn ids_from(&self, from: Option<MessageId<I>>) -> impl Iterator<Item = MessageId<I>> {
        use std::ops::Bound::{Included, Unbounded};
        self.held.range((from.map_or(Unbounded, Included), Unbounded)).map(|(id, _)| *id)
    }

    /// Keeps a payload that is not kept yet, at the cost of the oldest ones.
    pub(crate) fn insert(&mut self, id: MessageId<I>, held: Held<I>, now: Time, bounds: &Bounds, counters: &mut Counters) {
        self.bytes += held.payload.len();
        self.order.push_back((now, id));
        self.held.insert(id, held);
        while self.held.len() > bounds.payloads_max || self.bytes > bounds.bytes_max {
            counters.payloads_evicted += 1;
            if !self.remove_oldest() {
                return;
            }
        }
    }

    /// Drops what has been kept for long enough.
    pub(crate) fn expire(&mut self, now: Time, bounds: &Bounds, counters: &mut Counters) {
        while self.order.front().is_some_and(|(at, _)| now - *at >= bounds.retention) {
            counters.payloads_expired += 1;
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) -> bool {
        let Some((_, id)) = self.order.pop_front() else { return false };
        if let Some(held) = self.held.remove(&id) {
            self.bytes -= held.payload.len();
        }
        true
    }
}
