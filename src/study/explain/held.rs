//! [`Held`]: a live block, with all that names it.

use rustc_hash::FxHashMap;

use super::Scene;
use crate::{
    base::{Addr, AllocId, Bytes, PoolId, Span, StreamHandle},
    study::whatif::Program,
    trace::{Layout, Op},
};

/// A live block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The allocation.
    pub id: AllocId,
    /// The block.
    pub span: Span,
    /// What was asked for it.
    pub requested: Bytes,
    /// The stream it was made for.
    pub stream: StreamHandle,
    /// Its pool.
    pub pool: PoolId,
    /// The operation that made it, counted as [`Program::asked`] counts; `None` if it was there
    /// before the first.
    pub made_by: Option<u64>,
    /// Operations from there to the moment; all of them, if it was there before the first.
    pub age: u64,
    /// The segment that it lies in.
    pub segment: Span,
}

/// Where each allocation of a program was made.
#[derive(Debug)]
pub(super) struct Makers {
    ops: FxHashMap<AllocId, u64>,
}

impl Makers {
    pub(super) fn of(program: &Program, wanted: impl Iterator<Item = AllocId>) -> Self {
        let wanted: rustc_hash::FxHashSet<AllocId> = wanted.collect();
        let mut ops = FxHashMap::default();
        let mut asked = 0;
        for op in program.trace.ops() {
            match op {
                Op::FreeCompleted(_) => continue,
                Op::Alloc(alloc) if wanted.contains(&alloc.id) => drop(ops.insert(alloc.id, asked)),
                _ => {}
            }
            asked += 1;
        }
        Self { ops }
    }

    /// The block of an allocation that is live before the moment.
    pub(super) fn held(&self, scene: &Scene, layout: &Layout, id: AllocId) -> Option<Held> {
        let span = scene.before.block_of(id)?;
        let segment = layout.segment_at(span.start)?;
        let (_, block) = segment.blocks_at().find(|(addr, _)| *addr == span.start)?;
        let made_by = self.ops.get(&id).copied();
        Some(Held {
            id,
            span,
            requested: block.requested,
            stream: segment.stream,
            pool: segment.pool,
            made_by,
            age: scene.op.saturating_sub(made_by.unwrap_or(0)),
            segment: segment.span(),
        })
    }
}

/// Which allocation lies at an address.
pub(super) fn names(scene: &Scene) -> FxHashMap<Addr, AllocId> {
    let live = scene.before.live_allocs();
    live.map(|(id, span)| (span.start, id)).collect()
}
