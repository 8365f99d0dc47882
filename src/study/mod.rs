//! Floor 4: questions asked of replays.

pub mod cards;
pub mod compare;
pub mod estimate;
pub mod explain;
pub mod figures;
pub mod fit;
pub mod grid;
pub mod labels;
pub mod message;
pub mod price;
pub mod sizes;
pub mod sweep;
pub mod timeline;
pub mod tune;
pub mod verify;
pub mod whatif;

mod copying;
mod program;
mod variants;
