//! Comparing by sketches: what it finds, what it costs, and what happens where it finds nothing.

use super::*;

const NAMES: usize = 600;

/// Two replicas that hold the same keys, are neighbors, and have nothing to say.
fn pair(seed: u64, keys: usize, config: &Config) -> Network {
    let mut network = Network::new(2, seed, config);
    for number in 0..keys {
        network.set(0, &format!("k{number}"), "before");
    }
    network.run_for(Duration::from_secs(1));
    network.connect_all();
    network.run_for(Duration::from_secs(1));
    assert_eq!(network.replicas[0].len(), keys);
    network.assert_converged();
    network.broadcast_loss = 1.0;
    network
}

fn sum(network: &Network, of: impl Fn(&Counters) -> u64) -> u64 {
    network.replicas.iter().map(|replica| of(replica.counters())).sum()
}

/// Something random of any kind happens to a key at one replica.
fn change(network: &mut Network, chance: &mut Generator) {
    let (index, name) = (chance.random_range(0..2), format!("k{}", chance.random_range(0..NAMES)));
    let op = match chance.random_range(0..10) {
        0 => Op::Remove,
        1 => Op::Insert(bytes("member")),
        2 => Op::Add(1),
        _ => Op::Set(bytes(&chance.random_range(0..3).to_string())),
    };
    // Of another kind, as often as not.
    let _ = network.apply(index, &name, op);
}

#[test]
fn whatever_differs_is_repaired_whatever_is_lost_and_written_meanwhile() {
    let (mut sketched, mut failed) = (0, 0);
    for seed in 0..40 {
        let mut chance = generator(seed, "sketching", 0);
        let config =
            Config { repair_period: Some(Duration::from_secs(1)), session_timeout: Duration::from_millis(300), ..Config::default() };
        let keys = [0, 10, 63, 64, 65, 500][chance.random_range(0..6)];
        let mut network = pair(seed, keys, &config);
        network.replicas.iter_mut().for_each(|replica| replica.store().check_sums());
        network.control_loss = [0.0, 0.1][chance.random_range(0..2)];
        network.is_ordered = chance.random_bool(0.5);
        for _ in 0..[1, 10, 300][chance.random_range(0..3)] {
            change(&mut network, &mut chance);
        }
        for _ in 0..100 {
            network.run_for(Duration::from_millis(30));
            if chance.random_bool(0.3) {
                change(&mut network, &mut chance);
            }
        }
        network.run_for(Duration::from_secs(15));
        network.assert_converged();
        assert_eq!(network.misbehaved, [], "seed {seed}");
        sketched += sum(&network, |counters| counters.sketched);
        failed += sum(&network, |counters| counters.sketches_failed);
    }
    assert!(sketched > 100, "{sketched}");
    assert!(failed < sketched / 10, "{failed} of {sketched}");
}

#[test]
fn the_bytes_follow_what_differs_and_without_sketches_they_do_not() {
    let cost = |count: usize, is_by_rows_alone: bool| {
        let mut network = pair(1, 5_000, &Config::default());
        network.replicas.iter_mut().for_each(|replica| replica.repair().is_by_rows_alone = is_by_rows_alone);
        for number in 0..count {
            network.set(1, &format!("k{}", number * 37), "after");
        }
        let (before, entries) = (network.message_bytes, sum(&network, |counters| counters.entries_sent));
        network.run_for(Duration::from_secs(6));
        network.assert_converged();
        assert_eq!(sum(&network, |counters| counters.entries_sent) - entries, count as u64, "each entry travels once");
        assert_eq!(sum(&network, |counters| counters.sketched) == 0, is_by_rows_alone);
        network.message_bytes - before
    };
    assert!(cost(1, false) < 800);
    assert!(cost(10, false) < 2_000);
    assert!(cost(100, false) < 14_000);
    assert!(cost(1, true) > 2_200);
    assert!(cost(100, true) > 40_000);
}

