//! Eight regions of the world with the times between them, and how many nodes of a public network are in each.
//!
//! The table and the weights are those of `gossipsub-interop/network_graph.py` of <https://github.com/libp2p/test-plans> (MIT OR Apache-2.0, at your option, as this
//! package).
//!
//! **Caution.** There the numbers are applied one way, so a round trip between Europe and the east of North America takes 140 ms, where measurements show about 90. They look
//! like round trips that are used as one-way times, so they are taken as round trips here, and halved. The original has 190 ms from South Africa to South America and 195
//! back; both are 195 here.

use super::latency::{running_sums, weighted};

/// The regions.
pub const REGIONS: [&str; 8] = ["australia", "east_asia", "europe", "na_west", "na_east", "south_america", "south_africa", "west_asia"];

/// Nodes in each region.
pub const WEIGHTS: [u64; 8] = [290, 1_059, 5_599, 1_240, 2_894, 36, 47, 161];

/// Milliseconds of a round trip.
pub const ROUND_TRIPS: [[u64; 8]; 8] = [
    [2, 110, 165, 110, 150, 190, 220, 180],
    [110, 4, 125, 100, 140, 175, 175, 110],
    [165, 125, 2, 110, 70, 140, 95, 60],
    [110, 100, 110, 2, 60, 100, 160, 150],
    [150, 140, 70, 60, 2, 100, 130, 110],
    [190, 175, 140, 100, 100, 7, 195, 145],
    [220, 175, 95, 160, 130, 195, 7, 110],
    [180, 110, 60, 150, 110, 145, 110, 5],
];

const SUMS: [u64; 8] = running_sums(WEIGHTS);

/// The region for a draw, by weight.
pub fn region(draw: u64) -> usize {
    weighted(&SUMS, draw)
}

/// One way between two regions, in microseconds.
pub fn way(a: usize, b: usize) -> u64 {
    ROUND_TRIPS[a][b] * 500
}

#[cfg(test)]
mod tests {
    use meshwork_channels::random::hash;

    use super::*;

    #[test]
    fn the_table_is_symmetric_and_halved() {
        for a in 0..8 {
            assert!((0..8).all(|b| ROUND_TRIPS[a][b] == ROUND_TRIPS[b][a]), "{}", REGIONS[a]);
        }
        assert_eq!(way(2, 4), 35_000);
    }

    #[test]
    fn weights_decide_who_lives_where() {
        let mut lives = [0_u32; 8];
        (0..100_000).for_each(|number| lives[region(hash(&[1, number]))] += 1);
        let all: u64 = WEIGHTS.iter().sum();
        for (count, weight) in lives.iter().zip(WEIGHTS) {
            let expected = 100_000.0 * weight as f64 / all as f64;
            // Two percent, or four standard deviations where that is more.
            assert!((f64::from(*count) - expected).abs() < (expected * 0.02).max(4.0 * expected.sqrt()), "{lives:?}");
        }
    }
}
