//! `bench results`: everything that is promised about speed, measured in one go and written as a page.
//!
//! The promises are those of the table [`gates`] makes; each is a ratio within one run on one machine. A promise that did not hold is written down like the others.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser};
use serde::Serialize;
use serde_json::{Value, json};

use super::machine::{Machine, line_trip};
use super::{Outcome, Output, Progress, What, row, seconds};
use crate::cli::Failure;
use crate::cli::text::{Align, Table};

#[derive(Args, Debug)]
#[command(after_help = "\
Takes about 50 minutes with its defaults, and shows on a terminal how much is left. Nothing else should run on the machine meanwhile. Comparisons with other libraries come from the package in \
`compare/`, which writes the file that --compare reads.")]
pub(super) struct ResultsArgs {
    /// Write the page to this file
    #[arg(long, default_value = "docs/results.md", value_name = "FILE.md")]
    out: PathBuf,
    /// Take in what the comparison with other libraries wrote as JSON
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Seconds that each measurement takes that goes over loopback, 0.1 to 600
    #[arg(long, default_value = "3", value_name = "SECONDS", value_parser = seconds)]
    seconds: Duration,
    /// Seconds that each phase takes of what is measured over links: `hol`, `latest` and `classes`, 0.1 to 600
    #[arg(long, default_value = "4", value_name = "SECONDS", value_parser = seconds)]
    hol_seconds: Duration,
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

const PARTS: [Part; 6] = [
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
        says: "64 bytes each 5 ms, echoed, timed from when each was due, beside 16 senders of 64 KiB messages. `slow`: the same once more, beside bulk of which the receiver takes a tenth.",
        arguments: &["hol", "--suite", "--slow-reader"],
    },
    Part {
        title: "The newest value",
        says: "One key, set to a new value of 16 KiB 2.6 times as often as the link carries one. Age on arrival, from when each value was due.",
        arguments: &["latest", "--link", "50mbit,20ms", "--link", "20mbit,50ms"],
    },
    Part {
        title: "Shares of the classes",
        says: "A channel of each class on one connection, all with as much to send as goes.",
        arguments: &["classes", "--link", "100mbit,20ms", "--link", "20mbit,50ms"],
    },
    Part {
        title: "Memory and handshakes",
        says: "Links that four channels used once in each direction, and that rest; and the processor time of connecting, of the whole process, both ends together.",
        arguments: &["memory", "--peers", "40", "--links", "1000"],
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
    /// None of what is promised by nobody and stands there to explain the line before it.
    held: Option<bool>,
}

impl Gate {
    fn verdict(&self, no: &'static str) -> &'static str {
        match self.held {
            None => "–",
            Some(true) => "yes",
            Some(false) => no,
        }
    }
}

impl ResultsArgs {
    pub(super) fn expected_seconds(&self) -> Result<f64, Failure> {
        PARTS.iter().map(|part| part.what(self)?.1.expected_seconds()).sum()
    }
}

impl Part {
    /// The benchmark: as it is written on a command line, and as it runs.
    fn what(&self, args: &ResultsArgs) -> Result<(String, What), Failure> {
        let mut arguments: Vec<String> = self.arguments.iter().map(ToString::to_string).collect();
        arguments.extend(["--rounds".into(), args.rounds.to_string()]);
        let seconds = match self.arguments[0] {
            "memory" => None,
            "hol" | "latest" | "classes" => Some(args.hol_seconds),
            _ => Some(args.seconds),
        };
        if let Some(seconds) = seconds {
            arguments.extend(["--seconds".into(), seconds.as_secs_f64().to_string()]);
        }
        let command = arguments.join(" ");
        let what = Alone::try_parse_from(std::iter::once("bench".to_owned()).chain(arguments)).map_err(Failure::new)?.what;
        Ok((command, what))
    }
}

pub(super) async fn run(args: &ResultsArgs, progress: &Progress) -> Result<Outcome, Failure> {
    // Before the measurements, which would be lost for a file that cannot be read.
    let compared = match &args.compare {
        None => Vec::new(),
        Some(path) => {
            let problem = |error: &dyn std::fmt::Display| Failure::usage(format!("cannot use {}: {error}", path.display()));
            let text = std::fs::read_to_string(path).map_err(|error| problem(&error))?;
            let found: Value = serde_json::from_str(&text).map_err(|error| problem(&error))?;
            found["rows"].as_array().cloned().unwrap_or_default()
        }
    };
    let machine = Machine::look();
    let (mut rows, mut rounds, mut curves, mut bars) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut parts = String::new();
    let mut line_trips = vec![line_trip()];
    for (index, part) in PARTS.iter().enumerate() {
        let (command, what) = part.what(args)?;
        let progress = progress.of(format!("bench {} ({} of {})", part.arguments[0], index + 1, PARTS.len()));
        let outcome = Box::pin(super::measure(Arc::new(what), progress)).await?;
        line_trips.push(line_trip());
        let Some(outcome) = outcome else { continue };
        let _ = write!(
            parts,
            "## {}\n\n{} `meshwork bench {}`:\n\n```text\n{}```\n\n",
            part.title,
            part.says,
            command,
            outcome.table.render(None)
        );
        rows.push(outcome.rows);
        rounds.extend(outcome.rounds);
        curves.extend(outcome.curves);
        bars.extend(outcome.bars);
    }
    let [channels, latency, hol, latest, classes, memory] = rows.as_slice() else {
        return Err(Failure::new("a part was not measured"));
    };
    let measured = Measured { channels, latency, hol, latest, classes, memory, compared: &compared };
    let gates = gates(&measured);
    let mut page = head(&machine, args.output.workers, &line_trips);
    page += "| | promised | measured | held |\n|---|---|---|---|\n";
    for gate in &gates {
        let _ = writeln!(page, "| {} | {} | {} | {} |", gate.id, gate.promise, gate.measured, gate.verdict("**no**"));
    }
    let promised: Vec<bool> = gates.iter().filter_map(|gate| gate.held).collect();
    let held = promised.iter().filter(|held| **held).count();
    let _ = write!(page, "\n{held} of {} held; a line with – is there for comparison.", promised.len());
    if compared.is_empty() {
        page += " Other libraries were not measured in this run, so what is promised against them is missing: C6, C7 and C9.";
    }
    page += "\n\n";
    page += &parts;
    if !compared.is_empty() {
        page += &comparison(&compared);
    }
    std::fs::write(&args.out, page.trim_end().to_owned() + "\n")
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", args.out.display())))?;
    // Terminals cut what is too long for them, and that must be neither a verdict nor a figure.
    let mut table = Table::new(&[("held", Align::Left), ("", Align::Left), ("measured", Align::Left), ("promised", Align::Left)]);
    for gate in &gates {
        table.row([gate.verdict("NO").into(), gate.id.into(), gate.measured.clone(), gate.promise.clone()]);
    }
    Ok(Outcome {
        settings: json!({ "out": args.out, "compare": args.compare, "seconds": args.seconds.as_secs_f64(), "hol_seconds": args.hol_seconds.as_secs_f64(), "rounds": args.rounds }),
        rows: gates.iter().map(row).collect(),
        rounds,
        table,
        curves,
        bars,
    })
}

fn head(machine: &Machine, workers: u8, line_trips: &[Option<Duration>]) -> String {
    let trips: Vec<String> = line_trips.iter().map(|trip| trip.map_or("–".to_owned(), |trip| trip.as_nanos().to_string())).collect();
    format!(
        "# Measured\n\n\
         Written by `cargo meshwork bench results`; every figure is a median over rounds in which the subjects took turns, in one process with {} worker threads that runs both \
         ends; for memory and handshakes each subject had a process of its own. Links with a rate and a delay are in user space and count the bytes of UDP payloads. Ratios carry over to other machines, figures do not.\n\n\
         `meshwork` is a node on a thread of its own, as by default; `meshwork-shared` one on the runtime of the program, as the baselines are; `meshwork-twice` one that sends each urgent message on both connections; `meshwork-links` two endpoints without \
         nodes on top, whose links are used one after the other. `quinn` is raw quinn with its \
         defaults, `quinn-threads` the same with each endpoint on a thread of its own, `quinn-same` with our settings and messages coalesced by hand, `quinn-priority` with a stream priority for what is urgent, `quinn-one-stream` everything on one stream.\n\n\
         Machine: {}, {} cores, Linux {}, {} GiB; load before the run {:.2}. Meshwork {}, quinn {}, rustls {}. Before, between and after the parts a cache line took {} ns from one core to \
         another and back: where that is long, whatever goes from thread to thread costs more.\n\n\
         How near simulated nodes are to real processes is in [calibration.md](calibration.md); views, broadcasts and membership beside papers and peers are in \
         [overlay.md](overlay.md); the replicated state is in [state-table.md](state-table.md).\n\n\
         ## What is promised\n\n",
        workers,
        machine.cpu,
        machine.cores,
        machine.kernel,
        machine.memory_bytes >> 30,
        machine.load[0],
        machine.version,
        machine.quinn,
        machine.rustls,
        trips.join(", "),
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

/// The rows of all parts.
struct Measured<'a> {
    channels: &'a [Value],
    latency: &'a [Value],
    hol: &'a [Value],
    latest: &'a [Value],
    classes: &'a [Value],
    memory: &'a [Value],
    compared: &'a [Value],
}

/// What is promised, and whether it held. A promise about something that was not measured is left out.
fn gates(measured: &Measured<'_>) -> Vec<Gate> {
    let mut gates = throughput(measured.channels, measured.latency);
    gates.extend(beside_bulk(measured.hol));
    gates.extend(newest(measured.latest));
    gates.extend(shares(measured.classes));
    gates.extend(idle_peers(measured.memory));
    gates.extend(against_others(measured.compared));
    gates
}

/// A figure of a row; one that is not there is no number, and holds nothing.
fn number(row: &Value, name: &str) -> f64 {
    row[name].as_f64().unwrap_or(f64::NAN)
}

/// The link of a row and its loss, for people.
fn where_(row: &Value) -> String {
    format!("{}, {} % loss", row["link"].as_str().unwrap_or("?"), number(row, "loss") * 100.0)
}

fn throughput(channels: &[Value], latency: &[Value]) -> Vec<Gate> {
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
                gates.push(Gate { id, promise, measured: format!("{measured:.2}"), held: Some(measured >= bound) });
            }
        };
        at_least("C1", 1_048_576, "quinn-same", "cpu", 0.95);
        at_least("C1", 1_048_576, "quinn-same", "wall", 0.95);
        at_least("C2", 1_048_576, "quinn", "cpu", 1.9);
        at_least("C3", 1_048_576, "tcp-tls", "cpu", 0.75);
        at_least("C4", 64, "quinn-stream-per-message", "wall", 12.0);
        at_least("C5", 64, "quinn-write-per-message", "cpu", 3.0);
        // The first for packets that pass everywhere, the other for those of 6,500 bytes that loopback takes.
        at_least("C8", 64, "tcp-tls", "cpu", 0.5);
        at_least("C8", 64, "tcp-tls", "cpu", 1.0);
        let Some(idle) = find(latency, &[("case", ours.into()), ("pattern", "idle".into())]) else { continue };
        let us = number(idle, "p50_us");
        let by = |baseline: &str| find(idle["ratios"].as_array()?, &[("baseline", baseline.into())])?["p50"].as_f64();
        if let Some(ratio) = by("quinn") {
            let promise = format!("`{ours}`, idle 64 B request and reply: p50 ≤ 1.3 × `quinn`");
            gates.push(Gate { id: "", promise, measured: format!("{us:.0} µs, {ratio:.2} ×"), held: Some(ratio <= 1.3) });
        }
        // The other node changes no threads.
        if let Some(ratio) = by("quinn-threads").filter(|_| ours == "meshwork") {
            let promise = format!("`{ours}`, idle 64 B request and reply: p50 by that of `quinn-threads`, for comparison");
            gates.push(Gate { id: "", promise, measured: format!("{us:.0} µs, {ratio:.2} ×"), held: None });
        }
    }
    gates
}

