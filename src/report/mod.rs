//! Floor 5: doors out. Prints values, computes nothing.

pub mod compare;
pub mod estimate;
pub mod events;
pub mod explain;
pub mod explain_text;
pub mod fit;
pub mod inspect;
#[cfg(feature = "lessons")]
pub mod lesson;
pub mod message;
#[cfg(feature = "pictures")]
pub mod page;
#[cfg(feature = "pictures")]
pub mod plot;
pub mod replay;
pub mod series;
pub mod summary;
pub mod synth;
pub mod tune;
pub mod verify;

mod csv;
mod json;
mod table;

pub use csv::to_csv;
pub use json::to_json;
