//! What can be set, and what is derived from it.

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use meshwork_channels::limits;
use serde::{Deserialize, Serialize};

use super::improvement::Improvement;

/// The settings of the membership, as people write them. All nodes of a cluster should use the same; nothing breaks when they do not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How often a node probes one other member. Lower finds a crash sooner, and costs one ping and answer per period and node.
    /// Default 1 s: the LAN preset of memberlist and foca.
    pub probe_period: Duration,
    /// How long a direct probe may take before others are asked to probe. It must be below the period, best at most half of it; lower
    /// asks others for slow members too. Default 0.5 s: the same presets.
    pub probe_rtt: Duration,
    /// How many others are asked, 1 to 16. Default 3 (SWIM, section 5, and every implementation since).
    pub indirect_probes: usize,
    /// How long a suspected member has to refute. A node that is frozen for this long and about 2 s more is held for dead; a crash is found
    /// this much later. Default 3.5 s, between the 3 s and 4 s that were simulated: no false verdict at freezes of 4 s, and with 4 s one crash
    /// in a hundred among five nodes took longer than 8.4 s to be known to all.
    pub suspicion: Duration,
    /// How often news are gossiped while there are any. Lower spreads faster, in more and emptier packets. Default 0.2 s (memberlist).
    pub gossip_interval: Duration,
    /// To how many members at a time, 1 to 16. Default 3 (memberlist).
    pub gossip_fanout: usize,
    /// In clusters of up to so many nodes news are gossiped to members at random, as above; in larger ones they travel over the links to
    /// neighbors, which stand already, and beside probes. Lower saves connections, higher spreads without neighbors. 0 to 100,000.
    /// Default 64: as many connections as a node keeps beyond those to its neighbors. Gossip at random dials a stranger for nearly every packet
    /// above that: a join of 1,000 nodes took 385,000 dials in simulation, whose load delayed probes until the living were suspected.
    pub gossip_nodes_max: usize,
    /// How often two members that are down are greeted, so that the sides of a partition find each other. Lower heals sooner and
    /// dials the dead more often. Default 5 s: heals within 6 s in simulation, where foca's 65 s took two minutes.
    pub announce_to_down: Duration,
    /// How often tables are compared with a random member, in clusters of up to 100; twice this up to 1,000 and six times above. Lower
    /// repairs sooner what gossip missed. Default 5 s: simulated as above.
    pub exchange_interval: Duration,
    /// How long a member that is gone is remembered. It must be longer than any partition that should heal by itself. Default 24 h (foca).
    pub tombstone_life: Duration,
    /// How many members hearsay may add, 2 to 100,000, tombstones included. Peers that connect are always let in. Work per packet grows
    /// with the number of members. Default 10,000: above it the full view is the wrong choice.
    pub members_max: usize,
    /// How often in a minute this node answers "you are held for dead" with a new generation, 1 to 60. Above it the node waits: it is not
    /// well, or another node has its key. Default 3: a guess.
    pub renewals_per_minute_max: usize,
    /// How long the report of a failure may wait while other members are suspected, so that those that fail together are reported together, 0 s to 10 s. Lower reports a crash
    /// sooner while there is another suspicion, higher in fewer steps: with 0.5 s nodes of which ten crash at once out of a hundred report at most five sizes of the
    /// cluster, with 0 s ten. Default 0.5 s: simulated as above.
    pub settle: Duration,
    /// What to do without, to see what it is good for. Default: nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<Improvement>,
}

impl Default for Config {
    fn default() -> Self {
        Config::lan()
    }
}

impl Config {
    /// One site, good links: the default.
    pub fn lan() -> Self {
        Config {
            probe_period: Duration::from_secs(1),
            probe_rtt: Duration::from_millis(500),
            indirect_probes: 3,
            suspicion: Duration::from_millis(3_500),
            gossip_interval: Duration::from_millis(200),
            gossip_fanout: 3,
            gossip_nodes_max: 64,
            announce_to_down: Duration::from_secs(5),
            exchange_interval: Duration::from_secs(5),
            tombstone_life: Duration::from_secs(24 * 3_600),
            members_max: 10_000,
            renewals_per_minute_max: 3,
            settle: Duration::from_millis(500),
            without: Vec::new(),
        }
    }

    /// Links around the world: patient probes and suspicions (the WAN presets of memberlist and foca for up to ten nodes).
    pub fn wan() -> Self {
        Config {
            probe_period: Duration::from_secs(5),
            probe_rtt: Duration::from_secs(3),
            suspicion: Duration::from_secs(30),
            gossip_interval: Duration::from_millis(500),
            gossip_fanout: 4,
            announce_to_down: Duration::from_secs(15),
            exchange_interval: Duration::from_secs(10),
            ..Config::lan()
        }
    }

    /// Processes of one machine, or tests: a crash is found in about 3 s, and a process that is stopped for 2 s is held for dead. A guess.
    pub fn local() -> Self {
        Config {
            probe_period: Duration::from_millis(500),
            probe_rtt: Duration::from_millis(200),
            suspicion: Duration::from_secs(1),
            ..Config::lan()
        }
    }

    /// Nodes that freeze: no false verdict at freezes of 10 s in simulation, and a crash is found 4.5 s later than with [`Config::lan`].
    pub fn steady() -> Self {
        Config { suspicion: Duration::from_secs(8), ..Config::lan() }
    }

