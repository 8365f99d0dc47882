//! Attention as diffusers' processors do it.

use super::{
    image::Image,
    layers::{Builder, GroupNorm, Linear},
};
use crate::workload::torch::{DType, Tensor, Torch};

/// How attention is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// `AttnProcessor2_0`: `scaled_dot_product_attention`.
    Fused,
    /// `AttnProcessor`: all scores at once.
    Naive,
    /// `SlicedAttnProcessor`: half as many pairs of image and head at a time as there are heads.
    SlicedByHalves,
    /// `SlicedAttnProcessor`: so many pairs at a time.
    Sliced(u64),
}

/// `Attention` of tokens to tokens.
#[derive(Clone, Debug)]
pub struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: u64,
    how: How,
}

impl Attention {
    /// Of tokens of `width` to tokens of `context`; `bias` of the projections to q, k and v.
    pub fn new(
        b: &mut Builder,
        width: u64,
        context: u64,
        heads: u64,
        bias: bool,
        how: How,
    ) -> Self {
        Self {
            to_q: b.linear(width, width, bias),
            to_k: b.linear(context, width, bias),
            to_v: b.linear(context, width, bias),
            to_out: b.linear(width, width, true),
            heads,
            how,
        }
    }

    /// `attention(x, context)`, rescaled.
    ///
    /// # Source
    /// diffusers 0.42, `models/attention_processor.py`; `scenarios/diffusion_512_n1`.
    pub fn forward(&self, t: &Torch, x: &Tensor, context: &Tensor) -> Tensor {
        match self.how {
            How::SlicedByHalves => self.sliced(t, x, context, self.heads / 2),
            How::Sliced(n) => self.sliced(t, x, context, n),
            How::Fused | How::Naive => {
                let q = self.to_q.forward(t, x);
                let k = self.to_k.forward(t, context);
                let v = self.to_v.forward(t, context);
                let (mut out, kept) = self.attend(t, q, k, v);
                out = self.to_out.forward(t, &out);
                out = t.scale(&out);
                kept.into_iter().for_each(drop);
                out
            }
        }
    }

    /// The result, and what lives until the end of the call.
    fn attend(&self, t: &Torch, q: Tensor, k: Tensor, v: Tensor) -> (Tensor, Vec<Tensor>) {
        if self.how == How::Fused {
            let out = t.flash_attention(&self.by_head(&q), &self.by_head(&k), &self.by_head(&v));
            return (out.shaped(q.shape()), vec![q, k, v]);
        }
        let shape = q.shape().to_vec();
        let q = self.heads_to_batch(t, q);
        let k = self.heads_to_batch(t, k);
        let v = self.heads_to_batch(t, v);
        let scores = Self::scores(t, &q, &k, false);
        let mut out = t.matmul(&scores, &v, q.shape());
        out = self.heads_from_batch(t, out, &shape);
        (out, vec![q, k, v, scores])
    }

    fn sliced(&self, t: &Torch, x: &Tensor, context: &Tensor, slice: u64) -> Tensor {
        let q = self.to_q.forward(t, x);
        let shape = q.shape().to_vec();
        let q = self.heads_to_batch(t, q);
        let k = self.to_k.forward(t, context);
        let v = self.to_v.forward(t, context);
        let k = self.heads_to_batch(t, k);
        let v = self.heads_to_batch(t, v);
        let mut out = t.empty_like(&q);
        let part = |x: &Tensor, n: u64| x.shaped(&[n, x.dim(1), x.dim(2)]);
        let (mut at, pairs) = (0, q.dim(0));
        let mut last = None;
        while at < pairs && t.check().is_ok() {
            let n = slice.max(1).min(pairs - at);
            at += n;
            let scores = Self::scores(t, &part(&q, n), &part(&k, n), false);
            drop(last.take());
            last = Some(t.matmul(&scores, &part(&v, n), part(&q, n).shape()));
        }
        out = self.heads_from_batch(t, out, &shape);
        out = self.to_out.forward(t, &out);
        out = t.scale(&out);
        drop((v, q, k, last));
        out
    }

    /// `get_attention_scores`: the softmax of the products, in float32 if asked.
    fn scores(t: &Torch, q: &Tensor, k: &Tensor, upcast: bool) -> Tensor {
        let shape = [q.dim(0), q.dim(1), k.dim(1)];
        let mut scores = {
            let _start = t.empty(&shape, q.dtype());
            t.matmul(q, k, &shape)
        };
        if upcast {
            scores = t.to(&scores, DType::F32);
        }
        scores = t.softmax(&scores, None);
        scores = t.to(&scores, q.dtype());
        scores
    }

    fn by_head(&self, x: &Tensor) -> Tensor {
        let head = x.dim(2).checked_div(self.heads).unwrap_or(0);
        x.shaped(&[x.dim(0), self.heads, x.dim(1), head])
    }

    fn heads_to_batch(&self, t: &Torch, x: Tensor) -> Tensor {
        let head = x.dim(2).checked_div(self.heads).unwrap_or(0);
        let shape = [x.dim(0).saturating_mul(self.heads), x.dim(1), head];
        let apart = if self.heads > 1 { t.copy(&x) } else { x };
        apart.shaped(&shape)
    }

    fn heads_from_batch(&self, t: &Torch, x: Tensor, shape: &[u64]) -> Tensor {
        let joined = if self.heads > 1 { t.copy(&x) } else { x };
        joined.shaped(shape)
    }
}

/// The attention of an autoencoder: of all places of an image to all, by one wide head, beside a
/// residual.
#[derive(Clone, Debug)]
pub struct ImageAttention {
    norm: GroupNorm,
    attention: Attention,
}

impl ImageAttention {
    /// Over images of so many channels.
    pub fn new(b: &mut Builder, channels: u64, how: How) -> Self {
        let norm = b.group_norm(channels);
        Self { norm, attention: Attention::new(b, channels, channels, 1, true, how) }
    }

    /// `attention(x) + x`, rescaled.
    pub fn forward(&self, t: &Torch, x: &Image) -> Image {
        let normed = self.norm.forward(t, x);
        let tokens = normed.tokens();
        let layers = &self.attention;
        let q = layers.to_q.forward_strided(t, &tokens);
        let k = layers.to_k.forward_strided(t, &tokens);
        let v = layers.to_v.forward_strided(t, &tokens);
        drop(tokens);
        let (mut out, kept) = if layers.how == How::Fused {
            let by_head = |x: &Tensor| layers.by_head(x);
            let out = t.efficient_attention(&by_head(&q), &by_head(&k), &by_head(&v));
            (out.shaped(q.shape()), vec![q, k, v])
        } else {
            let scores = Attention::scores(t, &q, &k, true);
            (t.matmul(&scores, &v, q.shape()), vec![q, k, v, scores])
        };
        out = layers.to_out.forward(t, &out);
        let mut image = Image::of_tokens(&out, x);
        drop(out);
        image = image.add(t, x);
        image = image.scale(t);
        drop(normed);
        kept.into_iter().for_each(drop);
        image
    }
}
