//! Floor 1: what a program *asked* ([`Op`]), where it *started* ([`Layout`]), and what an allocator
//! *did* ([`Event`]).
//!
//! ```text
//!  asked:   a = alloc 3MiB        free a              (Op, one device)
//!  did:     segment_alloc alloc   free_requested …    (Event, PyTorch's own nine actions)
//!  started: [20MiB large | a 3MiB | . 17MiB]          (Layout)
//! ```
//! A trace is of one device: PyTorch's allocator has one independent instance for each.

mod builder;
mod case;
mod event;
mod events;
mod labels;
mod layout;
mod oom;
mod oom_message;
mod op;
mod recording;
pub mod script;

pub use builder::{MAX_PRIVATE_POOLS, TraceBuilder, TraceError};
pub use case::{Answer, Asked, Case, CaseAddresses, CaseSetup, CaseStep, Query};
pub use event::{Action, Event};
pub use events::{Events, Place};
pub use labels::Labels;
pub use layout::{BlockLayout, BlockState, Layout, SegmentLayout};
pub use oom::{Oom, OomHint, ProcessUse};
pub use oom_message::{
    Backend, Layout as MessageLayout, MessageFigures, MessageHints, OomMessage, TensorShape,
};
pub use op::{AllocOp, Control, ControlId, EventMode, FreeOp, Op, PoolIndex};
pub use recording::{Recorded, RecordedSettings, Stream, Trace, VanishedSegment};
