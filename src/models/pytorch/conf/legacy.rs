//! The parser of 2.1 to 2.9: one pass, strict about separators.

use crate::base::{Bytes, Release};

use super::{
    AllocConf, Backend, MAX_MIB, Warning, async_ignores,
    error::{Cause, Fault},
    keys::{Key, lookup},
    mib, numbers,
    tokens::{Tokens, is_c_space},
};

/// Chooses the backend as the library is loaded, by a rougher reading than the parser's: items end at
/// commas and white space, colons in a row count as one, the first known name wins.
pub(super) fn load_backend(conf: &mut AllocConf, text: &str) {
    for item in text.split(|c| c == ',' || is_c_space(c)) {
        let Some((key, value)) = item.split_once(':') else { continue };
        let value = value.trim_start_matches(':').split(':').next().unwrap_or(value);
        if let ("backend", Some(backend)) = (key, Backend::from_name(value)) {
            conf.backend = backend;
            return;
        }
    }
}

/// Reads the string over the settings in force.
pub(super) fn parse(
    conf: &mut AllocConf,
    release: Release,
    tokens: &Tokens,
    text: &str,
    warnings: &mut Vec<Warning>,
) -> Result<(), Fault> {
    conf.reset(text);
    let mut parser = Parser { conf, release, tokens, names_async: false, native_options: false };
    let mut i = 0;
    while i < tokens.len() {
        i = parser.item(i)? + 1;
        if i < tokens.len() {
            parser.consume(i, ",")?;
            i += 1;
        }
    }
    if parser.names_async && parser.native_options {
        warnings.push(async_ignores());
    }
    Ok(())
}

struct Parser<'a> {
    conf: &'a mut AllocConf,
    release: Release,
    tokens: &'a Tokens,
    names_async: bool,
    native_options: bool,
}

