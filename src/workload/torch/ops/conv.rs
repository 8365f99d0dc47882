//! Convolutions of images.

use std::rc::Rc;

use crate::workload::torch::{DType, Tensor, Torch, ops::linear::CUBLAS_WORKSPACE};

/// What the convolution library does on a device: which memory its kernels take beside the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cudnn {
    /// Bytes of scratch memory of a convolution. The true figure depends on the kernel that cuDNN
    /// chooses, from nothing to hundreds of MiB.
    pub workspace: u64,
    /// Whether it convolves bfloat16. Where it does not, PyTorch unfolds one image at a time and
    /// multiplies matrices.
    pub bfloat16: bool,
}

/// How a kernel goes over an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Side of the kernel, in pixels.
    pub kernel: u64,
    /// Pixels from one place to the next.
    pub stride: u64,
    /// Pixels of padding at each border.
    pub padding: u64,
}

impl Window {
    /// A kernel of this side that keeps the size of the image.
    pub const fn same(kernel: u64) -> Self {
        Self { kernel, stride: 1, padding: kernel / 2 }
    }

    /// Places along a side of so many pixels.
    pub fn over(self, side: u64) -> u64 {
        let padded = side.saturating_add(2 * self.padding);
        (padded.saturating_sub(self.kernel) / self.stride.max(1)).saturating_add(1)
    }

    /// Whether unfolding an image copies it.
    fn unfolds(self) -> bool {
        self != Self { kernel: 1, stride: 1, padding: 0 }
    }
}

/// In which order a convolution reads its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightOrder {
    /// As it lies.
    AsItLies,
    /// In that of the image, of which a copy is made.
    Copied,
}

impl Torch {
    /// `F.conv2d(x, weight, bias)` of `[batch, channels, height, width]`: keeps the input and the weight.
    ///
    /// # Source
    /// `aten/src/ATen/native/Convolution.cpp` and `cuda/ConvolutionMM2d.cu`, 2.11;
    /// `scenarios/batch_resnet50__b64` (cuDNN) and `precision_resnet50__amp_bf16` (unfolded).
    pub fn conv2d(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        window: Window,
        cudnn: Cudnn,
    ) -> Tensor {
        self.conv2d_with(x, weight, bias, window, cudnn, WeightOrder::AsItLies)
    }

    /// As [`Torch::conv2d`], with the weight brought to an order first.
    pub fn conv2d_with(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        window: Window,
        cudnn: Cudnn,
        order: WeightOrder,
    ) -> Tensor {
        let bias = bias.map(|b| self.cast_input(b));
        let weight = self.cast_input(weight);
        let x = self.cast_input(x);
        let tape = match &bias {
            Some(bias) => self.tape(&[&x, &weight, bias]),
            None => self.tape(&[&x, &weight]),
        };
        // One formula gives all gradients, so both are kept, whichever is wanted.
        let (sx, sw) = (tape.save(&x), tape.save(&weight));
        let (high, wide) = (window.over(x.dim(2)), window.over(x.dim(3)));
        let out = self.empty(&[x.dim(0), weight.dim(0), high, wide], x.dtype());
        let columns = columns(&weight, high.saturating_mul(wide));
        let library = (x.dtype() != DType::BF16 || cudnn.bfloat16).then_some(cudnn);
        match library {
            Some(cudnn) => {
                let _copy = (order == WeightOrder::Copied).then(|| self.empty_like(&weight));
                drop(self.scratch(cudnn.workspace));
            }
            None if window.unfolds() => {
                let unfolded = self.empty(&columns, x.dtype());
                self.workspace("cublas", CUBLAS_WORKSPACE);
                drop(unfolded);
            }
            None => self.workspace("cublas", CUBLAS_WORKSPACE),
        }
        let (of_x, of_w) = (Rc::clone(&x.shape), Rc::clone(&weight.shape));
        tape.finish(out, move |t, grad, wants| {
            let (_x, _w) = (sx.unpack(t), sw.unpack(t));
            let mut unfolded = None;
            let mut part = |i: usize, shape: &[u64]| {
                let part = (*wants.get(i)?).then(|| t.empty(shape, grad.dtype()))?;
                match library {
                    Some(cudnn) => drop(t.scratch(cudnn.workspace)),
                    None => {
                        unfolded.get_or_insert_with(|| t.empty(&columns, grad.dtype()));
                    }
                }
                Some(part)
            };
            let (dx, dw) = (part(0, &of_x), part(1, &of_w));
            drop(unfolded);
            let wants_bias = wants.get(2).is_some_and(|wants| *wants);
            let db = wants_bias.then(|| t.empty(&[grad.dim(1)], grad.dtype()));
            vec![dx, dw, db]
        })
    }
}

/// One image unfolded: a column for each place of the kernel.
fn columns(weight: &Tensor, places: u64) -> [u64; 2] {
    let side = weight.dim(1).saturating_mul(weight.dim(2)).saturating_mul(weight.dim(3));
    [side, places]
}
