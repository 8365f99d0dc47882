//! PyTorch's CUDA caching allocator, exactly.
//!
//! One [`PyTorch`] is one `DeviceCachingAllocator`. A request goes down the ladder in
//! [`PyTorch::malloc`]; each rung is a function with PyTorch's own name in the file named here.
//!
//! ```text
//!  malloc ──► process_events ──► get_free_block ───────────────► alloc_found_block   malloc.rs
//!                (events.rs)       │ nothing
//!                                  ├► garbage_collect_cached_blocks                  release.rs
//!                                  ├► alloc_block ─► expandable / cudaMalloc         malloc.rs, expandable.rs
//!                                  ├► try_mempool_fallback                           pools.rs
//!                                  ├► release_available_cached_blocks, alloc_block   release.rs
//!                                  ├► release_cached_blocks, alloc_block             release.rs
//!                                  └► Oom
//!  free ────► insert_events | free_block ─► try_merge_blocks                         free.rs, events.rs
//! ```
//! Everything that differs between releases is in [`version`]; everything that a user can set is in
//! [`conf`].

pub mod conf;
pub mod rounding;
pub mod version;

mod ahead;
mod control;
mod events;
mod expandable;
mod free;
mod layout;
mod malloc;
mod pool;
mod pools;
mod release;
mod start;
mod why;

pub use self::why::{Asked, FreePart, WhyNot};

use rustc_hash::FxHashMap;

use self::{
    conf::AllocConf,
    events::{Events, RecordedFrees},
    expandable::ExpandableSegment,
    pool::{ListIdx, Pools},
    pools::PrivatePools,
    version::{Rules, TieBreak},
};
use crate::{
    base::{Addr, AllocId, BlockId, Bytes, ExpandableId, PoolId, Release, StreamId, Table},
    sim::{AllocError, Allocator, BlockArena, Device, DeviceConfig, Observer, Place},
    trace::{AllocOp, Control, FreeOp, Layout, Op, PoolIndex, Stream, Trace},
};

/// Requests from here on are refused outright.
pub const MAX_REQUEST: Bytes = Bytes(1 << 60);

/// What an allocator is made from.
#[derive(Clone, Debug)]
pub struct PyTorchConfig {
    /// Whose behaviour.
    pub release: Release,
    /// The settings at the start.
    pub conf: AllocConf,
    /// Whether memory is cached at all; false under `PYTORCH_NO_CUDA_MEMORY_CACHING=1`.
    pub caching: bool,
    /// When events on other streams are done.
    pub events: crate::trace::EventMode,
}

impl PyTorchConfig {
    /// The defaults of a release.
    pub fn new(release: Release) -> Self {
        Self {
            release,
            conf: AllocConf::new(release),
            caching: true,
            events: crate::trace::EventMode::Ready,
        }
    }
}

/// The caching allocator of one device.
#[derive(Clone, Debug)]
pub struct PyTorch {
    config: PyTorchConfig,
    rules: Rules,
    conf: AllocConf,
    device: Device,
    streams: Table<StreamId, Stream>,
    /// The streams in the order of their handles: the order of PyTorch's sets.
    stream_order: Vec<StreamId>,
    /// Pool ids that the trace refers to.
    pool_ids: Table<PoolIndex, PoolId>,
    blocks: BlockArena,
    pools: Pools,
    private: PrivatePools,
    expandable: Table<ExpandableId, ExpandableSegment>,
    /// Which block an allocation has.
    live: Table<AllocId, Option<BlockId>>,
    events: Events,
    recorded: RecordedFrees,
    /// The stream of the last request: the calling thread's current stream.
    current_stream: StreamId,
    /// `total_allocated_memory`: bytes of all segments.
    reserved: Bytes,
    /// Bytes handed out.
    allocated: Bytes,
    /// `allowed_memory_maximum`.
    allowed_maximum: Option<Bytes>,
    /// Numbers the blocks (2.12) or segments (from 2.13) by age; 0 is below all of them.
    last_order: u32,
    /// Addresses of uncached allocations.
    uncached: FxHashMap<AllocId, Addr>,
    is_damaged: bool,
    /// Nothing is pending, begun, captured, aged or left uncached: the next request needs no more
    /// than the free list, if that has something. May be false without need, never true.
    is_plain: bool,
    /// Whether sizes are rounded to multiples of 512, and no more.
    rounds_to_512: bool,
    /// A recording shows that a request failed without anything being released: see
    /// [`PyTorch::assume_capture`].
    assumes_capture: bool,
}

