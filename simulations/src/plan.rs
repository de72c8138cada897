//! One run as data: its nodes, its network, everything that will be done, and what is expected of it.

use meshwork::crdt::Kind;
use meshwork_channels::buggify::{Buggify, Site, Sites};
use meshwork_channels::random::hash;
use meshwork_overlay::swim::Improvement;
use serde::{Deserialize, Serialize};

use crate::deed::{Change, Deed, Place, SECONDS_MAX};
use crate::host::Plant;
use crate::network::Link;
use crate::run::{Class, Failure, Metric};
use crate::scenarios;
use crate::schedule::{Happening, Schedule};
use crate::world::Setup;

/// Nothing in a plan is later than this, in microseconds: 30 days.
const TIME_MAX: u64 = 30 * 86_400 * SECOND;

/// Numbers of broadcasts are below this: there is a place for each.
const MESSAGES_MAX: usize = 1_000_000;

/// Microseconds in a second.
pub const SECOND: u64 = 1_000_000;

/// The parameters of the nodes that scenarios vary; the rest are the defaults of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuning {
    /// Whether everybody is everybody's neighbor.
    pub full_mesh: bool,
    /// Neighbors of a node in a partial view.
    pub active: u64,
    /// Further peers that a partial view remembers.
    pub passive: u64,
    /// How long a node keeps broadcasts for peers that missed them, in microseconds.
    pub retention: u64,
    /// How long a suspected member has to refute, in microseconds; 0 for the default of a node.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub suspicion: u64,
    /// Whether replicas repair nothing, so that what broadcasts miss is missed for good.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_repair: bool,
    /// For how long replicas keep tombstones at least, in microseconds; 0 for the default of a node.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub collect_after: u64,
    /// How long they wait for members that fell silent, in microseconds; 0 for the default of a node.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub absent_max: u64,
    /// What the membership does without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without: Option<Improvement>,
    /// The places in the code where rare behavior fires; by name in a file.
    #[serde(default, with = "crate::rare", skip_serializing_if = "crate::rare::is_empty")]
    pub buggify: Sites,
}

pub(crate) fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What a run must show beyond the invariants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expectation {
    /// The name of a metric.
    pub metric: String,
    /// The least that it may be.
    pub min: Option<f64>,
    /// The most that it may be.
    pub max: Option<f64>,
}

/// The first expectation that figures do not meet.
pub(crate) fn unmet(expectations: &[Expectation], metrics: &[Metric], at: u64) -> Option<Failure> {
    expectations.iter().find_map(|Expectation { metric, min, max }| {
        let value = metrics.iter().find(|measured| measured.name == metric).map(|measured| measured.value);
        let detail = match (value, min, max) {
            (None, ..) => "was not measured".to_owned(),
            (Some(value), Some(min), _) if value < *min => format!("is {value:.4}, at least {min} is expected"),
            (Some(value), _, Some(max)) if value > *max => format!("is {value:.4}, at most {max} is expected"),
            _ => return None,
        };
        Some(Failure { class: Class::Expectation, what: metric.clone(), at, node: None, detail })
    })
}

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The scenario, or `swarm`.
    pub scenario: String,
    /// What to type to see the run again.
    #[serde(skip)]
    pub replay: String,
    /// The world.
    pub setup: Setup,
    /// The nodes.
    pub tuning: Tuning,
    /// Everything that is done.
    pub schedule: Schedule,
    /// Who starts until then forms the cluster, in microseconds since the start; who starts later is a newcomer.
    #[serde(default)]
    pub work_at: u64,
    /// When everything is whole and nothing is lost any more, in microseconds since the start.
    pub calm_at: u64,
    /// How long the run goes on after that at least, in microseconds.
    pub quiet_min: u64,
    /// How long after that everything must have come to rest, in microseconds.
    pub settle_max: u64,
    /// Kinds of entries of the schedule, and how many of each must have had an effect; else the run showed nothing.
    pub required: Vec<(String, u64)>,
    /// Whether the network must have lost something.
    pub must_lose: bool,
    /// What else it must show.
    pub expectations: Vec<Expectation>,
}

impl Plan {
    /// When the run is over at the latest, in microseconds since the start.
    pub fn ends_at(&self) -> u64 {
        self.calm_at + self.settle_max
    }

