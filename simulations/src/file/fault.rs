//! The faults that a file can have, and what each puts into the schedule.

use crate::plan::{Draw, Plan, SECOND};
use crate::schedule::{Aim, DELAY_MAX, DRIFT_MAX, FRAMES_MAX, Happening, JUMP_MAX, LOSS_MAX};
use crate::settings::{Key, SettingError, Settings, Type};

/// A kind of fault.
#[derive(Debug)]
pub struct Kind {
    /// What is typed after `kind =`.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Whether it can be told which nodes it is for.
    pub has_nodes: bool,
    /// What can be set beside that, with the defaults.
    pub keys: &'static [(&'static str, &'static str)],
    put: fn(&mut Maker<'_>),
}

const DAY: u64 = 86_400 * SECOND;

/// What can be set in faults. How they are repeated stands last.
const KEYS: &[Key] = &[
    Key { name: "at", of: Type::Time(0, DAY), about: "when" },
    Key { name: "for", of: Type::Time(1, DAY), about: "how long" },
    Key { name: "over", of: Type::Time(0, DAY), about: "the nodes in turn at random moments of this time" },
    Key {
        name: "back",
        of: Type::Time(0, DAY),
        about: "how long after it a node starts again, after a goodbye more than the second that it takes; 0 for never",
    },
    Key {
        name: "remembers",
        of: Type::Choice(&["true", "false"]),
        about: "whether it still has its data folder, and asks the peers that it knew",
    },
    Key {
        name: "disk",
        of: Type::Choice(&["lost", "kept"]),
        about: "whether its replicated state is still there: what it had synced, and after a crash some of the rest",
    },
    Key { name: "moved", of: Type::Choice(&["true", "false"]), about: "whether it starts again at another address" },
    Key { name: "by", of: Type::Time(1, DELAY_MAX), about: "what a node takes for each input" },
    Key { name: "loss", of: Type::Share(LOSS_MAX as f64 / 1_000.0), about: "the share of packets that are lost" },
    Key { name: "late", of: Type::Time(0, DELAY_MAX), about: "how much longer packets take" },
    Key { name: "groups", of: Type::Count(2, 1_000), about: "how many groups of about the same size, unless nodes say who is on one side" },
    Key { name: "bridges", of: Type::Count(0, 1_000), about: "nodes that reach all groups" },
    Key {
        name: "one-way",
        of: Type::Choice(&["true", "false"]),
        about: "whether only what goes from an earlier group to a later one is lost",
    },
    Key { name: "jump", of: Type::Time(0, JUMP_MAX), about: "by how much the wall clock is set ahead" },
    Key { name: "behind", of: Type::Choice(&["true", "false"]), about: "whether it is set back and goes slower instead" },
    Key { name: "drift", of: Type::Count(0, DRIFT_MAX as u64), about: "by how many millionths it goes too fast from then on" },
    Key { name: "frames", of: Type::Count(1, FRAMES_MAX as u64), about: "what a hostile node sends to each of its peers" },
    Key {
        name: "aim",
        of: Type::Choice(&["degree", "articulation"]),
        about: "the nodes with the most neighbors, or those on whom the overlay hangs",
    },
    Key { name: "count", of: Type::Count(1, 10_000), about: "how many" },
    Key { name: "up", of: Type::Time(SECOND / 10, DAY), about: "how long a node lives in the mean" },
    Key { name: "down", of: Type::Time(SECOND / 10, DAY), about: "how long it is gone in the mean" },
    Key { name: "every", of: Type::Time(1, DAY), about: "the time from one time to the next, when it happens several times" },
    Key { name: "times", of: Type::Count(1, 10_000), about: "how often" },
];

/// Every kind, by name.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "crash",
        about: "nodes stop without a word, and may start again with an empty memory, or with what is on their disks",
        has_nodes: true,
        keys: &[
            ("at", "0s"),
            ("over", "0s"),
            ("back", "0s"),
            ("moved", "false"),
            ("remembers", "false"),
            ("disk", "lost"),
            ("every", "10s"),
            ("times", "1"),
        ],
        put: |maker| {
            let disk = maker.word("disk") == "kept";
            let (back, moved, remembers) = (maker.number("back"), maker.word("moved") == "true", maker.word("remembers") == "true");
            for node in maker.mortal() {
                let at = maker.moment();
                maker.push(at, Happening::Crash { node });
                if back > 0 {
                    maker.push(at + back, Happening::Restart { node, contacts: vec![0, 1], moved, remembers, disk });
                }
            }
        },
    },
    Kind {
        name: "churn",
        about: "nodes crash and start again, over and over; how long they live and are gone is drawn",
        has_nodes: true,
        keys: &[("at", "0s"), ("for", "60s"), ("up", "30s"), ("down", "10s"), ("disk", "lost")],
        put: |maker| {
            let disk = maker.word("disk") == "kept";
            let end = maker.at + maker.number("for");
            let (up, down) = (maker.number("up"), maker.number("down"));
            for node in maker.mortal() {
                let mut at = maker.at + maker.exponential(up);
                while at < end {
                    maker.push(at, Happening::Crash { node });
                    let back = at + maker.exponential(down);
                    maker.push(back, Happening::Restart { node, contacts: vec![0, 1], moved: false, remembers: false, disk });
                    at = back + maker.exponential(up);
                }
            }
        },
    },
    Kind {
        name: "crowd",
        about: "nodes come in at this time and not with the others",
        has_nodes: true,
        keys: &[("at", "0s"), ("over", "0s")],
        put: |maker| {
            for node in maker.mortal() {
                let at = maker.moment().max(1);
                let starts = |what: &Happening| matches!(what, Happening::Start { node: started, .. } if *started == node);
                let mut found = None;
                maker.plan.schedule.retain(|entry| {
                    if starts(&entry.what) {
                        found = Some(entry.what.clone());
                    }
                    !starts(&entry.what)
                });
                if let Some(Happening::Start { node, .. }) = found {
                    maker.push(at, Happening::Start { node, contacts: vec![0, 1] });
                }
            }
        },
    },
    Kind {
        name: "leave",
        about: "nodes say goodbye and stop a second later, and may start again; then all that they did was synced",
        has_nodes: true,
        keys: &[("at", "0s"), ("over", "0s"), ("back", "0s"), ("disk", "lost"), ("every", "10s"), ("times", "1")],
        put: |maker| {
            let (back, disk) = (maker.number("back"), maker.word("disk") == "kept");
            for node in maker.mortal() {
                let at = maker.moment();
                maker.push(at, Happening::Leave { node });
                if back > 0 {
                    maker.push(at + back, Happening::Restart { node, contacts: vec![0, 1], moved: false, remembers: false, disk });
                }
            }
        },
    },
    Kind {
        name: "strike",
        about: "the nodes that matter most to the others crash",
        has_nodes: false,
        keys: &[("at", "0s"), ("aim", "degree"), ("count", "1"), ("every", "10s"), ("times", "1")],
        put: |maker| {
            let aim = if maker.word("aim") == "degree" { Aim::Degree } else { Aim::Articulation };
            let count = maker.number("count") as u32;
            maker.push(maker.at, Happening::Strike { aim, count, spared: 2 });
        },
    },
    Kind {
        name: "pause",
        about: "nodes stand still, and go on with what they had in memory",
        has_nodes: true,
        keys: &[("at", "0s"), ("for", "5s"), ("over", "0s"), ("every", "10s"), ("times", "1")],
        put: |maker| {
            let micros = maker.number("for");
            for node in maker.nodes() {
                let at = maker.moment();
                maker.push(at, Happening::Pause { node, micros });
            }
        },
    },
    Kind {
        name: "slow",
        about: "nodes take their time for whatever they handle",
        has_nodes: true,
        keys: &[("at", "0s"), ("for", "10s"), ("by", "5ms"), ("every", "20s"), ("times", "1")],
        put: |maker| {
            let (until, micros) = (maker.at + maker.number("for"), maker.number("by"));
            for node in maker.nodes() {
                maker.push(maker.at, Happening::Slow { node, micros, until });
            }
        },
    },
    Kind {
        name: "break",
        about: "all connections of nodes break",
        has_nodes: true,
        keys: &[("at", "0s"), ("over", "0s"), ("every", "10s"), ("times", "1")],
        put: |maker| {
            for node in maker.nodes() {
                let at = maker.moment();
                maker.push(at, Happening::Break { node });
            }
        },
    },
    Kind {
        name: "partition",
        about: "nothing crosses from one group of nodes to another; several short ones in a row flap",
        has_nodes: true,
        keys: &[("at", "0s"), ("for", "30s"), ("groups", "2"), ("bridges", "0"), ("one-way", "false"), ("every", "60s"), ("times", "1")],
        put: |maker| {
            let (until, one_way) = (maker.at + maker.number("for"), maker.word("one-way") == "true");
            let bridges = maker.number("bridges");
            let bridges = maker.draw.take((0..maker.plan.setup.nodes).collect(), bridges);
            let groups = match maker.is_told {
                true => vec![maker.nodes()],
                false => {
                    let count = maker.number("groups");
                    let mut left: Vec<u32> = (0..maker.plan.setup.nodes).filter(|node| !bridges.contains(node)).collect();
                    let each = (left.len() as u64 / count).max(1);
                    // The last group is of those that are in no other.
                    (1..count)
                        .map(|_| {
                            let group = maker.draw.take(left.clone(), each);
                            left.retain(|node| !group.contains(node));
                            group
                        })
                        .collect()
                }
            };
            let sorted = |mut nodes: Vec<u32>| {
                nodes.sort_unstable();
                nodes
            };
            let groups = groups.into_iter().map(sorted).collect();
            maker.push(maker.at, Happening::Partition { until, groups, bridges: sorted(bridges), one_way });
        },
    },
    Kind {
        name: "clog",
        about: "whatever goes to nodes or comes from them waits until it is over",
        has_nodes: true,
        keys: &[("at", "0s"), ("for", "5s"), ("every", "20s"), ("times", "1")],
        put: |maker| {
            let (until, nodes) = (maker.at + maker.number("for"), maker.nodes());
            maker.push(maker.at, Happening::Clog { until, nodes });
        },
    },
    Kind {
        name: "swizzle",
        about: "nodes are clogged one after the other and freed in another order",
        has_nodes: true,
        keys: &[("at", "0s"), ("for", "8s"), ("every", "20s"), ("times", "1")],
        put: |maker| {
            let half = maker.number("for") / 2;
            for node in maker.nodes() {
                let from = maker.at + maker.draw.below(half);
                let until = maker.at + half + maker.draw.below(half) + 1;
                maker.push(from, Happening::Clog { until, nodes: vec![node] });
            }
        },
    },
    Kind {
        name: "weather",
        about: "more packets are lost to nodes and from them, or they take longer; to all nodes unless told which",
        has_nodes: true,
        keys: &[("at", "0s"), ("for", "10s"), ("loss", "0%"), ("late", "0s"), ("every", "20s"), ("times", "1")],
        put: |maker| {
            let (until, loss, late) = (maker.at + maker.number("for"), maker.settings.share("loss"), maker.number("late"));
            let nodes = if maker.is_told { maker.nodes() } else { Vec::new() };
            maker.push(maker.at, Happening::Weather { until, nodes, loss: (loss * 1_000.0).round() as u32, late });
        },
    },
    Kind {
        name: "clock",
        about: "the wall clocks of nodes jump, and go at another speed from then on",
        has_nodes: true,
        keys: &[("at", "0s"), ("jump", "0s"), ("behind", "false"), ("drift", "0"), ("every", "20s"), ("times", "1")],
        put: |maker| {
            let sign = if maker.word("behind") == "true" { -1 } else { 1 };
            let (jump, drift) = (sign * maker.number("jump") as i64, sign as i32 * maker.number("drift") as i32);
            for node in maker.nodes() {
                maker.push(maker.at, Happening::Clock { node, jump, drift });
            }
        },
    },
    Kind {
        name: "attack",
        about: "nodes turn hostile, send random frames to all their peers, and are gone a second later",
        has_nodes: true,
        keys: &[("at", "0s"), ("over", "0s"), ("frames", "20")],
        put: |maker| {
            let frames = maker.number("frames") as u32;
            for node in maker.mortal() {
                let at = maker.moment();
                maker.push(at, Happening::Attack { node, frames });
            }
        },
    },
];

