//! Squares, means and roots: what a norm is made of where it is written by hand.

use std::rc::Rc;

use crate::workload::torch::{Tensor, Torch, reduce};

impl Torch {
    /// `x.pow(2)`: keeps the input.
    ///
    /// # Source
    /// `scenarios/lora_b1__full`: entries 461 forward, 2720 to 2729 backward.
    pub fn square(&self, x: &Tensor) -> Tensor {
        let tape = self.tape(&[x]);
        let saved = tape.save(x);
        let out = self.empty_like(x);
        tape.finish(out, move |t, grad, _| {
            let x = saved.unpack(t);
            let power = x.map(|x| t.empty_like(&x)); // x.pow(1)
            let twice = t.empty_like(&grad);
            let product = t.empty_like(&grad);
            drop(twice);
            drop(power);
            vec![Some(product)]
        })
    }

    /// `x.mean(-1, keepdim=True)`: keeps nothing.
    ///
    /// # Source
    /// `scenarios/lora_b1__full`: entries 462 forward, 2717 backward.
    pub fn mean_of_rows(&self, x: &Tensor) -> Tensor {
        let tape = self.tape(&[x]);
        let mut shape = x.shape().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = 1;
        }
        let out = self.empty(&shape, x.dtype());
        self.reduction_scratch(reduce::row(x.dim(-1), out.numel()));
        let of = Rc::clone(&x.shape);
        tape.finish(out, move |t, grad, _| vec![Some(t.empty(&of, grad.dtype()))])
    }

    /// `x + number`: keeps nothing, and its gradient is handed on.
    pub fn add_number(&self, x: &Tensor) -> Tensor {
        let tape = self.tape(&[x]);
        let out = self.empty_like(x);
        tape.finish(out, |_, grad, _| vec![Some(grad)])
    }

    /// `torch.rsqrt(x)`: keeps its result.
    ///
    /// # Source
    /// `scenarios/lora_b1__full`: entries 466 forward, 2706 to 2715 backward.
    pub fn rsqrt(&self, x: &Tensor) -> Tensor {
        let tape = self.tape(&[x]);
        let out = self.empty_like(x);
        let saved = tape.save(&out);
        tape.finish(out, move |t, grad, _| {
            let _result = saved.unpack(t);
            let half = t.empty_like(&grad);
            let cube = t.empty_like(&grad);
            let product = t.empty_like(&grad);
            drop(cube);
            drop(half);
            vec![Some(product)]
        })
    }
}
