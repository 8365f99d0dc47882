//! The UNet of Stable Diffusion: `UNet2DConditionModel`.

use super::{
    attention::How,
    blocks::{ResnetBlock, Transformer2d, Upsample},
    down::{BLOCKS, Condition, Down, DownResult, LATENT_CHANNELS, Level, LevelConfig, UnetConfig},
    image::Image,
    layers::{Builder, Conv, GroupNorm, Model},
};
use crate::workload::torch::{Cudnn, DType, Tensor, Torch, Window, drop_list};

/// The blocks in the middle.
#[derive(Debug)]
pub struct Middle {
    transformer: Transformer2d,
    resnets: [ResnetBlock; 2],
}

/// What ControlNets add to a UNet.
#[derive(Debug)]
pub struct Control {
    /// To each image that the way up gets.
    pub residuals: Vec<Image>,
    /// To the middle.
    pub middle: Image,
}

impl Middle {
    /// The middle of a UNet.
    pub fn new(b: &mut Builder, config: &UnetConfig, how: How) -> Option<Self> {
        let time = config.time();
        let last = *config.levels.last()?;
        let of = LevelConfig { transformer: last.transformer.max(1), ..last };
        let transformer = Transformer2d::new(b, last.channels, &config.transformer(of, how));
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
        let first = config.first();
        let mut kept = Down::kept_channels(&config);
        let mut inputs = config.levels.last().map_or(0, |level| level.channels);
        let mut up = Vec::new();
        for (i, level) in config.levels.iter().enumerate().rev() {
            let n = BLOCKS + 1;
            let transformers = Down::transformers(&mut b, &config, *level, n, how);
            let mut resnets = Vec::new();
            for _ in 0..n {
                let joined = inputs + kept.pop().unwrap_or(0);
                resnets.push(ResnetBlock::new(&mut b, joined, level.channels, Some(config.time())));
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
