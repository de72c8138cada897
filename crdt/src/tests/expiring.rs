//! Values that were written for some time are gone after it, everywhere and by themselves.

use super::*;
use crate::journal::{Image, Record};
use crate::register::{LIFETIME_MAX, LIFETIME_MIN};
use crate::value::{self, Step, Typed};

const SECOND: Duration = Duration::from_secs(1);

fn set_for(network: &mut Network, index: usize, name: &str, value: &str, secs: u64) {
    network.apply(index, name, Op::SetFor(bytes(value), Duration::from_secs(secs))).unwrap();
}

fn network(count: usize, seed: u64) -> Network {
    let mut network = Network::new(count, seed, &Config::default());
    network.connect_all();
    network
}

fn cut_all(network: &mut Network) {
    let count = network.replicas.len();
    network.cut.extend((0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b))));
}

fn seconds_after(secs: i64) -> u32 {
    ((EPOCH.as_millis() / 1_000) as i64 + secs) as u32
}

fn receive(state: &mut State, name: &str, body: Body, now: Now) -> Vec<Action> {
    let (mut actions, stamp) = (Vec::new(), Stamp::from_parts(now.wall.as_millis(), 0));
    let write = Write { key: key(name), stamp, body };
    state.handle(Input::Delta { origin: peer(9), bytes: encode(&Delta::Writes(Bounded::first_of([write]))) }, now, &mut actions);
    actions
}

fn wait(state: &mut State, secs: u64) -> Vec<Action> {
    let mut actions = Vec::new();
    state.handle(Input::DeadlineReached, at_millis(secs * 1_000), &mut actions);
    actions
}

#[test]
fn every_replica_hides_what_expired_by_itself_and_digests_stay_equal() {
    let mut network = network(4, 1);
    network.wall_offset_millis = vec![0, 200, -200, 100];
    set_for(&mut network, 0, "plain", &"x".repeat(500), 10);
    network.apply(0, "typed", Op::Add(1)).unwrap();
    network.remove(0, "typed");
    set_for(&mut network, 0, "typed", &"x".repeat(500), 10);
    network.run_for(5 * SECOND);
    network.assert_converged();
    let before = network.replicas[0].digest();
    // What they would say now nobody hears.
    cut_all(&mut network);
    let mut partly = 0;
    for _ in 0..120 {
        network.run_for(Duration::from_millis(50));
        assert!(network.replicas.iter().all(|replica| replica.digest() == before));
        let shown = network.replicas.iter().filter(|replica| !replica.is_empty()).count();
        partly += usize::from((1..4).contains(&shown));
        match network.time {
            time if time < Time::from_millis(9_800) => assert_eq!(shown, 4),
            time => assert!(shown == 0 || time < Time::from_millis(10_200)),
        }
    }
    assert!(partly > 0, "clocks differ");
    for replica in &mut network.replicas {
        replica.store().check_sums();
        assert_eq!((replica.counters().expired, replica.counters().broadcasts <= 3), (2, true));
        assert_eq!((replica.read("plain"), replica.kind("typed"), replica.tombstones()), (None, None, 2));
        assert!(replica.bytes() < 100, "{}", replica.bytes());
    }
}

#[test]
fn the_last_write_says_whether_and_when_a_value_expires() {
    let mut network = network(3, 2);
    set_for(&mut network, 0, "kept", "a", 10);
    set_for(&mut network, 0, "longer", "a", 10);
    network.set(0, "for a while", "a");
    network.run_for(9 * SECOND);
    network.set(1, "kept", "b");
    set_for(&mut network, 1, "longer", "a", 10);
    set_for(&mut network, 1, "for a while", "b", 3);
    network.run_for(2 * SECOND);
    assert!(network.replicas.iter().all(|replica| replica.len() == 3 && replica.counters().expired == 0));
    network.run_for(9 * SECOND);
    network.assert_converged();
    assert_eq!(content(&network.replicas[2]).iter().map(|(key, ..)| key.as_str()).collect::<Vec<_>>(), ["kept"]);
    // And what expired can be written again, or be of another kind.
    network.set(2, "longer", "c");
    network.apply(0, "for a while", Op::Add(1)).unwrap();
    network.run_for(SECOND);
    network.assert_converged();
    assert_eq!(network.replicas[1].len(), 3);
}

