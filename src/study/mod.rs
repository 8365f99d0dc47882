//! Floor 4: questions asked of replays.

pub mod verify;
pub mod whatif;
