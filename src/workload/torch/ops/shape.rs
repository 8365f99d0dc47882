//! Casts, copies, and other looks at the same memory.

use std::rc::Rc;

use crate::workload::torch::{DType, Tensor, Torch};

impl Torch {
    /// `x.to(dtype)`: a copy, unless it has the type already.
    pub fn to(&self, x: &Tensor, dtype: DType) -> Tensor {
        if x.dtype() == dtype {
            return x.clone();
        }
        let tape = self.tape(&[x]);
        let out = self.empty_of(x, dtype);
        let from = x.dtype();
        tape.finish(out, move |t, grad, _| vec![Some(t.to(&grad, from))])
    }

    /// `x.to(device)`: a copy there. Its gradient is copied back.
    pub fn to_device(&self, x: &Tensor, device: usize) -> Tensor {
        let Some(from) = x.device().filter(|from| *from != device) else { return x.clone() };
        let tape = self.tape(&[x]);
        let out = self.on_device(device, || self.empty_like(x));
        // The node belongs to the device that the gradient goes to.
        self.on_device(from, || tape.finish(out, move |t, grad, _| vec![Some(t.empty_like(&grad))]))
    }

    /// `x.to("cpu")`: nothing on the device, but the graph goes with it.
    pub fn to_host(&self, x: &Tensor) -> Tensor {
        let tape = self.tape(&[x]);
        let out = self.host(x.shape(), x.dtype());
        tape.finish(out, |t, grad, _| vec![Some(t.empty_like(&grad))])
    }

    /// A tensor like this one that comes from a file, on the same device.
    pub fn loaded(&self, x: &Tensor) -> Tensor {
        self.on_device(x.device().unwrap_or(0), || self.empty_like(x))
    }

    /// A copy in the usual order (`contiguous()` of a tensor that is not, `reshape` of one that
    /// cannot be looked at so, `clone()`).
    pub fn copy(&self, x: &Tensor) -> Tensor {
        let tape = self.tape(&[x]);
        let out = self.empty_like(x);
        tape.finish(out, |_, grad, _| vec![Some(grad)])
    }

    /// A copy with its parts repeated up to `shape` (`expand` and then `reshape`, as `repeat_kv`): its
    /// gradient is the sum over them.
    pub fn repeat(&self, x: &Tensor, shape: &[u64]) -> Tensor {
        let tape = self.tape(&[x]);
        let out = self.empty(shape, x.dtype());
        let from = Rc::clone(&x.shape);
        tape.finish(out, move |t, grad, _| vec![Some(t.empty(&from, grad.dtype()))])
    }

    /// The same memory with other sides (`view`, `transpose`, `permute`, `reshape` of a tensor in
    /// order).
    pub fn view(&self, x: &Tensor, shape: &[u64]) -> Tensor {
        let tape = self.tape(&[x]);
        let out = x.shaped(shape);
        let from = Rc::clone(&x.shape);
        tape.finish(out, move |_, grad, _| vec![Some(grad.shaped(&from))])
    }

    /// The same memory with sides in another order, split or joined before (`view(…).permute(…)`):
    /// its gradient arrives in that order and is copied back.
    pub fn permuted(&self, x: &Tensor, shape: &[u64]) -> Tensor {
        let tape = self.tape(&[x]);
        let out = x.shaped(shape);
        let from = Rc::clone(&x.shape);
        tape.finish(out, move |t, grad, _| vec![Some(t.empty(&from, grad.dtype()))])
    }

    /// A part of the same memory (`x[:, 1:]`, `narrow`, `select`): its gradient is a whole tensor of
    /// zeros with that part filled in.
    pub fn slice(&self, x: &Tensor, shape: &[u64]) -> Tensor {
        let tape = self.tape(&[x]);
        let out = x.shaped(shape);
        let from = Rc::clone(&x.shape);
        tape.finish(out, move |t, grad, _| {
            let whole = t.empty(&from, grad.dtype());
            vec![Some(whole)]
        })
    }

    /// `x.unbind(dim)` into `n` parts of `shape`: the gradient stacks theirs.
    pub fn unbind(&self, x: &Tensor, n: usize, shape: &[u64]) -> Vec<Tensor> {
        let tape = self.tape(&[x]);
        let outs = (0..n).map(|_| x.shaped(shape)).collect();
        let from = Rc::clone(&x.shape);
        let dtype = x.dtype();
        tape.finish_all(outs, move |t, _grads, _| vec![Some(t.empty(&from, dtype))])
    }

    /// `torch.cat(parts)` and `torch.stack(parts)` into `shape`: gradients are parts of the whole one.
    pub fn cat(&self, parts: &[&Tensor], shape: &[u64]) -> Tensor {
        let tape = self.tape(parts);
        let dtype = parts.first().map_or(DType::F32, |p| p.dtype());
        let out = self.empty(shape, dtype);
        let shapes: Vec<_> = parts.iter().map(|p| Rc::clone(&p.shape)).collect();
        tape.finish(out, move |_, grad, _| {
            shapes.iter().map(|shape| Some(grad.shaped(shape))).collect()
        })
    }
}
