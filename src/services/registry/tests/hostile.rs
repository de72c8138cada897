//! What other nodes write that is not theirs, or nothing at all.

use super::*;

fn reasons(events: &[Event]) -> Vec<Unreadable> {
    events.iter().filter_map(|event| if let Event::Rejected { reason, .. } = event { Some(*reason) } else { None }).collect()
}

#[test]
fn nobody_registers_in_the_name_of_another_node() {
    let mut cluster = Cluster::new(3);
    let value = Details::default().to_value().unwrap();
    cluster.set(2, &id("a", 0, "1").key().unwrap(), Some(value.clone()));
    cluster.set(2, &id("a", 1, "1").key().unwrap(), Some(value));
    cluster.settle();
    for index in 0..3 {
        assert_eq!(cluster.lookup(index, "a"), [""; 0]);
        assert_eq!(reasons(&cluster.events(index)), [Unreadable::Forged; 2]);
        assert_eq!(cluster.nodes[index].registry.counters().forged, 2);
        let Node { registry, replica, .. } = &cluster.nodes[index];
        assert_eq!(registry.get(replica, &id("a", 0, "1")), Err(GetError::Unreadable(Unreadable::Forged)));
    }
    cluster.run_for(2 * limits::PASS_PERIOD);
    assert!(cluster.nodes.iter().all(|node| node.replica.is_empty()), "who is named removes it");
}

#[test]
fn what_others_overwrite_or_remove_its_node_writes_again() {
    let mut cluster = Cluster::new(2);
    let ids = [id("a", 0, "1"), id("b", 0, "1"), id("c", 0, "1")];
    for id in &ids {
        cluster.register(0, registration(&id.name, "1")).unwrap();
    }
    cluster.settle();
    cluster.set(1, &ids[0].key().unwrap(), Some(Bytes::from_static(b"\x01nonsense")));
    cluster.set(1, &ids[1].key().unwrap(), None);
    cluster.settle();
    assert_eq!(cluster.nodes[0].shown.len(), 1);
    cluster.run_for(2 * limits::PASS_PERIOD);
    cluster.check();
    for node in &cluster.nodes {
        assert_eq!(node.shown.keys().cloned().collect::<Vec<_>>(), ids);
    }
    assert_eq!(cluster.nodes[0].registry.counters().reasserted, 2);
    // Nobody is told of an equal value; it is found all the same, later.
    let value = cluster.nodes[0].replica.get(&ids[2].key().unwrap()).cloned();
    cluster.set(1, &ids[2].key().unwrap(), value);
    cluster.run_for(SECOND);
    assert_eq!(cluster.lookup(0, "c"), [""; 0]);
    cluster.run_for(limits::AUDIT_PERIOD + limits::PASS_PERIOD);
    cluster.check();
    assert_eq!((cluster.lookup(0, "c").len(), cluster.lookup(1, "c").len()), (1, 1));
}

#[test]
fn who_overwrites_without_end_makes_its_victim_write_at_a_bounded_rate() {
    let mut cluster = Cluster::new(2);
    let many = (0..limits::BATCH_MAX).map(|n| registration("a", &n.to_string())).collect::<Vec<_>>();
    cluster.write(0, |node, now| node.registry.register_all(node.lease, many, &node.replica, now)).unwrap();
    cluster.settle();
    for _ in 0..50 {
        let keys: Vec<Key> = cluster.nodes[1].replica.iter(PREFIX).map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| cluster.set(1, key, None));
        cluster.run_for(SECOND / 10);
    }
    let written = cluster.nodes[0].registry.counters().reasserted;
    assert!(written > 0 && written <= 6 * limits::PASS_WRITES_MAX as u64, "{written} writes in five seconds");
    cluster.run_for(10 * SECOND);
    assert_eq!(cluster.lookup(1, "a").len(), limits::BATCH_MAX);
    cluster.check();
}

#[test]
fn values_that_cannot_be_read_are_counted_and_kept_out() {
    let mut cluster = Cluster::new(2);
    cluster.register(0, registration("good", "1")).unwrap();
    cluster.nodes[0].events.clear();
    let node = peer(0);
    for (key, value) in [
        (format!("@registry/test/bad/{node}/1"), &b""[..]),
        (format!("@registry/test/bad/{node}/2"), b"\x01\xff"),
        (format!("@registry/test/new/{node}/1"), b"\x07whatever"),
        ("@registry/what".to_owned(), b"\x01"),
    ] {
        cluster.set(0, &key, Some(Bytes::copy_from_slice(value)));
    }
    cluster.settle();
    let Node { registry, replica, .. } = &cluster.nodes[1];
    let counters = Counters { invalid: 2, newer: 1, ..*registry.counters() };
    assert_eq!(*registry.counters(), counters);
    assert!(registry.counters().keys_malformed > 0);
    assert_eq!(named(&registry.find(replica, &Query::new())), ["good/1@0"]);
    assert_eq!(registry.get(replica, &id("new", 0, "1")), Err(GetError::Unreadable(Unreadable::Version(7))));
    // Its node is the only one that may write there, and does not take it for something of its own.
    assert_eq!(cluster.register(0, registration("new", "1")), Err(RegisterError::Version(id("new", 0, "1"))));
    cluster.run_for(2 * limits::PASS_PERIOD);
    assert_eq!(cluster.nodes[1].replica.len(), 2, "the good one, and the one that belongs to nobody");
    cluster.register(0, registration("new", "1")).unwrap();
    cluster.settle();
    assert_eq!(cluster.lookup(1, "new").len(), 1);
}
