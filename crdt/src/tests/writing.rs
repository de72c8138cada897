//! Local writes and their deltas.

use super::*;

#[test]
fn a_write_is_visible_announced_and_broadcast() {
    let (mut state, mut actions) = (replica(1), Vec::new());
    let stamp = state.set("config/x", bytes("1"), at_millis(0), &mut actions).unwrap();
    assert_eq!(state.get("config/x"), Some(&bytes("1")));
    assert_eq!(state.entry("config/x"), Some(Entry { value: &bytes("1"), stamp, origin: peer(1) }));
    assert_eq!(state.len(), 1);
    assert_eq!(changed(&actions), [("config/x", Some(&b"1"[..]))]);
    let writes = vec![Write { key: key("config/x"), stamp, body: Body::Register(bytes("1")) }];
    assert_eq!(broadcasts(&actions), [writes]);
    assert_eq!(state.next_deadline(), None, "a lone replica that said everything waits for nothing");
}

#[test]
fn removing_leaves_a_tombstone() {
    let (mut state, mut actions) = (replica(1), Vec::new());
    assert_eq!(state.remove("x", at_millis(0), &mut actions), Ok(None));
    assert!(actions.is_empty());
    let written = state.set("x", bytes("1"), at_millis(0), &mut Vec::new()).unwrap();
    let removed = state.remove("x", at_millis(100), &mut actions).unwrap().unwrap();
    assert!(removed > written);
    assert_eq!((state.get("x"), state.entry("x"), state.len(), state.tombstones()), (None, None, 0, 1));
    assert!(state.is_empty());
    assert_eq!(state.bytes(), 1);
    assert_eq!(changed(&actions), [("x", None)]);
    assert_eq!(broadcasts(&actions), [[Write { key: key("x"), stamp: removed, body: Body::Removed }]]);
    assert_eq!(state.remove("x", at_millis(100), &mut actions), Ok(None));

    // An older write that arrives late stays without effect.
    let before = state.digest();
    let late = Input::Delta { origin: peer(2), bytes: delta([("x", written, Some("2"))]) };
    state.handle(late, at_millis(100), &mut actions);
    assert_eq!((state.get("x"), state.digest()), (None, before));
}

#[test]
fn changed_tells_only_what_is_visible() {
    let (mut state, mut actions) = (replica(1), Vec::new());
    state.set("x", bytes("1"), at_millis(0), &mut Vec::new()).unwrap();
    state.set("x", bytes("1"), at_millis(1), &mut actions).unwrap();
    let gone = delta([("never-seen", stamp_ahead(at_millis(2), 0), None)]);
    state.handle(Input::Delta { origin: peer(2), bytes: gone }, at_millis(2), &mut actions);
    assert_eq!(changed(&actions), []);
    assert_eq!(state.counters().applied, 1);
}

#[test]
fn writes_under_load_share_a_delta() {
    let (mut state, mut actions) = (replica(1), Vec::new());
    for number in 0..50 {
        for turn in 0..3 {
            state.set(&format!("k{number:02}"), bytes(&turn.to_string()), at_millis(1), &mut actions).unwrap();
        }
    }
    assert_eq!(broadcasts(&actions).len(), 1, "the first leaves at once");
    assert_eq!(state.next_deadline(), Some(Time::from_millis(6)));
    actions.clear();
    state.handle(Input::DeadlineReached, at_millis(6), &mut actions);
    let [writes] = &broadcasts(&actions)[..] else { panic!("one delta") };
    assert_eq!(writes.len(), 50);
    assert!(writes.iter().all(|write| write.body == Body::Register(bytes("2"))), "writes of one key become one");
    assert!(writes.is_sorted_by(|a, b| a.key < b.key));
    assert_eq!(state.next_deadline(), None);
}

#[test]
fn deltas_are_bounded_in_bytes_writes_and_number() {
    let (mut state, mut actions) = (replica(1), Vec::new());
    let largest = Bytes::from(vec![7; limits::VALUE_BYTES_MAX]);
    let longest = "k".repeat(limits::KEY_BYTES_MAX - 2);
    for number in 10..50 {
        state.set(&format!("{longest}{number}"), largest.clone(), at_millis(0), &mut actions).unwrap();
    }
    for number in 0..5_000 {
        state.set(&format!("small{number}"), Bytes::new(), at_millis(0), &mut actions).unwrap();
    }
    let (mut sent, mut millis) = (broadcasts(&actions).concat().len(), 0);
    while let Some(deadline) = state.next_deadline() {
        assert!(deadline > Time::from_millis(millis), "pieces are spread over time");
        millis = deadline.as_nanos() / 1_000_000;
        actions.clear();
        state.handle(Input::DeadlineReached, at(deadline), &mut actions);
        let deltas = broadcasts(&actions);
        assert!(deltas.len() <= 16 && deltas.iter().all(|writes| writes.len() <= 1_024));
        sent += deltas.concat().len();
    }
    assert_eq!(sent, 5_040);
}

#[test]
fn a_write_that_was_overtaken_is_not_broadcast() {
    let (mut state, mut actions) = (replica(1), Vec::new());
    state.set("a", bytes("1"), at_millis(0), &mut Vec::new()).unwrap();
    state.set("x", bytes("1"), at_millis(0), &mut Vec::new()).unwrap();
    let newer = delta([("x", stamp_ahead(at_millis(0), 100), Some("2"))]);
    state.handle(Input::Delta { origin: peer(2), bytes: newer }, at_millis(1), &mut Vec::new());
    state.handle(Input::DeadlineReached, at_millis(5), &mut actions);
    assert_eq!(actions, []);
    assert_eq!(state.next_deadline(), None);
}

#[test]
fn iterating_follows_prefixes_in_order() {
    let mut state = replica(1);
    for name in ["b", "a/2", "a/1", "a", "a0", "a/3"] {
        state.set(name, bytes(name), at_millis(0), &mut Vec::new()).unwrap();
    }
    state.remove("a/2", at_millis(0), &mut Vec::new()).unwrap();
    let names = |prefix| state.iter(prefix).map(|(key, _)| key.to_string()).collect::<Vec<_>>();
    assert_eq!(names("a/"), ["a/1", "a/3"]);
    assert_eq!(names(""), ["a", "a/1", "a/3", "a0", "b"]);
    assert_eq!(names("c"), [""; 0]);
}
