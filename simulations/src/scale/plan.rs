//! A run of the overlay alone as people ask for it.

use std::time::Duration;

use meshwork_overlay::{hyparview, plumtree};

use super::{PAYLOAD_BYTES_MAX, Setup};
use crate::network::Link;
use crate::settings::{SettingError, Settings};

/// What is typed to run it.
pub const NAME: &str = "scale";
/// What it shows, in a sentence.
pub const ABOUT: &str = "the overlay alone, up to millions of nodes: they join at random, then some broadcast; no membership and no state";
/// How many nodes it has unless told otherwise.
pub const NODES: u32 = 10_000;
/// The fewest nodes.
pub const NODES_MIN: u32 = 2;
/// The most nodes.
pub const NODES_MAX: u32 = 16_000_000;
/// The most threads.
pub const THREADS_MAX: u32 = 64;

/// Its settings, with their defaults.
pub const DEFAULTS: &[(&str, &str)] = &[
    ("latency", "30ms"),
    ("active", "6"),
    ("passive", "30"),
    ("retention", "10s"),
    ("join-over", "20s"),
    ("form", "5s"),
    ("work", "20s"),
    ("messages", "30"),
    ("senders", "10"),
    ("bytes", "256"),
    ("crashed", "0%"),
    ("quiet", "5s"),
];

/// A run that was planned.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it is made of.
    pub setup: Setup,
    /// What is typed to see it again.
    pub replay: String,
}

impl Plan {
    /// The plan for a number of nodes, a seed, a number of threads and what was typed as `key=value`.
    ///
    /// # Errors
    ///
    /// What cannot be used, in words.
    pub fn new(nodes: u32, seed: u64, threads: u32, typed: &[String]) -> Result<Self, String> {
        let settings = Settings::new(DEFAULTS, typed).map_err(|error: SettingError| error.to_string())?;
        let mut replay = format!("meshwork-sim run {NAME} --nodes {nodes} --seed {seed}");
        for assignment in typed {
            replay.push_str(&format!(" --set {assignment}"));
        }
        let number = |key| settings.number(key);
        let hyparview = hyparview::Config {
            active_len_max: number("active") as usize,
            active_len_min: hyparview::Config::default().active_len_min.min(number("active") as usize),
            passive_len_max: number("passive") as usize,
            ..hyparview::Config::default()
        };
        let plumtree = plumtree::Config { payload_retention: Duration::from_micros(number("retention")), ..plumtree::Config::default() };
        let setup = Setup {
            seed,
            nodes,
            shards: threads,
            link: Link { latency: number("latency"), jitter: 0, loss: 0.0 },
            hyparview: hyparview.build().map_err(|error| error.to_string())?,
            plumtree: plumtree.build().map_err(|error| error.to_string())?,
            join_over: number("join-over"),
            form: number("form"),
            messages: number("messages") as u32,
            senders: number("senders") as u32,
            work: number("work"),
            crashed: settings.share_of("crashed", nodes),
            quiet: number("quiet"),
            payload_bytes: (number("bytes") as usize).min(PAYLOAD_BYTES_MAX),
        };
        Ok(Plan { setup, replay })
    }

    /// What it is, in a line.
    pub fn describe(&self) -> String {
        let Setup { nodes, link, messages, senders, hyparview, crashed, .. } = &self.setup;
        let crashes = if *crashed > 0.0 { format!("; {:.1} % crash meanwhile", 100.0 * crashed) } else { String::new() };
        format!(
            "{nodes} nodes, {} neighbors and {} more; {:.1} ms; {messages} broadcast by {senders} in turn{crashes}; the overlay alone",
            hyparview.active_len_max,
            hyparview.passive_len_max,
            link.latency as f64 / 1e3
        )
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

/// What so many nodes take with the default settings.
pub fn bytes(nodes: u32) -> u64 {
    Plan::new(nodes, 0, 1, &[]).map_or(0, |plan| plan.bytes())
}

/// What a run takes without nodes.
const BYTES_OF_PROCESS: u64 = 18_000_000;
/// What a node takes without its views and without messages, events under way included.
const BYTES_PER_NODE: u64 = 1_200;
/// What a payload that a node holds takes of it.
const BYTES_PER_HELD: u64 = 80;
/// What a node remembers of each origin.
const BYTES_PER_STREAM: u64 = 85;