/// Which nodes a fault is for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Select {
    /// So many, drawn.
    Count(u32),
    /// This share of all, drawn.
    Share(f64),
    /// These.
    These(Vec<u32>),
}

/// A fault as the file says it.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    kind: &'static Kind,
    pub(super) nodes: Option<Select>,
    pub(super) settings: Settings,
    /// Where it begins in the file.
    pub(super) line: usize,
}

impl Fault {
    pub(super) fn new(kind: &'static Kind, line: usize) -> Result<Self, SettingError> {
        Ok(Fault { kind, nodes: None, settings: Settings::defaults(KEYS, kind.keys)?, line })
    }

    /// Puts it into a schedule, for the seed of the plan.
    pub(super) fn put(&self, index: usize, plan: &mut Plan) -> Result<(), String> {
        let nodes = plan.setup.nodes;
        if let Some(Select::These(these)) = &self.nodes
            && let Some(none) = these.iter().find(|node| **node >= nodes)
        {
            return Err(format!("there is no node {none}; they are 0 to {}", nodes - 1));
        }
        if let Some(Select::Count(count)) = self.nodes
            && count > nodes
        {
            return Err(format!("nodes is {count}, and there are {nodes}"));
        }
        let draw = Draw::new(plan.setup.seed, &format!("fault {index} {}", self.kind.name));
        let before = plan.schedule.entries().len();
        let times = self.settings.number("times").max(1);
        let mut maker =
            Maker { plan: &mut *plan, draw, settings: &self.settings, select: &self.nodes, is_told: self.nodes.is_some(), at: 0 };
        for time in 0..times {
            maker.at = self.settings.number("at") + time * self.settings.number("every");
            (self.kind.put)(&mut maker);
        }
        if plan.schedule.entries().len() == before && self.kind.name != "crowd" && self.kind.name != "churn" {
            return Err("it is for no node".to_owned());
        }
        Ok(())
    }
}

