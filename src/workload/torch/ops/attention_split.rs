//! Flash attention of few queries: the keys are split among multiprocessors, and the parts added up.
//!
//! # Source
//! `aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp`, `set_params_splitkv` and
//! `num_splits_heuristic`, 2.11; the device is an H200.

use crate::workload::torch::{DType, Tensor, Torch};

const MULTIPROCESSORS: u64 = 132;
const QUERIES_OF_A_BLOCK: u64 = 64;
const MOST_SPLITS: u64 = 128;

impl Torch {
    /// What the parts add up into: a number a row, then the rows; nothing if there is one part.
    pub(super) fn split_accumulators(&self, q: &Tensor, k: &Tensor) -> Vec<Tensor> {
        let (batch, heads, queries, head) = (q.dim(0), q.dim(1), q.dim(2), q.dim(3));
        let splits = splits(batch.saturating_mul(heads), queries, k.dim(2), head);
        if splits < 2 {
            return Vec::new();
        }
        let padded = head.next_multiple_of(if head <= 128 { 32 } else { 64 });
        let rows = self.empty(&[splits, batch, heads, queries], DType::F32);
        vec![rows, self.empty(&[splits, batch, heads, queries, padded], DType::F32)]
    }
}

/// Lets go of locals of a C++ function that returns a tuple of them: first to last.
pub(super) fn drop_in_order(tensors: Vec<Tensor>) {
    tensors.into_iter().for_each(drop);
}

/// Into how many parts the keys of each head are split: the fewest that keep the multiprocessors
/// nearly as busy as any number would.
fn splits(heads: u64, queries: u64, keys: u64, head: u64) -> u64 {
    let keys_of_a_block = match head {
        ..=64 => 256,
        65..=128 => 128,
        _ => 64,
    };
    let blocks = keys.div_ceil(keys_of_a_block);
    let tasks = heads.saturating_mul(queries.div_ceil(QUERIES_OF_A_BLOCK));
    let at_once = 2 * MULTIPROCESSORS;
    if tasks.saturating_mul(5) >= at_once * 4 {
        return 1;
    }
    let most = MOST_SPLITS.min(at_once).min(blocks);
    let is_another = |n: u64| n == 1 || blocks.div_ceil(n) != blocks.div_ceil(n - 1);
    // Shares of the time in which a multiprocessor has work, in 2^-32.
    let busy = |n: u64| ((tasks * n) << 32) / (at_once * (tasks * n).div_ceil(at_once).max(1));
    let best = (1..=most).filter(|n| is_another(*n)).map(busy).max().unwrap_or(0);
    let is_near = |n: &u64| is_another(*n) && busy(*n) * 20 >= best * 17;
    (1..=most).find(is_near).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::splits;

    /// Seen in `scenarios/kv_cache__cat`: a prompt of 275 tokens, then one token.
    #[test]
    fn keys_are_split_as_recorded() {
        assert_eq!(splits(32, 275, 275, 128), 3);
        assert_eq!(splits(32, 1, 276, 128), 3);
        assert_eq!(splits(32, 1024, 1024, 128), 1);
    }

    /// As PyTorch 2.11 split them.
    #[test]
    fn small_batches_are_split() {
        assert_eq!(splits(8 * 12, 512, 512, 64), 1);
        assert_eq!(splits(16, 512, 512, 64), 2);
        assert_eq!(splits(2 * 4, 300, 300, 80), 3);
        assert_eq!(splits(2 * 4, 300, 300, 160), 5);
        assert_eq!(splits(2, 4096, 4096, 64), 2);
        assert_eq!(splits(16, 1000, 1000, 128), 1);
    }
}
