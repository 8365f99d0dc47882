//! A server of a language model: continuous batching over a day of requests.

mod model;
mod scheduler;
#[cfg(test)]
mod tests;

use super::{Preset, Workload};
use crate::workload::{
    Label, WorkloadError,
    parameter::{choice, in_range, parameters},
    torch::{DType, Tensor, Torch, drop_list},
};
use model::{Model, peak_of};
use scheduler::{Running, Scheduler, Step};

choice! {
    /// How keys and values are held.
    pub enum Cache {
        /// In one pool of blocks that takes what the other needs leave of the memory, as in vLLM.
        Paged = "paged",
        /// In tensors of each request, one a layer, which grow in chunks.
        Grown = "grown",
    }
}

parameters! {
    /// Serving a Llama-like model in float16, in the manner of vLLM.
    pub struct Serve {
        /// How keys and values are held.
        cache: Cache = Cache::Paged;
        /// Memory of the device, in GiB.
        memory: u64 = 80;
        /// What the server may use of it, in percent (paged).
        utilisation: u64 = 90;
        /// Tokens in a block of the pool (paged), or by which a request's tensors grow (grown).
        block: u64 = 16;
        /// Number of requests.
        requests: u64 = 300;
        /// Mean time between requests at the busiest hour, in thousandths of a step.
        interval: u64 = 3000;
        /// Whether requests come as over a day: seldom at its ends, often in its middle.
        day: bool = true;
        /// Shortest prompt, in tokens.
        prompt_min: u64 = 32;
        /// Longest prompt, in tokens; every doubling is as likely.
        prompt_max: u64 = 4096;
        /// Mean of the new tokens of a request.
        new: u64 = 200;
        /// Most requests that run at a time.
        batch: u64 = 256;
        /// Most tokens in a step.
        batch_tokens: u64 = 8192;
        /// Percent of the requests that begin with a prefix which others have, too.
        shared: u64 = 30;
        /// Length of such a prefix, in tokens; 0 keeps no prefixes.
        prefix: u64 = 512;
        /// Number of different prefixes.
        prefixes: u64 = 4;
        /// Tokens that a draft model proposes for each request and step; 0 is without one.
        draft: u64 = 0;
        /// Percent of the proposed tokens that are accepted.
        accepted: u64 = 60;
        /// Whether steps without prompts are replayed as CUDA graphs, which allocate nothing but inputs
        /// and results.
        graphs: bool = true;
        /// Bits of a weight: 16, 8 or 4.
        bits: u64 = 16;
        /// Layers.
        layers: u64 = 32;
        /// Width of the model, in numbers.
        width: u64 = 4096;
        /// Attention heads; they divide the width.
        heads: u64 = 32;
        /// Heads of keys and values; they divide the attention heads.
        kv_heads: u64 = 8;
        /// Width of the network in a layer, in numbers.
        hidden: u64 = 14_336;
        /// Tokens in the vocabulary.
        vocab: u64 = 128_256;
        /// Draws arrivals and lengths.
        seed: u64 = 0;
    }
}

/// Well-known sizes.
pub(super) const PRESETS: &[Preset] = &[
    Preset { name: "llama-3-8b", values: &[] },
    Preset { name: "llama-3-8b-day", values: &[("requests", "3000")] },
    Preset { name: "llama-3-8b-grown", values: &[("cache", "grown"), ("block", "256")] },
    Preset { name: "llama-3-8b-speculative", values: &[("draft", "4"), ("requests", "200")] },
    Preset {
        name: "llama-3-70b-int4",
        values: &[
            ("layers", "80"),
            ("width", "8192"),
            ("heads", "64"),
            ("hidden", "28672"),
            ("bits", "4"),
            ("requests", "200"),
        ],
    },
];

impl Serve {
    /// Bytes of the keys and values of a token in all layers.
    fn token_bytes(&self) -> u64 {
        2 * self.layers * self.kv_heads * (self.width / self.heads) * DType::F16.bytes()
    }

    /// Blocks of the pool: what the weights and the largest step leave of the memory.
    fn blocks(&self) -> Result<u64, WorkloadError> {
        let most = peak_of(|t| {
            let model = Model::new(t, self);
            model.step(t, self.batch_tokens, self.batch.min(self.batch_tokens));
        })?;
        let may = (self.memory << 30) / 100 * self.utilisation;
        let blocks = may.saturating_sub(most) / (self.token_bytes() * self.block);
        let longest = self.prompt_max + 20 * self.new + self.prefix + self.draft;
        if blocks * self.block >= longest {
            return Ok(blocks);
        }
        let message = format!(
            "weights and the largest step take {} MiB of the {} MiB that may be used; what is left \
             does not hold {longest} tokens: more memory, fewer bits, layers or batch_tokens",
            most >> 20,
            may >> 20
        );
        Err(WorkloadError::parameter("memory", message))
    }
}

/// Keys and values of a request, where each has its own.
#[derive(Default)]
struct Own {
    capacity: u64,
    layers: Vec<Tensor>,
}

impl Own {
    /// Makes room for so many tokens: a larger tensor for each layer, then the old one goes.
    fn grow(&mut self, t: &Torch, model: &Model, tokens: u64, chunk: u64) {
        if tokens <= self.capacity {
            return;
        }
        self.capacity = tokens.next_multiple_of(chunk);
        let mut old = std::mem::take(&mut self.layers).into_iter();
        for _ in 0..model.layers() {
            self.layers.push(model.keys_and_values(t, self.capacity));
            drop(old.next());
        }
    }
}

