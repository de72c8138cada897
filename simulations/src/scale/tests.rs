//! Small runs of the overlay alone.

use super::*;

fn play(nodes: u32, seed: u64, threads: u32, set: &[&str]) -> Outcome {
    let set: Vec<String> = set.iter().map(|text| (*text).to_owned()).collect();
    let plan = Preset::named("scale").expect("a preset").plan(nodes, seed, threads, &set).expect("settings that fit");
    run(&plan, &mut in_turn, &mut |_| {})
}

#[test]
fn every_broadcast_reaches_every_node_once() {
    let outcome = play(1_000, 1, 1, &["messages=10", "senders=3"]);
    assert!(outcome.ok, "{:?}", outcome.failure);
    assert!(outcome.invariants.len() >= 6 && outcome.invariants.iter().all(|verdict| verdict.ok));
    assert_eq!(outcome.metric("delivery"), Some(1.0));
    assert_eq!(outcome.metric("largest"), Some(1_000.0));
    // Each node but the sender needs one payload; the first message goes over every link and prunes those that bring a second one.
    assert!((9_990.0..20_000.0).contains(&outcome.metric("payloads").unwrap()));
    assert!((8.0..20.0).contains(&outcome.metric("ldh_mean").unwrap()), "{:?}", outcome.metric("ldh_mean"));
    // A random graph of six links each has 4.2 links between two nodes in the mean, and 0.005 closed triangles.
    assert!((3.9..4.6).contains(&outcome.metric("avg_path").unwrap()), "{:?}", outcome.metric("avg_path"));
    assert!(outcome.metric("clustering").unwrap() < 0.01);
}

#[test]
fn a_run_is_the_same_again_and_whatever_the_number_of_threads() {
    for seed in 1..4 {
        let one = play(200, seed, 1, &["messages=5", "join-over=5s", "form=5s", "work=5s"]);
        for threads in [1, 2, 3] {
            let other = play(200, seed, threads, &["messages=5", "join-over=5s", "form=5s", "work=5s"]);
            assert_eq!((one.events, &one.digests), (other.events, &other.digests), "seed {seed}, {threads} threads");
            assert_eq!(one.metrics, other.metrics);
        }
    }
    assert_ne!(play(50, 1, 1, &["messages=1"]).digest, play(50, 2, 1, &["messages=1"]).digest);
}

#[test]
fn those_who_live_miss_nothing_when_others_crash() {
    let one = play(1_000, 3, 1, &["messages=20", "senders=5", "crashed=20%", "quiet=20s"]);
    assert!(one.ok, "{:?}", one.failure);
    let crashes = one.metric("crash").unwrap();
    assert!((150.0..250.0).contains(&crashes), "{crashes}");
    assert_eq!((one.metric("delivery"), one.metric("largest")), (Some(1.0), Some(1_000.0 - crashes)));
    let two = play(1_000, 3, 2, &["messages=20", "senders=5", "crashed=20%", "quiet=20s"]);
    assert_eq!((one.events, &one.digests), (two.events, &two.digests));
    let all = play(3, 1, 1, &["messages=0", "crashed=90%", "join-over=1s"]);
    assert!(all.failure.is_none_or(|failure| failure.class == Class::Vacuous), "nobody who is left misses anything");
    let nobody = play(20, 1, 1, &["crashed=0.01%"]).failure.unwrap();
    assert_eq!((nobody.class, &nobody.what[..]), (Class::Vacuous, "crash"));
}

#[test]
fn few_nodes_are_a_cluster_too() {
    for nodes in [2, 3, 7] {
        let outcome = play(nodes, 1, 2, &["messages=3", "senders=2"]);
        assert!(outcome.ok, "{nodes} nodes: {:?}", outcome.failure);
    }
}

#[test]
fn a_run_without_messages_only_joins() {
    let outcome = play(20, 1, 1, &["messages=0"]);
    assert!(outcome.ok, "{:?}", outcome.failure);
    assert_eq!((outcome.metric("delivery"), outcome.metric("payloads")), (None, Some(0.0)));
}

#[test]
fn a_link_in_transition_is_given_the_time_to_end_and_no_more() {
    let set = ["messages=0", "join-over=5s", "form=10s", "work=1s"].map(str::to_owned);
    let broken = |threads| {
        let mut world = World::new(Preset::named("scale").expect("a preset").plan(100, 1, threads, &set).expect("settings that fit").setup);
        world.run_until(16 * SECOND, &mut in_turn);
        // Both sides hold each link until one of them loses its connection.
        let (node, peer) = (7, world.shard_of(7).neighbors(7)[0]);
        assert_eq!(world.shard_of(7).link(node, peer), world.shard_of(peer).link(peer, node));
        let shard = peer as usize % world.shards.len();
        world.shards[shard].lose(peer, node);
        (world, [(node, peer)])
    };
    for threads in [1, 2] {
        let (mut world, lost) = broken(threads);
        assert_eq!(world.still_one_way(&lost, &mut in_turn), 0, "the next check of the neighbors ends it");
        let (mut world, lost) = broken(threads);
        assert_eq!(world.still_one_way(&lost, &mut |_, _| {}), 1, "where nothing happens any more it stays");
    }
}

#[test]
fn the_digest_of_a_run_is_on_record() {
    // The same in debug and release builds. A change of what the overlay decides changes it, and the new one is part of that change.
    assert_eq!(play(100, 7, 1, &["messages=5"]).digest, "f5b229e9f13a7635ab3773ca599504c2");
}
