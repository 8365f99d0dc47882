//! Robson's worst case for allocators that do not move blocks.
//!
//! Phase after phase the size doubles. Before a phase, in every window of the new size one block
//! stays, so that no block of the phase fits between them. Robson's program looks where its blocks
//! lie; this one takes each phase's blocks to lie behind those before, in the order of the requests.
//!
//! # Source
//! J. M. Robson, "Bounds for some functions concerning dynamic storage allocation", JACM 21(3), 1974.

use super::{Adversarial, block};
use crate::workload::{
    WorkloadError,
    torch::{Tensor, Torch},
};

struct Placed {
    at: u64,
    size: u64,
    /// Kept for when it is dropped.
    _block: Tensor,
}

impl Adversarial {
    pub(super) fn robson(&self, t: &Torch) -> Result<(), WorkloadError> {
        let mut size = self.small_bytes();
        let mut live: Vec<Placed> = Vec::new();
        let mut end = 0;
        while size <= self.large_bytes() {
            let mut window = None;
            live.retain(|placed| {
                // The windows that it reaches into; the first that has none yet keeps it.
                let last = (placed.at + placed.size - 1) / size;
                let stays = window.is_none_or(|window| last > window);
                if stays {
                    window = Some(last);
                }
                stays
            });
            let used: u64 = live.iter().map(|placed| placed.size).sum();
            end = u64::next_multiple_of(end, size);
            for _ in 0..self.live_bytes().saturating_sub(used) / size {
                live.push(Placed { at: end, size, _block: block(t, size) });
                end += size;
            }
            t.mark(format!("{} KiB", size >> 10));
            t.check()?;
            size *= 2;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    /// Robson's bound is `live * (1 + log2(large / small) / 2)`; a program that looks at no address
    /// comes near it if blocks lie in the order of the requests.
    #[test]
    fn blocks_spread_far_over_the_limit() {
        let is = Adversarial {
            kind: Kind::Robson,
            small: 2,
            large: 64,
            live: 1,
            ..Adversarial::default()
        };
        let t = Torch::new(1);
        is.robson(&t).unwrap();
        assert_eq!(t.marks().len(), 6);
        let traces = t.finish().unwrap();
        let (mut sizes, mut live, mut asked) = (Vec::new(), 0_u64, 0_u64);
        for op in traces[0].ops() {
            match op {
                crate::trace::Op::Alloc(alloc) => {
                    sizes.push(alloc.size.0);
                    live += alloc.size.0;
                    asked += alloc.size.0;
                    assert!(live <= 1 << 20);
                }
                crate::trace::Op::Free(free) => live -= sizes[free.id.0 as usize],
                _ => {}
            }
        }
        // None of it fits where something was freed.
        assert!(asked >= 3 << 20, "{asked}");
    }
}
