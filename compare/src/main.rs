//! Meshwork's channels beside iroh-gossip, libp2p gossipsub and Zenoh: one process, loopback, one direction, the processor time of both ends.
//!
//! Subjects take turns in rounds, so that a busy moment of the machine falls on all of them. Figures are medians over rounds, and ratios are
//! medians of the ratios within each round.

mod gossipsub;
mod iroh;
mod machine;
mod ours;
mod zenoh;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use serde::Serialize;
use serde_json::json;
use tokio::time::sleep;

use machine::{cpu_time, machine, median, version};

/// What a subject says when it cannot go on.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
/// Ends a subject whose flow has been stopped.
pub(crate) type Stop = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How long two ends may take until the first message arrives.
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// What is sent in this time is not counted: windows open and packets grow.
const WARM_UP: Duration = Duration::from_millis(500);
/// Between two subjects: what the last one left behind ends here.
const REST: Duration = Duration::from_millis(300);
/// Threads of the runtime that the subjects run on.
const WORKERS: usize = 2;
/// The form of the JSON; it changes when a field changes its meaning.
const SCHEMA: u32 = 1;

#[derive(Parser)]
#[command(about = "Compares Meshwork's channels with iroh-gossip, libp2p gossipsub and Zenoh")]
struct Args {
    /// Sizes of messages in bytes, 8 to 32768, with commas between them
    #[arg(long, default_value = "64,1024,16384", value_name = "BYTES", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(8..=32_768))]
    sizes: Vec<u32>,
    /// Seconds that each measurement takes, 0.1 to 600
    #[arg(long, default_value = "3", value_name = "SECONDS", value_parser = seconds)]
    seconds: Duration,
    /// Rounds, 1 to 100
    #[arg(long, default_value_t = 5, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    /// Compare with these alone, with commas between them
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_enum)]
    only: Vec<Other>,
    /// Write rows and every round as JSON to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Seconds as people write them.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is no number of seconds"))?;
    if (0.1..=600.0).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err("from 0.1 to 600 seconds".into()) }
}

/// What Meshwork is compared with.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Other {
    Zenoh,
    Iroh,
    Gossipsub,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// A channel to one peer, between nodes that listen on loopback.
    Meshwork,
    /// The same with the packets of an ordinary network, which are those of all others here.
    MeshworkSmallPackets,
    /// Broadcast to the cluster.
    MeshworkBroadcast,
    Zenoh,
    /// As fast as the queues of iroh-gossip let messages in.
    IrohGossip,
    /// With few enough messages under way that it loses none.
    IrohGossipPaced,
    GossipsubAnonymous,
    GossipsubSigned,
}

impl Subject {
    const ALL: [Subject; 8] = [
        Subject::Meshwork,
        Subject::MeshworkSmallPackets,
        Subject::MeshworkBroadcast,
        Subject::Zenoh,
        Subject::IrohGossip,
        Subject::IrohGossipPaced,
        Subject::GossipsubAnonymous,
        Subject::GossipsubSigned,
    ];

    /// That of Meshwork begins with `meshwork`.
    fn name(self) -> &'static str {
        match self {
            Subject::Meshwork => "meshwork",
            Subject::MeshworkSmallPackets => "meshwork-small-packets",
            Subject::MeshworkBroadcast => "meshwork-broadcast",
            Subject::Zenoh => "zenoh",
            Subject::IrohGossip => "iroh-gossip",
            Subject::IrohGossipPaced => "iroh-gossip-paced",
            Subject::GossipsubAnonymous => "gossipsub-anonymous",
            Subject::GossipsubSigned => "gossipsub-signed",
        }
    }

    fn other(self) -> Option<Other> {
        match self {
            Subject::Meshwork | Subject::MeshworkSmallPackets | Subject::MeshworkBroadcast => None,
            Subject::Zenoh => Some(Other::Zenoh),
            Subject::IrohGossip | Subject::IrohGossipPaced => Some(Other::Iroh),
            Subject::GossipsubAnonymous | Subject::GossipsubSigned => Some(Other::Gossipsub),
        }
    }

    /// Connects two ends and starts to send from one to the other, until `flow` is stopped.
    async fn start(self, flow: &Arc<Flow>) -> Result<Stop, Failure> {
        match self {
            Subject::Meshwork => ours::channel(ours::Packets::Large, flow).await,
            Subject::MeshworkSmallPackets => ours::channel(ours::Packets::Small, flow).await,
            Subject::MeshworkBroadcast => ours::broadcast(flow).await,
            Subject::Zenoh => zenoh::start(flow).await,
            Subject::IrohGossip => iroh::start(None, flow).await,
            Subject::IrohGossipPaced => iroh::start(Some(iroh::UNDER_WAY_MAX), flow).await,
            Subject::GossipsubAnonymous => gossipsub::start(gossipsub::Author::Anonymous, flow).await,
            Subject::GossipsubSigned => gossipsub::start(gossipsub::Author::Signed, flow).await,
        }
    }
}

