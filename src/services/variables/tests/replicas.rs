//! Several nodes: what is written on one is seen on the others.

use super::*;

#[test]
fn what_is_written_on_one_node_is_seen_in_order_on_the_others() {
    let mut cluster = Cluster::new(3);
    cluster.register(0, float("x")).unwrap();
    cluster.exchange();
    assert_eq!(cluster.register(1, float("x")), Err(RegisterError::AlreadyRegistered));
    cluster.update(1, "x", 2.0).unwrap();
    cluster.exchange();
    cluster.update(2, "x", 3.0).unwrap();
    cluster.exchange();
    assert_eq!(cluster.shared("x"), 3.0.into());
    assert_eq!(cluster.get(0, "x").unwrap().by, Some(Author { node: peer(2), agent: None }));
    let expected = [Event::Registered { name: name("x") }, updated("x", 1.0, 2.0, 1, 1), updated("x", 2.0, 3.0, 2, 2)];
    for index in 0..3 {
        assert_eq!(cluster.events(index), expected, "node {index}");
    }
    cluster.delete(1, "x").unwrap();
    cluster.exchange();
    for index in 0..3 {
        assert_eq!(cluster.events(index), [Event::Deleted { name: name("x") }]);
        assert_eq!(cluster.get(index, "x"), Err(GetError::NotFound));
    }
}

#[test]
fn a_value_that_arrives_before_its_definition_is_shown_once_that_is_there() {
    let mut cluster = Cluster::new(2);
    cluster.register(0, float("x")).unwrap();
    cluster.update(0, "x", 2.0).unwrap();
    let pending = std::mem::take(&mut cluster.pending);
    for (origin, bytes) in pending.into_iter().rev() {
        cluster.deliver(1, origin, bytes.clone());
        // Nothing is told twice.
        cluster.deliver(1, origin, bytes);
    }
    assert_eq!(cluster.events(1), [Event::Registered { name: name("x") }, updated("x", 1.0, 2.0, 1, 0)]);
}

#[test]
fn of_concurrent_writes_the_last_one_wins_on_every_node_and_the_conflict_is_seen() {
    let mut cluster = Cluster::new(3);
    cluster.register(0, float("x")).unwrap();
    cluster.exchange();
    cluster.update(0, "x", 2.0).unwrap();
    cluster.update(1, "x", 3.0).unwrap();
    assert_ne!(cluster.value(0, "x"), cluster.value(1, "x"));
    cluster.exchange();
    assert_eq!(cluster.shared("x"), 3.0.into());
    let events = cluster.events(0);
    assert_eq!(events[2..], [Event::Conflict { name: name("x"), writes: 2 }, updated("x", 2.0, 3.0, 2, 1)], "both writes count");
    assert_eq!(cluster.nodes[0].variables.statistics("x").unwrap().conflicts, 1);
    cluster.update(2, "x", 4.0).unwrap();
    cluster.exchange();
    assert_eq!(cluster.shared("x"), 4.0.into());
}

#[test]
fn concurrent_registrations_of_one_name_leave_one_definition_and_the_value() {
    let mut cluster = Cluster::new(2);
    cluster.register(0, float("x")).unwrap();
    cluster.update(0, "x", 8.0).unwrap();
    let narrow = Definition::new(name("x"), Kind::float(0.0, 5.0), 4.0);
    cluster.register(1, narrow.clone()).unwrap();
    cluster.exchange();
    for index in 0..2 {
        assert_eq!(cluster.nodes[index].variables.definition(&cluster.nodes[index].replica, "x"), Ok(narrow.clone()));
        // What was written under the other definition is no value of this one.
        assert_eq!(cluster.value(index, "x"), 4.0.into());
    }
    cluster.update(0, "x", 2.0).unwrap();
    cluster.exchange();
    assert_eq!(cluster.shared("x"), 2.0.into());
    assert_eq!(cluster.get(0, "x").unwrap().version, 2);
}

