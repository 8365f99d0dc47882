//! [`Lives`]: from when to when each block and each segment was there.
//!
//! ```text
//!  born ──── handed out ──── freed ──── waiting ──── died        one row a block
//!  born ──── reserved or mapped ────────────────── died          one row a segment or range
//! ```
//! Time counts the operations that are done: what is there before the first is born at 0, and what
//! operation `k` makes is born at `k + 1`. What is there after operation `k` is what is born at or
//! before `k + 1` and dies later: no state has to be kept to show any moment. What is free is what
//! lies in a segment and in no block.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::{
    base::{Addr, AllocId, Bytes, Span},
    sim::{Allocated, Failed, FreeCompleted, FreeRequested, Observer, Place, Segment, StartBlock},
    trace::BlockState,
};

/// The death of what is still there.
pub const NEVER: u32 = u32::MAX;

/// One block from its request to its return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLife {
    /// Its name in the program, where it has one.
    pub id: Option<AllocId>,
    /// Where it lay.
    pub span: Span,
    /// What was asked.
    pub requested: Bytes,
    /// Where it belonged.
    pub place: Place,
    /// When it was handed out.
    pub born: u32,
    /// When the program gave it back, or [`NEVER`].
    pub freed: u32,
    /// When it went back to its pool, or [`NEVER`].
    pub died: u32,
}

/// One segment, or one range of an expandable one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentLife {
    /// Its addresses.
    pub span: Span,
    /// Where it belonged.
    pub place: Place,
    /// When it came.
    pub born: u32,
    /// When it went, or [`NEVER`].
    pub died: u32,
}

/// What happened at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkKind {
    /// A request failed.
    Oom {
        /// The rounded request.
        size: Bytes,
        /// Free memory of the device.
        device_free: Bytes,
    },
    /// Everything was given back and the device asked again.
    Retry,
}

/// Something to see on a line of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When: the time after the operation.
    pub time: u32,
    /// What.
    pub kind: MarkKind,
}

/// Keeps every life of a replay.
///
/// # Complexity
/// O(1) a block, O(log n) a segment; space for every request of the replay.
#[derive(Clone, Debug, Default)]
pub struct Lives {
    /// The time that it is; set by whoever replays.
    pub now: u32,
    /// The name of the request under way; set by whoever replays.
    pub id: Option<AllocId>,
    /// Blocks, in the order in which they were handed out.
    pub blocks: Vec<BlockLife>,
    /// Segments and ranges, in the order in which they came; a range that went in parts is in parts.
    pub segments: Vec<SegmentLife>,
    /// What happened, oldest first.
    pub marks: Vec<Mark>,
    /// The rows of the blocks that are there, by address.
    there: FxHashMap<Addr, usize>,
    /// The rows of the segments that are there, by address.
    mapped: BTreeMap<Addr, usize>,
    /// Names of the blocks that are there at the start, in order.
    start_ids: std::vec::IntoIter<AllocId>,
}

impl Lives {
    /// Of a replay from a start whose active blocks have these names, in the order of addresses.
    pub fn new(start_ids: Vec<AllocId>) -> Self {
        Self { start_ids: start_ids.into_iter(), ..Self::default() }
    }

    /// What is there at any time from `from` to `to`, and the marks between.
    #[must_use]
    pub fn between(mut self, from: u32, to: u32) -> Self {
        self.blocks.retain(|block| block.born <= to && block.died > from);
        self.segments.retain(|segment| segment.born <= to && segment.died > from);
        self.marks.retain(|mark| from <= mark.time && mark.time <= to);
        self
    }

    /// The earliest time from which on at most `limit` blocks are there at any time.
    pub fn latest_blocks(&self, limit: usize) -> u32 {
        let mut deaths: Vec<u32> = self.blocks.iter().map(|block| block.died).collect();
        if deaths.len() <= limit {
            return 0;
        }
        deaths.sort_unstable();
        // Of equal deaths all go or none.
        deaths[deaths.len() - limit.max(1)]
    }

    fn block(&mut self, life: BlockLife) {
        self.there.insert(life.span.start, self.blocks.len());
        self.blocks.push(life);
    }

    fn comes(&mut self, fact: &Segment) {
        self.mapped.insert(fact.span.start, self.segments.len());
        let (span, place) = (fact.span, fact.place);
        self.segments.push(SegmentLife { span, place, born: self.now, died: NEVER });
    }

