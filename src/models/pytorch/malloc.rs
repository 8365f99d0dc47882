//! `malloc`: the ladder, and its rungs that find, make and hand out a block.

use std::ops::Index;

use super::{
    AllocParams, MAX_REQUEST, PyTorch,
    conf::AllocConf,
    pool::{FreeList, ListIdx},
    rounding::{MIN_BLOCK_SIZE, SMALL_SIZE, get_allocation_size, round_size},
    version::{MempoolFallback, TieBreak},
    why::refuses_size,
};
use crate::{
    base::{Addr, AllocId, BlockId, Bytes, PoolId, Span, Table},
    sim::{
        AllocError, Allocated, Block, BlockView, Failed, Found, FreeBlocks, FreeIndex, Observer,
        Place, Segment,
    },
    trace::{AllocOp, Oom, OomHint},
};

impl PyTorch {
    /// The first rung of the ladder where nothing unusual is under way, which is nearly always; else
    /// [`PyTorch::malloc_in_full`].
    #[inline(always)]
    pub(super) fn malloc_op<O: Observer>(
        &mut self,
        op: &AllocOp,
        observer: &mut O,
    ) -> Result<Option<Addr>, AllocError> {
        debug_assert!(!self.is_plain || self.finds_plain());
        let is_usual = op.size > Bytes::ZERO && op.size < MAX_REQUEST && op.pool.is_none();
        if is_usual
            && self.is_plain
            && let Some(addr) = self.malloc_from_list(op, observer)
        {
            return Ok(Some(addr));
        }
        self.malloc_in_full(op, observer)
    }

    /// A request that the free list serves; `None` if it has nothing for it.
    #[inline(always)]
    fn malloc_from_list<O: Observer>(&mut self, op: &AllocOp, observer: &mut O) -> Option<Addr> {
        let size = if self.rounds_to_512 {
            op.size.round_up(MIN_BLOCK_SIZE)
        } else {
            self.round_size(op.size)
        };
        let list = self.pools.known_default_list(size <= SMALL_SIZE, op.stream)?;
        let params = self.params(op, size, list);
        if self.live.get(op.id).is_none() {
            self.expect_allocs(op.id.0 + 1);
        }
        self.current_stream = op.stream;
        let (mut hand, live) = self.hand(list);
        let found = find_free_block(hand.list, &hand.blocks, hand.conf, &params)?;
        let was_there = hand.list.free.remove_found(found, hand.blocks.reborrow());
        debug_assert!(was_there, "what was found is there");
        let (block, is_part) = hand.out(&params, found.id, observer);
        if let Some(live) = live.get_mut(op.id) {
            *live = Some(block);
        }
        let addr = hand.blocks[block].addr;
        // Comes last, and so leaves nothing that would have to be kept over a call.
        if is_part {
            hand.list.free.insert(found.id, hand.blocks);
        }
        Some(addr)
    }

    /// The whole of `malloc`.
    #[cold]
    #[inline(never)]
    fn malloc_in_full<O: Observer>(
        &mut self,
        op: &AllocOp,
        observer: &mut O,
    ) -> Result<Option<Addr>, AllocError> {
        self.current_stream = op.stream;
        if op.size == Bytes::ZERO {
            return Ok(None);
        }
        if op.size >= MAX_REQUEST {
            let text = "CUDA out of memory. Tried to allocate more than 1EB memory.";
            return Err(AllocError::Refused(text.into()));
        }
        if !self.config.caching {
            return self.malloc_uncached(op).map(Some);
        }
        let block = self.malloc_block(op, observer);
        self.is_plain = self.finds_plain();
        let block = block?;
        self.note_live(op.id, block);
        Ok(Some(self.blocks[block].addr))
    }

    fn note_live(&mut self, id: AllocId, block: BlockId) {
        if self.live.get(id).is_none() {
            self.expect_allocs(id.0 + 1);
        }
        self.live[id] = Some(block);
    }

    pub(super) fn round_size(&self, size: Bytes) -> Bytes {
        round_size(size, &self.conf.roundup_power2_divisions, self.rules.division_one)
    }

    fn malloc_uncached(&mut self, op: &AllocOp) -> Result<Addr, AllocError> {
        let addr = self.device.malloc(op.size).ok_or_else(|| {
            let text = self.rules.cuda_error("out of memory", "cudaErrorMemoryAllocation");
            AllocError::Failed(text)
        })?;
        self.uncached.insert(op.id, addr);
        Ok(addr)
    }