    /// Whether it can be played at all, for plans that come from a file.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words.
    pub fn check(&self) -> Result<(), String> {
        let Setup { nodes, link, payload_bytes, value_bytes, shape, .. } = &self.setup;
        let must = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        must((1..=scenarios::NODES_MAX).contains(nodes), &format!("it has {nodes} nodes; 1 to {} can be run", scenarios::NODES_MAX))?;
        must(
            Buggify::IS_BUILT || self.tuning.buggify.is_empty(),
            "it switches on rare behavior, which this build leaves out: build with the feature `buggify`, or leave `buggify` out of the plan",
        )?;
        must(self.setup.seed < u64::MAX, "its seed is the largest number there is, and behind a seed comes another")?;
        must((0.0..1.0).contains(&link.loss), "the loss of its links is not from 0 to below 1")?;
        let bytes = |bytes: usize| (8..=1 << 20).contains(&bytes);
        must(bytes(*payload_bytes) && bytes(*value_bytes), "its payloads and values must have 8 bytes to a megabyte")?;
        must(link.latency <= 3_600 * SECOND && link.jitter <= 3_600 * SECOND, "its links take more than an hour")?;
        must(self.setup.skew <= 3_600 * SECOND, "its clocks are more than an hour apart")?;
        let times = [self.calm_at, self.quiet_min, self.settle_max];
        must(times.iter().all(|time| *time <= TIME_MAX), "it lasts more than 30 days")?;
        shape.check()?;
        let entries = self.schedule.entries();
        must(entries.is_sorted_by_key(|entry| entry.at), "its schedule is not in the order of time")?;
        for (index, entry) in entries.iter().enumerate() {
            let mut named = entry.what.clone();
            let strangers = std::cell::Cell::new(false);
            named.rename(&|node| {
                strangers.set(strangers.get() || node >= *nodes);
                Some(node)
            });
            must(!strangers.get(), &format!("entry {} of its schedule names a node that there is not", index + 1))?;
            let (is_sized, ends_at) = (entry.what.is_within_bounds(), entry.what.ends_at(entry.at));
            must(
                is_sized && entry.at.max(ends_at) <= TIME_MAX,
                &format!("entry {} of its schedule has a number that is too large", index + 1),
            )?;
        }
        must(self.schedule.messages() <= MESSAGES_MAX, &format!("a broadcast has a number above {MESSAGES_MAX}"))?;
        must(self.setup.plant.is_none_or(|(node, _)| node < *nodes), "its bug is planted in a node that there is not")
    }

    /// What the run is like, in a line: its network, its nodes and how much of what happens.
    pub fn describe(&self) -> String {
        let Tuning { full_mesh, active, passive, .. } = self.tuning;
        let overlay = if full_mesh { "full mesh".to_owned() } else { format!("{active} neighbors and {passive} more") };
        let mut names: Vec<&str> = self.schedule.entries().iter().map(|entry| entry.what.name()).filter(|name| *name != "calm").collect();
        names.sort_unstable();
        names.dedup();
        let counts: Vec<String> = names.into_iter().map(|name| format!("{} {name}", self.schedule.count(name))).collect();
        let rare: Vec<&str> = self.tuning.buggify.iter().map(Site::name).collect();
        let rare = if rare.is_empty() { String::new() } else { format!("; buggify {}", rare.join(", ")) };
        let without = self.tuning.without.map_or(String::new(), |without| format!("; without {}", without.name()));
        format!(
            "{} nodes, {overlay}; {}; {}{rare}{without}; quiet from {:.0} s",
            self.setup.nodes,
            self.setup.shape.describe(self.setup.link),
            counts.join(", "),
            self.calm_at as f64 / 1e6
        )
    }

    /// Gives a bug to one node: one that is there to the end, and the last of those, because it joins last. A bug that shows when a node starts again goes to the last that
    /// does, if one does.
    pub fn plant(&mut self, plant: Plant) {
        let does = |node: u32, is: &dyn Fn(&Happening) -> bool| {
            self.schedule.entries().iter().any(|entry| is(&entry.what) && entry.what.node() == Some(node))
        };
        let mut last_first = (0..self.setup.nodes).rev();
        let starts_again = |what: &Happening| match plant {
            Plant::StaleIncarnation => matches!(what, Happening::Restart { .. }),
            Plant::LoseSynced => what.keeps_disk(),
            _ => false,
        };
        let again = last_first.clone().find(|node| does(*node, &starts_again));
        let node = again.or_else(|| last_first.find(|node| !does(*node, &Happening::stops))).unwrap_or(0);
        self.setup.plant = Some((node, plant));
    }
}

