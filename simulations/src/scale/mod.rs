//! The overlay alone at any size: the cores of `meshwork-overlay` with numbers for names, without membership and without state.
//!
//! A whole node knows every other, which ends at some tens of thousands of them. Here each node is what a broadcast needs of it: its partial
//! views ([`hyparview`]) and its part of the trees ([`plumtree`]), the very cores of a real node, so that a million of them fit into the
//! memory of one machine. The run lets them join through contacts at random, waits until they have settled, lets some broadcast, and then
//! looks at the graph.
//!
//! Rules of the model:
//!
//! 1. Connections are taken to stand: a message takes the latency of its pair ([`Network`](crate::network::Network)), in order, and none is
//!    lost. Messages are values; nothing is encoded.
//! 2. Payloads are one static piece of zeros: what is passed on is a pointer and a length, never a copy and never a count of references.
//! 3. A node runs by itself for as long as no message of another can reach it, which is the smallest latency. So what happens within such a
//!    time happens node by node, in the order in which nodes lie in the memory, and each node sees its events in the order of their moments
//!    ([`wheel`](crate::wheel)). In the same way shards of nodes run by themselves, each on a thread. Digests are sums over events, so they
//!    depend on neither.
//! 4. Nodes that crash do so without a word, at moments drawn over the first half of the broadcasts. Whoever had a link to one, or tells it something about links, learns that it cannot be
//!    reached when QUIC's idle timeout is over. Nodes that broadcast do not crash.
//!
//! Invariants, looked at in the end and of the nodes that live then: every broadcast was delivered once by every node of the largest component; a link stands on both sides;
//! no view is larger than it may be; nobody broke a rule. Links come and go to the end, and one that is about to stands on one side for a
//! moment. So those found on one side are looked at again after the time in which the protocol ends them, and what is still there counts.

pub mod graph;
mod parcel;
pub mod plan;
mod results;
pub mod shard;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::histogram::Histogram;
use meshwork_channels::random::hash;
use meshwork_overlay::{hyparview, plumtree};
use serde::Serialize;

use self::graph::Graph;
pub use self::plan::{NAME, Plan};
use self::shard::Shard;
use crate::digest::Sum;
use crate::invariants::Kind;
use crate::network::Link;
use crate::plan::SECOND;
use crate::report::metrics::Results;
use crate::run::{Class, Failure, Metric, Outcome, Progress, Verdict};

/// The largest payload, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 65_536;
static ZEROS: [u8; PAYLOAD_BYTES_MAX] = [0; PAYLOAD_BYTES_MAX];

// Purposes of draws.
const CONTACT: u64 = 0x5ca1_e001;
const SENDER: u64 = 0x5ca1_e002;
const NODE: u64 = 0x5ca1_e003;
const CRASH: u64 = 0x5ca1_e004;
const CRASH_AT: u64 = 0x5ca1_e005;

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Feeds every draw.
    pub seed: u64,
    /// How many nodes.
    pub nodes: u32,
    /// In how many shards they are, which only matters to how fast a run is.
    pub shards: u32,
    /// The links between them. Only the latency counts.
    pub link: Link,
    /// Of the partial views.
    pub hyparview: hyparview::Params,
    /// Of the broadcast.
    pub plumtree: plumtree::Params,
    /// Over what time the nodes join, in microseconds.
    pub join_over: u64,
    /// What time they then have to settle, in microseconds.
    pub form: u64,
    /// How many broadcasts there are.
    pub messages: u32,
    /// By how many nodes, in turn.
    pub senders: u32,
    /// Over what time, in microseconds.
    pub work: u64,
    /// The chance of each node that does not broadcast to crash meanwhile.
    pub crashed: f64,
    /// How long the run goes on after the last broadcast, in microseconds.
    pub quiet: u64,
    /// Bytes of a broadcast, at most [`PAYLOAD_BYTES_MAX`].
    pub payload_bytes: usize,
}

impl Setup {
    /// When the run ends, in microseconds since its start.
    pub fn ends_at(&self) -> u64 {
        self.join_over + self.form + self.work + self.quiet
    }

    /// When a node joins.
    fn joins_at(&self, node: u32) -> u64 {
        1 + self.join_over * u64::from(node) / u64::from(self.nodes.max(1))
    }

    /// Through whom: one of those that joined before it.
    fn contact(&self, node: u32) -> Option<u32> {
        (node > 0).then(|| (hash(&[self.seed, CONTACT, u64::from(node)]) % u64::from(node)) as u32)
    }

    /// When a broadcast is sent.
    fn sent_at(&self, message: u32) -> u64 {
        self.join_over + self.form + self.work * u64::from(message) / u64::from(self.messages.max(1))
    }

    /// By whom.
    fn sender(&self, message: u32) -> u32 {
        let turn = message % self.senders.max(1);
        (hash(&[self.seed, SENDER, u64::from(turn)]) % u64::from(self.nodes)) as u32
    }

