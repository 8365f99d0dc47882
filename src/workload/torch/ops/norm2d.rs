//! Normalisations of images.

use std::rc::Rc;

use crate::workload::torch::{DType, Tensor, Torch};

impl Torch {
    /// `F.batch_norm` with the statistics of the batch (`training`) or with known ones: keeps the
    /// input, and in training two numbers a channel.
    ///
    /// # Source
    /// `scenarios/batch_resnet50__b64`: entries 343 to 345 forward, 848 to 855 backward.
    pub fn batch_norm(&self, x: &Tensor, weight: &Tensor, bias: &Tensor, training: bool) -> Tensor {
        let tape = self.tape(&[x, weight, bias]);
        let (saved, saved_weight) = (tape.save(x), tape.save(weight));
        let out = self.empty_like(x);
        let statistics: Vec<_> = (0..if training { 2 } else { 0 })
            .map(|_| self.empty(&[x.dim(1)], DType::F32))
            .collect();
        let statistics: Vec<_> = statistics.into_iter().map(|s| tape.save(&s)).collect();
        let (of_w, w_dtype) = (Rc::clone(&weight.shape), weight.dtype());
        let of_x = Rc::clone(&x.shape);
        tape.finish(out, move |t, grad, wants| {
            let _saved = (saved.unpack(t), saved_weight.unpack(t));
            let _statistics: Vec<_> = statistics.into_iter().map(|s| s.unpack(t)).collect();
            let dx = wants[0].then(|| t.empty(&of_x, grad.dtype()));
            let part = |i: usize| wants[i].then(|| t.empty(&of_w, w_dtype));
            vec![dx, part(1), part(2)]
        })
    }

    /// `F.group_norm(x, groups, weight, bias)`: keeps the input and two numbers a group; two more a
    /// channel are gone at once.
    ///
    /// # Source
    /// `aten/src/ATen/native/cuda/group_norm_kernel.cu`, `GroupNormKernelImplInternal`, 2.11;
    /// `scenarios/diffusion_512_n1__attn_sdpa`: entries 2093 to 2097.
    pub fn group_norm(&self, x: &Tensor, groups: u64, weight: &Tensor, bias: &Tensor) -> Tensor {
        let tape = self.tape(&[x, weight, bias]);
        let (saved, saved_weight) = (tape.save(x), tape.save(weight));
        let out = self.empty_like(x);
        let (of_group, of_channel) = ([x.dim(0), groups], [x.dim(0), x.dim(1)]);
        let (mean, rstd) = (self.empty(&of_group, x.dtype()), self.empty(&of_group, x.dtype()));
        let scale = self.empty(&of_channel, DType::F32);
        drop(self.empty(&of_channel, DType::F32));
        drop(scale);
        let statistics = [tape.save(&mean), tape.save(&rstd)];
        drop((mean, rstd));
        let (of_x, of_w) = (Rc::clone(&x.shape), Rc::clone(&weight.shape));
        tape.finish(out, move |t, grad, wants| {
            let _saved = (saved.unpack(t), saved_weight.unpack(t));
            let _statistics = statistics.map(|s| s.unpack(t));
            let dx = wants[0].then(|| t.empty(&of_x, grad.dtype()));
            let part = |i: usize| wants[i].then(|| t.empty(&of_w, grad.dtype()));
            vec![dx, part(1), part(2)]
        })
    }
}
