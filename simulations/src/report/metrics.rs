//! The figures and curves of a run, as plain data.

use std::collections::VecDeque;

use super::figures::{Worse, figure_of};
use super::regions::Regions;
use crate::graph::{self, living, neighbors};
use crate::invariants::View;
use crate::plan::{Plan, SECOND};
use crate::record::{Message, Record, Second};
use crate::run::{Metric, Outcome, percentile};
use crate::world::Moved;

/// A delivery within this many microseconds is one in time.
const IN_TIME: u32 = 1_000_000;
/// The curve of the latencies has this many steps.
const STEPS: usize = 500;
/// Up to this many nodes the paths of all are counted, above those from [`SOURCES`].
const EXACT_MAX: usize = 1_000;
/// From how many nodes the paths are counted when there are many.
const SOURCES: usize = 64;
/// The most nodes of a drawing.
pub const DRAWN_MAX: usize = 200;

/// What became of one message.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageRow {
    /// Its number.
    pub message: u32,
    /// Who sent it.
    pub sender: u32,
    /// When, in microseconds since the start.
    pub sent_at: u64,
    /// Nodes that must have it: those that have lived since before it was sent.
    pub expected: u32,
    /// Of those, the ones that have it.
    pub delivered: u32,
    /// Of those, the ones that had it within a second; none when that is not known.
    pub in_time: Option<u32>,
    /// All deliveries, those in lives that ended or began later included.
    pub deliveries: u32,
    /// Payloads of it that nodes received, the needed ones included; 0 when nobody counts them.
    pub payloads: u32,
    /// The median and the 99th percentile from sending to arrival, in microseconds; none when it arrived nowhere or they are not known.
    pub latency: Option<[u64; 2]>,
    /// The slowest arrival; none when it arrived nowhere.
    pub latency_max: Option<u64>,
    /// The most links that an arrival crossed.
    pub last_hop: u16,
}

impl MessageRow {
    /// Payloads received beyond the first, per delivery: its relative message redundancy. None when nobody counts them.
    pub fn redundancy(&self) -> Option<f64> {
        let is_known = self.payloads > 0 && self.deliveries > 0;
        is_known.then(|| f64::from(self.payloads.saturating_sub(self.deliveries)) / f64::from(self.deliveries))
    }
}

/// How a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is alive.
    Alive,
    /// It crashed, or said goodbye, and did not come back.
    Down,
    /// It never started.
    Unborn,
}

impl State {
    /// A short stable name.
    pub fn name(self) -> &'static str {
        match self {
            State::Alive => "alive",
            State::Down => "down",
            State::Unborn => "unborn",
        }
    }
}

/// One node at the end.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeRow {
    /// How it ended.
    pub state: State,
    /// Its neighbors at the end.
    pub degree: u32,
    /// What it moved; none when that is not known.
    pub moved: Option<Moved>,
    /// Messages of others that it delivered.
    pub deliveries: u32,
}

/// A time of trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What, as the schedule names it.
    pub name: &'static str,
    /// When it began, in microseconds since the start.
    pub from: u64,
    /// When it was over.
    pub until: u64,
}

/// The overlay, or a part of it, to be drawn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    /// The nodes, in order.
    pub nodes: Vec<u32>,
    /// Pairs of indices into `nodes`, the smaller first.
    pub links: Vec<(u32, u32)>,
    /// How many nodes there were to choose from.
    pub of: usize,
}

/// The shape of an overlay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OverlayShape {
    /// The share of pairs of neighbors that are neighbors of each other, mean over the living nodes.
    pub clustering: f64,
    /// Into how many pieces the living nodes fall.
    pub components: u32,
    /// The share of the living nodes with as many neighbors as a view holds.
    pub full_views: f64,
}

/// What there is to show of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// By second since the start.
    pub seconds: Vec<Second>,
    /// The messages that were sent.
    pub messages: Vec<MessageRow>,
    /// The nodes by number.
    pub nodes: Vec<NodeRow>,
    /// The faults in the order of time; those of one kind do not overlap.
    pub faults: Vec<Fault>,
    /// From sending to arrival in microseconds: the smallest, the largest, and at most 499 at equal steps of rank in between.
    pub latencies: Vec<u64>,
    /// By length in links: how many pairs of living nodes have a shortest path of that length; index 0 is unused.
    pub paths: Vec<u64>,
    /// From how many nodes the paths were counted.
    pub sources: usize,
    /// Pairs of living nodes without a path.
    pub unreachable: u64,
    /// The overlay at the end.
    pub picture: Picture,
    /// The shape of the overlay at the end; none where it is measured elsewhere.
    pub shape: Option<OverlayShape>,
    /// How long deliveries took from region to region, where the network has regions.
    pub regions: Option<Regions>,
}

