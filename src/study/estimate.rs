//! [`Budget`]: what a program takes of a device, before it runs: by label, what the allocator adds,
//! and the context.
//!
//! Conventions. Sizes by label are what was asked (weights are parameters times their bytes) and live
//! at the moment when most is handed out. Rounding is what the blocks are larger then. Cached is how
//! much more was reserved, at its own peak. The context is outside of what PyTorch counts. Together
//! they are what the device must have; a smaller one may do, because the allocator gives its cache
//! back before it fails: [`super::fit`] finds out.

use super::{
    cards::{Card, holding},
    labels::{LabelSum, at_peak},
    whatif::{Program, Start, Terms, whatif},
};
use crate::{
    base::{Bytes, OpIndex},
    sim::AllocError,
    trace::{Trace, TraceError},
};

/// What a process takes outside of PyTorch's allocator: context, modules, kernels.
///
/// # Source
/// Some 300 MB with kernels loaded when they are needed (CUDA 11.7 and later) after a small model, more
/// than 1 GB before (`pytorch/pytorch#107667`); it grows with the kernels in use, and libraries add
/// to it. A convention, not a measurement of your machine.
pub const CONTEXT: Bytes = Bytes(500 << 20);

/// What a program takes of one device.
#[derive(Clone, Debug)]
pub struct Budget {
    /// What is live when most is handed out, as asked, by label.
    pub labels: Vec<LabelSum>,
    /// How much larger the blocks are.
    pub rounding: Bytes,
    /// Most bytes handed out.
    pub allocated: Bytes,
    /// The operation, counted as [`Program::asked`] counts.
    pub at: OpIndex,
    /// Most bytes reserved.
    pub reserved: Bytes,
    /// The convention for what lies outside.
    pub context: Bytes,
    /// Why it fails on a device without limits, if it does.
    pub failure: Option<AllocError>,
}

impl Budget {
    /// What was reserved beyond what was handed out, at the peaks.
    pub fn cached(&self) -> Bytes {
        self.reserved.saturating_sub(self.allocated)
    }

    /// All of it: a device that has as much is enough.
    pub fn total(&self) -> Bytes {
        self.reserved.checked_add(self.context).unwrap_or(Bytes::MAX)
    }

    /// The cards that have as much, smallest first.
    pub fn cards(&self) -> impl Iterator<Item = Card> {
        holding(self.total())
    }
}

/// What the program of a trace takes under these terms, whose capacity should be large.
///
/// # Errors
/// When there are too many operations to number.
///
/// # Complexity
/// Two steps an operation.
pub fn budget(trace: &Trace, terms: &Terms, context: Bytes) -> Result<Budget, TraceError> {
    let program = Program::of(trace, Start::AsRecorded)?;
    let replayed = whatif(&program, terms);
    let labels = at_peak(&program.trace, &replayed);
    let peak = replayed.peak.allocated;
    let asked: Bytes = labels.iter().map(|sum| sum.live).sum();
    Ok(Budget {
        rounding: peak.allocated.saturating_sub(asked),
        labels,
        allocated: peak.allocated,
        at: peak.op,
        reserved: replayed.peak.reserved.reserved,
        context,
        failure: replayed.outcome.first_failure.map(|failure| failure.error),
    })
}
