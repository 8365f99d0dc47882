//! ResNets of torchvision, in training and inference.

use super::{Preset, Workload};
use crate::workload::{
    Label, WorkloadError,
    parameter::{choice, in_range, parameters},
    torch::{
        Cudnn, DType, Optimizer, Tensor, Torch, Window,
        nn::Linear,
        nn2d::{BatchNorm2d, Conv2d, convert_parameter},
        optim::Sgd,
        scaler::GradScaler,
    },
};

/// A convolution and its norm.
#[derive(Clone, Debug)]
struct Step {
    conv: Conv2d,
    norm: BatchNorm2d,
}

impl Step {
    fn new(t: &Torch, inputs: u64, outputs: u64, window: Window, cudnn: Cudnn) -> Self {
        let conv = Conv2d::new(t, inputs, outputs, window, cudnn);
        Self { conv, norm: BatchNorm2d::new(t, outputs) }
    }

    fn forward(&self, t: &Torch, x: &Tensor, training: bool) -> Tensor {
        let y = self.conv.forward(t, x);
        self.norm.forward(t, &y, training)
    }
}

/// Convolutions beside a residual: two in the smaller nets (`BasicBlock`), three in the larger
/// (`Bottleneck`).
#[derive(Clone, Debug)]
struct Block {
    steps: Vec<Step>,
    /// Brings the input to the size of the result.
    downsample: Option<Step>,
}

impl Block {
    fn new(t: &Torch, inputs: u64, width: u64, stride: u64, deep: bool, cudnn: Cudnn) -> Self {
        let outputs = if deep { 4 * width } else { width };
        let strided = |kernel: u64| Window { stride, ..Window::same(kernel) };
        let downsample = (stride != 1 || inputs != outputs)
            .then(|| Step::new(t, inputs, outputs, strided(1), cudnn));
        let shapes: &[(u64, u64, Window)] = if deep {
            &[
                (inputs, width, Window::same(1)),
                (width, width, strided(3)),
                (width, outputs, Window::same(1)),
            ]
        } else {
            &[(inputs, width, strided(3)), (width, width, Window::same(3))]
        };
        let steps = shapes.iter().map(|(i, o, window)| Step::new(t, *i, *o, *window, cudnn));
        Self { steps: steps.collect(), downsample }
    }

    /// `relu(steps(x) + downsample(x))`; the caller keeps `x` until it has the result.
    fn forward(&self, t: &Torch, x: &Tensor, training: bool) -> Tensor {
        let mut out = x.clone();
        for (i, step) in self.steps.iter().enumerate() {
            out = step.conv.forward(t, &out);
            out = step.norm.forward(t, &out, training);
            if i + 1 < self.steps.len() {
                out = t.relu_(out);
            }
        }
        let identity = match &self.downsample {
            Some(step) => step.forward(t, x, training),
            None => x.clone(),
        };
        out = t.add_(out, &identity);
        t.relu_(out)
    }

    fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().chain(&self.downsample)
    }
}

/// A ResNet for images of `[batch, 3, side, side]`.
#[derive(Clone, Debug)]
pub struct ResNet {
    stem: Step,
    layers: Vec<Vec<Block>>,
    head: Linear,
}

impl ResNet {
    /// Blocks of each of the four layers, and whether a block has three convolutions.
    fn blocks(depth: u64) -> Option<([u64; 4], bool)> {
        match depth {
            18 => Some(([2, 2, 2, 2], false)),
            34 => Some(([3, 4, 6, 3], false)),
            50 => Some(([3, 4, 6, 3], true)),
            101 => Some(([3, 4, 23, 3], true)),
            152 => Some(([3, 8, 36, 3], true)),
            _ => None,
        }
    }

    /// A net on the device, in float32; `None` if there is none of this depth.
    pub fn new(t: &Torch, depth: u64, classes: u64, cudnn: Cudnn) -> Option<Self> {
        let (blocks, deep) = Self::blocks(depth)?;
        let stem = Step::new(t, 3, 64, Window { stride: 2, ..Window::same(7) }, cudnn);
        let mut inputs = 64;
        let mut layers = Vec::new();
        for (i, (blocks, width)) in blocks.into_iter().zip([64, 128, 256, 512]).enumerate() {
            let mut layer = Vec::new();
            for block in 0..blocks {
                let stride = if i > 0 && block == 0 { 2 } else { 1 };
                layer.push(Block::new(t, inputs, width, stride, deep, cudnn));
                inputs = if deep { 4 * width } else { width };
            }
            layers.push(layer);
        }
        Some(Self { stem, layers, head: Linear::new(t, inputs, classes, true, DType::F32) })
    }