fn beside_bulk(hol: &[Value]) -> Vec<Gate> {
    let mut gates = Vec::new();
    for row in hol.iter().filter(|row| row["config"] == "meshwork" || row["config"] == "meshwork-shared") {
        let ours = row["config"].as_str().unwrap_or("?");
        let other = |config: &str| find(hol, &[("link", row["link"].clone()), ("loss", row["loss"].clone()), ("config", config.into())]);
        let (p99, idle, bulk) = (number(row, "p99_ms"), number(row, "idle_p99_ms"), number(row, "bulk_mb_s"));
        let Some(priority) = other("quinn-priority") else { continue };
        let (their_p99, their_bulk) = (number(priority, "p99_ms"), number(priority, "bulk_mb_s"));
        let (link, lossless) = (row["link"].as_str().unwrap_or("?"), number(row, "loss") == 0.0);
        // Without and with small urgent messages on both connections.
        let twice = other("meshwork-twice").map(|row| ("meshwork-twice", number(row, "p99_ms")));
        let stretched: Vec<_> = std::iter::once(("meshwork", p99)).chain(twice).collect();
        let where_ = where_(row);
        let mut gate = |id, promise: String, measured: String, held| {
            gates.push(Gate { id, promise: format!("{where_}: {promise}"), measured, held: Some(held) })
        };
        if link == "loopback" {
            let (to_idle, by_priority) = (p99 / idle, their_p99 / p99);
            gate("C14", format!("`{ours}`, p99 ≤ 1.5 × idle"), format!("{to_idle:.2} ×, {p99:.2} ms"), to_idle <= 1.5);
            let promise = format!("`{ours}`, p99 ≥ 30 × lower than with a priority alone");
            gate("C14", promise, format!("{by_priority:.0} ×"), by_priority >= 30.0);
            if let Some(tcp) = other("tcp-tls").map(|row| number(row, "p99_ms")) {
                let promise = format!("`{ours}`, p99 ≥ 3 × lower than TCP with TLS");
                gate("C14", promise, format!("{:.1} ×", tcp / p99), tcp >= 3.0 * p99);
            }
        } else if lossless {
            let bound = idle + f64::max(0.1 * idle, 15.0);
            gate("", "p99 ≤ idle p99 + max(10 %, 15 ms)".into(), format!("{p99:.1} ms, idle {idle:.1} ms"), p99 <= bound);
            let part = bulk / their_bulk;
            gate("", "bulk ≥ 0.9 of ungoverned".into(), format!("{part:.2}"), part >= 0.9);
            if link.starts_with("100mbit,20ms") {
                gate("C10", "bulk ≥ 0.97 of ungoverned".into(), format!("{part:.2}"), part >= 0.97);
                gate("C10", "p99 ≤ 1.7 × idle".into(), format!("{:.2} ×", p99 / idle), p99 <= 1.7 * idle);
                gate("C11", "bulk ≥ 0.9 of ungoverned".into(), format!("{part:.2}"), part >= 0.9);
                gate("C11", "p99 ≤ 1.4 × idle".into(), format!("{:.2} ×", p99 / idle), p99 <= 1.4 * idle);
                gate(
                    "C12",
                    "p99 ≥ 20 × lower than with a priority alone".into(),
                    format!("{:.0} ×", their_p99 / p99),
                    their_p99 >= 20.0 * p99,
                );
                for (config, p99) in &stretched {
                    gate("stretch", format!("`{config}`, p99 ≤ round trip + 5 ms"), format!("{p99:.1} ms"), *p99 <= 25.0);
                }
            }
        } else {
            gate("C13", "p99 ≤ 1.6 × idle at that loss".into(), format!("{:.2} ×", p99 / idle), p99 <= 1.6 * idle);
            if number(row, "loss") >= 0.01 {
                gate("C13", "bulk ≥ 10 × raw quinn".into(), format!("{:.1} ×", bulk / their_bulk), bulk >= 10.0 * their_bulk);
                for (config, p99) in &stretched {
                    gate("stretch", format!("`{config}`, p99 ≤ 2.5 round trips"), format!("{p99:.1} ms"), *p99 <= 50.0);
                }
            }
        }
        if lossless && (link == "loopback" || link.starts_with("100mbit,20ms")) && !row["slow_ratio"].is_null() {
            let (ratio, slow) = (number(row, "slow_ratio"), number(row, "slow_p99_ms"));
            let promise = format!("`{ours}`, p99 beside a slow reader of the bulk ≤ 1.5 × beside one that keeps up");
            gate("C15", promise, format!("{ratio:.2} ×, {slow:.1} ms"), ratio <= 1.5);
        }
    }
    gates
}

