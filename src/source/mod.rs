//! Floor 2: doors in.
pub mod snapshot;
