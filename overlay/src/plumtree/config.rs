//! What can be set, and what the core works with.

use std::sync::Arc;
use std::time::Duration;

use meshwork_channels::ConfigError;
use meshwork_channels::buggify::Buggify;
use meshwork_channels::limits::BROADCAST_BYTES_MAX;
use serde::{Deserialize, Serialize};

use super::improvement::Improvement;
use super::{seen, store};

/// What people write. [`Config::build`] checks it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Largest payload that this node broadcasts, in bytes. Everybody accepts up to
    /// [`BROADCAST_BYTES_MAX`]; a lower value keeps one sender from filling the payload stores.
    ///
    /// Default: the protocol's limit.
    pub payload_len_max: usize,
    /// How long payloads are kept for neighbors that missed them. Longer repairs longer cuts, and costs memory and longer summaries.
    ///
    /// Default 90 s: the age at which iroh-gossip forgets that it saw a message. Ours are seen for good, so this can be chosen by memory alone.
    pub payload_retention: Duration,
    /// Bytes of kept payloads. At the bound the oldest goes. A payload above it is passed on and not kept.
    ///
    /// Default 16 MiB: a guess; 90 s at 180 KB/s.
    pub payload_bytes_max: usize,
    /// Number of kept payloads. At the bound the oldest goes.
    ///
    /// Default 16,384: 90 s at 180 messages a second; a summary of them all fits into a few frames.
    pub payloads_max: usize,

    /// How long an announcement waits for company on a quiet node. Longer saves frames and delays repairs by as much; 0 sends each alone.
    ///
    /// Default 5 ms: iroh-gossip.
    pub announce_delay_min: Duration,
    /// The same on a busy node: the delay grows to about ten times the mean interval between messages, up to this.
    ///
    /// Default 100 ms: ten messages in a frame at 100 messages a second, which the control budget of the headline scenario asks for.
    pub announce_delay_max: Duration,

    /// How long a node waits for the tree to bring what was announced, before it has measured that wait. Too short pulls duplicates, too long
    /// delays the repair of a broken tree.
    ///
    /// Default 200 ms: a guess; above the 80 ms of iroh-gossip, which pulls for nothing on long paths.
    pub graft_wait: Duration,
    /// Least wait, once it is measured.
    ///
    /// Default 100 ms: a guess; two links of 50 ms.
    pub graft_wait_min: Duration,
    /// Greatest wait, once it is measured.
    ///
    /// Default 2 s: a guess.
    pub graft_wait_max: Duration,
    /// How long the answer to a graft may take before the next announcer is asked, before a neighbor's answers have been measured.
    ///
    /// Default 500 ms: a guess; ten links of 50 ms.
    pub answer_wait: Duration,
    /// Least time for an answer, once it is measured.
    ///
    /// Default 200 ms: a guess.
    pub answer_wait_min: Duration,
    /// Greatest time for an answer, and greatest pause once all announcers were asked in vain.
    ///
    /// Default 5 s: a guess; one summary period.
    pub answer_wait_max: Duration,
    /// How often one announcer is asked for one message before it is not believed any more.
    ///
    /// Default 8: with growing pauses about half a minute, longer than a stalled link lives.
    pub attempts_max: u8,
    /// Unanswered requests to one neighbor. More fills long fast links; fewer bounds what a burst of answers may weigh.
    ///
    /// Default 128: a guess; 128 payloads of 1 KiB in each round trip.
    pub asked_max: usize,
    /// Payloads that one neighbor may ask for in a second. We ask for half of it, so an honest neighbor never reaches the limit.
    ///
    /// Default 10,000: a guess.
    pub grafts_per_second: u32,
    /// Payloads that one neighbor may ask for at once after a pause.
    ///
    /// Default 2,048: a guess; sixteen times the unanswered requests.
    pub graft_burst: u32,

    /// By how many links an announced way must be shorter than the tree's before the tree takes it (section 3.8); `None` for never. It says
    /// nothing for trees that are made by floods, which are as short as they can be.
    ///
    /// Default `None`. The paper takes 3 for one sender and 7 for many.
    pub optimization_threshold: Option<u16>,

    /// Over how many links a broadcast is flooded at most before it follows the tree, unless its sender is the one who sends most; 0 for none,
    /// at most 8. It is fewer where the flood would reach more than a small share of the nodes. More reaches the far ends of the tree sooner
    /// and brings more duplicates.
    ///
    /// Default 4: measured with 10,000 nodes, five links each of 10 to 50 ms and senders in turn, the last node is reached after 384 ms at a
    /// redundancy of 0.02 with 3, after 369 ms at 0.06 with 4, and after 349 ms at 0.18 with 5.
    pub flood_len: u8,

    /// How often one neighbor at random is told what came since it was told last: the net under every other mechanism.
    ///
    /// Default 5 s: half of Partisan's exchange period; costs one small frame, and each neighbor is told of a message once.
    pub summary_period: Duration,
    /// Bytes of one summary. What does not fit comes in the next ones.
    ///
    /// Default 32 KiB: a guess; some 6 KB/s at most. With six neighbors that is enough for twenty messages a second if each has another origin,
    /// and for thousands where an origin sends many.
    pub summary_bytes_max: usize,

    /// Announced messages that are not here yet. At the bound further announcements are dropped, until a summary of another neighbor.
    ///
    /// Default 65,536: a guess; some 20 MB at worst.
    pub missing_max: usize,
    /// The same for the announcements of one neighbor.
    ///
    /// Default 16,384: everything that a neighbor can hold under the default bounds.
    pub missing_per_neighbor_max: usize,
    /// Announcers remembered for one missing message.
    ///
    /// Default 8: more than the neighbors of a partial view.
    pub announcers_max: usize,
    /// Streams, which are channels of the lives of origins, whose delivered messages are remembered. At the bound the one unused for longest goes,
    /// and whatever somebody still holds of it could be delivered again.
    ///
    /// Default 65,536: 10,000 nodes with some channels each; some 13 MB at worst.
    pub streams_max: usize,
    /// Intervals of delivered messages of one stream. At the bound the lowest gap closes, and its messages are given up.
    ///
    /// Default 4,096: more than the requests under way with the neighbors of a partial view.
    pub stream_ranges_max: usize,
    /// The same over all streams, beyond one for each.
    ///
    /// Default 262,144: 4 MiB.
    pub ranges_max: usize,
    /// How far a sequence number may lead ahead of the highest of its stream, unless the stream stood still for the retention.
    ///
    /// Default 1,048,576: 90 s at 11,000 messages a second.
    pub ahead_max: u64,

    /// What of our improvements over the paper is left undone, in any order; see [`Config::paper`]. Every one that is named costs what it
    /// was made for.
    ///
    /// Default: nothing.
    pub without: Vec<Improvement>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            payload_len_max: BROADCAST_BYTES_MAX,
            payload_retention: Duration::from_secs(90),
            payload_bytes_max: 16 * 1_024 * 1_024,
            payloads_max: 16_384,
            announce_delay_min: Duration::from_millis(5),
            announce_delay_max: Duration::from_millis(100),
            graft_wait: Duration::from_millis(200),
            graft_wait_min: Duration::from_millis(100),
            graft_wait_max: Duration::from_secs(2),
            answer_wait: Duration::from_millis(500),
            answer_wait_min: Duration::from_millis(200),
            answer_wait_max: Duration::from_secs(5),
            attempts_max: 8,
            asked_max: 128,
            grafts_per_second: 10_000,
            graft_burst: 2_048,
            optimization_threshold: None,
            flood_len: 4,
            summary_period: Duration::from_secs(5),
            summary_bytes_max: 32 * 1_024,
            missing_max: 65_536,
            missing_per_neighbor_max: 16_384,
            announcers_max: 8,
            streams_max: 65_536,
            stream_ranges_max: 4_096,
            ranges_max: 262_144,
            ahead_max: 1 << 20,
            without: Vec::new(),
        }
    }
}

