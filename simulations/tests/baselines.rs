//! Messages, bytes and events of fixed runs, against numbers on record. They are exact: a change of any protocol changes them, and the new numbers are part
//! of that change. `MESHWORK_BLESS=1 cargo test --package meshwork-simulations --test baselines` writes them.

#![allow(clippy::disallowed_methods, reason = "a test that reads its record")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use meshwork_simulations::host::RealNode;
use meshwork_simulations::report::figures::is_known;
use meshwork_simulations::run::run;
use meshwork_simulations::scenarios::Scenario;

type Counts = BTreeMap<String, BTreeMap<String, String>>;

const RUNS: [(&str, u32); 5] = [("broadcast", 30), ("state", 20), ("partition", 20), ("crash", 30), ("storm", 50)];
const COUNTED: [&str; 6] = ["frames", "datagrams", "dials", "grafts", "prunes", "bytes_per_node"];

fn counted() -> Counts {
    RUNS.into_iter()
        .map(|(scenario, nodes)| {
            let plan = Scenario::named(scenario).expect("a preset").plan(nodes, 7, &[]).expect("parameters that fit");
            let outcome = run::<RealNode>(&plan, &mut |_| {}).expect("parameters that nodes accept");
            assert!(outcome.ok, "{scenario}: {:?}", outcome.failure);
            let strange = outcome.metrics.iter().find(|metric| !is_known(metric.name)).map(|metric| metric.name);
            assert_eq!(strange, None, "an expectation could not name it");
            let mut counts =
                BTreeMap::from([("digest".to_owned(), outcome.digest.to_string()), ("events".to_owned(), outcome.events.to_string())]);
            for name in COUNTED {
                if let Some(value) = outcome.metric(name) {
                    counts.insert(name.to_owned(), value.to_string());
                }
            }
            (format!("{scenario}-{nodes}"), counts)
        })
        .collect()
}

#[test]
fn runs_cost_what_is_on_record() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/baselines.json");
    let counted = counted();
    if std::env::var_os("MESHWORK_BLESS").is_some() {
        std::fs::write(&path, serde_json::to_string_pretty(&counted).expect("numbers") + "\n").expect("the file can be written");
        return;
    }
    let on_record: Counts = serde_json::from_str(include_str!("baselines.json")).expect("the numbers on record");
    assert_eq!(counted, on_record, "if the change is meant, record the new numbers: MESHWORK_BLESS=1");
}
