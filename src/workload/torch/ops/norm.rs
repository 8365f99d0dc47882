//! Normalisations.

use crate::workload::torch::{DType, Tensor, Torch};

impl Torch {
    /// `F.layer_norm(x, …, weight, bias)`: keeps the input and two numbers a row.
    ///
    /// # Source
    /// `scenarios/precision_gpt_b8`: entries 380 to 382 forward, 1657 to 1666 backward.
    pub fn layer_norm(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
        let x = self.cast_to_f32(x);
        let tape = self.tape(&[&x, weight, bias]);
        let saved = tape.save(&x);
        let out = self.empty_like(&x);
        let rows = x.numel().checked_div(x.dim(-1)).unwrap_or(0);
        let (mean, rstd) = {
            // Mean and scale of each row; without a graph the mean goes first.
            let rows = [self.empty(&[rows], DType::F32), self.empty(&[rows], DType::F32)];
            (tape.save(&rows[0]), tape.save(&rows[1]))
        };
        let (of, scale) = (x.detach(), weight.detach());
        let (shape, dtype) = (of.shape.clone(), of.dtype());
        drop(of);
        tape.finish(out, move |t, grad, wants| {
            let _saved = (saved.unpack(t), mean.unpack(t), rstd.unpack(t));
            let dx = t.empty(&shape, dtype);
            let dw = wants[1].then(|| t.empty_like(&scale));
            let db = wants[2].then(|| t.empty_like(&scale));
            drop(grad);
            vec![Some(dx), dw, db]
        })
    }
}
