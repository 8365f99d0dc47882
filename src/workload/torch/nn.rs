//! Layers: weights in the order in which PyTorch makes them.

use super::{DType, Tensor, Torch, packed::Packed};

/// `nn.Linear`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[outputs, inputs]`; without memory if it is packed.
    pub weight: Tensor,
    /// `[outputs]`.
    pub bias: Option<Tensor>,
    packed: Option<Packed>,
}

impl Linear {
    /// `nn.Linear(inputs, outputs, bias)`.
    pub fn new(t: &Torch, inputs: u64, outputs: u64, bias: bool, dtype: DType) -> Self {
        let weight = t.parameter(&[outputs, inputs], dtype);
        Self { weight, bias: bias.then(|| t.parameter(&[outputs], dtype)), packed: None }
    }

    /// A layer whose weight arrives packed into so many bits a value.
    pub fn new_packed(t: &Torch, inputs: u64, outputs: u64, dtype: DType, bits: u64) -> Self {
        let bias = Some(t.parameter(&[outputs], dtype));
        let packed = Some(Packed::empty(t, [outputs, inputs], bits));
        Self { weight: t.host(&[outputs, inputs], dtype), bias, packed }
    }

    /// Packs its weight into so many bits a value.
    pub fn pack(&mut self, t: &Torch, bits: u64) {
        self.packed = Some(Packed::of(t, &self.weight, bits));
        self.weight = t.host(self.weight.shape(), self.weight.dtype());
    }

    /// `layer(x)`.
    pub fn forward(&self, t: &Torch, x: &Tensor) -> Tensor {
        match &self.packed {
            None => t.linear(x, &self.weight, self.bias.as_ref()),
            Some(packed) => packed.forward(t, x, self.bias.as_ref()),
        }
    }

    /// Its weights, in PyTorch's order: those that are not packed.
    pub fn parameters(&self) -> Vec<Tensor> {
        let weight = self.packed.is_none().then(|| self.weight.clone());
        weight.into_iter().chain(self.bias.clone()).collect()
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
