//! The wire: which packets are under way between the processes, and when each is due. Pure: the devices are in `hub`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::address::Head;
use crate::network::{Cut, Full, Measured, Network, Weather};
use crate::world::Setup;

/// Bytes that are under way at most; what comes beyond them is dropped, as if a router had no more memory.
const BYTES_MAX: usize = 256 * 1_024 * 1_024;

/// What came over the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Carried {
    /// Packets that the processes sent to one another.
    pub packets: u64,
    /// Their bytes, as the model counts them.
    pub bytes: u64,
    /// Packets that the model lost.
    pub lost: u64,
    /// Packets that were dropped because too much was under way, or because their receiver took none.
    pub dropped: u64,
    /// Packets for nobody: multicast, IPv6.
    pub strays: u64,
    /// Packets that were handed over.
    pub arrived: u64,
    /// How much later than the model says they were handed over, altogether, in microseconds.
    pub late: u64,
    /// The most of that for one packet.
    pub late_max: u64,
}

/// A packet under way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    /// When it is due, in microseconds.
    at: u64,
    /// Packets of one moment arrive in the order in which they were sent.
    number: u64,
    sent: u64,
    from: u32,
    to: u32,
    /// Whether it has come through the line of its receiver.
    through: bool,
    packet: Box<[u8]>,
}

/// The packets between the nodes.
#[derive(Debug)]
pub struct Wire {
    network: Network,
    nodes: u32,
    /// By node: how many packets it has sent.
    sequences: Vec<u64>,
    flying: BinaryHeap<Reverse<Flying>>,
    flying_bytes: usize,
    number: u64,
    carried: Carried,
}

impl Wire {
    /// An empty wire with the network of a run.
    pub fn new(setup: &Setup) -> Self {
        Wire {
            network: Network::shaped(setup.seed, setup.nodes, setup.link, setup.shape),
            nodes: setup.nodes,
            sequences: vec![0; setup.nodes as usize],
            flying: BinaryHeap::new(),
            flying_bytes: 0,
            number: 0,
            carried: Carried::default(),
        }
    }

    /// Takes a packet that a node sends at a moment, in microseconds since the start. Moments must not go back.
    pub fn offer(&mut self, from: u32, packet: &[u8], now: u64) {
        let Some(Head { to, bytes, .. }) =
            Head::of(packet).filter(|head| head.from == from && head.to < self.nodes && head.to != from && from < self.nodes)
        else {
            self.carried.strays += 1;
            return;
        };
        self.carried.packets += 1;
        self.carried.bytes += bytes as u64;
        let sequence = self.sequences[from as usize] + 1;
        self.sequences[from as usize] = sequence;
        let Some(micros) = self.network.datagram(from, to, sequence, bytes, now) else {
            self.carried.lost += 1;
            return;
        };
        let double = self.network.double(from, to, sequence, now);
        for micros in std::iter::once(micros).chain(double) {
            if self.flying_bytes + packet.len() > BYTES_MAX {
                self.carried.dropped += 1;
                continue;
            }
            self.flying_bytes += packet.len();
            self.number += 1;
            let through = !self.network.has_lines_down();
            let flying = Flying { at: now + micros, number: self.number, sent: now, from, to, through, packet: packet.into() };
            self.flying.push(Reverse(flying));
        }
    }

    /// When the next packet is due.
    pub fn next_due(&self) -> Option<u64> {
        self.flying.peek().map(|Reverse(flying)| flying.at)
    }

    /// The next packet that is due by now, and for whom it is.
    pub fn due(&mut self, now: u64) -> Option<(u32, Box<[u8]>)> {
        while self.next_due().is_some_and(|at| at <= now) {
            let Reverse(mut flying) = self.flying.pop()?;
            if !flying.through {
                flying.through = true;
                let bytes = Head::of(&flying.packet).map_or(0, |head| head.bytes);
                match self.network.enter(flying.to, bytes, flying.at, Full::Drop) {
                    Some(0) => {}
                    Some(waits) => {
                        flying.at += waits;
                        self.flying.push(Reverse(flying));
                        continue;
                    }
                    None => {
                        self.flying_bytes -= flying.packet.len();
                        self.carried.lost += 1;
                        continue;
                    }
                }
            }
            self.flying_bytes -= flying.packet.len();
            self.network.arrived(flying.from, flying.to, now - flying.sent);
            let late = now - flying.at;
            self.carried.arrived += 1;
            self.carried.late += late;
            self.carried.late_max = self.carried.late_max.max(late);
            return Some((flying.to, flying.packet));
        }
        None
    }

    /// Takes note that a receiver took a packet not.
    pub fn refused(&mut self) {
        self.carried.dropped += 1;
    }

    /// Keeps nodes apart.
    pub fn cut(&mut self, cut: Cut, now: u64) {
        self.network.cut(cut, now);
    }

    /// Makes links worse.
    pub fn worsen(&mut self, weather: Weather, now: u64) {
        self.network.worsen(weather, now);
    }

    /// Nothing is lost from now on, and nothing keeps nodes apart.
    pub fn calm(&mut self) {
        self.network.calm();
    }

    /// What came over it so far.
    pub fn carried(&self) -> Carried {
        self.carried
    }

