//! How old the newest value is on arrival, when more values are published than the line carries.
//!
//! A publisher sets one key to a new value at a fixed rate that is a multiple of what the link carries. Each value is stamped with the moment at which it was due, and its age is
//! what has passed since then when the receiver has it; both ends read the same clock. What arrives cannot be younger than the floor: half a round trip and the time that the
//! link takes for so many bytes. Every round starts the subject anew on a link of its own.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;

use super::samples::{Samples, Summary, median};
use super::subject::{Aged, Beat, Facts, publish};
use super::wire::Link;
use super::{Bar, Common, Config, Curve, Outcome, Progress, ours, row};
use crate::cli::Failure;
use crate::cli::text::{Align, Table};

/// The link on which the study that the design rests on measured this.
const DEFAULT_LINK: &str = "50mbit,20ms";

#[derive(Args, Debug)]
#[command(after_help = "\
A value is stamped when it is due and its age taken when the receiver has it, on the same clock. The floor is half a round trip and the time that the link takes for the bytes of a \
value; the ratio is the p99 of the age by it. The share of the link counts the bytes of the values that arrived.

Subjects: `meshwork`, a channel that keeps the latest of each key; `quinn`, raw quinn with its defaults: one stream, and a program that keeps the newest value while a write \
waits. What a subject took is told as a part of the values that there were: `meshwork` takes all and replaces what waits, `quinn` makes the program wait.")]
pub(super) struct LatestArgs {
    /// A link, as in `bench hol`; may be given several times. Without: 50mbit,20ms
    #[arg(long, value_name = "LINK")]
    link: Vec<Link>,
    /// Bytes of a value, 64 to 1000000
    #[arg(long, default_value_t = 16_384, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(64..=1_000_000))]
    size: u32,
    /// How many times what the link carries is published, 0.1 to 100
    #[arg(long, default_value_t = 2.6, value_name = "FACTOR", value_parser = factor)]
    overload: f64,
    /// Only these subjects; may be given several times
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_enum)]
    config: Vec<Config>,
    /// Seconds before anything counts
    #[arg(long, default_value = "2", value_name = "SECONDS", value_parser = super::seconds)]
    warm_up: Duration,
    #[command(flatten)]
    pub(super) common: Common,
}

fn factor(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if (0.1..=100.0).contains(&factor) { Ok(factor) } else { Err("from 0.1 to 100".into()) }
}

impl LatestArgs {
    pub(super) fn expected_seconds(&self) -> f64 {
        self.case_seconds() * (self.link.len().max(1) * self.subjects().len()) as f64 * f64::from(self.common.rounds)
    }

    fn case_seconds(&self) -> f64 {
        (self.warm_up + self.common.seconds).as_secs_f64()
    }

    fn subjects(&self) -> Vec<Config> {
        if self.config.is_empty() { vec![Config::Meshwork, Config::Quinn] } else { self.config.clone() }
    }
}

struct Case {
    link: Link,
    config: Config,
    rounds: Vec<Aged>,
}

#[derive(Serialize)]
struct Row {
    link: String,
    loss: f64,
    config: &'static str,
    size: u32,
    overload: f64,
    age_p50_ms: f64,
    age_p99_ms: f64,
    /// Half a round trip and the time that the link takes for a value.
    floor_ms: f64,
    /// The p99 by the floor.
    ratio: f64,
    /// Bytes of the values that arrived, of those that the link carries.
    link_part: f64,
    /// Values that the subject took, of those that there were.
    taken_part: f64,
    delivered_per_s: f64,
}

#[derive(Serialize)]
struct Round<'a> {
    link: String,
    loss: f64,
    config: &'static str,
    round: usize,
    age: Summary,
    taken: u64,
    facts: &'a Facts,
}

impl Case {
    fn bytes_per_second(&self) -> f64 {
        self.link.bits_per_second as f64 / 8.0
    }

    /// No value can be younger than this when it arrives.
    fn floor(&self, size: u32) -> Duration {
        self.link.rtt / 2 + Duration::from_secs_f64(f64::from(size) / self.bytes_per_second())
    }

    fn beat(&self, args: &LatestArgs) -> Beat {
        Beat {
            every: Duration::from_secs_f64(f64::from(args.size) / (self.bytes_per_second() * args.overload)),
            warm_up: args.warm_up,
            length: args.common.seconds,
            size: args.size as usize,
        }
    }
}

