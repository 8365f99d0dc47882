//! Expandable segments: address space reserved once, memory mapped and unmapped in granules.

use super::{AllocParams, PyTorch, pool::ListIdx, rounding::SMALL_BUFFER, version::TieBreak};
use crate::{
    base::{Addr, BlockId, Bytes, ExpandableId, Span},
    sim::{Block, Device, Observer, Segment, Side},
};

/// Reserved address space of one stream in one pool.
#[derive(Clone, Debug)]
pub(super) struct ExpandableSegment {
    span: Span,
    /// Memory comes and goes in multiples of this, counted from the start.
    granule: Bytes,
    /// Where the memory that was ever mapped ends; the start, if none was.
    mapped_end: Addr,
    list: ListIdx,
    is_live: bool,
}

impl ExpandableSegment {
    pub(super) fn covers(&self, addr: Addr) -> bool {
        self.is_live && self.span.contains(addr)
    }

    pub(super) fn granule(&self) -> Bytes {
        self.granule
    }

    /// The granules that `span` touches, cut off at the segment's end.
    fn outer(&self, span: Span) -> Span {
        let end = (span.end() - self.span.start).round_up(self.granule);
        Span::new(span.start, end - (span.start - self.span.start))
    }

    /// The granules that lie wholly inside `span`; `None` if there are none.
    fn inner(&self, span: Span) -> Option<Span> {
        let first = (span.start - self.span.start).round_up(self.granule);
        let end = span.end() - self.span.start;
        let last = Bytes(end.0 / self.granule.0 * self.granule.0);
        (first < last).then(|| Span::new(self.span.start + first, last - first))
    }
}

impl PyTorch {
    /// A block of at least the rounded size, by mapping what is missing.
    ///
    /// # Source
    /// `DeviceCachingAllocator::try_allocate_expandable_block`.
    pub(super) fn try_allocate_expandable_block<O: Observer>(
        &mut self,
        params: &AllocParams,
        observer: &mut O,
    ) -> Option<BlockId> {
        if let Some(next) = self.device.next_recorded_map() {
            self.settle_reserve(params, next);
        }
        let mut candidate = self.find_expandable_block(params)?;
        let record = &self.blocks[candidate];
        if !record.is_mapped() && !self.map_block(candidate, record.size.min(params.size), observer)
        {
            return None;
        }
        while self.blocks[candidate].size < params.size {
            let missing = params.size - self.blocks[candidate].size;
            let next = self.blocks[candidate].next?;
            if !self.map_block(next, missing.min(self.blocks[next].size), observer) {
                return None;
            }
            // The mapped range took the free block before it in.
            candidate = next;
        }
        self.pools.erase(&mut self.blocks, candidate);
        Some(candidate)
    }

    /// The lowest place with room for the request, counting free blocks and unmapped ranges; a new
    /// segment if there is none.
    ///
    /// # Source
    /// `DeviceCachingAllocator::find_expandable_block`.
    fn find_expandable_block(&mut self, params: &AllocParams) -> Option<BlockId> {
        let unmapped = &self.pools[params.list].unmapped;
        for &range in unmapped.values() {
            let prev = self.blocks[range].prev.filter(|prev| self.blocks[*prev].is_free());
            let first = prev.unwrap_or(range);
            let mut room = Bytes::ZERO;
            for id in self.blocks.chain(first) {
                if room >= params.size || !self.blocks[id].is_free() {
                    break;
                }
                room += self.blocks[id].size;
            }
            if room >= params.size {
                return Some(first);
            }
        }
        self.new_expandable_segment(params)
    }

    /// Whether a living segment has memory at `addr`, or ends there and can grow over it.
    fn is_in_known_segment(&self, addr: Addr) -> bool {
        let covers = |segment: &ExpandableSegment| {
            segment.is_live && segment.span.start <= addr && addr <= segment.mapped_end
        };
        self.expandable.iter().any(covers)
    }

    /// A recording maps memory where no segment is known: there lies one that was reserved when
    /// nothing could be mapped, or a new one.
    fn settle_reserve(&mut self, params: &AllocParams, next: Span) {
        if self.is_in_known_segment(next.start) {
            return;
        }
        let waits = |segment: &ExpandableSegment| {
            segment.is_live && Device::is_unknown(segment.span.start) && segment.list == params.list
        };
        let Some(at) = self.expandable.iter().position(waits) else { return };
        let segment = &mut self.expandable[ExpandableId::from_index(at)];
        let from = segment.span.start;
        segment.span.start = next.start;
        segment.mapped_end = next.start;
        let unmapped = &mut self.pools[params.list].unmapped;
        if let Some(block) = unmapped.remove(&from) {
            unmapped.insert(next.start, block);
            self.blocks[block].addr = next.start;
        }
    }

    fn new_expandable_segment(&mut self, params: &AllocParams) -> Option<BlockId> {
        let is_small = self.pools[params.list].place.is_small;
        let granule = if is_small { SMALL_BUFFER } else { self.conf.large_segment_size };
        let size = self.reserve_size().round_up(granule);
        // Deviates: PyTorch passes the driver's error on; no device could serve it either.
        if granule > Device::ADDRESS_SPACE {
            return None;
        }
        let mut span = Span::new(self.device.reserve(size), size);
        if let Some(next) = self.device.next_recorded_map()
            && !self.is_in_known_segment(next.start)
        {
            span.start = next.start;
        }
        let order = if self.rules.ties == TieBreak::Address { 0 } else { self.next_order() };
        if self.rules.undoes_small_segments && size < params.size {
            self.device.release_reserve(span);
            return None;
        }
        Some(self.add_expandable_segment(span, granule, params.list, order))
    }

