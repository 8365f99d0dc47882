//! Levels over time for other programs: CSV, JSON, and the trace events that Perfetto and
//! `chrome://tracing` open.

use std::io::{self, Write};

use serde_json::json;

use super::replay::ReplayDocument;
use crate::{
    base::Bytes,
    observe::{Bucket, Levels, Lives, MarkKind, NEVER},
    study::{labels::LabelSeries, timeline::Timeline},
};

/// The names that `torch.cuda.memory_stats()` gives the levels.
const NAMES: [&str; 6] = [
    "requested_bytes.all",
    "allocated_bytes.all",
    "active_bytes.all",
    "reserved_bytes.all",
    "allocation.all",
    "segment.all",
];

fn values(levels: &Levels) -> [u64; 6] {
    [
        levels.requested.0,
        levels.allocated.0,
        levels.active.0,
        levels.reserved.0,
        levels.allocations,
        levels.segments,
    ]
}

/// One row for each bucket: its first and last operation, each level after the last of them
/// (`.current`), its least and its most within (`.min`, `.max`), and how often the device was asked
/// again and a request failed. Where the trace has labels, also what was asked for of each, when that
/// is most together (`label.NAME`).
///
/// # Errors
/// When `out` does.
pub fn csv(timeline: &Timeline, out: &mut impl Write) -> io::Result<()> {
    let (series, labels) = (&timeline.memory, &timeline.labels);
    write!(out, "first_op,last_op")?;
    for name in NAMES {
        write!(out, ",{name}.current,{name}.min,{name}.max")?;
    }
    write!(out, ",num_alloc_retries,num_ooms")?;
    for name in &labels.names {
        write!(out, ",{}", field(&format!("label.{name}")))?;
    }
    writeln!(out)?;
    for (i, bucket) in series.buckets().iter().enumerate() {
        write!(out, "{},{}", bucket.first, bucket.last)?;
        let [end, min, max] = [&bucket.end, &bucket.min, &bucket.max].map(values);
        for ((end, min), max) in end.iter().zip(min).zip(max) {
            write!(out, ",{end},{min},{max}")?;
        }
        write!(out, ",{},{}", bucket.retries, bucket.ooms)?;
        for bytes in labels.rows.get(i).into_iter().flatten() {
            write!(out, ",{bytes}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// A name as a field of a table.
fn field(name: &str) -> String {
    if name.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", name.replace('"', "\"\""))
    } else {
        name.to_owned()
    }
}

/// The same as one JSON document: the keys of `replay`, and `series`.
///
/// # Errors
/// When `out` does.
pub fn json(
    document: &ReplayDocument,
    timeline: &Timeline,
    out: &mut impl Write,
) -> io::Result<()> {
    let buckets = timeline.memory.buckets().iter().enumerate();
    let rows: Vec<_> = buckets.map(|(i, bucket)| row(bucket, i, &timeline.labels)).collect();
    let value = json!({
        "file": document.file,
        "device": document.device,
        "torch": document.torch,
        "conf": document.conf,
        "capacity": document.capacity,
        "series": rows,
    });
    serde_json::to_writer(&mut *out, &value)?;
    out.write_all(b"\n")
}

fn row(bucket: &Bucket, i: usize, labels: &LabelSeries) -> serde_json::Value {
    let mut row = serde_json::Map::new();
    row.insert("first_op".into(), bucket.first.0.into());
    row.insert("last_op".into(), bucket.last.0.into());
    for (kind, levels) in [("current", &bucket.end), ("min", &bucket.min), ("max", &bucket.max)] {
        for (name, value) in NAMES.iter().zip(values(levels)) {
            row.insert(format!("{name}.{kind}"), value.into());
        }
    }
    row.insert("num_alloc_retries".into(), bucket.retries.into());
    row.insert("num_ooms".into(), bucket.ooms.into());
    for (name, bytes) in labels.names.iter().zip(labels.rows.get(i).into_iter().flatten()) {
        row.insert(format!("label.{name}"), (*bytes).into());
    }
    row.into()
}

/// Trace events: a counter for each level, a slice for each segment, a mark for each retry and failure.
/// One operation is a microsecond.
///
/// # Errors
/// When `out` does.
pub fn trace_events(
    document: &ReplayDocument,
    timeline: &Timeline,
    out: &mut impl Write,
) -> io::Result<()> {
    let pid = document.device;
    let name = format!("cuda:{pid} {}", document.conf);
    write!(out, "{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
    let head = json!({"ph": "M", "pid": pid, "name": "process_name", "args": {"name": name}});
    write!(out, "{head}")?;
    for bucket in timeline.memory.buckets() {
        counters(pid, bucket, out)?;
    }
    for stretch in timeline.fragmentation.stretches() {
        let sample = stretch.scattered[1];
        let args = json!({"largest": sample.largest_free.0, "scattered": sample.scattered().0});
        let event = json!({"ph": "C", "pid": pid, "ts": sample.op.0, "name": "free", "args": args});
        write!(out, ",\n{event}")?;
    }
    segments(pid, &timeline.lives, document.ops, out)?;
    for mark in &timeline.lives.marks {
        let (name, args) = match mark.kind {
            MarkKind::Oom { size, device_free } => {
                ("out of memory", json!({"size": size.0, "device_free": device_free.0}))
            }
            MarkKind::Retry => ("retry", json!({})),
        };
        let event = json!({
            "ph": "i", "s": "p", "pid": pid, "ts": mark.time, "name": name, "args": args,
        });
        write!(out, ",\n{event}")?;
    }
    for failure in document.recorded_failures.iter().filter(|failure| !failure.served) {
        let args = json!({"size": failure.requested_bytes});
        let event = json!({
            "ph": "i", "s": "p", "pid": pid, "ts": failure.op, "name": "out of memory", "args": args,
        });
        write!(out, ",\n{event}")?;
    }
    out.write_all(b"\n]}\n")
}

/// The levels that a bucket ends with, and the most of each before that.
fn counters(pid: u8, bucket: &Bucket, out: &mut impl Write) -> io::Result<()> {
    let mut points = vec![(bucket.last.0 + 1, &bucket.end)];
    if bucket.first < bucket.last {
        points.insert(0, (bucket.first.0 + 1, &bucket.max));
    }
    for (time, levels) in points {
        let parts = [
            ("requested", levels.requested),
            ("allocated", levels.allocated),
            ("active", levels.active),
            ("reserved", levels.reserved),
        ];
        for (name, Bytes(bytes)) in parts {
            let args = json!({ "bytes": bytes });
            let event = json!({"ph": "C", "pid": pid, "ts": time, "name": name, "args": args});
            write!(out, ",\n{event}")?;
        }
    }
    Ok(())
}

fn segments(pid: u8, lives: &Lives, end: u64, out: &mut impl Write) -> io::Result<()> {
    for (id, segment) in lives.segments.iter().enumerate() {
        let half = if segment.place.is_small { "small" } else { "large" };
        let kind = if segment.place.is_expandable { "range" } else { "segment" };
        let died = if segment.died == NEVER { end } else { u64::from(segment.died) };
        let args = json!({
            "address": segment.span.start.to_string(),
            "bytes": segment.span.size.0,
            "stream": segment.place.stream.to_string(),
            "pool": segment.place.pool.to_string(),
        });
        let name = format!("{half} {kind} {}", segment.span.size);
        for (phase, time) in [("b", u64::from(segment.born)), ("e", died)] {
            let event = json!({
                "ph": phase, "cat": "segment", "id": id, "pid": pid, "tid": 0, "ts": time,
                "name": name, "args": args,
            });
            write!(out, ",\n{event}")?;
        }
    }
    Ok(())
}
