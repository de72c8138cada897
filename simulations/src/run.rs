//! One run, from its plan to its outcome.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::graph::living;
use crate::host::Host;
use crate::invariants::{self, Bounds, Invariant, Kind, View, Violation};
use crate::ledger::Judgment;
use crate::membership::Membership;
use crate::network::Measured;
use crate::plan::{self, Plan, SECOND};
use crate::rare;
use crate::record::{Record, Totals};
use crate::report::metrics::{self, Results};
use crate::schedule::{Entry, Happening};
use crate::world::{Seen, Sight, Step, World};

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Microseconds of virtual time that have passed.
    pub now: u64,
    /// Microseconds after which the run is over at the latest.
    pub ends_at: u64,
    /// Events that nodes have handled.
    pub events: u64,
    /// Nodes that are alive.
    pub alive: usize,
}

/// A number that a run gives.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: f64,
    /// Its unit; empty for a plain count or ratio.
    pub unit: &'static str,
}

/// What became of one invariant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Its name.
    pub name: &'static str,
    /// `always` or `eventually`.
    pub kind: &'static str,
    /// Whether it held.
    pub ok: bool,
}

/// The class of a failure, which is also the exit code of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A metric is not as expected.
    Expectation,
    /// What the run is about did not happen, so it showed nothing.
    Vacuous,
    /// Something was broken that must always hold.
    Safety,
    /// Something did not come to hold once everything was whole and quiet.
    Liveness,
    /// A node panicked.
    Panic,
    /// Two runs of one seed differ.
    NonDeterminism,
}

impl Class {
    /// A short stable name.
    pub fn name(self) -> &'static str {
        match self {
            Class::Expectation => "expectation",
            Class::Vacuous => "vacuous",
            Class::Safety => "safety",
            Class::Liveness => "liveness",
            Class::Panic => "panic",
            Class::NonDeterminism => "non-determinism",
        }
    }

    /// The exit code of the command.
    pub fn exit_code(self) -> u8 {
        match self {
            Class::Expectation | Class::Vacuous => 2,
            Class::Safety => 3,
            Class::Liveness => 4,
            Class::Panic => 5,
            Class::NonDeterminism => 6,
        }
    }
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The class.
    pub class: Class,
    /// The invariant, the metric or the missing happening.
    pub what: String,
    /// When, in microseconds since the start.
    pub at: u64,
    /// At which node, if at one.
    pub node: Option<u32>,
    /// What was found.
    pub detail: String,
}

/// What a run gave.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The scenario.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// How many nodes it had.
    pub nodes: u32,
    /// The digest of everything that happened.
    pub digest: String,
    /// Events that nodes handled.
    pub events: u64,
    /// Seconds of virtual time that passed.
    pub virtual_s: f64,
    /// Whether everything was as it must be.
    pub ok: bool,
    /// Why not.
    pub failure: Option<Failure>,
    /// The invariants.
    pub invariants: Vec<Verdict>,
    /// The numbers; in JSON a map from name to value.
    #[serde(serialize_with = "as_map")]
    pub metrics: Vec<Metric>,
    /// The digest after each second of virtual time.
    #[serde(skip)]
    pub digests: Vec<u128>,
}

fn as_map<S: serde::Serializer>(metrics: &[Metric], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(metrics.iter().map(|metric| (metric.name, metric.value)))
}

impl Outcome {
    /// A metric by name.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|metric| metric.name == name).map(|metric| metric.value)
    }
}

/// Plays a plan to its end.
///
/// # Errors
///
/// What is wrong with the parameters of the nodes, in words. Nothing has run then.
pub fn run<H: Host>(plan: &Plan, progress: &mut dyn FnMut(Progress)) -> Result<Outcome, String> {
    Ok(Run::<H>::new(plan)?.played(progress).outcome())
}

/// Plays a plan to its end and gives, beside the outcome, what was seen.
///
/// # Errors
///
/// Those of [`run`].
pub fn recorded<H: Host>(plan: &Plan, progress: &mut dyn FnMut(Progress)) -> Result<(Outcome, Record), String> {
    let run = Run::<H>::new(plan)?.played(progress);
    let record = run.record.clone();
    Ok((run.outcome(), record))
}