    /// The ladder, top to bottom.
    ///
    /// # Source
    /// `DeviceCachingAllocator::malloc`.
    fn malloc_block<O: Observer>(
        &mut self,
        op: &AllocOp,
        observer: &mut O,
    ) -> Result<BlockId, AllocError> {
        if !self.capture_guard() {
            self.process_events(observer);
        } else if self.conf.graph_capture_record_stream_reuse {
            self.free_safe_blocks_in_capture(op.stream)?;
        }
        let size = self.round_size(op.size);
        let pool = match op.pool {
            Some(pool) => self.private_pool_for(self.pool_ids[pool], size, observer)?,
            None => self.get_pool(size, op.stream),
        };
        let list = self.list_of(pool, op.stream)?;
        let params = self.params(op, size, list);
        if let Some(block) = self.get_free_block(&params) {
            return Ok(self.alloc_found_block(&params, block, observer));
        }
        match self.find_memory(&params, observer)? {
            Some((params, block)) => Ok(self.alloc_found_block(&params, block, observer)),
            None => Err(self.out_of_memory(&params, observer)),
        }
    }

    /// The rungs below the free list. A block that the fallback found comes with its own parameters.
    #[cold]
    fn find_memory<O: Observer>(
        &mut self,
        params: &AllocParams,
        observer: &mut O,
    ) -> Result<Option<(AllocParams, BlockId)>, AllocError> {
        if self.collects_garbage() {
            self.garbage_collect_cached_blocks(observer)?;
        }
        if let Some(block) = self.alloc_block(params, observer)? {
            return Ok(Some((*params, block)));
        }
        if self.rules.mempool_fallback == MempoolFallback::Early
            && let Some(found) = self.try_mempool_fallback(params, observer)?
        {
            return Ok(Some(found));
        }
        if self.release_available_cached_blocks(params, observer)?
            && let Some(block) = self.alloc_block(params, observer)?
        {
            return Ok(Some((*params, block)));
        }
        if !self.capture_guard() && !self.assumes_capture {
            self.release_cached_blocks(PoolId::DEFAULT, observer)?;
            observer.alloc_retry();
            if let Some(block) = self.alloc_block(params, observer)? {
                return Ok(Some((*params, block)));
            }
        }
        if self.rules.mempool_fallback == MempoolFallback::LastResort {
            return self.try_mempool_fallback(params, observer);
        }
        Ok(None)
    }

    /// Whether a free block would serve this request now.
    pub fn is_cached(&self, op: &AllocOp) -> bool {
        let size = self.round_size(op.size);
        let pool = match op.pool {
            Some(pool) => self.known_private_pool(self.pool_ids[pool], size),
            None => Some(self.get_pool(size, op.stream)),
        };
        let list = pool.and_then(|pool| self.pools.known_list(pool, op.stream));
        list.is_some_and(|list| self.find_free_block(&self.params(op, size, list)).is_some())
    }

    /// Size of the segment that a request would need.
    fn alloc_size(&self, params: &AllocParams) -> Bytes {
        get_allocation_size(params.size, self.conf.large_segment_size)
    }

    #[inline]
    pub(super) fn params(&self, op: &AllocOp, size: Bytes, list: ListIdx) -> AllocParams {
        AllocParams {
            requested: op.size,
            size,
            stream: op.stream,
            list,
            is_expandable: self.conf.expandable_segments,
        }
    }

    /// Best fit in the pool's order; only the one candidate is looked at.
    ///
    /// # Source
    /// `DeviceCachingAllocator::get_free_block`.
    #[inline]
    pub(super) fn get_free_block(&mut self, params: &AllocParams) -> Option<BlockId> {
        if self.collects_garbage() {
            self.pools.count_call(params.list);
        }
        let found = self.find_free_block(params)?;
        self.pools.erase_found(&mut self.blocks, params.list, found);
        Some(found.id)
    }

    /// The search of [`PyTorch::get_free_block`], which takes what it finds.
    pub(super) fn find_free_block(&self, params: &AllocParams) -> Option<Found> {
        find_free_block(&self.pools[params.list], &self.blocks, &self.conf, params)
    }

