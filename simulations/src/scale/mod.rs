//! The overlay alone at any size: the cores of `meshwork-overlay` with numbers for names, without membership and without state.
//!
//! A whole node knows every other, which ends at some tens of thousands of them. Here each node is what a broadcast needs of it: its partial
//! views ([`hyparview`](meshwork_overlay::hyparview)) and its part of the trees ([`plumtree`](meshwork_overlay::plumtree)), the very cores of a real node, so that a million of them fit into the
//! memory of one machine. The run lets them join, waits until they have settled, lets some broadcast while others come and go, and looks at
//! the graph.
//!
//! Rules of the model:
//!
//! 1. Connections are taken to stand: a message takes the latency of its pair ([`Network`](crate::network::Network)), in order. A packet that
//!    is lost is sent again, so its message and those behind it come later. Messages are values; nothing is encoded.
//! 2. Payloads are one static piece of zeros: what is passed on is a pointer and a length, never a copy and never a count of references.
//! 3. A node runs by itself for as long as no message of another can reach it, which is the smallest latency. So what happens within such a
//!    time happens node by node, in the order in which nodes lie in the memory, and each node sees its events in the order of their moments
//!    ([`wheel`](crate::wheel)). In the same way shards of nodes run by themselves, each on a thread. Digests are sums over events, so they
//!    depend on neither.
//! 4. Nodes that crash do so without a word. Whoever had a link to one, or tells it something about links, learns that it cannot be reached
//!    after a time that is set: QUIC's idle timeout, or a latency for what an ideal detector does. Whoever broadcasts lives for some time
//!    before and after.
//!
//! Invariants, looked at in the end and of the nodes that live then: every broadcast was delivered once by every node of the largest
//! component that had joined before it was sent; a link stands on both sides;
//! no view is larger than it may be; nobody broke a rule. Links come and go to the end, and one that is about to stands on one side for a
//! moment. So those found on one side are looked at again after the time in which the protocol ends them, and what is still there counts.

pub mod graph;
mod metrics;
mod parcel;
pub mod plan;
mod results;
pub mod setup;
pub mod shard;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use meshwork_channels::histogram::Histogram;
use serde::Serialize;

use self::graph::Graph;
pub use self::plan::{Plan, Preset};
pub use self::setup::{PAYLOAD_BYTES_MAX, Setup};
use self::shard::Shard;
use crate::digest::Sum;
use crate::invariants::Kind;
use crate::plan::SECOND;
use crate::report::metrics::Results;
use crate::run::{Class, Failure, Outcome, Progress, Verdict};

/// How one broadcast spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// Nodes that delivered it.
    pub delivered: u64,
    /// Nodes that delivered it within a second.
    pub in_a_second: u64,
    /// Nodes that delivered it within ten seconds.
    pub in_ten_seconds: u64,
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
        self.in_a_second += other.in_a_second;
        self.in_ten_seconds += other.in_ten_seconds;
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
    /// Nodes that left.
    pub leaves: u64,
    /// Nodes that learned that another cannot be reached.
    pub losses: u64,
    /// Neighbors that nodes took. No event by itself, so it counts for nothing in the total.
    #[serde(skip)]
    pub links: u64,
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
        self.leaves += other.leaves;
        self.losses += other.losses;
        self.links += other.links;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        let Events { joins, deadlines, topology, payloads, announcements, grafts, prunes, crashes, leaves, losses, links: _ } = self;
        joins + deadlines + topology + payloads + announcements + grafts + prunes + crashes + leaves + losses
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
    let setup = &plan.setup;
    let mut world = World::new(setup.clone());
    let ends_at = setup.ends_at();
    let mut seen = Seen::default();
    let mut seconds = results::Seconds::default();
    while world.now < ends_at {
        let second = (world.now / SECOND + 1) * SECOND;
        let moments = [ends_at, second, setup.works_from(), setup.measured_from()];
        let next = moments.into_iter().filter(|moment| *moment > world.now).min().unwrap_or(ends_at);
        world.run_until(next, drive);
        if world.now == setup.works_from() && setup.is_measured_early {
            seen.graph = Some(world.graph());
        }
        if world.now == setup.measured_from() {
            seen.before = world.events();
        }
        if world.now == second || world.now == ends_at {
            seen.digests.push(world.digest().value());
            if setup.losses.any() {
                seen.look_for_the_isolated(&world);
            }
            if results.is_some() {
                seconds.end(&world);
            }
        }
        watch(Progress { now: world.now, ends_at, events: world.events().total(), alive: world.living() });
    }
    let graph = world.graph();
    let debts = world.debts(&graph);
    if let Some(results) = &mut results {
        **results = results::of(&world, &graph, &debts, seconds);
    }
    world.outcome(plan, &graph, &debts, seen, drive)
}

