//! What a demonstration showed: as JSON, and as a table.

use serde::Serialize;

use super::tally::Broadcasts;
use crate::cli::text::{Align, Table};

/// The result. Seconds are seconds; `at_s` counts from the start, `detected_s`, `healed_s` and `converged_s` from what they follow.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// Whether every promise held.
    pub(super) ok: bool,
    /// The promises that did not hold.
    pub(super) problems: Vec<String>,
    /// Nodes at the beginning.
    pub(super) nodes: usize,
    pub(super) topology: &'static str,
    /// How long it took in all.
    pub(super) elapsed_s: f64,
    /// From the start of the first node until every node knew every other and the overlay was whole.
    pub(super) formed_s: Option<f64>,
    pub(super) links: Links,
    pub(super) broadcasts: Broadcasts,
    pub(super) state: State,
    pub(super) faults: Vec<Fault>,
}

/// Of each node that lives at the end.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Links {
    pub(super) neighbors: Spread,
    pub(super) connections: Spread,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) min: usize,
    pub(super) mean: f64,
    pub(super) max: usize,
}

impl Spread {
    pub(super) fn of(values: impl Iterator<Item = usize> + Clone) -> Self {
        let count = values.clone().count();
        Spread {
            min: values.clone().min().unwrap_or(0),
            mean: if count == 0 { 0.0 } else { (values.clone().sum::<usize>() as f64 / count as f64 * 100.0).round() / 100.0 },
            max: values.max().unwrap_or(0),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct State {
    pub(super) keys: usize,
    /// Each key is written twice, by nodes at random.
    pub(super) writes: usize,
    /// Whether all nodes that live at the end hold the same entries, and every key.
    pub(super) converged: bool,
    /// From the last write.
    pub(super) converged_s: Option<f64>,
}

/// What was done to the cluster, and how it took it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Fault {
    /// `kill` or `join`.
    pub(super) kind: &'static str,
    pub(super) node: usize,
    pub(super) at_s: f64,
    /// Until the last survivor held the node for dead, or knew the newcomer.
    pub(super) detected_s: Option<f64>,
    /// Until the neighbors of the survivors connected all of them again and the dead node was nobody's neighbor; or until the newcomer knew everybody
    /// and was connected.
    pub(super) healed_s: Option<f64>,
}

impl Report {
    pub(super) fn print(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&[("result", Align::Left), (if self.ok { "ok" } else { "not ok" }, Align::Left)]);
        let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
        let seconds = |seconds: Option<f64>| seconds.map_or_else(|| "never".to_owned(), |seconds| format!("{seconds:.2} s"));
        let spread = |spread: Spread| format!("{} to {}, mean {}", spread.min, spread.max, spread.mean);
        row("nodes", format!("{}, {}", self.nodes, self.topology));
        row("formed", seconds(self.formed_s));
        row("neighbors", spread(self.links.neighbors));
        row("connections", spread(self.links.connections));
        let broadcasts = &self.broadcasts;
        row("broadcasts", format!("{} by {} nodes", broadcasts.sent, broadcasts.senders));
        row("delivered", format!("{} of {}, {} twice", broadcasts.delivered, broadcasts.expected, broadcasts.duplicates));
        let latency = broadcasts.latency_ms;
        row("latency", format!("p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", latency.p50, latency.p99, latency.max));
        let converged = if self.state.converged {
            format!("the same everywhere after {}", seconds(self.state.converged_s))
        } else {
            "not the same everywhere".into()
        };
        row("state", format!("{} writes to {} keys, {converged}", self.state.writes, self.state.keys));
        for fault in &self.faults {
            let (noticed, whole) = if fault.kind == "join" { ("known", "connected") } else { ("noticed", "healed") };
            row(
                &format!("{} node {}", fault.kind, fault.node),
                format!("at {:.1} s, {noticed} after {}, {whole} after {}", fault.at_s, seconds(fault.detected_s), seconds(fault.healed_s)),
            );
        }
        for problem in &self.problems {
            row("problem", problem.clone());
        }
        table.render(width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_of_nothing_is_nothing() {
        assert_eq!(Spread::of([].into_iter()), Spread { min: 0, mean: 0.0, max: 0 });
        assert_eq!(Spread::of([4, 1, 2].into_iter()), Spread { min: 1, mean: 2.33, max: 4 });
    }
}
