//! The model, as `nn.Module`s would hold it.

use std::rc::Rc;

use super::attention::Attention;
use crate::workload::torch::{
    DType, Tensor, Torch,
    nn::{LayerNorm, Linear},
};

/// What a model is made of.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Blocks.
    pub layers: u64,
    /// Width, in numbers.
    pub width: u64,
    /// Attention heads.
    pub heads: u64,
    /// Tokens in the vocabulary.
    pub vocab: u64,
    /// Longest sequence.
    pub context: u64,
    /// The type of the weights.
    pub dtype: DType,
    /// How attention is computed.
    pub attention: Attention,
    /// Pairs of sequence and head at a time, if it is sliced.
    pub slice: u64,
    /// Whether dropout drops anything in training.
    pub dropout: bool,
    /// Whether the head is the embedding again.
    pub tied: bool,
    /// Whether a head of its own is made before it is tied, as `nn.Linear` does.
    pub spare_head: bool,
    /// Devices, each with its part of the blocks; the last has the norm and the head.
    pub devices: usize,
    /// What is checkpointed.
    pub checkpoint: Pieces,
}

/// What is checkpointed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pieces {
    /// Nothing.
    None,
    /// Each block.
    Blocks,
    /// So many pieces of equal length; the last, with the remainder, is not
    /// (`checkpoint_sequential`).
    Sequential(usize),
    /// So many pieces of nearly the same length, all of them.
    Even(usize),
}

/// A block: attention and a two-layer network, each behind a norm and beside a residual.
#[derive(Clone, Debug)]
pub struct Block {
    pub(super) norms: [LayerNorm; 2],
    pub(super) qkv: Linear,
    pub(super) proj: Linear,
    pub(super) fc: Linear,
    pub(super) out: Linear,
    pub(super) shape: Shape,
}

impl Block {
    /// A block of a model.
    pub fn new(t: &Torch, shape: Shape) -> Self {
        let Shape { width, dtype, .. } = shape;
        let norms = [LayerNorm::new(t, width, dtype), LayerNorm::new(t, width, dtype)];
        Self {
            norms,
            qkv: Linear::new(t, width, 3 * width, true, dtype),
            proj: Linear::new(t, width, width, true, dtype),
            fc: Linear::new(t, width, 4 * width, true, dtype),
            out: Linear::new(t, 4 * width, width, true, dtype),
            shape,
        }
    }

    /// `x + attention(norm(x))`, then `x + network(norm(x))`.
    pub fn forward(&self, t: &Torch, x: &Tensor, training: bool) -> Tensor {
        let (b, n, d) = (x.dim(0), x.dim(1), x.dim(2));
        let Shape { heads, attention, slice, .. } = self.shape;
        let head = [b, heads, n, d / heads];
        let mut parts = {
            let qkv = {
                let normed = self.norms[0].forward(t, x);
                self.qkv.forward(t, &normed)
            };
            let qkv = t.permuted(&qkv, &[3, b, heads, n, d / heads]);
            t.unbind(&qkv, 3, &head).into_iter()
        };
        let (Some(q), Some(k), Some(v)) = (parts.next(), parts.next(), parts.next()) else {
            return x.clone();
        };
        let a = attention.attend(t, &q, &k, &v, slice);
        let sum = {
            let y = {
                let joined = if attention.joins_heads() || heads == 1 || n == 1 {
                    t.view(&a, &[b, n, d])
                } else {
                    let copy = t.copy(&a);
                    t.view(&copy, &[b, n, d])
                };
                self.proj.forward(t, &joined)
            };
            let y = self.drop_some(t, y, training);
            t.add(x, &y)
        };
        let y = {
            let h = {
                let normed = self.norms[1].forward(t, &sum);
                self.fc.forward(t, &normed)
            };
            let g = t.activation(&h);
            drop(h);
            self.out.forward(t, &g)
        };
        let y = self.drop_some(t, y, training);
        let out = t.add(&sum, &y);
        drop(y);
        drop(sum);
        drop((q, k, v, a));
        out
    }

    fn drop_some(&self, t: &Torch, y: Tensor, training: bool) -> Tensor {
        if self.shape.dropout && training { t.dropout(&y) } else { y }
    }

    /// Its weights, in PyTorch's order.
    pub fn parameters(&self) -> Vec<Tensor> {
        let norms = self.norms.iter().flat_map(LayerNorm::parameters);
        let linears = [&self.qkv, &self.proj, &self.fc, &self.out];
        norms.chain(linears.into_iter().flat_map(Linear::parameters)).collect()
    }
}

/// Embeddings, blocks, a norm, and a head.
#[derive(Clone, Debug)]
pub struct Gpt {
    pub(super) tok: Tensor,
    pub(super) pos: Tensor,
    pub(super) blocks: Rc<[Block]>,
    pub(super) norm: LayerNorm,
    pub(super) head: Option<Tensor>,
    pub(super) shape: Shape,
}

impl Gpt {
    /// A model on its devices.
    pub fn new(t: &Torch, shape: Shape) -> Self {
        let Shape { width, vocab, context, dtype, .. } = shape;
        let tok = t.parameter(&[vocab, width], dtype);
        let pos = t.parameter(&[context, width], dtype);
        let block = |i| t.on_device(shape.device_of(i), || Block::new(t, shape));
        let blocks = (0..shape.layers).map(block).collect();
        let (norm, head) = t.on_device(shape.last_device(), || {
            let norm = LayerNorm::new(t, width, dtype);
            if shape.spare_head {
                drop(t.parameter(&[vocab, width], dtype));
            }
            (norm, (!shape.tied).then(|| t.parameter(&[vocab, width], dtype)))
        });
        Self { tok, pos, blocks, norm, head, shape }
    }

