//! Rows of a table.

use crate::workload::torch::{DType, Tensor, Torch};

/// Up to so many indices, the gradient is made without sorting them.
const FEW: u64 = 3072;
/// Rows that one thread adds up.
const ROWS_OF_A_THREAD: u64 = 10;

/// Numbers of a tile of CUB's radix sort and its choice of unique numbers, and of its scan.
const SORT_TILE: u64 = 4608;
const SCAN_TILE: u64 = 896;

/// What CUB's radix sort asks for: both lists again, and 256 counters for each tile.
///
/// # Source
/// Asked of PyTorch 2.11 for 3,073 to 262,144 indices.
fn sort_scratch(n: u64) -> u64 {
    let list = n.saturating_mul(8).checked_next_multiple_of(256).unwrap_or(u64::MAX);
    list.saturating_mul(2).saturating_add(n.div_ceil(SORT_TILE).saturating_mul(1024) + 16_895)
}

/// What CUB's scans ask for: 16 bytes for each tile and 32 more.
///
/// # Source
/// As [`sort_scratch`].
fn scan_scratch(n: u64, tile: u64) -> u64 {
    let tiles = n.div_ceil(tile) + 32;
    tiles.saturating_mul(16).checked_next_multiple_of(256).unwrap_or(u64::MAX).saturating_add(511)
}

impl Torch {
    /// `F.embedding(ids, weight)`: keeps the ids. The gradient of the table is as large as the table.
    ///
    /// # Source
    /// `aten/src/ATen/native/cuda/Embedding.cu` and `EmbeddingBackwardKernel.cu`, 2.11;
    /// `scenarios/precision_gpt_b8`: entries 5322 to 5367.
    pub fn embedding(&self, ids: &Tensor, weight: &Tensor) -> Tensor {
        let tape = self.tape(&[weight]);
        let saved = tape.save(ids);
        let mut shape = ids.shape().to_vec();
        shape.push(weight.dim(-1));
        let out = self.empty(&shape, weight.dtype());
        let table = weight.shape.clone();
        tape.finish(out, move |t, grad, _| {
            let ids = saved.unpack(t);
            let n = ids.map_or(0, |ids| ids.numel());
            vec![Some(t.embedding_grad(n, &table, grad.dtype()))]
        })
    }

    fn embedding_grad(&self, n: u64, table: &[u64], dtype: DType) -> Tensor {
        if n <= FEW {
            return self.empty(table, dtype);
        }
        let indices = || self.scratch(n.saturating_mul(8));
        let (sorted, original) = (indices(), indices());
        let range = indices();
        drop(self.scratch(sort_scratch(n)));
        drop(range);
        let grad = self.empty(table, dtype);
        let offsets = indices();
        let count = self.scratch(8);
        let ones = indices();
        drop(self.scratch(scan_scratch(n, SORT_TILE)));
        drop(ones);
        let rows = table.first().copied().unwrap_or(0);
        let segments = || self.scratch(n.min(rows).saturating_mul(8));
        let (starts, sizes) = (segments(), segments());
        drop(self.scratch(scan_scratch(n.min(rows), SCAN_TILE)));
        let partial_count = self.scratch(8);
        let columns = table.get(1).copied().unwrap_or(1);
        let partial = n / ROWS_OF_A_THREAD + n.min(rows);
        let partial_offsets = self.scratch(partial.saturating_mul(8));
        drop(self.scratch(partial.saturating_mul(columns).saturating_mul(4)));
        drop((partial_offsets, partial_count, sizes, starts, count, offsets, original, sorted));
        grad
    }
}
