//! The cluster falls apart into two sides that go on working, and comes together again.

use super::{Maker, Scenario};
use crate::plan::SECOND;
use crate::schedule::Happening;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "partition",
    about: "the cluster is cut in two and both sides go on broadcasting and writing: once healed, all is known everywhere",
    nodes: 20,
    seeds: 1,
    settings: &[("side", "40%"), ("cut", "30s"), ("work", "30s"), ("writes", "100"), ("keys", "40"), ("messages", "40")],
    make: cut_in_two,
};

pub(super) fn cut_in_two(maker: &mut Maker) {
    let from = maker.join(0..maker.nodes);
    let all: Vec<u32> = (0..maker.nodes).collect();
    let size = maker.settings.part("side", maker.nodes).max(1);
    let mut side = maker.draw.take(all.clone(), size);
    side.sort_unstable();
    // Two seconds of work before the cut and the rest within, so that messages are under way when it comes.
    let cut_at = from + 2 * SECOND;
    let until = cut_at + maker.settings.number("cut");
    // Senders of both sides, in turn.
    let other: Vec<u32> = all.iter().filter(|node| !side.contains(node)).copied().collect();
    let mut among = Vec::new();
    for index in 0..side.len().max(other.len()) {
        among.extend(side.get(index).into_iter().chain(other.get(index)));
    }
    among.truncate(maker.settings.number("senders").max(2) as usize);
    maker.broadcasts(among, from);
    maker.writes(&all, from);
    maker.push(cut_at, Happening::cut(until, side));
    maker.require("partition", 1);
    let work = maker.settings.number("work");
    maker.calm((from + work).max(until));
}
