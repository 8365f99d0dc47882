//! [`Program`]: what a trace asks, apart from what became of it.

use crate::{
    base::{AllocId, Bytes, Id, OpIndex},
    trace::{Action, AllocOp, BlockState, Control, Op, Trace, TraceBuilder, TraceError},
};

/// What a trace asks, ready to be asked again.
#[derive(Clone, Debug)]
pub struct Program {
    /// The operations. Requests that failed when the trace was recorded are left out, and so are
    /// marks of snapshots.
    pub trace: Trace,
    /// The requests that failed then: asked before the operation with this index, without being
    /// served.
    pub failed: Vec<(OpIndex, AllocOp)>,
    /// Blocks live at the start that were made into requests.
    pub reallocated: u32,
}

/// How the blocks that were live before the first operation come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// As they lay: the layout is taken over.
    AsRecorded,
    /// They are asked for first, in the order of their addresses: under other rules they would lie
    /// elsewhere.
    Reallocate,
}

impl Program {
    /// What `trace` asks.
    ///
    /// # Errors
    /// When there are too many operations to number.
    pub fn of(trace: &Trace, start: Start) -> Result<Self, TraceError> {
        let mut builder = TraceBuilder::new(trace.device());
        for stream in trace.streams() {
            builder.stream(*stream)?;
        }
        for pool in trace.pools() {
            builder.pool(*pool)?;
        }
        let mut names: Vec<Option<AllocId>> = vec![None; trace.alloc_count() as usize];
        let mut reallocated = 0;
        match start {
            Start::AsRecorded => {
                let ids = builder.start(trace.start().clone())?;
                for (old, new) in trace.start_ids().iter().zip(ids) {
                    names[old.index()] = Some(*new);
                }
            }
            Start::Reallocate => {
                reallocated = reallocate(trace, &mut builder, &mut names)?;
            }
        }
        let mut failed = Vec::new();
        for (i, op) in trace.ops().iter().enumerate() {
            let last = trace
                .recorded()
                .and_then(|recorded| recorded.events_of(OpIndex::from_index(i)).next_back());
            let has_failed = last.is_some_and(|event| event.action == Action::Oom);
            match op {
                Op::Alloc(alloc) if has_failed => failed.push((builder.next_op(), *alloc)),
                Op::Alloc(alloc) => {
                    let id = builder.alloc(alloc.size, alloc.stream, alloc.pool)?;
                    names[alloc.id.index()] = Some(id);
                }
                Op::Free(free) => {
                    if let Some(id) = names[free.id.index()] {
                        builder.free(id, free.pending)?;
                    }
                }
                Op::FreeCompleted(id) => {
                    if let Some(id) = names[id.index()] {
                        builder.push(Op::FreeCompleted(id))?;
                    }
                }
                Op::RecordStream(id, stream) => {
                    if let Some(id) = names[id.index()] {
                        builder.record_stream(id, *stream)?;
                    }
                }
                Op::EmptyCache => builder.push(Op::EmptyCache)?,
                Op::Control(id) => match &trace.controls()[*id] {
                    Control::Snapshot(_) if trace.recorded().is_some() => {}
                    control => builder.control(control.clone())?,
                },
            }
        }
        if !trace.labels().is_empty() {
            for (old, new) in names.iter().enumerate() {
                if let (Some(new), Some(label)) =
                    (new, trace.labels().get(AllocId::from_index(old)))
                {
                    builder.label(*new, label)?;
                }
            }
        }
        Ok(Self { trace: builder.build(), failed, reallocated })
    }

    /// Operations that the program asks: all but completions, which the outside tells.
    pub fn asked(&self) -> u64 {
        self.trace.ops().iter().filter(|op| is_asked(op)).count() as u64
    }
}

pub(super) fn is_asked(op: &Op) -> bool {
    !matches!(op, Op::FreeCompleted(_))
}

fn reallocate(
    trace: &Trace,
    builder: &mut TraceBuilder,
    names: &mut [Option<AllocId>],
) -> Result<u32, TraceError> {
    let mut ids = trace.start_ids().iter();
    let mut count = 0;
    for segment in &trace.start().segments {
        let stream = builder.stream_of(segment.stream)?;
        let pool = builder.pool(segment.pool)?;
        for block in segment.blocks.iter().filter(|b| b.state != BlockState::Inactive) {
            let id = builder.alloc(block.requested.max(Bytes(1)), stream, pool)?;
            count += 1;
            if let Some(old) = ids.next() {
                names[old.index()] = Some(id);
            }
            if block.state == BlockState::ActivePendingFree {
                builder.free(id, true)?;
            }
        }
    }
    Ok(count)
}
