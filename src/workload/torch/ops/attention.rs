//! Attention by one fused operator.

use std::rc::Rc;

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
        let (seed, offset) = (self.empty(&[2], DType::I64), self.empty(&[], DType::I64));
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

/// Rows of which a block of threads of the memory-efficient kernel makes the gradients.
const EFFICIENT_ROWS: u64 = 64;

impl Torch {
    /// `F.scaled_dot_product_attention` by the memory-efficient kernel, which serves float32, too:
    /// `q`, `k` and `v` are `[batch, heads, tokens, head]`. Keeps them, the result, and a number a row
    /// and head if there is a graph. In half precision the gradient of `q` is summed in float32.
    ///
    /// # Source
    /// `scenarios/attention_train_s512__efficient`: entries 222 to 223 forward, 531 to 548 backward;
    /// `workspace_size` in `aten/src/ATen/native/transformers/cuda/mem_eff_attention/
    /// kernel_backward.h`, 2.11.
    pub fn efficient_attention(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let tape = self.tape(&[q, k, v]);
        let saved = [tape.save(q), tape.save(k), tape.save(v)];
        let out = self.empty_like(q);
        let rows = [q.dim(0), q.dim(1), q.dim(2).next_multiple_of(32)];
        let log_sum = tape.is_on().then(|| self.empty(&rows, DType::F32));
        let saved_rows = log_sum.map(|rows| tape.save(&rows));
        let saved_out = tape.save(&out);
        let shapes = [q, k, v].map(|x| Rc::clone(&x.shape));
        let sums = [q.dim(0), q.dim(1), q.dim(2)];
        let wide = q.dtype() != DType::F32;
        tape.finish(out, move |t, grad, _| -> Grads {
            for tensor in saved {
                tensor.unpack(t);
            }
            if let Some(rows) = saved_rows {
                rows.unpack(t);
            }
            saved_out.unpack(t);
            let head = shapes[0].last().copied().unwrap_or(1);
            let grads = shapes.map(|shape| Some(t.empty(&shape, grad.dtype())));
            let [batch, heads, tokens] = sums;
            let sums = t.empty(&sums, DType::F32);
            let pairs = batch.saturating_mul(heads);
            let blocks = tokens.div_ceil(EFFICIENT_ROWS) * head.div_ceil(64);
            let block = 16 + EFFICIENT_ROWS * 64 * 4;
            let workspace = wide.then(|| t.scratch(pairs.saturating_mul(blocks * block)));
            drop(sums);
            drop(workspace);
            grads.into()
        })
    }
}

impl Torch {
    /// `F.scaled_dot_product_attention` step by step, causal: half precision is made float32 for it.
    ///
    /// # Source
    /// `scenarios/attention_train_s512__math`: entries 255 to 299 forward, 1177 to 1217 backward.
    pub fn math_attention(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let (b, h, n) = (q.dim(0), q.dim(1), q.dim(2));
        let from = q.dtype();
        let apart = b > 1 && h > 1;
        let (wq, wk, wv) =
            (self.to(q, DType::F32), self.to(k, DType::F32), self.to(v, DType::F32));
        let scaled = self.scale(&wq);
        let mask = {
            let ones = self.empty(&[n, n], DType::Bool);
            let lower = self.empty_like(&ones);
            drop(ones);
            let (zero, minus) = (self.scalar(), self.scalar());
            let mask = self.empty(&[n, n], DType::F32);
            drop((minus, zero, lower));
            mask
        };
        let scores = {
            let scaled_k = self.scale(&wk);
            self.batched(&scaled, &scaled_k, &[b, h, n, n], [apart, apart])
        };
        let p = self.softmax(&scores, None);
        {
            // Rows that nothing may look at would be zero.
            let hidden = self.empty_of(&p, DType::Bool);
            let rows = self.empty(&[b, h, n, 1], DType::Bool);
            drop((self.scalar(), rows, hidden));
        }
        drop(scores);
        let weights = self.to(&p, from);
        let out = {
            let wide = self.batched(&p, &wv, q.shape(), [false, apart]);
            self.to(&wide, from)
        };
        drop((p, scaled, mask, wv, wk, wq, weights));
        out
    }

    fn scalar(&self) -> Tensor {
        self.empty(&[], DType::F32)
    }
}
