//! Text to image with Stable Diffusion: the text encoder, the UNet step by step, the autoencoder.

pub mod attention;
pub mod blocks;
pub mod clip;
pub mod image;
pub mod layers;
pub mod unet;
pub mod vae;

use self::{
    attention::How,
    clip::{Clip, ClipConfig, TOKENS},
    layers::Model,
    unet::{Condition, LevelConfig, Unet, UnetConfig},
    vae::{SCALE, Vae, VaeConfig},
};
use super::{Preset, Workload};
use crate::workload::{
    WorkloadError,
    parameter::{choice, in_range, parameters},
    torch::{Cudnn, DType, Tensor, Torch},
};

choice! {
    /// How attention is computed.
    pub enum AttentionKind {
        /// All scores at once.
        Naive = "naive",
        /// `scaled_dot_product_attention`.
        Fused = "sdpa",
        /// `enable_attention_slicing()`: half of the heads of an image at a time.
        SlicedAuto = "sliced-auto",
        /// `enable_attention_slicing("max")`: one head at a time.
        SlicedMax = "sliced-max",
    }
}

choice! {
    /// What waits on the host.
    pub enum Offload {
        /// Nothing.
        None = "none",
        /// Each model but the one at work (`enable_model_cpu_offload`, `--medvram`).
        Model = "model",
        /// Each layer but the one at work (`enable_sequential_cpu_offload`, `--lowvram`).
        Sequential = "sequential",
    }
}

parameters! {
    /// Images of texts by Stable Diffusion, in float16.
    pub struct Generate {
        /// Side of an image, in pixels: a multiple of 8.
        size: u64 = 512;
        /// Images at a time; each is denoised twice, with the text and without.
        images: u64 = 1;
        /// Denoising steps.
        steps: u64 = 2;
        /// How attention is computed.
        attention: AttentionKind = AttentionKind::Fused;
        /// What waits on the host.
        offload: Offload = Offload::None;
        /// Whether images are decoded one by one.
        vae_slicing: bool = false;
        /// Whether images larger than a tile are decoded tile by tile.
        vae_tiling: bool = false;
        /// Scratch memory of a convolution in cuDNN, in MiB; the true figure depends on the kernel it chooses.
        cudnn_workspace: u64 = 16;
    }
}

/// Well-known sizes.
pub(super) const PRESETS: &[Preset] = &[Preset { name: "sd15", values: &[] }];

const SD15_UNET: UnetConfig = UnetConfig {
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

impl Workload for Generate {
    fn check(&self) -> Result<(), WorkloadError> {
        in_range("size", self.size, 64..=1 << 15)?;
        if !self.size.is_multiple_of(SCALE) {
            let message = format!("{} is no multiple of {SCALE}", self.size);
            return Err(WorkloadError::parameter("size", message));
        }
        in_range("images", self.images, 1..=1 << 12)?;
        in_range("steps", self.steps, 1..=10_000)?;
        in_range("cudnn_workspace", self.cudnn_workspace, 0..=1 << 20)
    }

    fn run(&self, t: &Torch) -> Result<(), WorkloadError> {
        t.no_grad(|| self.generate(t))
    }
}

impl Generate {
    fn generate(&self, t: &Torch) -> Result<(), WorkloadError> {
        let cudnn = Cudnn { workspace: self.cudnn_workspace << 20, bfloat16: true };
        let clip = ClipConfig {
            layers: 12,
            width: 768,
            heads: 12,
            quick: true,
            projection: None,
            keep_all: false,
        };
        let (how, vae_how) = match self.attention {
            AttentionKind::Fused => (How::Fused, How::Fused),
            AttentionKind::Naive => (How::Naive, How::Naive),
            AttentionKind::SlicedAuto => (How::Sliced(0), How::Naive),
            AttentionKind::SlicedMax => (How::Sliced(1), How::Naive),
        };
        let vae = VaeConfig {
            latent: 4,
            quant: true,
            tile: 512,
            how: vae_how,
            slicing: self.vae_slicing,
            tiling: self.vae_tiling,
        };
        let (text, text_model) = Clip::new(clip, cudnn);
        let (unet, unet_model) = Unet::new(SD15_UNET, how, cudnn);
        let (vae, vae_model) = Vae::new(vae, cudnn);
        let mut stage = Stage::new(t, self.offload, vec![text_model, unet_model, vae_model]);
        t.mark("load");
        t.check()?;

        let ids = t.input(&[2 * self.images, TOKENS], DType::I64);
        stage.enter(t, 0);
        let (text, pooled) = text.forward(t, &ids);
        drop(pooled);
        let condition = Condition { text, pooled: None };
        t.mark("text");
        let side = self.size / SCALE;
        let mut z = t.empty(&[self.images, 4, side, side], DType::F16);
        let (mut time, mut noise) = (None, None);
        for _ in 0..self.steps {
            time = Some(t.input(&[], DType::I64));
            let twice = t.cat(&[&z, &z], &[2 * self.images, 4, side, side]);
            stage.enter(t, 1);
            noise = Some(unet.forward(t, &twice, &condition, None));
            drop(twice);
            z = step(t, &z);
            t.mark("unet");
            t.check()?;
        }
        let scaled = t.scale(&z);
        stage.enter(t, 2);
        let image = vae.decode(t, &scaled);
        drop(scaled);
        drop(t.to(&image, DType::F32));
        t.mark("vae");
        stage.leave();
        drop((ids, condition, z, time, noise, image));
        t.check()
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

/// Which models are on the device.
#[derive(Debug)]
struct Stage {
    models: Vec<Model>,
    offload: Offload,
    /// The model at work, where the others wait on the host.
    here: Option<usize>,
}

impl Stage {
    fn new(t: &Torch, offload: Offload, models: Vec<Model>) -> Self {
        for model in &models {
            match offload {
                Offload::None => model.load(t),
                Offload::Model => {}
                Offload::Sequential => model.offload_layers(t),
            }
        }
        Self { models, offload, here: None }
    }

    /// Model `i` is about to work.
    ///
    /// # Source
    /// accelerate 1.15, `hooks.py`, `CpuOffload.pre_forward`.
    fn enter(&mut self, t: &Torch, i: usize) {
        if self.offload != Offload::Model || self.here == Some(i) {
            return;
        }
        if let Some(model) = self.here.and_then(|i| self.models.get(i)) {
            model.unload();
            t.empty_cache();
        }
        if let Some(model) = self.models.get(i) {
            model.load(t);
        }
        self.here = Some(i);
    }

    /// The program is over.
    fn leave(&self) {
        self.models.iter().for_each(Model::unload);
    }
}
