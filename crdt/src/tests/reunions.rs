//! What people are told once a partition is over.

use super::*;

/// Two halves of six write apart; the counts of both sides are those of what was written.
#[test]
fn each_side_counts_what_the_other_wrote() {
    let mut network = Network::new(6, 41, &Config { repair_period: Some(Duration::from_secs(1)), ..Config::default() });
    network.connect_all();
    for number in 0..10 {
        network.set(0, &format!("both{number}"), "before");
    }
    network.run_for(Duration::from_secs(20));
    assert!(network.reunions.is_empty());
    network.cut.extend((0..3).flat_map(|a| (3..6).map(move |b| (a, b))));
    network.run_for(Duration::from_secs(1));
    members(&mut network, Input::Suspected);
    network.run_for(Duration::from_secs(5));
    members(&mut network, Input::Failed);
    for number in 0..30 {
        network.set(number % 3, &format!("left{number}"), "value");
    }
    for number in 0..20 {
        network.set(3 + number % 3, &format!("right{number}"), "value");
        // Twice is one key.
        network.set(3 + number % 3, &format!("right{number}"), "again");
    }
    for number in 0..10 {
        network.set(number % 3, &format!("both{number}"), "left");
        network.run_for(Duration::from_millis(10));
        network.set(3 + number % 3, &format!("both{number}"), "right");
        network.run_for(Duration::from_millis(10));
    }
    network.set(0, "both0", "left again");
    network.run_for(Duration::from_secs(10));
    network.cut.clear();
    network.run_for(Duration::from_secs(10));
    members(&mut network, Input::Returned);
    network.run_for(Duration::from_millis(10));
    network.set(5, "after", "all are back");
    network.run_for(Duration::from_secs(10));
    network.assert_converged();
    for (index, reunions) in (0..6).map(|index| (index, network.reunions.get(&index))) {
        // Of the ten keys that both wrote the right side was later in nine, and each side is told of those that it lost.
        let (taken, overlaps) = if index < 3 { (20 + 9, 9) } else { (30 + 1, 1) };
        assert_eq!(reunions, Some(&vec![Reunion { members: 3, taken, overlaps }]), "{index}");
    }
}

/// Each side says the same of every member of the other.
fn members(network: &mut Network, input: fn(PeerId) -> Input) {
    for (a, b) in (0..3).flat_map(|a| (3..6).map(move |b| (a, b))) {
        network.handle(a, input(peer(b as u8)));
        network.handle(b, input(peer(a as u8)));
    }
}

#[test]
fn whoever_was_only_suspected_was_not_apart() {
    let mut ours = replica(1);
    let mut actions = Vec::new();
    for input in [
        Input::Suspected(peer(2)),
        Input::Returned(peer(2)),
        Input::Delta { origin: peer(2), bytes: delta([("a", stamp_ahead(at_millis(0), 0), Some("b"))]) },
    ] {
        ours.handle(input, at_millis(10), &mut actions);
    }
    assert_eq!((ours.len(), ours.next_deadline()), (1, None));
}

/// A member that was apart and had written nothing, and is apart again later.
#[test]
fn what_was_written_between_two_absences_is_no_overlap() {
    let mut ours = replica(1);
    let mut actions = Vec::new();
    ours.handle(Input::Failed(peer(2)), at_millis(20_000), &mut actions);
    ours.handle(Input::Returned(peer(2)), at_millis(30_000), &mut actions);
    ours.set("both", bytes("known to all"), at_millis(500_000), &mut actions).unwrap();
    ours.handle(Input::Suspected(peer(2)), at_millis(995_000), &mut actions);
    ours.handle(Input::Failed(peer(2)), at_millis(1_000_000), &mut actions);
    let late = stamp_ahead(at_millis(1_000_000), 1);
    ours.handle(Input::Returned(peer(2)), at_millis(1_010_000), &mut actions);
    ours.handle(Input::Delta { origin: peer(2), bytes: delta([("both", late, Some("over there"))]) }, at_millis(1_010_001), &mut actions);
    ours.handle(Input::DeadlineReached, at_millis(1_100_000), &mut actions);
    let told: Vec<&Action> = actions.iter().filter(|action| matches!(action, Action::Reunited(_))).collect();
    assert_eq!(told, [&Action::Reunited(Reunion { members: 1, taken: 1, overlaps: 0 })]);
}

#[test]
fn members_that_never_come_back_leave_room_for_those_that_do() {
    let mut ours = replica(1);
    let mut actions = Vec::new();
    for number in 0..5_000_u64 {
        let mut id = [9; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        ours.handle(Input::Failed(PeerId::from_bytes(id)), at_millis(number), &mut actions);
    }
    ours.handle(Input::Failed(peer(2)), at_millis(20_000), &mut actions);
    ours.handle(Input::Returned(peer(2)), at_millis(30_000), &mut actions);
    let bytes = delta([("k", stamp_ahead(at_millis(25_000), 0), Some("over there"))]);
    ours.handle(Input::Delta { origin: peer(2), bytes }, at_millis(30_001), &mut actions);
    ours.handle(Input::DeadlineReached, at_millis(100_000), &mut actions);
    assert!(actions.contains(&Action::Reunited(Reunion { members: 1, taken: 1, overlaps: 0 })));
}

/// What came is told all the same.
#[test]
fn whoever_is_suspected_again_as_its_writes_come_is_still_back() {
    let mut ours = replica(1);
    let mut actions = Vec::new();
    ours.handle(Input::Failed(peer(2)), at_millis(20_000), &mut actions);
    ours.handle(Input::Returned(peer(2)), at_millis(30_000), &mut actions);
    let bytes = delta([("k", stamp_ahead(at_millis(25_000), 0), Some("over there"))]);
    ours.handle(Input::Delta { origin: peer(2), bytes }, at_millis(30_001), &mut actions);
    ours.handle(Input::Suspected(peer(2)), at_millis(31_000), &mut actions);
    ours.handle(Input::Returned(peer(2)), at_millis(32_000), &mut actions);
    ours.handle(Input::DeadlineReached, at_millis(100_000), &mut actions);
    assert!(actions.contains(&Action::Reunited(Reunion { members: 1, taken: 1, overlaps: 0 })));
}
