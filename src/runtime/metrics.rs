//! What is measured of the channels to all peers, beyond the connections of the moment.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use meshwork_channels::dial::ConnectionId;
use meshwork_channels::metrics::{ChannelMetrics, add_channels};
use meshwork_channels::quic::{ConnectionMetrics, Link};
use meshwork_channels::{ChannelId, ChannelSpec, PeerId};

/// Peers without a connection of which the figures are kept apart; those of the ones that went first are in the sum only.
pub const FORMER_PEERS_MAX: usize = 256;

/// What went over the channels of a node since it was started, taken at one moment.
///
/// The figures of a peer add up over all connections to it, in all its lives; when a connection ends, what it had queued counts as
/// [`lost`](meshwork_channels::metrics::Dropped::lost). Of the peers that have no connection, the last [`FORMER_PEERS_MAX`] are kept apart; one that comes
/// back later than that begins anew. The sum forgets nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelsReport {
    /// The sum over all peers, also those that are not kept apart any more: a channel each, in the order of their numbers.
    pub total: Vec<ChannelMetrics>,
    /// The peers, in the order of their identities.
    pub peers: Vec<PeerMetrics>,
    /// The names of the channels that the application of this node defined, in the order of their numbers.
    pub names: Vec<(ChannelId, Cow<'static, str>)>,
}

impl ChannelsReport {
    /// The name of a channel; its number, if neither this node nor this version knows a name for it.
    pub fn name_of(&self, channel: ChannelId) -> Cow<'_, str> {
        match self.names.binary_search_by_key(&channel, |(channel, _)| *channel) {
            Ok(place) => Cow::Borrowed(&self.names[place].1),
            Err(_) => channel.name().map_or_else(|| Cow::Owned(channel.to_string()), Cow::Borrowed),
        }
    }
}

/// What went over the channels to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerMetrics {
    /// The peer.
    pub peer: PeerId,
    /// The connections to it that are open now, with what QUIC says of them.
    pub connections: Vec<ConnectionMetrics>,
    /// Frames that were meant for channels that do not exist.
    pub unknown_channel: u64,
    /// The channels in the order of their numbers.
    pub channels: Vec<ChannelMetrics>,
}

impl PeerMetrics {
    fn new(peer: PeerId) -> Self {
        PeerMetrics { peer, connections: Vec::new(), unknown_channel: 0, channels: Vec::new() }
    }
}

/// What connections that are over carried, and connections that are closing.
#[derive(Default)]
pub(super) struct Ledger {
    /// Not the driver's any more, and not at their end.
    closing: BTreeMap<ConnectionId, Link>,
    former: BTreeMap<PeerId, Former>,
    /// Of all the peers that are not kept apart.
    others: Vec<ChannelMetrics>,
    /// Connections that ended so far: the age of what is former.
    ended: u64,
}

struct Former {
    channels: Vec<ChannelMetrics>,
    unknown_channel: u64,
    ended: u64,
}

impl Ledger {
    /// The driver has closed a connection, which is at its end later.
    pub(super) fn closing(&mut self, link: Link) {
        self.closing.insert(link.id(), link);
    }

    /// A connection is at its end; the link as far as the driver had it.
    pub(super) fn ended(&mut self, connection: ConnectionId, link: Option<Link>, links: &BTreeMap<ConnectionId, Link>) {
        let Some(link) = link.or_else(|| self.closing.remove(&connection)) else { return };
        let metrics = link.metrics();
        let past: Vec<ChannelMetrics> = metrics.channels.into_iter().map(ChannelMetrics::into_past).collect();
        let connected: BTreeSet<PeerId> = links.values().chain(self.closing.values()).map(Link::peer).collect();
        self.keep(link.peer(), &past, metrics.unknown_channel, &connected);
    }

    fn keep(&mut self, peer: PeerId, past: &[ChannelMetrics], unknown_channel: u64, connected: &BTreeSet<PeerId>) {
        self.ended += 1;
        let former = self.former.entry(peer).or_insert_with(|| Former { channels: Vec::new(), unknown_channel: 0, ended: 0 });
        former.ended = self.ended;
        former.unknown_channel = former.unknown_channel.saturating_add(unknown_channel);
        add_channels(&mut former.channels, past);
        let mut gone: Vec<_> =
            self.former.iter().filter(|(peer, _)| !connected.contains(peer)).map(|(peer, former)| (former.ended, *peer)).collect();
        gone.sort_unstable();
        for (_, peer) in gone.iter().take(gone.len().saturating_sub(FORMER_PEERS_MAX)) {
            if let Some(former) = self.former.remove(peer) {
                add_channels(&mut self.others, &former.channels);
            }
        }
    }

    /// Everything, with the connections that the driver has, and the specifications that it knows.
    pub(super) fn report<'a>(
        &'a self,
        links: impl Iterator<Item = &'a Link>,
        spec: impl Fn(ChannelId) -> Option<&'a ChannelSpec>,
    ) -> ChannelsReport {
        let mut peers: BTreeMap<PeerId, PeerMetrics> = BTreeMap::new();
        for (peer, former) in &self.former {
            let channels = former.channels.clone();
            peers.insert(*peer, PeerMetrics { unknown_channel: former.unknown_channel, channels, ..PeerMetrics::new(*peer) });
        }
        for link in links.chain(self.closing.values()) {
            let metrics = link.metrics();
            let peer = peers.entry(link.peer()).or_insert_with(|| PeerMetrics::new(link.peer()));
            peer.unknown_channel = peer.unknown_channel.saturating_add(metrics.unknown_channel);
            peer.connections.extend(metrics.connections);
            add_channels(&mut peer.channels, &metrics.channels);
        }
        let peers: Vec<PeerMetrics> = peers.into_values().collect();
        let mut total = self.others.clone();
        peers.iter().for_each(|peer| add_channels(&mut total, &peer.channels));
        let defined = total.iter().map(|metrics| metrics.channel).filter(|channel| channel.is_defined());
        let names = defined.filter_map(|channel| Some((channel, spec(channel)?.name.clone()))).collect();
        ChannelsReport { total, peers, names }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u16) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        PeerId::from_bytes(bytes)
    }

    #[test]
    fn former_peers_are_bounded_and_the_sum_forgets_nothing() {
        let mut ledger = Ledger::default();
        let past = |messages| {
            let mut data = ChannelMetrics::new(ChannelId::DATA);
            data.accepted.messages = messages;
            data.dropped.lost = messages;
            [data]
        };
        // The first ones are connected again.
        let connected: BTreeSet<PeerId> = (0..10).map(peer).collect();
        for number in 0..1_000 {
            ledger.keep(peer(number), &past(u64::from(number)), 0, &connected);
        }
        ledger.keep(peer(999), &past(1), 5, &connected);
        let report = ledger.report([].into_iter(), |_| None);
        assert_eq!(report.peers.len(), 10 + FORMER_PEERS_MAX);
        assert_eq!(report.total[0].accepted.messages, (0..1_000).sum::<u64>() + 1);
        assert_eq!(report.total[0].dropped.lost, report.total[0].accepted.messages);
        let last = report.peers.last().unwrap();
        assert_eq!((last.peer, last.channels[0].accepted.messages, last.unknown_channel), (peer(999), 1_000, 5));
        assert!(report.names.is_empty() && report.name_of(ChannelId::DATA) == "data");
        assert_eq!(report.peers[10].peer, peer(1_000 - FORMER_PEERS_MAX as u16), "the oldest are not apart any more");
    }
}
