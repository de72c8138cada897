//! What quinn is told about connections: windows, packets, timers, congestion control, and how numbers of connections are drawn. No state.

use std::sync::Arc;
use std::time::Instant;

use quinn::congestion::CubicConfig;
use quinn::{ConnectionIdGenerator, MtuDiscoveryConfig, TransportConfig, ValidationTokenConfig, VarInt};
use quinn_proto::RandomConnectionIdGenerator;

use super::governed::Governed;
use crate::{governor, limits};

/// The largest packet of second connections on the loopback interface: with segmentation offload ten of them must fit in 64 KiB, or the path falls back to the
/// smallest packets for good.
pub(super) const LOOPBACK_PACKET_BYTES_MAX: u16 = 6_500;

/// What packets have from the start on the loopback interface: as much as the search for more finds on Ethernet, which a link in user space is like. A first connection does not search there:
/// nine probes of some kilobytes each way were a third of the processor time of its handshake, for padding is read byte by byte, and its send buffer kept their size.
const LOOPBACK_PACKET_BYTES: u16 = 1_452;

/// The number that a dialer draws for the other end is so long on a first connection, and shorter by one on a second one of the loopback interface. It is a hint, for the acceptor knows what
/// a connection is only after its handshake; who lies gets larger packets, or smaller ones.
pub(super) const DRAWN_ID_BYTES: usize = 20;

/// The numbers that we draw for our own connections, all of it random. Of quinn's own generator three bytes are, and what it draws for a Retry is not compared with the numbers that are taken: with
/// a thousand connections of eight numbers each, one in two thousand dials was given the number of a connection that stands, was led there, and came to nothing.
const OWN_ID_BYTES: usize = 8;

/// The limits of a connection before admission; `streams` is how many bidirectional ones the other side may open.
pub(super) fn transport(loopback: bool, streams: u32) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .receive_window(VarInt::from_u32(limits::WINDOW_BYTES_BEFORE_ADMISSION))
        .stream_receive_window(VarInt::from_u32(limits::STREAM_WINDOW_BYTES))
        .send_window(limits::SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(Some(limits::DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(limits::DATAGRAM_SEND_BYTES)
        .max_idle_timeout(Some(limits::IDLE_TIMEOUT.try_into().expect("ten seconds fit in a QUIC number")))
        .keep_alive_interval(Some(limits::KEEP_ALIVE))
        .congestion_controller_factory(Arc::new(CubicConfig::default()));
    if loopback {
        transport.initial_mtu(LOOPBACK_PACKET_BYTES).mtu_discovery_config(None);
    }
    transport
}

/// Has a second connection on the loopback interface try the largest packets once: nothing in between is likely to be all that passes.
pub(super) fn widened(mut transport: TransportConfig) -> TransportConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(LOOPBACK_PACKET_BYTES_MAX).minimum_change((LOOPBACK_PACKET_BYTES_MAX - LOOPBACK_PACKET_BYTES) / 2 + 1);
    transport.mtu_discovery_config(Some(discovery));
    transport
}

/// What the dialer of a second connection sends with.
pub(super) fn bulk_transport(loopback: bool, governor: governor::Params, origin: Instant) -> TransportConfig {
    let mut transport = transport(loopback, 0);
    if loopback {
        transport = widened(transport);
    }
    transport.congestion_controller_factory(Arc::new(Governed::new(governor, origin)));
    transport
}

/// Draws the numbers of our own connections.
pub(super) fn own_ids() -> Box<dyn ConnectionIdGenerator> {
    Box::new(RandomConnectionIdGenerator::new(OWN_ID_BYTES))
}

/// Tokens that spare a returning dialer the proof of its address would also let others follow it from place to place.
pub(super) fn no_tokens() -> ValidationTokenConfig {
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(0);
    tokens
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// With 24 random bits some 300 of them would be drawn twice.
    #[test]
    fn the_numbers_of_connections_do_not_repeat() {
        let mut drawn = own_ids();
        let all: BTreeSet<_> = (0..100_000).map(|_| drawn.generate_cid().to_vec()).collect();
        assert_eq!(all.len(), 100_000);
    }
}
