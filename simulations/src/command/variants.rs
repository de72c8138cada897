//! Several runs at once: seeds, combinations of swept settings, and two variants that are compared.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;

use super::comparison::{Comparison, Limit, Pair};
use super::source::Source;
use super::{Finished, Output, Size, Usage, lock, play, progress, report, saved};
use crate::host::Host;
use crate::job::Job;
use crate::report::compare::values;
use crate::report::metrics::Results;

/// What became of a plan.
type Played = Result<(Finished, Results), Usage>;

/// Plays runs, several at once, and gives what they gave in their order. What pages show of runs of the overlay alone is left out unless there
/// will be `pages`: of a million nodes it is more than the figures are worth.
pub(super) fn play_all<H: Host>(jobs: &[Job], threads: u32, pages: bool, output: &Output) -> Result<Vec<(Finished, Results)>, Usage> {
    let shows = |job: &Job| pages || matches!(job, Job::Whole(_));
    if let [job] = jobs {
        let mut results = Results::default();
        let mut bar = progress::Bar::start(output.quiet, job);
        let finished = play::<H>(job, shows(job).then_some(&mut results), &mut |progress| bar.show(progress));
        bar.finish();
        return Ok(vec![(finished?, results)]);
    }
    let next = AtomicUsize::new(0);
    let bar = Mutex::new(progress::Count::start(output.quiet, "runs", jobs.len() as u64));
    let played: Mutex<Vec<Option<Played>>> = Mutex::new(jobs.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..threads.min(jobs.len() as u32) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(index) else { break };
                    let mut results = Results::default();
                    let finished = play::<H>(job, shows(job).then_some(&mut results), &mut |_| {});
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
    /// The first again when there is none.
    pub(super) name: Option<&'a str>,
    pub(super) set: &'a [String],
}

/// Compares two variants: result files as they are, and whatever else by playing it over the same seeds.
pub(super) fn compare<H: Host>(
    base: &str,
    other: Other<'_>,
    size: &Size,
    limit: Limit<'_>,
    threads: u32,
    output: &Output,
) -> Result<u8, Usage> {
    let name = other.name.unwrap_or(base);
    match (saved::recognize(base)?, saved::recognize(name)?) {
        (Some(_), _) if other.name.is_none() && other.set.is_empty() => {
            Err(Usage(format!("{base} holds results; name a second file to compare it with, or another combination with --set-other")))
        }

        (Some(one), Some(two)) => saved::compare([one, two], [&size.set, other.set], size, limit, output),
        (None, None) => played::<H>(base, other, size, limit, threads, output),
        (one, _) => {
            let (results, runs) = if one.is_some() { (base, name) } else { (name, base) };
            // A name that means nothing at all is told as such.
            Source::find(runs)?;
            Err(Usage(format!(
                "{results} holds results and {runs} is something to run; write its results first, `meshwork-sim run {runs} --seed A..B --json \
                 FILE.json`, and compare the two files"
            )))
        }
    }
}

/// Plays two variants over the same seeds and says what differs.
fn played<H: Host>(base: &str, other: Other<'_>, size: &Size, limit: Limit<'_>, threads: u32, output: &Output) -> Result<u8, Usage> {
    let sources = (Source::find(base)?, Source::find(other.name.unwrap_or(base))?);
    let seeds = sources.0.seeds(size);
    let more = Size { nodes: size.nodes, seed: Some(seeds.clone()), set: [&size.set[..], other.set].concat() };
    let one = |source: &Source, size: &Size| match &source.variants(size)[..] {
        [variant] => Ok(variant.clone()),
        _ => Err(Usage(
            "one of the files sweeps settings; a comparison takes one combination: pick it with --set and --set-other".to_owned(),
        )),
    };
    let (first, second) = (one(&sources.0, size)?, one(&sources.1, &more)?);
    let mut jobs = Vec::new();
    for seed in seeds.clone() {
        jobs.push(sources.0.job(size, seed, &first, 1)?);
        jobs.push(sources.1.job(&more, seed, &second, 1)?);
    }
    let played = play_all::<H>(&jobs, threads, false, output)?;
    let pairs: Vec<Pair<'_>> =
        played.chunks(2).filter_map(|pair| Some((values(&pair.first()?.0.outcome), values(&pair.get(1)?.0.outcome)))).collect();
    let shown = |index: usize| played.get(index).map_or(String::new(), |(finished, _)| finished.replay.clone());
    let failed = played.iter().filter_map(|(finished, _)| {
        let failure = finished.outcome.failure.as_ref()?;
        Some((failure.class, report::line(finished, failure)))
    });
    Comparison { seeds: seeds.collect(), base: shown(0), other: shown(1), notes: Vec::new(), failed: failed.collect() }
        .tell(&pairs, limit, output)
}
