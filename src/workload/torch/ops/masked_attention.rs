//! Attention with a mask that is a tensor, by the memory-efficient kernel.

use std::rc::Rc;

use crate::workload::torch::{DType, Tensor, Torch, autograd::Grads};

/// Rows of numbers that a mask's last side is padded to.
const MASK_ALIGNMENT: u64 = 8;
/// Rows that the logarithms of sums are padded to.
const ROW_ALIGNMENT: u64 = 32;
/// The lock and counter of a block of the gradient of the queries, in bytes.
const BLOCK_HEAD: u64 = 16;
/// Sums of gradients are kept in float32.
const ACCUMULATOR: u64 = 4;

impl Torch {
    /// `F.scaled_dot_product_attention(q, k, v, attn_mask=mask)` in half precision: `q`, `k` and `v`
    /// are `[batch, heads, tokens, head]`, the mask is of bool and `[batch, 1, tokens, tokens]`. It is
    /// made numbers of `q`'s type, which are kept beside `q`, `k`, `v`, the result and a number a row.
    ///
    /// # Source
    /// `scenarios/lora_b1__full`: entries 514 to 522 forward, 2821 to 2842 backward;
    /// `aten/src/ATen/native/transformers/attention.cpp`, `convert_boolean_attn_mask` and `pad_bias`.
    pub fn masked_attention(&self, q: &Tensor, k: &Tensor, v: &Tensor, mask: &Tensor) -> Tensor {
        let bias = self.mask_as_numbers(mask, q.dtype());
        let tape = self.tape(&[q, k, v]);
        let saved = [&bias, k, q, v].map(|x| tape.save(x));
        let out = self.empty_like(q);
        let (batch, heads, rows, head) = (q.dim(0), q.dim(1), q.dim(2), q.dim(3));
        let kept_rows = if tape.is_on() { rows.next_multiple_of(ROW_ALIGNMENT) } else { 0 };
        let log_sum = self.empty(&[batch, heads, kept_rows], DType::F32);
        let saved_rows = tape.save(&log_sum);
        let saved_out = tape.save(&out);
        drop((log_sum, bias));
        let shapes = [q, k, v].map(|x| Rc::clone(&x.shape));
        tape.finish(out, move |t, grad, wants| -> Grads {
            for tensor in saved {
                tensor.unpack(t);
            }
            saved_rows.unpack(t);
            saved_out.unpack(t);
            let grads = shapes.map(|shape| Some(t.empty(&shape, grad.dtype())));
            let delta = t.empty(&[batch, heads, rows], DType::F32);
            let blocks = blocks_of_query_gradient(rows, head);
            let workspace = t.empty(&[batch, heads, blocks], DType::U8);
            drop(delta);
            drop(workspace);
            // It makes all three, whether they are wanted or not.
            grads.into_iter().zip(wants).map(|(grad, wanted)| grad.filter(|_| *wanted)).collect()
        })
    }

    fn mask_as_numbers(&self, mask: &Tensor, dtype: DType) -> Tensor {
        let (zero, least) = (self.empty(&[], dtype), self.empty(&[], dtype));
        let numbers = self.empty_of(mask, dtype);
        drop(least);
        drop(zero);
        let mut shape = numbers.shape().to_vec();
        match shape.last_mut() {
            Some(last) if !last.is_multiple_of(MASK_ALIGNMENT) => {
                *last = last.next_multiple_of(MASK_ALIGNMENT);
                self.empty(&shape, dtype)
            }
            _ => numbers,
        }
    }
}

/// Bytes in which a head's gradient of the queries is summed: a square of numbers and a lock for each
/// block of rows and columns.
///
/// # Source
/// `transformers/cuda/mem_eff_attention/kernel_backward.h`, `workspace_elements_gq`; the sides of
/// a block are those of the kernels for half precision.
fn blocks_of_query_gradient(rows: u64, head: u64) -> u64 {
    let (high, wide) = if head <= 64 { (64, 64) } else { (128, 128) };
    let blocks = rows.div_ceil(high).saturating_mul(head.div_ceil(wide));
    blocks.saturating_mul(high * wide * ACCUMULATOR + BLOCK_HEAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen in `scenarios/lora_b1__full`: 4,198,400 bytes for 32 heads.
    #[test]
    fn blocks_take_what_was_recorded() {
        assert_eq!(32 * blocks_of_query_gradient(512, 64), 4_198_400);
    }
}
