//! The verbs of one node.

use super::*;

#[test]
fn a_variable_is_registered_read_updated_listed_and_deleted() {
    let mut cluster = Cluster::new(1);
    cluster.register(0, float("x")).unwrap();
    assert_eq!(cluster.register(0, float("x")), Err(RegisterError::AlreadyRegistered));
    let default = cluster.get(0, "x").unwrap();
    assert_eq!((default.value, default.version, default.by, default.stamp), (1.0.into(), 0, None, None));

    let by_agent = Update { expected: Some(0), agent: Some(name("planner")), ..Update::from(2.0) };
    cluster.update(0, "x", by_agent).unwrap();
    let version = cluster.get(0, "x").unwrap();
    assert_eq!((version.value, version.version), (2.0.into(), 1));
    assert_eq!(version.by, Some(Author { node: peer(0), agent: Some(name("planner")) }));
    assert!(version.stamp.unwrap().millis() > EPOCH.as_millis());

    let stale = Update { expected: Some(0), ..Update::from(3.0) };
    assert_eq!(cluster.update(0, "x", stale), Err(UpdateError::VersionMismatch { expected: 0, actual: 1 }));
    assert!(matches!(cluster.update(0, "x", 11.0), Err(UpdateError::Value(ValueError::OutOfRange { .. }))));
    assert_eq!(cluster.update(0, "y", 1.0), Err(UpdateError::NotFound));
    assert_eq!(cluster.get(0, "y"), Err(GetError::NotFound));
    assert_eq!(cluster.nodes[0].variables.statistics("x"), Some(Statistics { updates: 1, refused: 2, ..Statistics::default() }));

    cluster.register(0, Definition::new(name("team.mode"), Kind::choice(["a"]), "a")).unwrap();
    cluster.register(0, Definition { scope: Scope::Local, ..float("team.own") }).unwrap();
    let listed = |filter| {
        let found = cluster.nodes[0].variables.list(&cluster.nodes[0].replica, &filter);
        found.into_iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(listed(Filter::default()), ["team.mode", "team.own", "x"]);
    assert_eq!(listed(Filter { prefix: "team.".to_owned(), ..Filter::default() }), ["team.mode", "team.own"]);
    assert_eq!(listed(Filter { kind: Some("float"), ..Filter::default() }), ["team.own", "x"]);
    assert_eq!(listed(Filter { scope: Some(Scope::Local), ..Filter::default() }), ["team.own"]);

    cluster.events(0);
    cluster.delete(0, "x").unwrap();
    assert_eq!(cluster.events(0), [Event::Deleted { name: name("x") }]);
    assert_eq!(cluster.get(0, "x"), Err(GetError::NotFound));
    assert_eq!(cluster.delete(0, "x"), Err(DeleteError::NotFound));
    // Nothing of it is left for the next of the name.
    cluster.register(0, float("x")).unwrap();
    assert_eq!(cluster.get(0, "x").unwrap().version, 0);
    assert_eq!(cluster.nodes[0].variables.history("x", None).count(), 1);
}

#[test]
fn a_local_variable_never_leaves_its_node() {
    let mut cluster = Cluster::new(2);
    cluster.register(0, Definition { scope: Scope::Local, ..float("own") }).unwrap();
    cluster.update(0, "own", 2.0).unwrap();
    cluster.update(0, "own", 3.0).unwrap();
    assert_eq!(cluster.get(0, "own").map(|version| (version.value, version.version)), Ok((3.0.into(), 2)));
    assert!(cluster.pending.is_empty() && cluster.nodes[0].replica.is_empty());
    assert_eq!(cluster.get(1, "own"), Err(GetError::NotFound));
    let registered = Event::Registered { name: name("own") };
    assert_eq!(cluster.events(0), [registered, updated("own", 1.0, 2.0, 1, 0), updated("own", 2.0, 3.0, 2, 0)]);

    // Another node may use the name for the cluster; here the local one stays.
    cluster.register(1, float("own")).unwrap();
    cluster.update(1, "own", 9.0).unwrap();
    cluster.exchange();
    assert_eq!(cluster.value(0, "own"), 3.0.into());
    assert_eq!(cluster.events(0), [refused("own", Refusal::Hidden)]);

    let shared = Definition::composite(name("double"), names(["own"]), Compute::Sum);
    let local = DefinitionError { field: "kind.dependencies", why: Fault::LocalDependency(name("own")) };
    assert_eq!(cluster.register(0, shared.clone()), Err(RegisterError::Invalid(local)));
    cluster.register(0, Definition { scope: Scope::Local, ..shared }).unwrap();
    cluster.update(0, "own", 4.0).unwrap();
    assert_eq!(cluster.value(0, "double"), 4.0.into());
    assert_eq!(cluster.delete(0, "own"), Err(DeleteError::Needed { by: name("double") }));
    cluster.delete(0, "double").unwrap();
    cluster.delete(0, "own").unwrap();
    assert!(cluster.events(0).contains(&Event::Deleted { name: name("own") }));
}

#[test]
fn constraints_across_variables_bind_every_write() {
    let mut cluster = Cluster::new(1);
    cluster.register(0, float("a")).unwrap();
    cluster.register(0, Definition { constraints: vec![sum_at_most(&["a", "b"], 10.0)], ..float("b") }).unwrap();
    cluster.update(0, "a", 6.0).unwrap();
    let broken = Broken { variable: name("b"), index: 0 };
    assert_eq!(cluster.update(0, "b", 5.0), Err(UpdateError::Constraint(broken.clone())));
    cluster.update(0, "b", 4.0).unwrap();
    assert_eq!(cluster.update(0, "a", 7.0), Err(UpdateError::Constraint(broken)));

    // The default of a new variable counts as well.
    let greater = Constraint::Always(Condition::compare(name("c"), Relation::Greater, name("a")));
    let c = Definition { constraints: vec![greater], ..float("c") };
    assert_eq!(cluster.register(0, c), Err(RegisterError::Constraint(Broken { variable: name("c"), index: 0 })));
}

#[test]
fn constraints_speak_of_composites_implications_and_modules() {
    let mut cluster = Cluster::new(1);
    cluster.register(0, float("a")).unwrap();
    cluster.register(0, float("b")).unwrap();
    let total = Definition::composite(name("total"), names(["a", "b"]), Compute::Sum);
    let bound = Constraint::Always(Condition::sum(names(["total"]), Relation::Less, 5.0));
    cluster.register(0, Definition { constraints: vec![bound], ..total }).unwrap();
    // The bound is on what is computed, and so on what it is computed from.
    assert_eq!(cluster.update(0, "a", 4.0), Err(UpdateError::Constraint(Broken { variable: name("total"), index: 0 })));
    cluster.update(0, "a", 3.5).unwrap();

    let module = |text: &str| Module { name: name(text), capabilities: Vec::new() };
    let line = Compatibility { module: name("deep"), variable: name("size"), with: names(["large"]).to_vec() };
    let kind = Kind::Module { allowed: vec![module("fast"), module("deep")], required: Vec::new(), compatibility: vec![line] };
    cluster.register(0, Definition::new(name("size"), Kind::choice(["small", "large"]), "small")).unwrap();
    cluster.register(0, Definition::new(name("engine"), kind, "fast")).unwrap();
    assert_eq!(cluster.update(0, "engine", "deep"), Err(UpdateError::Constraint(Broken { variable: name("engine"), index: 0 })));
    cluster.update(0, "size", "large").unwrap();
    cluster.update(0, "engine", "deep").unwrap();
    assert_eq!(cluster.update(0, "size", "small"), Err(UpdateError::Constraint(Broken { variable: name("engine"), index: 0 })));
}

#[test]
fn a_registered_function_constrains_and_a_missing_one_lets_nothing_through() {
    let mut cluster = Cluster::new(1);
    let rule = Constraint::Function { function: name("whole"), variables: vec![name("x")] };
    let x = Definition { constraints: vec![rule], ..float("x") };
    assert_eq!(cluster.register(0, x.clone()), Err(RegisterError::NoFunction(name("whole"))));
    let is_whole = |values: &[Value]| values.iter().all(|value| value.number().is_some_and(|number| number.fract() == 0.0));
    cluster.nodes[0].variables.functions_mut().constraint(name("whole"), is_whole);
    cluster.register(0, x).unwrap();
    cluster.update(0, "x", 2.0).unwrap();
    assert_eq!(cluster.update(0, "x", 2.5), Err(UpdateError::Constraint(Broken { variable: name("x"), index: 0 })));
}

#[test]
fn composites_follow_their_dependencies_in_order_and_cannot_be_set() {
    let mut cluster = Cluster::new(1);
    for text in ["a", "b"] {
        cluster.register(0, float(text)).unwrap();
    }
    cluster.register(0, Definition::composite(name("mean"), names(["a", "b"]), Compute::Mean)).unwrap();
    cluster.register(0, Definition::composite(name("twice"), names(["mean"]), Compute::Function(name("double")))).unwrap();
    assert_eq!(cluster.get(0, "twice"), Err(GetError::NoFunction(name("double"))));
    let double = |values: &[Value]| values[0].number().map(|number| (2.0 * number).into()).ok_or_else(|| "text".to_owned());
    cluster.nodes[0].variables.functions_mut().compute(name("double"), double);
    cluster.events(0);
    cluster.update(0, "a", 3.0).unwrap();
    let by = Some(Author { node: peer(0), agent: None });
    let twice = Event::Updated { name: name("twice"), old: None, new: 4.0.into(), version: 1, by };
    assert_eq!(cluster.events(0), [updated("a", 1.0, 3.0, 1, 0), updated("mean", 1.0, 2.0, 1, 0), twice]);
    assert_eq!(cluster.update(0, "mean", 1.0), Err(UpdateError::Value(ValueError::Computed)));
    assert_eq!(cluster.delete(0, "a"), Err(DeleteError::Needed { by: name("mean") }));
}

#[test]
fn a_cycle_of_composites_is_refused() {
    let mut cluster = Cluster::new(1);
    let composite = |text, from| Definition::composite(name(text), [name(from)], Compute::Sum);
    assert_eq!(cluster.register(0, composite("a", "a")), Err(RegisterError::Cycle { through: name("a") }));
    cluster.register(0, composite("a", "b")).unwrap();
    cluster.register(0, composite("b", "c")).unwrap();
    assert_eq!(cluster.register(0, composite("c", "a")), Err(RegisterError::Cycle { through: name("a") }));
    assert_eq!(cluster.get(0, "a"), Err(GetError::Dependency(name("c"))));
    cluster.register(0, float("c")).unwrap();
    assert_eq!(cluster.value(0, "a"), 1.0.into());
}

#[test]
fn the_history_keeps_the_last_versions() {
    let mut cluster = Cluster::new(1);
    cluster.register(0, Definition::new(name("n"), Kind::integer(0, 1_000), 0)).unwrap();
    for number in 1..=150 {
        cluster.update(0, "n", number).unwrap();
    }
    let versions = |len| cluster.nodes[0].variables.history("n", len).map(|version| version.version).collect::<Vec<_>>();
    assert_eq!(versions(None), (101..=150).rev().collect::<Vec<_>>());
    assert_eq!(versions(Some(1_000)), (51..=150).rev().collect::<Vec<_>>());
    assert_eq!(versions(Some(1)), [150]);
}

#[test]
fn no_more_variables_are_registered_than_the_limit() {
    let mut cluster = Cluster::new(1);
    let node = &mut cluster.nodes[0];
    for number in 0..VARIABLES_MAX {
        let local = Definition { scope: Scope::Local, ..float(&format!("x{number}")) };
        node.variables.register(&node.replica, local, &mut node.events).unwrap();
    }
    assert_eq!(cluster.register(0, float("y")), Err(RegisterError::TooMany));
    assert_eq!(cluster.register(0, Definition { scope: Scope::Local, ..float("y") }), Err(RegisterError::TooMany));
}

#[test]
fn only_those_who_may_write_a_variable_do() {
    let mut cluster = Cluster::new(2);
    cluster.register(0, Definition { access: Access::Only(vec![peer(1)]), ..float("x") }).unwrap();
    cluster.exchange();
    assert_eq!(cluster.update(0, "x", 2.0), Err(UpdateError::NotPermitted));
    cluster.update(1, "x", 3.0).unwrap();
    cluster.exchange();
    assert_eq!(cluster.shared("x"), 3.0.into());
    cluster.register(1, Definition { access: Access::Only(Vec::new()), ..float("constant") }).unwrap();
    cluster.exchange();
    assert_eq!(cluster.delete(0, "constant"), Err(DeleteError::NotPermitted));
    // Who registered it may take it back.
    cluster.delete(1, "constant").unwrap();
}
