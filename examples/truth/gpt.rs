//! Which workload is which real program: GPT-like models.

use serde_json::{Map, Value};

/// The workload and its values that answer to a real program.
pub fn map(
    program: &str,
    params: &Map<String, Value>,
    _meta: &Value,
) -> Option<(&'static str, Vec<(String, String)>)> {
    if program != "precision_gpt" {
        return None;
    }
    let autocast = match params.get("kind")?.as_str()? {
        "fp32" => "fp32",
        "amp_bf16" => "bf16",
        _ => return None,
    };
    let names = [
        ("layers", "layers"),
        ("d", "width"),
        ("h", "heads"),
        ("batch", "batch"),
        ("seq", "seq"),
        ("steps", "steps"),
    ];
    let mut values = vec![("autocast".to_owned(), autocast.to_owned())];
    for (real, ours) in names {
        values.push((ours.to_owned(), params.get(real)?.to_string()));
    }
    Some(("train", values))
}
