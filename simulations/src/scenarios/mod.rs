//! The presets: what people can run by name.
//!
//! Each makes a [`Plan`] out of its settings, a number of nodes and a seed, and ends with a phase in which the network is whole and quiet,
//! so that what must hold in the end gets the chance to.

mod broadcast;
mod crash;
mod membership;
mod partition;
mod partition_heal;
mod state;
mod state_away;
mod state_cost;
mod state_partition;
mod storm;

use crate::network::shape::{self, Shape};
use meshwork_channels::buggify::{Buggify, Sites};
use meshwork_overlay::swim::Improvement;

use crate::plan::{self, Draw, Join, Plan, SECOND, Tuning};
use crate::rare;
use crate::schedule::{Happening, Schedule};
use crate::settings::{SettingError, Settings};
use crate::world::Setup;

/// A preset.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What is typed to run it.
    pub name: &'static str,
    /// What it shows, in a sentence.
    pub about: &'static str,
    /// How many nodes it has unless told otherwise.
    pub nodes: u32,
    /// With how many seeds it is run unless told otherwise.
    pub seeds: u64,
    /// The settings that it has, with their defaults, beside the common ones.
    settings: &'static [(&'static str, &'static str)],
    make: fn(&mut Maker),
}

/// All presets.
pub const ALL: &[Scenario] = &[
    broadcast::SCENARIO,
    state::SCENARIO,
    state_partition::SCENARIO,
    state_away::SCENARIO,
    state_cost::SCENARIO,
    partition::SCENARIO,
    partition_heal::SCENARIO,
    crash::SCENARIO,
    storm::SCENARIO,
    membership::SCENARIO,
];

/// The fewest nodes of a preset: below, there is nobody to crash or to be cut off from.
pub const NODES_MIN: u32 = 3;
/// The most nodes of a preset: every node knows every other, which costs memory with the square of their number.
pub const NODES_MAX: u32 = 20_000;

/// What so many whole nodes take of memory, in bytes, about.
pub fn bytes(nodes: u32, full_mesh: bool) -> u64 {
    let pairs = u64::from(nodes) * u64::from(nodes);
    u64::from(nodes) * BYTES_PER_NODE + pairs * if full_mesh { BYTES_PER_LINK } else { BYTES_PER_MEMBER }
}

/// What so many keys take of memory at so many nodes, in bytes, about.
pub fn state_bytes(nodes: u32, keys: u64) -> u64 {
    u64::from(nodes) * keys * BYTES_PER_KEY
}

/// What a written key takes at each node; measured with 1,000 nodes and 20,000 writes, each of a key of its own.
const BYTES_PER_KEY: u64 = 200;
/// What a node takes by itself; this and the next two were measured with 100 to 1,000 nodes.
const BYTES_PER_NODE: u64 = 250_000;
/// What a node takes for each member that it knows.
const BYTES_PER_MEMBER: u64 = 450;
/// What a node takes for each member to which it has a link.
const BYTES_PER_LINK: u64 = 2_200;

/// Settings that every preset has, beside those of the network.
const COMMON: &[(&str, &str)] = &[
    ("skew", "100ms"),
    ("sync", "100ms"),
    ("buggify", "off"),
    ("topology", "hyparview"),
    ("active", "6"),
    ("passive", "30"),
    ("retention", "120s"),
    ("suspicion", "3500ms"),
    ("repair", "on"),
    ("collect-after", "1h"),
    ("absent", "168h"),
    ("without", "nothing"),
    ("join", "staggered"),
    ("join-over", "10s"),
    ("form", "15s"),
    ("work", "10s"),
    ("messages", "50"),
    ("senders", "10"),
    ("bytes", "256"),
    ("quiet", "15s"),
    ("settle", "120s"),
];

