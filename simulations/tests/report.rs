//! The files that `meshwork-sim run` writes, through the command.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that starts the command and reads what it wrote")]

use std::path::Path;
use std::process::{Command, Output};

fn sim(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_meshwork-sim")).current_dir(folder).args(arguments).output().unwrap()
}

/// The sum of a column of a table.
fn sum(table: &str, column: &str) -> f64 {
    let place = table.lines().next().unwrap().split(',').position(|name| name == column).unwrap();
    table.lines().skip(1).map(|line| line.split(',').nth(place).unwrap().parse::<f64>().unwrap()).sum()
}

#[test]
fn a_run_writes_a_page_and_tables_that_agree() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    std::fs::create_dir_all(&folder).unwrap();
    let arguments = ["run", "crash", "--nodes", "6", "--seed", "1..4", "--set", "messages=20", "--quiet", "--json", "run.json"];
    let done = sim(&folder, &[&arguments[..], &["--csv", "tables/deep", "--report", "run.html"]].concat());
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{text}{}", String::from_utf8_lossy(&done.stderr));
    assert!(text.contains("seeds 1..4") && text.contains("in seed") && text.contains("latency_p99"), "{text}");

    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&read("run.json")).unwrap();
    assert_eq!((json["schema"].as_u64(), json["runs"].as_array().unwrap().len()), (Some(1), 3));
    let mean = |name: &str| json["metrics"][name]["mean"].as_f64().unwrap();
    assert_eq!(mean("delivery"), 1.0);
    assert_eq!(mean("crash"), 1.0);
    for name in ["latency_p99", "rmr", "delivery_1s", "degree_mean", "diameter", "node_sent_max", "ldh_mean"] {
        assert!(json["metrics"][name]["worst_seed"].is_u64() || name == "degree_mean", "{name}");
        assert!(json["runs"][0]["metrics"][name].is_f64(), "{name}");
    }

    let (series, messages, nodes) = (read("tables/deep/series.csv"), read("tables/deep/messages.csv"), read("tables/deep/nodes.csv"));
    assert_eq!(nodes.lines().count(), 1 + 3 * 6);
    assert_eq!(sum(&series, "sent_messages"), mean("messages") * 3.0);
    assert_eq!(sum(&series, "deliveries"), sum(&messages, "deliveries"));
    assert_eq!(sum(&series, "deliveries"), sum(&nodes, "deliveries"));
    assert_eq!(sum(&series, "sent_bytes"), sum(&nodes, "sent_bytes"));
    assert!(sum(&series, "copies_received") > 0.0, "real nodes count copies");

    let page = read("run.html");
    assert!(page.contains("meshwork-sim run crash --nodes 6 --seed 1..4 --set messages=20"));
    assert!(page.contains("Redundancy over time") && page.contains("class=\"band crash\"") && page.contains("(worst)"));
    assert!(page.contains("id=\"plot-copies\"") && !page.contains("id=\"regions\""));
    assert!(!page.contains("http") && !page.contains("<script"));
    assert!(!folder.join("tables/deep/regions.csv").exists());
    assert!(sum(&messages, "payloads_received") < sum(&series, "payloads_received"), "writes are broadcast too, and are no messages");
}

#[test]
fn a_network_with_places_has_a_table_of_them() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("places");
    std::fs::create_dir_all(&folder).unwrap();
    let arguments = ["run", "broadcast", "--nodes", "30", "--set", "network=regions", "--set", "messages=20", "--quiet"];
    let done = sim(&folder, &[&arguments[..], &["--csv", ".", "--report", "run.html"]].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let (regions, messages, series) = (read("regions.csv"), read("messages.csv"), read("series.csv"));
    assert_eq!(sum(&regions, "deliveries"), sum(&messages, "deliveries"));
    // Each payload that a node received is counted for its message: as many as the nodes say altogether.
    assert_eq!(sum(&messages, "payloads_received"), sum(&series, "payloads_received"));
    assert!(
        regions.lines().skip(1).all(|line| {
            let [measured, model] = [4, 6].map(|place| line.split(',').nth(place).unwrap().parse::<f64>().unwrap());
            measured >= model
        }),
        "{regions}"
    );
    let page = std::fs::read_to_string(folder.join("run.html")).unwrap();
    assert!(page.contains("id=\"regions\"") && page.contains("europe") && page.contains("<span>way "));
}

