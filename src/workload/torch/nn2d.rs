//! Layers of images: weights in the order in which PyTorch makes them.

use super::{Cudnn, DType, Tensor, Torch, Window};
use crate::workload::Label;

/// `nn.Conv2d`.
#[derive(Clone, Debug)]
pub struct Conv2d {
    /// `[outputs, inputs, kernel, kernel]`.
    pub weight: Tensor,
    /// `[outputs]`.
    pub bias: Option<Tensor>,
    window: Window,
    cudnn: Cudnn,
}

impl Conv2d {
    /// `nn.Conv2d(inputs, outputs, window, bias=False)` in float32.
    pub fn new(t: &Torch, inputs: u64, outputs: u64, window: Window, cudnn: Cudnn) -> Self {
        let shape = [outputs, inputs, window.kernel, window.kernel];
        Self { weight: t.parameter(&shape, DType::F32), bias: None, window, cudnn }
    }

    /// `layer(x)`.
    pub fn forward(&self, t: &Torch, x: &Tensor) -> Tensor {
        t.conv2d(x, &self.weight, self.bias.as_ref(), self.window, self.cudnn)
    }

    /// `layer.to(dtype)`.
    pub fn convert(&mut self, t: &Torch, dtype: DType) {
        convert_parameter(t, &mut self.weight, dtype);
        if let Some(bias) = &mut self.bias {
            convert_parameter(t, bias, dtype);
        }
    }

    /// Its weights, in PyTorch's order.
    pub fn parameters(&self) -> Vec<Tensor> {
        std::iter::once(self.weight.clone()).chain(self.bias.clone()).collect()
    }
}

/// `nn.BatchNorm2d`.
#[derive(Clone, Debug)]
pub struct BatchNorm2d {
    weight: Tensor,
    bias: Tensor,
    /// Mean and variance of what it saw.
    running: [Tensor; 2],
    /// How many batches it saw.
    _batches: Tensor,
}

impl BatchNorm2d {
    /// `nn.BatchNorm2d(channels)` in float32.
    pub fn new(t: &Torch, channels: u64) -> Self {
        let parameter = || t.parameter(&[channels], DType::F32);
        let buffer = |shape: &[u64], dtype| t.empty_as(shape, dtype, Label::Parameter);
        Self {
            weight: parameter(),
            bias: parameter(),
            running: [buffer(&[channels], DType::F32), buffer(&[channels], DType::F32)],
            _batches: buffer(&[], DType::I64),
        }
    }

    /// `layer(x)`.
    pub fn forward(&self, t: &Torch, x: &Tensor, training: bool) -> Tensor {
        t.batch_norm(x, &self.weight, &self.bias, training)
    }

    /// `layer.to(dtype)`.
    pub fn convert(&mut self, t: &Torch, dtype: DType) {
        convert_parameter(t, &mut self.weight, dtype);
        convert_parameter(t, &mut self.bias, dtype);
        for buffer in &mut self.running {
            *buffer = t.to(buffer, dtype).labelled(Label::Parameter);
        }
    }

    /// Its weights, in PyTorch's order.
    pub fn parameters(&self) -> Vec<Tensor> {
        vec![self.weight.clone(), self.bias.clone()]
    }
}

/// `parameter.data = parameter.data.to(dtype)`.
pub fn convert_parameter(t: &Torch, parameter: &mut Tensor, dtype: DType) {
    *parameter = t.to(&parameter.detach(), dtype).labelled(Label::Parameter).requires_grad_();
}
