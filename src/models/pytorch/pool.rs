//! [`Pools`]: the free blocks of each pool, and the unmapped ranges of its expandable segments.

use std::collections::BTreeMap;

use super::pools::PrivateIdx;
use crate::{
    base::{Addr, BlockId, Id, PoolId, StreamId, Table},
    sim::{BlockArena, Found, FreeIndex, Place},
    trace::Stream,
};

/// One of the [`Pools`].
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

/// Index of a [`FreeList`]: a pool and a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ListIdx(pub u16);

impl Id for ListIdx {
    #[inline]
    fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What one stream has free in a pool.
#[derive(Clone, Debug)]
pub(super) struct FreeList {
    pub pool: PoolIdx,
    pub stream: StreamId,
    /// Free and mapped, in the release's order.
    pub free: FreeIndex,
    /// Not mapped, by address.
    pub unmapped: BTreeMap<Addr, BlockId>,
    /// Whether the pool's blocks are handed out whole.
    pub is_no_split: bool,
    /// Where its blocks belong, as observers are told.
    pub place: Place,
}

/// One half (small or large) of the default pool or of a private one.
#[derive(Clone, Debug)]
pub(super) struct BlockPool {
    pub is_small: bool,
    /// The private pool that it is half of.
    pub private: Option<PrivateIdx>,
    id: PoolId,
    /// Whether its blocks are handed out whole.
    is_no_split: bool,
    /// The lists of the streams that ever asked it for memory, by their ids.
    lists: Vec<Option<ListIdx>>,
    /// `get_free_blocks_call_count`: how often a block was looked for; ages blocks.
    pub call_count: u32,
}

/// All pools: default large, default small, then large and small of each private pool; and what each
/// stream has free in each of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Pools {
    pools: Table<PoolIdx, BlockPool>,
    lists: Table<ListIdx, FreeList>,
    /// The lists of each stream in the default pools, large and small.
    defaults: Vec<[Option<ListIdx>; 2]>,
    /// Whether blocks age.
    counts_calls: bool,
    /// Lists that were in use before the last [`Pools::clear`]: their memory is used again.
    spare: Vec<FreeIndex>,
}

impl Pools {
    /// The default pools.
    pub(super) fn new() -> Self {
        let mut this = Self::default();
        this.add(None, PoolId::DEFAULT, false);
        this
    }

    /// Makes both halves of a pool.
    pub(super) fn add(&mut self, private: Option<PrivateIdx>, id: PoolId, is_no_split: bool) {
        for is_small in [false, true] {
            let (lists, call_count) = (Vec::new(), 0);
            self.pools.push(BlockPool { is_small, private, id, is_no_split, lists, call_count });
        }
    }

    /// The blocks of this half are handed out whole from now on.
    pub(super) fn set_no_split(&mut self, pool: PoolIdx) {
        let pool = &mut self.pools[pool];
        pool.is_no_split = true;
        for list in pool.lists.iter().flatten() {
            self.lists[*list].is_no_split = true;
        }
    }

    /// A block is looked for: all others of the pool are one step older.
    pub(super) fn count_call(&mut self, list: ListIdx) {
        self.counts_calls = true;
        let count = &mut self.pools[self.lists[list].pool].call_count;
        *count = count.wrapping_add(1);
    }

    /// As new; the memory is kept.
    pub(super) fn clear(&mut self) {
        for list in self.lists.iter_mut() {
            let mut free = std::mem::take(&mut list.free);
            free.clear();
            self.spare.push(free);
        }
        self.lists.clear();
        self.defaults.clear();
        self.pools.clear();
        self.counts_calls = false;
        self.add(None, PoolId::DEFAULT, false);
    }

    /// The list of a stream in a pool, if it ever asked it for memory.
    #[inline]
    pub(super) fn known_list(&self, pool: PoolIdx, stream: StreamId) -> Option<ListIdx> {
        self.pools[pool].lists.get(stream.index()).copied().flatten()
    }

    /// The list of a stream in one half of the default pool, if it ever asked it for memory.
    #[inline]
    pub(super) fn known_default_list(&self, is_small: bool, stream: StreamId) -> Option<ListIdx> {
        self.defaults.get(stream.index())?[usize::from(is_small)]
    }

    /// The list of a stream in a pool; `None` if there are too many.
    #[inline]
    pub(super) fn list_of(
        &mut self,
        pool: PoolIdx,
        stream: &Stream,
        id: StreamId,
    ) -> Option<ListIdx> {
        self.known_list(pool, id).or_else(|| self.add_list(pool, stream, id))
    }