impl Scenario {
    /// The preset with this name.
    pub fn named(name: &str) -> Option<&'static Scenario> {
        ALL.iter().find(|scenario| scenario.name == name)
    }

    /// Its settings with their defaults.
    pub fn defaults(&self) -> Vec<(&'static str, &'static str)> {
        let own = |key: &str| self.settings.iter().any(|(name, _)| *name == key);
        shape::DEFAULTS.iter().chain(COMMON).filter(|(key, _)| !own(key)).chain(self.settings).copied().collect()
    }

    /// The plan for a number of nodes, a seed and what was typed as `key=value`.
    ///
    /// # Errors
    ///
    /// [`SettingError`] for a setting that cannot be used.
    pub fn plan(&self, nodes: u32, seed: u64, typed: &[String]) -> Result<Plan, SettingError> {
        let settings = Settings::new(&self.defaults(), typed)?;
        let (link, shape) = Shape::of(&settings)?;
        let mut replay = format!("meshwork-sim run {} --nodes {nodes} --seed {seed}", self.name);
        for assignment in typed {
            replay.push_str(&format!(" --set {assignment}"));
        }
        let without = settings.word("without");
        let left_out = without.parse::<Improvement>().ok();
        if without != "nothing" && left_out.is_none() {
            return Err(SettingError::new(format!(
                "without: `{without}` can be left out in scenarios of the overlay alone, such as `rotating-senders`"
            )));
        }
        if settings.word("buggify") != "off" && !Buggify::IS_BUILT {
            return Err(SettingError::new(
                "buggify: this build leaves rare behavior out; build with the feature `buggify`, or set it to `off`",
            ));
        }
        let mut maker = Maker {
            draw: Draw::new(seed, self.name),
            nodes,
            plan: Plan {
                scenario: self.name.to_owned(),
                replay,
                setup: Setup {
                    seed,
                    nodes,
                    link,
                    shape,
                    skew: settings.number("skew"),
                    payload_bytes: settings.number("bytes") as usize,
                    value_bytes: 64,
                    sync: settings.number("sync"),
                    plant: None,
                },
                tuning: Tuning {
                    full_mesh: settings.word("topology") == "mesh",
                    active: settings.number("active"),
                    passive: settings.number("passive"),
                    retention: settings.number("retention"),
                    suspicion: settings.number("suspicion"),
                    no_repair: settings.word("repair") == "off",
                    collect_after: settings.number("collect-after"),
                    absent_max: settings.number("absent"),
                    without: left_out,
                    buggify: match settings.word("buggify") {
                        "on" => rare::drawn(seed),
                        "all" => Sites::ALL,
                        _ => Sites::NONE,
                    },
                },
                schedule: Schedule::default(),
                work_at: 0,
                calm_at: 0,
                quiet_min: settings.number("quiet"),
                settle_max: settings.number("settle").max(settings.number("quiet")),
                required: Vec::new(),
                must_lose: shape.mean_loss(link) >= 0.001,
                expectations: Vec::new(),
            },
            settings,
        };
        (self.make)(&mut maker);
        let mut plan = maker.plan;
        // Nobody is told of a node that it cannot dial; the first two can be dialed by all.
        plan.schedule.keep_contacts(|from, to| shape.classes.can_dial(seed, from, to), |node| u32::from(node == 0));
        plan.schedule.push(plan.calm_at, Happening::Calm);
        plan.schedule.sort();
        Ok(plan)
    }
}

/// A plan that is being made.
struct Maker {
    settings: Settings,
    draw: Draw,
    nodes: u32,
    plan: Plan,
}

impl Maker {
    /// Lets nodes come in; gives the moment at which the work begins.
    fn join(&mut self, nodes: std::ops::Range<u32>) -> u64 {
        let how = match self.settings.word("join") {
            "one-by-one" => Join::OneByOne,
            "storm" => Join::Storm,
            "through-one" => Join::ThroughOne,
            _ => Join::Staggered,
        };
        let over = if how == Join::Storm { 0 } else { self.settings.number("join-over") };
        plan::join(&mut self.plan.schedule, &mut self.draw, nodes, how, 0, over);
        self.plan.work_at = over + self.settings.number("form");
        self.plan.work_at
    }

    /// Lets senders out of some nodes broadcast from a moment on; gives the senders.
    fn broadcasts(&mut self, among: Vec<u32>, from: u64) -> Vec<u32> {
        let senders = self.draw.take(among, self.settings.number("senders"));
        let (messages, work) = (self.settings.number("messages"), self.settings.number("work"));
        plan::broadcasts(&mut self.plan.schedule, &mut self.draw, &senders, messages, from, work);
        if messages > 0 {
            self.require("broadcast", 1);
        }
        senders
    }

    /// Lets some nodes write from a moment on, keys of every kind if that is set.
    fn writes(&mut self, among: &[u32], from: u64) {
        self.writes_over(among, from, self.settings.number("work"));
    }

    /// The same over another time than that of the work.
    fn writes_over(&mut self, among: &[u32], from: u64, work: u64) {
        let (keys, writes) = (self.settings.number("keys"), self.settings.number("writes"));
        let is_all = self.settings.word("kinds") == "all";
        let (write, name) = if is_all { (plan::changes as plan::Writer, "change") } else { (plan::writes as plan::Writer, "write") };
        write(&mut self.plan.schedule, &mut self.draw, among, keys, writes, from, work);
        if writes > 0 {
            self.require(name, 1);
        }
    }

    fn push(&mut self, at: u64, what: Happening) {
        self.plan.schedule.push(at, what);
    }

    fn require(&mut self, name: &'static str, count: u64) {
        self.plan.required.push((name.to_owned(), count));
    }

    fn expect(&mut self, metric: &'static str, min: Option<f64>, max: Option<f64>) {
        self.plan.expectations.push(plan::Expectation { metric: metric.to_owned(), min, max });
    }

    /// The quiet phase begins a second after a moment and after everything that is done.
    fn calm(&mut self, after: u64) {
        let last = self.plan.schedule.entries().iter().map(|entry| entry.at).max().unwrap_or(0);
        self.plan.calm_at = last.max(after) + SECOND;
    }
}
