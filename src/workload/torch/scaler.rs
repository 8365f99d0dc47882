//! `torch.amp.GradScaler`.

use super::{DType, Optimizer, Tensor, Torch};

/// Scales losses, and gradients back. Every step is taken: there are no numbers that could overflow.
///
/// # Source
/// `torch/amp/grad_scaler.py`, 2.11.
#[derive(Debug, Default)]
pub struct GradScaler {
    /// The scale and how often it held, made with the first loss.
    scale: Option<(Tensor, Tensor)>,
}

impl GradScaler {
    /// `scaler.scale(loss)`.
    pub fn scale(&mut self, t: &Torch, loss: &Tensor) -> Tensor {
        let (scale, _) = self
            .scale
            .get_or_insert_with(|| (t.empty(&[], DType::F32), t.empty(&[], DType::I32)));
        t.mul(loss, scale)
    }

    /// `scaler.step(optimizer)` and `scaler.update()`.
    pub fn step(&mut self, t: &Torch, optimizer: &mut dyn Optimizer) {
        let found = {
            let inverse = {
                let reciprocal = {
                    let _double = t.empty(&[], DType::I64);
                    t.empty(&[], DType::I64)
                };
                let inverse = t.empty(&[], DType::F32);
                drop(reciprocal);
                inverse
            };
            let _found = t.empty(&[], DType::F32);
            // Copies for the device of the gradients.
            let found = t.empty(&[], DType::F32);
            drop(t.empty(&[], DType::F32));
            drop(inverse);
            found
        };
        optimizer.step(t);
        drop(found);
    }
}
