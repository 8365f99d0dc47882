//! What UNets and autoencoders are made of.

use super::{
    attention::{Attention, How},
    image::Image,
    layers::{Builder, Conv, GroupNorm, LayerNorm, Linear},
};
use crate::workload::torch::{Tensor, Torch, Window};

/// `ResnetBlock2D`.
#[derive(Clone, Debug)]
pub struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv,
    time: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv,
    shortcut: Option<Conv>,
}

impl ResnetBlock {
    /// From so many channels to so many, with an embedding of the time of width `time`.
    pub fn new(b: &mut Builder, inputs: u64, outputs: u64, time: Option<u64>) -> Self {
        Self {
            norm1: b.group_norm(inputs),
            conv1: b.conv(inputs, outputs, Window::same(3)),
            time: time.map(|width| b.linear(width, outputs, true)),
            norm2: b.group_norm(outputs),
            conv2: b.conv(outputs, outputs, Window::same(3)),
            shortcut: (inputs != outputs).then(|| b.conv(inputs, outputs, Window::same(1))),
        }
    }

    /// `block(x, time)`.
    ///
    /// # Source
    /// diffusers 0.42, `models/resnet.py`, `ResnetBlock2D.forward`.
    pub fn forward(&self, t: &Torch, x: &Image, time: Option<&Tensor>) -> Image {
        let mut h = self.norm1.forward(t, x);
        h = h.silu(t);
        h = self.conv1.forward(t, &h);
        let time = self.time.as_ref().zip(time).map(|(layer, time)| {
            let active = t.activation(time);
            let out = layer.forward(t, &active);
            out.shaped(&[out.dim(0), out.dim(1), 1, 1])
        });
        if let Some(time) = &time {
            h = Image { data: t.add(&h.data, time), layout: h.layout };
        }
        h = self.norm2.forward(t, &h);
        h = h.silu(t);
        h = self.conv2.forward(t, &h);
        let shortcut = self.shortcut.as_ref().map(|conv| conv.forward(t, x));
        let mut out = shortcut.as_ref().unwrap_or(x).add(t, &h);
        out = out.scale(t);
        drop(shortcut);
        drop(time);
        drop(h);
        out
    }
}

/// `BasicTransformerBlock`: attention to itself, to the text, and a gated network.
#[derive(Clone, Debug)]
struct TransformerBlock {
    norms: [LayerNorm; 3],
    to_itself: Attention,
    to_text: Attention,
    gate: Linear,
    out: Linear,
}

impl TransformerBlock {
    fn new(b: &mut Builder, width: u64, text: u64, heads: u64, how: How) -> Self {
        let norm1 = b.layer_norm(width);
        let to_itself = Attention::new(b, width, width, heads, false, how);
        let norm2 = b.layer_norm(width);
        let to_text = Attention::new(b, width, text, heads, false, how);
        let norm3 = b.layer_norm(width);
        Self {
            norms: [norm1, norm2, norm3],
            to_itself,
            to_text,
            gate: b.linear(width, 8 * width, true),
            out: b.linear(4 * width, width, true),
        }
    }

    fn forward(&self, t: &Torch, x: &Tensor, strided: bool, text: &Tensor) -> Tensor {
        let [norm1, norm2, norm3] = &self.norms;
        let mut normed = norm1.forward(t, x, strided);
        let mut attended = self.to_itself.forward(t, &normed, &normed);
        let mut h = t.add(&attended, x);
        normed = norm2.forward(t, &h, false);
        attended = self.to_text.forward(t, &normed, text);
        h = t.add(&attended, &h);
        normed = norm3.forward(t, &h, false);
        let gated = {
            let both = self.gate.forward(t, &normed);
            let half = both.dim(2) / 2;
            let part = both.shaped(&[both.dim(0), both.dim(1), half]);
            drop(both);
            let gate = t.activation(&part);
            t.mul(&part, &gate)
        };
        let network = self.out.forward(t, &gated);
        drop(gated);
        h = t.add(&network, &h);
        drop((normed, attended, network));
        h
    }
}

