//! [`FreeIndex`]: the free blocks of one pool on one stream, in the exact order of the release.
//!
//! PyTorch keeps one ordered set a pool, keyed by (stream, size, tie-break). Every walk it makes over
//! the set stays on one stream, or visits the streams in ascending order; so one index a (pool,
//! stream), visited in ascending order of the streams' handles, gives the same sequence.
//!
//! ```text
//!  bitmap of bins that hold something      0 1 0 0 1 …        one bit a bin, one summary bit a word
//!                                            │     │
//!  bins: sizes of a narrow range        [512]     [2048]      the first block of each
//!                                            │     │
//!  few blocks: a list through them      ■→■→■     │           by (size, order, address)
//!  many blocks: sorted pieces                     [≤32][≤32]  by the same, addresses alone if of one size
//! ```
//! Sizes are multiples of 512 but for one old setting. Up to 2 MiB each size has a bin of its own;
//! above, each octave has 256. So a bin holds few blocks, and where it holds many they are mostly of one
//! size. `lower_bound` looks into the size's own bin, then takes the first block of the next bin that
//! holds one: a few bit operations. The twin in `tree.rs` is the standard ordered map; the tests hold
//! the two together.
//!
//! # What was tried
//!
//! `cargo bench --bench free_index` measures all three, on the same blocks at addresses of no order;
//! small blocks are of 512 B to 1 MiB, large ones of 1 to 64 MiB.
//!
//! ```text
//! ns                         small blocks            large blocks
//!                        100  10,000      1 M     100  10,000     1 M
//! lower_bound  tree       28      58      133      32      74     495
//!              binned    8.7     2.5      2.2     8.9      18     108
//!              here      4.4     2.4      1.9     7.6      29     248
//! insert       tree       17     106      629      18      94     588
//!              binned    8.6      88    10774      10      42     729
//!              here      8.2      49      265     7.7      41     556
//! remove       tree       22     104      689      21      97     630
//!              binned     12      84    13121      13      50    1000
//!              here      5.6      46      260     6.1      32     529
//! ```
//! - **tree**, the standard map by (size, order, address). A step down waits for the one before, and
//!   keys of three words fill the nodes: it is slower everywhere.
//! - **binned**, these bins as sorted vectors of keys and blocks. Finding is as fast or faster: the same
//!   bits are read, and one piece of memory. But every bin that holds something has memory of its own,
//!   also for one block; and an insertion moves what stands behind it in its bin, which is half of some
//!   500 blocks where there are a million small ones.
//! - **here**, the present one. A bin of few blocks costs nothing beside the blocks: its list runs through
//!   records that are read anyway. A bin in which a walk was long becomes a run of pieces, none longer
//!   than 32, so that no insertion moves more than one. Its price is the search for a size within a bin
//!   above 2 MiB that has become a run: first the piece, then the place in it.
//!
//! At a million blocks the time is that of waiting for memory, whatever the design: a block's record, its
//! bin and its piece are far apart. A replay knows what comes, and asks for them in time
//! ([`FreeIndex::prefetch`]); these figures are without that.
//!
//! Tried and not kept, on whole replays: bins found without a branch (slower: which kind a size is of is
//! foreseen well), runs from the third block on (no gain, and slower with few blocks), pieces of 16 and
//! of 24 blocks (no gain), moving a piece's keys by masks or by a loop instead of `memmove` (slower).

mod bin_run;
mod bins;
mod run;
#[cfg(test)]
mod tree;

use self::{
    bin_run::BinRun,
    bins::{Bin, Bins, COUNT, Marks, begins_its_bin, bin_of},
};
use crate::base::{Addr, BlockId, Bytes, RunId, Table};

/// The place of a free block in the order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FreeKey {
    /// Size of the block.
    pub size: Bytes,
    /// The release's tie-break before the address; 0 where the address alone decides.
    pub order: u32,
    /// Address of the block.
    pub addr: Addr,
}

