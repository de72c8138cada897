//! The presets at a small size, with real nodes.

use meshwork_simulations::host::RealNode;
use meshwork_simulations::network::Model;
use meshwork_simulations::plan::Plan;
use meshwork_simulations::run::{Outcome, run};
use meshwork_simulations::scenarios::{self, Scenario};

fn plan(name: &str, nodes: u32, seed: u64, set: &[&str]) -> Plan {
    let set: Vec<String> = set.iter().map(|text| (*text).to_owned()).collect();
    Scenario::named(name).expect("a preset").plan(nodes, seed, &set).expect("settings that fit")
}

fn play(plan: &Plan) -> Outcome {
    run::<RealNode>(plan, &mut |_| {}).expect("parameters that nodes accept")
}

#[test]
fn every_preset_holds_with_a_few_nodes() {
    for scenario in scenarios::ALL {
        for (nodes, seed) in [(3, 1), (10, 2)] {
            let plan = plan(scenario.name, nodes, seed, &[]);
            let outcome = play(&plan);
            assert!(outcome.ok, "{:?}; replay: {}", outcome.failure, plan.replay);
            assert!(outcome.invariants.iter().all(|verdict| verdict.ok), "{}", scenario.name);
        }
    }
}

#[test]
fn broadcasts_survive_a_network_that_loses_a_fifth() {
    let plan = plan("broadcast", 8, 3, &["loss=20%", "messages=30", "latency=40ms", "jitter=40ms"]);
    let outcome = play(&plan);
    assert!(outcome.ok, "{:?}; replay: {}", outcome.failure, plan.replay);
    assert!(outcome.metric("losses").unwrap() > 100.0);
    assert_eq!(outcome.metric("delivery"), Some(1.0));
}

#[test]
fn every_preset_holds_with_all_rare_behavior_and_is_another_run_by_it() {
    let mut fired = 0.0;
    for scenario in scenarios::ALL {
        let (plain, rare) = (plan(scenario.name, 12, 3, &[]), plan(scenario.name, 12, 3, &["buggify=all"]));
        let (plain, outcome) = (play(&plain), play(&rare));
        assert!(outcome.ok, "{:?}; replay: {}", outcome.failure, rare.replay);
        assert_ne!(plain.digest, outcome.digest, "{}", scenario.name);
        assert!(plain.metrics.iter().all(|metric| !metric.name.starts_with("buggify_")));
        let counts: Vec<f64> =
            outcome.metrics.iter().filter(|metric| metric.name.starts_with("buggify_")).map(|metric| metric.value).collect();
        assert_eq!(counts.len(), meshwork_channels::buggify::Site::LEN);
        fired += counts.iter().sum::<f64>();
        assert_eq!(outcome.digests, play(&rare).digests, "and the same again");
    }
    assert!(fired > 500.0, "{fired}");
}

#[test]
fn a_plan_names_its_rare_behavior() {
    let rare = plan("broadcast", 5, 3, &["buggify=all"]);
    let mut text = serde_json::to_string(&rare).unwrap();
    assert!(text.contains("\"buggify\":[\"graft_cut\",\"announce_late\""), "{text}");
    let again: Plan = serde_json::from_str(&text).unwrap();
    assert_eq!((again.tuning, play(&again).digest), (rare.tuning, play(&rare).digest));
    assert!(!serde_json::to_string(&plan("broadcast", 5, 3, &[])).unwrap().contains("buggify"), "older plans stay as they are");
    text = text.replace("graft_cut", "graft_cutt");
    let error = serde_json::from_str::<Plan>(&text).unwrap_err().to_string();
    assert!(error.contains("Did you mean `graft_cut`?"), "{error}");
}

#[test]
fn every_network_lets_messages_through() {
    for network in Model::WORDS {
        let trouble = ["burst-enter=2%", "reorder=5%", "duplicate=5%", "up=20000", "down=20000", "cone=30%"];
        let set: Vec<String> = trouble.iter().map(|text| (*text).to_owned()).chain([format!("network={network}")]).collect();
        let set: Vec<&str> = set.iter().map(String::as_str).collect();
        let plan = plan("broadcast", 8, 3, &set);
        let outcome = play(&plan);
        assert!(outcome.ok, "{:?}; replay: {}", outcome.failure, plan.replay);
        assert!(outcome.metric("losses").unwrap() > 100.0);
        assert_eq!(outcome.metric("delivery"), Some(1.0));
    }
}

/// What the report says of the network is what was configured, within 2 %: of the 30,000 datagrams of each run, of which so many are lost, that is about
/// three standard errors of the loss.
#[test]
fn the_network_is_measured_to_be_what_the_model_says() {
    let near = |what: &str, found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 0.02, "{what}: {found}, not {expected}");
    for (network, loss) in [("pair", "0.5"), ("regions", "0.4"), ("lan", "0.5")] {
        let (network, lost) = (format!("network={network}"), format!("loss={loss}"));
        let outcome = play(&plan("broadcast", 32, 1, &[&network, &lost, "messages=20", "work=120s", "retention=30s"]));
        let metric = |name| outcome.metric(name).expect("it was measured");
        assert!(metric("datagrams") > 30_000.0, "{}", metric("datagrams"));
        let loss = loss.parse().expect("a number");
        near("loss", metric("datagram_loss"), loss);
        near("latency", metric("datagram_latency"), metric("datagram_latency_model"));
    }
    // More than lines of 300 kbit/s carry, in payloads that are small beside a second of them.
    let plan = plan("broadcast", 8, 1, &["bytes=300", "messages=1500", "work=10s", "up=300", "down=300", "queue=200000", "settle=300s"]);
    let outcome = play(&plan);
    for name in ["line_up_max", "line_down_max"] {
        near(name, outcome.metric(name).expect("there are lines"), 300.0);
    }
}

#[test]
fn a_full_mesh_does_the_same() {
    let plan = plan("partition", 8, 4, &["topology=mesh"]);
    let outcome = play(&plan);
    assert!(outcome.ok, "{:?}; replay: {}", outcome.failure, plan.replay);
}

#[test]
fn one_seed_is_one_run_and_another_seed_is_another() {
    let one = play(&plan("crash", 6, 5, &[]));
    assert_eq!(one.digests, play(&plan("crash", 6, 5, &[])).digests);
    assert_ne!(one.digest, play(&plan("crash", 6, 6, &[])).digest);
}

#[test]
fn parameters_that_nodes_refuse_are_an_error_and_not_a_run() {
    let plan = plan("broadcast", 3, 1, &["active=64"]);
    assert!(run::<RealNode>(&plan, &mut |_| {}).unwrap_err().contains("active_len_max"));
}
