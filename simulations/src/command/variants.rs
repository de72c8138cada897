//! Several runs at once: seeds, combinations of swept settings, and two variants that are compared.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;

use super::source::Source;
use super::{Finished, Output, Size, Usage, complain, give, lock, play, progress, report};
use crate::host::Host;
use crate::plan::Plan;
use crate::report::compare::{Difference, Finding, compare as differences};
use crate::report::metrics::Results;
use crate::run::{Class, Outcome};

/// What became of a plan.
type Played = Result<(Finished, Results), Usage>;

/// Plays plans, several at once, and gives what they gave in the order of the plans.
pub(super) fn play_all<H: Host>(plans: &[Plan], threads: u32, output: &Output) -> Result<Vec<(Finished, Results)>, Usage> {
    if let [plan] = plans {
        let mut results = Results::default();
        let mut bar = progress::Bar::start(output.quiet, plan);
        let finished = play::<H>(plan, Some(&mut results), &mut |progress| bar.show(progress));
        bar.finish();
        return Ok(vec![(finished?, results)]);
    }
    let next = AtomicUsize::new(0);
    let bar = Mutex::new(progress::Count::start(output.quiet, "runs", plans.len() as u64));
    let played: Mutex<Vec<Option<Played>>> = Mutex::new(plans.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..threads.min(plans.len() as u32) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(plan) = plans.get(index) else { break };
                    let mut results = Results::default();
                    let finished = play::<H>(plan, Some(&mut results), &mut |_| {});
                    if let Some(place) = lock(&played).get_mut(index) {
                        *place = Some(finished.map(|finished| (finished, results)));
                    }
                    lock(&bar).advance(0);
                }
            });
        }
    });
    lock(&bar).finish();
    let played = std::mem::take(&mut *lock(&played));
    played.into_iter().flatten().collect()
}

/// Metrics that the table of a sweep shows; the rest is in the JSON.
const SHOWN: [&str; 6] = ["delivery", "latency_p50", "latency_p99", "rmr", "settled", "bytes_per_node"];

/// A line for each combination.
pub(super) fn table(combinations: &[Vec<String>], groups: &[report::Seeds<'_>]) -> String {
    let width = combinations.iter().map(|variant| variant.join(" ").len()).max().unwrap_or(0).max(8);
    let mut text = String::new();
    if let Some(first) = groups.first() {
        let _ = writeln!(
            text,
            "{}: {} combinations, seeds {}..{}; means over the seeds\n",
            first.name(),
            groups.len(),
            first.seeds.start,
            first.seeds.end
        );
    }
    let _ = write!(text, "  {:<width$}", "");
    for name in SHOWN {
        let _ = write!(text, " {name:>14}");
    }
    text.push_str("   failed\n");
    for (variant, group) in combinations.iter().zip(groups) {
        let _ = write!(text, "  {:<width$}", variant.join(" "));
        for name in SHOWN {
            let value = group.mean(name).map_or("-".to_owned(), |(value, unit)| format!("{} {unit}", report::number(value)));
            let _ = write!(text, " {:>14}", value.trim_end());
        }
        let _ = writeln!(text, " {:>8}", group.runs.iter().filter(|run| !run.outcome.ok).count());
    }
    text
}

/// All combinations as JSON.
pub(super) fn json(combinations: &[Vec<String>], groups: &[report::Seeds<'_>]) -> String {
    #[derive(Serialize)]
    struct Combination<'a> {
        set: &'a [String],
        #[serde(flatten)]
        seeds: serde_json::Value,
    }
    #[derive(Serialize)]
    struct Json<'a> {
        schema: u32,
        version: &'static str,
        ok: bool,
        combinations: Vec<Combination<'a>>,
    }
    let ok = groups.iter().flat_map(|group| &group.runs).all(|run| run.outcome.ok);
    let combination = |(set, group): (&'_ Vec<String>, &report::Seeds<'_>)| (set.clone(), group.value());
    let all: Vec<(Vec<String>, serde_json::Value)> = combinations.iter().zip(groups).map(combination).collect();
    let combinations = all.iter().map(|(set, seeds)| Combination { set, seeds: seeds.clone() }).collect();
    report::pretty(&Json { schema: report::SCHEMA, version: env!("CARGO_PKG_VERSION"), ok, combinations })
}

/// The second of two variants.
pub(super) struct Other<'a> {
    pub(super) name: &'a str,
    pub(super) set: &'a [String],
}

/// When a comparison fails.
pub(super) struct Limit<'a> {
    /// The share of its value by which a metric may be worse.
    pub(super) worse: f64,
    /// The metrics that are looked at; all when none is named.
    pub(super) metrics: &'a [String],
}

