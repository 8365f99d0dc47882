//! [`FreeIndex`]: the free blocks of one pool on one stream, in the exact order of the release.
//!
//! PyTorch keeps one ordered set a pool, keyed by (stream, size, tie-break). Every walk it makes over
//! the set stays on one stream, or visits the streams in ascending order; so one index a (pool,
//! stream), visited in ascending order of the streams' handles, gives the same sequence.
//!
//! ```text
//!  bitmap of bins that hold something      0 1 0 0 1 …   one bit a bin, one summary bit a word
//!                                            │     │
//!  bins: sizes of a narrow range        [512] [2048,2048]   each sorted by (size, order, address)
//! ```
//! Sizes are multiples of 512 but for one old setting. Up to 2 MiB each size has a bin of its own;
//! above, each octave has 256. So a bin holds few blocks, and where it holds many they are of one
//! size. `lower_bound` looks into the size's own bin, then takes the first block of the next bin that
//! holds one: a few bit operations. The twin in `tree.rs` is the standard ordered map; the tests hold
//! the two together.

mod bins;
#[cfg(test)]
mod tree;

use self::bins::Bins;
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

type Entry = (FreeKey, BlockId);

/// An ordered index of free blocks.
///
/// # Complexity
/// `lower_bound`: O(1) and a binary search in one bin. `insert`, `remove`: that, and the move of what
/// stands behind in the bin. The bins of n blocks of different sizes hold O(n / 256) each at worst in
/// one octave; of n blocks of one size, n.
#[derive(Clone, Debug, Default)]
pub struct FreeIndex {
    bins: Bins,
    len: usize,
}

impl FreeIndex {
    /// Adds a block; returns whether it was not there before.
    #[inline]
    pub fn insert(&mut self, key: FreeKey, block: BlockId) -> bool {
        let bin = self.bins.open(Bins::of(key.size));
        // Most bins hold one block or none; a new one often comes last.
        let at = match bin.last() {
            None => 0,
            Some((last, _)) if *last < key => bin.len(),
            Some(_) => match bin.binary_search_by_key(&key, |entry| entry.0) {
                Ok(_) => return false,
                Err(at) => at,
            },
        };
        bin.insert(at, (key, block));
        self.len += 1;
        true
    }

    /// Takes a block out; returns whether it was there.
    #[inline]
    pub fn remove(&mut self, key: FreeKey) -> bool {
        let number = Bins::of(key.size);
        let bin = self.bins.open(number);
        let Ok(at) = bin.binary_search_by_key(&key, |entry| entry.0) else {
            self.bins.close(number);
            return false;
        };
        bin.remove(at);
        self.len -= 1;
        self.bins.close(number);
        true
    }

    /// The first block of at least this size: PyTorch's `lower_bound` with address 0.
    #[inline]
    pub fn lower_bound(&self, size: Bytes) -> Option<Entry> {
        let number = Bins::of(size);
        let bin = self.bins.get(number);
        match bin.first() {
            // Above 2 MiB a bin may hold smaller blocks too.
            Some(entry) if entry.0.size >= size => return Some(*entry),
            Some(_) => {
                let at = bin.partition_point(|entry| entry.0.size < size);
                if let Some(entry) = bin.get(at) {
                    return Some(*entry);
                }
            }
            None => {}
        }
        self.first_behind(number)
    }

    fn first_behind(&self, number: usize) -> Option<Entry> {
        self.bins.get(self.bins.next(number + 1)?).first().copied()
    }

    /// The block that follows `key`.
    #[inline]
    pub fn after(&self, key: FreeKey) -> Option<Entry> {
        let number = Bins::of(key.size);
        let bin = self.bins.get(number);
        let at = bin.partition_point(|entry| entry.0 <= key);
        bin.get(at).copied().or_else(|| self.first_behind(number))
    }

