//! The figures of a run.

use std::time::Duration;

use super::graph::Graph;
use super::{Debt, Seen, Spread, World};
use crate::plan::SECOND;
use crate::run::Metric;

/// A share of the nodes below which a broadcast counts as not delivered to all: what a float loses.
const ALL: f64 = 1.0 - 1e-9;

/// The figures, in the order in which they are shown.
pub(super) fn of(world: &World, graph: &Graph, debts: &[Debt], seen: &Seen) -> Vec<Metric> {
    let setup = &world.setup;
    let mut metrics = Vec::new();
    let mut put = |name, value: f64, unit| metrics.push(Metric { name, value, unit });
    let (spreads, latency) = (world.spreads(), world.latency());
    let events = world.events();
    if !spreads.is_empty() {
        let measured = &spreads[(setup.warmup as usize).min(spreads.len() - 1)..];
        let mean = |of: &dyn Fn(&Spread) -> f64| measured.iter().map(of).sum::<f64>() / measured.len() as f64;
        let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
        let (owed, had) = debts.iter().fold((0, 0), |(owed, had), debt| (owed + debt.owed, had + debt.had));
        put("messages", spreads.len() as f64, "");
        put("delivery", had as f64 / owed.max(1) as f64, "");
        // Relative message redundancy and last delivery hop (Leitão, Pereira and Rodrigues, SRDS 2007).
        put("rmr", mean(&redundancy), "");
        put("ldh_mean", mean(&|spread| f64::from(spread.hops_max)), "");
        put("ldh_max", measured.iter().map(|spread| spread.hops_max).max().unwrap_or(0).into(), "");
        // Of a broadcast: until the last node had it.
        put("latency_ms_mean", mean(&|spread| spread.latency_max as f64 / 1e3), "ms");
        put("latency_ms_max", measured.iter().map(|spread| spread.latency_max).max().unwrap_or(0) as f64 / 1e3, "ms");
        put("latency_p50", millis(latency.quantile(0.5)), "ms");
        put("latency_p99", millis(latency.quantile(0.99)), "ms");
        let frames = |events: &super::Events| events.announcements + events.grafts + events.prunes;
        put("control", (frames(&events) - frames(&seen.before)) as f64 / measured.len() as f64, "");
        put("links_new", (events.links - seen.before.links) as f64, "");
        for (name, spread) in ["rmr_1", "rmr_2", "rmr_3"].into_iter().zip(&spreads) {
            put(name, redundancy(spread), "");
        }
        if setup.losses.failed > 0.0 {
            let from = spreads.len() - measured.len();
            healing(world, from, measured, &debts[from..], &mut put);
        }
    }
    put("components", graph.components.into(), "");
    put("largest", graph.largest.into(), "");
    put("one_way", graph.one_way.len() as f64, "");
    if setup.losses.any() {
        put("isolated_max", f64::from(seen.isolated_max), "s");
    }
    if setup.hostile > 0.0 {
        let (share, eclipsed) = hostile(world);
        put("hostile_share", share, "");
        put("eclipsed", f64::from(eclipsed), "");
        put("misbehaved", world.misbehaved() as f64, "");
    }
    let graph = seen.graph.as_ref().unwrap_or(graph);
    let of_degree = |degree: usize| f64::from(graph.degrees[degree]);
    let (degrees, nodes) = (0..graph.degrees.len(), f64::from(graph.nodes.max(1)));
    put("degree_min", degrees.clone().find(|degree| of_degree(*degree) > 0.0).unwrap_or(0) as f64, "");
    put("degree_mean", degrees.map(|degree| degree as f64 * of_degree(degree)).sum::<f64>() / nodes, "");
    put("full_views", graph.degrees.last().copied().map_or(0.0, f64::from) / nodes, "");
    put(if graph.clustering_exact { "clustering" } else { "clustering_sampled" }, graph.clustering, "");
    put("avg_path", graph.path_mean, "");
    put("diameter", graph.path_max.into(), "");
    let tree = tree(world);
    put("tree_pieces", f64::from(tree.pieces), "");
    put("tree_circles", f64::from(tree.circles), "");
    let contact = world.shard_of(0).contact();
    put("contact_frames", contact.frames as f64 / f64::from(setup.founders.saturating_sub(1).max(1)), "");
    put("contact_evictions", contact.evictions_max() as f64, "");
    put("deadlines", events.deadlines as f64, "");
    put("view_messages", events.topology as f64, "");
    put("payloads", events.payloads as f64, "");
    put("announcements", events.announcements as f64, "");
    put("grafts", events.grafts as f64, "");
    put("prunes", events.prunes as f64, "");
    if setup.losses.any() {
        put("crash", events.crashes as f64, "");
        put("leave", events.leaves as f64, "");
    }
    metrics
}

