//! [`Trace`]: the operations of one device, where they started, and what was recorded.

use super::{Control, ControlId, Event, Events, Labels, Layout, Op, PoolIndex};
use crate::base::{
    AllocId, Bytes, DeviceIndex, Id, OpIndex, PoolId, Release, Span, StreamHandle, StreamId, Table,
};

/// A stream that a trace names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The raw `cudaStream_t`.
    pub handle: StreamHandle,
    /// `c10::Stream`'s id. PyTorch keeps pending events in a hash table over it, so the order in
    /// which several streams are looked at follows from it.
    pub id: u64,
}

impl Stream {
    /// The default stream.
    pub const DEFAULT: Self = Self { handle: StreamHandle(0), id: 0 };

    /// The n-th stream of a made-up program, with handle and id as PyTorch's stream pool gives them
    /// to the streams that a program takes one after the other. 0 is the default stream.
    pub fn numbered(n: StreamId) -> Self {
        match u64::from(n.0) {
            0 => Self::DEFAULT,
            n => {
                Self { handle: StreamHandle(0x1_0000_0100 + (n - 1) * 0x400), id: 3 + 32 * (n - 1) }
            }
        }
    }
}

/// The settings that a recording reports: those in force when it was taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordedSettings {
    /// The last string that was parsed.
    pub conf: String,
    /// `max_split_size` in bytes; `None` is unlimited.
    pub max_split_size: Option<Bytes>,
    /// `garbage_collection_threshold`.
    pub garbage_collection_threshold: f64,
    /// `expandable_segments`.
    pub expandable_segments: bool,
    /// The sixteen divisions of `roundup_power2_divisions`, where they are told.
    pub roundup_power2_divisions: Option<[u64; 16]>,
}

/// A segment that came and went within a history whose entries do not name pools: nothing says
/// which pool it belonged to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VanishedSegment {
    /// The stream that it served.
    pub stream: StreamId,
    /// Its position in [`Trace::start`], if it was there before the history.
    pub start: Option<usize>,
    /// The operation that made it; the first one, if it was there before.
    pub made_by: OpIndex,
    /// The operation that gave it back; the last one, of an expandable segment.
    pub freed_by: OpIndex,
    /// The allocations that lay in it.
    pub allocs: Vec<OpIndex>,
}

/// What a recording holds beside the operations.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// Everything the real allocator did, oldest first.
    pub events: Events,
    /// The first event of each operation, and the number of events at the end: one more than there
    /// are operations.
    pub first_event: Vec<u32>,
    /// Where everything lay at the end.
    pub end: Layout,
    /// Whether the entries of the history name their pool (2.12 and later); otherwise the pools in
    /// [`Recorded::events`] are those of the segments, where known.
    pub events_name_pools: bool,
    /// The releases that can have written this, oldest and newest.
    pub releases: (Release, Release),
    /// The settings, if the recording reports any (2.3 and later).
    pub settings: Option<RecordedSettings>,
    /// Blocks live at the start whose size is computed from what was requested, because they were
    /// freed before the end: positions in [`Trace::start_ids`].
    pub guessed_sizes: Vec<usize>,
    /// Pending frees in the order in which they completed.
    pub completions: Vec<AllocId>,
    /// For each expandable segment that the history or the snapshot shows: its stream and the
    /// addresses that were mapped at any time.
    pub chains: Vec<(StreamHandle, Span)>,
    /// Operations that are an `empty_cache` only if the request after them could have been served
    /// from the cache: without stacks, releases before new memory may be the request's own.
    pub maybe_empty: Vec<OpIndex>,
    /// Segments whose pool nothing tells.
    pub vanished: Vec<VanishedSegment>,
    /// What is odd about this recording, or cannot be known from it.
    pub notes: Vec<String>,
}

impl Recorded {
    /// The events of one operation.
    #[inline]
    pub fn events_of(
        &self,
        op: OpIndex,
    ) -> impl DoubleEndedIterator<Item = Event> + ExactSizeIterator {
        let i = op.index();
        self.events.range(self.first_event[i] as usize..self.first_event[i + 1] as usize)
    }
}

/// The operations of one device, in order.
///
/// Made by [`super::TraceBuilder`] alone, which keeps these promises: every [`AllocId`] is allocated
/// at most once (by one op, or in [`Trace::start_ids`]) and freed at most once, after that; every
/// stream, pool and control named exists.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    pub(super) device: DeviceIndex,
    pub(super) ops: Vec<Op>,
    pub(super) controls: Table<ControlId, Control>,
    pub(super) streams: Table<StreamId, Stream>,
    pub(super) pools: Table<PoolIndex, PoolId>,
    pub(super) allocs: u32,
    pub(super) start: Layout,
    pub(super) start_ids: Vec<AllocId>,
    pub(super) labels: Labels,
    pub(super) recorded: Option<Recorded>,
}

