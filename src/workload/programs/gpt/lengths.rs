//! Lengths of sequences.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{base::Bytes, workload::parameter::choice};

choice! {
    /// How long the sequences of each step are.
    pub enum Lengths {
        /// Always `seq` tokens.
        Fixed = "fixed",
        /// Drawn from a log-normal distribution.
        Random = "random",
        /// The same, shortest first.
        Ascending = "ascending",
        /// The same, longest first.
        Descending = "descending",
        /// The same, longest first among each `bucket` steps.
        Bucketed = "bucketed",
        /// The same, padded to the next multiple of `pad_to`.
        Padded = "padded",
        /// Those of `length_list`, again and again.
        List = "list",
    }
}

/// A distribution of lengths, in tokens.
#[derive(Clone, Copy, Debug)]
pub struct Distribution {
    /// The median.
    pub median: u64,
    /// The standard deviation of the logarithm.
    pub spread: f64,
    /// The shortest.
    pub shortest: u64,
    /// The longest.
    pub longest: u64,
}

impl Distribution {
    /// `n` lengths.
    pub fn draw(&self, n: u64, seed: u64) -> Vec<u64> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        (0..n).map(|_| self.one(&mut random)).collect()
    }

    fn one(&self, random: &mut ChaCha8Rng) -> u64 {
        // Box and Muller.
        let (a, b): (f64, f64) = (random.random(), random.random());
        let normal = (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos();
        let factor = (normal * self.spread).exp();
        Bytes(self.median).scale(factor).0.clamp(self.shortest, self.longest)
    }
}
