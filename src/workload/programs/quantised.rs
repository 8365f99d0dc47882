//! Inference of a GPT-like model whose matrices have few bits and are unpacked for each product.

use super::{
    Preset, Workload,
    gpt::{Attention, Gpt, Pieces, Shape},
};
use crate::workload::{
    WorkloadError,
    parameter::{choice, in_range, parameters},
    torch::{DType, Torch, packed},
};

choice! {
    /// The type of the matrices in the blocks.
    pub enum Weights {
        /// float32.
        Fp32 = "fp32",
        /// bfloat16.
        Bf16 = "bf16",
        /// Eight bits a value.
        Int8 = "int8",
        /// Four bits a value.
        Int4 = "int4",
    }
}

choice! {
    /// Where the matrices are packed.
    pub enum Load {
        /// On the device: the whole model in bfloat16 goes there first.
        Device = "device",
        /// On the host: only packed ones arrive.
        Host = "host",
    }
}

parameters! {
    /// Inference with quantised weights.
    pub struct Quantised {
        /// Blocks.
        layers: u64 = 24;
        /// Width of the model, in numbers.
        width: u64 = 2048;
        /// Attention heads; they divide the width.
        heads: u64 = 16;
        /// Tokens in the vocabulary.
        vocab: u64 = 50257;
        /// Longest sequence that the model knows, in tokens.
        context: u64 = 4096;
        /// Type of the matrices in the blocks; those of 8 and 4 bits have a float16 scale for every 64 values.
        weights: Weights = Weights::Int8;
        /// Where they are packed.
        load: Load = Load::Device;
        /// Sequences in a batch.
        batch: u64 = 1;
        /// Tokens in a sequence.
        seq: u64 = 512;
        /// Forwards.
        steps: u64 = 2;
    }
}

/// Well-known sizes.
pub(super) const PRESETS: &[Preset] = &[
    Preset { name: "gpt-1b", values: &[] },
    Preset {
        name: "gpt-7b",
        values: &[("layers", "32"), ("width", "4096"), ("heads", "32"), ("load", "host")],
    },
];

impl Quantised {
    fn shape(&self) -> Shape {
        Shape {
            layers: self.layers,
            width: self.width,
            heads: self.heads,
            vocab: self.vocab,
            context: self.context,
            dtype: if self.weights == Weights::Fp32 { DType::F32 } else { DType::BF16 },
            attention: Attention::Sdpa,
            slice: 1,
            dropout: false,
            tied: true,
            spare_head: false,
            devices: 1,
            checkpoint: Pieces::None,
        }
    }

    fn bits(&self) -> Option<u64> {
        match self.weights {
            Weights::Fp32 | Weights::Bf16 => None,
            Weights::Int8 => Some(8),
            Weights::Int4 => Some(4),
        }
    }
}

impl Workload for Quantised {
    fn check(&self) -> Result<(), WorkloadError> {
        self.shape().check(self.batch)?;
        in_range("seq", self.seq, 1..=self.context)?;
        in_range("steps", self.steps, 1..=1_000_000)?;
        if self.bits().is_none() && self.load == Load::Host {
            let message = "only weights of 8 or 4 bits are packed: give weights int8 or int4";
            return Err(WorkloadError::parameter("load", message));
        }
        let block = packed::BLOCK;
        if self.bits().is_some() && !self.width.saturating_mul(self.width).is_multiple_of(block) {
            let message = format!("a matrix of this width has no whole blocks of {block} values");
            return Err(WorkloadError::parameter("width", message));
        }
        Ok(())
    }

    fn run(&self, t: &Torch) -> Result<(), WorkloadError> {
        let model = match self.bits() {
            Some(bits) if self.load == Load::Host => Gpt::new_packed(t, self.shape(), bits),
            Some(bits) => {
                let mut model = Gpt::new(t, self.shape());
                t.check()?;
                model.pack(t, bits);
                model
            }
            None => Gpt::new(t, self.shape()),
        };
        t.mark("load");
        t.check()?;
        for _ in 0..self.steps {
            t.no_grad(|| {
                let out = {
                    let ids = t.input(&[self.batch, self.seq], DType::I64);
                    model.forward(t, &ids, false)
                };
                let row = t.slice(&out, &[self.batch, self.vocab]);
                drop(out);
                let next = t.argmax(&row);
                drop(row);
                drop(next);
            });
            t.mark("forward");
            t.check()?;
        }
        Ok(())
    }
}
