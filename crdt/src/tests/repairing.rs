//! Comparing with neighbors, and what it costs.

use super::*;

fn filled(count: usize, number: u8) -> State {
    let mut state = replica(number);
    fill(&mut state, count);
    state
}

fn fill(state: &mut State, count: usize) {
    let mut actions = Vec::new();
    for index in 0..count {
        let value = Bytes::from(format!("value of key number {index:06}"));
        state.set(&format!("registry/{index:06}"), value, at_millis(0), &mut actions).unwrap();
        actions.clear();
    }
    while let Some(deadline) = state.next_deadline() {
        state.handle(Input::DeadlineReached, at(deadline), &mut actions);
    }
}

fn snapshot_bytes(state: &State) -> u64 {
    content(state).iter().map(|(key, value, ..)| encode(key).len() + encode(value).len() + 41).sum::<usize>() as u64
}

#[test]
fn equal_neighbors_say_little() {
    let mut network = Network::new(2, 1, &Config::default());
    network.connect_all();
    network.run_for(Duration::from_secs(1));
    assert!((2..=4).contains(&network.messages), "{}", network.messages);
    network.run_for(Duration::from_secs(100));
    let periods = network.replicas.iter().map(|replica| replica.counters().probes).sum::<u64>();
    assert!((30..60).contains(&periods), "{periods}");
    assert!(network.message_bytes < 60 * network.messages);
    assert_eq!(network.replicas[0].counters().different, 0);
}

#[test]
fn one_session_repairs_both_directions() {
    let mut network = Network::new(2, 2, &Config::default());
    network.broadcast_loss = 1.0;
    for (index, name, value) in [(0, "a", "0"), (0, "both", "0"), (1, "b", "1"), (1, "gone", "1")] {
        network.set(index, name, value);
    }
    network.run_for(Duration::from_millis(5));
    network.set(1, "both", "1");
    network.remove(1, "gone");
    assert!(!network.has_converged());
    network.connect_all();
    network.run_for(Duration::from_millis(300));
    network.assert_converged();
    assert_eq!(network.replicas[0].get("both"), Some(&bytes("1")));
    assert_eq!(network.replicas[0].tombstones(), 1);
    let counters: Vec<&Counters> = network.replicas.iter().map(State::counters).collect();
    assert_eq!(counters[0].completed + counters[1].completed, 1);
    assert_eq!(counters[0].repaired, 3);
    assert_eq!(counters[1].repaired, 1);
    assert_eq!((counters[0].broadcasts, counters[1].broadcasts), (2, 3), "repair is not broadcast again");
}

/// A new node receives everything in few round trips, whichever side starts.
#[test]
fn twenty_thousand_keys_reach_an_empty_replica() {
    let full = filled(20_000, 0);
    let size = snapshot_bytes(&full);
    for starter in [0, 1] {
        let mut network = Network::new(2, 3, &Config::default());
        network.replicas[0] = full.clone();
        network.time = Time::from_secs(10);
        network.delay_millis = 5..6;
        network.handle(starter, Input::NeighborUp(peer(1 - starter as u8)));
        network.run_for(Duration::from_millis(40));
        network.handle(1 - starter, Input::NeighborUp(peer(starter as u8)));
        network.run_for(Duration::from_secs(1));
        network.assert_converged();
        assert_eq!(network.replicas[1].len(), 20_000);
        assert!(network.messages < 60, "{} messages", network.messages);
        assert!(network.compares <= 8, "{} round trips", network.compares);
        assert!(network.message_bytes * 100 < size * 110, "{} bytes for a snapshot of {size}", network.message_bytes);
        assert_eq!(network.replicas[1].counters().repaired, 20_000);
    }
}

#[test]
fn many_full_neighbors_send_a_new_one_everything_once() {
    let full = filled(5_000, 0);
    let size = snapshot_bytes(&full);
    let mut network = Network::new(6, 4, &Config::default());
    for index in 0..5 {
        network.replicas[index] = State::new(peer(index as u8), params(Config::default()), index as u64);
        fill_from(&mut network.replicas[index], &full);
    }
    network.time = Time::from_secs(10);
    network.connect_all();
    network.run_for(Duration::from_secs(5));
    network.assert_converged();
    assert!(network.message_bytes < size * 3 / 2, "{} bytes for a snapshot of {size}", network.message_bytes);
    assert_eq!(network.misbehaved, []);
}

fn fill_from(state: &mut State, full: &State) {
    let entries: Vec<wire::Entry> = full
        .iter("")
        .map(|(key, entry)| wire::Entry {
            key: key.clone(),
            stamp: entry.stamp,
            origin: entry.origin,
            body: Body::Register(entry.value.clone()),
        })
        .collect();
    for chunk in entries.chunks(wire::ENTRIES_MAX) {
        let message = Message::Entries { entries: Bounded::first_of(chunk.iter().cloned()) };
        state.handle(Input::Received { from: peer(99), message }, at_millis(0), &mut Vec::new());
    }
}

#[test]
fn a_small_difference_among_many_keys_costs_little() {
    let full = filled(20_000, 0);
    let mut network = Network::new(2, 5, &Config::default());
    network.replicas[0] = full.clone();
    fill_from(&mut network.replicas[1], &full);
    network.time = Time::from_secs(10);
    network.broadcast_loss = 1.0;
    for number in 0..10 {
        network.set(number % 2, &format!("registry/{:06}", 1_000 * number), "changed");
    }
    network.connect_all();
    network.run_for(Duration::from_secs(1));
    network.assert_converged();
    assert!(network.message_bytes < 40_000, "{} bytes", network.message_bytes);
    assert!(network.messages < 15, "{} messages", network.messages);
}

