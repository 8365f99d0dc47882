//! [`Bins`]: sorted lists of blocks by ranges of sizes, and a bitmap of those that hold something.

use super::Entry;
use crate::base::Bytes;

/// Sizes below `LINEAR * 512` have bins of their own.
const LINEAR: u64 = 4096;
const LINEAR_LOG: u32 = LINEAR.ilog2();
/// Bins of an octave above.
const MANTISSA_LOG: u32 = 8;
/// The last octave of 64-bit sizes in units of 512.
const OCTAVES: usize = (64 - 9 - LINEAR_LOG) as usize;
const COUNT: usize = LINEAR as usize + (OCTAVES << MANTISSA_LOG);
const WORDS: usize = COUNT.div_ceil(64);
const SUMMARY: usize = WORDS.div_ceil(64);

/// The bins. Lists come to be when something is first put into a bin, and stay.
#[derive(Clone, Debug)]
pub(super) struct Bins {
    /// One bit a bin; as many words as the highest bin that was ever used needs.
    words: Vec<u64>,
    /// One bit a word.
    summary: [u64; SUMMARY],
    lists: Vec<Vec<Entry>>,
}

impl Default for Bins {
    fn default() -> Self {
        Self { words: Vec::new(), summary: [0; SUMMARY], lists: Vec::new() }
    }
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

    /// What a bin holds, in order.
    #[inline]
    pub(super) fn get(&self, number: usize) -> &[Entry] {
        self.lists.get(number).map_or(&[], Vec::as_slice)
    }

    /// A bin to put something into.
    #[inline]
    pub(super) fn open(&mut self, number: usize) -> &mut Vec<Entry> {
        if number >= self.lists.len() {
            self.grow(number);
        }
        self.words[number / 64] |= 1 << (number % 64);
        self.summary[number / 4096] |= 1 << (number / 64 % 64);
        &mut self.lists[number]
    }

    #[cold]
    fn grow(&mut self, number: usize) {
        let count = (number + 1).next_multiple_of(1024).min(COUNT);
        self.lists.resize_with(count, Vec::new);
        self.words.resize(count.div_ceil(64), 0);
    }

    /// Notes if a bin that was opened holds nothing.
    #[inline]
    pub(super) fn close(&mut self, number: usize) {
        if self.lists[number].is_empty() {
            let word = &mut self.words[number / 64];
            *word &= !(1 << (number % 64));
            if *word == 0 {
                self.summary[number / 4096] &= !(1 << (number / 64 % 64));
            }
        }
    }

    /// The first bin from `number` on that holds something.
    #[inline]
    pub(super) fn next(&self, number: usize) -> Option<usize> {
        let word = number / 64;
        let rest = self.words.get(word)? & (u64::MAX << (number % 64));
        if rest != 0 {
            return Some(word * 64 + rest.trailing_zeros() as usize);
        }
        let word = next_bit(&self.summary, word + 1)?;
        Some(word * 64 + self.words[word].trailing_zeros() as usize)
    }

    /// The last bin below `number` that holds something.
    #[inline]
    pub(super) fn last_below(&self, number: usize) -> Option<usize> {
        let number = number.min(self.words.len() * 64);
        let word = number / 64;
        if let Some(bits) = self.words.get(word) {
            let rest = bits & !(u64::MAX << (number % 64));
            if rest != 0 {
                return Some(word * 64 + rest.ilog2() as usize);
            }
        }
        let word = last_bit_below(&self.summary, word)?;
        Some(word * 64 + self.words[word].ilog2() as usize)
    }

    /// Every bin empty; the lists keep their memory.
    pub(super) fn clear(&mut self) {
        while let Some(number) = self.next(0) {
            self.lists[number].clear();
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
