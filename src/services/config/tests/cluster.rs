//! Several nodes: what one sets, the others show; what they set at once, all show alike.

use super::*;

#[test]
fn what_one_node_sets_the_others_show_with_its_origin() {
    let mut nodes = [Node::new(1, synced()), Node::new(2, synced()), Node::new(3, Config::default())];
    nodes[0].set("ai/model", tree(r#"{"name": "m", "size": 3}"#), 1);
    let [a, b, c] = &mut nodes;
    exchange(&mut [a, b, c], 2);
    let found = b.config.read(&b.replica, "ai/model/size").unwrap();
    assert_eq!((found.value, found.layer, found.origin), (Value::Integer(3), Layer::Cluster, peer(1)));
    let Some(Event::Updated { layer: Layer::Cluster, origin, .. }) = b.events.first() else { panic!("{:?}", b.events) };
    assert_eq!(*origin, peer(1));

    assert_eq!(c.get("ai/model"), None);
    assert!(c.events.is_empty() && c.config.history(&c.replica, "ai/model/size").unwrap().is_empty());
    assert_eq!(c.config.set_cluster_wide(&c.replica, "ai/x", &1), Err(SetError::SyncOff));
    c.with_config(|config, replica, events| config.set_synced(true, replica, at_millis(3), events));
    assert_eq!(c.shown(), b.shown());
    assert_eq!(c.updates(0).len(), 2);
    c.with_config(|config, replica, events| config.set_synced(false, replica, at_millis(4), events));
    assert_eq!(c.get("ai/model"), None);
    assert_eq!(c.updates(2).len(), 2);
}

#[test]
fn nothing_is_written_that_is_so_already() {
    let mut node = Node::new(1, synced());
    node.set("app/a", tree(r#"{"x": 1, "y": 2}"#), 1);
    let writes = node.config.set_cluster_wide(&node.replica, "app/a", &tree(r#"{"x": 1, "z": 2}"#)).unwrap();
    assert_eq!(writes.iter().map(|write| write.key.as_str()).collect::<Vec<_>>(), ["@config/app/a/y", "@config/app/a/z"]);
    node.apply(writes, 2);
    assert_eq!(node.get("app/a"), Some(tree(r#"{"x": 1, "z": 2}"#)));
    let writes = node.config.remove_cluster_wide(&node.replica, "app").unwrap();
    node.apply(writes, 3);
    assert_eq!(node.get("app"), None);
    assert_eq!(node.config.remove_cluster_wide(&node.replica, "app"), Err(SetError::NotFound(path("app"))));
}

#[test]
fn changes_of_different_names_at_once_both_stay() {
    let (mut a, mut b) = (Node::new(1, synced()), Node::new(2, synced()));
    a.set("app/limits", tree(r#"{"rate": 1}"#), 1);
    exchange(&mut [&mut a, &mut b], 2);
    a.set("app/limits/rate", Value::Integer(2), 3);
    b.set("app/limits/burst", Value::Integer(9), 3);
    exchange(&mut [&mut a, &mut b], 4);
    for node in [&a, &b] {
        assert_eq!(node.get("app/limits"), Some(tree(r#"{"burst": 9, "rate": 2}"#)));
        assert_eq!(node.config.conflicts().count(), 0);
    }
}

#[test]
fn of_one_value_set_at_once_the_newer_stays_and_the_conflict_is_noticed() {
    let (mut a, mut b) = (Node::new(1, synced()), Node::new(2, synced()));
    a.set("app/x", Value::Integer(0), 1);
    exchange(&mut [&mut a, &mut b], 2);
    a.set("app/x", Value::Integer(1), 10);
    b.set("app/x", Value::Integer(2), 11);
    exchange(&mut [&mut a, &mut b], 12);
    assert_eq!((a.integer("app/x"), b.integer("app/x")), (Some(2), Some(2)));
    let conflict = a.config.conflicts().next().unwrap();
    assert_eq!(
        conflict.values.iter().map(|candidate| (candidate.origin, candidate.value.clone())).collect::<Vec<_>>(),
        [(peer(2), Some(Value::Integer(2))), (peer(1), Some(Value::Integer(1)))]
    );
    assert_eq!((conflict.chosen.value.clone(), conflict.chosen.confidence), (Some(Value::Integer(2)), 0.5));
    assert_eq!(a.config.counters().conflicts, 1);
    assert!(a.events.contains(&Event::Conflict(conflict.clone())));
    b.set("app/x", Value::Integer(3), 20);
    exchange(&mut [&mut a, &mut b], 21);
    assert_eq!((a.config.conflicts().count(), b.config.conflicts().count()), (1, 1), "who knew what it replaced is in no further conflict");
}

#[test]
fn a_value_and_a_map_at_one_path_are_as_if_one_node_had_set_them() {
    for (first, shown) in [(1, r#"{"y": 2}"#), (2, "1")] {
        let (mut a, mut b) = (Node::new(1, synced()), Node::new(2, synced()));
        a.set("app/x", Value::Integer(1), 10 + u64::from(first == 2));
        b.set("app/x", tree(r#"{"y": 2}"#), 10 + u64::from(first == 1));
        exchange(&mut [&mut a, &mut b], 20);
        assert_eq!((a.get("app/x"), b.get("app/x")), (Some(tree(shown)), Some(tree(shown))));
    }
}

#[test]
fn the_history_tells_who_proposed_what_and_any_of_it_can_be_brought_back() {
    let (mut a, mut b) = (Node::new(1, synced()), Node::new(2, synced()));
    for (time, value) in [(1, 1), (3, 2), (5, 3)] {
        let node = if value == 2 { &mut b } else { &mut a };
        node.set("app/x", Value::Integer(value), time);
        exchange(&mut [&mut a, &mut b], time + 1);
    }
    let changes = b.config.history(&b.replica, "app").unwrap();
    let told: Vec<_> = changes.iter().map(|change| (change.proposer, change.value.clone())).collect();
    assert_eq!(told, [(peer(1), Some(Value::Integer(3))), (peer(2), Some(Value::Integer(2))), (peer(1), Some(Value::Integer(1)))]);
    assert!(changes.is_sorted_by(|later, earlier| later.stamp > earlier.stamp));

    let from = b.events.len();
    let writes = b.config.rollback_cluster_wide(&b.replica, "app/x", 2).unwrap();
    b.apply(writes, 10);
    assert_eq!(b.updates(from), [("app/x".to_owned(), Some(Value::Integer(1)))]);
    let writes = b.config.remove_cluster_wide(&b.replica, "app/x").unwrap();
    b.apply(writes, 11);
    assert_eq!(b.get("app/x"), None);
    let writes = b.config.rollback_cluster_wide(&b.replica, "app/x", 1).unwrap();
    b.apply(writes, 12);
    assert_eq!(b.integer("app/x"), Some(1));
    let writes = b.config.rollback_cluster_wide(&b.replica, "app/x", 1).unwrap();
    b.apply(writes, 13);
    assert_eq!(b.get("app/x"), None, "what was before was nothing");
    exchange(&mut [&mut a, &mut b], 14);
    assert_eq!(a.config.history(&a.replica, "app/x"), b.config.history(&b.replica, "app/x"));
    assert_eq!(b.config.rollback_cluster_wide(&b.replica, "app/x", 7), Err(SetError::NoHistory { path: Some(path("app/x")), kept: 6 }));
}

#[test]
fn the_history_has_bounds() {
    let mut node = Node::new(1, synced());
    for value in 0..100 {
        node.set("app/x", Value::Integer(value), value as u64);
        node.set("app/large", Value::Text(value.to_string().repeat(limits::VALUE_BYTES_MAX / 2 - 64)), value as u64);
    }
    assert_eq!(node.config.history(&node.replica, "app/x").unwrap().len(), limits::HISTORY_MAX + 1);
    assert_eq!(node.config.history(&node.replica, "app/large").unwrap().len(), 2);
    assert!(node.replica.iter(SPACE).all(|(_, entry)| entry.value.len() <= limits::RECORD_BYTES_MAX));
    assert_eq!(node.config.conflicts().count(), 0, "a cut history is no conflict");
}

#[test]
fn what_the_replica_holds_already_is_told_of_as_one_change() {
    let mut node = Node::new(1, Config::default());
    for (text, millis, value) in [("app/x/a", 10, 2), ("app/x", 20, 1), ("app/x/b", 30, 3), ("app/y", 40, 4)] {
        node.write(&path(text).key(), Record { value: Some(Value::Integer(value)), ..Record::default() }.encode(), millis);
    }
    let synced = |is_synced| {
        move |config: &mut State, replica: &replica::State, events: &mut Vec<Event>| {
            config.set_synced(is_synced, replica, at_millis(50), events);
        }
    };
    node.with_config(synced(true));
    let told = node.updates(0);
    assert_eq!(
        told,
        [("app/x/b".to_owned(), Some(Value::Integer(3))), ("app/y".to_owned(), Some(Value::Integer(4)))],
        "not what is hidden"
    );
    node.with_config(synced(false));
    assert_eq!(node.shown(), BTreeMap::new());
}

/// Few paths, above and below each other, so that ties and hidden values of all kinds happen.
#[test]
fn whatever_nodes_do_events_tell_what_is_shown_and_all_show_the_same_in_the_end() {
    const PATHS: [&str; 6] = ["n/a", "n/a/x", "n/a/x/p", "n/a/y", "n/b", "m/a"];
    let mut hidden_by_structure = 0;
    for seed in (0..40).chain([701]) {
        let mut generator = generator(seed, "config", 0);
        let mut nodes: Vec<Node> = (1..=3).map(|number| Node::new(number, synced())).collect();

        for step in 0..60 {
            let millis = 10 * step;
            let (index, other) = (generator.random_range(0..3), generator.random_range(0..3));
            let at = PATHS[generator.random_range(0..PATHS.len())];
            let value = match generator.random_range(0..4) {
                0 => tree("{}"),
                1 => tree(r#"{"x": 7, "q": {"r": 8}}"#),
                _ => Value::Integer(generator.random_range(0..3)),
            };
            let node = &mut nodes[index];
            match generator.random_range(0..10) {
                0 => drop(node.with_config(|config, _, events| config.update(at, &value, events))),
                1 => drop(node.with_config(|config, _, events| config.reset(at, events))),
                2 => drop(node.with_config(|config, _, events| config.rollback(1, events))),
                3 => {
                    let writes = node.config.remove_cluster_wide(&node.replica, at).unwrap_or_default();
                    node.apply(writes, millis);
                }
                4 => drop(node.with_config(|config, _, events| {
                    config.load_defaults(
                        Value::Map(BTreeMap::from([("n".to_owned(), Value::Map(BTreeMap::from([("a".to_owned(), value)])))])),
                        events,
                    )
                })),
                5 => {
                    let writes = node.config.rollback_cluster_wide(&node.replica, at, 1).unwrap_or_default();
                    node.apply(writes, millis);
                }
                6 | 7 => node.set(at, value, millis),
                _ => {
                    // One delta, in any order.
                    let deltas = nodes[other].deltas.len();
                    if other != index && deltas > 0 {
                        let delta = nodes[other].deltas[generator.random_range(0..deltas)].clone();
                        nodes[index].receive(other as u8 + 1, &delta, millis);
                    }
                }
            }
        }
        for node in &mut nodes {
            node.with_config(|config, _, events| drop(config.reset("n", events)));
            node.with_config(|config, _, events| drop(config.reset("m", events)));
            node.with_config(|config, _, events| config.load_defaults(tree("{}"), events)).unwrap();
        }
        let [a, b, c] = &mut nodes[..] else { panic!("three nodes") };
        exchange(&mut [a, b, c], 1_000);
        assert_eq!(a.replica.digest(), b.replica.digest());
        assert_eq!(a.shown(), b.shown(), "seed {seed}");
        assert_eq!(a.shown(), c.shown(), "seed {seed}");
        let live = a.replica.iter(SPACE).filter(|(_, entry)| Record::decode(entry.value).unwrap().value.is_some()).count();
        hidden_by_structure += live - a.shown().len();
    }
    assert!(hidden_by_structure > 10, "values and maps met at one path: {hidden_by_structure}");
}
