//! Sizes that others published, and what the options change.

use super::{
    Generate,
    attention::How,
    clip::Clip,
    controlnet::ControlNet,
    flux::Flux,
    pipeline::{CLIP_G, CLIP_L, UNET_SD15, UNET_SDXL},
    t5::T5,
    unet::Unet,
    vae::{Vae, VaeConfig},
};
use crate::{
    trace::Op,
    workload::{
        Parameters, Workload,
        torch::{Cudnn, DType, Torch},
    },
};

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

fn with(values: &[(&str, &str)]) -> Generate {
    let mut generate = Generate { steps: 1, ..Generate::default() };
    for (name, value) in values {
        generate.set(name, value).unwrap();
    }
    generate
}

/// The most bytes at a time.
fn peak(values: &[(&str, &str)]) -> u64 {
    let t = Torch::new(1);
    let generate = with(values);
    generate.check().unwrap();
    generate.run(&t).unwrap();
    let (mut sizes, mut now, mut peak) = (Vec::new(), 0, 0);
    for op in t.finish().unwrap()[0].ops() {
        match op {
            Op::Alloc(alloc) => {
                sizes.push(alloc.size.0);
                now += alloc.size.0;
            }
            Op::Free(free) => now -= sizes[usize::try_from(free.id.0).unwrap()],
            _ => {}
        }
        peak = peak.max(now);
    }
    peak
}

#[test]
fn offloading_a_model_saves_and_layer_by_layer_saves_more() {
    let of = |offload| peak(&[("offload", offload)]);
    let (none, model, sequential) = (of("none"), of("model"), of("sequential"));
    assert!(sequential < model && model < none, "{sequential} {model} {none}");
}

#[test]
fn slices_help_where_there_are_images_and_tiles_where_they_are_large() {
    let slices = |images, on| peak(&[("images", images), ("vae_slicing", on)]);
    assert_eq!(slices("1", "true"), slices("1", "false"));
    assert!(slices("4", "true") < slices("4", "false"));
    let tiles = |side, on| peak(&[("height", side), ("width", side), ("vae_tiling", on)]);
    assert_eq!(tiles("512", "true"), tiles("512", "false"));
    assert!(tiles("768", "true") < tiles("768", "false"));
}

#[test]
fn sizes_between_the_levels_of_the_unet_are_made() {
    for (height, width) in [("64", "64"), ("72", "136"), ("520", "776")] {
        assert!(peak(&[("height", height), ("width", width)]) > 2 << 30);
    }
}

#[test]
fn what_does_not_go_together_is_named() {
    let error = |values: &[(&str, &str)]| with(values).check().unwrap_err().to_string();
    assert_eq!(error(&[("height", "516")]), "height: 516 is no multiple of 8");
    assert_eq!(error(&[("model", "flux"), ("width", "520")]), "width: 520 is no multiple of 16");
    assert_eq!(
        error(&[("model", "flux"), ("attention", "naive")]),
        "attention: flux knows sdpa alone"
    );
    let flux = [("model", "flux"), ("controlnets", "1")];
    assert_eq!(error(&flux), "controlnets: flux has none here: 0, or another model");
    assert_eq!(error(&[("images", "0")]), "images: 0 is out of range: 1 to 1024");
}