impl Results {
    /// Of a run that is over. What each node moved and how many payloads of each broadcast were received is in `moved` and `carried`.
    pub fn new(plan: &Plan, record: &Record, view: &dyn View, moved: &[Moved], carried: &[u32]) -> Self {
        let alive = living(view);
        let neighbors = neighbors(view);
        let nodes: Vec<NodeRow> = (0..view.nodes())
            .map(|node| NodeRow {
                state: match (view.is_alive(node), record.lives(node)) {
                    (true, _) => State::Alive,
                    (false, 0) => State::Unborn,
                    (false, _) => State::Down,
                },
                degree: neighbors[node as usize].len() as u32,
                moved: Some(moved.get(node as usize).copied().unwrap_or_default()),
                deliveries: record.deliveries(node),
            })
            .collect();
        let full = |node: &&u32| neighbors[**node as usize].len() as u64 >= plan.tuning.active;
        let shape = OverlayShape {
            clustering: graph::clustering(&alive, &neighbors),
            components: graph::components(&alive, &neighbors),
            full_views: alive.iter().filter(full).count() as f64 / alive.len().max(1) as f64,
        };
        let mut results = Results {
            shape: Some(shape),
            seconds: record.seconds().to_vec(),
            messages: messages(record, view.nodes(), carried),
            regions: Regions::new(plan, record),
            faults: faults(plan, view.now()),
            latencies: steps(&record.latencies()),
            picture: picture(&nodes, &|node| neighbors[node as usize].clone(), alive.first().copied()),
            nodes,
            ..Results::default()
        };
        results.count_paths(&alive, &neighbors);
        results
    }

    fn count_paths(&mut self, alive: &[u32], neighbors: &[Vec<u32>]) {
        self.sources = if alive.len() <= EXACT_MAX { alive.len() } else { SOURCES };
        for source in 0..self.sources {
            let source = alive[source * alive.len() / self.sources];
            let mut distance = vec![0_usize; neighbors.len()];
            let mut queue = VecDeque::from([source]);
            let mut reached = 1;
            while let Some(node) = queue.pop_front() {
                for peer in &neighbors[node as usize] {
                    let is_new = distance[*peer as usize] == 0 && *peer != source;
                    if is_new && self.nodes[*peer as usize].state == State::Alive {
                        let length = distance[node as usize] + 1;
                        distance[*peer as usize] = length;
                        self.paths.resize(self.paths.len().max(length + 1), 0);
                        self.paths[length] += 1;
                        reached += 1;
                        queue.push_back(*peer);
                    }
                }
            }
            self.unreachable += alive.len() as u64 - reached;
        }
    }

    /// The degrees of the living nodes, in order.
    pub fn degrees(&self) -> Vec<u64> {
        let mut degrees: Vec<u64> =
            self.nodes.iter().filter(|node| node.state == State::Alive).map(|node| u64::from(node.degree)).collect();
        degrees.sort_unstable();
        degrees
    }

    /// What each node that ever lived gives for a question, in order.
    pub fn of_nodes(&self, ask: impl Fn(&NodeRow) -> Option<u64>) -> Vec<u64> {
        let mut values: Vec<u64> = self.nodes.iter().filter(|node| node.state != State::Unborn).filter_map(ask).collect();
        values.sort_unstable();
        values
    }

    /// The last hop of each message that arrived anywhere, in order.
    pub fn last_hops(&self) -> Vec<u64> {
        let arrived = self.messages.iter().filter(|message| message.latency_max.is_some());
        let mut hops: Vec<u64> = arrived.map(|message| u64::from(message.last_hop)).collect();
        hops.sort_unstable();
        hops
    }
}

