//! Numbers as models look at them: sines and cosines, and two layers over them.

use super::layers::{Builder, Linear};
use crate::workload::torch::{DType, Tensor, Torch};

/// An embedding of a number by two layers.
#[derive(Clone, Debug)]
pub struct Embed(Linear, Linear);

impl Embed {
    /// From so many numbers to so many.
    pub fn new(b: &mut Builder, inputs: u64, outputs: u64) -> Self {
        Self(b.linear(inputs, outputs, true), b.linear(outputs, outputs, true))
    }

    /// `embed(x)`.
    pub fn forward(&self, t: &Torch, x: &Tensor) -> Tensor {
        let mut h = self.0.forward(t, x);
        h = t.activation(&h);
        self.1.forward(t, &h)
    }
}

/// Sines and cosines of a number, `width` of them, for each of `rows`.
///
/// # Source
/// diffusers 0.42, `models/embeddings.py`, `get_timestep_embedding`.
pub fn sinusoids(t: &Torch, rows: u64, width: u64, dtype: DType) -> Tensor {
    let half = width / 2;
    let line = || t.empty(&[half], DType::F32);
    let of_rows = || t.empty(&[rows, half], DType::F32);
    let both = || t.empty(&[rows, width], DType::F32);
    let range = line();
    let mut exponent = line();
    drop(range);
    exponent = {
        let divided = line();
        drop(exponent);
        divided
    };
    let mut emb = line();
    emb = {
        let numbers = t.empty(&[rows], DType::F32);
        let products = of_rows();
        drop(numbers);
        drop(emb);
        products
    };
    emb = {
        let scaled = of_rows();
        drop(emb);
        scaled
    };
    emb = {
        let (sines, cosines) = (of_rows(), of_rows());
        let joined = both();
        drop(cosines);
        drop(sines);
        drop(emb);
        joined
    };
    emb = {
        let flipped = both();
        drop(emb);
        flipped
    };
    drop(exponent);
    t.to(&emb, dtype)
}
