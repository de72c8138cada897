//! Where chance comes from: generators that are named after their algorithm and seeded at construction.
//!
//! A seed is a hash of (seed of the run, purpose, identifiers), with one purpose for each concern, so that a draw added to one
//! concern never shifts the draws of another.

pub use rand_xoshiro::Xoshiro256PlusPlus as Generator;
use rand_xoshiro::rand_core::SeedableRng;

/// Mixes 64 bits (the finalizer of SplitMix64, Steele, Lea and Flood, OOPSLA 2014).
pub const fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A hash of numbers that depends on their order: the counter-based source of draws that need no state.
#[inline]
pub fn hash(parts: &[u64]) -> u64 {
    parts.iter().fold(0x6d65_7368_776f_726b, |hash, part| mix(hash ^ mix(*part)))
}

/// A generator for one purpose (a short name) and identifier under a seed.
pub fn generator(seed: u64, purpose: &str, id: u64) -> Generator {
    let purpose =
        purpose.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    Generator::seed_from_u64(hash(&[seed, purpose, id]))
}

/// A number in `0.0..1.0` from a hash.
pub fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use rand_xoshiro::rand_core::Rng;

    use super::*;

    #[test]
    fn streams_are_stable_and_differ_by_purpose() {
        assert_eq!(generator(1, "overlay", 2).next_u64(), generator(1, "overlay", 2).next_u64());
        assert_ne!(generator(1, "overlay", 2).next_u64(), generator(1, "replica", 2).next_u64());
        assert_ne!(generator(1, "overlay", 2).next_u64(), generator(1, "overlay", 3).next_u64());
        assert_ne!(hash(&[1, 2]), hash(&[2, 1]));
        assert!((0.0..1.0).contains(&unit(u64::MAX)));
    }
}
