//! What a replay came to, for people and for programs.

use std::{collections::BTreeMap, fmt::Write};

use serde::Serialize;

use crate::{
    base::Bytes,
    observe::Moment,
    sim::{AllocError, DeviceCalls, OnOom},
    study::{
        labels::LabelSum,
        whatif::{AskedAgain, Replayed, Terms},
    },
};

/// A replay of one device.
#[derive(Debug, Serialize)]
pub struct ReplayDocument {
    /// The file as given.
    pub file: String,
    /// The device.
    pub device: u8,
    /// The release whose rules were applied.
    pub torch: String,
    /// The settings, as a string that can be pasted.
    pub conf: String,
    /// Capacity in bytes; `null` where none was given or known: nothing is refused then.
    pub capacity: Option<u64>,
    /// Whether every operation was done without a failure.
    pub completed: bool,
    /// Operations done, the failing one included.
    pub ops: u64,
    /// Operations that the program has.
    pub ops_total: u64,
    /// Entries that the history would have.
    pub events: u64,
    /// The first request that failed.
    pub oom: Option<OomDocument>,
    /// How many requests failed.
    pub failures: u32,
    /// Requests that failed when the trace was recorded. They are not part of the replay; this is
    /// what would become of them.
    pub recorded_failures: Vec<RecordedFailure>,
    /// The moments when most was handed out, most was reserved, and most was stranded: reserved but
    /// not handed out while a request had to go to the device.
    pub worst: WorstDocument,
    /// How often the driver was called.
    pub device_calls: DeviceCalls,
    /// The numbers of `torch.cuda.memory_stats()`, by its keys.
    pub stats: BTreeMap<String, i64>,
    /// What is live by label when most is handed out, where the trace has labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<LabelDocument>,
    /// What cannot be known, or was assumed.
    pub notes: Vec<String>,
    /// The table of `torch.cuda.memory_summary()`, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Seconds, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timing: Option<TimingDocument>,
}

/// Seconds of loading, and of each replay.
#[derive(Debug, Serialize)]
pub struct TimingDocument {
    /// From opening the file to the operations.
    pub load_s: f64,
    /// Each replay.
    pub replay_s: Vec<f64>,
}

/// A failed request.
#[derive(Debug, Serialize)]
pub struct OomDocument {
    /// The operation, counted from 0 among those of the program.
    pub op: u64,
    /// PyTorch's own message.
    pub message: String,
    /// What was asked, in bytes.
    pub requested_bytes: Option<u64>,
    /// The segment that it would have needed, in bytes.
    pub segment_bytes: Option<u64>,
    /// Bytes handed out.
    pub allocated_bytes: Option<u64>,
    /// Bytes of all segments.
    pub reserved_bytes: Option<u64>,
    /// Free bytes of the device.
    pub device_free_bytes: Option<u64>,
    /// Whether it is an out-of-memory error; otherwise another error of the allocator.
    pub is_oom: bool,
}

/// A request that failed when it was recorded.
#[derive(Debug, Serialize)]
pub struct RecordedFailure {
    /// The operation before which it was asked.
    pub op: u64,
    /// What was asked, in bytes, rounded as the history has it.
    pub requested_bytes: u64,
    /// Whether it would be served now.
    pub served: bool,
    /// PyTorch's message if not.
    pub message: Option<String>,
}

/// The allocations of one label.
#[derive(Clone, Debug, Serialize)]
pub struct LabelDocument {
    /// The label.
    pub label: String,
    /// Bytes asked for and live when most is handed out.
    pub requested_bytes: u64,
    /// How many allocations they are.
    pub allocations: u64,
    /// Most bytes live up to then.
    pub requested_bytes_peak: u64,
}

impl From<LabelSum> for LabelDocument {
    fn from(sum: LabelSum) -> Self {
        Self {
            label: sum.label,
            requested_bytes: sum.live.0,
            allocations: sum.count,
            requested_bytes_peak: sum.peak.0,
        }
    }
}

/// Three moments.
#[derive(Debug, Serialize)]
pub struct WorstDocument {
    /// Most bytes handed out.
    pub allocated: MomentDocument,
    /// Most bytes reserved.
    pub reserved: MomentDocument,
    /// Most bytes reserved but not handed out while a request had to go to the device.
    pub stranded: MomentDocument,
}

