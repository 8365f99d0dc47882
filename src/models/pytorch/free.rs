//! `free`: a block goes back to its pool, now or when other streams are done with it.

use super::{
    PyTorch,
    events::Events,
    pool::{FreeList, ListIdx},
};
use crate::{
    base::{AllocId, BlockId, Bytes},
    sim::{BlockView, FreeCompleted, FreeRequested, Observer, Place, Side},
    trace::FreeOp,
};

impl PyTorch {
    /// # Source
    /// `DeviceCachingAllocator::free`.
    #[inline(always)]
    pub(super) fn free_op<O: Observer>(&mut self, op: &FreeOp, observer: &mut O) {
        if !self.config.caching {
            return self.free_uncached(op.id);
        }
        let Some(block) = self.live.get_mut(op.id).and_then(Option::take) else { return };
        let record = &mut self.blocks[block];
        record.set_allocated(false);
        let span = record.span();
        let has_uses = record.is_used_elsewhere();
        self.allocated -= span.size;
        if O::WATCHES {
            observer.free_requested(&FreeRequested {
                span,
                requested: self.blocks.details(block).requested,
                place: self.place(block),
                is_oversize: span.size >= self.conf.max_split_size,
            });
        }
        if has_uses || op.pending {
            self.free_later(op, block);
        } else {
            self.free_block(block, observer);
        }
    }

    #[cold]
    fn free_uncached(&mut self, id: AllocId) {
        if let Some(addr) = self.uncached.remove(&id) {
            self.device.free(addr);
        }
    }

    /// Other streams are not done with the block.
    #[cold]
    fn free_later(&mut self, op: &FreeOp, block: BlockId) {
        if op.pending {
            self.blocks[block].set_used_elsewhere(true);
            self.recorded.add(op.id, block);
        } else if self.capture_guard() {
            self.defer(block);
        } else {
            self.insert_events(block);
        }
        self.is_plain = self.finds_plain();
    }

    /// # Source
    /// `DeviceCachingAllocator::free_block`.
    #[inline(always)]
    pub(super) fn free_block<O: Observer>(&mut self, block: BlockId, observer: &mut O) {
        let Self { blocks, pools, events, .. } = self;
        let mut blocks = blocks.view();
        let record = &blocks[block];
        let (span, prev, next) = (record.span(), record.prev, record.next);
        let (list, age) = pools.list_and_age(ListIdx(record.list));
        let below = merge(list, blocks.reborrow(), events, (block, prev), Side::Below);
        let above = merge(list, blocks.reborrow(), events, (block, next), Side::Above);
        if let Some(age) = age {
            blocks.details_mut(block).gc_count_base = age;
        }
        if O::WATCHES {
            let requested = blocks.details_mut(block).requested;
            let record = &blocks[block];
            observer.free_completed(&FreeCompleted {
                span,
                requested,
                place: Place { is_expandable: record.is_expandable(), ..list.place },
                merged: [below, above],
                free: record.span(),
                is_split: record.is_split(),
            });
        }
        // Comes last, and so leaves nothing that would have to be kept over a call.
        list.free.insert(block, blocks);
    }

    /// Joins `src`, the neighbour of `dst` on that side, into it if it is free and mapped alike.
    pub(super) fn try_merge_blocks(&mut self, dst: BlockId, src: Option<BlockId>, side: Side) {
        let list = self.pools.list_mut(ListIdx(self.blocks[dst].list));
        merge(list, self.blocks.view(), &mut self.events, (dst, src), side);
    }
}

/// Joins the second of two neighbours, which lies on that side of the first, into it if it is free and
/// mapped alike; returns its size, or 0. Neighbours share a segment, and so a list.
///
/// # Source
/// `DeviceCachingAllocator::try_merge_blocks`.
#[inline(always)]
fn merge(
    list: &mut FreeList,
    mut blocks: BlockView<'_>,
    events: &mut Events,
    (dst, src): (BlockId, Option<BlockId>),
    side: Side,
) -> Bytes {
    let Some(src) = src else { return Bytes::ZERO };
    let neighbour = blocks[src];
    if !neighbour.is_free_like(&blocks[dst]) {
        return Bytes::ZERO;
    }
    if neighbour.is_mapped() {
        let was_there = list.free.remove(src, blocks.reborrow());
        debug_assert!(was_there, "a free block is in its pool's list");
    } else {
        list.unmapped.remove(&neighbour.addr);
    }
    events.forget_uses(src);
    blocks.coalesce(dst, src, side);
    neighbour.size
}
