//! Private pools: who owns them, which requests they serve, and when they fall back.

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    AllocParams, PyTorch,
    pool::{ListIdx, PoolIdx},
    rounding::SMALL_SIZE,
    version::{CaptureGuard, Routing},
};
use crate::{
    base::{BlockId, Bytes, Id, PoolId, StreamId, Table},
    sim::{AllocError, FlatHash, FlatKey, Observer},
    trace::MAX_PRIVATE_POOLS,
};

/// A private pool that was ever made; its slot is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PrivateIdx(pub u16);

impl Id for PrivateIdx {
    fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// `PrivatePool`. Its large half is `pools[2 + 2 i]`, its small half the one after.
#[derive(Clone, Debug)]
pub(super) struct PrivatePool {
    pub id: PoolId,
    /// Owners: captures, graphs, `MemPool` objects.
    pub use_count: i64,
    /// `cudaMalloc_count`: segments, or successful mappings less unmappings.
    pub malloc_count: i64,
}

impl FlatKey for PoolId {
    /// `MempoolIdHash`.
    fn hash(self) -> u64 {
        if self.0 != 0 { self.0 } else { self.1 }
    }
}

/// All private pools of an allocator, and the routing of requests to them.
#[derive(Clone, Debug, Default)]
pub(super) struct PrivatePools {
    all: Table<PrivateIdx, PrivatePool>,
    /// `graph_pools`.
    by_id: FxHashMap<PoolId, PrivateIdx>,
    /// `graph_pools_freeable`.
    freeable: FlatHash<PoolId, PrivateIdx>,
    /// `captures_underway`: pools and the stream that each serves (`None`: every stream), in the
    /// order in which they were begun.
    begun: Vec<(PoolId, Option<StreamId>)>,
    /// `use_on_oom_pools`.
    use_on_oom: FlatHash<PoolId, ()>,
    no_split: FxHashSet<PoolId>,
    /// Captures under way, as `markCaptureBegin` counts them.
    real_captures: u32,
}

impl PrivatePools {
    pub(super) fn id_of(&self, private: Option<PrivateIdx>) -> PoolId {
        private.map_or(PoolId::DEFAULT, |private| self.all[private].id)
    }

    pub(super) fn count_malloc(&mut self, private: Option<PrivateIdx>, change: i64) {
        if let Some(private) = private {
            self.all[private].malloc_count += change;
        }
    }

    pub(super) fn any_begun(&self) -> bool {
        !self.begun.is_empty()
    }

    pub(super) fn any_begun_or_captured(&self) -> bool {
        self.any_begun() || self.real_captures > 0
    }

    /// Whether a release gives the pool's memory back: nobody owns it any more.
    pub(super) fn is_freeable(&self, id: PoolId) -> bool {
        self.freeable.contains(id)
    }

    /// The pools that may serve what the default pool cannot.
    pub(super) fn fallbacks(&self) -> impl Iterator<Item = PrivateIdx> {
        self.use_on_oom.keys().filter_map(|id| self.get(id))
    }

    pub(super) fn freeable_from(&self, slot: usize) -> Option<(usize, PoolId)> {
        self.freeable.key_from(slot)
    }

    /// The two halves of a private pool: (large, small).
    pub(super) fn halves(private: PrivateIdx) -> (PoolIdx, PoolIdx) {
        (PoolIdx(2 + 2 * private.0), PoolIdx(3 + 2 * private.0))
    }

    pub(super) fn get(&self, id: PoolId) -> Option<PrivateIdx> {
        self.by_id.get(&id).copied()
    }

    /// A freeable pool without memory is no more; returns whether it went.
    pub(super) fn forget_if_empty(&mut self, id: PoolId) -> bool {
        let Some(private) = self.get(id) else { return false };
        if self.all[private].malloc_count != 0 {
            return false;
        }
        self.by_id.remove(&id);
        self.freeable.remove(id);
        true
    }
}

fn assertion(condition: &str) -> AllocError {
    AllocError::Failed(format!("{condition} INTERNAL ASSERT FAILED"))
}

impl PyTorch {
    /// Whether frees across streams are deferred and nothing of the default pool is released.
    ///
    /// # Source
    /// `captures_underway.empty()` up to 2.12, `is_capture_context` from 2.13.
    #[inline]
    pub(super) fn capture_guard(&self) -> bool {
        match self.rules.guard {
            CaptureGuard::PoolBegun => self.private.any_begun(),
            CaptureGuard::RealCapture => {
                self.private.real_captures > 0
                    && self.events.clock.is_capturing(self.current_stream)
            }
        }
    }

