//! The keys of the settings string as one table: what is known since when, and what it wants.
//!
//! Errors, suggestions and the reference page read it; the parsers look their keys up in it. The
//! releases are recorded facts (`traces/golden/parser`), not documentation.

use crate::base::Release;

/// What a key stands for. Two spellings may share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// `max_split_size_mb`
    MaxSplitSize,
    /// `max_non_split_rounding_mb`
    MaxNonSplitRounding,
    /// `large_segment_size_mb`
    LargeSegmentSize,
    /// `garbage_collection_threshold`
    GarbageCollectionThreshold,
    /// `roundup_power2_divisions`
    RoundupPower2Divisions,
    /// `expandable_segments`
    ExpandableSegments,
    /// `expandable_segments_reserve`
    ExpandableSegmentsReserve,
    /// `expandable_segments_reserve_by_class`
    ExpandableSegmentsReserveByClass,
    /// `backend`
    Backend,
    /// `release_lock_on_cudamalloc`, `release_lock_on_hipmalloc`
    ReleaseLockOnCudaMalloc,
    /// `graph_capture_record_stream_reuse`
    GraphCaptureRecordStreamReuse,
    /// `throw_on_cudamalloc_oom`
    ThrowOnCudaMallocOom,
    /// `per_process_memory_fraction`
    PerProcessMemoryFraction,
    /// `pinned_use_cuda_host_register`, `pinned_use_hip_host_register`
    PinnedUseCudaHostRegister,
    /// `pinned_num_register_threads`
    PinnedNumRegisterThreads,
    /// `pinned_use_background_threads`
    PinnedUseBackgroundThreads,
    /// `pinned_reserve_segment_size_mb`
    PinnedReserveSegmentSize,
    /// `pinned_free_catch_all`
    PinnedFreeCatchAll,
    /// `pinned_max_round_threshold_mb`
    PinnedMaxRoundThreshold,
    /// `pinned_max_cached_size_mb`
    PinnedMaxCachedSize,
}

/// The value that a key wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueKind {
    /// A whole number of MiB.
    Mebibytes,
    /// A whole number.
    Count,
    /// A number with a point.
    Fraction,
    /// `True` or `False`, spelled so.
    Bool,
    /// A power of two, or a list such as `[256:1,512:2,>:4]`.
    Divisions,
    /// `native` or `cudaMallocAsync`.
    Backend,
    /// A fraction of the device such as `0.5`, or GiB such as `40G`.
    Reserve,
    /// A list such as `[name:0.5,other:10G]`.
    ReserveList,
}