    /// What was measured of the network until the quiet phase.
    pub fn measured(&self) -> Measured {
        self.network.measured()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Capacity, Link, Shape, Trouble};
    use crate::real::address::ip;

    fn packet(from: u32, to: u32, payload: usize) -> Vec<u8> {
        let mut packet = vec![0; 28 + payload];
        packet[0] = 0x45;
        packet[12..16].copy_from_slice(&ip(from).octets());
        packet[16..20].copy_from_slice(&ip(to).octets());
        packet
    }

    fn wire(link: Link, shape: Shape) -> Wire {
        Wire::new(&Setup { seed: 5, nodes: 4, link, shape, skew: 0, payload_bytes: 8, value_bytes: 8, sync: 0, plant: None })
    }

    const LINK: Link = Link { latency: 20_000, jitter: 3_000, loss: 0.0 };

    #[test]
    fn packets_take_what_the_network_of_the_simulator_says() {
        let mut wire = wire(LINK, Shape::default());
        let mut network = Network::shaped(5, 4, LINK, Shape::default());
        let mut expected: Vec<(u64, u32)> = Vec::new();
        for number in 1..=50_u64 {
            let (to, now) = ((number % 3) as u32 + 1, number * 100);
            wire.offer(0, &packet(0, to, 100), now);
            expected.push((now + network.datagram(0, to, number, 100, now).unwrap(), to));
        }
        expected.sort_by_key(|(at, _)| *at);
        let mut found = Vec::new();
        while let Some(at) = wire.next_due() {
            assert_eq!(wire.due(at - 1), None, "not before its moment");
            found.push((at, wire.due(at).unwrap().0));
        }
        assert_eq!(found, expected);
        let carried = wire.carried();
        assert_eq!((carried.packets, carried.arrived, carried.late, carried.bytes), (50, 50, 0, 5_000));
        assert_eq!((wire.flying_bytes, wire.measured().arrived), (0, 50));
    }

    #[test]
    fn losses_cuts_and_copies_are_those_of_the_network() {
        let mut lossy = wire(Link { loss: 0.3, ..LINK }, Shape::default());
        (1..=1_000).for_each(|now| lossy.offer(1, &packet(1, 2, 10), now));
        assert!((250..350).contains(&lossy.carried().lost), "{:?}", lossy.carried());
        lossy.calm();
        let before = lossy.carried().lost;
        (1_001..=2_000).for_each(|now| lossy.offer(1, &packet(1, 2, 10), now));
        assert_eq!(lossy.carried().lost, before);
        let mut cut = wire(LINK, Shape::default());
        cut.cut(Cut::new(4, &[vec![1]], &[], false, 0, 500), 0);
        cut.offer(1, &packet(1, 2, 10), 1);
        cut.offer(2, &packet(2, 3, 10), 1);
        cut.offer(1, &packet(1, 2, 10), 600);
        assert_eq!((cut.carried().lost, cut.flying.len()), (1, 2));
        let mut double = wire(LINK, Shape { trouble: Trouble { duplicate: 1.0, ..Trouble::default() }, ..Shape::default() });
        double.offer(1, &packet(1, 2, 10), 1);
        assert_eq!(double.flying.len(), 2);
    }

    #[test]
    fn a_clog_holds_packets_and_lines_take_their_time() {
        let mut clogged = wire(LINK, Shape::default());
        clogged.cut(Cut::clog(4, &[1], 0, 1_000_000), 0);
        clogged.offer(1, &packet(1, 2, 10), 5);
        assert!(clogged.next_due().unwrap() > 1_000_000);
        // 1,000 bytes over 8 Mbit/s: a millisecond each way.
        let mut lines = wire(LINK, Shape { capacity: Capacity { up: 8_000, down: 8_000, queue: 64_000 }, ..Shape::default() });
        let mut plain = wire(LINK, Shape::default());
        lines.offer(1, &packet(1, 2, 1_000), 0);
        plain.offer(1, &packet(1, 2, 1_000), 0);
        let first = lines.next_due().unwrap();
        assert_eq!(first, plain.next_due().unwrap() + 1_000);
        assert_eq!(lines.due(first), None, "it waits before the line of its receiver");
        assert_eq!(lines.due(first + 1_000).map(|(to, _)| to), Some(2));
    }

    #[test]
    fn what_is_for_nobody_or_lies_about_its_sender_is_counted_and_dropped() {
        let mut wire = wire(LINK, Shape::default());
        wire.offer(1, &packet(1, 9, 10), 1);
        wire.offer(1, &packet(2, 3, 10), 1);
        wire.offer(1, &packet(1, 1, 10), 1);
        wire.offer(1, &[0x60; 40], 1);
        assert_eq!((wire.carried().strays, wire.flying.len()), (4, 0));
    }

    #[test]
    fn lateness_is_measured() {
        let mut wire = wire(Link { jitter: 0, ..LINK }, Shape::default());
        wire.offer(1, &packet(1, 2, 10), 0);
        wire.offer(1, &packet(1, 2, 10), 0);
        let at = wire.next_due().unwrap();
        assert!(wire.due(at + 7).is_some() && wire.due(at + 9).is_some());
        let carried = wire.carried();
        assert_eq!((carried.late, carried.late_max), (16, 9));
    }
}
