//! [`BlockArena`]: the records of all blocks and their neighbour links. The only file that knows how
//! blocks lie in memory.
//!
//! What every step looks at is in [`Block`], two to a cache line; what is needed less often is in
//! [`BlockDetails`], in a table of its own.

use std::ops::{Index, IndexMut};

use super::{FreeBlocks, FreeKey, FreeLinks};
use crate::base::{Addr, BlockId, Bytes, ExpandableId, Id, Span, Table};

/// A part of a segment. Aligned, so that no record lies in two cache lines.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub struct Block {
    /// First address.
    pub addr: Addr,
    /// Size.
    pub size: Bytes,
    /// The neighbour below in the same segment.
    pub prev: Option<BlockId>,
    /// The neighbour above in the same segment.
    pub next: Option<BlockId>,
    /// The block that follows in a list of the free index, if it is free.
    next_free: Option<BlockId>,
    /// The pool and stream that it belongs to, by the model's own numbering.
    pub list: u16,
    /// What it is, as bits.
    flags: u8,
}

const _: () = assert!(size_of::<Block>() == 32);

/// The rest of what is known of a block.
#[derive(Clone, Copy, Debug, Default)]
pub struct BlockDetails {
    /// What its owner asked for; stale in free blocks, as in PyTorch.
    pub requested: Bytes,
    /// The expandable segment that it lies in; of no meaning in other blocks.
    expandable: Option<ExpandableId>,
    /// The release's creation counter, 0 where it has none.
    pub order: u32,
    /// The pool's search counter when the block was last put into the free list, if blocks age.
    pub gc_count_base: u32,
    /// CUDA events that a pending free still waits for.
    event_count: u32,
}

impl Block {
    const ALLOCATED: u8 = 1;
    const USED_ELSEWHERE: u8 = 2;
    const HAS_EVENTS: u8 = 4;
    const UNMAPPED: u8 = 8;
    const EXPANDABLE: u8 = 16;
    const NOT_FREE: u8 = Self::ALLOCATED | Self::USED_ELSEWHERE | Self::HAS_EVENTS;

    /// A free, mapped block over a whole segment.
    pub fn whole(span: Span, list: u16) -> Self {
        let Span { start: addr, size } = span;
        Self { addr, size, prev: None, next: None, next_free: None, list, flags: 0 }
    }

    /// The addresses it covers.
    #[inline]
    pub fn span(&self) -> Span {
        Span::new(self.addr, self.size)
    }

    /// Whether it shares its segment with other blocks.
    #[inline]
    pub fn is_split(&self) -> bool {
        self.prev.is_some() || self.next.is_some()
    }

    /// Whether it is neither handed out nor waited for.
    #[inline]
    pub fn is_free(&self) -> bool {
        self.flags & Self::NOT_FREE == 0
    }

    /// Whether it is handed out.
    #[inline]
    pub fn is_allocated(&self) -> bool {
        self.flags & Self::ALLOCATED != 0
    }

    /// Whether it was used on other streams, or waits for an event that a recording tells of.
    #[inline]
    pub fn is_used_elsewhere(&self) -> bool {
        self.flags & Self::USED_ELSEWHERE != 0
    }

    /// Whether it is given back and waits for other streams.
    #[inline]
    pub fn is_pending(&self) -> bool {
        !self.is_allocated() && !self.is_free()
    }

    /// Whether memory is mapped under it; false only inside expandable segments.
    #[inline]
    pub fn is_mapped(&self) -> bool {
        self.flags & Self::UNMAPPED == 0
    }

    /// Whether it lies in an expandable segment.
    #[inline]
    pub fn is_expandable(&self) -> bool {
        self.flags & Self::EXPANDABLE != 0
    }

    /// Whether it could be joined with `other`: free, and mapped alike.
    #[inline]
    pub fn is_free_like(&self, other: &Self) -> bool {
        self.flags & (Self::NOT_FREE | Self::UNMAPPED) == other.flags & Self::UNMAPPED
    }

    /// It is (not) handed out from now on.
    #[inline]
    pub fn set_allocated(&mut self, on: bool) {
        self.set(Self::ALLOCATED, on);
    }

    /// See [`Self::is_used_elsewhere`].
    #[inline]
    pub fn set_used_elsewhere(&mut self, on: bool) {
        self.set(Self::USED_ELSEWHERE, on);
    }

    /// There is (no) memory under it from now on.
    #[inline]
    pub fn set_mapped(&mut self, on: bool) {
        self.set(Self::UNMAPPED, !on);
    }

    #[inline]
    fn set(&mut self, flag: u8, on: bool) {
        self.flags = if on { self.flags | flag } else { self.flags & !flag };
    }
}