impl Config {
    /// For nodes in one place: links below a few milliseconds.
    pub fn lan() -> Self {
        Config {
            graft_wait: Duration::from_millis(100),
            graft_wait_min: Duration::from_millis(50),
            answer_wait: Duration::from_millis(250),
            answer_wait_min: Duration::from_millis(100),
            ..Config::default()
        }
    }

    /// For nodes around the world: links of 50 to 300 milliseconds with loss.
    pub fn wan() -> Self {
        Config {
            graft_wait: Duration::from_millis(500),
            graft_wait_min: Duration::from_millis(250),
            graft_wait_max: Duration::from_secs(4),
            answer_wait: Duration::from_secs(1),
            answer_wait_min: Duration::from_millis(500),
            answer_wait_max: Duration::from_secs(10),
            ..Config::default()
        }
    }

    /// For nodes on one machine, as in tests and demonstrations.
    pub fn local() -> Self {
        Config { announce_delay_min: Duration::from_millis(1), summary_period: Duration::from_secs(2), ..Config::lan() }
    }

    /// Plumtree as published (SRDS 2007), as a reference to measure against and for nothing else: without any of our improvements. What
    /// stays are identities by interval (deviation 7) and every bound on what is stored; payloads are still forgotten after
    /// `payload_retention`.
    ///
    /// The paper configures its timers by hand and reports no redundancy while nothing fails, so that none can fire then. Its longest way has
    /// 77 links (Figure 2, many senders without optimization), which take 3.9 s when each takes 50 ms, and `graft_wait` is above that.
    /// `optimization_threshold` is `None`, the protocol of section 3.5; the optimized one of section 3.8 has 3 for one sender and 7 for
    /// many.
    pub fn paper() -> Self {
        Config {
            announce_delay_min: Duration::ZERO,
            announce_delay_max: Duration::ZERO,
            graft_wait: Duration::from_secs(5),
            graft_wait_max: Duration::from_secs(5),
            answer_wait: Duration::from_millis(500),
            attempts_max: 1,
            optimization_threshold: None,
            without: Improvement::ALL.to_vec(),
            ..Config::default()
        }
    }

