//! A program of one's own, as its file writes it.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnFile {
    /// What the program is called.
    #[serde(default = "own_name")]
    pub name: String,
    /// Names of numbers, for shapes and counts.
    #[serde(default)]
    pub sizes: BTreeMap<String, Size>,
    /// The tensors, by the names that phases call them by.
    #[serde(default)]
    pub tensor: BTreeMap<String, TensorFile>,
    /// What happens, in order.
    #[serde(default)]
    pub phase: Vec<PhaseFile>,
}

fn own_name() -> String {
    "own".to_owned()
}

/// A number, or a text such as `"4*width"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "a whole number, or a text such as \"4*width\"")]
pub enum Size {
    /// A number.
    Number(u64),
    /// Numbers, names, `+ - * /` and parentheses.
    Text(String),
}

/// Tensors of one kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorFile {
    /// The sides.
    #[serde(default)]
    pub shape: Vec<Size>,
    /// Instead of a shape: how many bytes.
    pub bytes: Option<Size>,
    /// `fp32`, `fp16`, `bf16`, `int64`, `int32`, `int8` or `bool`.
    pub dtype: Option<String>,
    /// What it is for.
    pub label: Option<String>,
    /// How many of them `make` makes.
    pub count: Option<Size>,
    /// On which device.
    #[serde(default)]
    pub device: u8,
    /// On which stream; 0 is the default one.
    #[serde(default)]
    pub stream: u8,
}

/// Something that happens once or again and again.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseFile {
    /// What it is called; each time it ends is a step of this name.
    pub name: String,
    /// How often.
    pub repeat: Option<Size>,
    /// What happens, in order.
    pub run: Vec<String>,
}
