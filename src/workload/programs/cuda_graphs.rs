//! Inference captured in CUDA graphs, one for each batch size.

use super::{
    Preset, Workload,
    decoder::{Decoder, Sizes},
};
use crate::{
    base::PoolId,
    trace::Control,
    workload::{
        WorkloadError,
        parameter::{choice, in_range, parameters},
        torch::{DType, StreamRef, Tensor, Torch},
    },
};

choice! {
    /// Which graph is captured first.
    pub enum Order {
        /// The smallest batch first.
        SmallFirst = "small_first",
        /// The largest batch first.
        LargeFirst = "large_first",
    }
}

choice! {
    /// Where the graphs allocate.
    pub enum GraphPool {
        /// All in one private pool.
        Shared = "shared",
        /// Each in a private pool of its own.
        Separate = "separate",
    }
}

parameters! {
    /// A GPT-like model in float16, captured at several batch sizes.
    pub struct CudaGraphs {
        /// Which graph is captured first.
        order: Order = Order::LargeFirst;
        /// Where the graphs allocate.
        pool: GraphPool = GraphPool::Shared;
        /// Batch sizes, one for each graph.
        sizes: Vec<u64> = vec![1, 2, 4, 8, 16, 32, 64];
        /// Blocks.
        layers: u64 = 8;
        /// Width of the model, in numbers.
        width: u64 = 1024;
        /// Attention heads; they divide the width.
        heads: u64 = 16;
        /// Tokens in a sequence.
        seq: u64 = 64;
        /// Tokens in the vocabulary.
        vocab: u64 = 32_000;
        /// Longest sequence that the model knows, in tokens.
        context: u64 = 1024;
    }
}

/// Well-known sizes.
pub(super) const PRESETS: &[Preset] = &[
    Preset { name: "large-first", values: &[] },
    Preset { name: "small-first", values: &[("order", "small_first")] },
    Preset {
        name: "small-first-separate",
        values: &[("order", "small_first"), ("pool", "separate")],
    },
];

impl Workload for CudaGraphs {
    fn check(&self) -> Result<(), WorkloadError> {
        in_range("layers", self.layers, 1..=1000)?;
        check_heads(self.width, self.heads)?;
        in_range("vocab", self.vocab, 1..=1 << 30)?;
        in_range("context", self.context, 1..=1 << 30)?;
        in_range("seq", self.seq, 1..=self.context)?;
        if self.sizes.is_empty() || self.sizes.len() > 1000 {
            let message = format!("{} batch sizes; give 1 to 1000", self.sizes.len());
            return Err(WorkloadError::parameter("sizes", message));
        }
        self.sizes.iter().try_for_each(|size| in_range("sizes", *size, 1..=1 << 20))
    }

    fn run(&self, t: &Torch) -> Result<(), WorkloadError> {
        let Self { layers, width, heads, vocab, context, .. } = *self;
        let model = Decoder::new(t, Sizes { layers, width, heads, vocab, context }, DType::F16);
        let mut sizes = self.sizes.clone();
        sizes.sort_unstable();
        if self.order == Order::LargeFirst {
            sizes.reverse();
        }
        let largest = sizes.iter().copied().max().unwrap_or(1);
        let ids = t.input(&[largest, self.seq], DType::I64);
        let stream = t.new_stream();
        let mut graphs = Vec::new();
        let mut seeds = None;
        let captured: Result<(), WorkloadError> = t.no_grad(|| {
            t.on_stream(stream, || drop(model.forward(t, &ids)));
            t.empty_cache();
            t.mark("warm-up");
            for (i, size) in (1..).zip(&sizes) {
                let pool = if self.pool == GraphPool::Shared { 1 } else { i };
                t.empty_cache();
                let out = t.on_stream(stream, || {
                    // The generator's seed and offset, for all graphs.
                    seeds.get_or_insert_with(|| [(); 2].map(|()| t.empty(&[1], DType::I64)));
                    let ids = ids.shaped(&[*size, self.seq]);
                    capture(t, stream, PoolId(0, pool), || model.forward(t, &ids))
                });
                graphs.push((out, PoolId(0, pool)));
                t.mark(format!("capture {size}"));
                t.check()?;
            }
            t.mark("replay");
            Ok(())
        });
        captured?;
        drop((model, ids));
        // A variable still holds the last graph and its output.
        let last = graphs.pop();
        while let Some((out, pool)) = graphs.pop() {
            drop(out);
            t.control(Control::PoolRelease(pool));
        }
        drop(seeds);
        if let Some((out, pool)) = last {
            drop(out);
            t.control(Control::PoolRelease(pool));
        }
        t.check()
    }
}

/// `torch.cuda.graph(…)` around `f`.
///
/// # Source
/// `aten/src/ATen/cuda/CUDAGraph.cpp`, `capture_begin` and `capture_end`, 2.11.
fn capture(t: &Torch, stream: StreamRef, pool: PoolId, f: impl FnOnce() -> Tensor) -> Tensor {
    let id = t.stream_id(stream);
    t.control(Control::PoolBegin(pool, Some(id)));
    t.control(Control::CaptureBegin(id));
    let out = f();
    t.control(Control::CaptureEnd(id));
    t.control(Control::PoolEnd(pool));
    out
}

/// Heads that flash attention takes.
///
/// # Errors
/// When they do not divide the width, or are too large for it.
pub(super) fn check_heads(width: u64, heads: u64) -> Result<(), WorkloadError> {
    in_range("width", width, 8..=1 << 20)?;
    in_range("heads", heads, 1..=4096)?;
    let head = width / heads;
    let message = if !width.is_multiple_of(heads) {
        format!("{heads} heads do not divide a width of {width}")
    } else if !head.is_multiple_of(8) || head > 256 {
        format!("a head of {head} numbers: flash attention takes a multiple of 8 up to 256")
    } else {
        return Ok(());
    };
    Err(WorkloadError::parameter("heads", message))
}