#[test]
fn a_cycle_that_two_nodes_made_at_once_is_harmless() {
    let mut cluster = Cluster::new(2);
    cluster.register(0, Definition::composite(name("a"), names(["b"]), Compute::Sum)).unwrap();
    cluster.register(1, Definition::composite(name("b"), names(["a"]), Compute::Sum)).unwrap();
    cluster.exchange();
    for index in 0..2 {
        assert_eq!(cluster.get(index, "a"), Err(GetError::Cycle));
        assert_eq!(cluster.get(index, "b"), Err(GetError::Cycle));
        assert!(cluster.events(index).contains(&refused("a", Refusal::NotComputed(GetError::Cycle))));
    }
    // Neither can be deleted while the other needs it, so the loop is broken where the keys are.
    assert_eq!(cluster.delete(0, "a"), Err(DeleteError::Needed { by: name("b") }));
}

#[test]
fn what_concurrent_writes_break_together_is_reported_and_stays_visible() {
    let mut cluster = Cluster::new(2);
    cluster.register(0, float("a")).unwrap();
    cluster.register(0, Definition { constraints: vec![sum_at_most(&["a", "b"], 10.0)], ..float("b") }).unwrap();
    cluster.exchange();
    cluster.update(0, "a", 9.0).unwrap();
    cluster.update(1, "b", 9.0).unwrap();
    cluster.exchange();
    assert_eq!((cluster.shared("a"), cluster.shared("b")), (9.0.into(), 9.0.into()));
    let constraint = Broken { variable: name("b"), index: 0 };
    assert!(cluster.events(0).contains(&Event::Violated { name: name("b"), constraint: constraint.clone() }));
    assert!(cluster.events(1).contains(&Event::Violated { name: name("a"), constraint }));
    cluster.update(0, "a", 1.0).unwrap();
    cluster.exchange();
    assert!(!cluster.events(1).iter().any(|event| matches!(event, Event::Violated { .. })));
}

/// Writes, lost turns and deletions in any order: nodes that have heard the same show the same, and events tell of every version once.
#[test]
fn nodes_that_heard_the_same_show_the_same() {
    for seed in 0..30 {
        let mut generator = generator(seed, "variables", 0);
        let mut cluster = Cluster::new(3);
        let mut told: Vec<Vec<Version>> = vec![Vec::new(); 3];
        cluster.register(0, float("a")).unwrap();
        cluster.register(0, Definition::composite(name("c"), names(["a", "b"]), Compute::Max)).unwrap();
        for _ in 0..60 {
            let index = generator.random_range(0..3);
            let text = ["a", "b"][generator.random_range(0..2)];
            match generator.random_range(0..12) {
                0 => drop(cluster.delete(index, "b")),
                1 | 2 => drop(cluster.register(index, float(text))),
                3 => cluster.write_value(index, text, f64::from(generator.random_range(0..20)), generator.random_range(0..9)),
                4..9 => drop(cluster.update(index, text, f64::from(generator.random_range(0..12)))),
                _ => cluster.exchange(),
            }
        }
        cluster.exchange();
        cluster.register(0, float("b")).ok();
        cluster.exchange();
        // Whatever was hidden, a valid write is seen by all.
        for text in ["a", "b"] {
            cluster.update(1, text, 5.0).unwrap();
            cluster.exchange();
            assert_eq!(cluster.shared(text), 5.0.into(), "seed {seed}");
        }
        assert_eq!(cluster.shared("c"), 5.0.into(), "seed {seed}");
        for (index, told) in told.iter_mut().enumerate() {
            *told = cluster.nodes[index].variables.history("a", Some(100)).cloned().collect();
            let updates = cluster.events(index);
            let updates = updates.iter().filter(|event| matches!(event, Event::Updated { name, .. } if name.as_str() == "a")).count();
            assert_eq!(updates + 1, told.len(), "seed {seed}: each version of the history but the default was told");
            assert!(told.windows(2).all(|pair| pair[0] != pair[1]), "seed {seed}: no version is told twice in a row");
        }
    }
}
