//! A cluster forms, and some of its nodes broadcast.

use super::{Maker, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "broadcast",
    about: "nodes join and form, then some broadcast: every message reaches every node exactly once, at which cost and after what time",
    nodes: 50,
    seeds: 1,
    settings: &[("messages", "100")],
    make,
};

fn make(maker: &mut Maker) {
    let from = maker.join(0..maker.nodes);
    maker.broadcasts((0..maker.nodes).collect(), from);
    let work = maker.settings.number("work");
    maker.calm(from + work);
    if maker.settings.number("messages") > 0 {
        maker.expect("delivery", Some(1.0), None);
    }
}
