//! Attention, by one operator or by hand.

use crate::workload::{
    parameter::choice,
    torch::{DType, Tensor, Torch, drop_list},
};

choice! {
    /// How attention is computed.
    pub enum Attention {
        /// What PyTorch chooses: flash in half precision, memory-efficient in float32.
        Sdpa = "sdpa",
        /// One operator that keeps no table of scores.
        Flash = "flash",
        /// The same for every precision.
        Efficient = "efficient",
        /// PyTorch's own steps, in float32.
        Math = "math",
        /// Step by step, in the precision of the model.
        Naive = "naive",
        /// Step by step, the softmax in float32.
        Naive32 = "naive32",
        /// Step by step, some pairs of sequence and head at a time.
        Sliced = "sliced",
    }
}

impl Attention {
    /// Causal attention over `[batch, heads, tokens, head]`; `slice` is the number of pairs of
    /// sequence and head at a time, if it is sliced.
    pub fn attend(self, t: &Torch, q: &Tensor, k: &Tensor, v: &Tensor, slice: u64) -> Tensor {
        match self {
            Self::Sdpa if q.dtype() == DType::F32 => t.efficient_attention(q, k, v),
            Self::Sdpa | Self::Flash => t.flash_attention(q, k, v),
            Self::Efficient => t.efficient_attention(q, k, v),
            Self::Math => t.math_attention(q, k, v),
            Self::Naive => by_hand(t, q, k, v, None),
            Self::Naive32 => by_hand(t, q, k, v, Some(DType::F32)),
            Self::Sliced => sliced(t, q, k, v, slice),
        }
    }

    /// Whether it is one operator, which takes only some widths of a head.
    pub fn is_fused(self) -> bool {
        self.joins_heads()
    }

    /// Whether its result lies in memory as `[batch, tokens, heads, head]`, so that joining the heads
    /// copies nothing.
    pub fn joins_heads(self) -> bool {
        matches!(self, Self::Sdpa | Self::Flash | Self::Efficient)
    }
}

/// `torch.ones(…).triu(1)`.
fn causal_mask(t: &Torch, tokens: u64) -> Tensor {
    let ones = t.empty(&[tokens, tokens], DType::Bool);
    let mask = t.empty_like(&ones);
    drop(ones);
    mask
}

/// `softmax(q @ k.T * s, masked) @ v`.
fn by_hand(t: &Torch, q: &Tensor, k: &Tensor, v: &Tensor, softmax: Option<DType>) -> Tensor {
    let (b, h, n) = (q.dim(0), q.dim(1), q.dim(2));
    let mask = causal_mask(t, n);
    let apart = b > 1 && h > 1;
    let mut p = {
        let scores = t.batched(q, k, &[b, h, n, n], [apart, apart]);
        let scaled = t.scale(&scores);
        drop(scores);
        let masked = t.masked_fill(&scaled, &mask);
        drop(scaled);
        t.softmax(&masked, softmax)
    };
    if softmax.is_some() {
        p = t.to(&p, q.dtype());
    }
    let out = t.batched(&p, v, q.shape(), [false, apart]);
    drop(p);
    drop(mask);
    out
}

/// The same for `slice` pairs of sequence and head at a time.
fn sliced(t: &Torch, q: &Tensor, k: &Tensor, v: &Tensor, slice: u64) -> Tensor {
    let (b, h, n, e) = (q.dim(0), q.dim(1), q.dim(2), q.dim(3));
    let mask = causal_mask(t, n);
    let pairs = b.saturating_mul(h);
    let apart = b > 1 && h > 1;
    let join = |x: &Tensor| {
        let x = if apart { t.copy(x) } else { x.clone() };
        t.view(&x, &[pairs, n, e])
    };
    let (q, k, v) = (join(q), join(k), join(v));
    let mut outs = Vec::new();
    let mut at = 0;
    while at < pairs && t.check().is_ok() {
        let some = slice.min(pairs - at);
        let part = |x: &Tensor| t.slice(x, &[some, n, e]);
        let p = {
            let scores = t.matmul(&part(&q), &part(&k), &[some, n, n]);
            let scaled = t.scale(&scores);
            drop(scores);
            let masked = t.masked_fill(&scaled, &mask);
            drop(scaled);
            t.softmax(&masked, None)
        };
        outs.push(t.matmul(&p, &part(&v), &[some, n, e]));
        drop(p);
        at = at.saturating_add(slice.max(1));
    }
    let out = t.cat(&outs.iter().collect::<Vec<_>>(), &[pairs, n, e]);
    let shape = [b, h, n, e];
    let out = if apart { t.permuted(&out, &shape) } else { t.view(&out, &shape) };
    drop((q, k, v, mask));
    drop_list(outs);
    out
}
