//! `meshwork bench`: channels, latency, head-of-line blocking, the age of values, shares of classes, and memory, beside honest baselines in the same run; and what the replicated state costs.
//!
//! | file | what |
//! |---|---|
//! | `subject` | what every subject can do, how its traffic is counted and its latency heard |
//! | `ours` | Meshwork, through its public interface |
//! | `raw`, `tls`, `keys` | the baselines: raw quinn in seven forms, TCP with TLS, and the keys of both |
//! | `wire` | a link in user space: rate, delay, queue, loss |
//! | `channels` | `bench channels`: messages and bytes for a second of processor time |
//! | `latency` | `bench latency`: idle, and at a fixed rate |
//! | `hol` | `bench hol`: urgent messages beside bulk |
//! | `latest` | `bench latest`: how old the newest value is when more are published than the line carries |
//! | `classes` | `bench classes`: what the lower classes get beside higher ones that fill the line |
//! | `memory` | `bench memory`: what an idle peer costs, and a handshake |
//! | `state`, `replicas` | `bench state`: repair, broadcasts, operations and memory of the replicated state; and replicas that are driven by hand for it |
//! | `results` | `bench results`: all of them against what is promised |
//! | `samples`, `machine` | histograms; processor time, memory, what the machine is |
//! | `page` | the report as one HTML page |
//!
//! Both ends run in this process, on one runtime but for what is said to have threads of its own; the processor time of both is counted. Cases take turns in rounds, and the figures are medians
//! over rounds, so that a busy moment of the machine falls on all of them.

#![expect(clippy::disallowed_methods, reason = "it measures with the real clock and writes files")]

mod channels;
mod classes;
mod day;
mod hol;
mod keys;
mod latency;
mod latest;
mod machine;
mod memory;
mod ours;
mod page;
mod raw;
mod replicas;
mod results;
mod samples;
mod siege;
mod state;
mod subject;
mod tls;
mod wire;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use meshwork_channels::ChannelSpec;
use serde::Serialize;
use serde_json::{Value, json};

use super::Failure;
use super::signals::Signals;
use super::text::{self, Table};
use machine::Machine;
use raw::{Form, Raw};
use samples::Samples;
use subject::Subject;
use wire::Link;

/// The form of the JSON; it changes when a field changes its meaning.
const SCHEMA: u32 = 1;

#[derive(Args, Debug)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Messages and bytes through one link for a second of processor time, by size
    Channels(channels::ChannelsArgs),
    /// How long a message takes, idle and at a fixed rate
    Latency(latency::LatencyArgs),
    /// How long an urgent message takes while bulk fills the line
    Hol(hol::HolArgs),
    /// How old the newest value is on arrival when more values are published than the line carries
    Latest(latest::LatestArgs),
    /// What the channels of a lower class still get while those of higher ones fill the line
    Classes(classes::ClassesArgs),
    /// What an idle peer costs in memory, and a handshake in processor time
    Memory(memory::MemoryArgs),
    /// What the replicated state costs: repair, broadcasts, writes and memory
    State(state::StateArgs),
    /// All of these but `state`, against what is promised, as the page `docs/results.md`
    Results(results::ResultsArgs),
}

impl What {
    fn output(&self) -> (&'static str, &Output) {
        match self {
            What::Channels(args) => ("channels", &args.common.output),
            What::Latency(args) => ("latency", &args.common.output),
            What::Hol(args) => ("hol", &args.common.output),
            What::Latest(args) => ("latest", &args.common.output),
            What::Classes(args) => ("classes", &args.common.output),
            What::Memory(args) => ("memory", &args.output),
            What::State(args) => ("state", &args.output),
            What::Results(args) => ("results", &args.output),
        }
    }

    /// How long all measurements take, but for what comes between them.
    fn expected_seconds(&self) -> Result<f64, Failure> {
        match self {
            What::Channels(args) => Ok(args.expected_seconds()),
            What::Latency(args) => Ok(args.expected_seconds()),
            What::Hol(args) => args.expected_seconds(),
            What::Latest(args) => Ok(args.expected_seconds()),
            What::Classes(args) => Ok(args.expected_seconds()),
            What::Memory(args) => Ok(args.expected_seconds()),
            What::State(args) => args.expected_seconds(),
            What::Results(args) => args.expected_seconds(),
        }
    }
}