/// Plays a plan to its end and gives, beside the outcome, what reports show; the outcome has further metrics then, and is the same otherwise.
///
/// # Errors
///
/// Those of [`run`]; the results are as they were then.
pub fn observe<H: Host>(plan: &Plan, results: &mut Results, progress: &mut dyn FnMut(Progress)) -> Result<Outcome, String> {
    let mut run = Run::<H>::new(plan)?;
    run.world.count_payloads();
    let run = run.played(progress);
    *results = Results::new(plan, &run.record, &run.world, run.world.moved(), run.world.carried());
    let mut outcome = run.outcome();
    outcome.metrics.extend(metrics::further(results));
    Ok(outcome)
}

/// Where two runs of one plan went apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// The second of virtual time, from 0.
    pub second: u64,
    /// How many events of that second came before.
    pub index: usize,
    /// What the first run did next, if it did anything.
    pub one: Option<Step>,
    /// What the second did.
    pub two: Option<Step>,
}

/// Plays a plan twice side by side, and gives, beside the outcome of the first run, the event at which the second went another way.
///
/// # Errors
///
/// Those of [`run`].
pub fn twice<H: Host>(plan: &Plan, progress: &mut dyn FnMut(Progress)) -> Result<(Outcome, Option<Divergence>), String> {
    let (mut one, mut two) = (Run::<H>::new(plan)?, Run::<H>::new(plan)?);
    one.world.trace();
    two.world.trace();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let mut divergence = None;
    for number in 0.. {
        let goes_on = one.second(number, progress);
        let both_go_on = two.second(number, &mut |_| {}) && goes_on;
        one.world.take_trace(&mut first);
        two.world.take_trace(&mut second);
        let index = first.iter().zip(&second).take_while(|(one, two)| one == two).count();
        let (one, two) = (first.get(index).copied(), second.get(index).copied());
        if one.is_some() || two.is_some() {
            divergence = Some(Divergence { second: number, index, one, two });
        }
        if divergence.is_some() || !both_go_on {
            break;
        }
    }
    Ok((one.outcome(), divergence))
}

/// A run under way.
pub(crate) struct Run<'a, H: Host> {
    plan: &'a Plan,
    pub(crate) world: World<H>,
    record: Record,
    membership: Membership,
    invariants: Vec<Box<dyn Invariant>>,
    seen: Vec<Seen>,
    digests: Vec<u128>,
    /// When the last node starts for the first time.
    last_start: Option<u64>,
    formed_at: Option<u64>,
    settled_at: Option<u64>,
    /// When the last partition ends, and when the overlay was one piece for the first time after that.
    cut_until: Option<u64>,
    reunited_at: Option<u64>,
    /// From when on nothing keeps replicas from becoming equal: the last partition is over and the last write made; and when they first were.
    written_at: Option<u64>,
    equal_at: Option<u64>,
    pub(crate) failure: Option<Failure>,
}

impl<'a, H: Host> Run<'a, H> {
    fn new(plan: &'a Plan) -> Result<Self, String> {
        Ok(Self::with(plan, H::params(&plan.tuning)?))
    }

    /// The same at its end.
    fn played(mut self, progress: &mut dyn FnMut(Progress)) -> Self {
        let mut second = 0;
        while self.second(second, progress) {
            second += 1;
        }
        self
    }

    /// A run whose nodes have these parameters, whatever the plan says.
    pub(crate) fn with(plan: &'a Plan, params: H::Params) -> Self {
        let bounds = Bounds { neighbors_max: H::neighbors_max(&params, plan.setup.nodes) };
        let entries = plan.schedule.entries();
        // In a plan from before there was a word for it, all who start form the cluster.
        let work_at = if plan.work_at == 0 { u64::MAX } else { plan.work_at };
        let founders = entries.iter().filter(|entry| matches!(entry.what, Happening::Start { .. }) && entry.at <= work_at).count();
        let ends = entries.iter().filter_map(|entry| match entry.what {
            Happening::Partition { until, .. } => Some(until),
            _ => None,
        });
        let starts = entries.iter().filter(|entry| matches!(entry.what, Happening::Start { .. }));
        Run {
            plan,
            world: World::<H>::new(plan.setup.clone(), params, plan.schedule.clone()),
            record: Record::new(plan.setup.nodes),
            membership: Membership::new(plan.setup.nodes, work_at, founders, ends.collect()),
            invariants: invariants::all(bounds),
            seen: Vec::new(),
            digests: Vec::new(),
            last_start: starts.map(|entry| entry.at).max(),
            formed_at: None,
            settled_at: None,
            cut_until: plan.schedule.entries().iter().filter_map(Entry::parts_until).max(),
            reunited_at: None,
            written_at: plan.schedule.last_write().max(plan.schedule.entries().iter().filter_map(Entry::parts_until).max()),
            equal_at: None,
            failure: None,
        }
    }

