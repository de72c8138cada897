//! Which cells an item is added to, and the checksum that it leaves there.
//!
//! By the paper (section 4.1) an item is in cell `i` with probability `1 / (1 + i/2)`, whatever other cells it is in. The paper finds the
//! next cell above one, by an inverse square root. Here the walk goes down from [`CELLS_MAX`]: the item is in none of the cells from `k` to
//! `j - 1` with probability `k (k + 1) / (j (j + 1))`, the product of `i / (i + 2)` over them, and that is the chance that both a number
//! drawn from `0..j` is below `k` and one from `0..=j` is at most `k`. So the cell below `j` is the larger of the first number and of the
//! second less one: two products of integers, the same on every machine, and exact up to the 32 bits of a draw.

use meshwork_channels::random::mix;

use super::CELLS_MAX;

/// Turns the seed of a walk: a multiplier for congruential generators modulo 2^64 (Steele and Vigna, "Computationally easy, spectrally
/// good multipliers for congruential pseudorandom number generators", 2022).
const MULTIPLIER: u64 = 0xf135_7aea_2e62_a9c5;

/// What is derived from an item.
#[derive(Clone, Copy)]
pub(super) struct Mapping {
    seed: u64,
}

impl Mapping {
    pub(super) fn of(item: u64) -> Self {
        Mapping { seed: mix(item) }
    }

    /// Odd, so that it is neither zero nor its own negative, and the checksum of a cell tells whether an odd number of items is in it.
    pub(super) fn check(self) -> u16 {
        (self.seed >> 48) as u16 | 1
    }

    /// The cells of the item, from the last one to cell 0, where every item is.
    pub(super) fn cells(self) -> impl Iterator<Item = usize> {
        let (mut state, mut end) = (self.seed, CELLS_MAX as u64);
        std::iter::from_fn(move || {
            if end == 0 {
                return None;
            }
            state = state.wrapping_mul(MULTIPLIER);
            let one = ((state >> 32) * end) >> 32;
            let other = ((state & 0xffff_ffff) * (end + 1)) >> 32;
            end = one.max(other.saturating_sub(1));
            Some(end as usize)
        })
    }
}
