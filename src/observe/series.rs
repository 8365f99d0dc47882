//! [`MemorySeries`]: levels over time, in bounded space and without losing an extreme.

use crate::{
    base::{Bytes, OpIndex},
    sim::{Allocated, Failed, FreeCompleted, FreeRequested, Observer, Segment, StartBlock},
    trace::BlockState,
};

/// What is there at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Levels {
    /// Bytes that the program asked for, of blocks handed out or waiting
    /// (`requested_bytes.all.current`).
    pub requested: Bytes,
    /// Bytes of blocks handed out (`allocated_bytes.all.current`).
    pub allocated: Bytes,
    /// Bytes of blocks handed out or waiting for another stream (`active_bytes.all.current`).
    pub active: Bytes,
    /// Bytes of all segments (`reserved_bytes.all.current`).
    pub reserved: Bytes,
    /// Number of blocks handed out (`allocation.all.current`).
    pub allocations: u64,
    /// Number of segments from `cudaMalloc` (`segment.all.current`, which does not count expandable
    /// ones).
    pub segments: u64,
}

impl Levels {
    fn each(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        let bytes = |a: Bytes, b: Bytes| Bytes(of(a.0, b.0));
        Self {
            requested: bytes(self.requested, other.requested),
            allocated: bytes(self.allocated, other.allocated),
            active: bytes(self.active, other.active),
            reserved: bytes(self.reserved, other.reserved),
            allocations: of(self.allocations, other.allocations),
            segments: of(self.segments, other.segments),
        }
    }
}

/// Some operations on end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Bucket {
    /// The first operation.
    pub first: OpIndex,
    /// The last operation.
    pub last: OpIndex,
    /// What was there after the last of them.
    pub end: Levels,
    /// The least of each level, at any moment within.
    pub min: Levels,
    /// The most of each level, at any moment within.
    pub max: Levels,
    /// Times that everything was given back and the device asked again.
    pub retries: u64,
    /// Requests that failed.
    pub ooms: u64,
}

impl Bucket {
    fn and(self, later: &Self) -> Self {
        Self {
            first: self.first,
            last: later.last,
            end: later.end,
            min: self.min.each(later.min, u64::min),
            max: self.max.each(later.max, u64::max),
            retries: self.retries + later.retries,
            ooms: self.ooms + later.ooms,
        }
    }
}

/// Follows a replay in at most so many buckets of equally many operations. When they are used up,
/// neighbours join two by two: the series becomes coarser, and no extreme is lost.
///
/// # Complexity
/// O(1) an event.
#[derive(Clone, Debug)]
pub struct MemorySeries {
    now: Levels,
    limit: usize,
    /// Operations in a bucket.
    width: u32,
    buckets: Vec<Bucket>,
}

impl MemorySeries {
    /// A series of at most `limit` buckets, and no fewer than two.
    pub fn new(limit: usize) -> Self {
        Self { now: Levels::default(), limit: limit.max(2), width: 1, buckets: Vec::new() }
    }

    /// The buckets, in order.
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// The next operation begins. Numbers rise, or stay where several steps are of one operation.
    pub fn begin(&mut self, op: OpIndex) {
        let Some(bucket) = self.buckets.last_mut() else {
            self.buckets.push(self.fresh(op));
            return;
        };
        if op.0 - bucket.first.0 < self.width {
            bucket.last = op;
            return;
        }
        if self.buckets.len() >= self.limit {
            let pairs = self.buckets.chunks(2);
            self.buckets =
                pairs.map(|pair| pair.get(1).map_or(pair[0], |later| pair[0].and(later))).collect();
            self.width = self.width.saturating_mul(2);
            self.begin(op);
            return;
        }
        self.buckets.push(self.fresh(op));
    }

    fn fresh(&self, op: OpIndex) -> Bucket {
        let now = self.now;
        Bucket { first: op, last: op, end: now, min: now, max: now, retries: 0, ooms: 0 }
    }

