//! What is live by label, where a trace says what its allocations are for.
//!
//! Sums of what was asked, not of blocks: rounding is the allocator's, and has a line of its own
//! wherever these are shown.

use super::{program::is_asked, whatif::Replayed};
use crate::{
    base::{AllocId, Bytes, Id, OpIndex},
    observe::Bucket,
    trace::{BlockState, Op, Trace},
};

/// What an allocation without a label is called.
pub const NO_LABEL: &str = "other";

/// The order in which labels are shown: what stays first.
const ORDER: [&str; 8] = [
    "parameter",
    "gradient",
    "optimizer_state",
    "kv_cache",
    "activation",
    "input",
    "workspace",
    "temporary",
];

/// Where a label stands among others; those that are not known come last, as they were.
fn rank(label: &str) -> usize {
    ORDER.iter().position(|known| *known == label).unwrap_or(ORDER.len())
}

/// The allocations of one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSum {
    /// The label; [`NO_LABEL`] for those that have none.
    pub label: String,
    /// Bytes asked for and live at the moment.
    pub live: Bytes,
    /// How many they are.
    pub count: u64,
    /// Most bytes live at any time up to then, which need not be the same time for two labels.
    pub peak: Bytes,
}

/// What is live after an operation, counted as [`super::whatif::Program::asked`] counts, what
/// stays first; what has no label comes last. Empty if nothing has a label.
///
/// # Complexity
/// O(n) in the number of operations up to that one.
pub fn live_after(trace: &Trace, op: OpIndex) -> Vec<LabelSum> {
    if trace.labels().is_empty() {
        return Vec::new();
    }
    let mut sums = Sums::of_start(trace);
    let mut asked = 0;
    for done in trace.ops() {
        if asked > u64::from(op.0) {
            break;
        }
        asked += u64::from(is_asked(done));
        sums.done(done);
    }
    sums.of.retain(|sum| sum.peak > Bytes::ZERO);
    sums.of.sort_by_key(|sum| rank(&sum.label));
    sums.of
}

/// What is live by label over time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSeries {
    /// The labels that are live at any time, in the order of [`live_after`].
    pub names: Vec<String>,
    /// Of each bucket: the bytes asked for and live of each label, at the moment within it when they
    /// are most together.
    pub rows: Vec<Vec<u64>>,
}

/// What is live by label in each of these buckets. The operations are those of a replay that left
/// none out.
///
/// # Complexity
/// O(n) in the number of operations, and O(labels) a bucket and a new maximum in it.
pub fn over_time(trace: &Trace, buckets: &[Bucket]) -> LabelSeries {
    if trace.labels().is_empty() {
        return LabelSeries::default();
    }
    let mut sums = Sums::of_start(trace);
    let mut asked = 0_u64;
    let mut ops = trace.ops().iter().peekable();
    let mut rows = Vec::with_capacity(buckets.len());
    let live = |sums: &Sums<'_>| sums.of.iter().map(|sum| sum.live.0).collect::<Vec<u64>>();
    for bucket in buckets {
        // A level may be at its most before the first operation of the bucket.
        let (mut most, mut row) = (sums.total, live(&sums));
        let mut is_newer = false;
        while let Some(op) = ops.next_if(|_| asked <= u64::from(bucket.last.0)) {
            if is_newer && !matches!(op, Op::Alloc(_)) {
                row = live(&sums);
                is_newer = false;
            }
            asked += u64::from(is_asked(op));
            sums.done(op);
            if sums.total > most {
                (most, is_newer) = (sums.total, true);
            }
        }
        rows.push(if is_newer { live(&sums) } else { row });
    }
    let labels = sums.of.iter().enumerate();
    let shown = labels.filter(|(i, _)| rows.iter().any(|row: &Vec<u64>| row[*i] > 0));
    let mut shown: Vec<(usize, &str)> = shown.map(|(i, sum)| (i, sum.label.as_str())).collect();
    shown.sort_by_key(|(_, label)| rank(label));
    let rows = rows.iter().map(|row| shown.iter().map(|(i, _)| row[*i]).collect()).collect();
    LabelSeries { names: shown.iter().map(|(_, label)| (*label).to_owned()).collect(), rows }
}

