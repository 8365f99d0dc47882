//! Fragmentation, measured: what a layout holds that nobody uses, and why it is of little use.
//!
//! ```text
//!  segment  | a 3.0 MiB            | . 17 MiB | b 512 KiB | . 1.5 MiB |
//!             requested ≤ rounded ≤ block       ▲ largest free
//!             └ rounding ┘└ slack ┘
//! ```
//! Every measure is a number over one [`Layout`]; [`super::FragmentationSeries`] follows some of them
//! through a replay. Ratios are 0 where there is nothing to divide by.

use std::collections::BTreeMap;

use crate::{
    base::{Bytes, PoolId, Span, StreamHandle},
    trace::{BlockState, Layout, SegmentLayout},
};

/// What the rules of an allocator add to a layout.
#[derive(Clone, Copy, Debug)]
pub struct Rules<F> {
    /// From the size asked for to the size of the block.
    pub round: F,
    /// The step in which expandable segments of the large pool map memory; 2 MiB in the small one.
    pub large_granule: Bytes,
}

/// All measures of one layout. Bytes, unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Fragmentation {
    /// Of all segments.
    pub reserved: Bytes,
    /// Of all blocks handed out.
    pub allocated: Bytes,
    /// Of blocks that were freed and still wait for another stream.
    pub pending: Bytes,
    /// Of all free blocks. `reserved` is the sum of `allocated`, `pending` and this.
    pub free: Bytes,
    /// Number of free blocks.
    pub free_blocks: u64,
    /// The largest free block.
    pub largest_free: Bytes,
    /// Of free blocks that share a `cudaMalloc` segment with others, as
    /// `inactive_split_bytes.all.current` of `memory_stats()` counts them: no release gives them back.
    pub inactive_split: Bytes,
    /// What rounding adds to the sizes asked for, over blocks handed out.
    ///
    /// # Source
    /// Internal fragmentation; `round_size` in `CUDACachingAllocator.cpp`.
    pub rounding: Bytes,
    /// What blocks handed out hold beyond their rounded size, because the rest was not worth a block
    /// (`should_split`): up to 1 MiB each in the large pool, 511 bytes in the small one, and
    /// everything in a pool that hands out its blocks whole.
    pub slack: Bytes,
    /// Free bytes in granules of expandable segments that hold something else, too: mapped, and no
    /// release unmaps them.
    pub partial_granules: Bytes,
}

impl Fragmentation {
    /// The measures of a layout.
    ///
    /// # Complexity
    /// O(n) in the number of blocks.
    pub fn of(layout: &Layout, rules: &Rules<impl Fn(Bytes) -> Bytes>) -> Self {
        let mut all = Self::default();
        for segment in &layout.segments {
            let is_split = segment.blocks.len() > 1 && !segment.is_expandable;
            let granule = if segment.is_small { Bytes::mib(2) } else { rules.large_granule };
            for (addr, block) in segment.blocks_at() {
                all.reserved += block.size;
                match block.state {
                    BlockState::ActiveAllocated => {
                        let rounded = (rules.round)(block.requested).min(block.size);
                        all.allocated += block.size;
                        all.rounding += rounded.saturating_sub(block.requested);
                        all.slack += block.size - rounded;
                    }
                    BlockState::ActivePendingFree => all.pending += block.size,
                    BlockState::Inactive => {
                        all.free += block.size;
                        all.free_blocks += 1;
                        all.largest_free = all.largest_free.max(block.size);
                        if is_split {
                            all.inactive_split += block.size;
                        }
                        if segment.is_expandable {
                            let span = Span::new(addr, block.size);
                            all.partial_granules += partial(segment, span, granule);
                        }
                    }
                }
            }
        }
        all
    }

    /// External fragmentation: the share of the free bytes that lies outside the largest free block,
    /// `1 - largest_free / free`. From 0 (one block) towards 1 (dust).
    ///
    /// # Source
    /// The common definition, as in Johnstone and Wilson, *The Memory Fragmentation Problem: Solved?*
    /// (ISMM 1998), section 2, applied to one moment.
    pub fn external(&self) -> f64 {
        (self.free - self.largest_free).ratio(self.free)
    }

    /// Reserved for each byte handed out. 1 or more, but 0 where nothing is handed out.
    pub fn reserved_to_allocated(&self) -> f64 {
        self.reserved.ratio(self.allocated)
    }

    /// Reserved for each byte handed out or waiting. 1 or more, but 0 where there is none.
    pub fn reserved_to_active(&self) -> f64 {
        self.reserved.ratio(self.allocated + self.pending)
    }
}

/// The part of a free block that lies in granules which hold something else, too. A mapped range
/// begins and ends on granules.
fn partial(segment: &SegmentLayout, free: Span, granule: Bytes) -> Bytes {
    let first = (free.start - segment.addr).round_up(granule);
    let last = Bytes((free.end() - segment.addr).0 / granule.0 * granule.0);
    free.size - last.saturating_sub(first)
}

/// The unusable free space index for a request: the share of the free bytes in blocks that are too
/// small for it. From 0 (every free byte is in a block that would do) to 1 (none is).
///
/// # Source
/// Gorman and Whitcroft, *The What, The Why and the Where To of Anti-Fragmentation* (Linux Symposium
/// 2006), section 2, with free blocks of any size in the place of powers of two.
pub fn unusable_free_index(layout: &Layout, request: Bytes) -> f64 {
    let (mut free, mut small) = (Bytes::ZERO, Bytes::ZERO);
    for block in layout.segments.iter().flat_map(|segment| &segment.blocks) {
        if block.state == BlockState::Inactive {
            free += block.size;
            if block.size < request {
                small += block.size;
            }
        }
    }
    small.ratio(free)
}

