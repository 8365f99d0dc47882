//! Random sizes, which live for random times.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use super::{Adversarial, Lifetimes, Sizes, block};
use crate::workload::{
    WorkloadError,
    programs::draws::Draws,
    torch::{Tensor, Torch},
};

impl Adversarial {
    fn size(&self, draws: &mut Draws) -> u64 {
        let (low, high) = (self.small_bytes(), self.large_bytes());
        match self.sizes {
            Sizes::Uniform => draws.uniform(low, high),
            Sizes::LogUniform => draws.log_uniform(low, high),
            Sizes::Powers => draws.power(low, high),
            Sizes::Two => *[low, high].get(usize::from(draws.percent(50))).unwrap_or(&low),
        }
    }

    fn lives_for(&self, draws: &mut Draws) -> u64 {
        match self.lifetimes {
            Lifetimes::Exponential => draws.waiting(self.lifetime),
            Lifetimes::Uniform => draws.uniform(1, 2 * self.lifetime - 1),
            Lifetimes::Fixed => self.lifetime,
            Lifetimes::LogUniform => draws.log_uniform(1, 100 * self.lifetime),
        }
    }

    /// One request a time; what has lived its time goes before, and what ends next goes earlier where
    /// the limit asks for it.
    pub(super) fn churn(&self, t: &Torch) -> Result<(), WorkloadError> {
        let mut draws = Draws::new(self.seed);
        let main = t.current_stream();
        let streams: Vec<_> =
            std::iter::once(main).chain((1..self.streams).map(|_| t.new_stream())).collect();
        let mut ends = BinaryHeap::new();
        let mut live: BTreeMap<u64, Tensor> = BTreeMap::new();
        let mut used = 0;
        for now in 0..self.rounds {
            let size = self.size(&mut draws).min(self.live_bytes());
            while let Some(&Reverse((end, id))) = ends.peek()
                && (end <= now || used + size > self.live_bytes())
            {
                ends.pop();
                if let Some(tensor) = live.remove(&id) {
                    used -= tensor.nbytes();
                }
            }
            let stream = usize::try_from(draws.uniform(0, self.streams - 1)).unwrap_or(0);
            let stream = streams.get(stream).copied().unwrap_or(main);
            live.insert(now, t.on_stream(stream, || block(t, size)));
            used += size;
            ends.push(Reverse((now + self.lives_for(&mut draws), now)));
            if (now + 1).is_multiple_of(1000) {
                t.mark("1000 requests");
                t.check()?;
            }
        }
        while let Some(Reverse((_, id))) = ends.pop() {
            drop(live.remove(&id));
        }
        t.check()
    }
}
