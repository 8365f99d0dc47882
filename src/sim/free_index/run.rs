//! [`Run`]: the blocks of one bin where there are several, sorted.
//!
//! Kept from the last to the first, in pieces of bounded length: what is taken next stands at the
//! end of the last piece, and no insertion moves more than one piece.

use super::{Entry, FreeKey};
use crate::base::Bytes;

/// Longest piece, in blocks.
const MAX: usize = 128;
/// Two neighbouring pieces that are together no longer than this are joined.
const JOINED: usize = MAX / 2;

/// Blocks in falling order.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    /// The first blocks in order; never empty unless the run is.
    low: Vec<Entry>,
    /// All further ones; the piece that follows `low` is the last.
    high: Vec<Piece>,
}

#[derive(Clone, Debug)]
struct Piece {
    /// Its first block in order, the last of `entries`.
    first: FreeKey,
    entries: Vec<Entry>,
}

/// Where `key` stands in a piece, or would stand.
#[inline]
fn place(piece: &[Entry], key: FreeKey) -> usize {
    piece.partition_point(|entry| entry.key() > key)
}

impl Run {
    /// The piece of `high` that holds `key`, or would; `None` for `low`.
    #[inline]
    fn piece_of(&self, key: FreeKey) -> Option<usize> {
        if self.high.last().is_none_or(|piece| key < piece.first) {
            return None;
        }
        Some(self.high.partition_point(|piece| piece.first > key))
    }

    /// Adds a block that is not there; returns whether it is the first one now.
    #[inline]
    pub(super) fn insert(&mut self, entry: Entry) -> bool {
        let key = entry.key();
        match self.piece_of(key) {
            None => {
                let at = place(&self.low, key);
                let is_first = at == self.low.len();
                self.low.insert(at, entry);
                if self.low.len() >= MAX {
                    self.split_low();
                }
                is_first
            }
            Some(at) => {
                let piece = &mut self.high[at];
                piece.entries.insert(place(&piece.entries, key), entry);
                if piece.entries.len() >= MAX {
                    self.split_high(at);
                }
                false
            }
        }
    }

    #[cold]
    fn split_low(&mut self) {
        let rest = self.low.split_off(MAX / 2);
        let entries = std::mem::replace(&mut self.low, rest);
        self.high.extend(Piece::of(entries));
    }

    #[cold]
    fn split_high(&mut self, at: usize) {
        let rest = self.high[at].entries.split_off(MAX / 2);
        let upper = std::mem::replace(&mut self.high[at].entries, rest);
        if let Some(upper) = Piece::of(upper) {
            self.high.insert(at, upper);
        }
    }

    /// Takes a block out; returns whether it was there.
    #[inline]
    pub(super) fn remove(&mut self, key: FreeKey) -> bool {
        match self.piece_of(key) {
            None => {
                let at = place(&self.low, key);
                if self.low.get(at).is_none_or(|entry| entry.key() != key) {
                    return false;
                }
                self.low.remove(at);
                if self.low.is_empty()
                    && let Some(piece) = self.high.pop()
                {
                    self.low = piece.entries;
                }
                true
            }
            Some(at) => {
                let piece = &mut self.high[at];
                let within = place(&piece.entries, key);
                if piece.entries.get(within).is_none_or(|entry| entry.key() != key) {
                    return false;
                }
                piece.entries.remove(within);
                match piece.entries.last() {
                    Some(first) => piece.first = first.key(),
                    None => drop(self.high.remove(at)),
                }
                self.join(at);
                true
            }
        }
    }

    /// Joins a piece that has become short with the one before it in `high`.
    #[inline]
    fn join(&mut self, at: usize) {
        let (Some(before), Some(piece)) = (at.checked_sub(1), self.high.get(at)) else { return };
        if self.high[before].entries.len() + piece.entries.len() <= JOINED {
            let piece = self.high.remove(at);
            let joined = &mut self.high[before];
            joined.entries.extend(piece.entries);
            joined.first = piece.first;
        }
    }

    /// The first block.
    #[inline]
    pub(super) fn first(&self) -> Option<Entry> {
        self.low.last().copied()
    }

    /// The last block.
    pub(super) fn last(&self) -> Option<Entry> {
        self.high.first().map_or(&self.low, |piece| &piece.entries).first().copied()
    }

    /// The first block of at least this size.
    pub(super) fn first_of_size(&self, size: Bytes) -> Option<Entry> {
        self.first_where(|key| key.size >= size)
    }

    /// The block that follows `key`.
    pub(super) fn after(&self, key: FreeKey) -> Option<Entry> {
        self.first_where(|other| other > key)
    }

    /// The first block whose key `holds`, as do all after it.
    fn first_where(&self, holds: impl Fn(FreeKey) -> bool) -> Option<Entry> {
        let first_in = |entries: &[Entry]| {
            let at = entries.partition_point(|entry| holds(entry.key()));
            at.checked_sub(1).map(|at| entries[at])
        };
        first_in(&self.low).or_else(|| {
            let at = self.high.partition_point(|piece| holds(piece.first));
            // Those before `at` begin behind it; the answer may be the last part of the one at it.
            let within = self.high.get(at).and_then(|piece| first_in(&piece.entries));
            within
                .or_else(|| self.high[..at].last().and_then(|piece| piece.entries.last().copied()))
        })
    }

    /// The block before `key`.
    pub(super) fn before(&self, key: FreeKey) -> Option<Entry> {
        let piece = self.piece_of(key);
        let entries = piece.map_or(&self.low, |at| &self.high[at].entries);
        let at = entries.partition_point(|entry| entry.key() >= key);
        entries.get(at).copied().or_else(|| match self.high.get(piece? + 1) {
            Some(next) => next.entries.first().copied(),
            None => self.low.first().copied(),
        })
    }

    /// All blocks, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Entry> {
        let high = self.high.iter().rev().flat_map(|piece| piece.entries.iter().rev());
        self.low.iter().rev().chain(high).copied()
    }

    /// Empty again; some of the memory is kept.
    pub(super) fn clear(&mut self) {
        self.low.clear();
        self.high.clear();
    }
}

impl Piece {
    /// `None` of nothing.
    fn of(entries: Vec<Entry>) -> Option<Self> {
        let first = entries.last()?.key();
        Some(Self { first, entries })
    }
}
