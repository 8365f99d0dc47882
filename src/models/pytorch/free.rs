//! `free`: a block goes back to its pool, now or when other streams are done with it.

use super::PyTorch;
use crate::{
    base::{AllocId, BlockId, Bytes},
    sim::{FreeCompleted, FreeRequested, Observer},
    trace::FreeOp,
};

impl PyTorch {
    /// # Source
    /// `DeviceCachingAllocator::free`.
    #[inline(never)]
    pub(super) fn free_op<O: Observer>(&mut self, op: &FreeOp, observer: &mut O) {
        if !self.config.caching {
            return self.free_uncached(op.id);
        }
        let Some(block) = self.live_block(op.id) else { return };
        self.live[op.id] = None;
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
        let record = &self.blocks[block];
        let (span, prev, next) = (record.span(), record.prev, record.next);
        let merged = [self.try_merge_blocks(block, prev), self.try_merge_blocks(block, next)];
        self.pools.insert(&mut self.blocks, block);
        if O::WATCHES {
            let record = &self.blocks[block];
            observer.free_completed(&FreeCompleted {
                span,
                requested: self.blocks.details(block).requested,
                place: self.place(block),
                merged,
                free: record.span(),
                is_split: record.is_split(),
            });
        }
    }

    /// Joins `src` into `dst` if it is free and mapped alike; returns its size, or 0.
    ///
    /// # Source
    /// `DeviceCachingAllocator::try_merge_blocks`.
    #[inline(always)]
    pub(super) fn try_merge_blocks(&mut self, dst: BlockId, src: Option<BlockId>) -> Bytes {
        let Some(src) = src else { return Bytes::ZERO };
        let neighbour = &self.blocks[src];
        if !neighbour.is_free_like(&self.blocks[dst]) {
            return Bytes::ZERO;
        }
        let size = neighbour.size;
        if neighbour.is_mapped() {
            self.pools.erase(&mut self.blocks, src);
        } else {
            self.pools.erase_unmapped(&self.blocks, src);
        }
        self.forget_uses(src);
        self.blocks.coalesce(dst, src);
        size
    }
}
