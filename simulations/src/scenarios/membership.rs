//! Nodes start within a second through one of them, and then whatever membership is measured by happens to them.
//!
//! Everything can be switched on by itself, or with the rest: newcomers, crashes and restarts, freezes, a partition; beside loss, which every preset has.

use super::{Maker, Scenario};
use crate::plan::SECOND;
use crate::schedule::Happening;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "membership",
    about: "nodes start within a second through one of them; then some crash, come back, come late, freeze again and again or are cut off: how soon is that known to all, and who is wrongly held for dead",
    nodes: 100,
    seeds: 5,
    settings: &[
        ("network", "uniform"),
        ("latency-min", "300us"),
        ("latency-max", "1ms"),
        ("jitter", "100us"),
        ("join", "through-one"),
        ("join-over", "1s"),
        ("form", "15s"),
        ("messages", "0"),
        ("newcomers", "0"),
        ("crashed", "1"),
        ("restarted", "0%"),
        ("moved", "50%"),
        ("gone", "3s"),
        ("slow", "0"),
        ("freeze", "4s"),
        ("awake", "500ms"),
        ("side", "0%"),
        ("cut", "60s"),
        ("work", "20s"),
        ("quiet", "5s"),
    ],
    make,
};

fn make(maker: &mut Maker) {
    let number = |maker: &Maker, key| maker.settings.number(key);
    // Somebody must be there for the others to come through.
    let newcomers = (number(maker, "newcomers") as u32).min(maker.nodes - 2);
    let old = maker.nodes - newcomers;
    let from = maker.join(0..old);
    let (work, gone) = (number(maker, "work"), number(maker, "gone"));
    let mut until = from;

    for index in 0..newcomers {
        // At another moment of every period, and through another member.
        let at = from + u64::from(index) * 2 * SECOND + maker.draw.below(SECOND);
        let contact = maker.draw.below(u64::from(old)) as u32;
        maker.push(at, Happening::Start { node: old + index, contacts: vec![contact] });
        until = until.max(at + 10 * SECOND);
    }

    // Two nodes stay, for whoever comes back to find; whoever is slow does not crash.
    let mut mortal: Vec<u32> = (2..old).collect();
    let crashed = maker.draw.take(mortal.clone(), maker.settings.part("crashed", maker.nodes));
    mortal.retain(|node| !crashed.contains(node));
    let restarted = (maker.settings.share("restarted") * crashed.len() as f64).round() as usize;
    let moved = (maker.settings.share("moved") * restarted as f64).round() as usize;
    // Late enough for a newcomer to be known.
    let at = until + maker.draw.below(SECOND);
    for (index, node) in crashed.iter().copied().enumerate() {
        maker.push(at, Happening::Crash { node });
        if index < restarted {
            maker.push(at + gone, Happening::Restart { node, contacts: vec![0, 1], moved: index < moved, remembers: false, disk: false });
        }
    }
    maker.require("crash", crashed.len() as u64);
    maker.require("restart", restarted as u64);

    let slow = maker.draw.take(mortal, maker.settings.part("slow", maker.nodes));
    let (freeze, awake) = (number(maker, "freeze"), number(maker, "awake"));
    for node in slow.iter().copied() {
        let mut at = from + maker.draw.below(freeze + awake);
        while at + freeze <= from + work {
            maker.push(at, Happening::Pause { node, micros: freeze });
            at += freeze + awake;
        }
    }
    maker.require("pause", slow.len() as u64);

    let size = maker.settings.part("side", old);
    if size > 0 {
        let mut side = maker.draw.take((0..old).collect(), size);
        side.sort_unstable();
        let at = until + SECOND;
        until = at + number(maker, "cut");
        maker.push(at, Happening::cut(until, side));
        maker.require("partition", 1);
    }

    maker.calm((from + work).max(until));
    maker.expect("views_complete", None, Some(60.0));
    if !crashed.is_empty() && restarted == 0 && slow.is_empty() && size == 0 {
        maker.expect("detection_max", None, Some(60.0));
    }
    if size > 0 {
        maker.expect("heal", None, Some(60.0));
    }
}