    /// Checks the fields against their limits and each other.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] with the first field whose value cannot work.
    pub fn build(self) -> Result<Params, ConfigError> {
        fn at_least(field: &'static str, value: u64, least: u64) -> Result<(), ConfigError> {
            if value < least { Err(ConfigError::new(field, value, format_args!("at least {least}"))) } else { Ok(()) }
        }
        fn between(field: &'static str, value: Duration, least: Duration, most: Duration) -> Result<(), ConfigError> {
            if value < least || value > most {
                return Err(ConfigError::new(field, format_args!("{value:?}"), format_args!("from {least:?} to {most:?}")));
            }
            Ok(())
        }
        const MILLI: Duration = Duration::from_millis(1);
        const MINUTE: Duration = Duration::from_secs(60);

        if self.payload_len_max == 0 || self.payload_len_max > BROADCAST_BYTES_MAX {
            let limit = format_args!("from 1 to {BROADCAST_BYTES_MAX}");
            return Err(ConfigError::new("payload_len_max", self.payload_len_max, limit));
        }
        between("payload_retention", self.payload_retention, Duration::ZERO, Duration::from_secs(24 * 3_600))?;
        between("announce_delay_max", self.announce_delay_max, Duration::ZERO, MINUTE)?;
        between("announce_delay_min", self.announce_delay_min, Duration::ZERO, self.announce_delay_max)?;
        between("graft_wait_max", self.graft_wait_max, MILLI, 60 * MINUTE)?;
        between("graft_wait_min", self.graft_wait_min, MILLI, self.graft_wait_max)?;
        between("graft_wait", self.graft_wait, self.graft_wait_min, self.graft_wait_max)?;
        between("answer_wait_max", self.answer_wait_max, MILLI, 60 * MINUTE)?;
        between("answer_wait_min", self.answer_wait_min, MILLI, self.answer_wait_max)?;
        between("answer_wait", self.answer_wait, self.answer_wait_min, self.answer_wait_max)?;
        between("summary_period", self.summary_period, 10 * MILLI, 60 * MINUTE)?;
        if self.flood_len > 8 {
            return Err(ConfigError::new("flood_len", self.flood_len, "from 0 to 8"));
        }
        at_least("payloads_max", self.payloads_max as u64, 1)?;
        at_least("payload_bytes_max", self.payload_bytes_max as u64, 1)?;
        at_least("attempts_max", u64::from(self.attempts_max), 1)?;
        at_least("asked_max", self.asked_max as u64, 1)?;
        at_least("grafts_per_second", u64::from(self.grafts_per_second), 2)?;
        // We ask within half of the limit, and that half must let us ask for one at least.
        at_least("graft_burst", u64::from(self.graft_burst), 2)?;
        at_least("optimization_threshold", u64::from(self.optimization_threshold.unwrap_or(1)), 1)?;
        at_least("summary_bytes_max", self.summary_bytes_max as u64, 256)?;
        at_least("missing_max", self.missing_max as u64, 1)?;
        at_least("missing_per_neighbor_max", self.missing_per_neighbor_max as u64, 1)?;
        at_least("announcers_max", self.announcers_max as u64, 1)?;
        at_least("streams_max", self.streams_max as u64, 1)?;
        at_least("stream_ranges_max", self.stream_ranges_max as u64, 1)?;
        at_least("ranges_max", self.ranges_max as u64, 1)?;
        at_least("ahead_max", self.ahead_max, 1)?;
        if self.grafts_per_second > 1_000_000_000 {
            return Err(ConfigError::new("grafts_per_second", self.grafts_per_second, "at most 1000000000"));
        }
        Ok(Params(Arc::new(Checked {
            seen: seen::Bounds {
                streams_max: self.streams_max,
                stream_ranges_max: self.stream_ranges_max,
                ranges_max: self.ranges_max,
                ahead_max: self.ahead_max,
                idle: self.payload_retention,
            },
            store: store::Bounds { retention: self.payload_retention, bytes_max: self.payload_bytes_max, payloads_max: self.payloads_max },
            without: Improvement::bits(&self.without),
            config: self,
            buggify: Buggify::default(),
        })))
    }
}

