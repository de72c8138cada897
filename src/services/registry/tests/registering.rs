//! Registering, finding, updating and letting go.

use super::*;

#[test]
fn the_same_name_on_three_nodes_is_three_instances_on_every_node() {
    let mut cluster = Cluster::new(3);
    for index in 0..3 {
        cluster.register(index, registration("payments", "a")).unwrap();
    }
    cluster.register(1, registration("payments", "b")).unwrap();
    cluster.settle();
    for index in 0..3 {
        assert_eq!(cluster.lookup(index, "payments"), ["payments/a@0", "payments/a@1", "payments/b@1", "payments/a@2"]);
        assert_eq!(cluster.events(index).len(), 4, "each is told once");
        let Node { registry, replica, .. } = &cluster.nodes[index];
        assert_eq!(registry.list(replica, "test").len(), 4);
        assert_eq!(registry.list(replica, "other").len(), 0);
        assert_eq!(registry.get(replica, &id("payments", 1, "b")).unwrap().health, Health::Healthy);
        assert_eq!(registry.get(replica, &id("payments", 2, "b")), Err(GetError::NotFound));
    }
}

#[test]
fn what_is_registered_already_is_refused_and_a_batch_is_all_or_nothing() {
    let mut cluster = Cluster::new(1);
    cluster.register(0, registration("a", "1")).unwrap();
    assert_eq!(cluster.register(0, registration("a", "1")), Err(RegisterError::AlreadyRegistered(id("a", 0, "1"))));
    let mut all = |registrations: Vec<Registration>| {
        cluster.write(0, |node, now| node.registry.register_all(node.lease, registrations, &node.replica, now))
    };
    assert_eq!(all(vec![registration("b", "1"), registration("a", "1")]), Err(RegisterError::AlreadyRegistered(id("a", 0, "1"))));
    assert_eq!(all(vec![registration("b", "1"), registration("b", "1")]), Err(RegisterError::AlreadyRegistered(id("b", 0, "1"))));
    let invalid = RegisterError::Invalid { index: Some(1), invalid: Invalid::Empty("name") };
    assert_eq!(all(vec![registration("b", "1"), registration("", "1")]), Err(invalid));
    let many = (0..=limits::BATCH_MAX).map(|n| registration("b", &n.to_string())).collect();
    assert_eq!(all(many), Err(RegisterError::BatchTooLarge { len_max: limits::BATCH_MAX }));
    for begin in [0, 250, 500, 750] {
        assert_eq!(all((begin..begin + 250).map(|n| registration("b", &n.to_string())).collect()), Ok(250));
    }
    cluster.settle();
    assert_eq!(cluster.lookup(0, "b").len(), 1_000);
    assert_eq!(cluster.nodes[0].registry.own_len(), 1_001);
}

#[test]
fn the_end_of_a_lease_unregisters_what_is_under_it_and_nothing_else() {
    let mut cluster = Cluster::new(2);
    let lease = cluster.nodes[0].registry.open_lease().unwrap();
    for name in ["a", "b"] {
        cluster.write(0, |node, now| node.registry.register(lease, registration(name, "1"), &node.replica, now)).unwrap();
    }
    cluster.register(0, registration("c", "1")).unwrap();
    cluster.settle();
    assert_eq!(cluster.nodes[1].shown.len(), 3);
    let writes = cluster.nodes[0].registry.end_lease(lease);
    cluster.make(0, writes);
    cluster.settle();
    for index in 0..2 {
        assert_eq!(cluster.lookup(index, "a"), [""; 0]);
        assert_eq!(cluster.lookup(index, "c"), ["c/1@0"]);
    }
    let again = cluster.write(0, |node, now| node.registry.register(lease, registration("a", "1"), &node.replica, now));
    assert_eq!(again, Err(RegisterError::LeaseEnded));
    assert_eq!(cluster.nodes[0].registry.end_lease(lease), []);
    cluster.register(0, registration("a", "1")).unwrap();
}

#[test]
fn an_update_writes_what_changed_and_nothing_when_nothing_did() {
    let mut cluster = Cluster::new(2);
    cluster.register(0, registration("a", "1")).unwrap();
    cluster.settle();
    cluster.events(1);
    let update = Update { weight: Some(7), health: Some(Health::Degraded), metadata: Some([("v".into(), "2".into())].into()) };
    let mut send = |update: Update| cluster.write(0, |node, _| node.registry.update(&id("a", 0, "1"), update));
    assert_eq!(send(update.clone()), Ok(1));
    assert_eq!(send(update), Ok(0));
    assert_eq!(send(Update { weight: Some(0), ..Update::default() }), Err(UpdateError::Invalid(Invalid::Weight(0))));
    cluster.settle();
    let [Event::Updated(instance)] = &cluster.events(1)[..] else { panic!("one change, one event") };
    assert_eq!((instance.details.weight, instance.health), (7, Health::Degraded));
    assert_eq!(cluster.write(1, |node, _| node.registry.update(&id("a", 0, "1"), Update::default())), Err(UpdateError::NotRegistered));
    assert_eq!(cluster.write(1, |node, _| node.registry.unregister(&id("a", 0, "1"))), Err(UpdateError::NotRegistered));
    assert_eq!(cluster.write(0, |node, _| node.registry.unregister(&id("a", 0, "1"))), Ok(1));
    cluster.settle();
    assert_eq!(cluster.events(1), [Event::Unregistered(id("a", 0, "1"))]);
}

