//! Floor 3: the watchers. They see what an allocator tells of itself and never what it is made of.
//!
//! ```text
//!  sim ──facts──► Observer        (this floor)
//!                  ├─ Record      every event, as PyTorch's history
//!                  ├─ Count       how many of them
//!                  ├─ Peak        the worst moments
//!                  ├─ MemorySeries  requested, allocated, active, reserved over time
//!                  ├─ Lives       from when to when each block and segment is there
//!                  ├─ FragmentationSeries  free, largest free block, … over time
//!                  ├─ StatsTally  every number of memory_stats(), as DeviceStats
//!                  └─ Check       the judge: is what was told possible at all?
//! ```

pub mod check;
pub mod fragmentation;

mod count;
mod fragmentation_series;
mod lives;
mod peak;
mod record;
mod series;
mod stats;

pub use check::{Check, CheckRules, KnownBlock, KnownSegment, Violation};
pub use count::Count;
pub use fragmentation::Fragmentation;
pub use fragmentation_series::{FragmentationSeries, Sample, Stretch};
pub use lives::{BlockLife, Lives, Mark, MarkKind, NEVER, SegmentLife};
pub use peak::{Moment, Peak};
pub use record::Record;
pub use series::{Bucket, Levels, MemorySeries};
pub use stats::{Columns, DeviceStats, Stat, StatsTally};
