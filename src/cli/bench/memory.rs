//! What an idle peer costs in memory, and a handshake in processor time.
//!
//! Each subject is measured in a process of its own, this program again: memory that one has given back would hide what the next one takes.
//!
//! `meshwork` starts a node and its peers in one process, looks, lets all of them join the first, uses four channels of each of its links once, and looks again. The second look
//! by all ends of connections there are is what an end costs, with everything that a node keeps for a peer: membership, neighbors, queues. As many nodes as peers run on this
//! machine, so there are at most 100 of them; they connect with more than the first, and all those links are used and counted. `meshwork-links` is the case of one
//! node with many peers: two endpoints as nodes have them, links between them, and four channels of each used once in each direction, one end after the other. `quinn` does the same with two endpoints of its own,
//! connections between them, and four streams of each in one direction.
//!
//! `meshwork-links` and `quinn` also tell the processor time of a handshake: that of the whole process, both ends and the system's part, from the first dial until all
//! connections stood, by their number. Of Meshwork that is TLS with certificates of both ends, the proof of the cluster secret, the Retry that an endpoint asks for while many connect, the tasks of the
//! link, and a look every few milliseconds whether all stand; of quinn TLS with the certificate of one end and nothing else, one connection after the other.

#![expect(clippy::disallowed_methods, reason = "each subject runs in a process of its own")]

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::sleep;

use super::machine::{self, cpu_time, resident_bytes};
use super::raw::{Form, Raw};
use super::samples::median;
use super::{Bar, Config, Outcome, Output, Progress, ours, row};
use crate::cli::Failure;
use crate::cli::text::{self, Align, Table};

/// What is measured.
const SUBJECTS: [Config; 3] = [Config::Meshwork, Config::MeshworkLinks, Config::Quinn];
/// How long everything is left alone before each look.
const SETTLE: Duration = Duration::from_secs(2);
/// What a subject takes, for the progress bar.
const SECONDS: f64 = 10.0;
/// Nodes that `meshwork` starts beside the first. Each of them takes a link to nearly every other one.
const NODES_MAX: u16 = 100;

#[derive(Args, Debug)]
#[command(
    after_help = "Each subject is measured in a process of its own. An end is one side of one connection, with all that it brought along.

The processor time of a handshake is that of the whole process, both ends together, from the first dial until all connections stood, by their number: of `meshwork-links` with \
the certificates of both ends and the proof of the cluster secret, 16 dialed at a time; of `quinn` with the certificate of one end, one at a time. `meshwork` has none: there the \
nodes do much else.

Before memory is read each link carries a message on each of its channels, one link after the other, as the connections of `quinn` do. Links that are used all at once lose packets in the \
buffers of the sockets, and an end then takes some KiB more."
)]
pub(super) struct MemoryArgs {
    /// Peers, 1 to 1,000; of `meshwork`, which starts a node for each of them, at most 100
    #[arg(long, default_value_t = 100, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    peers: u16,
    /// Links of `meshwork-links` and connections of `quinn`, 1 to 1,000. Default: as many as peers
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    links: Option<u16>,
    /// Rounds, 1 to 100; the figures are medians over them
    #[arg(long, default_value_t = 3, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    /// Measure this subject in this process and print what was found; the command runs itself so
    #[arg(long, hide = true, value_enum)]
    alone: Option<Config>,
    #[command(flatten)]
    pub(super) output: Output,
}

impl MemoryArgs {
    /// Nothing where another process waits for this one and shows how far it is.
    pub(super) fn expected_seconds(&self) -> f64 {
        if self.alone.is_some() { 0.0 } else { SECONDS * SUBJECTS.len() as f64 * f64::from(self.rounds) }
    }
}

/// What one process has found.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Found {
    /// Of each node, or endpoint, that is connected with nobody.
    node_kb: f64,
    /// Of each end of a connection.
    end_kb: f64,
    ends: usize,
    /// Processor time of a handshake, both ends together, where nothing else was done meanwhile.
    handshake_cpu_ms: Option<f64>,
}

#[derive(Serialize)]
struct Row {
    case: &'static str,
    peers: u16,
    node_kb: f64,
    end_kb: f64,
    ends: usize,
    handshake_cpu_ms: Option<f64>,
    baseline: Option<&'static str>,
    ratio: Option<f64>,
}

