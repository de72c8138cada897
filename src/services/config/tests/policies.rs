//! The pure parts: strategies and the session of a quorum.

use super::*;

fn candidate(origin: u8, millis: u64, value: &str) -> Candidate {
    Candidate { value: (!value.is_empty()).then(|| tree(value)), origin: peer(origin), stamp: stamp(millis) }
}

fn chosen(strategy: Strategy, candidates: &[Candidate]) -> (Option<Value>, f64) {
    let choice = resolve(strategy, &path("app/x"), candidates).unwrap();
    (choice.value, choice.confidence)
}

#[test]
fn the_newest_wins_by_timestamp_and_the_most_by_majority() {
    let candidates = [candidate(1, 1, "1"), candidate(2, 2, "1"), candidate(3, 3, "3")];
    assert_eq!(chosen(Strategy::TimestampWins, &candidates), (Some(Value::Integer(3)), 1.0 / 3.0));
    assert_eq!(chosen(Strategy::MajorityWins, &candidates), (Some(Value::Integer(1)), 2.0 / 3.0));
    assert_eq!(resolve(Strategy::MajorityWins, &path("app/x"), &candidates).unwrap().origin, peer(2));
    let even = [candidate(1, 1, "1"), candidate(2, 2, "1"), candidate(3, 3, "3"), candidate(4, 4, "3")];
    assert_eq!(chosen(Strategy::MajorityWins, &even), (Some(Value::Integer(3)), 0.5), "half is no majority");
    assert_eq!(chosen(Strategy::MajorityWins, &[candidate(1, 1, ""), candidate(2, 2, ""), candidate(3, 3, "3")]), (None, 2.0 / 3.0));
    assert_eq!(resolve(Strategy::Merge, &path("app/x"), &[]), None);
}

