//! Random nodes write keys of every kind over links that lose much, while nodes crash, come back with nothing, join late and lose their connections.

use super::{Maker, Scenario};
use crate::plan::{self, Draw, Join, SECOND};
use crate::schedule::Happening;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "state",
    about: "random nodes write keys of every kind over lossy links, nodes crash and come back, some join late and connections break: in the end all replicas are \
            equal and nothing is lost or back",
    nodes: 20,
    seeds: 1,
    settings: &[
        ("loss", "5%"),
        ("kinds", "all"),
        ("writes", "200"),
        ("keys", "60"),
        ("late", "20%"),
        ("breaks", "3"),
        ("churn", "1%"),
        ("gone", "5s"),
        ("restart-disk", "0%"),
        ("messages", "0"),
    ],
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
    churn(maker, &writers, from, work);
    maker.calm(from + work);
    if maker.settings.number("writes") > 0 {
        maker.expect("keys", Some(1.0), None);
        maker.expect("state_equal", None, Some(10.0));
    }
}

/// Writers crash all the time, at equal distances, and start again with nothing, unless they keep their disks: at another address, or with the peers that they knew, or neither. The first two stay, for whoever
/// comes back to find.
fn churn(maker: &mut Maker, writers: &[u32], from: u64, work: u64) {
    let kept = maker.settings.share("restart-disk");
    let disks = &mut Draw::new(maker.plan.setup.seed, "disks");
    let (share, gone) = (maker.settings.share("churn"), maker.settings.number("gone"));
    let minutes = work as f64 / 60e6;
    let count = (share * minutes * writers.len() as f64).ceil() as u64;
    let victims = maker.draw.take(writers.iter().copied().filter(|node| *node >= 2).collect(), count);
    let gap = work / (victims.len() as u64).max(1);
    for (index, node) in victims.iter().copied().enumerate() {
        let at = from + index as u64 * gap + maker.draw.below(gap);
        maker.push(at, Happening::Crash { node });
        let disk = disks.chance((kept * 100.0).round() as u64);
        let back = at + gone / 2 + maker.draw.below(gone.max(SECOND / 10));
        maker.push(back, Happening::Restart { node, contacts: vec![0, 1], moved: index % 3 == 1, remembers: index % 3 == 2, disk });
    }
    maker.require("crash", (victims.len() as u64).min(1));
    maker.require("restart", (victims.len() as u64).min(1));
    let keeps = maker.plan.schedule.entries().iter().filter(|entry| entry.what.keeps_disk()).count();
    maker.require("restored", (keeps as u64).min(1));
}
