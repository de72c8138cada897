//! How long one message takes when nothing else happens, and at a fixed rate.
//!
//! Three patterns. `idle`: a message goes out, is echoed, and only then does the next one, each after a pause; timed from the call. `echo` and `one-way`: a
//! fixed rate that waits for nobody, timed from the moment at which each message was due, so that a stall counts for every message that it held up.
//! Both ends read the same clock.

#![expect(clippy::disallowed_methods, reason = "it measures with the real clock")]

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;

use super::samples::{Samples, Summary, median};
use super::subject::{Beat, listen};
use super::wire::Link;
use super::{Common, Config, Curve, Outcome, Progress, row};
use crate::cli::Failure;
use crate::cli::text::{Align, Table};

/// What is sent in this time is not counted.
const WARM_UP: Duration = Duration::from_millis(300);

#[derive(Args, Debug)]
#[command(after_help = "\
Patterns: `idle`, request and reply one after the other, timed from the call; `echo` and `one-way` at the rate, whatever the answers do, timed from the \
moment at which each message was due. Baselines: `quinn` (a long-lived stream) and, without a link, `tcp-tls`.

`quinn-threads`, without a link, is `quinn` with each endpoint, its connections and what echoes at the far end on a thread of its own, as a node of `meshwork` is, while the program that \
pings stays where it is: what it takes longer than `quinn` is the change of threads. Ratios are medians over rounds of the two figures of the same round; less is better.")]
pub(super) struct LatencyArgs {
    /// Messages in a second for `echo` and `one-way`, 1 to 200000
    #[arg(long, default_value_t = 1_000, value_name = "RATE", value_parser = clap::value_parser!(u32).range(1..=200_000))]
    rate: u32,
    /// Bytes of a message, 8 to 65536
    #[arg(long, default_value_t = 64, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(8..=65_536))]
    size: u32,
    /// A link between the ends, as in `bench hol`. Without: loopback
    #[arg(long, value_name = "LINK")]
    link: Option<Link>,
    /// Only these subjects; may be given several times
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_enum)]
    config: Vec<Config>,
    #[command(flatten)]
    pub(super) common: Common,
}

impl LatencyArgs {
    pub(super) fn expected_seconds(&self) -> f64 {
        self.case_seconds() * (Pattern::ALL.len() * self.subjects().len()) as f64 * f64::from(self.common.rounds)
    }

    fn case_seconds(&self) -> f64 {
        (WARM_UP + self.common.seconds).as_secs_f64()
    }