    /// The pool that serves a request of this rounded size.
    ///
    /// # Source
    /// `DeviceCachingAllocator::get_pool`.
    #[inline]
    pub(super) fn get_pool(&self, size: Bytes, stream: StreamId) -> PoolIdx {
        let is_small = size <= SMALL_SIZE;
        if self.private.any_begun()
            && let Some(private) = self.routed(stream)
        {
            let (large, small) = PrivatePools::halves(private);
            return if is_small { small } else { large };
        }
        if is_small { PoolIdx::DEFAULT_SMALL } else { PoolIdx::DEFAULT_LARGE }
    }

    /// What a stream has free in a pool.
    #[inline]
    pub(super) fn list_of(
        &mut self,
        pool: PoolIdx,
        stream: StreamId,
    ) -> Result<ListIdx, AllocError> {
        let list = self.pools.list_of(pool, &self.streams[stream], stream);
        list.ok_or_else(|| {
            AllocError::Failed(
                "the model numbers at most 65536 pairs of a pool and a stream".into(),
            )
        })
    }

    fn routed(&self, stream: StreamId) -> Option<PrivateIdx> {
        let serves = |(_, of): &&(PoolId, Option<StreamId>)| of.is_none_or(|of| of == stream);
        let mut begun = self.private.begun.iter();
        let (id, _) = match self.rules.routing {
            Routing::OneStream | Routing::FirstBegun => begun.find(serves)?,
            Routing::LastBegun => begun.rev().find(serves)?,
        };
        self.private.get(*id)
    }

    /// The half of a private pool that serves a request, where a recording names the pool. The pool
    /// is made if the recording does not show who made it.
    pub(super) fn private_pool_for<O: Observer>(
        &mut self,
        id: PoolId,
        size: Bytes,
        observer: &mut O,
    ) -> Result<PoolIdx, AllocError> {
        if self.private.get(id).is_none() {
            self.make_pool(id, observer)?;
        }
        let known = self.known_private_pool(id, size);
        Ok(known.expect("the pool was made, if it was not there"))
    }

    /// That half, if the pool is there.
    pub(super) fn known_private_pool(&self, id: PoolId, size: Bytes) -> Option<PoolIdx> {
        let (large, small) = PrivatePools::halves(self.private.get(id)?);
        Some(if size <= SMALL_SIZE { small } else { large })
    }

    // Deviates: PyTorch has no such limit; here blocks hold the number of their pool in 16 bits.
    pub(super) fn make_pool<O: Observer>(
        &mut self,
        id: PoolId,
        observer: &mut O,
    ) -> Result<PrivateIdx, AllocError> {
        let count = self.private.all.len();
        let private = u16::try_from(count).ok().filter(|_| count < MAX_PRIVATE_POOLS);
        let Some(private) = private.map(PrivateIdx) else {
            let text = format!("the model numbers at most {MAX_PRIVATE_POOLS} private pools");
            return Err(AllocError::Failed(text));
        };
        let is_no_split = self.private.no_split.contains(&id);
        self.private.all.push(PrivatePool { id, use_count: 1, malloc_count: 0 });
        self.private.by_id.insert(id, private);
        self.pools.add(Some(private), id, is_no_split);
        observer.pool_created(id);
        Ok(private)
    }

    /// `createOrIncrefPool`.
    pub(super) fn create_or_incref_pool<O: Observer>(
        &mut self,
        id: PoolId,
        observer: &mut O,
    ) -> Result<PrivateIdx, AllocError> {
        let Some(private) = self.private.get(id) else { return self.make_pool(id, observer) };
        if self.private.all[private].use_count <= 0 {
            return Err(assertion("it->second->use_count > 0"));
        }
        self.private.all[private].use_count += 1;
        Ok(private)
    }

