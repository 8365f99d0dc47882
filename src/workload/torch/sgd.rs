//! Stochastic gradient descent, and the scaling of losses for float16.

use super::{DType, Optimizer, Tensor, Torch};
use crate::workload::Label;

/// `torch.optim.SGD` (`foreach`, the default): with momentum, a tensor like each weight, made of its
/// first gradient.
#[derive(Debug)]
pub struct Sgd {
    parameters: Vec<Tensor>,
    momentum: bool,
    states: Vec<Option<Tensor>>,
}

impl Sgd {
    /// An optimizer of these weights.
    pub fn new(parameters: Vec<Tensor>, momentum: bool) -> Self {
        let states = parameters.iter().map(|_| None).collect();
        Self { parameters, momentum, states }
    }
}

impl Optimizer for Sgd {
    /// # Source
    /// `torch/optim/sgd.py`, `_multi_tensor_sgd`, 2.11.
    fn step(&mut self, t: &Torch) {
        if !self.momentum {
            return;
        }
        for (parameter, state) in self.parameters.iter().zip(&mut self.states) {
            if let (None, Some(grad)) = (&state, parameter.grad()) {
                let of = (grad.shape(), grad.dtype());
                *state = Some(t.empty_as(of.0, of.1, Label::OptimizerState));
            }
        }
    }

    fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }
}

/// `torch.amp.GradScaler`, enabled.
#[derive(Debug, Default)]
pub struct GradScaler {
    /// The factor, and how many steps went well.
    state: Option<[Tensor; 2]>,
}

impl GradScaler {
    /// `scaler.scale(loss)`.
    ///
    /// # Source
    /// `torch/amp/grad_scaler.py`, 2.11; `scenarios/precision_resnet50__fp16_scaler`: entries 873 to
    /// 879.
    pub fn scale(&mut self, t: &Torch, loss: &Tensor) -> Tensor {
        let one = |dtype| t.empty_as(&[], dtype, Label::OptimizerState);
        let state = self.state.get_or_insert_with(|| [one(DType::F32), one(DType::I32)]);
        t.mul(loss, &state[0])
    }

    /// `scaler.step(optimizer)` and `scaler.update()`.
    ///
    /// # Source
    /// `torch/amp/grad_scaler.py`, `unscale_`, 2.11; the same recording, entries 2556 to 2570.
    pub fn step(&mut self, t: &Torch, optimizer: &mut dyn Optimizer) {
        let double = t.scratch(8);
        let inverse = t.scratch(8);
        drop(double);
        let scale = t.scratch(4);
        drop(inverse);
        let found = t.scratch(4);
        let of_device = t.scratch(4);
        drop(t.scratch(4));
        drop(scale);
        drop(found);
        optimizer.step(t);
        drop(of_device);
    }
}
