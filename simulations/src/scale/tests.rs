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
    let all = play_preset("massive-failure", 40, 1, 1, &["failed=99%", "join-over=1s", "form=5s"]).failure.unwrap();
    assert_eq!((all.class, &all.what[..]), (Class::Vacuous, "survivors"));
}

#[test]
fn more_nodes_than_fit_are_refused_before_anything_is_drawn() {
    let set = ["join-rate=50%".to_owned()];
    let refused = Preset::named("churn").expect("a preset").plan(10_000_000, 1, 1, &set).unwrap_err();
    assert!(refused.to_string().contains("nodes: 4294967295 is not a number"), "{refused}");
}

fn play_preset(name: &str, nodes: u32, seed: u64, threads: u32, set: &[&str]) -> Outcome {
    let set: Vec<String> = set.iter().map(|text| (*text).to_owned()).collect();
    let plan = Preset::named(name).expect("a preset").plan(nodes, seed, threads, &set).expect("settings that fit");
    run(&plan, &mut in_turn, &mut |_| {})
}

fn metric(outcome: &Outcome, name: &str) -> f64 {
    outcome.metric(name).unwrap_or_else(|| panic!("{name} is not measured"))
}

#[test]
fn every_preset_runs_with_few_nodes_and_is_the_same_on_two_threads() {
    for preset in plan::ALL {
        let set = ["join-over=2s", "form=5s", "work=10s", "quiet=5s", "messages=20"];
        let [one, two] = [1, 2].map(|threads| play_preset(preset.name, 60, 3, threads, &set));
        assert!(one.failure.as_ref().is_none_or(|failure| failure.class == Class::Vacuous), "{}: {:?}", preset.name, one.failure);
        assert_eq!((one.events, &one.digests), (two.events, &two.digests), "{}", preset.name);
        for (name, _) in preset.defaults() {
            assert!(crate::settings::KEYS.iter().any(|key| key.name == name), "{name}");
        }
        let strange = one.metrics.iter().find(|metric| !crate::report::figures::is_known(metric.name));
        assert_eq!(strange.map(|metric| metric.name), None, "an expectation could not name it");
    }
}

#[test]
fn a_tree_stays_as_short_as_it_was_made_whoever_sends() {
    let set = ["join-over=10s", "form=20s", "messages=60", "warmup=5", "work=12s"];
    let ours = play_preset("rotating-senders", 1_000, 1, 1, &set);
    assert!(ours.ok, "{:?}", ours.failure);
    assert!(metric(&ours, "latency_ms_max") < 400.0 && metric(&ours, "rmr") < 0.1, "{:?}", ours.metrics);
    // What is left out shows: with trees that every payload shapes it takes longer and longer.
    let without = play_preset("rotating-senders", 1_000, 1, 1, &[&set[..], &["without=rooted-tree"]].concat());
    assert!(metric(&without, "latency_ms_max") > 450.0, "{:?}", without.metrics);
}

#[test]
fn near_links_bring_messages_sooner_and_leave_a_random_graph() {
    let set = ["join-over=10s", "form=20s", "messages=60", "warmup=5", "work=12s"];
    let [ours, without] =
        [&[][..], &["without=near-links"]].map(|more| play_preset("rotating-senders", 1_000, 1, 1, &[&set[..], more].concat()));
    assert!(ours.ok && without.ok, "{:?}", ours.failure);
    assert!(metric(&ours, "latency_ms_mean") < 0.8 * metric(&without, "latency_ms_mean"), "{:?}", without.metrics);
    assert!(metric(&ours, "clustering") < 0.01 && metric(&ours, "full_views") > 0.98 && metric(&ours, "rmr") < 0.1, "{:?}", ours.metrics);
}

#[test]
fn a_storm_of_joins_leaves_a_random_graph() {
    let set = ["messages=5", "work=5s"];
    let ours = play_preset("join-storm", 1_000, 1, 1, &set);
    assert!(ours.ok, "{:?}", ours.failure);
    assert!(metric(&ours, "clustering") < 0.01 && metric(&ours, "contact_frames") < 4.0, "{:?}", ours.metrics);
    // Near links close no triangles, so after ten seconds hardly any are left either way; but the contact has done more.
    let without = play_preset("join-storm", 1_000, 1, 1, &[&set[..], &["without=storm-mixing"]].concat());
    assert!(metric(&without, "contact_frames") > 4.0, "{:?}", without.metrics);
}

