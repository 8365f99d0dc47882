//! Rows of a table.

use crate::workload::torch::{DType, Tensor, Torch, sort};

/// Up to so many indices, the gradient is made without sorting them.
const FEW: u64 = 3072;
/// Rows that one thread adds up.
const ROWS_OF_A_THREAD: u64 = 10;

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
        drop(self.scratch(sort::scratch(n, 64)));
        drop(range);
        let grad = self.empty(table, dtype);
        let offsets = indices();
        let count = self.scratch(8);
        let ones = indices();
        drop(self.scratch(sort::scan_scratch(n, sort::TILE)));
        drop(ones);
        let rows = table.first().copied().unwrap_or(0);
        let segments = || self.scratch(n.min(rows).saturating_mul(8));
        let (starts, sizes) = (segments(), segments());
        drop(self.scratch(sort::scan_scratch(n.min(rows), sort::SCAN_TILE)));
        let partial_count = self.scratch(8);
        let columns = table.get(1).copied().unwrap_or(1);
        let partial = n / ROWS_OF_A_THREAD + n.min(rows);
        let partial_offsets = self.scratch(partial.saturating_mul(8));
        drop(self.scratch(partial.saturating_mul(columns).saturating_mul(4)));
        drop((partial_offsets, partial_count, sizes, starts, count, offsets, original, sorted));
        grad
    }
}