/// How a [`Transformer2d`] projects what it gets, and gives.
#[derive(Clone, Debug)]
enum Projection {
    /// `use_linear_projection=False`: the image.
    OfImage(Conv),
    /// `use_linear_projection=True`: its tokens.
    OfTokens(Linear),
}

/// `Transformer2DModel`.
#[derive(Clone, Debug)]
pub struct Transformer2d {
    norm: GroupNorm,
    projection_in: Projection,
    blocks: Vec<TransformerBlock>,
    projection_out: Projection,
}

/// Sizes of the transformers of a UNet.
#[derive(Clone, Copy, Debug)]
pub struct TransformerConfig {
    /// Blocks of each.
    pub layers: u64,
    /// Heads.
    pub heads: u64,
    /// Width of the text's tokens.
    pub text: u64,
    /// `use_linear_projection`.
    pub linear: bool,
    /// How attention is computed.
    pub how: How,
}

impl Transformer2d {
    /// Over images of so many channels.
    pub fn new(b: &mut Builder, channels: u64, config: &TransformerConfig) -> Self {
        let norm = b.group_norm(channels);
        let project = |b: &mut Builder| match config.linear {
            true => Projection::OfTokens(b.linear(channels, channels, true)),
            false => Projection::OfImage(b.conv(channels, channels, Window::same(1))),
        };
        let projection_in = project(b);
        let block = |b: &mut Builder| {
            TransformerBlock::new(b, channels, config.text, config.heads, config.how)
        };
        let blocks = (0..config.layers).map(|_| block(b)).collect();
        Self { norm, projection_in, blocks, projection_out: project(b) }
    }

    /// `model(x, text)`.
    ///
    /// # Source
    /// diffusers 0.42, `models/transformers/transformer_2d.py`.
    pub fn forward(&self, t: &Torch, x: &Image, text: &Tensor) -> Image {
        let mut strided = true;
        let mut h = {
            let normed = self.norm.forward(t, x);
            match &self.projection_in {
                Projection::OfImage(conv) => conv.forward(t, &normed).tokens(),
                Projection::OfTokens(linear) => {
                    strided = false;
                    linear.forward_strided(t, &normed.tokens())
                }
            }
        };
        for block in &self.blocks {
            h = block.forward(t, &h, strided, text);
            strided = false;
        }
        let back = |tokens: &Tensor| Image::in_order(t.copy(tokens).shaped(x.data.shape()));
        let projected = match &self.projection_out {
            Projection::OfImage(conv) => {
                let image = back(&h);
                conv.forward(t, &image)
            }
            Projection::OfTokens(linear) => {
                let tokens = linear.forward(t, &h);
                back(&tokens)
            }
        };
        let out = projected.add(t, x);
        drop(projected);
        drop(h);
        out
    }
}

/// `Downsample2D`, with a convolution.
#[derive(Clone, Debug)]
pub struct Downsample(Conv);

impl Downsample {
    /// Of so many channels.
    pub fn new(b: &mut Builder, channels: u64, padding: u64) -> Self {
        Self(b.conv(channels, channels, Window { kernel: 3, stride: 2, padding }))
    }

    /// `layer(x)`.
    pub fn forward(&self, t: &Torch, x: &Image) -> Image {
        self.0.forward(t, x)
    }
}

/// `Upsample2D`, with a convolution.
#[derive(Clone, Debug)]
pub struct Upsample(Conv);

impl Upsample {
    /// Of so many channels.
    pub fn new(b: &mut Builder, channels: u64) -> Self {
        Self(b.conv(channels, channels, Window::same(3)))
    }

    /// `layer(x)`, to these sides if given.
    pub fn forward(&self, t: &Torch, x: &Image, sides: Option<[u64; 2]>) -> Image {
        let larger = x.upsample(t, sides);
        self.0.forward(t, &larger)
    }
}