/// The blocks that an index orders, to look at.
pub trait FreeBlocks {
    /// The key that the block was inserted with.
    fn key_of(&self, id: BlockId) -> FreeKey;
    /// The size in that key.
    fn size_of(&self, id: BlockId) -> Bytes;
    /// Has a block's record brought into the caches.
    #[inline]
    fn prefetch(&self, _id: BlockId) {}
    /// Whether the key of a block is above another's.
    #[inline]
    fn is_after(&self, id: BlockId, other: BlockId) -> bool {
        self.key_of(id) > self.key_of(other)
    }
    /// The block that follows in the index's list.
    fn next_free(&self, id: BlockId) -> Option<BlockId>;
}

/// The same, to change: an index keeps the links of its short lists in the blocks. A view, such as a
/// slice of records, that is cheap to hand on.
pub trait FreeLinks: FreeBlocks {
    /// The block that follows in the index's list is `next` from now on.
    fn set_next_free(&mut self, id: BlockId, next: Option<BlockId>);
}

impl<B: FreeBlocks> FreeBlocks for &mut B {
    #[inline]
    fn key_of(&self, id: BlockId) -> FreeKey {
        (**self).key_of(id)
    }

    #[inline]
    fn size_of(&self, id: BlockId) -> Bytes {
        (**self).size_of(id)
    }

    #[inline]
    fn is_after(&self, id: BlockId, other: BlockId) -> bool {
        (**self).is_after(id, other)
    }

    #[inline]
    fn next_free(&self, id: BlockId) -> Option<BlockId> {
        (**self).next_free(id)
    }
}

impl<B: FreeLinks> FreeLinks for &mut B {
    #[inline]
    fn set_next_free(&mut self, id: BlockId, next: Option<BlockId>) {
        (**self).set_next_free(id, next);
    }
}

/// A block, and where it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    number: usize,
    /// The block.
    pub id: BlockId,
}

/// A list in which more steps were needed becomes a run.
const LONGEST_WALK: usize = 16;

/// An ordered index of free blocks. A block is in it at most once, and its key does not change
/// while it is.
///
/// # Complexity
/// `lower_bound`: O(1), and a short search in one bin above 2 MiB. `insert`, `remove`: a few steps in
/// a short bin; a search and a move among at most 32 blocks in others.
#[derive(Clone, Debug, Default)]
pub struct FreeIndex {
    bins: Bins,
    marks: Marks,
    runs: Table<RunId, BinRun>,
    /// Runs that no bin has.
    spare: Vec<RunId>,
}

impl FreeIndex {
    /// Adds a block that is not there.
    #[inline(always)]
    pub fn insert(&mut self, id: BlockId, mut blocks: impl FreeLinks) {
        let number = bin_of(blocks.size_of(id));
        let bin = self.bins.get(number);
        // Whether the bin is empty cannot be foreseen, and is not asked: no block is after itself.
        if bin.run.is_none() && !blocks.is_after(id, bin.first.unwrap_or(id)) {
            blocks.set_next_free(id, bin.first);
            self.bins.set(number, Bin { first: Some(id), run: None });
            self.marks.set(number);
            return;
        }
        self.insert_behind(number, id, blocks);
    }

    /// Adds a block that is not the first of its bin, or whose bin has a run.
    fn insert_behind(&mut self, number: usize, id: BlockId, mut blocks: impl FreeLinks) {
        let key = blocks.key_of(id);
        let bin = self.bins.get(number);
        if let Some(run) = bin.run {
            if self.runs[run].insert(key, id) {
                self.bins.set(number, Bin { first: Some(id), ..bin });
            }
            return;
        }
        let mut before = bin.first.unwrap_or(id);
        for _ in 0..LONGEST_WALK {
            let next = blocks.next_free(before);
            if next.is_none_or(|next| key < blocks.key_of(next)) {
                blocks.set_next_free(id, next);
                blocks.set_next_free(before, Some(id));
                return;
            }
            before = next.unwrap_or(before);
        }
        self.list_to_run(number, &blocks).insert(key, id);
    }