    /// A new block from the device, if the limit and the device allow it.
    ///
    /// # Source
    /// `DeviceCachingAllocator::alloc_block`.
    pub(super) fn alloc_block<O: Observer>(
        &mut self,
        params: &AllocParams,
        observer: &mut O,
    ) -> Result<Option<BlockId>, AllocError> {
        let size = self.alloc_size(params);
        let exceeds =
            |limit: Bytes| self.reserved.checked_add(size).is_none_or(|total| total > limit);
        if self.allowed_maximum.is_some_and(exceeds) {
            return Ok(None);
        }
        if self.conf.throw_on_cudamalloc_oom {
            let limit = self.device.total().scale(self.conf.per_process_memory_fraction);
            if exceeds(limit) {
                observer.oom_rejection();
                return Err(AllocError::Refused(format!(
                    "CUDA out of memory. Allocation was preemptively rejected because it would exceed per_process_memory_fraction limit. Requested size: {}",
                    params.requested
                )));
            }
        }
        let private = self.pools.pool_of(params.list).private;
        let is_expandable = self.conf.expandable_segments
            && (private.is_none() || self.rules.expandable_private_pools);
        if is_expandable {
            let block = self.try_allocate_expandable_block(params, observer);
            if block.is_some() {
                self.private.count_malloc(private, 1);
            }
            return Ok(block);
        }
        let Some(addr) = self.device.malloc(size) else { return Ok(None) };
        self.private.count_malloc(private, 1);
        self.reserved += size;
        let order = if self.rules.ties == TieBreak::Address { 0 } else { self.next_order() };
        let span = Span::new(addr, size);
        let block = self.blocks.create(Block::whole(span, params.list.0));
        self.blocks.details_mut(block).order = order;
        observer.segment_alloc(&Segment {
            span,
            place: self.place(block),
            is_oversize: size >= self.conf.max_split_size,
        });
        Ok(Some(block))
    }

    /// Hands the block out, or its low end.
    ///
    /// # Source
    /// `DeviceCachingAllocator::alloc_found_block`.
    fn alloc_found_block<O: Observer>(
        &mut self,
        params: &AllocParams,
        found: BlockId,
        observer: &mut O,
    ) -> BlockId {
        let (mut hand, _) = self.hand(params.list);
        let (block, is_part) = hand.out(params, found, observer);
        if is_part {
            self.pools.insert(&mut self.blocks, found);
        }
        block
    }

    /// What handing out a block of this list changes, and the table of live blocks.
    #[inline(always)]
    fn hand(&mut self, list: ListIdx) -> (Hand<'_>, &mut Table<AllocId, Option<BlockId>>) {
        self.blocks.keep_spare();
        let hand = Hand {
            list: self.pools.list_mut(list),
            blocks: self.blocks.view(),
            conf: &self.conf,
            allocated: &mut self.allocated,
            last_order: &mut self.last_order,
            has_ages: self.rules.ties == TieBreak::BlockAge,
        };
        (hand, &mut self.live)
    }

    /// The last rung.
    #[cold]
    fn out_of_memory<O: Observer>(&mut self, params: &AllocParams, observer: &mut O) -> AllocError {
        let place = self.pools[params.list].place;
        let device_free = self.device.free_bytes();
        observer.oom(&Failed { size: params.size, device_free, place });
        let hint = if !self.conf.expandable_segments {
            OomHint::Usual
        } else if let Some(reserve) = self.exceeded_reserve(params) {
            OomHint::BeyondReserve(reserve)
        } else {
            OomHint::Expandable
        };
        AllocError::Oom(Box::new(Oom {
            release: self.rules.release,
            device: self.device.config().index,
            requested: self.alloc_size(params),
            total: self.device.total(),
            free: device_free,
            processes: self.device.processes(),
            allowed: self.allowed_maximum,
            allocated: self.allocated,
            private_pools: self.private_free_bytes(),
            reserved: self.reserved,
            hint,
        }))
    }

    /// Free bytes in the lists of all private pools.
    fn private_free_bytes(&self) -> Bytes {
        let lists = self.pools.lists().iter().filter(|list| list.place.pool.is_private());
        lists.flat_map(|list| list.free.iter(&self.blocks)).map(|id| self.blocks[id].size).sum()
    }

    /// The largest free block, and no less than the free memory of the device: `cacheInfo`.
    pub fn largest_available(&self) -> Bytes {
        let last = self.pools.lists().iter().filter_map(|list| list.free.last(&self.blocks));
        last.map(|id| self.blocks[id].size)
            .max()
            .unwrap_or(Bytes::ZERO)
            .max(self.device.free_bytes())
    }
}

/// What handing out a block changes, apart: an optimiser then knows that none of it is another's part.
struct Hand<'a> {
    list: &'a mut FreeList,
    blocks: BlockView<'a>,
    conf: &'a AllocConf,
    allocated: &'a mut Bytes,
    last_order: &'a mut u32,
    /// Whether each new block gets a number of the creation counter.
    has_ages: bool,
}

