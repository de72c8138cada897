//! Every planted bug is found by the swarm, by what should find it, and is made small.
//!
//! By default each bug is tried on the seed on record that shows it. `MESHWORK_PLANTS=200 cargo test --release --package meshwork-simulations --test plants -- --nocapture` looks for the first
//! of so many seeds, and says how small the runs become and in what time.

#![allow(clippy::disallowed_methods, reason = "a test that tells the time that a search takes")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use meshwork_simulations::host::{Plant, RealNode};
use meshwork_simulations::minimize::{faults, minimize};
use meshwork_simulations::plan::Plan;
use meshwork_simulations::run::{Class, Failure, run, twice};
use meshwork_simulations::swarm;

/// Bugs, and the first seed of the swarm that shows each.
const ON_RECORD: [(Plant, u64); 16] = [
    (Plant::NeverRepairs, 1),
    (Plant::DeliverTwice, 0),
    (Plant::DeliverNever, 0),
    (Plant::DeliverGarbled, 0),
    (Plant::HideNeighbor, 0),
    (Plant::KeepNeighbors, 0),
    (Plant::KeepMembers, 2),
    (Plant::IgnoreDisconnects, 6),
    (Plant::NeverDials, 0),
    (Plant::BlameOthers, 0),
    (Plant::NeverWakes, 0),
    (Plant::StaleIncarnation, 64),
    (Plant::LoseWrites, 1),
    (Plant::LoseRemovals, 1),
    (Plant::LoseSynced, 4),
    (Plant::Panic, 0),
];

fn play(plan: &Plan) -> Option<Failure> {
    match catch_unwind(AssertUnwindSafe(|| run::<RealNode>(plan, &mut |_| {}))) {
        Ok(outcome) => outcome.expect("parameters that nodes accept").failure,
        Err(_) => Some(Failure { class: Class::Panic, what: "panic".to_owned(), at: 0, node: None, detail: String::new() }),
    }
}

fn planted(seed: u64, plant: Plant) -> Plan {
    let mut plan = swarm::plan(seed);
    plan.plant(plant);
    plan
}

#[test]
fn every_planted_bug_is_found_and_made_small() {
    let seeds: Option<u64> = std::env::var("MESHWORK_PLANTS").ok().map(|seeds| seeds.parse().expect("a number of seeds"));
    std::panic::set_hook(Box::new(|_| {}));
    let mut trouble = Vec::new();
    for (plant, on_record) in ON_RECORD {
        let catches = |seed: &u64| play(&planted(*seed, plant)).is_some_and(|failure| failure.what == plant.caught_by());
        let found = match seeds {
            Some(seeds) => (0..seeds).find(catches),
            None => Some(on_record).filter(catches),
        };
        let Some(seed) = found else {
            trouble.push(format!("{} is not caught by {}", plant.name(), plant.caught_by()));
            continue;
        };
        if seeds.is_none() {
            continue;
        }
        let started = Instant::now();
        let smaller = minimize(&planted(seed, plant), 5_000, &mut play, &mut |_| {}).expect("it fails");
        let (nodes, faults) = (smaller.plan.schedule.count("start"), faults(&smaller.plan));
        let took = started.elapsed().as_secs_f64();
        println!("{:<20} seed {seed:>3}: {nodes:>2} nodes, {faults} faults, {} runs, {took:.1} s", plant.name(), smaller.runs);
        if nodes > 10 || faults > 3 || took > 120.0 {
            trouble.push(format!("{} is left with {nodes} nodes and {faults} faults after {took:.0} s", plant.name()));
        }
    }
    let _ = std::panic::take_hook();
    assert!(trouble.is_empty(), "{trouble:#?}");
}

#[test]
fn an_order_that_is_drawn_by_the_library_is_found_to_the_event() {
    let plan = (0..).map(|seed| planted(seed, Plant::HashOrder)).find(|plan| plan.setup.nodes > 5).expect("seeds go on");
    let (_, divergence) = twice::<RealNode>(&plan, &mut |_| {}).expect("parameters that nodes accept");
    let divergence = divergence.expect("the order is another in each run");
    assert!(divergence.one.is_some() && divergence.one != divergence.two);
    let (_, same) = twice::<RealNode>(&swarm::plan(1), &mut |_| {}).expect("parameters that nodes accept");
    assert_eq!(same, None);
}
