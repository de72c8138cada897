//! What a node tells of itself when it is asked.

use std::net::SocketAddr;
use std::time::Duration;

use meshwork_channels::dial::Direction;
use meshwork_channels::quic::Link;
use meshwork_channels::{ChannelId, PeerId};
use meshwork_crdt::Digest;
use meshwork_overlay::plumtree;

use super::durable::JournalReport;
use super::watchdog::Pulse;
use crate::node::{self, Connectivity, Member};

/// Everything that a node knows about itself, taken at one moment.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whether it has company.
    pub connectivity: Connectivity,
    /// The members, this node included, in the order of their identities; those that failed or left lately too.
    pub members: Vec<Member>,
    /// The overlay: `hyparview` or `mesh`.
    pub topology: &'static str,
    /// The neighbors, in order.
    pub neighbors: Vec<PeerId>,
    /// The connections.
    pub links: Vec<LinkReport>,
    /// Calls of this node's application that wait for an answer or for a connection.
    pub open_calls: usize,
    /// Requests of other nodes that its application has and has not answered, cancelled ones included.
    pub open_requests: usize,
    /// Keys with a value.
    pub keys: usize,
    /// Keys that were removed or have expired, and leave a tombstone until every member knows of it.
    pub tombstones: usize,
    /// Values that expired on this node so far.
    pub expired: u64,
    /// The digest of the replicated state: equal on two nodes when their states are.
    pub digest: Digest,
    /// How the replicated state is kept over restarts; none in a node that keeps it in memory.
    pub journal: Option<JournalReport>,
    /// Broadcasts.
    pub broadcast: plumtree::Counters,
    /// The rest.
    pub counters: node::Counters,
    /// How often the protocol thread stalled for two seconds or more.
    pub stalls: u64,
    /// Whether it is stalled now, by the word of the watchdog.
    pub stalled: bool,
    /// How long the node has been running.
    pub uptime: Duration,
}

/// A connection.
#[derive(Clone, Debug)]
pub struct LinkReport {
    /// Who is at the other end.
    pub peer: PeerId,
    /// Where.
    pub address: SocketAddr,
    /// Who dialed.
    pub direction: Direction,
    /// Whether the peer is a neighbor in the overlay.
    pub neighbor: bool,
    /// Smoothed round-trip time as QUIC measures it.
    pub rtt: Duration,
    /// Packets that QUIC holds for lost, of those it sent.
    pub lost_packets: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// UDP bytes sent.
    pub sent_bytes: u64,
    /// UDP bytes received.
    pub received_bytes: u64,
    /// Frames that wait for the peer now.
    pub queued_frames: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// What was sent and received on each channel.
    pub channels: Vec<ChannelReport>,
}

/// One channel of one connection. [`Node::channel_report`](super::Node::channel_report) knows more of it.
#[derive(Clone, Debug)]
pub struct ChannelReport {
    /// The channel.
    pub channel: ChannelId,
    /// Frames queued for the peer.
    pub sent_frames: u64,
    /// Bytes of them that the transport took.
    pub sent_bytes: u64,
    /// Frames received.
    pub received_frames: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames refused because the queue was full.
    pub refused: u64,
    /// Frames that gave way to later ones in the queue: the oldest of a full one, or those of the same key.
    pub superseded: u64,
    /// Frames whose time was over when they would have left.
    pub expired: u64,
    /// Messages of best effort that arrived and were dropped, because the application takes them too slowly.
    pub received_dropped: u64,
    /// The most frames that ever waited.
    pub queued_frames_high: usize,
    /// The most bytes that ever waited.
    pub queued_bytes_high: usize,
}

impl Report {
    pub(super) fn of<'a>(
        node: &node::Node,
        links: impl Iterator<Item = &'a Link>,
        journal: Option<JournalReport>,
        pulse: &Pulse,
        uptime: Duration,
    ) -> Self {
        let neighbors = node.neighbors().to_vec();
        Report {
            connectivity: node.connectivity(),
            members: node.members().collect(),
            topology: node.overlay().topology().name(),
            links: links.map(|link| LinkReport::of(link, &neighbors)).collect(),
            neighbors,
            open_calls: node.open_calls(),
            open_requests: node.open_requests(),
            keys: node.state().len(),
            tombstones: node.state().tombstones(),
            expired: node.state().counters().expired,
            digest: node.state().digest(),
            journal,
            broadcast: *node.overlay().plumtree().counters(),
            counters: node.counters(),
            stalls: pulse.stalls(),
            stalled: pulse.is_stalled(),
            uptime,
        }
    }
}

impl LinkReport {
    fn of(link: &Link, neighbors: &[PeerId]) -> Self {
        let stats = link.stats();
        let channels = stats.channels.iter().map(|channel| ChannelReport {
            channel: channel.channel,
            sent_frames: channel.sent.frames,
            sent_bytes: channel.sent.sent_bytes,
            received_frames: channel.received_frames,
            received_bytes: channel.received_bytes,
            refused: channel.sent.refused,
            superseded: channel.sent.superseded,
            expired: channel.sent.expired,
            received_dropped: channel.received_dropped,
            queued_frames_high: channel.sent.high.frames,
            queued_bytes_high: channel.sent.high.bytes,
        });
        let queued = link.queued();
        LinkReport {
            peer: link.peer(),
            address: link.address(),
            direction: link.direction(),
            neighbor: neighbors.binary_search(&link.peer()).is_ok(),
            rtt: stats.rtt,
            lost_packets: stats.packets_lost,
            sent_packets: stats.packets_sent,
            sent_bytes: stats.bytes_sent,
            received_bytes: stats.bytes_received,
            queued_frames: queued.frames,
            queued_bytes: queued.bytes,
            channels: channels.collect(),
        }
    }
}
