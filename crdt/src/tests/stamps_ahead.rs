//! Clocks that are wrong, and nodes that lie about the time.

use super::*;

#[test]
fn a_delta_from_the_future_is_refused_before_it_is_merged() {
    let (mut state, mut actions) = (replica(1), Vec::new());
    let now = at_millis(0);
    let before = (state.digest(), state.last_stamp());
    let future = delta([("x", stamp_ahead(now, 501), Some("1")), ("y", Stamp::MAX, Some("1"))]);
    state.handle(Input::Delta { origin: peer(2), bytes: future }, now, &mut actions);
    assert_eq!(misbehaviors(&actions), [(peer(2), Misbehavior::StampAhead)], "said once for one delta");
    assert_eq!(state.counters().stamp_ahead, 2);
    assert_eq!((state.digest(), state.last_stamp(), state.len()), (before.0, before.1, 0));

    let edge = delta([("x", stamp_ahead(now, 500), Some("1"))]);
    state.handle(Input::Delta { origin: peer(2), bytes: edge }, now, &mut actions);
    assert_eq!(state.len(), 1);
    let stamp = state.set("x", bytes("2"), now, &mut actions).unwrap();
    assert!(stamp > stamp_ahead(now, 500), "what is written after wins");
}

#[test]
fn repair_cannot_bring_in_the_future_either() {
    let (mut state, mut actions) = (replica(1), Vec::new());
    let entry = wire::Entry { key: key("x"), stamp: Stamp::MAX, origin: peer(3), body: Body::Register(bytes("1")) };
    let message = Message::Entries { entries: Bounded::first_of([entry]) };
    state.handle(Input::Received { from: peer(2), message }, at_millis(0), &mut actions);
    assert_eq!(misbehaviors(&actions), [(peer(2), Misbehavior::StampAhead)]);
    assert_eq!(state.digest(), Digest::default());
}

#[test]
fn one_node_with_a_fast_clock_changes_nothing_elsewhere() {
    let mut network = Network::new(4, 3, &Config::default());
    network.wall_offset_millis[3] = HOUR_MILLIS;
    network.connect_all();
    network.run_for(Duration::from_secs(12));
    network.set(0, "x", "honest");
    network.run_for(Duration::from_secs(1));
    network.set(3, "x", "from the future");
    network.run_for(Duration::from_secs(20));
    for index in 0..3 {
        assert_eq!(network.replicas[index].get("x"), Some(&bytes("honest")));
        assert!(network.replicas[index].counters().stamp_ahead > 0, "the attack happened");
        assert!(network.replicas[index].last_stamp() < Stamp::from_parts(EPOCH.as_millis() + 60_000, 0));
    }
    assert!(network.misbehaved.iter().all(|(_, what)| *what == Misbehavior::StampAhead));
}

#[test]
fn a_wall_clock_that_jumps_back_an_hour_neither_loses_conflicts_nor_cuts_the_node_off() {
    let mut network = Network::new(4, 4, &Config::default());
    network.connect_all();
    network.run_for(Duration::from_secs(15));
    let before = network.set(0, "x", "before");
    network.run_for(Duration::from_secs(1));
    network.wall_offset_millis[0] = -HOUR_MILLIS;
    let after = network.set(0, "x", "after");
    assert!(after > before, "stamps do not go back");
    network.run_for(Duration::from_secs(1));
    network.set(1, "y", "of another");
    network.run_for(Duration::from_secs(1));
    assert_eq!(network.replicas[0].get("y"), Some(&bytes("of another")), "its neighbors tell it the time");
    network.set(0, "y", "of the slow one");
    network.run_for(Duration::from_secs(1));
    assert_eq!(network.replicas[0].counters().stamp_ahead, 0);
    network.assert_converged();
    assert_eq!(network.replicas[2].get("x"), Some(&bytes("after")));
    assert_eq!(network.replicas[2].get("y"), Some(&bytes("of the slow one")));
}

#[test]
fn a_clock_that_was_wrong_from_the_start_heals_as_well() {
    let mut network = Network::new(4, 5, &Config::default());
    network.wall_offset_millis[0] = -10 * HOUR_MILLIS;
    for index in 1..4 {
        network.set(index, &format!("k{index}"), "1");
    }
    network.connect_all();
    network.run_for(Duration::from_secs(20));
    network.set(0, "k1", "2");
    network.run_for(Duration::from_secs(10));
    network.assert_converged();
    assert_eq!(network.replicas[2].get("k1"), Some(&bytes("2")));
}

#[test]
fn one_lying_neighbor_does_not_tell_the_time() {
    let (mut state, mut actions) = (replica(1), Vec::new());
    let now = at_millis(0);
    let future = WallTime::from_millis(EPOCH.as_millis() + 10 * HOUR_MILLIS as u64);
    let stamp = Stamp::from_parts(future.as_millis(), 0);
    let probe = |wall| Message::Probe { digest: Digest::default(), wall };
    for (number, wall) in [(2, future), (3, WallTime::from_micros(u64::MAX))] {
        state.handle(Input::NeighborUp(peer(number)), now, &mut actions);
        state.handle(Input::Received { from: peer(number), message: probe(wall) }, now, &mut actions);
        if number == 2 {
            let ahead = Input::Delta { origin: peer(9), bytes: delta([("x", stamp, Some("1"))]) };
            state.handle(ahead, now, &mut actions);
            assert_eq!(state.len(), 0, "one report is nobody's median");
        }
    }
    // Of two, the lower counts; a third that is honest outvotes one liar.
    let ahead = Input::Delta { origin: peer(9), bytes: delta([("x", stamp, Some("1"))]) };
    for honest in [4, 5] {
        state.handle(Input::NeighborUp(peer(honest)), now, &mut actions);
        state.handle(Input::Received { from: peer(honest), message: probe(EPOCH) }, now, &mut actions);
    }
    state.handle(ahead, now, &mut actions);
    assert_eq!(state.len(), 0);
    assert_eq!(state.counters().stamp_ahead, 2);
}