/// What all of them take.
#[derive(Args, Debug)]
struct Common {
    /// Seconds that each measurement takes, 0.1 to 600
    #[arg(long, default_value = "3", value_name = "SECONDS", value_parser = seconds)]
    seconds: Duration,
    /// Rounds, 1 to 100; the figures are medians over them
    #[arg(long, default_value_t = 5, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
struct Output {
    /// Threads of the runtime that the subjects run on, 1 to 64; each node of `meshwork` and `meshwork-twice`, but not of `meshwork-shared`, and each endpoint of `quinn-threads` has one more of its own
    #[arg(long, default_value_t = 2, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=64))]
    workers: u8,
    /// Write rows, every round and the raw histograms as JSON to this file, `-` for the standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with plots to this file
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

/// Seconds as people write them.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is no number of seconds"))?;
    if (0.1..=600.0).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err("from 0.1 to 600 seconds".into()) }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Config {
    /// Each node on a thread of its own, as by default.
    Meshwork,
    /// The nodes on the runtime of the program, as the baselines are.
    MeshworkShared,
    /// As `meshwork`, and each urgent message goes out twice: once on the first connection and once on the second, the one for bulk.
    MeshworkTwice,
    /// The links of two endpoints, without nodes on top.
    MeshworkLinks,
    Quinn,
    /// As `quinn`, each endpoint on a thread of its own, as a node of `meshwork` is.
    QuinnThreads,
    QuinnSame,
    QuinnPriority,
    QuinnOneStream,
    QuinnStreamPerMessage,
    QuinnWritePerMessage,
    TcpTls,
}

impl Config {
    fn name(self) -> &'static str {
        match self {
            Config::Meshwork => "meshwork",
            Config::MeshworkShared => "meshwork-shared",
            Config::MeshworkTwice => "meshwork-twice",
            Config::MeshworkLinks => "meshwork-links",
            Config::Quinn => "quinn",
            Config::QuinnThreads => "quinn-threads",
            Config::QuinnSame => "quinn-same",
            Config::QuinnPriority => "quinn-priority",
            Config::QuinnOneStream => "quinn-one-stream",
            Config::QuinnStreamPerMessage => "quinn-stream-per-message",
            Config::QuinnWritePerMessage => "quinn-write-per-message",
            Config::TcpTls => "tcp-tls",
        }
    }

    fn is_ours(self) -> bool {
        matches!(self, Config::Meshwork | Config::MeshworkShared | Config::MeshworkTwice | Config::MeshworkLinks)
    }

    /// Connects one end with `peers` others, over a link or over loopback. Nodes define these channels.
    async fn start(self, peers: usize, link: Option<&Link>, seed: u64, channels: &[ChannelSpec]) -> Result<Box<dyn Subject>, Failure> {
        let ours = async |form| Ok(Box::new(ours::Ours::start(form, peers, link, seed, channels).await?) as Box<dyn Subject>);
        let form = match self {
            Config::Meshwork => return ours(ours::Form::Alone).await,
            Config::MeshworkShared => return ours(ours::Form::Shared).await,
            Config::MeshworkTwice => return ours(ours::Form::Twice).await,
            Config::MeshworkLinks => return Err(Failure::usage("meshwork-links is a case of `bench memory` alone")),
            Config::TcpTls if link.is_some() => return Err(no_tcp_on_a_link()),
            Config::TcpTls => return Ok(Box::new(tls::Tls::start(peers).await?)),
            Config::Quinn => Form::Plain,
            Config::QuinnThreads => Form::Threads,
            Config::QuinnSame => Form::Same,
            Config::QuinnPriority => Form::Priority,
            Config::QuinnOneStream => Form::OneStream,
            Config::QuinnStreamPerMessage => Form::StreamPerMessage,
            Config::QuinnWritePerMessage => Form::WritePerMessage,
        };
        Ok(Box::new(Raw::start(form, peers, link, seed).await?))
    }
}

fn no_tcp_on_a_link() -> Failure {
    Failure::usage("tcp-tls cannot take a link, which carries UDP alone")
}

/// What a benchmark has found.
struct Outcome {
    settings: Value,
    rows: Vec<Value>,
    /// Every round of every row, with its raw counts.
    rounds: Vec<Value>,
    table: Table,
    curves: Vec<Curve>,
    bars: Vec<Bar>,
}

/// Latencies under a name; those of one group are drawn together.
struct Curve {
    group: String,
    name: String,
    samples: Samples,
}

/// A figure under a name; those of one group are drawn together, and more is better.
struct Bar {
    group: String,
    name: String,
    value: f64,
    unit: &'static str,
}

/// A row of the JSON.
fn row(row: &impl Serialize) -> Value {
    serde_json::to_value(row).expect("rows have string keys and no failing serializer")
}

fn now() -> Instant {
    Instant::now()
}

/// A bar on the standard error, when that is a terminal.
#[derive(Clone)]
struct Progress {
    bar: ProgressBar,
    began: Instant,
    /// What is measured, before what is said of it.
    what: String,
}

