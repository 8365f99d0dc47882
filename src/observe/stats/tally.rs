//! [`StatsTally`]: the watcher behind [`DeviceStats`].
//!
//! What each request and each free changes is counted in two small rows, one a pool: what came, what
//! went, and how much more may come before anything can be a peak. Only then are the rows added to
//! the statistics, each of which has a peak of its own. So a step costs a few additions and one
//! foreseen comparison a quantity, however many statistics follow from them.

use super::{Columns, DeviceStats, Stat, signed};
use crate::{
    base::Bytes,
    sim::{Allocated, Failed, FreeCompleted, FreeRequested, Observer, Segment, StartBlock},
};

/// Counts what [`DeviceStats`] holds.
#[derive(Clone, Debug)]
pub struct StatsTally {
    /// As of when the rows were added last; what is not counted in rows, as of now.
    stats: DeviceStats,
    /// Of large blocks, of small blocks.
    rows: [Row; 2],
}

/// What came and went in one pool since it was last added.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    /// Blocks handed out, less those back in their pool: changes of what is active.
    active: Blocks,
    /// Blocks back in their pool.
    completed: Blocks,
    /// Blocks that `free` was called for, and their bytes.
    freed: [i64; 2],
    /// Free blocks that share a segment, and their bytes: the change, and its increases alone.
    split: [i64; 2],
    split_up: [i64; 2],
    limits: Limits,
}

/// Several blocks.
#[derive(Clone, Copy, Debug, Default)]
struct Blocks {
    count: i64,
    bytes: i64,
    requested: i64,
}

/// While neither pool exceeds its own of these, nothing is at a new peak.
#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    active: Blocks,
    split: [i64; 2],
}

impl Blocks {
    // Sums since the totals were reset may exceed 64 bits, and then wrap around as PyTorch's do.
    #[inline(always)]
    fn add(&mut self, bytes: Bytes, requested: Bytes) {
        self.count = self.count.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(signed(bytes));
        self.requested = self.requested.wrapping_add(signed(requested));
    }

    #[inline(always)]
    fn subtract(&mut self, bytes: Bytes, requested: Bytes) {
        self.count = self.count.wrapping_sub(1);
        self.bytes = self.bytes.wrapping_sub(signed(bytes));
        self.requested = self.requested.wrapping_sub(signed(requested));
    }
}

impl StatsTally {
    /// Nothing yet; `max_split_size` as it is when the allocator is made.
    pub fn new(max_split_size: Bytes) -> Self {
        let stats = DeviceStats::new(max_split_size);
        Self { stats, rows: <[Row; 2]>::default() }
    }

    /// All numbers as they are now.
    pub fn stats(&self) -> DeviceStats {
        let mut now = self.clone();
        now.add_rows();
        now.stats
    }

    /// Adds the rows to the statistics, and begins new ones.
    #[cold]
    #[inline(never)]
    fn add_rows(&mut self) {
        for (row, is_small) in self.rows.iter().zip([false, true]) {
            let Row { active, completed, freed, split, split_up, .. } = row;
            let count = active.count.wrapping_add(completed.count);
            let bytes = active.bytes.wrapping_add(completed.bytes);
            let requested = active.requested.wrapping_add(completed.requested);
            let split_down = |at: usize| split_up[at].wrapping_sub(split[at]);
            let changes = [
                (count, freed[0]),
                (bytes, freed[1]),
                (count, completed.count),
                (bytes, completed.bytes),
                (requested, completed.requested),
                (split_up[0], split_down(0)),
                (split_up[1], split_down(1)),
            ];
            for (columns, (up, down)) in self.stats.in_rows().into_iter().zip(changes) {
                columns.pool(is_small).change(up, down);
            }
        }
        self.stats.in_rows().into_iter().for_each(Columns::note_peak);
        self.rows = <[Row; 2]>::default();
        self.find_limits();
    }

    /// How far everything is from its peak.
    fn find_limits(&mut self) {
        let stats = &self.stats;
        let room = |of: fn(&Columns) -> Stat, columns| of(columns).peak - of(columns).current;
        // What is allocated is active, too: as long as what is active stays below the lower one of both
        // peaks, neither is reached.
        let lower = |of: fn(&Columns) -> Stat, allocated: &Columns, active: &Columns| {
            of(allocated).peak.min(of(active).peak) - of(active).current
        };
        let limits = |of: fn(&Columns) -> Stat| Limits {
            active: Blocks {
                count: lower(of, &stats.allocation, &stats.active),
                bytes: lower(of, &stats.allocated_bytes, &stats.active_bytes),
                requested: room(of, &stats.requested_bytes),
            },
            split: [room(of, &stats.inactive_split), room(of, &stats.inactive_split_bytes)],
        };
        let both = limits(Columns::all);
        self.rows[0].limits = limits(|columns| columns.large_pool).and_half_of(&both);
        self.rows[1].limits = limits(|columns| columns.small_pool).and_half_of(&both);
    }

    /// Something happens to the statistics themselves.
    fn change(&mut self, change: impl FnOnce(&mut DeviceStats)) {
        self.add_rows();
        change(&mut self.stats);
        self.find_limits();
    }
}

