//! Random writes at random replicas over a network that loses, repeats and reorders, then quiet and repair.

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

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [1, 2] {
        assert_eq!(run(seed).trace, run(seed).trace);
    }
    assert_ne!(run(1).trace, run(2).trace);
}
