//! Runs of the overlay alone as people ask for them.

use std::fmt::Write as _;
use std::time::Duration;

use meshwork_overlay::{hyparview, plumtree};

use super::setup::{Attack, Entry, Losses, PAYLOAD_BYTES_MAX, Setup};
use crate::network::{Link, Model};
use crate::plan::Expectation;
use crate::settings::{SettingError, Settings};

/// The fewest nodes.
pub const NODES_MIN: u32 = 2;
/// The most nodes.
pub const NODES_MAX: u32 = 16_000_000;
/// The most threads.
pub const THREADS_MAX: u32 = 64;

/// A preset.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// What is typed to run it.
    pub name: &'static str,
    /// What it shows, in a sentence.
    pub about: &'static str,
    /// How many nodes it has unless told otherwise.
    pub nodes: u32,
    /// How many seeds it is run with unless told otherwise.
    pub seeds: u64,
    /// Whether the graph is measured when the work begins instead of at the end.
    is_measured_early: bool,
    /// Its own settings, with their defaults.
    settings: &'static [(&'static str, &'static str)],
}

/// All presets.
pub const ALL: &[Preset] = &[
    Preset {
        name: "scale",
        about: "the overlay alone, up to millions of nodes: they join at random, then some broadcast; no membership and no state",
        nodes: 10_000,
        seeds: 1,
        is_measured_early: false,
        settings: &[],
    },
    Preset {
        name: "single-sender",
        about: "nodes join one by one through one contact, then one of them broadcasts: the graph, and the tree of a single source",
        settings: &[],
        ..PAPER
    },
    Preset {
        name: "rotating-senders",
        about: "the same with another sender for each broadcast: what a tree is worth that all share",
        settings: &[("senders", "1000000")],
        ..PAPER
    },
    Preset {
        name: "all-send",
        about: "all nodes broadcast at the same moment, once a second",
        nodes: 100,
        settings: &[
            ("senders", "1000000"),
            ("volley", "100"),
            ("messages", "3000"),
            ("warmup", "0"),
            ("work", "30s"),
            ("join-over", "0s"),
            ("form", "30s"),
        ],
        ..PAPER
    },
    Preset {
        name: "join-storm",
        about: "all nodes join at the same moment through one contact: the graph after ten seconds, and what broadcasts then cost",
        is_measured_early: true,
        settings: &[("join-over", "0s"), ("form", "10s"), ("senders", "1000000"), ("messages", "60"), ("warmup", "0"), ("work", "30s")],
        ..PAPER
    },
    Preset {
        name: "massive-failure",
        about: "many nodes crash at once, and those who are left broadcast from the same moment on: what arrives at once, what later, and when all is well",
        settings: &[
            ("failed", "50%"),
            ("notice", "0s"),
            ("senders", "1000000"),
            ("messages", "1050"),
            ("work", "10500ms"),
            ("shuffle", "60s"),
            ("quiet", "20s"),
        ],
        ..PAPER
    },
    Preset {
        name: "hostile-peers",
        about: "a share of the nodes name only each other, or pass nothing on: how many neighbors of the others they become, and what those miss",
        nodes: 2_000,
        settings: &[
            ("hostile", "20%"),
            ("senders", "1000000"),
            ("messages", "60"),
            ("warmup", "10"),
            ("join-over", "100s"),
            ("form", "1000s"),
            ("work", "60s"),
        ],
        ..PAPER
    },
    Preset {
        name: "churn",
        about: "nodes come and go all the time while others broadcast",
        settings: &[
            ("crash-rate", "0.05%"),
            ("notice", "0s"),
            ("senders", "1000000"),
            ("messages", "100"),
            ("warmup", "0"),
            ("work", "1000s"),
            ("quiet", "20s"),
        ],
        ..PAPER
    },
];

/// What the scenarios of the papers have in common.
const PAPER: Preset = Preset { name: "", about: "", nodes: 10_000, seeds: 5, is_measured_early: false, settings: &[] };

/// The settings that all have, with the defaults of `scale`.
const COMMON: &[(&str, &str)] = &[
    ("protocol", "ours"),
    ("without", "nothing"),
    ("links", "15ms..45ms"),
    ("loss", "0%"),
    ("active", "6"),
    ("passive", "30"),
    ("shuffle", "10s"),
    ("threshold", "0"),
    ("flood", "4"),
    ("retention", "10s"),
    ("entry", "anyone"),
    ("contacts", "1"),
    ("join-over", "20s"),
    ("form", "5s"),
    ("work", "20s"),
    ("messages", "30"),
    ("warmup", "0"),
    ("volley", "1"),
    ("senders", "10"),
    ("payload", "256"),
    ("hostile", "0%"),
    ("attack", "collude"),
    ("crashed", "0%"),
    ("failed", "0%"),
    ("crash-rate", "0%"),
    ("leave-rate", "0%"),
    ("join-rate", "0%"),
    ("notice", "10s"),
    ("quiet", "5s"),
];

