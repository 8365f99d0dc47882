//! The parsers of 2.10 and later: one for the keys of all accelerators, one for CUDA's own.
//!
//! Each walks the whole string and steps over the other's keys. Separators are looked at but not
//! insisted on (`max_split_size_mb,64` is fine); only the end of the string stops a step. At run time
//! that is an error like any other, at start-up it happens while the library is loaded and kills the
//! process.

use crate::base::{Bytes, Release};

use super::{
    AllocConf, Backend, Warning, async_ignores,
    error::{Cause, Fault},
    keys::{Key, KeyInfo, lookup},
    legacy::{INTERVALS, UNKNOWN_BACKEND},
    mib, numbers,
    reserve::Reserve,
    tokens::Tokens,
};

/// Chooses the backend as the library is loaded; what fails here kills the process.
pub(super) fn load_backend(
    conf: &mut AllocConf,
    release: Release,
    tokens: &Tokens,
) -> Result<(), Fault> {
    let walk = Walk { release, tokens };
    let mut i = 0;
    while i < tokens.len() {
        if tokens.is(i, "backend") {
            walk.index(i + 1).map_err(Fault::aborting)?;
            i += 2;
            let value = walk.subscript(i).map_err(Fault::aborting)?;
            if let Some(backend) = Backend::from_name(value) {
                conf.backend = backend;
                return Ok(());
            }
        } else {
            i = walk.skip_key(i).map_err(Fault::aborting)?;
        }
        i = walk.after_item(i);
    }
    Ok(())
}

/// The parser for all accelerators. It resets, and reads the large segment size ahead of the rest.
pub(super) fn parse_common(
    conf: &mut AllocConf,
    release: Release,
    tokens: &Tokens,
    text: &str,
    warnings: &mut Vec<Warning>,
) -> Result<(), Fault> {
    let walk = Walk { release, tokens };
    conf.reset(text);
    if release.at_least(11) {
        for i in (0..tokens.len()).filter(|i| tokens.is(*i, "large_segment_size_mb")) {
            conf.large_segment_size = walk.large_segment_size(i)?;
        }
        conf.max_non_split_rounding_size = conf.large_segment_size;
    }
    let (mut round, mut cached) = (None, None);
    let mut i = 0;
    while i < tokens.len() {
        let row = walk.row(i, "Accelerator")?;
        let at = i + 2;
        i = match row.key {
            _ if !row.shared => walk.skip_key(i)?,
            Key::LargeSegmentSize => walk.skip_key(i)?,
            Key::RoundupPower2Divisions => walk.divisions(conf, i)?,
            key => {
                walk.index(i + 1)?;
                match key {
                    Key::MaxSplitSize => {
                        conf.max_split_size = walk.at_least_large(conf, row, at)?;
                    }
                    Key::MaxNonSplitRounding => {
                        conf.max_non_split_rounding_size = walk.at_least_large(conf, row, at)?;
                    }
                    Key::GarbageCollectionThreshold => {
                        let value = walk.stod(at)?;
                        if !(value > 0.0 && value < 1.0) {
                            let text = "garbage_collect_threshold is invalid, set it in (0.0, 1.0)";
                            return Err(Fault::new(Cause::Range, at, text));
                        }
                        conf.garbage_collection_threshold = value;
                    }
                    Key::ExpandableSegments => conf.expandable_segments = walk.bool(at)?,
                    Key::PinnedUseBackgroundThreads => {
                        conf.pinned_use_background_threads = walk.bool(at)?;
                    }
                    Key::PinnedMaxRoundThreshold => {
                        conf.pinned_max_round_threshold = mib(walk.stoull(at)?);
                        round = Some(conf.pinned_max_round_threshold);
                    }
                    Key::PinnedMaxCachedSize => {
                        conf.pinned_max_cached_size = mib(walk.stoull(at)?);
                        cached = Some(conf.pinned_max_cached_size);
                    }
                    _ => unreachable!("every shared key has its arm"),
                }
                at
            }
        };
        i = walk.after_item(i);
    }
    if let (Some(round), Some(cached)) = (round, cached) {
        warnings.extend(round_above_cached(round, cached));
    }
    Ok(())
}