    /// The run that takes the place of a bin's list.
    #[cold]
    fn list_to_run(&mut self, number: usize, blocks: &impl FreeBlocks) -> &mut BinRun {
        let bin = self.bins.get(number);
        let mut run = BinRun::new(number);
        for id in list(bin.first, blocks) {
            run.insert(blocks.key_of(id), id);
        }
        let id = self.spare.pop().unwrap_or_else(|| {
            self.runs.push(BinRun::new(number));
            RunId::from_index(self.runs.len() - 1)
        });
        self.bins.set(number, Bin { run: Some(id), ..bin });
        let place = &mut self.runs[id];
        *place = run;
        place
    }

    /// Takes a block out; returns whether it was there.
    #[inline(always)]
    pub fn remove(&mut self, id: BlockId, blocks: impl FreeLinks) -> bool {
        let number = bin_of(blocks.size_of(id));
        self.remove_found(Found { number, id }, blocks)
    }

    /// Takes a block out that was just found; returns whether it was there.
    #[inline(always)]
    pub fn remove_found(&mut self, found: Found, blocks: impl FreeLinks) -> bool {
        let Found { number, id } = found;
        let bin = self.bins.get(number);
        if bin == (Bin { first: Some(id), run: None }) {
            let first = blocks.next_free(id);
            self.bins.set(number, Bin { first, run: None });
            self.marks.clear_if(number, first.is_none());
            return true;
        }
        self.remove_among(number, id, blocks)
    }

    /// Takes a block out of a bin in which it is not the only one.
    fn remove_among(&mut self, number: usize, id: BlockId, mut blocks: impl FreeLinks) -> bool {
        let bin = self.bins.get(number);
        if let Some(run) = bin.run {
            if bin.first == Some(id) {
                self.runs[run].remove_first();
                self.run_shrank(number, run);
                return true;
            }
            return self.remove_from_run(number, run, blocks.key_of(id));
        }
        let Some(mut before) = bin.first else { return false };
        for _ in 0..LONGEST_WALK {
            let Some(next) = blocks.next_free(before) else { return false };
            if next == id {
                blocks.set_next_free(before, blocks.next_free(id));
                return true;
            }
            before = next;
        }
        self.list_to_run(number, &blocks).remove(blocks.key_of(id))
    }

    fn remove_from_run(&mut self, number: usize, id: RunId, key: FreeKey) -> bool {
        let run = &mut self.runs[id];
        if !run.remove(key) {
            return false;
        }
        self.run_shrank(number, id);
        true
    }

    /// A block was taken out of a run.
    #[inline(always)]
    fn run_shrank(&mut self, number: usize, id: RunId) {
        let first = self.runs[id].first();
        let is_empty = first.is_none();
        self.bins.set(number, Bin { first, run: Some(id).filter(|_| !is_empty) });
        if is_empty {
            self.spare.push(id);
            self.marks.clear_if(number, true);
        }
    }

    /// The first block of at least this size: PyTorch's `lower_bound` with address 0.
    #[inline(always)]
    pub fn lower_bound(&self, size: Bytes, blocks: &impl FreeBlocks) -> Option<Found> {
        let number = bin_of(size);
        if !begins_its_bin(size) {
            let within = self.lower_bound_in(number, size, blocks);
            return within.map(|id| Found { number, id }).or_else(|| self.first_from(number + 1));
        }
        self.first_from(number)
    }

    #[inline]
    fn lower_bound_in(
        &self,
        number: usize,
        size: Bytes,
        blocks: &impl FreeBlocks,
    ) -> Option<BlockId> {
        let bin = self.bins.get(number);
        let mut found = bin.first?;
        if blocks.size_of(found) >= size {
            return Some(found);
        }
        if let Some(run) = bin.run {
            return self.runs[run].first_of_size(size);
        }
        while blocks.size_of(found) < size {
            found = blocks.next_free(found)?;
        }
        Some(found)
    }

