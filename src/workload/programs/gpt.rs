//! A GPT-like transformer, as `nn.Module`s would hold it.

use super::{Preset, Workload};
use crate::workload::{
    WorkloadError,
    parameter::{choice, in_range, parameters},
    torch::{
        DType, Optimizer, Tensor, Torch,
        nn::{LayerNorm, Linear},
        optim::{Adam, AdamKind},
    },
};

/// A block: attention and a two-layer network, each behind a norm and beside a residual.
#[derive(Clone, Debug)]
pub struct Block {
    norms: [LayerNorm; 2],
    qkv: Linear,
    proj: Linear,
    fc: Linear,
    out: Linear,
    heads: u64,
}

impl Block {
    /// A block of this width.
    pub fn new(t: &Torch, width: u64, heads: u64, dtype: DType) -> Self {
        let norms = [LayerNorm::new(t, width, dtype), LayerNorm::new(t, width, dtype)];
        Self {
            norms,
            qkv: Linear::new(t, width, 3 * width, true, dtype),
            proj: Linear::new(t, width, width, true, dtype),
            fc: Linear::new(t, width, 4 * width, true, dtype),
            out: Linear::new(t, 4 * width, width, true, dtype),
            heads,
        }
    }

    /// `x + attention(norm(x))`, then `x + network(norm(x))`.
    pub fn forward(&self, t: &Torch, x: Tensor) -> Tensor {
        let a = self.attend(t, &x);
        let sum = {
            let y = self.proj.forward(t, &a);
            t.add(&x, &y)
        };
        drop(x);
        let y = {
            let h = {
                let normed = self.norms[1].forward(t, &sum);
                self.fc.forward(t, &normed)
            };
            let g = t.activation(&h);
            drop(h);
            self.out.forward(t, &g)
        };
        let out = t.add(&sum, &y);
        drop((y, sum, a));
        out
    }

    fn attend(&self, t: &Torch, x: &Tensor) -> Tensor {
        let (b, n, d) = (x.dim(0), x.dim(1), x.dim(2));
        let e = d / self.heads;
        let qkv = {
            let normed = self.norms[0].forward(t, x);
            self.qkv.forward(t, &normed)
        };
        let qkv = t.permuted(&qkv, &[3, b, self.heads, n, e]);
        let mut parts = t.unbind(&qkv, 3, &[b, self.heads, n, e]).into_iter();
        let (Some(q), Some(k), Some(v)) = (parts.next(), parts.next(), parts.next()) else {
            return qkv;
        };
        drop(qkv);
        let a = t.flash_attention(&q, &k, &v);
        t.view(&a, &[b, n, d])
    }

    /// Its weights, in PyTorch's order.
    pub fn parameters(&self) -> Vec<Tensor> {
        let norms = self.norms.iter().flat_map(LayerNorm::parameters);
        let linears = [&self.qkv, &self.proj, &self.fc, &self.out];
        norms.chain(linears.into_iter().flat_map(Linear::parameters)).collect()
    }
}