#[test]
fn replicas_whose_numbers_of_keys_are_far_apart_compare_by_rows() {
    let mut network = Network::new(2, 2, &Config::default());
    network.broadcast_loss = 1.0;
    for number in 0..3_000 {
        network.set(0, &format!("k{number}"), "x");
    }
    network.connect_all();
    network.run_for(Duration::from_secs(2));
    network.assert_converged();
    assert_eq!(sum(&network, |counters| counters.sketched + counters.sketches_failed), 0);
}

#[test]
fn as_many_other_keys_on_each_side_are_too_much_for_a_sketch_and_are_repaired_all_the_same() {
    let mut network = Network::new(2, 3, &Config::default());
    network.broadcast_loss = 1.0;
    for number in 0..2_500 {
        network.set(0, &format!("left{number}"), "x");
        network.set(1, &format!("right{number}"), "x");
    }
    network.connect_all();
    network.run_for(Duration::from_secs(5));
    network.assert_converged();
    assert!(sum(&network, |counters| counters.sketches_failed) > 0);
}

#[test]
fn a_sketch_that_names_nothing_or_what_nobody_holds_does_not_stop_repair() {
    // It was damaged.
    let mut network = pair(4, 200, &Config::default());
    network.replicas[1].store().sketch_mut().remove(7);
    network.replicas[1].store().sketch_mut().insert(8);
    network.set(0, "k7", "after");
    network.run_for(Duration::from_secs(12));
    assert!(network.has_converged());
    assert!(sum(&network, |counters| counters.sketched) > 0);

    // It shows no difference although there is one, as where an item stands for two entries.
    let mut network = pair(5, 200, &Config::default());
    network.set(0, "k7", "after");
    let same = network.replicas[0].store().sketch_mut().clone();
    *network.replicas[1].store().sketch_mut() = same;
    network.run_for(Duration::from_secs(12));
    assert!(network.has_converged());
    assert_eq!(sum(&network, |counters| counters.sketched), 0);
    assert!(sum(&network, |counters| counters.sketches_failed) > 0);
}

/// Two nodes wrote the same key under the same stamp: names do not tell who is later, rows do.
#[test]
fn what_names_leave_as_it_was_is_compared_by_rows() {
    let mut network = pair(6, 100, &Config::default());
    let stamp = stamp_ahead(network.now(0), -1_500);
    for index in 0..2 {
        let bytes = delta([("k7", stamp, Some(["a", "b"][index]))]);
        network.handle(index, Input::Delta { origin: peer(10 + index as u8), bytes });
    }
    assert!(!network.has_converged());
    network.run_for(Duration::from_secs(15));
    network.assert_converged();
    assert_eq!(network.replicas[0].get("k7"), Some(&bytes("b")));
    assert!(sum(&network, |counters| counters.sketched) > 1);
    assert!(network.compares > 0);
}

/// Entries of half a frame each, so that an answer ends many times before its last name.
#[test]
fn large_values_follow_one_another_in_one_session() {
    let mut network = pair(7, 100, &Config { burst_frames: 1, ..Config::default() });
    let value = "x".repeat(limits::VALUE_BYTES_MAX / 2 + 1_000);
    for number in 0..40 {
        network.set(number % 2, &format!("k{number}"), &value);
    }
    let completed = sum(&network, |counters| counters.completed);
    network.run_for(Duration::from_secs(6));
    network.assert_converged();
    assert_eq!(sum(&network, |counters| counters.completed) - completed, 1);
}

/// The messages that go to and fro when a replica compares with another, up to the one that is not delivered.
fn deliver_until(pair: &mut [State; 2], is_last: impl Fn(&Message) -> bool) -> Option<(usize, Message)> {
    let mut actions = Vec::new();
    let time = pair[0].next_deadline().unwrap();
    pair[0].handle(Input::DeadlineReached, at(time), &mut actions);
    let mut mail: std::collections::VecDeque<(usize, Message)> = sent(&actions).map(|message| (1, message)).collect();
    while let Some((to, message)) = mail.pop_front() {
        if is_last(&message) {
            return Some((to, message));
        }
        let mut actions = Vec::new();
        pair[to].handle(Input::Received { from: peer(1 - to as u8), message }, at(time), &mut actions);
        mail.extend(sent(&actions).map(|message| (1 - to, message)));
    }
    None
}