    /// Plays one second of virtual time; says whether the run goes on after it.
    pub(crate) fn second(&mut self, second: u64, progress: &mut dyn FnMut(Progress)) -> bool {
        let now = (second + 1) * SECOND;
        self.world.run_until(now);
        self.digests.push(self.world.digest());
        self.look();
        let (traffic, tally) = (self.world.traffic(), self.world.tally());
        let bytes = traffic.frame_bytes + traffic.datagram_bytes;
        let totals = Totals { bytes, payloads: tally.payloads_received, copies: tally.duplicates };
        self.record.end_second(now, self.world.alive(), totals);
        progress(Progress { now, ends_at: self.plan.ends_at(), events: self.world.events(), alive: self.world.alive() });
        if self.failure.is_some() {
            return false;
        }
        if self.formed_at.is_none() && self.last_start.is_some_and(|at| at < now) && self.is_formed() {
            self.formed_at = Some(now);
        }
        if self.reunited_at.is_none() && self.cut_until.is_some_and(|until| until < now) && self.holds(&["one_component"]) {
            self.reunited_at = Some(now);
        }
        if self.equal_at.is_none() && self.written_at.is_some_and(|at| at < now) && self.holds(&["state_converged"]) {
            self.equal_at = Some(now);
        }
        let done_at = self.plan.schedule.entries().last().map_or(0, |entry| entry.at).max(self.plan.calm_at);
        if now < done_at {
            return true;
        }
        match self.unsettled() {
            None => {
                self.settled_at.get_or_insert(now);
                if now < self.plan.calm_at + self.plan.quiet_min {
                    return true;
                }
                self.failure = self.vacuous();
                false
            }
            Some((what, violation)) => {
                self.settled_at = None;
                if now < self.plan.ends_at() {
                    return true;
                }
                let Violation { at, node, detail } = violation;
                self.failure = Some(Failure { class: Class::Liveness, what: what.to_owned(), at, node: Some(node), detail });
                false
            }
        }
    }

    /// Looks at everything that was seen since the last time.
    fn look(&mut self) {
        self.world.take_seen(&mut self.seen);
        let mut ended = Vec::new();
        for seen in &self.seen {
            for invariant in &mut self.invariants {
                if let Err(Violation { at, node, detail }) = invariant.see(seen, &self.record) {
                    let what = invariant.name().to_owned();
                    self.failure = Some(Failure { class: Class::Safety, what, at, node: Some(node), detail });
                    return;
                }
            }
            self.record.take(seen);
            self.membership.take(seen);
            if seen.what == Sight::Stopped {
                ended.push((seen.node, seen.life));
            }
        }
        self.record.lives_ended(&ended, &self.world);
        self.membership.pass(self.world.now());
    }

    /// Whether the overlay is one piece and everybody knows everybody.
    fn is_formed(&self) -> bool {
        self.holds(&["one_component", "views_complete"])
    }

    /// Whether invariants hold now.
    fn holds(&self, names: &[&str]) -> bool {
        self.invariants.iter().all(|invariant| !names.contains(&invariant.name()) || invariant.check(&self.world, &self.record).is_ok())
    }

    /// The first invariant that does not hold yet.
    fn unsettled(&self) -> Option<(&'static str, Violation)> {
        self.invariants.iter().find_map(|invariant| Some((invariant.name(), invariant.check(&self.world, &self.record).err()?)))
    }

