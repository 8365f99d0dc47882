//! [`FragmentationSeries`]: fragmentation over time, in bounded space.

use std::collections::BTreeMap;

use crate::{
    base::{Addr, Bytes, OpIndex, Span, StreamHandle},
    sim::{Allocated, Failed, FreeCompleted, FreeRequested, Observer, Place, Segment, StartBlock},
    trace::BlockState,
};

/// One moment of a replay. Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Sample {
    /// The operation.
    pub op: OpIndex,
    /// Of all segments.
    pub reserved: Bytes,
    /// Handed out.
    pub allocated: Bytes,
    /// In free blocks.
    pub free: Bytes,
    /// The largest free block.
    pub largest_free: Bytes,
}

impl Sample {
    /// As [`super::Fragmentation::external`].
    pub fn external(&self) -> f64 {
        (self.free - self.largest_free).ratio(self.free)
    }

    /// Free bytes outside the largest free block.
    pub fn scattered(&self) -> Bytes {
        self.free - self.largest_free
    }
}

/// Some moments on end: the least and the most of each measure among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Stretch {
    /// The first moment.
    pub first: Sample,
    /// The last moment.
    pub last: Sample,
    /// The moment with the least and the one with the most reserved; the earliest of equals.
    pub reserved: [Sample; 2],
    /// Likewise of handed out.
    pub allocated: [Sample; 2],
    /// Likewise of free.
    pub free: [Sample; 2],
    /// Likewise of free outside the largest free block.
    pub scattered: [Sample; 2],
}

impl Stretch {
    fn of(sample: Sample) -> Self {
        let both = [sample; 2];
        Self {
            first: sample,
            last: sample,
            reserved: both,
            allocated: both,
            free: both,
            scattered: both,
        }
    }

    /// Both, the later one behind.
    fn and(self, later: &Self) -> Self {
        fn join(a: [Sample; 2], b: [Sample; 2], of: impl Fn(&Sample) -> Bytes) -> [Sample; 2] {
            [
                if of(&b[0]) < of(&a[0]) { b[0] } else { a[0] },
                if of(&b[1]) > of(&a[1]) { b[1] } else { a[1] },
            ]
        }
        Self {
            first: self.first,
            last: later.last,
            reserved: join(self.reserved, later.reserved, |sample| sample.reserved),
            allocated: join(self.allocated, later.allocated, |sample| sample.allocated),
            free: join(self.free, later.free, |sample| sample.free),
            scattered: join(self.scattered, later.scattered, Sample::scattered),
        }
    }
}

/// Follows a replay and keeps at most so many stretches. When they are used up, neighbours join two
/// by two: the series becomes coarser, and no extreme is lost.
///
/// # Complexity
/// O(log n) an event in the number of free blocks; space for the free blocks and the stretches.
#[derive(Clone, Debug)]
pub struct FragmentationSeries {
    /// The operation that is being done; set by whoever replays.
    pub at: OpIndex,
    now: Sample,
    free: FreeRanges,
    limit: usize,
    /// How many samples make a stretch.
    width: u64,
    stretches: Vec<Stretch>,
    /// Samples in the last stretch.
    in_last: u64,
    worst: Sample,
}

impl FragmentationSeries {
    /// A series of at most `limit` stretches, and no fewer than two.
    pub fn new(limit: usize) -> Self {
        Self {
            at: OpIndex(0),
            now: Sample::default(),
            free: FreeRanges::default(),
            limit: limit.max(2),
            width: 1,
            stretches: Vec::new(),
            in_last: 0,
            worst: Sample::default(),
        }
    }

    /// The stretches, in order.
    pub fn stretches(&self) -> &[Stretch] {
        &self.stretches
    }

    /// The present moment.
    pub fn now(&self) -> Sample {
        self.now
    }

    /// The moment with most free bytes outside the largest free block while a request found nothing
    /// and had to go to the device, or failed; the first such moment.
    pub fn worst(&self) -> Sample {
        self.worst
    }

    fn look(&mut self) {
        self.now.op = self.at;
        self.now.free = self.free.bytes;
        self.now.largest_free = self.free.largest();
        let sample = Stretch::of(self.now);
        if self.in_last < self.width
            && let Some(last) = self.stretches.last_mut()
        {
            *last = last.and(&sample);
            self.in_last += 1;
            return;
        }
        if self.stretches.len() >= self.limit {
            let pairs = self.stretches.chunks(2);
            self.stretches =
                pairs.map(|pair| pair.get(1).map_or(pair[0], |later| pair[0].and(later))).collect();
            self.width *= 2;
        }
        self.stretches.push(sample);
        self.in_last = 1;
    }

    fn finds_nothing(&mut self) {
        self.now.op = self.at;
        self.now.free = self.free.bytes;
        self.now.largest_free = self.free.largest();
        if self.now.scattered() > self.worst.scattered() {
            self.worst = self.now;
        }
    }
}

