//! Configurations drawn from spaces.

use std::collections::BTreeMap;

use super::*;

fn space() -> Space {
    let mut space = Space::new(Functions::default());
    let weighted = |text: &str, weight| Choice { text: text.to_owned(), weight };
    let mode = Kind::Choice { options: vec![weighted("a", 1.0), weighted("b", 3.0), weighted("c", 0.0)], is_custom_allowed: false };
    let module = |text: &str| Module { name: name(text), capabilities: Vec::new() };
    let line = Compatibility { module: name("deep"), variable: name("mode"), with: names(["b"]).to_vec() };
    let engine = Kind::Module { allowed: vec![module("fast"), module("deep")], required: Vec::new(), compatibility: vec![line] };
    let size = Definition {
        constraints: vec![sum_at_most(&["size"], 90.0)],
        ..Definition::new(name("size"), Kind::Integer { min: 0, max: 100, step: 5 }, 0)
    };
    for definition in [
        Definition::new(name("x"), Kind::Float { min: 0.0, max: 1.0, precision: 0.01 }, 0.0),
        Definition::new(name("y"), Kind::float(-2.0, 2.0), 0.0),
        size,
        Definition::new(name("mode"), mode, "a"),
        Definition::new(name("engine"), engine, "fast"),
        Definition::composite(name("all"), names(["xy", "size"]), Compute::Max),
        Definition::composite(name("xy"), names(["x", "y"]), Compute::Sum),
    ] {
        space.add(definition).unwrap();
    }
    space.constrain(sum_at_most(&["xy"], 1.5)).unwrap();
    let when = Condition::OneOf { variable: name("mode"), values: vec!["a".into()] };
    space.constrain(Constraint::Implies { when, then: Condition::sum(names(["size"]), Relation::AtLeast, 20.0) }).unwrap();
    space
}

#[test]
fn ten_thousand_random_configurations_are_all_valid() {
    let (space, mut generator) = (space(), generator(1, "spaces", 0));
    for _ in 0..10_000 {
        let drawn = space.random(&mut generator).unwrap();
        assert_eq!(space.validate(&drawn), Ok(()));
        assert_eq!(drawn.len(), 7);
        // Asked once more without the code that draws: every rule by hand.
        let number = |text: &str| drawn[text].number().unwrap();
        assert!((0.0..=1.0).contains(&number("x")) && number("y").abs() <= 2.0 && number("size") <= 90.0 && number("size") % 5.0 == 0.0);
        assert!(number("x") + number("y") <= 1.5 + 1e-6 && number("all") == number("xy").max(number("size")));
        assert!(drawn["mode"] != "a".into() || number("size") >= 20.0);
        assert!(drawn["engine"] != "deep".into() || drawn["mode"] == "b".into());
        assert_ne!(drawn["mode"], "c".into());
    }
}

#[test]
fn a_space_counts_its_dimensions_and_orders_what_is_computed() {
    let space = space();
    assert_eq!(space.dimensions(), Dimensions { continuous: 2, discrete: 3 });
    let order: Vec<String> = space.dependency_order().unwrap().iter().map(Name::to_string).collect();
    assert_eq!(order, ["engine", "mode", "size", "x", "y", "xy", "all"]);
}

#[test]
fn a_cycle_is_rejected_and_leaves_the_space_as_it_was() {
    let mut space = space();
    space.add(Definition::composite(name("p"), names(["q"]), Compute::Sum)).unwrap();
    let q = Definition::composite(name("q"), names(["x", "p"]), Compute::Sum);
    assert_eq!(space.add(q), Err(SpaceError::Cycle(name("p"))));
    assert!(space.get("q").is_none() && space.dependency_order().is_ok());
    // A composite of what is not there cannot be drawn, and no number of draws is spent on it.
    let drawn = space.random(&mut generator(1, "spaces", 0));
    let why = GetError::Dependency(name("q"));
    assert_eq!(drawn, Err(DrawError::Impossible(Invalid::NotComputed { name: name("p"), why })));
    assert!(space.remove("p").is_some() && space.remove("p").is_none());
    assert!(space.random(&mut generator(1, "spaces", 0)).is_ok());
}

