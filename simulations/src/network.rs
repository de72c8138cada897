//! How long bytes take between two nodes, whether they arrive, and who cannot reach whom.
//!
//! Every draw is a hash of (seed, purpose, source, destination, sequence): it depends on nothing that happened elsewhere.

use meshwork_channels::random::{hash, unit};
use serde::Serialize;

/// A connection is given up after this silence, in microseconds.
pub const IDLE_TIMEOUT: u64 = meshwork_channels::limits::IDLE_TIMEOUT.as_micros() as u64;
/// A dial is given up after this time, in microseconds: handshake and admission.
pub const DIAL_TIMEOUT: u64 =
    (meshwork_channels::limits::HANDSHAKE_TIMEOUT.as_micros() + meshwork_channels::limits::ADMISSION_TIMEOUT.as_micros()) as u64;

/// A link, the same between every two nodes but for the share of the latency that belongs to the pair.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Link {
    /// Mean one-way latency, in microseconds. A pair has between a half and one and a half of it, the same in both directions.
    pub latency: u64,
    /// The most that one packet may take longer than its pair's latency, in microseconds.
    pub jitter: u64,
    /// The share of packets that are lost, from 0.0 to below 1.0.
    pub loss: f64,
}

/// What becomes of a frame on a stream, where a loss is a delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It arrives after this many microseconds.
    After(u64),
    /// So many packets in a row were lost that the connection breaks.
    Breaks,
}

const PAIR: u64 = 1;
const JITTER: u64 = 2;
const DATAGRAM: u64 = 3;
const STREAM: u64 = 4;

/// A cut of the cluster into two groups.
#[derive(Clone, Debug)]
struct Cut {
    began: u64,
    until: u64,
    /// By node: whether it is on the smaller side.
    side: Vec<bool>,
}

/// The network between the nodes.
#[derive(Clone, Debug)]
pub struct Network {
    seed: u64,
    link: Link,
    cuts: Vec<Cut>,
    /// Datagrams that were lost, and packets of streams that had to be sent again.
    pub(crate) losses: u64,
}

impl Network {
    /// A whole network.
    pub fn new(seed: u64, link: Link) -> Self {
        Network { seed, link, cuts: Vec::new(), losses: 0 }
    }

    /// The latency of a pair in microseconds, at least 1.
    pub fn latency(&self, a: u32, b: u32) -> u64 {
        let pair = hash(&[self.seed, PAIR, u64::from(a.min(b)), u64::from(a.max(b))]);
        (self.link.latency / 2 + pair % (self.link.latency + 1)).max(1)
    }

    fn once(&self, from: u32, to: u32, sequence: u64) -> u64 {
        let jitter = match self.link.jitter {
            0 => 0,
            jitter => hash(&[self.seed, JITTER, u64::from(from), u64::from(to), sequence]) % (jitter + 1),
        };
        self.latency(from, to) + jitter
    }

    fn is_lost(&self, purpose: u64, from: u32, to: u32, sequence: u64, attempt: u64) -> bool {
        self.link.loss > 0.0 && unit(hash(&[self.seed, purpose, u64::from(from), u64::from(to), sequence, attempt])) < self.link.loss
    }

    /// How long a datagram takes; none when it is lost.
    pub fn datagram(&mut self, from: u32, to: u32, sequence: u64, now: u64) -> Option<u64> {
        if self.cut_between(from, to, now).is_some() || self.is_lost(DATAGRAM, from, to, sequence, 0) {
            self.losses += 1;
            return None;
        }
        Some(self.once(from, to, sequence))
    }

    /// What becomes of a frame on a stream. Each lost packet is sent again after a time that doubles, as the probe timeout of QUIC does
    /// (RFC 9002, section 6.2), and silence as long as the idle timeout breaks the connection.
    pub fn stream(&mut self, from: u32, to: u32, sequence: u64) -> Fate {
        let once = self.once(from, to, sequence);
        if self.link.loss == 0.0 {
            return Fate::After(once);
        }
        let mut probe = 3 * self.latency(from, to) + self.link.jitter + 1_000;
        let mut waited = 0;
        for attempt in 0.. {
            if !self.is_lost(STREAM, from, to, sequence, attempt) {
                break;
            }
            self.losses += 1;
            waited += probe;
            probe *= 2;
            if waited >= IDLE_TIMEOUT {
                return Fate::Breaks;
            }
        }
        Fate::After(once + waited)
    }

    /// From now on nothing crosses between `side` and the others, until a moment.
    pub(crate) fn cut(&mut self, nodes: usize, side: &[u32], now: u64, until: u64) {
        self.cuts.retain(|cut| cut.until > now);
        let mut is_in = vec![false; nodes];
        side.iter().for_each(|node| is_in[*node as usize] = true);
        self.cuts.push(Cut { began: now, until, side: is_in });
    }

    /// Nothing is lost from now on.
    pub(crate) fn calm(&mut self) {
        self.link.loss = 0.0;
    }

    /// Since when and until when nothing passes between two nodes; none when something does.
    pub(crate) fn cut_between(&self, a: u32, b: u32, now: u64) -> Option<(u64, u64)> {
        let crossed = |cut: &&Cut| cut.until > now && cut.side[a as usize] != cut.side[b as usize];
        self.cuts.iter().filter(crossed).map(|cut| (cut.began, cut.until)).max_by_key(|cut| cut.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link = Link { latency: 20_000, jitter: 5_000, loss: 0.2 };

    #[test]
    fn a_pair_keeps_its_latency_in_both_directions() {
        let network = Network::new(1, LINK);
        let latencies: Vec<u64> = (1..200).map(|node| network.latency(0, node)).collect();
        assert!(latencies.iter().all(|latency| (10_000..=30_000).contains(latency)));
        assert!(latencies.iter().max() > latencies.iter().min());
        assert_eq!(network.latency(3, 4), network.latency(4, 3));
    }

    #[test]
    fn losses_drop_datagrams_and_delay_streams() {
        let mut network = Network::new(1, LINK);
        let lost = (0..10_000).filter(|sequence| network.datagram(1, 2, *sequence, 0).is_none()).count();
        assert!((1_800..2_200).contains(&lost), "{lost} of 10,000 lost at 20 %");
        let latest = network.latency(1, 2) + LINK.jitter;
        let late = (0..10_000).filter(|sequence| network.stream(1, 2, *sequence) > Fate::After(latest)).count();
        assert!((1_800..2_200).contains(&late), "{late} of 10,000 late at 20 %");
        network.calm();
        assert!((0..10_000).all(|sequence| network.datagram(1, 2, sequence, 0).is_some()));
    }

    #[test]
    fn a_long_silence_breaks_a_stream() {
        let mut network = Network::new(1, Link { loss: 0.999, ..LINK });
        assert!((0..100).any(|sequence| network.stream(1, 2, sequence) == Fate::Breaks));
    }

    #[test]
    fn a_cut_separates_its_side_until_it_heals() {
        let mut network = Network::new(1, Link { loss: 0.0, ..LINK });
        network.cut(4, &[1, 2], 10, 20);
        assert_eq!(network.cut_between(1, 3, 15), Some((10, 20)));
        assert_eq!(network.cut_between(1, 2, 15), None);
        assert!(network.datagram(0, 1, 0, 19).is_none());
        assert!(network.datagram(0, 1, 0, 20).is_some());
        assert_eq!(network.cut_between(1, 3, 20), None);
    }
}
