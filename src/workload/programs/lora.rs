//! LoRA and QLoRA: a frozen Llama-like model with adapters, as peft makes them.

use super::{
    Preset, Workload,
    llama::{Config, Kind, Llama, Mask},
    llama_train::{LLAMA_7B, LLAMA_13B, LLAMA_70B, train},
};
use crate::workload::{
    WorkloadError,
    parameter::{choice, in_range, parameters},
    torch::{
        DType, Torch,
        optim::{Adam, AdamKind},
    },
};

choice! {
    /// Which projections have an adapter.
    pub enum Targets {
        /// Queries and values.
        Qv = "qv",
        /// All seven of a layer.
        All = "all",
    }
}

choice! {
    /// The type of the frozen weights.
    pub enum Base {
        /// bfloat16.
        Bf16 = "bf16",
        /// Four bits in the layers, bfloat16 outside: QLoRA.
        Int4 = "int4",
    }
}

parameters! {
    /// Training of adapters.
    pub struct Lora {
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
        /// Type of the frozen weights; adapters are float32.
        base: Base = Base::Bf16;
        /// Which projections have an adapter.
        targets: Targets = Targets::Qv;
        /// Rank of the adapters.
        rank: u64 = 16;
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
    Preset { name: "llama-70b", values: LLAMA_70B },
];

impl Lora {
    fn config(&self) -> Config {
        let Self { layers, width, intermediate, heads, kv_heads, vocab, .. } = *self;
        Config { layers, width, intermediate, heads, kv_heads, vocab }
    }
}

impl Workload for Lora {
    fn check(&self) -> Result<(), WorkloadError> {
        self.config().check()?;
        in_range("rank", self.rank, 1..=self.width)?;
        in_range("batch", self.batch, 1..=1 << 20)?;
        in_range("seq", self.seq, 1..=1 << 24)?;
        in_range("steps", self.steps, 1..=1_000_000)
    }

    fn run(&self, t: &Torch) -> Result<(), WorkloadError> {
        let kind = match self.base {
            Base::Bf16 => Kind::Frozen,
            Base::Int4 => Kind::FrozenInt4,
        };
        let mut model = Llama::new(t, &self.config(), DType::BF16, kind);
        let targets = self.targets;
        model.adapt(t, self.rank, |i| targets == Targets::All || matches!(i, 0 | 2));
        if self.checkpoint {
            model.enable_checkpointing();
        }
        let mut opt = Adam::new(model.trained(), AdamKind::Foreach);
        t.check()?;
        train(t, &model, &mut opt, None, (self.batch, self.seq), self.steps, self.mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{trace::Op, workload::Label};

    /// Bytes ever allocated under a label.
    fn bytes(lora: &Lora, label: Label) -> u64 {
        let t = Torch::new(1);
        lora.run(&t).unwrap();
        let trace = t.finish().unwrap().swap_remove(0);
        let size = |op: &Op| match op {
            Op::Alloc(alloc) if trace.labels().get(alloc.id) == Some(label.name()) => alloc.size.0,
            _ => 0,
        };
        trace.ops().iter().map(size).sum()
    }

    fn small(base: Base, targets: Targets) -> Lora {
        let (layers, width, heads, kv_heads) = (2, 256, 4, 4);
        let (intermediate, vocab, seq, steps) = (512, 1000, 64, 1);
        let sizes = Lora { layers, width, heads, kv_heads, intermediate, vocab, ..Lora::default() };
        Lora { base, targets, seq, steps, rank: 8, ..sizes }
    }

    #[test]
    fn only_adapters_have_gradients_and_states() {
        let lora = small(Base::Bf16, Targets::Qv);
        // Two projections in each of two layers, a narrow matrix on each side, float32.
        let adapters = 2 * 2 * 2 * (8 * 256 * 4);
        assert_eq!(bytes(&lora, Label::Gradient), adapters);
        assert_eq!(bytes(&lora, Label::OptimizerState), 2 * adapters);
        assert!(bytes(&small(Base::Bf16, Targets::All), Label::Gradient) > 3 * adapters);
    }

    #[test]
    fn weights_of_four_bits_train_the_same_adapters() {
        let (bf16, int4) = (small(Base::Bf16, Targets::All), small(Base::Int4, Targets::All));
        assert_eq!(bytes(&bf16, Label::Gradient), bytes(&int4, Label::Gradient));
    }
}
