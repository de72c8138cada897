//! The `meshwork` command as people run it: real processes, real sockets on loopback, each user with a home of its own.
//!
//! They prove wiring, not protocols. Time limits are generous, but for the one that is promised: a node that dies is noticed within 8.5 s.

#![expect(clippy::disallowed_methods, reason = "real processes are waited for in real time")]
#![expect(clippy::disallowed_types, reason = "a port is free when it can be bound, and a bad client needs a socket")]

#[path = "support/command.rs"]
mod command;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use command::{PATIENCE, Process, User, cluster, text, wait};
use serde_json::Value;

/// How long a cluster may hold a killed node for alive.
const NOTICED: Duration = Duration::from_millis(8_500);

fn free_port() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port is free")
}

#[test]
fn five_nodes_find_each_other_talk_and_notice_a_death() {
    let user = User::new();
    let mut nodes = cluster(&user, 5);

    nodes[4].type_line("good morning \u{1b}[31m");
    for node in &nodes[..4] {
        let message = node.wait_for("the message", |line| line["event"] == "message");
        assert_eq!((message["from"].as_str(), message["value"].as_str()), (Some(nodes[4].id()), Some("good morning \u{1b}[31m")));
    }
    nodes[2].type_line("/set color blue");
    for node in &nodes {
        assert!(wait(PATIENCE, || node.ctl(&user, &["state"])["entries"][0]["value"] == "blue"), "{} has no color", node.short());
        assert_eq!(node.ctl(&user, &["state", "get", "color"])["value"], "blue");
    }
    let health = nodes[0].ctl(&user, &["health"]);
    assert_eq!((health["status"].as_str(), health["members"].as_u64(), health["keys"].as_u64()), (Some("ok"), Some(5), Some(1)));
    assert_eq!(health["stalled"], false);
    let links = nodes[0].ctl(&user, &["links"]);
    let links = links["links"].as_array().expect("a list");
    assert!(!links.is_empty() && links.iter().all(|link| link["sent_bytes"].as_u64() > Some(0)), "{links:?}");
    let neighbors = links.iter().filter(|link| link["neighbor"] == true).count();
    assert!(neighbors > 0 && nodes[0].ctl(&user, &["topology"])["neighbors"].as_array().map(Vec::len) >= Some(neighbors));
    assert!(nodes[0].ctl(&user, &["channels"])["channels"].as_array().is_some_and(|channels| !channels.is_empty()));

    let dead = nodes.remove(1);
    dead.signal("KILL");
    let died = Instant::now();
    for node in &nodes {
        let noticed =
            wait(NOTICED.saturating_sub(died.elapsed()), || node.member(&user, dead.id()).iter().all(|(status, _)| status != "alive"));
        assert!(noticed, "{} holds {} for alive after {:?}", node.short(), dead.short(), died.elapsed());
    }
}

#[test]
fn a_node_that_stands_still_for_two_seconds_stays_a_member() {
    let user = User::new();
    let nodes = cluster(&user, 3);
    nodes[1].signal("STOP");
    thread::sleep(Duration::from_secs(2));
    nodes[1].signal("CONT");
    // A verdict that was on its way would be out by then.
    thread::sleep(Duration::from_secs(5));
    for node in &nodes {
        assert_eq!(node.events("member_failed"), 0, "{}: {:#?}", node.short(), node.lines());
        assert!(wait(PATIENCE, || node.alive(&user) == 3), "{}: {:#?}", node.short(), node.lines());
    }
}

#[test]
fn a_node_that_moves_is_the_same_node() {
    let user = User::new();
    let first = user.node(&[]);
    let data = user.path("data");
    let seed = first.field("address").to_owned();
    let (old, new) = (free_port().to_string(), free_port().to_string());
    let moving = user.node(&["--join", &seed, "--data", &data, "--listen", &old]);
    let id = moving.id().to_owned();
    assert!(wait(PATIENCE, || first.member(&user, &id) == [("alive".to_owned(), old.clone())]), "{:#?}", first.lines());

    let second = user.run(&["node", "--no-mdns", "--listen", "127.0.0.1:0", "--data", &data]);
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("another node runs with it"), "{}", text(&second.stderr));

    moving.signal("KILL");
    drop(moving);
    let moved = user.node(&["--join", &seed, "--data", &data, "--listen", &new]);
    assert_eq!(moved.id(), id, "the key is in the data folder");
    assert!(wait(PATIENCE, || first.member(&user, &id) == [("alive".to_owned(), new.clone())]), "{:?}", first.member(&user, &id));
    assert_eq!(first.alive(&user), 2);
    assert_eq!(first.ctl(&user, &["members"])["members"].as_array().map(Vec::len), Some(2), "no ghost");
}