impl Limits {
    /// Each pool may take half of the room that both have together, and so needs no look at the other.
    fn and_half_of(self, both: &Self) -> Self {
        let least = |own: i64, both: i64| if both < 0 { i64::MIN } else { own.min(both / 2) };
        Self {
            active: Blocks {
                count: least(self.active.count, both.active.count),
                bytes: least(self.active.bytes, both.active.bytes),
                requested: least(self.active.requested, both.active.requested),
            },
            split: [least(self.split[0], both.split[0]), least(self.split[1], both.split[1])],
        }
    }
}

impl Row {
    /// Whether anything that comes with a block may be at a new peak.
    #[inline(always)]
    fn is_high(&self) -> bool {
        let (active, limit) = (&self.active, &self.limits.active);
        active.count > limit.count
            || active.bytes > limit.bytes
            || active.requested > limit.requested
            || self.is_split_high()
    }

    /// The same of the free blocks that share a segment.
    #[inline(always)]
    fn is_split_high(&self) -> bool {
        self.split[0] > self.limits.split[0] || self.split[1] > self.limits.split[1]
    }

    /// So many more free blocks share a segment, or fewer.
    #[inline(always)]
    fn change_split(&mut self, blocks: i64, bytes: i64) {
        for (at, n) in [blocks, bytes].into_iter().enumerate() {
            self.split[at] = self.split[at].wrapping_add(n);
            // Which of the two it is cannot be foreseen, and is not asked.
            self.split_up[at] = self.split_up[at].wrapping_add(n.max(0));
        }
    }
}

impl Observer for StatsTally {
    #[inline(always)]
    fn alloc(&mut self, fact: &Allocated) {
        let row = &mut self.rows[usize::from(fact.place.is_small)];
        row.active.add(fact.span.size, fact.requested);
        if !fact.place.is_expandable {
            let rest = signed(fact.remainder.unwrap_or(Bytes::ZERO));
            let whole = signed(fact.span.size).wrapping_add(rest);
            let gone = if fact.was_split { whole } else { 0 };
            let blocks = i64::from(rest > 0).wrapping_sub(i64::from(fact.was_split));
            row.change_split(blocks, rest.wrapping_sub(gone));
        }
        if row.is_high() {
            self.add_rows();
        }
        if fact.is_oversize {
            self.stats.oversize_allocations.change(1, 0);
        }
    }

    #[inline(always)]
    fn free_requested(&mut self, fact: &FreeRequested) {
        let row = &mut self.rows[usize::from(fact.place.is_small)];
        row.freed[0] = row.freed[0].wrapping_add(1);
        row.freed[1] = row.freed[1].wrapping_add(signed(fact.span.size));
        if fact.is_oversize {
            self.stats.oversize_allocations.change(0, 1);
        }
    }

    #[inline(always)]
    fn free_completed(&mut self, fact: &FreeCompleted) {
        let row = &mut self.rows[usize::from(fact.place.is_small)];
        row.active.subtract(fact.span.size, fact.requested);
        row.completed.add(fact.span.size, fact.requested);
        if !fact.place.is_expandable {
            let [low, high] = fact.merged;
            let merged = i64::from(low > Bytes::ZERO) + i64::from(high > Bytes::ZERO);
            // What it was merged with was counted before.
            let gone = if fact.is_split { 0 } else { signed(fact.free.size) };
            let bytes = signed(fact.span.size).wrapping_sub(gone);
            row.change_split(i64::from(fact.is_split).wrapping_sub(merged), bytes);
            if row.is_split_high() {
                self.add_rows();
            }
        }
    }

    fn segment_alloc(&mut self, fact: &Segment) {
        self.stats.segment.change(fact.place, 1);
        self.stats.reserve(fact, 1);
        if fact.is_oversize {
            self.stats.oversize_segments.change(1, 0);
        }
        self.stats.num_device_alloc += 1;
    }

    fn segment_release(&mut self, _fact: &Segment) {
        self.stats.num_device_free += 1;
    }

    fn segment_free(&mut self, fact: &Segment) {
        self.stats.segment.change(fact.place, -1);
        self.stats.reserve(fact, -1);
        if fact.is_oversize {
            self.stats.oversize_segments.change(0, 1);
        }
    }

    fn segment_map(&mut self, fact: &Segment) {
        self.stats.reserve(fact, 1);
        self.stats.num_device_alloc += 1;
    }

    fn segment_unmap(&mut self, fact: &Segment) {
        self.stats.reserve(fact, -1);
        self.stats.num_device_free += 1;
    }

    fn oom(&mut self, _fact: &Failed) {
        self.stats.num_ooms += 1;
    }

    fn oom_rejection(&mut self) {
        self.stats.num_oom_rejections += 1;
    }

    fn alloc_retry(&mut self) {
        self.stats.num_alloc_retries += 1;
    }

    fn sync_all_streams(&mut self) {
        self.stats.num_sync_all_streams += 1;
    }

    fn reset_peak(&mut self) {
        self.change(DeviceStats::reset_peak);
    }

    fn reset_accumulated(&mut self) {
        self.change(DeviceStats::reset_accumulated);
    }

    fn start(&mut self, segment: &Segment) {
        if !segment.place.is_expandable {
            self.stats.segment.change(segment.place, 1);
        }
        self.stats.reserve(segment, 1);
        if segment.is_oversize && !segment.place.is_expandable {
            self.stats.oversize_segments.change(1, 0);
        }
    }

    fn start_block(&mut self, block: &StartBlock) {
        self.change(|stats| stats.start_block(block));
    }
}
