//! A snapshot as it stands in the file: checked, typed, nothing inferred.
//!
//! Field names are the file's. What only some releases write is an `Option` or a key in
//! [`KeysSeen`]; what a recording means is for the floors above to say.

use std::num::NonZeroI64;

use super::{
    keys::KeySet,
    text::{ContextId, FrameId, PoolRef, SiteId, StackId, Stacks, StrId, Strings},
};
use crate::base::{Addr, Bytes, DeviceIndex, Id, PoolId, StreamHandle};
pub use crate::trace::{Action, BlockState};

/// Sizes at and above this are refused: the allocator itself does (`2^60`).
pub const SIZE_LIMIT: u64 = 1 << 60;

/// One `_snapshot()`.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Which of the shapes of the format it has.
    pub format: Format,
    /// Every segment, in file order: by device, then by address.
    pub segments: Vec<Segment>,
    /// Trace entries of each device, oldest first; the index is the device.
    pub traces: Vec<Vec<Entry>>,
    /// The options in force when the snapshot was taken.
    pub settings: Option<Settings>,
    /// Marks that `record_function` and the optimizers left.
    pub annotations: Vec<Annotation>,
    /// Text of all kinds.
    pub strings: Strings,
    /// Distinct frames, by [`FrameId`].
    pub frames: Vec<Frame>,
    /// Distinct stacks, by [`StackId`].
    pub stacks: Stacks,
    /// The stack of each context object, by [`ContextId`].
    pub contexts: Vec<StackId>,
    /// Distinct pool ids of the entries, by [`PoolRef`].
    pub pools: Vec<PoolId>,
    /// What the entries have in common with many others, by [`SiteId`].
    pub sites: Vec<Site>,
    /// Which keys the file has, and so which release wrote it.
    pub seen: KeysSeen,
    /// Whether data on pinned host memory is there too; it is not read.
    pub has_host: bool,
    /// What a reader should know: each unknown key once, bytes after the end.
    pub warnings: Vec<String>,
}

impl Snapshot {
    /// Number of devices that have a trace or a segment, counted from device 0.
    pub fn devices(&self) -> usize {
        let last = self.segments.iter().map(|s| usize::from(s.device.0) + 1).max();
        self.traces.len().max(last.unwrap_or(0))
    }

    /// Number of trace entries of all devices.
    pub fn entries(&self) -> usize {
        self.traces.iter().map(Vec::len).sum()
    }

    /// The pool of an entry, where the release writes it (2.12 and later).
    pub fn pool(&self, entry: &Entry) -> Option<PoolId> {
        self.site(entry).pool.and_then(|pool| self.pools.get(pool.index()).copied())
    }

    /// What an entry has in common with many others: its stream, its pool and its texts.
    #[inline]
    pub fn site(&self, entry: &Entry) -> Site {
        self.sites.get(entry.site.index()).copied().unwrap_or_default()
    }

    /// The stack of an entry, if a context was captured; the empty stack where that context has no
    /// frames.
    pub fn stack_of(&self, entry: &Entry) -> Option<StackId> {
        entry.context.and_then(|context| self.contexts.get(context.index()).copied())
    }

    /// The text of an id; empty for an id of another snapshot.
    pub fn text(&self, id: StrId) -> &str {
        self.strings.get(id)
    }

    /// The frames of a stack, innermost first.
    pub fn stack(&self, id: StackId) -> impl Iterator<Item = &Frame> {
        self.stacks.get(id).iter().filter_map(|frame: &FrameId| self.frames.get(frame.index()))
    }

    /// Whether the entries were made from profiler data (`category` is there): such a trace is
    /// pairs of allocations and frees at invented addresses, not what an allocator did.
    pub fn from_profiler(&self) -> bool {
        self.seen.entry.has(super::keys::Key::Category)
    }
}

/// The shapes a snapshot had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// 1.13 and before: a bare list of segments.
    List,
    /// 2.0: a dict, blocks with `history` and without addresses.
    History,
    /// 2.1 and later.
    Current,
}

/// Which keys a file has, level by level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeysSeen {
    /// Of the snapshot.
    pub top: KeySet,
    /// Of any segment.
    pub segment: KeySet,
    /// Of any block.
    pub block: KeySet,
    /// Of any trace entry.
    pub entry: KeySet,
    /// Of the settings.
    pub settings: KeySet,
    /// Whether any entry is an annotation (2.14 and later).
    pub annotate: bool,
}