#[test]
fn a_failed_run_writes_them_too() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("failed");
    std::fs::create_dir_all(&folder).unwrap();
    let arguments =
        ["run", "broadcast", "--nodes", "6", "--set", "settle=30s", "--plant", "deliver-never", "--quiet", "--report", "run.html"];
    let done = sim(&folder, &arguments);
    let line = String::from_utf8(done.stderr).unwrap();
    assert!(line.starts_with("FAIL "), "{line}");
    assert!(matches!(done.status.code(), Some(3 | 4)));
    let page = std::fs::read_to_string(folder.join("run.html")).unwrap();
    assert!(page.contains("FAILED") && page.contains("FAILS") && page.contains("--plant deliver-never"));
}

#[test]
fn what_takes_one_seed_says_so() {
    for arguments in [["show", "crash", "--seed", "1..3"], ["check", "crash", "--seed", "1..3"]] {
        let done = sim(Path::new("."), &arguments);
        assert_eq!(done.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&done.stderr).contains("one seed"));
    }
}

/// A bug that shows after a restart, in a run that is made small, written, and run again: the same failure, with the exit code of its class.
#[test]
fn what_minimize_writes_fails_in_the_same_way() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("minimize");
    std::fs::create_dir_all(&folder).unwrap();
    let made = sim(
        &folder,
        &["minimize", "swarm", "--seed", "64", "--plant", "stale-incarnation", "--out", "small.json", "--quiet", "--json", "-"],
    );
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let json: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    let (nodes, faults) = (json["after"]["nodes"].as_u64().unwrap(), json["after"]["faults"].as_u64().unwrap());
    assert!(nodes <= 4 && faults <= 3, "{}", json["after"]);
    let again = sim(&folder, &["replay", "small.json", "--quiet"]);
    assert_eq!(again.status.code(), Some(4), "{}", String::from_utf8_lossy(&again.stderr));
    assert!(String::from_utf8_lossy(&again.stderr).contains("delivered_to_all_survivors"));
}

#[test]
fn a_file_is_swept_and_two_variants_are_compared() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("variants");
    std::fs::create_dir_all(&folder).unwrap();
    let file = "scenario = \"broadcast\"\nnodes = 8\nseeds = \"1..4\"\n[set]\nmessages = 5\n[sweep]\nlatency = [\"10ms\", \"80ms\"]\n";
    std::fs::write(folder.join("a.toml"), file).unwrap();
    let swept = sim(&folder, &["run", "a.toml", "--threads", "2", "--quiet", "--json", "-", "--csv", "tables", "--report", "swept.html"]);
    assert!(swept.status.success(), "{}", String::from_utf8_lossy(&swept.stderr));
    let json: serde_json::Value = serde_json::from_slice(&swept.stdout).unwrap();
    let p50 = |index: usize| json["combinations"][index]["metrics"]["latency_p50"]["mean"].as_f64().unwrap();
    assert!(json["combinations"][1]["set"][0] == "latency=80ms" && p50(1) > 3.0 * p50(0), "{json}");

    let table = std::fs::read_to_string(folder.join("tables/sweep.csv")).unwrap();
    assert!(table.starts_with("latency,seed,ok,failure,") && table.lines().count() == 1 + 6, "{table}");
    let page = std::fs::read_to_string(folder.join("swept.html")).unwrap();
    assert!(page.contains("meshwork-sim run a.toml --seed 1..4<") && page.contains("id=\"plot-latency-delivery\""), "{page}");

    let compare = |more: &[&str]| sim(&folder, &[&["compare", "a.toml", "--set", "latency=10ms", "--quiet"], more].concat());
    let same = compare(&[]);
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stderr));
    let worse = compare(&["--set-other", "latency=80ms", "--metric", "latency_p50"]);
    assert_eq!(worse.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&worse.stderr).contains("latency_p50"));
    let better = compare(&["--set-other", "latency=5ms", "--metric", "latency_p50"]);
    assert!(better.status.success(), "{}", String::from_utf8_lossy(&better.stderr));
    let mistake = sim(&folder, &["compare", "a.toml", "--quiet"]);
    assert_eq!(mistake.status.code(), Some(1), "it sweeps");
}