    /// When a node crashes, if it does and broadcasts nothing.
    fn crashes_at(&self, node: u32) -> Option<u64> {
        let draw = |purpose| hash(&[self.seed, purpose, u64::from(node)]);
        // The high bits, which a float holds whole.
        let is_drawn = self.crashed > 0.0 && ((draw(CRASH) >> 11) as f64) < self.crashed * (1_u64 << 53) as f64;
        is_drawn.then(|| self.join_over + self.form + draw(CRASH_AT) % (self.work / 2).max(1))
    }

    fn node_seed(&self, node: u32) -> u64 {
        hash(&[self.seed, NODE, u64::from(node)])
    }

    fn payload(&self) -> Bytes {
        Bytes::from_static(&ZEROS[..self.payload_bytes])
    }
}

/// How one broadcast spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// Nodes that delivered it.
    pub delivered: u64,
    /// Payloads that arrived, the needed ones included.
    pub payloads: u64,
    /// Links that the last of its ways crossed.
    pub hops_max: u16,
    /// From sending to its last delivery, in microseconds.
    pub latency_max: u64,
    /// From sending to delivery, the sum over all deliveries, in microseconds.
    pub latency_sum: u64,
}

impl Spread {
    fn add(&mut self, other: &Spread) {
        self.delivered += other.delivered;
        self.payloads += other.payloads;
        self.hops_max = self.hops_max.max(other.hops_max);
        self.latency_max = self.latency_max.max(other.latency_max);
        self.latency_sum += other.latency_sum;
    }
}

/// What happened, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Events {
    /// Nodes that joined.
    pub joins: u64,
    /// Deadlines.
    pub deadlines: u64,
    /// Messages of the partial views.
    pub topology: u64,
    /// Payloads.
    pub payloads: u64,
    /// Announcements of payloads.
    pub announcements: u64,
    /// Requests for payloads.
    pub grafts: u64,
    /// Links taken out of a tree.
    pub prunes: u64,
    /// Nodes that crashed.
    pub crashes: u64,
    /// Nodes that learned that another cannot be reached.
    pub losses: u64,
}

impl Events {
    fn add(&mut self, other: &Events) {
        self.joins += other.joins;
        self.deadlines += other.deadlines;
        self.topology += other.topology;
        self.payloads += other.payloads;
        self.announcements += other.announcements;
        self.grafts += other.grafts;
        self.prunes += other.prunes;
        self.crashes += other.crashes;
        self.losses += other.losses;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        let Events { joins, deadlines, topology, payloads, announcements, grafts, prunes, crashes, losses } = self;
        joins + deadlines + topology + payloads + announcements + grafts + prunes + crashes + losses
    }
}

/// Runs a piece of work for each shard: one after the other, or each on a thread of its own. The result is the same.
pub type Drive<'a> = &'a mut dyn FnMut(&mut [Shard], &(dyn Fn(&mut Shard) + Sync));

/// One shard after the other.
pub fn in_turn(shards: &mut [Shard], work: &(dyn Fn(&mut Shard) + Sync)) {
    shards.iter_mut().for_each(work);
}

/// Plays a plan to its end.
pub fn run(plan: &Plan, drive: Drive<'_>, watch: &mut dyn FnMut(Progress)) -> Outcome {
    observe(plan, None, drive, watch)
}

/// Plays a plan to its end and gives, beside the outcome, what reports show, where somebody wants that.
pub fn observe(plan: &Plan, mut results: Option<&mut Results>, drive: Drive<'_>, watch: &mut dyn FnMut(Progress)) -> Outcome {
    let mut world = World::new(plan.setup.clone());
    let ends_at = plan.setup.ends_at();
    let mut digests = Vec::new();
    let mut seconds = results::Seconds::default();
    while world.now < ends_at {
        world.run_until(ends_at.min(world.now + SECOND), drive);
        digests.push(world.digest().value());
        if results.is_some() {
            seconds.end(&world);
        }
        watch(Progress { now: world.now, ends_at, events: world.events().total(), alive: world.living() });
    }
    let graph = world.graph();
    if let Some(results) = &mut results {
        **results = results::of(&world, &graph, seconds);
    }
    world.outcome(&graph, digests, drive)
}

/// A run under way.
#[derive(Debug)]
pub struct World {
    setup: Setup,
    shards: Vec<Shard>,
    now: u64,
}

impl World {
    /// A world in which nothing has happened.
    pub fn new(setup: Setup) -> Self {
        let shards = (0..setup.shards.max(1)).map(|index| Shard::new(index, &setup)).collect();
        World { setup, shards, now: 0 }
    }

