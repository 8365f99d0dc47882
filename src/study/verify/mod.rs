//! `verify`: the recording's facts in, the model's decisions against the recorded ones.
//!
//! Only what came from outside is taken from a recording: what was asked and freed, when, on which
//! stream and pool; which addresses the driver gave and when it refused; when `empty_cache` ran and
//! when pending frees completed. Every decision is the model's own, and is compared.

mod assume;
mod case;
mod likely;
mod lockstep;
mod pools;
mod recording;
mod start;
mod verdict;

pub use case::verify_case;
pub use recording::{VerifyOptions, recorded_conf, refused_settings, resolved, verify_trace};
pub use verdict::{Difference, LayoutVerdict, Tally, Verdict};

use serde_json::{Value, json};

use crate::{
    base::{Bytes, Release},
    models::pytorch::conf::{AllocConf, ConfError},
};

/// [`Difference::likely`] where nothing can be said any more, because the real allocator has damaged
/// its own state.
pub const DAMAGED: &str = "the real allocator gave the lower part of a segment to cudaFree before this point, because max_split_size was lowered at run time: its records point to freed objects, what it does then is undefined";

/// The settings that the environment of a recording makes.
pub(crate) fn conf_of(
    release: Release,
    settings: &[(String, String)],
) -> Result<AllocConf, ConfError> {
    let value = |name: &str| {
        settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    };
    AllocConf::from_env(release, value).map(|(conf, _)| conf)
}

/// Settings in the form of the golden cases.
pub(crate) fn config_json(conf: &AllocConf, release: Release) -> Value {
    let whole = |bytes: Bytes| Value::from(bytes.0);
    let mut map = serde_json::Map::new();
    let threshold = conf.garbage_collection_threshold;
    let threshold = if threshold == 0.0 { json!(0) } else { json!(threshold) };
    map.insert("garbage_collection_threshold".into(), threshold);
    map.insert("max_split_size".into(), whole(conf.max_split_size));
    map.insert("pinned_num_register_threads".into(), conf.pinned_num_register_threads.into());
    map.insert("expandable_segments".into(), conf.expandable_segments.into());
    map.insert("release_lock_on_malloc".into(), conf.release_lock_on_cudamalloc.into());
    map.insert("pinned_use_host_register".into(), conf.pinned_use_cuda_host_register.into());
    map.insert("roundup_power2_divisions".into(), conf.roundup_power2_divisions.to_vec().into());
    if release.at_least(3) {
        map.insert("last_allocator_settings".into(), conf.last_settings.clone().into());
    }
    if release.at_least(9) {
        let reuse = conf.graph_capture_record_stream_reuse;
        map.insert("graph_capture_record_stream_reuse".into(), reuse.into());
    }
    if release.at_least(13) {
        map.insert("max_round_threshold".into(), whole(conf.pinned_max_round_threshold));
        map.insert("max_cached_size".into(), whole(conf.pinned_max_cached_size));
    }
    Value::Object(map)
}