fn newest(latest: &[Value]) -> Vec<Gate> {
    let mut gates = Vec::new();
    for row in latest.iter().filter(|row| row["config"] == "meshwork") {
        let (ratio, part) = (number(row, "ratio"), number(row, "link_part"));
        let (age, floor) = (number(row, "age_p99_ms"), number(row, "floor_ms"));
        let where_ = format!("{}, values at {} × what the link carries", where_(row), row["overload"]);
        let mut gate = |promise: &str, measured, held| {
            gates.push(Gate { id: "C16", promise: format!("{where_}: {promise}"), measured, held: Some(held) })
        };
        let measured = format!("{ratio:.2} ×, {age:.1} ms of {:.1} ms", 2.0 * floor);
        // Where nothing arrives, nothing is old.
        gate("p99 of the age ≤ 2 × (one way + serialization)", measured, ratio <= 2.0 && part > 0.0);
        gate("≥ 0.75 of the link used", format!("{part:.2}"), part >= 0.75);
    }
    gates
}

fn shares(classes: &[Value]) -> Vec<Gate> {
    let mut gates = Vec::new();
    for row in classes {
        let (what, bound) = match row["class"].as_str() {
            Some("low") => ("lowest class beside saturating higher ones: ≥ 1 % of bytes", 0.01),
            Some("high") => ("highest class beside saturating lower ones: ≥ 90 % of bytes", 0.9),
            _ => continue,
        };
        let (part, least) = (number(row, "part"), number(row, "part_min"));
        gates.push(Gate {
            id: "",
            promise: format!("{}: {what}", where_(row)),
            measured: format!("{:.2} %, least of a round {:.2} %", part * 1e2, least * 1e2),
            held: Some(part >= bound),
        });
    }
    gates
}

