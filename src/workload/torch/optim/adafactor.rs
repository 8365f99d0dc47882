//! Adafactor.

use super::{Optimizer, Tensor, Torch};
use crate::workload::{
    Label,
    torch::{DType, reduce},
};

/// `torch.optim.Adafactor`: of a matrix it remembers a number for each row and each column, of a
/// vector a tensor like it. A step makes one weight's update at a time.
///
/// # Source
/// `torch/optim/_adafactor.py`, `_single_tensor_adafactor`, 2.11.
#[derive(Debug)]
pub struct Adafactor {
    parameters: Vec<Tensor>,
    states: Vec<Option<Vec<Tensor>>>,
}

/// The variables of the loop, which live until they get their next values.
#[derive(Default)]
struct Loop {
    row_mean: Option<Tensor>,
    column_mean: Option<Tensor>,
    squared: Option<Tensor>,
    update: Option<Tensor>,
}

impl Adafactor {
    /// An optimizer of these weights.
    pub fn new(parameters: Vec<Tensor>) -> Self {
        let states = parameters.iter().map(|_| None).collect();
        Self { parameters, states }
    }

    fn state(t: &Torch, parameter: &Tensor) -> Vec<Tensor> {
        match parameter.shape() {
            [rows, columns] => {
                let state =
                    |shape: &[u64]| t.empty_as(shape, parameter.dtype(), Label::OptimizerState);
                vec![state(&[*rows, 1]), state(&[1, *columns])]
            }
            _ => vec![t.state_like(parameter, parameter.dtype())],
        }
    }
}

impl Loop {
    fn step(&mut self, t: &Torch, parameter: &Tensor) {
        let dtype = parameter.dtype();
        let all = |n: u64| drop(reduced(t, 1, dtype, reduce::whole(n)));
        all(parameter.numel());
        if let [rows, columns] = *parameter.shape() {
            let row_mean = reduced(t, rows, dtype, reduce::row(columns, rows));
            drop(self.row_mean.replace(row_mean));
            let column_mean = reduced(t, columns, dtype, reduce::column_sum_scratch(rows, columns));
            drop(self.column_mean.replace(column_mean));
            t.cublas_workspace();
            let estimate = t.empty(&[rows, columns], dtype);
            all(rows);
            drop(self.update.replace(estimate));
        } else {
            drop(self.squared.replace(t.empty_like(parameter)));
            drop(self.update.replace(t.empty_like(parameter)));
        }
        all(parameter.numel());
    }
}

/// The result of a reduction, and its scratch memory for a while.
fn reduced(t: &Torch, outputs: u64, dtype: DType, scratch: Option<(u64, u64)>) -> Tensor {
    let out = t.empty(&[outputs], dtype);
    t.reduction_scratch(scratch);
    out
}

impl Optimizer for Adafactor {
    fn step(&mut self, t: &Torch) {
        let with_grad = |p: &Tensor| p.grad().is_some();
        for (parameter, state) in self.parameters.iter().zip(&mut self.states) {
            if with_grad(parameter) {
                let device = parameter.device().unwrap_or(0);
                t.on_device(device, || {
                    state.get_or_insert_with(|| Self::state(t, parameter));
                });
            }
        }
        let mut variables = Loop::default();
        for parameter in self.parameters.iter().filter(|p| with_grad(p)) {
            let device = parameter.device().unwrap_or(0);
            t.on_device(device, || variables.step(t, parameter));
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
