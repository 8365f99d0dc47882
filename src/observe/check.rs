//! [`Check`]: the independent judge of events.
//!
//! ```text
//!   start ──► [ segments, held blocks ] ◄── event, event, event …
//!                        │                        └─► Violation: event 7 overlaps …
//!   end   ──► the same? ─┘
//! ```
//! It rebuilds the address map from events alone and says which of them cannot be: a block handed out
//! twice, a segment given back with a live block in it, memory that nobody reserved. It knows nothing
//! of sizes, search and splitting, so a model and its judge share no mistake there; and it judges
//! recordings of real allocators as well.

use std::{collections::BTreeMap, fmt};

use crate::{
    base::{Addr, Bytes, PoolId, Span, StreamHandle},
    sim::{Allocated, Failed, FreeCompleted, FreeRequested, Observer, Place, Segment},
    trace::{Action, BlockState, Event, Layout, SegmentLayout},
};

/// What the judge takes for granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckRules {
    /// Addresses are multiples of this, and so are the sizes of blocks: 512, but for releases up to
    /// 2.3 with a setting of `roundup_power2_divisions` of 1, which does not round at all: there 1.
    pub step: Bytes,
    /// Whether the events name pools; if not, the pools of events and layouts are passed over.
    pub names_pools: bool,
}

impl Default for CheckRules {
    fn default() -> Self {
        Self { step: Self::MIN_BLOCK_SIZE, names_pools: true }
    }
}

impl CheckRules {
    /// No block is smaller (`kMinBlockSize`).
    const MIN_BLOCK_SIZE: Bytes = Bytes(512);

    /// What a block for such a request covers at least; `None` beyond 64 bits.
    fn least_size(self, requested: Bytes) -> Option<Bytes> {
        let size = requested.max(Self::MIN_BLOCK_SIZE);
        size.checked_add(Bytes(self.step.0 - 1))?;
        Some(size.round_up(self.step))
    }

    fn pool(self, pool: PoolId) -> PoolId {
        if self.names_pools { pool } else { PoolId::DEFAULT }
    }
}

/// A segment, or mapped memory without a gap, as the events tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownSegment {
    /// The addresses.
    pub span: Span,
    /// The stream that it serves.
    pub stream: StreamHandle,
    /// The pool that it belongs to.
    pub pool: PoolId,
    /// Whether it was mapped, not allocated.
    pub is_mapped_range: bool,
}

impl KnownSegment {
    fn is_in_place_of(&self, other: &Self) -> bool {
        (self.stream, self.pool) == (other.stream, other.pool)
    }
}

impl fmt::Display for KnownSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_mapped_range { "mapped range" } else { "segment" };
        write!(f, "{kind} {} stream {} pool {}", self.span, self.stream, self.pool)
    }
}

/// A block that is handed out, or freed and waited for, as the events tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownBlock {
    /// The addresses; the size is a lower bound, as events name only what was requested.
    pub span: Span,
    /// What was requested.
    pub requested: Bytes,
    /// The stream that it was allocated for.
    pub stream: StreamHandle,
    /// The pool that it belongs to.
    pub pool: PoolId,
    /// Whether it was freed and is waited for.
    pub is_pending: bool,
}

impl fmt::Display for KnownBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_pending { "pending" } else { "live" };
        let Self { span, requested, stream, pool, .. } = self;
        write!(f, "{state} block {span} requested {} stream {stream} pool {pool}", requested.0)
    }
}

/// Writes one side of a difference.
struct Side<'a, T>(&'a Option<T>);

impl<T: fmt::Display> fmt::Display for Side<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(known) => known.fmt(f),
            None => f.write_str("nothing there"),
        }
    }
}

