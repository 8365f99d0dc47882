//! All programs by their names, and well-known sizes of them.

use super::{Workload, diffusion, gpt, resnet};

/// A program that `fragsim synth` knows.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What it is called.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Makes it with the values of its defaults.
    pub make: fn() -> Box<dyn Workload>,
    /// Well-known sizes.
    pub presets: &'static [Preset],
}

/// Values of a program that have a name.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// What it is called.
    pub name: &'static str,
    /// The parameters that differ from the defaults.
    pub values: &'static [(&'static str, &'static str)],
}

/// Every program.
pub fn catalogue() -> &'static [Entry] {
    &[
        Entry {
            name: "train",
            about: "a GPT-like transformer in training: forward, backward, step",
            make: || Box::<gpt::Train>::default(),
            presets: gpt::PRESETS,
        },
        Entry {
            name: "resnet",
            about: "a ResNet in training by SGD, or in inference",
            make: || Box::<resnet::Run>::default(),
            presets: resnet::PRESETS,
        },
        Entry {
            name: "diffusion",
            about: "images of texts by Stable Diffusion: text encoder, UNet, autoencoder",
            make: || Box::<diffusion::Generate>::default(),
            presets: diffusion::PRESETS,
        },
    ]
}
