//! What is known of one neighbor.

use std::time::Duration;

use meshwork_channels::Time;

use super::{MessageId, SETTLE};
use crate::sorted::{Sorted, SortedSet};

/// What a simulated million has six times each: what is rarely there lies elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Neighbor<I> {
    pub(crate) peer: I,
    /// Whether payloads are pushed to it; else they are announced (`eagerPushPeers` and `lazyPushPeers` of the paper).
    pub(crate) eager: bool,
    /// Whether it brought the last payload that shaped the tree.
    pub(crate) is_parent: bool,
    /// Where it is nearer to the origin of that payload than we are, over how many links it told us of it; else 0.
    pub(crate) nearer: u16,
    /// Whether the graft at the end of this input puts the link into the tree.
    pub(crate) asking_eager: bool,
    /// Requests without an answer.
    pub(crate) asked_len: u32,
    /// Missing messages that it announced.
    pub(crate) announced_len: u32,
    /// Up to which mark of the store it was told what is held.
    pub(crate) told: u32,
    /// When we last sent it everything that we hold, unasked or asked.
    pub(crate) backlog_at: Time,
    /// Whether it was asked.
    backlog_was_asked: bool,
    /// Until when a duplicate from it may have been on its way before it knew of the prune.
    settled_at: Time,
    /// What to announce with the next batch, with the hops, 0 for what is not on its first way through the tree.
    pub(crate) announce: Announce<I>,
    wanted: Option<Box<Wanted<I>>>,
    /// What we may still ask of it.
    pub(crate) ask_quota: Quota,
    /// What it may still ask of us.
    pub(crate) serve_quota: Quota,
    /// How long it takes to answer.
    pub(crate) answers: Estimate,
}

/// What waits to be announced: on a quiet node one message.
#[derive(Clone, Debug)]
pub(crate) enum Announce<I> {
    Nothing,
    One(MessageId<I>, u16),
    Several(Box<Sorted<MessageId<I>, u16>>),
}

impl<I: Copy + Ord> Announce<I> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Announce::Nothing => 0,
            Announce::One(..) => 1,
            Announce::Several(several) => several.len(),
        }
    }

    pub(crate) fn insert(&mut self, id: MessageId<I>, hops: u16) {
        match self {
            Announce::Several(several) => several.insert(id, hops),
            Announce::One(one, before) if *one != id => {
                let mut several = Sorted::new();
                several.insert(*one, *before);
                several.insert(id, hops);
                *self = Announce::Several(Box::new(several));
            }
            Announce::Nothing | Announce::One(..) => *self = Announce::One(id, hops),
        }
    }

    pub(crate) fn remove(&mut self, id: &MessageId<I>) {
        match self {
            Announce::Several(several) => {
                several.remove(id);
            }
            Announce::One(one, _) if one == id => *self = Announce::Nothing,
            Announce::Nothing | Announce::One(..) => {}
        }
    }

    /// Removes everything from one message to another.
    pub(crate) fn remove_range(&mut self, first: MessageId<I>, last: MessageId<I>) {
        match self {
            Announce::Several(several) => {
                while let Some(id) = several.range(first..=last).next().map(|(id, _)| *id) {
                    several.remove(&id);
                }
            }
            Announce::One(one, _) if (first..=last).contains(one) => *self = Announce::Nothing,
            Announce::Nothing | Announce::One(..) => {}
        }
    }
}

/// What is wanted of a neighbor.
#[derive(Clone, Debug)]
struct Wanted<I> {
    /// Missing messages that it announced and that may be asked for as soon as there is room.
    ready: SortedSet<MessageId<I>>,
    /// What goes into the graft at the end of this input.
    asking: SortedSet<MessageId<I>>,
    /// What was asked for and not answered, even if nobody waits for it any more: on a link that stands still it may yet arrive, all at once.
    unheard: Quota,
}

impl<I: Copy + Ord> Neighbor<I> {
    /// A neighbor that was told what is held up to a mark of the store.
    pub(crate) fn new(peer: I, told: u32, now: Time) -> Self {
        Neighbor {
            peer,
            eager: true,
            is_parent: false,
            nearer: 0,
            asking_eager: false,
            asked_len: 0,
            announced_len: 0,
            told,
            backlog_at: now,
            backlog_was_asked: false,
            settled_at: Time::ZERO,
            announce: Announce::Nothing,
            wanted: None,
            ask_quota: Quota::default(),
            serve_quota: Quota::default(),
            answers: Estimate::default(),
        }
    }

    /// Reads it, without a branch that would wait for what is read; see [`super::State::warm`].
    pub(crate) fn warm(&self) -> u64 {
        u64::from(self.eager) ^ u64::from(matches!(self.announce, Announce::Nothing))
    }

    /// Takes the link out of the tree.
    pub(crate) fn prune(&mut self, now: Time) {
        self.eager = false;
        self.settled_at = now + SETTLE;
    }

    /// Whether it was pruned so lately that duplicates may still be on their way.
    pub(crate) fn is_settling(&self, now: Time) -> bool {
        now < self.settled_at
    }