/// Memory from one `cudaMalloc`, or one contiguous mapped range of an expandable segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Device.
    pub device: DeviceIndex,
    /// First address.
    pub address: Addr,
    /// Bytes; the sum of the block sizes.
    pub total_size: Bytes,
    /// Bytes of allocated blocks, as the file says; not checked against the blocks.
    pub allocated_size: Option<Bytes>,
    /// Bytes of allocated and pending blocks, as the file says.
    pub active_size: Option<Bytes>,
    /// Bytes requested of the active blocks (2.0 and later), as the file says.
    pub requested_size: Option<Bytes>,
    /// Stream that allocated it.
    pub stream: StreamHandle,
    /// Small or large.
    pub segment_type: SegmentType,
    /// Pool (2.1 and later).
    pub pool_id: Option<PoolId>,
    /// Whether it is expandable (2.1 and later).
    pub is_expandable: Option<bool>,
    /// Where it was allocated, if that was recorded.
    pub stack: Option<StackId>,
    /// Blocks in address order; they tile the segment.
    pub blocks: Vec<Block>,
}

/// The two pools of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SegmentType {
    /// For requests of 1 MiB or less.
    Small,
    /// For larger requests.
    Large,
}

/// A part of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// First address; computed where the release does not write it (before 2.1).
    pub address: Addr,
    /// Bytes, more than 0.
    pub size: Bytes,
    /// Bytes asked for (2.0 and later, or from a recorded history); stale for inactive blocks.
    pub requested_size: Option<Bytes>,
    /// State.
    pub state: BlockState,
    /// Where it was allocated, if that was recorded.
    pub stack: Option<StackId>,
}

/// One trace entry; there can be millions, so it is kept to 40 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Address of the block or segment. For [`Action::Oom`], which has none: the bytes that the
    /// device had free, see [`Entry::device_free`].
    pub addr: Addr,
    /// Bytes: requested ones of blocks, those of segments and ranges, the rounded request of an
    /// out-of-memory, the active bytes of a snapshot mark.
    pub size: Bytes,
    /// Microseconds since 1970 (2.2 and later). Neither strictly rising nor unique; 0 reads as none.
    pub time_us: Option<NonZeroI64>,
    /// Which context object holds its stack, if one was captured: see [`Snapshot::stack_of`].
    pub context: Option<ContextId>,
    /// Stream, pool and texts: see [`Snapshot::site`].
    pub site: SiteId,
    /// What happened.
    pub action: Action,
}

const _: () = assert!(size_of::<Entry>() <= 40);

/// What an entry has in common with many others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Site {
    /// Stream.
    pub stream: StreamHandle,
    /// Pool (2.12 and later).
    pub pool: Option<PoolRef>,
    /// `compile_context` (2.8 and later).
    pub compile_context: Option<StrId>,
    /// `user_metadata` (2.10 and later).
    pub user_metadata: Option<StrId>,
}

impl Entry {
    /// Bytes that the device had free at an out-of-memory.
    pub fn device_free(&self) -> Option<Bytes> {
        (self.action == Action::Oom).then_some(Bytes(self.addr.0))
    }
}

/// A place in a program. An absent part was absent in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Function.
    pub name: Option<StrId>,
    /// File.
    pub filename: Option<StrId>,
    /// Line; 0 if unknown.
    pub line: u32,
}

/// A mark with a time; see `external_annotations`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// Name.
    pub name: Option<StrId>,
    /// Start or end of a range; anything else in the file reads as neither.
    pub stage: Option<Stage>,
    /// Device.
    pub device: Option<DeviceIndex>,
    /// Microseconds since 1970.
    pub time_us: Option<i64>,
}

/// The two ends of an annotated range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It begins.
    Start,
    /// It ends.
    End,
}

/// `allocator_settings` (2.3 and later). What the file lacks is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// The option string that was parsed last; empty if none ever was.
    pub conf: Option<String>,
    /// Bytes; -1 is unlimited.
    pub max_split_size: Option<i64>,
    /// Fraction of the limit; 0 is off.
    pub garbage_collection_threshold: Option<f64>,
    /// Whether new segments are expandable.
    pub expandable_segments: Option<bool>,
    /// Divisions for sizes from 1, 2, 4 .. 32768 MiB on; 0 is off.
    pub roundup_power2_divisions: Option<[u64; 16]>,
    /// Whether the lock is released around `cudaMalloc`.
    pub release_lock_on_cudamalloc: Option<bool>,
    /// Threads that register pinned memory.
    pub pinned_num_register_threads: Option<i64>,
    /// Whether pinned memory is registered rather than allocated.
    pub pinned_use_cuda_host_register: Option<bool>,
    /// 2.9 and later.
    pub graph_capture_record_stream_reuse: Option<bool>,
    /// 2.13 and later; -1 is unlimited.
    pub max_round_threshold: Option<i64>,
    /// 2.13 and later; -1 is unlimited.
    pub max_cached_size: Option<i64>,
}
