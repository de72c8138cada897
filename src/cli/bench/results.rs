//! `bench results`: everything that is promised about speed, measured in one go and written as a page.
//!
//! The promises are those of the table [`gates`] makes; each is a ratio within one run on one machine. A promise that did not hold is written down like the others.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser};
use serde::Serialize;
use serde_json::{Value, json};

use super::machine::Machine;
use super::{Outcome, Output, Progress, What, row, seconds};
use crate::cli::Failure;
use crate::cli::text::{Align, Table};

#[derive(Args, Debug)]
#[command(after_help = "\
Takes about half an hour with its defaults. Nothing else should run on the machine meanwhile. Comparisons with other libraries come from the package in \
`compare/`, which writes the file that --compare reads.")]
pub(super) struct ResultsArgs {
    /// Write the page to this file
    #[arg(long, default_value = "docs/results.md", value_name = "FILE.md")]
    out: PathBuf,
    /// Take in what the comparison with other libraries wrote as JSON
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Seconds that each measurement takes, 0.1 to 600
    #[arg(long, default_value = "3", value_name = "SECONDS", value_parser = seconds)]
    seconds: std::time::Duration,
    /// Rounds, 1 to 100; the figures are medians over them
    #[arg(long, default_value_t = 5, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    #[command(flatten)]
    pub(super) output: Output,
}

/// A part of the page: a headline and the benchmark that it shows.
struct Part {
    title: &'static str,
    says: &'static str,
    arguments: &'static [&'static str],
}

const PARTS: [Part; 4] = [
    Part {
        title: "Messages and bytes",
        says: "One producer, one lane, as much as goes. Per second of processor time, both ends counted.",
        arguments: &["channels", "--sizes", "64,1024,16384,1048576"],
    },
    Part {
        title: "Latency",
        says: "64 bytes over loopback. `idle`: request and reply, one after the other. `echo` and `one-way`: 1,000 in a second, timed from when each was due.",
        arguments: &["latency"],
    },
    Part {
        title: "Urgent beside bulk",
        says: "64 bytes each 5 ms, echoed, timed from when each was due, beside 16 senders of 64 KiB messages.",
        arguments: &["hol", "--suite"],
    },
    Part {
        title: "Memory",
        says: "Links that four channels used once in each direction, and that rest.",
        arguments: &["memory", "--peers", "40"],
    },
];

#[derive(Parser)]
struct Alone {
    #[command(subcommand)]
    what: What,
}

/// Something that is promised.
#[derive(Serialize)]
struct Gate {
    id: &'static str,
    promise: String,
    measured: String,
    held: bool,
}

