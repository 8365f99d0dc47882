//! Images made smaller and larger.

use std::rc::Rc;

use crate::workload::torch::{DType, Tensor, Torch, ops::conv::Window};

impl Torch {
    /// `F.max_pool2d(x)`: keeps the input, and where in it each number was.
    ///
    /// # Source
    /// `scenarios/batch_resnet50__b64`: entries 347 to 349 forward.
    pub fn max_pool2d(&self, x: &Tensor, window: Window) -> Tensor {
        let tape = self.tape(&[x]);
        let saved = tape.save(x);
        let shape = [x.dim(0), x.dim(1), window.over(x.dim(2)), window.over(x.dim(3))];
        let out = self.empty(&shape, x.dtype());
        let places = self.empty(&shape, DType::I64);
        let saved_places = tape.save(&places);
        drop(places);
        let of = Rc::clone(&x.shape);
        tape.finish(out, move |t, grad, _| {
            let (_x, _places) = (saved.unpack(t), saved_places.unpack(t));
            vec![Some(t.empty(&of, grad.dtype()))]
        })
    }

    /// `F.adaptive_avg_pool2d(x, 1)`, which is a mean: keeps nothing.
    pub fn global_avg_pool2d(&self, x: &Tensor) -> Tensor {
        let tape = self.tape(&[x]);
        let out = self.empty(&[x.dim(0), x.dim(1), 1, 1], x.dtype());
        let of = Rc::clone(&x.shape);
        tape.finish(out, move |t, grad, _| vec![Some(t.empty(&of, grad.dtype()))])
    }

    /// `F.interpolate(x, size=sides, mode="nearest")`: keeps nothing.
    pub fn upsample2d(&self, x: &Tensor, sides: [u64; 2]) -> Tensor {
        let tape = self.tape(&[x]);
        let out = self.empty(&[x.dim(0), x.dim(1), sides[0], sides[1]], x.dtype());
        let of = Rc::clone(&x.shape);
        tape.finish(out, move |t, grad, _| vec![Some(t.empty(&of, grad.dtype()))])
    }
}
