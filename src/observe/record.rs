//! [`Record`]: keeps every event, as PyTorch's history would.

use crate::{
    base::{Addr, Bytes, PoolId, StreamHandle},
    sim::{Allocated, Failed, FreeCompleted, FreeRequested, Observer, Place, Segment},
    trace::{Action, Event, Events},
};

/// Every event of a replay, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The events.
    pub events: Events,
}

impl Record {
    #[inline]
    fn push(&mut self, action: Action, addr: Addr, size: Bytes, place: Place) {
        let (stream, pool) = (place.stream, place.pool);
        self.events.push(Event { action, addr, size, stream, pool });
    }

    fn segment(&mut self, action: Action, fact: &Segment) {
        self.push(action, fact.span.start, fact.span.size, fact.place);
    }
}

impl Observer for Record {
    #[inline]
    fn alloc(&mut self, fact: &Allocated) {
        self.push(Action::Alloc, fact.span.start, fact.requested, fact.place);
    }

    #[inline]
    fn free_requested(&mut self, fact: &FreeRequested) {
        self.push(Action::FreeRequested, fact.span.start, fact.requested, fact.place);
    }

    #[inline]
    fn free_completed(&mut self, fact: &FreeCompleted) {
        self.push(Action::FreeCompleted, fact.span.start, fact.requested, fact.place);
    }

    fn segment_alloc(&mut self, fact: &Segment) {
        self.segment(Action::SegmentAlloc, fact);
    }

    fn segment_release(&mut self, fact: &Segment) {
        self.segment(Action::SegmentFree, fact);
    }

    fn segment_map(&mut self, fact: &Segment) {
        self.segment(Action::SegmentMap, fact);
    }

    fn segment_unmap(&mut self, fact: &Segment) {
        self.segment(Action::SegmentUnmap, fact);
    }

    fn oom(&mut self, fact: &Failed) {
        self.push(Action::Oom, fact.addr(), fact.size, fact.place);
    }

    fn snapshot(&mut self, pool: PoolId, active: Bytes) {
        let stream = StreamHandle(0);
        self.events.push(Event {
            action: Action::Snapshot,
            addr: Addr(0),
            size: active,
            stream,
            pool,
        });
    }
}
