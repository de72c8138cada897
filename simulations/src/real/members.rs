//! Membership on real processes: so many on loopback, in a network and a process tree of their own, and what each says of the others.
//!
//! The processes are `meshwork node`, or `serf agent` as the reference. Nothing is simulated: what is measured is what they print, at the moment at which it is read here.

#![expect(clippy::disallowed_methods, reason = "processes are started and watched, and what they say is timed")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::{RealError, failed};

/// Lines that wait to be looked at.
const LINES_MAX: usize = 65_536;
/// The port of the first process; serf has further ones for its commands.
const PORT: u16 = 20_000;
const SERF_COMMANDS: u16 = 10_000;
/// The port of the processes that find each other by mDNS.
const ANY_PORT: &str = "0.0.0.0:0";

/// What is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `meshwork node`.
    Meshwork,
    /// `serf agent`.
    Serf,
}

/// How processes are started.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) kind: Kind,
    pub(crate) binary: PathBuf,
    /// The configuration file of a Meshwork node, or the profile of serf.
    pub(crate) setting: Option<String>,
    /// Where the processes may write.
    pub(crate) folder: PathBuf,
    /// Whether they find each other by mDNS, and not through the first of them.
    pub(crate) mdns: bool,
}

impl Recipe {
    fn command(&self, index: usize) -> Command {
        let mut command = Command::new(&self.binary);
        let at = |index: usize| format!("127.0.0.1:{}", usize::from(PORT) + index);
        match self.kind {
            Kind::Meshwork => {
                command.args(["node", "--json", "--admin", "off", "--cluster", "members"]);
                command.args(self.setting.iter().flat_map(|file| ["--config", file.as_str()]));
                for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MESHWORK_")) {
                    command.env_remove(name);
                }
                command.env("MESHWORK_STATE_DIR", self.folder.join("state"));
                if self.mdns {
                    command.args(["--listen", ANY_PORT]);
                } else {
                    command.args(["--no-mdns", "--listen", &at(index)]);
                    command.args((index > 0).then(|| ["--join".to_owned(), at(0)]).into_iter().flatten());
                }
            }
            Kind::Serf => {
                let commands = format!("127.0.0.1:{}", usize::from(PORT + SERF_COMMANDS) + index);
                command.args(["agent", &format!("-node=n{index}"), &format!("-bind={}", at(index)), &format!("-rpc-addr={commands}")]);
                command.arg(format!("-profile={}", self.setting.as_deref().unwrap_or("lan")));
                command.args((index > 0).then(|| format!("-retry-join={}", at(0))));
                // It waits 30 s before it tries again, and the first of them may not listen yet.
                command.args((index > 0).then_some("-retry-interval=1s"));
            }
        }
        command
    }
}

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// This is its own name.
    Me(String),
    Up(String),
    Down(String),
    /// It could not say all that happened, so what it holds is not known any more.
    Lost,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Started {
        id: String,
    },
    MemberJoined {
        member: Named,
    },
    MemberUpdated {
        member: Named,
    },
    MemberFailed {
        member: Named,
    },
    MemberLeft {
        member: Named,
    },
    Lost,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

fn understand(kind: Kind, index: usize, line: &str) -> Option<Said> {
    match kind {
        Kind::Meshwork => match serde_json::from_str(line).ok()? {
            Line::Started { id } => Some(Said::Me(id)),
            Line::MemberJoined { member } | Line::MemberUpdated { member } => Some(Said::Up(member.id)),
            Line::MemberFailed { member } | Line::MemberLeft { member } => Some(Said::Down(member.id)),
            Line::Lost => Some(Said::Lost),
            Line::Other => None,
        },
        Kind::Serf => {
            let name = |after: &str| Some(line.split_once(after)?.1.split_whitespace().next()?.to_owned());
            let me = format!("n{index}");
            match name("EventMemberJoin: ") {
                Some(up) if up == me => Some(Said::Me(me)),
                Some(up) => Some(Said::Up(up)),
                None => name("EventMemberFailed: ").or_else(|| name("EventMemberLeave: ")).map(Said::Down),
            }
        }
    }
}

struct Heard {
    at: Instant,
    index: usize,
    said: Said,
}

struct Process {
    child: Child,
    name: Option<String>,
    /// Whom it holds for alive.
    holds: BTreeSet<String>,
    is_alive: bool,
}

/// The processes and what they have said.
pub(crate) struct Cluster {
    kind: Kind,
    processes: Vec<Process>,
    heard: Receiver<Heard>,
    started: Instant,
    /// By name of the one that is held for dead: when each of the others said so.
    failures: BTreeMap<String, Vec<(Instant, usize)>>,
}

/// How much memory and how many threads a process has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weight {
    pub(crate) rss_kib: u64,
    pub(crate) threads: u64,
}

