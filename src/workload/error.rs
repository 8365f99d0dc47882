//! [`WorkloadError`]: why a program of these parameters cannot be.

use crate::trace::TraceError;

/// Why a workload cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadError {
    /// A parameter is out of its range, or does not go with another.
    #[error("{parameter}: {message}")]
    Parameter {
        /// The parameter's name, as the user writes it.
        parameter: String,
        /// What is wrong, and what to do.
        message: String,
    },
    /// A tensor is larger than any device.
    #[error("a {label} tensor of {shape} is larger than 2^62 bytes: choose smaller sizes")]
    TooLarge {
        /// What the tensor is for.
        label: &'static str,
        /// Its shape and type.
        shape: String,
    },
    /// The program does more than a trace should hold.
    #[error(
        "the program makes more than {limit} allocations and frees: fewer steps, layers or requests"
    )]
    TooLong {
        /// The limit.
        limit: u64,
    },
    /// The trace refuses an operation.
    #[error(transparent)]
    Trace(#[from] TraceError),
}

impl WorkloadError {
    /// A parameter that cannot be.
    pub fn parameter(parameter: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Parameter { parameter: parameter.into(), message: message.into() }
    }
}
