//! Training and generating in turn, as reinforcement learning from feedback does; with an engine of
//! its own for generation that sleeps while the model is trained, if wanted.

use super::{
    Preset, Workload,
    gpt::{Attention, Gpt, Pieces, Precision, Shape},
};
use crate::workload::{
    Label, WorkloadError,
    parameter::{choice, in_range, parameters},
    torch::{
        DType, Optimizer, Tensor, Torch, drop_list,
        optim::{Adam, AdamKind},
    },
};

choice! {
    /// When `empty_cache` is called.
    pub enum Empty {
        /// Never.
        Never = "never",
        /// After generating.
        AfterGenerate = "after_generate",
        /// After training.
        AfterTrain = "after_train",
        /// After each.
        Both = "both",
    }
}

choice! {
    /// What generates.
    pub enum Engine {
        /// The model that is trained.
        Model = "model",
        /// A copy of it in bfloat16 with a pool of keys and values, which is always there.
        Beside = "beside",
        /// The same, which frees its weights and its pool while the model is trained (sleep and wake).
        Sleeping = "sleeping",
    }
}

parameters! {
    /// Training and generating in turn.
    pub struct Rlhf {
        /// Blocks.
        layers: u64 = 12;
        /// Width of the model, in numbers.
        width: u64 = 768;
        /// Attention heads; they divide the width.
        heads: u64 = 12;
        /// Tokens in the vocabulary.
        vocab: u64 = 50257;
        /// Longest sequence that the model knows, in tokens.
        context: u64 = 2048;
        /// Mixed precision by autocast.
        autocast: Precision = Precision::Bf16;
        /// Times that it generates and trains.
        rounds: u64 = 3;
        /// Training steps a round.
        train_steps: u64 = 2;
        /// Sequences in a batch of training.
        batch: u64 = 4;
        /// Tokens in a sequence of training.
        seq: u64 = 512;
        /// Sequences that are generated at once.
        gen_batch: u64 = 64;
        /// Tokens of a prompt.
        prompt: u64 = 384;
        /// Tokens generated after a prompt.
        new: u64 = 20;
        /// When empty_cache is called.
        empty: Empty = Empty::Never;
        /// What generates.
        engine: Engine = Engine::Model;
        /// Tokens in a block of the engine's pool of keys and values.
        block: u64 = 16;
    }
}

/// Well-known sizes.
pub(super) const PRESETS: &[Preset] = &[
    Preset { name: "gpt2-small", values: &[] },
    Preset {
        name: "gpt2-xl",
        values: &[("layers", "48"), ("width", "1600"), ("heads", "25"), ("gen_batch", "16")],
    },
];

impl Rlhf {
    fn shape(&self, dtype: DType, spare_head: bool) -> Shape {
        Shape {
            layers: self.layers,
            width: self.width,
            heads: self.heads,
            vocab: self.vocab,
            context: self.context,
            dtype,
            attention: Attention::Sdpa,
            slice: 1,
            dropout: false,
            tied: true,
            spare_head,
            devices: 1,
            checkpoint: Pieces::None,
        }
    }

    fn empties(&self, after: Empty) -> bool {
        self.empty == after || self.empty == Empty::Both
    }

    fn generate(&self, t: &Torch, model: &Gpt, engine: &mut Option<Paged>) {
        let prompts = t.input(&[self.gen_batch, self.prompt], DType::I64);
        if self.engine == Engine::Model {
            return t.autocast(self.autocast.dtype(), || {
                let ids = model.generate(t, &prompts, self.new);
                drop(prompts);
                drop(ids);
            });
        }
        let engine = engine.get_or_insert_with(|| Paged::wake(t, self));
        t.no_grad(|| engine.generate(t, self, &prompts));
    }

    fn train(&self, t: &Torch, model: &Gpt, opt: &mut Adam) {
        let mut last = None;
        for _ in 0..self.train_steps {
            let loss = {
                let ids = t.input(&[self.batch, self.seq], DType::I64);
                let mut logits = None;
                model.loss(t, &ids, self.autocast.dtype(), true, &mut logits)
            };
            drop(last.take());
            opt.zero_grad();
            t.backward(&loss);
            opt.step(t);
            last = Some(loss);
        }
        opt.zero_grad();
    }
}

impl Workload for Rlhf {
    fn check(&self) -> Result<(), WorkloadError> {
        self.shape(DType::F32, true).check(self.batch)?;
        in_range("rounds", self.rounds, 1..=100_000)?;
        in_range("train_steps", self.train_steps, 1..=100_000)?;
        in_range("seq", self.seq, 2..=self.context)?;
        in_range("gen_batch", self.gen_batch, 1..=1 << 30)?;
        in_range("prompt", self.prompt, 1..=self.context)?;
        in_range("new", self.new, 1..=1_000_000)?;
        in_range("block", self.block, 1..=1 << 20)?;
        if self.prompt.saturating_add(self.new) > self.context {
            let message = format!(
                "{} tokens after a prompt of {} are more than the model's context of {}",
                self.new, self.prompt, self.context
            );
            return Err(WorkloadError::parameter("new", message));
        }
        Ok(())
    }

    fn run(&self, t: &Torch) -> Result<(), WorkloadError> {
        let model = Gpt::new(t, self.shape(DType::F32, true));
        let mut opt = Adam::new(model.parameters(), AdamKind::Foreach);
        let mut engine = None;
        for _ in 0..self.rounds {
            self.generate(t, &model, &mut engine);
            if self.engine == Engine::Sleeping {
                drop(engine.take());
            }
            t.mark("generate");
            t.check()?;
            if self.empties(Empty::AfterGenerate) {
                t.empty_cache();
            }
            self.train(t, &model, &mut opt);
            t.mark("train");
            t.check()?;
            if self.empties(Empty::AfterTrain) {
                t.empty_cache();
            }
        }
        Ok(())
    }
}

/// An engine with weights of its own and one pool of keys and values a layer, in blocks of tokens, as
/// vLLM has it.
struct Paged {
    weights: Gpt,
    pools: Vec<Tensor>,
}

impl Paged {
    /// Makes, or makes again, the weights and the pools; the weights are then copied from the model.
    fn wake(t: &Torch, of: &Rlhf) -> Self {
        let weights = Gpt::new(t, of.shape(DType::BF16, false));
        let blocks = of.prompt.saturating_add(of.new).div_ceil(of.block);
        let blocks = blocks.saturating_mul(of.gen_batch);
        let pool = |_| t.empty_as(&[2, blocks, of.block, of.width], DType::BF16, Label::KvCache);
        Self { weights, pools: (0..of.layers).map(pool).collect() }
    }

    fn generate(&self, t: &Torch, of: &Rlhf, prompts: &Tensor) {
        let tables = t.input(&[of.gen_batch, of.context.div_ceil(of.block)], DType::I32);
        let mut next = self.weights.paged(t, prompts);
        for _ in 1..of.new {
            next = self.weights.paged(t, &next);
            if t.check().is_err() {
                break;
            }
        }
        drop(next);
        drop(tables);
    }
}

impl Drop for Paged {
    /// Sleep: pools first, last made first.
    fn drop(&mut self) {
        drop_list(std::mem::take(&mut self.pools));
    }
}
