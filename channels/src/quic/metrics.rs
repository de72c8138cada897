//! What is measured of a link: its channels, and the connections that carry them.

use std::time::Duration;

use super::Governed;
use crate::governor;
use crate::metrics::ChannelMetrics;

/// What a link has measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkMetrics {
    /// The channels in the order of their numbers.
    pub channels: Vec<ChannelMetrics>,
    /// Frames that were meant for channels that do not exist; nothing else counts them.
    pub unknown_channel: u64,
    /// The connections that are open now: the first one, and the second ones if there are any.
    pub connections: Vec<ConnectionMetrics>,
}

/// Which connection of a link it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConnectionRole {
    /// The one that lives as long as the link.
    First,
    /// The second one on which this side sends bulk.
    OurSecond,
    /// The second one on which the peer sends bulk.
    TheirSecond,
}

impl ConnectionRole {
    /// A short stable name for tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            ConnectionRole::First => "first",
            ConnectionRole::OurSecond => "our_second",
            ConnectionRole::TheirSecond => "their_second",
        }
    }
}

/// What QUIC says of one connection, since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionMetrics {
    /// Which one it is.
    pub role: ConnectionRole,
    /// The smoothed round-trip time.
    pub rtt: Duration,
    /// The shortest round trip.
    pub rtt_min: Duration,
    /// What congestion control lets be in flight.
    pub congestion_window_bytes: u64,
    /// How often congestion control saw congestion.
    pub congestion_events: u64,
    /// The largest packet that the path carries, as far as is known.
    pub packet_bytes_max: u16,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets that were lost.
    pub packets_lost: u64,
    /// UDP datagrams sent; each may carry several packets.
    pub datagrams_sent: u64,
    /// In so many system calls, each for datagrams of one connection; see [`ConnectionMetrics::datagrams_per_send`].
    pub sends: u64,
    /// UDP datagrams received. How many system calls that took is not known.
    pub datagrams_received: u64,
    /// Bytes sent, with all headers above UDP.
    pub bytes_sent: u64,
    /// Bytes received, with all headers above UDP.
    pub bytes_received: u64,
    /// What the governor knows, where it rules: on our second connection. Its limit is [`governor::Report::window`], the queue that it sees in the network
    /// [`governor::Report::queue`].
    pub governor: Option<governor::Report>,
}

impl ConnectionMetrics {
    pub(super) fn of(connection: &quinn::Connection, role: ConnectionRole) -> Self {
        let stats = connection.stats();
        ConnectionMetrics {
            role,
            rtt: stats.path.rtt,
            rtt_min: stats.path.min_rtt,
            congestion_window_bytes: stats.path.cwnd,
            congestion_events: stats.path.congestion_events,
            packet_bytes_max: stats.path.current_mtu,
            packets_sent: stats.path.sent_packets,
            packets_lost: stats.path.lost_packets,
            datagrams_sent: stats.udp_tx.datagrams,
            sends: stats.udp_tx.ios,
            datagrams_received: stats.udp_rx.datagrams,
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes,
            governor: Governed::report(connection),
        }
    }

    /// How many datagrams left in one system call, on average; below 4 under load, pacing or wake-ups are what limits. Zero when none was sent.
    pub fn datagrams_per_send(&self) -> f64 {
        if self.sends == 0 { 0.0 } else { self.datagrams_sent as f64 / self.sends as f64 }
    }
}