#[test]
fn another_user_needs_the_token() {
    let (host, guest) = (User::new(), User::new());
    let node = host.node(&[]);
    let address = node.field("address").to_owned();

    // With the address alone, the guest is refused, and told so once.
    let mut refused = guest
        .command(&["node", "--no-mdns", "--listen", "127.0.0.1:0", "--admin", "off", "--join", &address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command starts");
    thread::sleep(Duration::from_secs(4));
    Command::new("kill").args(["-TERM", &refused.id().to_string()]).status().expect("kill runs");
    assert!(refused.wait().expect("it ends").success());
    let mut said = String::new();
    refused.stdout.take().expect("piped").read_to_string(&mut said).expect("it prints text");
    let reasons: Vec<&str> = said.lines().filter(|line| line.starts_with("* cannot join at")).collect();
    assert_eq!(reasons.len(), 1, "{said}");
    assert!(reasons[0].contains(&address) && reasons[0].contains("secret"), "{said}");
    assert_eq!(node.alive(&host), 1);

    // With the token it is let in, whether the node printed it or the command.
    let printed = node.field("token").to_owned();
    let by_token = guest.node(&["--join", &printed]);
    assert!(wait(PATIENCE, || node.alive(&host) == 2), "{:#?}", by_token.lines());
    let made = host.json(&["token", "new", "--seed", &address, "--json"]);
    let file = guest.path("token");
    std::fs::write(&file, made["token"].as_str().expect("a token")).expect("the home can be written");
    let by_file = guest.node(&["--join", &format!("@{file}")]);
    assert!(wait(PATIENCE, || node.alive(&host) == 3), "{:#?}", by_file.lines());

    // A line without cluster name goes by the one in the token; another one is refused.
    let other = guest.run(&["node", "--no-mdns", "--listen", "127.0.0.1:0", "--cluster", "other", "--join", &printed]);
    assert_eq!(other.status.code(), Some(2));
    assert!(text(&other.stderr).contains("`other`") && !text(&other.stderr).contains(&printed), "{}", text(&other.stderr));
}

#[test]
fn a_token_shows_everything_but_the_secret() {
    let user = User::new();
    let made = user.json(&["token", "new", "--cluster", "c", "--expires", "2h", "--seed", "127.0.0.1:4000", "--json"]);
    let token = made["token"].as_str().expect("a token");
    assert!(token.starts_with("mesh1"));
    let secret = std::fs::read_to_string(user.0.join("state/meshwork/clusters/c/secret")).expect("the secret was made");
    let shown = user.run(&["token", "inspect", token]);
    assert!(shown.status.success());
    let shown = text(&shown.stdout);
    assert!(shown.contains("127.0.0.1:4000") && shown.contains("in 1 h 59 min"), "{shown}");
    assert!(!shown.contains(secret.trim()), "{shown}");
    assert_eq!(user.json(&["token", "inspect", token, "--json"])["cluster"], "c");
    // The secret is made once.
    user.json(&["token", "show", "--cluster", "c", "--json"]);
    assert_eq!(std::fs::read_to_string(user.0.join("state/meshwork/clusters/c/secret")).expect("it is still there"), secret);
    let broken = user.run(&["token", "inspect", "mesh1abc"]);
    assert_eq!((broken.status.code(), text(&broken.stderr).lines().count()), (Some(2), 1));
}

#[test]
fn a_node_without_secret_stays_on_loopback() {
    let user = User::new();
    let output = user.run(&["node", "--no-secret", "--no-mdns", "--listen", "0.0.0.0:0"]);
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("loopback") && said.lines().count() == 1, "{said}");
    let first = user.node(&["--no-secret"]);
    assert_eq!(first.started["token"], Value::Null);
    let second = user.node(&["--no-secret", "--join", first.field("address")]);
    assert!(wait(PATIENCE, || second.alive(&user) == 2));
}

#[test]
fn a_node_outlives_its_input_and_says_goodbye() {
    let user = User::new();
    let mut nodes = cluster(&user, 2);
    drop(nodes[1].input.take());
    thread::sleep(Duration::from_secs(1));
    assert_eq!(nodes[0].alive(&user), 2, "the end of the input is not the end of the node");
    nodes[1].signal("TERM");
    assert_eq!(nodes[1].end(), Some(0));
    let left = nodes[0].wait_for("that the other left", |line| line["event"] == "member_left");
    assert_eq!(left["member"]["id"].as_str(), Some(nodes[1].id()));
    nodes[0].type_line("/members");
    nodes[0].wait_for("the members", |line| line["event"] == "members");
    nodes[0].type_line("/nonsense");
    nodes[0].wait_for("a problem", |line| line["event"] == "error");
    nodes[0].type_line("/quit");
    assert_eq!(nodes[0].end(), Some(0));
}

#[test]
fn a_state_that_does_not_reach_the_disk_is_told_of_everywhere() {
    let user = User::new();
    let data = user.path("data");
    // Files of at most 16 KiB, beyond which writes fail: as on a full disk.
    let program = env!("CARGO_BIN_EXE_meshwork");
    let small = "trap '' XFSZ; ulimit -f 32; exec \"$0\" \"$@\"";
    let node = ["node", "--json", "--no-mdns", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", &data];
    let mut command = Command::new("sh");
    command.args(["-c", small, program]).args(node).env("HOME", &user.0).env("XDG_STATE_HOME", user.0.join("state"));
    let mut node = Process::start(&mut command);
    let health = |node: &Process| user.run(&["ctl", "--admin", node.field("admin"), "health"]);
    assert_eq!(health(&node).status.code(), Some(0));

    node.type_line(&format!("/set large {}", "x".repeat(20_000)));
    let told = node.wait_for("that the disk takes nothing", |line| line["event"] == "state_undurable");
    assert!(told["reason"].as_str().is_some_and(|reason| reason.contains(&data)), "{told}");
    let ill = health(&node);
    assert!(text(&ill.stdout).lines().any(|line| line.starts_with("state ") && line.contains(&data)), "{}", text(&ill.stdout));
    assert_eq!((ill.status.code(), text(&ill.stderr).contains("does not reach the disk")), (Some(1), true), "{}", text(&ill.stderr));

    node.type_line("/set large small");
    node.wait_for("that the disk takes it", |line| line["event"] == "state_durable");
    assert_eq!(health(&node).status.code(), Some(0));

    node.type_line(&format!("/set large {}", "x".repeat(20_000)));
    assert!(wait(PATIENCE, || node.events("state_undurable") == 2), "{:#?}", node.lines());
    node.signal("TERM");
    assert_eq!(node.end(), Some(1));
}

#[test]
fn what_is_missing_or_damaged_in_a_data_folder_is_told_at_the_start() {
    let user = User::new();
    let data = user.path("data");
    let mut node = user.node(&["--data", &data]);
    node.type_line("/set color \u{1b}[31mred");
    assert!(wait(PATIENCE, || node.ctl(&user, &["state"])["keys"] == 1));
    let plain = user.run(&["ctl", "--admin", node.field("admin"), "state", "get", "color"]);
    assert_eq!(text(&plain.stdout), "\u{1b}[31mred\n", "a program gets what was written");
    node.signal("TERM");
    assert_eq!((node.end(), node.errors().as_str()), (Some(0), ""));

    let data = Path::new(&data);
    let logs = std::fs::read_dir(data.join("state")).expect("it is there").filter_map(|entry| Some(entry.ok()?.path()));
    for log in logs.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log-"))) {
        std::fs::remove_file(log).expect("it can be removed");
    }
    std::fs::write(data.join("incarnation"), "many").expect("it can be written");
    std::fs::write(data.join("peers"), "nobody\n").expect("it can be written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(data.join("peers"), mode).expect("it is ours");
    let node = user.node(&["--data", &user.path("data")]);
    let warned = || node.errors().lines().filter(|line| line.contains("WARN")).count() == 3;
    assert!(wait(PATIENCE, warned), "{}", node.errors());
    assert!(["log-", "incarnation", "peers"].iter().all(|name| node.errors().contains(name)), "{}", node.errors());
}

#[test]
fn ctl_finds_the_only_node_and_lists_several() {
    let user = User::new();
    let none = user.run(&["ctl", "health"]);
    assert_eq!((none.status.code(), text(&none.stderr).lines().count()), (Some(1), 1), "{}", text(&none.stderr));
    let arguments = ["node", "--json", "--no-mdns", "--listen", "127.0.0.1:0"];
    let first = Process::start(&mut user.command(&arguments));
    assert_eq!(user.json(&["ctl", "health", "--json"])["id"], first.started["id"]);
    let socket = Path::new(first.field("admin"));
    assert!(socket.starts_with(&user.0), "{socket:?}");
    let table = user.run(&["ctl", "members"]);
    assert!(text(&table.stdout).contains("(this node)"), "{}", text(&table.stdout));
    let second = Process::start(&mut user.command(&arguments));
    let several = user.run(&["ctl", "members"]);
    let said = text(&several.stderr);
    assert!(!several.status.success() && said.contains(first.field("admin")) && said.contains(second.field("admin")), "{said}");
    // The socket of a killed node is in nobody's way.
    first.signal("KILL");
    drop(first);
    assert_eq!(user.json(&["ctl", "health", "--json"])["id"], second.started["id"]);
}

#[test]
fn the_admin_endpoint_takes_no_nonsense() {
    let user = User::new();
    let refused = user.run(&["node", "--no-mdns", "--admin", "0.0.0.0:4100"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("loopback only"), "{}", text(&refused.stderr));
    let node = user.node(&[]);
    let admin = node.field("admin").to_owned();
    let connect = || {
        let stream = TcpStream::connect(&admin).expect("the endpoint is there");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit can be set");
        stream
    };
    let mut form = connect();
    form.write_all(b"POST / HTTP/1.1\r\n\r\n{\"ask\":\"members\"}\n").expect("the endpoint reads");
    let mut answer = String::new();
    let _ = form.read_to_string(&mut answer);
    assert!(answer.lines().count() <= 1 && !answer.contains("members"), "{answer}");
    let mut empty = connect();
    empty.write_all(b"{\"ask\":\"state\",\"verb\":\"batch\",\"ops\":[]}\nno question\n").expect("the endpoint reads");
    let mut answer = String::new();
    let _ = empty.read_to_string(&mut answer);
    assert!(answer.starts_with("{\"ok\":false") && answer.contains("nothing to write"), "{answer}");
    // One that sends too long a line is told so.
    let mut long = connect();
    long.write_all(&[b'x'; 512 * 1_024 + 1]).expect("the endpoint reads");
    let mut answer = String::new();
    let _ = long.read_to_string(&mut answer);
    assert!(answer.contains("a line has more than 524288 bytes"), "{answer}");
    // One that sends a line without end is cut off, and those that say nothing keep nobody else out.
    let mut endless = connect();
    let chunk = vec![b'x'; 64 * 1_024];
    // More than the buffers of the system can hold.
    assert!((0..1_024).any(|_| endless.write_all(&chunk).is_err()), "64 megabytes in one line were taken");
    let _silent: Vec<TcpStream> = (0..8).map(|_| connect()).collect();
    assert_eq!(node.alive(&user), 1);
}

#[test]
fn what_no_node_can_start_with_is_refused_by_name() {
    let user = User::new();
    let file = user.path("mesh.toml");
    let refused = |line: &str, arguments: &[&str]| {
        std::fs::write(&file, format!("{line}\nmdns = false\nadmin = \"off\"\n")).expect("the home can be written");
        let output = user.run(&[&["node", "--config", &file, "--listen", "127.0.0.1:0"], arguments].concat());
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{line} {arguments:?}: {said}");
        said
    };
    for (line, key) in [
        ("cluster = \"\"", "cluster"),
        ("join = [\"nope\"]", "join"),
        ("data = \"\"", "data"),
        ("advertise = \"0.0.0.0:4100\"", "advertise"),
    ] {
        let said = refused(line, &[]);
        assert!(said.contains(&format!("mesh.toml: {key}: ")), "{said}");
    }
    for address in ["0.0.0.0:4100", "[::]:4100", "224.0.0.251:4100", "192.0.2.8:0"] {
        let said = refused("", &["--advertise", address]);
        assert!(said.contains("--advertise: ") && said.contains(address), "{said}");
    }
    for variable in ["MESHWORK_NO_SECRET", "MESHWORK_NO_MDNS"] {
        let output = user.command(&["node"]).env(variable, "nope").stdin(Stdio::null()).output().expect("the command runs");
        assert_eq!((output.status.code(), text(&output.stderr).contains(variable)), (Some(2), true), "{}", text(&output.stderr));
    }
    let output = user.command(&["node", "--no-mdns", "--admin", "off", "--listen", "127.0.0.1:0"]);
    let output = { output }.env("MESHWORK_CONFIG__", "1").stdin(Stdio::null()).output().expect("the command runs");
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("\"MESHWORK_CONFIG__\""), "{said}");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let taken = socket.local_addr().expect("it is bound").to_string();
    let output = user.run(&["node", "--no-mdns", "--admin", "off", "--listen", &taken]);
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains(&taken), "{}", text(&output.stderr));
}

#[test]
fn a_configuration_file_is_read_and_checked() {
    let user = User::new();
    let file = user.path("mesh.toml");
    std::fs::write(&file, "cluster = \"filed\"\nlisten = \"127.0.0.1:0\"\nmdns = false\ntopology = \"mesh\"\n")
        .expect("the home can be written");
    let node = Process::start(&mut user.command(&["node", "--json", "--config", &file, "--admin", "127.0.0.1:0"]));
    assert_eq!(node.field("cluster"), "filed");
    assert_eq!(node.ctl(&user, &["topology"])["topology"], "mesh");
    let named =
        Process::start(user.command(&["node", "--json", "--config", &file, "--admin", "127.0.0.1:0"]).env("MESHWORK_CLUSTER", "named"));
    assert_eq!(named.field("cluster"), "named");
    std::fs::write(&file, "cluster = \"filed\"\nport = 4000\n").expect("the home can be written");
    let refused = user.run(&["node", "--config", &file]);
    let said = text(&refused.stderr);
    assert_eq!((refused.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("mesh.toml:2") && said.contains("port"), "{said}");
}
