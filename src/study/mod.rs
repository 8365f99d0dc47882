//! Floor 4: questions asked of replays.

pub mod message;
pub mod sizes;
pub mod timeline;
pub mod verify;
pub mod whatif;
