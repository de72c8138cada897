//! What people configure, and the checked form of it that the core takes.

use std::fmt::Display;
use std::ops::{Deref, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use meshwork_channels::ConfigError;
use meshwork_channels::buggify::Buggify;
use serde::{Deserialize, Serialize};

use super::improvement::Improvement;
use super::message::SHUFFLE_LEN_MAX;

/// A rate that binds nobody.
const RATE_MAX: u32 = 1_000_000;

/// How the partial views are kept.
///
/// "The paper" is HyParView (DSN 2007), whose numbers are for 10,000 nodes; "guess" marks a default that no measurement supports yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Neighbors of a node, 1 to 32. More make broadcasts shorter and failures cheaper, and cost connections and duplicates. An even number
    /// lets every view fill, because a joiner that is put between two neighbors takes two slots. Default 6: the paper has 5 for 10,000
    /// nodes, Partisan 6.
    pub active_len_max: usize,
    /// Below this many neighbors (1 to `active_len_max`) the search for more does not slow down. Default 3, as in Partisan.
    pub active_len_min: usize,
    /// Peers remembered as replacements, 1 to 256. More survive a larger failure at once and cost memory. Default 30 (the paper, section 5.1).
    pub passive_len_max: usize,
    /// Steps of the walk that finds neighbors for a joiner, 1 to 32. More spread joiners better and take longer. Default 6 (the paper's ARWL).
    pub active_walk_len: u8,
    /// Steps left when the walk leaves the joiner in a passive view, and from which it takes the first free slot; below
    /// `active_walk_len`, or joiners would only be known next to their contact. Default 3 (the paper's PRWL).
    pub passive_walk_len: u8,
    /// Steps of a shuffle, 1 to 32. Default 6: the paper does not say; as the joiner's walk.
    pub shuffle_walk_len: u8,
    /// Neighbors in the sample of a shuffle. Default 3 (the paper's ka).
    pub shuffle_active_len: usize,
    /// Passive peers in the sample of a shuffle; with `shuffle_active_len` at most 16. Default 4 (the paper's kp).
    pub shuffle_passive_len: usize,
    /// Time between two shuffles of a node. Shorter keeps the passive view fresher for more messages. Default 10 s, as in Partisan.
    pub shuffle_period: Duration,
    /// Time between two checks that the neighbors hold our links too. Shorter ends a one-way link sooner. Default 5 s (guess).
    pub alive_period: Duration,
    /// Time until a node that misses neighbors tries again; doubled while nothing changes, up to `shuffle_period`, or to `rejoin_period_max`
    /// without any neighbor. A joiner waits about half of it for what its walks find before it asks by itself. Default 1 s (guess).
    pub retry_period: Duration,
    /// The longest time between two attempts of a node without any neighbor. Default 30 s (guess).
    pub rejoin_period_max: Duration,
    /// How long a request may go unanswered, a dial included, before the peer is forgotten; at least `storm_delay`, because a
    /// contact may answer a join that late. Default 3 s: a handshake may take that long.
    pub request_timeout: Duration,
    /// Requests for a free slot in flight at once, 1 to 32. More fill a view sooner and refuse others meanwhile. Default 4 (guess).
    pub requests_len_max: usize,
    /// Peers that may be asked between two retries, refusals included, 1 to 256. Default 8 (guess).
    pub requests_per_retry: u8,
    /// How long a peer that refused is not asked again, and how long a peer for which we evicted waits for the next such favor. Default 10 s
    /// (the pause of gossipsub is 60 s after a prune and 10 s after a farewell).
    pub refusal_pause: Duration,
    /// Walks that a contact starts for one joiner, 1 to 8. Each finds up to two neighbors. Default 3: half of `active_len_max`.
    pub join_walks: usize,
    /// Joiners in one second for which a full contact starts all walks and which it answers at once. Further ones are a storm: each gets one
    /// walk, and they are introduced to one another. Default 10 (guess).
    pub joins_per_second: u32,
    /// How long a contact collects the joiners of a storm before it introduces them to one another, at random. Longer mixes them better.
    /// Default 200 ms (guess: several one-way delays of a wide network).
    pub storm_delay: Duration,
    /// Joiners collected at most, 1 to 65,536; a full list is dealt with at once. Each costs an identifier and four bytes. Default 4,096.
    pub storm_len_max: usize,
    /// Neighbors that a full node gives up in one second for joiners and for nodes without a neighbor. Default 4 (guess).
    pub evictions_per_second: u32,
    /// Links across a healed partition that a node asks for in one `heal_pause`, 1 to 32; it accepts as many that others ask for, each
    /// second. Default 2 (guess: two random links for each node join two halves as tightly as each is in itself).
    pub heal_links: u32,
    /// See `heal_links`. Default 10 s (guess).
    pub heal_pause: Duration,
    /// How often a node looks whether it is in a closed group, and opens it if so. Shorter unites sooner what full views keep apart. Default 30 s (guess: a group of
    /// four looks every 7 s).
    pub rewire_period: Duration,
    /// Neighbors that are left as chance has it, 0 to 32; the others may be chosen by how soon they answer, and with `active_len_max` or more
    /// here nobody is. Fewer bring messages sooner, and hold groups of nodes that are near each other together by fewer links. Default 2: measured
    /// with one seed, 10,000 nodes that joined at once, links of 10 to 50 ms, a `near_period` of 500 ms and senders in turn, before swaps spared
    /// triangles: the last node is reached after 258 ms with 2 and 284 ms with 3, and after 371 ms where nobody is chosen.
    pub random_len_min: usize,
    /// Time between two searches for a nearer neighbor; doubled after every eight in vain, up to 256 times. Each costs two messages. Shorter
    /// has the near ones sooner after a start. Default 250 ms: measured as above, ten seconds after the join, 241 ms; with 500 ms 258 ms, with
    /// 1 s 275 ms.
    pub near_period: Duration,
    /// By how many percent of the round trip a neighbor must be nearer than the one that it replaces, 1 to 90. Less swaps more often for less.
    /// Default 20: measured as above; with 10 there are two thirds more swaps and nothing is sooner, with 35 it is 265 ms.
    pub near_gain_percent: u8,
    /// What of our improvements over the paper is left undone, in any order; see [`Config::paper`]. Every one that is named costs what it
    /// was made for. Default: nothing.
    pub without: Vec<Improvement>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            active_len_max: 6,
            active_len_min: 3,
            passive_len_max: 30,
            active_walk_len: 6,
            passive_walk_len: 3,
            shuffle_walk_len: 6,
            shuffle_active_len: 3,
            shuffle_passive_len: 4,
            shuffle_period: Duration::from_secs(10),
            alive_period: Duration::from_secs(5),
            retry_period: Duration::from_secs(1),
            rejoin_period_max: Duration::from_secs(30),
            request_timeout: Duration::from_secs(3),
            requests_len_max: 4,
            requests_per_retry: 8,
            refusal_pause: Duration::from_secs(10),
            join_walks: 3,
            joins_per_second: 10,
            storm_delay: Duration::from_millis(200),
            storm_len_max: 4_096,
            evictions_per_second: 4,
            heal_links: 2,
            heal_pause: Duration::from_secs(10),
            rewire_period: Duration::from_secs(30),
            random_len_min: 2,
            near_period: Duration::from_millis(250),
            near_gain_percent: 20,
            without: Vec::new(),
        }
    }
}

