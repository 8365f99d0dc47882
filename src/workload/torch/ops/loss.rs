//! Losses.

use crate::workload::torch::{Tensor, Torch};

impl Torch {
    /// `F.cross_entropy(logits, target)`: `log_softmax` in float32, kept, and `nll_loss`.
    ///
    /// # Source
    /// `scenarios/precision_gpt_b8`: entries 1426 to 1428 forward, 1626 to 1635 backward.
    pub fn cross_entropy(&self, logits: &Tensor, target: &Tensor) -> Tensor {
        let logits = self.cast_to_f32(logits);
        let log_softmax = {
            let tape = self.tape(&[&logits]);
            let out = self.empty_like(&logits);
            let saved = tape.save(&out);
            tape.finish(out, move |t, grad, _| {
                let _result = saved.unpack(t);
                vec![Some(t.empty_like(&grad))]
            })
        };
        drop(logits);
        let tape = self.tape(&[&log_softmax]);
        let saved = (tape.save(&log_softmax), tape.save(target));
        let loss = self.empty(&[], log_softmax.dtype());
        let total = self.empty(&[], log_softmax.dtype());
        let total = tape.save(&total);
        tape.finish(loss, move |t, _grad, _| {
            let scores = saved.0.unpack(t);
            let _rest = (saved.1.unpack(t), total.unpack(t));
            vec![scores.map(|scores| t.empty_like(&scores))]
        })
    }
}
