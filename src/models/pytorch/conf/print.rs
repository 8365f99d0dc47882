//! Settings as a string again.

use std::fmt::Write as _;

use crate::base::{Bytes, Release};

use super::{AllocConf, Backend, MAX_MIB, When, lookup};

/// Settings that no string of a release gives a fresh process.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "PyTorch {release} has no settings string for this configuration; the nearest is '{nearest}'"
)]
pub struct Unprintable {
    /// The release.
    pub release: Release,
    /// The string that comes nearest.
    pub nearest: String,
}

impl AllocConf {
    /// Whether every setting is the same; how they were written does not count.
    pub fn same_settings(&self, other: &Self) -> bool {
        let plain = |conf: &Self| Self { last_settings: String::new(), ..conf.clone() };
        plain(self) == plain(other)
    }

    /// The string that gives a fresh process of `release` these settings, for
    /// `PYTORCH_CUDA_ALLOC_CONF`: what is not at its default, in the order of the table of keys.
    ///
    /// # Errors
    /// When there is none: a key that the release does not know, a value that it refuses, a size that
    /// is no multiple of 1 MiB.
    ///
    /// # Examples
    /// ```
    /// use fragsim::{base::{Bytes, Release}, models::pytorch::conf::AllocConf};
    /// let mut conf = AllocConf::new(Release::NEWEST);
    /// conf.expandable_segments = true;
    /// conf.max_split_size = Bytes::mib(128);
    /// let text = conf.to_conf_string(Release::NEWEST)?;
    /// assert_eq!(text, "max_split_size_mb:128,expandable_segments:True");
    /// # Ok::<(), fragsim::models::pytorch::conf::Unprintable>(())
    /// ```
    pub fn to_conf_string(&self, release: Release) -> Result<String, Unprintable> {
        let mut out = Writer { text: String::new(), release };
        self.write(&mut out);
        let mut back = Self::new(release);
        let read = back.parse(release, &out.text, When::Startup);
        if read.is_ok() && back.same_settings(self) {
            Ok(out.text)
        } else {
            Err(Unprintable { release, nearest: out.text })
        }
    }

    fn write(&self, out: &mut Writer) {
        let fresh = Self::new(out.release);
        if self.max_split_size != fresh.max_split_size {
            out.mib("max_split_size_mb", self.max_split_size);
        }
        if self.max_non_split_rounding_size != self.large_segment_size {
            out.mib("max_non_split_rounding_mb", self.max_non_split_rounding_size);
        }
        if self.large_segment_size != fresh.large_segment_size {
            out.mib("large_segment_size_mb", self.large_segment_size);
        }
        if self.garbage_collection_threshold != fresh.garbage_collection_threshold {
            out.item("garbage_collection_threshold", &number(self.garbage_collection_threshold));
        }
        if self.roundup_power2_divisions != fresh.roundup_power2_divisions {
            out.item("roundup_power2_divisions", &divisions(&self.roundup_power2_divisions));
        }
        out.flag("expandable_segments", self.expandable_segments);
        if let Some(reserve) = self.expandable_segments_reserve {
            out.item("expandable_segments_reserve", &reserve.to_string());
        }
        if !self.expandable_segments_reserve_by_class.is_empty() {
            let pairs = self.expandable_segments_reserve_by_class.iter();
            let pairs: Vec<_> = pairs.map(|(name, reserve)| format!("{name}:{reserve}")).collect();
            out.item("expandable_segments_reserve_by_class", &format!("[{}]", pairs.join(",")));
        }
        if self.backend != Backend::Native {
            out.item("backend", self.backend.name());
        }
        out.flag("release_lock_on_cudamalloc", self.release_lock_on_cudamalloc);
        out.flag("graph_capture_record_stream_reuse", self.graph_capture_record_stream_reuse);
        out.flag("throw_on_cudamalloc_oom", self.throw_on_cudamalloc_oom);
        if self.per_process_memory_fraction != fresh.per_process_memory_fraction {
            out.item("per_process_memory_fraction", &number(self.per_process_memory_fraction));
        }
        self.write_host(&fresh, out);
    }

