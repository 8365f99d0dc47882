//! Layers of inference: weights that lie on the device, or come for the time of a call.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use super::image::{Image, Layout};
use crate::workload::{
    Label,
    torch::{Cudnn, DType, Tensor, Torch, WeightOrder, Window},
};

/// The weights of one layer.
#[derive(Clone, Debug)]
struct Weights(Rc<Held>);

#[derive(Debug)]
struct Held {
    shapes: Vec<Vec<u64>>,
    dtype: Cell<DType>,
    /// A buffer that no file holds: offloading layer by layer leaves it on the device.
    stays: bool,
    here: RefCell<Vec<Tensor>>,
    /// Whether they come for each call alone.
    visits: Cell<bool>,
}

impl Weights {
    /// Brings them to the device; those that are there already are made anew one by one.
    fn load(&self, t: &Torch) {
        let mut here = self.0.here.borrow_mut();
        for (i, shape) in self.0.shapes.iter().enumerate() {
            let weight = t.empty_as(shape, self.0.dtype.get(), Label::Parameter);
            match here.get_mut(i) {
                Some(before) => *before = weight,
                None => here.push(weight),
            }
        }
    }

    fn unload(&self) {
        let here = std::mem::take(&mut *self.0.here.borrow_mut());
        here.into_iter().for_each(drop);
    }

    /// Runs `f` with the weights. Those that come for the call are loaded one by one, with
    /// `empty_cache` after each, as accelerate does.
    ///
    /// # Source
    /// accelerate 1.15, `hooks.py`, `AlignDevicesHook`, and `utils/modeling.py`,
    /// `set_module_tensor_to_device`.
    fn with<R>(&self, t: &Torch, f: impl FnOnce(&[Tensor]) -> R) -> R {
        if !self.0.visits.get() {
            let here = self.0.here.borrow().clone();
            return f(&here);
        }
        let load = |shape: &Vec<u64>| {
            let weight = t.empty_as(shape, self.0.dtype.get(), Label::Parameter);
            t.empty_cache();
            weight
        };
        let here: Vec<_> = self.0.shapes.iter().map(load).collect();
        let result = f(&here);
        here.into_iter().for_each(drop);
        result
    }
}

/// A model: its layers in the order in which `Module.to` moves them.
#[derive(Debug)]
pub struct Model {
    layers: Vec<Weights>,
}

impl Model {
    /// `model.to("cuda")`.
    pub fn load(&self, t: &Torch) {
        self.layers.iter().for_each(|layer| layer.load(t));
    }

    /// `model.to("cpu")`.
    pub fn unload(&self) {
        self.layers.iter().for_each(Weights::unload);
    }

    /// The model is no more: a module lets go of its own buffers first.
    pub fn leave(&self) {
        self.layers.iter().filter(|layer| layer.0.stays).for_each(Weights::unload);
        self.unload();
    }

    /// `model.to(dtype)`, wherever it is.
    pub fn convert(&self, t: &Torch, dtype: DType) {
        for layer in self.layers.iter().filter(|layer| layer.0.dtype.get().is_floating()) {
            layer.0.dtype.set(dtype);
            if !layer.0.here.borrow().is_empty() {
                layer.load(t);
            }
        }
    }

    /// How many numbers it has to be trained.
    pub fn parameters(&self) -> u64 {
        let layers = self.layers.iter().filter(|layer| layer.0.dtype.get().is_floating());
        let shapes = layers.flat_map(|layer| &layer.0.shapes);
        shapes.map(|shape| shape.iter().product::<u64>()).sum()
    }

    /// `accelerate.cpu_offload(model, offload_buffers=True)`: each layer comes for its call.
    pub fn offload_layers(&self, t: &Torch) {
        for layer in &self.layers {
            if layer.0.stays {
                layer.load(t);
            } else {
                layer.0.visits.set(true);
            }
        }
    }
}

/// Makes the layers of a model, in order, without memory on the device.
#[derive(Debug)]
pub struct Builder {
    dtype: DType,
    cudnn: Cudnn,
    layers: Vec<Weights>,
}

impl Builder {
    /// Of a model in `dtype`.
    pub fn new(dtype: DType, cudnn: Cudnn) -> Self {
        Self { dtype, cudnn, layers: Vec::new() }
    }