/// A link that stands still for longer is given up by those who carry it.
const LINK_STANDS_SECS: u32 = 30;

/// A [`Config`] that was checked. Copies share it, so that a million simulated nodes hold it once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params(Arc<Checked>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Checked {
    config: Config,
    /// Of `config`, one bit for each.
    without: u16,
    seen: seen::Bounds,
    store: store::Bounds,
    buggify: Buggify,
}

impl Params {
    /// What it was built from.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Whether an improvement is on.
    pub fn has(&self, improvement: Improvement) -> bool {
        self.0.without & improvement.bit() == 0
    }

    /// With rare behavior, for the simulator.
    pub fn with_buggify(mut self, buggify: Buggify) -> Self {
        Arc::make_mut(&mut self.0).buggify = buggify;
        self
    }

    pub(crate) fn buggify(&self) -> &Buggify {
        &self.0.buggify
    }

    /// How many of the requests without an answer count as lost in a second, for the few that are met with silence: slow enough that on a link which stands still
    /// for as long as links live, no more pile up than the neighbor may be asked for at once.
    pub(crate) fn unheard_per_second(&self) -> u32 {
        (self.0.config.graft_burst / 2 / LINK_STANDS_SECS).max(1)
    }

    pub(crate) fn seen(&self) -> &seen::Bounds {
        &self.0.seen
    }

    pub(crate) fn store(&self) -> &store::Bounds {
        &self.0.store
    }
}

impl Default for Params {
    fn default() -> Self {
        Config::default().build().expect("the defaults are within their own limits")
    }
}