/// Something that cannot be. `at` counts the events from 0; at the end it is their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A range that ends beyond 64 bits, or has no size.
    #[error("event {at}: {event}: no such range of addresses")]
    NoRange {
        /// Index of the event.
        at: usize,
        /// The event.
        event: Event,
    },
    /// A block or segment that does not begin at a multiple of the step, or a segment whose size is
    /// none.
    #[error("event {at}: {event}: not a multiple of {}", step.0)]
    Misaligned {
        /// Index of the event.
        at: usize,
        /// The event.
        event: Event,
        /// [`CheckRules::step`].
        step: Bytes,
    },
    /// New memory where there is memory already.
    #[error("event {at}: {event}: overlaps {segment}")]
    SegmentOverlap {
        /// Index of the event.
        at: usize,
        /// The event.
        event: Event,
        /// What is there.
        segment: KnownSegment,
    },
    /// `segment_free` of something that is not one whole segment.
    #[error("event {at}: {event}: not one whole segment; known: {}", Side(segment))]
    NotASegment {
        /// Index of the event.
        at: usize,
        /// The event.
        event: Event,
        /// What is there.
        segment: Option<KnownSegment>,
    },
    /// A block, or a range to unmap, that does not lie in reserved memory.
    #[error("event {at}: {event}: not inside reserved memory; known: {}", Side(segment))]
    NotReserved {
        /// Index of the event.
        at: usize,
        /// The event.
        event: Event,
        /// What is there.
        segment: Option<KnownSegment>,
    },
    /// Memory of another stream or pool.
    #[error("event {at}: {event}: of another stream or pool: {segment}")]
    ForeignSegment {
        /// Index of the event.
        at: usize,
        /// The event.
        event: Event,
        /// What is there.
        segment: KnownSegment,
    },
    /// A block is handed out, or memory given back, over a block that is live or pending.
    #[error("event {at}: {event}: overlaps {block}")]
    BlockOverlap {
        /// Index of the event.
        at: usize,
        /// The event.
        event: Event,
        /// What is there.
        block: KnownBlock,
    },
    /// `free_requested` without a live block, `free_completed` without a pending one, or of another
    /// size, stream or pool.
    #[error("event {at}: {event}: not such a block; known: {}", Side(block))]
    NoSuchBlock {
        /// Index of the event.
        at: usize,
        /// The event.
        event: Event,
        /// What is there.
        block: Option<KnownBlock>,
    },
    /// At the end: a segment or mapped range that only one side has.
    #[error("end: events: {}; layout: {}", Side(events), Side(layout))]
    SegmentsDiffer {
        /// Number of events.
        at: usize,
        /// What follows from the events.
        events: Option<KnownSegment>,
        /// What the layout says.
        layout: Option<KnownSegment>,
    },
    /// At the end: an active block that only one side has, or that differs.
    #[error("end: events: {}; layout: {}", Side(events), Side(layout))]
    BlocksDiffer {
        /// Number of events.
        at: usize,
        /// What follows from the events.
        events: Option<KnownBlock>,
        /// What the layout says.
        layout: Option<KnownBlock>,
    },
    /// At the end: a block in the layout without a size, or with a size that is not a multiple of the
    /// step.
    #[error("end: block {block} of the layout has no possible size")]
    BlockSize {
        /// Number of events.
        at: usize,
        /// The block.
        block: Span,
    },
    /// At the end: free neighbours that were not coalesced.
    #[error("end: free neighbours {first} and {second} are not coalesced")]
    FreeNeighbours {
        /// Number of events.
        at: usize,
        /// The lower one.
        first: Span,
        /// The upper one.
        second: Span,
    },
    /// At the end: reserved bytes differ.
    #[error("end: {} bytes are reserved by the events, {} in the layout", events.0, layout.0)]
    ReservedDiffers {
        /// Number of events.
        at: usize,
        /// What follows from the events.
        events: Bytes,
        /// What the layout says.
        layout: Bytes,
    },
}

/// The judge.
///
/// As an [`Observer`] it builds the events from the facts and keeps the first violation: see
/// [`Check::violation`].
///
/// # Examples
/// ```
/// use fragsim::{
///     base::{Addr, Bytes, PoolId, StreamHandle},
///     observe::{Check, Violation},
///     trace::{Action, Event, Layout},
/// };
/// let event = |action, size| Event {
///     action,
///     addr: Addr(0x200_0000),
///     size,
///     stream: StreamHandle(0),
///     pool: PoolId::DEFAULT,
/// };
/// let mut check = Check::new(&Layout::default());
/// check.event(&event(Action::SegmentAlloc, Bytes::mib(2)))?;
/// check.event(&event(Action::Alloc, Bytes(600)))?;
/// let twice = check.event(&event(Action::Alloc, Bytes(512)));
/// assert!(matches!(twice, Err(Violation::BlockOverlap { at: 2, .. })));
/// # Ok::<(), Violation>(())
/// ```
#[derive(Clone, Debug)]
pub struct Check {
    rules: CheckRules,
    /// By first address; disjoint. Mapped ranges of one place that touch are one.
    segments: BTreeMap<Addr, KnownSegment>,
    /// By first address; disjoint, each inside one segment.
    blocks: BTreeMap<Addr, KnownBlock>,
    /// Sum of the sizes of `segments`.
    reserved: Bytes,
    /// Number of events so far.
    count: usize,
    first: Option<Violation>,
}

