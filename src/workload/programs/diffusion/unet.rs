//! The UNet of Stable Diffusion: `UNet2DConditionModel`.

use super::{
    attention::How,
    blocks::{Downsample, ResnetBlock, Transformer2d, TransformerConfig, Upsample},
    image::Image,
    layers::{Builder, Conv, GroupNorm, Linear, Model},
};
use crate::workload::torch::{Cudnn, DType, Tensor, Torch, Window, drop_list};

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

/// ResNet blocks of a level on the way down; there is one more on the way up.
const BLOCKS: u64 = 2;
const LATENT_CHANNELS: u64 = 4;

/// A level on the way down, or up.
#[derive(Clone, Debug)]
struct Level<Resize> {
    resnets: Vec<ResnetBlock>,
    transformers: Vec<Transformer2d>,
    resize: Option<Resize>,
}

/// An embedding of a number by two layers.
#[derive(Clone, Debug)]
pub struct Embed(Linear, Linear);

impl Embed {
    /// From so many numbers to so many.
    pub fn new(b: &mut Builder, inputs: u64, outputs: u64) -> Self {
        Self(b.linear(inputs, outputs, true), b.linear(outputs, outputs, true))
    }

    /// `embed(x)`.
    pub fn forward(&self, t: &Torch, x: &Tensor) -> Tensor {
        let mut h = self.0.forward(t, x);
        h = t.activation(&h);
        self.1.forward(t, &h)
    }
}

/// What a UNet and a ControlNet have in common: the way down, and the middle.
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

/// The blocks in the middle.
#[derive(Debug)]
pub struct Middle {
    transformer: Transformer2d,
    resnets: [ResnetBlock; 2],
}

/// What a UNet is told beside the image.
#[derive(Clone, Debug)]
pub struct Condition {
    /// The text's tokens.
    pub text: Tensor,
    /// The pooled text, for those that look at it.
    pub pooled: Option<Tensor>,
}

/// What ControlNets add to a UNet.
#[derive(Debug)]
pub struct Control {
    /// To each image that the way up gets.
    pub residuals: Vec<Image>,
    /// To the middle.
    pub middle: Image,
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
        let first = config.levels.first().map_or(0, |level| level.channels);
        let time = 4 * first;
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

    fn transformers(
        b: &mut Builder,
        config: &UnetConfig,
        level: LevelConfig,
        n: u64,
        how: How,
    ) -> Vec<Transformer2d> {
        if level.transformer == 0 {
            return Vec::new();
        }
        let of = transformer(config, level, how);
        (0..n).map(|_| Transformer2d::new(b, level.channels, &of)).collect()
    }

    /// The embedding of the time, which is a number on the device.
    ///
    /// # Source
    /// diffusers 0.42, `models/embeddings.py`, `get_timestep_embedding`.
    fn time(&self, t: &Torch, batch: u64, dtype: DType) -> Tensor {
        let first = self.config.levels.first().map_or(0, |level| level.channels);
        sinusoids(t, batch, first, dtype)
    }

    /// `hint` is added to the image first.
    pub fn forward(
        &self,
        t: &Torch,
        x: &Tensor,
        condition: &Condition,
        hint: impl FnOnce() -> Option<Image>,
    ) -> DownResult {
        let time = self.time(t, x.dim(0), x.dtype());
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
        let mut kept = vec![config.levels.first().map_or(0, |level| level.channels)];
        for (i, level) in config.levels.iter().enumerate() {
            let resized = u64::from(i + 1 < config.levels.len());
            kept.extend((0..BLOCKS + resized).map(|_| level.channels));
        }
        kept
    }
}

fn transformer(config: &UnetConfig, level: LevelConfig, how: How) -> TransformerConfig {
    TransformerConfig {
        layers: level.transformer,
        heads: level.heads,
        text: config.text,
        linear: config.linear,
        how,
    }
}

/// Sines and cosines of a number, `width` of them, for each of `rows`.
pub fn sinusoids(t: &Torch, rows: u64, width: u64, dtype: DType) -> Tensor {
    let half = width / 2;
    let line = || t.empty(&[half], DType::F32);
    let of_rows = || t.empty(&[rows, half], DType::F32);
    let both = || t.empty(&[rows, width], DType::F32);
    let range = line();
    let mut exponent = line();
    drop(range);
    exponent = {
        let divided = line();
        drop(exponent);
        divided
    };
    let mut emb = line();
    emb = {
        let numbers = t.empty(&[rows], DType::F32);
        let products = of_rows();
        drop(numbers);
        drop(emb);
        products
    };
    emb = {
        let scaled = of_rows();
        drop(emb);
        scaled
    };
    emb = {
        let (sines, cosines) = (of_rows(), of_rows());
        let joined = both();
        drop(cosines);
        drop(sines);
        drop(emb);
        joined
    };
    emb = {
        let flipped = both();
        drop(emb);
        flipped
    };
    drop(exponent);
    t.to(&emb, dtype)
}

