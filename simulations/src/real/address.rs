//! Where a node of a number is, and what the head of a packet says.

use std::net::{Ipv4Addr, SocketAddrV4};

/// The port of a node that never moved.
const PORT: u16 = 7_000;
/// Bytes of the heads of IP, without options, and UDP.
const HEADS: usize = 28;

/// The address of a node: its number plus one in 10.0.0.0/8, because 10.0.0.0 is that of the network.
pub fn ip(node: u32) -> Ipv4Addr {
    let [_, b, c, d] = (node + 1).to_be_bytes();
    Ipv4Addr::new(10, b, c, d)
}

/// Where a node listens after it moved this many times.
pub fn socket(node: u32, moves: u16) -> SocketAddrV4 {
    SocketAddrV4::new(ip(node), PORT.saturating_add(moves))
}

/// The node at an address.
pub fn node(ip: Ipv4Addr) -> Option<u32> {
    let [a, b, c, d] = ip.octets();
    (a == 10).then(|| u32::from_be_bytes([0, b, c, d])).and_then(|number| number.checked_sub(1))
}

/// What the wire reads of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Who says that it sent the packet.
    pub from: u32,
    /// For whom it is.
    pub to: u32,
    /// The bytes that the model counts: those of the payload.
    pub bytes: usize,
}

impl Head {
    /// The head of a packet of IPv4 between two nodes; none when it is something else.
    pub fn of(packet: &[u8]) -> Option<Head> {
        if packet.first()? >> 4 != 4 || packet.len() < 20 {
            return None;
        }
        let at = |start: usize| packet[start..].first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes));
        Some(Head { from: node(at(12)?)?, to: node(at(16)?)?, bytes: packet.len().saturating_sub(HEADS) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(from: Ipv4Addr, to: Ipv4Addr, payload: usize) -> Vec<u8> {
        let mut packet = vec![0; HEADS + payload];
        packet[0] = 0x45;
        packet[12..16].copy_from_slice(&from.octets());
        packet[16..20].copy_from_slice(&to.octets());
        packet
    }

    #[test]
    fn addresses_lead_back_to_the_number() {
        for index in [0, 1, 254, 255, 70_000] {
            assert_eq!(node(ip(index)), Some(index));
        }
        assert_eq!(socket(0, 2).to_string(), "10.0.0.1:7002");
        assert_eq!(node(Ipv4Addr::new(10, 0, 0, 0)), None);
        assert_eq!(node(Ipv4Addr::new(192, 168, 0, 1)), None);
    }

    #[test]
    fn heads_are_read_and_strangers_are_none() {
        assert_eq!(Head::of(&packet(ip(3), ip(7), 1_200)), Some(Head { from: 3, to: 7, bytes: 1_200 }));
        assert_eq!(Head::of(&packet(ip(3), Ipv4Addr::new(224, 0, 0, 1), 10)), None);
        assert_eq!(Head::of(&packet(Ipv4Addr::new(127, 0, 0, 1), ip(3), 10)), None);
        assert_eq!(Head::of(&[0x60; 48]), None, "version 6");
        assert_eq!(Head::of(&[0x45; 19]), None, "too short");
        assert_eq!(Head::of(&[]), None);
    }
}