    fn vacuous(&self) -> Option<Failure> {
        let failure =
            |what: &str, detail| Failure { class: Class::Vacuous, what: what.to_owned(), at: self.world.now(), node: None, detail };
        for (name, count) in &self.plan.required {
            let happened = self.world.happened(name);
            if happened < *count {
                return Some(failure(name, format!("{happened} of at least {count} happened: the run shows nothing")));
            }
        }
        (self.plan.must_lose && self.world.losses() == 0).then(|| failure("loss", "nothing was lost: the run shows nothing".to_owned()))
    }

    fn metrics(&mut self) -> Vec<Metric> {
        let mut metrics = Vec::new();
        let mut put = |name, value: f64, unit| metrics.push(Metric { name, value, unit });
        let seconds = |micros: u64| micros as f64 / 1e6;
        let traffic = self.world.traffic();
        if let Some(at) = self.formed_at {
            put("formed", seconds(at), "s");
        }
        if let Some(at) = self.settled_at {
            put("settled", seconds(at.saturating_sub(self.plan.calm_at)), "s");
        }
        if let (Some(until), Some(at)) = (self.cut_until, self.reunited_at) {
            put("reunited", seconds(at.saturating_sub(until)), "s");
        }
        let (owed, had) = self.record.owed();
        let sent = self.record.messages().count();
        if sent > 0 {
            put("messages", sent as f64, "");
            put("delivery", if owed == 0 { 1.0 } else { had as f64 / owed as f64 }, "");
            let latencies = self.record.latencies();
            for (name, share) in [("latency_p50", 50), ("latency_p99", 99), ("latency_ms_max", 100)] {
                put(name, percentile(&latencies, share) as f64 / 1e3, "ms");
            }
            put("ldh_max", f64::from(self.record.hops_max), "");
            let tally = self.world.tally();
            let first = tally.payloads_received.saturating_sub(tally.duplicates);
            // Relative message redundancy (Leitão, Pereira and Rodrigues, SRDS 2007): payloads received per payload needed, minus one.
            put("rmr", if first == 0 { 0.0 } else { tally.duplicates as f64 / first as f64 }, "");
            put("grafts", tally.grafts as f64, "");
            put("prunes", tally.prunes as f64, "");
        }
        if !self.record.detections.is_empty() {
            let detections = &mut self.record.detections;
            detections.sort_unstable();
            for (name, share) in [("detection_p50", 50), ("detection_p99", 99), ("detection_max", 100)] {
                put(name, seconds(percentile(detections, share)), "s");
            }
        }
        put("living_held_for_dead", self.record.living_held_for_dead as f64, "");
        put("suspicions", self.record.suspicions as f64, "");
        put("rejoins", self.world.tally().renewals as f64, "");
        let (newcomer_known, newcomer_knows) = self.membership.newcomers();
        let times = [
            ("views_complete", self.membership.formed()),
            ("newcomer_known", newcomer_known),
            ("newcomer_knows", newcomer_knows),
            ("restart_known", self.membership.back()),
            ("heal", self.membership.healed()),
        ];
        for (name, micros) in times {
            if let Some(micros) = micros {
                put(name, seconds(micros), "s");
            }
        }
        if let Some((mean, most)) = self.membership.sizes() {
            put("sizes_mean", mean, "");
            put("sizes_max", most as f64, "");
        }
        let keys = (0..self.plan.setup.nodes).find_map(|node| self.world.host(node)).map_or(0, Host::state_len);
        let written = self.world.happened("write") + self.world.happened("change");
        if written > 0 {
            put("writes", written as f64, "");
            put("keys", keys as f64, "");
            self.state_metrics(&mut put);
        }
        for (name, count) in self.world.all_happened() {
            if !matches!(name, "start" | "broadcast" | "send" | "write" | "remove" | "change" | "calm") {
                put(name, count as f64, "");
            }
        }
        let buggified = self.world.tally().buggified;
        for site in self.plan.tuning.buggify.iter() {
            put(rare::metric(site), buggified[site as usize] as f64, "");
        }
        put("losses", self.world.losses() as f64, "");
        put("frames", traffic.frames as f64, "");
        put("frames_lost", traffic.frames_lost as f64, "");
        put("datagrams", traffic.datagrams as f64, "");
        let Measured { sent, lost, arrived, micros, micros_model, up_max, down_max } = self.world.measured();
        if arrived > 0 {
            put("datagram_loss", lost as f64 / sent as f64, "");
            put("datagram_latency", micros as f64 / arrived as f64 / 1e3, "ms");
            put("datagram_latency_model", micros_model / arrived as f64 / 1e3, "ms");
        }
        for (name, bytes) in [("line_up_max", up_max), ("line_down_max", down_max)] {
            if bytes > 0 {
                put(name, bytes as f64 * 8.0 / 1e3, "kbit/s");
            }
        }
        put("dials", traffic.dials as f64, "");
        put("dials_failed", traffic.dials_failed as f64, "");
        let node_seconds = seconds(self.world.now()) * f64::from(self.plan.setup.nodes);
        put("bytes_per_node", (traffic.frame_bytes + traffic.datagram_bytes) as f64 / node_seconds, "B/s");
        metrics
    }

