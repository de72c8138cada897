//! Random writes at random replicas over a network that loses, repeats and reorders, then quiet and repair.
//!
//! `MESHWORK_TRACES` is how many small traces are run, from which seed on `MESHWORK_TRACES_FROM`:
//! `MESHWORK_TRACES=1000000 cargo test --release -p meshwork-crdt small_traces -- --nocapture`

use super::*;

fn odd_config(generator: &mut Generator) -> Config {
    let millis = Duration::from_millis;
    Config {
        flush_delay: millis(generator.random_range(0..50)),
        repair_period: Some(millis(generator.random_range(200..3_000))),
        first_repair_delay: millis(generator.random_range(1..500)),
        session_timeout: millis(generator.random_range(50..1_000)),
        burst_frames: generator.random_range(1..4),
        leads_max: generator.random_range(1..4),
        ..Config::default()
    }
}

fn run(seed: u64) -> Network {
    let mut chance = generator(seed, "trace", 0);
    let config = odd_config(&mut chance);
    let count = chance.random_range(3..=5);
    let mut network = Network::new(count, seed, &config);
    network.broadcast_loss = [0.0, 0.2, 0.9][chance.random_range(0..3)];
    network.is_ordered = chance.random_bool(0.5);
    network.control_loss = [0.0, 0.2][chance.random_range(0..2)];
    network.delay_millis = 0..chance.random_range(1..100);
    for offset in &mut network.wall_offset_millis {
        *offset = chance.random_range(-100..=100);
    }
    network.connect_all();
    for _ in 0..chance.random_range(0..120) {
        let (index, other) = (chance.random_range(0..count), chance.random_range(0..count));
        let name = format!("k{}", chance.random_range(0..12));
        match chance.random_range(0..20) {
            0..9 => {
                network.set(index, &name, &chance.random_range(0..3).to_string());
            }
            9..12 => {
                let op = Op::SetFor(bytes("briefly"), Duration::from_secs(chance.random_range(1..9)));
                network.apply(index, &name, op).unwrap();
            }
            12..15 => network.remove(index, &name),
            15 if index != other => {
                network.cut.insert((index.min(other), index.max(other)));
            }
            16 => {
                network.cut.pop_first();
            }
            17 => {
                network.handle(index, Input::NeighborDown(peer(other as u8)));
                network.handle(index, Input::NeighborUp(peer(other as u8)));
            }
            _ => {
                let pause = Duration::from_millis(chance.random_range(0..200));
                network.run_for(pause);
            }
        }
    }
    network.cut.clear();
    network.control_loss = 0.0;
    network.run_for(Duration::from_secs(40));
    assert!(network.replicas[0].iter("").all(|(_, entry)| entry.value != "briefly"), "seed {seed}");
    network
}

#[test]
fn converge_after_any_loss_repetition_and_order() {
    let (mut needed_repair, mut expired) = (0, 0);
    for seed in 0..100 {
        let mut network = run(seed);
        network.assert_converged();
        assert_eq!(network.misbehaved, [], "seed {seed}");
        needed_repair += u64::from(network.replicas.iter().any(|replica| replica.counters().repaired > 0));
        expired += network.replicas[0].counters().expired;
    }
    assert!(expired > 200, "{expired}");
    assert!(needed_repair > 35, "losses happened: {needed_repair}");
}

#[expect(clippy::disallowed_methods, reason = "how many, and from where on, is asked of whoever runs the tests")]
fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().expect("a number"))
}

/// What three replicas did in a small trace.
#[derive(Default)]
struct Done {
    /// Inserted into the set from which members are taken again, and taken from it by anybody.
    inserted: BTreeSet<Bytes>,
    taken: BTreeSet<Bytes>,
    sum: i64,
    grown: u64,
    last: Option<(Stamp, PeerId, Bytes)>,
}