    fn look(&mut self) {
        if let Some(bucket) = self.buckets.last_mut() {
            bucket.end = self.now;
            bucket.min = bucket.min.each(self.now, u64::min);
            bucket.max = bucket.max.each(self.now, u64::max);
        }
    }

    fn comes(&mut self, size: Bytes) {
        self.now.reserved += size;
        self.look();
    }

    fn goes(&mut self, size: Bytes) {
        self.now.reserved -= size;
        self.look();
    }
}

impl Observer for MemorySeries {
    fn alloc(&mut self, fact: &Allocated) {
        self.now.requested += fact.requested;
        self.now.allocated += fact.span.size;
        self.now.active += fact.span.size;
        self.now.allocations += 1;
        self.look();
    }

    fn free_requested(&mut self, fact: &FreeRequested) {
        self.now.allocated -= fact.span.size;
        self.now.allocations -= 1;
        self.look();
    }

    fn free_completed(&mut self, fact: &FreeCompleted) {
        self.now.requested -= fact.requested;
        self.now.active -= fact.span.size;
        self.look();
    }

    fn segment_alloc(&mut self, fact: &Segment) {
        self.now.segments += 1;
        self.comes(fact.span.size);
    }

    fn segment_free(&mut self, fact: &Segment) {
        self.now.segments -= 1;
        self.goes(fact.span.size);
    }

    fn segment_map(&mut self, fact: &Segment) {
        self.comes(fact.span.size);
    }

    fn segment_unmap(&mut self, fact: &Segment) {
        self.goes(fact.span.size);
    }

    fn oom(&mut self, _fact: &Failed) {
        if let Some(bucket) = self.buckets.last_mut() {
            bucket.ooms += 1;
        }
    }

    fn alloc_retry(&mut self) {
        if let Some(bucket) = self.buckets.last_mut() {
            bucket.retries += 1;
        }
    }

    fn start(&mut self, segment: &Segment) {
        self.now.segments += u64::from(!segment.place.is_expandable);
        self.comes(segment.span.size);
    }

    fn start_block(&mut self, block: &StartBlock) {
        if block.state != BlockState::Inactive {
            self.now.requested += block.requested;
            self.now.active += block.span.size;
        }
        if block.state == BlockState::ActiveAllocated {
            self.now.allocated += block.span.size;
            self.now.allocations += 1;
        }
        self.look();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{Addr, PoolId, Span, StreamHandle},
        sim::Place,
    };

    const PLACE: Place = Place {
        stream: StreamHandle(0),
        pool: PoolId::DEFAULT,
        is_small: false,
        is_expandable: false,
    };

    /// Operation `i` makes a segment of `sizes[i]`, then gives it back.
    fn series(limit: usize, sizes: &[u64]) -> MemorySeries {
        let mut series = MemorySeries::new(limit);
        for (i, size) in sizes.iter().enumerate() {
            series.begin(OpIndex::from_index(i));
            let span = Span::new(Addr(0), Bytes(*size));
            let fact = Segment { span, place: PLACE, is_oversize: false };
            series.segment_alloc(&fact);
            series.segment_free(&fact);
        }
        series
    }

    #[test]
    fn buckets_join_two_by_two_and_keep_the_extremes() {
        let series = series(4, &[1, 9, 2, 3, 4, 5, 8, 7, 6]);
        let shown: Vec<_> =
            series.buckets().iter().map(|b| (b.first.0, b.last.0, b.max.reserved.0)).collect();
        assert_eq!(shown, [(0, 3, 9), (4, 7, 8), (8, 8, 6)]);
        assert!(series.buckets().iter().all(|b| b.end.reserved == Bytes::ZERO));
    }

    #[test]
    fn an_extreme_between_two_operations_counts() {
        let series = series(4, &[7]);
        assert_eq!(series.buckets()[0].max.reserved, Bytes(7));
        assert_eq!(series.buckets()[0].min.reserved, Bytes::ZERO);
    }
}
