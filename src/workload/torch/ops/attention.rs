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
        let parts = splits(q, k);
        let split = (parts > 1).then(|| {
            let [b, h, n] = rows;
            let head = head_of_kernel(q.dim(3));
            let sums = self.empty(&[parts, b, h, n], DType::F32);
            (sums, self.empty(&[parts, b, h, n, head], DType::F32))
        });
        let (seed, offset) = (self.empty(&[2], DType::I64), self.empty(&[], DType::I64));
        let saved_rows = tape.save(&log_sum);
        let saved_out = tape.save(&out);
        let saved_random = (tape.save(&seed), tape.save(&offset));
        drop(split);
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

/// Multiprocessors of an H200.
const MULTIPROCESSORS: u64 = 132;

/// Into how many parts flash attention splits the keys, so that a small batch fills the device.
///
/// # Source
/// `num_splits_heuristic` and `set_params_splitkv` in
/// `aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp`, 2.11.
fn splits(q: &Tensor, k: &Tensor) -> u64 {
    let (pairs, n, head) = (q.dim(0).saturating_mul(q.dim(1)), q.dim(2), q.dim(3));
    let columns = if head <= 64 {
        256
    } else if head <= 128 {
        128
    } else {
        64
    };
    let (columns, rows) = (k.dim(2).div_ceil(columns), n.div_ceil(64));
    let places = 2 * MULTIPROCESSORS;
    let blocks = pairs.saturating_mul(rows);
    if blocks.saturating_mul(10) >= 8 * places {
        return 1;
    }
    let most = columns.min(places).min(128);
    let eligible =
        |parts: &u64| *parts == 1 || columns.div_ceil(*parts) != columns.div_ceil(*parts - 1);
    // The share of the places that are taken, in millionths.
    let efficiency = |parts: u64| {
        let taken = blocks.saturating_mul(parts);
        taken.saturating_mul(1_000_000) / (taken.div_ceil(places) * places).max(1)
    };
    let best = (1..=most).filter(eligible).map(efficiency).max().unwrap_or(0);
    let enough = |parts: &u64| efficiency(*parts).saturating_mul(100) >= best.saturating_mul(85);
    (1..=most).filter(eligible).find(enough).unwrap_or(1)
}

/// The width of the kernel that serves heads of this width.
fn head_of_kernel(head: u64) -> u64 {
    let step = if head <= 128 { 32 } else { 64 };
    head.checked_next_multiple_of(step).unwrap_or(head)
}