    /// Lets so many events happen, in a world of one shard.
    pub fn run_events(&mut self, count: u64) {
        assert_eq!(self.shards.len(), 1, "several shards are driven by time");
        self.shards[0].run_events(count);
    }

    /// What has happened so far.
    pub fn events(&self) -> Events {
        let mut events = Events::default();
        self.shards.iter().for_each(|shard| events.add(&shard.events));
        events
    }

    fn digest(&self) -> Sum {
        let mut digest = Sum::default();
        self.shards.iter().for_each(|shard| digest.add(&shard.digest));
        digest
    }

    /// How many nodes live now.
    fn living(&self) -> usize {
        let events = self.events();
        (events.joins - events.crashes) as usize
    }

    fn is_alive(&self, node: u32) -> bool {
        self.shard_of(node).is_alive(node)
    }

    /// Lets time pass until a moment; everything up to it has happened then.
    pub fn run_until(&mut self, until: u64, drive: Drive<'_>) {
        let lookahead = shard::latency_min(&self.setup.link);
        while self.now < until {
            // With one shard nobody else's messages can come in between.
            let end = if self.shards.len() == 1 { until } else { until.min(self.now + lookahead) };
            drive(&mut self.shards, &|shard| shard.run_until(end));
            self.exchange();
            self.now = end;
        }
    }

    /// Hands the messages of each shard to the others.
    fn exchange(&mut self) {
        for from in 0..self.shards.len() {
            for to in 0..self.shards.len() {
                if from != to {
                    let mut events = std::mem::take(&mut self.shards[from].out[to]);
                    self.shards[to].take(&mut events);
                    self.shards[from].out[to] = events;
                }
            }
        }
    }

    fn shard_of(&self, node: u32) -> &Shard {
        &self.shards[node as usize % self.shards.len()]
    }

    /// How many of these links, given by who holds each and whom it leads to, the other side still does not hold after the time that the
    /// protocol takes to end such a link: until the next check of its neighbors by the node that holds it, and the answer to that.
    fn still_one_way(&mut self, links: &[(u32, u32)], drive: Drive<'_>) -> u64 {
        if links.is_empty() {
            return 0;
        }
        let numbers: Vec<Option<u32>> = links.iter().map(|(node, peer)| self.shard_of(*node).link(*node, *peer)).collect();
        let alive_period = self.setup.hyparview.alive_period.as_micros() as u64;
        self.run_until(self.now + alive_period + 2 * shard::latency_max(&self.setup.link), drive);
        // A link that was replaced in the meantime has another number.
        let stays = |((node, peer), number): (&(u32, u32), &Option<u32>)| {
            self.shard_of(*node).link(*node, *peer) == *number && self.shard_of(*peer).link(*peer, *node) != *number
        };
        links.iter().zip(&numbers).filter(|link| stays(*link)).count() as u64
    }

    /// How each broadcast spread.
    fn spreads(&self) -> Vec<Spread> {
        let mut spreads = vec![Spread::default(); self.setup.messages as usize];
        for shard in &self.shards {
            spreads.iter_mut().zip(&shard.spreads).for_each(|(sum, spread)| sum.add(spread));
        }
        spreads
    }

    /// By broadcast: how many of the nodes that live now have it, but for its sender.
    fn had_by_the_living(&self) -> Vec<u64> {
        let mut had = vec![0; self.setup.messages as usize];
        for node in (0..self.setup.nodes).filter(|node| self.is_alive(*node)) {
            let shard = self.shard_of(node);
            (0_u32..).zip(&mut had).for_each(|(message, had)| *had += u64::from(shard.has(node, message)));
        }
        had.iter_mut().for_each(|had: &mut u64| *had = had.saturating_sub(1));
        had
    }

    /// How long deliveries took.
    fn latency(&self) -> Histogram {
        let mut latency = Histogram::default();
        self.shards.iter().for_each(|shard| latency.add(&shard.latency));
        latency
    }

    fn graph(&self) -> Graph {
        let setup = &self.setup;
        let view = |node| self.is_alive(node).then(|| self.shard_of(node).neighbors(node));
        Graph::new(setup.nodes, setup.seed, setup.hyparview.active_len_max, view)
    }