impl Progress {
    fn new() -> Self {
        let target = if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("{bar:24} {percent:>3} %  {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        Progress { bar: ProgressBar::with_draw_target(Some(0), target).with_style(style), began: now(), what: String::new() }
    }

    /// The same bar for one of several benchmarks.
    fn of(&self, what: String) -> Self {
        Progress { what: format!("{what}, "), ..self.clone() }
    }

    /// So many seconds in all.
    fn expect(&self, seconds: f64) {
        self.bar.set_length((seconds * 1e3) as u64);
    }

    fn advance(&self, seconds: f64) {
        self.bar.inc((seconds * 1e3) as u64);
    }

    fn show(&self, message: String) {
        let left = self.left(self.began.elapsed());
        self.bar.set_message(format!("{} left  {}{message}", text::duration(left), self.what));
        self.bar.tick();
    }

    /// The time left, if what comes between measurements goes on to take what it took so far.
    fn left(&self, elapsed: Duration) -> Duration {
        let (done, all) = (self.bar.position() as f64, self.bar.length().unwrap_or(0) as f64);
        let factor = if done > 0.0 { elapsed.as_secs_f64() * 1e3 / done } else { 1.0 };
        Duration::from_secs_f64(((all - done) * factor / 1e3).max(0.0))
    }
}

pub(super) fn run(args: BenchArgs) -> Result<(), Failure> {
    let machine = Machine::look();
    if !machine.optimized {
        eprintln!("meshwork: built without optimization; the figures say nothing about the product");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(args.what.output().1.workers.into())
        .thread_name("meshwork-bench")
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("the system gives no threads: {error}")))?;
    let progress = Progress::new();
    let what = Arc::new(args.what);
    let seconds = what.expected_seconds()?;
    // One that another process started to measure for it shows nothing.
    if seconds > 0.0 {
        progress.expect(seconds);
    }
    let outcome = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        // On the threads of the runtime like everything else: this one only waits.
        let measuring = tokio::spawn(measure(what.clone(), progress.clone()));
        tokio::select! {
            outcome = measuring => outcome.map_err(|error| Failure::new(format!("the benchmark failed: {error}")))?,
            () = signals.next() => Err(Failure::interrupted()),
        }
    });
    progress.bar.finish_and_clear();
    runtime.shutdown_background();
    let (kind, output) = what.output();
    match outcome? {
        Some(outcome) => write(kind, &outcome, &machine, output),
        None => Ok(()),
    }
}

/// What was found; none when it has been said already.
async fn measure(what: Arc<What>, progress: Progress) -> Result<Option<Outcome>, Failure> {
    match &*what {
        What::Channels(args) => channels::run(args, &progress).await.map(Some),
        What::Latency(args) => latency::run(args, &progress).await.map(Some),
        What::Hol(args) => hol::run(args, &progress).await.map(Some),
        What::Latest(args) => latest::run(args, &progress).await.map(Some),
        What::Classes(args) => classes::run(args, &progress).await.map(Some),
        What::Memory(args) => memory::run(args, &progress).await,
        What::State(args) => state::run(args, &progress).await,
        What::Results(args) => results::run(args, &progress).await.map(Some),
    }
}

fn write(kind: &str, outcome: &Outcome, machine: &Machine, output: &Output) -> Result<(), Failure> {
    let command: Vec<String> = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let save = |path: &Path, text: &str| {
        std::fs::write(path, text).map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
    };
    if let Some(path) = &output.report {
        save(path, &page::render(kind, outcome, machine, &command))?;
    }
    if let Some(path) = &output.json {
        let histograms = outcome
            .curves
            .iter()
            .map(|curve| json!({ "group": curve.group, "name": curve.name, "micros_and_counts": curve.samples.raw() }));
        let document = json!({
            "schema": SCHEMA,
            "kind": kind,
            "command": command,
            "machine": machine,
            "workers": output.workers,
            "settings": outcome.settings,
            "rows": outcome.rows,
            "rounds": outcome.rounds,
            "histograms": histograms.collect::<Vec<_>>(),
        });
        let json = format!("{}\n", text::json_line(&document));
        if path.as_os_str() == "-" {
            return text::print(&json);
        }
        save(path, &json)?;
    }
    text::print(&outcome.table.render(text::terminal_width()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_grows_with_what_comes_between_measurements() {
        let progress = Progress::new();
        progress.expect(100.0);
        assert_eq!(progress.left(Duration::from_secs(5)), Duration::from_secs(100));
        progress.of("bench hol".into()).advance(20.0);
        assert_eq!(progress.left(Duration::from_secs(30)), Duration::from_secs(120));
        progress.advance(80.0);
        assert_eq!(progress.left(Duration::from_secs(150)), Duration::ZERO);
    }
}
