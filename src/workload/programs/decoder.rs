//! A decoder over a list of weights, for programs that hold the weights elsewhere: in flat shards, or
//! once for many graphs.

use crate::workload::torch::{DType, Tensor, Torch};

/// Sizes of a model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) layers: u64,
    pub(super) width: u64,
    pub(super) heads: u64,
    pub(super) vocab: u64,
    pub(super) context: u64,
}

/// Shapes of the weights of a block, in PyTorch's order: two norms, queries with keys and values,
/// projection, and the two layers of the network, each with a bias.
pub(super) fn block_shapes(width: u64) -> [Vec<u64>; 12] {
    let d = width;
    [
        vec![d],
        vec![d],
        vec![d],
        vec![d],
        vec![3 * d, d],
        vec![3 * d],
        vec![d, d],
        vec![d],
        vec![4 * d, d],
        vec![4 * d],
        vec![d, 4 * d],
        vec![d],
    ]
}

/// Numbers in a block.
pub(super) fn block_numel(width: u64) -> u64 {
    let numel = |shape: Vec<u64>| shape.into_iter().product::<u64>();
    block_shapes(width).into_iter().map(numel).sum()
}

/// `x + attention(norm(x))`, then `x + network(norm(x))`, with weights as [`block_shapes`] lists them.
pub(super) fn block_forward(t: &Torch, weights: &[Tensor; 12], heads: u64, x: Tensor) -> Tensor {
    let [n1, n1b, n2, n2b, qkv, qkvb, proj, projb, fc, fcb, out, outb] = weights;
    let (b, n, d) = (x.dim(0), x.dim(1), x.dim(2));
    let e = d / heads;
    let parts = {
        let packed = {
            let normed = t.layer_norm(&x, n1, n1b);
            t.linear(&normed, qkv, Some(qkvb))
        };
        t.unbind(&t.permuted(&packed, &[3, b, heads, n, e]), 3, &[b, heads, n, e])
    };
    let [q, k, v] = parts.as_slice() else { return x };
    let a = t.flash_attention(q, k, v);
    let sum = {
        let y = t.linear(&t.view(&a, &[b, n, d]), proj, Some(projb));
        t.add(&x, &y)
    };
    drop(x);
    let y = {
        let h = {
            let normed = t.layer_norm(&sum, n2, n2b);
            t.linear(&normed, fc, Some(fcb))
        };
        let g = t.activation(&h);
        drop(h);
        t.linear(&g, out, Some(outb))
    };
    let result = t.add(&sum, &y);
    drop((y, sum, parts, a));
    result
}

/// Embeddings, blocks, a norm, and a head that is the embedding again.
#[derive(Debug)]
pub(super) struct Decoder {
    pos: Tensor,
    blocks: Vec<[Tensor; 12]>,
    norm: [Tensor; 2],
    heads: u64,
    /// The head looks at it, too, and goes last.
    tok: Tensor,
}

impl Decoder {
    /// A model on the device.
    pub(super) fn new(t: &Torch, sizes: Sizes, dtype: DType) -> Self {
        let Sizes { layers, width, heads, vocab, context } = sizes;
        let weight = |shape: &[u64]| t.parameter(shape, dtype);
        let tok = weight(&[vocab, width]);
        let pos = weight(&[context, width]);
        let block = |_| block_shapes(width).map(|shape| weight(&shape));
        let blocks = (0..layers).map(block).collect();
        let norm = [weight(&[width]), weight(&[width])];
        drop(weight(&[vocab, width])); // the head, before it is tied
        Self { pos, blocks, norm, heads, tok }
    }

    /// What the first `blocks` blocks make of token ids `[batch, tokens]`.
    pub(super) fn forward_until(&self, t: &Torch, ids: &Tensor, blocks: u64) -> Tensor {
        let mut x = {
            let tok = t.embedding(ids, &self.tok);
            let places = t.input(&[ids.dim(1)], DType::I64);
            let pos = t.embedding(&places, &self.pos);
            drop(places);
            let x = t.add(&tok, &pos);
            drop(tok);
            x
        };
        let blocks = usize::try_from(blocks).unwrap_or(usize::MAX);
        for block in self.blocks.iter().take(blocks) {
            x = block_forward(t, block, self.heads, x.clone());
        }
        x
    }

    /// Logits of token ids `[batch, tokens]`.
    pub(super) fn forward(&self, t: &Torch, ids: &Tensor) -> Tensor {
        let x = self.forward_until(t, ids, u64::MAX);
        let normed = t.layer_norm(&x, &self.norm[0], &self.norm[1]);
        let logits = t.linear(&normed, &self.tok, None);
        drop((normed, x));
        logits
    }

    /// The loss of predicting each next token; logits are made float32 for it.
    pub(super) fn loss(&self, t: &Torch, logits: &Tensor) -> Tensor {
        let (b, n, v) = (logits.dim(0), logits.dim(1), logits.dim(2));
        let wide = {
            let shifted = t.slice(logits, &[b, n - 1, v]);
            t.to(&shifted, DType::F32)
        };
        let target = t.input(&[b * (n - 1)], DType::I64);
        let wide = t.view(&wide, &[b * (n - 1), v]);
        t.cross_entropy(&wide, &target)
    }

    /// Its weights, in PyTorch's order.
    pub(super) fn parameters(&self) -> Vec<Tensor> {
        let blocks = self.blocks.iter().flatten();
        [&self.tok, &self.pos].into_iter().chain(blocks).chain(&self.norm).cloned().collect()
    }
}
