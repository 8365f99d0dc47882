//! [`Run`]: the blocks of one bin where there are many, sorted.
//!
//! Kept from the last to the first, in pieces of bounded length: what is taken next stands at the
//! end of the last piece, and no insertion moves more than one piece. Keys and ids lie apart, so
//! that a search reads nothing but keys.

use prefetch_index::prefetch_index;

use crate::base::BlockId;

/// Longest piece, in blocks.
const MAX: usize = 32;
/// Keys that are looked at together.
const GROUP: usize = 8;
/// Two neighbouring pieces that are together no longer than this are joined.
const JOINED: usize = MAX / 2;

/// Blocks in falling order of their keys.
#[derive(Clone, Debug)]
pub(super) struct Run<K> {
    /// The first blocks in order; never empty unless the run is.
    low: Piece<K>,
    /// All further ones; the piece that follows `low` is the last.
    high: Vec<Piece<K>>,
    /// For each piece of `high`, a key that none of its own is below, and none of the next is above.
    /// Side by side, so that a search for a piece reads little.
    bounds: Vec<K>,
}

impl<K: Copy + Default> Default for Run<K> {
    fn default() -> Self {
        Self { low: Piece::default(), high: Vec::new(), bounds: Vec::new() }
    }
}

/// Neighbours in the order, the last first.
#[derive(Clone, Debug)]
struct Piece<K> {
    len: usize,
    cells: Box<Cells<K>>,
}

#[derive(Clone, Debug)]
struct Cells<K> {
    /// The keys of `ids`, then the lowest of all keys, so that a search need not know how many.
    keys: [K; MAX],
    ids: [Option<BlockId>; MAX],
}

impl<K: Copy + Default> Default for Piece<K> {
    fn default() -> Self {
        Self { len: 0, cells: Box::new(Cells { keys: [K::default(); MAX], ids: [None; MAX] }) }
    }
}

impl<K: Copy + Default + Ord> Piece<K> {
    /// Where `key` stands, or would stand: the number of keys above it.
    ///
    /// Reads the first of every eight keys, then eight: all reads of a step are independent, so that
    /// those which miss the caches wait together. Nothing branches on a comparison or on the length,
    /// neither of which can be foreseen.
    #[inline]
    fn place(&self, key: K) -> usize {
        let count = |keys: &[K; GROUP]| keys.iter().map(|other| usize::from(*other > key)).sum();
        let (groups, _) = self.cells.keys.as_chunks::<GROUP>();
        let above: usize = groups.iter().map(|group| usize::from(group[0] > key)).sum();
        let group = above.saturating_sub(1);
        let within: usize = groups.get(group).map_or(0, count);
        group * GROUP + within
    }

    #[inline]
    fn keys(&self) -> &[K] {
        &self.cells.keys[..self.len]
    }

    #[inline]
    fn ids(&self) -> &[Option<BlockId>] {
        &self.cells.ids[..self.len]
    }

    /// There must be room.
    #[inline]
    fn insert(&mut self, at: usize, key: K, id: BlockId) {
        let Cells { keys, ids } = &mut *self.cells;
        keys.copy_within(at..self.len, at + 1);
        ids.copy_within(at..self.len, at + 1);
        (keys[at], ids[at]) = (key, Some(id));
        self.len += 1;
    }

    /// Adds what is below all of its own; there must be room.
    #[inline]
    fn push(&mut self, key: K, id: BlockId) {
        let Cells { keys, ids } = &mut *self.cells;
        (keys[self.len], ids[self.len]) = (key, Some(id));
        self.len += 1;
    }

    /// Takes a key out; returns whether it was there.
    #[inline]
    fn remove(&mut self, key: K) -> bool {
        let at = self.place(key);
        let is_there = self.keys().get(at) == Some(&key);
        if is_there {
            let Cells { keys, ids } = &mut *self.cells;
            keys.copy_within(at + 1..self.len, at);
            ids.copy_within(at + 1..self.len, at);
            self.pop();
        }
        is_there
    }

    /// Takes the first block in order out.
    #[inline]
    fn pop(&mut self) {
        self.len = self.len.saturating_sub(1);
        self.cells.keys[self.len] = K::default();
    }

    /// The upper half, which is cut off.
    #[cold]
    fn split(&mut self) -> Self {
        let mut lower = Self::default();
        lower.append(&self.cells.keys[MAX / 2..self.len], &self.cells.ids[MAX / 2..self.len]);
        self.cells.keys[MAX / 2..].fill(K::default());
        self.len = MAX / 2;
        std::mem::replace(self, lower)
    }

    /// Adds what is below all of its own; there must be room.
    fn append(&mut self, keys: &[K], ids: &[Option<BlockId>]) {
        let end = self.len + keys.len();
        self.cells.keys[self.len..end].copy_from_slice(keys);
        self.cells.ids[self.len..end].copy_from_slice(ids);
        self.len = end;
    }

    /// The first block in order.
    #[inline]
    fn first(&self) -> Option<BlockId> {
        self.ids().last().copied().flatten()
    }

    /// The block at a place.
    fn id(&self, at: usize) -> Option<BlockId> {
        self.ids().get(at).copied().flatten()
    }