impl Config {
    /// For machines of one site: the defaults.
    pub fn lan() -> Self {
        Self::default()
    }

    /// For nodes far apart: every wait is longer.
    pub fn wan() -> Self {
        Config {
            retry_period: Duration::from_secs(2),
            request_timeout: Duration::from_secs(5),
            storm_delay: Duration::from_millis(500),
            ..Self::default()
        }
    }

    /// For processes of one machine: every wait is shorter.
    pub fn local() -> Self {
        Config {
            shuffle_period: Duration::from_secs(2),
            alive_period: Duration::from_secs(1),
            retry_period: Duration::from_millis(250),
            rejoin_period_max: Duration::from_secs(5),
            request_timeout: Duration::from_secs(1),
            refusal_pause: Duration::from_secs(2),
            storm_delay: Duration::from_millis(50),
            heal_pause: Duration::from_secs(2),
            rewire_period: Duration::from_secs(5),
            ..Self::default()
        }
    }

    /// HyParView as published (DSN 2007, section 5.1), as a reference to measure against and for nothing else: without any of our
    /// improvements, and with rates that bind nobody. What a cycle of the paper is takes one `shuffle_period` here.
    ///
    /// What stays are the numbers of links (deviation 1), which only matter when messages are lost or overtake each other, and every bound
    /// on what is stored. A node whose view is not full tries its passive view when it loses a neighbor, when it learns of a peer, and once
    /// in each cycle; whoever refused is left alone for half a cycle, so that each candidate is asked once in a row.
    pub fn paper() -> Self {
        let cycle = Duration::from_secs(10);
        Config {
            active_len_max: 5,
            active_len_min: 1,
            passive_len_max: 30,
            active_walk_len: 6,
            passive_walk_len: 3,
            shuffle_active_len: 3,
            shuffle_passive_len: 4,
            shuffle_period: cycle,
            retry_period: cycle,
            rejoin_period_max: cycle,
            requests_len_max: 1,
            requests_per_retry: u8::MAX,
            refusal_pause: cycle / 2,
            joins_per_second: RATE_MAX,
            evictions_per_second: RATE_MAX,
            without: Improvement::ALL.to_vec(),
            ..Self::default()
        }
    }

