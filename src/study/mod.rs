//! Floor 4: questions asked of replays.

pub mod explain;
pub mod message;
pub mod verify;
pub mod whatif;
