//! Messages without any figure: `RuntimeError: CUDA error: out of memory`. As the words alone are
//! said in many places, they count only where an exception is printed: at the end of a line or of a
//! string, behind a class name, or alone on the line.

use std::sync::LazyLock;

use regex::Regex;

use super::clean::Line;
use crate::trace::{Backend, MessageFigures, MessageHints, MessageLayout, OomMessage};

static BARE: LazyLock<Regex> = LazyLock::new(|| {
    let class = r"(?:[A-Za-z_.]*(?:RuntimeError|AcceleratorError|OutOfMemoryError|CUDAError)|what\(\)|Exception)\s*:\s*";
    let error =
        r"(?P<driver>(?P<api>CUDA|HIP|cuda|hip|XPU|NPU)(?: driver| runtime)? error: out of memory)";
    let own = r"(?P<own>(?P<device>CUDA|HIP|XPU|NPU) out of memory\.?)";
    let end = r#"\s*(?:$|["']\s*[,}\])]*\s*$|["']\s*[,}]|CUDA kernel errors|HIP kernel errors|Compile with|Search for|\(\w+ at )"#;
    let text = format!(
        r#"(?:^[\s>]*(?:\[[^\]]{{0,40}}\]:?\s*)*|:\s*"|(?P<class>{class}))(?:{error}|{own}){end}"#
    );
    Regex::new(&text).expect("a constant that every test of this module compiles")
});

/// The message that ends this line, with the place of its first byte in the line.
pub(super) fn message(line: &Line) -> Option<(usize, OomMessage)> {
    // The words must be there at all: most lines are none.
    if !line.text.contains("out of memory") {
        return None;
    }
    let found = BARE.captures(&line.text)?;
    let words = found.name("driver").or(found.name("own"))?;
    let is_driver = found.name("driver").is_some();
    if !is_driver && found.name("class").is_none() {
        return None;
    }
    let name = found.name("api").or(found.name("device")).map_or("", |name| name.as_str());
    let backend = match name {
        "HIP" | "hip" => Backend::Hip,
        "XPU" => Backend::Xpu,
        "NPU" => Backend::Npu,
        _ => Backend::Cuda,
    };
    let layout = if is_driver { MessageLayout::DriverError } else { MessageLayout::Cut };
    let message = OomMessage {
        backend,
        layout,
        torch: None,
        device: None,
        figures: MessageFigures::default(),
        hints: MessageHints::default(),
        tensor: None,
    };
    Some((words.start(), message))
}

#[cfg(test)]
mod tests {
    use super::{super::clean::clean, *};

    fn is_one(line: &str) -> bool {
        clean(line.as_bytes()).1.iter().any(|line| message(line).is_some())
    }

    #[test]
    fn an_exception_is_one() {
        for line in [
            "RuntimeError: CUDA error: out of memory",
            "CUDA error: out of memory",
            "torch.AcceleratorError: CUDA error: out of memory",
            "E 12:00 worker died: RuntimeError: CUDA error: out of memory",
            "  what():  CUDA error: out of memory",
            r#"{"msg": "RuntimeError: CUDA error: out of memory"}"#,
            r"RuntimeError: CUDA error: out of memory\nCUDA kernel errors might be",
            "RuntimeError: CUDA error: out of memory (exchangeDevice at /pytorch/c10)",
            "RuntimeError: HIP error: out of memory",
            "RuntimeError: CUDA driver error: out of memory",
            "RuntimeError: CUDA out of memory.",
        ] {
            assert!(is_one(line), "{line}");
        }
    }

    #[test]
    fn talk_of_one_is_none() {
        for line in [
            "If you see CUDA error: out of memory, use a smaller batch",
            "CUDA out of memory",
            r#"if "CUDA error: out of memory" in str(e):"#,
            "except RuntimeError: # CUDA error: out of memory happens here",
            "avoid CUDA error: out of memory by calling empty_cache()",
        ] {
            assert!(!is_one(line), "{line}");
        }
    }
}