    /// Checks every field, alone and against the others.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] with the first field that cannot work.
    pub fn build(self) -> Result<Params, ConfigError> {
        within("active_len_max", self.active_len_max, 1..=32)?;
        within("active_len_min", self.active_len_min, 1..=self.active_len_max)?;
        within("passive_len_max", self.passive_len_max, 1..=256)?;
        within("active_walk_len", self.active_walk_len, 1..=32)?;
        within("passive_walk_len", self.passive_walk_len, 0..=self.active_walk_len - 1)?;
        within("shuffle_walk_len", self.shuffle_walk_len, 1..=32)?;
        within("shuffle_active_len", self.shuffle_active_len, 0..=SHUFFLE_LEN_MAX)?;
        within("shuffle_passive_len", self.shuffle_passive_len, 0..=SHUFFLE_LEN_MAX - self.shuffle_active_len)?;
        lasts("shuffle_period", self.shuffle_period, Duration::from_millis(1))?;
        lasts("alive_period", self.alive_period, Duration::from_millis(1))?;
        lasts("retry_period", self.retry_period, Duration::from_millis(1))?;
        lasts("rejoin_period_max", self.rejoin_period_max, self.retry_period)?;
        lasts("storm_delay", self.storm_delay, Duration::from_millis(1))?;
        lasts("request_timeout", self.request_timeout, self.storm_delay)?;
        within("requests_len_max", self.requests_len_max, 1..=32)?;
        within("requests_per_retry", self.requests_per_retry, 1..=u8::MAX)?;
        lasts("refusal_pause", self.refusal_pause, Duration::from_millis(1))?;
        within("join_walks", self.join_walks, 1..=8)?;
        within("joins_per_second", self.joins_per_second, 1..=RATE_MAX)?;
        within("storm_len_max", self.storm_len_max, 1..=65_536)?;
        within("evictions_per_second", self.evictions_per_second, 1..=RATE_MAX)?;
        within("heal_links", self.heal_links, 1..=32)?;
        lasts("heal_pause", self.heal_pause, Duration::from_millis(1))?;
        within("random_len_min", self.random_len_min, 0..=32)?;
        within("near_gain_percent", self.near_gain_percent, 1..=90)?;
        lasts("near_period", self.near_period, Duration::from_millis(1))?;
        lasts("rewire_period", self.rewire_period, Duration::from_millis(1))?;
        Ok(Params(Arc::new(Checked { without: Improvement::bits(&self.without), config: self, buggify: Buggify::default() })))
    }
}

fn within<T: Copy + PartialOrd + Display>(field: &'static str, value: T, limit: RangeInclusive<T>) -> Result<(), ConfigError> {
    if limit.contains(&value) { Ok(()) } else { Err(ConfigError::new(field, value, format_args!("{} to {}", limit.start(), limit.end()))) }
}

fn lasts(field: &'static str, value: Duration, least: Duration) -> Result<(), ConfigError> {
    let most = Duration::from_secs(24 * 3_600);
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::new(field, format_args!("{value:?}"), format_args!("{least:?} to {most:?}")))
    }
}

/// A [`Config`] that was found to work. Copies share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params(Arc<Checked>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Checked {
    config: Config,
    /// Of `config`, one bit for each.
    without: u16,
    buggify: Buggify,
}

impl Params {
    /// With rare behavior, for the simulator.
    pub fn with_buggify(mut self, buggify: Buggify) -> Self {
        Arc::make_mut(&mut self.0).buggify = buggify;
        self
    }

    /// Whether an improvement is on.
    pub fn has(&self, improvement: Improvement) -> bool {
        self.0.without & improvement.bit() == 0
    }

    pub(super) fn buggify(&self) -> &Buggify {
        &self.0.buggify
    }
}

impl Default for Params {
    fn default() -> Self {
        Params(Arc::new(Checked::default()))
    }
}

impl Deref for Params {
    type Target = Config;
    fn deref(&self) -> &Config {
        &self.0.config
    }
}
