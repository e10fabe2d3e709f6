//! Randomness from a seed.

use lockstep_engine::entropy::Entropy;

/// SplitMix64 (Steele, Lea and Flood 2014).
pub(crate) struct Chance(pub(crate) u64);

impl Entropy for Chance {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Chance {
    /// From zero to `below`, evenly.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        self.bits() % below.max(1)
    }

    /// Whether one of `percent` in a hundred cases is this one.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Around zero, bell-shaped, seldom further away than `spread`: the sum of four even draws.
    pub(crate) fn around(&mut self, spread: i64) -> i64 {
        let draws: u64 = (0..4).map(|_| self.below(1_000)).sum();
        (i64::try_from(draws).unwrap_or(0) - 1_998) * spread / 2_000
    }
}
