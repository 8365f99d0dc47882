//! From the size a program asks for to the size of a block, and on to the size of a segment.
//!
//! Pure functions of the settings in force. The settings may change while a process runs, so nothing
//! is kept here.

use crate::base::{Bytes, Release};

/// The smallest block, and the step of all block sizes.
pub const MIN_BLOCK_SIZE: Bytes = Bytes(512);
/// Blocks up to this size come from the small pool.
pub const SMALL_SIZE: Bytes = Bytes::mib(1);
/// Size of the segments of the small pool.
pub const SMALL_BUFFER: Bytes = Bytes::mib(2);
/// Blocks from this size on get a segment of their own size.
pub const MIN_LARGE_ALLOC: Bytes = Bytes::mib(10);
/// The step of those segment sizes.
pub const ROUND_LARGE: Bytes = Bytes::mib(2);

/// What a division value of 1 does in `roundup_power2_divisions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DivisionOne {
    /// Up to 2.3: sizes above 512 bytes stay as they are, not even multiples of 512.
    KeepsSize,
    /// From 2.4: as if there were no value, sizes become multiples of 512.
    RoundsTo512,
}

impl DivisionOne {
    /// The smallest division value that does anything.
    pub const fn least(self) -> u64 {
        match self {
            Self::KeepsSize => 1,
            Self::RoundsTo512 => 2,
        }
    }

    /// What it does in `release`.
    pub const fn of(release: Release) -> Self {
        if release.at_least(4) { Self::RoundsTo512 } else { Self::KeepsSize }
    }
}

/// The block size for a request of `size` bytes, which must be below 2^60: an allocator refuses more
/// before it rounds.
///
/// `divisions` is [`AllocConf::roundup_power2_divisions`](super::conf::AllocConf).
///
/// # Source
/// `CUDACachingAllocator.cpp`, `DeviceCachingAllocator::round_size`.
///
/// # Examples
/// ```
/// use fragsim::{base::Bytes, models::pytorch::rounding::{DivisionOne, round_size}};
/// let round = |divisions, size| round_size(Bytes(size), &[divisions; 16], DivisionOne::RoundsTo512);
/// assert_eq!(round(0, 1200), Bytes(1536));
/// assert_eq!(round(4, 5 << 20 | 1), Bytes::mib(6));
/// ```
#[inline]
pub fn round_size(size: Bytes, divisions: &[u64; 16], one: DivisionOne) -> Bytes {
    if size < MIN_BLOCK_SIZE {
        return MIN_BLOCK_SIZE;
    }
    let count = divisions_for(size, divisions);
    // The product wraps for divisions beyond every size, as PyTorch's does.
    if count >= one.least() && size.0 > MIN_BLOCK_SIZE.0.wrapping_mul(count) {
        return next_division(size, count);
    }
    size.round_up(MIN_BLOCK_SIZE)
}

/// The size of the segment that is made for a block of `rounded` bytes where none is free, with fixed
/// segments. Expandable segments are mapped by other rules, but limits and messages use this too.
///
/// # Source
/// `CUDACachingAllocator.cpp`, `DeviceCachingAllocator::get_allocation_size`.
#[inline]
pub const fn get_allocation_size(rounded: Bytes, large_segment_size: Bytes) -> Bytes {
    if rounded.0 <= SMALL_SIZE.0 {
        SMALL_BUFFER
    } else if rounded.0 < MIN_LARGE_ALLOC.0 {
        large_segment_size
    } else {
        rounded.round_up(ROUND_LARGE)
    }
}

/// The value of the interval that `size` falls into: entry `k` from 2^(20+k) bytes on, the first and
/// the last open to their sides.
///
/// # Source
/// `AllocatorConfig.cpp`, `roundup_power2_divisions(size)`.
#[inline]
fn divisions_for(size: Bytes, divisions: &[u64; 16]) -> u64 {
    let log = size.0.max(1).ilog2() as usize;
    divisions[log.saturating_sub(20).min(15)]
}

