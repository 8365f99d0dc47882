//! [`Observer`]: what an allocator tells of each thing it does.
//!
//! Every method has an empty default body, so a watcher names what it wants and a model that nobody
//! watches pays nothing. The facts carry more than PyTorch's log does (whether a block was split,
//! what it was merged with), because the statistics need it.

use crate::base::{Addr, Bytes, PoolId, Span, StreamHandle};

/// Where a block or segment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The stream it serves.
    pub stream: StreamHandle,
    /// The memory pool.
    pub pool: PoolId,
    /// Whether it is in the part for blocks of at most 1 MiB.
    pub is_small: bool,
    /// Whether its memory is an expandable segment's.
    pub is_expandable: bool,
}

/// A block was handed out.
#[derive(Clone, Copy, Debug)]
pub struct Allocated {
    /// The block.
    pub span: Span,
    /// What was asked.
    pub requested: Bytes,
    /// Where it belongs.
    pub place: Place,
    /// Whether the free block that it came from shared its segment with others.
    pub was_split: bool,
    /// What was split off and stays free behind it.
    pub remainder: Option<Bytes>,
    /// Whether the block is not below `max_split_size`.
    pub is_oversize: bool,
}

/// `free` was called.
#[derive(Clone, Copy, Debug)]
pub struct FreeRequested {
    /// The block.
    pub span: Span,
    /// What was asked for it.
    pub requested: Bytes,
    /// Where it belongs.
    pub place: Place,
    /// Whether the block is not below `max_split_size`.
    pub is_oversize: bool,
}

/// A block went back to its pool.
#[derive(Clone, Copy, Debug)]
pub struct FreeCompleted {
    /// The block before it was merged.
    pub span: Span,
    /// What was asked for it.
    pub requested: Bytes,
    /// Where it belongs.
    pub place: Place,
    /// Sizes of the free neighbours that it was merged with; 0 for none.
    pub merged: [Bytes; 2],
    /// The free block that came of it.
    pub free: Span,
    /// Whether that one shares its segment with others.
    pub is_split: bool,
}

/// Device memory came or went.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// The segment, or the range that was mapped or unmapped.
    pub span: Span,
    /// Where it belongs.
    pub place: Place,
    /// Whether it is not below `max_split_size`.
    pub is_oversize: bool,
}

/// The allocator gave up.
#[derive(Clone, Copy, Debug)]
pub struct Failed {
    /// The rounded request.
    pub size: Bytes,
    /// Free memory of the device.
    pub device_free: Bytes,
    /// Where the block would have belonged.
    pub place: Place,
}

/// A watcher. `()` watches nothing, `(A, B)` are two.
pub trait Observer {
    /// Whether it looks at anything; if not, the facts are not even gathered.
    const WATCHES: bool = true;

    /// A block was handed out.
    fn alloc(&mut self, _fact: &Allocated) {}
    /// `free` was called.
    fn free_requested(&mut self, _fact: &FreeRequested) {}
    /// A block went back to its pool.
    fn free_completed(&mut self, _fact: &FreeCompleted) {}
    /// `cudaMalloc` gave a segment.
    fn segment_alloc(&mut self, _fact: &Segment) {}
    /// A segment is about to be given to `cudaFree`, which may refuse.
    fn segment_release(&mut self, _fact: &Segment) {}
    /// A segment went back by `cudaFree`.
    fn segment_free(&mut self, _fact: &Segment) {}
    /// A range of an expandable segment was mapped.
    fn segment_map(&mut self, _fact: &Segment) {}
    /// A range of an expandable segment was unmapped.
    fn segment_unmap(&mut self, _fact: &Segment) {}
    /// The allocator gave up.
    fn oom(&mut self, _fact: &Failed) {}
    /// A request was refused before anything was tried (`throw_on_cudamalloc_oom`).
    fn oom_rejection(&mut self) {}
    /// Everything was given back and the device is asked again.
    fn alloc_retry(&mut self) {}
    /// All pending events were waited for.
    fn sync_all_streams(&mut self) {}
    /// A snapshot was taken, of everything or of one pool; `active` is the sum of the active blocks.
    fn snapshot(&mut self, _pool: PoolId, _active: Bytes) {}
    /// Peaks start again at the present values.
    fn reset_peak(&mut self) {}
    /// Running totals start again at zero.
    fn reset_accumulated(&mut self) {}
    /// A private pool came to be.
    fn pool_created(&mut self, _pool: PoolId) {}
    /// The memory that was there before the first operation.
    fn start(&mut self, _segment: &Segment) {}
    /// A block that was there before the first operation.
    fn start_block(&mut self, _block: &StartBlock) {}
}

