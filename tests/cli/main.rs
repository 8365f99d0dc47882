//! The program as a user runs it.

#![expect(clippy::unwrap_used, reason = "a test's panic is its report; helpers are tests too")]
#![expect(clippy::needless_pass_by_value, reason = "a picture reads best as a value")]
#![expect(clippy::print_stdout, reason = "says which data is absent")]

mod bad_input;
mod behaviour;
mod documents;
mod explain;
mod explain_trace;
mod many;
mod packed;
mod shapes;
mod support;
mod synth;
