//! Causal attention where several heads of queries share keys and values.

use std::rc::Rc;

use crate::workload::torch::{DType, Tensor, Torch, autograd::Grads};

/// Rows that the kernel works on at once.
const ROWS: u64 = 128;
/// Numbers that a head is rounded up to.
const HEAD: u64 = 32;

impl Torch {
    /// `F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)` by flash attention:
    /// `q` is `[batch, heads, tokens, head]`, `k` and `v` may have fewer heads. Backward makes their
    /// gradients for every head of queries first.
    ///
    /// # Source
    /// `aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp`, `mha_bwd`, 2.11.
    pub fn grouped_attention(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        if q.dim(1) == k.dim(1) {
            return self.flash_attention(q, k, v);
        }
        let tape = self.tape(&[q, k, v]);
        let saved = [k, q, v].map(|x| tape.save(x));
        let out = self.empty_like(q);
        let (batch, heads, rows, head) = (q.dim(0), q.dim(1), q.dim(2), q.dim(3));
        let log_sum = self.empty(&[batch, heads, rows], DType::F32);
        let (seed, offset) = (self.empty(&[2], DType::I64), self.empty(&[], DType::I64));
        let saved_after = [&log_sum, &out, &seed, &offset].map(|x| tape.save(x));
        drop((log_sum, seed, offset));
        let shapes = [q, k, v].map(|x| Rc::clone(&x.shape));
        tape.finish(out, move |t, grad, _| -> Grads {
            for tensor in saved.into_iter().chain(saved_after) {
                tensor.unpack(t);
            }
            let grads = shapes.map(|shape| Some(t.empty(&shape, grad.dtype())));
            let rounded = rows.next_multiple_of(ROWS);
            let sums = t.empty(&[batch, heads, rounded], DType::F32);
            let shape = [batch, rounded, heads, head.next_multiple_of(HEAD)];
            let queries = t.empty(&shape, DType::F32);
            let keys = t.empty(&[batch, rows, heads, head], grad.dtype());
            let values = t.empty(&[batch, rows, heads, head], grad.dtype());
            drop(values);
            drop(keys);
            drop(queries);
            drop(sums);
            grads.into()
        })
    }
}
