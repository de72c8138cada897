//! The world and the runner, with nodes of a few lines.

use meshwork_channels::buggify::Sites;

use crate::host::{self, Host, Plant, RealNode};
use crate::network::{Burst, Capacity, Classes, Model, Shape, Trouble};
use crate::plan::{self, Draw, Join, Plan, SECOND, Tuning};
use crate::run::{Class, Outcome, run};
use crate::schedule::{Happening, Schedule};
use crate::toy::Toy;
use crate::world::{Seen, Setup, Sight, World};

const TUNING: Tuning = Tuning {
    full_mesh: false,
    active: 5,
    passive: 30,
    retention: 60 * SECOND,
    suspicion: 0,
    no_repair: false,
    collect_after: 0,
    absent_max: 0,
    without: None,
    buggify: Sites::NONE,
};

fn setup(seed: u64, nodes: u32, loss: f64) -> Setup {
    let link = plan::link(10_000, 2_000, loss);
    Setup { seed, nodes, link, shape: Shape::default(), skew: 1_000, payload_bytes: 32, value_bytes: 16, sync: 0, plant: None }
}

/// Five nodes that join, then broadcast and write for ten seconds.
fn five(seed: u64, loss: f64) -> Plan {
    let mut schedule = Schedule::default();
    let mut draw = Draw::new(seed, "test");
    plan::join(&mut schedule, &mut draw, 0..5, Join::Staggered, 0, 2 * SECOND);
    plan::broadcasts(&mut schedule, &mut draw, &[0, 3], 10, 5 * SECOND, 10 * SECOND);
    plan::writes(&mut schedule, &mut draw, &[0, 1, 2, 3, 4], 5, 20, 5 * SECOND, 10 * SECOND);
    schedule.push(16 * SECOND, Happening::Calm);
    schedule.sort();
    Plan {
        scenario: "test".to_owned(),
        replay: String::new(),
        setup: setup(seed, 5, loss),
        tuning: TUNING,
        schedule,
        work_at: 0,
        calm_at: 16 * SECOND,
        quiet_min: 2 * SECOND,
        settle_max: 30 * SECOND,
        required: vec![("start".to_owned(), 5), ("broadcast".to_owned(), 10), ("write".to_owned(), 20)],
        must_lose: loss > 0.0,
        expectations: vec![plan::Expectation { metric: "delivery".to_owned(), min: Some(1.0), max: None }],
    }
}

fn play(plan: &Plan) -> Outcome {
    run::<Toy>(plan, &mut |_| {}).unwrap()
}

/// The class and the name of what failed.
fn failed(plan: &Plan) -> Option<(Class, String)> {
    play(plan).failure.map(|failure| (failure.class, failure.what))
}

/// A world of three that knows each other, at 5 s.
fn three(entries: &[(u64, Happening)]) -> World<Toy> {
    let mut schedule = Schedule::default();
    plan::join(&mut schedule, &mut Draw::new(1, "test"), 0..3, Join::OneByOne, 0, SECOND);
    entries.iter().for_each(|(at, what)| schedule.push(*at, what.clone()));
    schedule.sort();
    let mut world = World::<Toy>::new(setup(1, 3, 0.0), (), schedule);
    world.run_until(5 * SECOND);
    for node in 0..3 {
        assert_eq!(neighbors(&world, node).len(), 2, "node {node} is connected to both others");
    }
    world
}

fn neighbors<H: Host>(world: &World<H>, node: u32) -> Vec<u32> {
    let mut neighbors = Vec::new();
    if let Some(host) = world.host(node) {
        host.visit_neighbors(&mut |peer| neighbors.push(host::index_of(peer)));
    }
    neighbors.sort_unstable();
    neighbors
}

fn seen(world: &mut World<Toy>) -> Vec<Seen> {
    let mut seen = Vec::new();
    world.take_seen(&mut seen);
    seen
}

#[test]
fn a_run_without_trouble_is_fine() {
    let outcome = play(&five(1, 0.0));
    assert!(outcome.ok, "{:?}", outcome.failure);
    assert!(outcome.invariants.iter().all(|verdict| verdict.ok));
    assert_eq!(outcome.metric("delivery"), Some(1.0));
    assert!(outcome.metric("latency_p50").unwrap() >= 5.0, "no message is faster than light");
}