impl Check {
    /// A judge of what happens from `start` on, by the default rules. The layout is taken as it is;
    /// [`Check::end`] with the same layout judges it.
    ///
    /// # Complexity
    /// O(n log n) in the blocks of the layout.
    pub fn new(start: &Layout) -> Self {
        Self::with_rules(start, CheckRules::default())
    }

    /// As [`Check::new`], by other rules.
    ///
    /// # Panics
    /// When the step of the rules is 0.
    pub fn with_rules(start: &Layout, rules: CheckRules) -> Self {
        assert!(rules.step > Bytes::ZERO, "everything is a multiple of one byte at least");
        let mut this = Self {
            rules,
            segments: BTreeMap::new(),
            blocks: BTreeMap::new(),
            reserved: Bytes::ZERO,
            count: 0,
            first: None,
        };
        for segment in &start.segments {
            this.adopt(segment);
        }
        this
    }

    fn adopt(&mut self, segment: &SegmentLayout) {
        let pool = self.rules.pool(segment.pool);
        self.add_segment(KnownSegment {
            span: segment.span(),
            stream: segment.stream,
            pool,
            is_mapped_range: segment.is_expandable,
        });
        for (addr, block) in segment.blocks_at() {
            if block.state == BlockState::Inactive {
                continue;
            }
            let known = KnownBlock {
                span: Span::new(addr, block.size),
                requested: block.requested,
                stream: segment.stream,
                pool,
                is_pending: block.state == BlockState::ActivePendingFree,
            };
            self.blocks.insert(addr, known);
        }
    }

    /// Bytes of all segments and mapped ranges.
    pub fn reserved(&self) -> Bytes {
        self.reserved
    }

    /// The blocks that are live or pending, in the order of their addresses.
    pub fn held(&self) -> impl Iterator<Item = &KnownBlock> {
        self.blocks.values()
    }

    /// Number of events seen.
    pub fn event_count(&self) -> usize {
        self.count
    }

    /// The first violation, where the judge was used as an [`Observer`]; it stops looking there.
    pub fn violation(&self) -> Option<&Violation> {
        self.first.as_ref()
    }

    /// Judges the next event. An event that is refused changes nothing but the count.
    ///
    /// Notes, snapshots and failures are counted only.
    ///
    /// # Errors
    /// When it cannot be.
    ///
    /// # Complexity
    /// O(log n) in the segments and blocks that are held.
    pub fn event(&mut self, event: &Event) -> Result<(), Violation> {
        let at = self.count;
        self.count += 1;
        match event.action {
            Action::SegmentAlloc | Action::SegmentMap => self.segment_comes(at, event),
            Action::SegmentFree => self.segment_free(at, event),
            Action::SegmentUnmap => self.segment_unmap(at, event),
            Action::Alloc => self.alloc(at, event),
            Action::FreeRequested => {
                let block = self.find_block(at, event, false)?;
                self.blocks.insert(block.span.start, KnownBlock { is_pending: true, ..block });
                Ok(())
            }
            Action::FreeCompleted => {
                let block = self.find_block(at, event, true)?;
                self.blocks.remove(&block.span.start);
                Ok(())
            }
            Action::Snapshot | Action::Oom | Action::Annotate => Ok(()),
        }
    }

    /// The range of an event that has one of at least a byte.
    fn span_of(at: usize, event: &Event, size: Option<Bytes>) -> Result<Span, Violation> {
        size.filter(|size| *size > Bytes::ZERO && event.addr.0.checked_add(size.0).is_some())
            .map(|size| Span::new(event.addr, size))
            .ok_or(Violation::NoRange { at, event: *event })
    }

    fn is_aligned(&self, number: u64) -> bool {
        number.is_multiple_of(self.rules.step.0)
    }

    /// The segment that holds `addr`, or the next one below.
    fn segment_below(&self, addr: Addr) -> Option<&KnownSegment> {
        self.segments.range(..=addr).next_back().map(|(_, segment)| segment)
    }