/// At most 24 operations of three replicas on five keys: a set of five members, two counters, a register, and one of any kind that is removed now and then. A fifth of the
/// broadcasts is lost to each replica, half of the others come twice, and all in any order; of the messages of repair a fifth is lost, or none.
fn small(seed: u64) -> (Network, Done) {
    let mut chance = generator(seed, "small trace", 0);
    let millis = Duration::from_millis;
    let config = Config {
        flush_delay: millis(chance.random_range(0..10)),
        repair_period: Some(millis(1_000)),
        first_repair_delay: millis(500),
        session_timeout: millis(200),
        ..Config::default()
    };
    let mut network = Network::new(3, seed, &config);
    network.is_noted = false;
    network.broadcast_loss = 0.2;
    network.control_loss = [0.0, 0.2][chance.random_range(0..2)];
    network.is_ordered = false;
    network.delay_millis = 0..60;
    network.connect_all();
    let mut done = Done::default();
    for _ in 0..chance.random_range(1..=24) {
        let index = chance.random_range(0..3);
        let member = bytes(["a", "b", "c", "d", "e"][chance.random_range(0..5)]);
        match chance.random_range(0..10) {
            0..4 => {
                network.apply(index, "set", Op::Insert(member.clone())).unwrap();
                done.inserted.insert(member);
            }
            // Two of five are never taken.
            4..6 if member < bytes("d") => {
                network.apply(index, "set", Op::Take(member.clone())).unwrap();
                done.taken.insert(member);
            }
            6 => {
                let by = chance.random_range(-5..=5);
                network.apply(index, "sum", Op::Add(by)).unwrap();
                done.sum += by;
            }
            7 => {
                let by = chance.random_range(0..5);
                network.apply(index, "grown", Op::Grow(by)).unwrap();
                done.grown += by;
            }
            8 => {
                let stamp = network.apply(index, "last", Op::Set(member.clone())).unwrap().unwrap();
                done.last = done.last.max(Some((stamp, peer(index as u8), member)));
            }
            _ => match network.apply(index, "any", values::any_op(&mut chance)) {
                Ok(_) | Err(SetError::WrongKind { .. }) => {}
                Err(error) => panic!("seed {seed}: {error}"),
            },
        }
        let pause = millis([0, chance.random_range(0..40)][chance.random_range(0..2)]);
        network.run_for(pause);
    }
    network.control_loss = 0.0;
    // What was written to expire has expired, and what is under way has come.
    network.run_for(Duration::from_secs(10));
    (network, done)
}

/// Nothing is lost that nobody took out: no member, nothing that was counted, not the last write.
#[test]
fn small_traces_lose_nothing_that_nobody_took_out() {
    let (count, first) = (from_environment("MESHWORK_TRACES", 1_000), from_environment("MESHWORK_TRACES_FROM", 0));
    let (mut lost, mut needed_repair, mut members) = (0, 0, 0);
    for seed in first..first + count {
        let (mut network, done) = small(seed);
        network.assert_converged();
        assert_eq!(network.misbehaved, [], "seed {seed}");
        let replica = &network.replicas[0];
        let held: BTreeSet<Bytes> = match replica.read("set") {
            Some(Value::Set(members)) => members.into_iter().collect(),
            _ => BTreeSet::new(),
        };
        let stay: BTreeSet<Bytes> = done.inserted.difference(&done.taken).cloned().collect();
        assert!(held.is_superset(&stay) && held.is_subset(&done.inserted), "seed {seed}: {held:?}, of which {stay:?} was never taken");
        let count = |key: &str| match replica.read(key) {
            Some(Value::Count(sum)) => i128::from(sum),
            Some(Value::GCount(sum)) => i128::from(sum),
            _ => 0,
        };
        assert_eq!((count("sum"), count("grown")), (done.sum.into(), done.grown.into()), "seed {seed}");
        assert_eq!(replica.get("last"), done.last.as_ref().map(|(_, _, value)| value), "seed {seed}");
        members += stay.len();
        lost += network.lost;
        needed_repair += u64::from(network.replicas.iter().any(|replica| replica.counters().repaired > 0));
    }
    eprintln!(
        "{count} traces from seed {first}, {lost} broadcasts lost, {needed_repair} traces needed repair, {members} members that nobody took out, all there"
    );
    assert!(lost > count && needed_repair > count / 2, "losses happened: {lost}, {needed_repair}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [1, 2] {
        assert_eq!(run(seed).trace, run(seed).trace);
    }
    assert_ne!(run(1).trace, run(2).trace);
}
