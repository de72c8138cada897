//! How long a packet takes between two nodes before jitter: the models, each the same in both directions.
//!
//! A latency is a hash of the seed and the pair, or comes from places that are hashes of the seed and the node, so nothing is stored for a
//! node or a pair. Only integers, the four arithmetic operations and the square root are used, so all machines agree to the last bit.

use std::time::Duration;

use meshwork_channels::link;
use meshwork_channels::random::hash;
use serde::{Deserialize, Serialize};

use super::{Link, PAIR, PLACE, earth, regions};

/// What the latencies of the pairs are like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "model")]
pub enum Model {
    /// Between a half and one and a half of the latency of the link, all alike.
    #[default]
    Pair,
    /// Machines in one room: 0.1 to 0.5 ms, all alike.
    Lan,
    /// All values within bounds alike.
    Uniform {
        /// The least, in microseconds.
        min: u64,
        /// The most, in microseconds.
        max: u64,
    },
    /// Log-normal around the latency of the link, which is the median; cut off at three standard deviations.
    LogNormal {
        /// The standard deviation of the logarithm.
        spread: f64,
    },
    /// Nodes are points in a square whose side takes the latency of the link: the distance, and the access of both ends.
    Euclid {
        /// Mean one-way latency from a node to the network, in microseconds. A node has between a half and one and a half of it.
        access: u64,
    },
    /// Nodes live in the cities of [`earth`]: the way between the cities, and the access of both ends.
    Earth {
        /// As in `Euclid`.
        access: u64,
    },
    /// Nodes live in the regions of [`regions`].
    Regions,
}

impl Model {
    /// The words of the setting `network`.
    pub const WORDS: &'static [&'static str] = &["pair", "lan", "uniform", "lognormal", "euclid", "earth", "regions"];
}

/// A model that has been made ready.
#[derive(Clone, Debug)]
pub(super) enum Latency {
    Pair(u64),
    /// A distribution from which each pair draws.
    Drawn(link::Params),
    Euclid {
        side: u64,
        access: u64,
    },
    Earth {
        earth: earth::Earth,
        access: u64,
    },
    Regions,
}

/// Parts into which a side of the square is cut; the square of the longest distance fits in 64 bits.
const SIDE: u64 = 1 << 20;

impl Latency {
    pub(super) fn new(seed: u64, model: Model, link: Link) -> Self {
        let micros = Duration::from_micros;
        match model {
            Model::Pair => Latency::Pair(link.latency),
            Model::Lan => Self::drawn(link::Latency::Uniform { min: micros(100), max: micros(500) }),
            Model::Uniform { min, max } => Self::drawn(link::Latency::Uniform { min: micros(min), max: micros(max) }),
            Model::LogNormal { spread } => Self::drawn(link::Latency::log_normal(micros(link.latency), spread)),
            Model::Euclid { access } => Latency::Euclid { side: link.latency, access },
            Model::Earth { access } => Latency::Earth { earth: earth::Earth::new(seed), access },
            Model::Regions => Latency::Regions,
        }
    }

    fn drawn(latency: link::Latency) -> Self {
        let params = link::Config { latency, ..link::Config::lan() }.build();
        Latency::Drawn(params.expect("settings keep latencies in order and below the limit of a link"))
    }

    /// The latency of a pair in microseconds, at least 1.
    pub(super) fn of(&self, seed: u64, a: u32, b: u32) -> u64 {
        let latency = match self {
            Latency::Pair(mean) => mean / 2 + hash(&[seed, PAIR, u64::from(a.min(b)), u64::from(a.max(b))]) % (mean + 1),
            Latency::Drawn(params) => params.base(seed, u64::from(a), u64::from(b)).as_micros() as u64,
            Latency::Euclid { side, access } => {
                let ((ax, ay), (bx, by)) = (point(seed, a), point(seed, b));
                let distance = (ax.abs_diff(bx).pow(2) + ay.abs_diff(by).pow(2)).isqrt();
                side * distance / SIDE + access_of(seed, a, *access) + access_of(seed, b, *access)
            }
            Latency::Earth { earth, access } => {
                let way = earth.way(earth::city(place(seed, a)), earth::city(place(seed, b)));
                way + access_of(seed, a, *access) + access_of(seed, b, *access)
            }
            Latency::Regions => regions::way(regions::region(place(seed, a)), regions::region(place(seed, b))),
        };
        latency.max(1)
    }
}

impl Latency {
    /// The parts of the world, where nodes live in such.
    pub(super) fn regions(&self) -> &'static [&'static str] {
        match self {
            Latency::Earth { .. } => &earth::PARTS,
            Latency::Regions => &regions::REGIONS,
            _ => &[],
        }
    }

    /// In which of them a node lives; 0 where there are none.
    pub(super) fn region(&self, seed: u64, node: u32) -> usize {
        match self {
            Latency::Earth { .. } => earth::part(earth::city(place(seed, node))),
            Latency::Regions => regions::region(place(seed, node)),
            _ => 0,
        }
    }
}

/// The draw that says where a node is.
fn place(seed: u64, node: u32) -> u64 {
    hash(&[seed, PLACE, u64::from(node)])
}

/// Where a node is in the square.
fn point(seed: u64, node: u32) -> (u64, u64) {
    let place = place(seed, node);
    (place % SIDE, (place >> 32) % SIDE)
}

/// The one-way latency from a node to the network.
fn access_of(seed: u64, node: u32, mean: u64) -> u64 {
    mean / 2 + hash(&[seed, PLACE, u64::from(node), 1]) % (mean + 1)
}

/// Which of some weights, given as their running sums, a draw falls on.
pub(super) fn weighted(sums: &[u64], draw: u64) -> usize {
    let total = sums.last().copied().unwrap_or(1);
    sums.partition_point(|sum| *sum <= draw % total)
}

/// The running sums of weights.
pub(super) const fn running_sums<const N: usize>(weights: [u64; N]) -> [u64; N] {
    let mut sums = weights;
    let mut index = 1;
    while index < N {
        sums[index] += sums[index - 1];
        index += 1;
    }
    sums
}
