//! What the channels of a lower class still get while those of higher ones fill the line.
//!
//! One channel of each class, all on the connection for bulk, each with producers that send as much as they can.
//! What counts is what arrives. The scheduler promises that a higher class goes first, and each class
//! that waits one byte in 64 whatever goes before it.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use meshwork_channels::channel::Class;
use meshwork_channels::{ChannelId, ChannelSpec};
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::ours::{Form, Ours};
use super::samples::median;
use super::subject::{Facts, Flow, Load, Span, Subject};
use super::wire::Link;
use super::{Bar, Common, Outcome, Progress, row};
use crate::cli::Failure;
use crate::cli::text::{Align, Table};

/// The link that is measured unless another is asked for.
const DEFAULT_LINK: &str = "100mbit,20ms";
/// The classes that applications have, the highest first.
const CLASSES: [Class; 3] = [Class::High, Class::Medium, Class::Low];

#[derive(Args, Debug)]
#[command(after_help = "\
A channel of each of the classes `high`, `medium` and `low`, all on the same connection, each with senders that send as much as they can. The part of a class is that of the bytes that \
arrived. No other library is measured: strict priorities, which is what quinn has, leave the lowest nothing while the others have something to send.")]
pub(super) struct ClassesArgs {
    /// A link, as in `bench hol`; may be given several times. Without: 100mbit,20ms
    #[arg(long, value_name = "LINK")]
    link: Vec<Link>,
    /// Senders of each class, 1 to 64
    #[arg(long, default_value_t = 4, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=64))]
    senders: u8,
    /// Bytes of a message, 64 to 1000000
    #[arg(long, default_value_t = 16_384, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(64..=1_000_000))]
    size: u32,
    /// Seconds before anything counts
    #[arg(long, default_value = "2", value_name = "SECONDS", value_parser = super::seconds)]
    warm_up: Duration,
    #[command(flatten)]
    pub(super) common: Common,
}

impl ClassesArgs {
    pub(super) fn expected_seconds(&self) -> f64 {
        self.case_seconds() * self.link.len().max(1) as f64 * f64::from(self.common.rounds)
    }

    fn case_seconds(&self) -> f64 {
        (self.warm_up + self.common.seconds).as_secs_f64()
    }
}

struct Case {
    link: Link,
    /// The bytes of each class, by round.
    rounds: Vec<[Span; CLASSES.len()]>,
}

#[derive(Serialize)]
struct Row {
    link: String,
    loss: f64,
    config: &'static str,
    class: &'static str,
    mb_s: f64,
    /// Of the bytes of all classes.
    part: f64,
    /// The smallest part of a round.
    part_min: f64,
}

/// The name of the channel of a class. The numbers that follow from these names are in no order of classes, neither up nor down (`medium`, `low`, `high`), so that an order of numbers
/// somewhere on the way cannot pass for that of classes.
fn name_of(class: Class) -> String {
    format!("bench-{}", class.name())
}

/// Bytes of one class, of those of all.
fn part(spans: &[Span; CLASSES.len()], index: usize) -> f64 {
    spans[index].bytes as f64 / (spans.iter().map(|span| span.bytes).sum::<u64>() as f64).max(1.0)
}

pub(super) async fn run(args: &ClassesArgs, progress: &Progress) -> Result<Outcome, Failure> {
    let links = if args.link.is_empty() { vec![DEFAULT_LINK.parse().map_err(Failure::usage)?] } else { args.link.clone() };
    let mut cases: Vec<Case> = links.into_iter().map(|link| Case { link, rounds: Vec::new() }).collect();
    let mut rounds = Vec::new();
    for round in 0..usize::from(args.common.rounds) {
        for case in &mut cases {
            progress.show(format!("{} round {}", case.link.name(), round + 1));
            let (spans, facts) = measure(&case.link, args, round as u64).await?;
            let classes = CLASSES.iter().zip(&spans).map(|(class, span)| json!({ "class": class.name(), "span": span }));
            rounds.push(json!({
                "link": case.link.name(), "loss": case.link.loss, "round": round + 1, "classes": classes.collect::<Vec<_>>(), "facts": facts,
            }));
            case.rounds.push(spans);
            progress.advance(args.case_seconds());
        }
    }
    Ok(outcome(args, &cases, rounds))
}

fn outcome(args: &ClassesArgs, cases: &[Case], rounds: Vec<serde_json::Value>) -> Outcome {
    let mut table = Table::new(&[
        ("link", Align::Left),
        ("loss", Align::Right),
        ("class", Align::Left),
        ("MB/s", Align::Right),
        ("of the bytes", Align::Right),
        ("least of a round", Align::Right),
    ]);
    let (mut rows, mut bars) = (Vec::new(), Vec::new());
    for case in cases {
        for (index, class) in CLASSES.into_iter().enumerate() {
            let said = Row {
                link: case.link.name(),
                loss: case.link.loss,
                config: "meshwork",
                class: class.name(),
                mb_s: median(case.rounds.iter().map(|spans| spans[index].mb_per_wall_s())),
                part: median(case.rounds.iter().map(|spans| part(spans, index))),
                part_min: case.rounds.iter().map(|spans| part(spans, index)).fold(1.0, f64::min),
            };
            table.row([
                said.link.clone(),
                format!("{} %", (said.loss * 1e4).round() / 1e2),
                said.class.into(),
                format!("{:.2}", said.mb_s),
                format!("{:.2} %", said.part * 1e2),
                format!("{:.2} %", said.part_min * 1e2),
            ]);
            bars.push(Bar { group: case.link.to_string(), name: said.class.into(), value: said.mb_s, unit: "MB per second" });
            rows.push(row(&said));
        }
    }
    Outcome {
        settings: json!({
            "senders": args.senders, "size": args.size, "warm_up_s": args.warm_up.as_secs_f64(),
            "seconds": args.common.seconds.as_secs_f64(), "rounds": args.common.rounds,
        }),
        rows,
        rounds,
        table,
        curves: Vec::new(),
        bars,
    }
}

/// One round: what arrived of each class, and what the transport knows.
async fn measure(link: &Link, args: &ClassesArgs, seed: u64) -> Result<([Span; CLASSES.len()], Facts), Failure> {
    let channels = CLASSES.map(|class| ChannelSpec::new(name_of(class)).class(class));
    let ours = Ours::start(Form::Alone, 1, Some(link), seed, &channels).await?;
    let far = ours.far().first().ok_or_else(|| Failure::new("meshwork: no peer"))?;
    let load = Load { size: args.size as usize, lanes: args.senders.into(), channels: 1, rate: None, read_rate: None };
    let mut tasks = JoinSet::new();
    let flows: [Arc<Flow>; CLASSES.len()] = Default::default();
    for (class, flow) in CLASSES.into_iter().zip(&flows) {
        ours.flood_on(far, ChannelId::named(&name_of(class)), load, flow, &mut tasks).await?;
    }
    sleep(args.warm_up).await;
    let looks = flows.each_ref().map(|flow| (flow.look(), flow));
    sleep(args.common.seconds).await;
    let spans = looks.map(|(before, flow)| before.until(flow.look()));
    for flow in &flows {
        flow.check()?;
        flow.stop();
    }
    let facts = Box::new(ours).stop().await;
    Ok((spans, facts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_the_channels_are_in_no_order_of_classes() {
        let numbers = CLASSES.map(|class| ChannelId::named(&name_of(class)));
        assert!(!numbers.is_sorted() && !numbers.iter().rev().is_sorted(), "{numbers:?}");
    }
}
