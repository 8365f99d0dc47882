//! Optimizers: what they remember of each weight, and the temporaries of a step.

mod adafactor;
mod adam;
mod adam8;
mod sgd;

pub use adafactor::Adafactor;
pub use adam::{Adam, AdamKind};
pub use adam8::Adam8;
pub use sgd::Sgd;

use super::{Tensor, Torch};

/// An optimizer of some weights.
pub trait Optimizer {
    /// `optimizer.step()`.
    fn step(&mut self, t: &Torch);

    /// The weights, in their order.
    fn parameters(&self) -> &[Tensor];

    /// Makes what it remembers of every weight, as the first step does.
    fn make_states(&mut self, t: &Torch);

    /// Takes over the states of a checkpoint, which come to the device as they were loaded.
    fn load_states(&mut self, t: &Torch) {
        self.make_states(t);
    }

    /// Whether its step takes a GradScaler's scale itself.
    fn scales_gradients(&self) -> bool {
        false
    }

    /// `optimizer.zero_grad(set_to_none=True)`.
    fn zero_grad(&self) {
        for parameter in self.parameters() {
            drop(parameter.take_grad());
        }
    }
}
