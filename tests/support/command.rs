//! The `meshwork` command as people run it: a user with a home, and processes of nodes that are asked and typed to. For the tests of real processes.

#![allow(dead_code, reason = "each file of tests uses a part of this")]

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take that has no promise of its own.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// A user with an empty home; it goes when the test ends.
pub(crate) struct User(pub(crate) PathBuf);

impl User {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("meshwork-user-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let home = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&home).expect("the temporary folder can be written");
        User(home)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meshwork"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MESHWORK_")) {
            command.env_remove(name);
        }
        command.env("HOME", &self.0).env("XDG_STATE_HOME", self.0.join("state")).env("XDG_RUNTIME_DIR", self.0.join("run"));
        command.args(arguments);
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().expect("the command runs")
    }

    /// Runs a command that must succeed, and reads the JSON that it prints.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("the command prints JSON")
    }

    /// Starts a node on loopback with an admin endpoint.
    pub(crate) fn node(&self, arguments: &[&str]) -> Process {
        let mut all = vec!["node", "--json", "--no-mdns", "--admin", "127.0.0.1:0"];
        if !arguments.contains(&"--listen") {
            all.extend(["--listen", "127.0.0.1:0"]);
        }
        all.extend(arguments);
        Process::start(&mut self.command(&all))
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A node process that prints JSON lines.
pub(crate) struct Process {
    child: Child,
    pub(crate) input: Option<ChildStdin>,
    lines: Arc<Mutex<Vec<Value>>>,
    errors: Arc<Mutex<String>>,
    pub(crate) started: Value,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts");
        let (lines, errors) = (Arc::<Mutex<Vec<Value>>>::default(), Arc::<Mutex<String>>::default());
        let (output, problems) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let (into_lines, into_errors) = (lines.clone(), errors.clone());
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                into_lines.lock().expect("no test panics here").push(value);
            }
        });
        thread::spawn(move || {
            for line in BufReader::new(problems).lines().map_while(Result::ok) {
                *into_errors.lock().expect("no test panics here") += &format!("{line}\n");
            }
        });
        let input = child.stdin.take();
        let mut process = Process { child, input, lines, errors, started: Value::Null };
        process.started = process.wait_for("its first line", |line| line["event"] == "started");
        process
    }

    /// The first line that fits.
    pub(crate) fn wait_for(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        let seen = wait(PATIENCE, || {
            found = self.lines().into_iter().find(|line| fits(line));
            found.is_some()
        });
        assert!(seen, "{} did not print {what}: {:#?}\n{}", self.short(), self.lines(), self.errors());
        found.expect("it was seen")
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        self.lines.lock().expect("no test panics here").clone()
    }

    /// What it wrote to standard error.
    pub(crate) fn errors(&self) -> String {
        self.errors.lock().expect("no test panics here").clone()
    }

    pub(crate) fn events(&self, name: &str) -> usize {
        self.lines().iter().filter(|line| line["event"] == name).count()
    }

    pub(crate) fn field(&self, name: &str) -> &str {
        self.started[name].as_str().expect("the first line has this field")
    }

    pub(crate) fn id(&self) -> &str {
        self.field("id")
    }

    pub(crate) fn short(&self) -> String {
        self.started["id"].as_str().unwrap_or("a new node").chars().take(10).collect()
    }

    pub(crate) fn type_line(&mut self, line: &str) {
        writeln!(self.input.as_mut().expect("the input is open"), "{line}").expect("the node reads");
    }

    pub(crate) fn ctl(&self, user: &User, question: &[&str]) -> Value {
        let mut arguments = vec!["ctl", "--json", "--admin", self.field("admin")];
        arguments.extend(question);
        user.json(&arguments)
    }

    /// What this node holds of another: its status and address.
    pub(crate) fn member(&self, user: &User, id: &str) -> Vec<(String, String)> {
        let members = self.ctl(user, &["members"]);
        let entries = members["members"].as_array().expect("a list").iter().filter(|member| member["id"] == id);
        entries
            .map(|member| (member["status"].as_str().unwrap_or("").to_owned(), member["address"].as_str().unwrap_or("").to_owned()))
            .collect()
    }

    /// How many members this node holds for alive.
    pub(crate) fn alive(&self, user: &User) -> usize {
        let members = self.ctl(user, &["members"]);
        members["members"].as_array().expect("a list").iter().filter(|member| member["status"] == "alive").count()
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().expect("kill runs");
        assert!(status.success());
    }

    /// Waits for the end; the exit code.
    pub(crate) fn end(&mut self) -> Option<i32> {
        let mut code = None;
        let ended = wait(PATIENCE, || {
            let status = self.child.try_wait().expect("the process can be waited for");
            code = status.and_then(|status| status.code());
            status.is_some()
        });
        assert!(ended, "{} does not end", self.short());
        code
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks again and again until it holds, for at most so long.
pub(crate) fn wait(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let from = Instant::now();
    while !holds() {
        if from.elapsed() > patience {
            return false;
        }
        thread::sleep(Duration::from_millis(50));
    }
    true
}

/// So many nodes of one user, all given the address of the first.
pub(crate) fn cluster(user: &User, nodes: usize) -> Vec<Process> {
    let mut processes = vec![user.node(&[])];
    for _ in 1..nodes {
        let address = processes[0].field("address").to_owned();
        processes.push(user.node(&["--join", &address]));
    }
    for process in &processes {
        assert!(
            wait(PATIENCE, || process.alive(user) == nodes),
            "{} does not see {nodes} members: {:#?}",
            process.short(),
            process.lines()
        );
    }
    processes
}
