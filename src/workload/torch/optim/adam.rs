//! Adam.

use super::{Optimizer, Tensor, Torch};
use crate::workload::{
    Label,
    torch::{DType, drop_list},
};

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

    fn state(t: &Torch, parameter: &Tensor, fused: bool) -> Vec<Tensor> {
        let moment = || t.state_like(parameter, parameter.dtype());
        // The fused step counts on the device, the others on the host.
        let step = || t.empty_as(&[], DType::F32, Label::OptimizerState);
        let device = parameter.device().unwrap_or(0);
        let steps = fused.then(|| t.on_device(device, step));
        steps.into_iter().chain([moment(), moment()]).collect()
    }

    /// The temporaries of a step of these weights, which lie on one device.
    fn update(&self, t: &Torch, parameters: &[&Tensor]) {
        match self.kind {
            AdamKind::Fused => {}
            AdamKind::Foreach => {
                drop_list(parameters.iter().map(|p| t.empty_like(p)).collect());
            }
            AdamKind::Single => {
                let mut denominator = None;
                for parameter in parameters {
                    let root = t.empty_like(parameter);
                    // Divided by the bias correction.
                    let divided = t.empty_like(parameter);
                    drop(root);
                    drop(denominator.replace(divided));
                }
            }
        }
    }
}

impl Optimizer for Adam {
    fn step(&mut self, t: &Torch) {
        for (parameter, state) in self.parameters.iter().zip(&mut self.states) {
            if parameter.grad().is_some() {
                state
                    .get_or_insert_with(|| Self::state(t, parameter, self.kind == AdamKind::Fused));
            }
        }
        let stepped = |p: &&Tensor| p.grad().is_some();
        let mut devices: Vec<_> = self.parameters.iter().filter_map(Tensor::device).collect();
        devices.dedup();
        for device in devices {
            let here = |p: &&Tensor| p.device() == Some(device);
            let parameters: Vec<_> = self.parameters.iter().filter(stepped).filter(here).collect();
            t.on_device(device, || self.update(t, &parameters));
        }
    }

    fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }

    fn make_states(&mut self, t: &Torch) {
        for (parameter, state) in self.parameters.iter().zip(&mut self.states) {
            let fused = self.kind == AdamKind::Fused;
            state.get_or_insert_with(|| Self::state(t, parameter, fused));
        }
    }

    fn load_states(&mut self, t: &Torch) {
        for (parameter, state) in self.parameters.iter().zip(&mut self.states) {
            // A count that was saved on the host comes to the device, too, and stays there.
            state.get_or_insert_with(|| Self::state(t, parameter, true));
        }
    }

    fn scales_gradients(&self) -> bool {
        self.kind == AdamKind::Fused
    }
}
