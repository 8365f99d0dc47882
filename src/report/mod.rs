//! Floor 5: doors out. Prints values, computes nothing.

pub mod events;
pub mod explain;
pub mod explain_text;
pub mod inspect;
pub mod message;
pub mod replay;
pub mod summary;
pub mod verify;

mod json;

pub use json::to_json;
