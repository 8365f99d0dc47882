//! [`FreeIndex`]: the free blocks of one pool on one stream, in the exact order of the release.
//!
//! PyTorch keeps one ordered set a pool, keyed by (stream, size, tie-break). Every walk it makes over
//! the set stays on one stream, or visits the streams in ascending order; so one index a (pool,
//! stream), visited in ascending order of the streams' handles, gives the same sequence.

use std::{collections::BTreeMap, ops::Bound};

use crate::base::{Addr, BlockId, Bytes};

/// The place of a free block in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FreeKey {
    /// Size of the block.
    pub size: Bytes,
    /// The release's tie-break before the address; 0 where the address alone decides.
    pub order: u32,
    /// Address of the block.
    pub addr: Addr,
}

/// An ordered index of free blocks.
///
/// # Complexity
/// O(log n) for every method.
#[derive(Clone, Debug, Default)]
pub struct FreeIndex {
    blocks: BTreeMap<FreeKey, BlockId>,
}

impl FreeIndex {
    /// Adds a block; returns whether it was not there before.
    #[inline]
    pub fn insert(&mut self, key: FreeKey, block: BlockId) -> bool {
        self.blocks.insert(key, block).is_none()
    }

    /// Takes a block out; returns whether it was there.
    #[inline]
    pub fn remove(&mut self, key: FreeKey) -> bool {
        self.blocks.remove(&key).is_some()
    }

    /// The first block of at least this size: PyTorch's `lower_bound` with address 0.
    #[inline]
    pub fn lower_bound(&self, size: Bytes) -> Option<(FreeKey, BlockId)> {
        let from = FreeKey { size, order: 0, addr: Addr(0) };
        self.blocks.range(from..).next().map(|(key, block)| (*key, *block))
    }

    /// The block that follows `key`.
    #[inline]
    pub fn after(&self, key: FreeKey) -> Option<(FreeKey, BlockId)> {
        let mut range = self.blocks.range((Bound::Excluded(key), Bound::Unbounded));
        range.next().map(|(key, block)| (*key, *block))
    }

    /// The block before `key`, or the last one of all.
    #[inline]
    pub fn before(&self, key: Option<FreeKey>) -> Option<(FreeKey, BlockId)> {
        let to = key.map_or(Bound::Unbounded, Bound::Excluded);
        let mut range = self.blocks.range((Bound::Unbounded, to));
        range.next_back().map(|(key, block)| (*key, *block))
    }

    /// All blocks in order.
    pub fn iter(&self) -> impl Iterator<Item = (FreeKey, BlockId)> {
        self.blocks.iter().map(|(key, block)| (*key, *block))
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Empty again.
    pub fn clear(&mut self) {
        self.blocks.clear();
    }
}
