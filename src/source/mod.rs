//! Floor 2: doors in.
pub mod json;
pub mod snapshot;