    /// The model that was made.
    pub fn finish(self) -> Model {
        Model { layers: self.layers }
    }

    fn weights(&mut self, shapes: &[&[u64]]) -> Weights {
        let dtype = self.dtype;
        self.held(shapes, dtype, false)
    }

    fn held(&mut self, shapes: &[&[u64]], dtype: DType, stays: bool) -> Weights {
        let weights = Weights(Rc::new(Held {
            shapes: shapes.iter().map(|shape| shape.to_vec()).collect(),
            dtype: Cell::new(dtype),
            stays,
            here: RefCell::default(),
            visits: Cell::new(false),
        }));
        self.layers.push(weights.clone());
        weights
    }

    /// A buffer of the places of tokens.
    pub fn places(&mut self, n: u64) {
        self.held(&[&[n]], DType::I64, true);
    }

    /// `nn.Linear`.
    pub fn linear(&mut self, inputs: u64, outputs: u64, bias: bool) -> Linear {
        let (weight, of_bias) = ([outputs, inputs], [outputs]);
        let shapes: &[&[u64]] = if bias { &[&weight, &of_bias] } else { &[&weight] };
        Linear { weights: self.weights(shapes) }
    }

    /// `nn.Conv2d`, with bias.
    pub fn conv(&mut self, inputs: u64, outputs: u64, window: Window) -> Conv {
        let weight = [outputs, inputs, window.kernel, window.kernel];
        Conv { weights: self.weights(&[&weight, &[outputs]]), window, cudnn: self.cudnn }
    }

    /// `nn.GroupNorm` with 32 groups.
    pub fn group_norm(&mut self, channels: u64) -> GroupNorm {
        GroupNorm { weights: self.weights(&[&[channels], &[channels]]) }
    }

    /// `nn.LayerNorm`.
    pub fn layer_norm(&mut self, width: u64) -> LayerNorm {
        LayerNorm { weights: self.weights(&[&[width], &[width]]) }
    }

    /// A norm with factors alone.
    pub fn rms_norm(&mut self, width: u64) -> RmsNorm {
        RmsNorm { weights: self.weights(&[&[width]]) }
    }

    /// `nn.Embedding`.
    pub fn embedding(&mut self, rows: u64, width: u64) -> Embedding {
        Embedding { weights: self.weights(&[&[rows, width]]) }
    }
}

/// `nn.Linear`.
#[derive(Clone, Debug)]
pub struct Linear {
    weights: Weights,
}

impl Linear {
    /// `layer(x)`.
    pub fn forward(&self, t: &Torch, x: &Tensor) -> Tensor {
        self.weights.with(t, |w| match w {
            [weight, rest @ ..] => t.linear(x, weight, rest.first()),
            [] => x.clone(),
        })
    }

    /// `layer(x)` of tokens that do not lie in order: they are copied first, unless there is one
    /// sequence alone.
    ///
    /// # Source
    /// `aten/src/ATen/native/Linear.cpp`, `linear`, and `LinearAlgebra.cpp`, `_matmul_impl`, 2.11;
    /// `scenarios/diffusion_512_n4__attn_sdpa`.
    pub fn forward_strided(&self, t: &Torch, x: &Tensor) -> Tensor {
        self.weights.with(t, |w| {
            let folded = if x.dim(0) > 1 { t.copy(x) } else { x.clone() };
            match w {
                [weight, rest @ ..] => t.linear(&folded, weight, rest.first()),
                [] => folded,
            }
        })
    }
}

/// `nn.Conv2d`.
#[derive(Clone, Debug)]
pub struct Conv {
    weights: Weights,
    window: Window,
    cudnn: Cudnn,
}

