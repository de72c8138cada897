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
