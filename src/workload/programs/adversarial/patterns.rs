//! Programs without chance: an order, a comb, a growing tensor, a cycle.

use super::{Adversarial, Kind, block};
use crate::workload::{
    WorkloadError,
    torch::{Torch, drop_list},
};

impl Adversarial {
    /// Rounds of equal requests, each round with a size of its own between the smallest and the
    /// largest. What a smaller round leaves behind serves no larger one.
    pub(super) fn in_order(&self, t: &Torch) -> Result<(), WorkloadError> {
        let (small, large) = (self.small_bytes(), self.large_bytes());
        let last = self.rounds - 1;
        for round in 0..self.rounds {
            let place = if self.kind == Kind::AThenB { round } else { last - round };
            let size = small + (large - small) * place / last.max(1);
            let count = (self.live_bytes() / size).max(1);
            drop_list((0..count).map(|_| block(t, size)).collect());
            t.mark("round");
            t.check()?;
        }
        Ok(())
    }

    /// Teeth and gaps of one size, side by side; then as many requests as there are gaps, each a step
    /// larger than a gap.
    pub(super) fn comb(&self, t: &Torch) -> Result<(), WorkloadError> {
        let size = self.small_bytes();
        let mut teeth = Vec::new();
        let mut gaps = Vec::new();
        for _ in 0..self.rounds {
            teeth.push(block(t, size));
            gaps.push(block(t, size));
        }
        t.mark("filled");
        drop_list(gaps);
        t.mark("every other one freed");
        let larger: Vec<_> = (0..self.rounds).map(|_| block(t, size + self.step)).collect();
        t.mark("larger ones");
        drop_list(larger);
        drop_list(teeth);
        t.check()
    }

    /// The new tensor is made before the old one goes.
    pub(super) fn grow(&self, t: &Torch) -> Result<(), WorkloadError> {
        let mut size = self.small_bytes();
        let mut tensor = block(t, size);
        for _ in 0..self.rounds {
            size += self.step;
            tensor = block(t, size);
            t.check()?;
        }
        t.mark("grown");
        drop(tensor);
        t.check()
    }

    /// The large block and the smaller one behind it leave one hole, too large for either where
    /// `max_split_size_mb` forbids to split it, and what stays keeps it from growing into the next.
    ///
    /// # Source
    /// pytorch issue #123548 and pull request #193400.
    pub(super) fn split_growth(&self, t: &Torch) -> Result<(), WorkloadError> {
        let mut stay = Vec::new();
        for _ in 0..self.rounds {
            let large = block(t, self.large_bytes());
            let smaller = block(t, self.small_bytes());
            stay.push(block(t, self.stays << 10));
            drop(large);
            drop(smaller);
            t.mark("cycle");
            t.check()?;
        }
        drop_list(stay);
        t.check()
    }
}