    // Deviates: PyTorch has no such limit; here blocks hold the number of their list in 16 bits.
    #[cold]
    fn add_list(&mut self, pool: PoolIdx, stream: &Stream, id: StreamId) -> Option<ListIdx> {
        let list = ListIdx(u16::try_from(self.lists.len()).ok()?);
        let BlockPool { is_small, id: of, is_no_split, lists, .. } = &mut self.pools[pool];
        if lists.len() <= id.index() {
            lists.resize(id.index() + 1, None);
        }
        lists[id.index()] = Some(list);
        if let Some(default) = [PoolIdx::DEFAULT_LARGE, PoolIdx::DEFAULT_SMALL]
            .into_iter()
            .position(|default| default == pool)
        {
            if self.defaults.len() <= id.index() {
                self.defaults.resize(id.index() + 1, [None; 2]);
            }
            self.defaults[id.index()][default] = Some(list);
        }
        let place =
            Place { stream: stream.handle, pool: *of, is_small: *is_small, is_expandable: false };
        self.lists.push(FreeList {
            pool,
            stream: id,
            free: self.spare.pop().unwrap_or_default(),
            unmapped: BTreeMap::new(),
            is_no_split: *is_no_split,
            place,
        });
        Some(list)
    }

    /// All lists; those of the default pools come first.
    pub(super) fn lists(&self) -> &[FreeList] {
        self.lists.as_slice()
    }

    /// A list to change, and the age that blocks in it begin at, if blocks age.
    #[inline(always)]
    pub(super) fn list_and_age(&mut self, list: ListIdx) -> (&mut FreeList, Option<u32>) {
        let list = &mut self.lists[list];
        let age = self.counts_calls.then(|| self.pools[list.pool].call_count);
        (list, age)
    }

    /// A list to change.
    #[inline(always)]
    pub(super) fn list_mut(&mut self, list: ListIdx) -> &mut FreeList {
        &mut self.lists[list]
    }

    /// Whether blocks age, or ever did.
    pub(super) fn counts_calls(&self) -> bool {
        self.counts_calls
    }

    /// The pool that a list is part of.
    #[inline]
    pub(super) fn pool_of(&self, list: ListIdx) -> &BlockPool {
        &self.pools[self.lists[list].pool]
    }

    /// `insert_into_blocks`: the block is free from now on, at age 0.
    pub(super) fn insert(&mut self, blocks: &mut BlockArena, id: BlockId) {
        let (list, age) = self.list_and_age(ListIdx(blocks[id].list));
        if let Some(age) = age {
            blocks.details_mut(id).gc_count_base = age;
        }
        list.free.insert(id, blocks.view());
    }

    /// The block is free no more.
    pub(super) fn erase(&mut self, blocks: &mut BlockArena, id: BlockId) {
        let was_there = self.lists[ListIdx(blocks[id].list)].free.remove(id, blocks.view());
        debug_assert!(was_there, "a free block is in its pool's list");
    }

    /// A block that was just found in a list is free no more.
    pub(super) fn erase_found(&mut self, blocks: &mut BlockArena, list: ListIdx, found: Found) {
        let was_there = self.lists[list].free.remove_found(found, blocks.view());
        debug_assert!(was_there, "what was found is there");
    }

    /// The block stands for a range without memory from now on.
    pub(super) fn insert_unmapped(&mut self, blocks: &BlockArena, id: BlockId) {
        let block = &blocks[id];
        self.lists[ListIdx(block.list)].unmapped.insert(block.addr, id);
    }

    /// The range is mapped, or part of another one.
    pub(super) fn erase_unmapped(&mut self, blocks: &BlockArena, id: BlockId) {
        let block = &blocks[id];
        self.lists[ListIdx(block.list)].unmapped.remove(&block.addr);
    }

    /// Whether the block is in one of the lists.
    pub(super) fn holds(&self, blocks: &BlockArena, id: BlockId) -> bool {
        let block = &blocks[id];
        let list = &self.lists[ListIdx(block.list)];
        list.unmapped.get(&block.addr) == Some(&id) || list.free.iter(blocks).any(|free| free == id)
    }
}

impl std::ops::Index<PoolIdx> for Pools {
    type Output = BlockPool;
    #[inline]
    fn index(&self, pool: PoolIdx) -> &BlockPool {
        &self.pools[pool]
    }
}

impl std::ops::IndexMut<PoolIdx> for Pools {
    #[inline]
    fn index_mut(&mut self, pool: PoolIdx) -> &mut BlockPool {
        &mut self.pools[pool]
    }
}

impl std::ops::Index<ListIdx> for Pools {
    type Output = FreeList;
    #[inline]
    fn index(&self, list: ListIdx) -> &FreeList {
        &self.lists[list]
    }
}

impl std::ops::IndexMut<ListIdx> for Pools {
    #[inline]
    fn index_mut(&mut self, list: ListIdx) -> &mut FreeList {
        &mut self.lists[list]
    }
}
