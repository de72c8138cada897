//! Nodes that are away for longer than anybody waits for them, while the others remove much, and what they bring when they are back.

use super::{Maker, Scenario};
use crate::plan::SECOND;
use crate::schedule::Happening;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "state-away",
    about: "all write keys of every kind; then some crash and others are cut off, for longer than anybody waits, while all but the crashed go on to write and to remove; the crashed come back with \
            their disks: in the end nothing that was removed is back, and what was written in the meantime is there",
    nodes: 20,
    seeds: 1,
    settings: &[
        ("away", "20%"),
        ("gone", "180s"),
        ("collect-after", "12s"),
        ("absent", "60s"),
        ("retention", "10s"),
        ("kinds", "all"),
        ("writes", "200"),
        ("keys", "60"),
        ("messages", "0"),
    ],
    make,
};

/// From the last writes of all until some go away: until then whoever goes must know that the others hold what it wrote, or it keeps that for its own.
const TOGETHER: u64 = 120 * SECOND;

fn make(maker: &mut Maker) {
    let from = maker.join(0..maker.nodes);
    let all: Vec<u32> = (0..maker.nodes).collect();
    maker.writes(&all, from);
    let (work, gone) = (maker.settings.number("work"), maker.settings.number("gone"));
    let leaving = from + work + TOGETHER;
    let count = maker.settings.part("away", maker.nodes).max(2);
    let mut cut_off = maker.draw.take(all.iter().copied().filter(|node| *node >= 2).collect(), count);
    let crashed = cut_off.split_off(cut_off.len() / 2);
    cut_off.sort_unstable();
    // Of three nodes one alone can be away.
    if !cut_off.is_empty() {
        maker.push(leaving, Happening::cut(leaving + gone, cut_off.clone()));
        maker.require("partition", 1);
    }
    for node in &crashed {
        maker.push(leaving, Happening::Crash { node: *node });
        let back = Happening::Restart { node: *node, contacts: vec![0, 1], moved: false, remembers: false, disk: true };
        maker.push(leaving + gone, back);
    }
    maker.require("restored", crashed.len() as u64);
    let staying: Vec<u32> = all.into_iter().filter(|node| !cut_off.contains(node) && !crashed.contains(node)).collect();
    maker.writes(&staying, leaving + SECOND);
    let before = maker.plan.schedule.entries().len();
    maker.writes(&cut_off, leaving + SECOND);
    // Under keys of their own: of one that others removed meanwhile nobody could know any more whether it is to stay.
    let keys = maker.settings.number("keys") as u32;
    let mut index = 0;
    maker.plan.schedule.retain(|entry| {
        index += 1;
        match &mut entry.what {
            _ if index <= before => {}
            Happening::Write { key, .. } | Happening::Remove { key, .. } => *key += keys,
            Happening::Change { changes, .. } => changes.iter_mut().for_each(|change| change.place.key += keys),
            _ => {}
        }
        true
    });
    maker.calm(leaving + gone);
    if maker.settings.number("writes") > 0 {
        maker.expect("collected", Some(1.0 / f64::from(maker.nodes)), None);
        maker.expect("given_up", Some(1.0), None);
    }
}