/// Which part of the cache: what is free here serves no request of another part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Part {
    /// The pool.
    pub pool: PoolId,
    /// Whether it is the half for blocks of at most 1 MiB.
    pub is_small: bool,
    /// The stream.
    pub stream: StreamHandle,
}

/// What a part of the cache, or a segment, holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Holding {
    /// Bytes of its segments.
    pub reserved: Bytes,
    /// Bytes handed out or waiting.
    pub active: Bytes,
    /// Free bytes: stranded for everybody else.
    pub free: Bytes,
    /// Its largest free block.
    pub largest_free: Bytes,
    /// Number of free blocks.
    pub free_blocks: u64,
}

impl Holding {
    fn add(&mut self, segment: &SegmentLayout) {
        for block in &segment.blocks {
            self.reserved += block.size;
            if block.state == BlockState::Inactive {
                self.free += block.size;
                self.free_blocks += 1;
                self.largest_free = self.largest_free.max(block.size);
            } else {
                self.active += block.size;
            }
        }
    }
}

/// What each part of the cache holds: by pool, half and stream.
pub fn by_part(layout: &Layout) -> BTreeMap<Part, Holding> {
    let mut parts: BTreeMap<Part, Holding> = BTreeMap::new();
    for segment in &layout.segments {
        let part = Part { pool: segment.pool, is_small: segment.is_small, stream: segment.stream };
        parts.entry(part).or_default().add(segment);
    }
    parts
}

/// What each segment holds, in the order of the addresses.
pub fn by_segment(layout: &Layout) -> Vec<(Span, Holding)> {
    let holding = |segment: &SegmentLayout| {
        let mut holding = Holding::default();
        holding.add(segment);
        (segment.span(), holding)
    };
    layout.segments.iter().map(holding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::script;

    fn layout(start: &str) -> Layout {
        script::parse(start).unwrap().start().clone()
    }

    fn measure(start: &str) -> Fragmentation {
        let rules =
            Rules { round: |size: Bytes| size.round_up(Bytes(512)), large_granule: Bytes::mib(20) };
        Fragmentation::of(&layout(start), &rules)
    }

    /// 3 and 17 MiB are free, 20 MiB in all.
    const TWO: &str = "start 0x7f0000000000 large | . 3MiB | a 4MiB | . 17MiB";

    #[test]
    fn external_is_what_lies_outside_the_largest_free_block() {
        assert_eq!(measure(TWO).largest_free, Bytes::mib(17));
        assert!((measure(TWO).external() - 3.0 / 20.0).abs() < 1e-12);
        assert!(measure("start 0x7f0000000000 large | a 4MiB | . 16MiB").external().abs() < 1e-12);
        assert!(Fragmentation::default().external().abs() < 1e-12);
    }

    #[test]
    fn ratios_are_of_reserved_to_what_is_in_use() {
        let all = measure("start 0x7f0000000000 large | a 4MiB | ~ b 4MiB | . 12MiB");
        assert!((all.reserved_to_allocated() - 5.0).abs() < 1e-12);
        assert!((all.reserved_to_active() - 2.5).abs() < 1e-12);
        assert_eq!(all.pending, Bytes::mib(4));
    }

    #[test]
    fn inactive_split_is_free_beside_something_else() {
        assert_eq!(measure(TWO).inactive_split, Bytes::mib(20));
        assert_eq!(measure("start 0x7f0000000000 large | . 20MiB").inactive_split, Bytes::ZERO);
    }

    #[test]
    fn rounding_and_slack_are_inside_the_blocks() {
        let all = measure("start 0x7f0000000000 large | a 3MiB(2097153) | . 17MiB");
        assert_eq!(all.rounding, Bytes(511));
        assert_eq!(all.slack, Bytes::mib(1) - Bytes(512));
    }

    #[test]
    fn a_partial_granule_stays_mapped() {
        // Granules of 20 MiB: the first is shared, the second wholly free.
        let all = measure("start 0x7f0000000000 large expandable | a 4MiB | . 36MiB");
        assert_eq!(all.partial_granules, Bytes::mib(16));
        assert_eq!(all.inactive_split, Bytes::ZERO);
    }

    #[test]
    fn unusable_is_what_is_too_small_for_the_request() {
        let index = |request| unusable_free_index(&layout(TWO), Bytes::mib(request));
        assert!((index(3), index(4), index(18)) == (0.0, 0.15, 1.0));
        assert!(unusable_free_index(&Layout::default(), Bytes(1)).abs() < 1e-12);
    }

    #[test]
    fn memory_is_stranded_by_pool_half_stream_and_segment() {
        let layout = layout(
            "start 0x7f0000000000 large | a 4MiB | . 16MiB\n\
             start 0x7f0010000000 small | b 1MiB | . 1MiB\n\
             start 0x7f0020000000 large pool (0,1) | . 10MiB",
        );
        let free: Vec<Bytes> = by_part(&layout).values().map(|part| part.free).collect();
        assert_eq!(free, [16, 1, 10].map(Bytes::mib));
        assert_eq!(by_segment(&layout)[1].1.active, Bytes::mib(1));
    }
}
