//! Random numbers of given distributions, from a seed, in whole numbers: the same on every machine.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A source of random numbers.
#[derive(Debug)]
pub(super) struct Draws(ChaCha8Rng);

/// `ln 2` in 2^-32.
const LN_2: u64 = 2_977_044_472;

impl Draws {
    pub(super) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Every number from `low` to `high` alike.
    pub(super) fn uniform(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high.max(low))
    }

    /// Every doubling from `low` to `high` alike: many small numbers, few large ones.
    pub(super) fn log_uniform(&mut self, low: u64, high: u64) -> u64 {
        let low = low.max(1);
        let high = high.max(low);
        let doubling = self.uniform(low.ilog2().into(), high.ilog2().into());
        let from = 1_u64 << doubling;
        self.uniform(from.max(low), high.min(from + (from - 1)))
    }

    /// A power of two from `low` to `high`; `low` if there is none.
    pub(super) fn power(&mut self, low: u64, high: u64) -> u64 {
        let first = low.max(1).next_power_of_two().ilog2();
        let last = high.max(1).ilog2();
        if first > last { low } else { 1 << self.uniform(first.into(), last.into()) }
    }

    /// A waiting time of this mean, at least 1: exponential at every halving, straight between them.
    pub(super) fn waiting(&mut self, mean: u64) -> u64 {
        let halvings = u64::from(self.0.next_u64().leading_zeros());
        let between = self.uniform(0, u64::from(u32::MAX));
        // From 1 down to 1/2 the logarithm goes from 0 to 1.
        let whole = u128::from(halvings) << 32 | u128::from(between);
        let scaled = (whole * u128::from(LN_2)) >> 32;
        let time = (u128::from(mean) * scaled) >> 32;
        u64::try_from(time).unwrap_or(u64::MAX).max(1)
    }

    /// Whether something happens that happens so many times in a hundred.
    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.uniform(1, 100) <= percent
    }
}

#[cfg(test)]
mod tests {
    use super::Draws;

    #[test]
    fn a_waiting_time_has_its_mean() {
        let mut draws = Draws::new(1);
        let sum: u64 = (0..20_000).map(|_| draws.waiting(1000)).sum();
        assert!((950..1100).contains(&(sum / 20_000)), "{}", sum / 20_000);
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let mut draws = Draws::new(2);
        for _ in 0..1000 {
            assert!((3..=100).contains(&draws.log_uniform(3, 100)));
            assert!([4, 8, 16].contains(&draws.power(3, 31)));
        }
        assert_eq!(draws.power(5, 7), 5);
        assert_eq!(draws.log_uniform(u64::MAX, 1), u64::MAX);
    }
}