impl Conv {
    /// `layer(x)`: an image with the channels last is convolved so, with a copy of the weight in that
    /// order; one in no usual order is copied.
    ///
    /// # Source
    /// `aten/src/ATen/native/cudnn/ConvShared.cpp`, `cudnn_convolution`, 2.11;
    /// `scenarios/diffusion_512_n4__attn_sdpa`, `diffusion_vae_768_n4__tiling`.
    pub fn forward(&self, t: &Torch, x: &Image) -> Image {
        self.weights.with(t, |w| {
            let [weight, bias] = w else { return x.clone() };
            let input = if x.layout == Layout::Other { t.copy(&x.data) } else { x.data.clone() };
            let last = x.layout == Layout::ChannelsLast;
            let order = if last && self.window.kernel > 1 {
                WeightOrder::Copied
            } else {
                WeightOrder::AsItLies
            };
            let (window, cudnn) = (self.window, self.cudnn);
            let data = t.conv2d_with(&input, weight, Some(bias), window, cudnn, order);
            let layout = if last { Layout::ChannelsLast } else { Layout::InOrder };
            Image { data, layout }
        })
    }
}

/// `nn.GroupNorm`.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    weights: Weights,
}

impl GroupNorm {
    /// `layer(x)`: in order, whatever the order of `x`.
    pub fn forward(&self, t: &Torch, x: &Image) -> Image {
        self.weights.with(t, |w| {
            let [weight, bias] = w else { return x.clone() };
            let in_order = match x.layout {
                Layout::InOrder => x.data.clone(),
                Layout::ChannelsLast | Layout::Other => t.copy(&x.data),
            };
            Image::in_order(t.group_norm(&in_order, GROUPS, weight, bias))
        })
    }
}

/// Groups of channels in the norms of these models.
pub const GROUPS: u64 = 32;

/// `nn.LayerNorm`.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weights: Weights,
}

impl LayerNorm {
    /// `layer(x)` of one without weights.
    pub fn plain(t: &Torch, x: &Tensor) -> Tensor {
        Self::compute(t, x, false)
    }

    /// `layer(x)`; `strided` if `x` does not lie in order.
    pub fn forward(&self, t: &Torch, x: &Tensor, strided: bool) -> Tensor {
        self.weights.with(t, |_| Self::compute(t, x, strided))
    }

    fn compute(t: &Torch, x: &Tensor, strided: bool) -> Tensor {
        let in_order = strided.then(|| t.copy(x));
        let out = t.empty_like(x);
        let rows = x.numel().checked_div(x.dim(-1)).unwrap_or(0);
        let mean = t.empty(&[rows], DType::F32);
        let rstd = t.empty(&[rows], DType::F32);
        drop((in_order, mean, rstd));
        out
    }
}

/// A norm by the root of the mean square, with factors.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    weights: Weights,
}

impl RmsNorm {
    /// `nn.RMSNorm`, by one operator.
    ///
    /// # Source
    /// `aten/src/ATen/native/layer_norm.cpp`, `rms_norm`, 2.11.
    pub fn forward(&self, t: &Torch, x: &Tensor) -> Tensor {
        self.weights.with(t, |_| {
            let out = t.empty_like(x);
            let rows = x.numel().checked_div(x.dim(-1)).unwrap_or(0);
            drop(t.empty(&[rows], DType::F32));
            out
        })
    }

    /// `T5LayerNorm`, step by step, in float32.
    ///
    /// # Source
    /// transformers 5.23, `models/t5/modeling_t5.py`.
    pub fn forward_by_steps(&self, t: &Torch, x: &Tensor) -> Tensor {
        self.weights.with(t, |_| {
            let mut rows = x.shape().to_vec();
            rows.pop();
            let variance = {
                let mut wide = t.to(x, DType::F32);
                wide = t.empty_like(&wide);
                t.empty_of(&wide.shaped(&rows), DType::F32)
            };
            let mut h = {
                let mut root = t.empty_like(&variance);
                root = t.empty_like(&root);
                let h = t.empty_of(x, DType::F32);
                drop(root);
                h
            };
            h = t.to(&h, x.dtype());
            let out = t.empty_like(&h);
            drop((variance, h));
            out
        })
    }
}

/// `nn.Embedding`.
#[derive(Clone, Debug)]
pub struct Embedding {
    weights: Weights,
}

impl Embedding {
    /// `layer(ids)`.
    pub fn forward(&self, t: &Torch, ids: &Tensor) -> Tensor {
        self.weights.with(t, |w| match w {
            [weight, ..] => t.embedding(ids, weight),
            [] => ids.clone(),
        })
    }
}
