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

/// What was written between two absences was heard.
#[test]
fn an_absence_begins_anew() {
    let mut ours = replica(1);
    let mut actions = Vec::new();
    let minute = |minute: u64| at_millis(minute * 60_000);
    for (at, input) in
        [(1, Input::Failed(peer(2))), (2, Input::Returned(peer(2))), (9, Input::Failed(peer(2))), (10, Input::Returned(peer(2)))]
    {
        ours.handle(input, minute(at), &mut actions);
    }
    let mut write = |key: &'static str, at: Now| {
        let bytes = delta([(key, stamp_ahead(at, 0), Some("value"))]);
        ours.handle(Input::Delta { origin: peer(2), bytes }, minute(11), &mut actions);
        ours.next_deadline().is_some()
    };
    assert!(!write("between", minute(5)));
    assert!(write("within", at_millis(9 * 60_000 + 30_000)));
}
