//! What a node says about itself: as JSON whose names and units stay, and as tables for people.

pub(super) mod config;
mod print;
pub(super) mod registry;
pub(super) mod state;
pub(super) mod variables;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use meshwork_channels::PeerId;
use meshwork_channels::dial::{DialFailure, Direction};
use meshwork_channels::histogram::Histogram;
use meshwork_channels::metrics::{ChannelMetrics, LaneChange, LaneMetrics};
use meshwork_channels::quic::ConnectionMetrics;
use serde::{Deserialize, Serialize};

pub(super) use self::print::Printable;
use super::text::{self, printable};
use crate::node::{Connectivity, Member};
use crate::runtime::{ChannelsReport, Node, Report};

/// The members that a node knows, this node included.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Members {
    pub(super) members: Vec<MemberView>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct MemberView {
    pub(super) id: String,
    pub(super) address: SocketAddr,
    pub(super) incarnation: u64,
    /// `alive`, `suspect`, `down` or `left`.
    pub(super) status: String,
    /// Whether it is the node that answers.
    pub(super) this: bool,
}

impl MemberView {
    pub(super) fn of(member: &Member, me: PeerId) -> Self {
        MemberView {
            id: member.peer.to_string(),
            address: member.address,
            incarnation: member.generation,
            status: member.status.name().to_owned(),
            this: member.peer == me,
        }
    }
}

/// The connections of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Links {
    pub(super) links: Vec<LinkView>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LinkView {
    pub(super) peer: String,
    pub(super) address: SocketAddr,
    /// `inbound` or `outbound`.
    pub(super) direction: String,
    pub(super) neighbor: bool,
    pub(super) rtt_ms: f64,
    pub(super) sent_packets: u64,
    pub(super) lost_packets: u64,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
    pub(super) queued_frames: usize,
    pub(super) queued_bytes: usize,
}

/// What went over each channel: to all peers, and to each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Channels {
    pub(super) channels: Vec<ChannelView>,
    pub(super) peers: Vec<PeerChannels>,
}

/// The same, printed with a row for each lane.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Lanes(Channels);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PeerChannels {
    pub(super) peer: String,
    /// None while it is not connected.
    pub(super) connections: Vec<ConnectionView>,
    /// Frames for channels that do not exist.
    pub(super) unknown_channel: u64,
    /// Those that were used.
    pub(super) channels: Vec<ChannelView>,
}

/// `frames` are messages; bytes that were sent or wait are those on the stream, accepted and received ones those of the contents.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ChannelView {
    pub(super) channel: String,
    pub(super) accepted_frames: u64,
    pub(super) accepted_bytes: u64,
    pub(super) sent_frames: u64,
    pub(super) sent_bytes: u64,
    pub(super) received_frames: u64,
    pub(super) received_bytes: u64,
    pub(super) refused: u64,
    pub(super) refused_channel_full: u64,
    pub(super) refused_peer_full: u64,
    pub(super) dropped: u64,
    pub(super) dropped_conflated: u64,
    pub(super) dropped_oldest: u64,
    pub(super) dropped_unwanted: u64,
    pub(super) dropped_lost: u64,
    pub(super) dropped_expired: u64,
    pub(super) waiting_frames: u64,
    pub(super) waiting_bytes: u64,
    pub(super) queued_frames_high: u64,
    pub(super) queued_bytes_high: u64,
    pub(super) writes: u64,
    pub(super) frames_per_write: f64,
    pub(super) busy_ms: f64,
    /// 0 to 1, in the last whole window of 10 s.
    pub(super) utilization: f64,
    pub(super) blocked_opening_ms: f64,
    pub(super) blocked_stream_ms: f64,
    pub(super) waited: WaitView,
    pub(super) lanes: Vec<LaneView>,
    /// The lanes that new senders without a key are spread over, and how that number changed.
    pub(super) lanes_active: u8,
    pub(super) lane_changes: Vec<LaneChangeView>,
}

