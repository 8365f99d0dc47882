//! Attention by heads too wide for flash attention.

use crate::workload::torch::{DType, Tensor, Torch};

/// The widest head whose result the memory-efficient kernel keeps in registers.
const IN_REGISTERS: u64 = 128;

impl Torch {
    /// `F.scaled_dot_product_attention` of inference, by the memory-efficient kernel: `q`, `k` and `v`
    /// are `[batch, heads, tokens, head]`. Results of wide heads in half precision are summed in
    /// float32 first.
    ///
    /// # Source
    /// `aten/src/ATen/native/transformers/cuda/mem_eff_attention/kernel_forward.h`,
    /// `kNeedsOutputAccumulatorBuffer`, 2.11; `scenarios/diffusion_512_n1__attn_sdpa`.
    pub fn wide_attention(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let shape = [q.dim(0), q.dim(1), q.dim(2), v.dim(3)];
        let out = self.empty(&shape, q.dtype());
        let _ = k;
        if v.dim(3) > IN_REGISTERS && q.dtype() != DType::F32 {
            drop(self.empty(&shape, DType::F32));
        }
        out
    }
}