/// A block that was there before the first operation.
#[derive(Clone, Copy, Debug)]
pub struct StartBlock {
    /// The block.
    pub span: Span,
    /// What was asked for it.
    pub requested: Bytes,
    /// Where it belongs.
    pub place: Place,
    /// Its state.
    pub state: crate::trace::BlockState,
    /// Whether it shares its segment with others.
    pub is_split: bool,
    /// Whether it is not below `max_split_size`.
    pub is_oversize: bool,
}

impl Observer for () {
    const WATCHES: bool = false;
}

macro_rules! forward {
    ($self:ident => $($target:expr),+) => {
        #[inline]
        fn alloc(&mut $self, fact: &Allocated) { $($target.alloc(fact);)+ }
        #[inline]
        fn free_requested(&mut $self, fact: &FreeRequested) { $($target.free_requested(fact);)+ }
        #[inline]
        fn free_completed(&mut $self, fact: &FreeCompleted) { $($target.free_completed(fact);)+ }
        #[inline]
        fn segment_alloc(&mut $self, fact: &Segment) { $($target.segment_alloc(fact);)+ }
        #[inline]
        fn segment_release(&mut $self, fact: &Segment) { $($target.segment_release(fact);)+ }
        #[inline]
        fn segment_free(&mut $self, fact: &Segment) { $($target.segment_free(fact);)+ }
        #[inline]
        fn segment_map(&mut $self, fact: &Segment) { $($target.segment_map(fact);)+ }
        #[inline]
        fn segment_unmap(&mut $self, fact: &Segment) { $($target.segment_unmap(fact);)+ }
        #[inline]
        fn oom(&mut $self, fact: &Failed) { $($target.oom(fact);)+ }
        #[inline]
        fn oom_rejection(&mut $self) { $($target.oom_rejection();)+ }
        #[inline]
        fn alloc_retry(&mut $self) { $($target.alloc_retry();)+ }
        #[inline]
        fn sync_all_streams(&mut $self) { $($target.sync_all_streams();)+ }
        #[inline]
        fn snapshot(&mut $self, pool: PoolId, active: Bytes) { $($target.snapshot(pool, active);)+ }
        #[inline]
        fn reset_peak(&mut $self) { $($target.reset_peak();)+ }
        #[inline]
        fn reset_accumulated(&mut $self) { $($target.reset_accumulated();)+ }
        #[inline]
        fn pool_created(&mut $self, pool: PoolId) { $($target.pool_created(pool);)+ }
        #[inline]
        fn start(&mut $self, segment: &Segment) { $($target.start(segment);)+ }
        #[inline]
        fn start_block(&mut $self, block: &StartBlock) { $($target.start_block(block);)+ }
    };
}

impl<O: Observer> Observer for &mut O {
    const WATCHES: bool = O::WATCHES;
    forward!(self => (**self));
}

impl<A: Observer, B: Observer> Observer for (A, B) {
    const WATCHES: bool = A::WATCHES || B::WATCHES;
    forward!(self => self.0, self.1);
}

/// The address of an out-of-memory event is the device's free memory: see [`crate::trace::Event`].
impl Failed {
    /// That address.
    pub fn addr(&self) -> Addr {
        Addr(self.device_free.0)
    }
}
