//! Traces with something changed.

use rustc_hash::FxHashSet;

use crate::{
    base::{AllocId, Id, OpIndex},
    trace::{Op, Trace, TraceBuilder, TraceError},
};

/// The same program, but that these allocations are freed before operation `at`, and not again. They
/// must be live there.
pub(super) fn freed_before(
    trace: &Trace,
    at: OpIndex,
    set: &[AllocId],
) -> Result<Trace, TraceError> {
    let mut builder = TraceBuilder::new(trace.device());
    for stream in trace.streams() {
        builder.stream(*stream)?;
    }
    for pool in trace.pools() {
        builder.pool(*pool)?;
    }
    // Names are given in the same order again, so they stay what they are.
    builder.start(trace.start().clone())?;
    let gone: FxHashSet<AllocId> = set.iter().copied().collect();
    let ops = trace.ops();
    for i in 0..=ops.len() {
        if i == at.index() {
            for id in set {
                builder.free(*id, false)?;
            }
        }
        let is_gone = |id: &AllocId| i >= at.index() && gone.contains(id);
        match ops.get(i) {
            None => {}
            Some(Op::Alloc(alloc)) => drop(builder.alloc(alloc.size, alloc.stream, alloc.pool)?),
            Some(Op::Free(free)) if is_gone(&free.id) => {}
            Some(Op::Free(free)) => builder.free(free.id, free.pending)?,
            Some(Op::FreeCompleted(id) | Op::RecordStream(id, _)) if is_gone(id) => {}
            Some(Op::RecordStream(id, stream)) => builder.record_stream(*id, *stream)?,
            Some(Op::Control(id)) => builder.control(trace.controls()[*id].clone())?,
            Some(op @ (Op::FreeCompleted(_) | Op::EmptyCache)) => builder.push(*op)?,
        }
    }
    Ok(builder.build())
}

/// The operations that make these allocations.
pub(super) fn made_by(trace: &Trace, set: &[AllocId]) -> Vec<OpIndex> {
    let wanted: FxHashSet<AllocId> = set.iter().copied().collect();
    let ops = trace.ops().iter().enumerate();
    let makes = |(i, op): (usize, &Op)| match op {
        Op::Alloc(alloc) if wanted.contains(&alloc.id) => Some(OpIndex::from_index(i)),
        _ => None,
    };
    ops.filter_map(makes).collect()
}