/// Rows, wants and answers all have to be cut, and large values fill frames alone.
#[test]
fn large_differences_continue_chunk_by_chunk() {
    let config = Config { burst_frames: 1, ..Config::default() };
    let mut network = Network::new(2, 6, &config);
    network.broadcast_loss = 1.0;
    for index in 0..2 {
        for number in 0..2_500 {
            network.set(index, &format!("{}{index}/{number}", ["left", "right"][index]), "x");
            network.set(index, &format!("shared/{number}"), ["0", "1"][(number + index) % 2]);
        }
        for number in 0..20 {
            let value = "x".repeat(limits::VALUE_BYTES_MAX - number);
            network.set(index, &format!("large/{index}/{number}"), &value);
        }
        network.run_for(Duration::from_millis(3));
    }
    network.connect_all();
    network.run_for(Duration::from_secs(10));
    network.assert_converged();
    assert_eq!(network.replicas[0].len(), 7_540);
    assert!(network.compares > 30 && network.compares < 300, "{} round trips", network.compares);
}

#[test]
fn a_lost_peer_frees_its_session() {
    let (mut state, mut actions) = (replica(1), Vec::new());
    state.handle(Input::NeighborUp(peer(2)), at_millis(0), &mut actions);
    let mut probes = 0;
    for _ in 0..10 {
        let deadline = state.next_deadline().unwrap();
        actions.clear();
        state.handle(Input::DeadlineReached, at(deadline), &mut actions);
        probes += actions.iter().filter(|action| matches!(action, Action::Send { message: Message::Probe { .. }, .. })).count();
    }
    assert!(probes >= 3, "a silent neighbor is asked again");
    assert!(state.counters().abandoned >= 2);
    state.handle(Input::NeighborDown(peer(2)), at_millis(100_000), &mut actions);
    assert_eq!(state.next_deadline(), None, "nobody left to ask");
    state.handle(Input::NeighborDown(peer(2)), at_millis(100_000), &mut actions);
}

#[test]
fn without_repair_what_broadcasts_miss_stays_missed() {
    let mut network = Network::new(2, 7, &Config { repair_period: None, ..Config::default() });
    network.connect_all();
    network.broadcast_loss = 1.0;
    network.set(0, "x", "lost");
    network.broadcast_loss = 0.0;
    network.run_for(Duration::from_secs(60));
    network.set(0, "y", "kept");
    network.run_for(Duration::from_secs(60));
    assert_eq!(network.messages, 0);
    assert_eq!(network.replicas[1].get("x"), None);
    assert_eq!(network.replicas[1].get("y"), Some(&bytes("kept")));
    // It does not answer either.
    let probe = Message::Probe { digest: Digest::default(), wall: EPOCH };
    network.handle(0, Input::Received { from: peer(1), message: probe });
    assert_eq!(network.messages, 0);
}

#[test]
fn both_sides_of_a_partition_write_and_converge() {
    let mut network = Network::new(5, 8, &Config::default());
    network.connect_all();
    network.set(0, "shared", "before");
    network.run_for(Duration::from_secs(1));
    network.cut = [0, 1].into_iter().flat_map(|a| [2, 3, 4].map(|b| (a, b))).collect();
    for number in 0..100 {
        network.set(0, &format!("left/{number}"), "l");
        network.set(4, &format!("right/{number}"), "r");
        network.run_for(Duration::from_millis(20));
    }
    network.set(1, "shared", "left");
    network.run_for(Duration::from_millis(20));
    network.set(2, "shared", "right");
    network.run_for(Duration::from_secs(5));
    assert_eq!(network.replicas[0].len(), 101);
    assert!(!network.has_converged(), "the partition happened");
    network.cut.clear();
    network.run_for(Duration::from_secs(30));
    network.assert_converged();
    assert_eq!(network.replicas[0].len(), 201);
    assert_eq!(network.replicas[0].get("shared"), Some(&bytes("right")), "the later write wins on both sides");
}

/// Hashes of three bits, so that every row is one of many with its hash.
#[test]
fn colliding_hashes_of_keys_are_repaired_as_well() {
    let mut network = Network::new(2, 9, &Config::default());
    network.broadcast_loss = 1.0;
    for replica in &mut network.replicas {
        replica.store().mask_key_hashes(0x8000_0000_0000_0003);
    }
    for number in 0..200 {
        network.set(number % 2, &format!("k{}", number * 7 % 120), &number.to_string());
        network.run_for(Duration::from_millis(1));
    }
    network.connect_all();
    network.run_for(Duration::from_secs(30));
    network.assert_converged();
    assert_eq!(network.replicas[0].len(), 120);
}

/// More keys with one hash than one message has rows.
#[test]
fn more_colliding_keys_than_rows_do_not_stop_repair() {
    let mut network = Network::new(2, 10, &Config { burst_frames: 1, ..Config::default() });
    network.broadcast_loss = 1.0;
    for replica in &mut network.replicas {
        replica.store().mask_key_hashes(0x8000_0000_0000_0000);
    }
    for number in 0..3_000 {
        network.set(0, &format!("k{number}"), "x");
        network.set(1, &format!("k{number}"), "x");
    }
    network.connect_all();
    network.run_for(Duration::from_secs(60));
    let counters = network.replicas[0].counters().completed + network.replicas[1].counters().completed;
    assert!(counters > 0, "sessions come to their ends");
    network.assert_converged();
}