impl Cluster {
    /// Starts so many processes at equal distances over a time.
    pub(crate) fn start(recipe: &Recipe, len: usize, over: Duration) -> Result<Self, RealError> {
        let (tell, heard) = sync_channel(LINES_MAX);
        let started = Instant::now();
        let mut cluster = Cluster { kind: recipe.kind, processes: Vec::new(), heard, started, failures: BTreeMap::new() };
        for index in 0..len {
            let due = started + over * u32::try_from(index).unwrap_or(u32::MAX) / u32::try_from(len).unwrap_or(u32::MAX).max(1);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            cluster.processes.push(start(recipe, index, tell.clone())?);
        }
        Ok(cluster)
    }

    pub(crate) fn len(&self) -> usize {
        self.processes.iter().filter(|process| process.is_alive).count()
    }

    /// When the last of them was started, since the first.
    pub(crate) fn started_within(&self) -> Duration {
        self.started.elapsed()
    }

    /// Listens until all know all; says how long after the first start that was.
    pub(crate) fn wait_until_complete(&mut self, max: Duration) -> Result<Duration, RealError> {
        let until = Instant::now() + max;
        let mut last = self.started;
        loop {
            let others = self.len() - 1;
            if self.processes.iter().filter(|process| process.is_alive).all(|process| process.holds.len() == others) {
                return Ok(last.duration_since(self.started));
            }
            match self.listen(until)? {
                Some(at) => last = last.max(at),
                None => {
                    let wrong: Vec<usize> =
                        self.processes.iter().map(|process| process.holds.len()).filter(|holds| *holds != others).collect();
                    let (failures, count) = (self.failures.values().map(Vec::len).sum::<usize>(), wrong.len());
                    let (least, most) = (wrong.iter().min().unwrap_or(&0), wrong.iter().max().unwrap_or(&0));
                    let what = format!(
                        "after {max:?} {count} of {} know {least} to {most} others, and {failures} failures were reported",
                        self.len()
                    );
                    return Err(RealError::Failed(what));
                }
            }
        }
    }

    /// Listens for a time.
    pub(crate) fn listen_for(&mut self, span: Duration) -> Result<(), RealError> {
        let until = Instant::now() + span;
        while self.listen(until)?.is_some() {}
        Ok(())
    }

    /// Kills one of them, not the first, and listens until all others have said that it failed; says when the first and the last did, and how many never.
    pub(crate) fn kill(&mut self, index: usize, max: Duration) -> Result<(Duration, Duration, usize), RealError> {
        let killed = Instant::now();
        let process = &mut self.processes[index];
        process.is_alive = false;
        let name = process.name.clone().unwrap_or_default();
        process.child.kill().and_then(|()| process.child.wait()).map_err(failed("kill a node"))?;
        self.failures.remove(&name);
        let (until, others) = (killed + max, self.len());
        loop {
            let said: Vec<Instant> = self.failures.get(&name).into_iter().flatten().map(|(at, _)| *at).collect();
            if said.len() >= others || self.listen(until)?.is_none() {
                let of = |at: Option<&Instant>| at.map_or(max, |at| at.duration_since(killed));
                return Ok((of(said.iter().min()), of(said.iter().max()), others.saturating_sub(said.len())));
            }
        }
    }

    /// Lets some of them stand still and run in turn, each at its own phase, for a time. Says how many failures were reported meanwhile and while what was under way came to its end.
    pub(crate) fn freeze(&mut self, some: &[usize], frozen: Duration, awake: Duration, span: Duration) -> Result<usize, RealError> {
        let from = Instant::now();
        self.failures.clear();
        let period = frozen + awake;
        let phase = |order: usize| period * u32::try_from(order).unwrap_or(0) / u32::try_from(some.len()).unwrap_or(1).max(1);
        let mut next: Vec<(Instant, bool, usize)> =
            some.iter().enumerate().map(|(order, index)| (from + phase(order), true, *index)).collect();
        while let Some(at) = next.iter().map(|(at, ..)| *at).min() {
            while self.listen(at)?.is_some() {}
            next.retain_mut(|(due, stops, index)| {
                if *due > at {
                    return true;
                }
                self.signal(*index, if *stops { Signal::STOP } else { Signal::CONT });
                *due += if *stops { frozen } else { awake };
                *stops = !*stops;
                // Whoever stands still goes on once more.
                !*stops || *due + frozen <= from + span
            });
        }
        self.listen_for(Duration::from_secs(10))?;
        Ok(self.failures.values().map(Vec::len).sum())
    }

    fn signal(&self, index: usize, signal: Signal) {
        let pid = i32::try_from(self.processes[index].child.id()).ok().and_then(Pid::from_raw);
        // One that has ended takes none.
        let _ = pid.map(|pid| kill_process(pid, signal));
    }

