//! What a broadcast is called.

use meshwork_channels::ChannelId;
use serde::{Deserialize, Serialize};

/// The identity of a broadcast: never a hash of its content, so equal payloads are different messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId<I> {
    /// The node that sent it.
    pub origin: I,
    /// Which life of that node.
    pub incarnation: u64,
    /// The channel.
    pub channel: ChannelId,
    /// Counted from 1 for each origin, incarnation and channel, without gaps.
    pub sequence: u64,
}

impl<I: Copy> MessageId<I> {
    /// The stream that the message belongs to.
    pub fn stream(&self) -> Stream<I> {
        Stream { origin: self.origin, incarnation: self.incarnation, channel: self.channel }
    }
}

/// All messages of one life of one origin on one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stream<I> {
    /// The node that sends them.
    pub origin: I,
    /// Which life of that node.
    pub incarnation: u64,
    /// The channel.
    pub channel: ChannelId,
}

impl<I: Copy> Stream<I> {
    /// The message of this stream with a sequence number.
    pub fn message(&self, sequence: u64) -> MessageId<I> {
        MessageId { origin: self.origin, incarnation: self.incarnation, channel: self.channel, sequence }
    }
}
