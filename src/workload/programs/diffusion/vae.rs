//! The autoencoder: `AutoencoderKL`.

use super::{
    attention::{How, ImageAttention},
    blocks::{Downsample, ResnetBlock, Upsample},
    image::{Image, Layout},
    layers::{Builder, Conv, GroupNorm, Model},
};
use crate::workload::torch::{Cudnn, DType, Tensor, Torch, Window, drop_list};

/// Channels of the levels, from the full size down.
const CHANNELS: [u64; 4] = [128, 256, 512, 512];
/// ResNet blocks of a level on the way down; there is one more on the way up.
const BLOCKS: u64 = 2;
/// Pixels of a side for one place of a latent.
pub const SCALE: u64 = 8;

/// Sizes of an autoencoder, and how it decodes.
#[derive(Clone, Copy, Debug)]
pub struct VaeConfig {
    /// Channels of a latent.
    pub latent: u64,
    /// Whether latents are convolved once more, on both ways (`use_quant_conv`).
    pub quant: bool,
    /// Side of a tile, in pixels (`sample_size`).
    pub tile: u64,
    /// How attention is computed.
    pub how: How,
    /// Images are decoded one by one (`enable_slicing`).
    pub slicing: bool,
    /// Larger images are decoded tile by tile (`enable_tiling`).
    pub tiling: bool,
}

/// The middle of both ways.
#[derive(Clone, Debug)]
struct Middle {
    attention: ImageAttention,
    resnets: [ResnetBlock; 2],
}

impl Middle {
    fn new(b: &mut Builder, channels: u64, how: How) -> Self {
        let attention = ImageAttention::new(b, channels, how);
        let resnet = |b: &mut Builder| ResnetBlock::new(b, channels, channels, None);
        Self { attention, resnets: [resnet(b), resnet(b)] }
    }

    fn forward(&self, t: &Torch, x: &Image) -> Image {
        let mut h = self.resnets[0].forward(t, x, None);
        h = self.attention.forward(t, &h);
        h = self.resnets[1].forward(t, &h, None);
        h
    }
}

#[derive(Clone, Debug)]
struct UpLevel {
    resnets: Vec<ResnetBlock>,
    upsample: Option<Upsample>,
}

/// The decoder, with the weights of the encoder, which lie beside it.
#[derive(Debug)]
pub struct Vae {
    config: VaeConfig,
    conv_in: Conv,
    levels: Vec<UpLevel>,
    middle: Middle,
    norm: GroupNorm,
    conv_out: Conv,
    post_quant: Option<Conv>,
}

impl Vae {
    /// An autoencoder of these sizes, and its weights.
    pub fn new(config: VaeConfig, dtype: DType, cudnn: Cudnn) -> (Self, Model) {
        let mut b = Builder::new(dtype, cudnn);
        let deepest = CHANNELS[CHANNELS.len() - 1];
        Self::encoder(&mut b, &config);
        let conv_in = b.conv(config.latent, deepest, Window::same(3));
        let mut levels = Vec::new();
        let mut inputs = deepest;
        for (i, channels) in CHANNELS.into_iter().enumerate().rev() {
            let mut resnets = Vec::new();
            for _ in 0..=BLOCKS {
                resnets.push(ResnetBlock::new(&mut b, inputs, channels, None));
                inputs = channels;
            }
            let upsample = (i > 0).then(|| Upsample::new(&mut b, channels));
            levels.push(UpLevel { resnets, upsample });
        }
        let middle = Middle::new(&mut b, deepest, config.how);
        let norm = b.group_norm(CHANNELS[0]);
        let conv_out = b.conv(CHANNELS[0], 3, Window::same(3));
        let mut quant =
            |channels| config.quant.then(|| b.conv(channels, channels, Window::same(1)));
        quant(2 * config.latent);
        let post_quant = quant(config.latent);
        (Self { config, conv_in, levels, middle, norm, conv_out, post_quant }, b.finish())
    }

    /// The weights of the encoder, in their order.
    fn encoder(b: &mut Builder, config: &VaeConfig) {
        b.conv(3, CHANNELS[0], Window::same(3));
        let mut inputs = CHANNELS[0];
        for (i, channels) in CHANNELS.into_iter().enumerate() {
            for _ in 0..BLOCKS {
                ResnetBlock::new(b, inputs, channels, None);
                inputs = channels;
            }
            if i + 1 < CHANNELS.len() {
                Downsample::new(b, channels, 0);
            }
        }
        Middle::new(b, inputs, config.how);
        b.group_norm(inputs);
        b.conv(inputs, 2 * config.latent, Window::same(3));
    }