impl Observer for FragmentationSeries {
    fn alloc(&mut self, fact: &Allocated) {
        self.free.take_front(fact.span, fact.remainder);
        self.now.allocated += fact.span.size;
        self.look();
    }

    fn free_requested(&mut self, fact: &FreeRequested) {
        self.now.allocated -= fact.span.size;
        self.look();
    }

    fn free_completed(&mut self, fact: &FreeCompleted) {
        self.free.replace(fact.free, &fact.place);
        self.look();
    }

    fn segment_alloc(&mut self, fact: &Segment) {
        self.finds_nothing();
        self.now.reserved += fact.span.size;
        self.free.add(fact.span, &fact.place);
    }

    fn segment_free(&mut self, fact: &Segment) {
        self.now.reserved -= fact.span.size;
        self.free.remove(fact.span.start);
    }

    fn segment_map(&mut self, fact: &Segment) {
        self.finds_nothing();
        self.now.reserved += fact.span.size;
        self.free.join(fact.span, &fact.place);
    }

    fn segment_unmap(&mut self, fact: &Segment) {
        self.now.reserved -= fact.span.size;
        self.free.cut(fact.span, &fact.place);
    }

    fn oom(&mut self, _fact: &Failed) {
        self.finds_nothing();
        self.look();
    }

    fn start(&mut self, segment: &Segment) {
        self.now.reserved += segment.span.size;
    }

    fn start_block(&mut self, block: &StartBlock) {
        match block.state {
            BlockState::Inactive => self.free.add(block.span, &block.place),
            BlockState::ActiveAllocated => self.now.allocated += block.span.size,
            BlockState::ActivePendingFree => {}
        }
        self.look();
    }
}

/// Which expandable segments are one: adjacent memory of one of these coalesces.
type Owner = Option<(StreamHandle, crate::base::PoolId, bool)>;

fn owner(place: &Place) -> Owner {
    place.is_expandable.then_some((place.stream, place.pool, place.is_small))
}

/// The free blocks, by address and by size.
#[derive(Clone, Debug, Default)]
struct FreeRanges {
    by_addr: BTreeMap<Addr, (Bytes, Owner)>,
    by_size: BTreeMap<Bytes, u32>,
    bytes: Bytes,
}

impl FreeRanges {
    fn largest(&self) -> Bytes {
        self.by_size.last_key_value().map_or(Bytes::ZERO, |(size, _)| *size)
    }

    fn add(&mut self, span: Span, place: &Place) {
        self.insert(span, owner(place));
    }

    fn insert(&mut self, span: Span, owner: Owner) {
        self.by_addr.insert(span.start, (span.size, owner));
        *self.by_size.entry(span.size).or_default() += 1;
        self.bytes += span.size;
    }

    fn remove(&mut self, start: Addr) -> Option<(Span, Owner)> {
        let (size, owner) = self.by_addr.remove(&start)?;
        if let Some(count) = self.by_size.get_mut(&size) {
            *count -= 1;
            if *count == 0 {
                self.by_size.remove(&size);
            }
        }
        self.bytes -= size;
        Some((Span::new(start, size), owner))
    }

    /// A block was handed out: the low end of a free one.
    fn take_front(&mut self, span: Span, remainder: Option<Bytes>) {
        let taken = self.remove(span.start);
        if let (Some((_, owner)), Some(rest)) = (taken, remainder) {
            self.insert(Span::new(span.end(), rest), owner);
        }
    }

    /// `whole` is one free block now, whatever was free in it.
    fn replace(&mut self, whole: Span, place: &Place) {
        while let Some((&start, _)) = self.by_addr.range(whole.start..whole.end()).next() {
            self.remove(start);
        }
        self.add(whole, place);
    }

    /// Memory was mapped: it coalesces with what is free on its two sides.
    fn join(&mut self, span: Span, place: &Place) {
        let mut whole = span;
        let below = self.by_addr.range(..span.start).next_back();
        if let Some((&start, &(size, of))) = below
            && start + size == span.start
            && of == owner(place)
        {
            self.remove(start);
            whole = Span::new(start, size + span.size);
        }
        let above = self.by_addr.get(&span.end()).copied();
        if let Some((size, of)) = above
            && of == owner(place)
        {
            self.remove(span.end());
            whole.size += size;
        }
        self.add(whole, place);
    }

    /// Memory inside a free block was unmapped.
    fn cut(&mut self, gone: Span, place: &Place) {
        let around = self.by_addr.range(..=gone.start).next_back().map(|(start, _)| *start);
        let Some((whole, _)) = around.and_then(|start| self.remove(start)) else { return };
        if whole.start < gone.start {
            self.add(Span::new(whole.start, gone.start - whole.start), place);
        }
        if gone.end() < whole.end() {
            self.add(Span::new(gone.end(), whole.end() - gone.end()), place);
        }
    }
}
