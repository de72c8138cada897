//! How long bytes take between two nodes, whether they arrive, and who cannot reach whom.
//!
//! Every draw is a hash of (seed, purpose, source, destination, sequence): it depends on nothing that happened elsewhere. Only the lines of the
//! nodes have state, two moments and a count for each.
//!
//! - [`cuts`]: what keeps nodes apart for a time, or makes their links worse.
//! - [`latency`]: how long a packet takes between two nodes; [`earth`] and [`regions`] say where nodes are.
//! - [`packets`]: packets that are late, come twice, or are lost in bursts.
//! - [`line`](mod@line): how fast a node sends and receives, and what waits.
//! - [`reach`]: who can dial whom.
//! - [`shape`]: all of that as one value, and the settings that say it.

mod cuts;
pub mod earth;
pub mod latency;
pub mod line;
pub mod packets;
pub mod reach;
pub mod regions;
pub mod shape;

use meshwork_channels::random::{hash, unit};
use serde::{Deserialize, Serialize};

pub use cuts::{Cut, Weather};
use latency::Latency;
pub use latency::Model;
use line::Line;
pub use line::{Capacity, Full};
pub use packets::{Burst, Trouble};
pub use reach::Classes;
pub use shape::Shape;

/// A connection is given up after this silence, in microseconds.
pub const IDLE_TIMEOUT: u64 = meshwork_channels::limits::IDLE_TIMEOUT.as_micros() as u64;
/// A dial is given up after this time, in microseconds: handshake and admission.
pub const DIAL_TIMEOUT: u64 =
    (meshwork_channels::limits::HANDSHAKE_TIMEOUT.as_micros() + meshwork_channels::limits::ADMISSION_TIMEOUT.as_micros()) as u64;

/// A link, the same between every two nodes but for the share of the latency that belongs to the pair. A [`Shape`] says more.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Mean one-way latency, in microseconds. A pair has between a half and one and a half of it, the same in both directions. Some [`Model`]s
    /// take it for something else, or do without.
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

/// The largest share of packets that weather makes the network lose.
const LOSS_MAX: f64 = 0.95;

const PAIR: u64 = 1;
const JITTER: u64 = 2;
const DATAGRAM: u64 = 3;
const STREAM: u64 = 4;
const PLACE: u64 = 5;
const WAY: u64 = 6;
const REORDER: u64 = 7;
const DUPLICATE: u64 = 8;
const COPY: u64 = 9;
const BURST: u64 = 10;
const BURST_LOSS: u64 = 11;
const CLASS: u64 = 12;

/// What became of the datagrams of a run until its quiet phase, and how fast the lines were.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Datagrams that were sent.
    pub sent: u64,
    /// Those of them that were lost, for whatever reason.
    pub lost: u64,
    /// Those that nodes had received by then.
    pub arrived: u64,
    /// How long these took altogether, from node to node, in microseconds.
    pub micros: u64,
    /// How long they would have taken by the model alone: the latency of their pairs, and the mean of what is drawn for each packet.
    pub micros_model: f64,
    /// The most that any line carried to the network in a second, in bytes.
    pub up_max: u64,
    /// The same from the network.
    pub down_max: u64,
}

/// The network between the nodes.
#[derive(Clone, Debug)]
pub struct Network {
    seed: u64,
    link: Link,
    shape: Shape,
    latency: Latency,
    /// By node; empty when nothing needs them.
    lines: Vec<Line>,
    cuts: Vec<Cut>,
    weather: Vec<Weather>,
    /// Datagrams that were lost, and packets of streams that had to be sent again.
    pub(crate) losses: u64,
    measured: Measured,
    is_calm: bool,
}

impl Network {
    /// A whole network of the plainest shape.
    pub fn new(seed: u64, link: Link) -> Self {
        Self::shaped(seed, 0, link, Shape::default())
    }

    /// A whole network for a number of nodes.
    ///
    /// # Panics
    ///
    /// If the bounds of [`Model::Uniform`] are not in order or a latency is above an hour.
    pub fn shaped(seed: u64, nodes: u32, link: Link, shape: Shape) -> Self {
        let has_lines = shape.capacity.up > 0 || shape.capacity.down > 0 || shape.trouble.burst.is_some();
        Network {
            seed,
            link,
            shape,
            latency: Latency::new(seed, shape.model, link),
            lines: vec![Line::default(); if has_lines { nodes as usize } else { 0 }],
            cuts: Vec::new(),
            weather: Vec::new(),
            losses: 0,
            measured: Measured::default(),
            is_calm: false,
        }
    }