    /// The block before `key`, or the last one of all.
    #[inline]
    pub fn before(&self, key: Option<FreeKey>) -> Option<Entry> {
        let end = match key {
            None => usize::MAX,
            Some(key) => {
                let number = Bins::of(key.size);
                let bin = self.bins.get(number);
                let at = bin.partition_point(|entry| entry.0 < key);
                if let Some(entry) = at.checked_sub(1).and_then(|at| bin.get(at)) {
                    return Some(*entry);
                }
                number
            }
        };
        self.bins.get(self.bins.last_below(end)?).last().copied()
    }

    /// All blocks in order.
    pub fn iter(&self) -> impl Iterator<Item = Entry> {
        let numbers = std::iter::successors(self.bins.next(0), |at| self.bins.next(at + 1));
        numbers.flat_map(|number| self.bins.get(number).iter().copied())
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Empty again; the memory is kept.
    pub fn clear(&mut self) {
        self.bins.clear();
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{tree::TreeIndex, *};

    #[derive(Clone, Debug)]
    enum Step {
        Insert(FreeKey),
        Remove(usize),
        LowerBound(u64),
        Around(usize),
    }

    fn key() -> impl Strategy<Value = FreeKey> {
        let size = prop_oneof![
            4 => (1u64..40).prop_map(|n| n * 512),
            4 => (1u64..8192).prop_map(|n| n * 512),
            4 => (1u64..(1 << 22)).prop_map(|n| n * 512),
            2 => 1u64..(1 << 45),
            1 => prop::sample::select(vec![1, 511, 513, (2 << 20) - 512, 2 << 20, (2 << 20) + 512, u64::MAX]),
        ];
        (size, 0u32..3, 0u64..64).prop_map(|(size, order, addr)| FreeKey {
            size: Bytes(size),
            order,
            addr: Addr(addr * 512),
        })
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => key().prop_map(Step::Insert),
            3 => any::<usize>().prop_map(Step::Remove),
            3 => key().prop_map(|key| Step::LowerBound(key.size.0)),
            1 => any::<usize>().prop_map(Step::Around),
        ]
    }

    proptest! {
        #[test]
        fn the_index_and_its_plain_twin_agree_on_every_answer(
            steps in prop::collection::vec(step(), 1..400),
        ) {
            let (mut index, mut twin) = (FreeIndex::default(), TreeIndex::default());
            let mut known: Vec<FreeKey> = Vec::new();
            for step in steps {
                match step {
                    Step::Insert(key) => {
                        // A block has one key, and a key one block.
                        let known_at = known.iter().position(|known| *known == key);
                        let id = BlockId::from_index(known_at.unwrap_or(known.len()));
                        prop_assert_eq!(index.insert(key, id), twin.insert(key, id));
                        known.push(key);
                    }
                    Step::Remove(n) if !known.is_empty() => {
                        let key = known[n % known.len()];
                        prop_assert_eq!(index.remove(key), twin.remove(key));
                    }
                    Step::LowerBound(size) => {
                        let size = Bytes(size);
                        prop_assert_eq!(index.lower_bound(size), twin.lower_bound(size));
                    }
                    Step::Around(n) if !known.is_empty() => {
                        let key = known[n % known.len()];
                        prop_assert_eq!(index.after(key), twin.after(key));
                        prop_assert_eq!(index.before(Some(key)), twin.before(Some(key)));
                    }
                    Step::Remove(_) | Step::Around(_) => {}
                }
                prop_assert_eq!(index.len(), twin.len());
                prop_assert_eq!(index.before(None), twin.before(None));
            }
            let all: Vec<_> = index.iter().collect();
            prop_assert_eq!(all, twin.iter().collect::<Vec<_>>());
            index.clear();
            prop_assert!(index.is_empty() && index.iter().next().is_none());
        }
    }

    #[test]
    fn bins_rise_with_sizes() {
        let sizes = (0..60).flat_map(|k| [(1u64 << k).saturating_sub(1), 1 << k, (1 << k) + 1]);
        let bins: Vec<usize> = sizes.map(|size| Bins::of(Bytes(size))).collect();
        assert!(bins.is_sorted(), "{bins:?}");
    }
}
