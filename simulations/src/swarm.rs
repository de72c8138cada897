//! Runs drawn at random from a seed: any size, any legal parameters, any faults.
//!
//! Each run draws which kinds of trouble it has at all before it draws how much of each, so that runs differ in kind (Groce, Zhang, Eide,
//! Chen and Regehr, *Swarm testing*, ISSTA 2012). Trouble ends with the first phase; in the second all is whole and quiet, and whatever
//! must hold in the end has to.

use crate::network::Shape;
use crate::plan::{self, Draw, Join, Plan, SECOND, Tuning};
use crate::schedule::{Happening, Schedule};
use crate::world::Setup;

/// The run of a seed.
pub fn plan(seed: u64) -> Plan {
    let draw = &mut Draw::new(seed, "swarm");
    let nodes_max = if draw.chance(25) { 50 } else { 16 };
    let nodes = draw.between(3, nodes_max) as u32;
    let lossy = draw.chance(60);
    let latency = if draw.chance(20) { draw.between(0, 1_000) } else { draw.between(1_000, 120_000) };
    let jitter = if draw.chance(50) { draw.below(latency / 2 + 1) } else { 0 };
    let loss = if lossy { draw.between(5, 150) as f64 / 1_000.0 } else { 0.0 };
    let setup = Setup {
        seed,
        nodes,
        link: plan::link(latency, jitter, loss),
        shape: Shape::default(),
        skew: if draw.chance(50) { draw.below(SECOND / 5) } else { 0 },
        payload_bytes: draw.between(8, 2_000) as usize,
        value_bytes: draw.between(8, 200) as usize,
        plant: None,
    };
    let active = draw.between(3, 8);
    let tuning = Tuning {
        full_mesh: draw.chance(15),
        active,
        passive: if draw.chance(30) { active } else { draw.between(active, 40) },
        retention: 300 * SECOND,
    };

    let mut schedule = Schedule::default();
    let how = [Join::OneByOne, Join::Staggered, Join::Storm][draw.below(3) as usize];
    let over = draw.between(1, 15) * SECOND;
    plan::join(&mut schedule, draw, 0..nodes, how, 0, over);
    let from = over + draw.between(5, 15) * SECOND;
    let work = draw.between(10, 40) * SECOND;
    let all: Vec<u32> = (0..nodes).collect();
    let senders = draw.between(0, u64::from(nodes) - 1);
    let mut senders = draw.take((1..nodes).collect(), senders);
    // The first node lives to the end, so at least one message is sent whatever happens to the others.
    senders.insert(0, 0);
    let messages = draw.between(1, 40);
    plan::broadcasts(&mut schedule, draw, &senders, messages, from, work);
    if draw.chance(70) {
        let (keys, writes) = (draw.between(1, 30), draw.between(1, 60));
        plan::writes(&mut schedule, draw, &all, keys, writes, from, work);
    }

    let mut required = vec![("start", u64::from(nodes)), ("broadcast", 1)];
    // The first two nodes live on at their addresses: they are whom everybody else was told of.
    let mortal: Vec<u32> = (2..nodes).collect();
    if draw.chance(50) {
        let count = draw.between(1, (u64::from(nodes) / 3).max(1));
        for node in draw.take(mortal.clone(), count) {
            let at = from + draw.below(work);
            schedule.push(at, Happening::Crash { node });
            if draw.chance(60) {
                let back = at + draw.between(SECOND / 10, 30 * SECOND);
                schedule.push(back, Happening::Restart { node, contacts: vec![0, 1], moved: draw.chance(40) });
            }
        }
        required.push(("crash", 1));
    } else if draw.chance(30) {
        let count = draw.between(1, (u64::from(nodes) / 4).max(1));
        for node in draw.take(mortal, count) {
            schedule.push(from + draw.below(work), Happening::Leave { node });
        }
        required.push(("leave", 1));
    }
    if draw.chance(35) {
        for _ in 0..draw.between(1, 2) {
            let at = from + draw.below(work);
            // Shorter than the idle timeout too, when connections outlive the cut.
            let until = at + draw.between(SECOND, 40 * SECOND);
            let size = draw.between(1, u64::from(nodes) / 2);
            let mut side = draw.take(all.clone(), size);
            side.sort_unstable();
            schedule.push(at, Happening::Partition { until, side });
        }
    }
    if draw.chance(40) {
        for _ in 0..draw.between(1, 6) {
            let node = draw.pick(&all).copied().unwrap_or(0);
            schedule.push(from + draw.below(work), Happening::Break { node });
        }
    }
    if draw.chance(30) {
        for _ in 0..draw.between(1, 4) {
            let node = draw.pick(&all).copied().unwrap_or(0);
            let micros = draw.between(SECOND / 10, 9 * SECOND);
            schedule.push(from + draw.below(work), Happening::Pause { node, micros });
        }
    }
    let ends = |entry: &crate::schedule::Entry| match entry.what {
        Happening::Partition { until, .. } => until,
        Happening::Pause { micros, .. } => entry.at + micros,
        _ => entry.at,
    };
    let calm_at = schedule.entries().iter().map(ends).max().unwrap_or(0) + SECOND;
    schedule.push(calm_at, Happening::Calm);
    schedule.sort();
    Plan {
        scenario: "swarm".to_owned(),
        replay: format!("meshwork-sim swarm --seeds {seed}"),
        setup,
        tuning,
        schedule,
        calm_at,
        quiet_min: 10 * SECOND,
        settle_max: 180 * SECOND,
        required,
        must_lose: false,
        expectations: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_give_runs_of_all_kinds() {
        let plans: Vec<Plan> = (0..200).map(plan).collect();
        for kind in ["crash", "restart", "leave", "partition", "break", "pause", "write", "remove"] {
            let with = plans.iter().filter(|plan| plan.schedule.count(kind) > 0).count();
            assert!((10..195).contains(&with), "{with} of 200 runs have a {kind}");
        }
        assert!(plans.iter().any(|plan| plan.setup.nodes == 3) && plans.iter().any(|plan| plan.setup.nodes > 40));
        assert_eq!(plan(7).schedule, plans[7].schedule);
    }
}
