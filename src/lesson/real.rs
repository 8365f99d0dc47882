//! What real programs took: the recorded runs that lessons hold popular claims against.
//!
//! `traces/lessons/scenarios.json` is made by `tests/lessons/scenarios.py` and never edited.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;

use super::expression::Value;
use crate::base::Bytes;

/// One recorded run of a real program.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealRun {
    /// The parameters of the program, as it was called.
    pub params: String,
    /// Capacity of its device.
    pub capacity: Bytes,
    /// Peak of what was asked for.
    pub requested: Bytes,
    /// Peak of what was handed out.
    pub allocated: Bytes,
    /// Peak of what was handed out or waiting.
    pub active: Bytes,
    /// Peak of the segments.
    pub reserved: Bytes,
    /// The weights.
    pub weights: Option<Bytes>,
    /// What every further step left allocated, of the last two steps.
    pub growth: Option<Bytes>,
    /// Peak of what was handed out on a second device.
    pub second_allocated: Option<Bytes>,
    /// Requests served only after everything was given back.
    pub retries: u64,
    /// `cudaMalloc` calls.
    pub cuda_malloc: u64,
    /// Whether it died of a lack of memory.
    pub oom: bool,
    /// The smallest capacity at which it survives, where that was looked for.
    pub smallest: Option<Bytes>,
}

/// A hundred lines that belong to the project: if they cannot be read, a test says so.
static RUNS: LazyLock<Result<BTreeMap<String, RealRun>, String>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../traces/lessons/scenarios.json"))
        .map_err(|error| format!("scenarios.json: {error}"))
});

impl RealRun {
    /// The run of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        RUNS.as_ref().ok()?.get(name)
    }
}

/// A figure of a recorded run.
pub(super) fn value(figure: &str, name: &str) -> Result<Value, String> {
    let runs = RUNS.as_ref().map_err(Clone::clone)?;
    let Some(run) = runs.get(name) else {
        return Err(format!(
            "scenarios.json has no run '{name}'; tests/lessons/scenarios.py makes it"
        ));
    };
    let none = || format!("nothing is known of '{figure}' of '{name}'");
    Ok(match figure {
        "requested" => Value::bytes(run.requested),
        "allocated" => Value::bytes(run.allocated),
        "active" => Value::bytes(run.active),
        "reserved" => Value::bytes(run.reserved),
        "weights" => Value::bytes(run.weights.ok_or_else(none)?),
        "growth" => Value::bytes(run.growth.ok_or_else(none)?),
        "smallest" => Value::bytes(run.smallest.ok_or_else(none)?),
        "second_allocated" => Value::bytes(run.second_allocated.ok_or_else(none)?),
        "capacity" => Value::bytes(run.capacity),
        "retries" => Value::count(run.retries),
        "cuda_malloc" => Value::count(run.cuda_malloc),
        "oom" => Value::count(u64::from(run.oom)),
        "survives" => Value::count(u64::from(!run.oom)),
        other => return Err(format!("there is no figure '{other}' of recorded runs")),
    })
}