/// The share of hostile nodes among the neighbors of all others, and how many of those have no other neighbors.
fn hostile(world: &World) -> (f64, u32) {
    let (mut links, mut to_hostile, mut eclipsed) = (0_u64, 0_u64, 0);
    for node in (0..world.setup.nodes).filter(|node| world.is_alive(*node) && !world.setup.is_hostile(*node)) {
        let view = world.shard_of(node).neighbors(node);
        let count = view.iter().filter(|peer| world.setup.is_hostile(**peer)).count();
        links += view.len() as u64;
        to_hostile += count as u64;
        eclipsed += u32::from(count == view.len() && count > 0);
    }
    (to_hostile as f64 / links.max(1) as f64, eclipsed)
}

/// The links of the tree: those that are eager on both sides.
#[derive(Clone, Copy, Debug, Default)]
struct Tree {
    /// Nodes that live and are connected by them form so many pieces.
    pieces: u32,
    /// Links that could go without a piece falling apart.
    circles: u32,
}

fn tree(world: &World) -> Tree {
    // By node, another one of its piece that is nearer to the one that stands for all; see any book under union and find.
    let mut towards: Vec<u32> = (0..world.setup.nodes).collect();
    let find = |towards: &mut Vec<u32>, mut node: u32| {
        while towards[node as usize] != node {
            towards[node as usize] = towards[towards[node as usize] as usize];
            node = towards[node as usize];
        }
        node
    };
    let mut tree = Tree { pieces: world.living() as u32, circles: 0 };
    for node in (0..world.setup.nodes).filter(|node| world.is_alive(*node)) {
        for peer in world.shard_of(node).eager(node).filter(|peer| *peer > node && world.is_alive(*peer)) {
            if world.shard_of(peer).eager(peer).any(|other| other == node) {
                let (one, other) = (find(&mut towards, node), find(&mut towards, peer));
                towards[one as usize] = other;
                if one == other { tree.circles += 1 } else { tree.pieces -= 1 }
            }
        }
    }
    tree
}

fn redundancy(spread: &Spread) -> f64 {
    spread.payloads as f64 / (spread.delivered.max(1)) as f64 - 1.0
}

/// What became of the broadcasts after many nodes had crashed at once.
fn healing(world: &World, from: usize, spreads: &[Spread], debts: &[Debt], put: &mut dyn FnMut(&'static str, f64, &'static str)) {
    let setup = &world.setup;
    let share = |had: u64, debt: &Debt| had as f64 / debt.owed.max(1) as f64;
    if let (Some(first), Some(debt)) = (spreads.first(), debts.first()) {
        put("first_1s", share(first.in_a_second, debt), "");
        put("first_10s", share(first.in_ten_seconds, debt), "");
    }
    let at_once: Vec<bool> = spreads.iter().zip(debts).map(|(spread, debt)| share(spread.in_a_second, debt) >= ALL).collect();
    let reliability: f64 = spreads.iter().zip(debts).map(|(spread, debt)| share(spread.in_a_second, debt)).sum();
    put("delivery_1s", reliability / spreads.len() as f64, "");
    // From then on every broadcast reached everybody within a second.
    let healed = at_once.iter().rposition(|all| !all).map_or(0, |last| last + 1);
    let begins = setup.measured_from();
    let healed_at = setup.sent_at((from + healed) as u32);
    put("healed", (healed_at - begins) as f64 / SECOND as f64, "s");
    // Membership cycles until then: periods of the shuffle that had begun.
    let cycle = setup.hyparview.shuffle_period.as_micros() as u64;
    put("healed_cycles", (healed_at - begins).div_ceil(cycle.max(1)) as f64, "");
}
