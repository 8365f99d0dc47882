//! [`TraceBuilder`]: the only way to a [`Trace`]. Numbers allocations densely and refuses the impossible.

use std::collections::BTreeSet;

use super::{AllocOp, Control, ControlId, FreeOp, Layout, Op, PoolIndex, Recorded, Stream, Trace};
use crate::base::{AllocId, Bytes, DeviceIndex, Id, OpIndex, PoolId, StreamHandle, StreamId};

/// The largest request that a trace may hold: 1 EiB less one byte. PyTorch refuses more before it
/// looks at anything.
pub(crate) const MAX_REQUEST: Bytes = Bytes((1 << 62) - 1);

/// Private pools that a model can number, and so the most that a start may hold.
pub const MAX_PRIVATE_POOLS: usize = (1 << 15) - 1;

/// Why operations do not make a trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// A free of something that is not live.
    #[error(
        "operation {op} frees allocation {id}, which is not live: it was never allocated or is freed already"
    )]
    NotLive {
        /// The operation.
        op: OpIndex,
        /// What it names.
        id: AllocId,
    },
    /// A size beyond every device.
    #[error("operation {op} asks for {size} bytes; the largest request is 2^62 - 1")]
    TooLarge {
        /// The operation.
        op: OpIndex,
        /// What it asks.
        size: u64,
    },
    /// More of something than ids can number.
    #[error("a trace holds at most {limit} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
}

/// Collects the operations of one device.
#[derive(Clone, Debug)]
pub struct TraceBuilder {
    trace: Trace,
    live: Vec<bool>,
}

impl TraceBuilder {
    /// Nothing yet; the default stream is stream 0.
    pub fn new(device: DeviceIndex) -> Self {
        let mut trace = Trace { device, ..Trace::default() };
        trace.streams.push(Stream::DEFAULT);
        Self { trace, live: Vec::new() }
    }

    /// Index of the next operation.
    pub fn next_op(&self) -> OpIndex {
        OpIndex(u32::try_from(self.trace.ops.len()).unwrap_or(u32::MAX))
    }

    /// The operations so far.
    pub fn ops(&self) -> &[Op] {
        &self.trace.ops
    }

    /// The id of `stream`, which is added if it is new.
    ///
    /// # Errors
    /// When there are 65,535 streams already.
    pub fn stream(&mut self, stream: Stream) -> Result<StreamId, TraceError> {
        let known = self.trace.streams.iter().position(|s| s.handle == stream.handle);
        let index = known.unwrap_or(self.trace.streams.len());
        let limit = u64::from(u16::MAX);
        let id =
            u16::try_from(index).map_err(|_| TraceError::TooMany { what: "streams", limit })?;
        if known.is_none() {
            self.trace.streams.push(stream);
        }
        Ok(StreamId(id))
    }

    /// The id of the stream with this handle, as [`TraceBuilder::stream`]; its hash id is taken to
    /// be the handle, for want of a better one.
    ///
    /// # Errors
    /// As [`TraceBuilder::stream`].
    pub fn stream_of(&mut self, handle: StreamHandle) -> Result<StreamId, TraceError> {
        self.stream(Stream { handle, id: handle.0 })
    }

    /// The index of a private pool, which is added if it is new; `None` for the default pool.
    ///
    /// # Errors
    /// When there are 65,535 pools already.
    pub fn pool(&mut self, pool: PoolId) -> Result<Option<PoolIndex>, TraceError> {
        if !pool.is_private() {
            return Ok(None);
        }
        let known = self.trace.pools.iter().position(|p| *p == pool);
        let index = PoolIndex::from_index(known.unwrap_or(self.trace.pools.len()))
            .ok_or(TraceError::TooMany { what: "private pools", limit: u64::from(u16::MAX) })?;
        if known.is_none() {
            self.trace.pools.push(pool);
        }
        Ok(Some(index))
    }

    /// Makes room for so many operations more.
    pub fn reserve(&mut self, ops: usize) {
        self.trace.ops.reserve_exact(ops);
    }

    /// The id of a pool of this trace.
    pub fn pool_id(&self, pool: PoolIndex) -> PoolId {
        self.trace.pools.get(pool).copied().unwrap_or_default()
    }