impl LabelSum {
    fn empty(label: &str) -> Self {
        Self { label: label.to_owned(), live: Bytes::ZERO, count: 0, peak: Bytes::ZERO }
    }
}

struct Sums<'a> {
    trace: &'a Trace,
    of: Vec<LabelSum>,
    /// Of each allocation that is live.
    sizes: Vec<Bytes>,
    /// Of all labels.
    total: Bytes,
}

impl<'a> Sums<'a> {
    fn of_start(trace: &'a Trace) -> Self {
        let names = trace.labels().names().iter().map(String::as_str).chain([NO_LABEL]);
        let mut sums = Self {
            of: names.map(LabelSum::empty).collect(),
            sizes: vec![Bytes::ZERO; trace.alloc_count() as usize],
            total: Bytes::ZERO,
            trace,
        };
        let blocks = trace.start().segments.iter().flat_map(|segment| &segment.blocks);
        let active = blocks.filter(|block| block.state != BlockState::Inactive);
        for (block, id) in active.zip(trace.start_ids()) {
            if block.state == BlockState::ActiveAllocated {
                sums.add(*id, block.requested);
            }
        }
        sums
    }

    fn done(&mut self, op: &Op) {
        match op {
            Op::Alloc(alloc) => self.add(alloc.id, alloc.size),
            Op::Free(free) => self.remove(free.id),
            _ => {}
        }
    }

    fn sum(&mut self, id: AllocId) -> &mut LabelSum {
        let other = self.of.len() - 1;
        &mut self.of[self.trace.labels().index(id).unwrap_or(other)]
    }

    fn add(&mut self, id: AllocId, size: Bytes) {
        self.sizes[id.index()] = size;
        self.total = self.total.checked_add(size).unwrap_or(Bytes::MAX);
        let sum = self.sum(id);
        sum.live = sum.live.checked_add(size).unwrap_or(Bytes::MAX);
        sum.count += 1;
        sum.peak = sum.peak.max(sum.live);
    }

    fn remove(&mut self, id: AllocId) {
        let size = self.sizes[id.index()];
        self.total = self.total.saturating_sub(size);
        let sum = self.sum(id);
        sum.live = sum.live.saturating_sub(size);
        sum.count = sum.count.saturating_sub(1);
    }
}

/// [`live_after`] the moment when most was handed out. Empty, too, where requests were left out of
/// the replay before it.
pub fn at_peak(trace: &Trace, replayed: &Replayed) -> Vec<LabelSum> {
    let peak = replayed.peak.allocated.op;
    let is_whole = replayed.first_failure_asked.is_none_or(|failed| u64::from(peak.0) < failed);
    if is_whole { live_after(trace, peak) } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::script;

    #[test]
    fn what_is_live_is_summed_by_label() {
        let trace = script::parse(
            "a = alloc 3 label parameter; b = alloc 5 label activation; c = alloc 7 label activation
             free b; d = alloc 1; free c",
        );
        let at = |op| -> Vec<(String, u64, u64, u64)> {
            let sums = live_after(trace.as_ref().unwrap(), OpIndex(op));
            sums.into_iter().map(|s| (s.label, s.live.0, s.count, s.peak.0)).collect()
        };
        let row = |label: &str, live, count, peak| (label.to_owned(), live, count, peak);
        assert_eq!(at(2), [row("parameter", 3, 1, 3), row("activation", 12, 2, 12)]);
        let end = [row("parameter", 3, 1, 3), row("activation", 0, 0, 12), row("other", 1, 1, 1)];
        assert_eq!(at(5), end);
        assert_eq!(live_after(&script::parse("a = alloc 3").unwrap(), OpIndex(0)), []);
    }

    #[test]
    fn over_time_each_bucket_shows_its_fullest_moment() {
        let trace = script::parse(
            "a = alloc 3 label p; b = alloc 5 label q; free b; c = alloc 1 label p; free a; free c",
        );
        let bucket = |first, last| Bucket {
            first: OpIndex(first),
            last: OpIndex(last),
            ..Bucket::default()
        };
        let series =
            over_time(trace.as_ref().unwrap(), &[bucket(0, 2), bucket(3, 4), bucket(5, 5)]);
        assert_eq!(series.names, ["p", "q"]);
        assert_eq!(series.rows, [[3, 5], [4, 0], [1, 0]]);
    }
}
