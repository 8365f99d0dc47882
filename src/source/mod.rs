//! Floor 2: doors in. They know files and make traces; they know no allocator.

mod beside;
pub mod golden;
pub mod input;
pub mod json;
pub mod message;
pub mod packed;
pub mod snapshot;
