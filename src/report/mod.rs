//! Floor 5: doors out. Prints values, computes nothing.

pub mod events;
pub mod inspect;
pub mod message;
#[cfg(feature = "pictures")]
pub mod page;
#[cfg(feature = "pictures")]
pub mod plot;
pub mod replay;
pub mod series;
pub mod summary;
pub mod verify;

mod json;

pub use json::to_json;
