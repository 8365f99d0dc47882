//! [`Witness`]: everything that an allocator does in one operation, in its order.

use crate::{
    base::{Bytes, PoolId},
    sim::{Allocated, Failed, FreeCompleted, FreeRequested, Observer, Segment},
};

/// One thing that the allocator did.
#[derive(Clone, Copy, Debug)]
pub enum Fact {
    /// A block was handed out.
    Alloc(Allocated),
    /// `free` was called.
    FreeRequested(FreeRequested),
    /// A block went back to its pool.
    FreeCompleted(FreeCompleted),
    /// `cudaMalloc` gave a segment.
    SegmentAlloc(Segment),
    /// A segment went back by `cudaFree`.
    SegmentFree(Segment),
    /// A range was mapped.
    SegmentMap(Segment),
    /// A range was unmapped.
    SegmentUnmap(Segment),
    /// A request failed.
    Oom(Failed),
    /// A request was refused before anything was tried.
    Rejected,
    /// The device refused; everything is given back and it is asked again.
    Retry,
    /// All pending events are waited for.
    Wait,
    /// A private pool was made.
    PoolCreated(PoolId),
}

/// Keeps what is done until it is taken.
#[derive(Debug, Default)]
pub(super) struct Witness {
    pub(super) facts: Vec<Fact>,
}

impl Observer for Witness {
    fn alloc(&mut self, fact: &Allocated) {
        self.facts.push(Fact::Alloc(*fact));
    }

    fn free_requested(&mut self, fact: &FreeRequested) {
        self.facts.push(Fact::FreeRequested(*fact));
    }

    fn free_completed(&mut self, fact: &FreeCompleted) {
        self.facts.push(Fact::FreeCompleted(*fact));
    }

    fn segment_alloc(&mut self, fact: &Segment) {
        self.facts.push(Fact::SegmentAlloc(*fact));
    }

    fn segment_free(&mut self, fact: &Segment) {
        self.facts.push(Fact::SegmentFree(*fact));
    }

    fn segment_map(&mut self, fact: &Segment) {
        self.facts.push(Fact::SegmentMap(*fact));
    }

    fn segment_unmap(&mut self, fact: &Segment) {
        self.facts.push(Fact::SegmentUnmap(*fact));
    }

    fn oom(&mut self, fact: &Failed) {
        self.facts.push(Fact::Oom(*fact));
    }

    fn oom_rejection(&mut self) {
        self.facts.push(Fact::Rejected);
    }

    fn alloc_retry(&mut self) {
        self.facts.push(Fact::Retry);
    }

    fn sync_all_streams(&mut self) {
        self.facts.push(Fact::Wait);
    }

    fn pool_created(&mut self, pool: PoolId) {
        self.facts.push(Fact::PoolCreated(pool));
    }

    fn snapshot(&mut self, _pool: PoolId, _active: Bytes) {}
}
