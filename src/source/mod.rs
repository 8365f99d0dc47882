//! Floor 2: doors in.
pub mod input;
pub mod snapshot;
