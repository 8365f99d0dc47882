//! [`Run`]: the blocks of one bin where there are many, sorted.
//!
//! Kept from the last to the first, in pieces of bounded length: what is taken next stands at the
//! end of the last piece, and no insertion moves more than one piece. Keys and ids lie apart, so
//! that a search reads nothing but keys.

use crate::base::BlockId;

/// Longest piece, in blocks.
const MAX: usize = 64;
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
}

impl<K: Copy + Default> Default for Run<K> {
    fn default() -> Self {
        Self { low: Piece::default(), high: Vec::new() }
    }
}

/// Neighbours in the order, the last first.
#[derive(Clone, Debug)]
struct Piece<K> {
    /// The keys of `ids`, then the lowest of all keys, so that a search need not know how many.
    keys: Box<[K; MAX]>,
    ids: Vec<BlockId>,
}

impl<K: Copy + Default> Default for Piece<K> {
    fn default() -> Self {
        Self { keys: Box::new([K::default(); MAX]), ids: Vec::new() }
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
        let (groups, _) = self.keys.as_chunks::<GROUP>();
        let above: usize = groups.iter().map(|group| usize::from(group[0] > key)).sum();
        let group = above.saturating_sub(1);
        let within: usize = groups.get(group).map_or(0, count);
        group * GROUP + within
    }

    #[inline]
    fn len(&self) -> usize {
        self.ids.len()
    }

    #[inline]
    fn keys(&self) -> &[K] {
        &self.keys[..self.ids.len()]
    }

    /// There must be room.
    #[inline]
    fn insert(&mut self, at: usize, key: K, id: BlockId) {
        let len = self.len();
        self.keys.copy_within(at..len, at + 1);
        self.keys[at] = key;
        self.ids.insert(at, id);
    }

    /// Takes a key out; returns whether it was there.
    #[inline]
    fn remove(&mut self, key: K) -> bool {
        let at = self.place(key);
        let is_there = self.keys().get(at) == Some(&key);
        if is_there {
            let len = self.len();
            self.keys.copy_within(at + 1..len, at);
            self.keys[len - 1] = K::default();
            self.ids.remove(at);
        }
        is_there
    }

    /// The upper half, which is cut off.
    #[cold]
    fn split(&mut self) -> Self {
        let mut lower = Self { ids: self.ids.split_off(MAX / 2), ..Self::default() };
        lower.keys[..MAX / 2].copy_from_slice(&self.keys[MAX / 2..]);
        self.keys[MAX / 2..].fill(K::default());
        std::mem::replace(self, lower)
    }

    /// The first key in order; the largest piece sorts where it may.
    #[inline]
    fn first(&self) -> Option<&K> {
        self.keys().last()
    }

    /// The block at a place.
    fn id(&self, at: usize) -> Option<BlockId> {
        self.ids.get(at).copied()
    }

    /// The first block in order whose key `holds`, as do all behind it.
    fn first_where(&self, holds: impl Fn(&K) -> bool) -> Option<BlockId> {
        let count = self.keys().partition_point(|key| holds(key));
        count.checked_sub(1).map(|at| self.ids[at])
    }
}

impl<K: Copy + Default + Ord> Run<K> {
    /// The piece of `high` that holds `key`, or would; `None` for `low`.
    #[inline]
    fn piece_of(&self, key: K) -> Option<usize> {
        if self.high.last().is_none_or(|piece| Some(&key) < piece.first()) {
            return None;
        }
        Some(self.high.partition_point(|piece| piece.first() > Some(&key)))
    }

    /// Adds a block that is not there; returns whether it is the first one now.
    #[inline]
    pub(super) fn insert(&mut self, key: K, id: BlockId) -> bool {
        if let Some(at) = self.piece_of(key) {
            let piece = &mut self.high[at];
            piece.insert(piece.place(key), key, id);
            if piece.len() >= MAX {
                let upper = piece.split();
                self.high.insert(at, upper);
            }
            return false;
        }
        let at = self.low.place(key);
        let is_first = at == self.low.len();
        self.low.insert(at, key, id);
        if self.low.len() >= MAX {
            let upper = self.low.split();
            self.high.push(upper);
        }
        is_first
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
        if self.low.ids.is_empty()
            && let Some(piece) = self.high.pop()
        {
            self.low = piece;
        }
        was_there
    }

    /// Drops a piece of `high` that is empty; joins a short one with the one before it.
    #[inline]
    fn shorten(&mut self, at: usize) {
        let len = self.high[at].len();
        let before = at.checked_sub(1).map(|before| self.high[before].len());
        if len == 0 {
            self.high.remove(at);
        } else if before.is_some_and(|before| before + len <= JOINED) {
            let piece = self.high.remove(at);
            let joined = &mut self.high[at - 1];
            let from = joined.len();
            joined.keys[from..from + len].copy_from_slice(piece.keys());
            joined.ids.extend(piece.ids);
        }
    }

    /// The first block.
    #[inline]
    pub(super) fn first(&self) -> Option<BlockId> {
        self.low.ids.last().copied()
    }

    /// The last block.
    pub(super) fn last(&self) -> Option<BlockId> {
        self.high.first().unwrap_or(&self.low).ids.first().copied()
    }

    /// The block that follows `key`.
    pub(super) fn after(&self, key: K) -> Option<BlockId> {
        self.first_where(|other| *other > key)
    }

    /// The first block whose key `holds`, as do all behind it.
    pub(super) fn first_where(&self, holds: impl Fn(&K) -> bool) -> Option<BlockId> {
        self.low.first_where(&holds).or_else(|| {
            // All of the pieces before `at` hold; the one at it may in part, those behind it do not.
            let at = self.high.partition_point(|piece| piece.first().is_some_and(&holds));
            let within = self.high.get(at).and_then(|piece| piece.first_where(&holds));
            within.or_else(|| self.high[..at].last().and_then(|piece| piece.ids.last().copied()))
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
            let falling = piece.keys().iter().copied().zip(piece.ids.iter().copied());
            falling.rev()
        })
    }
}
