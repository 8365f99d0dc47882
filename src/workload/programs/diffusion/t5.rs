//! T5's encoder, the second text encoder of Flux.

use super::layers::{Builder, Embedding, Linear, Model, RmsNorm};
use crate::workload::torch::{Cudnn, DType, Tensor, Torch};

const LAYERS: u64 = 24;
const WIDTH: u64 = 4096;
const HEADS: u64 = 64;
const NETWORK: u64 = 10_240;
const VOCABULARY: u64 = 32_128;
/// Classes of distances between two tokens.
const DISTANCES: u64 = 32;

#[derive(Clone, Debug)]
struct Layer {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    /// In the first layer alone.
    distances: Option<Embedding>,
    norm1: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
    norm2: RmsNorm,
}

/// `T5EncoderModel` of T5 v1.1 XXL.
#[derive(Debug)]
pub struct T5 {
    tokens: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
}

impl T5 {
    /// The encoder, and its weights.
    pub fn new(dtype: DType, cudnn: Cudnn) -> (Self, Model) {
        let mut b = Builder::new(dtype, cudnn);
        let tokens = b.embedding(VOCABULARY, WIDTH);
        let layer = |b: &mut Builder, first: bool| Layer {
            q: b.linear(WIDTH, WIDTH, false),
            k: b.linear(WIDTH, WIDTH, false),
            v: b.linear(WIDTH, WIDTH, false),
            out: b.linear(WIDTH, WIDTH, false),
            distances: first.then(|| b.embedding(DISTANCES, HEADS)),
            norm1: b.rms_norm(WIDTH),
            gate: b.linear(WIDTH, NETWORK, false),
            up: b.linear(WIDTH, NETWORK, false),
            down: b.linear(NETWORK, WIDTH, false),
            norm2: b.rms_norm(WIDTH),
        };
        let layers = (0..LAYERS).map(|i| layer(&mut b, i == 0)).collect();
        let norm = b.rms_norm(WIDTH);
        (Self { tokens, layers, norm }, b.finish())
    }

    /// The tokens' embeddings.
    ///
    /// # Source
    /// transformers 5.23, `models/t5/modeling_t5.py`, with fused attention.
    pub fn forward(&self, t: &Torch, ids: &Tensor) -> Tensor {
        let mut h = self.tokens.forward(t, ids);
        let mut bias = None;
        for layer in &self.layers {
            h = {
                let normed = layer.norm1.forward_by_steps(t, &h);
                let attended = Self::attend(t, layer, &normed, &mut bias);
                let sum = t.add(&h, &attended);
                drop((normed, attended));
                sum
            };
            h = {
                let normed = layer.norm2.forward_by_steps(t, &h);
                let network = {
                    let gate = {
                        let gate = layer.gate.forward(t, &normed);
                        t.activation(&gate)
                    };
                    let up = layer.up.forward(t, &normed);
                    let product = t.mul(&gate, &up);
                    let out = layer.down.forward(t, &product);
                    drop((product, gate, up));
                    out
                };
                let sum = t.add(&h, &network);
                drop((normed, network));
                sum
            };
        }
        self.norm.forward_by_steps(t, &h)
    }

    fn attend(t: &Torch, layer: &Layer, x: &Tensor, bias: &mut Option<Tensor>) -> Tensor {
        let n = x.dim(1);
        let by_head = |x: &Tensor| x.shaped(&[x.dim(0), HEADS, n, WIDTH / HEADS]);
        let q = layer.q.forward(t, x);
        let k = layer.k.forward(t, x);
        let v = layer.v.forward(t, x);
        if let (None, Some(distances)) = (&bias, &layer.distances) {
            let buckets = t.empty(&[n, n], DType::I64);
            *bias = Some(distances.forward(t, &buckets));
        }
        let mut out = t.efficient_attention(&by_head(&q), &by_head(&k), &by_head(&v));
        out = out.shaped(x.shape());
        out = layer.out.forward(t, &out);
        drop((q, k, v));
        out
    }
}