/// The parser for CUDA's own keys.
pub(super) fn parse_cuda(
    conf: &mut AllocConf,
    release: Release,
    tokens: &Tokens,
    warnings: &mut Vec<Warning>,
) -> Result<(), Fault> {
    let walk = Walk { release, tokens };
    let (mut names_async, mut options) = (false, false);
    let mut i = 0;
    while i < tokens.len() {
        let row = walk.row(i, "CUDA")?;
        let at = i + 2;
        i = if row.shared {
            walk.skip_key(i)?
        } else if row.key == Key::ExpandableSegmentsReserveByClass {
            options = true;
            walk.reserve_list(conf, i, warnings)?
        } else {
            options |= row.key != Key::Backend;
            walk.index(i + 1)?;
            match row.key {
                Key::Backend => names_async = walk.backend(conf, at)? == Backend::CudaMallocAsync,
                Key::ReleaseLockOnCudaMalloc => conf.release_lock_on_cudamalloc = walk.bool(at)?,
                Key::PinnedUseCudaHostRegister => {
                    conf.pinned_use_cuda_host_register = walk.bool(at)?;
                }
                Key::GraphCaptureRecordStreamReuse => {
                    conf.graph_capture_record_stream_reuse = walk.bool(at)?;
                }
                Key::ThrowOnCudaMallocOom => conf.throw_on_cudamalloc_oom = walk.bool(at)?,
                Key::PinnedFreeCatchAll => conf.pinned_free_catch_all = walk.bool(at)?,
                Key::PerProcessMemoryFraction => {
                    let value = walk.stod(at)?;
                    if !(0.0..=1.0).contains(&value) {
                        let text = "per_process_memory_fraction is invalid, set it in [0.0, 1.0]";
                        return Err(Fault::new(Cause::Range, at, text));
                    }
                    conf.per_process_memory_fraction = value;
                }
                Key::PinnedNumRegisterThreads => {
                    conf.pinned_num_register_threads = walk.register_threads(at)?;
                }
                Key::PinnedReserveSegmentSize => {
                    let count = walk.stoull(at)?;
                    if count == 0 {
                        let text = "Pinned reserve segment size has to be greater than 0";
                        return Err(Fault::new(Cause::Range, at, text));
                    }
                    conf.pinned_reserve_segment_size_mb = count;
                }
                Key::ExpandableSegmentsReserve => {
                    if let Some(reserve) = walk.reserve(at, warnings)? {
                        conf.expandable_segments_reserve = Some(reserve);
                    }
                }
                _ => unreachable!("every key of CUDA has its arm"),
            }
            at
        };
        i = walk.after_item(i);
    }
    if names_async && options {
        warnings.push(async_ignores());
    }
    Ok(())
}

fn round_above_cached(round: Bytes, cached: Bytes) -> Option<Warning> {
    (round > cached).then(|| Warning {
        text: format!(
            "pinned_max_round_threshold_mb ({}) > pinned_max_cached_size_mb ({}). The cache size \
             limit takes precedence: allocations above pinned_max_cached_size_mb are never rounded \
             up.",
            round.0 >> 20,
            cached.0 >> 20
        ),
        function: "operator()",
        once: true,
    })
}

/// Steps over tokens, with the errors of `ConfigTokenizer`.
#[derive(Clone, Copy)]
struct Walk<'a> {
    release: Release,
    tokens: &'a Tokens,
}

