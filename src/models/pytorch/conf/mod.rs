//! `PYTORCH_CUDA_ALLOC_CONF`: what each release makes of a settings string.
//!
//! ```text
//!  "max_split_size_mb:64,expandable_segments:True"
//!        │ tokens.rs (space vanishes; , : [ ] stand alone)
//!        ▼
//!  up to 2.9: legacy.rs, one parser that insists on its separators
//!  from 2.10: shared.rs, three passes that do not: which backend to load (at start, a mistake kills
//!             the process), the keys of all accelerators, the keys of CUDA
//!        ▼
//!  AllocConf, or a ConfError with PyTorch's own words and a cure
//! ```
//!
//! A parse changes the settings in force: it first puts some of them back to their defaults, then
//! takes item by item, and an error keeps what came before it. This module knows nothing of blocks.

mod advice;
mod env;
mod error;
mod keys;
mod legacy;
mod numbers;
mod print;
mod reserve;
mod shared;
mod suggest;
mod tokens;

use std::fmt;

use crate::base::{Bytes, Release};

pub use error::{ConfError, ConfErrorKind, Warning};
pub use keys::{KEYS, Key, KeyInfo, ValueKind, find, lookup};
pub use print::Unprintable;
pub use reserve::Reserve;

use tokens::Tokens;

/// The large segment size where nothing sets another: 20 MiB.
pub const DEFAULT_LARGE_SEGMENT_SIZE: Bytes = Bytes::mib(20);

/// The largest number of MiB that 64 bits of bytes hold; larger settings are cut to it.
const MAX_MIB: u64 = u64::MAX >> 20;

/// The allocator behind `torch.cuda`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Backend {
    /// PyTorch's caching allocator, the one that this package models.
    #[default]
    Native,
    /// CUDA's stream-ordered allocator.
    CudaMallocAsync,
}

impl Backend {
    /// The name in the settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::CudaMallocAsync => "cudaMallocAsync",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Native, Self::CudaMallocAsync].into_iter().find(|backend| backend.name() == name)
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// When a string is read. From 2.10 on the order of the parsers and some texts depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum When {
    /// From the environment, as the process starts.
    Startup,
    /// By `torch.cuda.memory._set_allocator_settings`.
    Runtime,
}

/// The settings in force.
///
/// "Reset" below: put back to the default by every parse, whatever the string holds. The others keep
/// their value until a string names them.
///
/// # Source
/// `c10/cuda/CUDAAllocatorConfig.{h,cpp}` (to 2.9 all of it), `c10/core/AllocatorConfig.{h,cpp}`
/// (from 2.10 the shared part).
#[derive(Clone, Debug, PartialEq)]
pub struct AllocConf {
    /// `backend`. Default native. Chosen at start-up; later strings may only repeat it.
    pub backend: Backend,
    /// `max_split_size_mb`, in bytes. Default [`Bytes::MAX`], unlimited; reset.
    pub max_split_size: Bytes,
    /// `max_non_split_rounding_mb`, in bytes. Default the large segment size. A constant to 2.5; kept
    /// by later strings in 2.6 to 2.10; from 2.11 reset to the large segment size in force.
    pub max_non_split_rounding_size: Bytes,
    /// `large_segment_size_mb`, in bytes. Default 20 MiB; a constant to 2.10.
    pub large_segment_size: Bytes,
    /// `garbage_collection_threshold`, share of the memory limit. Default 0, off; reset.
    pub garbage_collection_threshold: f64,
    /// `roundup_power2_divisions`: entry `k` is for sizes from 2^(20+k) bytes, the first for all
    /// smaller ones too, the last for all larger ones. Default 0, off; reset.
    pub roundup_power2_divisions: [u64; 16],
    /// `expandable_segments`. Default off.
    pub expandable_segments: bool,
    /// `expandable_segments_reserve`. Default none: 9/8 of the device. From 2.15.
    pub expandable_segments_reserve: Option<Reserve>,
    /// `expandable_segments_reserve_by_class`, in the order of the string. Default empty. From 2.15.
    pub expandable_segments_reserve_by_class: Vec<(String, Reserve)>,
    /// `release_lock_on_cudamalloc`. Default off. From 2.2.
    pub release_lock_on_cudamalloc: bool,
    /// `graph_capture_record_stream_reuse`. Default off. From 2.9.
    pub graph_capture_record_stream_reuse: bool,
    /// `throw_on_cudamalloc_oom`. Default off. From 2.12.
    pub throw_on_cudamalloc_oom: bool,
    /// `per_process_memory_fraction`, 0 to 1. Default 1, no limit. From 2.10; read when the
    /// allocator of a device is made.
    pub per_process_memory_fraction: f64,
    /// `pinned_use_cuda_host_register`. Default off. From 2.2; host allocator only.
    pub pinned_use_cuda_host_register: bool,
    /// `pinned_num_register_threads`, a power of two to 128. Default 1. From 2.2; host only.
    pub pinned_num_register_threads: u64,
    /// `pinned_use_background_threads`. Default off. From 2.6; host only.
    pub pinned_use_background_threads: bool,
    /// `pinned_reserve_segment_size_mb`, in MiB. Default 0, none. From 2.10; host only.
    pub pinned_reserve_segment_size_mb: u64,
    /// `pinned_free_catch_all`. Default off. From 2.12; host only.
    pub pinned_free_catch_all: bool,
    /// `pinned_max_round_threshold_mb`, in bytes. Default [`Bytes::MAX`]. From 2.13; host only.
    pub pinned_max_round_threshold: Bytes,
    /// `pinned_max_cached_size_mb`, in bytes. Default [`Bytes::MAX`]. From 2.13; host only.
    pub pinned_max_cached_size: Bytes,
    /// The last string that was parsed, well or not: what snapshots report. From 2.3.
    pub last_settings: String,
}