    /// How the replicated state fared.
    fn state_metrics(&self, put: &mut impl FnMut(&'static str, f64, &'static str)) {
        if let (Some(from), Some(at)) = (self.written_at, self.equal_at) {
            put("state_equal", at.saturating_sub(from) as f64 / 1e6, "s");
        }
        // Equal replicas are judged once.
        let nodes = living(&self.world).into_iter().map(|node| (self.world.state_digest(node), node));
        let different: BTreeMap<u128, u32> = nodes.collect();
        let worst = different.into_values().map(|node| (node, self.record.judge(node, &self.world))).reduce(|worst, next| {
            let count = |judgment: &Judgment| judgment.lost.count + judgment.resurrected.count;
            if count(&next.1) > count(&worst.1) { next } else { worst }
        });
        if let Some((node, Judgment { facts, lost, resurrected })) = worst {
            put("facts", facts as f64, "");
            put("lost", lost.count as f64, "");
            put("resurrected", resurrected.count as f64, "");
            put("state_bytes", self.world.host(node).map_or(0, Host::state_bytes) as f64, "B");
        }
        let (tally, nodes) = (self.world.tally(), f64::from(self.plan.setup.nodes));
        put("repaired", tally.repaired as f64 / nodes, "");
        put("repair_entries", tally.entries_sent as f64 / nodes, "");
        put("repair_bytes", tally.repair_bytes as f64 / nodes, "B");
        put("collected", tally.collected as f64 / nodes, "");
        put("given_up", tally.given_up as f64, "");
        let ahead = living(&self.world).into_iter().filter_map(|node| self.world.ahead(node)).max();
        put("state_ahead", ahead.unwrap_or(0) as f64 / 1e3, "s");
    }

    fn outcome(self) -> Outcome {
        self.end().0
    }

    /// What the run gave, and the world as it is in the end.
    pub(crate) fn end(mut self) -> (Outcome, World<H>) {
        let metrics = self.metrics();
        if self.failure.is_none() {
            self.failure = plan::unmet(&self.plan.expectations, &metrics, self.world.now());
        }
        let verdict = |invariant: &dyn Invariant| Verdict {
            name: invariant.name(),
            kind: invariant.kind().name(),
            ok: match invariant.kind() {
                Kind::Always => self.failure.as_ref().is_none_or(|failure| failure.what != invariant.name()),
                Kind::Eventually => invariant.check(&self.world, &self.record).is_ok(),
            },
        };
        let outcome = Outcome {
            scenario: self.plan.scenario.clone(),
            seed: self.plan.setup.seed,
            nodes: self.plan.setup.nodes,
            digest: format!("{:032x}", self.world.digest()),
            events: self.world.events(),
            virtual_s: self.world.now() as f64 / 1e6,
            ok: self.failure.is_none(),
            invariants: self.invariants.iter().map(|invariant| verdict(invariant.as_ref())).collect(),
            metrics,
            failure: self.failure,
            digests: self.digests,
        };
        (outcome, self.world)
    }
}

/// The smallest value that is not below `percent` of all, of values in order.
pub(crate) fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let values: Vec<u64> = (1..=200).collect();
        assert_eq!(percentile(&values, 50), 100);
        assert_eq!(percentile(&values, 99), 198);
        assert_eq!(percentile(&values, 100), 200);
        assert_eq!(percentile(&[7], 50), 7);
        assert_eq!(percentile(&[], 50), 0);
    }
}
