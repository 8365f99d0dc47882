//! Matrix products.

use std::rc::Rc;

use crate::workload::torch::{Tensor, Torch, autograd::Grads, reduce};

/// cuBLAS's workspace of a stream on an H200, made at the first product.
pub(super) const CUBLAS_WORKSPACE: u64 = 32 << 20;
/// cuBLASLt's, made at the first product with a bias.
const CUBLASLT_WORKSPACE: u64 = 1 << 20;

impl Torch {
    /// `F.linear(x, weight, bias)`. With a bias it is `addmm`, without `mm`.
    ///
    /// # Source
    /// `scenarios/precision_gpt_b8`: entries 380 to 390 forward, 1668 to 1688 backward, 1643 to 1649
    /// without bias.
    pub fn linear(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let bias = bias.map(|b| self.cast_input(b));
        let weight = self.cast_input(weight);
        let x = self.cast_input(x);
        let mut shape = x.shape().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = weight.dim(0);
        }
        match &bias {
            Some(bias) => self.addmm(&x, &weight, bias, &shape),
            None => self.mm(&x, &weight, &shape),
        }
    }

    fn addmm(&self, x: &Tensor, weight: &Tensor, bias: &Tensor, shape: &[u64]) -> Tensor {
        let tape = self.tape(&[x, weight, bias]);
        let sx = tape.save_if(tape.wants(1), x);
        let sw = tape.save_if(tape.wants(0), weight);
        let out = self.empty(shape, x.dtype());
        self.cublas_workspace();
        self.workspace("cublaslt", CUBLASLT_WORKSPACE);
        let (of_x, of_w) = (Rc::clone(&x.shape), Rc::clone(&weight.shape));
        tape.finish(out, move |t, grad, wants| {
            let saved = (sx.unpack(t), sw.unpack(t));
            let dx = wants[0].then(|| t.empty(&of_x, grad.dtype()));
            let dw = wants[1].then(|| t.empty(&of_w, grad.dtype()));
            // The engine sums up for the bias after the node's own code.
            drop(saved);
            t.let_go_of_made_again();
            let db = wants[2].then(|| t.column_sum(&grad));
            // They are views of products of matrices.
            let view = |x: Tensor| x.shaped(&x.shape);
            vec![dx.map(view), dw.map(view), db]
        })
    }

    fn mm(&self, x: &Tensor, weight: &Tensor, shape: &[u64]) -> Tensor {
        let tape = self.tape(&[x, weight]);
        let sw = tape.save_if(tape.wants(0), weight);
        let sx = tape.save_if(tape.wants(1), x);
        let out = self.empty(shape, x.dtype());
        self.cublas_workspace();
        let (of_x, of_w) = (Rc::clone(&x.shape), Rc::clone(&weight.shape));
        tape.finish(out, move |t, grad, wants| {
            let (_w, _x) = (sw.unpack(t), sx.unpack(t));
            let dw = wants[1].then(|| t.empty(&of_w, grad.dtype()));
            let dx = wants[0].then(|| t.empty(&of_x, grad.dtype()));
            // They are views of products of matrices.
            let view = |x: Tensor| x.shaped(&x.shape);
            vec![dx.map(view), dw.map(view)]
        })
    }

    /// cuBLAS's workspace, which every product asks for.
    pub(crate) fn cublas_workspace(&self) {
        self.workspace("cublas", CUBLAS_WORKSPACE);
    }

    /// `x @ y`, batch by batch, into `shape`.
    pub fn matmul(&self, x: &Tensor, y: &Tensor, shape: &[u64]) -> Tensor {
        let (x, y) = (self.cast_input(x), self.cast_input(y));
        let tape = self.tape(&[&x, &y]);
        let sy = tape.save_if(tape.wants(0), &y);
        let sx = tape.save_if(tape.wants(1), &x);
        let out = self.empty(shape, x.dtype());
        self.cublas_workspace();
        let (of_x, of_y) = (Rc::clone(&x.shape), Rc::clone(&y.shape));
        tape.finish(out, move |t, grad, wants| -> Grads {
            let (_y, _x) = (sy.unpack(t), sx.unpack(t));
            let dy = wants[1].then(|| t.empty(&of_y, grad.dtype()));
            let dx = wants[0].then(|| t.empty(&of_x, grad.dtype()));
            vec![dx, dy]
        })
    }

    /// `x @ y` of many matrices at once, into `shape`: those that are not in order are copied before
    /// (`apart`), and so is the gradient of the result then.
    ///
    /// # Source
    /// `scenarios/attention_train_s512__naive`: entries 182 to 197 forward.
    pub fn batched(&self, x: &Tensor, y: &Tensor, shape: &[u64], apart: [bool; 2]) -> Tensor {
        let (x, y) = (self.cast_input(x), self.cast_input(y));
        let x = if apart[0] { self.copy(&x) } else { x };
        let y = if apart[1] { self.copy(&y) } else { y };
        let out = self.matmul(&x, &y, shape);
        if apart == [false, true] { self.permuted(&out, shape) } else { out }
    }

    /// The sum over all sides but the last, as the gradient of a bias is.
    pub(crate) fn column_sum(&self, grad: &Tensor) -> Tensor {
        let columns = grad.dim(-1);
        let out = self.empty(&[columns], grad.dtype());
        let rows = grad.numel().checked_div(columns).unwrap_or(0);
        self.reduction_scratch(reduce::column_sum_scratch(rows, columns));
        out
    }
}