    /// `vae.decode(z)`: images of latents.
    ///
    /// # Source
    /// diffusers 0.42, `models/autoencoders/autoencoder_kl.py`; `scenarios/diffusion_vae_768_n4`.
    pub fn decode(&self, t: &Torch, z: &Tensor) -> Tensor {
        let n = z.dim(0);
        if !self.config.slicing || n <= 1 {
            return self.decode_batch(t, z);
        }
        let slice = z.shaped(&[1, z.dim(1), z.dim(2), z.dim(3)]);
        let mut images = Vec::new();
        for _ in 0..n {
            if t.check().is_err() {
                break;
            }
            images.push(self.decode_batch(t, &slice));
        }
        let shape = images.first().map(|image| [n, image.dim(1), image.dim(2), image.dim(3)]);
        let all = t.cat(&images.iter().collect::<Vec<_>>(), &shape.unwrap_or([0; 4]));
        drop_list(images);
        all
    }

    fn decode_batch(&self, t: &Torch, z: &Tensor) -> Tensor {
        let tile = self.config.tile / SCALE;
        if self.config.tiling && (z.dim(2) > tile || z.dim(3) > tile) {
            return self.decode_tiles(t, z, tile);
        }
        let z = Image::in_order(z.clone());
        let z = match &self.post_quant {
            Some(conv) => conv.forward(t, &z),
            None => z,
        };
        self.decoder(t, &z)
    }

    fn decoder(&self, t: &Torch, z: &Image) -> Tensor {
        let mut h = self.conv_in.forward(t, z);
        h = self.middle.forward(t, &h);
        for level in &self.levels {
            let mut out = h.clone();
            for resnet in &level.resnets {
                out = resnet.forward(t, &out, None);
            }
            if let Some(upsample) = &level.upsample {
                out = upsample.forward(t, &out, None);
            }
            h = out;
        }
        h = self.norm.forward(t, &h);
        h = h.silu(t);
        h = self.conv_out.forward(t, &h);
        h.data
    }

    /// Tiles that overlap by a quarter are decoded one by one, blended, and joined.
    fn decode_tiles(&self, t: &Torch, z: &Tensor, tile: u64) -> Tensor {
        let step = (tile - tile / 4).max(1);
        let sides = |side: u64| -> Vec<u64> {
            (0..side.div_ceil(step)).map(|i| tile.min(side - i * step)).collect()
        };
        let (highs, wides) = (sides(z.dim(2)), sides(z.dim(3)));
        let mut rows: Vec<Vec<Tensor>> = Vec::new();
        for high in &highs {
            let mut row = Vec::new();
            for wide in &wides {
                if t.check().is_err() {
                    break;
                }
                let part = z.shaped(&[z.dim(0), z.dim(1), *high, *wide]);
                let mut part = Image { data: part, layout: Layout::Other };
                if let Some(conv) = &self.post_quant {
                    part = conv.forward(t, &part);
                }
                row.push(self.decoder(t, &part));
            }
            rows.push(row);
        }
        let pixels = tile.saturating_mul(SCALE);
        let blend = pixels / 4;
        let limit = pixels - blend;
        let mut joined = Vec::new();
        for (i, row) in rows.iter().enumerate() {
            let mut wide = 0;
            for (j, part) in row.iter().enumerate() {
                if t.check().is_err() {
                    break;
                }
                let above = i.checked_sub(1).and_then(|i| rows.get(i)?.get(j));
                let before = j.checked_sub(1).and_then(|j| row.get(j));
                if let Some(above) = above {
                    blend_edges(t, part, part.dim(3), blend.min(part.dim(2)).min(above.dim(2)));
                }
                if let Some(before) = before {
                    blend_edges(t, part, part.dim(2), blend.min(part.dim(3)).min(before.dim(3)));
                }
                wide += limit.min(part.dim(3));
            }
            let high = row.first().map_or(0, |part| limit.min(part.dim(2)));
            let parts: Vec<_> = row.iter().collect();
            joined.push(t.cat(&parts, &[z.dim(0), 3, high, wide]));
        }
        let high = joined.iter().fold(0, |n, row| n + row.dim(2));
        let wide = joined.first().map_or(0, |row| row.dim(3));
        let all = t.cat(&joined.iter().collect::<Vec<_>>(), &[z.dim(0), 3, high, wide]);
        drop_list(rows.into_iter().flatten().collect());
        drop_list(joined);
        all
    }
}

/// `blend_v` and `blend_h`: line by line, two products and their sum.
fn blend_edges(t: &Torch, part: &Tensor, line: u64, lines: u64) {
    for _ in 0..lines {
        let line = || t.empty(&[part.dim(0), part.dim(1), line], part.dtype());
        let (a, b) = (line(), line());
        let sum = line();
        drop((a, b, sum));
    }
}
