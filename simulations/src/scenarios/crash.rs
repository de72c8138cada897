//! Some nodes crash while others broadcast; some of them come back.

use super::{Maker, Scenario};
use crate::plan::SECOND;
use crate::schedule::Happening;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "crash",
    about: "a share of the nodes crash while others broadcast, and some start again: survivors miss nothing and find out who is gone",
    nodes: 30,
    seeds: 1,
    settings: &[("crashed", "20%"), ("restarted", "50%"), ("work", "30s"), ("messages", "60"), ("writes", "60"), ("keys", "30")],
    make,
};

fn make(maker: &mut Maker) {
    let from = maker.join(0..maker.nodes);
    let work = maker.settings.number("work");
    let all: Vec<u32> = (0..maker.nodes).collect();
    // Two nodes stay, for whoever comes back to find.
    let crashed = maker.draw.take((2..maker.nodes).collect(), maker.settings.part("crashed", maker.nodes).max(1));
    let restarted = (maker.settings.share("restarted") * crashed.len() as f64) as usize;
    maker.broadcasts(all.clone(), from);
    maker.writes(&all, from);
    for (index, node) in crashed.iter().copied().enumerate() {
        let at = from + maker.draw.between(work / 10, work / 2);
        maker.push(at, Happening::Crash { node });
        if index < restarted {
            // From at once, when nobody has noticed yet, to long after everybody has.
            let back = at + maker.draw.between(SECOND / 2, 40 * SECOND);
            maker.push(back, Happening::Restart { node, contacts: vec![0, 1], moved: index % 2 == 1, remembers: false, disk: false });
        }
    }
    maker.require("crash", crashed.len() as u64);
    maker.require("restart", restarted as u64);
    maker.calm(from + work);
    if crashed.len() > restarted {
        maker.expect("detection_max", None, Some(60.0));
    }
}
