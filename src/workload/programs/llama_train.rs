//! Training all weights of a Llama-like model.

use super::{
    Preset, Workload,
    llama::{Config, Kind, Llama, Mask},
};
use crate::workload::{
    WorkloadError,
    parameter::{choice, in_range, parameters},
    torch::{
        DType, Optimizer, Torch,
        optim::{Adam, AdamKind},
    },
};

choice! {
    /// The types of weights and products.
    pub enum Precision {
        /// Weights, gradients and optimizer state in bfloat16.
        Bf16 = "bf16",
        /// Weights, gradients and optimizer state in float32, products in bfloat16.
        MixedBf16 = "mixed-bf16",
    }
}

parameters! {
    /// Training of a Llama-like model.
    pub struct LlamaTrain {
        /// Layers.
        layers: u64 = 22;
        /// Width of the hidden states, in numbers.
        width: u64 = 2048;
        /// Width inside the gated network, in numbers.
        intermediate: u64 = 5632;
        /// Heads of queries; they divide the width.
        heads: u64 = 32;
        /// Heads of keys and values; they divide the heads of queries.
        kv_heads: u64 = 4;
        /// Tokens in the vocabulary.
        vocab: u64 = 32000;
        /// Types of weights and products.
        precision: Precision = Precision::Bf16;
        /// Whether each layer keeps its input alone and runs again in backward.
        checkpoint: bool = false;
        /// The causal mask: known to the kernel, or a tensor as for packed sequences.
        mask: Mask = Mask::Causal;
        /// Sequences in a batch.
        batch: u64 = 1;
        /// Tokens in a sequence.
        seq: u64 = 512;
        /// Training steps.
        steps: u64 = 2;
    }
}

/// Well-known sizes.
pub(super) const PRESETS: &[Preset] = &[
    Preset { name: "llama-1b", values: &[] },
    Preset { name: "llama-7b", values: LLAMA_7B },
    Preset { name: "llama-13b", values: LLAMA_13B },
];

/// The sizes of Llama 2 7B.
pub(super) const LLAMA_7B: &[(&str, &str)] = &[
    ("layers", "32"),
    ("width", "4096"),
    ("intermediate", "11008"),
    ("heads", "32"),
    ("kv_heads", "32"),
];

/// The sizes of Llama 2 13B.
pub(super) const LLAMA_13B: &[(&str, &str)] = &[
    ("layers", "40"),
    ("width", "5120"),
    ("intermediate", "13824"),
    ("heads", "40"),
    ("kv_heads", "40"),
];

/// The sizes of Llama 2 70B.
pub(super) const LLAMA_70B: &[(&str, &str)] = &[
    ("layers", "80"),
    ("width", "8192"),
    ("intermediate", "28672"),
    ("heads", "64"),
    ("kv_heads", "8"),
];

impl LlamaTrain {
    fn config(&self) -> Config {
        let Self { layers, width, intermediate, heads, kv_heads, vocab, .. } = *self;
        Config { layers, width, intermediate, heads, kv_heads, vocab }
    }
}

impl Workload for LlamaTrain {
    fn check(&self) -> Result<(), WorkloadError> {
        self.config().check()?;
        in_range("batch", self.batch, 1..=1 << 20)?;
        in_range("seq", self.seq, 1..=1 << 24)?;
        in_range("steps", self.steps, 1..=1_000_000)
    }

    fn run(&self, t: &Torch) -> Result<(), WorkloadError> {
        let (dtype, autocast) = match self.precision {
            Precision::Bf16 => (DType::BF16, None),
            Precision::MixedBf16 => (DType::F32, Some(DType::BF16)),
        };
        let mut model = Llama::new(t, &self.config(), dtype, Kind::Trained);
        if self.checkpoint {
            model.enable_checkpointing();
        }
        let mut opt = Adam::new(model.trained(), AdamKind::Foreach);
        t.check()?;
        train(t, &model, &mut opt, autocast, (self.batch, self.seq), self.steps, self.mask)
    }
}

/// `steps` times forward, backward and step on batches of token ids `[batch, tokens]`.
pub(super) fn train(
    t: &Torch,
    model: &Llama,
    opt: &mut impl Optimizer,
    autocast: Option<DType>,
    (batch, tokens): (u64, u64),
    steps: u64,
    mask: Mask,
) -> Result<(), WorkloadError> {
    let (mut last_ids, mut last_loss) = (None, None);
    for _ in 0..steps {
        let ids = t.input(&[batch, tokens], DType::I64);
        drop(last_ids.take());
        let loss = t.autocast(autocast, || model.loss(t, &ids, mask));
        drop(last_loss.take());
        opt.zero_grad();
        t.backward(&loss);
        opt.step(t);
        (last_ids, last_loss) = (Some(ids), Some(loss));
        t.mark("step");
        t.check()?;
    }
    opt.zero_grad();
    Ok(())
}
