//! Floor 4: questions asked of replays.

pub mod message;
pub mod cards;
pub mod compare;
pub mod figures;
pub mod fit;
pub mod grid;
pub mod price;
pub mod sweep;
pub mod tune;
pub mod verify;
pub mod whatif;

mod program;
mod variants;
