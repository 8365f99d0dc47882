//! The structures under the model against the plainest twins there are.

use std::collections::HashMap;

use fragsim::{
    base::{Addr, BlockId, Bytes, Id},
    sim::{FlatHash, FlatKey, FreeBlocks, FreeIndex, FreeKey, FreeLinks},
};
use proptest::{collection::vec, prelude::*};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::runs::{holds, number};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key(u64);

impl FlatKey for Key {
    fn hash(self) -> u64 {
        self.0
    }
}

#[derive(Clone, Debug)]
enum TableStep {
    Insert(u64),
    Remove(u64),
    Change(u64),
    Clear,
}

#[test]
fn a_flat_hash_holds_what_a_hash_map_holds() {
    // Few keys, dense or far apart, so that many land in the same slots.
    let key = || {
        prop_oneof![
            0..40_u64,
            (0..40_u64).prop_map(|n| 1 << 56 | (3 + 32 * n)),
            (0..40_u64).prop_map(|n| n << 58),
        ]
    };
    let step = prop_oneof![
        12 => key().prop_map(TableStep::Insert),
        8 => key().prop_map(TableStep::Remove),
        2 => key().prop_map(TableStep::Change),
        1 => Just(TableStep::Clear),
    ];
    holds(1000, &vec(step, 1..300), |steps| {
        let mut table = FlatHash::default();
        let mut map = HashMap::new();
        for (i, step) in steps.into_iter().enumerate() {
            match step {
                TableStep::Insert(key) => {
                    let is_new = !map.contains_key(&key);
                    map.entry(key).or_insert(i);
                    prop_assert_eq!(table.insert(Key(key), i), is_new);
                }
                TableStep::Remove(key) => {
                    prop_assert_eq!(table.remove(Key(key)), map.remove(&key));
                }
                TableStep::Change(key) => {
                    let mine = map.get_mut(&key);
                    prop_assert_eq!(table.contains(Key(key)), mine.is_some());
                    let theirs = table.get_mut(Key(key));
                    prop_assert_eq!(&theirs, &mine);
                    if let (Some(theirs), Some(mine)) = (theirs, mine) {
                        (*theirs, *mine) = (i, i);
                    }
                }
                TableStep::Clear => {
                    table.clear();
                    map.clear();
                }
            }
            prop_assert_eq!((table.len(), table.is_empty()), (map.len(), map.is_empty()));
            let keys: Vec<Key> = table.keys().collect();
            prop_assert_eq!(keys.len(), map.len());
            for (key, value) in &map {
                prop_assert_eq!(table.get_mut(Key(*key)).copied(), Some(*value));
            }
            let mut walked = Vec::new();
            let mut slot = 0;
            while let Some((at, key)) = table.key_from(slot) {
                walked.push(key);
                slot = at + 1;
            }
            prop_assert_eq!(walked, keys);
        }
        Ok(())
    });
}

/// Keys and links of blocks by their numbers.
struct Blocks(Vec<(FreeKey, Option<BlockId>)>);

impl FreeBlocks for Blocks {
    fn key_of(&self, id: BlockId) -> FreeKey {
        self.0[id.index()].0
    }

    fn size_of(&self, id: BlockId) -> Bytes {
        self.key_of(id).size
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

/// A seeded run against the plainest twin there is: a vector that is kept sorted. Bins grow from
/// nothing to hundreds of blocks and shrink again.
#[test]
fn a_free_index_orders_as_a_sorted_vector_does() {
    const COUNT: usize = 4000;
    let seed = number("FRAGSIM_SEED").unwrap_or(0);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let key = |at: usize, rng: &mut ChaCha8Rng| FreeKey {
        size: Bytes(512 * rng.random_range(1..12)) + Bytes(rng.random_range(0..2) << 22),
        order: rng.random_range(0..3),
        addr: Addr(512 * at as u64),
    };
    let mut blocks = Blocks((0..COUNT).map(|at| (key(at, &mut rng), None)).collect());
    let mut index = FreeIndex::default();
    let mut plain: Vec<FreeKey> = Vec::new();
    for round in 0..40_000 {
        let id = BlockId::from_index(rng.random_range(0..COUNT));
        let key = blocks.key_of(id);
        let is_growing = round % 16_000 < 8000;
        match plain.binary_search(&key) {
            Err(at) if is_growing || rng.random_bool(0.1) => {
                index.insert(id, &mut blocks);
                plain.insert(at, key);
            }
            Ok(at) if !is_growing || rng.random_bool(0.1) => {
                assert!(index.remove(id, &mut blocks), "FRAGSIM_SEED={seed}");
                plain.remove(at);
            }
            Ok(at) => {
                let found = |id: Option<BlockId>| id.map(|id| blocks.key_of(id));
                let after = found(index.after(id, &blocks).map(|found| found.id));
                assert_eq!(after, plain.get(at + 1).copied(), "FRAGSIM_SEED={seed}");
                let before = found(index.before(id, &blocks));
                let plain = at.checked_sub(1).map(|at| plain[at]);
                assert_eq!(before, plain, "FRAGSIM_SEED={seed}");
            }
            Err(_) => assert!(!index.remove(id, &mut blocks), "FRAGSIM_SEED={seed}"),
        }
        let found = |id: Option<BlockId>| id.map(|id| blocks.key_of(id));
        let size = Bytes(rng.random_range(0..7000)) + Bytes(rng.random_range(0..2) << 22);
        let at = plain.partition_point(|key| key.size < size);
        let first = found(index.lower_bound(size, &blocks).map(|found| found.id));
        assert_eq!(first, plain.get(at).copied(), "FRAGSIM_SEED={seed}");
        assert_eq!(found(index.last(&blocks)), plain.last().copied(), "FRAGSIM_SEED={seed}");
        assert_eq!(index.is_empty(), plain.is_empty());
    }
    assert!(index.iter(&blocks).map(|id| blocks.key_of(id)).eq(plain), "FRAGSIM_SEED={seed}");
    index.clear();
    assert!(index.is_empty());
}