/// For how long the frames that were sent had waited.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct WaitView {
    pub(super) count: u64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    pub(super) max_ms: f64,
    /// Those that are not empty: the end of the bucket in microseconds, none for the last one, and how many lie below it and not below the end before.
    pub(super) buckets: Vec<(Option<u64>, u64)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LaneView {
    pub(super) lane: usize,
    pub(super) sent_frames: u64,
    pub(super) sent_bytes: u64,
    pub(super) received_frames: u64,
    pub(super) received_bytes: u64,
    pub(super) dropped: u64,
    pub(super) waiting_frames: u64,
    pub(super) waiting_bytes: u64,
    /// It takes nothing while others do: nobody new gets it.
    pub(super) blocked: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LaneChangeView {
    /// Seconds since the node was started.
    pub(super) at_s: f64,
    pub(super) from: u8,
    pub(super) to: u8,
    pub(super) before_bytes_per_second: u64,
    /// None where it was not measured.
    pub(super) after_bytes_per_second: Option<u64>,
    /// `saturated` or `idle`.
    pub(super) reason: String,
    /// `measuring`, `kept`, `reverted` or `unused`.
    pub(super) outcome: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ConnectionView {
    /// `first`, `our_second` or `their_second`.
    pub(super) role: String,
    pub(super) rtt_ms: f64,
    pub(super) rtt_min_ms: f64,
    pub(super) congestion_window_bytes: u64,
    pub(super) congestion_events: u64,
    pub(super) packet_bytes_max: u16,
    pub(super) sent_packets: u64,
    pub(super) lost_packets: u64,
    pub(super) sent_datagrams: u64,
    pub(super) datagrams_per_send: f64,
    pub(super) received_datagrams: u64,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
    /// Where a governor rules.
    pub(super) governor: Option<GovernorView>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct GovernorView {
    pub(super) limit_bytes: u64,
    pub(super) queue_ms: f64,
    pub(super) target_ms: f64,
    pub(super) base_ms: f64,
    pub(super) bytes_per_second: u64,
}

impl ChannelView {
    fn of(report: &ChannelsReport, metrics: &ChannelMetrics) -> Self {
        ChannelView {
            channel: report.name_of(metrics.channel).into_owned(),
            accepted_frames: metrics.accepted.messages,
            accepted_bytes: metrics.accepted.bytes,
            sent_frames: metrics.sent.messages,
            sent_bytes: metrics.sent.bytes,
            received_frames: metrics.received.messages,
            received_bytes: metrics.received.bytes,
            refused: metrics.refused.total(),
            refused_channel_full: metrics.refused.channel_full,
            refused_peer_full: metrics.refused.peer_full,
            dropped: metrics.dropped.total(),
            dropped_conflated: metrics.dropped.conflated,
            dropped_oldest: metrics.dropped.oldest,
            dropped_unwanted: metrics.dropped.unwanted,
            dropped_lost: metrics.dropped.lost,
            dropped_expired: metrics.dropped.expired,
            waiting_frames: metrics.waiting.messages,
            waiting_bytes: metrics.waiting.bytes,
            queued_frames_high: metrics.queued_high.messages,
            queued_bytes_high: metrics.queued_high.bytes,
            writes: metrics.writes,
            frames_per_write: metrics.messages_per_write(),
            busy_ms: milliseconds(metrics.busy),
            utilization: metrics.utilization(),
            blocked_opening_ms: milliseconds(metrics.blocked.opening),
            blocked_stream_ms: milliseconds(metrics.blocked.stream),
            waited: WaitView::of(&metrics.waited),
            lanes: metrics.lanes.iter().enumerate().map(|(lane, metrics)| LaneView::of(lane, metrics)).collect(),
            lanes_active: metrics.lanes_active,
            lane_changes: metrics.lane_changes.iter().map(LaneChangeView::of).collect(),
        }
    }
}

impl WaitView {
    fn of(waited: &Histogram) -> Self {
        let quantile = |share| milliseconds(waited.quantile(share));
        let end = |end: Duration| (end != Duration::MAX).then_some(u64::try_from(end.as_micros()).unwrap_or(u64::MAX));
        WaitView {
            count: waited.count(),
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            max_ms: milliseconds(waited.max()),
            buckets: waited.buckets().map(|(upper_end, count)| (end(upper_end), count)).collect(),
        }
    }
}

impl LaneView {
    fn of(lane: usize, metrics: &LaneMetrics) -> Self {
        LaneView {
            lane,
            sent_frames: metrics.sent.messages,
            sent_bytes: metrics.sent.bytes,
            received_frames: metrics.received.messages,
            received_bytes: metrics.received.bytes,
            dropped: metrics.dropped,
            waiting_frames: metrics.waiting.messages,
            waiting_bytes: metrics.waiting.bytes,
            blocked: metrics.is_blocked,
        }
    }
}

impl LaneChangeView {
    fn of(change: &LaneChange) -> Self {
        LaneChangeView {
            at_s: change.at.as_secs_f64(),
            from: change.from,
            to: change.to,
            before_bytes_per_second: change.before_bytes_per_s,
            after_bytes_per_second: change.after_bytes_per_s,
            reason: change.reason.name().to_owned(),
            outcome: change.outcome.name().to_owned(),
        }
    }
}

impl ConnectionView {
    fn of(metrics: &ConnectionMetrics) -> Self {
        let governor = metrics.governor.map(|report| GovernorView {
            limit_bytes: report.window,
            queue_ms: milliseconds(report.queue),
            target_ms: milliseconds(report.target),
            base_ms: milliseconds(report.base),
            bytes_per_second: report.bytes_per_second,
        });
        ConnectionView {
            role: metrics.role.name().to_owned(),
            rtt_ms: milliseconds(metrics.rtt),
            rtt_min_ms: milliseconds(metrics.rtt_min),
            congestion_window_bytes: metrics.congestion_window_bytes,
            congestion_events: metrics.congestion_events,
            packet_bytes_max: metrics.packet_bytes_max,
            sent_packets: metrics.packets_sent,
            lost_packets: metrics.packets_lost,
            sent_datagrams: metrics.datagrams_sent,
            datagrams_per_send: metrics.datagrams_per_send(),
            received_datagrams: metrics.datagrams_received,
            sent_bytes: metrics.bytes_sent,
            received_bytes: metrics.bytes_received,
            governor,
        }
    }
}

/// The overlay as a node sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Topology {
    pub(super) topology: String,
    pub(super) neighbors: Vec<NeighborView>,
    pub(super) connections: usize,
    /// Counters of broadcasts by name.
    pub(super) broadcast: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct NeighborView {
    pub(super) peer: String,
    pub(super) address: Option<SocketAddr>,
    pub(super) rtt_ms: Option<f64>,
}

/// Bytes: as text when they are text, else as hexadecimal digits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Value {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value_hex: Option<String>,
    /// How many there are; fewer are shown when the value was cut.
    pub(super) bytes: usize,
}

impl Value {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Value::cut(bytes, usize::MAX)
    }

    fn cut(bytes: &[u8], bytes_max: usize) -> Self {
        let len = bytes.len();
        match std::str::from_utf8(bytes) {
            Ok(text) => Value { value: Some(text[..text.floor_char_boundary(bytes_max)].to_owned()), value_hex: None, bytes: len },
            Err(_) => {
                let digits = bytes.iter().take(bytes_max).map(|byte| format!("{byte:02x}")).collect();
                Value { value: None, value_hex: Some(digits), bytes: len }
            }
        }
    }

    /// What is shown, as bytes; none when it is neither text nor digits.
    fn bytes(&self) -> Option<Vec<u8>> {
        if let Some(text) = &self.value {
            return Some(text.clone().into_bytes());
        }
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        self.value_hex.as_ref()?.as_bytes().chunks(2).map(byte).collect()
    }

    pub(super) fn printable(&self, chars_max: usize) -> String {
        match (&self.value, &self.value_hex) {
            (Some(text), _) => printable(text, chars_max),
            (None, Some(digits)) => format!("0x{}", printable(digits, chars_max)),
            (None, None) => String::new(),
        }
    }
}

/// Whether a node does its work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Health {
    /// `ok`, `alone` (it has never had a neighbor), `isolated` (it lost the last one) or `stalled` (its protocol thread does not turn).
    pub(super) status: String,
    /// `alone`, `connected` or `isolated`; none while the node does not answer.
    pub(super) connectivity: Option<String>,
    pub(super) cluster: String,
    pub(super) id: String,
    pub(super) incarnation: u64,
    pub(super) address: SocketAddr,
    /// Members that are up, this node included.
    pub(super) members: Option<usize>,
    pub(super) neighbors: Option<usize>,
    pub(super) links: Option<usize>,
    pub(super) keys: Option<usize>,
    pub(super) uptime_s: Option<f64>,
    pub(super) stalled: bool,
    /// How often the protocol thread stalled so far.
    pub(super) stalls: Option<u64>,
    /// Rules that peers broke, by name.
    pub(super) misbehaved: BTreeMap<String, u64>,
    /// Frames that were given up because their peer could not be reached.
    pub(super) dropped: Option<u64>,
    /// Why the replicated state does not reach the disk at present; none also where it is kept in memory only.
    pub(super) undurable: Option<String>,
    pub(super) pid: u32,
    pub(super) version: String,
}