fn messages(record: &Record, nodes: u32, carried: &[u32]) -> Vec<MessageRow> {
    let mut by_node = vec![u32::MAX; nodes as usize];
    let row = |(number, message): (u32, &Message)| {
        by_node.fill(u32::MAX);
        let mut latencies: Vec<u64> = Vec::with_capacity(message.arrivals.len());
        for arrival in &message.arrivals {
            latencies.push(u64::from(arrival.micros));
            by_node[arrival.node as usize] = arrival.micros;
        }
        latencies.sort_unstable();
        let (mut expected, mut delivered, mut in_time) = (0, 0, 0);
        for (node, has) in record.must_have(message) {
            expected += 1;
            delivered += u32::from(has);
            in_time += u32::from(has && by_node[node as usize] <= IN_TIME);
        }
        MessageRow {
            message: number,
            sender: message.sender,
            sent_at: message.sent_at,
            expected,
            delivered,
            in_time: Some(in_time),
            deliveries: message.deliveries,
            payloads: carried.get(number as usize).copied().unwrap_or(0),
            latency: (!latencies.is_empty()).then(|| [50, 99].map(|share| percentile(&latencies, share))),
            latency_max: latencies.last().copied(),
            last_hop: message.hops_max,
        }
    };
    record.messages().map(row).collect()
}

/// The faults of a schedule up to the end of the run. What is over at once lasts a second here, so that it can be seen.
fn faults(plan: &Plan, end: u64) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    for entry in plan.schedule.entries().iter().filter(|entry| entry.at < end) {
        if !entry.what.is_fault() && !entry.what.stops() {
            continue;
        }
        let until = entry.what.ends_at(entry.at).max(entry.at + SECOND);
        let (name, from, until) = (entry.what.name(), entry.at, until.min(end));
        match faults.iter_mut().rev().find(|fault| fault.name == name) {
            Some(fault) if fault.until >= from => fault.until = fault.until.max(until),
            _ => faults.push(Fault { name, from, until }),
        }
    }
    faults
}

/// Some values in order, thinned out evenly.
fn steps(sorted: &[u64]) -> Vec<u64> {
    match sorted.len() {
        0..=STEPS => sorted.to_vec(),
        len => (0..=STEPS).map(|step| sorted[step * (len - 1) / STEPS]).collect(),
    }
}

/// All nodes when they are few. Otherwise some: the living ones that are nearest to the first of them, so that the drawing has links, and of
/// the others their share, at equal distances.
pub(crate) fn picture(nodes: &[NodeRow], neighbors: &dyn Fn(u32) -> Vec<u32>, first: Option<u32>) -> Picture {
    let born: Vec<u32> = (0..nodes.len() as u32).filter(|node| nodes[*node as usize].state != State::Unborn).collect();
    let mut drawn = born.clone();
    if born.len() > DRAWN_MAX {
        let (alive, down): (Vec<u32>, Vec<u32>) = born.iter().partition(|node| nodes[**node as usize].state == State::Alive);
        let down_len = down.len() * DRAWN_MAX / born.len();
        drawn = first.into_iter().collect();
        let mut taken = vec![false; nodes.len()];
        drawn.iter().for_each(|node| taken[*node as usize] = true);
        let most = (DRAWN_MAX - down_len).min(alive.len());
        let mut next = 0;
        while next < drawn.len() && drawn.len() < most {
            for peer in neighbors(drawn[next]) {
                if drawn.len() < most && !taken[peer as usize] && nodes[peer as usize].state == State::Alive {
                    taken[peer as usize] = true;
                    drawn.push(peer);
                }
            }
            next += 1;
        }
        drawn.extend((0..down_len).map(|index| down[index * down.len() / down_len]));
        drawn.sort_unstable();
    }
    let mut links = Vec::new();
    for (index, node) in drawn.iter().enumerate() {
        for peer in neighbors(*node) {
            if let Ok(other) = drawn.binary_search(&peer) {
                links.push((index.min(other) as u32, index.max(other) as u32));
            }
        }
    }
    links.sort_unstable();
    links.dedup();
    Picture { nodes: drawn, links, of: born.len() }
}

