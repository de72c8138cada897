//! A few real processes over the wire, through the command: that it works, that it tidies up, and that it refuses what it cannot do. How near the simulator is, is measured and not asserted here.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that starts the command and waits for it")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

/// What the command exits with where it may not make network namespaces.
const SKIPPED: i32 = 77;
/// How long anything may take beside what a scenario takes.
const PATIENCE: Duration = Duration::from_secs(60);

const SIM: &str = env!("CARGO_BIN_EXE_meshwork-sim");

/// The command of the nodes: built with the tests of the workspace, and here when these tests run alone.
fn meshwork() -> PathBuf {
    static BUILT: Once = Once::new();
    let path = Path::new(SIM).with_file_name("meshwork");
    BUILT.call_once(|| {
        if path.is_file() {
            return;
        }
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "meshwork", "--features", "cli", "--bin", "meshwork"]);
        build.args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")]);
        build.arg("--target-dir").arg(Path::new(SIM).parent().and_then(Path::parent).unwrap());
        if path.parent().unwrap().ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the command `meshwork` can be built");
    });
    path
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(SIM);
    command.arg("real").args(arguments).arg("--meshwork").arg(meshwork()).arg("--quiet");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The end of a run that began; none when it was skipped.
fn end(child: Child) -> Option<(u32, Output)> {
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    if output.status.code() == Some(SKIPPED) {
        println!("{}", String::from_utf8_lossy(&output.stdout));
        return None;
    }
    Some((pid, output))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The namespaces of the run of a process.
fn namespaces(pid: u32) -> Vec<String> {
    let list = Command::new("ip").args(["netns", "list"]).output().unwrap();
    let prefix = format!("meshwork-{pid}-");
    String::from_utf8_lossy(&list.stdout).lines().filter(|line| line.starts_with(&prefix)).map(str::to_owned).collect()
}

fn folders(pid: u32) -> usize {
    let prefix = format!("meshwork-{pid}-");
    let entries = std::fs::read_dir(std::env::temp_dir()).unwrap().filter_map(Result::ok);
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).count()
}

#[test]
fn processes_deliver_what_simulated_nodes_do_and_leave_nothing_behind() {
    let file = folder("real").join("faults.toml");
    let text = r#"
        name = "faults while they form"
        scenario = "broadcast"
        nodes = 5
        seeds = "3..4"
        [set]
        loss = "1%"
        join = "one-by-one"
        join-over = "1s"
        form = "9s"
        work = "2s"
        messages = 20
        quiet = "1s"
        [[fault]]
        kind = "crash"
        at = "3s"
        nodes = [3]
        back = "2s"
        moved = true
        [[fault]]
        kind = "pause"
        at = "4s"
        nodes = [2]
        for = "1s"
        [[fault]]
        kind = "partition"
        at = "3s"
        nodes = [4]
        for = "1s"
        [[fault]]
        kind = "weather"
        at = "4s"
        nodes = [1]
        for = "1s"
        loss = "10%"
        late = "20ms"
    "#;
    std::fs::write(&file, text).unwrap();
    let page = file.with_file_name("page.md");
    let (file, page) = (file.to_str().unwrap(), page.to_str().unwrap());
    let Some((pid, output)) = end(start(&[file, "--json", "-", "--markdown", page])) else { return };
    assert!(output.status.success(), "{}", said(&output));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let run = &json["runs"][0];
    assert_eq!((run["seed"].as_u64(), json["ok"].as_bool()), (Some(3), Some(true)), "{json}");
    for side in ["simulated", "real"] {
        assert_eq!((run[side]["messages"].as_u64(), run[side]["delivery"].as_f64()), (Some(20), Some(1.0)), "{side}: {json}");
        // 20 messages to four others each. The least latency of a pair is 10 ms, and is waited for on the wire as in the simulator.
        assert_eq!(run[side]["deliveries"].as_u64(), Some(80), "{side}: {json}");
        assert!(run[side]["latency_p50_ms"].as_f64().unwrap() > 10.0, "{side}: {json}");
    }
    assert!(run["wire"]["packets"].as_u64().unwrap() > 100 && run["wire"]["lost"].as_u64().unwrap() > 0, "{json}");
    assert!(std::fs::read_to_string(page).unwrap().contains("| 3 | real | 20 | 1.0000 | 80 |"));
    assert_eq!((namespaces(pid), folders(pid)), (Vec::new(), 0));
}

#[test]
fn a_run_that_is_ended_leaves_nothing_behind() {
    let child = start(&["broadcast", "--nodes", "3"]);
    let pid = child.id();
    let from = Instant::now();
    // As soon as the first node has its folder, everything else is there.
    let home = || {
        let entries = std::fs::read_dir(std::env::temp_dir()).unwrap().filter_map(Result::ok).map(|entry| entry.path());
        entries
            .into_iter()
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("meshwork-{pid}-"))))
    };
    let mut child = child;
    while !home().is_some_and(|home| home.join("seed-1/node-0").is_dir()) {
        if child.try_wait().unwrap().is_some() {
            let Some((_, output)) = end(child) else { return };
            panic!("it ended by itself: {}", said(&output));
        }
        assert!(from.elapsed() < PATIENCE, "the first node does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(namespaces(pid).len() == 4, "the hub and three nodes: {:?}", namespaces(pid));
    assert!(Command::new("kill").args(["-TERM", &pid.to_string()]).status().unwrap().success());
    let (_, output) = end(child).unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    assert_eq!((namespaces(pid), folders(pid)), (Vec::new(), 0));
}

#[test]
fn what_cannot_be_done_is_refused_before_anything_starts() {
    let file = folder("refused").join("attack.toml");
    std::fs::write(&file, "scenario = \"broadcast\"\n[[fault]]\nkind = \"attack\"\nat = \"3s\"\nnodes = [3]\nframes = 5\n").unwrap();
    let sim = |arguments: &[&str]| Command::new(SIM).arg("real").args(arguments).output().unwrap();
    for (arguments, named) in [
        (&[file.to_str().unwrap()][..], "`attack` cannot be done to processes"),
        (&["broadcast", "--nodes", "60"], "at most 50"),
        (&["broadcast", "--meshwork", "/nowhere/meshwork"], "there is no /nowhere/meshwork: build it with"),
        (&["brodcast"], "Did you mean `broadcast`?"),
    ] {
        let output = sim(arguments);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(named), "{}", said(&output));
    }
}
