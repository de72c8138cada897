//! Conflict policies over writes that are concurrent.

use super::*;

fn candidate(value: impl Into<Value>, score: Option<f64>, millis: u64, node: usize) -> Candidate {
    let by = Author { node: peer(node), agent: None };
    Candidate { value: value.into(), version: 6, score, by, stamp: Stamp::from_parts(millis, 0) }
}

fn resolved(policy: Policy, kind: Kind, candidates: &[Candidate]) -> Value {
    let mut functions = Functions::default();
    functions.merge(name("longest"), |values| values.iter().max_by_key(|value| value.text().map(str::len)).cloned());
    functions.merge(name("outside"), |_| Some(Value::Text("z".to_owned())));
    let default = kind.at(0.0).unwrap();
    let definition = Definition { policy, ..Definition::new(name("x"), kind, default) };
    definition.check().unwrap();
    let version = resolve(&definition, candidates, &functions).unwrap();
    let mut reversed = candidates.to_vec();
    reversed.reverse();
    assert_eq!(resolve(&definition, &reversed, &functions), Some(version.clone()), "the order does not matter");
    assert_eq!((version.version, version.concurrent), (6 + candidates.len() as u64 - 1, candidates.len()));
    version.value
}

#[test]
fn each_policy_makes_its_own_of_the_same_writes() {
    let floats = [candidate(1.0, Some(0.2), 3, 0), candidate(4.0, Some(0.9), 2, 1), candidate(8.5, Some(0.5), 1, 2)];
    let of = |policy| resolved(policy, Kind::Float { min: 0.0, max: 10.0, precision: 0.5 }, &floats);
    assert_eq!(of(Policy::LastWriteWins), 1.0.into());
    assert_eq!(of(Policy::Best(Order::Highest)), 4.0.into());
    assert_eq!(of(Policy::Best(Order::Lowest)), 1.0.into());
    assert_eq!(of(Policy::Merge(Merge::Mean)), 4.5.into());
    assert_eq!(of(Policy::Merge(Merge::Min)), 1.0.into());
    assert_eq!(of(Policy::Merge(Merge::Max)), 8.5.into());
    assert_eq!(of(Policy::Merge(Merge::Median)), 4.0.into());
}

#[test]
fn whole_numbers_merge_exactly_and_onto_their_steps() {
    let integers = [candidate(i64::MAX, None, 1, 0), candidate(i64::MAX - 2, None, 2, 1)];
    assert_eq!(resolved(Policy::Merge(Merge::Mean), Kind::integer(0, i64::MAX), &integers), (i64::MAX - 1).into());
    let steps = [candidate(0, None, 1, 0), candidate(10, None, 2, 1), candidate(5, None, 3, 2), candidate(5, None, 4, 3)];
    assert_eq!(resolved(Policy::Merge(Merge::Median), Kind::Integer { min: 0, max: 10, step: 5 }, &steps), 5.into());
    assert_eq!(resolved(Policy::Merge(Merge::Mean), Kind::Integer { min: 0, max: 10, step: 5 }, &steps[..2]), 5.into());
    let negative = [candidate(-3, None, 1, 0), candidate(-4, None, 2, 1)];
    assert_eq!(resolved(Policy::Merge(Merge::Mean), Kind::integer(-9, 9), &negative), (-3).into());
}

#[test]
fn registered_functions_merge_and_the_newest_stands_where_they_cannot() {
    let texts = [candidate("a", None, 2, 0), candidate("bbb", None, 1, 1)];
    let merge = |function| resolved(Policy::Merge(Merge::Function(name(function))), Kind::choice(["a", "bbb"]), &texts);
    assert_eq!(merge("longest"), "bbb".into());
    assert_eq!(merge("missing"), "a".into());
    assert_eq!(merge("outside"), "a".into());
}

#[test]
fn of_equal_scores_the_first_stands() {
    let equal = [candidate(1.0, Some(0.5), 2, 0), candidate(2.0, Some(0.5), 1, 1)];
    assert_eq!(resolved(Policy::Best(Order::Highest), Kind::float(0.0, 9.0), &equal), 2.0.into());
}

#[test]
fn any_concurrent_writes_resolve_to_a_value_of_the_variable_whatever_their_order() {
    let mut generator = generator(3, "policies", 0);
    for _ in 0..3_000 {
        let kind = Kind::Float { min: -1.0, max: 1.0, precision: [0.0, 0.1, 0.3][generator.random_range(0..3)] };
        let len = generator.random_range(1..6);
        let candidates: Vec<Candidate> = (0..len)
            .map(|node| candidate(kind.at(generator.random()).unwrap(), Some(generator.random()), generator.random_range(0..3), node))
            .collect();
        let merges = [Merge::Mean, Merge::Min, Merge::Max, Merge::Median].map(Policy::Merge);
        for policy in merges.into_iter().chain([Policy::LastWriteWins, Policy::Best(Order::Lowest)]) {
            let value = resolved(policy, kind.clone(), &candidates);
            assert_eq!(kind.check(&value), Ok(()));
        }
    }
}

#[test]
fn a_best_value_needs_a_score_and_gives_way_only_to_a_better_one() {
    let mut cluster = Cluster::new(2);
    cluster.register(0, Definition { policy: Policy::Best(Order::Lowest), ..float("x") }).unwrap();
    cluster.exchange();
    let scored = |value: f64, score| Update { score: Some(score), ..Update::from(value) };
    assert_eq!(cluster.update(0, "x", 2.0), Err(UpdateError::ScoreMissing));
    assert_eq!(cluster.update(0, "x", scored(2.0, f64::NAN)), Err(UpdateError::ScoreMissing));
    cluster.update(0, "x", scored(2.0, 0.5)).unwrap();
    cluster.exchange();
    assert_eq!(cluster.update(1, "x", scored(3.0, 0.5)), Err(UpdateError::NotBetter { score: 0.5, best: 0.5 }));
    cluster.update(1, "x", scored(3.0, 0.4)).unwrap();
    cluster.exchange();
    assert_eq!(cluster.shared("x"), 3.0.into());
}
