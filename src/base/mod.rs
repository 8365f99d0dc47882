//! Floor 0: words and numbers. Knows nothing of traces or allocators.

mod addr;
mod byte_range;
mod bytes;
mod ids;
mod near;
mod table;

pub use addr::{Addr, Span};
pub use byte_range::ByteRange;
pub use bytes::{Bytes, ParseBytesError};
pub use ids::{
    AllocId, BlockId, DeviceIndex, ExpandableId, OpIndex, PoolId, Release, RunId, StreamHandle,
    StreamId,
};
pub use ids::{ParseReleaseError, RELEASES};
pub use near::near;
pub use table::{Id, Table};
