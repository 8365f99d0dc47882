//! Optimizers: what they remember of each weight, and the temporaries of a step.

use super::{DType, Tensor, Torch, drop_list};
use crate::workload::Label;

/// An optimizer of some weights.
pub trait Optimizer {
    /// `optimizer.step()`.
    fn step(&mut self, t: &Torch);

    /// The weights, in their order.
    fn parameters(&self) -> &[Tensor];

    /// `optimizer.zero_grad(set_to_none=True)`.
    fn zero_grad(&self) {
        for parameter in self.parameters() {
            drop(parameter.take_grad());
        }
    }
}

/// `torch.optim.Adam` and `AdamW`: two tensors like each weight, made at the first step.
#[derive(Debug)]
pub struct Adam {
    parameters: Vec<Tensor>,
    states: Vec<Option<Vec<Tensor>>>,
    kind: AdamKind,
}

/// How the step is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdamKind {
    /// `foreach=True`, the default: all weights at once, with a temporary as large as all of them.
    Foreach,
    /// `foreach=False`: one weight after the other.
    Single,
    /// `fused=True`: no temporaries.
    Fused,
}

impl Adam {
    /// An optimizer of these weights.
    pub fn new(parameters: Vec<Tensor>, kind: AdamKind) -> Self {
        let states = parameters.iter().map(|_| None).collect();
        Self { parameters, states, kind }
    }

    /// Makes the states before the first step.
    pub fn make_states(&mut self, t: &Torch) {
        for (parameter, state) in self.parameters.iter().zip(&mut self.states) {
            state.get_or_insert_with(|| Self::state(t, parameter, false));
        }
    }

    fn state(t: &Torch, parameter: &Tensor, fused: bool) -> Vec<Tensor> {
        let state = |shape, dtype| t.empty_as(shape, dtype, Label::OptimizerState);
        let moment = || state(parameter.shape(), parameter.dtype());
        // The fused step counts on the device, the others on the host.
        let steps = fused.then(|| state(&[], DType::F32));
        steps.into_iter().chain([moment(), moment()]).collect()
    }
}

impl Optimizer for Adam {
    fn step(&mut self, t: &Torch) {
        t.no_grad(|| {
            let with_grad = |p: &Tensor| p.grad().is_some();
            for (parameter, state) in self.parameters.iter().zip(&mut self.states) {
                if with_grad(parameter) {
                    state.get_or_insert_with(|| {
                        Self::state(t, parameter, self.kind == AdamKind::Fused)
                    });
                }
            }
            let stepped = || self.parameters.iter().filter(|p| with_grad(p));
            match self.kind {
                AdamKind::Fused => {}
                AdamKind::Foreach => {
                    drop_list(stepped().map(|p| t.empty_like(p)).collect());
                }
                AdamKind::Single => {
                    for parameter in stepped() {
                        let root = t.empty_like(parameter);
                        drop(t.empty_like(parameter)); // divided by the bias correction
                        drop(root);
                    }
                }
            }
        });
    }

    fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }
}
