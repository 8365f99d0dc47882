//! CLIP's text encoder.

use super::layers::{Builder, Embedding, LayerNorm, Linear, Model};
use crate::workload::torch::{Cudnn, DType, Tensor, Torch};

/// Tokens of a prompt.
pub const TOKENS: u64 = 77;
const VOCABULARY: u64 = 49_408;

/// Sizes of a text encoder.
#[derive(Clone, Copy, Debug)]
pub struct ClipConfig {
    /// Layers.
    pub layers: u64,
    /// Width.
    pub width: u64,
    /// Heads.
    pub heads: u64,
    /// `quick_gelu`, by three operators; else `gelu`.
    pub quick: bool,
    /// Width of the pooled result's projection, if there is one.
    pub projection: Option<u64>,
    /// Whether the results of all layers are kept until the end (`output_hidden_states=True`).
    pub keep_all: bool,
}

#[derive(Clone, Debug)]
struct Layer {
    k: Linear,
    v: Linear,
    q: Linear,
    out: Linear,
    norm1: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    norm2: LayerNorm,
}

/// `CLIPTextModel` and `CLIPTextModelWithProjection`.
#[derive(Debug)]
pub struct Clip {
    config: ClipConfig,
    tokens: Embedding,
    places: Embedding,
    layers: Vec<Layer>,
    norm: LayerNorm,
    projection: Option<Linear>,
}

impl Clip {
    /// A text encoder of these sizes, and its weights.
    pub fn new(config: ClipConfig, dtype: DType, cudnn: Cudnn) -> (Self, Model) {
        let width = config.width;
        let mut b = Builder::new(dtype, cudnn);
        let tokens = b.embedding(VOCABULARY, width);
        let places = b.embedding(TOKENS, width);
        b.places(TOKENS);
        let layer = |b: &mut Builder| Layer {
            k: b.linear(width, width, true),
            v: b.linear(width, width, true),
            q: b.linear(width, width, true),
            out: b.linear(width, width, true),
            norm1: b.layer_norm(width),
            fc1: b.linear(width, 4 * width, true),
            fc2: b.linear(4 * width, width, true),
            norm2: b.layer_norm(width),
        };
        let layers = (0..config.layers).map(|_| layer(&mut b)).collect();
        let norm = b.layer_norm(width);
        let projection = config.projection.map(|outputs| b.linear(width, outputs, false));
        (Self { config, tokens, places, layers, norm, projection }, b.finish())
    }

    /// The tokens' embeddings, and the pooled one.
    ///
    /// # Source
    /// transformers 5.23, `models/clip/modeling_clip.py`; `scenarios/diffusion_512_n1`: entries 1247 to
    /// 2042.
    pub fn forward(&self, t: &Torch, ids: &Tensor) -> (Tensor, Tensor) {
        let embedded = {
            let tokens = self.tokens.forward(t, ids);
            let places = self.places.forward(t, &ids.shaped(&[1, TOKENS]));
            let sum = t.add(&tokens, &places);
            drop(tokens);
            drop(places);
            sum
        };
        let mut kept = Vec::new();
        let mut h = embedded.clone();
        for layer in &self.layers {
            if self.config.keep_all {
                kept.push(h.clone());
            }
            h = self.layer(t, layer, &h);
        }
        let last = self.norm.forward(t, &h, false);
        let pooled = {
            let n = ids.dim(0);
            let rows = t.empty(&[n], DType::I64);
            let ends = {
                let mut ends = t.empty(ids.shape(), DType::I32);
                for dtype in [DType::Bool, DType::I32] {
                    ends = t.empty_of(&ends, dtype);
                }
                let at = t.empty(&[n], DType::I64);
                drop(ends);
                at
            };
            let pooled = t.empty(&[n, self.config.width], last.dtype());
            drop(ends);
            drop(rows);
            pooled
        };
        drop(embedded);
        let pooled = match &self.projection {
            Some(projection) => projection.forward(t, &pooled),
            None => pooled,
        };
        // Stable Diffusion XL takes the last layer's input, without the norm.
        let result = if self.config.keep_all { kept.pop().unwrap_or(last) } else { last };
        drop(h);
        kept.into_iter().for_each(drop);
        (result, pooled)
    }

    fn layer(&self, t: &Torch, layer: &Layer, x: &Tensor) -> Tensor {
        let mut h = layer.norm1.forward(t, x, false);
        h = {
            let q = layer.q.forward(t, &h);
            let k = layer.k.forward(t, &h);
            let v = layer.v.forward(t, &h);
            let (n, width) = (x.dim(1), self.config.width);
            let head = width.checked_div(self.config.heads).unwrap_or(0);
            let by_head = |x: &Tensor| x.shaped(&[x.dim(0), self.config.heads, n, head]);
            let mut out = t.flash_attention(&by_head(&q), &by_head(&k), &by_head(&v));
            out = out.shaped(x.shape());
            out = layer.out.forward(t, &out);
            drop((q, k, v));
            out
        };
        h = t.add(x, &h);
        let residual = h.clone();
        h = layer.norm2.forward(t, &h, false);
        h = self.network(t, layer, &h);
        h = t.add(&residual, &h);
        drop(residual);
        h
    }

    fn network(&self, t: &Torch, layer: &Layer, x: &Tensor) -> Tensor {
        let mut h = layer.fc1.forward(t, x);
        h = if self.config.quick {
            let gate = {
                let scaled = t.scale(&h);
                t.activation(&scaled)
            };
            t.mul(&h, &gate)
        } else {
            t.activation(&h)
        };
        layer.fc2.forward(t, &h)
    }
}
