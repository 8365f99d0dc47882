//! [`FlatHash`]: a hash table that iterates in the same order as the one PyTorch uses.
//!
//! The allocator keeps the queues of pending events, the streams that a block is used on and the
//! freeable private pools in `ska::flat_hash_map`. Where it walks over one of them, the order of what
//! it does is the order of the table's slots. So the slots must agree: robin-hood placement, Fibonacci
//! hashing, growth at half load, backward shift on erase.
//!
//! # Source
//! `c10/util/flat_hash_map.h` (Malte Skarupke's table), unchanged from 2.1 to 2.15. Described there;
//! the code here is written from the description.

/// A key and the hash that PyTorch computes of it.
pub trait FlatKey: Copy + Eq {
    /// The 64-bit hash.
    fn hash(self) -> u64;
}

#[derive(Clone, Debug)]
struct Slot<K, V> {
    distance: u8,
    key: K,
    value: V,
}

/// A hash map with PyTorch's order of iteration.
///
/// # Complexity
/// O(1) for every method but iteration, growth and `grow`.
#[derive(Clone, Debug)]
pub struct FlatHash<K, V> {
    /// `buckets + max_lookups` slots; `None` is empty.
    slots: Vec<Option<Slot<K, V>>>,
    /// 0 or a power of two.
    buckets: usize,
    shift: u32,
    max_lookups: u8,
    len: usize,
}

impl<K: FlatKey, V> Default for FlatHash<K, V> {
    fn default() -> Self {
        Self { slots: Vec::new(), buckets: 0, shift: 63, max_lookups: 3, len: 0 }
    }
}

impl<K: FlatKey, V> FlatHash<K, V> {
    const MIN_LOOKUPS: u8 = 4;

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn desired(&self, key: K) -> usize {
        let spread = key.hash().wrapping_mul(11_400_714_819_323_198_485);
        usize::try_from(spread >> self.shift).unwrap_or(0)
    }

    fn position(&self, key: K) -> Option<usize> {
        if self.buckets == 0 {
            return None;
        }
        let mut at = self.desired(key);
        let mut distance = 0;
        while let Some(slot) = self.slots.get(at)?.as_ref().filter(|s| s.distance >= distance) {
            if slot.key == key {
                return Some(at);
            }
            at += 1;
            distance += 1;
        }
        None
    }

    /// The value of `key`.
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let at = self.position(key)?;
        self.slots[at].as_mut().map(|slot| &mut slot.value)
    }

    /// Whether there is an entry of `key`.
    pub fn contains(&self, key: K) -> bool {
        self.position(key).is_some()
    }

    /// Adds an entry; one that is there already is kept, and `false` returned.
    pub fn insert(&mut self, key: K, value: V) -> bool {
        if self.contains(key) {
            return false;
        }
        let mut carried = Slot { distance: 0, key, value };
        // An entry that finds no place within the lookups makes the table grow and starts again.
        while let Err(homeless) = self.place(carried) {
            self.grow();
            carried = homeless;
        }
        true
    }

    fn place(&mut self, slot: Slot<K, V>) -> Result<(), Slot<K, V>> {
        // The load is compared as the real table does: in floats, before the entry is counted.
        if self.buckets == 0 || 2 * (self.len + 1) > self.buckets {
            return Err(slot);
        }
        let mut at = self.desired(slot.key);
        let mut carried = Slot { distance: 0, ..slot };
        let mut first_swap = None;
        loop {
            if carried.distance == self.max_lookups {
                // The first displaced entry's place is given to the one that is homeless now.
                if let Some(place) = first_swap {
                    let held: &mut Option<Slot<K, V>> = &mut self.slots[place];
                    if let Some(held) = held {
                        std::mem::swap(&mut held.key, &mut carried.key);
                        std::mem::swap(&mut held.value, &mut carried.value);
                    }
                }
                return Err(carried);
            }
            match &mut self.slots[at] {
                empty @ None => {
                    *empty = Some(carried);
                    self.len += 1;
                    return Ok(());
                }
                Some(held) if held.distance < carried.distance => {
                    std::mem::swap(held, &mut carried);
                    first_swap.get_or_insert(at);
                }
                Some(_) => {}
            }
            at += 1;
            carried.distance += 1;
        }
    }

    fn grow(&mut self) {
        self.rehash((2 * self.buckets).max(4));
    }

    fn rehash(&mut self, buckets: usize) {
        let buckets = buckets.max(2 * self.len).max(2).next_power_of_two();
        if buckets == self.buckets {
            return;
        }
        let log = buckets.trailing_zeros();
        self.max_lookups = u8::try_from(log).unwrap_or(u8::MAX).max(Self::MIN_LOOKUPS);
        self.shift = 64 - log;
        self.buckets = buckets;
        self.len = 0;
        let mut fresh = Vec::new();
        fresh.resize_with(buckets + usize::from(self.max_lookups), || None);
        let old = std::mem::replace(&mut self.slots, fresh);
        for slot in old.into_iter().flatten() {
            self.insert(slot.key, slot.value);
        }
    }

    /// Takes out the entry of `key`; later entries shift back.
    pub fn remove(&mut self, key: K) -> Option<V> {
        let mut at = self.position(key)?;
        let gone = self.slots[at].take()?;
        self.len -= 1;
        while let Some(mut shifted) =
            self.slots.get_mut(at + 1).and_then(|next| next.take_if(|s| s.distance > 0))
        {
            shifted.distance -= 1;
            self.slots[at] = Some(shifted);
            at += 1;
        }
        Some(gone.value)
    }

    /// The key of the first entry at or behind a slot, with the slot; for walks that take entries
    /// out as they go.
    pub fn key_from(&self, slot: usize) -> Option<(usize, K)> {
        let rest = self.slots.iter().enumerate().skip(slot);
        rest.flat_map(|(at, s)| s.as_ref().map(|s| (at, s.key))).next()
    }

    /// The keys in order.
    pub fn keys(&self) -> impl Iterator<Item = K> {
        self.slots.iter().flatten().map(|slot| slot.key)
    }

    /// No entries; the slots are kept, as the real table does.
    pub fn clear(&mut self) {
        self.slots.fill_with(|| None);
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Key(u64);
    impl FlatKey for Key {
        fn hash(self) -> u64 {
            self.0
        }
    }

    #[test]
    fn what_goes_in_comes_out_until_it_is_removed() {
        let mut table = FlatHash::default();
        for i in 0..500 {
            assert!(table.insert(Key(i * 64), i));
            assert!(!table.insert(Key(i * 64), 0));
        }
        for i in (0..500).step_by(3) {
            assert_eq!(table.remove(Key(i * 64)), Some(i));
        }
        for i in 0..500 {
            assert_eq!(table.get_mut(Key(i * 64)).copied(), (i % 3 != 0).then_some(i), "{i}");
        }
        assert_eq!(table.len(), table.keys().count());
    }

    #[test]
    fn order_is_by_the_spread_hash() {
        let mut table = FlatHash::default();
        for i in 1..=3 {
            table.insert(Key(i), ());
        }
        let spread = |k: &Key| k.0.wrapping_mul(11_400_714_819_323_198_485) >> table.shift;
        let keys: Vec<Key> = table.keys().collect();
        assert!(keys.windows(2).all(|w| spread(&w[0]) <= spread(&w[1])), "{keys:?}");
    }
}