    /// The first block in order whose key `holds`, as do all behind it.
    fn first_where(&self, holds: impl Fn(&K) -> bool) -> Option<BlockId> {
        let count = self.keys().partition_point(|key| holds(key));
        self.id(count.checked_sub(1)?)
    }

    /// Has it brought into the caches.
    #[inline]
    fn prefetch(&self) {
        let Cells { keys, ids } = &*self.cells;
        for group in 0..MAX / GROUP {
            prefetch_index(keys, group * GROUP);
        }
        for group in 0..MAX / 16 {
            prefetch_index(ids, group * 16);
        }
    }
}

impl<K: Copy + Default + Ord> Run<K> {
    /// The piece of `high` that holds `key`, or would; `None` for `low`.
    #[inline]
    fn piece_of(&self, key: K) -> Option<usize> {
        if self.bounds.last().is_none_or(|bound| key < *bound) {
            return None;
        }
        Some(self.bounds.partition_point(|bound| *bound > key))
    }

    /// Has what an insertion or a removal of `key` reads brought into the caches.
    #[inline]
    pub(super) fn prefetch(&self, key: K) {
        let piece = self.piece_of(key).and_then(|at| self.high.get(at));
        piece.unwrap_or(&self.low).prefetch();
    }

    /// Adds a block that is not there; returns whether it is the first one now.
    #[inline]
    pub(super) fn insert(&mut self, key: K, id: BlockId) -> bool {
        if let Some(at) = self.piece_of(key) {
            let piece = &mut self.high[at];
            piece.insert(piece.place(key), key, id);
            if piece.len == MAX {
                let upper = piece.split();
                self.insert_piece(at, upper);
            }
            return false;
        }
        let is_first = self.low.keys().last().is_none_or(|first| key < *first);
        if is_first {
            self.low.push(key, id);
        } else {
            self.low.insert(self.low.place(key), key, id);
        }
        if self.low.len == MAX {
            let upper = self.low.split();
            self.insert_piece(self.high.len(), upper);
        }
        is_first
    }

    #[cold]
    fn insert_piece(&mut self, at: usize, piece: Piece<K>) {
        self.bounds.insert(at, piece.keys().last().copied().unwrap_or_default());
        self.high.insert(at, piece);
    }

    /// Takes a block out; returns whether it was there.
    #[inline]
    pub(super) fn remove(&mut self, key: K) -> bool {
        if let Some(at) = self.piece_of(key) {
            let was_there = self.high[at].remove(key);
            self.shorten(at);
            return was_there;
        }
        let was_there = self.low.remove(key);
        self.refill_low();
        was_there
    }

    /// Takes the first block out, if there is one.
    #[inline]
    pub(super) fn remove_first(&mut self) {
        self.low.pop();
        self.refill_low();
    }

    #[inline]
    fn refill_low(&mut self) {
        if self.low.len == 0
            && let Some(piece) = self.high.pop()
        {
            self.bounds.pop();
            self.low = piece;
        }
    }

    /// Drops a piece of `high` that is empty; joins a short one with the one before it.
    #[inline]
    fn shorten(&mut self, at: usize) {
        let len = self.high[at].len;
        let before = at.checked_sub(1).map(|before| self.high[before].len);
        if len == 0 {
            self.high.remove(at);
            self.bounds.remove(at);
        } else if before.is_some_and(|before| before + len <= JOINED) {
            let piece = self.high.remove(at);
            self.high[at - 1].append(piece.keys(), piece.ids());
            self.bounds.remove(at - 1);
        }
    }

    /// The first block.
    #[inline]
    pub(super) fn first(&self) -> Option<BlockId> {
        self.low.first()
    }

    /// The last block.
    pub(super) fn last(&self) -> Option<BlockId> {
        self.high.first().unwrap_or(&self.low).id(0)
    }

    /// The block that follows `key`.
    pub(super) fn after(&self, key: K) -> Option<BlockId> {
        self.first_where(|other| *other > key)
    }

    /// The first block whose key `holds`, as do all behind it.
    pub(super) fn first_where(&self, holds: impl Fn(&K) -> bool) -> Option<BlockId> {
        self.low.first_where(&holds).or_else(|| {
            // All of the pieces before `at` hold; the one at it may in part, those behind it do not.
            let at = self.bounds.partition_point(&holds);
            let within = self.high.get(at).and_then(|piece| piece.first_where(&holds));
            within.or_else(|| self.high[..at].last().and_then(Piece::first))
        })
    }

    /// The block before `key`.
    pub(super) fn before(&self, key: K) -> Option<BlockId> {
        let at = self.piece_of(key);
        let piece = at.map_or(&self.low, |at| &self.high[at]);
        let place = piece.keys().partition_point(|other| *other >= key);
        piece.id(place).or_else(|| self.high.get(at? + 1).unwrap_or(&self.low).id(0))
    }

    /// All blocks, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, BlockId)> {
        let pieces = std::iter::once(&self.low).chain(self.high.iter().rev());
        pieces.flat_map(|piece| {
            let falling = piece.keys().iter().copied().zip(piece.ids().iter().copied());
            falling.rev().filter_map(|(key, id)| Some((key, id?)))
        })
    }
}
