//! What is known of one neighbor.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meshwork_channels::Time;

use super::MessageId;

#[derive(Clone, Debug)]
pub(crate) struct Neighbor<I> {
    pub(crate) peer: I,
    /// Whether payloads are pushed to it; else they are announced (`eagerPushPeers` and `lazyPushPeers` of the paper).
    pub(crate) eager: bool,
    /// When we last sent it everything that we hold, unasked or asked.
    pub(crate) backlog_at: Time,
    /// When we last did so because it asked.
    pub(crate) backlog_asked_at: Option<Time>,
    pub(crate) pruned_at: Option<Time>,
    /// What to announce with the next batch, with the hops, 0 for what is not on its first way through the tree.
    pub(crate) announce: BTreeMap<MessageId<I>, u16>,
    /// Missing messages that it announced and that may be asked for as soon as there is room.
    pub(crate) ready: BTreeSet<MessageId<I>>,
    /// What goes into the graft at the end of this input.
    pub(crate) asking: BTreeSet<MessageId<I>>,
    /// Whether that graft puts the link into the tree.
    pub(crate) asking_eager: bool,
    /// Requests without an answer.
    pub(crate) asked_len: usize,
    /// Missing messages that it announced.
    pub(crate) announced_len: usize,
    /// What we may still ask of it.
    pub(crate) ask_quota: Quota,
    /// What it may still ask of us.
    pub(crate) serve_quota: Quota,
    /// How long it takes to answer.
    pub(crate) answers: Estimate,
}

impl<I> Neighbor<I> {
    pub(crate) fn new(peer: I, now: Time) -> Self {
        Neighbor {
            peer,
            eager: true,
            backlog_at: now,
            backlog_asked_at: None,
            pruned_at: None,
            announce: BTreeMap::new(),
            ready: BTreeSet::new(),
            asking: BTreeSet::new(),
            asking_eager: false,
            asked_len: 0,
            announced_len: 0,
            ask_quota: Quota::default(),
            serve_quota: Quota::default(),
            answers: Estimate::default(),
        }
    }
}

/// A rate with a burst, as one moment: when everything taken so far has been paid back (the generic cell rate algorithm, ATM Forum 1996).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quota {
    paid_at: Time,
}

impl Quota {
    /// How many may be taken now.
    pub(crate) fn available(&self, now: Time, per_second: u32, burst: u32) -> u64 {
        let cost = cost(per_second);
        let debt = self.paid_at.since(now).as_nanos() as u64;
        (cost.saturating_mul(u64::from(burst))).saturating_sub(debt) / cost
    }

    /// Takes `count`, which are available.
    pub(crate) fn take(&mut self, count: u64, now: Time, per_second: u32) {
        self.paid_at = self.paid_at.max(now) + Duration::from_nanos(cost(per_second).saturating_mul(count));
    }

    /// When `count` of the burst are available.
    pub(crate) fn available_at(&self, count: u32, per_second: u32, burst: u32) -> Time {
        let free = cost(per_second).saturating_mul(u64::from(burst.saturating_sub(count)));
        Time::from_nanos(self.paid_at.as_nanos().saturating_sub(free))
    }
}

fn cost(per_second: u32) -> u64 {
    1_000_000_000 / u64::from(per_second.max(1))
}

/// A duration that is guessed from samples, as TCP guesses when to send again (Jacobson, SIGCOMM 1988; RFC 6298).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Estimate {
    mean_and_deviation: Option<(Duration, Duration)>,
}

impl Estimate {
    /// Learns from one sample.
    pub(crate) fn sample(&mut self, sample: Duration) {
        // Far above every timeout, and far below what the arithmetic can hold.
        let sample = sample.min(Duration::from_secs(3_600));
        self.mean_and_deviation = Some(match self.mean_and_deviation {
            None => (sample, sample / 2),
            Some((mean, deviation)) => ((mean * 7 + sample) / 8, (deviation * 3 + sample.abs_diff(mean)) / 4),
        });
    }

    /// A duration that few samples exceed, between two limits; `unknown` before the first sample.
    pub(crate) fn bound(&self, unknown: Duration, least: Duration, most: Duration) -> Duration {
        self.mean_and_deviation.map_or(unknown, |(mean, deviation)| (mean + deviation * 4).clamp(least, most))
    }
}