#[test]
fn what_the_replica_refused_is_not_registered() {
    let mut cluster = Cluster::new(1);
    cluster.register(0, registration("a", "1")).unwrap();
    let Node { registry, replica, lease, .. } = &mut cluster.nodes[0];
    let writes = registry.register(*lease, registration("b", "1"), replica, Now::default()).unwrap();
    registry.refused(&writes, replica, Now::default());
    let update = registry.update(&id("a", 0, "1"), Update { weight: Some(9), ..Update::default() }).unwrap();
    registry.refused(&update, replica, Now::default());
    assert_eq!(registry.own_len(), 1);
    cluster.run_for(2 * limits::AUDIT_PERIOD);
    assert_eq!(cluster.reasserted_or_purged, 0, "what is wished is what is held");
    assert_eq!(cluster.nodes[0].shown[&id("a", 0, "1")].weight, 1);
    cluster.register(0, registration("b", "1")).unwrap();
}

#[test]
fn a_removal_that_the_replica_refused_is_asked_for_until_it_is_made() {
    let mut cluster = Cluster::new(1);
    cluster.register(0, registration("a", "1")).unwrap();
    let now = cluster.now();
    let Node { registry, replica, .. } = &mut cluster.nodes[0];
    let writes = registry.unregister(&id("a", 0, "1")).unwrap();
    registry.refused(&writes, replica, now);
    let mut later = now;
    for _ in 0..2 {
        // Neither of the passes is written either.
        later.time = registry.next_deadline().unwrap();
        assert_eq!(registry.deadline_reached(replica, later, &mut Vec::new()), writes);
    }
    cluster.run_for(4 * limits::PASS_PERIOD);
    assert_eq!(cluster.lookup(0, "a"), [""; 0]);
}

#[test]
fn what_an_earlier_life_left_is_removed_and_what_this_one_registers_stays() {
    let mut cluster = Cluster::new(2);
    cluster.register(0, registration("old", "1")).unwrap();
    cluster.register(0, registration("both", "1")).unwrap();
    cluster.settle();
    cluster.nodes[0].registry = State::new(peer(0), Config::default().build().unwrap());
    let node = &mut cluster.nodes[0];
    node.lease = node.registry.open_lease().unwrap();
    node.shown.clear();
    node.registry.member_up(peer(1), &node.replica, &mut Vec::new());
    let mut new = registration("both", "1");
    new.details.weight = 5;
    cluster.register(0, new).unwrap();
    let (now, mut events) = (cluster.now(), Vec::new());
    let node = &mut cluster.nodes[0];
    for (key, _) in node.replica.iter(PREFIX) {
        node.registry.on_changed(key, &node.replica, now, &mut events);
    }
    cluster.fold(0, events);
    cluster.run_for(2 * limits::PASS_PERIOD);
    cluster.check();
    for index in 0..2 {
        assert_eq!(cluster.lookup(index, "old"), [""; 0]);
        assert_eq!(cluster.nodes[index].shown[&id("both", 0, "1")].weight, 5);
    }
    assert_eq!(cluster.reasserted_or_purged, 1);
}

#[test]
fn each_criterion_alone_and_all_together_find_the_expected_ones() {
    let mut cluster = Cluster::with(2, |index| Config { zone: Some(format!("zone {index}")), ..Config::default() });
    for (node, name, kind, capabilities, version, health) in [
        (0, "a", "db", &["read"][..], "1", Health::Healthy),
        (0, "b", "db", &["read", "write"], "2", Health::Degraded),
        (1, "b", "web", &["write"], "2", Health::Healthy),
        (1, "c", "web", &["read", "write"], "1", Health::Unhealthy),
    ] {
        let mut registration = registration(name, "1");
        registration.details = Details {
            service_type: Some(kind.into()),
            capabilities: capabilities.iter().map(|capability| (*capability).to_owned()).collect(),
            metadata: [("version".into(), version.into())].into(),
            health,
            ..Details::default()
        };
        cluster.register(node, registration).unwrap();
    }
    let mut elsewhere = Registration::new("elsewhere", "a", "1");
    elsewhere.details.zone = Some("zone 9".into());
    cluster.register(0, elsewhere).unwrap();
    cluster.settle();
    let Node { registry, replica, .. } = &cluster.nodes[1];
    let find = |query: Query| named(&registry.find(replica, &query));
    assert_eq!(find(Query::new()), ["a/1@0", "a/1@0", "b/1@0", "b/1@1", "c/1@1"]);
    assert_eq!(find(Query::new().namespace("elsewhere")), ["a/1@0"]);
    assert_eq!(find(Query::new().namespace("else")), [""; 0]);
    assert_eq!(find(Query::new().name("a")), ["a/1@0", "a/1@0"]);
    assert_eq!(find(Query::new().namespace("test").name("a")), ["a/1@0"]);
    assert_eq!(find(Query::new().service_type("db")), ["a/1@0", "b/1@0"]);
    assert_eq!(find(Query::new().capability("read")), ["a/1@0", "b/1@0", "c/1@1"]);
    assert_eq!(find(Query::new().capability("read").capability("write")), ["b/1@0", "c/1@1"]);
    assert_eq!(find(Query::new().capability("read").capability("fly")), [""; 0]);
    assert_eq!(find(Query::new().health(Health::Degraded)), ["b/1@0"]);
    assert_eq!(find(Query::new().node(peer(1))), ["b/1@1", "c/1@1"]);
    assert_eq!(find(Query::new().metadata("version", "2")), ["b/1@0", "b/1@1"]);
    assert_eq!(find(Query::new().namespace("test").prefer_zone(registry.zone().unwrap())), ["b/1@1", "c/1@1"]);
    assert_eq!(find(Query::new().name("a").prefer_zone("zone 1")), ["a/1@0", "a/1@0"], "nobody is near");
    let all = Query::new().namespace("test").name("b").service_type("web").capability("write").health(Health::Healthy);
    assert_eq!(find(all.node(peer(1)).metadata("version", "2").prefer_zone("zone 1")), ["b/1@1"]);
}
