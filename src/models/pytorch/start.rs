//! The state that a trace starts from.

use rustc_hash::FxHashMap;

use super::{
    PyTorch,
    pool::{ListIdx, PoolIdx},
    pools::PrivatePools,
    rounding::SMALL_BUFFER,
    version::TieBreak,
};
use crate::{
    base::{AllocId, BlockId, Span, StreamHandle, StreamId},
    sim::{Block, Device, Observer, Segment, StartBlock},
    trace::{BlockState, SegmentLayout, Trace},
};

impl PyTorch {
    /// Makes the layout at the start of a trace, and room for its allocations.
    ///
    /// Ages are not part of a layout: segments count as created in the order of their addresses. The
    /// ranges of one expandable segment are those of one stream and pool; what is between them, and
    /// the rest of its address space, is unmapped.
    pub(super) fn start_from<O: Observer>(&mut self, trace: &Trace, observer: &mut O) {
        self.expect_allocs(trace.alloc_count());
        if let Some(recorded) = trace.recorded() {
            self.recorded.expect(&recorded.completions);
        }
        let reserved_chains = trace.recorded().map_or(&[][..], |recorded| &recorded.chains);
        let mut ids = trace.start_ids().iter().copied();
        let mut chains: FxHashMap<ListIdx, BlockId> = FxHashMap::default();
        for segment in &trace.start().segments {
            let Some(stream) = self.stream_with(segment.stream) else { continue };
            let pool = self.start_pool(segment, observer);
            let list = self
                .list_of(pool, stream)
                .expect("a trace's start has no more pools and streams than can be numbered");
            let head = if segment.is_expandable {
                let tail = chains.get(&list).copied();
                let (head, tail) = self.start_range(segment, list, tail, reserved_chains);
                chains.insert(list, tail);
                head
            } else {
                self.start_segment(segment, list)
            };
            self.start_blocks(segment, head, &mut ids, observer);
        }
    }

    fn stream_with(&self, handle: StreamHandle) -> Option<StreamId> {
        self.stream_order.iter().copied().find(|id| self.streams[*id].handle == handle)
    }

    fn start_pool<O: Observer>(&mut self, segment: &SegmentLayout, observer: &mut O) -> PoolIdx {
        let (large, small) = if segment.pool.is_private() {
            let private = match self.private.get(segment.pool) {
                Some(private) => private,
                None => self
                    .make_pool(segment.pool, observer)
                    .expect("a trace's start has no more private pools than can be numbered"),
            };
            self.private.count_malloc(Some(private), 1);
            PrivatePools::halves(private)
        } else {
            (PoolIdx::DEFAULT_LARGE, PoolIdx::DEFAULT_SMALL)
        };
        if segment.is_small { small } else { large }
    }

    /// One block over a whole `cudaMalloc` segment.
    fn start_segment(&mut self, segment: &SegmentLayout, list: ListIdx) -> BlockId {
        let span = segment.span();
        self.device.adopt(span, false);
        self.reserved += span.size;
        let order = if self.rules.ties == TieBreak::Address { 0 } else { self.next_order() };
        let block = self.blocks.create(Block::whole(span, list.0));
        self.blocks.details_mut(block).order = order;
        block
    }

    /// One mapped block over a range of an expandable segment; and the unmapped block behind it,
    /// from which the segment's next range is cut.
    fn start_range(
        &mut self,
        segment: &SegmentLayout,
        list: ListIdx,
        tail: Option<BlockId>,
        chains: &[(StreamHandle, Span)],
    ) -> (BlockId, BlockId) {
        let span = segment.span();
        // The history may show that the segment begins below the lowest range that was mapped then.
        let chain = chains
            .iter()
            .find(|(handle, chain)| *handle == segment.stream && chain.contains(span.start));
        let base = chain.map_or(span.start, |(_, chain)| chain.start);
        let base_to_end = span.end() - base;
        self.device.adopt(span, true);
        self.reserved += span.size;
        let granule = if segment.is_small { SMALL_BUFFER } else { self.conf.large_segment_size };
        // A range that lies beyond the address space of the segment before it, or off its grid, begins
        // a new one.
        let tail = tail.filter(|tail| {
            let free = self.blocks[*tail].span();
            free.contains(span.start) && (span.start - free.start).0.is_multiple_of(granule.0)
        });
        let mut block = tail.unwrap_or_else(|| {
            let size = self.reserve_size().round_up(granule).min(Device::ADDRESS_SPACE);
            let size = size.max(base_to_end);
            let reserve = Span::new(base, size);
            let order = if self.rules.ties == TieBreak::Address { 0 } else { self.next_order() };
            self.device.keep_clear_of(reserve);
            self.add_expandable_segment(reserve, granule, list, order)
        });
        self.pools.erase_unmapped(&self.blocks, block);
        if self.blocks[block].addr < span.start {
            let gap = span.start - self.blocks[block].addr;
            let rest = self.blocks.split_back(block, gap);
            self.pools.insert_unmapped(&self.blocks, block);
            block = rest;
        }
        let mut tail = block;
        if self.blocks[block].size > span.size {
            tail = self.blocks.split_back(block, span.size);
            self.pools.insert_unmapped(&self.blocks, tail);
        }
        self.blocks[block].set_mapped(true);
        self.note_mapped(block);
        (block, tail)
    }

    /// Cuts a segment's one block into those of the layout.
    fn start_blocks<O: Observer>(
        &mut self,
        segment: &SegmentLayout,
        head: BlockId,
        ids: &mut impl Iterator<Item = AllocId>,
        observer: &mut O,
    ) {
        let place = self.place(head);
        let limit = self.conf.max_split_size;
        observer.start(&Segment {
            span: segment.span(),
            place,
            is_oversize: segment.size() >= limit,
        });
        let mut rest = head;
        let count = segment.blocks.len();
        for (i, (addr, layout)) in segment.blocks_at().enumerate() {
            let block = rest;
            if i + 1 < count {
                rest = self.blocks.split_back(block, layout.size);
            }
            self.blocks.details_mut(block).requested = layout.requested;
            match layout.state {
                BlockState::Inactive => self.pools.insert(&mut self.blocks, block),
                BlockState::ActiveAllocated => {
                    self.blocks[block].set_allocated(true);
                    self.allocated += layout.size;
                    if let Some(id) = ids.next() {
                        self.live[id] = Some(block);
                    }
                }
                BlockState::ActivePendingFree => {
                    self.blocks[block].set_used_elsewhere(true);
                    if let Some(id) = ids.next() {
                        self.recorded.add(id, block);
                    }
                }
            }
            observer.start_block(&StartBlock {
                span: Span::new(addr, layout.size),
                requested: layout.requested,
                place,
                state: layout.state,
                is_split: count > 1,
                is_oversize: layout.size >= limit,
            });
        }
    }
}
