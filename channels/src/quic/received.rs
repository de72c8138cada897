//! What arrived on a link: exact counts for each channel and lane, that any task adds to.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::channel::ChannelId;
use crate::metrics::{ChannelMetrics, Volume};
use crate::sender::Params;

#[derive(Default)]
struct Count {
    frames: AtomicU64,
    bytes: AtomicU64,
}

impl Count {
    fn add(&self, frames: u64, bytes: u64) {
        self.frames.fetch_add(frames, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn volume(&self) -> Volume {
        Volume { messages: self.frames.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

/// The counts of a link.
pub(super) struct Received {
    /// One for each channel of the params, in the same order.
    channels: Vec<Count>,
    /// Frames of each that found no room.
    dropped: Vec<AtomicU64>,
    /// One for each lane of each channel.
    lanes: Vec<Count>,
}

impl Received {
    pub(super) fn new(params: &Params) -> Self {
        let counts = |len| std::iter::repeat_with(Count::default).take(len).collect();
        let channels = params.channels().len();
        let dropped = std::iter::repeat_with(AtomicU64::default).take(channels).collect();
        Received { channels: counts(channels), dropped, lanes: counts(params.lanes_count()) }
    }

    pub(super) fn count(&self, params: &Params, channel: ChannelId, lane: u8, frames: u64, bytes: u64) {
        if let Some((_, index)) = params.place(channel, lane) {
            self.lanes[index].add(frames, bytes);
        }
        if let Some(index) = params.index(channel) {
            self.channels[index].add(frames, bytes);
        }
    }

    /// Counts frames that arrived and found no room.
    pub(super) fn count_dropped(&self, params: &Params, channel: ChannelId, frames: u64) {
        if let Some(index) = params.index(channel) {
            self.dropped[index].fetch_add(frames, Ordering::Relaxed);
        }
    }

    /// Frames of a channel so far; none of one that the params do not have.
    pub(super) fn frames(&self, params: &Params, channel: ChannelId) -> Option<u64> {
        params.index(channel).map(|index| self.channels[index].frames.load(Ordering::Relaxed))
    }

    /// By channel of the params.
    pub(super) fn channels(&self) -> impl Iterator<Item = Volume> {
        self.channels.iter().map(Count::volume)
    }

    /// Frames that found no room, by channel of the params.
    pub(super) fn dropped(&self) -> impl Iterator<Item = u64> {
        self.dropped.iter().map(|frames| frames.load(Ordering::Relaxed))
    }

    /// Puts what arrived into the metrics of all channels.
    pub(super) fn tell(&self, channels: &mut [ChannelMetrics]) {
        let mut lanes = self.lanes.iter();
        for (channel, received) in channels.iter_mut().zip(self.channels()) {
            channel.received = received;
            channel.lanes.iter_mut().zip(&mut lanes).for_each(|(lane, received)| lane.received = received.volume());
        }
    }
}