#[test]
fn whoever_was_cut_off_meanwhile_comes_to_the_same_and_sees_nothing_of_it() {
    let mut network = network(3, 3);
    network.set(0, "brief", "old");
    network.run_for(SECOND);
    network.cut.extend([(0, 2), (1, 2)]);
    set_for(&mut network, 0, "brief", "new", 5);
    set_for(&mut network, 1, "concurrent", "there", 5);
    set_for(&mut network, 2, "concurrent", "here", 500);
    set_for(&mut network, 2, "unseen", "here", 5);
    network.run_for(10 * SECOND);
    assert_eq!(network.replicas[2].get("brief"), Some(&bytes("old")));
    network.cut.clear();
    network.run_for(10 * SECOND);
    network.assert_converged();
    for replica in &network.replicas {
        assert_eq!((replica.len(), replica.get("concurrent")), (1, Some(&bytes("here"))));
    }
    assert_eq!((network.replicas[2].counters().expired, network.replicas[0].counters().expired), (1, 2), "the rest came expired");
    assert_eq!(network.misbehaved, []);
}

#[test]
fn what_expired_while_a_node_was_off_is_not_there_when_it_is_back() {
    let mut state = replica(1);
    state.restore([], at_millis(0));
    let (mut actions, mut image) = (Vec::new(), Image::default());
    for (name, secs) in [("brief", 5), ("long", 50)] {
        state.apply(name, Op::SetFor(bytes("value"), secs * SECOND), at_millis(0), &mut actions).unwrap();
    }
    state.records(9, at_millis(1)).into_iter().for_each(|record| image.apply(record));
    let mut back = replica(1);
    assert_eq!(back.restore(image.records(), at_millis(5_000)).entries, 2);
    back.store().check_sums();
    assert_eq!((back.len(), back.get("brief"), back.digest()), (1, None, state.digest()));
    // The disk is to let go of the value as well.
    let brief = |record: &Record| matches!(record, Record::Entry(entry) if entry.body == Body::Until(seconds_after(5), bytes("value")));
    assert!(image.records().any(|record| brief(&record)));
    back.records(9, at_millis(5_000)).into_iter().for_each(|record| image.apply(record));
    assert!(!image.records().any(|record| brief(&record)));
    assert_eq!(changed(&wait(&mut back, 50)), [("long", None)]);
    assert!(back.records(9, at_millis(50_000)).iter().any(|record| matches!(record, Record::Entry(_))));
}

#[test]
fn what_expired_is_forgotten_once_the_floor_has_passed_its_moment_too_and_nobody_brings_it_back() {
    let config = Config { collect_after: Some(60 * SECOND), absent_max: 600 * SECOND, ..Config::default() };
    let mut network = Network::new(4, 4, &config);
    network.connect_all();
    set_for(&mut network, 0, "brief", "value", 400);
    network.apply(1, "typed", Op::Add(1)).unwrap();
    network.remove(1, "typed");
    set_for(&mut network, 1, "typed", "value", 400);
    network.run_for(350 * SECOND);
    let written = network.replicas[0].entry("brief").unwrap().stamp;
    assert!(network.replicas.iter().all(|replica| replica.floor() > written && replica.len() == 2), "the floor has passed the write");
    let kept: Vec<Record> =
        ["brief", "typed"].iter().filter_map(|name| network.replicas[3].entry_of(&key(name))).map(Record::Entry).collect();
    network.run_for(55 * SECOND);
    assert!(network.replicas.iter().all(|replica| (replica.len(), replica.tombstones()) == (0, 2)));
    network.run_for(400 * SECOND);
    assert!(network.replicas.iter().all(|replica| (replica.len(), replica.tombstones(), replica.bytes()) == (0, 0, 0)));

    // It goes on from what it held then, with a clock that stood still as well.
    network.wall_offset_millis[3] = -455_000;
    let mut state = State::new(peer(3), params(config), 5);
    state.restore(kept, network.now(3));
    assert_eq!(state.len(), 2, "alive by its own clock");
    network.views[3] = state.keys("").map(|(key, _)| (key.clone(), state.read(key).unwrap())).collect();
    network.replicas[3] = state;
    (0..3).for_each(|other| network.handle(3, Input::NeighborUp(peer(other))));
    let seen: Vec<u64> = network.replicas.iter().map(State::revision).collect();
    network.run_for(5 * SECOND);
    assert_eq!((network.replicas[0].len(), network.replicas[0].tombstones()), (0, 2), "it was told");
    network.run_for(400 * SECOND);
    network.assert_converged();
    assert!(network.replicas.iter().all(|replica| (replica.len(), replica.tombstones()) == (0, 0)));
    assert!((0..3).all(|index| network.replicas[index].revision() == seen[index]), "nobody else saw any of it");
}

