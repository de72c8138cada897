//! Config, registry, agent variables and the replicated state as people use them: typed at a node, through `meshwork ctl`, from a file and from the
//! environment. Real processes on loopback; they prove wiring, not protocols.

#![expect(clippy::disallowed_methods, reason = "real processes are waited for in real time, and files are written")]

#[path = "support/command.rs"]
mod command;

use std::time::{Duration, Instant};

use command::{PATIENCE, Process, User, cluster, text, wait};
use serde_json::{Value, json};

/// How long a cluster may show what a killed node registered: until its death is noticed, and a second.
const GONE: Duration = Duration::from_millis(8_500 + 1_000);
/// How long until what is written on one node is read on another.
const SEEN: Duration = Duration::from_secs(1);

impl Process {
    /// Asks what is refused; the one line that says why.
    fn refused(&self, user: &User, question: &[&str]) -> String {
        let mut arguments = vec!["ctl", "--admin", self.field("admin")];
        arguments.extend(question);
        let output = user.run(&arguments);
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), said.lines().count(), output.stdout.len()), (Some(1), 1, 0), "{question:?}: {said}");
        said
    }

    /// What is printed for people.
    fn table(&self, user: &User, question: &[&str]) -> String {
        let mut arguments = vec!["ctl", "--admin", self.field("admin")];
        arguments.extend(question);
        let output = user.run(&arguments);
        assert!(output.status.success(), "{question:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Waits until a question is answered so.
    fn shows(&self, user: &User, question: &[&str], within: Duration, fits: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let mut arguments = vec!["ctl", "--json", "--admin", self.field("admin")];
        arguments.extend(question);
        let shown = wait(within, || {
            let output = user.run(&arguments);
            last = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| Value::String(text(&output.stderr)));
            output.status.success() && fits(&last)
        });
        assert!(shown, "{question:?} on {}: {last:#}", self.short());
        last
    }
}

fn layer<'a>(explained: &'a Value, name: &str) -> &'a Value {
    explained["layers"].as_array().expect("a list").iter().find(|layer| layer["layer"] == name).expect("every layer is there")
}