    /// Has what an insertion or a removal of `key` reads brought into the caches.
    #[inline]
    pub fn prefetch(&self, key: FreeKey, blocks: &impl FreeBlocks) {
        let bin = self.bins.get(bin_of(key.size));
        if let Some(run) = bin.run {
            self.runs[run].prefetch(key);
        } else if let Some(first) = bin.first {
            blocks.prefetch(first);
        }
    }

    /// The first block of the bins from `number` on.
    #[inline(always)]
    fn first_from(&self, number: usize) -> Option<Found> {
        let number = self.marks.next(number)?;
        self.bins.get(number).first.map(|id| Found { number, id })
    }

    /// The block that follows one that is in the index.
    #[inline(always)]
    pub fn after(&self, id: BlockId, blocks: &impl FreeBlocks) -> Option<Found> {
        let key = blocks.key_of(id);
        let number = bin_of(key.size);
        let within = match self.bins.get(number).run {
            Some(run) => self.runs[run].after(key),
            None => blocks.next_free(id),
        };
        within.map(|id| Found { number, id }).or_else(|| self.first_from(number + 1))
    }

    /// The block before one that is in the index.
    pub fn before(&self, id: BlockId, blocks: &impl FreeBlocks) -> Option<BlockId> {
        let key = blocks.key_of(id);
        let number = bin_of(key.size);
        let bin = self.bins.get(number);
        let within = match bin.run {
            Some(run) => self.runs[run].before(key),
            None => list(bin.first, blocks).take_while(|other| *other != id).last(),
        };
        within.or_else(|| self.last_of(self.marks.last_below(number)?, blocks))
    }

    /// The last block of all.
    pub fn last(&self, blocks: &impl FreeBlocks) -> Option<BlockId> {
        self.last_of(self.marks.last_below(COUNT)?, blocks)
    }

    fn last_of(&self, number: usize, blocks: &impl FreeBlocks) -> Option<BlockId> {
        let bin = self.bins.get(number);
        match bin.run {
            Some(run) => self.runs[run].last(),
            None => list(bin.first, blocks).last(),
        }
    }

    /// The numbers of the bins that hold something.
    fn marked(&self) -> impl Iterator<Item = usize> {
        std::iter::successors(self.marks.next(0), |number| self.marks.next(number + 1))
    }