/// Over them, those of the scenarios of the papers: views, links and entry as published (HyParView, DSN 2007, section 5.1; iroh-gossip, `simulations/all.toml`).
const OF_PAPERS: &[(&str, &str)] = &[
    ("links", "10ms..50ms"),
    ("active", "5"),
    ("retention", "30s"),
    ("entry", "contacts"),
    ("join-over", "500s"),
    ("form", "60s"),
    ("work", "50s"),
    ("messages", "250"),
    ("warmup", "50"),
    ("senders", "1"),
    ("quiet", "10s"),
];

impl Preset {
    /// The preset with this name.
    pub fn named(name: &str) -> Option<&'static Preset> {
        ALL.iter().find(|preset| preset.name == name)
    }

    /// Its settings with their defaults.
    pub fn defaults(&self) -> Vec<(&'static str, &'static str)> {
        let of_papers = if self.seeds == PAPER.seeds { OF_PAPERS } else { &[] };
        let find = |list: &[(&'static str, &'static str)], key: &str| list.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        let value = |key, default| find(self.settings, key).or_else(|| find(of_papers, key)).unwrap_or(default);
        COMMON.iter().map(|(key, default)| (*key, value(key, default))).collect()
    }

    /// The plan for a number of nodes, a seed, a number of threads and what was typed as `key=value`.
    ///
    /// # Errors
    ///
    /// What cannot be used, in words.
    pub fn plan(&self, nodes: u32, seed: u64, threads: u32, typed: &[String]) -> Result<Plan, SettingError> {
        let settings = Settings::new(&self.defaults(), typed)?;
        let mut replay = format!("meshwork-sim run {} --nodes {nodes} --seed {seed}", self.name);
        for assignment in typed {
            let _ = write!(replay, " --set {assignment}");
        }
        let number = |key| settings.number(key);
        let micros = |key| Duration::from_micros(number(key));
        let wrong = |error: &dyn std::fmt::Display| SettingError::new(error.to_string());
        let is_reference = settings.word("protocol") == "paper";
        let (views, trees) = match is_reference {
            true => (hyparview::Config::paper(), plumtree::Config::paper()),
            false => (hyparview::Config::default(), plumtree::Config::default()),
        };
        // The name of one improvement of either core, or a word that names none.
        let without = settings.word("without");
        if without != "nothing" && without.parse::<hyparview::Improvement>().is_err() && without.parse::<plumtree::Improvement>().is_err() {
            return Err(SettingError::new(format!(
                "without: `{without}` is a matter of the membership, which has no part in this scenario"
            )));
        }
        let active = number("active") as usize;
        let hyparview = hyparview::Config {
            active_len_max: active,
            active_len_min: views.active_len_min.min(active),
            passive_len_max: number("passive") as usize,
            shuffle_period: micros("shuffle"),
            retry_period: if is_reference { micros("shuffle") } else { views.retry_period },
            rejoin_period_max: if is_reference { micros("shuffle") } else { views.rejoin_period_max },
            without: views.without.iter().copied().chain(without.parse()).collect(),
            ..views
        };
        let threshold = u16::try_from(number("threshold")).ok().filter(|threshold| *threshold > 0);
        let plumtree = plumtree::Config {
            payload_retention: micros("retention"),
            optimization_threshold: threshold,
            flood_len: number("flood") as u8,
            without: trees.without.iter().copied().chain(without.parse()).collect(),
            ..trees
        };
        let (min, max) = settings.span("links");
        // Between a half and one and a half of a mean is the model of every other scenario.
        let model = if max == 3 * min { Model::Pair } else { Model::Uniform { min, max } };
        let link = Link { latency: min.midpoint(max), jitter: 0, loss: settings.share("loss") };
        let entry = match settings.word("entry") {
            "contacts" => Entry::Contacts(number("contacts") as u32),
            _ => Entry::Anyone,
        };
        let hyparview = hyparview.build().map_err(|error| wrong(&error))?;
        let plumtree = plumtree.build().map_err(|error| wrong(&error))?;
        let mut setup = Setup::new(seed, nodes, threads, link, model, hyparview, plumtree, entry);
        setup.join_over = number("join-over");
        setup.form = number("form");
        setup.messages = number("messages") as u32;
        setup.warmup = number("warmup") as u32;
        setup.volley = (number("volley") as u32).min(nodes);
        setup.senders = number("senders") as u32;
        setup.work = number("work");
        setup.losses = Losses {
            crashed: settings.share_of("crashed", nodes),
            failed: settings.share("failed"),
            crash_rate: settings.share("crash-rate"),
            leave_rate: settings.share("leave-rate"),
            join_rate: settings.share("join-rate"),
            notice: number("notice"),
        };
        setup.hostile = settings.share("hostile");
        setup.attack = if settings.word("attack") == "ride" { Attack::Ride } else { Attack::Collude };
        setup.quiet = number("quiet");
        setup.payload_bytes = (number("payload") as usize).min(PAYLOAD_BYTES_MAX);
        setup.is_measured_early = self.is_measured_early;
        if setup.warmup > 0 && setup.warmup >= setup.messages {
            setup.warmup = 0;
        }
        let setup = setup.with_latecomers();
        if !(NODES_MIN..=NODES_MAX).contains(&setup.nodes) {
            return Err(SettingError::new(format!("nodes: {} is not a number from {NODES_MIN} to {NODES_MAX}", setup.nodes)));
        }
        Ok(Plan { name: self.name.to_owned(), setup: setup.decided(), replay, is_reference, expectations: Vec::new() })
    }
}

