//! Memory goes back to the device: garbage collection, the rungs of the ladder, `empty_cache`.

use super::{
    AllocParams, PyTorch,
    pool::{ListIdx, PoolIdx},
    pools::PrivatePools,
    version::GuardedEmptyCache,
};
use crate::{
    base::{BlockId, Bytes, PoolId, StreamId},
    sim::{AllocError, Observer, Segment},
};

impl PyTorch {
    /// Gives back whole segments that were not used for long, until the limit's share is kept.
    ///
    /// # Source
    /// `DeviceCachingAllocator::garbage_collect_cached_blocks`.
    #[cold]
    pub(super) fn garbage_collect_cached_blocks<O: Observer>(
        &mut self,
        observer: &mut O,
    ) -> Result<(), AllocError> {
        let Some(allowed) = self.allowed_maximum else { return Ok(()) };
        let limit = allowed.scale(self.conf.garbage_collection_threshold);
        if self.reserved <= limit {
            return Ok(());
        }
        let target = self.reserved - limit;
        let pool = PoolIdx::DEFAULT_LARGE;
        let call_count = self.pools[pool].call_count;
        let age = |this: &Self, id: BlockId| {
            call_count.wrapping_sub(this.blocks.details(id).gc_count_base)
        };
        let candidates: Vec<BlockId> =
            self.free_in_order(pool).filter(|id| !self.blocks[*id].is_split()).collect();
        let mut total_age: u64 = candidates.iter().map(|id| u64::from(age(self, *id))).sum();
        let mut count = candidates.len() as u64;
        let mut left = candidates;
        let mut reclaimed = Bytes::ZERO;
        let mut is_freeing = true;
        while reclaimed < target && is_freeing && count > 0 {
            is_freeing = false;
            #[expect(clippy::cast_precision_loss, reason = "PyTorch's own arithmetic, in doubles")]
            let threshold = total_age as f64 / count as f64;
            let mut kept = Vec::new();
            for id in left {
                let is_expandable = self.blocks[id].is_expandable();
                let passes = f64::from(age(self, id)) >= threshold;
                if !passes || (is_expandable && !self.rules.asserts_on_expandable_release) {
                    kept.push(id);
                    continue;
                }
                is_freeing = true;
                reclaimed += self.blocks[id].size;
                total_age -= u64::from(age(self, id));
                count -= 1;
                self.release_block(id, observer)?;
            }
            left = kept;
        }
        Ok(())
    }

    /// The free blocks of a pool in the order of PyTorch's set: stream by stream.
    fn free_in_order(&self, pool: PoolIdx) -> impl Iterator<Item = BlockId> {
        let known = move |stream: &StreamId| self.pools.known_list(pool, *stream);
        let lists = self.stream_order.iter().filter_map(known);
        lists.flat_map(|list| self.pools[list].free.iter(&self.blocks))
    }

    /// With `max_split_size`: gives back one oversize block that is large enough, or several,
    /// largest first. Whether enough was given back to try again.
    ///
    /// # Source
    /// `DeviceCachingAllocator::release_available_cached_blocks`.
    pub(super) fn release_available_cached_blocks<O: Observer>(
        &mut self,
        params: &AllocParams,
        observer: &mut O,
    ) -> Result<bool, AllocError> {
        let oversize = self.conf.max_split_size;
        if oversize == Bytes::MAX {
            return Ok(false);
        }
        let wanted = params.size.max(oversize);
        let skips_expandable = !self.rules.asserts_on_expandable_release;
        let free = &self.pools[params.list].free;
        let found = free.lower_bound(wanted, &self.blocks).map(|found| found.id);
        if let Some(found) = found
            && !(skips_expandable && self.blocks[found].is_expandable())
        {
            self.release_block(found, observer)?;
            return Ok(true);
        }
        let mut released = Bytes::ZERO;
        let mut next = match found {
            Some(found) => free.before(found, &self.blocks),
            None => free.last(&self.blocks),
        };
        while released < wanted
            && let Some(id) = next
            && self.blocks[id].size >= oversize
        {
            next = self.pools[params.list].free.before(id, &self.blocks);
            if !(skips_expandable && self.blocks[id].is_expandable()) {
                released += self.blocks[id].size;
                self.release_block(id, observer)?;
            }
        }
        Ok(released >= wanted)
    }