    /// What was measured until the quiet phase.
    pub fn measured(&self) -> Measured {
        self.measured
    }

    /// Takes note of a datagram that a node received, and how long it was under way.
    pub(crate) fn arrived(&mut self, from: u32, to: u32, micros: u64) {
        if !self.is_calm {
            let Trouble { reorder, reorder_by, .. } = self.shape.trouble;
            self.measured.arrived += 1;
            self.measured.micros += micros;
            self.measured.micros_model += self.latency(from, to) as f64 + self.link.jitter as f64 / 2.0 + reorder * reorder_by as f64;
        }
    }

    /// The latency of a pair in microseconds, at least 1.
    pub fn latency(&self, a: u32, b: u32) -> u64 {
        self.latency.of(self.seed, a, b)
    }

    /// The regions in which nodes live; none for networks without places.
    pub fn regions(&self) -> &'static [&'static str] {
        self.latency.regions()
    }

    /// In which of the regions a node lives; 0 where there are none.
    pub fn region(&self, node: u32) -> usize {
        self.latency.region(self.seed, node)
    }

    fn once(&self, purpose: u64, from: u32, to: u32, sequence: u64, now: u64) -> u64 {
        let jitter = match self.link.jitter {
            0 => 0,
            jitter => hash(&[self.seed, purpose, u64::from(from), u64::from(to), sequence]) % (jitter + 1),
        };
        let late: u64 = self.weather_between(from, to, now).map(|weather| weather.late).sum();
        self.latency(from, to) + jitter + late + self.shape.trouble.late(self.seed, from, to, sequence)
    }

    /// The share of packets that are lost between two nodes outside of bursts.
    fn loss(&self, from: u32, to: u32, now: u64) -> f64 {
        let weather: f64 = self.weather_between(from, to, now).map(|weather| weather.loss).sum();
        if weather > 0.0 { (self.link.loss + weather).min(LOSS_MAX) } else { self.link.loss }
    }

    fn weather_between(&self, from: u32, to: u32, now: u64) -> impl Iterator<Item = &Weather> {
        self.weather.iter().filter(move |weather| weather.reaches(from, to, now))
    }

    fn is_lost(&self, purpose: u64, loss: f64, from: u32, to: u32, sequence: u64, attempt: u64) -> bool {
        loss > 0.0 && unit(hash(&[self.seed, purpose, u64::from(from), u64::from(to), sequence, attempt])) < loss
    }

    /// Whether a burst on the line of a node takes its next packet.
    fn burst_takes(&mut self, from: u32) -> bool {
        let Some(burst) = self.shape.trouble.burst else { return false };
        let line = &mut self.lines[from as usize];
        line.packets += 1;
        burst.loses(self.seed, from, line.packets)
    }

    /// How long a datagram of some bytes takes, with what it waits before the line of its sender; none when it is lost.
    pub fn datagram(&mut self, from: u32, to: u32, sequence: u64, bytes: usize, now: u64) -> Option<u64> {
        let fits = self.shape.mtu == 0 || bytes as u64 <= self.shape.mtu;
        let waits = if fits { self.leave(from, bytes, now, Full::Drop) } else { None };
        // Whatever left the line counts for the burst, also what is lost for another reason.
        let taken = waits.is_some() && self.burst_takes(from);
        let loss = self.loss(from, to, now);
        let mut held = 0;
        let mut is_cut = false;
        for cut in self.cuts.iter().filter(|cut| cut.parts(from, to, now)) {
            held = held.max(cut.until - now);
            is_cut |= !cut.holds;
        }
        self.measured.sent += u64::from(!self.is_calm);
        match waits {
            Some(waits) if !taken && !is_cut && !self.is_lost(DATAGRAM, loss, from, to, sequence, 0) => {
                Some(waits.max(held) + self.once(JITTER, from, to, sequence, now))
            }
            _ => {
                self.losses += 1;
                self.measured.lost += u64::from(!self.is_calm);
                None
            }
        }
    }

    /// How long the second copy of a datagram takes that does arrive; none when it comes once.
    pub fn double(&self, from: u32, to: u32, sequence: u64, now: u64) -> Option<u64> {
        self.shape.trouble.is_double(self.seed, from, to, sequence).then(|| self.once(COPY, from, to, sequence, now))
    }

    /// Sends bytes over the line of a node; gives after how many microseconds they have left, and none when they are dropped.
    pub fn leave(&mut self, from: u32, bytes: usize, now: u64, full: Full) -> Option<u64> {
        let Capacity { up, queue, .. } = self.shape.capacity;
        if up == 0 {
            return Some(0);
        }
        let line = &mut self.lines[from as usize];
        let waits = line::pass(&mut line.up, up, queue, bytes, now, full)?;
        self.measured.up_max = self.measured.up_max.max(line.up_meter.add(now + waits, bytes));
        Some(waits)
    }

    /// Whether nodes receive over a line that takes time.
    pub fn has_lines_down(&self) -> bool {
        self.shape.capacity.down > 0
    }

    /// Receives bytes over the line of a node; as [`leave`](Self::leave), but what is dropped is counted here.
    pub fn enter(&mut self, to: u32, bytes: usize, now: u64, full: Full) -> Option<u64> {
        let Capacity { down, queue, .. } = self.shape.capacity;
        if down == 0 {
            return Some(0);
        }
        let line = &mut self.lines[to as usize];
        let Some(waits) = line::pass(&mut line.down, down, queue, bytes, now, full) else {
            self.losses += 1;
            return None;
        };
        self.measured.down_max = self.measured.down_max.max(line.down_meter.add(now + waits, bytes));
        Some(waits)
    }

    /// Whether a dial from one node gets through to another.
    pub fn can_dial(&self, from: u32, to: u32) -> bool {
        self.shape.classes.can_dial(self.seed, from, to)
    }

    /// What becomes of a frame on a stream. Each lost packet is sent again after a time that doubles, as the probe timeout of QUIC does
    /// (RFC 9002, section 6.2), and silence as long as the idle timeout breaks the connection.
    pub fn stream(&mut self, from: u32, to: u32, sequence: u64, now: u64) -> Fate {
        let once = self.once(JITTER, from, to, sequence, now);
        let loss = self.loss(from, to, now);
        let burst = self.shape.trouble.burst;
        if loss == 0.0 && burst.is_none() {
            return Fate::After(once);
        }
        // A probe timeout is long beside a burst, so what is sent again meets the mean loss.
        let again = burst.map_or(0.0, |burst| burst.mean_loss());
        let taken = self.burst_takes(from);
        let mut probe = 3 * self.latency(from, to) + self.link.jitter + 1_000;
        let mut waited = 0;
        for attempt in 0.. {
            let in_burst = match attempt {
                0 => taken,
                _ => unit(hash(&[self.seed, BURST_LOSS, u64::from(from), u64::from(to), sequence, attempt])) < again,
            };
            if !in_burst && !self.is_lost(STREAM, loss, from, to, sequence, attempt) {
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

    /// Keeps nodes apart.
    pub(crate) fn cut(&mut self, cut: Cut, now: u64) {
        self.cuts.retain(|cut| cut.until > now);
        self.cuts.push(cut);
    }

    /// Makes links worse.
    pub(crate) fn worsen(&mut self, weather: Weather, now: u64) {
        self.weather.retain(|weather| weather.until > now);
        self.weather.push(weather);
    }

    /// Nothing is lost from now on, and nothing keeps nodes apart.
    pub(crate) fn calm(&mut self) {
        self.is_calm = true;
        self.link.loss = 0.0;
        self.shape.trouble.burst = None;
        self.cuts.clear();
        self.weather.clear();
    }

    /// Since when and until when nothing passes from one node to another; none when something does.
    pub(crate) fn cut_between(&self, from: u32, to: u32, now: u64) -> Option<(u64, u64)> {
        let parting = self.cuts.iter().filter(|cut| cut.parts(from, to, now));
        parting.map(|cut| (cut.began, cut.until)).max_by_key(|cut| cut.1)
    }
}

#[cfg(test)]
mod tests;
