//! `explain`: why a request was not served, what stands in its way, and what would have helped.
//!
//! ```text
//!  Question ──► Scene (the allocator before and after the request)
//!                 ├─ free_map   what is free, where, and why it does not serve
//!                 ├─ blocking   the live blocks whose freeing would have served it
//!                 ├─ pins       which segments give most back, and who holds them
//!                 ├─ verdict    in one word, with its arithmetic
//!                 └─ remedies   what would have helped, each replayed
//! ```

mod answer;
mod blocking;
mod cover;
mod edit;
mod free_map;
mod held;
mod pins;
mod release;
mod remedies;
mod scene;
mod verdict;
mod words;

pub use crate::models::pytorch::WhyNot;
pub use answer::{Effort, Explanation, explain};
pub use blocking::{BlockingSet, Objective, Route, blocking_set};
pub use free_map::{FreeMap, FreeRow};
pub use held::Held;
pub use pins::{Pin, pins};
pub use remedies::{Change, Remedy};
pub use scene::{Origin, Question, Scene, SceneError};
pub use verdict::{Arithmetic, Failed, Verdict, verdict};