impl AllocConf {
    /// The settings of a process without any string. They are the same in every release; which of
    /// them a release can change is in [`KEYS`].
    pub fn new(_release: Release) -> Self {
        Self {
            backend: Backend::Native,
            max_split_size: Bytes::MAX,
            max_non_split_rounding_size: DEFAULT_LARGE_SEGMENT_SIZE,
            large_segment_size: DEFAULT_LARGE_SEGMENT_SIZE,
            garbage_collection_threshold: 0.0,
            roundup_power2_divisions: [0; 16],
            expandable_segments: false,
            expandable_segments_reserve: None,
            expandable_segments_reserve_by_class: Vec::new(),
            release_lock_on_cudamalloc: false,
            graph_capture_record_stream_reuse: false,
            throw_on_cudamalloc_oom: false,
            per_process_memory_fraction: 1.0,
            pinned_use_cuda_host_register: false,
            pinned_num_register_threads: 1,
            pinned_use_background_threads: false,
            pinned_reserve_segment_size_mb: 0,
            pinned_free_catch_all: false,
            pinned_max_round_threshold: Bytes::MAX,
            pinned_max_cached_size: Bytes::MAX,
            last_settings: String::new(),
        }
    }

    /// Settings of a fresh process of `release` started with this string.
    ///
    /// # Errors
    /// When that release refuses the string.
    ///
    /// # Examples
    /// ```
    /// use fragsim::{base::{Bytes, Release}, models::pytorch::conf::AllocConf};
    /// let (conf, warnings) = AllocConf::from_string(Release::NEWEST, "max_split_size_mb:64")?;
    /// assert_eq!(conf.max_split_size, Bytes::mib(64));
    /// assert!(warnings.is_empty());
    /// # Ok::<(), fragsim::models::pytorch::conf::ConfError>(())
    /// ```
    pub fn from_string(release: Release, text: &str) -> Result<(Self, Vec<Warning>), ConfError> {
        let mut conf = Self::new(release);
        let warnings = conf.parse(release, text, When::Startup)?;
        Ok((conf, warnings))
    }

    /// Reads a string as `release` does, over the settings in force.
    ///
    /// At start-up the backend that the string names is taken as loaded. (With cudaMallocAsync the
    /// real process reads the rest of the string only when something asks for a setting; here it is
    /// read at once.)
    ///
    /// # Errors
    /// When the release refuses the string. As in PyTorch the settings before the error are in force
    /// then, and so are the resets.
    ///
    /// # Complexity
    /// Linear in the length of the string.
    pub fn parse(
        &mut self,
        release: Release,
        text: &str,
        when: When,
    ) -> Result<Vec<Warning>, ConfError> {
        let tokens = Tokens::new(text, release);
        let mut warnings = Vec::new();
        let outcome = match (release.at_least(10), when) {
            (true, When::Startup) => shared::load_backend(self, release, &tokens)
                .and_then(|()| shared::parse_cuda(self, release, &tokens, &mut warnings))
                .and_then(|()| shared::parse_common(self, release, &tokens, text, &mut warnings)),
            (true, When::Runtime) => {
                shared::parse_common(self, release, &tokens, text, &mut warnings)
                    .and_then(|()| shared::parse_cuda(self, release, &tokens, &mut warnings))
            }
            (false, _) => {
                if when == When::Startup {
                    legacy::load_backend(self, text);
                }
                legacy::parse(self, release, &tokens, text, &mut warnings)
            }
        };
        match outcome {
            Ok(()) => Ok(warnings),
            Err(fault) => Err(fault.into_error(&tokens, text, release)),
        }
    }

    /// What every parse does before it looks at the string.
    fn reset(&mut self, text: &str) {
        self.max_split_size = Bytes::MAX;
        self.roundup_power2_divisions = [0; 16];
        self.garbage_collection_threshold = 0.0;
        text.clone_into(&mut self.last_settings);
    }

    /// Enters one pair of a list of divisions: `first` fills the smaller sizes too.
    fn set_divisions_from(&mut self, boundary_mib: u64, value: u64, first: bool) -> usize {
        let index = (boundary_mib.max(1).ilog2() as usize).min(15);
        if first {
            self.roundup_power2_divisions[..index].fill(value);
        }
        self.roundup_power2_divisions[index] = value;
        index
    }
}

/// Megabytes of a setting in bytes, cut to what 64 bits hold.
fn mib(count: u64) -> Bytes {
    Bytes::mib(count.min(MAX_MIB))
}

/// The warning of a string that names cudaMallocAsync and settings that it has no use for.
fn async_ignores() -> Warning {
    Warning {
        text: "backend:cudaMallocAsync ignores max_split_size_mb,roundup_power2_divisions, and \
               garbage_collect_threshold."
            .to_owned(),
        function: "parseArgs",
        once: false,
    }
}
