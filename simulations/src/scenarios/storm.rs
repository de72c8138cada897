//! All nodes come at once, through one of them.

use super::{Maker, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "storm",
    about: "all nodes start at the same moment and know one address: the cluster forms, everybody knows everybody and hears everything",
    nodes: 100,
    seeds: 1,
    settings: &[("join", "storm"), ("loss", "1%"), ("messages", "20")],
    make,
};

fn make(maker: &mut Maker) {
    let from = maker.join(0..maker.nodes);
    maker.require("start", u64::from(maker.nodes));
    maker.broadcasts((0..maker.nodes).collect(), from);
    let work = maker.settings.number("work");
    maker.calm(from + work);
    maker.expect("formed", None, Some(60.0));
}