/// A request on its way down the ladder (`AllocParams`).
#[derive(Clone, Copy, Debug)]
struct AllocParams {
    requested: Bytes,
    /// Rounded.
    size: Bytes,
    stream: StreamId,
    list: ListIdx,
    /// Whether expandable segments count for it.
    is_expandable: bool,
}

impl PyTorch {
    /// An allocator that has not allocated anything, for programs on these streams (the first is the
    /// default stream) and pools.
    pub fn new(
        config: PyTorchConfig,
        device: Device,
        streams: &Table<StreamId, Stream>,
        pools: &Table<PoolIndex, PoolId>,
    ) -> Self {
        let mut stream_order: Vec<StreamId> =
            (0..streams.len()).map(StreamId::from_index).collect();
        stream_order.sort_by_key(|id| streams[*id].handle);
        let rules = Rules::of(config.release);
        let mut this = Self {
            rules,
            conf: config.conf.clone(),
            device,
            streams: streams.clone(),
            stream_order,
            pool_ids: pools.clone(),
            blocks: BlockArena::new(rules.ties != TieBreak::Address),
            pools: Pools::new(),
            private: PrivatePools::default(),
            expandable: Table::default(),
            live: Table::default(),
            events: Events::new(streams.len(), config.events),
            recorded: RecordedFrees::default(),
            current_stream: StreamId(0),
            reserved: Bytes::ZERO,
            allocated: Bytes::ZERO,
            allowed_maximum: None,
            last_order: 0,
            uncached: FxHashMap::default(),
            is_damaged: false,
            is_plain: false,
            rounds_to_512: false,
            assumes_capture: false,
            config,
        };
        this.apply_startup_fraction();
        this.settings_changed();
        this
    }

    /// As new under other settings and on another device, for programs on the same streams and pools.
    /// The memory of blocks and lists is kept: replays of one trace under many settings allocate
    /// little.
    pub fn restart(&mut self, config: PyTorchConfig, device: DeviceConfig) {
        let mut blocks = std::mem::take(&mut self.blocks);
        let mut pools = std::mem::take(&mut self.pools);
        let mut live = std::mem::take(&mut self.live);
        *self = Self::new(config, Device::new(device), &self.streams, &self.pool_ids);
        blocks.clear(self.rules.ties != TieBreak::Address);
        pools.clear();
        live.clear();
        (self.blocks, self.pools, self.live) = (blocks, pools, live);
    }

    /// The settings in force.
    pub fn conf(&self) -> &AllocConf {
        &self.conf
    }

    /// What this allocator was made from.
    pub fn config(&self) -> &PyTorchConfig {
        &self.config
    }

    /// `total_allocated_memory`: bytes of all segments.
    pub fn reserved(&self) -> Bytes {
        self.reserved
    }

    /// Whether the lower part of a segment was given to `cudaFree` while the rest was in use, as the
    /// real allocator does after `max_split_size` was lowered at run time. Its own records then
    /// point to freed objects: what it does from there on is undefined, and the model only a guess.
    pub fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// From now on requests that fail release nothing, as while a stream is being captured. What a
    /// recording shows of captures that it does not name.
    pub fn assume_capture(&mut self, on: bool) {
        self.assumes_capture = on;
    }

    /// The block of an allocation that is live: its address and size.
    pub fn block_of(&self, id: AllocId) -> Option<crate::base::Span> {
        let block = (*self.live.get(id)?)?;
        Some(self.blocks[block].span())
    }

