//! The way down: what a UNet and a ControlNet have in common.

use super::{
    attention::How,
    blocks::{Downsample, ResnetBlock, Transformer2d, TransformerConfig},
    embed::{Embed, sinusoids},
    image::Image,
    layers::{Builder, Conv},
};
use crate::workload::torch::{DType, Tensor, Torch, Window};

/// Sizes of a level of a UNet.
#[derive(Clone, Copy, Debug)]
pub struct LevelConfig {
    /// Channels.
    pub channels: u64,
    /// Blocks in each transformer on the way down; 0: there is none.
    pub transformer: u64,
    /// Heads of its attention.
    pub heads: u64,
}

/// Sizes of a UNet.
#[derive(Clone, Copy, Debug)]
pub struct UnetConfig {
    /// The levels, from the full size down.
    pub levels: &'static [LevelConfig],
    /// Width of the text's tokens.
    pub text: u64,
    /// Whether tokens, not images, are projected before the transformers.
    pub linear: bool,
    /// Width of what else the time's embedding is told (`text_time`), if anything.
    pub added: Option<u64>,
}

impl UnetConfig {
    /// Channels of the full size.
    pub fn first(&self) -> u64 {
        self.levels.first().map_or(0, |level| level.channels)
    }

    /// Width of the embedding of the time.
    pub fn time(&self) -> u64 {
        4 * self.first()
    }

    /// The transformers of a level.
    pub fn transformer(&self, level: LevelConfig, how: How) -> TransformerConfig {
        TransformerConfig {
            layers: level.transformer,
            heads: level.heads,
            text: self.text,
            linear: self.linear,
            how,
        }
    }
}

/// ResNet blocks of a level on the way down; there is one more on the way up.
pub const BLOCKS: u64 = 2;
/// Channels of a latent.
pub const LATENT_CHANNELS: u64 = 4;

/// A level on the way down, or up.
#[derive(Clone, Debug)]
pub struct Level<Resize> {
    /// A block each.
    pub resnets: Vec<ResnetBlock>,
    /// One for each block, or none at all.
    pub transformers: Vec<Transformer2d>,
    /// To the next level, if there is one.
    pub resize: Option<Resize>,
}

/// What a UNet is told beside the image.
#[derive(Clone, Debug)]
pub struct Condition {
    /// The text's tokens.
    pub text: Tensor,
    /// The pooled text, for those that look at it.
    pub pooled: Option<Tensor>,
}

/// The way down.
#[derive(Debug)]
pub struct Down {
    config: UnetConfig,
    conv_in: Conv,
    time: Embed,
    added: Option<Embed>,
    levels: Vec<Level<Downsample>>,
}

/// What comes of the way down.
#[derive(Debug)]
pub struct DownResult {
    /// The smallest image.
    pub h: Image,
    /// What the way up needs.
    pub kept: Vec<Image>,
    /// The sines and cosines of the time.
    pub time: Tensor,
    /// The embedding of the time, and of what else the model is told.
    pub emb: Tensor,
    /// What the model was told beside the time.
    pub told: Option<Tensor>,
}

/// Numbers that Stable Diffusion XL is told of an image: its size, its crop, and its goal.
const IDS: u64 = 6;
/// Sines and cosines for each.
const ID_WIDTH: u64 = 256;

impl Down {
    /// The way down of a UNet; `hint` makes layers between the embeddings and the levels.
    pub fn new(
        b: &mut Builder,
        config: UnetConfig,
        how: How,
        hint: impl FnOnce(&mut Builder),
    ) -> Self {
        let (first, time) = (config.first(), config.time());
        let conv_in = b.conv(LATENT_CHANNELS, first, Window::same(3));
        let embed = Embed::new(b, first, time);
        let added = config.added.map(|inputs| Embed::new(b, inputs, time));
        hint(b);
        let mut levels = Vec::new();
        let mut inputs = first;
        for (i, level) in config.levels.iter().enumerate() {
            let transformers = Self::transformers(b, &config, *level, BLOCKS, how);
            let mut resnets = Vec::new();
            for _ in 0..BLOCKS {
                resnets.push(ResnetBlock::new(b, inputs, level.channels, Some(time)));
                inputs = level.channels;
            }
            let last = i + 1 == config.levels.len();
            let resize = (!last).then(|| Downsample::new(b, level.channels, 1));
            levels.push(Level { resnets, transformers, resize });
        }
        Self { config, conv_in, time: embed, added, levels }
    }

    pub(super) fn transformers(
        b: &mut Builder,
        config: &UnetConfig,
        level: LevelConfig,
        n: u64,
        how: How,
    ) -> Vec<Transformer2d> {
        if level.transformer == 0 {
            return Vec::new();
        }
        let of = config.transformer(level, how);
        (0..n).map(|_| Transformer2d::new(b, level.channels, &of)).collect()
    }

    /// Goes down with `x`, to which what `hint` gives is added first.
    ///
    /// # Source
    /// diffusers 0.42, `models/unets/unet_2d_condition.py`.
    pub fn forward(
        &self,
        t: &Torch,
        x: &Tensor,
        condition: &Condition,
        hint: impl FnOnce() -> Option<Image>,
    ) -> DownResult {
        let time = sinusoids(t, x.dim(0), self.config.first(), x.dtype());
        let mut emb = self.time.forward(t, &time);
        let mut told = None;
        if let Some((added, pooled)) = self.added.as_ref().zip(condition.pooled.as_ref()) {
            let more = {
                let ids = sinusoids(t, IDS * x.dim(0), ID_WIDTH, DType::F32);
                let mut both = t.empty(&[x.dim(0), pooled.dim(1) + IDS * ID_WIDTH], DType::F32);
                both = t.to(&both, x.dtype());
                let more = added.forward(t, &both);
                drop(ids);
                more
            };
            emb = t.add(&emb, &more);
            told = Some(more);
        }
        let mut h = self.conv_in.forward(t, &Image::in_order(x.clone()));
        if let Some(hint) = hint() {
            h = h.add(t, &hint);
        }
        let mut kept = vec![h.clone()];
        for level in &self.levels {
            for (i, resnet) in level.resnets.iter().enumerate() {
                h = resnet.forward(t, &h, Some(&emb));
                if let Some(transformer) = level.transformers.get(i) {
                    h = transformer.forward(t, &h, &condition.text);
                }
                kept.push(h.clone());
            }
            if let Some(resize) = &level.resize {
                h = resize.forward(t, &h);
                kept.push(h.clone());
            }
        }
        DownResult { h, kept, time, emb, told }
    }

    /// Channels of each image that the way up gets.
    pub fn kept_channels(config: &UnetConfig) -> Vec<u64> {
        let mut kept = vec![config.first()];
        for (i, level) in config.levels.iter().enumerate() {
            let resized = u64::from(i + 1 < config.levels.len());
            kept.extend((0..BLOCKS + resized).map(|_| level.channels));
        }
        kept
    }
}