impl Workload for Serve {
    fn check(&self) -> Result<(), WorkloadError> {
        in_range("memory", self.memory, 1..=1 << 20)?;
        in_range("utilisation", self.utilisation, 1..=100)?;
        in_range("block", self.block, 1..=1 << 16)?;
        in_range("requests", self.requests, 1..=1_000_000)?;
        in_range("interval", self.interval, 1..=100_000_000)?;
        in_range("prompt_max", self.prompt_max, 1..=1 << 24)?;
        in_range("prompt_min", self.prompt_min, 1..=self.prompt_max)?;
        in_range("new", self.new, 1..=1 << 20)?;
        in_range("batch", self.batch, 1..=4096)?;
        in_range("batch_tokens", self.batch_tokens, 1..=1 << 24)?;
        in_range("shared", self.shared, 0..=100)?;
        in_range("prefix", self.prefix, 0..=1 << 24)?;
        in_range("prefixes", self.prefixes, 1..=1000)?;
        in_range("draft", self.draft, 0..=64)?;
        in_range("accepted", self.accepted, 0..=100)?;
        in_range("layers", self.layers, 1..=1000)?;
        super::cuda_graphs::check_heads(self.width, self.heads)?;
        in_range("kv_heads", self.kv_heads, 1..=self.heads)?;
        in_range("hidden", self.hidden, 1..=1 << 20)?;
        in_range("vocab", self.vocab, 1..=1 << 30)?;
        let refuse = |name, message: String| Err(WorkloadError::parameter(name, message));
        if !self.heads.is_multiple_of(self.kv_heads) {
            return refuse("kv_heads", format!("they do not divide {} heads", self.heads));
        }
        if ![4, 8, 16].contains(&self.bits) {
            return refuse("bits", format!("{} is none of 16, 8, 4", self.bits));
        }
        if self.batch * (1 + self.draft) > self.batch_tokens {
            let message = format!(
                "{} requests of {} tokens are more than a step: fewer, or a larger batch_tokens",
                self.batch,
                1 + self.draft
            );
            return refuse("batch", message);
        }
        if self.cache == Cache::Paged { self.blocks().map(drop) } else { Ok(()) }
    }

    fn run(&self, t: &Torch) -> Result<(), WorkloadError> {
        t.no_grad(|| {
            let blocks = match self.cache {
                Cache::Paged => self.blocks()?,
                Cache::Grown => u64::MAX / self.block,
            };
            let model = Model::new(t, self);
            t.mark("weights");
            // The largest step there can be, to see what it needs.
            model.step(t, self.batch_tokens, self.batch.min(self.batch_tokens));
            t.empty_cache();
            t.mark("profile");
            let pool = match self.cache {
                Cache::Paged => model.pool(t, blocks, self.block),
                Cache::Grown => Vec::new(),
            };
            t.mark("pool");
            let mut scheduler = Scheduler::new(self, blocks);
            let mut prefixes: Vec<Own> = Vec::new();
            while let Some(step) = scheduler.next() {
                if step.tokens > 0 {
                    self.hold(t, &model, &mut scheduler, &mut prefixes);
                    self.step(t, &model, &step);
                }
                scheduler.finish();
                t.mark("step");
                t.check()?;
            }
            drop(scheduler);
            prefixes.into_iter().for_each(|own| drop_list(own.layers));
            drop_list(pool);
            t.check()
        })
    }
}

impl Serve {
    /// Room for what this step adds, where each request has its own tensors. A shared prefix is kept
    /// apart and copied.
    fn hold(&self, t: &Torch, model: &Model, scheduler: &mut Scheduler, prefixes: &mut Vec<Own>) {
        if self.cache == Cache::Paged {
            return;
        }
        for Running { request, own, computed, .. } in scheduler.running_mut() {
            own.grow(t, model, *computed + self.draft, self.block);
            let is_new = |kept: &Vec<Own>, i: usize| kept.get(i).is_none_or(|p| p.capacity == 0);
            if let Some(i) = request.prefix
                && *computed >= self.prefix
                && is_new(prefixes, i)
            {
                if prefixes.len() <= i {
                    prefixes.resize_with(i + 1, Own::default);
                }
                prefixes[i].grow(t, model, self.prefix, 1);
            }
        }
    }

    fn step(&self, t: &Torch, model: &Model, step: &Step) {
        let drafts = (self.draft > 0).then(|| {
            // The draft model's proposals and their probabilities.
            let rows = step.decoding.saturating_mul(self.draft);
            let ids = t.input(&[rows], DType::I64);
            (ids, t.empty(&[rows, self.vocab], DType::F32))
        });
        if step.prompts == 0 && self.graphs {
            model.replay(t, step.tokens, step.tokens);
        } else {
            model.step(t, step.tokens, step.decoding * (1 + self.draft) + step.prompts);
        }
        drop(drafts);
    }
}

/// A tensor of keys and values.
fn kv(t: &Torch, shape: &[u64]) -> Tensor {
    t.empty_as(shape, DType::F16, Label::KvCache)
}
