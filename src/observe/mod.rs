//! Floor 3: watchers. They hear what an allocator does and know no model.

mod record;
mod stats;

pub use record::Record;
pub use stats::{Columns, DeviceStats, Stat};