    /// Notes what follows from the settings and the limits.
    fn settings_changed(&mut self) {
        let least = self.rules.division_one.least();
        self.rounds_to_512 = self.conf.roundup_power2_divisions.iter().all(|count| *count < least);
        self.is_plain = self.finds_plain();
    }

    /// Whether [`PyTorch::is_plain`] may be true now.
    fn finds_plain(&self) -> bool {
        self.config.caching
            && !self.private.any_begun_or_captured()
            && !self.collects_garbage()
            && !self.pools.counts_calls()
            && self.recorded.none_done()
            && self.events.none_waits()
    }

    /// Whether blocks age, and old ones are given back.
    fn collects_garbage(&self) -> bool {
        self.allowed_maximum.is_some() && self.conf.garbage_collection_threshold > 0.0
    }

    /// Makes room for ids up to `count`.
    fn expect_allocs(&mut self, count: u32) {
        self.live.resize(count as usize, None);
    }

    #[inline]
    fn place(&self, block: BlockId) -> Place {
        let block = &self.blocks[block];
        let place = self.pools[ListIdx(block.list)].place;
        Place { is_expandable: block.is_expandable(), ..place }
    }

    /// The next number of the release's creation counter.
    fn next_order(&mut self) -> u32 {
        self.last_order += 1;
        self.last_order
    }

    /// Checks every link, set and sum.
    ///
    /// # Panics
    /// When something does not hold, with a sentence. For tests: walks everything.
    pub fn check(&self) {
        self.blocks.check();
        let mut reserved = Bytes::ZERO;
        let mut allocated = Bytes::ZERO;
        for head in self.blocks.heads() {
            for id in self.blocks.chain(head) {
                let block = &self.blocks[id];
                let listed = self.pools.holds(&self.blocks, id);
                assert_eq!(
                    listed,
                    block.is_free(),
                    "block at {} is free or in its pool's list, not both",
                    block.addr
                );
                if block.is_mapped() {
                    reserved += block.size;
                }
                if block.is_allocated() {
                    allocated += block.size;
                }
            }
        }
        assert_eq!(reserved, self.reserved, "reserved bytes are the sum of the mapped blocks");
        assert_eq!(
            allocated, self.allocated,
            "allocated bytes are the sum of the blocks handed out"
        );
    }
}

impl Allocator for PyTorch {
    fn start<O: Observer>(&mut self, trace: &Trace, observer: &mut O) {
        self.start_from(trace, observer);
    }

    #[inline(always)]
    fn malloc<O: Observer>(
        &mut self,
        op: &AllocOp,
        observer: &mut O,
    ) -> Result<Option<Addr>, AllocError> {
        self.malloc_op(op, observer)
    }

    #[inline(always)]
    fn free<O: Observer>(&mut self, op: &FreeOp, observer: &mut O) {
        self.free_op(op, observer);
    }

    fn complete(&mut self, id: AllocId) {
        self.recorded.complete(id);
        self.is_plain = self.finds_plain();
    }

    fn record_stream(&mut self, id: AllocId, stream: StreamId) {
        self.record_stream_op(id, stream);
    }

    fn empty_cache<O: Observer>(&mut self, observer: &mut O) -> Result<(), AllocError> {
        self.release_cached_blocks(PoolId::DEFAULT, observer)
    }

    fn control<O: Observer>(
        &mut self,
        control: &Control,
        observer: &mut O,
    ) -> Result<(), AllocError> {
        let done = self.control_op(control, observer);
        self.settings_changed();
        done
    }

    fn looks_ahead(&self) -> bool {
        self.blocks.outgrow_the_caches()
    }

    #[inline]
    fn look_ahead(&self, coming: &[Op]) {
        self.prefetch(coming);
    }

    fn layout(&self) -> Layout {
        self.layout_of(None)
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn device_mut(&mut self) -> &mut Device {
        &mut self.device
    }

    fn reset(&mut self) {
        self.restart(self.config.clone(), self.device.config().clone());
    }
}
