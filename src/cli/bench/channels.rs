//! What one link carries in one direction: messages of several sizes, and bulk.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::ours::FLOODED;
use super::samples::median;
use super::subject::{Facts, Flow, Load, Span};
use super::{Bar, Common, Config, Outcome, Progress, row};
use crate::cli::Failure;
use crate::cli::text::{Align, Table};

/// What is sent in this time is not counted: windows open and packets grow.
const WARM_UP: Duration = Duration::from_millis(500);
/// From this size on a message is bulk, and is compared with bulk.
const BULK_BYTES: u32 = 64 * 1_024;

#[derive(Args, Debug)]
#[command(after_help = "\
Processor time is that of the whole process: both ends of every connection. It repeats better than the wall clock on a machine with other work, so the ratios \
are ratios of it, each the median over rounds of the two figures of the same round.

Baselines below 64 KiB: `quinn` (collected into blocks), `quinn-same` (that with our transport settings and packet size), `quinn-stream-per-message`, \
`quinn-write-per-message`, `tcp-tls` (collected into blocks). From 64 KiB on: `quinn`, `quinn-same`, `tcp-tls`.")]
pub(super) struct ChannelsArgs {
    /// Sizes of messages in bytes, 1 to 1048576, with commas between them
    #[arg(long, default_value = "64,1024,16384,1048576", value_name = "BYTES", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    sizes: Vec<u32>,
    /// Producers on each channel towards each peer, 1 to 64; baselines use as many streams
    #[arg(long, default_value_t = 1, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=64))]
    lanes: u8,
    /// Channels used at once, 1 to 4; baselines use as many streams for each producer
    #[arg(long, default_value_t = 1, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=4))]
    channels: u8,
    /// Peers that one end sends to, 1 to 64
    #[arg(long, default_value_t = 1, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=64))]
    peers: u8,
    /// Send so many messages in a second in all, instead of as many as possible
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    open_loop: Option<u32>,
    /// Only these subjects; may be given several times
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_enum)]
    config: Vec<Config>,
    #[command(flatten)]
    pub(super) common: Common,
}

impl ChannelsArgs {
    pub(super) fn expected_seconds(&self) -> f64 {
        let cases: usize = self.sizes.iter().map(|size| self.subjects(*size).len()).sum();
        self.case_seconds() * cases as f64 * f64::from(self.common.rounds)
    }

    fn case_seconds(&self) -> f64 {
        (WARM_UP + self.common.seconds).as_secs_f64()
    }

    fn subjects(&self, size: u32) -> Vec<Config> {
        if !self.config.is_empty() {
            return self.config.clone();
        }
        let mut subjects = vec![Config::Meshwork, Config::MeshworkShared, Config::Quinn, Config::QuinnSame, Config::TcpTls];
        if size < BULK_BYTES {
            subjects.extend([Config::QuinnStreamPerMessage, Config::QuinnWritePerMessage]);
        }
        subjects
    }

    fn load(&self, size: u32) -> Load {
        let producers = f64::from(self.lanes) * f64::from(self.channels) * f64::from(self.peers);
        Load {
            size: size as usize,
            lanes: self.lanes.into(),
            channels: usize::from(self.channels).min(FLOODED.len()),
            rate: self.open_loop.map(|rate| f64::from(rate) / producers),
            read_rate: None,
        }
    }
}

struct Case {
    config: Config,
    size: u32,
    spans: Vec<Span>,
    facts: Vec<Facts>,
}

#[derive(Serialize)]
struct Row {
    case: &'static str,
    size: u32,
    msgs_per_cpu_s: f64,
    mb_per_cpu_s: f64,
    wall_msgs_s: f64,
    wall_mb_s: f64,
    /// Of what was sent in the measured time; what was still on its way counts as not delivered.
    delivered_part: f64,
    /// What a row of Meshwork is compared with first: a stream for each message below 64 KiB, raw quinn from there on.
    baseline: Option<&'static str>,
    /// Messages for a second of processor time, by those of the baseline.
    ratio: Option<f64>,
    /// The same for every baseline: by processor time, and by the wall clock.
    ratios: Vec<Ratio>,
    facts: Option<Facts>,
}

#[derive(Serialize)]
struct Ratio {
    baseline: &'static str,
    cpu: f64,
    wall: f64,
}

#[derive(Serialize)]
struct Round<'a> {
    case: &'static str,
    size: u32,
    round: usize,
    span: &'a Span,
    facts: &'a Facts,
}

pub(super) async fn run(args: &ChannelsArgs, progress: &Progress) -> Result<Outcome, Failure> {
    let mut cases = Vec::new();
    for size in &args.sizes {
        cases.extend(args.subjects(*size).into_iter().map(|config| Case { config, size: *size, spans: Vec::new(), facts: Vec::new() }));
    }
    let mut rounds = Vec::new();
    for round in 0..usize::from(args.common.rounds) {
        for case in &mut cases {
            progress.show(format!("{} {} B round {}", case.config.name(), case.size, round + 1));
            let (span, facts) = measure(case.config, args, case.size).await?;
            rounds.push(row(&Round { case: case.config.name(), size: case.size, round: round + 1, span: &span, facts: &facts }));
            case.spans.push(span);
            case.facts.push(facts);
            progress.advance(args.case_seconds());
        }
    }
    Ok(outcome(args, &cases, rounds))
}

