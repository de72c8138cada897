//! Head-of-line blocking: how long an urgent message takes while bulk fills the line.
//!
//! Each round starts the subject anew on a link of its own: first the urgent messages alone, then the same beside the bulk, and with `--slow-reader` once
//! more beside bulk that is hardly read. Rounds of all subjects take turns, so that a busy moment of the machine falls on all of them.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;

use super::samples::{Samples, Summary, median};
use super::subject::{Beat, Facts, Flow, Heard, Load, Span, Subject, Way, listen};
use super::wire::{Link, parse_part};
use super::{Common, Config, Curve, Outcome, Progress, row};
use crate::cli::Failure;
use crate::cli::text::{Align, Table};

/// The links of the study that the design rests on, and the first of them with loss.
const SUITE: [&str; 6] = [
    "100mbit,20ms",
    "20mbit,50ms,queue=200ms",
    "500mbit,5ms,queue=50ms",
    "100mbit,100ms",
    "100mbit,20ms,loss=0.1%",
    "100mbit,20ms,loss=1%",
];

/// Those of them on which urgent messages are also sent twice.
const SUITE_TWICE: [&str; 2] = ["100mbit,20ms", "100mbit,20ms,loss=1%"];

/// What a slow reader takes, of what one took that kept up.
const SLOW_PART: f64 = 0.1;

#[derive(Args, Debug)]
#[command(after_help = "\
Urgent messages go out at a fixed rate, are echoed, and are timed from the moment at which each was due: what a sender cannot hand over counts as \
waiting. The ratio is the p99 beside bulk by the p99 of the same round without it. The rate of a link counts the bytes of UDP payloads.

Subjects: `meshwork`; `meshwork-twice` (with --config, and on two links of the suite), which sends each urgent message once on the first connection and once on the second, the one for \
bulk, there on a channel of the highest class: the far end echoes each copy on the channel on which it came, and the first answer counts. A node opens the second connection when much bulk \
waits, for what it sends itself: until then, as in the idle phase, both copies go over the first connection, and so do both answers at any time, because the far end sends no bulk. A second copy \
that finds its queue full is dropped. `quinn-priority`, raw quinn with its defaults and a stream priority for the urgent messages; `quinn-one-stream`, everything on one \
stream, which shows the blocking; without a link also `meshwork-shared`, the nodes on the runtime of the program, and `tcp-tls`, one connection whose writer takes urgent messages first.

With --slow-reader each round of `meshwork`, and of its variants, goes on with the same urgent messages and the same bulk, of which the receiver takes a tenth as many messages in a second as it did before: all windows and queues of the bulk fill up. The slow p99 is that of the urgent messages then; against the p99 with a reader that keeps up it shows whether a slow reader of one channel holds up another.")]
pub(super) struct HolArgs {
    /// A link: rate and round trip, then `queue=TIME` (100ms) and `loss=PERCENT`; for example 100mbit,20ms,queue=100ms,loss=1%. Without: loopback
    #[arg(long, value_name = "LINK")]
    link: Vec<Link>,
    /// Run each link with each of these losses, in percent or as a part
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', value_parser = loss)]
    loss: Vec<f64>,
    /// Run the four links of the study, two losses, and loopback; `meshwork-twice` on 100mbit,20ms without loss and with 1%
    #[arg(long, conflicts_with_all = ["link", "loss"])]
    suite: bool,
    /// Measure `meshwork`, and its variants, also with a receiver of the bulk that takes a tenth of what it did
    #[arg(long)]
    slow_reader: bool,
    /// Bulk senders, 1 to 256
    #[arg(long, default_value_t = 16, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    bulk: u16,
    /// Bytes of a bulk message, 1024 to 1000000
    #[arg(long, default_value_t = 65_536, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1_024..=1_000_000))]
    bulk_size: u32,
    /// Milliseconds from one urgent message to the next, 1 to 1000
    #[arg(long, default_value_t = 5, value_name = "MILLISECONDS", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    every: u16,
    /// Bytes of an urgent message, 8 to 1024
    #[arg(long, default_value_t = 64, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(8..=1_024))]
    size: u16,
    /// Only these subjects; may be given several times
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_enum)]
    config: Vec<Config>,
    /// Seconds before anything counts; default 2 on a link and 0.5 on loopback
    #[arg(long, value_name = "SECONDS", value_parser = super::seconds)]
    warm_up: Option<Duration>,
    #[command(flatten)]
    pub(super) common: Common,
}

