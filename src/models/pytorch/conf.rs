//! stub
use crate::base::{Bytes, Release};
#[derive(Clone, Debug, PartialEq)]
pub struct AllocConf {
    pub max_split_size: Bytes,
    pub max_non_split_rounding_size: Bytes,
    pub large_segment_size: Bytes,
    pub garbage_collection_threshold: f64,
    pub roundup_power2_divisions: [u64; 16],
    pub expandable_segments: bool,
    pub graph_capture_record_stream_reuse: bool,
    pub throw_on_cudamalloc_oom: bool,
    pub per_process_memory_fraction: f64,
}
impl AllocConf {
    pub fn new(_r: Release) -> Self {
        Self {
            max_split_size: Bytes::MAX,
            max_non_split_rounding_size: Bytes::mib(20),
            large_segment_size: Bytes::mib(20),
            garbage_collection_threshold: 0.0,
            roundup_power2_divisions: [0; 16],
            expandable_segments: false,
            graph_capture_record_stream_reuse: false,
            throw_on_cudamalloc_oom: false,
            per_process_memory_fraction: 1.0,
        }
    }
}