pub(super) fn members(report: &Report, me: PeerId) -> Members {
    Members { members: report.members.iter().map(|member| MemberView::of(member, me)).collect() }
}

pub(super) fn links(report: &Report) -> Links {
    let links = report.links.iter().map(|link| LinkView {
        peer: link.peer.to_string(),
        address: link.address,
        direction: match link.direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        }
        .to_owned(),
        neighbor: link.neighbor,
        rtt_ms: milliseconds(link.rtt),
        sent_packets: link.sent_packets,
        lost_packets: link.lost_packets,
        sent_bytes: link.sent_bytes,
        received_bytes: link.received_bytes,
        queued_frames: link.queued_frames,
        queued_bytes: link.queued_bytes,
    });
    Links { links: links.collect() }
}

pub(super) fn channels(report: &ChannelsReport) -> Channels {
    let peers = report.peers.iter().map(|peer| PeerChannels {
        peer: peer.peer.to_string(),
        connections: peer.connections.iter().map(ConnectionView::of).collect(),
        unknown_channel: peer.unknown_channel,
        // Most channels are silent on most links.
        channels: peer.channels.iter().filter(|channel| !channel.is_unused()).map(|channel| ChannelView::of(report, channel)).collect(),
    });
    Channels { peers: peers.collect(), channels: report.total.iter().map(|channel| ChannelView::of(report, channel)).collect() }
}

