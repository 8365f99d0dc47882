//! The model of a server: its weights, and what a step allocates.

use super::{Serve, kv};
use crate::{
    trace::Op,
    workload::{
        Label, WorkloadError,
        torch::{DType, Tensor, Torch},
    },
};

/// Weights with one scale, of two bytes, for so many of them where they have fewer than 16 bits.
const GROUP: u64 = 128;

/// A Llama-like model.
pub(super) struct Model {
    weights: Vec<Tensor>,
    layers: u64,
    width: u64,
    queries: u64,
    kv_heads: u64,
    head: u64,
    hidden: u64,
    vocab: u64,
}

impl Model {
    pub(super) fn new(t: &Torch, is: &Serve) -> Self {
        let head = is.width / is.heads;
        let (d, kv) = (is.width, is.kv_heads * head);
        let whole = |n: u64| t.empty_as(&[n], DType::F16, Label::Parameter);
        let mut weights = vec![whole(is.vocab * d)];
        for _ in 0..is.layers {
            weights.extend([whole(d), whole(d)]);
            for n in [(d + 2 * kv) * d, d * d, 2 * is.hidden * d, is.hidden * d] {
                if is.bits == 16 {
                    weights.push(whole(n));
                } else {
                    let packed = n * is.bits / 8;
                    weights.push(t.empty_as(&[packed], DType::U8, Label::Parameter));
                    weights.push(whole(n.div_ceil(GROUP)));
                }
            }
        }
        weights.extend([whole(d), whole(is.vocab * d)]);
        Self {
            weights,
            layers: is.layers,
            width: d,
            queries: is.heads * head,
            kv_heads: is.kv_heads,
            head,
            hidden: is.hidden,
            vocab: is.vocab,
        }
    }

    pub(super) fn layers(&self) -> u64 {
        self.layers
    }

    /// A layer's keys and values of so many tokens.
    pub(super) fn keys_and_values(&self, t: &Torch, tokens: u64) -> Tensor {
        kv(t, &[2, tokens, self.kv_heads, self.head])
    }

    /// The paged pool: a tensor for each layer.
    pub(super) fn pool(&self, t: &Torch, blocks: u64, block: u64) -> Vec<Tensor> {
        let layer = |_| kv(t, &[2, blocks, block, self.kv_heads, self.head]);
        (0..self.layers).map(layer).collect()
    }

    /// What a step takes from the host: token ids, places, slots in the cache, lengths.
    fn inputs(&self, t: &Torch, tokens: u64, rows: u64) -> [Tensor; 4] {
        let input = |n: u64, dtype| t.input(&[n], dtype);
        [
            input(tokens, DType::I64),
            input(tokens, DType::I64),
            input(tokens, DType::I64),
            input(rows, DType::I32),
        ]
    }

    /// One step over `tokens` tokens, of which `rows` are sampled from. Norms add the residual in
    /// place, queries and keys are turned in place.
    pub(super) fn step(&self, t: &Torch, tokens: u64, rows: u64) {
        let half = |n: u64| t.empty(&[tokens, n], DType::F16);
        let inputs = self.inputs(t, tokens, rows);
        let residual = half(self.width);
        let mut x = Some(half(self.width));
        for _ in 0..self.layers {
            let attended = {
                let qkv = half(self.queries + 2 * self.kv_heads * self.head);
                let out = half(self.queries);
                drop(qkv);
                out
            };
            drop(x.replace(half(self.width)));
            drop(attended);
            let gate_and_up = half(2 * self.hidden);
            let activated = half(self.hidden);
            drop(gate_and_up);
            drop(x.replace(half(self.width)));
            drop(activated);
        }
        let last = t.empty(&[rows, self.width], DType::F16);
        drop((x, residual));
        self.sample(t, rows);
        drop((last, inputs));
    }

    /// A step as a CUDA graph: its activations lie in the graph's pool.
    pub(super) fn replay(&self, t: &Torch, tokens: u64, rows: u64) {
        let inputs = self.inputs(t, tokens, rows);
        self.sample(t, rows);
        drop(inputs);
    }

    /// Logits, made float32 for sampling, probabilities, and the token of each row.
    fn sample(&self, t: &Torch, rows: u64) {
        let wide = {
            let logits = t.empty(&[rows, self.vocab], DType::F16);
            let wide = t.empty(&[rows, self.vocab], DType::F32);
            drop(logits);
            wide
        };
        let probabilities = t.empty(&[rows, self.vocab], DType::F32);
        let tokens = t.empty(&[rows], DType::I64);
        drop((wide, probabilities, tokens));
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.weights.drain(..).for_each(drop);
    }
}

/// The most bytes that `f` holds at a time.
///
/// # Errors
/// When a tensor is too large.
pub(super) fn peak_of(f: impl FnOnce(&Torch)) -> Result<u64, WorkloadError> {
    let t = Torch::new(1);
    f(&t);
    let traces = t.finish()?;
    let mut sizes = Vec::new();
    let (mut live, mut peak) = (0_u64, 0);
    for op in traces.iter().flat_map(crate::trace::Trace::ops) {
        match op {
            Op::Alloc(alloc) => {
                sizes.push(alloc.size.0);
                live = live.saturating_add(alloc.size.0);
                peak = live.max(peak);
            }
            Op::Free(free) => {
                let at = usize::try_from(free.id.0).unwrap_or(usize::MAX);
                live = live.saturating_sub(sizes.get(at).copied().unwrap_or(0));
            }
            _ => {}
        }
    }
    Ok(peak)
}
