//! What people may set about a replica.

use std::sync::Arc;
use std::time::Duration;

use meshwork_channels::buggify::Buggify;
use meshwork_channels::error::ConfigError;
use meshwork_channels::{Signer, limits};
use serde::{Deserialize, Serialize};

use crate::signed::{PREFIXES_MAX, Signing};
use crate::store::Bounds;

/// How a replica behaves. All replicas of a cluster should bound keys, bytes and values alike, and sign the same: what one refuses, it never holds, and its
/// digest differs from theirs for as long as they hold it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The least time between two deltas. A write after a longer pause leaves at once; others wait and share a frame, and writes of one key
    /// become one. Raising it saves frames under load and adds as much latency. Default 5 ms: a guess below what a person or a WAN notices.
    pub flush_delay: Duration,
    /// How often a replica compares with a random neighbor, within 20 % either way. Lowering it shortens the life of a difference and
    /// costs some 40 bytes per period. `None` switches all repair off, asking and answering, so that experiments can show what repair
    /// is good for: such a replica misses for good what its broadcasts miss. Default 5 s: a guess; deltas arrive by broadcast, and only
    /// what these miss waits.
    pub repair_period: Option<Duration>,
    /// About how long after a neighbor came up the two compare; between half and one and a half of it. Raising it delays new nodes,
    /// lowering it makes both ends more often start at once. Default 50 ms: a guess well above the round trips of a LAN.
    pub first_repair_delay: Duration,
    /// How long a comparison may stand still before it is given up. Lowering it may give up slow peers, raising it lets a lost one hold its
    /// place for longer. Default 2 s: a guess above the worst round trips of a WAN.
    pub session_timeout: Duration,
    /// How many frames answer one request. Raising it makes snapshots faster over long round trips and the queues to a peer longer.
    /// Default 8: half a megabyte, within one window of a stream.
    pub burst_frames: usize,
    /// How many comparisons a replica leads at once. Raising it may make a new node receive the same entries from several neighbors.
    /// Default 1.
    pub leads_max: usize,
    /// How many frames per second one peer may ask for in the long run; four seconds' worth at once. It bounds what a hostile neighbor
    /// makes this node send. Default 512: 32 MiB/s, and two whole snapshots at once.
    pub answer_frames_per_second: u32,
    /// How far ahead of the wall clock the stamp of another node may be. Raising it tolerates worse clocks and lets a liar win
    /// conflicts for as long. Default [`limits::STAMP_AHEAD_MAX`].
    pub stamp_ahead_max: Duration,
    /// For how long a removed key leaves a tombstone at least; it goes once every member is known to have heard of the removal. Lowering it frees keys sooner,
    /// and costs a comparison of the tables of members more often, twelve in this time. `None` keeps tombstones for ever, here and, because nobody hears
    /// how far this node is, on all others. Default 1 h: a guess at what covers restarts and short partitions without anybody noticing.
    pub collect_after: Option<Duration>,
    /// How long a member that fell silent is waited for before removals are forgotten without it. Raising it lets nodes be away for longer, and one that is gone
    /// for good hold tombstones for as long. Default 7 days: a guess, a holiday.
    pub absent_max: Duration,
    /// Keys, removed ones included. Raising it lets a member fill more memory of all others. Default 100,000: a guess; greatest value
    /// [`limits::KEYS_MAX`].
    pub keys_max: usize,
    /// Bytes of keys and values, likewise. Default 64 MiB: a guess; greatest value [`limits::STATE_BYTES_MAX`].
    pub state_bytes_max: usize,
    /// Bytes of one value. Default and greatest value [`limits::VALUE_BYTES_MAX`].
    pub value_bytes_max: usize,
    /// Prefixes of keys, such as `app/`, under which every entry is a plain register that its writer [signs](crate::signed): nobody can write there in the
    /// name of another. An entry costs 65 bytes more there, and a verification when it is taken in. At most [`PREFIXES_MAX`], none empty, and none
    /// that begins with `@`, as keys of services do. The list is to be the same on all nodes and for as long as the cluster lives: where a key comes under it
    /// or no longer is, entries from before are refused, and left out where they come from the disk. Default none.
    pub signed: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            flush_delay: Duration::from_millis(5),
            repair_period: Some(Duration::from_secs(5)),
            first_repair_delay: Duration::from_millis(50),
            session_timeout: Duration::from_secs(2),
            burst_frames: 8,
            leads_max: 1,
            answer_frames_per_second: 512,
            stamp_ahead_max: limits::STAMP_AHEAD_MAX,
            collect_after: Some(Duration::from_secs(3_600)),
            absent_max: Duration::from_secs(7 * 24 * 3_600),
            keys_max: 100_000,
            state_bytes_max: 64 * 1_024 * 1_024,
            value_bytes_max: limits::VALUE_BYTES_MAX,
            signed: Vec::new(),
        }
    }
}

impl Config {
    /// For nodes on one host or in one test: compares every second.
    pub fn local() -> Self {
        Config { repair_period: Some(Duration::from_secs(1)), first_repair_delay: Duration::from_millis(20), ..Self::default() }
    }

