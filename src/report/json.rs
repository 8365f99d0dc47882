//! Machine-readable documents: stable keys, one line.

use serde::Serialize;

/// A document as JSON text, without a newline at its end.
pub fn to_json(document: &impl Serialize) -> String {
    // Our documents have string keys and no floats that JSON lacks.
    serde_json::to_string(document).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
}