    /// Takes in the next thing that somebody says, if that is before a moment.
    fn listen(&mut self, until: Instant) -> Result<Option<Instant>, RealError> {
        let heard = match self.heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(heard) => heard,
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => return Err(RealError::Failed(format!("all {:?} processes have ended", self.kind))),
        };
        let process = &mut self.processes[heard.index];
        match heard.said {
            Said::Me(name) => process.name = Some(name),
            Said::Lost => return Err(RealError::Failed("a node could not say all that happened".to_owned())),
            Said::Up(name) => {
                process.holds.insert(name);
            }
            Said::Down(name) => {
                process.holds.remove(&name);
                self.failures.entry(name).or_default().push((heard.at, heard.index));
            }
        }
        Ok(Some(heard.at))
    }

    /// What the living ones weigh.
    pub(crate) fn weights(&self) -> Vec<Weight> {
        let alive = self.processes.iter().filter(|process| process.is_alive);
        let status = |process: &Process| std::fs::read_to_string(format!("/proc/{}/status", process.child.id())).ok();
        alive.filter_map(status).map(|status| weight(&status)).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // One that has ended needs no killing.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

fn start(recipe: &Recipe, index: usize, tell: SyncSender<Heard>) -> Result<Process, RealError> {
    let mut command = recipe.command(index);
    // A node reads what is typed; the end of the input is not the end of the node.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(failed(format!("start {}", recipe.binary.display())))?;
    let Some(output) = child.stdout.take() else {
        return Err(RealError::Failed("a process was started without its pipe".to_owned()));
    };
    let kind = recipe.kind;
    std::thread::Builder::new()
        .name(format!("member-{index}"))
        .spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let at = Instant::now();
                if let Some(said) = understand(kind, index, &line)
                    && tell.send(Heard { at, index, said }).is_err()
                {
                    return;
                }
            }
        })
        .map_err(failed("start a thread"))?;
    Ok(Process { child, name: None, holds: BTreeSet::new(), is_alive: true })
}

/// Bytes that were sent on loopback since it was made: those of all processes, with their headers.
pub(crate) fn loopback_bytes() -> Result<u64, RealError> {
    let text = std::fs::read_to_string("/proc/self/net/dev").map_err(failed("read the counters of the network"))?;
    sent_on(&text, "lo").ok_or_else(|| RealError::Failed("the network has no loopback".to_owned()))
}

fn sent_on(text: &str, device: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'))?;
    // Eight columns of what was received come first.
    line.split_whitespace().nth(8)?.parse().ok()
}

fn weight(status: &str) -> Weight {
    let number = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Weight { rss_kib: number("VmRSS").unwrap_or(0), threads: number("Threads").unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_processes_say_is_understood() {
        let ours = |line: &str| understand(Kind::Meshwork, 3, line);
        assert_eq!(ours(r#"{"event":"started","cluster":"c","id":"abc","incarnation":1}"#), Some(Said::Me("abc".to_owned())));
        let joined =
            r#"{"event":"member_joined","member":{"id":"b","address":"127.0.0.1:1","incarnation":1,"status":"alive","this":false}}"#;
        assert_eq!(ours(joined), Some(Said::Up("b".to_owned())));
        let failed = joined.replace("joined", "failed");
        assert_eq!(ours(&failed), Some(Said::Down("b".to_owned())));
        assert_eq!(ours(r#"{"event":"neighbor_up","peer":"b"}"#), None);
        assert_eq!(ours("no line of a node"), None);
        let serf = |line: &str| understand(Kind::Serf, 3, line);
        assert_eq!(serf("    12:00:00 [INFO] serf: EventMemberJoin: n3 127.0.0.1"), Some(Said::Me("n3".to_owned())));
        assert_eq!(serf("    12:00:00 [INFO] serf: EventMemberJoin: n4 127.0.0.1"), Some(Said::Up("n4".to_owned())));
        assert_eq!(serf("    12:00:09 [INFO] serf: EventMemberFailed: n4 127.0.0.1"), Some(Said::Down("n4".to_owned())));
        assert_eq!(serf("    12:00:09 [INFO] memberlist: Suspect n4 has failed, no acks received"), None);
    }

    #[test]
    fn what_the_system_says_is_understood() {
        let device =
            "Inter-|   Receive\n face |bytes packets\n    lo: 10 1 0 0 0 0 0 0 77 1 0 0 0 0 0 0\n  eth0: 5 1 0 0 0 0 0 0 6 1 0 0 0 0 0 0\n";
        assert_eq!((sent_on(device, "lo"), sent_on(device, "eth0"), sent_on(device, "eth")), (Some(77), Some(6), None));
        assert_eq!(weight("Name:\tx\nVmRSS:\t  15000 kB\nThreads:\t4\n"), Weight { rss_kib: 15_000, threads: 4 });
    }
}
