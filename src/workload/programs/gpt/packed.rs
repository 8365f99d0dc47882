//! A model whose matrices in the blocks are packed into few bits.

use std::rc::Rc;

use super::{Block, Gpt, Shape};
use crate::workload::torch::{
    Torch,
    nn::{LayerNorm, Linear},
};

impl Gpt {
    /// Packs the matrices of the blocks, one after the other, on the device.
    pub fn pack(&mut self, t: &Torch, bits: u64) {
        let mut blocks = self.blocks.to_vec();
        self.blocks = Rc::new([]);
        for block in &mut blocks {
            for linear in [&mut block.qkv, &mut block.proj, &mut block.fc, &mut block.out] {
                linear.pack(t, bits);
            }
        }
        self.blocks = blocks.into();
    }

    /// A model whose matrices arrive packed.
    pub fn new_packed(t: &Torch, shape: Shape, bits: u64) -> Self {
        let Shape { width, vocab, context, dtype, .. } = shape;
        let tok = t.parameter(&[vocab, width], dtype);
        let pos = t.parameter(&[context, width], dtype);
        let blocks = (0..shape.layers).map(|_| Block::new_packed(t, shape, bits)).collect();
        let norm = LayerNorm::new(t, width, dtype);
        Self { tok, pos, blocks, norm, head: None, shape }
    }
}

impl Block {
    fn new_packed(t: &Torch, shape: Shape, bits: u64) -> Self {
        let Shape { width, dtype, .. } = shape;
        let norms = [LayerNorm::new(t, width, dtype), LayerNorm::new(t, width, dtype)];
        let packed = |inputs, outputs| Linear::new_packed(t, inputs, outputs, dtype, bits);
        let (qkv, proj) = (packed(width, 3 * width), packed(width, width));
        let (fc, out) = (packed(width, 4 * width), packed(4 * width, width));
        Self { norms, qkv, proj, fc, out, shape }
    }
}