/// What went in and came out. Senders and receivers count apart, so that they do not share a line of the cache.
#[repr(align(128))]
#[derive(Default)]
struct Counter(AtomicU64);

/// Messages of one size from one end to the other.
pub(crate) struct Flow {
    /// Bytes of a message.
    pub(crate) size: usize,
    sent: Counter,
    delivered: Counter,
    stopped: AtomicBool,
    problem: OnceLock<String>,
}

impl Flow {
    fn new(size: usize) -> Self {
        Flow { size, sent: Counter::default(), delivered: Counter::default(), stopped: AtomicBool::new(false), problem: OnceLock::new() }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub(crate) fn count_sent(&self) {
        self.sent.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_delivered(&self, messages: u64) {
        self.delivered.0.fetch_add(messages, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.0.load(Ordering::Relaxed)
    }

    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.0.load(Ordering::Relaxed)
    }

    /// Notes why a subject ended; what happens once it is stopped is no problem.
    pub(crate) fn fail(&self, problem: impl std::fmt::Display) {
        if !self.is_stopped() {
            let _ = self.problem.set(problem.to_string());
        }
    }

    fn check(&self) -> Result<(), Failure> {
        self.problem.get().map_or(Ok(()), |problem| Err(problem.as_str().into()))
    }

    /// A message that differs from all others: subjects that tell messages apart by their content drop what they have seen.
    pub(crate) fn message(&self, number: u64) -> Vec<u8> {
        let mut message = vec![7; self.size];
        message[..8].copy_from_slice(&number.to_le_bytes());
        message
    }

    fn look(&self) -> (Instant, Duration, u64, u64) {
        (Instant::now(), cpu_time(), self.sent(), self.delivered())
    }
}

/// A port of the loopback interface that nobody listens on now, for subjects that must know theirs in advance.
pub(crate) fn free_port() -> std::io::Result<u16> {
    Ok(UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?.local_addr()?.port())
}

/// What happened in the measured time.
#[derive(Clone, Copy, Serialize)]
struct Span {
    wall_s: f64,
    cpu_s: f64,
    sent: u64,
    delivered: u64,
}

impl Span {
    fn per_cpu_s(&self) -> f64 {
        self.delivered as f64 / self.cpu_s.max(1e-9)
    }

    fn per_wall_s(&self) -> f64 {
        self.delivered as f64 / self.wall_s.max(1e-9)
    }

    /// What was still on its way counts as not delivered, and what was under way before may make it more than one.
    fn delivered_part(&self) -> f64 {
        self.delivered as f64 / (self.sent as f64).max(1.0)
    }
}

/// One round of one subject.
async fn measure(subject: Subject, size: usize, seconds: Duration) -> Result<Span, Failure> {
    let flow = Arc::new(Flow::new(size));
    let stop = subject.start(&flow).await?;
    let deadline = Instant::now() + CONNECT_MAX;
    while flow.delivered() == 0 {
        flow.check()?;
        if Instant::now() > deadline {
            return Err("no message arrived".into());
        }
        sleep(Duration::from_millis(5)).await;
    }
    sleep(WARM_UP).await;
    let before = flow.look();
    sleep(seconds).await;
    let after = flow.look();
    flow.check()?;
    flow.stopped.store(true, Ordering::Relaxed);
    stop.await;
    sleep(REST).await;
    Ok(Span {
        wall_s: after.0.duration_since(before.0).as_secs_f64(),
        cpu_s: after.1.saturating_sub(before.1).as_secs_f64(),
        sent: after.2 - before.2,
        delivered: after.3 - before.3,
    })
}

struct Case {
    subject: Subject,
    size: u32,
    spans: Vec<Span>,
}

impl Case {
    fn middle(&self, figure: fn(&Span) -> f64) -> f64 {
        median(self.spans.iter().map(figure))
    }

    /// The middle of the ratios of each round: rounds differ more than subjects within one.
    fn by(&self, other: &Case, figure: fn(&Span) -> f64) -> f64 {
        median(self.spans.iter().zip(&other.spans).map(|(ours, other)| figure(ours) / figure(other).max(1e-9)))
    }
}

#[derive(Serialize)]
struct Row {
    case: &'static str,
    size: u32,
    msgs_per_cpu_s: f64,
    mb_per_cpu_s: f64,
    wall_msgs_s: f64,
    delivered_part: f64,
    /// What a row of Meshwork is compared with first.
    baseline: Option<&'static str>,
    /// Messages for a second of processor time, by those of the baseline.
    ratio: Option<f64>,
    /// The same for every baseline, by processor time and by the wall clock.
    ratios: Vec<Ratio>,
}

#[derive(Serialize)]
struct Ratio {
    baseline: &'static str,
    cpu: f64,
    wall: f64,
}

/// A promise about a ratio.
#[derive(Serialize)]
struct Gate {
    id: &'static str,
    size: u32,
    by: &'static str,
    baseline: &'static str,
    wanted: f64,
    found: f64,
    /// The same ratio with the packets of an ordinary network.
    found_with_small_packets: Option<f64>,
    held: bool,
}

/// Name, bytes, baselines of which the best counts, least ratio, and whether the wall clock counts too.
const GATES: [(&str, u32, &[Subject], f64, bool); 5] = [
    ("C6", 64, &[Subject::Zenoh], 3.5, true),
    ("C7", 64, &[Subject::IrohGossip, Subject::IrohGossipPaced], 25.0, false),
    ("C7", 64, &[Subject::GossipsubAnonymous], 40.0, false),
    ("C9", 1_024, &[Subject::Zenoh], 1.8, false),
    ("C9", 16_384, &[Subject::Zenoh], 2.0, false),
];

fn find(cases: &[Case], subject: Subject, size: u32) -> Option<&Case> {
    cases.iter().find(|case| case.subject == subject && case.size == size)
}

fn gates(cases: &[Case]) -> Vec<Gate> {
    let mut gates = Vec::new();
    for (id, size, baselines, wanted, wall) in GATES {
        let figures = [("cpu", Span::per_cpu_s as fn(&Span) -> f64), ("wall", Span::per_wall_s)];
        for (by, figure) in figures.into_iter().take(if wall { 2 } else { 1 }) {
            let others = baselines.iter().filter_map(|subject| find(cases, *subject, size));
            let best = others.max_by(|a, b| a.middle(figure).total_cmp(&b.middle(figure)));
            if let (Some(ours), Some(other)) = (find(cases, Subject::Meshwork, size), best) {
                let found = ours.by(other, figure);
                let small = find(cases, Subject::MeshworkSmallPackets, size).map(|ours| ours.by(other, figure));
                let baseline = other.subject.name();
                gates.push(Gate { id, size, by, baseline, wanted, found, found_with_small_packets: small, held: found >= wanted });
            }
        }
    }
    gates
}

fn rows(cases: &[Case]) -> Vec<Row> {
    let row = |case: &Case| {
        let is_ours = case.subject.other().is_none();
        let others = cases.iter().filter(|other| is_ours && other.size == case.size && other.subject.other().is_some());
        let ratios: Vec<Ratio> = others
            .map(|other| Ratio {
                baseline: other.subject.name(),
                cpu: case.by(other, Span::per_cpu_s),
                wall: case.by(other, Span::per_wall_s),
            })
            .collect();
        let msgs_per_cpu_s = case.middle(Span::per_cpu_s);
        Row {
            case: case.subject.name(),
            size: case.size,
            msgs_per_cpu_s,
            mb_per_cpu_s: msgs_per_cpu_s * f64::from(case.size) / 1e6,
            wall_msgs_s: case.middle(Span::per_wall_s),
            delivered_part: case.middle(Span::delivered_part),
            baseline: ratios.first().map(|ratio| ratio.baseline),
            ratio: ratios.first().map(|ratio| ratio.cpu),
            ratios,
        }
    };
    cases.iter().map(row).collect()
}

/// Each of them in its own columns: how many times as much Meshwork carries, by processor time and by the wall clock.
fn print(cases: &[Case], rows: &[Row], gates: &[Gate]) {
    println!(
        "{:<24}{:>7}{:>13}{:>11}{:>11}{:>11}   meshwork by it: {:>7}{:>9}",
        "case", "size", "k msg/cpu s", "MB/cpu s", "k msg/s", "delivered", "cpu", "wall"
    );
    for (case, row) in cases.iter().zip(rows) {
        let against = find(cases, Subject::Meshwork, case.size).filter(|ours| ours.subject != case.subject);
        let by = |figure| against.map_or_else(String::new, |ours| format!("{:.2}", ours.by(case, figure)));
        println!(
            "{:<24}{:>7}{:>13.1}{:>11.1}{:>11.1}{:>11.3}   {:>23}{:>9}",
            row.case,
            row.size,
            row.msgs_per_cpu_s / 1e3,
            row.mb_per_cpu_s,
            row.wall_msgs_s / 1e3,
            row.delivered_part,
            by(Span::per_cpu_s),
            by(Span::per_wall_s),
        );
    }
    println!();
    for gate in gates {
        let held = if gate.held { "held" } else { "NOT HELD" };
        let small = gate.found_with_small_packets.map_or_else(String::new, |found| format!(" ({found:.2} with small packets)"));
        println!(
            "{}: {} bytes, {}, by {}: {:.2}{small}, at least {}: {held}",
            gate.id, gate.size, gate.baseline, gate.by, gate.found, gate.wanted
        );
    }
}

async fn run(args: &Args) -> Result<Vec<Case>, Failure> {
    let wanted = |subject: &Subject| subject.other().is_none_or(|other| args.only.is_empty() || args.only.contains(&other));
    let mut cases = Vec::new();
    for size in &args.sizes {
        let subjects = Subject::ALL.into_iter().filter(wanted);
        cases.extend(subjects.map(|subject| Case { subject, size: *size, spans: Vec::new() }));
    }
    for round in 1..=args.rounds {
        for case in &mut cases {
            let name = case.subject.name();
            let span = measure(case.subject, case.size as usize, args.seconds).await.map_err(|error| format!("{name}: {error}"))?;
            eprintln!(
                "round {round} of {}: {name}, {} bytes: {:.1} k messages per CPU second, {:.1} k per second",
                args.rounds,
                case.size,
                span.per_cpu_s() / 1e3,
                span.per_wall_s() / 1e3
            );
            case.spans.push(span);
        }
    }
    Ok(cases)
}

fn compare(args: Args) -> Result<(), Failure> {
    let args = Arc::new(args);
    let machine = machine();
    if cfg!(debug_assertions) {
        eprintln!("built without optimization; the figures say nothing");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    let measured = args.clone();
    // On the threads of the runtime like everything else: this one only waits.
    let cases = runtime.block_on(async { tokio::spawn(async move { run(&measured).await }).await });
    runtime.shutdown_background();
    let cases = cases??;
    let (rows, gates) = (rows(&cases), gates(&cases));
    if let Some(path) = &args.json {
        let rounds: Vec<_> = cases
            .iter()
            .flat_map(|case| case.spans.iter().enumerate().map(move |(round, span)| (case, round, span)))
            .map(|(case, round, span)| json!({ "case": case.subject.name(), "size": case.size, "round": round + 1, "span": span }))
            .collect();
        let versions = ["meshwork", "zenoh", "iroh", "iroh-gossip", "libp2p", "libp2p-gossipsub", "libp2p-quic", "quinn", "noq", "tokio"];
        let document = json!({
            "schema": SCHEMA,
            "kind": "compare",
            "machine": machine,
            "versions": versions.map(|package| (package, version(package))).into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            "workers": WORKERS,
            "settings": {
                "sizes": args.sizes, "seconds": args.seconds.as_secs_f64(), "rounds": args.rounds, "warm_up_s": WARM_UP.as_secs_f64(),
                "broadcast_producers": ours::PRODUCERS, "iroh_gossip_under_way_max": iroh::UNDER_WAY_MAX,
            },
            "rows": rows,
            "gates": gates,
            "rounds": rounds,
        });
        std::fs::write(path, format!("{document:#}\n"))?;
    }
    print(&cases, &rows, &gates);
    Ok(())
}

fn main() -> ExitCode {
    match compare(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("meshwork-compare: {error}");
            ExitCode::FAILURE
        }
    }
}