fn loss(text: &str) -> Result<f64, String> {
    parse_part(text).ok_or_else(|| format!("`{text}` is no part from 0 % to 100 %"))
}

/// One subject on one link.
struct Case {
    link: Option<Link>,
    config: Config,
    idle: Vec<Samples>,
    loaded: Vec<Samples>,
    bulk: Vec<Span>,
    slow: Vec<Slow>,
}

/// Urgent messages beside bulk whose receiver is slow.
struct Slow {
    heard: Samples,
    bulk: Span,
}

#[derive(Serialize)]
struct Row {
    link: String,
    loss: f64,
    config: &'static str,
    idle_p50_ms: f64,
    idle_p99_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    bulk_mb_s: f64,
    bulk_mb_per_cpu_s: f64,
    ratio: f64,
    /// The smallest and the largest p99 of a round.
    p99_spread_ms: [f64; 2],
    unanswered: u64,
    /// The p99 with a slow reader of the bulk, where that was measured.
    slow_p99_ms: Option<f64>,
    /// The same by the p99 with one that keeps up, of the same round.
    slow_ratio: Option<f64>,
    slow_bulk_mb_s: Option<f64>,
}

#[derive(Serialize)]
struct Round<'a> {
    link: String,
    loss: f64,
    config: &'static str,
    round: usize,
    idle: Summary,
    loaded: Summary,
    unanswered: u64,
    bulk: &'a Span,
    #[serde(skip_serializing_if = "Option::is_none")]
    slow: Option<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slow_bulk: Option<&'a Span>,
    facts: &'a Facts,
}

impl Case {
    fn new(link: Option<Link>, config: Config) -> Self {
        Case { link, config, idle: Vec::new(), loaded: Vec::new(), bulk: Vec::new(), slow: Vec::new() }
    }
}

impl HolArgs {
    pub(super) fn expected_seconds(&self) -> Result<f64, Failure> {
        Ok(cases(self)?.iter().map(|case| self.case_seconds(case)).sum::<f64>() * f64::from(self.common.rounds))
    }

    /// What one round of a subject takes.
    fn case_seconds(&self, case: &Case) -> f64 {
        let phases = if self.has_slow_reader(case.config) { 3.0 } else { 2.0 };
        phases * (self.warm_up(case) + self.common.seconds).as_secs_f64()
    }

    fn warm_up(&self, case: &Case) -> Duration {
        self.warm_up.unwrap_or(Duration::from_millis(if case.link.is_some() { 2_000 } else { 500 }))
    }

    fn has_slow_reader(&self, config: Config) -> bool {
        self.slow_reader && config.is_ours()
    }
}

fn name_of(link: Option<&Link>) -> String {
    link.map_or_else(|| "loopback".into(), Link::name)
}

/// Every subject on every link, if all of them can be measured.
fn cases(args: &HolArgs) -> Result<Vec<Case>, Failure> {
    let mut links: Vec<Option<Link>> = if args.suite {
        let parsed: Result<Vec<Link>, String> = SUITE.iter().map(|text| text.parse()).collect();
        parsed.map_err(Failure::usage)?.into_iter().map(Some).chain([None]).collect()
    } else if args.link.is_empty() {
        vec![None]
    } else {
        args.link.iter().cloned().map(Some).collect()
    };
    if !args.loss.is_empty() {
        let lossy =
            links.iter().flatten().flat_map(|link| args.loss.iter().map(|loss| Some(link.clone().with_loss(*loss)))).collect::<Vec<_>>();
        if lossy.is_empty() {
            return Err(Failure::usage("--loss wants a --link to be lost on"));
        }
        links = lossy;
    }
    let mut cases = Vec::new();
    for link in links {
        let mut default = vec![Config::Meshwork];
        if args.suite && link.as_ref().is_some_and(|link| SUITE_TWICE.contains(&link.to_string().as_str())) {
            default.push(Config::MeshworkTwice);
        }
        if link.is_none() {
            // Where processors and not a line are what is short, it matters how many threads there are.
            default.push(Config::MeshworkShared);
        }
        default.extend([Config::QuinnPriority, Config::QuinnOneStream]);
        if link.is_none() {
            default.push(Config::TcpTls);
        }
        for config in if args.config.is_empty() { default } else { args.config.clone() } {
            cases.push(Case::new(link.clone(), config));
        }
    }
    if cases.iter().any(|case| case.link.is_some() && case.config == Config::TcpTls) {
        return Err(super::no_tcp_on_a_link());
    }
    if args.slow_reader && !cases.iter().any(|case| args.has_slow_reader(case.config)) {
        return Err(Failure::usage("--slow-reader is of `meshwork` alone, which is not among the subjects"));
    }
    Ok(cases)
}