pub(super) async fn run(args: &ResultsArgs) -> Result<Outcome, Failure> {
    let machine = Machine::look();
    let mut page = head(&machine);
    let (mut rows, mut rounds, mut curves, mut bars) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut parts = String::new();
    for part in &PARTS {
        let mut arguments: Vec<String> = part.arguments.iter().map(ToString::to_string).collect();
        arguments.extend(["--rounds".into(), args.rounds.to_string()]);
        if part.arguments[0] != "memory" {
            arguments.extend(["--seconds".into(), args.seconds.as_secs_f64().to_string()]);
        }
        let what = Alone::try_parse_from(std::iter::once("bench".to_owned()).chain(arguments.iter().cloned())).map_err(Failure::new)?.what;
        let progress = Progress::new();
        let outcome = Box::pin(super::measure(Arc::new(what), progress.clone())).await?;
        progress.0.finish_and_clear();
        let Some(outcome) = outcome else { continue };
        let _ = write!(
            parts,
            "## {}\n\n{} `meshwork bench {}`:\n\n```text\n{}```\n\n",
            part.title,
            part.says,
            arguments.join(" "),
            outcome.table.render(Some(200))
        );
        rows.push(outcome.rows);
        rounds.extend(outcome.rounds);
        curves.extend(outcome.curves);
        bars.extend(outcome.bars);
    }
    let compared = match &args.compare {
        None => Vec::new(),
        Some(path) => {
            let problem = |error: &dyn std::fmt::Display| Failure::usage(format!("cannot use {}: {error}", path.display()));
            let text = std::fs::read_to_string(path).map_err(|error| problem(&error))?;
            let found: Value = serde_json::from_str(&text).map_err(|error| problem(&error))?;
            found["rows"].as_array().cloned().unwrap_or_default()
        }
    };
    let [channels, latency, hol, memory] = rows.as_slice() else { return Err(Failure::new("a part was not measured")) };
    let gates = gates(channels, latency, hol, memory, &compared);
    page += "| | promised | measured | held |\n|---|---|---|---|\n";
    for gate in &gates {
        let _ = writeln!(page, "| {} | {} | {} | {} |", gate.id, gate.promise, gate.measured, if gate.held { "yes" } else { "**no**" });
    }
    page += "\n";
    page += &parts;
    if !compared.is_empty() {
        page += &comparison(&compared);
    }
    std::fs::write(&args.out, page.trim_end().to_owned() + "\n")
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", args.out.display())))?;
    let mut table = Table::new(&[("", Align::Left), ("promised", Align::Left), ("measured", Align::Right), ("held", Align::Left)]);
    for gate in &gates {
        table.row([gate.id.into(), gate.promise.clone(), gate.measured.clone(), if gate.held { "yes" } else { "NO" }.into()]);
    }
    Ok(Outcome {
        settings: json!({ "out": args.out, "compare": args.compare, "seconds": args.seconds.as_secs_f64(), "rounds": args.rounds }),
        rows: gates.iter().map(row).collect(),
        rounds,
        table,
        curves,
        bars,
    })
}

fn head(machine: &Machine) -> String {
    format!(
        "# Measured\n\n\
         Written by `cargo meshwork bench results`; every figure is a median over rounds in which the subjects took turns, in one process with two worker threads that runs both \
         ends. Ratios carry over to other machines, figures do not.\n\n\
         `meshwork` is a node on a thread of its own, as by default; `meshwork-shared` one on the runtime of the program, as the baselines are. `quinn` is raw quinn with its \
         defaults, `quinn-same` with our settings and messages coalesced by hand, `quinn-priority` with a stream priority for what is urgent, `quinn-one-stream` everything on one stream.\n\n\
         Machine: {}, {} cores, Linux {}, {} GiB; load before the run {:.2}. Meshwork {}, quinn {}, rustls {}.\n\n\
         ## What is promised\n\n",
        machine.cpu,
        machine.cores,
        machine.kernel,
        machine.memory_bytes >> 30,
        machine.load[0],
        machine.version,
        machine.quinn,
        machine.rustls,
    )
}

/// What other libraries did, as their package wrote it.
fn comparison(rows: &[Value]) -> String {
    let mut text = "## Other libraries\n\nOne process, loopback; `compare/README.md` says how. `meshwork` sends packets of up to 6,500 bytes over loopback, as it does wherever the path allows it; the others, and `meshwork-small-packets`, 1,452.\n\n\
                    | case | bytes | k msg / CPU s | MB / CPU s | k msg / s |\n|---|---|---|---|---|\n"
        .to_owned();
    for row in rows {
        let figure = |name: &str| row[name].as_f64().unwrap_or(f64::NAN);
        let _ = writeln!(
            text,
            "| {} | {} | {:.1} | {:.1} | {:.1} |",
            row["case"].as_str().unwrap_or("?"),
            row["size"],
            figure("msgs_per_cpu_s") / 1e3,
            figure("mb_per_cpu_s"),
            figure("wall_msgs_s") / 1e3
        );
    }
    text
}

/// The row in which all of these fields have these values.
fn find<'a>(rows: &'a [Value], like: &[(&str, Value)]) -> Option<&'a Value> {
    rows.iter().find(|row| like.iter().all(|(name, value)| row[*name] == *value))
}

