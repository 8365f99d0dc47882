//! Programs that never ran on a GPU, from the formulas of their operators: what they ask of the
//! allocator, in which order, and when they let go of it.
//!
//! [`torch`] is a small eager PyTorch without numbers. A tensor in it is a size with an owner: it is
//! allocated where the operator would allocate, and freed when its last reference goes, as in Python.
//! Autograd keeps what the real one keeps and runs backward in the same order. So a program is
//! written as its Python is, and its allocations follow.

mod error;
mod label;
pub mod own;
mod parameter;
pub mod programs;
mod run;
pub mod torch;

pub use error::WorkloadError;
pub use label::Label;
pub use parameter::{Parameter, Parameters, Value, in_range};
pub use programs::{Workload, catalogue};
pub use run::{Synthesized, find, set, synthesize};