pub(super) async fn run(args: &MemoryArgs, progress: &Progress) -> Result<Option<Outcome>, Failure> {
    if let Some(config) = args.alone {
        let found = alone(config, args.peers.into()).await?;
        text::print(&format!("{}\n", text::json_line(&found)))?;
        return Ok(None);
    }
    let mut found: Vec<(Config, Vec<Found>)> = SUBJECTS.into_iter().map(|config| (config, Vec::new())).collect();
    let mut rounds = Vec::new();
    for round in 0..args.rounds {
        for (config, all) in &mut found {
            progress.show(format!("{} round {}", config.name(), round + 1));
            let (name, peers) = (config.name(), peers_of(*config, args).to_string());
            let child = move || machine::alone(name, &["memory", "--peers", &peers, "--alone", name]);
            let once: Found = tokio::task::spawn_blocking(child).await.map_err(Failure::new)??;
            rounds.push(json!({ "case": config.name(), "round": round + 1, "found": once }));
            all.push(once);
            progress.advance(SECONDS);
        }
    }
    Ok(Some(outcome(args, &found, rounds)))
}

fn peers_of(config: Config, args: &MemoryArgs) -> u16 {
    if config == Config::Meshwork { args.peers.min(NODES_MAX) } else { args.links.unwrap_or(args.peers) }
}

fn outcome(args: &MemoryArgs, found: &[(Config, Vec<Found>)], rounds: Vec<serde_json::Value>) -> Outcome {
    let mut table = Table::new(&[
        ("case", Align::Left),
        ("ends", Align::Right),
        ("KiB for an end", Align::Right),
        ("KiB for a node alone", Align::Right),
        ("end by quinn's", Align::Right),
        ("ms of CPU for a handshake", Align::Right),
    ]);
    let end = |found: &[Found]| median(found.iter().map(|found| found.end_kb));
    let quinn = found.iter().find(|(config, _)| *config == Config::Quinn).map_or(0.0, |(_, found)| end(found));
    let (mut rows, mut bars) = (Vec::new(), Vec::new());
    for (config, found) in found {
        let ours = config.is_ours();
        let said = Row {
            case: config.name(),
            peers: peers_of(*config, args),
            node_kb: median(found.iter().map(|found| found.node_kb)),
            end_kb: end(found),
            ends: found.last().map_or(0, |found| found.ends),
            handshake_cpu_ms: found.iter().map(|found| found.handshake_cpu_ms).collect::<Option<Vec<f64>>>().map(median),
            baseline: ours.then_some("quinn"),
            ratio: ours.then(|| end(found) / quinn.max(1e-9)),
        };
        table.row([
            said.case.into(),
            said.ends.to_string(),
            format!("{:.1}", said.end_kb),
            format!("{:.1}", said.node_kb),
            said.ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            said.handshake_cpu_ms.map_or_else(String::new, |ms| format!("{ms:.2}")),
        ]);
        bars.push(Bar {
            group: "memory for one end of an idle connection (less is better)".into(),
            name: said.case.into(),
            value: said.end_kb,
            unit: "KiB",
        });
        rows.push(row(&said));
    }
    Outcome {
        settings: json!({ "peers": args.peers, "links": args.links, "rounds": args.rounds }),
        rows,
        rounds,
        table,
        curves: Vec::new(),
        bars,
    }
}

/// Measures one subject in this process.
async fn alone(config: Config, peers: usize) -> Result<Found, Failure> {
    let kib = |bytes: u64, count: usize| bytes as f64 / 1_024.0 / count.max(1) as f64;
    if config.is_ours() {
        let (cost, nodes) = if config == Config::MeshworkLinks {
            (ours::links_memory(peers, SETTLE).await?, 2)
        } else {
            (ours::memory(peers, SETTLE).await?, peers + 1)
        };
        let (node_kb, end_kb) = (kib(cost.nodes_bytes, nodes), kib(cost.links_bytes, cost.link_ends));
        let handshake_cpu_ms = cost.connecting.map(|time| time.as_secs_f64() * 1e3 / peers as f64);
        return Ok(Found { node_kb, end_kb, ends: cost.link_ends, handshake_cpu_ms });
    }
    let start = resident_bytes();
    let mut raw = Raw::start(Form::Plain, 0, None, 0).await?;
    sleep(SETTLE).await;
    let before = resident_bytes();
    let busy = cpu_time();
    raw.connect(peers).await?;
    let handshake_cpu_ms = Some(cpu_time().saturating_sub(busy).as_secs_f64() * 1e3 / peers as f64);
    raw.use_streams(4, &Bytes::from(vec![7; 1_024])).await?;
    sleep(SETTLE).await;
    let after = resident_bytes();
    let (node_kb, end_kb) = (kib(before.saturating_sub(start), 2), kib(after.saturating_sub(before), 2 * peers));
    Ok(Found { node_kb, end_kb, ends: 2 * peers, handshake_cpu_ms })
}