    /// Logits of token ids `[batch, tokens]`.
    pub fn forward(&self, t: &Torch, ids: &Tensor, training: bool) -> Tensor {
        let x = self.embed(t, ids);
        let x = self.run_blocks(t, x, training);
        t.on_device(self.shape.last_device(), || {
            let normed = self.norm.forward(t, &x);
            let logits = t.linear(&normed, self.head.as_ref().unwrap_or(&self.tok), None);
            drop(normed);
            drop(x);
            logits
        })
    }

    pub(super) fn embed(&self, t: &Torch, ids: &Tensor) -> Tensor {
        let tok = t.embedding(ids, &self.tok);
        let places = t.input(&[ids.dim(1)], DType::I64);
        let pos = t.embedding(&places, &self.pos);
        drop(places);
        let x = t.add(&tok, &pos);
        drop(tok);
        drop(pos);
        x
    }

    fn run_blocks(&self, t: &Torch, mut x: Tensor, training: bool) -> Tensor {
        let n = self.blocks.len();
        match self.shape.checkpoint {
            Pieces::None => {
                for (i, block) in (0..).zip(self.blocks.iter()) {
                    if t.check().is_err() {
                        break; // the rest would not be recorded
                    }
                    let device = self.shape.device_of(i);
                    x = t.to_device(&x, device);
                    x = t.on_device(device, || block.forward(t, &x, training));
                }
            }
            Pieces::Blocks => x = self.pieces(t, x, (0..n).map(|i| (i, i + 1)), training),
            Pieces::Sequential(k) => {
                let size = (n / k.max(1)).max(1);
                let last = size * (n / size).min(k).saturating_sub(1);
                let pieces = (0..last).step_by(size).map(|i| (i, i + size));
                x = self.pieces(t, x, pieces, training);
                for block in &self.blocks[last..] {
                    x = block.forward(t, &x, training);
                }
            }
            Pieces::Even(k) => {
                let k = k.clamp(1, n.max(1));
                x = self.pieces(t, x, (0..k).map(|i| (i * n / k, (i + 1) * n / k)), training);
            }
        }
        x
    }

    /// Runs these pieces of the blocks, each checkpointed.
    fn pieces(
        &self,
        t: &Torch,
        mut x: Tensor,
        pieces: impl Iterator<Item = (usize, usize)>,
        training: bool,
    ) -> Tensor {
        for (from, to) in pieces {
            let blocks = Rc::clone(&self.blocks);
            x = t.checkpoint(&[x], move |t, inputs| {
                let Some(x) = inputs.first() else { return t.empty(&[], DType::F32) };
                let mut x = x.clone();
                for block in &blocks[from..to] {
                    x = block.forward(t, &x, training);
                }
                x
            });
        }
        x
    }

    /// Its weights, in PyTorch's order.
    pub fn parameters(&self) -> Vec<Tensor> {
        let blocks = self.blocks.iter().flat_map(Block::parameters);
        [self.tok.clone(), self.pos.clone()]
            .into_iter()
            .chain(blocks)
            .chain(self.norm.parameters())
            .chain(self.head.clone())
            .collect()
    }

    /// The loss of predicting each next token; logits are made float32 for it. They are put into the
    /// variable `kept`, which lets go of what was there.
    pub fn loss(
        &self,
        t: &Torch,
        ids: &Tensor,
        autocast: Option<DType>,
        training: bool,
        kept: &mut Option<Tensor>,
    ) -> Tensor {
        t.autocast(autocast, || {
            let logits = self.forward(t, ids, training);
            drop(kept.replace(logits.clone()));
            t.on_device(self.shape.last_device(), || {
                let wide = shifted(t, &logits);
                let target = self.target(t, ids);
                t.cross_entropy(&wide, &target)
            })
        })
    }

    /// `ids[:, 1:].reshape(-1)`, where the logits are.
    fn target(&self, t: &Torch, ids: &Tensor) -> Tensor {
        let (b, n) = (ids.dim(0), ids.dim(1));
        let flat = ids.shaped(&[b * (n - 1)]);
        let from = ids.device().unwrap_or(0);
        let flat =
            if b > 1 { t.on_device(from, || t.input(&[b * (n - 1)], DType::I64)) } else { flat };
        t.to_device(&flat, self.shape.last_device())
    }
}

/// `logits[:, :-1].float().reshape(-1, vocab)`.
fn shifted(t: &Torch, logits: &Tensor) -> Tensor {
    let (b, n, v) = (logits.dim(0), logits.dim(1), logits.dim(2));
    let wide = {
        let shifted = t.slice(logits, &[b, n - 1, v]);
        if shifted.dtype() != DType::F32 {
            t.to(&shifted, DType::F32)
        } else if b > 1 {
            t.copy(&shifted)
        } else {
            shifted
        }
    };
    t.view(&wide, &[b * (n - 1), v])
}

impl Shape {
    /// The device of a block.
    fn device_of(&self, block: u64) -> usize {
        // The last has the remainder.
        let part = (self.layers / u64::try_from(self.devices).unwrap_or(1).max(1)).max(1);
        usize::try_from(block / part).unwrap_or(0).min(self.last_device())
    }

    fn last_device(&self) -> usize {
        self.devices.saturating_sub(1)
    }
}