fn sent(actions: &[Action]) -> impl Iterator<Item = Message> {
    let one = |action: &Action| match action {
        Action::Send { message, .. } => Some(message.clone()),
        _ => None,
    };
    actions.iter().filter_map(one)
}

#[test]
fn a_write_between_cells_begins_the_cells_again() {
    let mut pair = [0, 1].map(replica);
    for number in 0..300 {
        for state in &mut pair {
            let bytes = delta([("same", Stamp::from_parts(1, number), Some("x"))]);
            state.handle(Input::Delta { origin: peer(9), bytes }, at_millis(0), &mut Vec::new());
        }
        pair[usize::from(number % 2)].set(&format!("k{number}"), bytes("x"), at_millis(u64::from(number) * 10), &mut Vec::new()).unwrap();
    }
    for _ in 0..3 {
        let _ = pair.each_mut().map(|state| state.handle(Input::DeadlineReached, at_millis(4_000), &mut Vec::new()));
    }
    pair[0].handle(Input::NeighborUp(peer(1)), at_millis(5_000), &mut Vec::new());
    let (to, ask) = deliver_until(&mut pair, |message| matches!(message, Message::AskCells { .. })).unwrap();
    let Message::AskCells { version, first, .. } = ask else { unreachable!() };
    assert!(to == 1 && first > 0);
    pair[1].set("k1", bytes("y"), at_millis(6_000), &mut Vec::new()).unwrap();
    let mut actions = Vec::new();
    pair[1].handle(Input::Received { from: peer(0), message: ask }, at_millis(6_000), &mut actions);
    let answer = sent(&actions).next().unwrap();
    let Message::Cells { version: new, cells } = &answer else { panic!("{answer:?}") };
    assert!(*new != version && cells.first == 0);
    actions.clear();
    pair[0].handle(Input::Received { from: peer(1), message: answer }, at_millis(6_000), &mut actions);
    assert!(sent(&actions).any(|message| matches!(message, Message::Want { .. })), "{actions:?}");
    assert_eq!(pair[0].counters().sketched, 1);
}

/// A neighbor whose every cell is made up gets as far as the shards, and no further.
#[test]
fn cells_that_never_decode_end_in_shards() {
    let mut generator = generator(7, "sketching", 0);
    let mut state = replica(1);
    for number in 0..3_000 {
        state.set(&format!("k{number}"), bytes("x"), at_millis(0), &mut Vec::new()).unwrap();
    }
    state.handle(Input::NeighborUp(peer(2)), at_millis(0), &mut Vec::new());
    while state.counters().probes == 0 {
        let time = state.next_deadline().unwrap();
        state.handle(Input::DeadlineReached, at(time), &mut Vec::new());
    }
    let noise = Sketch::of((0..200_000).map(|_| generator.random()), CELLS_MAX);
    let glimpse = Bounded::first_of([0x55; GLIMPSE_BYTES]);
    let mut answer = Message::Differs { keys: 3_000, wall: EPOCH, version: 0, glimpse, cells: noise.cells(0..40) };
    for version in 0..20 {
        let mut actions = Vec::new();
        state.handle(Input::Received { from: peer(2), message: answer }, at_millis(500), &mut actions);
        assert_eq!(misbehaviors(&actions), []);
        match sent(&actions).next().unwrap() {
            Message::AskCells { .. } => answer = Message::Cells { version: version + 1, cells: noise.cells(0..100) },
            Message::AskShards => {
                assert_eq!(state.counters().sketches_failed, 1);
                assert!(version > 3, "it asked for more at first");
                let time = state.next_deadline().unwrap();
                state.handle(Input::DeadlineReached, at(time.max(Time::from_secs(10))), &mut Vec::new());
                assert_eq!(state.counters().abandoned, 1, "a session has an end");
                return;
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("it asks without end");
}
