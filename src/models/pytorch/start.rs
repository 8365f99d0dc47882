//! The state that a trace starts from.

use super::PyTorch;
use crate::{sim::Observer, trace::Trace};

impl PyTorch {
    /// Makes the layout at the start of a trace, and room for its allocations.
    pub(super) fn start_from<O: Observer>(&mut self, trace: &Trace, observer: &mut O) {
        self.expect_allocs(trace.alloc_count());
        let _ = observer;
    }
}