pub(super) fn topology(report: &Report) -> Topology {
    let neighbors = report.neighbors.iter().map(|peer| {
        let link = report.links.iter().find(|link| link.peer == *peer);
        NeighborView { peer: peer.to_string(), address: link.map(|link| link.address), rtt_ms: link.map(|link| milliseconds(link.rtt)) }
    });
    Topology {
        topology: report.topology.to_owned(),
        neighbors: neighbors.collect(),
        connections: report.links.len(),
        broadcast: report.broadcast.entries().map(|(name, count)| (name.to_owned(), count)).collect(),
    }
}

/// The health of a node; `report` is none when it gave no answer.
pub(super) fn health(node: &Node, report: Option<&Report>) -> Health {
    let stalled = node.is_stalled() || report.is_none();
    let connectivity = report.map(|report| report.connectivity);
    let status = match connectivity {
        _ if stalled => "stalled",
        Some(Connectivity::Isolated) => "isolated",
        Some(Connectivity::Alone) => "alone",
        Some(Connectivity::Connected) | None => "ok",
    };
    Health {
        status: status.to_owned(),
        connectivity: connectivity.map(|connectivity| connectivity.name().to_owned()),
        cluster: node.cluster().to_owned(),
        id: node.id().to_string(),
        incarnation: node.incarnation(),
        address: node.address(),
        members: report.map(|report| report.members.iter().filter(|member| member.status.is_up()).count()),
        neighbors: report.map(|report| report.neighbors.len()),
        links: report.map(|report| report.links.len()),
        keys: report.map(|report| report.keys),
        uptime_s: report.map(|report| report.uptime.as_secs_f64()),
        stalled,
        stalls: report.map(|report| report.stalls),
        misbehaved: report
            .map(|report| report.counters.misbehaved.iter().map(|(rule, count)| ((*rule).to_owned(), *count)).collect())
            .unwrap_or_default(),
        dropped: report.map(|report| report.counters.dropped),
        undurable: report.and_then(|report| Some(report.journal.as_ref()?.status.failure.as_ref()?.to_string())),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Why an address does not lead into the cluster: a stable name for JSON, and what helps.
pub(super) fn dial_failure(failure: DialFailure) -> (&'static str, &'static str) {
    match failure {
        DialFailure::TimedOut => ("timed_out", "; trying again"),
        DialFailure::Refused => ("refused", "; trying again"),
        DialFailure::Broken => ("broken", "; trying again"),
        DialFailure::NotExpected => ("not_expected", ""),
        DialFailure::WrongCluster => ("wrong_cluster", "; a token of that cluster lets this node in"),
        DialFailure::NotAdmitted => ("not_admitted", "; a token of that cluster lets this node in"),
        DialFailure::Myself => ("myself", ""),
    }
}

fn milliseconds(duration: Duration) -> f64 {
    // Microseconds are as fine as a round trip is measured.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// The first characters of a printed id, as in tables and logs.
pub(super) fn short(id: &str) -> String {
    printable(id.get(..10).unwrap_or(id), 10)
}

#[cfg(test)]
mod tests {
    use meshwork_channels::Time;
    use meshwork_channels::metrics::{LaneOutcome, LaneReason};

    use super::*;

    #[test]
    fn a_value_is_text_or_digits() {
        assert_eq!(serde_json::to_string(&Value::of(b"text")).unwrap(), r#"{"value":"text","bytes":4}"#);
        assert_eq!(serde_json::to_string(&Value::of(&[0xff, 0])).unwrap(), r#"{"value_hex":"ff00","bytes":2}"#);
        assert_eq!(serde_json::to_string(&Value::cut("aü".as_bytes(), 2)).unwrap(), r#"{"value":"a","bytes":3}"#);
    }

    #[test]
    fn channels_print_and_survive_the_wire() {
        let mut data = ChannelMetrics::new(meshwork_channels::ChannelId::DATA);
        data.sent.messages = 3;
        data.waited.record(Duration::from_micros(40), 2);
        data.waited.record(Duration::MAX, 1);
        data.lanes = vec![LaneMetrics::default(), LaneMetrics { is_blocked: true, ..LaneMetrics::default() }];
        data.lanes_active = 1;
        let peer = meshwork_channels::PeerId::from_bytes([7; 32]);
        let unused = ChannelMetrics::new(meshwork_channels::ChannelId::EVENTS);
        data.accepted.messages = 3;
        let peers = vec![crate::runtime::PeerMetrics {
            peer,
            connections: Vec::new(),
            unknown_channel: 0,
            channels: vec![data.clone(), unused.clone()],
        }];
        let defined = ["orders", "unheard-of"].map(|name| ChannelMetrics::new(name.into()));
        let names = vec![(defined[0].channel, "orders".into())];
        let view = channels(&ChannelsReport { total: [vec![data.clone(), unused], defined.to_vec()].concat(), peers, names });
        assert_eq!(
            (view.channels[2].channel.as_str(), view.channels[3].channel.as_str()),
            ("orders", defined[1].channel.to_string().as_str())
        );
        let json = serde_json::to_string(&view).unwrap();
        assert!(json.contains(r#""buckets":[[42,2],[null,1]]"#), "{json}");
        let lanes: Lanes = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&lanes).unwrap(), json);
        let table = view.print(None);
        assert_eq!(table.lines().filter(|line| line.contains("data")).count(), 2, "{table}");
        assert_eq!(table.lines().filter(|line| line.contains("events")).count(), 1, "only in the sum: {table}");
        let table = lanes.print(None);
        assert_eq!(table.lines().filter(|line| line.contains("data")).count(), 4);
        assert!(table.contains("active") && table.contains("blocked"), "{table}");
        data.lane_changes = vec![LaneChange {
            at: Time::from_millis(12_340),
            from: 1,
            to: 2,
            before_bytes_per_s: 10_000,
            after_bytes_per_s: None,
            reason: LaneReason::Saturated,
            outcome: LaneOutcome::Unused,
        }];
        let view = channels(&ChannelsReport { total: vec![data], peers: Vec::new(), names: Vec::new() });
        let json = serde_json::to_string(&view).unwrap();
        let change = r#""lane_changes":[{"at_s":12.34,"from":1,"to":2,"before_bytes_per_second":10000,"after_bytes_per_second":null,"reason":"saturated","outcome":"unused"}]"#;
        assert!(json.contains(change), "{json}");
        let table = serde_json::from_str::<Lanes>(&json).unwrap().print(None);
        assert!(table.lines().any(|line| line.contains("12.3 s") && line.contains("1 -> 2") && line.contains("unused")), "{table}");
    }

    #[test]
    fn a_short_id_of_anything_is_safe() {
        assert_eq!(short("abcdefghijklmnop"), "abcdefghij");
        assert_eq!(short("\x1b"), "\\u{1b}");
    }
}