/// What was seen on the way.
#[derive(Debug, Default)]
struct Seen {
    digests: Vec<u128>,
    /// The graph when the work began, where that is what is measured.
    graph: Option<Graph>,
    /// What had happened when the first broadcast that is measured was about to be sent.
    before: Events,
    /// For how many seconds in a row nodes have had no neighbor that lives, and the most that any had.
    isolated: BTreeMap<u32, u32>,
    isolated_max: u32,
}

impl Seen {
    fn look_for_the_isolated(&mut self, world: &World) {
        let mut now = BTreeMap::new();
        if world.now > world.setup.measured_from() {
            for node in (0..world.setup.nodes).filter(|node| world.is_alive(*node)) {
                if !world.shard_of(node).neighbors(node).iter().any(|peer| world.is_alive(*peer)) {
                    let seconds = self.isolated.get(&node).copied().unwrap_or(0) + 1;
                    self.isolated_max = self.isolated_max.max(seconds);
                    now.insert(node, seconds);
                }
            }
        }
        self.isolated = now;
    }
}

/// A broadcast, by who should have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Debt {
    /// Nodes that live in the end and had joined before it was sent, but for its sender.
    owed: u64,
    /// Those of them that have it.
    had: u64,
    /// Those of them that do not, though they belong to the largest component.
    missed: u64,
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
        (events.joins - events.crashes - events.leaves) as usize
    }

    fn is_alive(&self, node: u32) -> bool {
        self.setup.joins_at(node) <= self.now && self.shard_of(node).is_alive(node)
    }

    /// Lets time pass until a moment; everything up to it has happened then.
    pub fn run_until(&mut self, until: u64, drive: Drive<'_>) {
        let lookahead = self.setup.latency_min();
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
        self.run_until(self.now + alive_period + 2 * self.setup.latency_max() + self.setup.losses.notice, drive);
        // A link that was replaced in the meantime has another number.
        let stays = |world: &World, node: u32, peer: u32, number: Option<u32>| {
            world.shard_of(node).link(node, peer) == number && world.shard_of(peer).link(peer, node) != number
        };
        let links = links.iter().zip(numbers).map(|((node, peer), number)| (*node, *peer, number));
        let still: Vec<_> = links.filter(|(node, peer, number)| stays(self, *node, *peer, *number)).collect();
        // One that was coming to stand at first may be going now, which takes no longer than a message.
        if !still.is_empty() {
            self.run_until(self.now + 2 * self.setup.latency_max(), drive);
        }
        still.into_iter().filter(|(node, peer, number)| stays(self, *node, *peer, *number)).count() as u64
    }

    /// How each broadcast spread.
    fn spreads(&self) -> Vec<Spread> {
        let mut spreads = vec![Spread::default(); self.setup.messages as usize];
        for shard in &self.shards {
            spreads.iter_mut().zip(&shard.spreads).for_each(|(sum, spread)| sum.add(spread));
        }
        spreads
    }

    /// By broadcast, how many of the nodes that live now should have it, and how many do.
    fn debts(&self, graph: &Graph) -> Vec<Debt> {
        let sent: Vec<(u32, u64, u32)> = (0..self.setup.messages)
            .filter(|message| self.setup.is_sent(*message))
            .map(|message| (message, self.setup.sent_at(message), self.setup.sender(message)))
            .collect();
        let mut debts = vec![Debt::default(); self.setup.messages as usize];
        for node in (0..self.setup.nodes).filter(|node| self.is_alive(*node)) {
            let (shard, joined, is_in_largest) = (self.shard_of(node), self.setup.joins_at(node), graph.is_in_largest(node));
            for (message, sent_at, sender) in &sent {
                if *sent_at > joined && *sender != node {
                    let (has, debt) = (shard.has(node, *message), &mut debts[*message as usize]);
                    debt.owed += 1;
                    debt.had += u64::from(has);
                    debt.missed += u64::from(is_in_largest && !has);
                }
            }
        }
        debts
    }

    /// How long deliveries took.
    fn latency(&self) -> Histogram {
        let mut latency = Histogram::default();
        self.shards.iter().for_each(|shard| latency.add(&shard.latency));
        latency
    }

    /// How many times a node said that another had broken a rule.
    fn misbehaved(&self) -> u64 {
        self.shards.iter().map(|shard| shard.misbehaved).sum()
    }

    fn graph(&self) -> Graph {
        let setup = &self.setup;
        let view = |node| self.is_alive(node).then(|| self.shard_of(node).neighbors(node));
        Graph::new(setup.nodes, setup.seed, setup.hyparview.active_len_max, view)
    }

    /// Looks at what became of it.
    fn outcome(mut self, plan: &Plan, graph: &Graph, debts: &[Debt], seen: Seen, drive: Drive<'_>) -> Outcome {
        let setup = self.setup.clone();
        let (at, events, digest) = (self.now, self.events(), self.digest());
        // Where some are hostile, that others say so is as it must be.
        let misbehaved: u64 = if setup.hostile > 0.0 { 0 } else { self.misbehaved() };
        let repeated: u64 = self.shards.iter().map(|shard| shard.repeated).sum();
        let missed: u64 = debts.iter().map(|debt| debt.missed).sum();
        let metrics = metrics::of(&self, graph, debts, &seen);
        let one_way = self.still_one_way(&graph.one_way, drive);

        let rules = [
            ("delivered_once", Kind::Always, repeated, "deliveries of a message that the node had already"),
            ("no_misbehavior", Kind::Always, misbehaved, "rules that a node said another had broken"),
            ("bounded_views", Kind::Always, u64::from(graph.overfull), "nodes with more neighbors than they may have"),
            ("delivered_to_all", Kind::Eventually, missed, "messages that a node of the largest component did not get"),
            ("one_component", Kind::Eventually, u64::from(graph.components.saturating_sub(1)), "further components"),
            ("neighbors_symmetric", Kind::Eventually, one_way, "links that stand on one side only, and stay so"),
        ];
        // What the papers do not promise is not asked of their protocols.
        let matters = |kind: Kind| kind == Kind::Always || !plan.is_reference;
        let broken = rules.iter().find(|(_, kind, count, _)| *count > 0 && matters(*kind)).map(|(name, kind, count, what)| Failure {
            class: if *kind == Kind::Always { Class::Safety } else { Class::Liveness },
            what: (*name).to_owned(),
            at,
            node: None,
            detail: format!("{count} {what}"),
        });
        let vacuous =
            |what: &str, detail: &str| Failure { class: Class::Vacuous, what: what.to_owned(), at, node: None, detail: detail.to_owned() };
        let shows_nothing = match setup.losses.any() {
            true if events.crashes + events.leaves == 0 => {
                Some(vacuous("crash", "no node crashed; more nodes, or a greater share of them"))
            }
            true if graph.nodes < 2 => {
                Some(vacuous("survivors", "nobody is left who could miss anything; more nodes, or a smaller share of them"))
            }
            _ => None,
        };
        // Of one who is alone, that it lacks what died with the others says nothing.
        let failure = match shows_nothing {
            Some(vacuous) if graph.nodes < 2 => Some(vacuous),
            shows_nothing => broken.or(shows_nothing).or_else(|| crate::plan::unmet(&plan.expectations, &metrics, at)),
        };
        Outcome {
            scenario: plan.name.clone(),
            seed: setup.seed,
            nodes: setup.nodes,
            digest: digest.to_string(),
            events: events.total(),
            virtual_s: at as f64 / 1e6,
            ok: failure.is_none(),
            failure,
            invariants: rules.iter().map(|(name, kind, count, _)| Verdict { name, kind: kind.name(), ok: *count == 0 }).collect(),
            metrics,
            digests: seen.digests,
        }
    }
}
