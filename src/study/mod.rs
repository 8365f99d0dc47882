//! Floor 4: questions asked of replays.

pub mod message;
pub mod figures;
pub mod grid;
pub mod verify;
pub mod whatif;

mod program;