/// Where a neighbour lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// At lower addresses.
    Below,
    /// At higher addresses.
    Above,
}

/// All blocks of an allocator. Ids of dead blocks are used again.
#[derive(Clone, Debug, Default)]
pub struct BlockArena {
    blocks: Table<BlockId, Block>,
    details: Table<BlockId, BlockDetails>,
    /// The first dead record; the others follow it as a list.
    dead: Option<BlockId>,
    has_orders: bool,
}

impl BlockArena {
    /// No blocks; `has_orders` says whether [`BlockDetails::order`] is ever anything but 0.
    pub fn new(has_orders: bool) -> Self {
        Self { has_orders, ..Self::default() }
    }

    /// A new block with its record.
    pub fn create(&mut self, block: Block) -> BlockId {
        self.keep_spare();
        let id = self.view().take_spare();
        self.blocks[id] = block;
        self.details[id] = BlockDetails::default();
        id
    }

    /// Makes sure that there is a dead record to make a block of.
    #[inline(always)]
    pub fn keep_spare(&mut self) {
        if self.dead.is_none() {
            self.push_spare();
        }
    }

    #[cold]
    #[inline(never)]
    fn push_spare(&mut self) {
        self.dead = Some(BlockId::from_index(self.blocks.len()));
        self.blocks.push(Block::whole(Span::new(Addr(0), Bytes::ZERO), 0));
        self.details.push(BlockDetails::default());
    }

    /// Whether the records are too many to be near at all times: a MiB of them.
    #[inline]
    pub fn outgrow_the_caches(&self) -> bool {
        self.blocks.len() > 1 << 15
    }

    /// Whether they are so many that nearly all are far: 8 MiB of them.
    #[inline]
    pub fn outgrow_the_caches_by_far(&self) -> bool {
        self.blocks.len() > 1 << 18
    }

    /// Has what else is known of it brought into the caches.
    #[inline]
    pub fn prefetch_details(&self, id: BlockId) {
        self.details.prefetch(id);
    }

    /// What is known of it besides its record.
    #[inline]
    pub fn details(&self, id: BlockId) -> &BlockDetails {
        &self.details[id]
    }

    /// What is known of it besides its record, to change.
    #[inline]
    pub fn details_mut(&mut self, id: BlockId) -> &mut BlockDetails {
        &mut self.details[id]
    }

    /// The expandable segment that it lies in.
    pub fn expandable(&self, id: BlockId) -> Option<ExpandableId> {
        self.details[id].expandable.filter(|_| self.blocks[id].is_expandable())
    }

    /// The block lies in an expandable segment, and no memory is mapped under it.
    pub fn make_expandable(&mut self, id: BlockId, segment: ExpandableId) {
        self.blocks[id].flags |= Block::EXPANDABLE | Block::UNMAPPED;
        self.details[id].expandable = Some(segment);
    }

    /// A pending free waits for one more CUDA event.
    pub fn add_event(&mut self, id: BlockId) {
        self.details[id].event_count += 1;
        self.blocks[id].flags |= Block::HAS_EVENTS;
    }

    /// One of the events is done; returns whether it was the last.
    pub fn finish_event(&mut self, id: BlockId) -> bool {
        let count = &mut self.details[id].event_count;
        *count -= 1;
        let is_last = *count == 0;
        self.blocks[id].set(Block::HAS_EVENTS, !is_last);
        is_last
    }

    /// The block is no more, and its neighbours have none on that side.
    pub fn detach(&mut self, id: BlockId) {
        let (prev, next) = (self.blocks[id].prev, self.blocks[id].next);
        if let Some(prev) = prev {
            self.blocks[prev].next = None;
        }
        if let Some(next) = next {
            self.blocks[next].prev = None;
        }
        self.view().destroy(id);
    }

    /// Cuts `size` bytes off the front. The front becomes the new block that is returned, the
    /// remainder keeps its identity. What was requested for the front is for the caller to set.
    ///
    /// # Source
    /// `alloc_found_block`: the front part is the new object.
    pub fn split_front(&mut self, id: BlockId, size: Bytes) -> BlockId {
        self.keep_spare();
        self.view().split_front(id, size)
    }

