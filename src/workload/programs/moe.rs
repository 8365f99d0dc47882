//! A mixture of experts: a router sends each token to a few of many networks.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    Preset, Workload,
    gpt::{Attention, Block, Pieces, Shape},
};
use crate::{
    base::Bytes,
    workload::{
        WorkloadError,
        parameter::{choice, in_range, parameters},
        torch::{
            DType, Optimizer, Tensor, Torch,
            nn::{LayerNorm, Linear},
            optim::{Adam, AdamKind},
        },
    },
};

/// Experts in all layers together.
const MOST_EXPERTS: u64 = 20_000;

choice! {
    /// How many tokens each expert gets.
    pub enum Routing {
        /// All the same.
        Balanced = "balanced",
        /// All the same, with room to spare: dropped or padded up to the capacity.
        Capacity = "capacity",
        /// Drawn anew for each layer and step.
        Random = "random",
    }
}

parameters! {
    /// Training of a mixture of experts.
    pub struct Moe {
        /// Layers, each an attention block and a block of experts.
        layers: u64 = 4;
        /// Width of the model, in numbers.
        width: u64 = 1024;
        /// Attention heads; they divide the width.
        heads: u64 = 16;
        /// Tokens in the vocabulary.
        vocab: u64 = 32000;
        /// Experts of a layer.
        experts: u64 = 8;
        /// Experts that each token goes to.
        top: u64 = 2;
        /// How many tokens each expert gets.
        routing: Routing = Routing::Random;
        /// Capacity of an expert, in percent of its share.
        capacity: u64 = 125;
        /// How even a random routing is: the shape of the gamma distribution that shares are drawn from.
        evenness: f64 = 0.8;
        /// Tokens of each expert, expert by expert, layer by layer, step by step, again and again; instead of a routing.
        counts: Vec<u64> = Vec::new();
        /// Sequences in a batch.
        batch: u64 = 8;
        /// Tokens in a sequence.
        seq: u64 = 512;
        /// Training steps.
        steps: u64 = 8;
        /// Where random numbers begin.
        seed: u64 = 0;
    }
}

/// Well-known sizes.
pub(super) const PRESETS: &[Preset] = &[
    Preset { name: "moe-300m", values: &[] },
    Preset {
        name: "moe-8x1b",
        values: &[
            ("layers", "8"),
            ("width", "4096"),
            ("heads", "32"),
            ("batch", "2"),
            ("seq", "2048"),
            ("steps", "3"),
        ],
    },
];

impl Moe {
    fn shape(&self) -> Shape {
        Shape {
            layers: self.layers,
            width: self.width,
            heads: self.heads,
            vocab: self.vocab,
            context: self.seq.max(2),
            dtype: DType::BF16,
            attention: Attention::Sdpa,
            slice: 1,
            dropout: false,
            tied: false,
            spare_head: false,
            devices: 1,
            checkpoint: Pieces::None,
        }
    }
}

impl Workload for Moe {
    fn check(&self) -> Result<(), WorkloadError> {
        in_range("seq", self.seq, 2..=1 << 24)?;
        self.shape().check(self.batch)?;
        in_range("experts", self.experts, 1..=65_536)?;
        in_range("top", self.top, 1..=self.experts)?;
        in_range("capacity", self.capacity, 1..=100_000)?;
        in_range("steps", self.steps, 1..=1_000_000)?;
        let experts = self.experts.saturating_mul(self.layers);
        if experts > MOST_EXPERTS {
            let message = format!(
                "{} experts in {} layers make {experts}, more than {MOST_EXPERTS}",
                self.experts, self.layers
            );
            return Err(WorkloadError::parameter("experts", message));
        }
        if !(0.01..=1000.0).contains(&self.evenness) {
            let message = format!("{} is out of range: 0.01 to 1000", self.evenness);
            return Err(WorkloadError::parameter("evenness", message));
        }
        let tokens = self.batch.saturating_mul(self.seq);
        if let Some(count) = self.counts.iter().find(|count| **count > tokens.saturating_mul(1000))
        {
            let message = format!("an expert cannot get {count} of {tokens} tokens");
            return Err(WorkloadError::parameter("counts", message));
        }
        Ok(())
    }