#[test]
fn one_seed_is_one_run_and_another_is_another() {
    let one = play(&five(1, 0.1));
    assert!(one.ok, "{:?}", one.failure);
    assert_eq!(one.digests, play(&five(1, 0.1)).digests);
    assert_ne!(one.digest, play(&five(2, 0.1)).digest);
}

/// The digest of a run on record. It differs when the model or the toy change, and never between machines, builds or runs.
#[test]
fn the_digest_is_the_same_everywhere() {
    assert_eq!(play(&five(1, 0.1)).digest, "ad09de9ffd1e49854965010958c43551");
}

/// As above, with everything that a network can do to a packet.
#[test]
fn the_digest_is_the_same_everywhere_on_a_network_with_all_kinds_of_trouble() {
    let mut plan = five(1, 0.05);
    plan.setup.shape = Shape {
        model: Model::Earth { access: 2_000 },
        trouble: Trouble { reorder: 0.1, reorder_by: 30_000, duplicate: 0.1, burst: Some(Burst { enter: 0.05, leave: 0.25, loss: 0.9 }) },
        capacity: Capacity { up: 200, down: 100, queue: 2_000 },
        mtu: 1_200,
        classes: Classes { cone: 0.3, symmetric: 0.3, blocked: 0.1 },
    };
    assert_eq!(play(&plan).digest, "99d34f4c0be8704c94832f4e862ce69d");
}

#[test]
fn every_planted_bug_is_caught_by_its_invariant() {
    for plant in [Plant::NeverRepairs, Plant::DeliverTwice, Plant::DeliverNever, Plant::HideNeighbor, Plant::BlameOthers] {
        let mut plan = five(1, 0.0);
        plan.plant(plant);
        let outcome = play(&plan);
        let failure = outcome.failure.unwrap_or_else(|| panic!("{} was not noticed", plant.name()));
        assert_eq!(failure.what, plant.caught_by());
        assert!(failure.node.is_some());
    }
}

#[test]
fn what_did_not_happen_makes_a_run_vacuous() {
    let mut plan = five(1, 0.0);
    plan.required.push(("crash".to_owned(), 1));
    assert_eq!(failed(&plan), Some((Class::Vacuous, "crash".to_owned())));
    let mut plan = five(1, 0.0);
    plan.must_lose = true;
    assert_eq!(failed(&plan), Some((Class::Vacuous, "loss".to_owned())));
}

#[test]
fn an_entry_without_effect_did_not_happen() {
    let mut plan = five(1, 0.0);
    // Node 1 crashes once, and cannot crash again or restart while it lives.
    for (at, what) in [
        (15 * SECOND, Happening::Crash { node: 1 }),
        (15 * SECOND + 1, Happening::Crash { node: 1 }),
        (15 * SECOND + 2, Happening::Broadcast { node: 1, message: 10 }),
        (15 * SECOND + 3, Happening::Restart { node: 1, contacts: vec![0], moved: false, remembers: false, disk: false }),
        (15 * SECOND + 4, Happening::Restart { node: 1, contacts: vec![0], moved: false, remembers: false, disk: false }),
    ] {
        plan.schedule.push(at, what);
    }
    plan.schedule.sort();
    let mut world = World::<Toy>::new(plan.setup.clone(), (), plan.schedule.clone());
    world.run_until(40 * SECOND);
    assert_eq!((world.happened("crash"), world.happened("restart"), world.happened("broadcast")), (1, 1, 10));
}

#[test]
fn an_unmet_expectation_is_named() {
    let mut plan = five(1, 0.0);
    plan.expectations.push(plan::Expectation { metric: "latency_ms_max".to_owned(), min: None, max: Some(0.1) });
    assert_eq!(failed(&plan), Some((Class::Expectation, "latency_ms_max".to_owned())));
}

#[test]
fn a_crash_is_noticed_after_the_idle_timeout_and_a_goodbye_at_once() {
    let mut world = three(&[(6 * SECOND, Happening::Crash { node: 2 })]);
    world.run_until(15 * SECOND);
    assert_eq!(neighbors(&world, 0), [1, 2], "nothing was said, so nothing is known");
    world.run_until(17 * SECOND);
    assert_eq!(neighbors(&world, 0), [1]);
    assert_eq!(world.alive(), 2);

    let mut world = three(&[(6 * SECOND, Happening::Leave { node: 2 })]);
    world.run_until(6 * SECOND + 50_000);
    assert_eq!(neighbors(&world, 0), [1]);
    assert_eq!(world.alive(), 3);
    world.run_until(8 * SECOND);
    assert_eq!(world.alive(), 2);
}