/// The next of the `count` even steps from the power of two below `size` to the one above.
///
/// # Source
/// `CUDACachingAllocator.cpp`, `roundup_power2_next_division`.
fn next_division(size: Bytes, count: u64) -> Bytes {
    if size.0.is_power_of_two() || count <= 1 {
        return size;
    }
    let floor = 1_u64 << size.0.ilog2();
    let step = floor >> count.ilog2();
    if step == 0 {
        return Bytes(floor << 1);
    }
    size.round_up(Bytes(step))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::models::pytorch::conf::AllocConf;

    fn check(divisions: u64, pairs: &[(u64, u64)]) {
        for (size, want) in pairs {
            let got = round_size(Bytes(*size), &[divisions; 16], DivisionOne::RoundsTo512);
            assert_eq!(got, Bytes(*want), "{size} with {divisions}");
        }
    }

    #[test]
    fn sizes_become_multiples_of_512() {
        check(0, &[(1, 512), (511, 512), (512, 512), (513, 1024), (1200, 1536)]);
    }

    #[test]
    fn four_divisions() {
        check(
            4,
            &[
                (600, 1024),
                (1200, 1536),
                (3000, 3072),
                (1_048_577, 1_310_720),
                ((5 << 20) + 1, 6_291_456),
                (3 << 19, 3 << 19),
                (2 << 20, 2 << 20),
            ],
        );
    }

    #[test]
    fn eight_divisions_leave_small_sizes_to_the_512_rule() {
        check(8, &[(600, 1024), (1200, 1536), (1_048_577, 1_179_648), ((5 << 20) + 1, 5_767_168)]);
    }

    #[test]
    fn more_divisions_than_bytes_round_to_the_power_of_two() {
        check(1 << 63, &[(1000, 1024), (1 << 20 | 1, 2 << 20)]);
    }

    #[test]
    fn one_division_kept_sizes_until_2_3() {
        let round = |size, one| round_size(Bytes(size), &[1; 16], one).0;
        assert_eq!([511, 512, 513].map(|s| round(s, DivisionOne::KeepsSize)), [512, 512, 513]);
        assert_eq!([511, 512, 513].map(|s| round(s, DivisionOne::RoundsTo512)), [512, 512, 1024]);
    }

    #[test]
    fn the_interval_is_that_of_the_size_before_rounding() {
        let mut divisions = [0; 16];
        divisions[1] = 2;
        let round = |size| round_size(Bytes(size), &divisions, DivisionOne::RoundsTo512).0;
        assert_eq!(round((2 << 20) - 1), 2 << 20);
        assert_eq!(round((2 << 20) + 1), 3 << 20);
        assert_eq!(round((4 << 20) + 1), (4 << 20) + 512);
    }

    #[test]
    fn segments() {
        let segment = |size| get_allocation_size(Bytes(size), Bytes::mib(20));
        assert_eq!(segment(512), Bytes::mib(2));
        assert_eq!(segment(1 << 20), Bytes::mib(2));
        assert_eq!(segment((1 << 20) + 512), Bytes::mib(20));
        assert_eq!(segment((10 << 20) - 512), Bytes::mib(20));
        assert_eq!(segment(10 << 20), Bytes::mib(10));
        assert_eq!(segment((10 << 20) + 512), Bytes::mib(12));
        assert_eq!(get_allocation_size(Bytes::mib(5), Bytes::mib(64)), Bytes::mib(64));
    }

    /// A case: allocations of rising size, none freed.
    #[derive(Deserialize)]
    struct Recorded {
        release: Release,
        conf: String,
        segments: Vec<(Bytes, Vec<(Bytes, Bytes)>)>,
    }

    #[test]
    fn recorded_blocks_and_segments_have_these_sizes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/traces/golden/parser/rounding.jsonl.gz");
        let mut text = String::new();
        let file = std::fs::File::open(path).unwrap();
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
        let mut blocks = 0;
        for line in text.lines() {
            let case: Recorded = serde_json::from_str(line).unwrap();
            let (conf, _) = AllocConf::from_string(case.release, &case.conf).unwrap();
            let one = DivisionOne::of(case.release);
            let round = |size| round_size(size, &conf.roundup_power2_divisions, one);
            for (segment, list) in &case.segments {
                let first = round(list[0].1);
                let what = format!("{} {} {:?}", case.release, case.conf, list[0]);
                assert_eq!(get_allocation_size(first, conf.large_segment_size), *segment, "{what}");
                for (i, (size, requested)) in list.iter().enumerate() {
                    if *requested == Bytes::ZERO {
                        continue;
                    }
                    // The last block keeps a remainder that is too small to be a block.
                    let small = first <= SMALL_SIZE;
                    let kept = if small { Bytes(511) } else { SMALL_SIZE };
                    let slack = if i + 1 == list.len() { kept } else { Bytes::ZERO };
                    let least = round(*requested);
                    let what = format!("{} {} {requested:?}", case.release, case.conf);
                    assert!(least <= *size && *size <= least + slack, "{what}: {size:?}");
                    blocks += 1;
                }
            }
        }
        assert!(blocks > 2000, "{blocks}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_block_holds_its_request_and_little_more(
            size in prop_oneof![1..1_u64 << 24, 1..1_u64 << 59],
            power in 0..12_u32,
        ) {
            let divisions = [1 << power; 16];
            let rounded = round_size(Bytes(size), &divisions, DivisionOne::RoundsTo512);
            prop_assert!(rounded.0 >= size && rounded.0 < 2 * size.max(512));
            prop_assert_eq!(rounded.0 % 512, 0);
            let again = round_size(rounded, &divisions, DivisionOne::RoundsTo512);
            prop_assert_eq!(again, rounded);
        }
    }
}
