//! The command `meshwork bench` from end to end: short runs that prove wiring. No figure is looked at but for being there.

#![expect(clippy::disallowed_methods, reason = "the test runs the real command")]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_meshwork")).arg("bench").args(arguments).stdin(Stdio::null()).output().expect("the command runs")
}

/// Runs a benchmark that must succeed; its JSON.
fn json(arguments: &[&str]) -> Value {
    let output = bench(&[arguments, &["--json", "-"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).expect("the command prints JSON");
    assert_eq!(found["schema"], 1);
    assert_eq!(found["kind"], arguments[0]);
    for known in ["cpu", "cores", "kernel", "load", "version"] {
        assert!(!found["machine"][known].is_null(), "{known}");
    }
    found
}

/// The values of one field over all rows.
fn column<'a>(found: &'a Value, field: &str) -> Vec<&'a Value> {
    found["rows"].as_array().expect("there are rows").iter().map(|row| &row[field]).collect()
}

#[test]
fn urgent_messages_are_heard_over_a_link() {
    let found = json(&["hol", "--link", "50mbit,4ms,loss=0.1%", "--seconds", "0.3", "--warm-up", "0.2", "--rounds", "1", "--bulk", "2"]);
    assert_eq!(column(&found, "config"), ["meshwork", "quinn-priority", "quinn-one-stream"]);
    assert_eq!(column(&found, "link"), ["50mbit,4ms"; 3]);
    for field in ["idle_p99_ms", "p50_ms", "p99_ms", "bulk_mb_s", "ratio"] {
        assert!(column(&found, field).iter().all(|value| value.is_f64()), "{field}");
    }
    for round in found["rounds"].as_array().expect("there are rounds") {
        assert!(round["facts"]["link"]["there"]["forwarded"].as_u64() > Some(0), "the traffic took the link: {round}");
        // Half the round trip each way, at least.
        assert!(round["idle"]["p50_ms"].as_f64() > Some(4.0), "{round}");
    }
    assert_eq!(found["histograms"].as_array().map(Vec::len), Some(6));
}

#[test]
fn a_slow_reader_makes_a_phase_of_its_own() {
    let short = ["--seconds", "0.3", "--warm-up", "0.2", "--rounds", "1", "--bulk", "2"];
    let found = json(&[&["hol", "--slow-reader", "--config", "meshwork,quinn-priority"][..], &short].concat());
    assert_eq!(column(&found, "config"), ["meshwork", "quinn-priority"]);
    for field in ["slow_p99_ms", "slow_ratio", "slow_bulk_mb_s"] {
        let found = column(&found, field);
        assert!(found[0].is_f64() && found[1].is_null(), "{field}: {found:?}");
    }
    assert!(found["rounds"][0]["slow"]["count"].as_u64() > Some(0));
    assert_eq!(found["histograms"].as_array().map(Vec::len), Some(5));
}

#[test]
fn urgent_messages_can_be_sent_twice() {
    let short = ["--seconds", "0.3", "--warm-up", "0.2", "--rounds", "1", "--bulk", "2"];
    let found = json(&[&["hol", "--config", "meshwork,meshwork-twice", "--link", "50mbit,4ms,loss=1%"][..], &short].concat());
    assert_eq!(column(&found, "config"), ["meshwork", "meshwork-twice"]);
    assert_eq!(column(&found, "unanswered"), [0; 2]);
    for round in found["rounds"].as_array().expect("there are rounds") {
        // Each counts once, however often it was answered.
        assert_eq!([&round["idle"]["count"], &round["loaded"]["count"]], [60; 2], "{round}");
    }
    let found = json(&["hol", "--config", "meshwork-twice", "--seconds", "0.2", "--warm-up", "0.1", "--rounds", "1", "--bulk", "2"]);
    assert_eq!(column(&found, "link"), ["loopback"]);
}

