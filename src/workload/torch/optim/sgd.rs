//! Stochastic gradient descent.

use super::{Optimizer, Tensor, Torch};
use crate::workload::Label;

/// `torch.optim.SGD` with `foreach`, the default: with momentum a tensor like each weight, a copy of
/// its first gradient.
#[derive(Debug)]
pub struct Sgd {
    parameters: Vec<Tensor>,
    buffers: Vec<Option<Tensor>>,
    momentum: bool,
}

impl Sgd {
    /// An optimizer of these weights.
    pub fn new(parameters: Vec<Tensor>, momentum: bool) -> Self {
        let buffers = parameters.iter().map(|_| None).collect();
        Self { parameters, buffers, momentum }
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, t: &Torch) {
        if !self.momentum {
            return;
        }
        for (parameter, buffer) in self.parameters.iter().zip(&mut self.buffers) {
            if parameter.grad().is_some() {
                buffer.get_or_insert_with(|| t.state_like(parameter, parameter.dtype()));
            }
        }
    }

    fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }

    fn make_states(&mut self, t: &Torch) {
        if !self.momentum {
            return;
        }
        for (parameter, buffer) in self.parameters.iter().zip(&mut self.buffers) {
            buffer.get_or_insert_with(|| t.state_like(parameter, parameter.dtype()));
        }
    }
}

impl Torch {
    /// Memory like a weight's, on its device, for what an optimizer remembers of it.
    pub(super) fn state_like(&self, parameter: &Tensor, dtype: super::super::DType) -> Tensor {
        let device = parameter.device().unwrap_or(0);
        self.on_device(device, || self.empty_as(parameter.shape(), dtype, Label::OptimizerState))
    }
}