/// Draws for one purpose, each a hash of the seed, the purpose and a count.
#[derive(Clone, Debug)]
pub struct Draw {
    seed: u64,
    purpose: u64,
    count: u64,
}

impl Draw {
    /// Draws for a purpose under a seed.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let purpose = crate::digest::hash_bytes(purpose.as_bytes());
        Draw { seed, purpose, count: 0 }
    }

    /// A number below `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.count += 1;
        hash(&[self.seed, self.purpose, self.count]) % end.max(1)
    }

    /// A number from `first` to `last`, both included.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last.saturating_sub(first) + 1)
    }

    /// True `percent` times in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of some items.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len() as u64) as usize)
    }

    /// Takes `count` of some items, in the order of the draws.
    pub fn take<T>(&mut self, mut items: Vec<T>, count: u64) -> Vec<T> {
        let mut taken = Vec::new();
        while !items.is_empty() && (taken.len() as u64) < count {
            taken.push(items.swap_remove(self.below(items.len() as u64) as usize));
        }
        taken
    }
}

/// How the nodes come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// One after the other, at equal distances.
    OneByOne,
    /// At random moments.
    Staggered,
    /// All at once, through one contact.
    Storm,
    /// At random moments, through one contact.
    ThroughOne,
}

/// Adds the starts of the nodes of a range, over a span of time from a moment on. Each is told the addresses of up to two nodes that
/// started before it; in a storm and through one, that of node 0.
pub fn join(schedule: &mut Schedule, draw: &mut Draw, nodes: std::ops::Range<u32>, how: Join, from: u64, over: u64) {
    let len = u64::from(nodes.end - nodes.start).max(1);
    let mut starts: Vec<u64> = (0..len)
        .map(|index| match how {
            Join::OneByOne => from + over * index / len,
            Join::Staggered | Join::ThroughOne => from + if index == 0 { 0 } else { draw.below(over.max(1)) },
            Join::Storm => from,
        })
        .collect();
    starts.sort_unstable();
    for (node, at) in nodes.zip(starts) {
        let contacts = match (how, node) {
            // The first node knows the second, so that either may be lost before the others come.
            (Join::Storm | Join::ThroughOne, 0) => vec![],
            (_, 0) => vec![1],
            (Join::Storm | Join::ThroughOne, _) => vec![0],
            _ => draw.take((0..node).collect(), 2),
        };
        schedule.push(at.max(1), Happening::Start { node, contacts });
    }
}

/// Adds broadcasts at about equal distances over a span of time, from the given senders in turn.
pub fn broadcasts(schedule: &mut Schedule, draw: &mut Draw, senders: &[u32], messages: u64, from: u64, over: u64) {
    let first = schedule.count("broadcast") as u32;
    let gap = (over / messages.max(1)).max(1);
    for (message, node) in (first..first + messages as u32).zip(senders.iter().cycle()) {
        let at = from + u64::from(message - first) * gap + draw.below(gap);
        schedule.push(at, Happening::Broadcast { node: *node, message });
    }
}

/// What adds work on the replicated state to a schedule: nodes, keys, how many writes, from when and over what time.
pub type Writer = fn(&mut Schedule, &mut Draw, &[u32], u64, u64, u64, u64);

/// Adds writes, and a removal for about every tenth of them, at random moments of a span of time.
pub fn writes(schedule: &mut Schedule, draw: &mut Draw, nodes: &[u32], keys: u64, writes: u64, from: u64, over: u64) {
    let first = schedule.count("write") as u32;
    for write in first..first + writes as u32 {
        let at = from + draw.below(over.max(1));
        let key = draw.below(keys) as u32;
        let Some(node) = draw.pick(nodes).copied() else { return };
        schedule.push(at, Happening::Write { node, key, write });
        // A third of the keys is never removed, so that a lost write cannot hide behind a removal.
        if !key.is_multiple_of(3) && draw.chance(10) {
            let remover = draw.pick(nodes).copied().unwrap_or(node);
            schedule.push(at + draw.below(2 * SECOND), Happening::Remove { node: remover, key });
        }
    }
}