    /// Gives all cached segments back: of the default pool and of all private pools without owners,
    /// or of one private pool.
    ///
    /// # Source
    /// `DeviceCachingAllocator::release_cached_blocks`, also behind `empty_cache`.
    pub(super) fn release_cached_blocks<O: Observer>(
        &mut self,
        pool: PoolId,
        observer: &mut O,
    ) -> Result<(), AllocError> {
        if !pool.is_private() {
            if let GuardedEmptyCache::Assertion(condition) = self.rules.guarded_empty_cache
                && self.capture_guard()
            {
                // The synchronisation is counted before it fails.
                observer.sync_all_streams();
                return Err(AllocError::Failed(format!("{condition} INTERNAL ASSERT FAILED")));
            }
            if !self.capture_guard() {
                self.synchronize_and_free_events(None, observer);
                self.release_blocks(PoolIdx::DEFAULT_LARGE, observer)?;
                self.release_blocks(PoolIdx::DEFAULT_SMALL, observer)?;
            }
        }
        let mut slot = 0;
        while let Some((at, id)) = self.private.freeable_from(slot) {
            slot = at + 1;
            if pool.is_private() {
                if id != pool {
                    continue;
                }
                self.synchronize_and_free_events(Some(pool), observer);
            }
            let Some(private) = self.private.get(id) else { continue };
            let (large, small) = PrivatePools::halves(private);
            self.release_blocks(small, observer)?;
            self.release_blocks(large, observer)?;
            if self.private.forget_if_empty(id) {
                slot = at;
            }
        }
        Ok(())
    }

    /// # Source
    /// `DeviceCachingAllocator::release_blocks`.
    fn release_blocks<O: Observer>(
        &mut self,
        pool: PoolIdx,
        observer: &mut O,
    ) -> Result<(), AllocError> {
        let free: Vec<BlockId> = self.free_in_order(pool).collect();
        let (to_unmap, cached): (Vec<BlockId>, Vec<BlockId>) =
            free.into_iter().partition(|id| self.blocks[*id].is_expandable());
        for id in cached {
            if !self.blocks[id].is_split() {
                self.release_block(id, observer)?;
            }
        }
        for id in to_unmap {
            self.unmap_block(id, observer);
            if !self.blocks[id].is_split() && !self.blocks[id].is_mapped() {
                self.release_expandable_segment(id);
            }
        }
        Ok(())
    }

    /// Whether `empty_cache` would give anything of the default pool back now, pending frees apart.
    pub fn has_releasable(&self) -> bool {
        let pools = [PoolIdx::DEFAULT_LARGE, PoolIdx::DEFAULT_SMALL];
        pools.into_iter().flat_map(|pool| self.free_in_order(pool)).any(|id| {
            if self.blocks[id].is_expandable() {
                self.unmappable(id).is_some()
            } else {
                !self.blocks[id].is_split()
            }
        })
    }

    /// `cudaFree` of a segment.
    ///
    /// # Source
    /// `DeviceCachingAllocator::release_block`.
    fn release_block<O: Observer>(
        &mut self,
        id: BlockId,
        observer: &mut O,
    ) -> Result<(), AllocError> {
        let record = &self.blocks[id];
        if record.is_expandable() {
            let text = "!block->expandable_segment_ INTERNAL ASSERT FAILED";
            return Err(AllocError::Failed(text.into()));
        }
        let (span, list) = (record.span(), ListIdx(record.list));
        let fact = Segment {
            span,
            place: self.place(id),
            is_oversize: span.size >= self.conf.max_split_size,
        };
        let is_part = record.is_split();
        if self.rules.records_before_cuda_free {
            observer.segment_release(&fact);
        }
        // A part of a segment can become oversize when `max_split_size` is lowered at run time.
        if !self.device.free(span.start) {
            let text = self.rules.cuda_error("invalid argument", "cudaErrorInvalidValue");
            return Err(AllocError::Failed(text));
        }
        if !self.rules.records_before_cuda_free {
            observer.segment_release(&fact);
        }
        observer.segment_free(&fact);
        self.is_damaged |= is_part;
        self.private.count_malloc(self.pools.pool_of(list).private, -1);
        self.reserved -= span.size;
        self.pools.erase(&mut self.blocks, id);
        self.events.forget_uses(id);
        self.blocks.detach(id);
        Ok(())
    }
}
