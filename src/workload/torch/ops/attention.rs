//! Attention by one fused operator.

use std::rc::Rc;

use super::attention_split::drop_in_order;
use crate::workload::torch::{DType, Tensor, Torch, autograd::Grads};

impl Torch {
    /// `F.scaled_dot_product_attention` by flash attention, for half precision: `q`, `k` and `v` are
    /// `[batch, heads, tokens, head]`. Keeps them, the result and a number a row and head.
    ///
    /// # Source
    /// `scenarios/precision_gpt_b8`: entries 392 to 395 forward, 1752 to 1771 backward.
    pub fn flash_attention(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let tape = self.tape(&[q, k, v]);
        let saved = [tape.save(q), tape.save(k), tape.save(v)];
        let out = self.empty_like(q);
        let rows = [q.dim(0), q.dim(1), q.dim(2)];
        let log_sum = self.empty(&rows, DType::F32);
        let parts = self.split_accumulators(q, k);
        let (seed, offset) = (self.empty(&[2], DType::I64), self.empty(&[], DType::I64));
        drop_in_order(parts);
        let saved_rows = tape.save(&log_sum);
        let saved_out = tape.save(&out);
        let saved_random = (tape.save(&seed), tape.save(&offset));
        drop((log_sum, seed, offset));
        let shapes = [q, k, v].map(|x| Rc::clone(&x.shape));
        tape.finish(out, move |t, grad, _| -> Grads {
            for tensor in saved {
                tensor.unpack(t);
            }
            saved_rows.unpack(t);
            saved_out.unpack(t);
            saved_random.0.unpack(t);
            saved_random.1.unpack(t);
            let grads = shapes.map(|shape| Some(t.empty(&shape, grad.dtype())));
            let sums = t.empty(&rows, DType::F32);
            drop(t.empty_of(&grad, DType::F32));
            drop(sums);
            grads.into()
        })
    }
}