impl ValueKind {
    /// What to write after the colon.
    pub const fn wanted(self) -> &'static str {
        match self {
            Self::Mebibytes => "a whole number of MiB, such as 128",
            Self::Count => "a whole number, such as 8",
            Self::Fraction => "a number, such as 0.8",
            Self::Bool => "True or False",
            Self::Divisions => "a power of two such as 4, or a list such as [256:1,512:2,>:4]",
            Self::Backend => "native or cudaMallocAsync",
            Self::Reserve => "a fraction such as 0.5, or GiB such as 40G",
            Self::ReserveList => "a list such as [name:0.5,other:10G]",
        }
    }

    /// A value that every release accepts.
    pub(super) const fn example(self) -> &'static str {
        match self {
            Self::Mebibytes => "128",
            Self::Count => "8",
            Self::Fraction => "0.8",
            Self::Bool => "True",
            Self::Divisions => "4",
            Self::Backend => "native",
            Self::Reserve => "0.5",
            Self::ReserveList => "[name:0.5]",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct KeyInfo {
    /// As written in the string; case matters.
    pub name: &'static str,
    /// What it sets.
    pub key: Key,
    /// First release that knows it is 2.`first`; every later one does too.
    pub first: u8,
    /// What it wants.
    pub kind: ValueKind,
    /// From 2.10 on two parsers read the string: `true` if the one for all accelerators owns the key.
    pub shared: bool,
    /// What it does, in one line.
    pub help: &'static str,
}

impl KeyInfo {
    /// Whether `release` knows the key.
    pub const fn known_to(&self, release: Release) -> bool {
        release.at_least(self.first)
    }
}

const fn row(
    name: &'static str,
    key: Key,
    first: u8,
    kind: ValueKind,
    shared: bool,
    help: &'static str,
) -> KeyInfo {
    KeyInfo { name, key, first, kind, shared, help }
}

/// Every key of releases 2.1 to 2.15, those that shape the device allocator first.
#[rustfmt::skip]
pub const KEYS: &[KeyInfo] = {
    use Key as K;
    use ValueKind as V;
    &[
        row("max_split_size_mb", K::MaxSplitSize, 1, V::Mebibytes, true,
            "blocks of this size or more are never split"),
        row("max_non_split_rounding_mb", K::MaxNonSplitRounding, 6, V::Mebibytes, true,
            "how much larger than the request an unsplittable block may be"),
        row("large_segment_size_mb", K::LargeSegmentSize, 11, V::Mebibytes, true,
            "size of the segments that serve requests of 1 to 10 MiB (20 if not set)"),
        row("garbage_collection_threshold", K::GarbageCollectionThreshold, 1, V::Fraction, true,
            "releases old cached blocks above this share of the memory limit"),
        row("roundup_power2_divisions", K::RoundupPower2Divisions, 1, V::Divisions, true,
            "rounds sizes up to this many steps between powers of two"),
        row("expandable_segments", K::ExpandableSegments, 1, V::Bool, true,
            "segments that grow in place instead of many fixed ones"),
        row("expandable_segments_reserve", K::ExpandableSegmentsReserve, 15, V::Reserve, false,
            "address range reserved for each expandable segment"),
        row("expandable_segments_reserve_by_class", K::ExpandableSegmentsReserveByClass, 15, V::ReserveList, false,
            "the same, for streams of a class"),
        row("backend", K::Backend, 1, V::Backend, false,
            "which allocator is loaded; fixed when the process starts"),
        row("release_lock_on_cudamalloc", K::ReleaseLockOnCudaMalloc, 2, V::Bool, false,
            "lets other threads in while cudaMalloc runs"),
        row("release_lock_on_hipmalloc", K::ReleaseLockOnCudaMalloc, 2, V::Bool, false,
            "the same, as ROCm spells it"),
        row("graph_capture_record_stream_reuse", K::GraphCaptureRecordStreamReuse, 9, V::Bool, false,
            "reuses blocks freed on another stream during a graph capture"),
        row("throw_on_cudamalloc_oom", K::ThrowOnCudaMallocOom, 12, V::Bool, false,
            "refuses a request that cannot fit before asking the device"),
        row("per_process_memory_fraction", K::PerProcessMemoryFraction, 10, V::Fraction, false,
            "share of the device that the allocator may use; 1 is no limit"),
        row("pinned_use_cuda_host_register", K::PinnedUseCudaHostRegister, 2, V::Bool, false,
            "host memory: pins with cudaHostRegister"),
        row("pinned_use_hip_host_register", K::PinnedUseCudaHostRegister, 2, V::Bool, false,
            "the same, as ROCm spells it"),
        row("pinned_num_register_threads", K::PinnedNumRegisterThreads, 2, V::Count, false,
            "host memory: threads that pin, a power of two up to 128"),
        row("pinned_use_background_threads", K::PinnedUseBackgroundThreads, 6, V::Bool, true,
            "host memory: a thread that looks at events"),
        row("pinned_reserve_segment_size_mb", K::PinnedReserveSegmentSize, 10, V::Mebibytes, false,
            "host memory: segment pinned at the start"),
        row("pinned_free_catch_all", K::PinnedFreeCatchAll, 12, V::Bool, false,
            "host memory: frees pointers that it does not know"),
        row("pinned_max_round_threshold_mb", K::PinnedMaxRoundThreshold, 13, V::Mebibytes, true,
            "host memory: sizes above this are not rounded to powers of two"),
        row("pinned_max_cached_size_mb", K::PinnedMaxCachedSize, 13, V::Mebibytes, true,
            "host memory: blocks above this are not cached"),
    ]
};

/// Names that people meet and that no modelled release accepts.
pub(super) const STRANGERS: &[(&str, &str)] = &[
    (
        "roundup_bypass_threshold_mb",
        "only 1.13 knew it; roundup_power2_divisions:[64:4] rounds only sizes below 128 MiB",
    ),
    (
        "expandable_segments_handle_type",
        "a message of 2.15 names it, but no release accepts it; leave it out",
    ),
];

/// The row of a name, whatever the release.
pub fn find(name: &str) -> Option<&'static KeyInfo> {
    KEYS.iter().find(|row| row.name == name)
}

/// The row of a name that `release` knows.
pub fn lookup(name: &str, release: Release) -> Option<&'static KeyInfo> {
    find(name).filter(|row| row.known_to(release))
}
