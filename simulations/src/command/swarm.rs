//! Many small clusters with random parameters and random faults, one for each seed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Output, Usage, complain, give, lock, planted, play, progress, report, verdict};
use crate::host::{Host, Plant};
use crate::invariants::sometimes::Coverage;
use crate::job::Job;
use crate::run::Class;
use crate::swarm;

/// From so many runs of a swarm on, whatever must happen sometimes must have happened.
const SEEDS_FOR_COVERAGE: u64 = 200;

/// Runs the swarm of a range of seeds and says what happened in it; of one seed, what a run says.
pub(super) fn run<H: Host>(
    seeds: std::ops::Range<u64>,
    threads: u16,
    failures_max: u64,
    plant: Option<Plant>,
    output: &Output,
) -> Result<u8, Usage> {
    let draw = |seed| {
        let mut plan = swarm::plan(seed);
        planted(&mut plan, plant);
        Job::Whole(Box::new(plan))
    };
    if seeds.end - seeds.start == 1 {
        let job = draw(seeds.start);
        let mut bar = progress::Bar::start(output.quiet, &job);
        let finished = play::<H>(&job, None, &mut |progress| bar.show(progress))?;
        bar.finish();
        give(output, &report::table(&finished), &report::json(&finished))?;
        return Ok(verdict(&finished));
    }
    let count = seeds.end - seeds.start;
    let bar = Mutex::new(progress::Count::start(output.quiet, "swarm", count));
    let next = AtomicU64::new(seeds.start);
    let (events, failures) = (AtomicU64::new(0), AtomicU64::new(0));
    let coverage = Mutex::new(Coverage::default());
    let stop = AtomicBool::new(false);
    let failed = Mutex::new(Vec::new());
    let trouble = Mutex::new(None);
    let cpu = Mutex::new(0.0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    match play::<H>(&draw(seed), None, &mut |_| {}) {
                        Ok(finished) => {
                            events.fetch_add(finished.outcome.events, Ordering::Relaxed);
                            *lock(&cpu) += finished.cpu_s;
                            lock(&coverage).add(&finished.outcome);
                            let line = finished.outcome.failure.as_ref().map(|failure| report::line(&finished, failure));
                            if let Some(line) = line {
                                let before = failures.fetch_add(1, Ordering::Relaxed);
                                if before + 1 >= failures_max {
                                    stop.store(true, Ordering::Relaxed);
                                }
                                lock(&bar).interrupt(&line);
                                lock(&failed).push(finished);
                            }
                            lock(&bar).advance(failures.load(Ordering::Relaxed));
                        }
                        Err(usage) => {
                            *lock(&trouble) = Some(usage);
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let done = lock(&bar).finish();
    if let Some(usage) = lock(&trouble).take() {
        return Err(usage);
    }
    let mut failed = std::mem::take(&mut *lock(&failed));
    failed.sort_by_key(|finished| finished.outcome.seed);
    let coverage = std::mem::take(&mut *lock(&coverage));
    let never = coverage.never();
    let swarm = report::Swarm { seeds, done, events: events.into_inner(), cpu_s: *lock(&cpu), failed: &failed, coverage: &coverage };
    give(output, &swarm.text(), &swarm.json())?;
    let failure = failed.first().and_then(|finished| finished.outcome.failure.as_ref());
    if failure.is_none() && done >= SEEDS_FOR_COVERAGE && !never.is_empty() {
        complain(&format!("FAIL vacuous: in {done} runs these never happened: {}", never.join(", ")));
        return Ok(Class::Vacuous.exit_code());
    }
    Ok(failure.map_or(0, |failure| failure.class.exit_code()))
}