    /// A held block that shares an address with `span`.
    fn block_in(&self, span: Span) -> Option<&KnownBlock> {
        let below = self.blocks.range(..span.end()).next_back().map(|(_, block)| block);
        below.filter(|block| block.span.overlaps(span))
    }

    fn segment_comes(&mut self, at: usize, event: &Event) -> Result<(), Violation> {
        let span = Self::span_of(at, event, Some(event.size))?;
        if !self.is_aligned(span.start.0) || !self.is_aligned(span.size.0) {
            return Err(Violation::Misaligned { at, event: *event, step: self.rules.step });
        }
        let below = self.segments.range(..span.end()).next_back().map(|(_, segment)| *segment);
        if let Some(segment) = below.filter(|segment| segment.span.overlaps(span)) {
            return Err(Violation::SegmentOverlap { at, event: *event, segment });
        }
        self.add_segment(KnownSegment {
            span,
            stream: event.stream,
            pool: self.rules.pool(event.pool),
            is_mapped_range: event.action == Action::SegmentMap,
        });
        Ok(())
    }

    /// Adds memory; a mapped range joins those that it touches. The events do not tell apart two
    /// expandable segments of one stream and pool whose address ranges touch.
    fn add_segment(&mut self, new: KnownSegment) {
        self.reserved += new.span.size;
        let mut joined = new;
        if new.is_mapped_range {
            let touches =
                |other: &KnownSegment| other.is_mapped_range && other.is_in_place_of(&new);
            let above = self.segments.get(&new.span.end()).copied().filter(touches);
            let below = self.segment_below(new.span.start).copied();
            let below = below.filter(|b| b.span.end() == new.span.start && touches(b));
            if let Some(above) = above {
                self.segments.remove(&above.span.start);
                joined.span.size += above.span.size;
            }
            if let Some(below) = below {
                joined.span = Span::new(below.span.start, below.span.size + joined.span.size);
            }
        }
        self.segments.insert(joined.span.start, joined);
    }

    fn segment_free(&mut self, at: usize, event: &Event) -> Result<(), Violation> {
        let span = Self::span_of(at, event, Some(event.size))?;
        let found = self.segment_below(span.start).copied();
        let segment = found
            .filter(|segment| !segment.is_mapped_range && segment.span == span)
            .ok_or(Violation::NotASegment { at, event: *event, segment: found })?;
        self.judge_place(at, event, &segment)?;
        self.judge_unused(at, event, span)?;
        self.segments.remove(&span.start);
        self.reserved -= span.size;
        Ok(())
    }

    fn segment_unmap(&mut self, at: usize, event: &Event) -> Result<(), Violation> {
        let span = Self::span_of(at, event, Some(event.size))?;
        let found = self.segment_below(span.start).copied();
        let range = found
            .filter(|range| range.is_mapped_range && span.end() <= range.span.end())
            .ok_or(Violation::NotReserved { at, event: *event, segment: found })?;
        self.judge_place(at, event, &range)?;
        self.judge_unused(at, event, span)?;
        self.segments.remove(&range.span.start);
        let head = Span::new(range.span.start, span.start - range.span.start);
        let tail = Span::new(span.end(), range.span.end() - span.end());
        for part in [head, tail].into_iter().filter(|part| part.size > Bytes::ZERO) {
            self.segments.insert(part.start, KnownSegment { span: part, ..range });
        }
        self.reserved -= span.size;
        Ok(())
    }

    fn judge_place(
        &self,
        at: usize,
        event: &Event,
        segment: &KnownSegment,
    ) -> Result<(), Violation> {
        if (segment.stream, segment.pool) == (event.stream, self.rules.pool(event.pool)) {
            return Ok(());
        }
        Err(Violation::ForeignSegment { at, event: *event, segment: *segment })
    }

    fn judge_unused(&self, at: usize, event: &Event, span: Span) -> Result<(), Violation> {
        match self.block_in(span) {
            Some(block) => Err(Violation::BlockOverlap { at, event: *event, block: *block }),
            None => Ok(()),
        }
    }

