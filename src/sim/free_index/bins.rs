//! [`Bins`]: sorted lists of blocks by ranges of sizes, and a bitmap of those that hold something.

use super::Entry;
use crate::base::Bytes;

/// Sizes below `LINEAR * 512` have bins of their own.
const LINEAR: u64 = 1 << LINEAR_LOG;
const LINEAR_LOG: u32 = 12;
/// Bins of an octave above.
const MANTISSA_LOG: u32 = 8;
/// Octaves of 64-bit sizes above that, in units of 512.
const OCTAVES: usize = (64 - 9 - LINEAR_LOG) as usize;
const COUNT: usize = (1 << LINEAR_LOG) + (OCTAVES << MANTISSA_LOG);
const CHUNKS: usize = COUNT.div_ceil(64);
const SUMMARY: usize = CHUNKS.div_ceil(64);

/// Sixty-four neighbouring bins.
#[derive(Clone, Debug)]
struct Chunk {
    /// Bit `i`: bin `i` holds something.
    bits: u64,
    lists: [Vec<Entry>; 64],
}

/// The bins. Chunks come to be when something is first put into one of their bins, and stay.
#[derive(Clone, Debug, Default)]
pub(super) struct Bins {
    chunks: Vec<Option<Box<Chunk>>>,
    /// One bit a chunk: whether any of its bins holds something.
    summary: [u64; SUMMARY],
}

impl Bins {
    /// The bin of a size: rises with the size.
    #[inline]
    pub(super) fn of(size: Bytes) -> usize {
        let units = size.0 >> 9;
        let number = if units < LINEAR {
            units
        } else {
            let log = units.ilog2();
            let mantissa = (units >> (log - MANTISSA_LOG)) & ((1 << MANTISSA_LOG) - 1);
            LINEAR + (u64::from(log - LINEAR_LOG) << MANTISSA_LOG) + mantissa
        };
        usize::try_from(number).unwrap_or(COUNT - 1)
    }

    #[inline]
    fn chunk(&self, number: usize) -> Option<&Chunk> {
        self.chunks.get(number / 64)?.as_deref()
    }

    /// What a bin holds, in order.
    #[inline]
    pub(super) fn get(&self, number: usize) -> &[Entry] {
        self.chunk(number).map_or(&[], |chunk| &chunk.lists[number % 64])
    }

    /// A bin to put something into.
    #[inline]
    pub(super) fn open(&mut self, number: usize) -> &mut Vec<Entry> {
        let at = number / 64;
        if at >= self.chunks.len() {
            self.chunks.resize_with(at + 1, || None);
        }
        self.summary[at / 64] |= 1 << (at % 64);
        let chunk = self.chunks[at]
            .get_or_insert_with(|| Box::new(Chunk { bits: 0, lists: [const { Vec::new() }; 64] }));
        chunk.bits |= 1 << (number % 64);
        &mut chunk.lists[number % 64]
    }

    /// Notes if a bin that was opened holds nothing.
    #[inline]
    pub(super) fn close(&mut self, number: usize) {
        let at = number / 64;
        if let Some(Some(chunk)) = self.chunks.get_mut(at)
            && chunk.lists[number % 64].is_empty()
        {
            chunk.bits &= !(1 << (number % 64));
            if chunk.bits == 0 {
                self.summary[at / 64] &= !(1 << (at % 64));
            }
        }
    }

    /// The first bin from `number` on that holds something.
    #[inline]
    pub(super) fn next(&self, number: usize) -> Option<usize> {
        let at = number / 64;
        let rest = self.chunk(number).map_or(0, |chunk| chunk.bits & (u64::MAX << (number % 64)));
        if rest != 0 {
            return Some(at * 64 + rest.trailing_zeros() as usize);
        }
        let at = next_bit(&self.summary, at + 1)?;
        let chunk = self.chunks.get(at)?.as_ref()?;
        Some(at * 64 + chunk.bits.trailing_zeros() as usize)
    }

    /// The last bin below `number` that holds something.
    #[inline]
    pub(super) fn last_below(&self, number: usize) -> Option<usize> {
        let number = number.min(COUNT);
        let rest = self.chunk(number).map_or(0, |chunk| chunk.bits & !(u64::MAX << (number % 64)));
        if rest != 0 {
            return Some(number / 64 * 64 + rest.ilog2() as usize);
        }
        let at = last_bit_below(&self.summary, number / 64)?;
        let chunk = self.chunks.get(at)?.as_ref()?;
        Some(at * 64 + chunk.bits.ilog2() as usize)
    }

    /// Every bin empty; the lists keep their memory.
    pub(super) fn clear(&mut self) {
        while let Some(number) = self.next(0) {
            self.open(number).clear();
            self.close(number);
        }
    }
}

/// The first set bit from `from` on.
#[inline]
fn next_bit(words: &[u64], from: usize) -> Option<usize> {
    let mut word = from / 64;
    let mut rest = words.get(word)? & (u64::MAX << (from % 64));
    while rest == 0 {
        word += 1;
        rest = *words.get(word)?;
    }
    Some(word * 64 + rest.trailing_zeros() as usize)
}

/// The last set bit below `below`.
#[inline]
fn last_bit_below(words: &[u64], below: usize) -> Option<usize> {
    let mut word = (below / 64).min(words.len().checked_sub(1)?);
    let shift = below - word * 64;
    let mut rest = if shift >= 64 { words[word] } else { words[word] & !(u64::MAX << shift) };
    while rest == 0 {
        word = word.checked_sub(1)?;
        rest = words[word];
    }
    Some(word * 64 + rest.ilog2() as usize)
}