/// The kinds of keys, by the number of the key: every seventh is of each.
const KINDS: [Kind; 7] = [Kind::Lww, Kind::Count, Kind::Set, Kind::Mv, Kind::GSet, Kind::Best, Kind::GCount];
/// Members that are put into sets again and again, beside those that are put in once.
const FAMILIAR: u64 = 4;
/// The number of the first of them, behind those of all writes.
const FAMILIAR_FIRST: u32 = u32::MAX - 8;
/// The most that is counted at once. So large that hardly two sums of some of many counts are the same.
const COUNT_MAX: u64 = 1_000_000_000;

/// Adds changes of keys of every kind, one by one and some in batches, at random moments of a span of time. Of what is put into sets about a third is taken out
/// soon after, by any node; of the keys a fifth is removed now and then.
pub fn changes(schedule: &mut Schedule, draw: &mut Draw, nodes: &[u32], keys: u64, changes: u64, from: u64, over: u64) {
    let first = schedule.next_write();
    for write in first..first.saturating_add(changes as u32) {
        let at = from + draw.below(over.max(1));
        let Some(node) = draw.pick(nodes).copied() else { return };
        let key = draw.below(keys) as u32;
        // All of a batch are different keys, with one number.
        let len = if draw.chance(15) { draw.between(2, 6).min(keys) as u32 } else { 1 };
        let place = |key: u32| Place { kind: KINDS[key as usize % KINDS.len()], key };
        let batch: Vec<Change> = (0..len)
            .map(|further| {
                let place = place((key + further) % keys as u32);
                Change { place, deed: deed(draw, place.kind, write) }
            })
            .collect();
        let later = at + draw.below(4 * SECOND);
        let other = draw.pick(nodes).copied().unwrap_or(node);
        let mut undo = |change| schedule.push(later, Happening::Change { node: other, changes: vec![change] });
        for Change { place, deed } in &batch {
            match deed {
                Deed::Insert { member } if draw.chance(35) => undo(Change { place: *place, deed: Deed::Take { member: *member } }),
                _ if place.key % 5 == 4 && draw.chance(10) => undo(Change { place: *place, deed: Deed::Remove }),
                _ => {}
            }
        }
        schedule.push(at, Happening::Change { node, changes: batch });
    }
}

/// Makes some of the plain registers in what is scheduled be written for some time only.
pub fn expire(schedule: &mut Schedule, draw: &mut Draw) {
    schedule.retain(|entry| {
        if let Happening::Change { changes, .. } = &mut entry.what {
            for change in changes {
                match change.deed {
                    Deed::Set { write } if draw.chance(40) => {
                        change.deed = Deed::SetFor { write, seconds: draw.between(1, SECONDS_MAX.into()) as u32 };
                    }
                    _ => {}
                }
            }
        }
        true
    });
}

/// What is done to a key of a kind.
fn deed(draw: &mut Draw, kind: Kind, write: u32) -> Deed {
    match kind {
        Kind::Lww => Deed::Set { write },
        Kind::Best => Deed::Best { score: draw.below(COUNT_MAX) as u32, write },
        Kind::Mv => Deed::Put { write },
        Kind::Count => {
            let by = draw.between(1, COUNT_MAX) as i64;
            Deed::Add { by: if draw.chance(40) { -by } else { by } }
        }
        Kind::GCount => Deed::Grow { by: draw.between(1, COUNT_MAX) },
        Kind::Set => Deed::Insert { member: if draw.chance(30) { FAMILIAR_FIRST + draw.below(FAMILIAR) as u32 } else { write } },
        Kind::GSet => Deed::Include { member: write },
    }
}