    fn alloc(&mut self, at: usize, event: &Event) -> Result<(), Violation> {
        let span = Self::span_of(at, event, self.rules.least_size(event.size))?;
        if !self.is_aligned(span.start.0) {
            return Err(Violation::Misaligned { at, event: *event, step: self.rules.step });
        }
        let found = self.segment_below(span.start).copied();
        let segment = found
            .filter(|segment| span.end() <= segment.span.end())
            .ok_or(Violation::NotReserved { at, event: *event, segment: found })?;
        self.judge_place(at, event, &segment)?;
        self.judge_unused(at, event, span)?;
        let block = KnownBlock {
            span,
            requested: event.size,
            stream: segment.stream,
            pool: segment.pool,
            is_pending: false,
        };
        self.blocks.insert(span.start, block);
        Ok(())
    }

    /// The held block that a free names.
    fn find_block(
        &self,
        at: usize,
        event: &Event,
        is_pending: bool,
    ) -> Result<KnownBlock, Violation> {
        let found = self.blocks.get(&event.addr).copied();
        let named = (event.size, event.stream, self.rules.pool(event.pool), is_pending);
        found
            .filter(|b| (b.requested, b.stream, b.pool, b.is_pending) == named)
            .ok_or(Violation::NoSuchBlock { at, event: *event, block: found })
    }

    /// Judges where everything lies at the end: the same segments and mapped ranges as by the events,
    /// the same active blocks, tiles without free neighbours, equal sums.
    ///
    /// # Errors
    /// At the first difference, lowest address first.
    ///
    /// # Complexity
    /// O(n log n) in the blocks.
    pub fn end(&self, layout: &Layout) -> Result<(), Violation> {
        let at = self.count;
        for segment in &layout.segments {
            self.judge_tiles(segment)?;
        }
        let seen = Self::with_rules(layout, self.rules);
        let segments = first_difference(&self.segments, &seen.segments, PartialEq::eq);
        if let Some((events, layout)) = segments {
            return Err(Violation::SegmentsDiffer { at, events, layout });
        }
        // The events bound the size from below; all else is equal.
        let is_same = |known: &KnownBlock, seen: &KnownBlock| {
            known.span.size <= seen.span.size && KnownBlock { span: seen.span, ..*known } == *seen
        };
        if let Some((events, layout)) = first_difference(&self.blocks, &seen.blocks, is_same) {
            return Err(Violation::BlocksDiffer { at, events, layout });
        }
        // Segments of the layout that hide one another are equal as a map, but not in their sum.
        if self.reserved != seen.reserved {
            let (events, layout) = (self.reserved, seen.reserved);
            return Err(Violation::ReservedDiffers { at, events, layout });
        }
        Ok(())
    }

    fn judge_tiles(&self, segment: &SegmentLayout) -> Result<(), Violation> {
        let at = self.count;
        let mut free_before: Option<Span> = None;
        for (addr, block) in segment.blocks_at() {
            let span = Span::new(addr, block.size);
            if block.size == Bytes::ZERO || !self.is_aligned(block.size.0) {
                return Err(Violation::BlockSize { at, block: span });
            }
            let free = (block.state == BlockState::Inactive).then_some(span);
            if let (Some(first), Some(second)) = (free_before, free) {
                return Err(Violation::FreeNeighbours { at, first, second });
            }
            free_before = free;
        }
        Ok(())
    }

    fn observe(&mut self, action: Action, span: Span, place: &Place) {
        let (addr, size) = (span.start, span.size);
        self.keep(&Event { action, addr, size, stream: place.stream, pool: place.pool });
    }

    fn keep(&mut self, event: &Event) {
        if self.first.is_none() {
            self.first = self.event(event).err();
        }
    }
}

/// The lowest key at which two maps differ, with what either has there.
fn first_difference<T: Copy>(
    left: &BTreeMap<Addr, T>,
    right: &BTreeMap<Addr, T>,
    is_same: impl Fn(&T, &T) -> bool,
) -> Option<(Option<T>, Option<T>)> {
    let (mut lefts, mut rights) = (left.iter().peekable(), right.iter().peekable());
    loop {
        let addr = match (lefts.peek(), rights.peek()) {
            (None, None) => return None,
            (Some((l, _)), Some((r, _))) => *(*l).min(*r),
            (Some((addr, _)), None) | (None, Some((addr, _))) => **addr,
        };
        let l = lefts.next_if(|(at, _)| **at == addr).map(|(_, value)| *value);
        let r = rights.next_if(|(at, _)| **at == addr).map(|(_, value)| *value);
        match (&l, &r) {
            (Some(left), Some(right)) if is_same(left, right) => {}
            _ => return Some((l, r)),
        }
    }
}

