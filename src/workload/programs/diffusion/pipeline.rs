//! Stable Diffusion 1.5 and XL.

use super::{
    Generate,
    attention::How,
    clip::{Clip, ClipConfig, TOKENS},
    controlnet::ControlNet,
    down::{Condition, LATENT_CHANNELS, LevelConfig, UnetConfig},
    stage::Stage,
    unet::Unet,
    vae::{SCALE, Vae, VaeConfig},
};
use crate::workload::{
    WorkloadError,
    torch::{DType, Tensor, Torch},
};

/// The text encoder of Stable Diffusion 1.5, and the first of the others.
pub const CLIP_L: ClipConfig = ClipConfig {
    layers: 12,
    width: 768,
    heads: 12,
    quick: true,
    projection: None,
    keep_all: false,
};

/// The second text encoder of Stable Diffusion XL.
pub const CLIP_G: ClipConfig = ClipConfig {
    layers: 32,
    width: 1280,
    heads: 20,
    quick: false,
    projection: Some(1280),
    keep_all: true,
};

/// The UNet of Stable Diffusion 1.5.
pub const UNET_SD15: UnetConfig = UnetConfig {
    levels: &[
        LevelConfig { channels: 320, transformer: 1, heads: 8 },
        LevelConfig { channels: 640, transformer: 1, heads: 8 },
        LevelConfig { channels: 1280, transformer: 1, heads: 8 },
        LevelConfig { channels: 1280, transformer: 0, heads: 8 },
    ],
    text: 768,
    linear: false,
    added: None,
};

/// The UNet of Stable Diffusion XL.
pub const UNET_SDXL: UnetConfig = UnetConfig {
    levels: &[
        LevelConfig { channels: 320, transformer: 0, heads: 5 },
        LevelConfig { channels: 640, transformer: 2, heads: 10 },
        LevelConfig { channels: 1280, transformer: 10, heads: 20 },
    ],
    text: 2048,
    linear: true,
    added: Some(2816),
};

/// A loaded Stable Diffusion.
#[derive(Debug)]
pub struct StableDiffusion {
    texts: Vec<Clip>,
    unet: Unet,
    nets: Vec<ControlNet>,
    vae: Vae,
    /// Whether the autoencoder works in float32, as that of XL must.
    wide_vae: bool,
    stage: Stage,
}

impl StableDiffusion {
    /// Loads 1.5, or XL.
    pub fn new(t: &Torch, of: &Generate, xl: bool) -> Self {
        let cudnn = of.cudnn();
        let (how, vae_how) = of.attention.hows();
        let mut models = Vec::new();
        let mut keep = |model| models.push(model);
        let configs: &[ClipConfig] =
            if xl { &[ClipConfig { keep_all: true, ..CLIP_L }, CLIP_G] } else { &[CLIP_L] };
        let mut texts = Vec::new();
        for config in configs {
            let (clip, model) = Clip::new(*config, DType::F16, cudnn);
            texts.push(clip);
            keep(model);
        }
        let config = if xl { UNET_SDXL } else { UNET_SD15 };
        let (unet, model) = Unet::new(config, how, cudnn);
        keep(model);
        let (vae, model) = Vae::new(Self::vae(of, vae_how, xl), DType::F16, cudnn);
        keep(model);
        let mut nets = Vec::new();
        for _ in 0..of.controlnets {
            let (net, model) = ControlNet::new(config, how, cudnn);
            nets.push(net);
            keep(model);
        }
        let stage = Stage::new(t, of.offload, models);
        Self { texts, unet, nets, vae, wide_vae: xl, stage }
    }

    fn vae(of: &Generate, how: How, xl: bool) -> VaeConfig {
        VaeConfig {
            latent: LATENT_CHANNELS,
            quant: true,
            tile: if xl { 1024 } else { 512 },
            how,
            slicing: of.vae_slicing,
            tiling: of.vae_tiling,
        }
    }

    /// Makes images of texts.
    ///
    /// # Errors
    /// When they are too large, or take too long.
    pub fn generate(&mut self, t: &Torch, of: &Generate) -> Result<(), WorkloadError> {
        let twice = 2 * of.images;
        let ids = t.input(&[twice, TOKENS], DType::I64);
        let condition = self.encode(t, &ids);
        t.mark("text");
        let [high, wide] = of.sides().map(|side| side / SCALE);
        let guide =
            (of.controlnets > 0).then(|| t.input(&[twice, 3, of.height, of.width], DType::F16));
        let mut z = t.empty(&[of.images, LATENT_CHANNELS, high, wide], DType::F16);
        let (mut time, mut noise) = (None, None);
        let unet_at = self.texts.len();
        for _ in 0..of.steps {
            time = Some(t.input(&[], DType::I64));
            let both = t.cat(&[&z, &z], &[twice, LATENT_CHANNELS, high, wide]);
            let control = guide.as_ref().and_then(|guide| {
                for i in 0..self.nets.len() {
                    self.stage.enter_beside(t, unet_at + 2 + i);
                }
                ControlNet::all(&self.nets, t, &both, &condition, guide)
            });
            self.stage.enter(t, unet_at);
            noise = Some(self.unet.forward(t, &both, &condition, control.as_ref()));
            drop(both);
            drop(control);
            z = step(t, &z);
            t.mark("unet");
            t.check()?;
        }
        self.stage.clear(t);
        let image = self.decode(t, &z);
        drop(t.to(&image, DType::F32));
        t.mark("vae");
        self.stage.rest();
        t.check()?;
        if of.checkpoints == 1 {
            self.stage.leave();
        }
        drop((ids, condition, guide, z, time, noise, image));
        Ok(())
    }

    fn encode(&mut self, t: &Torch, ids: &Tensor) -> Condition {
        let (mut parts, mut last) = (Vec::new(), None);
        for (i, clip) in self.texts.iter().enumerate() {
            self.stage.enter(t, i);
            let (text, pooled) = clip.forward(t, ids);
            parts.push(text);
            last = (i > 0).then_some(pooled);
        }
        let text = match parts.as_slice() {
            [one] => one.clone(),
            several => {
                let width = several.iter().map(|part| part.dim(2)).sum();
                let shape = [ids.dim(0), TOKENS, width];
                t.cat(&several.iter().collect::<Vec<_>>(), &shape)
            }
        };
        Condition { text, pooled: last }
    }

    fn decode(&mut self, t: &Torch, z: &Tensor) -> Tensor {
        let at = self.texts.len() + 1;
        let mut z = t.scale(z);
        if self.wide_vae {
            self.stage.convert(t, at, DType::F32);
            z = t.to(&z, DType::F32);
        }
        self.stage.enter(t, at);
        let image = self.vae.decode(t, &z);
        drop(z);
        if self.wide_vae {
            self.stage.convert(t, at, DType::F16);
        }
        image
    }
}

/// `z - 0.1 * (u + 7.5 * (c - u))`.
fn step(t: &Torch, z: &Tensor) -> Tensor {
    let mut change = t.empty_like(z);
    for _ in 0..3 {
        change = t.scale(&change);
    }
    t.add(z, &change)
}
