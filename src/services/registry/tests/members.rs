//! What becomes of the instances of nodes that go away.

use super::*;

fn down(cluster: &mut Cluster, gone: usize) {
    for index in (0..cluster.nodes.len()).filter(|index| *index != gone) {
        cluster.member(index, gone, false);
    }
}

#[test]
fn instances_go_with_their_node_and_return_with_it_without_any_write() {
    let mut cluster = Cluster::new(3);
    cluster.register(0, registration("a", "1")).unwrap();
    cluster.register(0, registration("a", "2")).unwrap();
    cluster.settle();
    (0..3).for_each(|index| drop(cluster.events(index)));
    let digest = cluster.nodes[1].replica.digest();
    down(&mut cluster, 0);
    assert_eq!(cluster.lookup(1, "a"), [""; 0]);
    assert_eq!(cluster.nodes[1].registry.get(&cluster.nodes[1].replica, &id("a", 0, "1")), Err(GetError::Hidden));
    assert_eq!(cluster.events(1), [Event::Hidden(id("a", 0, "1")), Event::Hidden(id("a", 0, "2"))]);
    cluster.member(1, 0, false);
    assert_eq!(cluster.events(1), [], "it is away already");
    cluster.run_for(10 * MINUTE);
    assert_eq!(cluster.nodes[1].registry.away_for(peer(0), cluster.now()), Some(10 * MINUTE));
    cluster.member(1, 0, true);
    cluster.member(1, 0, true);
    assert!(matches!(&cluster.events(1)[..], [Event::Shown(_), Event::Shown(_)]));
    assert_eq!(cluster.lookup(1, "a").len(), 2);
    assert_eq!(cluster.nodes[1].replica.digest(), digest);
    cluster.check();
}

#[test]
fn a_suspected_node_is_hidden_only_after_a_while() {
    let mut cluster = Cluster::new(2);
    cluster.register(0, registration("a", "1")).unwrap();
    cluster.settle();
    let now = cluster.now();
    cluster.nodes[1].registry.member_suspected(peer(0), now);
    cluster.run_for(29 * SECOND);
    assert_eq!(cluster.lookup(1, "a").len(), 1);
    cluster.member(1, 0, true);
    cluster.run_for(10 * SECOND);
    assert_eq!(cluster.lookup(1, "a").len(), 1, "it answered in time");
    let now = cluster.now();
    cluster.nodes[1].registry.member_suspected(peer(0), now);
    cluster.run_for(31 * SECOND);
    assert_eq!(cluster.lookup(1, "a").len(), 0);
    cluster.check();
}

#[test]
fn who_was_never_there_is_not_shown_and_what_changes_behind_the_scenes_is_told_in_the_end() {
    let mut cluster = Cluster::new(2);
    cluster.member(1, 0, false);
    cluster.register(0, registration("a", "1")).unwrap();
    cluster.register(0, registration("b", "1")).unwrap();
    cluster.settle();
    assert_eq!((cluster.events(1), cluster.lookup(1, "a").len()), (Vec::new(), 0));
    cluster.member(1, 0, true);
    assert!(matches!(&cluster.events(1)[..], [Event::Registered(_), Event::Registered(_)]));
    cluster.member(1, 0, false);
    let update = Update { weight: Some(2), ..Update::default() };
    cluster.write(0, |node, _| node.registry.update(&id("a", 0, "1"), update)).unwrap();
    cluster.write(0, |node, _| node.registry.unregister(&id("b", 0, "1"))).unwrap();
    cluster.settle();
    cluster.member(1, 0, true);
    let events = cluster.events(1);
    assert_eq!(events[..3], [Event::Hidden(id("a", 0, "1")), Event::Hidden(id("b", 0, "1")), Event::Unregistered(id("b", 0, "1"))]);
    assert!(matches!(&events[3..], [Event::Shown(instance)] if instance.details.weight == 2));
    cluster.check();
}

#[test]
fn what_a_dead_node_left_is_removed_once_by_one_member_and_slowly() {
    let mut cluster = Cluster::new(5);
    let many = (0..200).map(|n| registration("a", &format!("{n:03}"))).collect::<Vec<_>>();
    cluster.write(0, |node, now| node.registry.register_all(node.lease, many, &node.replica, now)).unwrap();
    cluster.settle();
    cluster.cut.insert(0);
    down(&mut cluster, 0);
    cluster.run_for(20 * MINUTE - SECOND);
    assert_eq!(cluster.reasserted_or_purged, 0);
    cluster.run_for(2 * SECOND);
    let at_first = cluster.nodes[1].registry.len();
    assert!((200 - 2 * limits::PASS_WRITES_MAX..200).contains(&at_first), "{at_first} are left");
    cluster.run_for(10 * SECOND);
    assert_eq!(cluster.reasserted_or_purged, 200, "one member removes, and each entry once");
    let purged: Vec<u64> = cluster.nodes.iter().map(|node| node.registry.counters().purged).collect();
    assert_eq!(purged.iter().filter(|count| **count > 0).count(), 1, "{purged:?}");
    for index in 1..5 {
        assert_eq!(cluster.nodes[index].registry.len(), 0);
        assert_eq!(cluster.nodes[index].registry.away_for(peer(0), cluster.now()), None, "who left nothing is forgotten");
    }
    // The node returns, and finds that it was given up.
    cluster.cut.clear();
    (1..5).for_each(|index| cluster.member(index, 0, true));
    cluster.run_for(10 * SECOND);
    cluster.check();
    (0..5).for_each(|index| assert_eq!(cluster.lookup(index, "a").len(), 200));
}

#[test]
fn when_the_first_does_not_remove_the_next_one_does_after_another_period() {
    let mut cluster = Cluster::new(4);
    cluster.register(0, registration("a", "1")).unwrap();
    cluster.settle();
    cluster.cut.insert(0);
    down(&mut cluster, 0);
    let first = (1..4).min_by_key(|index| cluster.nodes[*index].registry.rank(peer(0))).unwrap();
    // It is there for the others, but nothing that it does arrives.
    cluster.cut.insert(first);
    cluster.run_for(20 * MINUTE + SECOND);
    let others: Vec<usize> = (1..4).filter(|index| *index != first).collect();
    assert!(others.iter().all(|index| cluster.nodes[*index].registry.len() == 1));
    cluster.run_for(20 * MINUTE + SECOND);
    assert!(others.iter().all(|index| cluster.nodes[*index].registry.is_empty()));
}

#[test]
fn a_node_that_sees_most_others_away_leaves_their_entries_alone_for_a_day() {
    let mut cluster = Cluster::new(3);
    for index in 0..3 {
        cluster.register(index, registration("a", "1")).unwrap();
    }
    cluster.settle();
    cluster.cut.insert(0);
    [1, 2].into_iter().for_each(|other| cluster.member(0, other, false));
    cluster.run_for(23 * 60 * MINUTE);
    assert_eq!(cluster.reasserted_or_purged, 0);
    assert_eq!(cluster.lookup(0, "a"), ["a/1@0"]);
    cluster.run_for(61 * MINUTE);
    assert_eq!(cluster.reasserted_or_purged, 2);
}
