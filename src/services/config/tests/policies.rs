//! The pure parts: strategies, and which entries they choose among.

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
