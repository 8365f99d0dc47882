//! ResNet and diffusion: the scenarios' programs as the catalogue's.

use serde_json::{Map, Value};

/// The program of the catalogue, and its values, that does what a scenario's `program` does with its
/// `params`.
pub fn map(
    program: &str,
    params: &Map<String, Value>,
    _meta: &Value,
) -> Option<(&'static str, Vec<(String, String)>)> {
    let text = |name: &str| params.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut values: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: String| values.push((name.into(), value));
    for name in ["batch", "images", "steps"] {
        if let Some(value) = params.get(name) {
            set(name, value.to_string());
        }
    }
    let name = match program {
        "train_resnet" => {
            set("precision", precision(text("autocast")).into());
            "resnet"
        }
        "precision_resnet" => {
            set("precision", precision(text("kind")).into());
            set("keep_input", "true".into());
            "resnet"
        }
        "infer_resnet" => {
            set("mode", if text("mode") == "grad" { "grad" } else { "no-grad" }.into());
            let deleted = params.get("del_out").and_then(Value::as_bool).unwrap_or(false);
            set("keep_output", (!deleted).to_string());
            "resnet"
        }
        "diffusion" => {
            for side in ["height", "width"] {
                set(side, params.get("size")?.to_string());
            }
            set("attention", text("attn").replace('_', "-"));
            set("offload", text("offload").into());
            for option in ["slicing", "tiling"] {
                set(&format!("vae_{option}"), text("vae_opt").contains(option).to_string());
            }
            "diffusion"
        }
        _ => return None,
    };
    if name == "resnet" {
        // The rig's cuDNN has no convolution in bfloat16.
        set("cudnn_bf16", "false".into());
    }
    Some((name, values))
}

fn precision(kind: &str) -> &'static str {
    match kind {
        "amp_bf16" | "bf16" => "amp-bf16",
        "fp16_scaler" => "amp-fp16",
        "pure_bf16" => "bf16",
        _ => "fp32",
    }
}
