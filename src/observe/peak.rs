//! [`Peak`]: the worst moments of a replay.
//!
//! Memory that is reserved but not handed out is no harm as long as it serves the next request. It is
//! fragmentation where a request could not be served from it and had to go to the device: so that is
//! when it is looked at.

use crate::{
    base::{Bytes, OpIndex},
    sim::{Allocated, Failed, FreeRequested, Observer, Segment, StartBlock},
    trace::BlockState,
};

/// A moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// The operation.
    pub op: OpIndex,
    /// Bytes handed out (`allocated_bytes.all.current`).
    pub allocated: Bytes,
    /// Bytes of all segments (`reserved_bytes.all.current`).
    pub reserved: Bytes,
}

impl Moment {
    /// Reserved but not handed out.
    pub fn unallocated(&self) -> Bytes {
        self.reserved.saturating_sub(self.allocated)
    }
}

/// Follows allocated and reserved bytes and keeps three moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    /// The operation that is being done; set by whoever replays.
    pub at: OpIndex,
    now: Moment,
    /// When most was handed out, first such moment.
    pub allocated: Moment,
    /// When most was reserved, first such moment.
    pub reserved: Moment,
    /// When most was reserved without being handed out while a request needed memory from the device;
    /// first such moment, before the request.
    pub stranded: Moment,
}

impl Peak {
    #[inline]
    fn look(&mut self) {
        self.now.op = self.at;
        if self.now.allocated > self.allocated.allocated {
            self.allocated = self.now;
        }
        if self.now.reserved > self.reserved.reserved {
            self.reserved = self.now;
        }
    }

    fn ask_device(&mut self) {
        self.now.op = self.at;
        if self.now.unallocated() > self.stranded.unallocated() {
            self.stranded = self.now;
        }
    }

    fn grow(&mut self, size: Bytes) {
        self.ask_device();
        self.now.reserved += size;
        if self.now.reserved > self.reserved.reserved {
            self.reserved = self.now;
        }
    }
}

impl Observer for Peak {
    #[inline]
    fn alloc(&mut self, fact: &Allocated) {
        self.now.allocated += fact.span.size;
        self.look();
    }

    #[inline]
    fn free_requested(&mut self, fact: &FreeRequested) {
        self.now.allocated -= fact.span.size;
        self.look();
    }

    fn segment_alloc(&mut self, fact: &Segment) {
        self.grow(fact.span.size);
    }

    fn segment_map(&mut self, fact: &Segment) {
        self.grow(fact.span.size);
    }

    fn segment_free(&mut self, fact: &Segment) {
        self.now.reserved -= fact.span.size;
    }

    fn segment_unmap(&mut self, fact: &Segment) {
        self.now.reserved -= fact.span.size;
    }

    fn oom(&mut self, _fact: &Failed) {
        self.ask_device();
    }

    fn start(&mut self, segment: &Segment) {
        self.now.reserved += segment.span.size;
        self.reserved = self.now;
    }

    fn start_block(&mut self, block: &StartBlock) {
        if block.state == BlockState::ActiveAllocated {
            self.now.allocated += block.span.size;
        }
    }
}
