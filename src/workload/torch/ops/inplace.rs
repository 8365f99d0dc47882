//! Operators that write their result where their input was.

use crate::workload::torch::{Tensor, Torch};

impl Torch {
    /// `x += y`, of the same sides and type: the gradient goes to both as it is.
    #[must_use]
    pub fn add_(&self, x: Tensor, y: &Tensor) -> Tensor {
        let tape = self.tape(&[&x, y]);
        let out = x.detach();
        drop(x);
        tape.finish(out, |_, grad, wants| {
            let part = |i: usize| wants[i].then(|| grad.clone());
            vec![part(0), part(1)]
        })
    }

    /// `F.relu(x, inplace=True)`: keeps its result, which is where the input was.
    #[must_use]
    pub fn relu_(&self, x: Tensor) -> Tensor {
        let tape = self.tape(&[&x]);
        let out = x.detach();
        drop(x);
        let saved = tape.save(&out);
        tape.finish(out, move |t, grad, _| {
            let _result = saved.unpack(t);
            vec![Some(t.empty_like(&grad))]
        })
    }
}
