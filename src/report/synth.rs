//! What a made-up program asks, in short.

use std::fmt::Write;

use super::replay::{LabelDocument, labels_text};
use crate::{
    base::Bytes,
    study::{labels::LabelSum, whatif::Replayed},
    trace::{Op, Trace},
};

/// One device of a program.
#[derive(Clone, Debug)]
pub struct SynthSummary {
    workload: String,
    device: u8,
    allocations: u64,
    /// Allocations between the marks of the program, and their number.
    steps: Vec<u64>,
    requested: Bytes,
    allocated: Bytes,
    reserved: Bytes,
    labels: Vec<LabelDocument>,
}

impl SynthSummary {
    /// Of a trace, the numbers of its operations at the ends of steps, and its replay.
    pub fn new(
        workload: String,
        trace: &Trace,
        ends: Vec<usize>,
        labels: Vec<LabelSum>,
        replayed: &Replayed,
    ) -> Self {
        let allocs = |ops: &[Op]| ops.iter().filter(|op| matches!(op, Op::Alloc(_))).count() as u64;
        let mut from = 0;
        let steps = ends.into_iter().filter_map(|end| {
            let step = trace.ops().get(from..end).map(allocs);
            from = end;
            step
        });
        let peak = replayed.stats.requested_bytes.all().peak;
        Self {
            workload,
            device: trace.device().0,
            allocations: allocs(trace.ops()),
            steps: steps.collect(),
            requested: Bytes(u64::try_from(peak).unwrap_or(0)),
            allocated: replayed.peak.allocated.allocated,
            reserved: replayed.peak.reserved.reserved,
            labels: labels.into_iter().map(Into::into).collect(),
        }
    }
}

/// What a person reads.
pub fn text(summary: &SynthSummary) -> String {
    let mut out = format!(
        "{} on cuda:{}: {} allocations",
        summary.workload, summary.device, summary.allocations
    );
    if let (Some(least), Some(most)) = (summary.steps.iter().min(), summary.steps.iter().max()) {
        let count = summary.steps.len();
        let each = if least == most { least.to_string() } else { format!("{least} to {most}") };
        let _ = write!(out, ", {count} steps of {each}");
    }
    out.push('\n');
    for (name, size) in [
        ("peak requested", summary.requested),
        ("peak allocated", summary.allocated),
        ("peak reserved", summary.reserved),
    ] {
        let _ = writeln!(out, "  {name:<22}{:>10}", size.to_string());
    }
    labels_text(&summary.labels, &mut out);
    out.trim_end().to_owned()
}