    /// Cuts the block after `size` bytes. The back becomes the new block that is returned.
    ///
    /// # Source
    /// `map_block`, `unmap_block`: what stays behind the new range is the new object.
    pub fn split_back(&mut self, id: BlockId, size: Bytes) -> BlockId {
        let whole = self.blocks[id];
        debug_assert!(whole.size > size, "both parts of a split have a size");
        let next = whole.next;
        self.keep_spare();
        let back = self.view().take_spare();
        let (addr, rest) = (whole.addr + size, whole.size - size);
        self.blocks[back] = Block { addr, size: rest, prev: Some(id), ..whole };
        self.view().describe_part(back, id);
        self.details[back].requested = Bytes::ZERO;
        if let Some(next) = next {
            self.blocks[next].prev = Some(back);
        }
        let front = &mut self.blocks[id];
        front.next = Some(back);
        front.size = size;
        back
    }

    /// The blocks that begin a segment, in no particular order.
    pub fn heads(&self) -> impl Iterator<Item = BlockId> {
        let ids = (0..self.blocks.len()).map(BlockId::from_index);
        ids.filter(|id| self.is_alive(*id) && self.blocks[*id].prev.is_none())
    }

    /// `head` and all blocks above it in its segment.
    pub fn chain(&self, head: BlockId) -> impl Iterator<Item = BlockId> {
        std::iter::successors(Some(head), |id| self.blocks[*id].next)
    }

    /// Whether the record is a living block's.
    pub fn is_alive(&self, id: BlockId) -> bool {
        self.blocks.get(id).is_some_and(|block| block.size > Bytes::ZERO)
    }

    /// As new; the memory is kept.
    pub fn clear(&mut self, has_orders: bool) {
        self.has_orders = has_orders;
        self.blocks.clear();
        self.details.clear();
        self.dead = None;
    }

    /// Checks the links of every block: neighbours point to each other, touch, share pool
    /// and stream, and two free neighbours differ in being mapped.
    ///
    /// # Panics
    /// When one does not, with a sentence. For tests.
    pub fn check(&self) {
        for head in self.heads() {
            for id in self.chain(head) {
                let block = &self.blocks[id];
                assert!(self.is_alive(id), "a link leads to a dead block");
                let details = self.details(id);
                assert!(details.expandable.is_some() || !block.is_expandable());
                assert_eq!(details.event_count > 0, block.flags & Block::HAS_EVENTS != 0);
                let Some(next) = block.next.map(|next| &self.blocks[next]) else { continue };
                assert_eq!(next.prev, Some(id), "links of {} are one-way", block.addr);
                assert_eq!(next.addr, block.span().end(), "a hole after {}", block.addr);
                assert_eq!(next.list, block.list);
                assert!(
                    !(block.is_free() && next.is_free() && block.is_mapped() == next.is_mapped()),
                    "free neighbours at {} are not coalesced",
                    block.addr
                );
            }
        }
    }
}

/// The records of an arena as slices: an optimiser keeps their places and lengths in registers, which
/// it cannot with the arena itself.
#[derive(Debug)]
pub struct BlockView<'a> {
    blocks: &'a mut [Block],
    details: &'a mut [BlockDetails],
    dead: &'a mut Option<BlockId>,
    has_orders: bool,
}

impl BlockArena {
    /// The records, to do several things with them.
    #[inline(always)]
    pub fn view(&mut self) -> BlockView<'_> {
        BlockView {
            blocks: self.blocks.as_mut_slice(),
            details: self.details.as_mut_slice(),
            dead: &mut self.dead,
            has_orders: self.has_orders,
        }
    }
}