/// A moment.
#[derive(Debug, Serialize)]
pub struct MomentDocument {
    /// The operation.
    pub op: u32,
    /// Bytes handed out.
    pub allocated_bytes: u64,
    /// Bytes reserved.
    pub reserved_bytes: u64,
}

impl From<Moment> for MomentDocument {
    fn from(moment: Moment) -> Self {
        Self {
            op: moment.op.0,
            allocated_bytes: moment.allocated.0,
            reserved_bytes: moment.reserved.0,
        }
    }
}

/// What a document says beside the replay itself.
#[derive(Debug)]
pub struct Heading {
    /// The file as given.
    pub file: String,
    /// The settings as text.
    pub conf: String,
    /// The capacity, if there is one.
    pub capacity: Option<Bytes>,
    /// Operations that the program has.
    pub ops_total: u64,
    /// What cannot be known, or was assumed.
    pub notes: Vec<String>,
}

impl ReplayDocument {
    /// The document of one replay.
    pub fn new(heading: Heading, device: u8, terms: &Terms, replayed: &Replayed) -> Self {
        let failure = replayed.outcome.first_failure.as_ref();
        let op = replayed.first_failure_asked.unwrap_or(replayed.asked.saturating_sub(1));
        Self {
            file: heading.file,
            device,
            torch: terms.release.to_string(),
            conf: heading.conf,
            capacity: heading.capacity.map(|capacity| capacity.0),
            completed: replayed.outcome.completed,
            ops: replayed.asked,
            ops_total: heading.ops_total,
            events: replayed.events,
            oom: failure.map(|failure| {
                OomDocument::new(op, failure.asked.map(|asked| asked.size), &failure.error)
            }),
            failures: replayed.outcome.failures,
            recorded_failures: replayed.asked_again.iter().map(recorded_failure).collect(),
            worst: WorstDocument {
                allocated: replayed.peak.allocated.into(),
                reserved: replayed.peak.reserved.into(),
                stranded: replayed.peak.stranded.into(),
            },
            device_calls: replayed.calls,
            stats: replayed.stats.flat(terms.release),
            labels: Vec::new(),
            notes: heading.notes,
            summary: None,
            timing: None,
        }
    }
}

fn recorded_failure(again: &AskedAgain) -> RecordedFailure {
    RecordedFailure {
        op: u64::from(again.op.0),
        requested_bytes: again.asked.size.0,
        served: again.error.is_none(),
        message: again.error.as_ref().map(ToString::to_string),
    }
}

impl OomDocument {
    fn new(op: u64, asked: Option<Bytes>, error: &AllocError) -> Self {
        let oom = match error {
            AllocError::Oom(oom) => Some(oom),
            AllocError::Refused(_) | AllocError::Failed(_) => None,
        };
        Self {
            op,
            message: error.to_string(),
            requested_bytes: asked.map(|asked| asked.0),
            segment_bytes: oom.map(|oom| oom.requested.0),
            allocated_bytes: oom.map(|oom| oom.allocated.0),
            reserved_bytes: oom.map(|oom| oom.reserved.0),
            device_free_bytes: oom.map(|oom| oom.free.0),
            is_oom: error.is_oom(),
        }
    }
}

fn share(part: u64, whole: u64) -> String {
    format!("{:.1} %", 100.0 * Bytes(part).ratio(Bytes(whole)))
}

