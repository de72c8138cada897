//! Runs that may be large: whether the memory holds them, and threads for one of them.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Usage, cpu};
use crate::job::Job;
use crate::report::metrics::Results;
use crate::run::{Outcome, Progress};
use crate::scale::shard::Shard;
use crate::{scale, scenarios};

/// Bytes in the unit that people think in.
pub(super) fn gigabytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{} MB", bytes.div_ceil(1_000_000)),
        1_000_000_000.. => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// Refuses what the memory of this machine cannot hold.
pub(super) fn fits(job: &Job) -> Result<(), Usage> {
    let Some(left) = cpu::memory_left() else { return Ok(()) };
    let nodes = job.nodes();
    let (needed, instead) = match job {
        Job::Whole(plan) => {
            let full_mesh = plan.tuning.full_mesh;
            let instead = match full_mesh {
                true => "without `--set topology=mesh` a node has a handful of links instead of one to each".to_owned(),
                false => "`run scale` runs the overlay without membership, up to millions of nodes".to_owned(),
            };
            (scenarios::bytes(nodes, full_mesh) + scenarios::state_bytes(nodes, plan.schedule.keys()), instead)
        }
        Job::Overlay(plan) => {
            let most = left / (plan.bytes() / u64::from(nodes)).max(1);
            let instead = format!("`--nodes {most}` would fit, and fewer `messages`, `senders` or a shorter `retention` take less each");
            (plan.bytes(), instead)
        }
    };
    match needed > left {
        true => Err(Usage(format!(
            "{nodes} nodes take about {} of memory, and {} are left on this machine; {instead}",
            gigabytes(needed),
            gigabytes(left)
        ))),
        false => Ok(()),
    }
}

/// Plays a run of the overlay alone, each shard on a thread; gives the processor time that the other threads took, too.
pub(super) fn play(plan: &scale::Plan, results: Option<&mut Results>, watch: &mut dyn FnMut(Progress)) -> (Outcome, f64) {
    let helped = AtomicU64::new(0);
    let outcome = scale::observe(plan, results, &mut |shards, work| on_threads(shards, work, &helped), watch);
    (outcome, helped.into_inner() as f64 / 1e9)
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
