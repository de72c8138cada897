//! Plumtree.
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
