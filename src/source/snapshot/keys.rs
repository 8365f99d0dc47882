//! The words of a snapshot: every dict key that any release writes, and sets of them.

macro_rules! keys {
    ($($name:ident = $text:literal,)*) => {
        /// A dict key that some release writes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[expect(missing_docs, reason = "each is the key of its name")]
        pub enum Key { $($name,)* }

        impl Key {
            /// Every key, in the order of the enum.
            pub(super) const ALL: &[Self] = &[$(Self::$name,)*];

            /// The key as it stands in the file.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

keys! {
    Segments = "segments",
    DeviceTraces = "device_traces",
    AllocatorSettings = "allocator_settings",
    ExternalAnnotations = "external_annotations",
    HostSegments = "host_segments",
    HostTraces = "host_traces",
    Device = "device",
    Address = "address",
    TotalSize = "total_size",
    AllocatedSize = "allocated_size",
    ActiveSize = "active_size",
    RequestedSize = "requested_size",
    Stream = "stream",
    SegmentType = "segment_type",
    SegmentPoolId = "segment_pool_id",
    IsExpandable = "is_expandable",
    Frames = "frames",
    Blocks = "blocks",
    Size = "size",
    State = "state",
    History = "history",
    Addr = "addr",
    RealSize = "real_size",
    CppFrames = "cpp_frames",
    ForwardFrames = "forward_frames",
    Action = "action",
    DeviceFree = "device_free",
    TimeUs = "time_us",
    CompileContext = "compile_context",
    UserMetadata = "user_metadata",
    PoolId = "pool_id",
    InternalMetadata = "internal_metadata",
    Category = "category",
    Name = "name",
    Filename = "filename",
    Line = "line",
    Stage = "stage",
    Conf = "PYTORCH_CUDA_ALLOC_CONF",
    MaxSplitSize = "max_split_size",
    GarbageCollectionThreshold = "garbage_collection_threshold",
    ExpandableSegments = "expandable_segments",
    PinnedNumRegisterThreads = "pinned_num_register_threads",
    ReleaseLockOnCudamalloc = "release_lock_on_cudamalloc",
    PinnedUseCudaHostRegister = "pinned_use_cuda_host_register",
    RoundupPower2Divisions = "roundup_power2_divisions",
    GraphCaptureRecordStreamReuse = "graph_capture_record_stream_reuse",
    MaxRoundThreshold = "max_round_threshold",
    MaxCachedSize = "max_cached_size",
}

impl Key {
    /// The known key with string number `index`; strings are numbered so that known keys come
    /// first, in this order.
    #[inline]
    pub(super) fn of_string(index: usize) -> Option<Self> {
        Self::ALL.get(index).copied()
    }
}

/// A set of keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeySet(u64);

const _: () = assert!(Key::ALL.len() <= 64, "a key is a bit of a KeySet");

impl KeySet {
    /// The set of `keys`.
    pub fn of(keys: &[Key]) -> Self {
        let mut set = Self::default();
        for &key in keys {
            set.add(key);
        }
        set
    }

    /// Whether `key` is in the set.
    #[inline]
    pub const fn has(self, key: Key) -> bool {
        self.0 >> key as u8 & 1 == 1
    }

    /// Adds `key`.
    #[inline]
    pub const fn add(&mut self, key: Key) {
        self.0 |= 1 << key as u8;
    }

    /// The keys of either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The keys of the set.
    pub fn iter(self) -> impl Iterator<Item = Key> {
        Key::ALL.iter().copied().filter(move |&key| self.has(key))
    }
}
