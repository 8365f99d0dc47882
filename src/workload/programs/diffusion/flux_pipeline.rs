//! Flux: CLIP's pooled text, T5's tokens, a transformer step by step, the autoencoder.

use super::{
    Generate,
    clip::{Clip, TOKENS},
    flux::{Flux, PLACE},
    pipeline::CLIP_L,
    stage::Stage,
    t5::T5,
    vae::{SCALE, Vae, VaeConfig},
};
use crate::workload::{
    WorkloadError,
    torch::{DType, Tensor, Torch},
};

/// Tokens of a prompt for T5.
const T5_TOKENS: u64 = 512;
/// Channels of a latent.
const LATENT: u64 = 16;
/// Pixels of a side for one place of the transformer.
pub const PIXELS_OF_PLACE: u64 = 16;

/// A loaded Flux.
#[derive(Debug)]
pub struct FluxPipeline {
    clip: Clip,
    t5: T5,
    flux: Flux,
    vae: Vae,
    stage: Stage,
}

impl FluxPipeline {
    /// Loads it, in bfloat16.
    pub fn new(t: &Torch, of: &Generate) -> Self {
        let cudnn = of.cudnn();
        let (clip, clip_model) = Clip::new(CLIP_L, DType::BF16, cudnn);
        let (t5, t5_model) = T5::new(DType::BF16, cudnn);
        let (flux, flux_model) = Flux::new(cudnn);
        let vae = VaeConfig {
            latent: LATENT,
            quant: false,
            tile: 1024,
            how: of.attention.hows().1,
            slicing: of.vae_slicing,
            tiling: of.vae_tiling,
        };
        let (vae, vae_model) = Vae::new(vae, DType::BF16, cudnn);
        let models = vec![clip_model, t5_model, flux_model, vae_model];
        Self { clip, t5, flux, vae, stage: Stage::new(t, of.offload, models) }
    }

    /// Makes images of a text.
    ///
    /// # Errors
    /// When they are too large, or take too long.
    ///
    /// # Source
    /// diffusers 0.42, `pipelines/flux/pipeline_flux.py`.
    pub fn generate(&mut self, t: &Torch, of: &Generate) -> Result<(), WorkloadError> {
        let (text, pooled) = self.encode(t, of.images);
        t.mark("text");
        let [high, wide] = of.sides().map(|side| side / SCALE);
        let latent = [of.images, LATENT, high, wide];
        let places = (high / 2) * (wide / 2);
        let mut z = {
            let noise = t.empty(&latent, DType::BF16);
            t.copy(&noise).shaped(&[of.images, places, PLACE])
        };
        let mut noise = None;
        for _ in 0..of.steps {
            self.stage.enter(t, 2);
            noise = Some(self.flux.forward(t, &z, &text, &pooled));
            z = step(t, &z);
            t.mark("transformer");
            t.check()?;
        }
        let image = {
            let mut z = t.copy(&z).shaped(&latent);
            z = t.scale(&z);
            z = t.scale(&z);
            self.stage.enter(t, 3);
            self.vae.decode(t, &z)
        };
        drop(t.to(&image, DType::F32));
        t.mark("vae");
        self.stage.rest();
        t.check()?;
        if of.checkpoints == 1 {
            self.stage.leave();
        }
        drop((text, pooled, z, noise, image));
        Ok(())
    }

    /// The text's tokens and the pooled text, once for each image.
    fn encode(&mut self, t: &Torch, images: u64) -> (Tensor, Tensor) {
        let repeat = |x: &Tensor| {
            let mut shape = x.shape().to_vec();
            shape[0] = images;
            t.empty(&shape, x.dtype())
        };
        let pooled = {
            let ids = t.input(&[1, TOKENS], DType::I64);
            self.stage.enter(t, 0);
            let (text, pooled) = self.clip.forward(t, &ids);
            drop(text);
            repeat(&pooled)
        };
        let ids = t.input(&[1, T5_TOKENS], DType::I64);
        self.stage.enter(t, 1);
        let text = self.t5.forward(t, &ids);
        (repeat(&text), pooled)
    }
}

/// A step of the scheduler, in float32.
fn step(t: &Torch, z: &Tensor) -> Tensor {
    let wide = t.to(z, DType::F32);
    let next = {
        let change = t.scale(z);
        t.add(&wide, &change)
    };
    t.to(&next, z.dtype())
}