impl BlockView<'_> {
    /// The same, to hand on: not by reference, which would keep the slices from the registers.
    #[inline(always)]
    pub fn reborrow(&mut self) -> BlockView<'_> {
        BlockView {
            blocks: self.blocks,
            details: self.details,
            dead: self.dead,
            has_orders: self.has_orders,
        }
    }

    /// What is known of a block besides its record, to change.
    #[inline(always)]
    pub fn details_mut(&mut self, id: BlockId) -> &mut BlockDetails {
        &mut self.details[id.index()]
    }

    /// An id for a new block, with what a dead one has left in its records.
    #[inline(always)]
    fn take_spare(&mut self) -> BlockId {
        let id = self.dead.expect("a spare is kept where a block is made");
        *self.dead = self.blocks[id.index()].next_free;
        id
    }

    /// The block is no more; its neighbours must not point to it.
    #[inline(always)]
    fn destroy(&mut self, id: BlockId) {
        let record = &mut self.blocks[id.index()];
        debug_assert!(record.size > Bytes::ZERO, "a block dies once");
        // No living block is empty.
        record.size = Bytes::ZERO;
        record.next_free = *self.dead;
        *self.dead = Some(id);
    }

    /// See [`BlockArena::split_front`].
    ///
    /// # Panics
    /// Unless [`BlockArena::keep_spare`] was called before.
    #[inline(always)]
    pub fn split_front(&mut self, id: BlockId, size: Bytes) -> BlockId {
        let front = self.take_spare();
        let whole = self.blocks[id.index()];
        debug_assert!(whole.size > size, "both parts of a split have a size");
        self.blocks[front.index()] = Block { size, next: Some(id), ..whole };
        if let Some(prev) = whole.prev {
            self.blocks[prev.index()].next = Some(front);
        }
        let rest = &mut self.blocks[id.index()];
        rest.prev = Some(front);
        rest.addr = whole.addr + size;
        rest.size = whole.size - size;
        self.describe_part(front, id);
        front
    }

    /// A part of `whole` shares its segment and age with it.
    #[inline(always)]
    fn describe_part(&mut self, part: BlockId, whole: BlockId) {
        // Most releases and settings have neither: a read of the whole's details less.
        if self.has_orders || self.blocks[whole.index()].is_expandable() {
            let BlockDetails { expandable, order, .. } = self.details[whole.index()];
            let details = &mut self.details[part.index()];
            (details.expandable, details.order) = (expandable, order);
        }
    }

    /// Joins the direct neighbour on one side into `dst`, which survives.
    #[inline(always)]
    pub fn coalesce(&mut self, dst: BlockId, src: BlockId, side: Side) {
        let blocks = &mut *self.blocks;
        let gone = blocks[src.index()];
        let kept = &mut blocks[dst.index()];
        kept.size += gone.size;
        match side {
            Side::Below => {
                debug_assert_eq!(kept.prev, Some(src), "only neighbours coalesce");
                kept.addr = gone.addr;
                kept.prev = gone.prev;
                if let Some(prev) = gone.prev {
                    blocks[prev.index()].next = Some(dst);
                }
            }
            Side::Above => {
                debug_assert_eq!(kept.next, Some(src), "only neighbours coalesce");
                kept.next = gone.next;
                if let Some(next) = gone.next {
                    blocks[next.index()].prev = Some(dst);
                }
            }
        }
        self.destroy(src);
    }
}

impl Index<BlockId> for BlockView<'_> {
    type Output = Block;
    #[inline(always)]
    fn index(&self, id: BlockId) -> &Block {
        &self.blocks[id.index()]
    }
}

impl IndexMut<BlockId> for BlockView<'_> {
    #[inline(always)]
    fn index_mut(&mut self, id: BlockId) -> &mut Block {
        &mut self.blocks[id.index()]
    }
}

impl FreeBlocks for BlockView<'_> {
    #[inline(always)]
    fn key_of(&self, id: BlockId) -> FreeKey {
        let block = &self.blocks[id.index()];
        let order = if self.has_orders { self.details[id.index()].order } else { 0 };
        FreeKey { size: block.size, order, addr: block.addr }
    }

    #[inline(always)]
    fn size_of(&self, id: BlockId) -> Bytes {
        self.blocks[id.index()].size
    }

    /// As the keys say, without a look at what most releases do not have.
    #[inline(always)]
    fn is_after(&self, id: BlockId, other: BlockId) -> bool {
        let (block, than) = (&self.blocks[id.index()], &self.blocks[other.index()]);
        if block.size != than.size {
            return block.size > than.size;
        }
        if self.has_orders {
            return self.key_of(id) > self.key_of(other);
        }
        block.addr > than.addr
    }

    #[inline(always)]
    fn next_free(&self, id: BlockId) -> Option<BlockId> {
        self.blocks[id.index()].next_free
    }
}

impl FreeLinks for BlockView<'_> {
    #[inline(always)]
    fn set_next_free(&mut self, id: BlockId, next: Option<BlockId>) {
        self.blocks[id.index()].next_free = next;
    }
}

impl FreeBlocks for BlockArena {
    #[inline]
    fn prefetch(&self, id: BlockId) {
        self.blocks.prefetch(id);
    }

    #[inline]
    fn key_of(&self, id: BlockId) -> FreeKey {
        let block = &self.blocks[id];
        let order = if self.has_orders { self.details[id].order } else { 0 };
        FreeKey { size: block.size, order, addr: block.addr }
    }

    #[inline]
    fn size_of(&self, id: BlockId) -> Bytes {
        self.blocks[id].size
    }

    #[inline]
    fn next_free(&self, id: BlockId) -> Option<BlockId> {
        self.blocks[id].next_free
    }
}

impl Index<BlockId> for BlockArena {
    type Output = Block;
    #[inline]
    fn index(&self, id: BlockId) -> &Block {
        &self.blocks[id]
    }
}

impl IndexMut<BlockId> for BlockArena {
    #[inline]
    fn index_mut(&mut self, id: BlockId) -> &mut Block {
        &mut self.blocks[id]
    }
}