    /// Checks the settings against their limits and each other, and derives the rest.
    ///
    /// # Errors
    ///
    /// The first field that breaks a rule, with its value and the rule.
    pub fn build(self) -> Result<Params, ConfigError> {
        let hour = Duration::from_secs(3_600);
        let span = |field, value: Duration, min: Duration, max: Duration| {
            if (min..=max).contains(&value) { Ok(()) } else { Err(ConfigError::new(field, value, format!("from {min:?} to {max:?}"))) }
        };
        let count = |field, value: usize, min: usize, max: usize| {
            if (min..=max).contains(&value) { Ok(()) } else { Err(ConfigError::new(field, value, format!("from {min} to {max}"))) }
        };
        let tick = Duration::from_millis(10);
        span("probe_period", self.probe_period, tick, hour)?;
        span("probe_rtt", self.probe_rtt, Duration::from_millis(1), hour)?;
        if self.probe_rtt >= self.probe_period {
            return Err(ConfigError::new("probe_rtt", self.probe_rtt, format!("below probe_period ({:?})", self.probe_period)));
        }
        count("indirect_probes", self.indirect_probes, 1, 16)?;
        span("suspicion", self.suspicion, self.probe_rtt.max(tick), hour)?;
        span("gossip_interval", self.gossip_interval, tick, hour)?;
        count("gossip_fanout", self.gossip_fanout, 1, 16)?;
        count("gossip_nodes_max", self.gossip_nodes_max, 0, 100_000)?;
        span("announce_to_down", self.announce_to_down, Duration::from_millis(100), hour)?;
        span("exchange_interval", self.exchange_interval, Duration::from_millis(100), hour)?;
        span("tombstone_life", self.tombstone_life, Duration::from_secs(60), 24 * 365 * hour)?;
        count("members_max", self.members_max, 2, 100_000)?;
        count("renewals_per_minute_max", self.renewals_per_minute_max, 1, 60)?;
        span("settle", self.settle, Duration::ZERO, Duration::from_secs(10))?;
        Ok(Params { without: Improvement::bits(&self.without), config: self })
    }
}

/// Settings that were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    config: Config,
    /// One bit for each improvement that is left out.
    without: u16,
}

impl Default for Params {
    fn default() -> Self {
        Config::default().build().expect("the default is within its own limits")
    }
}

impl Params {
    /// The settings as they were written.
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn has(&self, improvement: Improvement) -> bool {
        self.without & improvement.bit() == 0
    }

    /// How long before the end of a suspicion the suspect is asked a last time.
    pub(super) fn last_ping_lead(&self) -> Duration {
        (2 * self.config.probe_rtt).min(self.config.suspicion / 2)
    }

    /// How long a peer whose connection broke, or that another node holds for dead, has to answer before it is suspected.
    pub(super) fn hint_grace(&self) -> Duration {
        2 * self.config.probe_rtt
    }

    /// Later than this, a timer says that it was we who stood still.
    pub(super) fn lateness_max(&self) -> Duration {
        self.config.probe_period / 2
    }

    /// How long news are gathered before they are told to neighbors: with that, what a wave of joins brings travels in a few messages.
    pub(super) fn news_delay(&self) -> Duration {
        self.config.gossip_interval / 4
    }

    /// Tombstones older than this are not told to others, or two nodes would keep each other's alive for ever.
    pub(super) fn tombstone_told(&self) -> Duration {
        self.config.tombstone_life / 2
    }

    pub(super) fn exchange_interval(&self, up: usize) -> Duration {
        self.config.exchange_interval
            * match up {
                0..=100 => 1,
                101..=1_000 => 2,
                _ => 6,
            }
    }

    pub(super) fn tombstones_max(&self, up: usize) -> usize {
        up.saturating_mul(4).max(1_024).min(self.config.members_max)
    }

    /// What foca is told. Suspicions and tombstones are timed by this adapter; foca's own announcing is what the exchange replaces.
    pub(super) fn foca(&self, nodes: usize) -> foca::Config {
        let at_least_one = |n| NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN);
        let size = NonZeroU32::new(u32::try_from(nodes).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN);
        let (exchanges, heals) = (self.has(Improvement::StateExchange), self.has(Improvement::HealAnnounce));
        let usual = foca::Config::new_lan(size);
        let every = |frequency, num_members| Some(foca::PeriodicParams { frequency, num_members: at_least_one(num_members) });
        foca::Config {
            probe_period: self.config.probe_period,
            probe_rtt: self.config.probe_rtt,
            num_indirect_probes: at_least_one(self.config.indirect_probes),
            // Two more than memberlist and foca: with theirs, one piece of news in thirty misses one node of a hundred.
            max_transmissions: usual.max_transmissions.saturating_add(2),
            suspect_to_down_after: self.config.suspicion,
            remove_down_after: None,
            max_packet_size: at_least_one(limits::MEMBERSHIP_BYTES_MAX),
            notify_down_members: true,
            periodic_announce: if exchanges { None } else { usual.periodic_announce },
            periodic_announce_to_down_members: match heals {
                true => every(self.config.announce_to_down, 2),
                false => usual.periodic_announce_to_down_members,
            },
            periodic_gossip: every(self.config.gossip_interval, self.config.gossip_fanout),
        }
    }
}

/// A setting that is out of its limits. Nothing was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The field of [`Config`].
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What it must be.
    pub limit: String,
}

impl ConfigError {
    fn new(field: &'static str, value: impl fmt::Debug, limit: String) -> Self {
        ConfigError { field, value: format!("{value:?}"), limit }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, but must be {}", self.field, self.value, self.limit)
    }
}

impl std::error::Error for ConfigError {}
