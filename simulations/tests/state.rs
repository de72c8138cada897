//! The presets of the replicated state and the files over them; and that they fail without repair.

#![allow(clippy::disallowed_methods, reason = "the test reads scenario files")]

use std::fs::read_to_string;
use std::path::Path;

use meshwork_simulations::file::File;
use meshwork_simulations::host::RealNode;
use meshwork_simulations::plan::Plan;
use meshwork_simulations::run::{Class, Outcome, run};
use meshwork_simulations::scenarios::Scenario;

fn plan(name: &str, nodes: u32, seed: u64, set: &[&str]) -> Plan {
    let set: Vec<String> = set.iter().map(|text| (*text).to_owned()).collect();
    Scenario::named(name).expect("a preset").plan(nodes, seed, &set).expect("settings that fit")
}

fn play(plan: &Plan) -> Outcome {
    run::<RealNode>(plan, &mut |_| {}).expect("parameters that nodes accept")
}

#[test]
fn the_presets_hold_and_fail_without_repair() {
    for name in ["state", "state-partition"] {
        for seed in 1..3 {
            let with = play(&plan(name, 20, seed, &[]));
            assert!(with.ok, "{name} {seed}: {:?}", with.failure);
            assert!(with.metric("facts").is_some_and(|facts| facts > 100.0), "something is known of the end");
            assert!(with.metric("repaired").is_some_and(|repaired| repaired > 1.0), "something was repaired");
            assert!(with.metric("repair_bytes").is_some_and(|bytes| bytes > 100.0), "and that was counted");
            assert_eq!((with.metric("lost"), with.metric("resurrected")), (Some(0.0), Some(0.0)));
            let without = play(&plan(name, 20, seed, &["repair=off"]));
            let failure = without.failure.as_ref().expect("nothing brings what broadcasts missed");
            assert_eq!((failure.class, &failure.what[..]), (Class::Liveness, "state_converged"), "{name} {seed}");
            assert!(without.metric("lost").is_some_and(|lost| lost > 0.0));
        }
    }
}

#[test]
fn half_the_packets_lost_lose_no_change() {
    let outcome = play(&plan("state", 12, 2, &["loss=50%", "churn=100%", "work=20s"]));
    assert!(outcome.ok, "{:?}", outcome.failure);
    assert!(outcome.metric("crash").is_some_and(|crashes| crashes > 2.0));
}

#[test]
fn restarts_with_disks_lose_nothing_that_was_synced_and_crashes_take_some_of_the_rest() {
    let outcome = play(&plan("state", 12, 1, &["restart-disk=100%", "churn=100%", "sync=2s", "work=30s"]));
    assert!(outcome.ok, "{:?}", outcome.failure);
    let metric = |name| outcome.metric(name).unwrap_or(0.0);
    assert!(metric("restored") > 2.0 && metric("torn") > 0.0, "{} restored, {} torn", metric("restored"), metric("torn"));
    let kept = |seed| play(&plan("state", 12, seed, &["restart-disk=100%"])).digest;
    assert_eq!(kept(2), kept(2));
    assert_ne!(kept(2), play(&plan("state", 12, 2, &[])).digest, "it matters");
}

#[test]
fn a_plan_with_changes_is_the_same_from_its_text() {
    let plan = plan("state-partition", 5, 3, &[]);
    let text = serde_json::to_string(&plan).expect("a text");
    assert!(text.contains("\"deed\":\"insert\"") && text.contains("\"kind\":\"g_count\""), "{text}");
    assert!(!text.contains("no_repair"), "older plans stay as they are");
    let again: Plan = serde_json::from_str(&text).expect("a plan");
    assert_eq!((again.check(), &again.schedule), (Ok(()), &plan.schedule));
    assert_eq!(play(&again).digest, play(&plan).digest);
}

#[test]
fn every_file_can_be_run_and_the_small_ones_hold_with_fewer_nodes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/state");
    let mut played = 0;
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("it can be read").path();
        let text = read_to_string(&path).expect("a text");
        let mut file = File::parse(&path.display().to_string(), &text).unwrap_or_else(|error| panic!("{error}"));
        let is_small = path.file_stem().is_some_and(|name| !name.to_string_lossy().ends_with("-1000"));
        if is_small {
            file.nodes = 20;
        }
        let job = file.job(file.seeds.start, &file.variants()[0], 1).expect("settings that fit");
        let plan = job.into_whole().expect("a scenario of whole nodes");
        if is_small {
            let outcome = play(&plan);
            assert!(outcome.ok, "{:?}; replay: {}", outcome.failure, plan.replay);
            played += 1;
        }
    }
    assert_eq!(played, 6);
}
