//! Floor 3: the watchers. They see what an allocator tells of itself and never what it is made of.
//!
//! ```text
//!  sim ──facts──► Observer        (this floor)
//!                  └─ Check       the judge: is what was told possible at all?
//! ```

pub mod check;

pub use check::{Check, CheckRules, KnownBlock, KnownSegment, Violation};
