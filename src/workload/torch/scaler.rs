//! `torch.amp.GradScaler`.

use super::{DType, Optimizer, Tensor, Torch};

/// Scales losses, and gradients back. Every step is taken: there are no numbers that could overflow.
///
/// # Source
/// `torch/amp/grad_scaler.py`, 2.11; `scenarios/precision_gpt_b8__fp16_scaler`: entries 5381 to 5395.
#[derive(Debug, Default)]
pub struct GradScaler {
    /// The scale and how often it held, made with the first loss.
    scale: Option<(Tensor, Tensor)>,
}

impl GradScaler {
    /// `scaler.scale(loss)`.
    pub fn scale(&mut self, t: &Torch, loss: &Tensor) -> Tensor {
        let (scale, _) =
            self.scale.get_or_insert_with(|| (t.empty(&[], DType::F32), t.empty(&[], DType::I32)));
        t.mul(loss, scale)
    }

    /// `scaler.step(optimizer)` and `scaler.update()`.
    pub fn step(&mut self, t: &Torch, optimizer: &mut dyn Optimizer) {
        let number = || t.empty(&[], DType::F32);
        if optimizer.scales_gradients() {
            let found = found_infinities(t, number());
            let (scale, sum) = (number(), number());
            optimizer.step(t);
            drop((sum, scale, found));
        } else {
            let inverse = {
                let reciprocal = {
                    let _double = t.empty(&[], DType::I64);
                    t.empty(&[], DType::I64)
                };
                let inverse = number();
                drop(reciprocal);
                inverse
            };
            let found = found_infinities(t, inverse);
            optimizer.step(t);
            drop(found);
        }
    }
}

/// `_unscale_grads_`: whether a gradient is infinite, kept until the update.
fn found_infinities(t: &Torch, inverse: Tensor) -> Tensor {
    let _found = t.empty(&[], DType::F32);
    // Copies for the device of the gradients.
    let found = t.empty(&[], DType::F32);
    drop(t.empty(&[], DType::F32));
    drop(inverse);
    found
}
