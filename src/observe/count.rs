//! [`Count`]: how many entries PyTorch's history would have.

use crate::{
    base::{Bytes, PoolId},
    sim::{Allocated, Failed, FreeCompleted, FreeRequested, Observer, Segment},
};

/// Counts what [`super::Record`] keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Events so far.
    pub events: u64,
}

impl Observer for Count {
    #[inline]
    fn alloc(&mut self, _fact: &Allocated) {
        self.events += 1;
    }

    #[inline]
    fn free_requested(&mut self, _fact: &FreeRequested) {
        self.events += 1;
    }

    #[inline]
    fn free_completed(&mut self, _fact: &FreeCompleted) {
        self.events += 1;
    }

    fn segment_alloc(&mut self, _fact: &Segment) {
        self.events += 1;
    }

    fn segment_release(&mut self, _fact: &Segment) {
        self.events += 1;
    }

    fn segment_map(&mut self, _fact: &Segment) {
        self.events += 1;
    }

    fn segment_unmap(&mut self, _fact: &Segment) {
        self.events += 1;
    }

    fn oom(&mut self, _fact: &Failed) {
        self.events += 1;
    }

    fn snapshot(&mut self, _pool: PoolId, _active: Bytes) {
        self.events += 1;
    }
}