    fn run(&self, t: &Torch) -> Result<(), WorkloadError> {
        let model = Model::new(t, self);
        let mut opt = Adam::new(model.parameters(), AdamKind::Foreach);
        let mut counts = Counts::new(self);
        t.check()?;
        let mut last_ids = None;
        for _ in 0..self.steps {
            let ids = t.input(&[self.batch, self.seq], DType::I64);
            drop(last_ids.take());
            let loss = model.loss(t, &ids, &mut counts);
            opt.zero_grad();
            t.backward(&loss);
            opt.step(t);
            drop(loss);
            last_ids = Some(ids);
            t.mark("step");
            t.check()?;
        }
        Ok(())
    }
}

/// Tokens for each expert, layer by layer and step by step.
struct Counts<'a> {
    of: &'a Moe,
    random: ChaCha8Rng,
    next: usize,
}

impl<'a> Counts<'a> {
    fn new(of: &'a Moe) -> Self {
        Self { of, random: ChaCha8Rng::seed_from_u64(of.seed), next: 0 }
    }

    /// Those of one layer, of so many tokens.
    fn of_layer(&mut self, tokens: u64) -> Vec<u64> {
        let of = self.of;
        if !of.counts.is_empty() {
            let one = |_| {
                let count = of.counts[self.next % of.counts.len()];
                self.next += 1;
                count
            };
            return (0..of.experts).map(one).collect();
        }
        let total = tokens.saturating_mul(of.top);
        let same = |count| (0..of.experts).map(|_| count).collect();
        match of.routing {
            Routing::Balanced => same(total / of.experts),
            Routing::Capacity => {
                same(total.saturating_mul(of.capacity).div_ceil(of.experts.saturating_mul(100)))
            }
            Routing::Random => self.drawn(total, tokens),
        }
    }

    /// Shares of the total; the first expert gets what rounding leaves, and none more than all tokens.
    fn drawn(&mut self, total: u64, tokens: u64) -> Vec<u64> {
        let shares: Vec<f64> = (0..self.of.experts).map(|_| self.gamma()).collect();
        let sum: f64 = shares.iter().sum();
        let mut counts: Vec<u64> =
            shares.iter().map(|share| Bytes(total).scale(share / sum).0.min(total)).collect();
        let given: u64 = counts.iter().sum();
        counts[0] = counts[0].saturating_add(total.saturating_sub(given));
        counts.into_iter().map(|count| count.min(tokens)).collect()
    }

    /// A number from the gamma distribution of shape `evenness`, by Marsaglia and Tsang.
    fn gamma(&mut self) -> f64 {
        let shape = self.of.evenness;
        let raised = shape + if shape < 1.0 { 1.0 } else { 0.0 };
        let d = raised - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let (x, u) = (self.normal(), 1.0 - self.random.random::<f64>());
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                let lowered = if shape < 1.0 {
                    (1.0 - self.random.random::<f64>()).powf(1.0 / shape)
                } else {
                    1.0
                };
                return (d * v * lowered).max(f64::MIN_POSITIVE);
            }
        }
    }

    fn normal(&mut self) -> f64 {
        let (a, b): (f64, f64) = (self.random.random(), self.random.random());
        (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }
}

/// The block of experts.
struct Experts {
    norm: LayerNorm,
    up: Vec<Tensor>,
    down: Vec<Tensor>,
    router: Linear,
}

impl Experts {
    fn new(t: &Torch, width: u64, experts: u64) -> Self {
        let dtype = DType::BF16;
        let norm = LayerNorm::new(t, width, dtype);
        let up = (0..experts).map(|_| t.parameter(&[width, 4 * width], dtype)).collect();
        let down = (0..experts).map(|_| t.parameter(&[4 * width, width], dtype)).collect();
        Self { norm, up, down, router: Linear::new(t, width, experts, false, dtype) }
    }

