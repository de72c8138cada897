//! Writes of registers over a whole network, for what they cost on the wire: the difference from the same run without them.

use super::{Maker, Scenario};
use crate::schedule::Happening;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "state-cost",
    about: "nodes write registers one by one, or several at the same moment: by how much more does every node send than with `writes=0`?",
    nodes: 50,
    seeds: 1,
    settings: &[("writes", "200"), ("volley", "1"), ("value", "118"), ("work", "60s"), ("messages", "0")],
    make,
};

/// Keys have six letters up to the last of these: `key-10`, and up to `key-99`. So with a value of 118 bytes a key and its value have 124, as one of 24 and one of 100 bytes.
const FIRST_KEY: u64 = 10;
const KEYS: u64 = 90;

fn make(maker: &mut Maker) {
    let from = maker.join(0..maker.nodes);
    let (writes, volley, work) = (maker.settings.number("writes"), maker.settings.number("volley"), maker.settings.number("work"));
    maker.plan.setup.value_bytes = maker.settings.number("value") as usize;
    let nodes: Vec<u32> = (0..maker.nodes).collect();
    let gap = work / writes.div_ceil(volley).max(1);
    for first in (0..writes).step_by(volley as usize) {
        let at = from + first / volley * gap + maker.draw.below(gap);
        let node = maker.draw.pick(&nodes).copied().unwrap_or(0);
        for write in first..writes.min(first + volley) {
            maker.push(at, Happening::Write { node, key: (FIRST_KEY + write % KEYS) as u32, write: write as u32 });
        }
    }
    maker.require("write", writes.min(1));
    maker.calm(from + work);
    if writes > 0 {
        maker.expect("state_equal", None, Some(10.0));
    }
}
