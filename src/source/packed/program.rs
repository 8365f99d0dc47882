//! Traces that no recording is behind, packed: each as JSON lines, with its labels.

use super::{PackError, PackedFault as Fault};
use crate::{source::json, trace::Trace};

/// The body: the JSON lines of each trace.
///
/// # Errors
/// When a trace holds a number that JSON has no word for.
pub(super) fn encode(traces: &[Trace]) -> Result<Vec<u8>, PackError> {
    let lines = |trace: &Trace| {
        let mut bytes = Vec::new();
        json::write(trace, &mut bytes).map_err(PackError::Compress)?;
        Ok(bytes)
    };
    let files: Vec<Vec<u8>> = traces.iter().map(lines).collect::<Result<_, _>>()?;
    Ok(bitcode::encode(&files))
}

pub(super) fn decode(body: &[u8]) -> Result<Vec<Trace>, Fault> {
    let damaged = |what: String| Fault::Damaged { at: super::HEAD as u64, what };
    let files: Vec<Vec<u8>> = bitcode::decode(body).map_err(|error| damaged(error.to_string()))?;
    let mut traces: Vec<Trace> = Vec::with_capacity(files.len());
    for file in files {
        let trace = json::read(file.as_slice()).map_err(|error| damaged(error.to_string()))?;
        if traces.last().is_some_and(|before| before.device() >= trace.device()) {
            return Err(Fault::Contents("the order of devices"));
        }
        traces.push(trace);
    }
    Ok(traces)
}