/// The metrics that results add to those of the outcome.
pub fn further(results: &Results) -> Vec<Metric> {
    let mut metrics = Vec::new();
    let mut put = |name, value: f64, unit| metrics.push(Metric { name, value, unit });
    let mean = |values: &[u64]| values.iter().sum::<u64>() as f64 / values.len().max(1) as f64;
    if !results.messages.is_empty() {
        let (mut expected, mut in_time) = (0_u64, 0_u64);
        for message in &results.messages {
            expected += u64::from(message.expected);
            in_time += u64::from(message.in_time.unwrap_or(0));
        }
        put("delivery_1s", if expected == 0 { 1.0 } else { in_time as f64 / expected as f64 }, "");
        put("ldh_mean", mean(&results.last_hops()), "");
        let last: Vec<u64> = results.messages.iter().filter_map(|message| message.latency_max).collect();
        put("latency_ms_mean", mean(&last) / 1e3, "ms");
        let bytes: u64 = results.seconds.iter().map(|second| second.moved.bytes).sum();
        let delivered: u64 = results.seconds.iter().map(|second| second.delivered).sum();
        if delivered > 0 {
            put("bytes_per_delivery", bytes as f64 / delivered as f64, "B");
        }
    }
    let degrees = results.degrees();
    if let (Some(least), Some(most)) = (degrees.first(), degrees.last()) {
        put("degree_min", *least as f64, "");
        put("degree_mean", mean(&degrees), "");
        put("degree_max", *most as f64, "");
    }
    let pairs: u64 = results.paths.iter().sum();
    if pairs > 0 {
        let links: u64 = results.paths.iter().zip(0..).map(|(count, length): (&u64, u64)| count * length).sum();
        put("avg_path", links as f64 / pairs as f64, "");
        put("diameter", (results.paths.len() - 1) as f64, "");
    }
    if let Some(OverlayShape { clustering, components, full_views }) = results.shape {
        put("clustering", clustering, "");
        put("components", f64::from(components), "");
        put("full_views", full_views, "");
    }
    put("unreachable", results.unreachable as f64, "");
    let of_nodes = |ask: fn(Moved) -> u64| results.of_nodes(|node| node.moved.map(ask));
    let (sent, received) = (of_nodes(|moved| moved.sent), of_nodes(|moved| moved.received));
    put("node_sent_p50", percentile(&sent, 50) as f64, "B");
    put("node_sent_max", percentile(&sent, 100) as f64, "B");
    put("node_received_p50", percentile(&received, 50) as f64, "B");
    put("node_received_max", percentile(&received, 100) as f64, "B");
    metrics
}

/// One metric over several seeds.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// The metric.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// The mean over the seeds that have it.
    pub mean: f64,
    /// The worst value and its seed, the first of several; none when no value is worse than another.
    pub worst: Option<(f64, u64)>,
}

/// All metrics over several seeds, in the order in which they first appear.
pub fn spread(outcomes: &[&Outcome]) -> Vec<Spread> {
    let mut spreads: Vec<Spread> = Vec::new();
    for metric in outcomes.iter().flat_map(|outcome| &outcome.metrics) {
        if spreads.iter().any(|spread| spread.name == metric.name) {
            continue;
        }
        let values: Vec<(f64, u64)> = outcomes.iter().filter_map(|outcome| Some((outcome.metric(metric.name)?, outcome.seed))).collect();
        let worse = figure_of(metric.name).worse;
        let worst = values.iter().copied().reduce(|worst, next| if is_worse(worse, next.0, worst.0) { next } else { worst });
        spreads.push(Spread {
            name: metric.name,
            unit: metric.unit,
            mean: values.iter().map(|(value, _)| value).sum::<f64>() / values.len() as f64,
            worst: worst.filter(|_| worse != Worse::Neither),
        });
    }
    spreads
}

fn is_worse(worse: Worse, one: f64, other: f64) -> bool {
    match worse {
        Worse::Less => one < other,
        Worse::More => one > other,
        Worse::Neither => false,
    }
}

/// The places of the run in the middle and of the worst one by a metric; the first for both when no run has it.
pub fn middle_and_worst(outcomes: &[&Outcome], name: &'static str) -> (usize, usize) {
    let worse = figure_of(name).worse;
    let mut order: Vec<(f64, usize)> =
        outcomes.iter().enumerate().filter_map(|(place, outcome)| Some((outcome.metric(name)?, place))).collect();
    // From the best to the worst; equal ones the other way round, so that the worst is the first of several, as it is in the table.
    order.sort_by(|one, other| match worse {
        Worse::Less => other.0.total_cmp(&one.0).then(other.1.cmp(&one.1)),
        _ => one.0.total_cmp(&other.0).then(other.1.cmp(&one.1)),
    });
    match (order.get(order.len().saturating_sub(1) / 2), order.last()) {
        (Some(middle), Some(worst)) => (middle.1, worst.1),
        _ => (0, 0),
    }
}