#[test]
fn a_restarted_node_is_the_same_in_its_next_life_and_may_have_moved() {
    let restart = Happening::Restart { node: 2, contacts: vec![0], moved: true, remembers: false, disk: false };
    let mut world = three(&[(6 * SECOND, Happening::Crash { node: 2 }), (7 * SECOND, restart)]);
    world.run_until(40 * SECOND);
    assert_eq!(neighbors(&world, 0), [1, 2]);
    let lives: Vec<u32> =
        seen(&mut world).iter().filter(|seen| seen.node == 2 && seen.what == Sight::Started).map(|seen| seen.life).collect();
    assert_eq!(lives, [1, 2]);
    assert!(world.traffic().dials_failed > 0, "nobody answers at the old address");
}

#[test]
fn a_restarted_node_finds_those_whom_it_remembers() {
    for remembers in [true, false] {
        let restart = Happening::Restart { node: 2, contacts: Vec::new(), moved: false, remembers, disk: false };
        let mut plan = five(1, 0.0);
        plan.schedule.push(20 * SECOND, Happening::Crash { node: 2 });
        plan.schedule.push(40 * SECOND, restart);
        plan.schedule.sort();
        let params = RealNode::params(&plan.tuning).unwrap();
        let mut world = World::<RealNode>::new(plan.setup.clone(), params, plan.schedule.clone());
        // Before the others look for it again.
        world.run_until(40 * SECOND + SECOND / 2);
        assert_eq!(neighbors(&world, 2).is_empty(), !remembers);
    }
}

#[test]
fn a_long_partition_breaks_connections_and_a_short_one_delays() {
    let cut = |seconds: u64| Happening::cut((6 + seconds) * SECOND, vec![2]);
    let flood = |message| Happening::Broadcast { node: 0, message };
    let mut world = three(&[(6 * SECOND, cut(30)), (7 * SECOND, flood(0))]);
    world.run_until(30 * SECOND);
    assert_eq!((neighbors(&world, 0), neighbors(&world, 2)), (vec![1], vec![]));
    let delivered = |seen: &[Seen]| {
        seen.iter()
            .filter(|seen| matches!(seen.what, Sight::Delivered { .. }))
            .map(|seen| (seen.node, seen.at / SECOND))
            .collect::<Vec<_>>()
    };
    assert_eq!(delivered(&seen(&mut world)), [(1, 7)]);
    world.run_until(60 * SECOND);
    assert_eq!(neighbors(&world, 2), [0, 1], "the sides dial each other once it is over");
    assert_eq!(delivered(&seen(&mut world)).len(), 1);

    let mut world = three(&[(6 * SECOND, cut(5)), (7 * SECOND, flood(0))]);
    world.run_until(30 * SECOND);
    assert_eq!(delivered(&seen(&mut world)), [(1, 7), (2, 11)]);
    assert_eq!(world.traffic().connections_lost, 0);
    assert_eq!(world.happened("partition"), 1);
}

#[test]
fn a_break_ends_the_connections_of_one_node_on_both_sides() {
    let mut world = three(&[(6 * SECOND, Happening::Break { node: 1 })]);
    world.run_until(6 * SECOND + 20_000);
    assert_eq!((neighbors(&world, 0), neighbors(&world, 1), neighbors(&world, 2)), (vec![2], vec![], vec![0]));
    world.run_until(9 * SECOND);
    assert_eq!(neighbors(&world, 1), [0, 2]);
}

#[test]
fn a_paused_node_handles_what_arrived_in_order_when_it_goes_on() {
    let mut entries = vec![(6 * SECOND, Happening::Pause { node: 2, micros: 3 * SECOND })];
    entries.extend((0..20).map(|message| (7 * SECOND + u64::from(message) * 1_000, Happening::Broadcast { node: 0, message })));
    let mut world = three(&entries);
    world.run_until(8 * SECOND);
    assert!(seen(&mut world).iter().all(|seen| seen.node != 2 || !matches!(seen.what, Sight::Delivered { .. })));
    world.run_until(10 * SECOND);
    let order: Vec<u32> = seen(&mut world)
        .iter()
        .filter_map(|seen| match seen.what {
            Sight::Delivered { message, .. } if seen.node == 2 => Some(message),
            _ => None,
        })
        .collect();
    assert_eq!(order, (0..20).collect::<Vec<_>>());
}

