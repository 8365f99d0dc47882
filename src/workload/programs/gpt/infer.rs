//! Inference without a cache: one forward after the other.

use super::{Attention, Gpt, Mode, Outputs, Pieces, Precision, Shape, check_sizes};
use crate::workload::{
    Workload, WorkloadError,
    parameter::{in_range, parameters},
    torch::{DType, Tensor, Torch},
};

parameters! {
    /// Inference of a GPT-like model.
    pub struct Infer {
        /// Blocks.
        layers: u64 = 12;
        /// Width of the model, in numbers.
        width: u64 = 768;
        /// Attention heads; they divide the width.
        heads: u64 = 12;
        /// Tokens in the vocabulary.
        vocab: u64 = 50257;
        /// Longest sequence that the model knows, in tokens.
        context: u64 = 4096;
        /// Sequences in a batch.
        batch: u64 = 8;
        /// Tokens in a sequence.
        seq: u64 = 512;
        /// Forwards.
        steps: u64 = 4;
        /// Type of the weights.
        weights: DType = DType::BF16;
        /// Mixed precision by autocast.
        autocast: Precision = Precision::Never;
        /// How attention is computed.
        attention: Attention = Attention::Sdpa;
        /// Pairs of sequence and head at a time, for sliced attention.
        slice: u64 = 4;
        /// Whether a head is made before it is tied to the embedding, as nn.Linear does.
        spare_head: bool = true;
        /// Whether a graph is recorded.
        mode: Mode = Mode::NoGrad;
        /// What becomes of the logits.
        outputs: Outputs = Outputs::Variable;
        /// Whether the likeliest next token of each sequence is looked up.
        next_token: bool = true;
    }
}

impl Infer {
    fn shape(&self) -> Shape {
        Shape {
            layers: self.layers,
            width: self.width,
            heads: self.heads,
            vocab: self.vocab,
            context: self.context,
            dtype: self.weights,
            attention: self.attention,
            slice: self.slice,
            dropout: false,
            tied: true,
            spare_head: self.spare_head,
            devices: 1,
            checkpoint: Pieces::None,
        }
    }

    fn keep(&self, t: &Torch, kept: &mut Vec<Tensor>, out: &Tensor) {
        match self.outputs {
            Outputs::Variable | Outputs::Deleted | Outputs::Temporary => {}
            Outputs::List => kept.push(out.clone()),
            Outputs::ListDetached => kept.push(out.detach()),
            Outputs::ListHost => kept.push(t.to_host(out)),
            Outputs::ListDetachedHost => kept.push(t.to_host(&out.detach())),
        }
    }
}

impl Workload for Infer {
    fn check(&self) -> Result<(), WorkloadError> {
        check_sizes(&self.shape(), self.batch)?;
        in_range("seq", self.seq, 2..=self.context)?;
        in_range("steps", self.steps, 1..=1_000_000)?;
        let half = self.weights != DType::F32 || self.autocast != Precision::Never;
        if self.attention == Attention::Flash && !half {
            let message = "flash attention is for half precision: give efficient, or weights bf16";
            return Err(WorkloadError::parameter("attention", message));
        }
        Ok(())
    }

    fn run(&self, t: &Torch) -> Result<(), WorkloadError> {
        let model = Gpt::new(t, self.shape());
        t.check()?;
        let mut kept = Vec::new();
        let mut last = None;
        for _ in 0..self.steps {
            let mut one = || {
                let out = t.autocast(self.autocast.dtype(), || {
                    let ids = t.input(&[self.batch, self.seq], DType::I64);
                    model.forward(t, &ids, false)
                });
                match self.outputs {
                    Outputs::Temporary => {}
                    _ => drop(last.replace(out.clone())),
                }
                self.keep(t, &mut kept, &out);
                if self.next_token {
                    let row = t.slice(&out, &[self.batch, self.vocab]);
                    drop(out);
                    let next = t.argmax(&row);
                    drop(row);
                    drop(next);
                }
            };
            match self.mode {
                Mode::Grad => one(),
                Mode::NoGrad | Mode::InferenceMode => t.no_grad(one),
            }
            if self.outputs != Outputs::Variable {
                drop(last.take());
            }
            t.mark("forward");
            t.check()?;
        }
        Ok(())
    }
}
