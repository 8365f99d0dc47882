//! The layout of an allocator: what a snapshot would show.

use super::{PyTorch, pool::ListIdx, pools::PrivateIdx};
use crate::{
    base::{AllocId, BlockId, Id, PoolId, Span},
    trace::{BlockLayout, BlockState, Layout, SegmentLayout},
};

impl PyTorch {
    /// All segments, or those of one private pool, in the order of their addresses. A mapped range of
    /// an expandable segment counts as a segment.
    ///
    /// # Source
    /// `DeviceCachingAllocator::snapshot`.
    pub fn layout_of(&self, pool: Option<PoolId>) -> Layout {
        let mut segments = Vec::new();
        for head in self.blocks.heads() {
            let private = self.pools.pool_of(ListIdx(self.blocks[head].list)).private;
            if pool.is_some_and(|pool| self.id_of_living(private) != Some(pool)) {
                continue;
            }
            self.append_chain(head, &mut segments);
        }
        segments.sort_by_key(|segment| segment.addr);
        Layout { segments }
    }

    fn id_of_living(&self, private: Option<PrivateIdx>) -> Option<PoolId> {
        let private = private?;
        let id = self.private.id_of(Some(private));
        (self.private.get(id)?.index() == private.index()).then_some(id)
    }

    fn append_chain(&self, head: BlockId, segments: &mut Vec<SegmentLayout>) {
        let mut open: Option<SegmentLayout> = None;
        for id in self.blocks.chain(head) {
            let block = &self.blocks[id];
            if !block.is_mapped() {
                segments.extend(open.take());
                continue;
            }
            let state = if block.is_allocated() {
                BlockState::ActiveAllocated
            } else if block.is_pending() {
                BlockState::ActivePendingFree
            } else {
                BlockState::Inactive
            };
            let place = self.place(id);
            let segment = open.get_or_insert_with(|| SegmentLayout {
                addr: block.addr,
                stream: place.stream,
                pool: place.pool,
                is_small: place.is_small,
                is_expandable: place.is_expandable,
                blocks: Vec::new(),
            });
            segment.blocks.push(BlockLayout {
                size: block.size,
                requested: self.blocks.details(id).requested,
                state,
            });
        }
        segments.extend(open);
    }

    /// The segment (or the part of an expandable one that is linked) that holds a live allocation:
    /// `getBaseAllocation`.
    pub fn base_of(&self, id: AllocId) -> Option<Span> {
        let block = self.live_block(id)?;
        let first = std::iter::successors(Some(block), |id| self.blocks[*id].prev).last()?;
        let size = self.blocks.chain(first).map(|id| self.blocks[id].size).sum();
        Some(Span::new(self.blocks[first].addr, size))
    }
}
