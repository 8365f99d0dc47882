//! [`DeviceStats`]: every number of `torch.cuda.memory_stats()`, and [`StatsTally`], which makes them.
//!
//! # Source
//! `c10/core/CachingDeviceAllocator.h` (`DeviceStats`), `torch/cuda/memory.py` (`memory_stats`).

mod tally;

pub use self::tally::StatsTally;

use std::collections::BTreeMap;

use crate::{
    base::{Bytes, PoolId, Release},
    sim::{Place, Segment, StartBlock},
    trace::BlockState,
};

/// One quantity over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Now.
    pub current: i64,
    /// Largest since the last reset of peaks.
    pub peak: i64,
    /// Sum of increases since the last reset of totals; wraps around as PyTorch's does.
    pub allocated: i64,
    /// [`Self::current`] at the last reset of totals.
    base: i64,
}

impl Stat {
    /// Sum of decreases since the last reset of totals. Follows from the other three, so that a
    /// decrease touches one number.
    pub fn freed(&self) -> i64 {
        self.base.wrapping_add(self.allocated).wrapping_sub(self.current)
    }

    /// An increase and a decrease since, of which the present value may be a peak.
    fn change(&mut self, up: i64, down: i64) {
        self.current = self.current.wrapping_add(up).wrapping_sub(down);
        self.allocated = self.allocated.wrapping_add(up);
        self.peak = self.peak.max(self.current);
    }

    fn reset_accumulated(&mut self) {
        (self.allocated, self.base) = (0, self.current);
    }

    fn reset_peak(&mut self) {
        self.peak = self.current;
    }

    /// In the order of the fields.
    pub fn fields(&self) -> [(&'static str, i64); 4] {
        [
            ("allocated", self.allocated),
            ("current", self.current),
            ("freed", self.freed()),
            ("peak", self.peak),
        ]
    }
}

/// A quantity of small pools, of large pools (private ones included), and of both together.
///
/// Of both together only the peak is kept; the rest are sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// Blocks of at most 1 MiB.
    pub small_pool: Stat,
    /// Larger blocks.
    pub large_pool: Stat,
    peak: i64,
}

impl Columns {
    /// Both.
    pub fn all(&self) -> Stat {
        let (small, large) = (&self.small_pool, &self.large_pool);
        Stat {
            current: small.current + large.current,
            peak: self.peak,
            allocated: small.allocated.wrapping_add(large.allocated),
            base: small.base + large.base,
        }
    }

    fn pool(&mut self, is_small: bool) -> &mut Stat {
        if is_small { &mut self.small_pool } else { &mut self.large_pool }
    }

    /// An increase, or a decrease where it is negative.
    fn change(&mut self, place: Place, n: i64) {
        self.pool(place.is_small).change(n.max(0), n.min(0).wrapping_neg());
        self.note_peak();
    }

    /// The present sum of both pools may be a peak.
    fn note_peak(&mut self) {
        self.peak = self.peak.max(self.small_pool.current + self.large_pool.current);
    }

    /// With the names that PyTorch gives them.
    pub fn named(&self) -> [(&'static str, Stat); 3] {
        [("all", self.all()), ("large_pool", self.large_pool), ("small_pool", self.small_pool)]
    }

    fn reset_peak(&mut self) {
        self.peak = self.small_pool.current + self.large_pool.current;
        self.small_pool.reset_peak();
        self.large_pool.reset_peak();
    }

    fn reset_accumulated(&mut self) {
        self.small_pool.reset_accumulated();
        self.large_pool.reset_accumulated();
    }
}

/// All statistics of one device, in bytes or counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceStats {
    /// Blocks handed out.
    pub allocation: Columns,
    /// Segments from `cudaMalloc`.
    pub segment: Columns,
    /// Blocks handed out or waiting for other streams.
    pub active: Columns,
    /// Free blocks that share a segment with others.
    pub inactive_split: Columns,
    /// Bytes of the blocks handed out.
    pub allocated_bytes: Columns,
    /// Bytes of all segments.
    pub reserved_bytes: Columns,
    /// Bytes of the blocks handed out or waiting.
    pub active_bytes: Columns,
    /// Bytes of free blocks that share a segment with others.
    pub inactive_split_bytes: Columns,
    /// Bytes that programs asked for, of blocks handed out or waiting.
    pub requested_bytes: Columns,
    /// Blocks not below `max_split_size`.
    pub oversize_allocations: Stat,
    /// Segments not below `max_split_size`.
    pub oversize_segments: Stat,
    /// Times that everything was given back and the device asked again.
    pub num_alloc_retries: i64,
    /// Requests that failed.
    pub num_ooms: i64,
    /// Times that all pending events were waited for (2.3 and later).
    pub num_sync_all_streams: i64,
    /// `cudaMalloc` calls and mapped ranges that succeeded (2.3 and later).
    pub num_device_alloc: i64,
    /// `cudaFree` calls and unmapped ranges (2.3 and later).
    pub num_device_free: i64,
    /// Requests refused before anything was tried (2.12 and later).
    pub num_oom_rejections: i64,
    /// `max_split_size` when the allocator was made; -1 is unlimited.
    pub max_split_size: i64,
    /// Reserved bytes of each private pool (2.13 and later).
    pub reserved_bytes_by_private_pools: BTreeMap<PoolId, Columns>,
}