    /// Scores of images, which the caller keeps.
    pub fn forward(&self, t: &Torch, images: &Tensor, training: bool) -> Tensor {
        let mut x = self.stem.conv.forward(t, images);
        x = self.stem.norm.forward(t, &x, training);
        x = t.relu_(x);
        x = t.max_pool2d(&x, Window { stride: 2, ..Window::same(3) });
        for layer in &self.layers {
            let mut y = x.clone();
            for block in layer {
                y = block.forward(t, &y, training);
            }
            x = y;
        }
        x = t.global_avg_pool2d(&x);
        let flat = t.view(&x, &[x.dim(0), x.dim(1)]);
        drop(x);
        self.head.forward(t, &flat)
    }

    fn steps(&self) -> impl Iterator<Item = &Step> {
        let blocks = self.layers.iter().flatten();
        std::iter::once(&self.stem).chain(blocks.flat_map(Block::steps))
    }

    /// `model.to(dtype)`.
    pub fn convert(&mut self, t: &Torch, dtype: DType) {
        let blocks = self.layers.iter_mut().flatten();
        let steps = blocks.flat_map(|block| block.steps.iter_mut().chain(&mut block.downsample));
        for step in std::iter::once(&mut self.stem).chain(steps) {
            step.conv.convert(t, dtype);
            step.norm.convert(t, dtype);
        }
        convert_parameter(t, &mut self.head.weight, dtype);
        if let Some(bias) = &mut self.head.bias {
            convert_parameter(t, bias, dtype);
        }
    }

    /// Its weights, in PyTorch's order.
    pub fn parameters(&self) -> Vec<Tensor> {
        let of = |step: &Step| [step.conv.parameters(), step.norm.parameters()].concat();
        self.steps().flat_map(of).chain(self.head.parameters()).collect()
    }
}

choice! {
    /// What is done with the net.
    pub enum Use {
        /// Forward, backward and step.
        Train = "train",
        /// Inference that records a graph for nothing.
        Grad = "grad",
        /// Inference in `no_grad` or `inference_mode`, which ask for the same memory.
        NoGrad = "no-grad",
    }
}

choice! {
    /// Which numbers it computes with.
    pub enum Precision {
        /// All in float32.
        Full = "fp32",
        /// Weights in float32, products in bfloat16 (autocast).
        AmpBf16 = "amp-bf16",
        /// Weights in float32, products in float16 (autocast), losses scaled.
        AmpFp16 = "amp-fp16",
        /// All in bfloat16.
        PureBf16 = "bf16",
    }
}

parameters! {
    /// A ResNet in training by SGD, or in inference.
    pub struct Run {
        /// Layers of the net: 18, 34, 50, 101 or 152.
        depth: u64 = 50;
        /// Images in a batch.
        batch: u64 = 64;
        /// Side of an image, in pixels.
        image: u64 = 224;
        /// Classes.
        classes: u64 = 1000;
        /// Batches.
        steps: u64 = 4;
        /// Training, or inference with or without a graph.
        mode: Use = Use::Train;
        /// Which numbers it computes with.
        precision: Precision = Precision::Full;
        /// Whether SGD has momentum, a tensor like each weight.
        momentum: bool = true;
        /// Whether a variable holds the images until the next ones are there.
        keep_input: bool = false;
        /// Inference: whether a variable holds the scores until the next ones are there.
        keep_output: bool = true;
        /// Scratch memory of a convolution in cuDNN, in MiB; the true figure depends on the kernel it chooses.
        cudnn_workspace: u64 = 16;
        /// Whether cuDNN convolves bfloat16 on this device; else images are unfolded one by one.
        cudnn_bf16: bool = true;
    }
}

/// Well-known sizes.
pub(super) const PRESETS: &[Preset] = &[
    Preset { name: "resnet18", values: &[("depth", "18")] },
    Preset { name: "resnet50", values: &[] },
    Preset { name: "resnet101", values: &[("depth", "101")] },
];