#[test]
fn values_have_an_age() {
    let found = json(&["latest", "--link", "20mbit,4ms", "--seconds", "0.4", "--warm-up", "0.2", "--rounds", "1"]);
    assert_eq!(column(&found, "config"), ["meshwork", "quinn"]);
    assert_eq!(column(&found, "overload"), [2.6; 2]);
    for row in found["rows"].as_array().expect("there are rows") {
        // Half the round trip, and 16 KiB at 2.5 MB/s.
        assert!(row["floor_ms"].as_f64().is_some_and(|floor| (floor - 8.55).abs() < 0.01), "{row}");
        assert!(row["age_p50_ms"].as_f64() >= row["floor_ms"].as_f64().map(|floor| floor * 0.9), "{row}");
        assert!(row["link_part"].as_f64() > Some(0.0) && row["ratio"].is_f64() && row["taken_part"].is_f64(), "{row}");
    }
    for round in found["rounds"].as_array().expect("there are rounds") {
        assert!(round["facts"]["link"]["there"]["forwarded"].as_u64() > Some(0), "the traffic took the link: {round}");
    }
}

#[test]
fn every_class_has_a_part_of_the_bytes() {
    let found = json(&["classes", "--link", "50mbit,4ms", "--seconds", "0.4", "--warm-up", "0.3", "--rounds", "1"]);
    assert_eq!(column(&found, "class"), ["high", "medium", "low"]);
    let parts: f64 = column(&found, "part").iter().filter_map(|part| part.as_f64()).sum();
    assert!((parts - 1.0).abs() < 1e-9, "the parts are all there is: {parts}");
    assert_eq!(found["rounds"][0]["classes"].as_array().map(Vec::len), Some(3));
}

#[test]
fn everything_is_carried_over_loopback() {
    let found = json(&["hol", "--config", "tcp-tls,quinn-priority", "--seconds", "0.2", "--warm-up", "0.1", "--rounds", "1"]);
    assert_eq!(column(&found, "config"), ["tcp-tls", "quinn-priority"]);

    let found = json(&["channels", "--sizes", "64,65536", "--seconds", "0.2", "--rounds", "1", "--lanes", "2", "--channels", "2"]);
    let cases = column(&found, "case");
    assert_eq!(cases.len(), 7 + 5);
    for (case, rate) in cases.iter().zip(column(&found, "wall_msgs_s")) {
        assert!(rate.as_f64() > Some(0.0), "{case} carried nothing");
    }
    assert_eq!(found["rows"][0]["baseline"], "quinn-stream-per-message");
    assert!(found["rows"][0]["ratio"].is_f64() && found["rows"][2]["ratio"].is_null());
}

#[test]
fn a_rate_and_several_peers_can_be_asked_for() {
    let found = json(&["channels", "--sizes", "256", "--seconds", "0.3", "--rounds", "1", "--peers", "2", "--open-loop", "500"]);
    for (case, rate) in column(&found, "case").iter().zip(column(&found, "wall_msgs_s")) {
        assert!(rate.as_f64() > Some(0.0), "{case} carried nothing");
    }
}

#[test]
fn latency_has_three_patterns_and_a_page() {
    let page = std::env::temp_dir().join(format!("meshwork-bench-{}.html", std::process::id()));
    let path: &str = page.to_str().expect("the temporary folder has a plain name");
    let found = json(&["latency", "--seconds", "0.2", "--rounds", "2", "--rate", "200", "--report", path]);
    assert_eq!(column(&found, "case")[..5], ["meshwork", "meshwork-shared", "quinn", "quinn-threads", "tcp-tls"]);
    assert_eq!(found["rows"].as_array().map(Vec::len), Some(15));
    for row in found["rows"].as_array().expect("there are rows") {
        let is_compared = !["quinn", "tcp-tls"].contains(&row["case"].as_str().expect("a row has a name"));
        assert_eq!([row["ratio"].is_f64(), row["p50_ratio"].is_f64()], [is_compared; 2], "{row}");
    }
    let baselines = found["rows"][0]["ratios"].as_array().expect("there are ratios").iter().map(|ratio| &ratio["baseline"]);
    assert_eq!(baselines.collect::<Vec<_>>(), ["quinn", "quinn-threads"]);
    let text = std::fs::read_to_string(&page).expect("the page was written");
    assert!(text.starts_with("<!doctype html>") && text.contains("<svg") && !text.contains("http"));
    std::fs::remove_file(PathBuf::from(&page)).expect("the page can be removed");
}