fn idle_peers(memory: &[Value]) -> Vec<Gate> {
    let mut gates = Vec::new();
    for (case, what) in [("meshwork", "with all that a node keeps for a peer"), ("meshwork-links", "of two endpoints")] {
        let Some(row) = find(memory, &[("case", case.into())]) else { continue };
        let kib = number(row, "end_kb");
        gates.push(Gate {
            id: "C17",
            promise: format!("`{case}`: ≤ 60 KiB (61,440 bytes) for an idle peer with four channels, {what}"),
            measured: format!("{kib:.1} KiB ({:.0} bytes), {} ends", kib * 1_024.0, row["ends"]),
            held: Some(kib <= 60.0),
        });
    }
    let handshake = |case: &str| find(memory, &[("case", case.into())])?["handshake_cpu_ms"].as_f64();
    if let (Some(ms), Some(quinn)) = (handshake("meshwork-links"), handshake("quinn")) {
        gates.push(Gate {
            id: "C17",
            promise: "≤ 1 ms of processor time for a handshake with certificates of both ends, both ends together".into(),
            measured: format!("{ms:.2} ms; `quinn`, with one certificate, {quinn:.2} ms"),
            held: Some(ms <= 1.0),
        });
    }
    gates
}

fn against_others(compared: &[Value]) -> Vec<Gate> {
    let mut gates = Vec::new();
    for ours in ["meshwork", "meshwork-small-packets"] {
        let rate = |size: u64, figure: &str| find(compared, &[("case", ours.into()), ("size", size.into())])?[figure].as_f64();
        let (cpu, wall) = (("msgs_per_cpu_s", "per CPU second"), ("wall_msgs_s", "per second"));
        for (id, size, name, bound, (figure, per)) in [
            ("C6", 64, "zenoh", 3.5, cpu),
            ("C6", 64, "zenoh", 3.5, wall),
            ("C7", 64, "iroh-gossip", 25.0, cpu),
            ("C7", 64, "gossipsub", 40.0, cpu),
            ("C9", 1_024, "zenoh", 1.8, cpu),
            ("C9", 16_384, "zenoh", 2.0, cpu),
        ] {
            let theirs =
                compared.iter().filter(|row| row["size"] == size && row["case"].as_str().is_some_and(|case| case.starts_with(name)));
            // The kindest of its settings.
            let theirs = theirs.filter_map(|row| row[figure].as_f64()).fold(f64::NAN, f64::max);
            if let Some(rate) = rate(size, figure).filter(|_| theirs.is_finite()) {
                let promise = format!("`{ours}`, {size} B: ≥ {bound} × {name} {per}");
                gates.push(Gate { id, promise, measured: format!("{:.1} ×", rate / theirs), held: Some(rate >= bound * theirs) });
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
        let hol = [hol("meshwork", 25.1, 12.0), hol("meshwork-twice", 24.0, 12.0), hol("quinn-priority", 440.0, 12.1)];
        let compared = [
            json!({ "case": "meshwork", "size": 64, "msgs_per_cpu_s": 4e6 }),
            json!({ "case": "zenoh-quic", "size": 64, "msgs_per_cpu_s": 2e6 }),
        ];
        let slow = json!({ "link": "loopback", "loss": 0.0, "config": "meshwork", "p99_ms": 1.0, "idle_p99_ms": 1.0, "slow_p99_ms": 1.6, "slow_ratio": 1.6 });
        let beside = json!({ "link": "loopback", "loss": 0.0, "config": "quinn-priority", "p99_ms": 30.0 });
        let hol = [&hol[..], &[slow, beside]].concat();
        let by = json!([{ "baseline": "quinn", "p50": 6.0 }, { "baseline": "quinn-threads", "p50": 2.0 }]);
        let idle = |case: &str| json!({ "case": case, "pattern": "idle", "p50_us": 240.0, "ratios": by });
        let latency = [idle("meshwork"), idle("meshwork-shared")];
        let latest = |ratio: f64, part: f64| json!({ "link": "20mbit,50ms", "loss": 0.0, "config": "meshwork", "overload": 2.6, "age_p99_ms": 50.0, "floor_ms": 25.0, "ratio": ratio, "link_part": part });
        let latest = [latest(0.0, 0.0), latest(2.0, 0.75)];
        let classes = [json!({ "link": "20mbit,50ms", "loss": 0.0, "class": "low", "part": 0.0099, "part_min": 0.004 })];
        let memory = [
            json!({ "case": "meshwork-links", "end_kb": 60.0, "ends": 2_000, "handshake_cpu_ms": 1.2 }),
            json!({ "case": "quinn", "end_kb": 51.0, "ends": 2_000, "handshake_cpu_ms": 0.6 }),
        ];
        let measured = Measured {
            channels: &channels,
            latency: &latency,
            hol: &hol,
            latest: &latest,
            classes: &classes,
            memory: &memory,
            compared: &compared,
        };
        let found: Vec<_> = gates(&measured).into_iter().map(|gate| (gate.id, gate.measured.clone(), gate.verdict("no"))).collect();
        assert!(found.contains(&("C1", "0.96".into(), "yes")) && found.contains(&("C1", "0.50".into(), "no")), "{found:?}");
        assert!(found.contains(&("C12", "18 ×".into(), "no")), "{found:?}");
        let idle: Vec<_> = found.iter().filter_map(|(_, measured, held)| Some((measured.strip_prefix("240 µs, ")?, *held))).collect();
        assert_eq!(idle, [("6.00 ×", "no"), ("2.00 ×", "–"), ("6.00 ×", "no")]);
        let stretched: Vec<_> =
            found.iter().filter(|(id, ..)| *id == "stretch").map(|(_, measured, held)| (measured.as_str(), *held)).collect();
        assert_eq!(stretched, [("25.1 ms", "no"), ("24.0 ms", "yes")]);
        assert!(found.contains(&("C6", "2.0 ×".into(), "no")), "{found:?}");
        assert!(found.contains(&("C15", "1.60 ×, 1.6 ms".into(), "no")), "{found:?}");
        let aged: Vec<_> = found.iter().filter(|(id, ..)| *id == "C16").map(|(.., held)| *held).collect();
        assert_eq!(aged, ["no", "no", "yes", "yes"], "where nothing arrives nothing holds: {found:?}");
        assert!(found.contains(&("", "0.99 %, least of a round 0.40 %".into(), "no")), "{found:?}");
        assert!(found.contains(&("C17", "60.0 KiB (61440 bytes), 2000 ends".into(), "yes")), "{found:?}");
        assert!(found.contains(&("C17", "1.20 ms; `quinn`, with one certificate, 0.60 ms".into(), "no")), "{found:?}");
    }

    #[test]
    fn every_part_is_a_command_line_that_works() {
        for part in &PARTS {
            assert!(Alone::try_parse_from(std::iter::once(&"bench").chain(part.arguments)).is_ok(), "{}", part.title);
        }
    }
}