impl Workload for Run {
    fn check(&self) -> Result<(), WorkloadError> {
        if ResNet::blocks(self.depth).is_none() {
            let message = format!("there is no ResNet-{}: 18, 34, 50, 101 or 152", self.depth);
            return Err(WorkloadError::parameter("depth", message));
        }
        in_range("batch", self.batch, 1..=1 << 20)?;
        in_range("image", self.image, 32..=1 << 16)?;
        in_range("classes", self.classes, 1..=1 << 24)?;
        in_range("steps", self.steps, 1..=100_000)?;
        in_range("cudnn_workspace", self.cudnn_workspace, 0..=1 << 20)
    }

    fn run(&self, t: &Torch) -> Result<(), WorkloadError> {
        let cudnn = Cudnn { workspace: self.cudnn_workspace << 20, bfloat16: self.cudnn_bf16 };
        let Some(mut model) = ResNet::new(t, self.depth, self.classes, cudnn) else {
            return self.check();
        };
        if self.precision == Precision::PureBf16 {
            model.convert(t, DType::BF16);
        }
        match self.mode {
            Use::Train => self.train(t, &model),
            Use::Grad => self.infer(t, &model),
            Use::NoGrad => t.no_grad(|| self.infer(t, &model)),
        }
    }
}

impl Run {
    /// The next images, in place of those that the variable `held` holds.
    fn images(&self, t: &Torch, held: &mut Option<Tensor>) -> Tensor {
        let mut images = t.input(&[self.batch, 3, self.image, self.image], DType::F32);
        drop(held.take());
        if self.precision == Precision::PureBf16 {
            images = t.to(&images, DType::BF16).labelled(Label::Input);
        }
        *held = self.keep_input.then(|| images.clone());
        images
    }

    fn autocast(&self) -> Option<DType> {
        match self.precision {
            Precision::AmpBf16 => Some(DType::BF16),
            Precision::AmpFp16 => Some(DType::F16),
            Precision::Full | Precision::PureBf16 => None,
        }
    }

    fn train(&self, t: &Torch, model: &ResNet) -> Result<(), WorkloadError> {
        let mut opt = Sgd::new(model.parameters(), self.momentum);
        let mut scaler = GradScaler::default();
        let (mut held, mut last) = (None, None);
        for _ in 0..self.steps {
            let images = self.images(t, &mut held);
            let loss = t.autocast(self.autocast(), || {
                let scores = {
                    let scores = model.forward(t, &images, true);
                    drop(images);
                    t.to(&scores, DType::F32)
                };
                let classes = t.input(&[self.batch], DType::I64);
                t.cross_entropy(&scores, &classes)
            });
            drop(last.take());
            opt.zero_grad();
            if self.precision == Precision::AmpFp16 {
                let scaled = scaler.scale(t, &loss);
                t.backward(&scaled);
                drop(scaled);
                scaler.step(t, &mut opt);
            } else {
                t.backward(&loss);
                opt.step(t);
            }
            last = Some(loss);
            t.mark("step");
            t.check()?;
        }
        Ok(())
    }

    fn infer(&self, t: &Torch, model: &ResNet) -> Result<(), WorkloadError> {
        let (mut held, mut last) = (None, None);
        for _ in 0..self.steps {
            let images = self.images(t, &mut held);
            let scores = t.autocast(self.autocast(), || model.forward(t, &images, false));
            drop(images);
            drop(last.take());
            drop(t.empty(&[self.batch], DType::I64)); // the best class
            last = self.keep_output.then_some(scores);
            t.mark("step");
            t.check()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Parameters;

    #[test]
    fn nets_have_as_many_weights_as_torchvision_says() {
        let cudnn = Cudnn { workspace: 0, bfloat16: true };
        let weights = |depth| {
            let net = ResNet::new(&Torch::new(1), depth, 1000, cudnn).unwrap();
            net.parameters().iter().map(Tensor::numel).sum::<u64>()
        };
        assert_eq!(weights(18), 11_689_512);
        assert_eq!(weights(34), 21_797_672);
        assert_eq!(weights(50), 25_557_032);
        assert_eq!(weights(101), 44_549_160);
        assert_eq!(weights(152), 60_192_808);
    }

    #[test]
    fn a_depth_that_is_none_is_named() {
        let mut run = Run::default();
        run.set("depth", "20").unwrap();
        let error = run.check().unwrap_err().to_string();
        assert_eq!(error, "depth: there is no ResNet-20: 18, 34, 50, 101 or 152");
    }
}