/// One round of one subject.
async fn measure(config: Config, args: &ChannelsArgs, size: u32) -> Result<(Span, Facts), Failure> {
    let subject = config.start(args.peers.into(), None, 0, &[]).await?;
    let mut tasks = JoinSet::new();
    let flow = Arc::new(Flow::default());
    subject.flood(args.load(size), &flow, &mut tasks).await?;
    sleep(WARM_UP).await;
    let before = flow.look();
    sleep(args.common.seconds).await;
    let span = before.until(flow.look());
    flow.check()?;
    flow.stop();
    let facts = subject.stop().await;
    tasks.shutdown().await;
    Ok((span, facts))
}

fn outcome(args: &ChannelsArgs, cases: &[Case], rounds: Vec<serde_json::Value>) -> Outcome {
    let mut table = Table::new(&[
        ("case", Align::Left),
        ("size", Align::Right),
        ("k msg/cpu s", Align::Right),
        ("MB/cpu s", Align::Right),
        ("k msg/s", Align::Right),
        ("MB/s", Align::Right),
        ("delivered", Align::Right),
        ("meshwork by it, cpu", Align::Right),
        ("wall", Align::Right),
    ]);
    let (mut rows, mut bars) = (Vec::new(), Vec::new());
    for case in cases {
        let over = |figure: fn(&Span) -> f64| median(case.spans.iter().map(figure));
        let ours = cases.iter().find(|ours| ours.config.is_ours() && ours.size == case.size);
        let mut ratios = Vec::new();
        if case.config.is_ours() {
            for other in cases.iter().filter(|other| other.size == case.size && !other.config.is_ours()) {
                ratios.push(ratio(case, other));
            }
        }
        let wanted = if case.size < BULK_BYTES { Config::QuinnStreamPerMessage } else { Config::Quinn };
        let first = ratios.iter().find(|ratio| ratio.baseline == wanted.name()).or(ratios.first());
        let said = Row {
            case: case.config.name(),
            size: case.size,
            msgs_per_cpu_s: over(Span::per_cpu_s),
            mb_per_cpu_s: over(Span::mb_per_cpu_s),
            wall_msgs_s: over(Span::per_wall_s),
            wall_mb_s: over(Span::mb_per_wall_s),
            delivered_part: median(case.spans.iter().map(|span| span.delivered as f64 / (span.sent as f64).max(1.0))),
            baseline: first.map(|ratio| ratio.baseline),
            ratio: first.map(|ratio| ratio.cpu),
            facts: case.facts.last().cloned(),
            ratios,
        };
        let against = ours.filter(|_| !case.config.is_ours()).map(|ours| ratio(ours, case));
        table.row([
            said.case.into(),
            said.size.to_string(),
            format!("{:.1}", said.msgs_per_cpu_s / 1e3),
            format!("{:.1}", said.mb_per_cpu_s),
            format!("{:.1}", said.wall_msgs_s / 1e3),
            format!("{:.1}", said.wall_mb_s),
            format!("{:.3}", said.delivered_part),
            against.as_ref().map_or_else(String::new, |ratio| format!("{:.2}", ratio.cpu)),
            against.as_ref().map_or_else(String::new, |ratio| format!("{:.2}", ratio.wall)),
        ]);
        let (value, unit) = if case.size < BULK_BYTES {
            (said.msgs_per_cpu_s / 1e3, "k messages per CPU second")
        } else {
            (said.mb_per_cpu_s, "MB per CPU second")
        };
        bars.push(Bar { group: format!("messages of {} bytes", case.size), name: case.config.name().into(), value, unit });
        rows.push(row(&said));
    }
    Outcome {
        settings: json!({
            "sizes": args.sizes, "lanes": args.lanes, "channels": args.channels, "peers": args.peers, "open_loop": args.open_loop,
            "seconds": args.common.seconds.as_secs_f64(), "rounds": args.common.rounds, "warm_up_s": WARM_UP.as_secs_f64(),
        }),
        rows,
        rounds,
        table,
        curves: Vec::new(),
        bars,
    }
}

/// The middle of the ratios of each round: rounds differ more than subjects within one.
fn ratio(ours: &Case, other: &Case) -> Ratio {
    let over = |figure: fn(&Span) -> f64| {
        let pairs = ours.spans.iter().zip(&other.spans);
        median(pairs.map(|(ours, other)| figure(ours) / figure(other).max(1e-9)))
    };
    Ratio { baseline: other.config.name(), cpu: over(Span::per_cpu_s), wall: over(Span::per_wall_s) }
}
