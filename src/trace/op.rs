//! [`Op`]: one thing that a program asked of the allocator, or that the outside did to it.

use std::num::NonZeroU16;

use crate::base::{AllocId, Bytes, Id, PoolId, StreamId};

/// One operation. Sixteen bytes: rare operations live in [`super::Trace::controls`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `malloc`.
    Alloc(AllocOp),
    /// `free`.
    Free(FreeOp),
    /// The events that a pending free waited for are done; seen at the next `malloc`.
    /// Recordings say so; programs with a clock of their own use [`Control::Complete`].
    FreeCompleted(AllocId),
    /// `record_stream`: the block is also used on another stream.
    RecordStream(AllocId, StreamId),
    /// `torch.cuda.empty_cache()`.
    EmptyCache,
    /// Everything rarer.
    Control(ControlId),
}

const _: () = assert!(size_of::<Op>() == 24 || size_of::<Op>() == 16);

/// One `malloc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocOp {
    /// What later operations call this allocation.
    pub id: AllocId,
    /// The stream it is allocated for.
    pub stream: StreamId,
    /// The private pool that serves it, where a recording says so; otherwise the pools begun with
    /// [`Control::PoolBegin`] decide.
    pub pool: Option<PoolIndex>,
    /// Bytes asked for, not rounded.
    pub size: Bytes,
}

/// One `free`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeOp {
    /// The allocation that is given back.
    pub id: AllocId,
    /// The recording shows that the block had to wait for another stream, without saying which:
    /// it stays pending until [`Op::FreeCompleted`] or the next synchronisation.
    pub pending: bool,
}

/// A private pool of a trace: index into [`super::Trace::pools`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolIndex(NonZeroU16);

impl PoolIndex {
    /// The pool at `index`; `None` beyond 65,535 pools.
    pub fn from_index(index: usize) -> Option<Self> {
        u16::try_from(index + 1).ok().and_then(NonZeroU16::new).map(Self)
    }
}

impl Id for PoolIndex {
    fn index(self) -> usize {
        usize::from(self.0.get()) - 1
    }
}

/// A rare operation of a trace: index into [`super::Trace::controls`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControlId(pub u32);

impl Id for ControlId {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// When a CUDA event on another stream is found to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum EventMode {
    /// At once.
    #[default]
    Ready,
    /// When [`Control::Complete`] says that the stream has caught up.
    Manual,
    /// At the n-th time that the allocator asks.
    Polls(u32),
}

/// A rare operation: management calls of the program, and what happens around it.
#[derive(Clone, Debug, PartialEq)]
pub enum Control {
    /// `empty_cache` of one pool (`MemPool`, 2.8 and later).
    EmptyPool(PoolId),
    /// `torch.cuda.set_per_process_memory_fraction`.
    SetFraction(f64),
    /// `torch.cuda.memory._set_allocator_settings`.
    Settings(String),
    /// A pool is made, or gets one more owner.
    PoolCreate(PoolId),
    /// From now on this pool serves one stream, or every stream.
    PoolBegin(PoolId, Option<StreamId>),
    /// The routing of `PoolBegin` ends.
    PoolEnd(PoolId),
    /// An owner lets go of the pool; without owners its memory can be given back.
    PoolRelease(PoolId),
    /// The pool may (not) serve requests of the default pool that would fail (2.8 and later).
    PoolUseOnOom(PoolId, bool),
    /// The pool hands out its blocks whole (2.10 and later).
    PoolNoSplit(PoolId),
    /// The stream is being captured from now on.
    CaptureBegin(StreamId),
    /// The capture of the stream ends.
    CaptureEnd(StreamId),
    /// From now on events get done in this way.
    Events(EventMode),
    /// The work submitted to one stream, or to all, is done.
    Complete(Option<StreamId>),
    /// Other processes now hold this much of the device.
    External(Bytes),
    /// The device now has this capacity.
    Total(Bytes),
    /// `torch.cuda.reset_peak_memory_stats`.
    ResetPeak,
    /// `torch.cuda.reset_accumulated_memory_stats`.
    ResetAccumulated,
    /// A snapshot was taken here, of everything or of one pool: leaves an entry in the history,
    /// decides nothing.
    Snapshot(Option<PoolId>),
}

impl Control {
    /// The pool that it is about.
    pub fn pool(&self) -> Option<PoolId> {
        match self {
            Self::EmptyPool(pool)
            | Self::PoolCreate(pool)
            | Self::PoolBegin(pool, _)
            | Self::PoolEnd(pool)
            | Self::PoolRelease(pool)
            | Self::PoolUseOnOom(pool, _)
            | Self::PoolNoSplit(pool) => Some(*pool),
            Self::Snapshot(pool) => *pool,
            Self::SetFraction(_)
            | Self::Settings(_)
            | Self::CaptureBegin(_)
            | Self::CaptureEnd(_)
            | Self::Events(_)
            | Self::Complete(_)
            | Self::External(_)
            | Self::Total(_)
            | Self::ResetPeak
            | Self::ResetAccumulated => None,
        }
    }
}
