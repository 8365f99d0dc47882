//! Floor 3.
pub mod pytorch;
