//! What a run gave, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::Finished;
use crate::invariants::sometimes::Coverage;
use crate::minimize::{Minimized, faults};
use crate::plan::Plan;
use crate::report::metrics::{Spread, spread};
use crate::run::{Failure, Outcome};

/// The version of the JSON reports; it grows when a field changes its meaning or goes away.
pub(super) const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Report<'a> {
    schema: u32,
    version: &'static str,
    #[serde(flatten)]
    outcome: &'a Outcome,
    cpu_s: f64,
    events_per_cpu_s: f64,
    replay: &'a str,
    plan: &'a str,
}

fn report(finished: &Finished) -> Report<'_> {
    Report {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        outcome: &finished.outcome,
        cpu_s: finished.cpu_s,
        events_per_cpu_s: rate(finished.outcome.events, finished.cpu_s),
        replay: &finished.replay,
        plan: &finished.plan,
    }
}

fn rate(events: u64, cpu_s: f64) -> f64 {
    events as f64 / cpu_s.max(1e-6)
}

/// Any value as JSON for people.
pub(super) fn pretty<T: Serialize>(value: &T) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"));
    text.push('\n');
    text
}

/// One run as JSON.
pub(super) fn json(finished: &Finished) -> String {
    pretty(&report(finished))
}

/// One run as a table.
pub(super) fn table(finished: &Finished) -> String {
    let outcome = &finished.outcome;
    let mut text = String::new();
    let _ = writeln!(text, "{}, seed {}: {}", outcome.scenario, outcome.seed, finished.plan);
    let _ = writeln!(
        text,
        "  {:.0} s of virtual time in {:.2} s of processor time: {} events, {:.2} M/s",
        outcome.virtual_s,
        finished.cpu_s,
        outcome.events,
        rate(outcome.events, finished.cpu_s) / 1e6
    );
    let _ = writeln!(text, "  digest {}\n", outcome.digest);
    // Two columns, filled downwards.
    let half = outcome.metrics.len().div_ceil(2);
    let cell = |metric: &crate::run::Metric| format!("{:<22} {:>12} {:<4}", metric.name, short(metric.value), metric.unit);
    for (index, metric) in outcome.metrics.iter().take(half).enumerate() {
        let right = outcome.metrics.get(index + half).map(cell).unwrap_or_default();
        let _ = writeln!(text, "{}", format!("  {}  {right}", cell(metric)).trim_end());
    }
    text.push('\n');
    for verdict in &outcome.invariants {
        let _ = writeln!(text, "  {:<6} {:<28} {}", if verdict.ok { "holds" } else { "FAILS" }, verdict.name, verdict.kind);
    }
    let _ = writeln!(text, "\n  {}", if outcome.ok { "ok" } else { "FAILED" });
    text
}

pub(super) fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 { format!("{value:.0}") } else { format!("{value:.3}") }
}

/// As [`number`], with enough digits to tell a small one from nothing.
fn short(value: f64) -> String {
    if value != 0.0 && value.abs() < 0.05 { format!("{value:.6}") } else { number(value) }
}

/// A failure in one line, with what shows it again.
pub(super) fn line(finished: &Finished, failure: &Failure) -> String {
    failed(failure, finished.outcome.seed, &finished.replay)
}

/// The same, of a run of which nothing else is left.
pub(super) fn failed(failure: &Failure, seed: u64, replay: &str) -> String {
    let node = failure.node.map_or(String::new(), |node| format!(" node {node}"));
    format!(
        "FAIL {} {}: seed {seed} at {:.3} s{node}: {}; replay: {replay}",
        failure.class.name(),
        failure.what,
        failure.at as f64 / 1e6,
        failure.detail,
    )
}

/// A plan as JSON, with a line for each entry of its schedule.
pub(super) fn plan(plan: &Plan) -> String {
    let mut bare = plan.clone();
    bare.schedule.retain(|_| false);
    let entries: Vec<String> = plan.schedule.entries().iter().map(|entry| serde_json::to_string(entry).unwrap_or_default()).collect();
    pretty(&bare).replacen("\"schedule\": []", &format!("\"schedule\": [\n    {}\n  ]", entries.join(",\n    ")), 1)
}

