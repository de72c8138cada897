//! The channels to a peer and their limits: checked once, and the same for all peers.

use std::sync::Arc;

use crate::channel::{ChannelId, ChannelSpec, Class, Path, Reliability};
use crate::error::ConfigError;
use crate::{frame, limits};

/// Channels to one peer.
pub const CHANNELS_MAX: usize = 1_024;

/// Lanes of one channel.
pub const LANES_MAX: u8 = 16;

/// The channels to a peer and their limits. Cloning is cheap: all peers share one table.
#[derive(Clone, Debug)]
pub struct Params {
    /// In the order of their numbers.
    pub(super) channels: Arc<[ChannelSpec]>,
    /// Their numbers: a search reads these alone.
    ids: Arc<[ChannelId]>,
    /// Where the lanes of each channel start among all lanes, and behind the last channel their number.
    pub(super) lanes: Arc<[usize]>,
    pub(super) peer_bytes_max: usize,
    /// What classes other than control may queue: the total without what is reserved.
    pub(super) shared_bytes_max: usize,
}

impl Params {
    /// Bytes that may wait for one peer unless other params say so: what the built-in channels may hold together. A guess; with the
    /// limit of connections it is also what a process full of stalled peers holds for them.
    pub const PEER_BYTES_MAX: usize = 16 * 1_024 * 1_024;

    /// Checks a table of channels.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] when there are more than [`CHANNELS_MAX`] channels, two have one number or one name, a name is empty, a queue
    /// could never hold a frame of the largest size, a channel has no lane or more than [`LANES_MAX`], or `peer_bytes_max` leaves no room for one beside what control reserves.
    pub fn new(channels: impl IntoIterator<Item = ChannelSpec>, peer_bytes_max: usize) -> Result<Self, ConfigError> {
        const FRAME: usize = limits::FRAME_BYTES_MAX + frame::OVERHEAD_BYTES_MAX;
        let mut channels: Vec<ChannelSpec> = channels.into_iter().collect();
        if channels.len() > CHANNELS_MAX {
            return Err(ConfigError::new("channels", channels.len(), format_args!("at most {CHANNELS_MAX}")));
        }
        let mut names: Vec<&str> = channels.iter().map(|channel| &*channel.name).collect();
        names.sort_unstable();
        if let Some(name) = names.windows(2).find(|pair| pair[0] == pair[1] || pair[0].is_empty()).map(|pair| pair[0]) {
            return Err(ConfigError::new("channels.name", name, "a name of its own"));
        }
        if names == [""] {
            return Err(ConfigError::new("channels.name", "", "a name of its own"));
        }
        channels.sort_by_key(|channel| channel.id);
        if let Some(pair) = channels.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(ConfigError::new("channels.id", pair[0].id.0, "a number of its own"));
        }
        for channel in &channels {
            if channel.queued_frames_max == 0 {
                return Err(ConfigError::new("channels.queued_frames_max", 0, "at least 1"));
            }
            if !(1..=LANES_MAX).contains(&channel.lanes) {
                return Err(ConfigError::new("channels.lanes", channel.lanes, format_args!("1 to {LANES_MAX}")));
            }
            // What is best effort may have a queue that is small on purpose: a larger message is refused before it gets there.
            if channel.queued_bytes_max < FRAME && channel.reliability != Reliability::BestEffort {
                let limit = format!("at least {FRAME}, one frame of the largest size");
                return Err(ConfigError::new("channels.queued_bytes_max", channel.queued_bytes_max, limit));
            }
        }
        let reserved = channels
            .iter()
            .filter(|channel| channel.class == Class::Control)
            .fold(0_usize, |sum, channel| sum.saturating_add(channel.queued_bytes_max));
        let least = reserved.saturating_add(FRAME);
        if peer_bytes_max < least {
            let limit = format!("at least {least}: what control channels reserve, and one frame of the largest size");
            return Err(ConfigError::new("peer_bytes_max", peer_bytes_max, limit));
        }
        let mut lanes = vec![0];
        for channel in &channels {
            lanes.push(lanes.last().copied().unwrap_or(0) + usize::from(channel.lanes));
        }
        let ids = channels.iter().map(|channel| channel.id).collect();
        Ok(Params { channels: channels.into(), ids, lanes: lanes.into(), peer_bytes_max, shared_bytes_max: peer_bytes_max - reserved })
    }

    /// The channels in the order of their numbers.
    pub fn channels(&self) -> &[ChannelSpec] {
        &self.channels
    }

    /// The channel with this number.
    pub fn channel(&self, id: ChannelId) -> Option<&ChannelSpec> {
        self.index(id).map(|index| &self.channels[index])
    }

    /// Bytes that may wait for one peer.
    pub fn peer_bytes_max(&self) -> usize {
        self.peer_bytes_max
    }

    /// Which connection carries a channel; the urgent one when there is no such channel.
    pub fn path(&self, id: ChannelId) -> Path {
        self.channel(id).map_or(Path::Urgent, |spec| spec.path)
    }

    pub(crate) fn index(&self, id: ChannelId) -> Option<usize> {
        self.ids.binary_search(&id).ok()
    }

    /// The number of a channel, and of a lane of it among all lanes of all channels; lanes beyond the last begin anew from the first.
    pub(crate) fn place(&self, id: ChannelId, lane: u8) -> Option<(usize, usize)> {
        self.index(id).map(|index| (index, self.lanes[index] + usize::from(lane % self.channels[index].lanes)))
    }

    /// How many lanes all channels have together.
    #[cfg(feature = "quic")]
    pub(crate) fn lanes_count(&self) -> usize {
        self.lanes.last().copied().unwrap_or(0)
    }
}

/// The built-in channels ([`ChannelSpec::built_in`]).
impl Default for Params {
    fn default() -> Self {
        Params::new(ChannelSpec::built_in(), Params::PEER_BYTES_MAX).expect("the built-in table is valid, as a test says")
    }
}
