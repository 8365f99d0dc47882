//! [`Copying`]: a trace that is made of the operations of another.

use crate::{
    base::{AllocId, Bytes, Id},
    trace::{BlockState, Op, Trace, TraceBuilder, TraceError},
};

/// A trace under way. Its streams and pools are those of the other; allocations get numbers of their
/// own, and what names one that was left out is left out, too.
pub(super) struct Copying<'a> {
    from: &'a Trace,
    pub(super) builder: TraceBuilder,
    names: Vec<Option<AllocId>>,
}

impl<'a> Copying<'a> {
    /// No operations yet.
    pub(super) fn of(from: &'a Trace) -> Result<Self, TraceError> {
        let mut builder = TraceBuilder::new(from.device());
        for stream in from.streams() {
            builder.stream(*stream)?;
        }
        for pool in from.pools() {
            builder.pool(*pool)?;
        }
        Ok(Self { from, builder, names: vec![None; from.alloc_count() as usize] })
    }

    /// What lay there before the first operation lies there.
    pub(super) fn keep_start(&mut self) -> Result<(), TraceError> {
        let ids = self.builder.start(self.from.start().clone())?;
        for (old, new) in self.from.start_ids().iter().zip(ids) {
            self.names[old.index()] = Some(*new);
        }
        Ok(())
    }

    /// What lay there is asked for, in the order of the addresses; returns how many requests that are.
    pub(super) fn ask_for_start(&mut self) -> Result<u32, TraceError> {
        let mut ids = self.from.start_ids().iter();
        let mut count = 0;
        for segment in &self.from.start().segments {
            let stream = self.builder.stream_of(segment.stream)?;
            let pool = self.builder.pool(segment.pool)?;
            for block in segment.blocks.iter().filter(|b| b.state != BlockState::Inactive) {
                let id = self.builder.alloc(block.requested.max(Bytes(1)), stream, pool)?;
                count += 1;
                if let Some(old) = ids.next() {
                    self.names[old.index()] = Some(id);
                }
                if block.state == BlockState::ActivePendingFree {
                    self.builder.free(id, true)?;
                }
            }
        }
        Ok(count)
    }

    /// Adds an operation; a request asks for `size(...)` of what it asked for.
    pub(super) fn push(
        &mut self,
        op: &Op,
        size: impl FnOnce(Bytes) -> Bytes,
    ) -> Result<(), TraceError> {
        let Self { from, builder, names } = self;
        match op {
            Op::Alloc(alloc) => {
                let id = builder.alloc(size(alloc.size), alloc.stream, alloc.pool)?;
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
            Op::Control(id) => builder.control(from.controls()[*id].clone())?,
        }
        Ok(())
    }

    /// The trace, with the labels of what was copied.
    pub(super) fn build(mut self) -> Result<Trace, TraceError> {
        let labels = self.from.labels();
        if !labels.is_empty() {
            for (old, new) in self.names.iter().enumerate() {
                if let (Some(new), Some(label)) = (new, labels.get(AllocId::from_index(old))) {
                    self.builder.label(*new, label)?;
                }
            }
        }
        Ok(self.builder.build())
    }
}