/// What is left of a plan, as a story.
pub(super) fn minimized(before: &Plan, smaller: &Minimized, out: &Path, cpu_s: f64) -> String {
    let size = |plan: &Plan| {
        let (nodes, entries) = (plan.schedule.count("start"), plan.schedule.entries().len());
        format!("{nodes} nodes, {} faults, {entries} entries", faults(plan))
    };
    let mut text = format!("  before  {}\n  after   {}\n", size(before), size(&smaller.plan));
    let _ = writeln!(text, "  {} runs in {cpu_s:.1} s of processor time\n", smaller.runs);
    let _ = writeln!(text, "  {}", smaller.plan.describe());
    for entry in smaller.plan.schedule.entries() {
        let what = serde_json::to_value(&entry.what).unwrap_or_default();
        let parts = what.as_object().into_iter().flatten().filter(|(key, _)| *key != "what");
        let parts: Vec<String> = parts.map(|(key, value)| format!("{key} {value}")).collect();
        let _ = writeln!(text, "  {:>10.3} s  {:<10} {}", entry.at as f64 / 1e6, entry.what.name(), parts.join(", "));
    }
    let failure = &smaller.failure;
    let node = failure.node.map_or(String::new(), |node| format!(" node {node}:"));
    let _ = writeln!(text, "  {:>10.3} s  {} {}:{node} {}", failure.at as f64 / 1e6, failure.class.name(), failure.what, failure.detail);
    let _ = writeln!(text, "\n  replay: meshwork-sim run {}", out.display());
    text
}

/// The same for programs.
pub(super) fn minimized_json(before: &Plan, smaller: &Minimized, out: &Path, cpu_s: f64) -> String {
    #[derive(Serialize)]
    struct Size {
        nodes: u64,
        faults: usize,
        entries: usize,
    }
    #[derive(Serialize)]
    struct Json<'a> {
        schema: u32,
        version: &'static str,
        before: Size,
        after: Size,
        runs: u32,
        cpu_s: f64,
        failure: &'a Failure,
        plan: &'a Plan,
        replay: String,
    }
    let size = |plan: &Plan| Size { nodes: plan.schedule.count("start"), faults: faults(plan), entries: plan.schedule.entries().len() };
    pretty(&Json {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        before: size(before),
        after: size(&smaller.plan),
        runs: smaller.runs,
        cpu_s,
        failure: &smaller.failure,
        plan: &smaller.plan,
        replay: format!("meshwork-sim run {}", out.display()),
    })
}

/// Several seeds of one scenario.
pub(super) struct Seeds<'a> {
    pub(super) seeds: std::ops::Range<u64>,
    pub(super) replay: String,
    pub(super) runs: Vec<&'a Finished>,
}

impl Seeds<'_> {
    /// The scenario.
    pub(super) fn name(&self) -> &str {
        self.runs.first().map_or("", |run| &run.outcome.scenario)
    }

    /// The mean of a metric, with its unit.
    pub(super) fn mean(&self, name: &str) -> Option<(f64, &'static str)> {
        self.spreads().into_iter().find(|spread| spread.name == name).map(|spread| (spread.mean, spread.unit))
    }

    fn spreads(&self) -> Vec<Spread> {
        spread(&self.runs.iter().map(|run| &run.outcome).collect::<Vec<_>>())
    }

    fn cost(&self) -> (u64, f64) {
        self.runs.iter().fold((0, 0.0), |(events, cpu_s), run| (events + run.outcome.events, cpu_s + run.cpu_s))
    }

    pub(super) fn text(&self) -> String {
        let Some(first) = self.runs.first() else { return String::new() };
        let (events, cpu_s) = self.cost();
        let mut text = format!("{}, seeds {}..{}: {}\n", first.outcome.scenario, self.seeds.start, self.seeds.end, first.plan);
        let rate = rate(events, cpu_s) / 1e6;
        let _ = writeln!(text, "  {} runs in {cpu_s:.2} s of processor time: {events} events, {rate:.2} M/s\n", self.runs.len());
        let _ = writeln!(text, "  {:<22} {:>12} {:>12} {:>8}", "", "mean", "worst", "in seed");
        for Spread { name, unit, mean, worst } in self.spreads() {
            let worst = worst.map_or(format!("{:>21}", ""), |(worst, seed)| format!("{:>12} {seed:>8}", number(worst)));
            let _ = writeln!(text, "{}", format!("  {name:<22} {:>12} {worst} {unit}", number(mean)).trim_end());
        }
        let failed = self.runs.iter().filter(|run| !run.outcome.ok).count();
        let verdict = if failed == 0 { "ok".to_owned() } else { format!("FAILED: {failed} of {} seeds", self.runs.len()) };
        let _ = writeln!(text, "\n  {verdict}");
        text
    }

    pub(super) fn json(&self) -> String {
        pretty(&self.value())
    }

    /// As a value that can be a part of another.
    pub(super) fn value(&self) -> serde_json::Value {
        #[derive(Serialize)]
        struct Value {
            unit: &'static str,
            mean: f64,
            worst: Option<f64>,
            worst_seed: Option<u64>,
        }
        #[derive(Serialize)]
        struct Json<'a> {
            schema: u32,
            version: &'static str,
            scenario: &'a str,
            first_seed: u64,
            end_seed: u64,
            ok: bool,
            metrics: BTreeMap<&'static str, Value>,
            events: u64,
            cpu_s: f64,
            events_per_cpu_s: f64,
            replay: &'a str,
            runs: Vec<Report<'a>>,
        }
        let (events, cpu_s) = self.cost();
        let value = |Spread { name, unit, mean, worst }: Spread| {
            (name, Value { unit, mean, worst: worst.map(|(value, _)| value), worst_seed: worst.map(|(_, seed)| seed) })
        };
        serde_json::to_value(Json {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            scenario: self.name(),
            first_seed: self.seeds.start,
            end_seed: self.seeds.end,
            ok: self.runs.iter().all(|run| run.outcome.ok),
            metrics: self.spreads().into_iter().map(value).collect(),
            events,
            cpu_s,
            events_per_cpu_s: rate(events, cpu_s),
            replay: &self.replay,
            runs: self.runs.iter().map(|run| report(run)).collect(),
        })
        .unwrap_or_default()
    }
}

