//! What reports show of a run of the overlay alone: everything but bytes, because nothing is encoded, and single deliveries, of which there are too many.

use std::collections::BTreeMap;

use super::World;
use super::graph::Graph;
use crate::record::{Second, Totals};
use crate::report::metrics::{MessageRow, NodeRow, Results, State, picture};

/// Steps of the curve of the latencies.
const STEPS: u32 = 500;

/// The seconds of a run so far.
#[derive(Debug, Default)]
pub(super) struct Seconds {
    rows: Vec<Second>,
    sent: u64,
    delivered: u64,
    payloads: u64,
}

impl Seconds {
    /// Ends a second, at the moment at which the world is.
    pub(super) fn end(&mut self, world: &World) {
        let delivered = world.spreads().iter().map(|spread| spread.delivered).sum();
        let payloads = world.events().payloads;
        let sent = (0..world.setup.messages).filter(|message| world.setup.sent_at(*message) <= world.now).count() as u64;
        let (new, came) = (delivered - self.delivered, payloads - self.payloads);
        let moved = Totals { bytes: 0, payloads: came, copies: came.saturating_sub(new) };
        self.rows.push(Second { alive: world.living() as u64, sent: sent - self.sent, delivered: new, moved });
        (self.sent, self.delivered, self.payloads) = (sent, delivered, payloads);
    }
}

/// The results of a run that is over.
pub(super) fn of(world: &World, graph: &Graph, debts: &[super::Debt], seconds: Seconds) -> Results {
    let setup = &world.setup;
    let neighbors = |node: u32| world.shard_of(node).neighbors(node);
    let mut sent: BTreeMap<u32, u32> = BTreeMap::new();
    (0..setup.messages).for_each(|message| *sent.entry(setup.sender(message)).or_default() += 1);
    let nodes: Vec<NodeRow> = (0..setup.nodes)
        .map(|node| {
            let own = sent.get(&node).copied().unwrap_or(0);
            let deliveries = world.shard_of(node).delivered_len(node).saturating_sub(own);
            let is_alive = world.is_alive(node);
            let degree = if is_alive { neighbors(node).len() as u32 } else { 0 };
            NodeRow { state: if is_alive { State::Alive } else { State::Down }, degree, moved: None, deliveries }
        })
        .collect();
    let living_neighbors = |node: u32| neighbors(node).iter().copied().filter(|peer| world.is_alive(*peer)).collect();
    let others = graph.nodes.saturating_sub(1);
    let row = |((message, spread), debt): ((u32, &super::Spread), &super::Debt)| MessageRow {
        message,
        sender: setup.sender(message),
        sent_at: setup.sent_at(message),
        expected: debt.owed as u32,
        delivered: debt.had as u32,
        in_time: None,
        deliveries: spread.delivered as u32,
        payloads: spread.payloads as u32,
        latency: None,
        latency_max: (spread.delivered > 0).then_some(spread.latency_max),
        last_hop: spread.hops_max,
    };
    let latency = world.latency();
    let step = |step: u32| latency.quantile(f64::from(step) / f64::from(STEPS)).as_micros() as u64;
    let reached: u64 = graph.paths.iter().sum();
    Results {
        seconds: seconds.rows,
        messages: (0..).zip(&world.spreads()).zip(debts).map(row).collect(),
        faults: Vec::new(),
        latencies: if latency.is_empty() { Vec::new() } else { (0..=STEPS).map(step).collect() },
        paths: graph.paths.clone(),
        sources: graph.sources as usize,
        unreachable: u64::from(graph.sources) * u64::from(others) - reached,
        picture: picture(&nodes, &living_neighbors, nodes.iter().position(|row| row.state == State::Alive).map(|node| node as u32)),
        nodes,
        shape: None,
        regions: None,
    }
}