/// What is promised, and whether it held. A promise about something that was not measured is left out.
fn gates(channels: &[Value], latency: &[Value], hol: &[Value], memory: &[Value], compared: &[Value]) -> Vec<Gate> {
    let mut gates = Vec::new();
    for ours in ["meshwork", "meshwork-shared"] {
        let against = |size: u64, baseline: &str, figure: &str| {
            let row = find(channels, &[("case", ours.into()), ("size", size.into())])?;
            find(row["ratios"].as_array()?, &[("baseline", baseline.into())])?[figure].as_f64()
        };
        let mut at_least = |id, size, baseline: &str, figure: &str, bound: f64| {
            if let Some(measured) = against(size, baseline, figure) {
                let per = if figure == "cpu" { "per CPU second" } else { "per second" };
                let promise = format!("`{ours}`, {size} B: ≥ {bound} × `{baseline}` {per}");
                gates.push(Gate { id, promise, measured: format!("{measured:.2}"), held: measured >= bound });
            }
        };
        at_least("C1", 1_048_576, "quinn-same", "cpu", 0.95);
        at_least("C1", 1_048_576, "quinn-same", "wall", 0.95);
        at_least("C2", 1_048_576, "quinn", "cpu", 1.9);
        at_least("C3", 1_048_576, "tcp-tls", "cpu", 0.75);
        at_least("C4", 64, "quinn-stream-per-message", "wall", 12.0);
        at_least("C5", 64, "quinn-write-per-message", "cpu", 3.0);
        at_least("C8", 64, "tcp-tls", "cpu", 0.5);
        let idle = |case: &str| find(latency, &[("case", case.into()), ("pattern", "idle".into())])?["p50_us"].as_f64();
        if let (Some(us), Some(quinn)) = (idle(ours), idle("quinn")) {
            let promise = format!("`{ours}`, idle 64 B request and reply: p50 ≤ 1.3 × `quinn`");
            gates.push(Gate { id: "", promise, measured: format!("{us:.0} µs, {:.2} ×", us / quinn), held: us <= 1.3 * quinn });
        }
    }
    for row in hol.iter().filter(|row| row["config"] == "meshwork") {
        let other = |config: &str| find(hol, &[("link", row["link"].clone()), ("loss", row["loss"].clone()), ("config", config.into())]);
        let number = |row: &Value, name: &str| row[name].as_f64().unwrap_or(f64::NAN);
        let (p99, idle, bulk) = (number(row, "p99_ms"), number(row, "idle_p99_ms"), number(row, "bulk_mb_s"));
        let Some(priority) = other("quinn-priority") else { continue };
        let (their_p99, their_bulk) = (number(priority, "p99_ms"), number(priority, "bulk_mb_s"));
        let (link, lossless) = (row["link"].as_str().unwrap_or("?"), number(row, "loss") == 0.0);
        let where_ = format!("{link}, {} % loss", number(row, "loss") * 100.0);
        let mut gate =
            |id, promise: String, measured: String, held| gates.push(Gate { id, promise: format!("{where_}: {promise}"), measured, held });
        if link == "loopback" {
            gate("C14", "p99 ≤ 1.5 × idle".into(), format!("{:.2} ×", p99 / idle), p99 <= 1.5 * idle);
            gate("C14", "p99 ≥ 30 × lower than with a priority alone".into(), format!("{:.0} ×", their_p99 / p99), their_p99 >= 30.0 * p99);
            if let Some(tcp) = other("tcp-tls").map(|row| number(row, "p99_ms")) {
                gate("C14", "p99 ≥ 3 × lower than TCP with TLS".into(), format!("{:.1} ×", tcp / p99), tcp >= 3.0 * p99);
            }
        } else if lossless {
            let bound = idle + f64::max(0.1 * idle, 15.0);
            gate("", "p99 ≤ idle p99 + max(10 %, 15 ms)".into(), format!("{p99:.1} ms, idle {idle:.1} ms"), p99 <= bound);
            let part = bulk / their_bulk;
            gate("C10, C11", "bulk ≥ 0.97 of ungoverned".into(), format!("{part:.2}"), part >= 0.97);
            if link.starts_with("100mbit,20ms") {
                gate("C10, C11", "p99 ≤ 1.4 × idle".into(), format!("{:.2} ×", p99 / idle), p99 <= 1.4 * idle);
                gate(
                    "C12",
                    "p99 ≥ 20 × lower than with a priority alone".into(),
                    format!("{:.0} ×", their_p99 / p99),
                    their_p99 >= 20.0 * p99,
                );
                gate("stretch", "p99 ≤ round trip + 5 ms".into(), format!("{p99:.1} ms"), p99 <= 25.0);
            }
        } else {
            gate("C13", "p99 ≤ 1.6 × idle at that loss".into(), format!("{:.2} ×", p99 / idle), p99 <= 1.6 * idle);
            if number(row, "loss") >= 0.01 {
                gate("C13", "bulk ≥ 10 × raw quinn".into(), format!("{:.1} ×", bulk / their_bulk), bulk >= 10.0 * their_bulk);
                gate("stretch", "p99 ≤ 2.5 round trips".into(), format!("{p99:.1} ms"), p99 <= 50.0);
            }
        }
    }
    if let Some(end) = find(memory, &[("case", "meshwork".into())]).and_then(|row| row["end_kb"].as_f64()) {
        let kilobytes = end * 1.024;
        gates.push(Gate {
            id: "C17",
            promise: "≤ 60 KB for an idle peer with four channels".into(),
            measured: format!("{kilobytes:.1} KB"),
            held: kilobytes <= 60.0,
        });
    }
    for ours in ["meshwork", "meshwork-small-packets"] {
        let rate = |size: u64| find(compared, &[("case", ours.into()), ("size", size.into())])?["msgs_per_cpu_s"].as_f64();
        for (id, size, name, bound) in [
            ("C6", 64, "zenoh", 3.5),
            ("C7", 64, "iroh-gossip", 25.0),
            ("C7", 64, "gossipsub", 40.0),
            ("C9", 1_024, "zenoh", 1.8),
            ("C9", 16_384, "zenoh", 2.0),
        ] {
            let theirs =
                compared.iter().filter(|row| row["size"] == size && row["case"].as_str().is_some_and(|case| case.starts_with(name)));
            // The kindest of its settings.
            let theirs = theirs.filter_map(|row| row["msgs_per_cpu_s"].as_f64()).fold(f64::NAN, f64::max);
            if let Some(rate) = rate(size).filter(|_| theirs.is_finite()) {
                let promise = format!("`{ours}`, {size} B: ≥ {bound} × {name} per CPU second");
                gates.push(Gate { id, promise, measured: format!("{:.1} ×", rate / theirs), held: rate >= bound * theirs });
            }
        }
    }
    gates
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_did_not_hold_is_said_to_have_not() {
        let ratios = json!([{ "baseline": "quinn-same", "cpu": 0.96, "wall": 0.5 }]);
        let channels = [json!({ "case": "meshwork", "size": 1_048_576, "ratios": ratios })];
        let hol = |config: &str, p99: f64, bulk: f64| json!({ "link": "100mbit,20ms", "loss": 0.0, "config": config, "idle_p99_ms": 21.0, "p99_ms": p99, "bulk_mb_s": bulk });
        let hol = [hol("meshwork", 24.0, 12.0), hol("quinn-priority", 440.0, 12.1)];
        let compared = [
            json!({ "case": "meshwork", "size": 64, "msgs_per_cpu_s": 4e6 }),
            json!({ "case": "zenoh-quic", "size": 64, "msgs_per_cpu_s": 2e6 }),
        ];
        let found: Vec<_> =
            gates(&channels, &[], &hol, &[], &compared).into_iter().map(|gate| (gate.id, gate.measured, gate.held)).collect();
        assert!(found.contains(&("C1", "0.96".into(), true)) && found.contains(&("C1", "0.50".into(), false)), "{found:?}");
        assert!(found.contains(&("C12", "18 ×".into(), false)), "{found:?}");
        assert!(found.contains(&("C6", "2.0 ×".into(), false)), "{found:?}");
    }

    #[test]
    fn every_part_is_a_command_line_that_works() {
        for part in &PARTS {
            assert!(Alone::try_parse_from(std::iter::once(&"bench").chain(part.arguments)).is_ok(), "{}", part.title);
        }
    }
}