pub(super) async fn run(args: &LatestArgs, progress: &Progress) -> Result<Outcome, Failure> {
    let subjects = args.subjects();
    if subjects.contains(&Config::TcpTls) {
        return Err(super::no_tcp_on_a_link());
    }
    let links = if args.link.is_empty() { vec![DEFAULT_LINK.parse().map_err(Failure::usage)?] } else { args.link.clone() };
    let mut cases: Vec<Case> = links
        .iter()
        .flat_map(|link: &Link| subjects.iter().map(|config| Case { link: link.clone(), config: *config, rounds: Vec::new() }))
        .collect();

    let mut rounds = Vec::new();
    for round in 0..usize::from(args.common.rounds) {
        for case in &mut cases {
            progress.show(format!("{} {} round {}", case.link.name(), case.config.name(), round + 1));
            let (aged, facts) = measure(case, args, round as u64).await?;
            rounds.push(row(&Round {
                link: case.link.name(),
                loss: case.link.loss,
                config: case.config.name(),
                round: round + 1,
                age: aged.ages.summary(),
                taken: aged.taken,
                facts: &facts,
            }));
            case.rounds.push(aged);
            progress.advance(args.case_seconds());
        }
    }
    Ok(outcome(args, &cases, rounds))
}

fn outcome(args: &LatestArgs, cases: &[Case], rounds: Vec<serde_json::Value>) -> Outcome {
    let mut table = Table::new(&[
        ("link", Align::Left),
        ("loss", Align::Right),
        ("config", Align::Left),
        ("floor ms", Align::Right),
        ("age p50 ms", Align::Right),
        ("age p99 ms", Align::Right),
        ("p99 by floor", Align::Right),
        ("of the link", Align::Right),
        ("taken", Align::Right),
    ]);
    let (mut rows, mut curves, mut bars) = (Vec::new(), Vec::new(), Vec::new());
    for case in cases {
        let over = |figure: &dyn Fn(&Aged) -> f64| median(case.rounds.iter().map(figure));
        let (floor_ms, seconds) = (case.floor(args.size).as_secs_f64() * 1e3, args.common.seconds.as_secs_f64());
        let delivered_per_s = over(&|aged| aged.ages.count() as f64) / seconds;
        let published = seconds / case.beat(args).every.as_secs_f64();
        let age_p99_ms = over(&|aged| aged.ages.quantile_ms(0.99));
        let said = Row {
            link: case.link.name(),
            loss: case.link.loss,
            config: case.config.name(),
            size: args.size,
            overload: args.overload,
            age_p50_ms: over(&|aged| aged.ages.quantile_ms(0.5)),
            age_p99_ms,
            floor_ms,
            ratio: age_p99_ms / floor_ms,
            link_part: delivered_per_s * f64::from(args.size) / case.bytes_per_second(),
            taken_part: over(&|aged| aged.taken as f64) / published,
            delivered_per_s,
        };
        table.row([
            said.link.clone(),
            format!("{} %", (said.loss * 1e4).round() / 1e2),
            said.config.into(),
            format!("{:.2}", said.floor_ms),
            format!("{:.2}", said.age_p50_ms),
            format!("{:.2}", said.age_p99_ms),
            format!("{:.2}", said.ratio),
            format!("{:.2}", said.link_part),
            format!("{:.2}", said.taken_part),
        ]);
        let mut ages = Samples::new();
        case.rounds.iter().for_each(|aged| ages.add(&aged.ages));
        curves.push(Curve { group: case.link.to_string(), name: said.config.into(), samples: ages });
        bars.push(Bar {
            group: format!("fresh values over {}", case.link),
            name: said.config.into(),
            value: said.delivered_per_s,
            unit: "per second",
        });
        rows.push(row(&said));
    }
    Outcome {
        settings: json!({
            "size": args.size, "overload": args.overload, "warm_up_s": args.warm_up.as_secs_f64(),
            "seconds": args.common.seconds.as_secs_f64(), "rounds": args.common.rounds,
        }),
        rows,
        rounds,
        table,
        curves,
        bars,
    }
}

/// One round of one subject.
async fn measure(case: &Case, args: &LatestArgs, seed: u64) -> Result<(Aged, Facts), Failure> {
    let subject = case.config.start(1, Some(&case.link), seed, &[ours::latest_channel()]).await?;
    let mut tasks = JoinSet::new();
    let way = subject.latest(args.size as usize, &mut tasks).await?;
    let aged = publish(way, case.beat(args), super::now()).await?;
    let facts = subject.stop().await;
    Ok((aged, facts))
}
