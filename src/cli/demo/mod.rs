//! `meshwork demo`: a real cluster on loopback that forms, talks, loses two nodes without warning, takes in a late one, heals, and is counted.
//!
//! The nodes are looked at from outside some times a second; what they say decides when the cluster has formed, noticed and healed, so
//! these times are good to a twentieth of a second.

#![expect(clippy::disallowed_methods, reason = "it measures with the real clock and sends on tasks")]

mod cluster;
mod report;
mod tally;

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use meshwork_channels::ClusterSecret;
use meshwork_channels::quic::system_random;
use meshwork_channels::random::{Generator, generator};
use rand::RngExt;
use rand::seq::SliceRandom;
use tokio::task::JoinSet;

use super::signals::Signals;
use super::{Failure, text};
use crate::node::{Config, Kind};
use crate::runtime::Node;
use cluster::{Cluster, PAYLOAD_BYTES, Sight, payload};
use report::{Fault, Links, Report, Spread, State};
use tally::{Owed, Sent, tally};

/// How often the nodes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// After everything was delivered: a moment in which nothing may come twice.
const LISTEN_ON: Duration = Duration::from_millis(500);
/// How often each key is written.
const WRITES_PER_KEY: usize = 2;

#[derive(Args, Debug)]
#[command(after_help = "\
Each node has a thread, a socket, a random key and QUIC connections of its own, and the secret of the cluster exists only in this process. While messages and writes \
go on, two nodes are killed without goodbye and one joins late.

It promises, and counts: every message reaches every node that lived from its sending to the end (the late node is owed what was sent after everybody knew it and it \
was connected; the killed ones are owed nothing, and send nothing), none comes twice, both deaths are noticed and healed, and all nodes end with the same \
state. It exits with 0 only then.")]
pub(super) struct DemoArgs {
    /// Nodes to begin with, 4 to 64
    #[arg(long, default_value_t = 8, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(4..=64))]
    nodes: u16,
    /// Seconds that it may take, 12 to 3600; it ends earlier when everything has been seen
    #[arg(long, default_value_t = 20, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(12..=3600))]
    seconds: u16,
    /// Overlay: `hyparview` (a few neighbors each) or `mesh` (everybody)
    #[arg(long, default_value = "hyparview", value_name = "KIND")]
    topology: Kind,
    /// Broadcasts to send, of 256 bytes each, 1 to 200000
    #[arg(long, default_value_t = 2_000, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=200_000))]
    messages: u32,
    /// Nodes that send, 1 to 64; no more than those that are not to be killed
    #[arg(long, default_value_t = 10, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=64))]
    senders: u16,
    /// Keys to write, each twice; up to 10000
    #[arg(long, default_value_t = 100, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    keys: u32,
    /// Write the result as JSON to this file, `-` for the standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) async fn run(args: DemoArgs) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let mut demo = Demo::new(&args)?;
    let seen = tokio::select! {
        seen = demo.play(&args) => seen.map(Some),
        () = signals.next() => Ok(None),
    };
    demo.bar.finish_and_clear();
    let outcome = match seen {
        Ok(Some(report)) => write(&report, &args).and_then(|()| match report.problems.first() {
            None => Ok(()),
            Some(problem) => Err(Failure::new(problem)),
        }),
        Ok(None) => Err(Failure::interrupted()),
        Err(failure) => Err(failure),
    };
    signals.or_exit(demo.cluster.leave()).await;
    outcome
}

fn write(report: &Report, args: &DemoArgs) -> Result<(), Failure> {
    let json = format!("{}\n", text::json_line(report));
    match args.json.as_deref() {
        Some(path) if path.as_os_str() == "-" => return text::print(&json),
        Some(path) => std::fs::write(path, json).map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?,
        None => {}
    }
    text::print(&report.print(text::terminal_width()))
}

/// What is done to the cluster, and when.
#[derive(Clone, Copy, Debug)]
struct Plan {
    at: Duration,
    event: Planned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Planned {
    Kill(usize),
    Join,
}

/// What was done, and what became of it; times from the start.
#[derive(Debug)]
struct Done {
    event: Planned,
    node: usize,
    at: Duration,
    detected: Option<Duration>,
    healed: Option<Duration>,
}

/// What the tasks that send and write have done.
#[derive(Debug, Default)]
struct Traffic {
    sent: Mutex<BTreeMap<u32, Sent>>,
    sent_count: AtomicUsize,
    written_count: AtomicUsize,
    last_write: Mutex<Option<Duration>>,
    problems: Mutex<Vec<String>>,
}

impl Traffic {
    fn complain(&self, problem: String) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        // The first few say what is wrong.
        if problems.len() < 3 {
            problems.push(problem);
        }
    }
}