    /// All blocks in order.
    pub fn iter<B: FreeBlocks>(&self, blocks: &B) -> impl Iterator<Item = BlockId> {
        self.marked().flat_map(move |number| {
            let bin = self.bins.get(number);
            let run = bin.run.map(|run| &self.runs[run]);
            let first = bin.first.filter(|_| run.is_none());
            list(first, blocks).chain(run.into_iter().flat_map(BinRun::iter))
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.marks.next(0).is_none()
    }

    /// Empty again; the memory is kept.
    pub fn clear(&mut self) {
        while let Some(number) = self.marks.next(0) {
            self.spare.extend(self.bins.get(number).run);
            self.bins.set(number, Bin { first: None, run: None });
            self.marks.clear_if(number, true);
        }
    }
}

/// A bin's list.
fn list(first: Option<BlockId>, blocks: &impl FreeBlocks) -> impl Iterator<Item = BlockId> {
    std::iter::successors(first, |id| blocks.next_free(*id))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{tree::TreeIndex, *};
    use crate::base::Id as _;

    /// Keys and links by the blocks' numbers.
    #[derive(Default)]
    struct Blocks(Vec<(FreeKey, Option<BlockId>)>);

    impl FreeBlocks for Blocks {
        fn key_of(&self, id: BlockId) -> FreeKey {
            self.0[id.index()].0
        }

        fn size_of(&self, id: BlockId) -> Bytes {
            self.0[id.index()].0.size
        }

        fn next_free(&self, id: BlockId) -> Option<BlockId> {
            self.0[id.index()].1
        }
    }

    impl FreeLinks for Blocks {
        fn set_next_free(&mut self, id: BlockId, next: Option<BlockId>) {
            self.0[id.index()].1 = next;
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(FreeKey),
        Remove(usize),
        LowerBound(u64),
        Around(usize),
    }

    fn key() -> impl Strategy<Value = FreeKey> {
        let size = prop_oneof![
            4 => (1u64..8).prop_map(|n| n * 512),
            4 => (1u64..8192).prop_map(|n| n * 512),
            4 => (1u64..(1 << 22)).prop_map(|n| n * 512),
            2 => 1u64..(1 << 45),
            1 => prop::sample::select(vec![1, 511, 513, (2 << 20) - 512, 2 << 20, (2 << 20) + 512, u64::MAX]),
        ];
        (size, 0u32..3, 0u64..4096).prop_map(|(size, order, addr)| FreeKey {
            size: Bytes(size),
            order,
            addr: Addr(addr * 512),
        })
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => key().prop_map(Step::Insert),
            3 => any::<usize>().prop_map(Step::Remove),
            3 => key().prop_map(|key| Step::LowerBound(key.size.0)),
            1 => any::<usize>().prop_map(Step::Around),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_index_and_its_plain_twin_agree_on_every_answer(
            steps in prop::collection::vec(step(), 1..2000),
            crowd in prop::collection::vec(0u64..2, 0..2),
        ) {
            let (mut index, mut twin) = (FreeIndex::default(), TreeIndex::default());
            let mut blocks = Blocks::default();
            let mut inside: Vec<BlockId> = Vec::new();
            for step in steps {
                match step {
                    Step::Insert(mut key) => {
                        if let Some(few) = crowd.first() {
                            key.size = Bytes(512 << (key.size.0 >> 9 & few));
                        }
                        // A block has one key, and a key one block.
                        if inside.iter().any(|id| blocks.key_of(*id) == key) {
                            continue;
                        }
                        let id = BlockId::from_index(blocks.0.len());
                        inside.push(id);
                        blocks.0.push((key, None));
                        index.insert(id, &mut blocks);
                        prop_assert!(twin.insert(key, id));
                    }
                    Step::Remove(n) if !inside.is_empty() => {
                        let id = inside.swap_remove(n % inside.len());
                        prop_assert!(index.remove(id, &mut blocks));
                        prop_assert!(twin.remove(blocks.key_of(id)));
                        prop_assert!(!index.remove(id, &mut blocks), "it is there once");
                    }
                    Step::LowerBound(size) => {
                        let size = Bytes(size);
                        let found = index.lower_bound(size, &blocks).map(|found| found.id);
                        prop_assert_eq!(found, twin.lower_bound(size));
                    }
                    Step::Around(n) if !inside.is_empty() => {
                        let id = inside[n % inside.len()];
                        let key = blocks.key_of(id);
                        let after = index.after(id, &blocks).map(|found| found.id);
                        prop_assert_eq!(after, twin.after(key));
                        prop_assert_eq!(index.before(id, &blocks), twin.before(Some(key)));
                    }
                    Step::Remove(_) | Step::Around(_) => {}
                }
                prop_assert_eq!(index.is_empty(), inside.is_empty());
                prop_assert_eq!(index.last(&blocks), twin.before(None));
            }
            let all: Vec<_> = index.iter(&blocks).collect();
            prop_assert_eq!(all, twin.iter().collect::<Vec<_>>());
            index.clear();
            prop_assert!(index.is_empty() && index.iter(&blocks).next().is_none());
            prop_assert_eq!(index.lower_bound(Bytes(1), &blocks), None);
        }
    }

    #[test]
    fn bins_rise_with_sizes() {
        let sizes = (0..60).flat_map(|k| [(1u64 << k).saturating_sub(1), 1 << k, (1 << k) + 1]);
        let bins: Vec<usize> = sizes.map(|size| bin_of(Bytes(size))).collect();
        assert!(bins.is_sorted(), "{bins:?}");
        assert!(bin_of(Bytes(u64::MAX)) < COUNT);
    }
}
