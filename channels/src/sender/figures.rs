//! What is told of the channels to a peer.

use super::{Channel, Queued, State};
use crate::channel::ChannelId;
use crate::metrics::{self, Blocked, ChannelMetrics, LaneMetrics, Volume};
use crate::time::Time;

/// What one channel to one peer has seen since the core was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames accepted.
    pub frames: u64,
    /// Bytes accepted.
    pub bytes: u64,
    /// The part of them that is content.
    pub body_bytes: u64,
    /// Frames refused, whatever became of them then.
    pub refused: u64,
    /// Those of them for which the channel had room, but the peer had not.
    pub peer_full: u64,
    /// Frames that gave way to later ones: the oldest of a full queue, or those that a later one of their key replaced.
    pub superseded: u64,
    /// Frames whose time was over when they would have left.
    pub expired: u64,
    /// Those of them that were the oldest of a full queue.
    pub oldest: u64,
    /// Frames that the driver gave up because the peer does not take the channel.
    pub unwanted: u64,
    /// Frames that were still here, or in the hands of the driver, when the connection was gone.
    pub lost: u64,
    /// Frames of which the transport took the last byte.
    pub sent_frames: u64,
    /// Bytes that the transport took.
    pub sent_bytes: u64,
    /// How often it took some.
    pub writes: u64,
    /// For how long streams held back what was ready.
    pub blocked: Blocked,
    /// The most that ever waited, frames and bytes each for themselves.
    pub high: Queued,
}

impl State {
    /// What is measured of each channel, in the order of their numbers, but for what was received.
    pub fn metrics(&self, now: Time) -> Vec<ChannelMetrics> {
        let channels = self.params.channels.iter().zip(&self.channels).enumerate();
        channels.map(|(index, (spec, channel))| self.channel_metrics(index, spec.id, channel, now)).collect()
    }

    fn channel_metrics(&self, index: usize, id: ChannelId, channel: &Channel, now: Time) -> ChannelMetrics {
        let Channel { queued, counters, under_way, waited, busy, .. } = channel;
        let (busy, busy_last) = busy.at(now.max(self.stamps.now()));
        let spread = channel.spread.as_deref();
        let lanes = self.queues[self.params.lanes[index]..self.params.lanes[index + 1]].iter().enumerate().map(|(lane, queue)| {
            let (frames, waits) = (&queue.frames, &queue.waits);
            LaneMetrics {
                sent: Volume { messages: waits.sent_frames, bytes: waits.sent_bytes },
                waiting: volume(frames.len() + waits.under_way.frames, frames.bytes() + waits.under_way.bytes),
                dropped: waits.dropped,
                received: Volume::default(),
                is_blocked: spread.is_some_and(|spread| spread.is_blocked(lane)),
            }
        });
        ChannelMetrics {
            accepted: Volume { messages: counters.frames, bytes: counters.body_bytes },
            sent: Volume { messages: counters.sent_frames, bytes: counters.sent_bytes },
            waiting: volume(queued.frames + under_way.frames, queued.bytes + under_way.bytes),
            queued_high: volume(counters.high.frames, counters.high.bytes),
            refused: metrics::Refused { channel_full: counters.refused - counters.peer_full, peer_full: counters.peer_full },
            dropped: metrics::Dropped {
                conflated: counters.superseded - counters.oldest,
                oldest: counters.oldest,
                unwanted: counters.unwanted,
                lost: counters.lost,
                expired: counters.expired,
            },
            writes: counters.writes,
            waited: waited.clone(),
            busy,
            busy_last,
            blocked: counters.blocked,
            lanes: lanes.collect(),
            lanes_active: spread.map_or(1, |spread| spread.growth.lanes()),
            lane_changes: spread.map_or_else(Vec::new, |spread| spread.growth.changes().iter().copied().collect()),
            ..ChannelMetrics::new(id)
        }
    }
}

fn volume(frames: usize, bytes: usize) -> Volume {
    Volume { messages: frames as u64, bytes: bytes as u64 }
}