/// Plays two variants over the same seeds and says what differs.
pub(super) fn compare<H: Host>(
    base: &str,
    other: Other<'_>,
    size: &Size,
    limit: Limit<'_>,
    threads: u32,
    output: &Output,
) -> Result<u8, Usage> {
    let sources = (Source::find(base)?, Source::find(other.name)?);
    let seeds = sources.0.seeds(size);
    let more = Size { nodes: size.nodes, seed: Some(seeds.clone()), set: [&size.set[..], other.set].concat() };
    let one = |source: &Source, size: &Size| match &source.variants(size)[..] {
        [variant] => Ok(variant.clone()),
        _ => Err(Usage(
            "one of the files sweeps settings; a comparison takes one combination: pick it with --set and --set-other".to_owned(),
        )),
    };
    let (first, second) = (one(&sources.0, size)?, one(&sources.1, &more)?);
    let mut plans = Vec::new();
    for seed in seeds.clone() {
        plans.push(sources.0.plan(size, seed, &first)?);
        plans.push(sources.1.plan(&more, seed, &second)?);
    }
    let played = play_all::<H>(&plans, threads, output)?;
    let pairs: Vec<(&Outcome, &Outcome)> =
        played.chunks(2).filter_map(|pair| Some((&pair.first()?.0.outcome, &pair.get(1)?.0.outcome))).collect();
    let mut found = differences(&pairs);
    if let Some(unknown) = limit.metrics.iter().find(|name| !found.iter().any(|difference| difference.name == **name)) {
        let names: Vec<&str> = found.iter().map(|difference| difference.name).collect();
        return Err(Usage(crate::settings::unknown("metric", unknown, &names).to_string()));
    }
    found.retain(|difference| limit.metrics.is_empty() || limit.metrics.iter().any(|name| name == difference.name));
    let worse: Vec<&Difference> =
        found.iter().filter(|difference| difference.verdict == Finding::Worse && difference.relative().abs() > limit.worse).collect();
    let failed: Vec<&Finished> = played.iter().map(|(finished, _)| finished).filter(|finished| !finished.outcome.ok).collect();

    let mut text = format!(
        "seeds {}..{}, {} pairs\n  base   {}\n  other  {}\n\n",
        seeds.start,
        seeds.end,
        pairs.len(),
        shown(&played, 0),
        shown(&played, 1)
    );
    let _ = writeln!(text, "  {:<22} {:>12} {:>12} {:>12} {:>12} {:>9}", "", "base", "other", "difference", "+- 95 %", "relative");
    for difference in &found {
        let Difference { name, unit, base, other, mean, half, verdict, .. } = difference;
        let number = report::number;
        let half = if half.is_finite() { number(*half) } else { "-".to_owned() };
        let relative = match difference.relative() {
            relative if relative.is_finite() => format!("{:+.1} %", relative * 100.0),
            _ => "-".to_owned(),
        };
        let verdict = if *verdict == Finding::Same { "" } else { verdict.name() };
        let line = format!(
            "  {name:<22} {:>12} {:>12} {:>12} {half:>12} {relative:>9}  {verdict} {unit}",
            number(*base),
            number(*other),
            number(*mean)
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    give(output, &text, &compared(&found, &seeds, &played, worse.is_empty() && failed.is_empty()))?;
    for finished in &failed {
        if let Some(failure) = &finished.outcome.failure {
            complain(&report::line(finished, failure));
        }
    }
    for difference in &worse {
        complain(&format!(
            "FAIL expectation {}: {} against {}: worse by {:.1} %, beyond chance and the {:.1} % that are allowed",
            difference.name,
            report::number(difference.other),
            report::number(difference.base),
            difference.relative().abs() * 100.0,
            limit.worse * 100.0
        ));
    }
    let failure = failed.first().and_then(|finished| finished.outcome.failure.as_ref()).map(|failure| failure.class);
    Ok(failure.or((!worse.is_empty()).then_some(Class::Expectation)).map_or(0, Class::exit_code))
}

fn shown(played: &[(Finished, Results)], index: usize) -> &str {
    played.get(index).map_or("", |(finished, _)| &finished.replay)
}

fn compared(found: &[Difference], seeds: &std::ops::Range<u64>, played: &[(Finished, Results)], ok: bool) -> String {
    #[derive(Serialize)]
    struct Row {
        metric: &'static str,
        unit: &'static str,
        seeds: usize,
        base: f64,
        other: f64,
        difference: f64,
        half_95: Option<f64>,
        verdict: &'static str,
    }
    #[derive(Serialize)]
    struct Json<'a> {
        schema: u32,
        version: &'static str,
        ok: bool,
        first_seed: u64,
        end_seed: u64,
        base: &'a str,
        other: &'a str,
        rows: Vec<Row>,
    }
    let row = |difference: &Difference| Row {
        metric: difference.name,
        unit: difference.unit,
        seeds: difference.seeds,
        base: difference.base,
        other: difference.other,
        difference: difference.mean,
        half_95: difference.half.is_finite().then_some(difference.half),
        verdict: difference.verdict.name(),
    };
    report::pretty(&Json {
        schema: report::SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        ok,
        first_seed: seeds.start,
        end_seed: seeds.end,
        base: shown(played, 0),
        other: shown(played, 1),
        rows: found.iter().map(row).collect(),
    })
}