#[test]
fn an_idle_peer_has_a_price() {
    let found = json(&["memory", "--peers", "2", "--links", "3", "--rounds", "1"]);
    assert_eq!(column(&found, "case"), ["meshwork", "meshwork-links", "quinn"]);
    assert!(column(&found, "ends").iter().all(|ends| ends.as_u64() >= Some(4)));
    assert_eq!(column(&found, "peers"), [2, 3, 3]);
    let handshakes = column(&found, "handshake_cpu_ms");
    assert!(handshakes[0].is_null() && handshakes[1..].iter().all(|ms| ms.as_f64() > Some(0.0)), "{handshakes:?}");
}

#[test]
fn replicas_are_repaired_and_counted() {
    let found = json(&["state", "--keys", "2000", "--diff", "3,150", "--rounds", "2"]);
    let of = |case: &str| -> Vec<&Value> {
        found["rows"].as_array().expect("there are rows").iter().filter(|row| row["case"] == case).collect()
    };
    let repair = of("repair");
    assert_eq!(repair.iter().map(|row| &row["d"]).collect::<Vec<_>>(), [3, 3, 150, 150]);
    for row in &repair {
        assert_eq!(row["repaired"], row["d"].as_f64().expect("a number"), "what differs is what was repaired: {row}");
        for field in ["bytes", "entry_bytes", "rounds", "cpu_ms"] {
            assert!(row[field].as_f64() > Some(0.0), "{field}: {row}");
        }
        assert!(row["n"] == 2_000 && row["ops_per_cpu_s"].is_null(), "{row}");
    }
    assert!(repair[0]["bytes"].as_f64() < repair[2]["bytes"].as_f64());
    assert_eq!(of("snapshot")[0]["repaired"], 2_000.0);
    assert_eq!(of("idle")[0]["rounds"], 1.0);
    assert_eq!(of("apply").len(), 4);
    for case in ["apply", "write", "sketch", "verified"] {
        assert!(of(case).iter().all(|row| row["ops_per_cpu_s"].as_f64() > Some(0.0) && row["bytes"].is_null()), "{case}");
    }
    for case in ["idle", "delta", "signed", "overwrites"] {
        assert!(of(case).iter().all(|row| row["bytes"].as_f64() > Some(0.0)), "{case}");
    }
    // Of so few keys the system's count of pages says little.
    assert!(of("memory")[0]["bytes"].is_f64());
}

#[test]
fn what_cannot_be_measured_is_refused() {
    for (arguments, reason) in [
        (&["hol", "--link", "fast"][..], "a rate and a round trip"),
        (&["hol", "--link", "100mbit,20ms,loss=200%"], "no part from 0 % to 100 %"),
        (&["hol", "--loss", "1%"], "--link"),
        (&["hol", "--link", "100mbit,20ms", "--config", "tcp-tls"], "UDP"),
        (&["hol", "--slow-reader", "--config", "tcp-tls"], "`meshwork` alone"),
        (&["latest", "--config", "tcp-tls"], "UDP"),
        (&["latest", "--overload", "0"], "0.1 to 100"),
        (&["channels", "--sizes", "0"], "0 is not in"),
        (&["latency", "--seconds", "0"], "0.1 to 600"),
        (&["state", "--keys", "1"], "1 is not in"),
        (&["state", "--diff", "0"], "0 is not in"),
        (&["state", "--keys", "1000", "--diff", "1000"], "there must be fewer"),
    ] {
        let output = bench(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(reason), "{said}");
    }
}
