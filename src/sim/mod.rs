//! Floor 2: the machinery that every model shares.
//!
//! ```text
//!             asks                          reports
//!  replay ───────────► Allocator ─────────────────────► Observer
//!                       │     │
//!         BlockArena ◄──┘     └──► Device (memory), StreamClock (events)
//!         FreeIndex
//! ```

mod allocator;
mod block;
mod clock;
mod device;
mod flat_hash;
mod free_index;
mod observer;
mod replay;

pub use allocator::{AllocError, Allocator};
pub use block::{Block, BlockArena, BlockDetails, BlockView, Side};
pub use clock::{Event as StreamEvent, StreamClock};
pub use device::{
    AddressPolicy, CapacityLevels, Device, DeviceCalls, DeviceConfig, RecordedCall,
    SegmentAddresses,
};
pub use flat_hash::{FlatHash, FlatKey};
pub use free_index::{Found, FreeBlocks, FreeIndex, FreeKey, FreeLinks};
pub use observer::StartBlock;
pub use observer::{Allocated, Failed, FreeCompleted, FreeRequested, Observer, Place, Segment};
pub use replay::{OnOom, Outcome, StoppedBy, replay, replay_op, replay_range};
