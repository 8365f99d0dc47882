//! [`Rules`]: what differs between the releases. The only file of the model that asks for a version.
//!
//! ```text
//!                     2.1  2.2  2.3  2.4  2.5  2.6  2.7  2.8  2.9  2.10 2.11 2.12 2.13 2.14 2.15
//! ties                address ───────────────────────────────────────── block  segment ─────────
//! divisions of 1      unrounded ─── 512 ────────────────────────────────────────────────────────
//! routing             one stream filter, first begun wins ───────── last begun wins ────────────
//! guarded empty_cache assertion ──────────────────────── nothing of the default pool  works ────
//! uses in captures    waited for ──── dropped ──────────────────────────────────────────────────
//! guard               pools begun ─────────────────────────────────────────────  real capture ──
//! private pools       cudaMalloc ──────── expandable too ───────────────────────────────────────
//! expandable in GC    assertion ───────── skipped ──────────────────────────────────────────────
//! use_on_oom          —                                  last resort ── after the first failure
//! fraction 1.0        a limit ─────────────────────────────────── no limit ─────────────────────
//! too small segment   kept ──────────────────────────────────────────────────────────── undone
//! ```
//! Source of every row: `c10/cuda/CUDACachingAllocator.cpp` of the release, as observed on its real
//! library; the recordings in `traces/golden` show each one.

use super::rounding::DivisionOne;
use crate::base::Release;

/// Which of several equal free blocks is taken: the key after (stream, size).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TieBreak {
    /// The lower address.
    Address,
    /// The block object that was created first.
    BlockAge,
    /// The segment that was created first, then the lower address.
    SegmentAge,
}

/// How requests find their private pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// One pool a stream; a second one on the same stream fails an assertion.
    OneStream,
    /// Filters; the pool that was begun first is asked first.
    FirstBegun,
    /// Filters; the pool that was begun last is asked first.
    LastBegun,
}

/// When frees across streams are deferred and nothing is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureGuard {
    /// While any pool is begun.
    PoolBegun,
    /// While a capture is under way and the current stream is part of it.
    RealCapture,
}

/// What `empty_cache` does while the guard is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardedEmptyCache {
    /// Fails an assertion, named here as the release names it.
    Assertion(&'static str),
    /// Leaves the default pool alone.
    Quiet,
}

/// When a pool marked `use_on_oom` is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MempoolFallback {
    /// Not known yet.
    Never,
    /// After everything else has failed.
    LastResort,
    /// After the first failed attempt to get device memory.
    Early,
}

/// The switches of one release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The release.
    pub release: Release,
    /// Which of several equal free blocks is taken.
    pub ties: TieBreak,
    /// What a division value of 1 does in `roundup_power2_divisions`.
    pub division_one: DivisionOne,
    /// How requests find their private pool.
    pub routing: Routing,
    /// When the guard is up.
    pub guard: CaptureGuard,
    /// Whether uses of a block that were noted while a pool was begun are dropped when its deferred
    /// free is worked off.
    pub drops_uses_in_captures: bool,
    /// What `empty_cache` does then.
    pub guarded_empty_cache: GuardedEmptyCache,
    /// Whether private pools are expandable when the option is on.
    pub expandable_private_pools: bool,
    /// Whether the release forgets that expandable blocks cannot be given to `cudaFree`: garbage
    /// collection and `release_available_cached_blocks` fail an assertion on them.
    pub asserts_on_expandable_release: bool,
    /// When a pool marked `use_on_oom` is tried.
    pub mempool_fallback: MempoolFallback,
    /// Whether a memory fraction of 1.0 is no limit at all.
    pub full_fraction_is_no_limit: bool,
    /// Whether `expandable_segments` counts for a request as it was when the request began, and not
    /// at all for one that the fallback serves.
    pub expandable_per_request: bool,
    /// Whether `cudaFree` is written into the history before it is called, and so also when it fails.
    pub records_before_cuda_free: bool,
    /// Whether a new expandable segment smaller than the request is given back at once.
    pub undoes_small_segments: bool,
    /// Whether `graph_capture_record_stream_reuse` insists that the stream is being captured.
    pub reuse_needs_capture: bool,
    /// Whether events name the pool.
    pub events_name_pools: bool,
    /// Whether the statistics count synchronisations and device calls.
    pub counts_device_calls: bool,
    /// Whether the statistics count preemptive rejections.
    pub counts_rejections: bool,
    /// Whether the statistics keep reserved bytes by private pool.
    pub counts_private_pools: bool,
    /// Whether a fraction out of range fails an internal assertion instead of a plain check.
    pub fraction_asserts: bool,
}

impl Rules {
    /// The rules of a release.
    pub const fn of(release: Release) -> Self {
        Self {
            release,
            ties: match release.minor() {
                ..=11 => TieBreak::Address,
                12 => TieBreak::BlockAge,
                _ => TieBreak::SegmentAge,
            },
            division_one: DivisionOne::of(release),
            routing: match release.minor() {
                ..=2 => Routing::OneStream,
                3..=9 => Routing::FirstBegun,
                _ => Routing::LastBegun,
            },
            guard: match release.minor() {
                ..=12 => CaptureGuard::PoolBegun,
                _ => CaptureGuard::RealCapture,
            },
            drops_uses_in_captures: release.at_least(4),
            guarded_empty_cache: match release.minor() {
                ..=2 => GuardedEmptyCache::Assertion("captures_underway == 0"),
                3 => GuardedEmptyCache::Assertion("captures_underway.size() == 0"),
                4..=7 => GuardedEmptyCache::Assertion("captures_underway.empty()"),
                _ => GuardedEmptyCache::Quiet,
            },
            expandable_private_pools: release.at_least(5),
            asserts_on_expandable_release: !release.at_least(5),
            mempool_fallback: match release.minor() {
                ..=7 => MempoolFallback::Never,
                8..=10 => MempoolFallback::LastResort,
                _ => MempoolFallback::Early,
            },
            full_fraction_is_no_limit: release.at_least(10),
            expandable_per_request: release.at_least(10),
            records_before_cuda_free: release.at_least(4),
            undoes_small_segments: release.at_least(15),
            reuse_needs_capture: release.minor() == 9,
            events_name_pools: release.at_least(8),
            counts_device_calls: release.at_least(3),
            counts_rejections: release.at_least(12),
            counts_private_pools: release.at_least(13),
            fraction_asserts: !release.at_least(8),
        }
    }
}

impl Rules {
    /// The text of a failed CUDA call, such as `out of memory` (`cudaErrorMemoryAllocation`).
    ///
    /// # Source
    /// `c10/cuda/CUDAMiscFunctions.cpp` and `CUDAException.cpp` of the release.
    pub fn cuda_error(&self, description: &str, name: &str) -> String {
        let minor = self.release.minor();
        let mut text = format!("CUDA error: {description}\n");
        if minor >= 9 {
            text += &format!(
                "Search for `{name}' in https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html for more information.\n"
            );
        }
        if minor == 13 {
            text += "For more detailed error information, run with CUDA_LOG_FILE=stderr\n";
        }
        if minor <= 12 {
            text += "CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.\n";
            text += "For debugging consider passing CUDA_LAUNCH_BLOCKING=1";
            text += if minor <= 3 { ".\n" } else { "\n" };
            text += "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n";
        }
        text
    }
}