    /// Whether it may ask for everything that we hold.
    pub(crate) fn may_ask_backlog(&self, now: Time) -> bool {
        !self.backlog_was_asked || now > self.backlog_at + SETTLE
    }

    /// It gets everything that we hold because it asked.
    pub(crate) fn backlog_asked(&mut self, now: Time) {
        self.backlog_at = now;
        self.backlog_was_asked = true;
    }

    pub(crate) fn is_ready_empty(&self) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.ready.is_empty())
    }

    pub(crate) fn is_asking_empty(&self) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.asking.is_empty())
    }

    pub(crate) fn is_ready(&self, id: &MessageId<I>) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| wanted.ready.contains(id))
    }

    pub(crate) fn first_ready(&self) -> Option<MessageId<I>> {
        self.wanted.as_ref()?.ready.first().map(|(id, ())| *id)
    }

    pub(crate) fn insert_ready(&mut self, id: MessageId<I>) {
        self.want().ready.insert(id, ());
    }

    pub(crate) fn remove_ready(&mut self, id: &MessageId<I>) {
        if let Some(wanted) = &mut self.wanted {
            wanted.ready.remove(id);
        }
    }

    pub(crate) fn insert_asking(&mut self, id: MessageId<I>) {
        self.want().asking.insert(id, ());
    }

    pub(crate) fn remove_asking(&mut self, id: &MessageId<I>) {
        if let Some(wanted) = &mut self.wanted {
            wanted.asking.remove(id);
        }
    }

    pub(crate) fn take_asking(&mut self) -> SortedSet<MessageId<I>> {
        self.wanted.as_mut().map_or(Sorted::new(), |wanted| std::mem::take(&mut wanted.asking))
    }

    /// What was asked for and may be under way still.
    pub(crate) fn unheard(&self) -> Quota {
        self.wanted.as_ref().map_or(Quota::default(), |wanted| wanted.unheard)
    }

    /// Another request is under way.
    pub(crate) fn ask_unheard(&mut self, now: Time, per_second: u32) {
        self.want().unheard.take(1, now, per_second);
    }

    /// It has answered so many requests.
    pub(crate) fn heard(&mut self, count: u64, per_second: u32) {
        if let Some(wanted) = &mut self.wanted {
            wanted.unheard.give_back(count, per_second);
        }
    }

    /// What was under way is lost with the link.
    pub(crate) fn lose_unheard(&mut self) {
        if let Some(wanted) = &mut self.wanted {
            wanted.unheard = Quota::default();
        }
    }

    /// Forgets that anything was ever wanted when nothing is; says whether something is, or is under way.
    pub(crate) fn is_wanted(&mut self, now: Time) -> bool {
        self.wanted.take_if(|wanted| wanted.ready.is_empty() && wanted.asking.is_empty() && wanted.unheard.paid_at <= now);
        self.wanted.is_some()
    }

    fn want(&mut self) -> &mut Wanted<I> {
        self.wanted.get_or_insert_with(|| Box::new(Wanted { ready: Sorted::new(), asking: Sorted::new(), unheard: Quota::default() }))
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

    /// Takes back what was taken.
    pub(crate) fn give_back(&mut self, count: u64, per_second: u32) {
        self.paid_at = Time::from_nanos(self.paid_at.as_nanos().saturating_sub(cost(per_second).saturating_mul(count)));
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
#[derive(Clone, Copy, Debug)]
pub(crate) struct Estimate {
    /// In microseconds; [`UNKNOWN`] before the first sample.
    mean: u32,
    deviation: u32,
}

const UNKNOWN: u32 = u32::MAX;

impl Default for Estimate {
    fn default() -> Self {
        Estimate { mean: UNKNOWN, deviation: 0 }
    }
}

impl Estimate {
    /// Learns from one sample.
    pub(crate) fn sample(&mut self, sample: Duration) {
        // Far above every timeout, and below what is unknown.
        let sample = micros(sample.min(Duration::from_secs(3_600)));
        *self = match self.mean {
            UNKNOWN => Estimate { mean: sample, deviation: sample / 2 },
            mean => Estimate { mean: weighed(mean, 7, sample), deviation: weighed(self.deviation, 3, sample.abs_diff(mean)) },
        };
    }

    /// Reads it; see [`super::State::warm`].
    pub(crate) fn warm(&self) -> u64 {
        u64::from(self.deviation ^ self.mean)
    }

    /// A duration that few samples exceed, between two limits; `unknown` before the first sample.
    pub(crate) fn bound(&self, unknown: Duration, least: Duration, most: Duration) -> Duration {
        match self.mean {
            UNKNOWN => unknown,
            mean => Duration::from_micros(u64::from(mean) + u64::from(self.deviation) * 4).clamp(least, most),
        }
    }
}

/// A duration in microseconds, as far as 32 bits go, which is more than an hour.
pub(crate) fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

/// The mean of a value that has a weight and of one that weighs one.
pub(crate) fn weighed(old: u32, weight: u64, new: u32) -> u32 {
    ((u64::from(old) * weight + u64::from(new)) / (weight + 1)) as u32
}