/// Embeddings, blocks, a norm, and a head that is the embedding again.
#[derive(Clone, Debug)]
pub struct Gpt {
    tok: Tensor,
    pos: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl Gpt {
    /// A model on the device.
    pub fn new(t: &Torch, layers: u64, width: u64, heads: u64, vocab: u64, context: u64) -> Self {
        let dtype = DType::F32;
        let tok = t.parameter(&[vocab, width], dtype);
        let pos = t.parameter(&[context, width], dtype);
        let blocks = (0..layers).map(|_| Block::new(t, width, heads, dtype)).collect();
        let norm = LayerNorm::new(t, width, dtype);
        drop(t.parameter(&[vocab, width], dtype)); // the head, before it is tied
        Self { tok, pos, blocks, norm }
    }

    /// Logits of token ids `[batch, tokens]`.
    pub fn forward(&self, t: &Torch, ids: &Tensor) -> Tensor {
        let mut x = {
            let tok = t.embedding(ids, &self.tok);
            let places = t.input(&[ids.dim(1)], DType::I64);
            let pos = t.embedding(&places, &self.pos);
            drop(places);
            let x = t.add(&tok, &pos);
            drop(tok);
            drop(pos);
            x
        };
        for block in &self.blocks {
            x = block.forward(t, x);
        }
        let normed = self.norm.forward(t, &x);
        t.linear(&normed, &self.tok, None)
    }

    /// Its weights, in PyTorch's order.
    pub fn parameters(&self) -> Vec<Tensor> {
        let blocks = self.blocks.iter().flat_map(Block::parameters);
        [self.tok.clone(), self.pos.clone()]
            .into_iter()
            .chain(blocks)
            .chain(self.norm.parameters())
            .collect()
    }

    /// The loss of predicting each next token; logits are made float32 for it.
    pub fn loss(&self, t: &Torch, ids: &Tensor, autocast: Option<DType>) -> Tensor {
        let mut kept = None;
        let loss = t.autocast(autocast, || {
            let logits = self.forward(t, ids);
            let (b, n, v) = (logits.dim(0), logits.dim(1), logits.dim(2));
            let wide = {
                let shifted = t.slice(&logits, &[b, n - 1, v]);
                if shifted.dtype() == DType::F32 {
                    t.copy(&shifted)
                } else {
                    t.to(&shifted, DType::F32)
                }
            };
            kept = Some(logits);
            let target = t.input(&[b * (n - 1)], DType::I64);
            let wide = t.view(&wide, &[b * (n - 1), v]);
            t.cross_entropy(&wide, &target)
        });
        drop(kept);
        loss
    }
}

choice! {
    /// Mixed precision.
    pub enum Precision {
        /// Everything in float32.
        Full = "fp32",
        /// Products in bfloat16.
        Bf16 = "bf16",
        /// Products in float16.
        Fp16 = "fp16",
    }
}

parameters! {
    /// Training of a GPT-like model.
    pub struct Train {
        /// Blocks.
        layers: u64 = 12;
        /// Width of the model, in numbers.
        width: u64 = 768;
        /// Attention heads; they divide the width.
        heads: u64 = 12;
        /// Tokens in the vocabulary.
        vocab: u64 = 50257;
        /// Longest sequence that the model knows, in tokens.
        context: u64 = 4096;
        /// Sequences in a batch.
        batch: u64 = 8;
        /// Tokens in a sequence.
        seq: u64 = 512;
        /// Training steps.
        steps: u64 = 3;
        /// Mixed precision by autocast.
        autocast: Precision = Precision::Bf16;
    }
}

/// Well-known sizes.
pub(super) const PRESETS: &[Preset] = &[Preset { name: "gpt2-small", values: &[] }];

impl Workload for Train {
    fn check(&self) -> Result<(), WorkloadError> {
        in_range("layers", self.layers, 1..=1000)?;
        in_range("heads", self.heads, 1..=1024)?;
        if !self.width.is_multiple_of(self.heads) {
            let message = format!("{} heads do not divide a width of {}", self.heads, self.width);
            return Err(WorkloadError::parameter("heads", message));
        }
        in_range("seq", self.seq, 2..=self.context)
    }

    fn run(&self, t: &Torch) -> Result<(), WorkloadError> {
        let model = Gpt::new(t, self.layers, self.width, self.heads, self.vocab, self.context);
        let mut opt = Adam::new(model.parameters(), AdamKind::Foreach);
        let autocast = match self.autocast {
            Precision::Full => None,
            Precision::Bf16 => Some(DType::BF16),
            Precision::Fp16 => Some(DType::F16),
        };
        let mut last = None;
        for _ in 0..self.steps {
            let loss = {
                let ids = t.input(&[self.batch, self.seq], DType::I64);
                model.loss(t, &ids, autocast)
            };
            drop(last.take());
            opt.zero_grad();
            t.backward(&loss);
            opt.step(t);
            last = Some(loss);
            t.mark("step");
            t.check()?;
        }
        Ok(())
    }
}
