//! Which workload is which real program, family by family.

#[path = "gpt.rs"]
pub mod gpt;

use serde_json::{Map, Value};

/// A workload and values for its parameters.
pub type Mapped = (&'static str, Vec<(String, String)>);

/// The workload that answers to a run, if there is one.
pub fn map(meta: &Value) -> Option<Mapped> {
    let program = meta.get("program")?.as_str()?;
    let params = meta.get("params")?.as_object()?;
    let maps: [fn(&str, &Map<String, Value>, &Value) -> Option<Mapped>; 1] = [gpt::map];
    maps.iter().find_map(|map| map(program, params, meta))
}
