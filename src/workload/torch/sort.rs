//! Scratch memory of sorting pairs of 64-bit numbers on the device, and of running sums.
//!
//! # Source
//! CUB as PyTorch 2.11 has it for CUDA 13, `cub/device/dispatch/dispatch_radix_sort.cuh`: one block of
//! threads for few, one sweep for each eight bits otherwise; sizes asked of it on an H200.

/// Pairs that one block of threads sorts, without scratch memory.
const AT_ONCE: u64 = 2304;
/// Pairs of a block of threads otherwise, and numbers of one that chooses unique ones.
pub(super) const TILE: u64 = 4608;
/// Numbers of a block of threads that adds up.
pub(super) const SCAN_TILE: u64 = 896;
const DIGIT_BITS: u64 = 8;
/// Starts of the digits of a sweep, in bytes.
const OFFSETS: u64 = 256 * 8;
/// What a block of threads looks back to, in bytes.
const LOOKBACK: u64 = 256 * 4;
const ALIGNMENT: u64 = 256;

/// Bytes to sort `n` keys below 2^`bits` with their values, for inputs that must not be written to.
pub(super) fn scratch(n: u64, bits: u64) -> u64 {
    if n <= AT_ONCE {
        return 1;
    }
    let sweeps = bits.div_ceil(DIGIT_BITS).max(1);
    let numbers = n.saturating_mul(8);
    let between = numbers.checked_next_multiple_of(ALIGNMENT).unwrap_or(numbers).saturating_mul(2);
    let between = if sweeps > 1 { between } else { 0 };
    let blocks = n.div_ceil(TILE);
    let counters = ALIGNMENT;
    (sweeps * OFFSETS + counters + ALIGNMENT - 1)
        .saturating_add(blocks.saturating_mul(LOOKBACK))
        .saturating_add(between)
}

/// Bytes of a scan over `n` numbers in blocks of `tile`: 16 for each block and 32 more.
pub(super) fn scan_scratch(n: u64, tile: u64) -> u64 {
    let tiles = n.div_ceil(tile) + 32;
    let status = tiles.saturating_mul(16);
    status.checked_next_multiple_of(ALIGNMENT).unwrap_or(u64::MAX).saturating_add(2 * ALIGNMENT - 1)
}

/// How many bits the largest of so many keys has.
pub(super) fn bits_of(keys: u64) -> u64 {
    u64::from(64 - keys.saturating_sub(1).max(1).leading_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asked of the real allocator: gradients of `x[indices]` and of embeddings.
    #[test]
    fn scratch_is_what_was_asked() {
        let of_rows = |n, rows| scratch(n, bits_of(rows));
        assert_eq!([of_rows(2304, 6000), of_rows(2305, 6000)], [1, 43_007]);
        assert_eq!([of_rows(5000, 256), of_rows(5000, 257)], [4607, 87_039]);
        assert_eq!([scratch(3073, 64), scratch(4609, 64)], [67_583, 93_183]);
    }

    /// As PyTorch 2.11 asked for them.
    #[test]
    fn scratch_memory_of_sorts_and_scans() {
        let sorts = [(3073, 67_583), (28_673, 483_327), (57_345, 948_223), (262_144, 4_269_567)];
        assert!(sorts.iter().all(|(n, bytes)| scratch(*n, 64) == *bytes));
        let scans = [(4097, 1279), (28_672, 1535), (28_673, 1791), (57_345, 2303), (262_144, 5887)];
        assert!(scans.iter().all(|(n, bytes)| scan_scratch(*n, SCAN_TILE) == *bytes));
        assert_eq!([69_632, 131_072].map(|n| scan_scratch(n, TILE)), [1279, 1535]);
    }
}