impl Parser<'_> {
    /// One `key:value` from token `i`; the answer is its last token.
    fn item(&mut self, i: usize) -> Result<usize, Fault> {
        let name = self.tokens.get(i).unwrap_or_default();
        let Some(row) = lookup(name, self.release) else {
            let text = format!("Unrecognized CachingAllocator option: {name}");
            return Err(Fault::new(Cause::UnknownKey, i, text));
        };
        self.native_options |= row.key != Key::Backend;
        self.consume(i + 1, ":")?;
        let at = i + 2;
        let missing = |text: String| Fault::new(Cause::Separator, at, text);
        let Some(value) = self.tokens.get(at) else {
            return Err(missing(match row.key {
                Key::ExpandableSegments => bool_text(name),
                Key::ReleaseLockOnCudaMalloc => bool_text("release_lock_on_cudamalloc"),
                Key::Backend => "Error parsing backend value".to_owned(),
                Key::PinnedUseCudaHostRegister => {
                    "Error, expecting pinned_use_cuda_host_register value".to_owned()
                }
                _ => format!("Error, expecting {name} value"),
            }));
        };
        match row.key {
            Key::MaxSplitSize => self.conf.max_split_size = self.more_than_20(name, at)?,
            Key::MaxNonSplitRounding => {
                self.conf.max_non_split_rounding_size = self.more_than_20(name, at)?;
            }
            Key::GarbageCollectionThreshold => self.threshold(at)?,
            Key::RoundupPower2Divisions => return self.divisions(at),
            Key::Backend => self.backend(at)?,
            Key::ExpandableSegments => self.conf.expandable_segments = bool_of(name, value, at)?,
            Key::ReleaseLockOnCudaMalloc => {
                let name = "release_lock_on_cudamalloc";
                self.conf.release_lock_on_cudamalloc = bool_of(name, value, at)?;
            }
            Key::PinnedUseCudaHostRegister => {
                let name = "pinned_use_cuda_host_register";
                self.conf.pinned_use_cuda_host_register = bool_of(name, value, at)?;
            }
            Key::PinnedNumRegisterThreads => self.register_threads(at)?,
            Key::PinnedUseBackgroundThreads => {
                self.conf.pinned_use_background_threads = bool_of(name, value, at)?;
            }
            Key::GraphCaptureRecordStreamReuse => {
                self.conf.graph_capture_record_stream_reuse = bool_of(name, value, at)?;
            }
            Key::LargeSegmentSize
            | Key::ExpandableSegmentsReserve
            | Key::ExpandableSegmentsReserveByClass
            | Key::ThrowOnCudaMallocOom
            | Key::PerProcessMemoryFraction
            | Key::PinnedReserveSegmentSize
            | Key::PinnedFreeCatchAll
            | Key::PinnedMaxRoundThreshold
            | Key::PinnedMaxCachedSize => unreachable!("keys of 2.10 and later are unknown here"),
        }
        Ok(at)
    }

    fn consume(&self, i: usize, separator: &str) -> Result<(), Fault> {
        if self.tokens.is(i, separator) {
            return Ok(());
        }
        let text = format!("Error parsing CachingAllocator settings, expected {separator}");
        Err(Fault::new(Cause::Separator, i, text))
    }

    fn stoi(&self, i: usize) -> Result<u64, Fault> {
        let value = self.tokens.get(i).and_then(numbers::stoi);
        value.ok_or_else(|| Fault::new(Cause::Value, i, "stoi"))
    }

    fn more_than_20(&self, name: &str, at: usize) -> Result<Bytes, Fault> {
        let count = self.stoi(at)?;
        if count <= 20 {
            let text = format!("CachingAllocator option {name} too small, must be > 20");
            return Err(Fault::new(Cause::Range, at, text));
        }
        Ok(mib(count.min(MAX_MIB)))
    }

    fn threshold(&mut self, at: usize) -> Result<(), Fault> {
        let value = self.tokens.get(at).and_then(numbers::stod);
        let value = value.ok_or_else(|| Fault::new(Cause::Value, at, "stod"))?;
        // Not a number is too small: it is not above 0.
        let wrong = match value.partial_cmp(&0.0) {
            Some(std::cmp::Ordering::Greater) if value < 1.0 => None,
            Some(std::cmp::Ordering::Greater) => Some("big"),
            _ => Some("small"),
        };
        if let Some(wrong) = wrong {
            let text = format!("garbage_collect_threshold too {wrong}, set it 0.0~1.0");
            return Err(Fault::new(Cause::Range, at, text));
        }
        self.conf.garbage_collection_threshold = value;
        Ok(())
    }

    fn backend(&mut self, at: usize) -> Result<(), Fault> {
        let Some(backend) = self.tokens.get(at).and_then(Backend::from_name) else {
            return Err(Fault::new(Cause::Value, at, UNKNOWN_BACKEND));
        };
        self.names_async = backend == Backend::CudaMallocAsync;
        if backend != self.conf.backend {
            return Err(Fault::new(Cause::Backend, at, backend_text(self.release)));
        }
        Ok(())
    }

    fn register_threads(&mut self, at: usize) -> Result<(), Fault> {
        let count = self.stoi(at)?;
        let text = match count {
            _ if !count.is_power_of_two() => "Number of register threads has to be power of 2 ",
            129.. => "Number of register threads should be less than or equal to 128",
            _ => {
                self.conf.pinned_num_register_threads = count;
                return Ok(());
            }
        };
        Err(Fault::new(Cause::Range, at, text))
    }

    fn divisions(&mut self, at: usize) -> Result<usize, Fault> {
        if self.tokens.is(at, "[") {
            return self.division_list(at);
        }
        let value = self.stoi(at)?;
        if !value.is_power_of_two() {
            return Err(Fault::new(Cause::Range, at, self.divisions_text(false)));
        }
        self.conf.roundup_power2_divisions = [value; 16];
        Ok(at)
    }

    /// The pairs of a list whose `[` is token `i`; the answer is its `]`, or the end if there is none
    /// and the list ends in a comma.
    fn division_list(&mut self, mut i: usize) -> Result<usize, Fault> {
        let (mut first, mut last_index) = (true, 0);
        loop {
            i += 1;
            if i >= self.tokens.len() || self.tokens.is(i, "]") {
                return Ok(i);
            }
            let boundary = i;
            self.consume(i + 1, ":")?;
            i += 2;
            if i >= self.tokens.len() {
                let text = "Error parsing roundup_power2_divisions value";
                return Err(Fault::new(Cause::Separator, i, text));
            }
            let value = self.stoi(i)?;
            let zero_allowed = self.release.at_least(4);
            if !(value.is_power_of_two() || value == 0 && zero_allowed) {
                return Err(Fault::new(Cause::Range, i, self.divisions_text(zero_allowed)));
            }
            if self.tokens.is(boundary, ">") {
                self.conf.roundup_power2_divisions[last_index..].fill(value);
            } else {
                let size = self.tokens.get(boundary).and_then(numbers::stoull);
                let size = size.ok_or_else(|| Fault::new(Cause::Value, boundary, "stoul"))?;
                if !size.is_power_of_two() {
                    return Err(Fault::new(Cause::Range, boundary, INTERVALS));
                }
                last_index = self.conf.set_divisions_from(size, value, first);
                first = false;
            }
            if !self.tokens.is(i + 1, "]") {
                self.after_pair(i + 1)?;
                i += 1;
            }
        }
    }

    /// A comma has to follow a pair. Up to 2.6 the parser looks for it behind the last token too.
    fn after_pair(&self, i: usize) -> Result<(), Fault> {
        if i >= self.tokens.len() && !self.release.at_least(7) {
            return Err(Fault::new(Cause::OpenList, i, "").aborting());
        }
        self.consume(i, ",").map_err(|fault| {
            let cause = if i >= self.tokens.len() { Cause::OpenList } else { fault.cause };
            Fault { cause, ..fault }
        })
    }

    fn divisions_text(&self, zero_allowed: bool) -> String {
        let divisions = if self.release.at_least(8) { "divisions" } else { "divisons" };
        let or_zero = if zero_allowed { "or 0 to disable roundup " } else { "" };
        format!("For roundups, the {divisions} has to be power of 2 {or_zero}")
    }
}

