//! Sizes that others published.

use super::{
    attention::How,
    clip::Clip,
    controlnet::ControlNet,
    flux::Flux,
    pipeline::{CLIP_G, CLIP_L, UNET_SD15, UNET_SDXL},
    t5::T5,
    unet::Unet,
    vae::{Vae, VaeConfig},
};
use crate::workload::torch::{Cudnn, DType};

const CUDNN: Cudnn = Cudnn { workspace: 0, bfloat16: true };

#[test]
fn models_have_as_many_weights_as_the_published_ones() {
    let unet = |config| Unet::new(config, How::Fused, CUDNN).1.parameters();
    assert_eq!(unet(UNET_SD15), 859_520_964);
    assert_eq!(unet(UNET_SDXL), 2_567_463_684);
    let clip = |config| Clip::new(config, DType::F16, CUDNN).1.parameters();
    assert_eq!(clip(CLIP_L), 123_060_480);
    assert_eq!(clip(CLIP_G), 694_659_840);
    let net = |config| ControlNet::new(config, How::Fused, CUDNN).1.parameters();
    assert_eq!(net(UNET_SD15), 361_279_120);
    assert_eq!(Flux::new(CUDNN).1.parameters(), 11_901_408_320);
    assert_eq!(T5::new(DType::BF16, CUDNN).1.parameters(), 4_762_310_656);
    let vae = VaeConfig {
        latent: 4,
        quant: true,
        tile: 512,
        how: How::Fused,
        slicing: false,
        tiling: false,
    };
    assert_eq!(Vae::new(vae, DType::F16, CUDNN).1.parameters(), 83_653_863);
    let vae = VaeConfig { latent: 16, quant: false, ..vae };
    assert_eq!(Vae::new(vae, DType::BF16, CUDNN).1.parameters(), 83_819_683);
}
