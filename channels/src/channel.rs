//! Named channels: streams of their own between two peers, so that one never waits behind another.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of a channel on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChannelId(pub u16);

impl ChannelId {
    /// Overlay, membership and repair. Applications cannot send here.
    pub const CONTROL: ChannelId = ChannelId(0);
    /// Urgent application messages.
    pub const COORDINATION: ChannelId = ChannelId(1);
    /// Application data.
    pub const DATA: ChannelId = ChannelId(2);
    /// Background traffic: replicated state and whatever may wait.
    pub const GOSSIP: ChannelId = ChannelId(3);
    /// Application events; what a broadcast uses unless told otherwise.
    pub const EVENTS: ChannelId = ChannelId(4);

    /// The channels that every node has, in the order of their numbers.
    pub const BUILT_IN: [ChannelId; 5] = [Self::CONTROL, Self::COORDINATION, Self::DATA, Self::GOSSIP, Self::EVENTS];

    /// The name of a built-in channel.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::CONTROL => "control",
            Self::COORDINATION => "coordination",
            Self::DATA => "data",
            Self::GOSSIP => "gossip",
            Self::EVENTS => "events",
            _ => return None,
        })
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "channel-{}", self.0),
        }
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