#[test]
fn frames_of_a_channel_stay_in_order_under_loss_and_jitter() {
    let mut schedule = Schedule::default();
    plan::join(&mut schedule, &mut Draw::new(1, "test"), 0..2, Join::OneByOne, 0, SECOND);
    (0..500).for_each(|message| schedule.push(5 * SECOND + u64::from(message) * 500, Happening::Broadcast { node: 0, message }));
    let mut world = World::<Toy>::new(setup(4, 2, 0.2), (), schedule);
    world.run_until(30 * SECOND);
    let order: Vec<u32> = seen(&mut world)
        .iter()
        .filter_map(|seen| match seen.what {
            Sight::Delivered { message, .. } => Some(message),
            _ => None,
        })
        .collect();
    assert_eq!(order, (0..500).collect::<Vec<_>>());
    assert!(world.losses() > 50);
}

/// Two nodes, of which the first broadcasts 500 messages at once over lines of 80 kbit/s: by how much the last delivery is later than the lines alone would have it,
/// as a part of that.
fn late_by(capacity: Capacity) -> f64 {
    let mut schedule = Schedule::default();
    plan::join(&mut schedule, &mut Draw::new(1, "test"), 0..2, Join::OneByOne, 0, SECOND);
    (0..500).for_each(|message| schedule.push(10 * SECOND, Happening::Broadcast { node: 0, message }));
    let shape = Shape { capacity, ..Shape::default() };
    let mut world = World::<Toy>::new(Setup { shape, ..setup(4, 2, 0.0) }, (), schedule);
    world.run_until(10 * SECOND - 1);
    let before = world.traffic().frame_bytes;
    seen(&mut world);
    world.run_until(60 * SECOND);
    // Half of it is what the second node floods back.
    let bytes = (world.traffic().frame_bytes - before) / 2;
    let seen = seen(&mut world);
    let delivered: Vec<(u32, u64)> = seen
        .iter()
        .filter_map(|seen| match seen.what {
            Sight::Delivered { message, .. } => Some((message, seen.at)),
            _ => None,
        })
        .collect();
    assert!(delivered.iter().map(|(message, _)| *message).eq(0..500), "all arrive, in order");
    let took = delivered.last().unwrap().1 - 10 * SECOND;
    took as f64 / (bytes * 100) as f64 - 1.0
}

#[test]
fn lines_carry_as_much_as_they_are_said_to() {
    for (up, down) in [(80, 0), (0, 80), (80, 80)] {
        let late = late_by(Capacity { up, down, queue: 2_000 });
        assert!(late.abs() < 0.02, "{late} late at {up} kbit/s up, {down} down");
    }
}

#[test]
fn who_cannot_be_dialed_is_found_by_those_whom_it_dials() {
    for classes in [Classes { symmetric: 1.0, ..Classes::default() }, Classes { blocked: 1.0, ..Classes::default() }] {
        let mut schedule = Schedule::default();
        plan::join(&mut schedule, &mut Draw::new(1, "test"), 0..4, Join::OneByOne, 0, SECOND);
        schedule.keep_contacts(|from, to| classes.can_dial(1, from, to), |node| u32::from(node == 0));
        let shape = Shape { classes, ..Shape::default() };
        let mut world = World::<Toy>::new(Setup { shape, ..setup(1, 4, 0.0) }, (), schedule);
        world.run_until(60 * SECOND);
        assert_eq!((neighbors(&world, 0), neighbors(&world, 1)), (vec![1, 2, 3], vec![0, 2, 3]));
        assert_eq!((neighbors(&world, 2), neighbors(&world, 3)), (vec![0, 1], vec![0, 1]));
        assert!(world.traffic().dials_failed > 0);
    }
}

#[test]
fn datagrams_arrive_twice_when_told_to() {
    let events = |duplicate| {
        let mut schedule = Schedule::default();
        plan::join(&mut schedule, &mut Draw::new(1, "test"), 0..3, Join::OneByOne, 0, SECOND);
        let shape = Shape { trouble: Trouble { duplicate, ..Trouble::default() }, ..Shape::default() };
        let mut world = World::<Toy>::new(Setup { shape, ..setup(1, 3, 0.0) }, (), schedule);
        world.run_until(100 * SECOND);
        (world.events(), world.traffic().datagrams)
    };
    let ((once, _), (twice, datagrams)) = (events(0.0), events(1.0));
    assert!(datagrams > 250 && (twice - once).abs_diff(datagrams) <= 6, "{once}, {twice}, {datagrams}");
}
