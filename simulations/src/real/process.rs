//! One `meshwork node` process: how it is started and ended, and what it says.

#![expect(clippy::disallowed_methods, reason = "processes are started, and read by threads of their own")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::SyncSender;

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::namespaces::Names;
use super::{RealError, address, failed};

/// Bytes of the longest line that a node prints: the largest broadcast with every character escaped.
const LINE_BYTES_MAX: u64 = 1_024 * 1_024;
/// Bytes of what a node said last that are shown when it failed.
const LAST_WORDS_MAX: usize = 600;

/// Something that a node said.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) node: u32,
    /// In which of its lives, from 1.
    pub(super) life: u32,
    pub(super) what: Line,
}

/// A line that a node printed.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Line {
    Started,
    /// It broadcast the oldest of the lines that were typed and of which it has not said so yet.
    Sent {
        time_us: u64,
    },
    /// It received a broadcast.
    Message {
        time_us: u64,
        hops: u16,
        value: Option<String>,
    },
    /// Something that was typed was refused.
    Error {
        text: String,
    },
    /// It has lost something that it should have printed.
    Lost {
        text: String,
    },
    #[serde(other)]
    Other,
}

/// Where the nodes of a run are, and what they are made of.
#[derive(Clone, Debug)]
pub(super) struct Home {
    /// The command `meshwork`.
    pub(super) binary: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) names: Names,
}

impl Home {
    /// The file that all nodes read their parameters from.
    pub(super) fn config(&self) -> PathBuf {
        self.folder.join("meshwork.toml")
    }

    /// Takes from a node what it has written down of its peers. A first life has nothing of that.
    pub(super) fn forget_peers(&self, node: u32) {
        let _ = std::fs::remove_file(self.data(node).join("peers"));
    }

    /// Takes from a node what it has written down of the replicated state.
    pub(super) fn forget_state(&self, node: u32) {
        let _ = std::fs::remove_dir_all(self.data(node).join("state"));
    }

    fn data(&self, node: u32) -> PathBuf {
        self.folder.join(format!("node-{node}"))
    }

    fn errors(&self, node: u32) -> PathBuf {
        self.folder.join(format!("node-{node}.err"))
    }

    /// The last words of a node.
    pub(super) fn last_words(&self, node: u32) -> String {
        let text = std::fs::read(self.errors(node)).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(LAST_WORDS_MAX)..]).trim().to_owned()
    }
}

/// A running node.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    input: ChildStdin,
}

impl Process {
    /// Starts a life of a node. What it says goes to `said`.
    pub(super) fn start(
        home: &Home,
        node: u32,
        life: u32,
        moves: u16,
        contacts: &[u32],
        said: SyncSender<Said>,
    ) -> Result<Self, RealError> {
        let data = home.data(node);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &home.names.node(node)]).arg(&home.binary);
        command.args(["node", "--json", "--no-mdns", "--admin", "off", "--cluster", "simulated"]);
        command.arg("--config").arg(home.config()).arg("--data").arg(&data);
        command.args(["--listen", &address::socket(node, moves).to_string()]);
        for contact in contacts {
            // What people configure is an address, so a contact that moved is looked for where it was first.
            command.args(["--join", &address::socket(*contact, 0).to_string()]);
        }
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MESHWORK_")) {
            command.env_remove(name);
        }
        command.env("MESHWORK_STATE_DIR", home.folder.join("state"));
        let errors = File::options().create(true).append(true).open(home.errors(node)).map_err(failed("write what a node says"))?;
        // A group of its own: ctrl-c is for this program, which then ends the nodes.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().map_err(failed("start a node"))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(RealError::Failed("a node was started without its pipes".to_owned()));
        };
        std::thread::Builder::new()
            .name(format!("node-{node}"))
            .spawn(move || read(output, node, life, &said))
            .map_err(failed("start a thread"))?;
        Ok(Process { child, input })
    }

    /// Types a line.
    pub(super) fn type_line(&mut self, line: &str) -> std::io::Result<()> {
        self.input.write_all(format!("{line}\n").as_bytes())
    }

    /// Stands still, or goes on.
    pub(super) fn pause(&self, is_paused: bool) -> Result<(), RealError> {
        let signal = if is_paused { Signal::STOP } else { Signal::CONT };
        kill_process(self.pid()?, signal).map_err(|error| RealError::Failed(format!("cannot pause a node: {error}")))
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>, RealError> {
        self.child.try_wait().map_err(failed("look after a node"))
    }

    /// Ends it without a word.
    pub(super) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // One that has ended already needs no killing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn pid(&self) -> Result<Pid, RealError> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| RealError::Failed("a node has no number".to_owned()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Reads what a node prints, to its end.
fn read(output: impl Read, node: u32, life: u32, said: &SyncSender<Said>) {
    let mut output = BufReader::with_capacity(64 * 1_024, output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match output.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        // What is no line of a node is seen by nobody; the run then misses what it should have said.
        if let Ok(what) = serde_json::from_slice(&line)
            && said.send(Said { node, life, what }).is_err()
        {
            return;
        }
    }
}

/// The line that stands for a broadcast: its number, and as many bytes as the plan says.
pub(super) fn text(message: u32, bytes: usize) -> String {
    let mut text = format!("{message:07}");
    text.extend(std::iter::repeat_n('x', bytes.saturating_sub(text.len())));
    text
}

/// The number of the broadcast that a line stands for, when it is whole.
pub(super) fn message(line: &str, bytes: usize) -> Option<u32> {
    let number = line.get(..7)?.parse().ok()?;
    (text(number, bytes) == line).then_some(number)
}

/// Makes what all nodes of a run share.
pub(super) fn prepare(home: &Home, config: &str) -> Result<(), RealError> {
    let clear = |folder: &Path| if folder.exists() { std::fs::remove_dir_all(folder) } else { Ok(()) };
    clear(&home.folder).and_then(|()| std::fs::create_dir_all(&home.folder)).map_err(failed("make the folder of a run"))?;
    std::fs::write(home.config(), config).map_err(failed("write the parameters of the nodes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broadcast_has_the_bytes_of_the_plan_and_leads_back_to_its_number() {
        for (number, bytes) in [(0, 8), (7, 256), (999_999, 65_536)] {
            let line = text(number, bytes);
            assert_eq!((line.len(), message(&line, bytes)), (bytes, Some(number)));
        }
        assert_eq!(message("0000001xy", 9), None);
        assert_eq!(message("hello", 8), None);
    }

    #[test]
    fn lines_of_a_node_are_read() {
        let line = |text: &str| serde_json::from_str::<Line>(text).unwrap();
        let message = r#"{"event":"message","from":"abc","channel":"events","sequence":1,"hops":2,"time_us":7,"value":"hi","bytes":2}"#;
        assert!(matches!(line(message), Line::Message { time_us: 7, hops: 2, value: Some(value) } if value == "hi"));
        assert!(matches!(line(r#"{"event":"sent","sequence":4,"neighbors":3,"time_us":9}"#), Line::Sent { time_us: 9 }));
        assert!(matches!(line(r#"{"event":"neighbor_up","peer":"abc"}"#), Line::Other));
    }
}