/// Writes results of some seeds to a file.
fn results(folder: &Path, seeds: &str, more: &[&str], file: &str) {
    let common = ["run", "broadcast", "--nodes", "5", "--set", "messages=5", "--quiet", "--seed", seeds, "--json", file];
    let done = sim(folder, &[&common[..], more].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn results_that_were_written_are_compared_by_seed() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("saved");
    std::fs::create_dir_all(&folder).unwrap();
    results(&folder, "1..5", &[], "before.json");
    results(&folder, "2..6", &["--set", "latency=90ms"], "after.json");
    let compare = |arguments: &[&str]| {
        let done = sim(&folder, &[&["compare", "--quiet"], arguments].concat());
        (done.status.code(), String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap())
    };
    let (code, text, _) = compare(&["before.json", "before.json"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("seeds 1..5, 4 pairs") && text.contains("base   before.json: meshwork-sim run broadcast"), "{text}");
    let (code, text, line) = compare(&["before.json", "after.json", "--metric", "latency_p50", "--worse", "10%", "--json", "-"]);
    assert_eq!(code, Some(2), "{text}{line}");
    assert!(line.starts_with("FAIL expectation latency_p50"), "{line}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let row = &json["rows"][0];
    assert_eq!((json["pairs"].as_u64(), row["seeds"].as_u64(), row["verdict"].as_str()), (Some(3), Some(3), Some("worse")));
    assert_eq!(row["unit"], "ms");
    // The same as when both are run for it.
    let run = sim(
        &folder,
        &[
            "compare",
            "broadcast",
            "--nodes",
            "5",
            "--set",
            "messages=5",
            "--set-other",
            "latency=90ms",
            "--seed",
            "2..5",
            "--json",
            "-",
            "--quiet",
        ],
    );
    let run: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    let same = run["rows"].as_array().unwrap().iter().find(|row| row["metric"] == "latency_p50").unwrap();
    assert_eq!(same, row);
    let (code, text, _) = compare(&["after.json", "before.json", "--metric", "latency_p50"]);
    assert_eq!(code, Some(0), "what is better is no regression");
    assert!(text.contains("2 runs without a partner are left out"), "{text}");

    // The combinations of one sweep.
    std::fs::write(
        folder.join("swept.toml"),
        "scenario = \"broadcast\"\nnodes = 5\nseeds = \"1..4\"\n[set]\nmessages = 5\n[sweep]\nlatency = [\"10ms\", \"80ms\"]\n",
    )
    .unwrap();
    assert!(sim(&folder, &["run", "swept.toml", "--quiet", "--json", "swept.json"]).status.success());
    let (code, _, line) = compare(&["swept.json", "--set", "latency=10ms", "--set-other", "latency=80ms", "--metric", "latency_p50"]);
    assert_eq!(code, Some(2), "{line}");
    let (code, _, line) = compare(&["swept.json", "swept.json"]);
    assert!(code == Some(1) && line.contains("pick one with --set") && line.contains("`latency=80ms`"), "{line}");
}

#[test]
fn what_cannot_be_compared_is_refused_with_a_reason() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("refused");
    std::fs::create_dir_all(&folder).unwrap();
    results(&folder, "1..3", &[], "one.json");
    results(&folder, "7..9", &[], "two.json");
    let text = std::fs::read_to_string(folder.join("one.json")).unwrap();
    std::fs::write(folder.join("later.json"), text.replace("\"schema\": 1", "\"schema\": 9")).unwrap();
    std::fs::write(folder.join("other.json"), "{\"a\": 1}").unwrap();
    std::fs::write(folder.join("torn.json"), &text[..text.len() / 2]).unwrap();
    let plan = sim(&folder, &["show", "broadcast", "--schedule"]);
    std::fs::write(folder.join("plan.json"), plan.stdout).unwrap();
    assert!(sim(&folder, &["compare", "one.json", "one.json", "--quiet", "--json", "compared.json"]).status.success());
    // No run has these metrics, and no run is there twice.
    std::fs::write(
        folder.join("renamed.json"),
        text.replace("\": ", "_\": ")
            .replace("schema_", "schema")
            .replace("runs_", "runs")
            .replace("seed_", "seed")
            .replace("replay_", "replay")
            .replace("metrics_", "metrics")
            .replace("failure_", "failure"),
    )
    .unwrap();
    std::fs::write(folder.join("twice.json"), text.replace("\"seed\": 2", "\"seed\": 1")).unwrap();
    let cases: [(&[&str], &str); 14] = [
        (&["one.json", "renamed.json"], "no metric in common"),
        (&["one.json", "twice.json"], "it has two runs of seed 1"),
        (&["one.json"], "name a second file"),
        (&["one.json", "brodcast"], "Did you mean `broadcast`?"),
        (&["one.json", "two.json"], "no seed in common: 1..3 and 7..9"),
        (&["one.json", "later.json"], "form 9"),
        (&["one.json", "other.json"], "is no result file"),
        (&["one.json", "torn.json"], "is no JSON"),
        (&["one.json", "compared.json"], "holds a comparison"),
        (&["one.json", "plan.json"], "one.json holds results and plan.json is something to run"),
        (&["broadcast", "one.json"], "one.json holds results and broadcast is something to run"),
        (&["one.json", "one.json", "--metric", "latency"], "Did you mean `latency_p50`?"),
        (&["one.json", "one.json", "--set", "latency=1s"], "holds one combination"),
        (&["one.json", "one.json", "--seed", "5..7"], "no seed in common among those of --seed"),
    ];
    for (arguments, reason) in cases {
        let done = sim(&folder, &[&["compare", "--quiet"], arguments].concat());
        let line = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.code() == Some(1) && line.contains(reason), "{arguments:?}: {line}");
    }
    let run = sim(&folder, &["run", "one.json"]);
    assert!(run.status.code() == Some(1) && String::from_utf8_lossy(&run.stderr).contains("holds results, not a plan"));
}

#[test]
fn the_overlay_alone_has_a_page_too() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scale");
    std::fs::create_dir_all(&folder).unwrap();
    let run = |threads: &str, page: &str| {
        let common = ["run", "scale", "--nodes", "300", "--set", "messages=20", "--quiet", "--json", "-", "--csv", "."];
        let done = sim(&folder, &[&common[..], &["--threads", threads, "--report", page]].concat());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let json: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        (json, std::fs::read_to_string(folder.join(page)).unwrap())
    };
    let (json, page) = run("1", "one.html");
    for id in ["delivery", "latency", "hops", "redundancy", "copies", "degree", "paths", "overlay"] {
        assert!(page.contains(&format!("id=\"plot-{id}\"")), "{id}");
    }
    assert!(!page.contains("plot-bytes") && !page.contains("within a second") && !page.contains("http"), "nothing is encoded");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let (series, messages, nodes) = (read("series.csv"), read("messages.csv"), read("nodes.csv"));
    assert_eq!((messages.lines().count(), nodes.lines().count()), (1 + 20, 1 + 300));
    let payloads = json["metrics"]["payloads"].as_f64().unwrap();
    assert_eq!((sum(&series, "payloads_received"), sum(&messages, "payloads_received")), (payloads, payloads));
    assert_eq!((sum(&series, "deliveries"), sum(&messages, "deliveries")), (20.0 * 299.0, 20.0 * 299.0));
    let degrees = sum(&nodes, "degree_neighbors") / 300.0;
    assert!((degrees - json["metrics"]["degree_mean"].as_f64().unwrap()).abs() < 1e-9);
    assert_eq!(run("2", "two.html").1, page.replace("--threads 1", "--threads 2"), "whatever the number of threads");
}

#[test]
fn a_swarm_that_stops_says_how_far_it_came() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stopped");
    std::fs::create_dir_all(&folder).unwrap();
    let done = sim(&folder, &["swarm", "--seeds", "0..50", "--plant", "deliver-never", "--failures-max", "1", "--quiet"]);
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(text.starts_with("swarm: 1 of 50 seeds from 0 on: 1 failed"), "{text}");
}
