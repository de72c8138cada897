//! The deadlines of a core, owned by the core.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Time;

/// A set of deadlines, at most one for each key.
///
/// Setting a key again replaces its deadline and cancelling removes it, so a core never sees a stale timer, and a peer cannot make the driver
/// hold more timers than the core has keys. Deadlines that fall on the same moment come out in the order of their keys.
#[derive(Clone, Debug)]
pub struct Timers<K> {
    by_key: BTreeMap<K, Time>,
    by_time: BTreeSet<(Time, K)>,
}

impl<K: Ord + Clone> Default for Timers<K> {
    fn default() -> Self {
        Timers { by_key: BTreeMap::new(), by_time: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// No deadline at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the deadline of `key`, replacing an earlier one.
    pub fn set(&mut self, key: K, at: Time) {
        if let Some(before) = self.by_key.insert(key.clone(), at) {
            self.by_time.remove(&(before, key.clone()));
        }
        self.by_time.insert((at, key));
    }

    /// Sets the deadline of `key` unless it has one; says whether it did.
    pub fn set_if_absent(&mut self, key: K, at: Time) -> bool {
        let absent = !self.by_key.contains_key(&key);
        if absent {
            self.set(key, at);
        }
        absent
    }

    /// Removes the deadline of `key`; says whether there was one.
    pub fn cancel(&mut self, key: &K) -> bool {
        match self.by_key.remove(key) {
            Some(at) => self.by_time.remove(&(at, key.clone())),
            None => false,
        }
    }

    /// The deadline of `key`.
    pub fn get(&self, key: &K) -> Option<Time> {
        self.by_key.get(key).copied()
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<Time> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes the earliest key whose deadline is not after `now`, with that deadline.
    pub fn pop_due(&mut self, now: Time) -> Option<(Time, K)> {
        if self.next_deadline()? > now {
            return None;
        }
        let (at, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some((at, key))
    }

    /// How many deadlines are set.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether no deadline is set.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_replaces_and_cancelling_removes() {
        let mut timers = Timers::new();
        timers.set("b", Time::from_secs(2));
        timers.set("a", Time::from_secs(2));
        timers.set("b", Time::from_secs(1));
        assert!(!timers.set_if_absent("a", Time::ZERO));
        assert_eq!(timers.next_deadline(), Some(Time::from_secs(1)));
        assert_eq!(timers.pop_due(Time::ZERO), None);
        assert_eq!(timers.pop_due(Time::from_secs(5)), Some((Time::from_secs(1), "b")));
        assert!(timers.cancel(&"a"));
        assert!(!timers.cancel(&"a"));
        assert!(timers.is_empty());
    }

    #[test]
    fn equal_moments_come_out_in_the_order_of_their_keys() {
        let mut timers = Timers::new();
        for key in [3, 1, 2] {
            timers.set(key, Time::from_secs(1));
        }
        let order: Vec<i32> = std::iter::from_fn(|| timers.pop_due(Time::from_secs(1)).map(|(_, key)| key)).collect();
        assert_eq!(order, [1, 2, 3]);
    }
}