impl Trace {
    /// The device of the operations.
    pub fn device(&self) -> DeviceIndex {
        self.device
    }

    /// The operations.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The rare operations that [`Op::Control`] refers to.
    pub fn controls(&self) -> &Table<ControlId, Control> {
        &self.controls
    }

    /// The streams; the first is the default stream.
    pub fn streams(&self) -> &Table<StreamId, Stream> {
        &self.streams
    }

    /// The private pools that a recording names.
    pub fn pools(&self) -> &Table<PoolIndex, PoolId> {
        &self.pools
    }

    /// Number of allocations: their ids are below.
    pub fn alloc_count(&self) -> u32 {
        self.allocs
    }

    /// What was there before the first operation.
    pub fn start(&self) -> &Layout {
        &self.start
    }

    /// The names of the blocks that were live at the start: one for each block of [`Trace::start`]
    /// that is not inactive, in the order of segments and blocks.
    pub fn start_ids(&self) -> &[AllocId] {
        &self.start_ids
    }

    /// What the allocations are for, where somebody said so.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// What the real allocator did, if this is a recording.
    pub fn recorded(&self) -> Option<&Recorded> {
        self.recorded.as_ref()
    }

    /// Sum of all sizes asked for, in bytes.
    pub fn requested(&self) -> Bytes {
        let size = |op: &Op| match op {
            Op::Alloc(alloc) => alloc.size,
            _ => Bytes::ZERO,
        };
        self.ops.iter().map(size).sum()
    }

    /// The same operations from another start, which has the same active blocks in the same order.
    ///
    /// # Panics
    /// When the number of active blocks differs.
    #[must_use]
    pub fn with_start(mut self, start: Layout) -> Self {
        let active = start.segments.iter().flat_map(|s| &s.blocks);
        let active = active.filter(|b| b.state != super::BlockState::Inactive).count();
        assert_eq!(active, self.start_ids.len(), "a start keeps its active blocks");
        self.start = start;
        self
    }

    /// A private pool for segments whose pool nothing names, with an id that PyTorch never gives.
    /// `None` if there is no room for one.
    pub fn stand_in_pool(&mut self) -> Option<PoolIndex> {
        self.number_pool(PoolId(u64::MAX, u64::MAX))
    }

    /// The private pools that requests, management calls and the start name.
    pub fn named_pools(&self) -> Vec<PoolId> {
        let started = self.start.segments.iter().map(|segment| segment.pool);
        let managed = self.controls.iter().filter_map(Control::pool);
        let all = self.pools.iter().copied().chain(managed).chain(started);
        let all: std::collections::BTreeSet<PoolId> = all.filter(|id| id.is_private()).collect();
        all.into_iter().collect()
    }

    /// The number of a private pool for requests of it; a new one if no request names it. `None` if
    /// there is no room for one.
    pub fn number_pool(&mut self, id: PoolId) -> Option<PoolIndex> {
        let at = self.pools.iter().position(|pool| *pool == id).unwrap_or(self.pools.len());
        let index = PoolIndex::from_index(at)?;
        if at == self.pools.len() {
            self.pools.push(id);
        }
        Some(index)
    }

    /// The same operations with one more before operation `at`, in the recording too.
    pub fn insert_control(&mut self, at: OpIndex, control: Control) {
        let id = ControlId(u32::try_from(self.controls.len()).unwrap_or(u32::MAX));
        self.controls.push(control);
        self.ops.insert(at.index(), Op::Control(id));
        if let Some(recorded) = &mut self.recorded {
            let first = recorded.first_event[at.index()];
            recorded.first_event.insert(at.index(), first);
        }
    }

    /// The same operations without operation `at`, whose events become those of the next one. It must
    /// name no allocation.
    pub fn remove_op(&mut self, at: OpIndex) {
        self.ops.remove(at.index());
        if let Some(recorded) = &mut self.recorded {
            recorded.first_event.remove(at.index() + 1);
        }
    }

    /// A segment of the start belongs to another pool.
    pub fn set_start_pool(&mut self, segment: usize, pool: PoolId) {
        if let Some(segment) = self.start.segments.get_mut(segment) {
            segment.pool = pool;
        }
    }

    /// The same operations, with these requests served by another pool.
    pub fn set_pool(&mut self, requests: &[OpIndex], pool: Option<PoolIndex>) {
        for op in requests {
            if let Some(Op::Alloc(alloc)) = self.ops.get_mut(op.index()) {
                alloc.pool = pool;
            }
        }
    }
}
