//! Tables of comma-separated values. The first line names the columns and, at their end, the units of what is not a plain count.

use std::fmt::Write;

use super::Run;
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
