//! Mistakes that keep memory: each beside the program without it.

use super::{
    Preset, Workload,
    cuda_graphs::check_heads,
    decoder::{Decoder, Sizes},
};
use crate::workload::{
    WorkloadError,
    parameter::{choice, in_range, parameters},
    torch::{
        DType, Optimizer, Tensor, Torch, drop_list,
        optim::{Adam, AdamKind},
    },
};

choice! {
    /// What is kept that should not be.
    pub enum Mistake {
        /// `total += loss` in an evaluation without `no_grad`: each loss keeps its graph.
        Loss = "loss",
        /// `total += loss` in training: `backward()` has let go of the graph, so nothing grows.
        LossTrained = "loss_trained",
        /// Outputs kept in a list, with their graphs.
        List = "list",
        /// Outputs kept for logging: `detach()` lets go of the graph, not of the numbers.
        Log = "log",
        /// Gradients that are never cleared: they stay through the next forward.
        Gradients = "gradients",
        /// A step that fails halfway, and a list that keeps the exceptions: each holds the frames, and
        /// these the activations. The next try has half the batch.
        Exception = "exception",
    }
}

parameters! {
    /// A GPT-like model in bfloat16 with a mistake, or without it.
    pub struct Leak {
        /// What is kept that should not be.
        mistake: Mistake = Mistake::Loss;
        /// Whether the mistake is mended.
        mended: bool = false;
        /// Steps, or tries.
        steps: u64 = 6;
        /// Blocks.
        layers: u64 = 8;
        /// Width of the model, in numbers.
        width: u64 = 768;
        /// Attention heads; they divide the width.
        heads: u64 = 12;
        /// Tokens in the vocabulary.
        vocab: u64 = 16_000;
        /// Sequences in a batch.
        batch: u64 = 4;
        /// Tokens in a sequence.
        seq: u64 = 512;
    }
}

/// Well-known sizes.
pub(super) const PRESETS: &[Preset] = &[
    Preset { name: "loss", values: &[] },
    Preset { name: "list", values: &[("mistake", "list")] },
    Preset { name: "log", values: &[("mistake", "log")] },
    Preset { name: "gradients", values: &[("mistake", "gradients")] },
    Preset { name: "exception", values: &[("mistake", "exception"), ("batch", "32")] },
];

impl Workload for Leak {
    fn check(&self) -> Result<(), WorkloadError> {
        in_range("layers", self.layers, 1..=1000)?;
        check_heads(self.width, self.heads)?;
        in_range("vocab", self.vocab, 1..=1 << 30)?;
        in_range("batch", self.batch, 1..=1 << 30)?;
        in_range("seq", self.seq, 2..=1 << 30)?;
        in_range("steps", self.steps, 1..=10_000)
    }

    fn run(&self, t: &Torch) -> Result<(), WorkloadError> {
        let Self { layers, width, heads, vocab, seq, .. } = *self;
        let model =
            Decoder::new(t, Sizes { layers, width, heads, vocab, context: seq }, DType::BF16);
        match self.mistake {
            Mistake::Loss | Mistake::List | Mistake::Log => self.evaluate(t, &model),
            Mistake::LossTrained | Mistake::Gradients => self.train(t, &model),
            Mistake::Exception => self.retry(t, &model),
        }
    }
}

impl Leak {
    fn ids(&self, t: &Torch) -> Tensor {
        t.input(&[self.batch, self.seq], DType::I64)
    }

    /// Forward alone, with a graph, as without `no_grad`.
    fn evaluate(&self, t: &Torch, model: &Decoder) -> Result<(), WorkloadError> {
        let mut kept = Vec::new();
        let mut total: Option<Tensor> = None;
        for _ in 0..self.steps {
            let logits = model.forward(t, &self.ids(t));
            match (self.mistake, self.mended) {
                (Mistake::List, false) => kept.push(logits.clone()),
                (Mistake::Log, false) => kept.push(logits.detach()),
                (Mistake::List | Mistake::Log, true) => {} // .detach().cpu()
                (_, true) => drop(model.loss(t, &logits)), // .item()
                (_, false) => {
                    let loss = model.loss(t, &logits);
                    total = Some(match &total {
                        Some(before) => t.add(before, &loss),
                        None => loss,
                    });
                }
            }
            drop(logits);
            t.mark("step");
            t.check()?;
        }
        drop_list(kept);
        drop(total);
        t.check()
    }

    fn train(&self, t: &Torch, model: &Decoder) -> Result<(), WorkloadError> {
        let mut opt = Adam::new(model.parameters(), AdamKind::Foreach);
        let mut total: Option<Tensor> = None;
        for _ in 0..self.steps {
            if self.mended || self.mistake != Mistake::Gradients {
                opt.zero_grad();
            }
            let loss = {
                let logits = model.forward(t, &self.ids(t));
                model.loss(t, &logits)
            };
            t.backward(&loss);
            opt.step(t);
            if self.mistake == Mistake::LossTrained && !self.mended {
                total = Some(match &total {
                    Some(before) => t.add(before, &loss),
                    None => loss,
                });
            }
            t.mark("step");
            t.check()?;
        }
        drop(total);
        t.check()
    }

    /// Every try fails halfway, as of an out-of-memory error, until the batch is 1.
    fn retry(&self, t: &Torch, model: &Decoder) -> Result<(), WorkloadError> {
        let mut exceptions = Vec::new();
        let mut batch = self.batch;
        for _ in 0..self.steps {
            let ids = t.input(&[batch, self.seq], DType::I64);
            // The locals of the frames in the traceback.
            let locals = (model.forward_until(t, &ids, self.layers.div_ceil(2)), ids);
            if self.mended {
                drop(locals);
            } else {
                exceptions.push(locals);
            }
            batch = (batch / 2).max(1);
            t.mark("try");
            t.check()?;
        }
        drop_list(exceptions);
        t.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{trace::Op, workload::Parameters};

    /// Bytes live at the end of the first and of the last step.
    fn grown(mistake: &str, mended: bool) -> (u64, u64) {
        let mut leak = Leak { layers: 2, vocab: 100, seq: 64, mended, ..Leak::default() };
        leak.set("mistake", mistake).unwrap();
        let t = Torch::new(1);
        leak.run(&t).unwrap();
        let marks = t.marks();
        let traces = t.finish().unwrap();
        let live_at = |end: usize| {
            let mut sizes = std::collections::HashMap::new();
            for op in &traces[0].ops()[..end] {
                match op {
                    Op::Alloc(alloc) => _ = sizes.insert(alloc.id, alloc.size.0),
                    Op::Free(free) => _ = sizes.remove(&free.id),
                    _ => {}
                }
            }
            sizes.values().sum::<u64>()
        };
        (live_at(marks[0].ops[0]), live_at(marks.last().unwrap().ops[0]))
    }

    #[test]
    fn each_mistake_grows_and_its_cure_does_not() {
        for mistake in ["loss", "list", "log", "exception"] {
            let (first, last) = grown(mistake, false);
            assert!(last > first, "{mistake}: {first} to {last}");
            let (first, last) = grown(mistake, true);
            assert_eq!(first, last, "{mistake} mended");
        }
    }

    #[test]
    fn uncleared_gradients_and_summed_losses_of_training_do_not_grow() {
        for mistake in ["gradients", "loss_trained"] {
            let (first, last) = grown(mistake, false);
            assert!(last <= first + 4096, "{mistake}: {first} to {last}");
        }
    }
}
