//! Sharded training, caches of keys and values, weight conversion, CUDA graphs.

use serde_json::{Map, Value};

type Program = (&'static str, Vec<(String, String)>);

/// The catalogue's name and values for a recorded program of these families.
pub fn map(program: &str, params: &Map<String, Value>, meta: &Value) -> Option<Program> {
    match program {
        "fsdp" => {
            let mut values = named(params, &[("d", "width"), ("h", "heads")]);
            if meta["events"] == "manual" {
                values.push(("pace".into(), "late".into()));
            }
            Some(("fsdp", values))
        }
        "kv_cache" => {
            let names = [
                ("d", "width"),
                ("h", "heads"),
                ("lo", "prompt_min"),
                ("hi", "prompt_max"),
                ("new_lo", "new_min"),
                ("new_hi", "new_max"),
            ];
            let mut values = named(params, &names);
            // Python drew them: its numbers, not its seed.
            let column = |i: usize| {
                let requests = meta["requests"].as_array()?;
                let numbers = requests.iter().map(|request| request[i].to_string());
                Some(numbers.collect::<Vec<_>>().join(","))
            };
            values.push(("prompts".into(), column(0)?));
            values.push(("new".into(), column(1)?));
            Some(("kv-cache", values))
        }
        "convert_weights" => Some(("convert", named(params, &[]))),
        "cuda_graphs" => {
            let mut values = named(params, &[("d", "width"), ("h", "heads")]);
            values.push(("vocab".into(), "32000".into()));
            values.push(("context".into(), "1024".into()));
            Some(("cuda-graphs", values))
        }
        _ => None,
    }
}

/// Parameters under the catalogue's names.
fn named(params: &Map<String, Value>, names: &[(&str, &str)]) -> Vec<(String, String)> {
    let name =
        |of: &str| names.iter().find(|(old, _)| *old == of).map_or(of, |(_, new)| *new).into();
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(Value::to_string).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    };
    params.iter().map(|(of, value)| (name(of), text(value))).collect()
}