    /// For nodes of one site: the defaults.
    pub fn lan() -> Self {
        Self::default()
    }

    /// For nodes of several sites: patient, and with more bytes in flight.
    pub fn wan() -> Self {
        Config {
            first_repair_delay: Duration::from_millis(250),
            session_timeout: Duration::from_secs(5),
            burst_frames: 16,
            ..Self::default()
        }
    }

    /// Checks the fields, for a replica that signs nothing.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names the first field outside its limits; `signed`, if it names anything.
    pub fn build(self) -> Result<Params, ConfigError> {
        self.check()?;
        if !self.signed.is_empty() {
            return Err(ConfigError::new("signed", format_args!("{:?}", self.signed), "empty where there is nobody to sign"));
        }
        Ok(self.params(None))
    }

    /// Checks the fields, for a replica that signs. `cluster` names the cluster: a signature holds in no other. It stays what it is for as long as there are entries, so it must
    /// not follow from a secret that is changed one day.
    ///
    /// # Errors
    ///
    /// As [`Config::check`].
    pub fn build_signed(mut self, signer: Arc<dyn Signer>, cluster: [u8; 32]) -> Result<Params, ConfigError> {
        self.check()?;
        let prefixes = std::mem::take(&mut self.signed);
        let signing = (!prefixes.is_empty()).then(|| Signing::new(prefixes, signer, cluster));
        Ok(self.params(signing))
    }

    fn params(self, signing: Option<Signing>) -> Params {
        Params { config: self, digest_key: *b"meshwork replica", buggify: Buggify::default(), signing }
    }

    /// Checks the fields.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names the first field outside its limits.
    pub fn check(&self) -> Result<(), ConfigError> {
        fn within<T: PartialOrd + std::fmt::Debug>(field: &'static str, value: T, least: T, most: T) -> Result<(), ConfigError> {
            if value < least || value > most {
                return Err(ConfigError::new(field, format_args!("{value:?}"), format_args!("{least:?} to {most:?}")));
            }
            Ok(())
        }
        let (milli, minute) = (Duration::from_millis(1), Duration::from_secs(60));
        within("flush_delay", self.flush_delay, Duration::ZERO, Duration::from_secs(1))?;
        if let Some(period) = self.repair_period {
            within("repair_period", period, 10 * milli, limits::REMOTE_DURATION_MAX)?;
        }
        within("first_repair_delay", self.first_repair_delay, milli, minute)?;
        within("session_timeout", self.session_timeout, 10 * milli, minute)?;
        within("burst_frames", self.burst_frames, 1, 64)?;
        within("leads_max", self.leads_max, 1, 64)?;
        within("answer_frames_per_second", self.answer_frames_per_second, 1, 1_000_000)?;
        within("stamp_ahead_max", self.stamp_ahead_max, Duration::ZERO, limits::REMOTE_DURATION_MAX)?;
        if let Some(after) = self.collect_after {
            within("collect_after", after, Duration::from_secs(12), 365 * 24 * 60 * minute)?;
        }
        within("absent_max", self.absent_max, minute, 365 * 24 * 60 * minute)?;
        within("keys_max", self.keys_max, 1, limits::KEYS_MAX)?;
        within("state_bytes_max", self.state_bytes_max, 1, limits::STATE_BYTES_MAX)?;
        within("value_bytes_max", self.value_bytes_max, 0, limits::VALUE_BYTES_MAX)?;
        within("signed", self.signed.len(), 0, PREFIXES_MAX)
            .map_err(|error| ConfigError { limit: format!("{} prefixes", error.limit), ..error })?;
        let is_wrong = |prefix: &&String| prefix.is_empty() || prefix.starts_with('@') || prefix.len() > limits::KEY_BYTES_MAX;
        if let Some(prefix) = self.signed.iter().find(is_wrong) {
            let limit = format!("prefixes of 1 to {} bytes that do not begin with `@`, as keys of services do", limits::KEY_BYTES_MAX);
            return Err(ConfigError::new("signed", format_args!("{prefix:?}"), limit));
        }
        Ok(())
    }
}

/// A checked [`Config`], and the key of the digests.
#[derive(Clone)]
pub struct Params {
    pub(crate) config: Config,
    pub(crate) digest_key: [u8; 16],
    pub(crate) buggify: Buggify,
    /// `None` where nothing is signed.
    pub(crate) signing: Option<Signing>,
}

impl Params {
    /// Takes another key for all hashes than the public one that tests use. Every replica of a cluster must have the same, derived from
    /// the secret of the cluster: whoever knows it can make entries that digests do not tell apart.
    pub fn with_digest_key(self, digest_key: [u8; 16]) -> Self {
        Params { digest_key, ..self }
    }

    /// With rare behavior, for the simulator.
    pub fn with_buggify(self, buggify: Buggify) -> Self {
        Params { buggify, ..self }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { keys_max: self.config.keys_max, bytes_max: self.config.state_bytes_max, value_bytes_max: self.config.value_bytes_max }
    }
}

impl std::fmt::Debug for Params {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Params").field("config", &self.config).finish_non_exhaustive()
    }
}
