//! A GPT-like transformer: training and inference.

mod attention;
mod choices;
mod generate;
mod infer;
mod lengths;
mod model;
mod packed;
#[cfg(test)]
mod tests;
mod train;
mod training;

pub use attention::Attention;
pub use choices::{
    Checkpoint, EmptyCache, LossLife, Mode, Offload, OptimizerKind, Outputs, Precision, Resume,
    StateBirth, SumLoss, ZeroGrad,
};
pub use infer::Infer;
pub use lengths::{Distribution, Lengths};
pub use model::{Block, Gpt, Pieces, Shape};
pub use train::Train;

use super::Preset;
use crate::workload::{WorkloadError, parameter::in_range};

/// Well-known sizes.
pub(super) const PRESETS: &[Preset] = &[
    Preset { name: "gpt2-small", values: &[("context", "1024"), ("seq", "1024")] },
    Preset {
        name: "gpt2-medium",
        values: &[
            ("layers", "24"),
            ("width", "1024"),
            ("heads", "16"),
            ("context", "1024"),
            ("seq", "1024"),
        ],
    },
    Preset {
        name: "gpt2-large",
        values: &[
            ("layers", "36"),
            ("width", "1280"),
            ("heads", "20"),
            ("context", "1024"),
            ("seq", "1024"),
            ("batch", "4"),
        ],
    },
    Preset {
        name: "gpt2-xl",
        values: &[
            ("layers", "48"),
            ("width", "1600"),
            ("heads", "25"),
            ("context", "1024"),
            ("seq", "1024"),
            ("batch", "2"),
        ],
    },
];

impl Shape {
    /// Checks that there can be such a model, for batches of this many sequences.
    ///
    /// # Errors
    /// When a size is out of range, or sizes do not go together.
    pub fn check(&self, batch: u64) -> Result<(), WorkloadError> {
        check_sizes(self, batch)
    }
}

/// Slices of sliced attention in a forward, each of which is a handful of tensors to keep.
const MOST_SLICES: u64 = 200_000;

/// Sizes of a model that cannot be, for batches of this many sequences.
fn check_sizes(shape: &Shape, batch: u64) -> Result<(), WorkloadError> {
    in_range("batch", batch, 1..=1 << 30)?;
    in_range("layers", shape.layers, 1..=1000)?;
    in_range("width", shape.width, 1..=1 << 20)?;
    in_range("heads", shape.heads, 1..=4096)?;
    if !shape.width.is_multiple_of(shape.heads) {
        let message = format!("{} heads do not divide a width of {}", shape.heads, shape.width);
        return Err(WorkloadError::parameter("heads", message));
    }
    let head = shape.width / shape.heads;
    if shape.attention.is_fused() && !(head.is_multiple_of(8) && head <= 256) {
        let message = format!(
            "a head of {head} numbers does not go with this attention, which takes a multiple of 8 \
             up to 256: choose other heads, or attention naive or math"
        );
        return Err(WorkloadError::parameter("heads", message));
    }
    in_range("vocab", shape.vocab, 1..=1 << 30)?;
    in_range("context", shape.context, 2..=1 << 30)?;
    in_range("slice", shape.slice, 1..=1 << 30)?;
    let slices = (batch * shape.heads).div_ceil(shape.slice) * shape.layers;
    if shape.attention == Attention::Sliced && slices > MOST_SLICES {
        let message = format!(
            "{slices} slices in all blocks are more than {MOST_SLICES}: give larger slices, fewer \
             layers or a smaller batch"
        );
        return Err(WorkloadError::parameter("slice", message));
    }
    Ok(())
}