#[test]
fn moments_that_cannot_be_do_no_harm() {
    let now = at_millis(0);
    let typed = |register| {
        let state = Some(value::State::Lww(Stamp::from_parts(EPOCH.as_millis(), 0), peer(9), register));
        Body::Step(Box::new(Step::Whole(Typed { length: 3, state })))
    };
    for wrap in [&Body::from as &dyn Fn(Register) -> Body, &typed] {
        let mut state = replica(1);
        // What is over is never seen, and overwrites all the same.
        state.set("past", bytes("older"), at_millis(0), &mut Vec::new()).unwrap();
        let actions = receive(&mut state, "past", wrap(Register::Until(seconds_after(-1), bytes("v"))), at_millis(1));
        assert_eq!((changed(&actions), misbehaviors(&actions)), (vec![("past", None)], vec![]));
        for body in [Register::Until(0, bytes("v")), Register::Until(seconds_after(0), bytes("v")), Register::Expired(0, 7)] {
            let actions = receive(&mut state, "over", wrap(body), now);
            assert_eq!((changed(&actions), misbehaviors(&actions)), (vec![], vec![]));
        }
        // What is told to be over before its time is not believed.
        for until in [seconds_after(2), u32::MAX] {
            let actions = receive(&mut state, "early", wrap(Register::Expired(until, 7)), now);
            assert_eq!(misbehaviors(&actions), [(peer(9), Misbehavior::StampAhead)]);
        }
        // And what expires in a far future is a value like any other.
        receive(&mut state, "late", wrap(Register::Until(u32::MAX, bytes("v"))), now);
        wait(&mut state, 1_000_000_000);
        assert_eq!((state.len(), state.tombstones(), state.counters().expired), (1, 2, 0));
        assert!(state.next_deadline().is_some_and(|at| at > Time::from_millis(1_000_000_000_000)));
        state.remove("late", at_millis(1_000_000_000_000), &mut Vec::new()).unwrap();
        assert_eq!((state.len(), state.store().next_expiry()), (0, None));
        state.store().check_sums();
    }
}

#[test]
fn lifetimes_are_bounded_and_batches_take_them() {
    let mut state = replica(1);
    let mut write = |lifetime: Duration| {
        let writes = vec![(key("brief"), Op::SetFor(bytes("b"), lifetime)), (key("other"), Op::Set(bytes("o")))];
        state.batch(writes, at_millis(1), &mut Vec::new())
    };
    for lifetime in [Duration::ZERO, LIFETIME_MIN - Duration::from_nanos(1), LIFETIME_MAX + Duration::from_nanos(1), Duration::MAX] {
        assert_eq!(write(lifetime), Err(SetError::Lifetime { lifetime }.in_batch("brief")));
    }
    assert!(write(LIFETIME_MAX).is_ok() && write(LIFETIME_MIN).is_ok());
    // From a thousandth after the second on for a second, rounded up.
    assert_eq!(state.next_deadline(), Some(Time::from_millis(2_000)));
    assert_eq!(changed(&wait(&mut state, 2)), [("brief", None)]);
    assert_eq!((state.next_deadline(), state.len()), (None, 1));
}

#[test]
fn many_that_expire_at_once_go_in_pieces() {
    let mut state = replica(1);
    for number in 0..3_000 {
        state.apply(&format!("k{number}"), Op::SetFor(bytes("v"), 5 * SECOND), at_millis(0), &mut Vec::new()).unwrap();
    }
    while state.next_deadline() < Some(Time::from_millis(5_000)) {
        state.handle(Input::DeadlineReached, at_millis(100), &mut Vec::new());
    }
    let mut told = Vec::new();
    while state.next_deadline() == Some(Time::from_millis(5_000)) {
        told.push(wait(&mut state, 5).len());
    }
    assert!(told.len() > 1 && told.iter().all(|told| *told <= 1_024), "{told:?}");
    assert_eq!((told.iter().sum::<usize>(), state.len(), state.next_deadline()), (3_000, 0, None));
}
