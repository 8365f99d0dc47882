//! Adam with states of a byte.

use super::{Optimizer, Tensor, Torch};
use crate::workload::{Label, torch::DType};

/// Weights smaller than this keep states of float32.
const SMALL: u64 = 4096;
/// Numbers that share a scale.
const BLOCK: u64 = 256;

/// Adam with two bytes a number and two float32 scales for each 256 numbers.
///
/// # Source
/// `Adam8` of `scenarios/optimizer_b1__adam8_temps`.
#[derive(Debug)]
pub struct Adam8 {
    parameters: Vec<Tensor>,
    states: Vec<Option<Vec<Tensor>>>,
    temporaries: bool,
}

impl Adam8 {
    /// An optimizer of these weights. With `temporaries` a weight's states are unpacked into float32
    /// for its step, without them one kernel does it.
    pub fn new(parameters: Vec<Tensor>, temporaries: bool) -> Self {
        let states = parameters.iter().map(|_| None).collect();
        Self { parameters, states, temporaries }
    }

    fn is_small(parameter: &Tensor) -> bool {
        parameter.numel() < SMALL || !parameter.numel().is_multiple_of(BLOCK)
    }

    fn state(t: &Torch, parameter: &Tensor) -> Vec<Tensor> {
        let scales = [parameter.numel() / BLOCK];
        let scales = || t.empty_as(&scales, DType::F32, Label::OptimizerState);
        if Self::is_small(parameter) {
            (0..2).map(|_| t.state_like(parameter, DType::F32)).collect()
        } else {
            (0..2).flat_map(|_| [t.state_like(parameter, DType::U8), scales()]).collect()
        }
    }
}

/// The variables of the loop, which live until they get their next values.
#[derive(Default)]
struct Loop {
    moments: [Option<Tensor>; 2],
    one: Option<Tensor>,
    scales: Option<Tensor>,
}

impl Loop {
    fn step(&mut self, t: &Torch, parameter: &Tensor) {
        let wide = || t.empty_of(parameter, DType::F32);
        for moment in &mut self.moments {
            let unpacked = wide();
            let scaled = wide();
            drop(unpacked);
            drop(moment.replace(scaled));
        }
        for moment in self.moments.clone() {
            drop(std::mem::replace(&mut self.one, moment));
            let scales = {
                let _sizes = wide();
                t.empty(&[parameter.numel() / BLOCK], DType::F32)
            };
            drop(self.scales.replace(scales));
            // Divided by the scale, times 127, plus 128.
            let divided = wide();
            let times = wide();
            drop(divided);
            let plus = wide();
            drop(times);
            drop(plus);
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        for moment in &mut self.moments {
            drop(moment.take());
        }
        drop(self.one.take());
        drop(self.scales.take());
    }
}

impl Optimizer for Adam8 {
    fn step(&mut self, t: &Torch) {
        let mut variables = Loop::default();
        for (parameter, state) in self.parameters.iter().zip(&mut self.states) {
            if parameter.grad().is_none() {
                continue;
            }
            let device = parameter.device().unwrap_or(0);
            t.on_device(device, || {
                state.get_or_insert_with(|| Self::state(t, parameter));
                if Self::is_small(parameter) {
                    drop(t.empty_of(parameter, DType::F32)); // the root
                } else if self.temporaries {
                    variables.step(t, parameter);
                }
            });
        }
    }

    fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }

    fn make_states(&mut self, t: &Torch) {
        for (parameter, state) in self.parameters.iter().zip(&mut self.states) {
            state.get_or_insert_with(|| Self::state(t, parameter));
        }
    }
}
