//! What a run gave, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::Finished;
use crate::report::metrics::{Spread, spread};
use crate::run::{Failure, Outcome};

/// The version of the JSON reports; it grows when a field changes its meaning or goes away.
const SCHEMA: u32 = 1;

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

fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 { format!("{value:.0}") } else { format!("{value:.3}") }
}

/// As [`number`], with enough digits to tell a small one from nothing.
fn short(value: f64) -> String {
    if value != 0.0 && value.abs() < 0.05 { format!("{value:.6}") } else { number(value) }
}

/// A failure in one line, with what shows it again.
pub(super) fn line(finished: &Finished, failure: &Failure) -> String {
    let node = failure.node.map_or(String::new(), |node| format!(" node {node}"));
    format!(
        "FAIL {} {}: seed {} at {:.3} s{node}: {}; replay: {}",
        failure.class.name(),
        failure.what,
        finished.outcome.seed,
        failure.at as f64 / 1e6,
        failure.detail,
        finished.replay
    )
}

/// Several seeds of one scenario.
pub(super) struct Seeds<'a> {
    pub(super) seeds: std::ops::Range<u64>,
    pub(super) replay: &'a str,
    pub(super) runs: Vec<&'a Finished>,
}

impl Seeds<'_> {
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
        #[derive(Serialize)]
        struct Value {
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
        let value = |Spread { name, mean, worst, .. }: Spread| {
            (name, Value { mean, worst: worst.map(|(value, _)| value), worst_seed: worst.map(|(_, seed)| seed) })
        };
        pretty(&Json {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            scenario: self.runs.first().map_or("", |run| &run.outcome.scenario),
            first_seed: self.seeds.start,
            end_seed: self.seeds.end,
            ok: self.runs.iter().all(|run| run.outcome.ok),
            metrics: self.spreads().into_iter().map(value).collect(),
            events,
            cpu_s,
            events_per_cpu_s: rate(events, cpu_s),
            replay: self.replay,
            runs: self.runs.iter().map(|run| report(run)).collect(),
        })
    }
}

/// Many runs.
pub(super) struct Swarm<'a> {
    pub(super) seeds: std::ops::Range<u64>,
    pub(super) done: u64,
    pub(super) events: u64,
    pub(super) cpu_s: f64,
    pub(super) failed: &'a [Finished],
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
            failed: Vec<Report<'a>>,
        }
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
            failed: self.failed.iter().map(report).collect(),
        })
    }
}
