//! What is in a file.

use std::fmt::Write;

use serde::Serialize;

use crate::base::Bytes;

/// What is in a file.
#[derive(Debug, Default, Serialize)]
pub struct InspectDocument {
    /// The file as given.
    pub file: String,
    /// `snapshot`, `golden case` or `trace`.
    pub kind: &'static str,
    /// The oldest and newest release that can have written it.
    pub torch: Option<[String; 2]>,
    /// Settings that it reports, as a string that can be pasted.
    pub conf: Option<String>,
    /// Each device that it holds anything of.
    pub devices: Vec<DeviceDocument>,
    /// Distinct stack frames and stacks.
    pub stacks: Option<[usize; 2]>,
    /// What is odd about it, or cannot be known from it.
    pub warnings: Vec<String>,
}

/// One device.
#[derive(Debug, Default, Serialize)]
pub struct DeviceDocument {
    /// Its ordinal.
    pub device: u8,
    /// Segments at the end, or mapped ranges.
    pub segments: usize,
    /// Bytes of all segments at the end.
    pub reserved_bytes: u64,
    /// Bytes of blocks handed out at the end.
    pub allocated_bytes: u64,
    /// Bytes freed but waiting for other streams at the end.
    pub pending_bytes: u64,
    /// Bytes in the free lists at the end.
    pub cached_bytes: u64,
    /// Blocks handed out at the end.
    pub live_blocks: usize,
    /// The largest free block at the end.
    pub largest_free_bytes: u64,
    /// Whether any segment is expandable.
    pub expandable: bool,
    /// Raw handles of the streams.
    pub streams: Vec<u64>,
    /// Private pools, with the bytes reserved for each at the end.
    pub private_pools: Vec<PoolDocument>,
    /// The history.
    pub history: Option<HistoryDocument>,
}

/// A private pool.
#[derive(Debug, Serialize)]
pub struct PoolDocument {
    /// Its id.
    pub id: [u64; 2],
    /// Bytes of its segments at the end.
    pub reserved_bytes: u64,
}

/// A history.
#[derive(Debug, Default, Serialize)]
pub struct HistoryDocument {
    /// Entries by action.
    pub entries: std::collections::BTreeMap<&'static str, u64>,
    /// Operations that they amount to.
    pub operations: usize,
    /// Whether it begins with an empty device: then it is whole.
    pub from_the_start: bool,
    /// Segments that were there before its first entry.
    pub segments_before: usize,
    /// Live blocks that were there before its first entry.
    pub blocks_before: usize,
    /// From the first to the last entry, in microseconds.
    pub duration_us: Option<i64>,
    /// Why it cannot be replayed, if it cannot.
    pub error: Option<String>,
    /// Whether that is because its entries contradict each other: the file is damaged.
    #[serde(skip)]
    pub is_contradictory: bool,
}

/// The lines that a person reads.
pub fn text(document: &InspectDocument) -> String {
    let mut text = String::new();
    let out = &mut text;
    let _ = writeln!(out, "{}: {}", document.file, document.kind);
    let mut row = |name: &str, value: String| {
        let _ = writeln!(out, "  {name:<18}{value}");
    };
    match &document.torch {
        Some([oldest, newest]) if oldest == newest => row("PyTorch", oldest.clone()),
        Some([oldest, newest]) => {
            row("PyTorch", format!("{oldest} to {newest} can have written it"));
        }
        None => {}
    }
    match document.conf.as_deref() {
        Some("") => row("settings", "defaults".into()),
        Some(conf) => row("settings", conf.into()),
        None => {}
    }
    if let Some([frames, stacks]) = document.stacks {
        row("stacks", format!("{stacks} different ones of {frames} frames"));
    }
    for device in &document.devices {
        device_text(device, &mut text);
    }
    for warning in &document.warnings {
        let _ = writeln!(text, "  note: {warning}");
    }
    text
}

fn device_text(device: &DeviceDocument, out: &mut String) {
    let _ = writeln!(out, "cuda:{}", device.device);
    let mut row = |name: &str, value: String| {
        let _ = writeln!(out, "  {name:<18}{value}");
    };
    let kind = if device.expandable { "segments or expandable ranges" } else { "segments" };
    row("reserved", format!("{} in {} {kind}", Bytes(device.reserved_bytes), device.segments));
    row("allocated", format!("{} in {} blocks", Bytes(device.allocated_bytes), device.live_blocks));
    row(
        "cached",
        format!(
            "{}, the largest block {}",
            Bytes(device.cached_bytes),
            Bytes(device.largest_free_bytes)
        ),
    );
    if device.pending_bytes > 0 {
        row("pending", format!("{} wait for other streams", Bytes(device.pending_bytes)));
    }
    if device.streams.len() > 1 {
        let streams: Vec<String> = device.streams.iter().map(|s| format!("{s:#x}")).collect();
        row("streams", streams.join(", "));
    }
    for pool in &device.private_pools {
        row(
            "private pool",
            format!("({},{}) reserves {}", pool.id[0], pool.id[1], Bytes(pool.reserved_bytes)),
        );
    }
    let Some(history) = &device.history else {
        row("history", "none".into());
        return;
    };
    let total: u64 = history.entries.values().sum();
    row("history", format!("{total} entries, {} operations", history.operations));
    let entries: Vec<String> =
        history.entries.iter().map(|(action, count)| format!("{action} {count}")).collect();
    row("", entries.join(", "));
    if let Some(duration) = history.duration_us {
        row("", format!("over {}.{:03} s", duration / 1_000_000, duration / 1000 % 1000));
    }
    if let Some(error) = &history.error {
        row("", format!("cannot be replayed: {error}"));
    } else if history.from_the_start {
        row("", "begins with an empty device: it is whole".into());
    } else {
        row(
            "",
            format!(
                "begins with {} segments and {} live blocks already there",
                history.segments_before, history.blocks_before
            ),
        );
    }
}