    /// A range goes, perhaps a part of what came, or more than one part.
    fn goes(&mut self, gone: Span) {
        let before = self.mapped.range(..=gone.start).next_back();
        let from = before.map_or(gone.start, |(start, _)| *start);
        let rows: Vec<(Addr, usize)> =
            self.mapped.range(from..gone.end()).map(|(start, row)| (*start, *row)).collect();
        for (start, row) in rows {
            let whole = self.segments[row];
            if !whole.span.overlaps(gone) {
                continue;
            }
            self.mapped.remove(&start);
            let first = whole.span.start.max(gone.start);
            let end = whole.span.end().min(gone.end());
            self.segments[row].span = Span::new(first, end - first);
            self.segments[row].died = self.now;
            for rest in [(whole.span.start, first), (end, whole.span.end())] {
                if rest.0 < rest.1 {
                    self.mapped.insert(rest.0, self.segments.len());
                    self.segments
                        .push(SegmentLife { span: Span::new(rest.0, rest.1 - rest.0), ..whole });
                }
            }
        }
    }
}

impl Observer for Lives {
    fn alloc(&mut self, fact: &Allocated) {
        self.block(BlockLife {
            id: self.id,
            span: fact.span,
            requested: fact.requested,
            place: fact.place,
            born: self.now,
            freed: NEVER,
            died: NEVER,
        });
    }

    fn free_requested(&mut self, fact: &FreeRequested) {
        if let Some(row) = self.there.get(&fact.span.start) {
            self.blocks[*row].freed = self.now;
        }
    }

    fn free_completed(&mut self, fact: &FreeCompleted) {
        if let Some(row) = self.there.remove(&fact.span.start) {
            self.blocks[row].died = self.now;
        }
    }

    fn segment_alloc(&mut self, fact: &Segment) {
        self.comes(fact);
    }

    fn segment_free(&mut self, fact: &Segment) {
        self.goes(fact.span);
    }

    fn segment_map(&mut self, fact: &Segment) {
        self.comes(fact);
    }

    fn segment_unmap(&mut self, fact: &Segment) {
        self.goes(fact.span);
    }

    fn oom(&mut self, fact: &Failed) {
        let kind = MarkKind::Oom { size: fact.size, device_free: fact.device_free };
        self.marks.push(Mark { time: self.now, kind });
    }

    fn alloc_retry(&mut self) {
        self.marks.push(Mark { time: self.now, kind: MarkKind::Retry });
    }

    fn start(&mut self, segment: &Segment) {
        self.comes(segment);
    }

    fn start_block(&mut self, block: &StartBlock) {
        if block.state == BlockState::Inactive {
            return;
        }
        let is_pending = block.state == BlockState::ActivePendingFree;
        let id = self.start_ids.next();
        self.block(BlockLife {
            id,
            span: block.span,
            requested: block.requested,
            place: block.place,
            born: self.now,
            freed: if is_pending { self.now } else { NEVER },
            died: NEVER,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{PoolId, StreamHandle};

    const PLACE: Place = Place {
        stream: StreamHandle(0),
        pool: PoolId::DEFAULT,
        is_small: false,
        is_expandable: true,
    };

    fn range(from: u64, size: u64) -> Segment {
        Segment { span: Span::new(Addr(from), Bytes(size)), place: PLACE, is_oversize: false }
    }

    /// First address, size, birth and death of each row.
    fn rows(lives: &Lives) -> Vec<(u64, u64, u32, u32)> {
        let row = |s: &SegmentLife| (s.span.start.0, s.span.size.0, s.born, s.died);
        let mut rows: Vec<_> = lives.segments.iter().map(row).collect();
        rows.sort_unstable();
        rows
    }

    #[test]
    fn a_range_that_goes_in_parts_is_in_parts() {
        let mut lives = Lives::default();
        lives.segment_map(&range(100, 10));
        lives.now = 1;
        lives.segment_map(&range(110, 10));
        lives.now = 2;
        lives.segment_unmap(&range(105, 10));
        let expected = [(100, 5, 0, NEVER), (105, 5, 0, 2), (110, 5, 1, 2), (115, 5, 1, NEVER)];
        assert_eq!(rows(&lives), expected);
        assert_eq!(rows(&lives.between(2, 9)), [expected[0], expected[3]]);
    }

    #[test]
    fn the_latest_blocks_are_those_that_die_last() {
        let mut lives = Lives::default();
        for time in 0..5 {
            let span = Span::new(Addr(u64::from(time) * 512), Bytes(512));
            lives.block(BlockLife {
                id: None,
                span,
                requested: Bytes(1),
                place: PLACE,
                born: time,
                freed: time + 1,
                died: time + 1,
            });
        }
        assert_eq!((lives.latest_blocks(5), lives.latest_blocks(2)), (0, 4));
        let from = lives.latest_blocks(2);
        assert!(lives.between(from, 9).blocks.len() <= 2);
    }
}
