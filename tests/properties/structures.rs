//! The structures under the model against the plainest twins there are.

use std::collections::HashMap;

use fragsim::{
    base::{Addr, BlockId, Bytes},
    sim::{FlatHash, FlatKey, FreeIndex, FreeKey},
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

/// A seeded run against the plainest twin there is: a vector that is kept sorted.
#[test]
fn a_free_index_orders_as_a_sorted_vector_does() {
    let seed = number("FRAGSIM_SEED").unwrap_or(0);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut index = FreeIndex::default();
    let mut plain: Vec<FreeKey> = Vec::new();
    let block = |key: FreeKey| {
        BlockId::from_index(usize::try_from(key.addr.0).expect("addresses are small here"))
    };
    for round in 0..20_000 {
        let key = FreeKey {
            size: Bytes(512 * rng.random_range(1..12)),
            order: rng.random_range(0..3),
            addr: Addr(rng.random_range(1..200)),
        };
        let place = plain.binary_search(&key);
        if rng.random_bool(if round % 4000 < 2000 { 0.6 } else { 0.4 }) {
            assert_eq!(index.insert(key, block(key)), place.is_err(), "FRAGSIM_SEED={seed}");
            if let Err(at) = place {
                plain.insert(at, key);
            }
        } else {
            assert_eq!(index.remove(key), place.is_ok(), "FRAGSIM_SEED={seed}");
            if let Ok(at) = place {
                plain.remove(at);
            }
        }
        let found = |key: Option<&FreeKey>| key.map(|key| (*key, block(*key)));
        let size = Bytes(rng.random_range(0..7000));
        let first = found(plain.iter().find(|key| key.size >= size));
        assert_eq!(index.lower_bound(size), first, "FRAGSIM_SEED={seed}");
        let after = found(plain.iter().find(|other| **other > key));
        assert_eq!(index.after(key), after, "FRAGSIM_SEED={seed}");
        let before = found(plain.iter().rev().find(|other| **other < key));
        assert_eq!(index.before(Some(key)), before, "FRAGSIM_SEED={seed}");
        assert_eq!(index.before(None), found(plain.last()), "FRAGSIM_SEED={seed}");
        assert_eq!((index.len(), index.is_empty()), (plain.len(), plain.is_empty()));
    }
    assert!(index.iter().map(|(key, _)| key).eq(plain), "FRAGSIM_SEED={seed}");
    index.clear();
    assert!(index.is_empty());
}
