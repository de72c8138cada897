//! Frames that may not be lost while their connection stands, and found the queue of their channel full.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use meshwork_channels::ChannelId;
use meshwork_channels::dial::ConnectionId;
use meshwork_channels::quic::{Link, SendError};

/// Frames that are kept for one channel of a connection: what may be unacknowledged, and more acknowledgments than a peer that reads at all leaves waiting.
const FRAMES_MAX: usize = 4_096;

/// All of them, in order for each channel of a connection.
#[derive(Default)]
pub(super) struct Backlog(BTreeMap<(ConnectionId, ChannelId), VecDeque<Bytes>>);

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Queues a frame, behind those that wait; says whether no more of them wait than may.
    pub(super) fn send(&mut self, link: &Link, channel: ChannelId, frame: Bytes) -> bool {
        let key = (link.id(), channel);
        let kept = if self.0.contains_key(&key) { Some(frame) } else { refused(link.try_send(channel, frame)) };
        let Some(frame) = kept else { return true };
        let waiting = self.0.entry(key).or_default();
        waiting.push_back(frame);
        waiting.len() <= FRAMES_MAX
    }

    /// Queues what had to wait for room, and forgets what connections had that are gone.
    pub(super) fn send_waiting(&mut self, links: &BTreeMap<ConnectionId, Link>) {
        self.0.retain(|(connection, channel), frames| {
            let Some(link) = links.get(connection) else { return false };
            while let Some(frame) = frames.pop_front() {
                if let Some(frame) = refused(link.try_send(*channel, frame)) {
                    frames.push_front(frame);
                    return true;
                }
            }
            false
        });
    }
}

/// The frame, if it found its queue full. One that a closing connection did not take is sent again on the next.
fn refused(sent: Result<(), SendError>) -> Option<Bytes> {
    match sent {
        Err(SendError::Refused(refused)) => Some(refused.frame),
        _ => None,
    }
}
