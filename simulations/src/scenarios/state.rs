//! Random nodes write replicated keys, others join when half of it is done, and connections break meanwhile.

use super::{Maker, Scenario};
use crate::plan::{self, Join};
use crate::schedule::Happening;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "state",
    about: "random nodes write keys over lossy links, some nodes join late and connections break: in the end all replicas are equal",
    nodes: 20,
    seeds: 1,
    settings: &[("loss", "5%"), ("writes", "200"), ("keys", "60"), ("late", "20%"), ("breaks", "3"), ("messages", "0")],
    make,
};

fn make(maker: &mut Maker) {
    let late = maker.settings.part("late", maker.nodes).min(u64::from(maker.nodes) - 2) as u32;
    let early = maker.nodes - late;
    let from = maker.join(0..early);
    let work = maker.settings.number("work");
    let writers: Vec<u32> = (0..early).collect();
    maker.writes(&writers, from);
    maker.broadcasts(writers.clone(), from);
    plan::join(&mut maker.plan.schedule, &mut maker.draw, early..maker.nodes, Join::Staggered, from + work / 2, work / 4);
    maker.require("start", u64::from(maker.nodes));
    for _ in 0..maker.settings.number("breaks") {
        let node = maker.draw.pick(&writers).copied().unwrap_or(0);
        let at = from + maker.draw.below(work);
        maker.push(at, Happening::Break { node });
    }
    maker.require("break", maker.settings.number("breaks").min(1));
    maker.calm(from + work);
    if maker.settings.number("writes") > 0 {
        maker.expect("keys", Some(1.0), None);
    }
}