/// Many runs.
pub(super) struct Swarm<'a> {
    pub(super) seeds: std::ops::Range<u64>,
    pub(super) done: u64,
    pub(super) events: u64,
    pub(super) cpu_s: f64,
    pub(super) failed: &'a [Finished],
    pub(super) coverage: &'a Coverage,
}

impl Swarm<'_> {
    pub(super) fn text(&self) -> String {
        let each = self.cpu_s / self.done.max(1) as f64;
        let mut text = format!(
            "swarm: {} of {} seeds from {} on: {} failed; {} events in {:.1} s of processor time, {each:.3} s a seed\n",
            self.done,
            self.seeds.end - self.seeds.start,
            self.seeds.start,
            self.failed.len(),
            self.events,
            self.cpu_s,
        );
        for finished in self.failed {
            let what = finished.outcome.failure.as_ref().map_or("", |failure| failure.what.as_str());
            let _ = writeln!(text, "  seed {:<8} {what:<28} {}", finished.outcome.seed, finished.replay);
        }
        text.push_str("\n  what happened          in runs    how often\n");
        for (name, (runs, count)) in &self.coverage.faults {
            let _ = writeln!(text, "  {name:<20} {runs:>9} {count:>12}");
        }
        for (name, runs) in &self.coverage.answers {
            let _ = writeln!(text, "  {runs:>9} runs in which {name}");
        }
        if !self.coverage.rare.is_empty() {
            text.push_str("\n  rare behavior               active in    fired in    how often\n");
            for (name, (active, runs, count)) in &self.coverage.rare {
                let _ = writeln!(text, "  {name:<25} {active:>11} {runs:>11} {count:>12}");
            }
        }
        text
    }

    pub(super) fn json(&self) -> String {
        #[derive(Serialize)]
        struct Json<'a> {
            schema: u32,
            version: &'static str,
            scenario: &'static str,
            first_seed: u64,
            end_seed: u64,
            seeds_run: u64,
            ok: bool,
            events: u64,
            cpu_s: f64,
            events_per_cpu_s: f64,
            happened: BTreeMap<&'static str, Happened>,
            runs_in_which: &'a BTreeMap<&'static str, u64>,
            rare: BTreeMap<&'static str, Rare>,
            failed: Vec<Report<'a>>,
        }
        #[derive(Serialize)]
        struct Happened {
            runs: u64,
            times: u64,
        }
        #[derive(Serialize)]
        struct Rare {
            active_runs: u64,
            runs: u64,
            times: u64,
        }
        let rare = |(name, (active_runs, runs, times)): (&&'static str, &(u64, u64, u64))| {
            (*name, Rare { active_runs: *active_runs, runs: *runs, times: *times })
        };
        pretty(&Json {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            scenario: "swarm",
            first_seed: self.seeds.start,
            end_seed: self.seeds.end,
            seeds_run: self.done,
            ok: self.failed.is_empty(),
            events: self.events,
            cpu_s: self.cpu_s,
            events_per_cpu_s: rate(self.events, self.cpu_s),
            happened: self.coverage.faults.iter().map(|(name, (runs, times))| (*name, Happened { runs: *runs, times: *times })).collect(),
            runs_in_which: &self.coverage.answers,
            rare: self.coverage.rare.iter().map(rare).collect(),
            failed: self.failed.iter().map(report).collect(),
        })
    }
}