#[test]
fn every_wrong_configuration_has_its_error() {
    let space = space();
    let valid = || space.random(&mut generator(2, "spaces", 0)).unwrap();
    let with = |text: &str, value: Value| {
        let mut changed = valid();
        changed.retain(|name, _| !["xy", "all"].contains(&name.as_str()));
        changed.insert(name(text), value);
        space.validate(&changed)
    };
    assert!(matches!(with("x", 2.0.into()), Err(Invalid::Value { why: ValueError::OutOfRange { .. }, .. })));
    assert!(matches!(with("size", 95.into()), Err(Invalid::Value { why: ValueError::Constraint { index: 0 }, .. })));
    assert_eq!(with("y", 2.0.into()), Err(Invalid::Across(0)));
    assert_eq!(with("none", 1.into()), Err(Invalid::Unknown(name("none"))));
    assert!(matches!(with("xy", 1e9.into()), Err(Invalid::NotAsComputed { .. })));
    let mut short = valid();
    short.remove("x");
    assert_eq!(space.validate(&short), Err(Invalid::Missing(name("x"))));
}

#[test]
fn constraints_that_leave_nothing_end_the_search() {
    let mut space = space();
    space.constrain(Constraint::Always(Condition::sum(names(["y"]), Relation::Greater, 2.0))).unwrap();
    let mut generator = generator(3, "spaces", 0);
    let tight = space.random(&mut generator).unwrap_err();
    assert!(matches!(tight, DrawError::TooTight { attempts: ATTEMPTS_MAX, .. }), "{tight}");
    assert!(matches!(space.sample(3, &mut generator), Err(DrawError::TooTight { .. })));
    assert_eq!(space.sample(SAMPLES_MAX + 1, &mut generator), Err(DrawError::TooMany));
    assert_eq!(space.constrain(sum_at_most(&["none"], 1.0)), Err(SpaceError::Unknown(name("none"))));
}

#[test]
fn a_sample_uses_every_part_of_every_range_once() {
    let mut space = Space::new(Functions::default());
    let options = [("a", 1.0), ("b", 3.0)].map(|(text, weight)| Choice { text: text.to_owned(), weight });
    for text in ["x", "y"] {
        space.add(Definition::new(name(text), Kind::float(0.0, 1.0), 0.0)).unwrap();
    }
    space.add(Definition::new(name("n"), Kind::integer(1, 10), 1)).unwrap();
    space.add(Definition::new(name("m"), Kind::Choice { options: options.to_vec(), is_custom_allowed: false }, "a")).unwrap();
    let sample = space.sample(200, &mut generator(4, "spaces", 0)).unwrap();
    for text in ["x", "y"] {
        let mut parts: Vec<usize> = sample.iter().map(|drawn| (drawn[text].number().unwrap() * 200.0) as usize).collect();
        assert!(!parts.is_sorted(), "the parts are in no order");
        parts.sort_unstable();
        assert_eq!(parts, (0..200).collect::<Vec<_>>());
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for drawn in &sample {
        *counts.entry(drawn["m"].to_string()).or_default() += 1;
        *counts.entry(drawn["n"].to_string()).or_default() += 1;
    }
    assert_eq!((counts["\"a\""], counts["\"b\""]), (50, 150));
    assert!((1..=10).all(|number| counts[&number.to_string()] == 20));
    assert!(space.sample(0, &mut generator(4, "spaces", 0)).unwrap().is_empty());
}

#[test]
fn random_choices_keep_their_weights() {
    let (space, mut generator) = (space(), generator(5, "spaces", 0));
    let mut plain = Space::new(Functions::default());
    plain.add(space.get("mode").unwrap().clone()).unwrap();
    let drawn = (0..10_000).filter(|_| plain.random(&mut generator).unwrap()["mode"] == "b".into()).count();
    // Three quarters, within five standard deviations of 43.
    assert!((7_283..=7_717).contains(&drawn), "{drawn}");
}

#[test]
fn variables_of_the_cluster_make_a_space() {
    let mut cluster = Cluster::new(2);
    cluster.register(0, float("s.a")).unwrap();
    cluster.register(1, Definition { constraints: vec![sum_at_most(&["s.a", "s.b"], 4.0)], ..float("s.b") }).unwrap();
    cluster.register(1, float("other")).unwrap();
    cluster.exchange();
    let filter = Filter { prefix: "s.".to_owned(), ..Filter::default() };
    let space = cluster.nodes[0].variables.space(&cluster.nodes[0].replica, &filter).unwrap();
    assert_eq!(space.dimensions(), Dimensions { continuous: 2, discrete: 0 });
    for drawn in space.sample(100, &mut generator(6, "spaces", 0)).unwrap() {
        assert!(drawn["s.a"].number().unwrap() + drawn["s.b"].number().unwrap() <= 4.0 + 1e-6);
    }
}
