//! Rows taken out of a tensor, and added into one.

use std::rc::Rc;

use crate::workload::torch::{DType, Tensor, Torch, sort};

impl Torch {
    /// `x[indices]`, rows of `[rows, columns]`: keeps the indices. The gradient is a whole tensor of
    /// zeros, into which rows are added in the order of their sorted indices.
    ///
    /// # Source
    /// `aten/src/ATen/native/cuda/Indexing.cu`, 2.11: `index_put_with_sort_kernel`.
    pub fn index(&self, x: &Tensor, indices: &Tensor) -> Tensor {
        let tape = self.tape(&[x]);
        let saved = tape.save(indices);
        let rows = indices.numel();
        let out = self.empty(&[rows, x.dim(-1)], x.dtype());
        let from = Rc::clone(&x.shape);
        tape.finish(out, move |t, grad, _| {
            let _indices = saved.unpack(t);
            let whole = t.empty(&from, grad.dtype());
            t.sort_for_adding(rows, whole.dim(0));
            vec![Some(whole)]
        })
    }

    /// `x.cumsum(-1)` of one row of numbers, added up as int64.
    pub(crate) fn running_sum(&self, x: &Tensor) -> Tensor {
        let sums = self.empty_of(x, DType::I64);
        let wide = self.to(x, DType::I64);
        let n = x.dim(-1);
        if x.numel() == n {
            drop(self.scratch(sort::scan_scratch(n, sort::SCAN_TILE)));
        }
        drop(wide);
        sums
    }

    fn sort_for_adding(&self, n: u64, rows: u64) {
        let numbers = || self.empty(&[n], DType::I64);
        let linear = {
            let wrapped = numbers();
            let linear = numbers();
            drop(wrapped);
            linear
        };
        let (sorted, original) = (numbers(), numbers());
        let range = numbers();
        if n > 0 {
            drop(self.scratch(sort::scratch(n, sort::bits_of(rows))));
        }
        drop(range);
        drop(original);
        drop(sorted);
        drop(linear);
    }

    /// `x.index_add(0, indices, rows)`, not in place: keeps the indices and the rows. The gradient is
    /// handed on to `x`, and its rows are taken out for `rows`.
    ///
    /// # Source
    /// `tools/autograd/derivatives.yaml`, 2.11: `index_add`.
    pub fn index_add(&self, x: &Tensor, indices: &Tensor, rows: &Tensor) -> Tensor {
        let tape = self.tape(&[x, rows]);
        let saved = [indices, rows].map(|s| tape.save_if(tape.wants(1), s));
        let out = self.empty_like(x);
        let shape = Rc::clone(&rows.shape);
        tape.finish(out, move |t, grad, wants| {
            for tensor in saved {
                tensor.unpack(t);
            }
            let taken = wants[1].then(|| t.empty(&shape, grad.dtype()).shaped(&shape));
            vec![wants[0].then_some(grad), taken]
        })
    }
}
