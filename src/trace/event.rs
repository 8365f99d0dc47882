//! [`Event`]: what an allocator did, in the words of PyTorch's `TraceEntry`.

use std::fmt;

use crate::base::{Addr, Bytes, PoolId, StreamHandle};

/// The kinds of trace entries.
///
/// # Source
/// `c10/core/CachingDeviceAllocator.h`, `TraceEntry::Action`; `annotate` from 2.14 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// A block was handed out; size is what was requested.
    Alloc,
    /// `free` was called; size is what was requested.
    FreeRequested,
    /// The block went back to its pool; size is what was requested.
    FreeCompleted,
    /// A segment came from `cudaMalloc`.
    SegmentAlloc,
    /// A segment went back by `cudaFree`.
    SegmentFree,
    /// A range of an expandable segment was mapped.
    SegmentMap,
    /// A range of an expandable segment was unmapped.
    SegmentUnmap,
    /// A snapshot was taken.
    Snapshot,
    /// The allocator gave up; the address is the device's free memory, the size the rounded request.
    Oom,
    /// A user's note on a live block.
    Annotate,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Alloc,
        Self::FreeRequested,
        Self::FreeCompleted,
        Self::SegmentAlloc,
        Self::SegmentFree,
        Self::SegmentMap,
        Self::SegmentUnmap,
        Self::Snapshot,
        Self::Oom,
        Self::Annotate,
    ];

    /// PyTorch's own word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alloc => "alloc",
            Self::FreeRequested => "free_requested",
            Self::FreeCompleted => "free_completed",
            Self::SegmentAlloc => "segment_alloc",
            Self::SegmentFree => "segment_free",
            Self::SegmentMap => "segment_map",
            Self::SegmentUnmap => "segment_unmap",
            Self::Snapshot => "snapshot",
            Self::Oom => "oom",
            Self::Annotate => "annotate",
        }
    }

    /// The action of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }

    /// Whether device memory came or went.
    pub const fn is_segment(self) -> bool {
        matches!(
            self,
            Self::SegmentAlloc | Self::SegmentFree | Self::SegmentMap | Self::SegmentUnmap
        )
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One trace entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Event {
    /// What happened.
    pub action: Action,
    /// Where; for [`Action::Oom`] the free bytes of the device.
    pub addr: Addr,
    /// How much: see [`Action`].
    pub size: Bytes,
    /// The stream of the block or request.
    pub stream: StreamHandle,
    /// The pool of the block or request.
    pub pool: PoolId,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action {
            Action::Oom => write!(f, "oom size {} (device free {})", self.size.0, self.addr.0)?,
            action => write!(f, "{action} {} size {}", self.addr, self.size.0)?,
        }
        if self.stream.0 != 0 {
            write!(f, " stream {}", self.stream)?;
        }
        if self.pool.is_private() {
            write!(f, " pool {}", self.pool)?;
        }
        Ok(())
    }
}