impl Observer for Check {
    fn alloc(&mut self, fact: &Allocated) {
        let span = Span::new(fact.span.start, fact.requested);
        self.observe(Action::Alloc, span, &fact.place);
    }
    fn free_requested(&mut self, fact: &FreeRequested) {
        let span = Span::new(fact.span.start, fact.requested);
        self.observe(Action::FreeRequested, span, &fact.place);
    }
    fn free_completed(&mut self, fact: &FreeCompleted) {
        let span = Span::new(fact.span.start, fact.requested);
        self.observe(Action::FreeCompleted, span, &fact.place);
    }
    fn segment_alloc(&mut self, fact: &Segment) {
        self.observe(Action::SegmentAlloc, fact.span, &fact.place);
    }
    fn segment_free(&mut self, fact: &Segment) {
        self.observe(Action::SegmentFree, fact.span, &fact.place);
    }
    fn segment_map(&mut self, fact: &Segment) {
        self.observe(Action::SegmentMap, fact.span, &fact.place);
    }
    fn segment_unmap(&mut self, fact: &Segment) {
        self.observe(Action::SegmentUnmap, fact.span, &fact.place);
    }
    fn oom(&mut self, fact: &Failed) {
        self.observe(Action::Oom, Span::new(fact.addr(), fact.size), &fact.place);
    }
    fn snapshot(&mut self, pool: PoolId, active: Bytes) {
        let stream = StreamHandle(0);
        let action = Action::Snapshot;
        self.keep(&Event { action, addr: Addr(0), size: active, stream, pool });
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::trace::BlockLayout;

    /// Events, one a semicolon: action, address in KiB, size in bytes or with a unit, then maybe
    /// `stream` and `pool` with a number.
    fn read(script: &str) -> Vec<Event> {
        let words = script.split(';').map(|text| text.split_whitespace().collect::<Vec<_>>());
        words
            .filter(|words| !words.is_empty())
            .map(|words| {
                let after = |key: &str| {
                    let at = words.iter().position(|word| *word == key);
                    at.map_or(0, |at| words[at + 1].parse().unwrap())
                };
                Event {
                    action: Action::from_name(words[0]).unwrap(),
                    addr: Addr(words[1].parse::<u64>().unwrap() << 10),
                    size: words[2].parse().unwrap(),
                    stream: StreamHandle(after("stream")),
                    pool: PoolId(0, after("pool")),
                }
            })
            .collect()
    }

    fn judge(script: &str, rules: CheckRules) -> (Check, String) {
        let mut check = Check::with_rules(&Layout::default(), rules);
        let verdict = read(script).iter().try_for_each(|event| check.event(event));
        let text = match verdict {
            Ok(()) => format!("{} reserved, {} held", check.reserved(), check.held().count()),
            Err(violation) => violation.to_string(),
        };
        (check, text)
    }

    fn check(script: &str, expected: &Expect) {
        expected.assert_eq(&judge(script, CheckRules::default()).1);
    }

    #[test]
    fn a_block_lives_from_alloc_to_free_completed() {
        check(
            "segment_alloc 0 2MiB; alloc 0 600; alloc 1 512; free_requested 0 600; free_completed 0 600;
             alloc 0 1024; free_requested 1 512",
            &expect!["2.00 MiB reserved, 2 held"],
        );
    }

    #[test]
    fn a_block_covers_what_was_requested_in_steps_of_512_bytes() {
        check(
            "segment_alloc 0 2MiB; alloc 0 1025; alloc 1 1",
            &expect![
                "event 2: alloc 0x400 size 1: overlaps live block 0x0+1536 requested 1025 stream 0x0 pool (0,0)"
            ],
        );
    }

    #[test]
    fn a_pending_block_is_not_handed_out() {
        check(
            "segment_alloc 0 2MiB; alloc 0 512; free_requested 0 512; alloc 0 512",
            &expect![
                "event 3: alloc 0x0 size 512: overlaps pending block 0x0+512 requested 512 stream 0x0 pool (0,0)"
            ],
        );
    }

    #[test]
    fn a_block_lies_inside_one_segment() {
        check(
            "segment_alloc 0 2MiB; segment_alloc 2048 2MiB; alloc 2047 2048",
            &expect![
                "event 2: alloc 0x1ffc00 size 2048: not inside reserved memory; known: segment 0x0+2097152 stream 0x0 pool (0,0)"
            ],
        );
        check(
            "alloc 0 1",
            &expect!["event 0: alloc 0x0 size 1: not inside reserved memory; known: nothing there"],
        );
    }

    #[test]
    fn mapped_ranges_that_touch_are_one() {
        check(
            "segment_map 2048 2MiB; segment_map 0 2MiB; alloc 1024 2MiB; segment_unmap 3072 1MiB",
            &expect!["3.00 MiB reserved, 1 held"],
        );
    }

    #[test]
    fn a_block_lies_in_memory_of_its_stream() {
        check(
            "segment_alloc 0 2MiB stream 7; alloc 0 1",
            &expect![
                "event 1: alloc 0x0 size 1: of another stream or pool: segment 0x0+2097152 stream 0x7 pool (0,0)"
            ],
        );
    }

    #[test]
    fn a_block_lies_in_memory_of_its_pool_where_events_name_pools() {
        let script = "segment_alloc 0 2MiB pool 1; alloc 0 1";
        check(
            script,
            &expect![
                "event 1: alloc 0x0 size 1: of another stream or pool: segment 0x0+2097152 stream 0x0 pool (0,1)"
            ],
        );
        let rules = CheckRules { names_pools: false, ..CheckRules::default() };
        assert_eq!(judge(script, rules).1, "2.00 MiB reserved, 1 held");
    }

    #[test]
    fn a_free_names_a_live_block_and_its_size() {
        check(
            "segment_alloc 0 2MiB; alloc 0 1; free_requested 0 2",
            &expect![
                "event 2: free_requested 0x0 size 2: not such a block; known: live block 0x0+512 requested 1 stream 0x0 pool (0,0)"
            ],
        );
        check(
            "segment_alloc 0 2MiB; alloc 0 1; free_requested 0 1; free_requested 0 1",
            &expect![
                "event 3: free_requested 0x0 size 1: not such a block; known: pending block 0x0+512 requested 1 stream 0x0 pool (0,0)"
            ],
        );
        check(
            "segment_alloc 0 2MiB; alloc 0 1; free_completed 0 1",
            &expect![
                "event 2: free_completed 0x0 size 1: not such a block; known: live block 0x0+512 requested 1 stream 0x0 pool (0,0)"
            ],
        );
    }

    #[test]
    fn segments_do_not_overlap() {
        check(
            "segment_alloc 2048 2MiB; segment_map 0 4MiB",
            &expect![
                "event 1: segment_map 0x0 size 4194304: overlaps segment 0x200000+2097152 stream 0x0 pool (0,0)"
            ],
        );
    }

    #[test]
    fn a_segment_goes_back_whole_and_empty() {
        check(
            "segment_alloc 0 4MiB; segment_free 0 2MiB",
            &expect![
                "event 1: segment_free 0x0 size 2097152: not one whole segment; known: segment 0x0+4194304 stream 0x0 pool (0,0)"
            ],
        );
        check(
            "segment_alloc 0 2MiB; alloc 1024 1; segment_free 0 2MiB",
            &expect![
                "event 2: segment_free 0x0 size 2097152: overlaps live block 0x100000+512 requested 1 stream 0x0 pool (0,0)"
            ],
        );
        check(
            "segment_map 0 2MiB; segment_free 0 2MiB",
            &expect![
                "event 1: segment_free 0x0 size 2097152: not one whole segment; known: mapped range 0x0+2097152 stream 0x0 pool (0,0)"
            ],
        );
    }

    #[test]
    fn unmapping_leaves_blocks_alone() {
        check(
            "segment_map 0 6MiB; alloc 3072 1; segment_unmap 2048 2MiB",
            &expect![
                "event 2: segment_unmap 0x200000 size 2097152: overlaps live block 0x300000+512 requested 1 stream 0x0 pool (0,0)"
            ],
        );
        check(
            "segment_map 0 6MiB; segment_unmap 2048 2MiB; alloc 1024 2MiB",
            &expect![
                "event 2: alloc 0x100000 size 2097152: not inside reserved memory; known: mapped range 0x0+2097152 stream 0x0 pool (0,0)"
            ],
        );
    }

    #[test]
    fn blocks_begin_at_the_step() {
        let events = [
            Event {
                action: Action::SegmentAlloc,
                addr: Addr(0),
                size: Bytes::mib(2),
                ..read("oom 0 0")[0]
            },
            Event { action: Action::Alloc, addr: Addr(700), size: Bytes(1), ..read("oom 0 0")[0] },
        ];
        let verdict = |rules| {
            let mut check = Check::with_rules(&Layout::default(), rules);
            events.iter().try_for_each(|event| check.event(event))
        };
        let rules = CheckRules { step: Bytes(1), ..CheckRules::default() };
        assert_eq!(verdict(rules), Ok(()));
        assert_eq!(
            verdict(CheckRules::default()),
            Err(Violation::Misaligned { at: 1, event: events[1], step: Bytes(512) })
        );
    }

    #[test]
    fn no_event_makes_the_judge_panic() {
        let top = Addr(u64::MAX - 5);
        for action in Action::ALL {
            for (addr, size) in [(top, Bytes(6)), (top, Bytes::MAX), (Addr(0), Bytes::MAX)] {
                let event = Event { action, addr, size, ..read("oom 0 0")[0] };
                let _ = Check::new(&Layout::default()).event(&event);
                let mut check = Check::new(&Layout::default());
                check.event(&Event { action: Action::SegmentMap, ..event }).ok();
                check.event(&event).ok();
            }
        }
    }

    fn layout(blocks: &[(u64, BlockState)]) -> Layout {
        let block = |(size, state): &(u64, BlockState)| BlockLayout {
            size: Bytes(*size),
            requested: Bytes(*size),
            state: *state,
        };
        Layout {
            segments: vec![SegmentLayout {
                addr: Addr(0),
                stream: StreamHandle(0),
                pool: PoolId::DEFAULT,
                is_small: true,
                is_expandable: false,
                blocks: blocks.iter().map(block).collect(),
            }],
        }
    }

    #[test]
    fn the_end_is_compared_with_the_layout() {
        use BlockState::{ActiveAllocated, ActivePendingFree, Inactive};
        let script = "segment_alloc 0 2MiB; alloc 0 512";
        let end = |script: &str, blocks: &[(u64, BlockState)]| {
            let verdict = judge(script, CheckRules::default()).0.end(&layout(blocks));
            verdict.map_or_else(|violation| violation.to_string(), |()| "equal".into())
        };
        let rest = (2 << 20) - 512;
        assert_eq!(end(script, &[(512, ActiveAllocated), (rest, Inactive)]), "equal");
        expect!["end: events: live block 0x0+512 requested 512 stream 0x0 pool (0,0); layout: pending block 0x0+512 requested 512 stream 0x0 pool (0,0)"]
            .assert_eq(&end(script, &[(512, ActivePendingFree), (rest, Inactive)]));
        expect!["end: events: live block 0x0+512 requested 512 stream 0x0 pool (0,0); layout: nothing there"]
            .assert_eq(&end(script, &[(2 << 20, Inactive)]));
        expect!["end: free neighbours 0x200+512 and 0x400+2096128 are not coalesced"].assert_eq(
            &end(script, &[(512, ActiveAllocated), (512, Inactive), (rest - 512, Inactive)]),
        );
        expect!["end: events: segment 0x0+2097152 stream 0x0 pool (0,0); layout: segment 0x0+1048576 stream 0x0 pool (0,0)"]
            .assert_eq(&end(script, &[(512, ActiveAllocated), ((1 << 20) - 512, Inactive)]));
        expect!["end: block 0x200+0 of the layout has no possible size"]
            .assert_eq(&end(script, &[(512, ActiveAllocated), (0, Inactive)]));
        expect!["end: events: nothing there; layout: segment 0x0+2097152 stream 0x0 pool (0,0)"]
            .assert_eq(&end("", &[(2 << 20, Inactive)]));
    }

    #[test]
    fn what_was_there_at_the_start_is_known_in_full() {
        let start = layout(&[
            (1024, BlockState::ActivePendingFree),
            ((2 << 20) - 1024, BlockState::Inactive),
        ]);
        let mut check = Check::new(&start);
        assert_eq!(check.end(&start), Ok(()));
        let [early, completed, late] =
            read("alloc 0 512; free_completed 0 1024; alloc 0 512").try_into().unwrap();
        assert!(matches!(check.event(&early), Err(Violation::BlockOverlap { at: 0, .. })));
        assert_eq!(check.event(&completed), Ok(()));
        assert_eq!(check.event(&late), Ok(()));
    }
}