    fn subjects(&self) -> Vec<Config> {
        match (self.config.as_slice(), &self.link) {
            ([], None) => vec![Config::Meshwork, Config::MeshworkShared, Config::Quinn, Config::QuinnThreads, Config::TcpTls],
            ([], Some(_)) => vec![Config::Meshwork, Config::MeshworkShared, Config::Quinn],
            (subjects, _) => subjects.to_vec(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pattern {
    Idle,
    Echo,
    OneWay,
}

impl Pattern {
    const ALL: [Pattern; 3] = [Pattern::Idle, Pattern::Echo, Pattern::OneWay];

    fn name(self) -> &'static str {
        match self {
            Pattern::Idle => "idle",
            Pattern::Echo => "echo",
            Pattern::OneWay => "one-way",
        }
    }
}

struct Case {
    config: Config,
    pattern: Pattern,
    samples: Vec<Samples>,
    unanswered: u64,
}

#[derive(Serialize)]
struct Row {
    case: &'static str,
    pattern: &'static str,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    unanswered: u64,
    baseline: Option<&'static str>,
    /// The p99 by that of the baseline; less is better.
    ratio: Option<f64>,
    /// The p50 by that of the baseline.
    p50_ratio: Option<f64>,
    /// The same for every form of quinn that was measured.
    ratios: Vec<Ratio>,
}

#[derive(Serialize)]
struct Ratio {
    baseline: &'static str,
    p50: f64,
    p99: f64,
}

#[derive(Serialize)]
struct Round {
    case: &'static str,
    pattern: &'static str,
    round: usize,
    unanswered: u64,
    #[serde(flatten)]
    summary: Summary,
}

pub(super) async fn run(args: &LatencyArgs, progress: &Progress) -> Result<Outcome, Failure> {
    let subjects = args.subjects();
    if args.link.is_some() && subjects.contains(&Config::TcpTls) {
        return Err(super::no_tcp_on_a_link());
    }
    let mut cases = Vec::new();
    for pattern in Pattern::ALL {
        cases.extend(subjects.iter().map(|config| Case { config: *config, pattern, samples: Vec::new(), unanswered: 0 }));
    }
    let mut rounds = Vec::new();
    for round in 0..usize::from(args.common.rounds) {
        for case in &mut cases {
            progress.show(format!("{} {} round {}", case.config.name(), case.pattern.name(), round + 1));
            let (samples, unanswered) = measure(case, args, round as u64).await?;
            let summary = samples.summary();
            rounds.push(row(&Round { case: case.config.name(), pattern: case.pattern.name(), round: round + 1, unanswered, summary }));
            case.samples.push(samples);
            case.unanswered += unanswered;
            progress.advance(args.case_seconds());
        }
    }
    Ok(outcome(args, &cases, rounds))
}

/// One round of one subject in one pattern.
async fn measure(case: &Case, args: &LatencyArgs, seed: u64) -> Result<(Samples, u64), Failure> {
    let subject = case.config.start(1, args.link.as_ref(), seed, &[]).await?;
    let mut tasks = JoinSet::new();
    let size = args.size as usize;
    let mut way = subject.urgent(size, case.pattern != Pattern::OneWay, &mut tasks).await?;
    let found = if case.pattern == Pattern::Idle {
        let mut samples = Samples::new();
        let begin = Instant::now();
        while begin.elapsed() < WARM_UP + args.common.seconds {
            let latency = way.ping(size).await?;
            if begin.elapsed() > WARM_UP {
                samples.record(latency);
            }
        }
        (samples, 0)
    } else {
        let every = Duration::from_secs(1) / args.rate;
        let beat = Beat { every, warm_up: WARM_UP, length: args.common.seconds, size };
        let (heard, _) = listen(way, beat, super::now()).await?;
        (heard.samples, heard.unanswered)
    };
    subject.stop().await;
    tasks.shutdown().await;
    Ok(found)
}

fn outcome(args: &LatencyArgs, cases: &[Case], rounds: Vec<serde_json::Value>) -> Outcome {
    let mut table = Table::new(&[
        ("pattern", Align::Left),
        ("case", Align::Left),
        ("p50 us", Align::Right),
        ("p99 us", Align::Right),
        ("p99.9 us", Align::Right),
        ("p50 by quinn's", Align::Right),
        ("p99 by quinn's", Align::Right),
    ]);
    let (mut rows, mut curves) = (Vec::new(), Vec::new());
    for case in cases {
        let over = |part: f64| median(case.samples.iter().map(|samples| samples.quantile_ms(part) * 1e3));
        let against = |baselines: &[Config]| -> Vec<Ratio> {
            let others = cases.iter().filter(|other| other.pattern == case.pattern && baselines.contains(&other.config));
            others.map(|other| ratio(case, other)).collect()
        };
        let ratios = match case.config {
            Config::QuinnThreads => against(&[Config::Quinn]),
            config if config.is_ours() => against(&[Config::Quinn, Config::QuinnThreads]),
            _ => Vec::new(),
        };
        let quinn = ratios.iter().find(|ratio| ratio.baseline == Config::Quinn.name());
        let said = Row {
            case: case.config.name(),
            pattern: case.pattern.name(),
            p50_us: over(0.5),
            p99_us: over(0.99),
            p999_us: over(0.999),
            unanswered: case.unanswered,
            baseline: quinn.map(|ratio| ratio.baseline),
            ratio: quinn.map(|ratio| ratio.p99),
            p50_ratio: quinn.map(|ratio| ratio.p50),
            ratios,
        };
        let cell = |ratio: Option<f64>| ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        table.row([
            said.pattern.into(),
            said.case.into(),
            format!("{:.0}", said.p50_us),
            format!("{:.0}", said.p99_us),
            format!("{:.0}", said.p999_us),
            cell(said.p50_ratio),
            cell(said.ratio),
        ]);
        let mut all = Samples::new();
        case.samples.iter().for_each(|samples| all.add(samples));
        curves.push(Curve { group: case.pattern.name().into(), name: case.config.name().into(), samples: all });
        rows.push(row(&said));
    }
    Outcome {
        settings: json!({
            "rate": args.rate, "size": args.size, "link": args.link.as_ref().map(ToString::to_string),
            "seconds": args.common.seconds.as_secs_f64(), "rounds": args.common.rounds, "warm_up_s": WARM_UP.as_secs_f64(),
        }),
        rows,
        rounds,
        table,
        curves,
        bars: Vec::new(),
    }
}

/// The middle of the ratios of each round: rounds differ more than subjects within one.
fn ratio(case: &Case, other: &Case) -> Ratio {
    let over = |part: f64| {
        let pairs = case.samples.iter().zip(&other.samples);
        median(pairs.map(|(one, other)| one.quantile_ms(part) / other.quantile_ms(part).max(1e-3)))
    };
    Ratio { baseline: other.config.name(), p50: over(0.5), p99: over(0.99) }
}