    /// `beginAllocateToPool`.
    pub(super) fn begin_allocate_to_pool<O: Observer>(
        &mut self,
        id: PoolId,
        stream: Option<StreamId>,
        observer: &mut O,
    ) -> Result<(), AllocError> {
        self.create_or_incref_pool(id, observer)?;
        if self.rules.routing == Routing::OneStream {
            let stream = stream.unwrap_or(StreamId(0));
            if self.private.begun.iter().any(|(_, of)| *of == Some(stream)) {
                return Err(assertion("inserted"));
            }
            self.private.begun.push((id, Some(stream)));
            return Ok(());
        }
        if self.private.begun.iter().any(|(begun, _)| *begun == id) {
            let text = "beginAllocateToPool: already recording to mempool_id";
            return Err(AllocError::Failed(text.into()));
        }
        self.private.begun.push((id, stream));
        Ok(())
    }

    /// `endAllocateToPool`.
    pub(super) fn end_allocate_to_pool(&mut self, id: PoolId) -> Result<(), AllocError> {
        match self.private.begun.iter().position(|(begun, _)| *begun == id) {
            Some(at) => {
                self.private.begun.remove(at);
                Ok(())
            }
            None => {
                let text = "endAllocatePool: not currently recording to mempool_id";
                Err(AllocError::Failed(text.into()))
            }
        }
    }

    /// `releasePool`: without owners its memory can be given back at the next release.
    pub(super) fn release_pool(&mut self, id: PoolId) -> Result<(), AllocError> {
        let Some(private) = self.private.get(id) else {
            return Err(assertion("it != graph_pools.end()"));
        };
        let pool = &mut self.private.all[private];
        pool.use_count -= 1;
        match pool.use_count {
            0 => {
                self.private.freeable.insert(id, private);
                Ok(())
            }
            count if count > 0 => Ok(()),
            _ => Err(assertion("uc >= 0")),
        }
    }

    /// `getPoolUseCount`.
    pub fn pool_use_count(&self, id: PoolId) -> i64 {
        self.private.get(id).map_or(0, |private| self.private.all[private].use_count)
    }

    pub(super) fn set_use_on_oom(&mut self, id: PoolId, on: bool) {
        if on {
            self.private.use_on_oom.insert(id, ());
        } else {
            self.private.use_on_oom.remove(id);
        }
    }

    pub(super) fn set_no_split(&mut self, id: PoolId) {
        self.private.no_split.insert(id);
        if let Some(private) = self.private.get(id) {
            let (large, small) = PrivatePools::halves(private);
            self.pools.set_no_split(large);
            self.pools.set_no_split(small);
        }
    }

    pub(super) fn mark_capture(&mut self, stream: StreamId, begins: bool) {
        self.events.clock.capture(stream, begins);
        let count = &mut self.private.real_captures;
        *count = if begins { *count + 1 } else { count.saturating_sub(1) };
    }

    /// Asks the pools marked `use_on_oom` for a free block.
    ///
    /// # Source
    /// `try_mempool_fallback` from 2.11; the last lines of `malloc` before.
    pub(super) fn try_mempool_fallback<O: Observer>(
        &mut self,
        params: &AllocParams,
        observer: &mut O,
    ) -> Result<Option<(AllocParams, BlockId)>, AllocError> {
        let is_private = self.pools.pool_of(params.list).private.is_some();
        if is_private {
            return Ok(None);
        }
        for id in self.private.use_on_oom.keys().collect::<Vec<_>>() {
            // The calling thread's requests go to that pool for the moment, as if it had begun it.
            self.begin_allocate_to_pool(id, None, observer)?;
            let pool = self.get_pool(params.size, params.stream);
            let fallback = AllocParams {
                list: self.list_of(pool, params.stream)?,
                is_expandable: params.is_expandable && !self.rules.expandable_per_request,
                ..*params
            };
            let found = self.get_free_block(&fallback);
            self.end_allocate_to_pool(id)?;
            self.release_pool(id)?;
            if let Some(block) = found {
                return Ok(Some((fallback, block)));
            }
        }
        Ok(None)
    }
}