#[expect(clippy::cast_possible_wrap, reason = "PyTorch's counters are signed 64-bit too")]
const fn signed(bytes: Bytes) -> i64 {
    bytes.0 as i64
}

impl DeviceStats {
    /// Nothing yet; `max_split_size` as it is when the allocator is made.
    fn new(max_split_size: Bytes) -> Self {
        Self { max_split_size: signed(max_split_size), ..Self::default() }
    }

    fn families(&self) -> [(&'static str, &Columns); 9] {
        [
            ("active", &self.active),
            ("active_bytes", &self.active_bytes),
            ("allocated_bytes", &self.allocated_bytes),
            ("allocation", &self.allocation),
            ("inactive_split", &self.inactive_split),
            ("inactive_split_bytes", &self.inactive_split_bytes),
            ("requested_bytes", &self.requested_bytes),
            ("reserved_bytes", &self.reserved_bytes),
            ("segment", &self.segment),
        ]
    }

    /// All numbers by the keys of `torch.cuda.memory_stats()` of that release, sorted by key.
    pub fn flat(&self, release: Release) -> BTreeMap<String, i64> {
        let mut flat = BTreeMap::new();
        let mut add = |prefix: &str, stat: &Stat| {
            for (field, value) in stat.fields() {
                flat.insert(format!("{prefix}.{field}"), value);
            }
        };
        for (family, columns) in self.families() {
            for (column, stat) in columns.named() {
                add(&format!("{family}.{column}"), &stat);
            }
        }
        add("oversize_allocations", &self.oversize_allocations);
        add("oversize_segments", &self.oversize_segments);
        if release.at_least(13) {
            for (pool, columns) in &self.reserved_bytes_by_private_pools {
                for (column, stat) in columns.named() {
                    let prefix = "reserved_bytes_by_private_pools";
                    add(&format!("{prefix}.{}_{}.{column}", pool.0, pool.1), &stat);
                }
            }
        }
        let counters = [
            (1, "max_split_size", self.max_split_size),
            (1, "num_alloc_retries", self.num_alloc_retries),
            (1, "num_ooms", self.num_ooms),
            (3, "num_sync_all_streams", self.num_sync_all_streams),
            (3, "num_device_alloc", self.num_device_alloc),
            (3, "num_device_free", self.num_device_free),
            (12, "num_oom_rejections", self.num_oom_rejections),
        ];
        for (since, key, value) in counters {
            if release.at_least(since) {
                flat.insert(key.into(), value);
            }
        }
        flat
    }

    fn all_columns_mut(&mut self) -> impl Iterator<Item = &mut Columns> {
        [
            &mut self.allocation,
            &mut self.segment,
            &mut self.active,
            &mut self.inactive_split,
            &mut self.allocated_bytes,
            &mut self.reserved_bytes,
            &mut self.active_bytes,
            &mut self.inactive_split_bytes,
            &mut self.requested_bytes,
        ]
        .into_iter()
        .chain(self.reserved_bytes_by_private_pools.values_mut())
    }

    fn reset_peak(&mut self) {
        self.oversize_allocations.reset_peak();
        self.oversize_segments.reset_peak();
        self.all_columns_mut().for_each(Columns::reset_peak);
    }

    fn reset_accumulated(&mut self) {
        self.oversize_allocations.reset_accumulated();
        self.oversize_segments.reset_accumulated();
        self.all_columns_mut().for_each(Columns::reset_accumulated);
        self.num_alloc_retries = 0;
        self.num_ooms = 0;
        self.num_sync_all_streams = 0;
        self.num_device_alloc = 0;
        self.num_device_free = 0;
        self.num_oom_rejections = 0;
    }

    /// What [`StatsTally`] counts in rows, in the order in which it adds them.
    fn in_rows(&mut self) -> [&mut Columns; 7] {
        [
            &mut self.allocation,
            &mut self.allocated_bytes,
            &mut self.active,
            &mut self.active_bytes,
            &mut self.requested_bytes,
            &mut self.inactive_split,
            &mut self.inactive_split_bytes,
        ]
    }

    fn start_block(&mut self, block: &StartBlock) {
        let (place, size) = (block.place, signed(block.span.size));
        if block.state == BlockState::Inactive {
            if block.is_split && !place.is_expandable {
                self.inactive_split.change(place, 1);
                self.inactive_split_bytes.change(place, size);
            }
            return;
        }
        self.active.change(place, 1);
        self.active_bytes.change(place, size);
        self.requested_bytes.change(place, signed(block.requested));
        if block.state == BlockState::ActiveAllocated {
            self.allocation.change(place, 1);
            self.allocated_bytes.change(place, size);
            if block.is_oversize {
                self.oversize_allocations.change(1, 0);
            }
        }
    }

    fn reserve(&mut self, fact: &Segment, change: i64) {
        let size = signed(fact.span.size) * change;
        self.reserved_bytes.change(fact.place, size);
        if fact.place.pool.is_private() {
            let pools = &mut self.reserved_bytes_by_private_pools;
            pools.entry(fact.place.pool).or_default().change(fact.place, size);
        }
    }
}
