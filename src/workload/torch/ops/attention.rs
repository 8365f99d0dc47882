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
            let [b, h, n] = rows;
            let n = n.checked_next_multiple_of(128).unwrap_or(n);
            let head = padded_head(grad.dim(-1));
            let sums = t.empty(&[b, h, n], DType::F32);
            drop(t.empty(&[b, h, n, head], DType::F32));
            drop(sums);
            grads.into()
        })
    }
}

/// The width of a head in flash attention's sums.
fn padded_head(head: u64) -> u64 {
    let step = if head <= 128 { 32 } else { 64 };
    head.checked_next_multiple_of(step).unwrap_or(head)
}

/// Bytes of scratch memory of the memory-efficient kernel for backward of `[pairs, tokens, head]`: the
/// gradient of `q` in float32 with 16 bytes for each tile, and those of `k` and `v` where a head of
/// half precision is too wide for registers.
///
/// # Source
/// `workspace_size` in `aten/src/ATen/native/transformers/cuda/mem_eff_attention/kernel_backward.h`,
/// 2.11, and asked of it for heads of 32 to 256.
fn efficient_scratch(pairs: u64, tokens: u64, head: u64, dtype: DType) -> u64 {
    let half = dtype != DType::F32;
    let (rows, columns) = match head {
        ..=64 => (64, 64),
        65..=128 if half => (128, 128),
        _ => (128, 64),
    };
    let tiles = tokens.div_ceil(rows).saturating_mul(head.div_ceil(columns));
    let of_q = tiles.saturating_mul(16 + rows * columns * 4);
    let splits = tokens.div_ceil(64).min(200 / pairs.max(1)).max(1);
    let wide = head.checked_next_multiple_of(128).unwrap_or(head).saturating_mul(4);
    let of_k = if half && head > 128 { (splits * 64).saturating_mul(wide) } else { 0 };
    pairs.saturating_mul(of_q.saturating_add(of_k.saturating_mul(2)))
}

impl Torch {
    /// `F.scaled_dot_product_attention` by the memory-efficient kernel, which serves float32, too:
    /// `q`, `k` and `v` are `[batch, heads, tokens, head]`. Keeps them, the result, and a number a row
    /// and head if there is a graph. The gradient of `q` is summed in float32.
    ///
    /// # Source
    /// `scenarios/attention_train_s512__efficient`: entries 222 to 223 forward, 531 to 548 backward,
    /// `scenarios/loss_sum_train__item`: entries 415 to 436 backward in float32.
    pub fn efficient_attention(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let tape = self.tape(&[q, k, v]);
        let saved = [tape.save(q), tape.save(k), tape.save(v)];
        let out = self.empty_like(q);
        let rows = [q.dim(0), q.dim(1), q.dim(2).next_multiple_of(32)];
        let log_sum = tape.is_on().then(|| self.empty(&rows, DType::F32));
        if q.dtype() != DType::F32 && q.dim(3) > 128 {
            drop(self.empty_of(&out, DType::F32)); // sums that do not fit into registers
        }
        let saved_rows = log_sum.map(|rows| tape.save(&rows));
        let saved_out = tape.save(&out);
        let shapes = [q, k, v].map(|x| Rc::clone(&x.shape));
        let sums = [q.dim(0), q.dim(1), q.dim(2)];
        let scratch =
            efficient_scratch(sums[0].saturating_mul(sums[1]), sums[2], q.dim(3), q.dtype());
        tape.finish(out, move |t, grad, _| -> Grads {
            for tensor in saved {
                tensor.unpack(t);
            }
            if let Some(rows) = saved_rows {
                rows.unpack(t);
            }
            saved_out.unpack(t);
            let grads = shapes.map(|shape| Some(t.empty(&shape, grad.dtype())));
            let sums = t.row_sums(&grad, &sums);
            let workspace = t.scratch(scratch);
            drop(sums);
            drop(workspace);
            grads.into()
        })
    }

    /// The sums of gradient times result: the kernel makes them in half precision, in float32 they
    /// are made before, and copied into another order.
    fn row_sums(&self, grad: &Tensor, shape: &[u64]) -> Tensor {
        if grad.dtype() != DType::F32 {
            return self.empty(shape, DType::F32);
        }
        let _product = self.empty_like(grad);
        let sums = self.empty(shape, DType::F32);
        let ordered = self.empty_like(&sums);
        drop(sums);
        ordered
    }
}

impl Torch {
    /// `F.scaled_dot_product_attention` step by step, causal: half precision is made float32 for it.
    ///
    /// # Source
    /// `scenarios/attention_train_s512__math`: entries 255 to 299 forward, 1177 to 1217 backward.
    pub fn math_attention(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let (q, k, v) = (self.cast_input(q), self.cast_input(k), self.cast_input(v));
        self.inside_operator(|| self.math(&q, &k, &v))
    }

    fn math(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let (b, h, n) = (q.dim(0), q.dim(1), q.dim(2));
        let from = q.dtype();
        let apart = b > 1 && h > 1;
        let (wq, wk, wv) = (self.to(q, DType::F32), self.to(k, DType::F32), self.to(v, DType::F32));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// As PyTorch 2.11 asked for it: pairs of sequence and head, tokens, width of a head.
    #[test]
    fn scratch_memory_of_the_efficient_backward() {
        let (half, full) = (DType::BF16, DType::F32);
        assert_eq!(efficient_scratch(96, 200, 64, half), 6_297_600);
        assert_eq!(efficient_scratch(8, 300, 32, half), 656_000);
        assert_eq!(efficient_scratch(16, 1000, 128, half), 8_390_656);
        assert_eq!(efficient_scratch(8, 300, 160, half), 7_603_328);
        assert_eq!(efficient_scratch(8, 300, 256, half), 8_390_144);
        assert_eq!(efficient_scratch(16, 1000, 128, full), 8_392_704);
        assert_eq!(efficient_scratch(8, 300, 192, full), 2_360_448);
    }
}
