//! The overlay alone, from the command line.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use super::results::{Files, write_files};
use super::{Finished, Output, Size, Usage, compare, cpu, give, panicked, progress, report, say, verdict, weigh};
use crate::host::Plant;
use crate::report::metrics::Results;
use crate::scale::plan::{ABOUT, DEFAULTS, NODES, NODES_MAX, NODES_MIN, Plan};
use crate::scale::shard::Shard;
use crate::scale::{self, NAME};
use crate::settings::{self, KEYS};

/// Bytes in the unit that people think in.
pub(super) fn gigabytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{} MB", bytes.div_ceil(1_000_000)),
        1_000_000_000.. => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// Refuses what the memory of this machine cannot hold.
pub(super) fn fits(nodes: u32, needed: u64, instead: &str) -> Result<(), Usage> {
    match cpu::memory_left() {
        Some(left) if needed > left => Err(Usage(format!(
            "{nodes} nodes take about {} of memory, and {} are left on this machine; {instead}",
            gigabytes(needed),
            gigabytes(left)
        ))),
        _ => Ok(()),
    }
}

fn plan(size: &Size, threads: u32) -> Result<Plan, Usage> {
    let nodes = size.nodes.unwrap_or(NODES);
    if !(NODES_MIN..=NODES_MAX).contains(&nodes) {
        return Err(Usage(format!("--nodes is {nodes}; `{NAME}` has {NODES_MIN} to {NODES_MAX} nodes")));
    }
    Plan::new(nodes, size.one_seed()?, threads, &size.set).map_err(Usage)
}

/// The plan, if it fits into the memory.
fn fitting(size: &Size, threads: u32) -> Result<Plan, Usage> {
    let plan = plan(size, threads)?;
    let (nodes, needed) = (plan.setup.nodes, plan.bytes());
    let most = cpu::memory_left().unwrap_or(0) / (needed / u64::from(nodes)).max(1);
    fits(nodes, needed, &format!("`--nodes {most}` would fit, and fewer `messages`, `senders` or a shorter `retention` take less each"))?;
    Ok(plan)
}

pub(super) fn show(size: &Size, schedule: bool) -> Result<u8, Usage> {
    let plan = plan(size, 1)?;
    if schedule {
        return Err(Usage(format!("`{NAME}` has no schedule of faults; its joins and broadcasts follow from the settings")));
    }
    let mut text = format!("{NAME}: {ABOUT}\n\nSettings (--set key=value):\n");
    for (name, default) in DEFAULTS {
        let Some(key) = KEYS.iter().find(|key| key.name == *name) else { continue };
        let _ = writeln!(text, "  {name:<10} {default:<10} {} ({})", key.about, settings::describe(key.of));
    }
    let setup = &plan.setup;
    let seconds = |micros: u64| micros as f64 / 1e6;
    let _ = writeln!(text, "\nWith {} nodes and seed {}:", setup.nodes, setup.seed);
    let _ = writeln!(text, "  each joins through one of those before it, from 0.0 s to {:.1} s", seconds(setup.join_over));
    let from = setup.join_over + setup.form;
    let _ = writeln!(text, "  {:>6} x broadcast  from {:.1} s to {:.1} s", setup.messages, seconds(from), seconds(from + setup.work));
    let _ = writeln!(
        text,
        "  quiet from {:.1} s to {:.1} s, and then the graph is measured",
        seconds(from + setup.work),
        seconds(setup.ends_at())
    );
    let _ = writeln!(text, "  about {} of memory, {} B a node", gigabytes(plan.bytes()), plan.bytes() / u64::from(setup.nodes));
    say(&text);
    Ok(0)
}

pub(super) fn run(size: &Size, output: &Output, files: &Files, threads: u32, plant: Option<Plant>) -> Result<u8, Usage> {
    files.prepare()?;
    if plant.is_some() {
        return Err(Usage(format!("--plant is for scenarios of whole nodes, not for `{NAME}`")));
    }
    let plan = fitting(size, threads)?;
    let mut results = files.is_any().then(Results::default);
    let mut finished = play(&plan, results.as_mut(), output);
    if let Some(results) = results {
        // The number of threads changes nothing that is shown.
        write_files(files, &[(finished.clone(), results)], &plan.describe(), &plan.replay)?;
    }
    weigh(&mut finished);
    give(output, &report::table(&finished), &report::json(&finished))?;
    Ok(verdict(&finished))
}

/// Once on one thread and once on two.
pub(super) fn check(size: &Size, output: &Output) -> Result<u8, Usage> {
    let runs = [1, 2].map(|threads| fitting(size, threads).map(|plan| play(&plan, None, output)));
    compare(runs.into_iter().collect::<Result<_, _>>()?, output)
}

/// Plays a plan; a panic becomes a failure.
fn play(plan: &Plan, results: Option<&mut Results>, output: &Output) -> Finished {
    let mut bar = progress::Bar::named(output.quiet, plan.setup.ends_at(), format!("{NAME} seed {}", plan.setup.seed));
    let meter = cpu::Meter::start();
    let helped = AtomicU64::new(0);
    let (mut now, mut events) = (0, 0);
    let result = catch_unwind(AssertUnwindSafe(|| {
        scale::observe(plan, results, &mut |shards, work| on_threads(shards, work, &helped), &mut |progress| {
            (now, events) = (progress.now, progress.events);
            bar.show(progress);
        })
    }));
    bar.finish();
    let outcome = result.unwrap_or_else(|_| panicked(NAME, plan.setup.seed, plan.setup.nodes, now, events));
    let cpu_s = meter.seconds() + helped.into_inner() as f64 / 1e9;
    Finished { outcome, cpu_s, replay: plan.replay.clone(), plan: plan.describe() }
}

/// Each shard on a thread of its own, the first on this one; the processor time of the others is added up.
fn on_threads(shards: &mut [Shard], work: &(dyn Fn(&mut Shard) + Sync), helped: &AtomicU64) {
    let Some((first, rest)) = shards.split_first_mut() else { return };
    std::thread::scope(|scope| {
        for shard in rest {
            scope.spawn(move || {
                let meter = cpu::Meter::start();
                work(shard);
                helped.fetch_add((meter.seconds() * 1e9) as u64, Ordering::Relaxed);
            });
        }
        work(first);
    });
}