    /// Looks at what became of it.
    fn outcome(mut self, graph: &Graph, digests: Vec<u128>, drive: Drive<'_>) -> Outcome {
        let setup = self.setup.clone();
        let (at, events, digest) = (self.now, self.events(), self.digest());
        let (spreads, latency) = (self.spreads(), self.latency());
        let misbehaved: u64 = self.shards.iter().map(|shard| shard.misbehaved).sum();
        let repeated: u64 = self.shards.iter().map(|shard| shard.repeated).sum();
        let in_largest = (0..setup.nodes).filter(|node| graph.is_in_largest(*node));
        let missed: u64 = in_largest.map(|node| u64::from(setup.messages - self.shard_of(node).delivered_len(node))).sum();
        // The senders live.
        let owed = u64::from(setup.messages) * u64::from(graph.nodes.saturating_sub(1));
        let delivery = self.had_by_the_living().iter().sum::<u64>() as f64 / owed.max(1) as f64;

        let one_way = self.still_one_way(&graph.one_way, drive);

        let rules = [
            ("delivered_once", Kind::Always, repeated, "deliveries of a message that the node had already"),
            ("no_misbehavior", Kind::Always, misbehaved, "rules that a node said another had broken"),
            ("bounded_views", Kind::Always, u64::from(graph.overfull), "nodes with more neighbors than they may have"),
            ("delivered_to_all", Kind::Eventually, missed, "messages that a node of the largest component did not get"),
            ("one_component", Kind::Eventually, u64::from(graph.components.saturating_sub(1)), "further components"),
            ("neighbors_symmetric", Kind::Eventually, one_way, "links that stand on one side only, and stay so"),
        ];
        let broken = rules.iter().find(|(.., count, _)| *count > 0).map(|(name, kind, count, what)| Failure {
            class: if *kind == Kind::Always { Class::Safety } else { Class::Liveness },
            what: (*name).to_owned(),
            at,
            node: None,
            detail: format!("{count} {what}"),
        });
        let failure = broken.or_else(|| {
            (setup.crashed > 0.0 && events.crashes == 0).then(|| Failure {
                class: Class::Vacuous,
                what: "crash".to_owned(),
                at,
                node: None,
                detail: "no node crashed; more nodes, or a greater share of them".to_owned(),
            })
        });
        Outcome {
            scenario: NAME.to_owned(),
            seed: setup.seed,
            nodes: setup.nodes,
            digest: digest.to_string(),
            events: events.total(),
            virtual_s: at as f64 / 1e6,
            ok: failure.is_none(),
            failure,
            invariants: rules.iter().map(|(name, kind, count, _)| Verdict { name, kind: kind.name(), ok: *count == 0 }).collect(),
            metrics: metrics(&setup, &events, &spreads, &latency, graph, delivery),
            digests,
        }
    }
}

fn metrics(setup: &Setup, events: &Events, spreads: &[Spread], latency: &Histogram, graph: &Graph, delivery: f64) -> Vec<Metric> {
    let mut metrics = Vec::new();
    let mut put = |name, value: f64, unit| metrics.push(Metric { name, value, unit });
    if !spreads.is_empty() {
        let mean = |of: &dyn Fn(&Spread) -> f64| spreads.iter().map(of).sum::<f64>() / spreads.len() as f64;
        let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
        put("messages", spreads.len() as f64, "");
        put("delivery", delivery, "");
        // Relative message redundancy and last delivery hop (Leitão, Pereira and Rodrigues, SRDS 2007).
        put("rmr", mean(&|spread| spread.payloads as f64 / (spread.delivered.max(1)) as f64 - 1.0), "");
        put("last_hop_mean", mean(&|spread| f64::from(spread.hops_max)), "");
        put("last_hop_max", spreads.iter().map(|spread| spread.hops_max).max().unwrap_or(0).into(), "");
        put(
            "latency_mean",
            millis(Duration::from_micros(spreads.iter().map(|spread| spread.latency_sum).sum::<u64>() / latency.count().max(1))),
            "ms",
        );
        put("latency_p50", millis(latency.quantile(0.5)), "ms");
        put("latency_p99", millis(latency.quantile(0.99)), "ms");
        put("latency_max", millis(latency.max()), "ms");
        put("last_latency_mean", mean(&|spread| spread.latency_max as f64 / 1e3), "ms");
    }
    put("components", graph.components.into(), "");
    put("largest", graph.largest.into(), "");
    put("one_way", graph.one_way.len() as f64, "");
    let of_degree = |degree: usize| f64::from(graph.degrees[degree]);
    let degrees = 0..graph.degrees.len();
    put("degree_min", degrees.clone().find(|degree| of_degree(*degree) > 0.0).unwrap_or(0) as f64, "");
    put("degree_mean", degrees.map(|degree| degree as f64 * of_degree(degree)).sum::<f64>() / f64::from(graph.nodes.max(1)), "");
    put(if graph.clustering_exact { "clustering" } else { "clustering_sampled" }, graph.clustering, "");
    put("path_mean", graph.path_mean, "");
    put("path_max", graph.path_max.into(), "");
    put("deadlines", events.deadlines as f64, "");
    put("view_messages", events.topology as f64, "");
    put("payloads", events.payloads as f64, "");
    put("announcements", events.announcements as f64, "");
    put("grafts", events.grafts as f64, "");
    put("prunes", events.prunes as f64, "");
    if setup.crashed > 0.0 {
        put("crash", events.crashes as f64, "");
    }
    metrics
}

/// A duration of so many microseconds.
fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}