/// The lines that a person reads.
pub fn text(document: &ReplayDocument, on_oom: OnOom) -> String {
    let mut text = String::new();
    let out = &mut text;
    let stat = |key: &str| document.stats.get(key).copied().unwrap_or(0);
    let bytes = |key: &str| Bytes(u64::try_from(stat(key)).unwrap_or(0));
    let _ =
        write!(out, "{} on cuda:{}, PyTorch {}", document.file, document.device, document.torch);
    let capacity = document.capacity.map_or_else(
        || "no capacity limit".to_owned(),
        |capacity| format!("capacity {}", Bytes(capacity)),
    );
    let conf = if document.conf.is_empty() { "default settings" } else { &document.conf };
    let _ = writeln!(out, ", {capacity}, {conf}");
    let _ = writeln!(out);
    outcome_text(document, on_oom, out);
    let peak = |family: &str| bytes(&format!("{family}.all.peak"));
    let allocated = peak("allocated_bytes");
    let reserved = peak("reserved_bytes");
    let rows = [
        ("peak allocated", format!("{allocated} at operation {}", document.worst.allocated.op)),
        ("peak active", peak("active_bytes").to_string()),
        ("peak reserved", format!("{reserved} at operation {}", document.worst.reserved.op)),
        (
            "overhead at the peaks",
            format!(
                "{} reserved beyond the peak of allocated ({})",
                reserved.saturating_sub(allocated),
                share(reserved.saturating_sub(allocated).0, reserved.0)
            ),
        ),
        ("worst fragmentation", {
            let worst = &document.worst.stranded;
            let stranded = worst.reserved_bytes.saturating_sub(worst.allocated_bytes);
            format!(
                "{} of {} reserved could not serve operation {} ({})",
                Bytes(stranded),
                Bytes(worst.reserved_bytes),
                worst.op,
                share(stranded, worst.reserved_bytes)
            )
        }),
        ("retries", stat("num_alloc_retries").to_string()),
        ("device calls", calls_text(document.device_calls)),
        ("history entries", document.events.to_string()),
    ];
    for (name, value) in rows {
        let _ = writeln!(out, "  {name:<22}{value}");
    }
    labels_text(&document.labels, out);
    for note in &document.notes {
        let _ = writeln!(out, "  note: {note}");
    }
    text
}

/// What is live when most is handed out, the largest first.
pub(super) fn labels_text(labels: &[LabelDocument], out: &mut String) {
    let mut labels: Vec<&LabelDocument> = labels.iter().filter(|l| l.allocations > 0).collect();
    labels.sort_by_key(|label| std::cmp::Reverse(label.requested_bytes));
    for (i, label) in labels.iter().enumerate() {
        let name = if i == 0 { "of the peak allocated" } else { "" };
        let size = Bytes(label.requested_bytes).to_string();
        let _ = writeln!(
            out,
            "  {name:<22}{size:>10} {} ({} allocations)",
            label.label, label.allocations
        );
    }
}

fn outcome_text(document: &ReplayDocument, on_oom: OnOom, out: &mut String) {
    let (ops, total) = (document.ops, document.ops_total);
    for failure in &document.recorded_failures {
        let (op, size) = (failure.op, Bytes(failure.requested_bytes));
        let _ = match &failure.message {
            Some(message) => writeln!(
                out,
                "OUT OF MEMORY before operation {op}, as in the recording: the request of {size} fails again\n  {}",
                message.trim_end()
            ),
            None => writeln!(
                out,
                "SERVED now: the request of {size} before operation {op}, which failed in the recording"
            ),
        };
    }
    let others = if document.recorded_failures.is_empty() { "" } else { " other" };
    match &document.oom {
        None if ops == total => {
            let _ = writeln!(out, "completed: all {ops}{others} operations were served");
        }
        None => {
            let _ =
                writeln!(out, "stopped before operation {ops} of {total}: all{others} were served");
        }
        Some(oom) => {
            let kind = if oom.is_oom { "OUT OF MEMORY" } else { "ERROR" };
            let _ = writeln!(out, "{kind} at operation {} of {total}", oom.op);
            let _ = writeln!(out, "  {}", oom.message.trim_end());
            if on_oom == OnOom::Skip {
                let _ = writeln!(out, "  {} failed in all and were skipped", document.failures);
            }
        }
    }
    let _ = writeln!(out);
}

fn calls_text(calls: DeviceCalls) -> String {
    let mut parts = vec![format!("{} cudaMalloc", calls.malloc)];
    for (count, name) in [
        (calls.malloc_failed, "of them refused"),
        (calls.free, "cudaFree"),
        (calls.map, "ranges mapped"),
        (calls.map_failed, "of them refused"),
        (calls.unmap, "unmapped"),
        (calls.reserve, "address reservations"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {name}"));
        }
    }
    parts.join(", ")
}
