//! Layers: weights in the order in which PyTorch makes them.

use super::{DType, Tensor, Torch};

/// `nn.Linear`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[outputs, inputs]`.
    pub weight: Tensor,
    /// `[outputs]`.
    pub bias: Option<Tensor>,
}

impl Linear {
    /// `nn.Linear(inputs, outputs, bias)`.
    pub fn new(t: &Torch, inputs: u64, outputs: u64, bias: bool, dtype: DType) -> Self {
        let weight = t.parameter(&[outputs, inputs], dtype);
        Self { weight, bias: bias.then(|| t.parameter(&[outputs], dtype)) }
    }

    /// `layer(x)`.
    pub fn forward(&self, t: &Torch, x: &Tensor) -> Tensor {
        t.linear(x, &self.weight, self.bias.as_ref())
    }

    /// Its weights, in PyTorch's order.
    pub fn parameters(&self) -> Vec<Tensor> {
        std::iter::once(self.weight.clone()).chain(self.bias.clone()).collect()
    }
}

/// `nn.LayerNorm` of one side.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// The factors.
    pub weight: Tensor,
    /// The summands.
    pub bias: Tensor,
}

impl LayerNorm {
    /// `nn.LayerNorm(width)`.
    pub fn new(t: &Torch, width: u64, dtype: DType) -> Self {
        let weight = t.parameter(&[width], dtype);
        Self { weight, bias: t.parameter(&[width], dtype) }
    }

    /// `layer(x)`.
    pub fn forward(&self, t: &Torch, x: &Tensor) -> Tensor {
        t.layer_norm(x, &self.weight, &self.bias)
    }

    /// Its weights, in PyTorch's order.
    pub fn parameters(&self) -> Vec<Tensor> {
        vec![self.weight.clone(), self.bias.clone()]
    }
}