/// The link of a plan.
pub fn link(latency: u64, jitter: u64, loss: f64) -> Link {
    Link { latency, jitter, loss }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_stable_and_within_their_bounds() {
        let mut one = Draw::new(1, "faults");
        let mut two = Draw::new(1, "faults");
        let mut other = Draw::new(1, "workload");
        let numbers: Vec<u64> = (0..50).map(|_| one.between(3, 9)).collect();
        assert!(numbers.iter().all(|number| (3..=9).contains(number)));
        assert_eq!(numbers, (0..50).map(|_| two.between(3, 9)).collect::<Vec<_>>());
        assert_ne!(numbers, (0..50).map(|_| other.between(3, 9)).collect::<Vec<_>>());
        let mut taken = one.take((0..10).collect(), 20);
        taken.sort_unstable();
        assert_eq!(taken, (0..10).collect::<Vec<u64>>());
    }

    /// What comes from a file may say anything.
    #[test]
    fn plans_with_numbers_that_are_too_large_are_refused() {
        let plan = crate::swarm::plan(1);
        assert_eq!(plan.check(), Ok(()));
        let with = |what: Happening| {
            let mut plan = plan.clone();
            plan.schedule.push(plan.calm_at + 1, what);
            plan.check()
        };
        let count = |deed| Change { place: Place { kind: Kind::Count, key: 1 }, deed };
        let clock = |jump, drift| Happening::Clock { node: 0, jump, drift };
        let weather = |loss, late| Happening::Weather { until: 1, nodes: Vec::new(), loss, late };
        for what in [
            Happening::Pause { node: 0, micros: u64::MAX },
            Happening::Slow { node: 0, micros: u64::MAX, until: 1 },
            Happening::cut(u64::MAX, vec![0]),
            Happening::Attack { node: 0, frames: u32::MAX },
            clock(i64::MIN, 0),
            clock(0, i32::MIN),
            weather(1_000, 0),
            weather(0, u64::MAX),
            Happening::Crash { node: u32::MAX },
            Happening::Broadcast { node: 0, message: u32::MAX },
            Happening::Change { node: 0, changes: Vec::new() },
            Happening::Change { node: 0, changes: vec![count(Deed::Add { by: i64::MIN })] },
            Happening::Change { node: 0, changes: vec![count(Deed::Insert { member: 1 })] },
        ] {
            assert!(with(what.clone()).is_err(), "{what:?}");
        }
        assert_eq!(with(Happening::Pause { node: 0, micros: SECOND }), Ok(()));
        let changes: [fn(&mut Plan); 3] =
            [|plan| plan.calm_at = u64::MAX, |plan| plan.settle_max = u64::MAX, |plan| plan.setup.skew = u64::MAX];
        for change in changes {
            let mut plan = plan.clone();
            change(&mut plan);
            assert!(plan.check().is_err());
        }
    }

    #[test]
    fn changes_are_of_every_kind_and_each_can_be_made() {
        let mut schedule = Schedule::default();
        changes(&mut schedule, &mut Draw::new(1, "changes"), &[0, 1, 2], 30, 500, SECOND, 10 * SECOND);
        let all: Vec<Change> = schedule
            .entries()
            .iter()
            .filter_map(|entry| match &entry.what {
                Happening::Change { changes, .. } if entry.what.is_within_bounds() => Some(changes.clone()),
                _ => None,
            })
            .flatten()
            .collect();
        assert!(schedule.entries().len() > 500 && all.len() > schedule.entries().len(), "some are undone, and some are batches");
        let has = |is: &dyn Fn(&Change) -> bool| all.iter().filter(|change| is(change)).count();
        for kind in KINDS {
            assert!(has(&|change| change.place.kind == kind) > 20, "{kind:?}");
        }
        assert!(has(&|change| change.deed == Deed::Remove) > 5 && has(&|change| matches!(change.deed, Deed::Take { .. })) > 10);
        assert!((450..=500).contains(&schedule.next_write()), "what counts has no number");
        let next = schedule.next_write();
        expire(&mut schedule, &mut Draw::new(1, "expiring"));
        assert!(schedule.entries().iter().all(|entry| entry.what.is_within_bounds()) && schedule.next_write() == next);
        assert!(format!("{schedule:?}").matches("SetFor").count() > 10);
    }

    #[test]
    fn nobody_is_told_of_a_node_that_started_later_but_the_first() {
        for how in [Join::OneByOne, Join::Staggered, Join::Storm, Join::ThroughOne] {
            let mut schedule = Schedule::default();
            join(&mut schedule, &mut Draw::new(1, "join"), 0..20, how, 0, 10 * SECOND);
            let starts = schedule.entries();
            assert_eq!(starts.len(), 20);
            assert!(starts.is_sorted_by_key(|entry| entry.at));
            for entry in &starts[1..] {
                let Happening::Start { node, contacts } = &entry.what else { panic!("{entry:?}") };
                assert!(!contacts.is_empty() && contacts.iter().all(|contact| contact < node));
            }
        }
    }
}