    fn write_host(&self, fresh: &Self, out: &mut Writer) {
        out.flag("pinned_use_cuda_host_register", self.pinned_use_cuda_host_register);
        if self.pinned_num_register_threads != fresh.pinned_num_register_threads {
            let count = self.pinned_num_register_threads.to_string();
            out.item("pinned_num_register_threads", &count);
        }
        out.flag("pinned_use_background_threads", self.pinned_use_background_threads);
        if self.pinned_reserve_segment_size_mb != fresh.pinned_reserve_segment_size_mb {
            let count = self.pinned_reserve_segment_size_mb.to_string();
            out.item("pinned_reserve_segment_size_mb", &count);
        }
        out.flag("pinned_free_catch_all", self.pinned_free_catch_all);
        if self.pinned_max_round_threshold != fresh.pinned_max_round_threshold {
            out.mib("pinned_max_round_threshold_mb", self.pinned_max_round_threshold);
        }
        if self.pinned_max_cached_size != fresh.pinned_max_cached_size {
            out.mib("pinned_max_cached_size_mb", self.pinned_max_cached_size);
        }
    }
}

struct Writer {
    text: String,
    release: Release,
}

impl Writer {
    fn item(&mut self, key: &str, value: &str) {
        debug_assert!(super::find(key).is_some(), "'{key}' is in the table of keys");
        // A key that the release lacks would spoil the nearest string too.
        if lookup(key, self.release).is_some() {
            let comma = if self.text.is_empty() { "" } else { "," };
            let _ = write!(self.text, "{comma}{key}:{value}");
        }
    }

    fn flag(&mut self, key: &str, on: bool) {
        if on {
            self.item(key, "True");
        }
    }

    fn mib(&mut self, key: &str, size: Bytes) {
        let count = size.0 >> 20;
        // Up to 2.9 a number has 32 bits, and only a negative one reaches the cap.
        if count == MAX_MIB && !self.release.at_least(10) {
            self.item(key, "-1");
        } else {
            self.item(key, &count.to_string());
        }
    }
}

/// The shortest decimal that reads back to the same double.
fn number(value: f64) -> String {
    format!("{value:?}")
}

/// One number if all entries agree; else the first pair, which fills the entries below it, a pair for
/// each entry that is not 0, and `>` for an even tail. The tail is listed once before its `>`, so that
/// it does not matter whether a release lets `>` overwrite the last pair.
fn divisions(table: &[u64; 16]) -> String {
    let head = table.iter().take_while(|value| **value == table[0]).count();
    if head == 16 {
        return table[0].to_string();
    }
    let tail = table.iter().rev().take_while(|value| **value == table[15]).count();
    let mut text = format!("[{}:{}", 1_u64 << (head - 1), table[0]);
    for (index, value) in table.iter().enumerate().skip(head) {
        let in_tail = index > 16 - tail;
        if *value != 0 && !in_tail {
            let _ = write!(text, ",{}:{value}", 1_u64 << index);
        }
    }
    if tail > 1 && table[15] != 0 {
        let _ = write!(text, ",>:{}", table[15]);
    }
    text.push(']');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(minor: u8, text: &str, want: &str) {
        let release = Release::new(minor).unwrap();
        let (conf, _) = AllocConf::from_string(release, text).unwrap();
        assert_eq!(conf.to_conf_string(release).unwrap(), want);
    }

    #[test]
    fn a_list_comes_back_short() {
        check(15, "roundup_power2_divisions:[256:1,512:2,1024:4,>:8]", {
            "roundup_power2_divisions:[256:1,512:2,1024:4,2048:8,>:8]"
        });
        check(9, "roundup_power2_divisions:[256:1,512:2,1024:4,>:8]", {
            "roundup_power2_divisions:[256:1,512:2,1024:8,>:8]"
        });
        check(15, "roundup_power2_divisions:[>:4]", "roundup_power2_divisions:[1:0,2:4,>:4]");
        check(9, "roundup_power2_divisions:[>:4]", "roundup_power2_divisions:4");
        check(3, "roundup_power2_divisions:[256:4]", "roundup_power2_divisions:[256:4]");
    }

    #[test]
    fn the_cap_is_minus_one_while_numbers_have_32_bits() {
        check(9, "max_split_size_mb:-7", "max_split_size_mb:-1");
        check(10, "max_split_size_mb:-7", "max_split_size_mb:17592186044415");
    }

    #[test]
    fn defaults_are_nothing() {
        check(15, "backend:native,expandable_segments:False", "");
    }

    #[test]
    fn what_a_release_cannot_do_has_no_string() {
        let mut conf = AllocConf::new(Release::OLDEST);
        conf.throw_on_cudamalloc_oom = true;
        conf.expandable_segments = true;
        let error = conf.to_conf_string(Release::OLDEST).unwrap_err();
        assert_eq!(error.nearest, "expandable_segments:True");
    }
}
