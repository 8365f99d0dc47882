//! All programs by their names, and well-known sizes of them.

use super::{
    Workload, adversarial, convert, cuda_graphs, diffusion, fsdp, gpt, kv_cache, leaks,
    llama_train, lora, moe, offload, quantised, resnet, rlhf, serve,
};

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
            name: "infer",
            about: "a GPT-like transformer in inference, without a cache",
            make: || Box::<gpt::Infer>::default(),
            presets: gpt::PRESETS,
        },
        Entry {
            name: "fsdp",
            about: "sharded training (ZeRO 1 to 3, FSDP), as one of the devices sees it",
            make: || Box::<fsdp::Fsdp>::default(),
            presets: fsdp::PRESETS,
        },
        Entry {
            name: "kv-cache",
            about: "requests come and go; their keys and values grow, are reserved, or are paged",
            make: || Box::<kv_cache::KvCache>::default(),
            presets: kv_cache::PRESETS,
        },
        Entry {
            name: "serve",
            about: "a server of a language model over a day, with a paged cache as in vLLM or without",
            make: || Box::<serve::Serve>::default(),
            presets: serve::PRESETS,
        },
        Entry {
            name: "convert",
            about: "weights are converted on the device, layer by layer, while they are loaded",
            make: || Box::<convert::Convert>::default(),
            presets: convert::PRESETS,
        },
        Entry {
            name: "cuda-graphs",
            about: "inference captured in CUDA graphs of several batch sizes, in private pools",
            make: || Box::<cuda_graphs::CudaGraphs>::default(),
            presets: cuda_graphs::PRESETS,
        },
        Entry {
            name: "leak",
            about: "mistakes that keep memory: summed losses, lists, gradients, logs, exceptions",
            make: || Box::<leaks::Leak>::default(),
            presets: leaks::PRESETS,
        },
        Entry {
            name: "adversarial",
            about: "made to fragment: Robson's worst case, combs, orders, growth, random churn",
            make: || Box::<adversarial::Adversarial>::default(),
            presets: adversarial::PRESETS,
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
        Entry {
            name: "llama-train",
            about: "a Llama-like transformer in training, all weights",
            make: || Box::<llama_train::LlamaTrain>::default(),
            presets: llama_train::PRESETS,
        },
        Entry {
            name: "lora",
            about: "adapters beside a frozen Llama-like transformer: LoRA, QLoRA",
            make: || Box::<lora::Lora>::default(),
            presets: lora::PRESETS,
        },
        Entry {
            name: "moe",
            about: "a mixture of experts in training, with tokens routed evenly or not",
            make: || Box::<moe::Moe>::default(),
            presets: moe::PRESETS,
        },
        Entry {
            name: "offload-infer",
            about: "a Llama-like transformer in inference: resident, from the host, or over devices",
            make: || Box::<offload::OffloadInfer>::default(),
            presets: offload::PRESETS,
        },
        Entry {
            name: "quantised",
            about: "a GPT-like transformer in inference, with weights of 8 or 4 bits",
            make: || Box::<quantised::Quantised>::default(),
            presets: quantised::PRESETS,
        },
        Entry {
            name: "rlhf",
            about: "training and generating in turn, by one model or beside an engine that sleeps",
            make: || Box::<rlhf::Rlhf>::default(),
            presets: rlhf::PRESETS,
        },
    ]
}
