//! `free`: a block goes back to its pool, now or when other streams are done with it.

use super::{PyTorch, pool::PoolIdx};
use crate::{
    base::{BlockId, Bytes, Id},
    sim::{FreeCompleted, FreeRequested, Observer},
    trace::FreeOp,
};

impl PyTorch {
    /// # Source
    /// `DeviceCachingAllocator::free`.
    #[inline]
    pub(super) fn free_op<O: Observer>(&mut self, op: &FreeOp, observer: &mut O) {
        if !self.config.caching {
            if let Some(addr) = self.uncached.remove(&op.id) {
                self.device.free(addr);
            }
            return;
        }
        let Some(block) = self.live_block(op.id) else { return };
        self.live[op.id] = None;
        let record = &mut self.blocks[block];
        record.allocated = false;
        let (span, requested) = (record.span(), record.requested);
        let has_uses = record.in_use_elsewhere;
        if op.pending {
            record.in_use_elsewhere = true;
        }
        self.allocated -= span.size;
        observer.free_requested(&FreeRequested {
            span,
            requested,
            place: self.place(block),
            is_oversize: span.size >= self.conf.max_split_size,
        });
        if op.pending {
            self.recorded.add(op.id, block);
        } else if !has_uses {
            self.free_block(block, observer);
        } else if self.capture_guard() {
            self.defer(block);
        } else {
            self.insert_events(block);
        }
    }

    /// # Source
    /// `DeviceCachingAllocator::free_block`.
    #[inline]
    pub(super) fn free_block<O: Observer>(&mut self, block: BlockId, observer: &mut O) {
        let record = &self.blocks[block];
        let (span, requested) = (record.span(), record.requested);
        let (prev, next, pool) = (record.prev, record.next, PoolIdx(record.pool));
        let merged = [self.try_merge_blocks(block, prev), self.try_merge_blocks(block, next)];
        self.pools[pool.index()].insert(&mut self.blocks, block);
        let record = &self.blocks[block];
        observer.free_completed(&FreeCompleted {
            span,
            requested,
            place: self.place(block),
            merged,
            free: record.span(),
            is_split: record.is_split(),
        });
    }

    /// Joins `src` into `dst` if it is free and mapped alike; returns its size, or 0.
    ///
    /// # Source
    /// `DeviceCachingAllocator::try_merge_blocks`.
    #[inline]
    pub(super) fn try_merge_blocks(&mut self, dst: BlockId, src: Option<BlockId>) -> Bytes {
        let Some(src) = src else { return Bytes::ZERO };
        let neighbour = &self.blocks[src];
        if !neighbour.is_free() || neighbour.mapped != self.blocks[dst].mapped {
            return Bytes::ZERO;
        }
        let size = neighbour.size;
        let pool = &mut self.pools[usize::from(neighbour.pool)];
        if neighbour.mapped {
            pool.erase(&self.blocks, src);
        } else {
            pool.erase_unmapped(&self.blocks, src);
        }
        self.forget_uses(src);
        self.blocks.coalesce(dst, src);
        size
    }
}