    /// What was there at the start. Returns the ids of its active blocks, in order.
    ///
    /// # Errors
    /// When there are too many blocks or private pools to number.
    pub fn start(&mut self, layout: Layout) -> Result<&[AllocId], TraceError> {
        let pools: BTreeSet<PoolId> = layout.segments.iter().map(|s| s.pool).collect();
        if pools.into_iter().filter(|pool| pool.is_private()).count() > MAX_PRIVATE_POOLS {
            let limit = MAX_PRIVATE_POOLS as u64;
            return Err(TraceError::TooMany { what: "private pools at the start", limit });
        }
        let active = layout.segments.iter().flat_map(|s| &s.blocks);
        let active = active.filter(|b| b.state != super::BlockState::Inactive).count();
        for _ in 0..active {
            let id = self.new_id()?;
            self.trace.start_ids.push(id);
        }
        self.trace.start = layout;
        Ok(&self.trace.start_ids)
    }

    /// What the real allocator did.
    pub fn recorded(&mut self, recorded: Recorded) {
        self.trace.recorded = Some(recorded);
    }

    fn new_id(&mut self) -> Result<AllocId, TraceError> {
        let limit = u64::from(u32::MAX - 1);
        if self.live.len() as u64 >= limit {
            return Err(TraceError::TooMany { what: "allocations", limit });
        }
        let id = AllocId::from_index(self.live.len());
        self.live.push(true);
        self.trace.allocs = id.0 + 1;
        Ok(id)
    }

    /// Appends an operation that refers to nothing that could be missing.
    ///
    /// # Errors
    /// At 2^32 - 1 operations.
    pub fn push(&mut self, op: Op) -> Result<(), TraceError> {
        let limit = u64::from(u32::MAX - 1);
        if self.trace.ops.len() as u64 >= limit {
            return Err(TraceError::TooMany { what: "operations", limit });
        }
        self.trace.ops.push(op);
        Ok(())
    }

    /// A `malloc`; returns the name of the new allocation.
    ///
    /// # Errors
    /// When the size is beyond all devices, or there are too many operations.
    pub fn alloc(
        &mut self,
        size: Bytes,
        stream: StreamId,
        pool: Option<PoolIndex>,
    ) -> Result<AllocId, TraceError> {
        if size > MAX_REQUEST {
            return Err(TraceError::TooLarge { op: self.next_op(), size: size.0 });
        }
        let id = self.new_id()?;
        self.push(Op::Alloc(AllocOp { id, stream, pool, size }))?;
        Ok(id)
    }

    /// A `free`; `pending` where a recording shows that the block had to wait.
    ///
    /// # Errors
    /// When `id` is not live.
    pub fn free(&mut self, id: AllocId, pending: bool) -> Result<(), TraceError> {
        match self.live.get_mut(id.index()) {
            Some(live) if *live => *live = false,
            _ => return Err(TraceError::NotLive { op: self.next_op(), id }),
        }
        self.push(Op::Free(FreeOp { id, pending }))
    }

    /// Says what an allocation is for, in place of what was said before.
    ///
    /// # Errors
    /// When there are [`Labels::MAX_NAMES`](super::Labels::MAX_NAMES) other names already.
    pub fn label(&mut self, id: AllocId, name: &str) -> Result<(), TraceError> {
        let limit = super::Labels::MAX_NAMES as u64;
        let named = self.trace.labels.set(id, name);
        named.then_some(()).ok_or(TraceError::TooMany { what: "labels", limit })
    }

    /// A `record_stream`.
    ///
    /// # Errors
    /// When `id` is not live.
    pub fn record_stream(&mut self, id: AllocId, stream: StreamId) -> Result<(), TraceError> {
        if !self.live.get(id.index()).is_some_and(|live| *live) {
            return Err(TraceError::NotLive { op: self.next_op(), id });
        }
        self.push(Op::RecordStream(id, stream))
    }

    /// A rare operation.
    ///
    /// # Errors
    /// When there are too many.
    pub fn control(&mut self, control: Control) -> Result<(), TraceError> {
        let id = ControlId(u32::try_from(self.trace.controls.len()).unwrap_or(u32::MAX));
        self.trace.controls.push(control);
        self.push(Op::Control(id))
    }

    /// The trace.
    pub fn build(self) -> Trace {
        self.trace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_live_cannot_be_freed() {
        let mut builder = TraceBuilder::new(DeviceIndex(0));
        let a = builder.alloc(Bytes(1), StreamId(0), None).unwrap();
        assert_eq!(builder.free(a, false), Ok(()));
        assert_eq!(builder.free(a, false), Err(TraceError::NotLive { op: OpIndex(2), id: a }));
        assert!(builder.record_stream(AllocId(7), StreamId(0)).is_err());
        assert_eq!(builder.build().ops().len(), 2);
    }
}