    fn forward(&self, t: &Torch, x: &Tensor, counts: &[u64]) -> Tensor {
        let (b, n, d) = (x.dim(0), x.dim(1), x.dim(2));
        let rows = b.saturating_mul(n);
        let y = {
            let normed = self.norm.forward(t, x);
            t.view(&normed, &[rows, d])
        };
        let gate = {
            let scores = self.router.forward(t, &y);
            t.softmax(&scores, None)
        };
        let mut out = t.empty(&[rows, d], y.dtype());
        let (mut last_indices, mut last_hidden) = (None, None);
        for ((up, down), count) in self.up.iter().zip(&self.down).zip(counts) {
            let count = *count;
            let indices = t.empty(&[count], DType::I64);
            drop(last_indices.replace(indices.clone()));
            let hidden = {
                let active = {
                    let wide = {
                        let taken = t.index(&y, &indices);
                        t.matmul(&taken, up, &[count, up.dim(1)])
                    };
                    t.activation(&wide)
                };
                t.matmul(&active, down, &[count, d])
            };
            drop(last_hidden.replace(hidden.clone()));
            let weighted = {
                let of_expert = t.slice(&gate, &[rows, 1]);
                let weight = t.index(&of_expert, &indices);
                t.mul(&hidden, &weight)
            };
            out = t.index_add(&out, &indices, &weighted);
        }
        let sum = t.add(x, &t.view(&out, &[b, n, d]));
        drop(y);
        drop(gate);
        drop(out);
        drop(last_indices);
        drop(last_hidden);
        sum
    }

    fn parameters(&self) -> Vec<Tensor> {
        let norm = self.norm.parameters().into_iter();
        let experts = self.up.iter().chain(&self.down).cloned();
        norm.chain(experts).chain(self.router.parameters()).collect()
    }
}

struct Model {
    table: Tensor,
    layers: Vec<(Block, Experts)>,
    head: Linear,
}

impl Model {
    fn new(t: &Torch, of: &Moe) -> Self {
        let shape = of.shape();
        let table = t.parameter(&[of.vocab, of.width], shape.dtype);
        let layer = |_| (Block::new(t, shape), Experts::new(t, of.width, of.experts));
        let layers = (0..of.layers).map(layer).collect();
        Self { table, layers, head: Linear::new(t, of.width, of.vocab, false, shape.dtype) }
    }

    fn loss(&self, t: &Torch, ids: &Tensor, counts: &mut Counts<'_>) -> Tensor {
        let (b, n) = (ids.dim(0), ids.dim(1));
        let mut x = t.embedding(ids, &self.table);
        for (block, experts) in &self.layers {
            x = block.forward(t, &x, true);
            x = experts.forward(t, &x, &counts.of_layer(b.saturating_mul(n)));
            if t.check().is_err() {
                break; // the rest would not be recorded
            }
        }
        let wide = {
            let shifted = {
                let logits = self.head.forward(t, &x);
                let vocab = logits.dim(-1);
                t.slice(&logits, &[b, n - 1, vocab])
            };
            t.to(&shifted, DType::F32)
        };
        let rows = b.saturating_mul(n - 1);
        let wide = t.view(&wide, &[rows, wide.dim(-1)]);
        let target = if b > 1 { t.input(&[rows], DType::I64) } else { ids.shaped(&[rows]) };
        let loss = t.cross_entropy(&wide, &target);
        drop(wide);
        drop(target);
        drop(x);
        loss
    }

    fn parameters(&self) -> Vec<Tensor> {
        let of_layer = |(block, experts): &(Block, Experts)| {
            let mut parameters = block.parameters();
            parameters.extend(experts.parameters());
            parameters
        };
        let layers = self.layers.iter().flat_map(of_layer);
        std::iter::once(self.table.clone()).chain(layers).chain(self.head.parameters()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_routing_gives_every_expert_its_tokens() {
        let of = |routing| {
            let moe = Moe { routing, ..Moe::default() };
            Counts::new(&moe).of_layer(4096)
        };
        assert_eq!(of(Routing::Balanced), [1024; 8]);
        assert_eq!(of(Routing::Capacity), [1280; 8]);
        let drawn = of(Routing::Random);
        assert_eq!(drawn, of(Routing::Random));
        assert!(drawn.iter().all(|count| *count <= 4096));
        assert!(drawn.iter().max() > drawn.iter().min());
    }

    #[test]
    fn shares_have_the_mean_and_the_variance_of_their_distribution() {
        let moe = Moe::default();
        let mut counts = Counts::new(&moe);
        let drawn: Vec<f64> = (0..20_000).map(|_| counts.gamma()).collect();
        let mean = drawn.iter().sum::<f64>() / 20_000.0;
        let variance = drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!((mean - 0.8).abs() < 0.03 && (variance - 0.8).abs() < 0.06, "{mean} {variance}");
    }

    #[test]
    fn more_experts_than_anybody_has_are_an_error() {
        let moe = Moe { layers: 1000, experts: 65_536, ..Moe::default() };
        assert!(moe.check().unwrap_err().to_string().starts_with("experts: "));
    }
}