/// A fault on its way into a schedule.
struct Maker<'a> {
    plan: &'a mut Plan,
    draw: Draw,
    settings: &'a Settings,
    select: &'a Option<Select>,
    /// Whether the file says which nodes.
    is_told: bool,
    at: u64,
}

impl Maker<'_> {
    fn number(&self, key: &str) -> u64 {
        self.settings.number(key)
    }

    fn word(&self, key: &str) -> &'static str {
        self.settings.word(key)
    }

    fn push(&mut self, at: u64, what: Happening) {
        self.plan.schedule.push(at, what);
    }

    /// The nodes that are meant, in order; one when the file does not say.
    fn nodes(&mut self) -> Vec<u32> {
        self.among(0)
    }

    /// The same, but the first two are only meant when the file names them: they are whom the others are told of.
    fn mortal(&mut self) -> Vec<u32> {
        self.among(2)
    }

    fn among(&mut self, first: u32) -> Vec<u32> {
        let all = self.plan.setup.nodes;
        let count = match self.select {
            None => 1,
            Some(Select::Count(count)) => u64::from(*count),
            Some(Select::Share(share)) => (share * f64::from(all)).round() as u64,
            Some(Select::These(these)) => return these.clone(),
        };
        let mut nodes = self.draw.take((first..all).collect(), count);
        nodes.sort_unstable();
        nodes
    }

    /// A moment for one of the nodes.
    fn moment(&mut self) -> u64 {
        match self.settings.number("over") {
            0 => self.at,
            over => self.at + self.draw.below(over),
        }
    }

    /// A time with this mean, as they lie between events that happen at random: an exponential variate from comparisons alone (von Neumann, *Various techniques used in
    /// connection with random digits*, 1951), so that all machines agree.
    fn exponential(&mut self, mean: u64) -> u64 {
        const ONE: u64 = 1 << 32;
        for whole in 0..64 {
            let first = self.draw.below(ONE);
            let (mut last, mut falling) = (first, 1);
            loop {
                let next = self.draw.below(ONE);
                if next >= last {
                    break;
                }
                (last, falling) = (next, falling + 1);
            }
            if falling % 2 == 1 {
                let micros = ((u128::from(whole * ONE + first) * u128::from(mean)) >> 32) as u64;
                return micros.clamp(1, DAY);
            }
        }
        DAY
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm;

    #[test]
    fn exponential_times_have_their_mean_and_no_memory() {
        let mut plan = swarm::plan(1);
        let settings = Settings::defaults(KEYS, &[]).unwrap();
        let draw = Draw::new(1, "test");
        let mut maker = Maker { plan: &mut plan, draw, settings: &settings, select: &None, is_told: false, at: 0 };
        let times: Vec<u64> = (0..20_000).map(|_| maker.exponential(SECOND)).collect();
        let mean = times.iter().sum::<u64>() / times.len() as u64;
        assert!((970_000..1_030_000).contains(&mean), "{mean}");
        for (seconds, share) in [(1, 0.3679), (2, 0.1353), (3, 0.0498)] {
            let longer = times.iter().filter(|time| **time > seconds * SECOND).count() as f64 / times.len() as f64;
            assert!((longer - share).abs() < 0.012, "{longer} last longer than {seconds} means");
        }
    }
}