#[test]
fn a_value_set_on_one_node_is_read_on_another_with_its_origin() {
    let user = User::new();
    let mut nodes = cluster(&user, 2);
    let origin = nodes[0].id().to_owned();
    let set = nodes[0].ctl(&user, &["config", "set", "app/limits/rate", "3"]);
    assert_eq!(set, json!({"done": "set", "what": "app/limits/rate", "changed": true}));
    let value = nodes[1].shows(&user, &["config", "get", "app/limits/rate"], PATIENCE, |value| value["value"] == 3);
    assert_eq!((value["layer"].as_str(), value["origin"].as_str()), (Some("cluster"), Some(&*origin)));
    assert!(value["time_ms"].as_u64() > Some(1_600_000_000_000), "{value}");
    let updated = nodes[1].wait_for("the change", |line| line["event"] == "config_updated");
    assert_eq!((&updated["path"], &updated["new"], updated["origin"].as_str()), (&json!("app/limits/rate"), &json!(3), Some(&*origin)));

    // An override hides it here and nowhere else, and gives it back.
    nodes[1].ctl(&user, &["config", "update", "app/limits/rate", "\"fast\""]);
    let explained = nodes[1].ctl(&user, &["config", "explain", "app/limits/rate"]);
    let (cluster_layer, over) = (layer(&explained, "cluster"), layer(&explained, "override"));
    assert_eq!(
        (&cluster_layer["value"], &cluster_layer["answers"], cluster_layer["origin"].as_str()),
        (&json!(3), &json!(false), Some(&*origin))
    );
    assert_eq!((&over["value"], &over["answers"]), (&json!("fast"), &json!(true)));
    assert_eq!(nodes[0].ctl(&user, &["config", "get", "app/limits/rate"])["value"], 3);
    assert!(nodes[1].table(&user, &["config", "explain", "app/limits/rate"]).contains("\"fast\""));
    nodes[1].ctl(&user, &["config", "reset", "app/limits/rate"]);
    assert_eq!(nodes[1].ctl(&user, &["config", "get", "app/limits"])["value"], json!({"rate": 3}));
    nodes[1].ctl(&user, &["config", "undo"]);
    assert_eq!(nodes[1].ctl(&user, &["config", "get", "app/limits/rate"])["value"], "fast");
    nodes[1].ctl(&user, &["config", "undo"]);

    // Typed at a terminal it is the same; the history says who and what, and can be taken back.
    nodes[1].type_line(r#"/config set app/limits/rate {"soft": 5, "hard": [7, 8]}"#);
    let done = nodes[1].wait_for("that it is done", |line| line["event"] == "config");
    assert_eq!((&done["done"], &done["what"]), (&json!("set"), &json!("app/limits/rate")));
    nodes[0].shows(&user, &["config", "get", "app/limits/rate"], PATIENCE, |value| value["value"] == json!({"soft": 5, "hard": [7, 8]}));
    nodes[0].ctl(&user, &["config", "set", "app/limits/rate", "4"]);
    nodes[0].ctl(&user, &["config", "rollback", "app/limits/rate", "2"]);
    let history = nodes[0].ctl(&user, &["config", "history", "app/limits/rate"]);
    let changes = history["changes"].as_array().expect("a list");
    let of_rate: Vec<&Value> = changes.iter().filter(|change| change["path"] == "app/limits/rate").collect();
    assert_eq!(
        (&of_rate[0]["value"], of_rate[0]["proposer"].as_str(), &history["more"]),
        (&json!(3), Some(&*origin), &json!(false)),
        "{history:#}"
    );
    assert!(changes.iter().any(|change| change["proposer"] == nodes[1].id()), "{history:#}");
    assert_eq!(nodes[0].ctl(&user, &["config", "paths"])["paths"], json!(["app/limits/rate"]));
    assert_eq!(nodes[0].ctl(&user, &["config", "conflicts"])["conflicts"], json!([]));
    nodes[0].ctl(&user, &["config", "remove", "app"]);
    assert!(nodes[0].refused(&user, &["config", "get", "app/limits/rate"]).contains("app/limits/rate: there is no such value"));
    assert!(nodes[0].refused(&user, &["config", "set", "app//x", "1"]).contains("a name of a path is not empty"));
    assert!(nodes[0].refused(&user, &["config", "reset", "app/x"]).contains("nothing to remove"));
    assert!(nodes[0].refused(&user, &["config", "rollback", "app/x"]).contains("app/x: there is no earlier value"));
    nodes[0].type_line("/config set app/x");
    nodes[0].wait_for("a problem", |line| line["event"] == "error" && line["text"].as_str().is_some_and(|text| text.contains("VALUE")));
    nodes[0].type_line("/config help");
    nodes[0].wait_for("help", |line| line["event"] == "help" && line["text"].as_str().is_some_and(|text| text.contains("explain")));
}

#[test]
fn layers_come_from_the_file_the_environment_and_the_settings() {
    let user = User::new();
    let (settings, app) = (user.path("mesh.toml"), user.path("app.toml"));
    let node_file =
        format!("app_config = {app:?}\n[services.config]\nupdatable_paths = [\"app/open\"]\n[services.registry]\nzone = \"north\"\n");
    std::fs::write(&settings, node_file).expect("the home can be written");
    std::fs::write(&app, "[app]\nrate = 5\nname = \"filed\"\n").expect("the home can be written");
    let arguments = ["node", "--json", "--no-mdns", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config", &settings];
    let node = Process::start(user.command(&arguments).env("MESHWORK_CONFIG__app__rate", "6"));
    let get = |path: &str| node.ctl(&user, &["config", "get", path]);
    assert_eq!((&get("app/rate")["value"], &get("app/rate")["layer"]), (&json!(6), &json!("environment")));
    assert_eq!((&get("app/name")["value"], &get("app/name")["layer"]), (&json!("filed"), &json!("file")));
    assert_eq!(layer(&node.ctl(&user, &["config", "explain", "app/rate"]), "file")["value"], 5);

    // What changes in the file is read within some seconds; what cannot be read changes nothing and is told.
    let replace = |content: &str| {
        let beside = user.path("app.toml.new");
        std::fs::write(&beside, content).and_then(|()| std::fs::rename(&beside, &app)).expect("the home can be written");
    };
    replace("[app]\nrate = 7\nname = \"anew\"\n");
    node.wait_for("the change", |line| line["event"] == "config_updated" && line["path"] == "app/name" && line["new"] == "anew");
    replace("[app]\nrate = \n");
    let refused = node.wait_for("that the file is refused", |line| line["event"] == "config_file_refused");
    assert!(refused["reason"].as_str().is_some_and(|reason| reason.starts_with("line 2: ")), "{refused}");
    assert_eq!(get("app/name")["value"], "anew");
    // A pipe is not waited for.
    std::fs::remove_file(&app).expect("it can be removed");
    assert!(std::process::Command::new("mkfifo").arg(&app).status().expect("mkfifo runs").success());
    let is_of_the_pipe = |line: &Value| line["reason"].as_str().is_some_and(|reason| reason.contains("not a regular file"));
    node.wait_for("that the pipe is refused", |line| line["event"] == "config_file_refused" && is_of_the_pipe(line));
    replace("[app]\nname = \"again\"\n");
    node.wait_for("the change", |line| line["event"] == "config_updated" && line["new"] == "again");

    // Only what may be changed is, here and for the cluster.
    assert!(node.refused(&user, &["config", "set", "app/rate", "1"]).contains("app/rate cannot be changed while the node runs"));
    assert!(node.refused(&user, &["config", "update", "app/rate", "1"]).contains("cannot be changed"));
    assert_eq!(node.ctl(&user, &["config", "set", "app/open/x", "text"])["changed"], true);
    assert_eq!(node.ctl(&user, &["config", "paths"])["updatable"], json!(["app/open"]));
    node.ctl(&user, &["registry", "register", "shop"]);
    assert_eq!(node.ctl(&user, &["registry", "list"])["instances"][0]["zone"], "north");

    // A node with a file that cannot be used does not start, nor does one whose environment contradicts itself.
    std::fs::write(&app, "name = 3\n").expect("the home can be written");
    let refused = user.run(&arguments);
    let said = text(&refused.stderr);
    assert_eq!((refused.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("app.toml") && said.contains("namespace"), "{said}");
}

#[test]
fn a_node_that_is_told_so_takes_no_part_in_the_config_of_the_cluster() {
    let user = User::new();
    let settings = user.path("mesh.toml");
    std::fs::write(&settings, "[services.config]\nis_synced = false\n").expect("the home can be written");
    let first = user.node(&[]);
    let second = user.node(&["--config", &settings, "--join", first.field("address")]);
    assert!(wait(PATIENCE, || second.alive(&user) == 2));
    first.ctl(&user, &["config", "set", "app/x", "1"]);
    first.ctl(&user, &["state", "set", "after", "1"]);
    second.shows(&user, &["state", "get", "after"], PATIENCE, |entry| entry["value"] == "1");
    assert!(second.refused(&user, &["config", "get", "app/x"]).contains("no such value"));
    assert!(second.refused(&user, &["config", "set", "app/x", "2"]).contains("takes no part"));
}

#[test]
fn what_a_killed_node_registered_is_gone_soon() {
    let user = User::new();
    let mut nodes = cluster(&user, 3);
    let dead = nodes.pop().expect("there are three");
    let registered =
        ["registry", "register", "pay", "refund", "charge", "--namespace", "shop", "--metadata", "version=2", "--zone", "north"];
    assert_eq!(dead.ctl(&user, &registered)["what"], "shop/pay 1");
    nodes[0].type_line("/registry register pay charge --namespace shop --health degraded");
    let is_there = |count| move |found: &Value| found["instances"].as_array().is_some_and(|instances| instances.len() == count);
    for node in &nodes {
        node.shows(&user, &["registry", "find", "pay"], PATIENCE, is_there(2));
    }
    let find = |criteria: &[&str]| {
        let found = nodes[1].ctl(&user, &[&["registry", "find"], criteria].concat());
        let nodes =
            found["instances"].as_array().expect("a list").iter().map(|instance| instance["node"].as_str().expect("an id").to_owned());
        nodes.collect::<Vec<String>>()
    };
    for (criteria, expected) in [
        (&["--capability", "refund"][..], vec![dead.id()]),
        (&["--health", "degraded"], vec![nodes[0].id()]),
        (&["--node", dead.id()], vec![dead.id()]),
        (&["--metadata", "version=2", "--capability", "charge"], vec![dead.id()]),
        (&["--namespace", "other"], Vec::new()),
        (&["--zone", "north"], vec![dead.id()]),
    ] {
        assert_eq!(find(criteria), expected, "{criteria:?}");
    }
    assert!(dead.refused(&user, &registered).contains("is registered already"));
    assert!(nodes[1].refused(&user, &["registry", "unregister", "pay", "--namespace", "shop"]).contains("not registered here"));
    assert!(nodes[1].refused(&user, &["registry", "register", ""]).contains("name is empty"));
    assert!(nodes[1].table(&user, &["registry", "list", "shop"]).contains("charge refund"));

    dead.signal("KILL");
    let died = Instant::now();
    for node in &nodes {
        let shown = node.shows(&user, &["registry", "find", "pay"], GONE.saturating_sub(died.elapsed()), is_there(1));
        assert_eq!(shown["instances"][0]["node"], nodes[0].id());
        node.wait_for("that it is away", |line| line["event"] == "registry_hidden" && line["node"] == dead.id());
    }
    println!("gone {:?} after the kill", died.elapsed());
    nodes[0].type_line("/registry unregister pay --namespace shop");
    nodes[1].shows(&user, &["registry", "list"], PATIENCE, is_there(0));
    nodes[1].wait_for("that it is unregistered", |line| line["event"] == "registry_unregistered" && line["node"] == nodes[0].id());
}

#[test]
fn a_variable_is_registered_updated_and_read_on_three_nodes() {
    let user = User::new();
    let mut nodes = cluster(&user, 3);
    let registered = nodes[0].ctl(&user, &["variables", "register", "rate", "float", "0", "2", "--step", "0.5", "--default", "1"]);
    assert_eq!((&registered["value"], &registered["version"], &registered["kind"]), (&json!(1.0), &json!(0), &json!("float")));
    nodes[1].shows(&user, &["variables", "get", "rate"], PATIENCE, |variable| variable["version"] == 0);
    assert_eq!(nodes[0].ctl(&user, &["variables", "set", "rate", "2"])["version"], 1);
    nodes[1].shows(&user, &["variables", "get", "rate"], PATIENCE, |variable| variable["version"] == 1);
    let refused = nodes[1].refused(&user, &["variables", "update", "rate", "1.5", "--agent", "a b"]);
    assert!(refused.contains("the agent a b: "), "{refused}");
    let updated = nodes[1].ctl(&user, &["variables", "update", "rate", "1.5", "--expected", "1", "--agent", "tuner"]);
    let written = Instant::now();
    assert_eq!(updated["version"], 2);
    let read = nodes[2].shows(&user, &["variables", "get", "rate"], SEEN, |variable| variable["version"] == 2);
    println!("read {:?} after the write", written.elapsed());
    assert_eq!((&read["value"], read["node"].as_str(), &read["agent"]), (&json!(1.5), Some(nodes[1].id()), &json!("tuner")));
    let told = nodes[2].wait_for("the second version", |line| line["event"] == "variable_updated" && line["version"] == 2);
    assert_eq!((&told["name"], &told["old"], &told["new"]), (&json!("rate"), &json!(2.0), &json!(1.5)));

    for (value, why) in
        [("7", "7 is outside the range of 0 to 2"), ("-1", "-1 is outside"), ("0.7", "between two steps"), ("fast", "must be a float")]
    {
        let said = nodes[2].refused(&user, &["variables", "set", "rate", value]);
        assert!(said.contains("rate: ") && said.contains(why), "{said}");
    }
    assert!(nodes[2].refused(&user, &["variables", "set", "rate", "1", "--expected", "1"]).contains("it has version 2"));
    assert!(nodes[2].refused(&user, &["variables", "set", "none", "1"]).contains("none: no such variable"));
    assert!(nodes[2].refused(&user, &["variables", "register", "rate", "integer", "0", "1"]).contains("registered already"));
    assert!(nodes[2].refused(&user, &["variables", "register", "size", "integer", "3", "1"]).contains("the least is above the greatest"));

    let statistics = nodes[2].ctl(&user, &["variables", "statistics", "rate"]);
    assert_eq!((&statistics["updates"], &statistics["refused"]), (&json!(2), &json!(5)), "{statistics}");
    let history = nodes[2].ctl(&user, &["variables", "history", "rate", "--len", "2"]);
    assert_eq!(
        (&history["versions"][0]["version"], &history["versions"][1]["value"], &history["versions"][2]),
        (&json!(2), &json!(2.0), &Value::Null)
    );
    nodes[1].type_line("/variables register mode choice fast careful --description 'how to go on'");
    nodes[2].shows(&user, &["variables", "list"], PATIENCE, |list| list["variables"].as_array().is_some_and(|list| list.len() == 2));
    assert_eq!(nodes[2].ctl(&user, &["variables", "list", "--kind", "choice"])["variables"][0]["value"], "fast");
    assert!(nodes[2].refused(&user, &["variables", "set", "mode", "slow"]).contains("not one of the options"));
    assert!(nodes[2].table(&user, &["variables", "list"]).contains("rate"));
    nodes[2].ctl(&user, &["variables", "delete", "rate"]);
    nodes[0].wait_for("that it is gone", |line| line["event"] == "variable_deleted" && line["name"] == "rate");
}

#[test]
fn keys_of_every_kind_are_written_and_read() {
    let user = User::new();
    let mut nodes = cluster(&user, 2);
    nodes[0].ctl(&user, &["state", "batch", "add visits 2", "insert tags 'new here'", "best top 0.5 x"]);
    assert!(nodes[0].refused(&user, &["state", "batch", "add visits 2", "add tags 1"]).contains("`tags`: the key holds"));
    nodes[1].shows(&user, &["state", "get", "visits"], PATIENCE, |entry| entry["count"] == 2);
    nodes[1].type_line("/add visits -5");
    nodes[1].type_line("/insert tags old");
    nodes[0].shows(&user, &["state", "get", "visits"], PATIENCE, |entry| entry["kind"] == "count" && entry["count"] == -3);
    nodes[0].shows(&user, &["state", "get", "tags"], PATIENCE, |entry| entry["len"] == 2 && entry["members"][0]["value"] == "new here");
    nodes[0].type_line("/take tags old");
    nodes[1].shows(&user, &["state", "get", "tags"], PATIENCE, |entry| entry["len"] == 1);
    nodes[0].ctl(&user, &["state", "put", "both", "a"]);
    nodes[0].ctl(&user, &["state", "grow", "grown", "7"]);
    nodes[0].ctl(&user, &["state", "include", "seen", "x"]);
    assert_eq!(nodes[0].ctl(&user, &["state", "best", "top", "0.25", "y"])["changed"], false);
    let kinds = [("both", "mv"), ("grown", "g_count"), ("seen", "g_set"), ("tags", "set"), ("top", "best"), ("visits", "count")];
    let listed = |list: &Value| {
        let entries = list["entries"].as_array().into_iter().flatten();
        entries
            .map(|entry| (entry["key"].as_str().unwrap_or("").to_owned(), entry["kind"].as_str().unwrap_or("").to_owned()))
            .collect::<Vec<_>>()
    };
    let expected = kinds.map(|(key, kind)| (key.to_owned(), kind.to_owned()));
    nodes[1].shows(&user, &["state", "list"], PATIENCE, |list| listed(list) == expected);
    // The keys of services are listed for who asks for them.
    nodes[0].ctl(&user, &["config", "set", "app/x", "1"]);
    assert_eq!(listed(&nodes[0].ctl(&user, &["state"])), expected);
    assert_eq!(listed(&nodes[0].ctl(&user, &["state", "list", "@config/"])), [("@config/app/x".to_owned(), "mv".to_owned())]);
    assert!(nodes[0].refused(&user, &["state", "set", "@config/app/x", "1"]).contains('@'));
    assert!(nodes[0].refused(&user, &["state", "set", "visits", "1"]).contains("of the kind `count`"));
    assert!(nodes[0].refused(&user, &["state", "get", "nothing"]).contains("no value under `nothing`"));
    let done = nodes[1].ctl(&user, &["state", "confirm", "set color 'dark blue'", "--acked", "1"]);
    assert_eq!((&done["done"], &done["changed"], done["held_by"].as_array().map(Vec::len)), (&json!("set"), &json!(true), Some(1)));
    let token = done["token"].as_str().unwrap();
    assert_eq!(nodes[0].ctl(&user, &["state", "get", "color", "--after", token])["value"], "dark blue");
    assert_eq!(nodes[0].ctl(&user, &["state", "get", "color", "--quorum", "--timeout", "20s"])["value"], "dark blue");
    assert!(nodes[0].refused(&user, &["state", "get", "visits", "--after", token]).contains("of the key `color`"));
    assert!(
        nodes[0].refused(&user, &["state", "confirm", "remove color", "--acked", "2"]).contains("it takes 2 other nodes, and 1 are known")
    );
    nodes[0].ctl(&user, &["state", "remove", "color"]);
    nodes[1].type_line("/get visits");
    let value = nodes[1].wait_for("the value", |line| line["event"] == "value");
    assert_eq!((&value["key"], &value["count"]), (&json!("visits"), &json!(-3)));
    nodes[1].type_line("/remove visits");
    nodes[0].shows(&user, &["state", "list", "visits"], PATIENCE, |list| listed(list).is_empty());
}

#[test]
fn what_cannot_be_signed_is_refused_in_words() {
    let user = User::new();
    let settings = user.path("settings.toml");
    std::fs::write(&settings, "[node.state]\nsigned = [\"app/\", \"@x\"]\n").expect("the home can be written");
    let said = text(&user.run(&["node", "--config", &settings]).stderr);
    assert!(said.contains(r#"settings.toml:2: node.state: signed is "@x""#), "{said}");
    std::fs::write(&settings, "[node.state]\nsigned = [\"app/\"]\n").expect("the home can be written");
    let node = user.node(&["--config", &settings]);
    node.ctl(&user, &["state", "set", "app/x", "1"]);
    assert_eq!(node.ctl(&user, &["state", "get", "app/x"])["value"], "1");
    for refused in [&["state", "set", "app/x", "1", "--ttl", "10m"][..], &["state", "add", "app/x", "1"]] {
        assert!(node.refused(&user, refused).contains("keys under `app/` hold plain registers that their writer signs"));
    }
    node.ctl(&user, &["state", "remove", "app/x"]);
}
