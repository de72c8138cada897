//! Tables of comma-separated values. The first line names the columns and, at their end, the units of what is not a plain count.

use std::fmt::Write;

use super::{Combination, Run, keys};
use crate::world::Moved;

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// One line for each second of each run. A second goes from just after its `from_s` up to and with the whole second after it.
pub fn series(runs: &[Run<'_>]) -> String {
    let mut text = "seed,from_s,alive_nodes,sent_messages,deliveries,sent_bytes,payloads_received,copies_received\n".to_owned();
    for run in runs {
        for (second, row) in run.results.seconds.iter().enumerate() {
            let _ = writeln!(
                text,
                "{},{second},{},{},{},{},{},{}",
                run.outcome.seed, row.alive, row.sent, row.delivered, row.moved.bytes, row.moved.payloads, row.moved.copies
            );
        }
    }
    text
}

/// One line for each message of each run. Latencies are empty for a message that arrived nowhere.
pub fn messages(runs: &[Run<'_>]) -> String {
    let mut text = "seed,message,sender_node,sent_at_s,expected_nodes,delivered_nodes,delivered_nodes_within_1s,deliveries,latency_p50_ms,\
                    latency_p99_ms,latency_max_ms,last_hop_links\n"
        .to_owned();
    for run in runs {
        for row in &run.results.messages {
            let latency = match row.latency {
                Some(latency) => latency.map(|micros| format!("{:.3}", micros as f64 / 1e3)).join(","),
                None => ",,".to_owned(),
            };
            let _ = writeln!(
                text,
                "{},{},{},{:.6},{},{},{},{},{latency},{}",
                run.outcome.seed,
                row.message,
                row.sender,
                seconds(row.sent_at),
                row.expected,
                row.delivered,
                row.in_time,
                row.deliveries,
                row.last_hop
            );
        }
    }
    text
}

/// One line for each node of each run.
pub fn nodes(runs: &[Run<'_>]) -> String {
    let mut text = "seed,node,state,degree_neighbors,sent_bytes,received_bytes,deliveries\n".to_owned();
    for run in runs {
        for (node, row) in run.results.nodes.iter().enumerate() {
            let Moved { sent, received } = row.moved;
            let _ = writeln!(text, "{},{node},{},{},{sent},{received},{}", run.outcome.seed, row.state.name(), row.degree, row.deliveries);
        }
    }
    text
}

/// A value as it stands in a table: with quotes around it where it holds what parts values or lines.
fn quoted(value: &str) -> String {
    match value.contains([',', '"', '\n']) {
        true => format!("\"{}\"", value.replace('"', "\"\"")),
        false => value.to_owned(),
    }
}

/// One line for each combination of swept settings and each seed, with every metric that any of the runs has; empty where one does not have it.
pub fn sweep(combinations: &[Combination<'_>]) -> String {
    let keys = keys(combinations);
    let mut metrics: Vec<(&str, &str)> = Vec::new();
    for metric in combinations.iter().flat_map(|combination| combination.runs).flat_map(|run| &run.outcome.metrics) {
        if !metrics.iter().any(|(name, _)| *name == metric.name) {
            metrics.push((metric.name, metric.unit));
        }
    }
    let mut text = keys.iter().map(|key| format!("{},", quoted(key))).collect::<String>() + "seed,ok,failure";
    for (name, unit) in &metrics {
        let unit = match *unit {
            "" => String::new(),
            "B" if name.contains("bytes") => String::new(),
            "B" => "_bytes".to_owned(),
            "B/s" => "_per_s".to_owned(),
            unit => format!("_{}", unit.replace('/', "_per_")),
        };
        let _ = write!(text, ",{name}{unit}");
    }
    text.push('\n');
    for combination in combinations {
        for run in combination.runs {
            for key in &keys {
                let _ = write!(text, "{},", quoted(combination.value(key)));
            }
            let failure = run.outcome.failure.as_ref().map_or("", |failure| failure.what.as_str());
            let _ = write!(text, "{},{},{}", run.outcome.seed, run.outcome.ok, quoted(failure));
            for (name, _) in &metrics {
                text.push(',');
                if let Some(value) = run.outcome.metric(name) {
                    let _ = write!(text, "{value}");
                }
            }
            text.push('\n');
        }
    }
    text
}
