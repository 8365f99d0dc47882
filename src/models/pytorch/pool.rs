//! [`BlockPool`]: the free blocks of one pool, and the unmapped ranges of its expandable segments.

use std::collections::BTreeMap;

use super::pools::PrivateIdx;
use crate::{
    base::{Addr, BlockId, Id, StreamId, Table},
    sim::{Block, BlockArena, FreeIndex, FreeKey},
};

/// Index of a [`BlockPool`] in the allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PoolIdx(pub u16);

impl PoolIdx {
    pub(super) const DEFAULT_LARGE: Self = Self(0);
    pub(super) const DEFAULT_SMALL: Self = Self(1);
}

impl Id for PoolIdx {
    fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What one stream has free in a pool.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamBlocks {
    /// Free and mapped, in the release's order.
    pub free: FreeIndex,
    /// Not mapped, by address.
    pub unmapped: BTreeMap<Addr, BlockId>,
}

/// One half (small or large) of the default pool or of a private one.
#[derive(Clone, Debug)]
pub(super) struct BlockPool {
    pub is_small: bool,
    /// The private pool that it is half of.
    pub private: Option<PrivateIdx>,
    pub streams: Table<StreamId, StreamBlocks>,
    /// `get_free_blocks_call_count`: how often a block was looked for; ages blocks.
    pub call_count: u32,
}

/// The place of a block in its pool's order.
pub(super) fn free_key(block: &Block) -> FreeKey {
    FreeKey { size: block.size, order: block.order, addr: block.addr }
}

impl BlockPool {
    pub(super) fn new(is_small: bool, private: Option<PrivateIdx>, streams: usize) -> Self {
        let streams = Table::from_rows(vec![StreamBlocks::default(); streams]);
        Self { is_small, private, streams, call_count: 0 }
    }

    /// `insert_into_blocks`: the block is free from now on, at age 0.
    pub(super) fn insert(&mut self, blocks: &mut BlockArena, id: BlockId) {
        let block = &mut blocks[id];
        block.gc_count_base = self.call_count;
        let is_new = self.streams[block.stream].free.insert(free_key(block), id);
        debug_assert!(is_new, "a block is freed once");
    }

    /// The block is free no more.
    pub(super) fn erase(&mut self, blocks: &BlockArena, id: BlockId) {
        let block = &blocks[id];
        let was_there = self.streams[block.stream].free.remove(free_key(block));
        debug_assert!(was_there, "a free block is in its pool's list");
    }

    /// The block stands for a range without memory from now on.
    pub(super) fn insert_unmapped(&mut self, blocks: &BlockArena, id: BlockId) {
        let block = &blocks[id];
        self.streams[block.stream].unmapped.insert(block.addr, id);
    }

    /// The range is mapped, or part of another one.
    pub(super) fn erase_unmapped(&mut self, blocks: &BlockArena, id: BlockId) {
        let block = &blocks[id];
        self.streams[block.stream].unmapped.remove(&block.addr);
    }

    /// Whether the block is in one of the lists.
    pub(super) fn holds(&self, blocks: &BlockArena, id: BlockId) -> bool {
        let block = &blocks[id];
        let stream = &self.streams[block.stream];
        stream.unmapped.get(&block.addr) == Some(&id)
            || stream.free.iter().any(|(key, free)| free == id && key == free_key(block))
    }
}