    /// Registers address space as one unmapped block.
    pub(super) fn add_expandable_segment(
        &mut self,
        span: Span,
        granule: Bytes,
        list: ListIdx,
        order: u32,
    ) -> BlockId {
        let segment = ExpandableId::from_index(self.expandable.len());
        self.expandable.push(ExpandableSegment {
            span,
            granule,
            mapped_end: span.start,
            list,
            is_live: true,
        });
        let block = self.blocks.create(Block::whole(span, list.0));
        self.blocks.make_expandable(block, segment);
        self.blocks.details_mut(block).order = order;
        self.pools.insert_unmapped(&self.blocks, block);
        block
    }

    /// The memory under this block was mapped.
    pub(super) fn note_mapped(&mut self, id: BlockId) {
        let end = self.blocks[id].span().end();
        if let Some(segment) = self.blocks.expandable(id) {
            let reached = &mut self.expandable[segment].mapped_end;
            *reached = (*reached).max(end);
        }
    }

    /// Address space of a new segment: 9/8 of the device, or the configured reserve (2.15).
    pub(super) fn reserve_size(&self) -> Bytes {
        // No device has more than there is address space for.
        let total = self.device.total().min(Device::ADDRESS_SPACE);
        let whole = total + Bytes(total.0 / 8);
        self.configured_reserve().map_or(whole, |reserve| reserve.min(whole))
    }

    /// Maps at least the first `size` bytes of an unmapped block, in whole granules. Nothing changes
    /// if the device refuses.
    ///
    /// # Source
    /// `DeviceCachingAllocator::map_block`.
    fn map_block<O: Observer>(&mut self, id: BlockId, size: Bytes, observer: &mut O) -> bool {
        let record = &self.blocks[id];
        let Some(segment) = self.blocks.expandable(id) else { return false };
        let mapped = self.expandable[segment].outer(Span::new(record.addr, size));
        if !self.device.map(mapped) {
            return false;
        }
        let reached = &mut self.expandable[segment].mapped_end;
        *reached = (*reached).max(mapped.end());
        self.pools.erase_unmapped(&self.blocks, id);
        self.blocks[id].set_mapped(true);
        if mapped.size < self.blocks[id].size {
            let rest = self.blocks.split_back(id, mapped.size);
            self.blocks[rest].set_mapped(false);
            if self.rules.ties == TieBreak::BlockAge {
                self.blocks.details_mut(rest).order = self.next_order();
            }
            self.pools.insert_unmapped(&self.blocks, rest);
        }
        let (prev, next) = (self.blocks[id].prev, self.blocks[id].next);
        self.try_merge_blocks(id, prev, Side::Below);
        self.try_merge_blocks(id, next, Side::Above);
        self.pools.insert(&mut self.blocks, id);
        self.reserved += mapped.size;
        observer.segment_map(&Segment { span: mapped, place: self.place(id), is_oversize: false });
        true
    }

    /// Unmaps the granules that lie wholly inside a free block.
    ///
    /// # Source
    /// `DeviceCachingAllocator::unmap_block`.
    pub(super) fn unmap_block<O: Observer>(&mut self, id: BlockId, observer: &mut O) {
        let record = &self.blocks[id];
        let Some(segment) = self.blocks.expandable(id) else { return };
        let (whole, list) = (record.span(), ListIdx(record.list));
        let Some(unmapped) = self.expandable[segment].inner(whole) else { return };
        self.device.unmap(unmapped);
        self.stream_synchronized(self.pools[list].stream);
        let place = self.place(id);
        self.pools.erase(&mut self.blocks, id);
        let requested = self.blocks.details(id).requested;
        if whole.start < unmapped.start {
            let head = self.blocks.split_front(id, unmapped.start - whole.start);
            self.blocks.details_mut(head).requested = Bytes::ZERO;
            self.renumber_and_free(head);
        }
        if unmapped.end() < whole.end() {
            let tail = self.blocks.split_back(id, unmapped.size);
            self.renumber_and_free(tail);
        }
        self.blocks.details_mut(id).requested = requested;
        let record = &mut self.blocks[id];
        record.set_mapped(false);
        let (prev, next) = (record.prev, record.next);
        self.try_merge_blocks(id, prev, Side::Below);
        self.try_merge_blocks(id, next, Side::Above);
        self.pools.insert_unmapped(&self.blocks, id);
        self.reserved -= unmapped.size;
        self.private.count_malloc(self.pools.pool_of(list).private, -1);
        observer.segment_unmap(&Segment { span: unmapped, place, is_oversize: false });
    }

    /// The part of a free block that could be unmapped: its whole granules.
    pub(super) fn unmappable(&self, id: BlockId) -> Option<Span> {
        let record = &self.blocks[id];
        self.expandable[self.blocks.expandable(id)?].inner(record.span())
    }

    /// A part of an unmapped block that stays mapped.
    fn renumber_and_free(&mut self, part: BlockId) {
        if self.rules.ties == TieBreak::BlockAge {
            self.blocks.details_mut(part).order = self.next_order();
        }
        self.pools.insert(&mut self.blocks, part);
    }

    /// `release_expandable_segment`: the whole range is one unmapped block; the address space goes
    /// back.
    pub(super) fn release_expandable_segment(&mut self, id: BlockId) {
        let span = self.blocks[id].span();
        self.pools.erase_unmapped(&self.blocks, id);
        self.device.release_reserve(span);
        if let Some(segment) = self.blocks.expandable(id) {
            self.expandable[segment].is_live = false;
        }
        self.blocks.detach(id);
    }

    /// Address space reserved by each living segment: `getExpandableSegmentSizes`.
    pub fn expandable_segments(&self) -> impl Iterator<Item = (Addr, Bytes)> {
        let living = self.expandable.iter().filter(|segment| segment.is_live);
        living.map(|segment| (segment.span.start, segment.span.size))
    }
}