/// What every release says of an unknown backend.
pub(super) const UNKNOWN_BACKEND: &str =
    "Unknown allocator backend, options are native and cudaMallocAsync";

/// What every release says of a boundary that is no power of two.
pub(super) const INTERVALS: &str = "For roundups, the intervals have to be power of 2 ";

fn bool_text(name: &str) -> String {
    format!("Expected a single True/False argument for {name}")
}

fn bool_of(name: &str, value: &str, at: usize) -> Result<bool, Fault> {
    match value {
        "True" => Ok(true),
        "False" => Ok(false),
        _ => Err(Fault::new(Cause::Value, at, bool_text(name))),
    }
}

/// The failed assertion, with the source line that the wheel of each release names.
fn backend_text(release: Release) -> String {
    let place = match release.minor() {
        1 => r#""../c10/cuda/CUDACachingAllocator.cpp":1058"#,
        2 => r#""../c10/cuda/CUDAAllocatorConfig.cpp":225"#,
        3 => r#""../c10/cuda/CUDAAllocatorConfig.cpp":226"#,
        4 | 5 => r#""../c10/cuda/CUDAAllocatorConfig.cpp":227"#,
        6 | 7 => r#""/pytorch/c10/cuda/CUDAAllocatorConfig.cpp":250"#,
        8 => r#""/pytorch/c10/cuda/CUDAAllocatorConfig.cpp":287"#,
        _ => r#""/pytorch/c10/cuda/CUDAAllocatorConfig.cpp":288"#,
    };
    format!(
        "config[i] == get()->name() INTERNAL ASSERT FAILED at {place}, please report a bug to \
         PyTorch. Allocator backend parsed at runtime != allocator backend parsed at load time"
    )
}