pub(super) async fn run(args: &HolArgs, progress: &Progress) -> Result<Outcome, Failure> {
    let mut cases = cases(args)?;
    let mut rounds = Vec::new();
    let mut unanswered = vec![0; cases.len()];
    for round in 0..usize::from(args.common.rounds) {
        for (index, case) in cases.iter_mut().enumerate() {
            let link = name_of(case.link.as_ref());
            progress.show(format!("{link} {} round {}", case.config.name(), round + 1));
            let beat = Beat {
                every: Duration::from_millis(args.every.into()),
                warm_up: args.warm_up(case),
                length: args.common.seconds,
                size: args.size.into(),
            };
            let load = Load { size: args.bulk_size as usize, lanes: args.bulk.into(), channels: 1, rate: None, read_rate: None };
            let once = measure(case.config, case.link.as_ref(), beat, load, args.has_slow_reader(case.config), round as u64).await?;
            unanswered[index] += once.unanswered;
            let said = Round {
                link,
                loss: case.link.as_ref().map_or(0.0, |link| link.loss),
                config: case.config.name(),
                round: round + 1,
                idle: once.idle.summary(),
                loaded: once.loaded.summary(),
                unanswered: once.unanswered,
                bulk: &once.bulk,
                slow: once.slow.as_ref().map(|slow| slow.heard.summary()),
                slow_bulk: once.slow.as_ref().map(|slow| &slow.bulk),
                facts: &once.facts,
            };
            rounds.push(row(&said));
            case.idle.push(once.idle);
            case.loaded.push(once.loaded);
            case.bulk.push(once.bulk);
            case.slow.extend(once.slow);
            progress.advance(args.case_seconds(case));
        }
    }
    Ok(outcome(args, &cases, &unanswered, rounds))
}

fn outcome(args: &HolArgs, cases: &[Case], unanswered: &[u64], rounds: Vec<serde_json::Value>) -> Outcome {
    let mut columns = vec![
        ("link", Align::Left),
        ("loss", Align::Right),
        ("config", Align::Left),
        ("idle p99 ms", Align::Right),
        ("p50 ms", Align::Right),
        ("p99 ms", Align::Right),
        ("ratio", Align::Right),
        ("bulk MB/s", Align::Right),
    ];
    if args.slow_reader {
        columns.extend([("slow p99 ms", Align::Right), ("slow by p99", Align::Right), ("slow MB/s", Align::Right)]);
    }
    let mut table = Table::new(&columns);
    let (mut rows, mut curves) = (Vec::new(), Vec::new());
    for (case, unanswered) in cases.iter().zip(unanswered) {
        let over = |samples: &[Samples], part: f64| median(samples.iter().map(|samples| samples.quantile_ms(part)));
        let p99s = || case.loaded.iter().map(|samples| samples.quantile_ms(0.99));
        let slow = |figure: &dyn Fn(&Slow, &Samples) -> f64| {
            (!case.slow.is_empty()).then(|| median(case.slow.iter().zip(&case.loaded).map(|(slow, loaded)| figure(slow, loaded))))
        };
        let said = Row {
            link: name_of(case.link.as_ref()),
            loss: case.link.as_ref().map_or(0.0, |link| link.loss),
            config: case.config.name(),
            idle_p50_ms: over(&case.idle, 0.5),
            idle_p99_ms: over(&case.idle, 0.99),
            p50_ms: over(&case.loaded, 0.5),
            p99_ms: over(&case.loaded, 0.99),
            p999_ms: over(&case.loaded, 0.999),
            bulk_mb_s: median(case.bulk.iter().map(Span::mb_per_wall_s)),
            bulk_mb_per_cpu_s: median(case.bulk.iter().map(Span::mb_per_cpu_s)),
            ratio: median(
                case.idle.iter().zip(&case.loaded).map(|(idle, loaded)| loaded.quantile_ms(0.99) / idle.quantile_ms(0.99).max(1e-3)),
            ),
            p99_spread_ms: [p99s().fold(f64::INFINITY, f64::min), p99s().fold(0.0, f64::max)],
            unanswered: *unanswered,
            slow_p99_ms: slow(&|slow, _| slow.heard.quantile_ms(0.99)),
            slow_ratio: slow(&|slow, loaded| slow.heard.quantile_ms(0.99) / loaded.quantile_ms(0.99).max(1e-3)),
            slow_bulk_mb_s: slow(&|slow, _| slow.bulk.mb_per_wall_s()),
        };
        let mut cells = vec![
            said.link.clone(),
            format!("{} %", (said.loss * 1e4).round() / 1e2),
            said.config.into(),
            format!("{:.2}", said.idle_p99_ms),
            format!("{:.2}", said.p50_ms),
            format!("{:.2}", said.p99_ms),
            format!("{:.2}", said.ratio),
            format!("{:.2}", said.bulk_mb_s),
        ];
        if args.slow_reader {
            let figures = [said.slow_p99_ms, said.slow_ratio, said.slow_bulk_mb_s];
            cells.extend(figures.map(|figure| figure.map_or_else(String::new, |figure| format!("{figure:.2}"))));
        }
        table.row(cells);
        let group = case.link.as_ref().map_or_else(|| "loopback".into(), ToString::to_string);
        let slow: Vec<&Samples> = case.slow.iter().map(|slow| &slow.heard).collect();
        let phases = [("idle", case.idle.iter().collect()), ("beside bulk", case.loaded.iter().collect()), ("slow reader", slow)];
        for (name, samples) in phases.into_iter().filter(|(_, samples)| !samples.is_empty()) {
            let mut all = Samples::new();
            samples.into_iter().for_each(|samples| all.add(samples));
            curves.push(Curve { group: group.clone(), name: format!("{}, {name}", case.config.name()), samples: all });
        }
        rows.push(row(&said));
    }
    Outcome {
        settings: json!({
            "bulk": args.bulk, "bulk_size": args.bulk_size, "every_ms": args.every, "size": args.size,
            "slow_reader": args.slow_reader, "seconds": args.common.seconds.as_secs_f64(), "rounds": args.common.rounds,
        }),
        rows,
        rounds,
        table,
        curves,
        bars: Vec::new(),
    }
}