/// Who does what, and what has been seen of it.
struct Course {
    victims: Vec<usize>,
    survivors: Vec<usize>,
    senders: Vec<usize>,
    /// The number of the node that joins late.
    newcomer: usize,
    traffic: Arc<Traffic>,
    /// What each node is owed, the newcomer last.
    owed: Vec<Owed>,
    done: Vec<Done>,
    /// When all nodes were first seen to hold the same state, and held it since.
    converged: Option<Duration>,
    sight: Sight,
}

struct Demo {
    cluster: Cluster,
    generator: Generator,
    started: Instant,
    bar: ProgressBar,
    seconds: Duration,
}

impl Demo {
    fn new(args: &DemoArgs) -> Result<Self, Failure> {
        let mut secret = [0; 32];
        let mut seed = [0; 8];
        let random = system_random(&mut secret).and_then(|()| system_random(&mut seed));
        random.map_err(Failure::new)?;
        let config = Config { topology: args.topology, ..Config::default() };
        let started = Instant::now();
        let style = ProgressStyle::with_template("{bar:24} {pos:>3}/{len} s  {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        Ok(Demo {
            cluster: Cluster::new(config, ClusterSecret::from_bytes(secret), started),
            generator: generator(u64::from_le_bytes(seed), "demo", 0),
            started,
            bar: ProgressBar::new(u64::from(args.seconds)).with_style(style),
            seconds: Duration::from_secs(u64::from(args.seconds)),
        })
    }

    fn say(&self, line: &str) {
        let now = self.started.elapsed().as_secs_f64();
        // Who closed the standard error wants no statements.
        self.bar.suspend(|| drop(writeln!(std::io::stderr(), "{now:5.1} s  {line}")));
    }

    fn show(&self, message: impl Into<String>) {
        self.bar.set_position(self.started.elapsed().as_secs().min(self.seconds.as_secs()));
        self.bar.set_message(message.into());
    }

    /// Everything, from the first node to the count.
    async fn play(&mut self, args: &DemoArgs) -> Result<Report, Failure> {
        let nodes = usize::from(args.nodes);
        let formed = self.form(nodes).await?;
        let mut course = self.course(args).await;
        if let Some(formed) = formed {
            let end = self.seconds.mul_f64(0.6).max(formed + Duration::from_secs(2));
            self.run_course(args, &mut course, (formed, end)).await?;
        }
        Ok(self.conclude(args, formed, &course).await)
    }

    /// Who is to be killed, and who sends.
    async fn course(&mut self, args: &DemoArgs) -> Course {
        let nodes = usize::from(args.nodes);
        // The first node stays: it is the address at which the late one joins.
        let mut candidates: Vec<usize> = (1..nodes).collect();
        candidates.shuffle(&mut self.generator);
        let victims = candidates.split_off(candidates.len() - 2);
        let survivors: Vec<usize> = (0..nodes).filter(|node| !victims.contains(node)).collect();
        let senders = survivors.iter().copied().take(usize::from(args.senders)).collect();
        let owed = (0..=nodes).map(|node| if survivors.contains(&node) { Owed::Since(Duration::ZERO) } else { Owed::Nothing });
        Course {
            owed: owed.collect(),
            newcomer: nodes,
            victims,
            survivors,
            senders,
            traffic: Arc::default(),
            done: Vec::new(),
            converged: None,
            sight: self.cluster.look().await,
        }
    }

    /// Traffic and faults, then quiet, until everything has been seen or time is over.
    async fn run_course(&mut self, args: &DemoArgs, course: &mut Course, window: (Duration, Duration)) -> Result<(), Failure> {
        let span = window.1.saturating_sub(window.0);
        let plan = |part: f64, event: Planned| Plan { at: window.0 + span.mul_f64(part), event };
        let kills = course.victims.iter().zip([0.2, 0.35]).map(|(victim, part)| plan(part, Planned::Kill(*victim)));
        let mut plans: VecDeque<Plan> = kills.chain([plan(0.5, Planned::Join)]).collect();
        let fewer = if course.senders.len() < usize::from(args.senders) { " (all that are not to be killed)" } else { "" };
        self.say(&format!(
            "{} messages of {PAYLOAD_BYTES} bytes from {} nodes{fewer} and {} keys, over {:.1} s",
            args.messages,
            course.senders.len(),
            args.keys,
            span.as_secs_f64()
        ));
        self.cluster.name_senders(&course.senders);
        let mut tasks = JoinSet::new();
        self.start_traffic(args, course, window, &mut tasks);
        let mut complete_since = None;
        loop {
            if let Some(plan) = plans.pop_front_if(|plan| plan.at <= self.started.elapsed()) {
                course.done.push(self.carry_out(plan.event).await?);
            }
            course.sight = self.cluster.look().await;
            let seen = self.started.elapsed();
            self.observe(course, seen);
            while tasks.try_join_next().is_some() {}
            if tasks.is_empty() {
                self.show("waiting until everything is everywhere");
                if !self.is_complete(course, args.keys as usize, seen) || !plans.is_empty() {
                    complete_since = None;
                } else if seen >= *complete_since.get_or_insert(seen) + LISTEN_ON {
                    // What comes twice comes after the first time, and did not.
                    return Ok(());
                }
            } else {
                self.show(format!("{}/{} messages", course.traffic.sent_count.load(Ordering::Relaxed), args.messages));
            }
            if seen >= self.seconds {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Once all is sent and written: whether all is delivered, the state the same, and every fault noticed and healed.
    fn is_complete(&self, course: &mut Course, keys: usize, seen: Duration) -> bool {
        let living = self.cluster.citizens.iter().filter(|citizen| !citizen.is_dead).count();
        let same = course.sight.is_converged(living, keys);
        course.converged = if same { course.converged.or(Some(seen)) } else { None };
        let healed = course.done.iter().all(|done| done.detected.is_some() && done.healed.is_some());
        let sent = course.traffic.sent.lock().unwrap_or_else(PoisonError::into_inner);
        same && healed && tally(&sent, &course.owed, &self.cluster.received()).1.is_none()
    }

    /// Starts the nodes and waits until each knows all others and the overlay is whole.
    async fn form(&mut self, nodes: usize) -> Result<Option<Duration>, Failure> {
        for _ in 0..nodes {
            self.cluster.start_node().await?;
        }
        let everybody: Vec<usize> = (0..nodes).collect();
        self.say(&format!("{nodes} nodes started; all but the first were given its address"));
        while self.started.elapsed() < self.seconds / 2 {
            let sight = self.cluster.look().await;
            if sight.know(&everybody, &everybody) && sight.is_whole(&everybody) {
                let formed = self.started.elapsed();
                self.say("formed: every node knows every other, and neighbors connect them all");
                return Ok(Some(formed));
            }
            self.show("forming");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(None)
    }

    /// Messages and writes, spread evenly over the window, from nodes that will live.
    fn start_traffic(&mut self, args: &DemoArgs, course: &Course, window: (Duration, Duration), tasks: &mut JoinSet<()>) {
        let Course { senders, survivors, traffic, .. } = course;
        let span = window.1.saturating_sub(window.0);
        for (place, sender) in senders.iter().enumerate() {
            let node = self.cluster.citizens[*sender].node.clone();
            let (sender, step, messages, traffic, started) = (*sender, senders.len(), args.messages, traffic.clone(), self.started);
            tasks.spawn(async move {
                for number in (place as u32..messages).step_by(step) {
                    let due = window.0 + span.mul_f64(f64::from(number) / f64::from(messages));
                    tokio::time::sleep_until((started + due).into()).await;
                    let at = started.elapsed();
                    match node.broadcast(payload(number, at)).await {
                        Ok(_) => {
                            traffic.sent.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Sent { sender, at });
                            traffic.sent_count.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => traffic.complain(format!("message {number} could not be sent by node {sender}: {error}")),
                    }
                }
            });
        }
        // Every key once, in any order, then every key again.
        let mut writes: Vec<(u32, Node)> = Vec::new();
        for _ in 0..WRITES_PER_KEY {
            let mut keys: Vec<u32> = (0..args.keys).collect();
            keys.shuffle(&mut self.generator);
            for key in keys {
                let writer = survivors[self.generator.random_range(0..survivors.len())];
                writes.push((key, self.cluster.citizens[writer].node.clone()));
            }
        }
        let (traffic, started) = (traffic.clone(), self.started);
        tasks.spawn(async move {
            let count = writes.len();
            for (index, (key, node)) in writes.into_iter().enumerate() {
                let due = window.0 + span.mul_f64(index as f64 / count as f64);
                tokio::time::sleep_until((started + due).into()).await;
                match node.state().set(format!("demo/{key:05}"), format!("write {index} by {}", node.id().short())).await {
                    Ok(_) => {
                        traffic.written_count.fetch_add(1, Ordering::Relaxed);
                        *traffic.last_write.lock().unwrap_or_else(PoisonError::into_inner) = Some(started.elapsed());
                    }
                    Err(error) => traffic.complain(format!("key {key} could not be written: {error}")),
                }
            }
        });
    }

    async fn carry_out(&mut self, event: Planned) -> Result<Done, Failure> {
        let node = match event {
            Planned::Kill(node) => {
                self.cluster.kill(node).await;
                self.say(&format!("killed node {node} without goodbye"));
                node
            }
            Planned::Join => {
                self.cluster.start_node().await?;
                let node = self.cluster.citizens.len() - 1;
                self.say(&format!("started node {node}, which joins late"));
                node
            }
        };
        Ok(Done { event, node, at: self.started.elapsed(), detected: None, healed: None })
    }

    /// Notes what the cluster has noticed and healed by now.
    fn observe(&self, course: &mut Course, now: Duration) {
        let Course { survivors, sight, done, owed, newcomer, .. } = course;
        for fault in done {
            let after = now.saturating_sub(fault.at).as_secs_f64();
            let (detected, healed) = match fault.event {
                Planned::Kill(node) => (sight.miss(survivors, node), !sight.is_neighbor(survivors, node) && sight.is_whole(survivors)),
                Planned::Join => {
                    let mut all = survivors.to_vec();
                    all.push(fault.node);
                    (sight.know(survivors, &[fault.node]), sight.know(&[fault.node], survivors) && sight.is_whole(&all))
                }
            };
            let is_join = fault.event == Planned::Join;
            if detected && fault.detected.is_none() {
                fault.detected = Some(now);
                let what = if is_join { "everybody knows" } else { "everybody has noticed the death of" };
                self.say(&format!("{what} node {}, after {after:.1} s", fault.node));
            }
            // A newcomer is let in when both hold; a wound is closed whenever the overlay is whole, even before the death is certain.
            if healed && fault.healed.is_none() && (!is_join || detected) {
                fault.healed = Some(now);
                if is_join && let Some(owed) = owed.get_mut(*newcomer) {
                    *owed = Owed::Since(now);
                }
                let what = if is_join { "knows everybody and is connected" } else { "is nobody's neighbor, and the overlay is whole" };
                self.say(&format!("node {} {what}, after {after:.1} s", fault.node));
            }
        }
    }

    async fn conclude(&self, args: &DemoArgs, formed: Option<Duration>, course: &Course) -> Report {
        let Course { senders, traffic, owed, done, converged, sight, .. } = course;
        let received = self.cluster.received();
        let sent = traffic.sent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (mut broadcasts, missing) = tally(&sent, owed, &received);
        broadcasts.senders = senders.len();
        let converged = match *converged {
            Some(converged) if self.cluster.holds_the_same_entries(args.keys as usize).await => Some(converged),
            _ => None,
        };
        let last_write = *traffic.last_write.lock().unwrap_or_else(PoisonError::into_inner);

        let mut problems = traffic.problems.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut promise = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        promise(formed.is_some(), format!("the nodes did not all find each other within {} s", self.seconds.as_secs() / 2));
        if formed.is_some() {
            promise(
                broadcasts.sent == args.messages as usize,
                format!("{} of {} messages were sent in time", broadcasts.sent, args.messages),
            );
            if let Some(missing) = missing {
                let count = broadcasts.expected - broadcasts.delivered;
                let tally::Missing { message, sender, node } = missing;
                promise(
                    false,
                    format!(
                        "{count} of {} deliveries are missing, the first one message {message} of node {sender} at node {node}",
                        broadcasts.expected
                    ),
                );
            }
            promise(broadcasts.duplicates == 0, format!("{} deliveries came twice", broadcasts.duplicates));
            promise(broadcasts.foreign == 0, format!("{} deliveries were of messages that nobody sent", broadcasts.foreign));
            let overlooked: u64 = received.iter().map(|received| received.overlooked).sum();
            promise(overlooked == 0, format!("this machine was too slow to count {overlooked} deliveries"));
            promise(converged.is_some(), "the nodes did not end with the same state".into());
            for done in done {
                promise(done.detected.is_some(), format!("not everybody noticed in time what happened to node {}", done.node));
                promise(done.healed.is_some(), format!("the overlay was not whole in time after what happened to node {}", done.node));
            }
            promise(done.len() == 3, "there was no time to kill two nodes and start one".into());
        }

        let since = |at: Duration, then: Option<Duration>| then.map(|then| seconds(then.saturating_sub(at)));
        let faults = done.iter().map(|done| Fault {
            kind: if done.event == Planned::Join { "join" } else { "kill" },
            node: done.node,
            at_s: seconds(done.at),
            detected_s: since(done.at, done.detected),
            healed_s: since(done.at, done.healed),
        });
        Report {
            ok: problems.is_empty(),
            problems,
            nodes: usize::from(args.nodes),
            topology: sight.reports.values().next().map_or("unknown", |report| report.topology),
            elapsed_s: seconds(self.started.elapsed()),
            formed_s: formed.map(seconds),
            links: Links {
                neighbors: Spread::of(sight.reports.values().map(|report| report.neighbors.len())),
                connections: Spread::of(sight.reports.values().map(|report| report.links.len())),
            },
            broadcasts,
            state: State {
                keys: args.keys as usize,
                writes: traffic.written_count.load(Ordering::Relaxed),
                converged: converged.is_some(),
                converged_s: converged.map(|converged| seconds(converged.saturating_sub(last_write.unwrap_or(converged)))),
            },
            faults: faults.collect(),
        }
    }
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e3).round() / 1e3
}
