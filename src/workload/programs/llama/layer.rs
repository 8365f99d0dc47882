//! One layer: attention with rotary positions, and a gated network, each behind a norm.

use super::projection::{Kind, Projection, brought};
use crate::workload::torch::{DType, Tensor, Torch};

/// `LlamaRMSNorm`: computed in float32.
#[derive(Clone, Debug)]
pub(super) struct RmsNorm {
    weight: Tensor,
}

impl RmsNorm {
    pub(super) fn new(t: &Torch, width: u64, dtype: DType, kind: Kind) -> Self {
        Self { weight: kind.tensor(t, &[width], dtype) }
    }

    pub(super) fn forward(&self, t: &Torch, x: &Tensor) -> Tensor {
        let weight = brought(t, &self.weight);
        let dtype = x.dtype();
        let mut hidden = t.to(x, DType::F32);
        let variance = {
            let square = t.square(&hidden);
            t.mean_of_rows(&square)
        };
        hidden = {
            let root = {
                let sum = t.add_number(&variance);
                t.rsqrt(&sum)
            };
            t.mul(&hidden, &root)
        };
        let out = {
            let narrow = t.to(&hidden, dtype);
            t.mul(&weight, &narrow)
        };
        drop(hidden);
        drop(variance);
        drop(weight);
        out
    }

    pub(super) fn trained(&self) -> Option<Tensor> {
        self.weight.requires_grad().then(|| self.weight.clone())
    }
}

/// What every layer is given besides the hidden states.
#[derive(Clone, Debug)]
pub(super) struct Context {
    /// `None`: the kernel knows that it is causal.
    pub(super) mask: Option<Tensor>,
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
    /// Positions of the tokens, which no layer looks at.
    pub(super) places: Tensor,
}

impl Context {
    /// The same on another device, where that is not where it is.
    pub(super) fn on(&self, t: &Torch, device: usize) -> Self {
        let mask = self.mask.as_ref().map(|mask| t.to_device(mask, device));
        let (cos, sin) = (t.to_device(&self.cos, device), t.to_device(&self.sin, device));
        Self { mask, cos, sin, places: t.to_device(&self.places, device) }
    }
}

/// The sides of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sides {
    pub(super) width: u64,
    pub(super) intermediate: u64,
    pub(super) heads: u64,
    pub(super) kv_heads: u64,
}

impl Sides {
    pub(super) fn head(self) -> u64 {
        self.width.checked_div(self.heads).unwrap_or(0)
    }
}

/// `LlamaDecoderLayer`.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    sides: Sides,
    /// `q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`, `up_proj`, `down_proj`.
    projections: [Projection; 7],
    norms: [RmsNorm; 2],
}

impl Layer {
    pub(super) fn new(t: &Torch, sides: Sides, dtype: DType, kind: Kind) -> Self {
        let (width, wide) = (sides.width, sides.intermediate);
        let kv = sides.kv_heads.saturating_mul(sides.head());
        let of = |inputs, outputs| Projection::new(t, inputs, outputs, dtype, kind);
        let projections = [
            of(width, width),
            of(width, kv),
            of(width, kv),
            of(width, width),
            of(width, wide),
            of(width, wide),
            of(wide, width),
        ];
        let norms = [RmsNorm::new(t, width, dtype, kind), RmsNorm::new(t, width, dtype, kind)];
        Self { sides, projections, norms }
    }

    pub(super) fn forward(&self, t: &Torch, x: &Tensor, context: &Context) -> Tensor {
        let mut hidden = self.norms[0].forward(t, x);
        hidden = self.attend(t, &hidden, context);
        let residual = t.add(x, &hidden);
        drop(hidden);
        let mut hidden = self.norms[1].forward(t, &residual);
        hidden = self.network(t, &hidden);
        let out = t.add(&residual, &hidden);
        drop(hidden);
        drop(residual);
        out
    }

    fn attend(&self, t: &Torch, x: &Tensor, context: &Context) -> Tensor {
        let [q_proj, k_proj, v_proj, o_proj, ..] = &self.projections;
        let (b, n, head) = (x.dim(0), x.dim(1), self.sides.head());
        let (heads, kv_heads) = (self.sides.heads, self.sides.kv_heads);
        let mut q = {
            let q = q_proj.forward(t, x);
            t.permuted(&q, &[b, heads, n, head])
        };
        let mut k = {
            let k = k_proj.forward(t, x);
            t.permuted(&k, &[b, kv_heads, n, head])
        };
        let repeated = context.mask.is_some() && kv_heads < heads;
        let v = {
            let v = v_proj.forward(t, x);
            let shape = [b, kv_heads, n, head];
            // Only the sum over repeated heads comes back in the order of the heads.
            if repeated { t.permuted(&v, &shape) } else { t.view(&v, &shape) }
        };
        let rotated = (rotated(t, &q, context), rotated(t, &k, context));
        (q, k) = rotated;
        let mut out = {
            let (q, k, v) = (t.cast_input(&q), t.cast_input(&k), t.cast_input(&v));
            let out = match &context.mask {
                None => t.grouped_attention(&q, &k, &v),
                Some(mask) => {
                    let shape = [b, heads, n, head];
                    let repeat =
                        |x: &Tensor| if repeated { t.repeat(x, &shape) } else { x.clone() };
                    let (k, v) = (repeat(&k), repeat(&v));
                    let out = t.masked_attention(&q, &k, &v, mask);
                    drop(k);
                    drop(v);
                    out
                }
            };
            t.view(&out, &[b, n, self.sides.width])
        };
        out = o_proj.forward(t, &out);
        drop(q);
        drop(k);
        drop(v);
        out
    }

    fn network(&self, t: &Torch, x: &Tensor) -> Tensor {
        let [.., gate_proj, up_proj, down_proj] = &self.projections;
        let product = {
            let gate = {
                let gate = gate_proj.forward(t, x);
                t.activation(&gate)
            };
            let up = up_proj.forward(t, x);
            let product = t.mul(&gate, &up);
            drop(gate);
            drop(up);
            product
        };
        down_proj.forward(t, &product)
    }

    pub(super) fn adapt(&mut self, t: &Torch, rank: u64, is_target: impl Fn(usize) -> bool) {
        for (i, projection) in self.projections.iter_mut().enumerate() {
            if is_target(i) {
                projection.adapt(t, rank);
            }
        }
    }

    pub(super) fn widen_adapters(&mut self, t: &Torch) {
        for projection in &mut self.projections {
            projection.widen_adapter(t);
        }
    }

    pub(super) fn trained(&self) -> impl Iterator<Item = Tensor> {
        let projections = self.projections.iter().flat_map(Projection::trained);
        projections.chain(self.norms.iter().filter_map(RmsNorm::trained))
    }
}

/// `apply_rotary_pos_emb` on one of the two.
fn rotated(t: &Torch, x: &Tensor, context: &Context) -> Tensor {
    let straight = t.mul(x, &context.cos);
    let crossed = {
        let half = {
            let mut shape = x.shape().to_vec();
            if let Some(last) = shape.last_mut() {
                *last /= 2;
            }
            let (first, second) = (t.slice(x, &shape), t.slice(x, &shape));
            let negative = t.scale(&second);
            t.cat(&[&negative, &first], x.shape())
        };
        t.mul(&half, &context.sin)
    };
    let out = t.add(&straight, &crossed);
    drop(straight);
    drop(crossed);
    out
}
