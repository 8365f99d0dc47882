//! Text to image by diffusion: text encoders, a denoiser step by step, an autoencoder.
//!
//! Each model is written as diffusers and transformers write it. That of Stable Diffusion 1.5 was
//! compared with recordings operation by operation; those of XL, of Flux and of ControlNets follow
//! their code and their published sizes, and no recording of them was there to compare with.

pub mod attention;
pub mod blocks;
pub mod clip;
pub mod controlnet;
pub mod down;
pub mod embed;
pub mod flux;
pub mod flux_pipeline;
pub mod image;
pub mod layers;
pub mod pipeline;
pub mod stage;
pub mod t5;
#[cfg(test)]
mod tests;
pub mod unet;
pub mod vae;

use self::{
    attention::How,
    flux_pipeline::{FluxPipeline, PIXELS_OF_PLACE},
    pipeline::StableDiffusion,
    stage::Offload,
    vae::SCALE,
};
use super::{Preset, Workload};
use crate::workload::{
    WorkloadError,
    parameter::{choice, in_range, parameters},
    torch::{Cudnn, Torch},
};

choice! {
    /// Which model makes the images.
    pub enum Architecture {
        /// Stable Diffusion 1.5.
        Sd15 = "sd15",
        /// Stable Diffusion XL.
        Sdxl = "sdxl",
        /// Flux.1-dev.
        Flux = "flux",
    }
}

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

impl AttentionKind {
    /// Of the denoiser, and of the autoencoder, which has one head and is not sliced.
    fn hows(self) -> (How, How) {
        match self {
            Self::Fused => (How::Fused, How::Fused),
            Self::Naive => (How::Naive, How::Naive),
            Self::SlicedAuto => (How::SlicedByHalves, How::Naive),
            Self::SlicedMax => (How::Sliced(1), How::Naive),
        }
    }
}

parameters! {
    /// Images of texts by diffusion, in half precision.
    pub struct Generate {
        /// Which model makes the images.
        model: Architecture = Architecture::Sd15;
        /// Height of an image, in pixels: a multiple of 8, of 16 for flux.
        height: u64 = 512;
        /// Width of an image, in pixels: a multiple of 8, of 16 for flux.
        width: u64 = 512;
        /// Images at a time; Stable Diffusion denoises each twice, with the text and without.
        images: u64 = 1;
        /// Denoising steps.
        steps: u64 = 20;
        /// How attention is computed; flux knows sdpa alone.
        attention: AttentionKind = AttentionKind::Fused;
        /// What waits on the host.
        offload: Offload = Offload::None;
        /// Whether images are decoded one by one.
        vae_slicing: bool = false;
        /// Whether images larger than a tile are decoded tile by tile.
        vae_tiling: bool = false;
        /// ControlNets that guide at once, by an image; none with flux.
        controlnets: u64 = 0;
        /// Checkpoints that are loaded, each of which makes images in turn.
        checkpoints: u64 = 1;
        /// Scratch memory of a convolution in cuDNN, in MiB; the true figure depends on the kernel it chooses.
        cudnn_workspace: u64 = 16;
    }
}

/// Well-known sizes.
pub(super) const PRESETS: &[Preset] = &[
    Preset { name: "sd15", values: &[] },
    Preset { name: "sdxl", values: &[("model", "sdxl"), ("height", "1024"), ("width", "1024")] },
    Preset {
        name: "flux",
        values: &[("model", "flux"), ("height", "1024"), ("width", "1024"), ("steps", "28")],
    },
    Preset { name: "medvram", values: &[("offload", "model")] },
    Preset { name: "lowvram", values: &[("offload", "sequential")] },
];

impl Generate {
    fn cudnn(&self) -> Cudnn {
        Cudnn { workspace: self.cudnn_workspace << 20, bfloat16: true }
    }

    fn sides(&self) -> [u64; 2] {
        [self.height, self.width]
    }
}

impl Workload for Generate {
    fn check(&self) -> Result<(), WorkloadError> {
        let flux = self.model == Architecture::Flux;
        for (name, side) in [("height", self.height), ("width", self.width)] {
            in_range(name, side, 64..=1 << 15)?;
            let unit = if flux { PIXELS_OF_PLACE } else { SCALE };
            if !side.is_multiple_of(unit) {
                let message = format!("{side} is no multiple of {unit}");
                return Err(WorkloadError::parameter(name, message));
            }
        }
        in_range("images", self.images, 1..=1024)?;
        in_range("steps", self.steps, 1..=10_000)?;
        in_range("controlnets", self.controlnets, 0..=16)?;
        if flux && self.controlnets > 0 {
            let message = "flux has none here: 0, or another model";
            return Err(WorkloadError::parameter("controlnets", message));
        }
        if flux && self.attention != AttentionKind::Fused {
            let message = "flux knows sdpa alone";
            return Err(WorkloadError::parameter("attention", message));
        }
        in_range("checkpoints", self.checkpoints, 1..=64)?;
        in_range("cudnn_workspace", self.cudnn_workspace, 0..=1 << 20)
    }

    fn run(&self, t: &Torch) -> Result<(), WorkloadError> {
        t.no_grad(|| match self.model {
            Architecture::Sd15 => self.in_turn(t, |t| StableDiffusion::new(t, self, false)),
            Architecture::Sdxl => self.in_turn(t, |t| StableDiffusion::new(t, self, true)),
            Architecture::Flux => self.in_turn(t, |t| FluxPipeline::new(t, self)),
        })
    }
}

/// A model with all that belongs to it.
trait Pipeline {
    /// Makes images of texts.
    fn generate(&mut self, t: &Torch, of: &Generate) -> Result<(), WorkloadError>;
}

impl Pipeline for StableDiffusion {
    fn generate(&mut self, t: &Torch, of: &Generate) -> Result<(), WorkloadError> {
        self.generate(t, of)
    }
}

impl Pipeline for FluxPipeline {
    fn generate(&mut self, t: &Torch, of: &Generate) -> Result<(), WorkloadError> {
        self.generate(t, of)
    }
}

impl Generate {
    /// Loads the checkpoints, and lets each make images.
    fn in_turn<P: Pipeline>(
        &self,
        t: &Torch,
        load: impl Fn(&Torch) -> P,
    ) -> Result<(), WorkloadError> {
        let mut loaded = Vec::new();
        for _ in 0..self.checkpoints {
            loaded.push(load(t));
            t.check()?;
        }
        t.mark("load");
        loaded.iter_mut().try_for_each(|pipeline| pipeline.generate(t, self))
    }
}