impl<'a> Walk<'a> {
    /// The row of the key at token `i`.
    fn row(self, i: usize, parser: &str) -> Result<&'static KeyInfo, Fault> {
        let name = self.tokens.get(i).unwrap_or_default();
        lookup(name, self.release).ok_or_else(|| {
            let text = format!("Unrecognized key '{name}' in {parser} allocator config.");
            Fault::new(Cause::UnknownKey, i, text)
        })
    }

    /// Past item `i` and whatever token follows it, comma or not.
    fn after_item(self, i: usize) -> usize {
        if i + 1 < self.tokens.len() { i + 2 } else { i + 1 }
    }

    /// Token `i`, by the check that most steps use.
    fn index(self, i: usize) -> Result<&'a str, Fault> {
        self.tokens.get(i).ok_or_else(|| self.overrun(i, lines(self.release).check))
    }

    /// Token `i`, by `operator[]`: the same words, another source line.
    fn subscript(self, i: usize) -> Result<&'a str, Fault> {
        self.tokens.get(i).ok_or_else(|| self.overrun(i, lines(self.release).subscript))
    }

    fn overrun(self, i: usize, line: u32) -> Fault {
        let text = format!(
            "i < config_.size() INTERNAL ASSERT FAILED at \"{}c10/core/AllocatorConfig.h\":{line}, \
             please report a bug to PyTorch. Index out of bounds in ConfigTokenizer",
            root(self.release)
        );
        Fault::new(Cause::Separator, i, text)
    }

    /// The last token of an item whose key is token `i`: its value or the `]` of its list.
    fn skip_key(self, i: usize) -> Result<usize, Fault> {
        self.index(i + 1)?;
        let value = i + 2;
        if self.index(value)? != "[" {
            return Ok(value);
        }
        let end = (value + 1..self.tokens.len()).find(|at| self.tokens.is(*at, "]"));
        end.ok_or_else(|| {
            let place = format!("AllocatorConfig.h\":{}", lines(self.release).skip);
            self.open_list("config_", &place)
        })
    }

    fn open_list(self, list: &str, place: &str) -> Fault {
        let text = format!(
            "i < {list}.size() INTERNAL ASSERT FAILED at \"{}c10/core/{place}, please report a bug \
             to PyTorch. Expected closing bracket ']' in ConfigTokenizer but reached end of config",
            root(self.release)
        );
        Fault::new(Cause::OpenList, self.tokens.len(), text)
    }

    fn stoull(self, i: usize) -> Result<u64, Fault> {
        let value = numbers::stoull(self.index(i)?);
        value.ok_or_else(|| Fault::new(Cause::Value, i, "stoull"))
    }

    fn stod(self, i: usize) -> Result<f64, Fault> {
        let value = numbers::stod(self.index(i)?);
        value.ok_or_else(|| Fault::new(Cause::Value, i, "stod"))
    }

    fn bool(self, i: usize) -> Result<bool, Fault> {
        match self.index(i)? {
            "True" => Ok(true),
            "False" => Ok(false),
            other => {
                let text = format!(
                    "Expected 'True' or 'False' at index {i} in ConfigTokenizer but got '{other}'"
                );
                Err(Fault::new(Cause::Value, i, text))
            }
        }
    }

    fn large_segment_size(self, i: usize) -> Result<Bytes, Fault> {
        self.index(i + 1)?;
        let count = self.stoull(i + 2)?;
        if count <= 10 {
            let text = "CachingAllocator option large_segment_size_mb must be > 10 MB";
            return Err(Fault::new(Cause::Range, i + 2, text));
        }
        Ok(mib(count))
    }

    fn at_least_large(self, conf: &AllocConf, row: &KeyInfo, at: usize) -> Result<Bytes, Fault> {
        let (count, least) = (self.stoull(at)?, conf.large_segment_size.0 >> 20);
        if count < least {
            let name = row.name;
            let text = format!("CachingAllocator option {name} too small, must be >= {least}");
            return Err(Fault::new(Cause::Range, at, text));
        }
        Ok(mib(count))
    }

    fn backend(self, conf: &AllocConf, at: usize) -> Result<Backend, Fault> {
        let Some(backend) = Backend::from_name(self.subscript(at)?) else {
            return Err(Fault::new(Cause::Value, at, UNKNOWN_BACKEND));
        };
        if backend != conf.backend {
            let text = format!(
                "tokenizer[i] == get()->name() INTERNAL ASSERT FAILED at \
                 \"{}c10/cuda/CUDAAllocatorConfig.cpp\":{}, please report a bug to PyTorch. \
                 Allocator backend parsed at runtime != allocator backend parsed at load time, \
                 {backend} != {}",
                root(self.release),
                lines(self.release).backend,
                conf.backend
            );
            return Err(Fault::new(Cause::Backend, at, text));
        }
        Ok(backend)
    }

    fn register_threads(self, at: usize) -> Result<u64, Fault> {
        let count = self.stoull(at)?;
        let rule = match count {
            _ if !count.is_power_of_two() => "has to be power of 2",
            129.. => "should be less than or equal to 128",
            _ => return Ok(count),
        };
        let text = format!("Number of register threads {rule}, got {count}");
        Err(Fault::new(Cause::Range, at, text))
    }

    fn divisions(self, conf: &mut AllocConf, i: usize) -> Result<usize, Fault> {
        self.index(i + 1)?;
        let at = i + 2;
        if self.subscript(at)? == "[" {
            return self.division_list(conf, at);
        }
        let value = self.stoull(at)?;
        if !value.is_power_of_two() {
            let text = "For roundups, the divisions has to be power of 2 ";
            return Err(Fault::new(Cause::Range, at, text));
        }
        conf.roundup_power2_divisions = [value; 16];
        Ok(at)
    }

    /// The pairs of a list whose `[` is token `i`; the answer is its `]`.
    fn division_list(self, conf: &mut AllocConf, mut i: usize) -> Result<usize, Fault> {
        let (mut first, mut last_index) = (true, 0);
        loop {
            i += 1;
            if i >= self.tokens.len() {
                let place = format!("AllocatorConfig.cpp\":{}", lines(self.release).divisions);
                return Err(self.open_list("tokenizer", &place));
            }
            if self.tokens.is(i, "]") {
                return Ok(i);
            }
            let boundary = i;
            self.index(i + 1)?;
            i += 2;
            let value = self.stoull(i)?;
            if value != 0 && !value.is_power_of_two() {
                let text =
                    "For roundups, the divisions has to be power of 2 or 0 to disable roundup ";
                return Err(Fault::new(Cause::Range, i, text));
            }
            if self.tokens.is(boundary, ">") {
                conf.roundup_power2_divisions[last_index + 1..].fill(value);
            } else {
                let size = self.stoull(boundary)?;
                if !size.is_power_of_two() {
                    return Err(Fault::new(Cause::Range, boundary, INTERVALS));
                }
                last_index = conf.set_divisions_from(size, value, first);
                first = false;
            }
            if self.subscript(i + 1)? != "]" {
                i += 1;
            }
        }
    }

    /// One reserve; `None` with a warning if it is not one.
    fn reserve(self, at: usize, warnings: &mut Vec<Warning>) -> Result<Option<Reserve>, Fault> {
        let token = self.subscript(at)?;
        let reserve = Reserve::read(token);
        if reserve.is_none() {
            warnings.push(Warning {
                text: format!(
                    "Ignoring invalid expandable-segment reserve value '{token}' in \
                     PYTORCH_CUDA_ALLOC_CONF (expected a positive, finite fraction like 0.5 or an \
                     absolute size like 40G); using default."
                ),
                function: "parseReserveSpec",
                once: false,
            });
        }
        Ok(reserve)
    }

    /// The classes after the key at token `i`; they replace all earlier ones. The answer is the `]`.
    fn reserve_list(
        self,
        conf: &mut AllocConf,
        i: usize,
        warnings: &mut Vec<Warning>,
    ) -> Result<usize, Fault> {
        let mut classes: Vec<(String, Reserve)> = Vec::new();
        self.index(i + 1)?;
        self.index(i + 2)?;
        let mut i = i + 3;
        while self.index(i)? != "]" {
            let name = self.subscript(i)?;
            self.index(i + 1)?;
            if let Some(reserve) = self.reserve(i + 2, warnings)? {
                match classes.iter_mut().find(|(class, _)| class == name) {
                    Some((_, old)) => *old = reserve,
                    None => classes.push((name.to_owned(), reserve)),
                }
            }
            i += 3;
            if self.index(i)? == "," {
                i += 1;
            }
        }
        conf.expandable_segments_reserve_by_class = classes;
        Ok(i)
    }
}

/// Where the wheels were built, as their messages show it.
fn root(release: Release) -> &'static str {
    if release.at_least(13) { "/__w/pytorch/pytorch/" } else { "/pytorch/" }
}

/// Source lines that the messages of a release name.
struct Lines {
    /// `ConfigTokenizer::operator[]`
    subscript: u32,
    /// `ConfigTokenizer::checkIndex`
    check: u32,
    /// `ConfigTokenizer::skipKey`
    skip: u32,
    /// The end of `parseRoundUpPower2Divisions`
    divisions: u32,
    /// `parseAllocatorConfig`
    backend: u32,
}

#[rustfmt::skip]
fn lines(release: Release) -> Lines {
    match release.minor() {
        ..=10   => Lines { subscript: 57, check: 126, skip: 117, divisions: 162, backend: 44 },
        11 | 12 => Lines { subscript: 55, check: 124, skip: 115, divisions: 185, backend: 44 },
        13 | 14 => Lines { subscript: 55, check: 124, skip: 115, divisions: 211, backend: 44 },
        _       => Lines { subscript: 54, check: 123, skip: 114, divisions: 213, backend: 64 },
    }
}