#[test]
fn survivors_of_a_massive_failure_get_everything() {
    let set = ["join-over=10s", "form=20s", "failed=80%", "messages=150", "work=15s"];
    let ours = play_preset("massive-failure", 1_000, 1, 1, &set);
    assert!(ours.ok, "{:?}", ours.failure);
    assert_eq!((metric(&ours, "delivery"), metric(&ours, "first_10s")), (1.0, 1.0));
    assert!(metric(&ours, "crash") > 700.0 && metric(&ours, "isolated_max") <= 10.0, "{:?}", ours.metrics);
    // A new neighbor that is told nothing misses what was sent before, unless a summary tells it much later.
    let without = play_preset("massive-failure", 1_000, 1, 1, &[&set[..], &["protocol=paper"]].concat());
    assert!(without.ok && metric(&without, "first_10s") < 1.0, "{:?}", without.metrics);
}

#[test]
fn nodes_that_come_and_go_over_links_that_lose_miss_nothing() {
    let set = ["join-over=5s", "form=20s", "crash-rate=0.5%", "leave-rate=0.5%", "join-rate=1%", "loss=1%", "messages=60", "work=60s"];
    let [one, two] = [1, 2].map(|threads| play_preset("churn", 300, 2, threads, &set));
    assert!(one.ok, "{:?}", one.failure);
    assert_eq!((one.events, &one.digests), (two.events, &two.digests));
    assert!(metric(&one, "crash") > 20.0 && metric(&one, "leave") > 20.0 && metric(&one, "delivery") == 1.0, "{:?}", one.metrics);
}

#[test]
fn who_comes_while_others_go_has_more_than_one_way_in() {
    // With one contact these two stayed alone, or with those who came through them, and what they broadcast reached nobody else.
    let set = ["join-over=100s", "crash-rate=0.5%", "leave-rate=0.5%", "join-rate=1%", "work=600s", "messages=600"].map(str::to_owned);
    let setup = Preset::named("churn").expect("a preset").plan(1_000, 2, 1, &set).expect("settings that fit").setup;
    for node in [1_876, 4_537] {
        let joined = setup.joins_at(node);
        let goes = |contact: &u32| setup.end(*contact).is_some_and(|end| end.at < joined + SECOND);
        let contacts = setup.contacts(node);
        assert!(setup.end(contacts[0]).is_some_and(|end| end.at < joined + 30_000), "the first goes before it can answer");
        assert!(contacts.len() == 3 && contacts.iter().any(|contact| !goes(contact)), "{contacts:?}");
    }
    assert_eq!(setup.contacts(999).len(), 1, "where nobody goes yet one is enough");
}

#[test]
fn a_tree_that_is_mended_is_trimmed() {
    let set = ["links=30ms..30ms", "join-over=10s", "form=20s", "senders=1", "crash-rate=0.1%", "messages=50", "work=300s"];
    let ours = play_preset("churn", 400, 1, 1, &set);
    assert!(ours.ok && metric(&ours, "crash") > 80.0, "{:?}", ours.failure);
    let without = play_preset("churn", 400, 1, 1, &[&set[..], &["without=trim"]].concat());
    let circles = [&ours, &without].map(|outcome| metric(outcome, "tree_circles"));
    assert!(circles[0] * 2.0 < circles[1], "{circles:?}");
    let ldh = [&ours, &without].map(|outcome| metric(outcome, "ldh_mean"));
    assert!(ldh[0] < ldh[1], "{ldh:?}");
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
    assert_eq!(play(100, 7, 1, &["messages=5"]).digest, "6617a6d676158a8856e276f5492f1746");
}

#[test]
fn hostile_peers_take_no_more_than_their_share_and_hold_nothing_back() {
    let set = ["join-over=10s", "form=120s", "messages=12", "warmup=2", "work=12s"];
    let [one, two] = [1, 2].map(|threads| play_preset("hostile-peers", 300, 1, threads, &set));
    assert!(one.ok, "{:?}", one.failure);
    assert_eq!((one.events, &one.digests), (two.events, &two.digests));
    assert!(metric(&one, "hostile_share") < 0.25 && metric(&one, "eclipsed") <= 2.0, "{:?}", one.metrics);
    assert!(metric(&one, "misbehaved") > 0.0, "whoever is told its own name by another says so");
    let riders = play_preset("hostile-peers", 300, 1, 1, &[&set[..], &["attack=ride"]].concat());
    assert!(riders.ok && metric(&riders, "delivery") == 1.0, "{:?}", riders.failure);
}
