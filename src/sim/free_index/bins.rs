//! Which bin a size belongs to, and the bitmap of the bins that hold something.

use crate::base::{BlockId, Bytes, RunId};

/// Sizes below `LINEAR * 512` have bins of their own.
const LINEAR: u64 = 1 << LINEAR_LOG;
const LINEAR_LOG: u32 = 12;
/// Bins of an octave above.
const MANTISSA_LOG: u32 = 8;
/// See [`bin_of`].
const FIRST_SHIFT: u64 = (LINEAR_LOG - MANTISSA_LOG + 1) as u64;
/// Octaves of 64-bit sizes above that, in units of 512.
const OCTAVES: usize = (64 - 9 - LINEAR_LOG) as usize;
/// Number of bins.
pub(super) const COUNT: usize = (1 << LINEAR_LOG) + (OCTAVES << MANTISSA_LOG);
/// Words of the bitmap: a power of two, so that no index needs a check.
const WORDS: usize = SLOTS / 64;
/// [`COUNT`], and more up to a power of two.
const SLOTS: usize = COUNT.next_power_of_two();
const SUMMARY: usize = WORDS / 64;

/// The bin of a size: rises with the size.
#[inline(always)]
pub(super) fn bin_of(size: Bytes) -> usize {
    let units = size.0 >> 9;
    let number = if units < LINEAR {
        units
    } else {
        // The leading one is part of the mantissa, and counts one octave too many.
        let shift = units.ilog2() - MANTISSA_LOG;
        (units >> shift) + (u64::from(shift) << MANTISSA_LOG) + LINEAR
            - (FIRST_SHIFT << MANTISSA_LOG)
    };
    usize::try_from(number).unwrap_or(COUNT - 1)
}

/// The one multiple of 512 that belongs into a bin, if there is one alone.
pub(super) fn only_size(bin: usize) -> Option<Bytes> {
    (bin < 1 << LINEAR_LOG).then_some(Bytes((bin as u64) << 9))
}

/// Whether no block in the bin of this size is smaller.
#[inline(always)]
pub(super) fn begins_its_bin(size: Bytes) -> bool {
    size.0 < LINEAR << 9 && size.0 & 511 == 0
}

/// What a bin holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bin {
    /// Its first block. The others follow it as a list, unless there is a run.
    pub first: Option<BlockId>,
    /// The run of all of its blocks, if its list was ever long since it was empty.
    pub run: Option<RunId>,
}

/// All bins. They begin as zeros, so that the system gives memory only for those that are used.
#[derive(Clone, Debug)]
pub(super) struct Bins(Box<[u64; SLOTS]>);

impl Default for Bins {
    fn default() -> Self {
        let zeros = vec![0; SLOTS].into_boxed_slice();
        Self(zeros.try_into().expect("it has that length"))
    }
}

impl Bins {
    #[inline(always)]
    pub(super) fn get(&self, bin: usize) -> Bin {
        let bits = self.0[bin % SLOTS];
        let half = |bits: u64| u32::try_from(bits & 0xffff_ffff).unwrap_or_default();
        Bin { first: BlockId::from_bits(half(bits)), run: RunId::from_bits(half(bits >> 32)) }
    }

    #[inline(always)]
    pub(super) fn set(&mut self, number: usize, bin: Bin) {
        let (first, run) = (BlockId::to_bits(bin.first), RunId::to_bits(bin.run));
        self.0[number % SLOTS] = u64::from(first) | u64::from(run) << 32;
    }
}

/// One bit a bin, and one a word of those.
#[derive(Clone, Debug)]
pub(super) struct Marks {
    words: Box<[u64; WORDS]>,
    summary: [u64; SUMMARY],
}

impl Default for Marks {
    fn default() -> Self {
        Self { words: Box::new([0; WORDS]), summary: [0; SUMMARY] }
    }
}

impl Marks {
    #[inline(always)]
    pub(super) fn set(&mut self, bin: usize) {
        let word = bin / 64 % WORDS;
        self.words[word] |= 1 << (bin % 64);
        self.summary[word / 64] |= 1 << (word % 64);
    }

    /// Clears a bin that is marked if it is empty. Whether it is cannot be foreseen, so nothing here
    /// branches on it.
    #[inline(always)]
    pub(super) fn clear_if(&mut self, bin: usize, is_empty: bool) {
        let at = bin / 64 % WORDS;
        debug_assert!(self.words[at] & 1 << (bin % 64) != 0, "the bin is marked");
        let word = self.words[at] ^ u64::from(is_empty) << (bin % 64);
        self.words[at] = word;
        self.summary[at / 64] ^= u64::from(word == 0) << (at % 64);
    }

    /// The first marked bin from `bin` on.
    #[inline(always)]
    pub(super) fn next(&self, bin: usize) -> Option<usize> {
        let word = bin / 64;
        let rest = self.words.get(word)? & (u64::MAX << (bin % 64));
        if rest != 0 {
            return Some(word * 64 + rest.trailing_zeros() as usize);
        }
        self.next_word(word + 1)
    }

    /// The first marked bin of the words from `word` on.
    #[inline]
    fn next_word(&self, word: usize) -> Option<usize> {
        let mut at = word / 64;
        let mut rest = self.summary.get(at)? & (u64::MAX << (word % 64));
        while rest == 0 {
            at += 1;
            rest = *self.summary.get(at)?;
        }
        let word = at * 64 + rest.trailing_zeros() as usize;
        Some(word * 64 + self.words[word % WORDS].trailing_zeros() as usize)
    }

    /// The last marked bin below `bin`.
    pub(super) fn last_below(&self, bin: usize) -> Option<usize> {
        let mut word = (bin / 64).min(WORDS);
        if let Some(bits) = self.words.get(word) {
            let rest = bits & !(u64::MAX << (bin % 64));
            if rest != 0 {
                return Some(word * 64 + rest.ilog2() as usize);
            }
        }
        while word > 0 {
            word -= 1;
            if self.words[word] != 0 {
                return Some(word * 64 + self.words[word].ilog2() as usize);
            }
        }
        None
    }
}