struct Once {
    idle: Samples,
    loaded: Samples,
    unanswered: u64,
    bulk: Span,
    slow: Option<Slow>,
    facts: Facts,
}

/// One round of one subject.
async fn measure(config: Config, link: Option<&Link>, beat: Beat, load: Load, has_slow_reader: bool, seed: u64) -> Result<Once, Failure> {
    let subject = config.start(1, link, seed, &[]).await?;
    let mut tasks = JoinSet::new();
    let way = subject.urgent(beat.size, true, &mut tasks).await?;

    let begin = super::now();
    let (idle, way) = listen(way, beat, begin).await?;
    let (loaded, way, bulk) = beside_bulk(&*subject, way, beat, load, &mut tasks).await?;
    let mut unanswered = idle.unanswered + loaded.unanswered;
    let mut slow = None;
    if has_slow_reader {
        let load = Load { read_rate: Some((bulk.per_wall_s() * SLOW_PART).max(1.0)), ..load };
        let (heard, _, bulk) = beside_bulk(&*subject, way, beat, load, &mut tasks).await?;
        unanswered += heard.unanswered;
        slow = Some(Slow { heard: heard.samples, bulk });
    }
    let facts = subject.stop().await;
    drop(tasks);
    Ok(Once { idle: idle.samples, loaded: loaded.samples, unanswered, bulk, slow, facts })
}

/// The urgent messages beside a flood, and what the flood carried meanwhile.
async fn beside_bulk(
    subject: &dyn Subject,
    way: Way,
    beat: Beat,
    load: Load,
    tasks: &mut JoinSet<()>,
) -> Result<(Heard, Way, Span), Failure> {
    let flow = Arc::new(Flow::default());
    subject.flood(load, &flow, tasks).await?;
    let begin = super::now();
    let watching = async {
        tokio::time::sleep_until((begin + beat.warm_up).into()).await;
        let before = flow.look();
        tokio::time::sleep_until((begin + beat.warm_up + beat.length).into()).await;
        let bulk = before.until(flow.look());
        // What is still unanswered gets its chance without further bulk.
        flow.stop();
        Ok(bulk)
    };
    let ((heard, way), bulk) = tokio::try_join!(listen(way, beat, begin), watching)?;
    flow.check()?;
    Ok((heard, way, bulk))
}
