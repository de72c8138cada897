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
        // Where nothing is encoded there are no bytes to count.
        let counts_bytes = run.results.nodes.iter().any(|node| node.moved.is_some());
        for (second, row) in run.results.seconds.iter().enumerate() {
            let bytes = if counts_bytes { row.moved.bytes.to_string() } else { String::new() };
            let _ = writeln!(
                text,
                "{},{second},{},{},{},{bytes},{},{}",
                run.outcome.seed, row.alive, row.sent, row.delivered, row.moved.payloads, row.moved.copies
            );
        }
    }
    text
}

/// One line for each message of each run. Latencies are empty for a message that arrived nowhere.
pub fn messages(runs: &[Run<'_>]) -> String {
    let mut text = "seed,message,sender_node,sent_at_s,expected_nodes,delivered_nodes,delivered_nodes_within_1s,deliveries,latency_p50_ms,\
                    latency_p99_ms,latency_max_ms,last_hop_links,payloads_received,rmr\n"
        .to_owned();
    for run in runs {
        for row in &run.results.messages {
            let millis = |micros: u64| format!("{:.3}", micros as f64 / 1e3);
            let [p50, p99] = row.latency.map_or([const { String::new() }; 2], |latency| latency.map(millis));
            let _ = writeln!(
                text,
                "{},{},{},{:.6},{},{},{},{},{p50},{p99},{},{},{},{}",
                run.outcome.seed,
                row.message,
                row.sender,
                seconds(row.sent_at),
                row.expected,
                row.delivered,
                row.in_time.map_or(String::new(), |count| count.to_string()),
                row.deliveries,
                row.latency_max.map_or(String::new(), millis),
                row.last_hop,
                row.payloads,
                row.redundancy().map_or(String::new(), |redundancy| format!("{redundancy:.6}"))
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
            let moved = row.moved.map_or(",".to_owned(), |Moved { sent, received }| format!("{sent},{received}"));
            let _ = writeln!(text, "{},{node},{},{},{moved},{}", run.outcome.seed, row.state.name(), row.degree, row.deliveries);
        }
    }
    text
}

/// One line for each two regions of each run between which something was delivered; none when the network of none of them has regions.
pub fn regions(runs: &[Run<'_>]) -> Option<String> {
    let mut text = "seed,from_region,to_region,deliveries,latency_p50_ms,latency_p99_ms,model_one_way_ms\n".to_owned();
    let mut is_any = false;
    for run in runs {
        let Some(regions) = &run.results.regions else { continue };
        is_any = true;
        for (from, to, cell) in regions.filled() {
            let [p50, p99, model] = [cell.p50, cell.p99, cell.model].map(|micros| micros as f64 / 1e3);
            let (from, to) = (regions.names[from], regions.names[to]);
            let _ = writeln!(text, "{},{from},{to},{},{p50:.3},{p99:.3},{model:.3}", run.outcome.seed, cell.deliveries);
        }
    }
    is_any.then_some(text)
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
