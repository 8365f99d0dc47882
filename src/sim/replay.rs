//! [`replay`]: all operations of a trace through an allocator.

use std::ops::Range;

use super::{AllocError, Allocator, Observer};
use crate::{
    base::OpIndex,
    trace::{AllocOp, Op, Trace},
};

/// What to do at the first request that cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnOom {
    /// Stop there, as the program would.
    #[default]
    Stop,
    /// Leave the request and its free out, and go on.
    Skip,
}

/// The failure that ended a replay, or the first one that it skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoppedBy {
    /// The operation.
    pub op: OpIndex,
    /// What was asked, if it was a `malloc`.
    pub asked: Option<AllocOp>,
    /// Why it failed.
    pub error: AllocError,
}

/// How a replay went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Operations done, the failing one included.
    pub ops: u32,
    /// Whether every operation was done without a failure.
    pub completed: bool,
    /// Requests that failed.
    pub failures: u32,
    /// The first failure.
    pub first_failure: Option<StoppedBy>,
}

/// Replays `trace`, up to but without operation `until` (or to its end). `allocator` must be new or
/// reset, and know the streams of the trace.
///
/// # Complexity
/// One step an operation; see the allocator for what a step costs.
pub fn replay<A: Allocator, O: Observer>(
    trace: &Trace,
    allocator: &mut A,
    observer: &mut O,
    on_oom: OnOom,
    until: Option<OpIndex>,
) -> Outcome {
    allocator.start(trace, observer);
    let end = until.map_or(trace.ops().len(), |op| trace.ops().len().min(op.0 as usize));
    replay_range(trace, 0..end, allocator, observer, on_oom)
}

/// After how many operations it is asked again whether it wants to know.
const BETWEEN_QUESTIONS: usize = 1024;

/// Some operations of a trace whose start was made and whose operations before were done.
///
/// # Panics
/// When there are fewer operations.
pub fn replay_range<A: Allocator, O: Observer>(
    trace: &Trace,
    range: Range<usize>,
    allocator: &mut A,
    observer: &mut O,
    on_oom: OnOom,
) -> Outcome {
    let mut outcome = Outcome { ops: 0, completed: true, failures: 0, first_failure: None };
    let mut at = range.start;
    while at < range.end {
        let part = at..range.end.min(at + BETWEEN_QUESTIONS);
        at = part.end;
        let goes_on = if allocator.looks_ahead() {
            replay_part::<true, _, _>(trace, part, allocator, observer, on_oom, &mut outcome)
        } else {
            replay_part::<false, _, _>(trace, part, allocator, observer, on_oom, &mut outcome)
        };
        if !goes_on {
            break;
        }
    }
    outcome
}

/// A few operations; returns whether to go on.
#[inline(never)]
fn replay_part<const LOOKS_AHEAD: bool, A: Allocator, O: Observer>(
    trace: &Trace,
    part: Range<usize>,
    allocator: &mut A,
    observer: &mut O,
    on_oom: OnOom,
    outcome: &mut Outcome,
) -> bool {
    let ops = trace.ops();
    for (i, op) in part.clone().zip(&ops[part.clone()]) {
        if LOOKS_AHEAD {
            allocator.look_ahead(&ops[i..]);
        }
        if let Err(failure) = step(trace, op, allocator, observer) {
            let (asked, error) = *failure;
            outcome.completed = false;
            outcome.failures += 1;
            let op = OpIndex::from_index(i);
            outcome.first_failure.get_or_insert(StoppedBy { op, asked, error });
            if on_oom == OnOom::Stop {
                outcome.ops += OpIndex::from_index(i + 1 - part.start).0;
                return false;
            }
        }
    }
    outcome.ops += OpIndex::from_index(part.len()).0;
    true
}

/// One operation of a trace whose start was made already; the failure, if it fails.
pub fn replay_op<A: Allocator, O: Observer>(
    trace: &Trace,
    op: &Op,
    allocator: &mut A,
    observer: &mut O,
) -> Option<StoppedBy> {
    let (asked, error) = *step(trace, op, allocator, observer).err()?;
    Some(StoppedBy { op: OpIndex(0), asked, error })
}

/// What was asked and why it failed; out of line, as it is rare.
type Failure = Box<(Option<AllocOp>, AllocError)>;

#[cold]
fn failed(asked: Option<AllocOp>, error: AllocError) -> Failure {
    Box::new((asked, error))
}

#[inline(always)]
fn step<A: Allocator, O: Observer>(
    trace: &Trace,
    op: &Op,
    allocator: &mut A,
    observer: &mut O,
) -> Result<(), Failure> {
    match op {
        Op::Alloc(alloc) => {
            allocator.malloc(alloc, observer).map(drop).map_err(|error| failed(Some(*alloc), error))
        }
        Op::Free(free) => {
            allocator.free(free, observer);
            Ok(())
        }
        rare => step_rarely(trace, rare, allocator, observer),
    }
}

/// Out of the way of the two operations that nearly all others are.
#[cold]
#[inline(never)]
fn step_rarely<A: Allocator, O: Observer>(
    trace: &Trace,
    op: &Op,
    allocator: &mut A,
    observer: &mut O,
) -> Result<(), Failure> {
    match op {
        Op::Alloc(_) | Op::Free(_) => step(trace, op, allocator, observer),
        Op::FreeCompleted(id) => {
            allocator.complete(*id);
            Ok(())
        }
        Op::RecordStream(id, stream) => {
            allocator.record_stream(*id, *stream);
            Ok(())
        }
        Op::EmptyCache => allocator.empty_cache(observer).map_err(|error| failed(None, error)),
        Op::Control(id) => {
            allocator.control(&trace.controls()[*id], observer).map_err(|error| failed(None, error))
        }
    }
}
