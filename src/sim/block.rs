//! [`BlockArena`]: the records of all blocks and their neighbour links. The only file that knows how
//! blocks lie in memory.

use crate::base::{Addr, BlockId, Bytes, ExpandableId, Id, Span, StreamId, Table};

/// A part of a segment.
#[derive(Clone, Debug)]
pub struct Block {
    /// First address.
    pub addr: Addr,
    /// Size.
    pub size: Bytes,
    /// What its owner asked for; stale in free blocks, as in PyTorch.
    pub requested: Bytes,
    /// The neighbour below in the same segment.
    pub prev: Option<BlockId>,
    /// The neighbour above in the same segment.
    pub next: Option<BlockId>,
    /// The pool, by the model's own numbering.
    pub pool: u16,
    /// The stream it was allocated for.
    pub stream: StreamId,
    /// The expandable segment that it lies in.
    pub expandable: Option<ExpandableId>,
    /// The release's creation counter, 0 where it has none.
    pub order: u32,
    /// The pool's search counter when the block was last put into the free list.
    pub gc_count_base: u32,
    /// CUDA events that a pending free still waits for.
    pub event_count: u32,
    /// Whether it is handed out.
    pub allocated: bool,
    /// Whether memory is mapped under it; false only inside expandable segments.
    pub mapped: bool,
    /// Whether it was used on other streams, or waits for an event that a recording tells of.
    pub in_use_elsewhere: bool,
}

impl Block {
    /// A free, mapped block over a whole segment.
    pub fn whole(span: Span, pool: u16, stream: StreamId, order: u32) -> Self {
        Self {
            addr: span.start,
            size: span.size,
            requested: Bytes::ZERO,
            prev: None,
            next: None,
            pool,
            stream,
            expandable: None,
            order,
            gc_count_base: 0,
            event_count: 0,
            allocated: false,
            mapped: true,
            in_use_elsewhere: false,
        }
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
        !self.allocated && self.event_count == 0 && !self.in_use_elsewhere
    }
}

/// All blocks of an allocator. Ids of dead blocks are used again.
#[derive(Clone, Debug, Default)]
pub struct BlockArena {
    blocks: Table<BlockId, Block>,
    /// One flag a record: whether it is alive.
    alive: Vec<bool>,
    dead: Vec<BlockId>,
}

impl BlockArena {
    /// A new block with its record.
    pub fn create(&mut self, block: Block) -> BlockId {
        if let Some(id) = self.dead.pop() {
            self.blocks[id] = block;
            self.alive[id.index()] = true;
            return id;
        }
        let id = BlockId::from_index(self.blocks.len());
        self.blocks.push(block);
        self.alive.push(true);
        id
    }

    /// The block is no more; its neighbours must not point to it.
    pub fn destroy(&mut self, id: BlockId) {
        debug_assert!(self.alive[id.index()], "a block dies once");
        self.alive[id.index()] = false;
        self.dead.push(id);
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
        self.destroy(id);
    }

    /// Cuts `size` bytes off the front. The front becomes the new block that is returned, the
    /// remainder keeps its identity.
    ///
    /// # Source
    /// `alloc_found_block`: the front part is the new object.
    pub fn split_front(&mut self, id: BlockId, size: Bytes) -> BlockId {
        let mut front = self.blocks[id].clone();
        debug_assert!(front.size > size, "both parts of a split have a size");
        front.size = size;
        front.requested = Bytes::ZERO;
        front.next = Some(id);
        let prev = front.prev;
        let front = self.create(front);
        if let Some(prev) = prev {
            self.blocks[prev].next = Some(front);
        }
        let rest = &mut self.blocks[id];
        rest.prev = Some(front);
        rest.addr = rest.addr + size;
        rest.size -= size;
        front
    }

    /// Cuts the block after `size` bytes. The back becomes the new block that is returned.
    ///
    /// # Source
    /// `map_block`, `unmap_block`: what stays behind the new range is the new object.
    pub fn split_back(&mut self, id: BlockId, size: Bytes) -> BlockId {
        let mut back = self.blocks[id].clone();
        debug_assert!(back.size > size, "both parts of a split have a size");
        back.addr = back.addr + size;
        back.size -= size;
        back.requested = Bytes::ZERO;
        back.prev = Some(id);
        let next = back.next;
        let back = self.create(back);
        if let Some(next) = next {
            self.blocks[next].prev = Some(back);
        }
        let front = &mut self.blocks[id];
        front.next = Some(back);
        front.size = size;
        back
    }

    /// Joins `src` into its direct neighbour `dst`, which survives.
    pub fn coalesce(&mut self, dst: BlockId, src: BlockId) {
        let gone = self.blocks[src].clone();
        let kept = &mut self.blocks[dst];
        kept.size += gone.size;
        if kept.prev == Some(src) {
            kept.addr = gone.addr;
            kept.prev = gone.prev;
            if let Some(prev) = gone.prev {
                self.blocks[prev].next = Some(dst);
            }
        } else {
            debug_assert_eq!(kept.next, Some(src), "only neighbours coalesce");
            kept.next = gone.next;
            if let Some(next) = gone.next {
                self.blocks[next].prev = Some(dst);
            }
        }
        self.destroy(src);
    }

    /// The blocks that begin a segment, in no particular order.
    pub fn heads(&self) -> impl Iterator<Item = BlockId> {
        let ids = (0..self.blocks.len()).map(BlockId::from_index);
        ids.filter(|id| self.alive[id.index()] && self.blocks[*id].prev.is_none())
    }

    /// `head` and all blocks above it in its segment.
    pub fn chain(&self, head: BlockId) -> impl Iterator<Item = BlockId> {
        std::iter::successors(Some(head), |id| self.blocks[*id].next)
    }

    /// Whether the record is a living block's.
    pub fn is_alive(&self, id: BlockId) -> bool {
        self.alive.get(id.index()).is_some_and(|alive| *alive)
    }

    /// No blocks; the memory is kept.
    pub fn clear(&mut self) {
        self.blocks.clear();
        self.alive.clear();
        self.dead.clear();
    }

    /// Checks the links of every block: neighbours point to each other, touch, share stream and
    /// pool, and two free neighbours differ in being mapped.
    ///
    /// # Panics
    /// When one does not, with a sentence. For tests.
    pub fn check(&self) {
        for head in self.heads() {
            for id in self.chain(head) {
                let block = &self.blocks[id];
                assert!(self.alive[id.index()], "a link leads to a dead block");
                assert!(block.size > Bytes::ZERO, "block at {} has no size", block.addr);
                let Some(next) = block.next.map(|next| &self.blocks[next]) else { continue };
                assert_eq!(next.prev, Some(id), "links of {} are one-way", block.addr);
                assert_eq!(next.addr, block.span().end(), "a hole after {}", block.addr);
                assert_eq!((next.stream, next.pool), (block.stream, block.pool));
                assert!(
                    !(block.is_free() && next.is_free() && block.mapped == next.mapped),
                    "free neighbours at {} are not coalesced",
                    block.addr
                );
            }
        }
    }
}

impl std::ops::Index<BlockId> for BlockArena {
    type Output = Block;
    #[inline]
    fn index(&self, id: BlockId) -> &Block {
        &self.blocks[id]
    }
}

impl std::ops::IndexMut<BlockId> for BlockArena {
    #[inline]
    fn index_mut(&mut self, id: BlockId) -> &mut Block {
        &mut self.blocks[id]
    }
}
