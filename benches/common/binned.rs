//! The free index before the present one, kept to be measured beside it: bins under a bitmap, each a
//! sorted vector of keys and blocks.

use fragsim::{
    base::{BlockId, Bytes},
    sim::FreeKey,
};

/// Sizes below `LINEAR * 512` have bins of their own.
const LINEAR: u64 = 1 << LINEAR_LOG;
const LINEAR_LOG: u32 = 12;
/// Bins of an octave above.
const MANTISSA_LOG: u32 = 8;
const OCTAVES: usize = (64 - 9 - LINEAR_LOG) as usize;
const COUNT: usize = (1 << LINEAR_LOG) + (OCTAVES << MANTISSA_LOG);
const CHUNKS: usize = COUNT.div_ceil(64);
const SUMMARY: usize = CHUNKS.div_ceil(64);

type Entry = (FreeKey, BlockId);

/// Sixty-four neighbouring bins.
#[derive(Clone, Debug)]
struct Chunk {
    /// Bit `i`: bin `i` holds something.
    bits: u64,
    bins: [Vec<Entry>; 64],
}

/// Sorted bins and two levels of bits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Binned {
    chunks: Vec<Option<Box<Chunk>>>,
    /// One bit a chunk: whether any of its bins holds something.
    summary: [u64; SUMMARY],
}

fn bin_of(size: Bytes) -> usize {
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

impl Binned {
    /// Adds a block that is not there.
    #[inline]
    pub(crate) fn insert(&mut self, key: FreeKey, block: BlockId) {
        let bin = self.open(bin_of(key.size));
        // Most bins hold one block or none; a new one often comes last.
        let at = match bin.last() {
            None => 0,
            Some((last, _)) if *last < key => bin.len(),
            Some(_) => bin.partition_point(|entry| entry.0 < key),
        };
        bin.insert(at, (key, block));
    }

    /// Takes a block out; returns whether it was there.
    #[inline]
    pub(crate) fn remove(&mut self, key: FreeKey) -> bool {
        let number = bin_of(key.size);
        let bin = self.open(number);
        let place = bin.binary_search_by_key(&key, |entry| entry.0);
        if let Ok(at) = place {
            bin.remove(at);
        }
        self.close(number);
        place.is_ok()
    }

    /// The first block of at least this size.
    #[inline]
    pub(crate) fn lower_bound(&self, size: Bytes) -> Option<BlockId> {
        let number = bin_of(size);
        let bin = self.get(number);
        match bin.first() {
            // Above 2 MiB a bin may hold smaller blocks too.
            Some((key, block)) if key.size >= size => return Some(*block),
            Some(_) => {
                let at = bin.partition_point(|(key, _)| key.size < size);
                if let Some((_, block)) = bin.get(at) {
                    return Some(*block);
                }
            }
            None => {}
        }
        Some(self.get(self.next(number + 1)?).first()?.1)
    }

    #[inline]
    fn chunk(&self, number: usize) -> Option<&Chunk> {
        self.chunks.get(number / 64)?.as_deref()
    }

    #[inline]
    fn get(&self, number: usize) -> &[Entry] {
        self.chunk(number).map_or(&[], |chunk| &chunk.bins[number % 64])
    }

    /// A bin to put something into.
    #[inline]
    fn open(&mut self, number: usize) -> &mut Vec<Entry> {
        let at = number / 64;
        if at >= self.chunks.len() {
            self.chunks.resize_with(at + 1, || None);
        }
        self.summary[at / 64] |= 1 << (at % 64);
        let chunk = self.chunks[at]
            .get_or_insert_with(|| Box::new(Chunk { bits: 0, bins: [const { Vec::new() }; 64] }));
        chunk.bits |= 1 << (number % 64);
        &mut chunk.bins[number % 64]
    }

    /// Notes if a bin that was opened holds nothing.
    #[inline]
    fn close(&mut self, number: usize) {
        let at = number / 64;
        if let Some(Some(chunk)) = self.chunks.get_mut(at)
            && chunk.bins[number % 64].is_empty()
        {
            chunk.bits &= !(1 << (number % 64));
            if chunk.bits == 0 {
                self.summary[at / 64] &= !(1 << (at % 64));
            }
        }
    }

    /// The first bin from `number` on that holds something.
    #[inline]
    fn next(&self, number: usize) -> Option<usize> {
        let at = number / 64;
        let rest = self.chunk(number).map_or(0, |chunk| chunk.bits & (u64::MAX << (number % 64)));
        if rest != 0 {
            return Some(at * 64 + rest.trailing_zeros() as usize);
        }
        let at = next_bit(&self.summary, at + 1)?;
        let chunk = self.chunks.get(at)?.as_ref()?;
        Some(at * 64 + chunk.bits.trailing_zeros() as usize)
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
