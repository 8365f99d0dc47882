//! Operators that work number by number.

use std::rc::Rc;

use crate::workload::torch::{DType, Tensor, Torch, reduce};

impl Torch {
    /// `x + y`; the smaller one is repeated. The gradient is handed on as it is, summed over what was
    /// repeated, cast to each type.
    pub fn add(&self, x: &Tensor, y: &Tensor) -> Tensor {
        let tape = self.tape(&[x, y]);
        let out = self.empty(&wider(x, y), promoted(x, y));
        let of = [summary(x), summary(y)];
        tape.finish(out, move |t, grad, wants| {
            let part = |i: usize| wants[i].then(|| t.reduced_to(&grad, &of[i].0, of[i].1));
            vec![part(0), part(1)]
        })
    }

    /// `x += y` of numbers: the memory is that of `x`, the history has both.
    pub fn add_into(&self, x: Tensor, y: &Tensor) -> Tensor {
        let tape = self.tape(&[&x, y]);
        let out = x.detach();
        drop(x);
        tape.finish(out, |_, grad, wants| {
            wants.iter().map(|wanted| wanted.then(|| grad.clone())).collect()
        })
    }

    /// `x * y`, which keeps both.
    pub fn mul(&self, x: &Tensor, y: &Tensor) -> Tensor {
        let tape = self.tape(&[x, y]);
        let (sx, sy) = (tape.save_if(tape.wants(1), x), tape.save_if(tape.wants(0), y));
        let out = self.empty(&wider(x, y), promoted(x, y));
        let of = [summary(x), summary(y)];
        tape.finish(out, move |t, grad, wants| {
            // In the order of the names `other` and `self`.
            let saved = (sy.unpack(t), sx.unpack(t));
            let product = |i: usize| wants[i].then(|| t.empty_like(&grad));
            let (dy, dx) = (product(1), product(0));
            // The engine sums up what was repeated after the node's own code.
            drop(saved);
            t.let_go_of_made_again();
            let reduced =
                |d: Option<Tensor>, i: usize| d.map(|d| t.reduced_to(&d, &of[i].0, of[i].1));
            let dx = reduced(dx, 0);
            vec![dx, reduced(dy, 1)]
        })
    }

    /// `x * number`, `x / number`, `-x`: keeps nothing.
    pub fn scale(&self, x: &Tensor) -> Tensor {
        let tape = self.tape(&[x]);
        let out = self.empty_like(x);
        tape.finish(out, |t, grad, _| vec![Some(t.empty_like(&grad))])
    }

    /// An activation that keeps its input: `gelu`, `silu`.
    pub fn activation(&self, x: &Tensor) -> Tensor {
        let tape = self.tape(&[x]);
        let saved = tape.save(x);
        let out = self.empty_like(x);
        tape.finish(out, move |t, grad, _| {
            let _x = saved.unpack(t);
            vec![Some(t.empty_like(&grad))]
        })
    }

    /// An activation that keeps its result: `relu`, `tanh`, `sigmoid`.
    pub fn activation_of_result(&self, x: &Tensor) -> Tensor {
        let tape = self.tape(&[x]);
        let out = self.empty_like(x);
        let saved = tape.save(&out);
        tape.finish(out, move |t, grad, _| {
            let _result = saved.unpack(t);
            vec![Some(t.empty_like(&grad))]
        })
    }

    /// `softmax` over the last side, in `dtype` if given: keeps its result.
    ///
    /// # Source
    /// `aten/src/ATen/native/cuda/SoftMax.cu`, 2.11: float16 to float32 is one step, bfloat16 is cast
    /// before; backward has the product of gradient and result as a temporary.
    /// `scenarios/attention_train_s512__naive32`: entries 193 to 194 and 812 to 815.
    pub fn softmax(&self, x: &Tensor, dtype: Option<DType>) -> Tensor {
        let dtype = dtype.unwrap_or(match self.autocast_dtype() {
            Some(_) => DType::F32,
            None => x.dtype(),
        });
        let x = if x.dtype() == DType::F16 { x.clone() } else { self.to(x, dtype) };
        let tape = self.tape(&[&x]);
        let out = self.empty_of(&x, dtype);
        let saved = tape.save(&out);
        let from = x.dtype();
        drop(x);
        tape.finish(out, move |t, grad, _| {
            let _result = saved.unpack(t);
            let of = t.empty_of(&grad, from);
            drop(t.empty_like(&grad));
            vec![Some(of)]
        })
    }

