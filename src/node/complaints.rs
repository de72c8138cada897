//! Rules that peers broke: how often each, and what of it is told.

use std::collections::BTreeMap;
use std::time::Duration;

use meshwork_channels::{PeerId, Time};

/// Pairs of peer and rule whose complaints are held back to one a second.
pub const MAX: usize = 1_024;

/// Of one peer and one rule, so often is told.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// All complaints of a node.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    counts: BTreeMap<&'static str, u64>,
    told: BTreeMap<(PeerId, &'static str), Time>,
}

impl Complaints {
    /// By rule: how often it was broken.
    pub(super) fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// Counts a broken rule that is held against nobody.
    pub(super) fn count(&mut self, rule: &'static str) {
        *self.counts.entry(rule).or_default() += 1;
    }

    /// Counts a rule that a peer broke; says whether it is to be told.
    pub(super) fn take(&mut self, peer: PeerId, rule: &'static str, now: Time) -> bool {
        self.count(rule);
        if self.told.get(&(peer, rule)).is_some_and(|last| now.since(*last) < TOLD_EVERY) {
            return false;
        }
        if self.told.len() >= MAX {
            self.told.clear();
        }
        self.told.insert((peer, rule), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_of_each_peer_is_told_once_a_second_and_counted_always() {
        let mut complaints = Complaints::default();
        let peer = |number: u16| {
            let mut bytes = [0; 32];
            bytes[..2].copy_from_slice(&number.to_be_bytes());
            PeerId::from_bytes(bytes)
        };
        let at = |millis: u64| Time::from_micros(millis * 1_000);
        assert!(complaints.take(peer(1), "one", at(5)) && complaints.take(peer(1), "two", at(5)) && complaints.take(peer(2), "one", at(5)));
        assert!(!complaints.take(peer(1), "one", at(1_004)));
        assert!(complaints.take(peer(1), "one", at(1_005)));
        complaints.count("one");
        assert_eq!(complaints.counts().iter().map(|(rule, count)| (*rule, *count)).collect::<Vec<_>>(), [("one", 5), ("two", 1)]);
        (0..3_000).for_each(|number| assert!(complaints.take(peer(10 + number), "one", at(2_000))));
        assert!(complaints.told.len() <= MAX);
    }
}