impl Middle {
    /// The middle of a UNet.
    pub fn new(b: &mut Builder, config: &UnetConfig, how: How) -> Option<Self> {
        let time = 4 * config.levels.first()?.channels;
        let last = *config.levels.last()?;
        let of = LevelConfig { transformer: last.transformer.max(1), ..last };
        let transformer = Transformer2d::new(b, last.channels, &transformer(config, of, how));
        let resnet =
            |b: &mut Builder| ResnetBlock::new(b, last.channels, last.channels, Some(time));
        Some(Self { transformer, resnets: [resnet(b), resnet(b)] })
    }

    /// `block(x)`.
    pub fn forward(&self, t: &Torch, x: &Image, emb: &Tensor, text: &Tensor) -> Image {
        let mut h = self.resnets[0].forward(t, x, Some(emb));
        h = self.transformer.forward(t, &h, text);
        h = self.resnets[1].forward(t, &h, Some(emb));
        h
    }
}

/// `UNet2DConditionModel`.
#[derive(Debug)]
pub struct Unet {
    down: Down,
    middle: Option<Middle>,
    up: Vec<Level<Upsample>>,
    norm: GroupNorm,
    conv_out: Conv,
}

impl Unet {
    /// A UNet of these sizes, and its weights.
    pub fn new(config: UnetConfig, how: How, cudnn: Cudnn) -> (Self, Model) {
        let mut b = Builder::new(DType::F16, cudnn);
        let down = Down::new(&mut b, config, how, |_| {});
        let first = config.levels.first().map_or(0, |level| level.channels);
        let mut kept = Down::kept_channels(&config);
        let mut inputs = config.levels.last().map_or(0, |level| level.channels);
        let mut up = Vec::new();
        for (i, level) in config.levels.iter().enumerate().rev() {
            let n = BLOCKS + 1;
            let transformers = Down::transformers(&mut b, &config, *level, n, how);
            let mut resnets = Vec::new();
            for _ in 0..n {
                let joined = inputs + kept.pop().unwrap_or(0);
                resnets.push(ResnetBlock::new(&mut b, joined, level.channels, Some(4 * first)));
                inputs = level.channels;
            }
            let resize = (i > 0).then(|| Upsample::new(&mut b, level.channels));
            up.push(Level { resnets, transformers, resize });
        }
        let middle = Middle::new(&mut b, &config, how);
        let norm = b.group_norm(first);
        let conv_out = b.conv(first, LATENT_CHANNELS, Window::same(3));
        (Self { down, middle, up, norm, conv_out }, b.finish())
    }

    /// `unet(x, time, text)`; `control` is what ControlNets add.
    pub fn forward(
        &self,
        t: &Torch,
        x: &Tensor,
        condition: &Condition,
        control: Option<&Control>,
    ) -> Tensor {
        let down = self.down.forward(t, x, condition, || None);
        let DownResult { mut h, mut kept, time, emb, told } = down;
        if let Some(Control { residuals, .. }) = control {
            let added = kept.iter().zip(residuals).map(|(x, y)| x.add(t, y)).collect();
            drop(std::mem::replace(&mut kept, added));
        }
        if let Some(middle) = &self.middle {
            h = middle.forward(t, &h, &emb, &condition.text);
        }
        if let Some(Control { middle, .. }) = control {
            h = h.add(t, middle);
        }
        let mut skips = Vec::new();
        for level in &self.up {
            let from = kept.len().saturating_sub(level.resnets.len());
            drop_list(std::mem::replace(&mut skips, kept.split_off(from)));
            let sides = kept.last().map(|image| [image.data.dim(2), image.data.dim(3)]);
            h = Self::up(t, level, &h, &skips, sides, &emb, &condition.text);
        }
        h = self.norm.forward(t, &h);
        h = h.silu(t);
        h = self.conv_out.forward(t, &h);
        drop((time, emb, told));
        drop_list(skips);
        h.data
    }

    fn up(
        t: &Torch,
        level: &Level<Upsample>,
        x: &Image,
        skips: &[Image],
        sides: Option<[u64; 2]>,
        emb: &Tensor,
        text: &Tensor,
    ) -> Image {
        let mut h = x.clone();
        for (i, (resnet, skip)) in level.resnets.iter().zip(skips.iter().rev()).enumerate() {
            let (a, b) = (&h.data, &skip.data);
            let shape = [a.dim(0), a.dim(1) + b.dim(1), a.dim(2), a.dim(3)];
            h = Image::in_order(t.cat(&[a, b], &shape));
            h = resnet.forward(t, &h, Some(emb));
            if let Some(transformer) = level.transformers.get(i) {
                h = transformer.forward(t, &h, text);
            }
        }
        if let Some(resize) = &level.resize {
            h = resize.forward(t, &h, sides);
        }
        h
    }
}
