//! Two halves that were apart for longer than any connection lives, and what was sent meanwhile.

use super::{Maker, Scenario, partition};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "partition-heal",
    about: "half of the cluster is cut off for two minutes while both halves broadcast: how soon is it one again, and has everybody everything",
    nodes: 200,
    seeds: 5,
    settings: &[
        ("side", "50%"),
        ("cut", "120s"),
        ("work", "120s"),
        ("messages", "120"),
        ("senders", "20"),
        ("retention", "240s"),
        ("writes", "0"),
    ],
    make,
};

fn make(maker: &mut Maker) {
    partition::cut_in_two(maker);
    maker.expect("reunited", None, Some(15.0));
    maker.expect("settled", None, Some(30.0));
}
