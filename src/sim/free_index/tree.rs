//! The plain twin of the index: a standard ordered map. For the tests.

use std::{collections::BTreeMap, ops::Bound};

use super::FreeKey;
use crate::base::{Addr, BlockId, Bytes};

/// An ordered index of free blocks.
///
/// # Complexity
/// O(log n) for every method.
#[derive(Clone, Debug, Default)]
pub(super) struct TreeIndex {
    blocks: BTreeMap<FreeKey, BlockId>,
}

impl TreeIndex {
    /// Adds a block; returns whether it was not there before.
    #[inline]
    pub(super) fn insert(&mut self, key: FreeKey, block: BlockId) -> bool {
        self.blocks.insert(key, block).is_none()
    }

    /// Takes a block out; returns whether it was there.
    #[inline]
    pub(super) fn remove(&mut self, key: FreeKey) -> bool {
        self.blocks.remove(&key).is_some()
    }

    /// The first block of at least this size: PyTorch's `lower_bound` with address 0.
    #[inline]
    pub(super) fn lower_bound(&self, size: Bytes) -> Option<BlockId> {
        let from = FreeKey { size, order: 0, addr: Addr(0) };
        self.blocks.range(from..).next().map(|(_, block)| *block)
    }

    /// The block that follows `key`.
    #[inline]
    pub(super) fn after(&self, key: FreeKey) -> Option<BlockId> {
        let mut range = self.blocks.range((Bound::Excluded(key), Bound::Unbounded));
        range.next().map(|(_, block)| *block)
    }

    /// The block before `key`, or the last one of all.
    #[inline]
    pub(super) fn before(&self, key: Option<FreeKey>) -> Option<BlockId> {
        let to = key.map_or(Bound::Unbounded, Bound::Excluded);
        let mut range = self.blocks.range((Bound::Unbounded, to));
        range.next_back().map(|(_, block)| *block)
    }

    /// All blocks in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = BlockId> {
        self.blocks.values().copied()
    }
}