#[test]
fn merged_maps_have_the_names_of_both_and_the_newer_of_each() {
    let both = [candidate(1, 1, r#"{"a": 1, "b": {"c": 1}}"#), candidate(2, 2, r#"{"b": {"d": 2}}"#)];
    assert_eq!(chosen(Strategy::Merge, &both), (Some(tree(r#"{"a": 1, "b": {"c": 1, "d": 2}}"#)), 1.0));
    let same = [candidate(1, 1, r#"{"a": 1, "b": 1}"#), candidate(2, 2, r#"{"a": 2}"#)];
    assert_eq!(chosen(Strategy::Merge, &same), (Some(tree(r#"{"a": 2, "b": 1}"#)), 0.5));
    assert_eq!(chosen(Strategy::Merge, &[candidate(1, 1, r#"{"a": 1}"#), candidate(2, 2, "5")]), (Some(Value::Integer(5)), 0.5));
    assert_eq!(chosen(Strategy::Merge, &[candidate(1, 1, r#"{"a": 1}"#), candidate(2, 2, "")]), (None, 0.5));
}

#[test]
fn the_order_of_candidates_changes_nothing() {
    let values = ["", "1", "2", "{}", r#"{"a": 1}"#, r#"{"a": 2, "b": {"c": 1}}"#, r#"{"b": 3}"#];
    let mut generator = generator(3, "config strategies", 0);
    for _ in 0..2_000 {
        let mut random = || {
            let value = values[generator.random_range(0..values.len())];
            candidate(generator.random_range(1..4), generator.random_range(0..3), value)
        };
        let mut candidates: Vec<Candidate> = (0..4).map(|_| random()).collect();
        let strategies = [Strategy::TimestampWins, Strategy::MajorityWins, Strategy::Merge];
        let first = strategies.map(|strategy| resolve(strategy, &path("app/x"), &candidates));
        let noticed = WallTime::default();
        let conflict = Conflict::between(Strategy::Merge, &path("app/x"), candidates.clone(), noticed);
        candidates.shuffle(&mut generator);
        assert_eq!(strategies.map(|strategy| resolve(strategy, &path("app/x"), &candidates)), first);
        assert_eq!(Conflict::between(Strategy::Merge, &path("app/x"), candidates, noticed), conflict);
        assert!(first.into_iter().flatten().all(|choice| choice.confidence > 0.0 && choice.confidence <= 1.0));
    }
}

fn quorum(nodes: u8, required: Option<usize>) -> Result<Quorum, quorum::NoQuorum> {
    let nodes = (1..=nodes).map(peer);
    Quorum::new(path("app/x"), Strategy::TimestampWins, nodes, required, Time::ZERO, limits::QUORUM_TIMEOUT)
}

#[test]
fn a_read_ends_when_enough_nodes_answered() {
    let mut session = quorum(5, None).unwrap();
    assert_eq!(session.answered(peer(1), candidate(1, 1, "7")), None);
    assert_eq!(session.answered(peer(1), candidate(1, 1, "7")), None, "one node has one answer");
    assert_eq!(session.answered(peer(6), candidate(1, 1, "7")), None, "it was not asked");
    assert_eq!(session.answered(peer(2), candidate(1, 1, "7")), None);
    let Some(Outcome::Agree(choice)) = session.answered(peer(3), candidate(1, 1, "7")) else { panic!("three of five") };
    assert_eq!((choice.value, choice.origin, choice.confidence), (Some(Value::Integer(7)), peer(1), 1.0));
    assert_eq!(session.answered(peer(4), candidate(1, 1, "8")), None);
    assert_eq!((session.next_deadline(), session.deadline_reached(Time::MAX)), (None, None));
}

#[test]
fn answers_that_differ_are_resolved() {
    let mut session = quorum(3, Some(2)).unwrap();
    session.answered(peer(3), candidate(1, 1, "7"));
    let Some(Outcome::Resolved { choice, answers }) = session.answered(peer(2), candidate(2, 2, "8")) else { panic!("two of three") };
    assert_eq!((choice.value, choice.confidence, answers.len()), (Some(Value::Integer(8)), 0.5, 2));
}

#[test]
fn a_read_without_enough_answers_gives_those_that_came() {
    let mut session = quorum(5, None).unwrap();
    session.answered(peer(1), candidate(1, 1, "7"));
    session.answered(peer(2), candidate(1, 1, "7"));
    assert_eq!(session.deadline_reached(Time::from_millis(4_999)), None);
    assert_eq!(session.next_deadline(), Some(Time::from_secs(5)));
    let Some(Outcome::Timeout { partial }) = session.deadline_reached(Time::from_secs(5)) else { panic!("the time is over") };
    assert_eq!(partial.iter().map(|(node, _)| *node).collect::<Vec<_>>(), [peer(1), peer(2)]);
    assert_eq!(quorum(2, Some(3)).unwrap_err(), quorum::NoQuorum { required: 3, nodes: 2 });
    assert!(quorum(0, None).is_err() && quorum(3, Some(0)).is_err());
}

#[test]
fn a_node_answers_with_what_the_cluster_has() {
    let mut node = Node::new(1, synced());
    node.set("app/x", tree(r#"{"a": 1}"#), 1);
    node.with_config(|config, _, events| config.update("app/x/a", &2, events)).unwrap();
    let answer = node.config.answer(&node.replica, &path("app/x"));
    assert_eq!((answer.value, answer.origin), (Some(tree(r#"{"a": 1}"#)), peer(1)));
    assert_eq!(node.config.answer(&node.replica, &path("app/y")).stamp, Stamp::ZERO);
}

#[test]
fn of_several_entries_of_one_key_those_that_pass_are_candidates() {
    let entry = |value: i64| Record { value: Some(Value::Integer(value)), ..Record::default() }.encode();
    let bytes = [entry(40), Bytes::from_static(&[9]), entry(3), entry(4), entry(4)];
    let origins = (1..).map(peer);
    let stamps = (1..=5).rev().map(stamp);
    let entries: Vec<_> =
        bytes.iter().zip(origins.zip(stamps)).map(|(value, (origin, stamp))| replica::Entry { value, stamp, origin }).collect();
    for (strategy, chosen, confidence) in [(Strategy::TimestampWins, 3, 1.0 / 3.0), (Strategy::MajorityWins, 4, 2.0 / 3.0)] {
        let config = State::new(peer(1), Config { strategy, ..synced() }).with_validator(path("app"), digit());
        let judged = config.judge(&path("app/x"), &entries);
        assert_eq!(judged.shown.map(|found| found.value), Some(Value::Integer(chosen)));
        assert_eq!(judged.bad, [(peer(1), Hidden::Refused("not a digit".to_owned())), (peer(2), Hidden::UnknownVersion(9))]);
        let conflict = config.conflict(&path("app/x"), &entries, judged.good, &judged.known, at_millis(0)).unwrap();
        assert_eq!((conflict.values.len(), conflict.chosen.value), (3, Some(Value::Integer(chosen))));
        assert_eq!(conflict.chosen.confidence, confidence);
    }
}
