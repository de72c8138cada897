//! Two halves that write the same keys without hearing of each other, and how soon after that all replicas are equal.

use super::{Maker, Scenario};
use crate::plan::SECOND;
use crate::schedule::Happening;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "state-partition",
    about: "the cluster is cut into halves that write keys of every kind, as many on each side: how soon after that are all replicas equal, and what did the repair cost",
    nodes: 20,
    seeds: 1,
    // What was broadcast during the cut shall be forgotten when it ends, so that repair has to bring it.
    settings: &[
        ("side", "50%"),
        ("cut", "60s"),
        ("retention", "10s"),
        ("kinds", "all"),
        ("writes", "200"),
        ("keys", "300"),
        ("messages", "0"),
    ],
    make,
};

fn make(maker: &mut Maker) {
    let from = maker.join(0..maker.nodes);
    let all: Vec<u32> = (0..maker.nodes).collect();
    let size = maker.settings.part("side", maker.nodes).max(1);
    let mut side = maker.draw.take(all.clone(), size);
    side.sort_unstable();
    let other: Vec<u32> = all.into_iter().filter(|node| !side.contains(node)).collect();
    let cut = maker.settings.number("cut");
    let until = from + cut;
    maker.push(from, Happening::cut(until, side.clone()));
    maker.require("partition", 1);
    // The writes of both sides end early enough for what undoes some of them to be made before the end of the cut too, and for broadcasts of them to be forgotten.
    let room = (20 * SECOND).min(cut / 2);
    for writers in [side, other] {
        maker.writes_over(&writers, from + SECOND / 10, cut - room);
    }
    maker.calm(until);
    if maker.settings.number("writes") > 0 {
        maker.expect("state_equal", None, Some(10.0));
    }
}