impl Hand<'_> {
    /// The block that is handed out, and whether it is part of the one that was found, whose rest is
    /// then for the caller to put into the list.
    #[inline(always)]
    fn out<O: Observer>(
        &mut self,
        params: &AllocParams,
        found: BlockId,
        observer: &mut O,
    ) -> (BlockId, bool) {
        let whole = self.blocks[found];
        let is_part = self.should_split(params, whole.size);
        let block = if is_part {
            let front = self.blocks.split_front(found, params.size);
            if self.has_ages {
                *self.last_order += 1;
                self.blocks.details_mut(front).order = *self.last_order;
            }
            front
        } else {
            found
        };
        self.blocks.details_mut(block).requested = params.requested;
        self.blocks[block].set_allocated(true);
        let size = if is_part { params.size } else { whole.size };
        *self.allocated += size;
        if O::WATCHES {
            let place = Place { is_expandable: whole.is_expandable(), ..self.list.place };
            observer.alloc(&Allocated {
                span: Span::new(whole.addr, size),
                requested: params.requested,
                place,
                was_split: whole.is_split(),
                remainder: is_part.then(|| whole.size - params.size),
                is_oversize: size >= self.conf.max_split_size,
            });
        }
        (block, is_part)
    }

    /// Whether what the request leaves of the block is worth keeping.
    ///
    /// # Source
    /// `DeviceCachingAllocator::should_split`.
    #[inline(always)]
    fn should_split(&self, params: &AllocParams, size: Bytes) -> bool {
        if self.list.is_no_split {
            return false;
        }
        let remaining = size - params.size;
        if self.list.place.is_small || params.is_expandable {
            remaining >= MIN_BLOCK_SIZE
        } else {
            params.size < self.conf.max_split_size && remaining > SMALL_SIZE
        }
    }
}

/// Best fit in the list's order; only the one candidate is looked at.
#[inline(always)]
fn find_free_block<B>(
    list: &FreeList,
    blocks: &B,
    conf: &AllocConf,
    params: &AllocParams,
) -> Option<Found>
where
    B: FreeBlocks + Index<BlockId, Output = Block>,
{
    let mut found = list.free.lower_bound(params.size, blocks)?;
    let block = &blocks[found.id];
    let mut size = block.size;
    if block.is_expandable() {
        found = choose_expandable(&list.free, blocks, params.is_expandable, found)?;
        size = blocks[found.id].size;
    }
    refuses_size(conf, params.size, size).is_none().then_some(found)
}

/// The search goes on from an expandable block.
#[inline(always)]
fn choose_expandable<B>(
    free: &FreeIndex,
    blocks: &B,
    is_expandable: bool,
    mut found: Found,
) -> Option<Found>
where
    B: FreeBlocks + Index<BlockId, Output = Block>,
{
    if is_expandable {
        // Prefer the block that has the least room to grow into.
        let growth = |id: BlockId| {
            let next = blocks[id].next.map(|next| &blocks[next]);
            next.filter(|next| !next.is_mapped()).map_or(Bytes::ZERO, |next| next.size)
        };
        let room = |id: BlockId| blocks[id].size + growth(id);
        // One that cannot grow has the least: all behind it are as large or larger.
        while blocks[found.id].is_expandable()
            && growth(found.id) > Bytes::ZERO
            && let Some(next) = free.after(found.id, blocks)
            && room(next.id) < room(found.id)
        {
            found = next;
        }
    } else {
        while blocks[found.id].is_expandable() {
            found = free.after(found.id, blocks)?;
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use crate::{
        base::{Bytes, DeviceIndex, Release},
        models::pytorch::{PyTorch, PyTorchConfig, conf::AllocConf},
        sim::{Device, DeviceConfig, OnOom, replay},
        trace::script,
    };

    /// How many of three requests fail on a device of 1 GiB.
    fn failures(conf: &str) -> u32 {
        let trace = script::parse("a = alloc 512; b = alloc 4MiB; c = alloc 30MiB").unwrap();
        let release = Release::NEWEST;
        let conf = AllocConf::from_string(release, conf).unwrap().0;
        let device = Device::new(DeviceConfig::new(DeviceIndex(0), Bytes::gib(1)));
        let config = PyTorchConfig { conf, ..PyTorchConfig::new(release) };
        let mut model = PyTorch::new(config, device, trace.streams(), trace.pools());
        replay(&trace, &mut model, &mut (), OnOom::Skip, None).failures
    }

    #[test]
    fn settings_beyond_every_device_fail_requests_and_nothing_else() {
        let largest = "large_segment_size_mb:17592186044415";
        assert_eq!(failures(largest), 1);
        assert_eq!(failures(&format!("{largest},expandable_segments:True")), 2);
        assert_eq!(failures(&format!("{largest},per_process_memory_fraction:0.5")), 1);
        assert_eq!(failures("max_split_size_mb:20,max_non_split_rounding_mb:17592186044415"), 0);
    }
}
