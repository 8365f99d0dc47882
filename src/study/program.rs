//! [`Program`]: what a trace asks, apart from what became of it.

use super::copying::Copying;
use crate::{
    base::OpIndex,
    trace::{Action, AllocOp, Control, Op, Recorded, Trace, TraceError},
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
        let mut copying = Copying::of(trace)?;
        let mut reallocated = 0;
        match start {
            Start::AsRecorded => copying.keep_start()?,
            Start::Reallocate => reallocated = copying.ask_for_start()?,
        }
        let mut failed = Vec::new();
        for (i, op) in trace.ops().iter().enumerate() {
            match op {
                Op::Alloc(alloc) if has_failed(trace, i) => {
                    failed.push((copying.builder.next_op(), *alloc));
                }
                Op::Control(id)
                    if matches!(trace.controls()[*id], Control::Snapshot(_))
                        && trace.recorded().is_some() => {}
                _ => copying.push(op, |size| size)?,
            }
        }
        Ok(Self { trace: copying.build()?, failed, reallocated })
    }

    /// Operations that the program asks: all but completions, which the outside tells.
    pub fn asked(&self) -> u64 {
        self.trace.ops().iter().filter(|op| is_asked(op)).count() as u64
    }
}

pub(super) fn is_asked(op: &Op) -> bool {
    !matches!(op, Op::FreeCompleted(_))
}

/// Whether a recorded trace shows that its operation `i` failed.
fn has_failed(trace: &Trace, i: usize) -> bool {
    let last = |recorded: &Recorded| recorded.events_of(OpIndex::from_index(i)).next_back();
    let last = trace.recorded().and_then(last);
    last.is_some_and(|event| event.action == Action::Oom)
}
