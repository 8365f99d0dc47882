//! The programs: each a struct of parameters and what it does with them.

pub mod adversarial;
mod catalogue;
pub mod convert;
pub mod cuda_graphs;
mod decoder;
pub mod diffusion;
mod draws;
pub mod fsdp;
pub mod gpt;
pub mod kv_cache;
pub mod leaks;
pub mod llama;
pub mod llama_train;
pub mod lora;
pub mod moe;
pub mod offload;
pub mod quantised;
pub mod resnet;
pub mod rlhf;
pub mod serve;

pub use catalogue::{Entry, Preset, catalogue};

use super::{Parameters, WorkloadError, torch::Torch};

/// A program that can be run.
pub trait Workload: Parameters {
    /// Number of devices that it needs.
    fn devices(&self) -> u8 {
        1
    }

    /// Checks the parameters, one by one and together.
    ///
    /// # Errors
    /// When the program cannot be: names the parameter.
    fn check(&self) -> Result<(), WorkloadError>;

    /// Runs it: every tensor it makes is an operation of the trace.
    ///
    /// # Errors
    /// When it is too large or too long.
    fn run(&self, t: &Torch) -> Result<(), WorkloadError>;
}