    /// `dropout(x, p)` in training with `p > 0`: keeps a mask of a byte a number.
    pub fn dropout(&self, x: &Tensor) -> Tensor {
        let tape = self.tape(&[x]);
        let mask = self.empty_of(x, DType::Bool);
        let out = self.empty_like(x);
        let saved = tape.save(&mask);
        drop(mask);
        tape.finish(out, move |t, grad, _| {
            let _mask = saved.unpack(t);
            vec![Some(t.empty_like(&grad))]
        })
    }

    /// `x.masked_fill(mask, number)`: keeps the mask.
    pub fn masked_fill(&self, x: &Tensor, mask: &Tensor) -> Tensor {
        let tape = self.tape(&[x]);
        let saved = tape.save(mask);
        let out = self.empty_like(x);
        tape.finish(out, move |t, grad, _| {
            let _mask = saved.unpack(t);
            vec![Some(t.empty_like(&grad))]
        })
    }

    /// `x.argmax(-1)`.
    ///
    /// # Source
    /// `aten/src/ATen/native/cuda/ReduceArgMaxKernel.cu`, 2.11.
    pub fn argmax(&self, x: &Tensor) -> Tensor {
        let columns = x.dim(-1);
        let rows = x.numel().checked_div(columns).unwrap_or(0);
        let out = self.empty(&[rows], DType::I64);
        self.reduction_scratch(reduce::largest(columns, rows));
        out
    }

    /// The scratch memory of a reduction, for its time.
    pub(crate) fn reduction_scratch(&self, scratch: Option<(u64, u64)>) {
        if let Some((staging, semaphores)) = scratch {
            let staging = self.scratch(staging);
            drop(self.scratch(semaphores));
            drop(staging);
        }
    }

    /// The sum of everything: one number, whose gradient is repeated without a copy.
    pub fn sum(&self, x: &Tensor) -> Tensor {
        let tape = self.tape(&[x]);
        let out = self.empty(&[], x.dtype());
        let of = Rc::clone(&x.shape);
        tape.finish(out, move |_, grad, _| vec![Some(grad.shaped(&of))])
    }

    /// A gradient brought back to the sides and the type of an input that was repeated or cast. A
    /// side of one that the input has not is summed up, too.
    fn reduced_to(&self, grad: &Tensor, shape: &Rc<[u64]>, dtype: DType) -> Tensor {
        if grad.shape == *shape {
            return self.to(grad, dtype);
        }
        let summed = self.empty(shape, grad.dtype());
        let (kept, all) = (summed.numel(), grad.numel());
        let each = all.checked_div(kept).unwrap_or(0);
        if each > 1 {
            self.reduction_scratch(if shape.last() == Some(&grad.dim(-1)) {
                reduce::column_sum_scratch(each, kept)
            } else {
                reduce::row(each, kept)
            });
        }
        self.to(&summed, dtype)
    }
}

fn summary(x: &Tensor) -> (Rc<[u64]>, DType) {
    (Rc::clone(&x.shape), x.dtype())
}

/// The sides of a result, by PyTorch's broadcasting.
fn wider(x: &Tensor, y: &Tensor) -> Vec<u64> {
    let (long, short) = if x.shape().len() >= y.shape().len() {
        (x.shape(), y.shape())
    } else {
        (y.shape(), x.shape())
    };
    let mut out = long.to_vec();
    for (side, other) in out.iter_mut().rev().zip(short.iter().rev()) {
        *side = (*side).max(*other);
    }
    out
}

/// The type of a result, by PyTorch's promotion among floating types; integers give way.
fn promoted(x: &Tensor, y: &Tensor) -> DType {
    let rank = |d: DType| if d.is_floating() { d.bytes() } else { 0 };
    let (a, b) = (x.dtype(), y.dtype());
    // A single number does not widen a tensor.
    if a == b || y.shape().is_empty() && a.is_floating() {
        a
    } else if x.shape().is_empty() && b.is_floating() {
        b
    } else if rank(a) == rank(b) && rank(a) > 0 {
        DType::F32
    } else if rank(a) >= rank(b) {
        a
    } else {
        b
    }
}
