//! Which workload is which real program, family by family.

#[path = "conv.rs"]
pub mod conv;
#[path = "gpt.rs"]
pub mod gpt;
#[path = "llama.rs"]
pub mod llama;
#[path = "serving.rs"]
pub mod serving;

use serde_json::{Map, Value};

/// A workload and values for its parameters.
pub type Mapped = (&'static str, Vec<(String, String)>);

/// One family's map: the program, its parameters, the whole run.
type OfFamily = fn(&str, &Map<String, Value>, &Value) -> Option<Mapped>;

/// The workload that answers to a run, if there is one.
pub fn map(meta: &Value) -> Option<Mapped> {
    let program = meta.get("program")?.as_str()?;
    let params = meta.get("params")?.as_object()?;
    let maps: [OfFamily; 4] = [gpt::map, llama::map, serving::map, conv::map];
    maps.iter().find_map(|map| map(program, params, meta))
}
