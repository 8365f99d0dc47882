//! Looking ahead: where the blocks are too many for the caches, what coming operations will read is
//! asked for in time. Changes nothing.
//!
//! ```text
//!  operations ahead       20           16               12                  8             0
//!  of a free       row of `live` ─► its block ─► its neighbours ─► their neighbours, its list
//!  of a request                                  what it finds ─► its neighbour, list of the rest
//! ```
//! Each step reads what the one before has brought. Where an operation in between changes that, what is
//! asked for is of no use, and nothing else happens.

use super::{
    PyTorch,
    pool::{FreeList, ListIdx},
    rounding::{MIN_BLOCK_SIZE, SMALL_SIZE},
};
use crate::{
    base::{BlockId, Bytes},
    sim::{Block, FreeBlocks as _, FreeKey},
    trace::{AllocOp, Op},
};

/// How many operations ahead each step is made.
const ROW: usize = 20;
const BLOCK: usize = 16;
const AROUND: usize = 12;
const LISTS: usize = 8;

impl PyTorch {
    /// Has what `coming` will read brought into the caches. Requests, and the lists, are looked at only
    /// where the blocks outgrow the caches by far: it takes some time, too.
    #[inline]
    pub(super) fn prefetch(&self, coming: &[Op]) {
        if let Some(Op::Free(free)) = coming.get(ROW) {
            self.live.prefetch(free.id);
        }
        if let Some(block) = self.freed_by(coming.get(BLOCK)) {
            self.blocks.prefetch(block);
        }
        if let Some(block) = self.freed_by(coming.get(AROUND)) {
            let Block { prev, next, .. } = self.blocks[block];
            for neighbour in [prev, next].into_iter().flatten() {
                self.blocks.prefetch(neighbour);
            }
        }
        if !self.blocks.outgrow_the_caches_by_far() {
            return;
        }
        if let Some(Op::Alloc(op)) = coming.get(AROUND)
            && let Some((_, found, _)) = self.guess(op)
        {
            self.blocks.prefetch(found);
        }
        match coming.get(LISTS) {
            Some(Op::Alloc(op)) => self.prefetch_for_request(op),
            other => {
                if let Some(block) = self.freed_by(other) {
                    self.prefetch_for_free(block);
                }
            }
        }
    }

    /// The block that an operation frees, if it is a free.
    #[inline]
    fn freed_by(&self, op: Option<&Op>) -> Option<BlockId> {
        match op {
            Some(Op::Free(free)) => self.live.get(free.id).copied().flatten(),
            _ => None,
        }
    }

    /// The list that a request without a pool of its own would be served from, the block that would
    /// serve it now, and its rounded size; near enough for a guess.
    #[inline]
    fn guess(&self, op: &AllocOp) -> Option<(&FreeList, BlockId, Bytes)> {
        let size = op.size.round_up(MIN_BLOCK_SIZE);
        let list = &self.pools[self.pools.known_default_list(size <= SMALL_SIZE, op.stream)?];
        let found = list.free.lower_bound(size, &self.blocks)?;
        Some((list, found.id, size))
    }

    #[inline]
    fn prefetch_for_request(&self, op: &AllocOp) {
        let Some((list, found, size)) = self.guess(op) else { return };
        let Block { addr, size: whole, prev, .. } = self.blocks[found];
        self.blocks.prefetch_details(found);
        if let Some(prev) = prev {
            self.blocks.prefetch(prev);
        }
        if whole > size {
            let rest = FreeKey { size: whole - size, order: 0, addr: addr + size };
            list.free.prefetch(rest, &self.blocks);
        }
    }

    #[inline]
    fn prefetch_for_free(&self, block: BlockId) {
        let Block { addr, size, prev, next, list, .. } = self.blocks[block];
        let mut key = FreeKey { size, order: 0, addr };
        let merges = |side: Option<BlockId>| side.filter(|id| self.blocks[*id].is_free());
        if let Some(prev) = merges(prev) {
            let below = &self.blocks[prev];
            key = FreeKey { size: key.size + below.size, addr: below.addr, ..key };
            self.prefetch_joined(prev, below.prev);
        }
        if let Some(next) = merges(next) {
            let above = &self.blocks[next];
            key.size += above.size;
            self.prefetch_joined(next, above.next);
        }
        self.pools[ListIdx(list)].free.prefetch(key, &self.blocks);
    }

    /// A block that is joined to another: its neighbour gets a new one, and its id a new block.
    #[inline]
    fn prefetch_joined(&self, block: BlockId, neighbour: Option<BlockId>) {
        self.blocks.prefetch_details(block);
        if let Some(neighbour) = neighbour {
            self.blocks.prefetch(neighbour);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        base::{AllocId, Bytes, DeviceIndex, Release, StreamId},
        models::pytorch::{PyTorch, PyTorchConfig, conf::AllocConf},
        sim::{Allocator as _, Device, DeviceConfig, OnOom, replay, replay_op},
        trace::{Trace, TraceBuilder},
    };

    /// More live blocks than any threshold, and then frees and requests among them in no order.
    fn churn() -> Trace {
        let mut random = 88_172_645_463_325_252u64;
        let mut below = |count: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % count
        };
        let mut builder = TraceBuilder::new(DeviceIndex(0));
        let mut live: Vec<AllocId> = Vec::new();
        for _ in 0..400_000 {
            if live.len() > 300_000 {
                let at = usize::try_from(below(300_000)).unwrap();
                builder.free(live.swap_remove(at), false).unwrap();
            }
            let most = if below(8) == 0 { 4 << 20 } else { 1 << 14 };
            live.push(builder.alloc(Bytes(1 + below(most)), StreamId(0), None).unwrap());
        }
        builder.build()
    }

    #[test]
    fn looking_ahead_changes_nothing() {
        let trace = churn();
        for conf in ["", "expandable_segments:True"] {
            let conf = AllocConf::from_string(Release::NEWEST, conf).unwrap().0;
            let config = PyTorchConfig { conf, ..PyTorchConfig::new(Release::NEWEST) };
            let device = || Device::new(DeviceConfig::new(DeviceIndex(0), Bytes::gib(1 << 10)));
            let new = || PyTorch::new(config.clone(), device(), trace.streams(), trace.pools());
            let (mut looks, mut does_not) = (new(), new());
            assert!(replay(&trace, &mut looks, &mut (), OnOom::Stop, None).completed);
            assert!(looks.blocks.outgrow_the_caches_by_far());
            does_not.start(&trace, &mut ());
            for op in trace.ops() {
                assert!(replay_op(&trace, op, &mut does_not, &mut ()).is_none());
            }
            assert_eq!(looks.layout(), does_not.layout());
        }
    }
}