/// A run that was planned.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What people call it.
    pub name: String,
    /// What it is made of.
    pub setup: Setup,
    /// What is typed to see it again.
    pub replay: String,
    /// Whether the protocols are those of the papers, of which only what they promise is asked.
    pub is_reference: bool,
    /// What it must show beyond the invariants.
    pub expectations: Vec<Expectation>,
}

impl Plan {
    /// What it is, in a line.
    pub fn describe(&self) -> String {
        let Setup { founders, nodes, link, model, messages, senders, hyparview, losses, hostile, .. } = &self.setup;
        let millis = |micros: u64| micros as f64 / 1e3;
        let links = match model {
            Model::Uniform { min, max } => format!("{:.1} to {:.1} ms", millis(*min), millis(*max)),
            _ => format!("{:.1} ms", millis(link.latency)),
        };
        let mut text = format!(
            "{founders} nodes, {} neighbors and {} more; {links}; {messages} broadcast by {} in turn",
            hyparview.active_len_max,
            hyparview.passive_len_max,
            senders.min(nodes)
        );
        for (share, what) in [
            (link.loss, "of the packets lost"),
            (*hostile, "hostile"),
            (losses.crashed, "crash meanwhile"),
            (losses.failed, "crash at once"),
            (losses.crash_rate, "crash each second"),
            (losses.leave_rate, "leave each second"),
            (losses.join_rate, "come each second"),
        ] {
            if share > 0.0 {
                let _ = write!(text, "; {} % {what}", (share * 1e4).round() / 100.0);
            }
        }
        let protocol = if self.is_reference { ", by the papers" } else { "" };
        format!("{text}; the overlay alone{protocol}")
    }

    /// What it will take of memory, in bytes, about: what was measured for the defaults, and what is known of the sizes of what differs.
    pub fn bytes(&self) -> u64 {
        let Setup { nodes, messages, senders, hyparview, work, plumtree, .. } = &self.setup;
        let retention = plumtree.config().payload_retention.as_micros() as u64;
        let held = u64::from(*messages) * retention.min(*work) / work.max(&1);
        let streams = u64::from(*senders.min(messages));
        let views = 252 * hyparview.active_len_max as u64 + 7 * hyparview.passive_len_max as u64;
        let delivered = u64::from(*messages).div_ceil(64) * 8;
        BYTES_OF_PROCESS + u64::from(*nodes) * (BYTES_PER_NODE + delivered + views + BYTES_PER_HELD * held + BYTES_PER_STREAM * streams)
    }
}

/// What so many nodes take with the settings of `scale`.
pub fn bytes(nodes: u32) -> u64 {
    ALL.first().and_then(|scale| scale.plan(nodes.clamp(NODES_MIN, NODES_MAX), 0, 1, &[]).ok()).map_or(0, |plan| plan.bytes())
}

/// What a run takes without nodes.
const BYTES_OF_PROCESS: u64 = 18_000_000;
/// What a node takes without its views and without messages, events under way included.
const BYTES_PER_NODE: u64 = 1_200;
/// What a payload that a node holds takes of it.
const BYTES_PER_HELD: u64 = 80;
/// What a node remembers of each origin.
const BYTES_PER_STREAM: u64 = 85;
