//! From a snapshot to [`Trace`]s: the operations of each device, rebuilt from its history.
//!
//! The state before the history is rebuilt backwards from the snapshot: each entry that made or
//! took memory is undone, and what was freed or is live without ever being allocated was there at
//! the start. What cannot be known is written down in [`Recorded::notes`].

use super::{
    raw::{Segment, Snapshot},
    rebuild::Rebuild,
};
use crate::{
    base::{Bytes, DeviceIndex},
    trace::{BlockLayout, Layout, RecordedSettings, SegmentLayout, Trace, TraceError},
};

/// Why a snapshot's history is not that of an allocator, or cannot be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// There is nothing to replay.
    #[error(
        "the snapshot holds no history; record one with torch.cuda.memory._record_memory_history() before the run"
    )]
    NoHistory,
    /// The file was converted from profiler data.
    #[error(
        "the entries have a 'category': this was made from profiler data, with invented addresses, and is no history of an allocator; use a file of torch.cuda.memory._dump_snapshot()"
    )]
    Profiler,
    /// Kinds of entries are missing altogether.
    #[error(
        "{place} holds no '{missing}' entries although there must be some: the history was recorded with skip_actions and cannot be replayed; record it again without"
    )]
    Skipped {
        /// The history.
        place: String,
        /// The kind that is missing.
        missing: &'static str,
    },
    /// An entry contradicts the others.
    #[error(
        "{place}: {what}; this is not the whole history of one allocator: record it again, without skip_actions, and leave the file as it is"
    )]
    Inconsistent {
        /// The entry.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// Too much of something.
    #[error(transparent)]
    Trace(#[from] TraceError),
}

impl Snapshot {
    /// The operations of every device that has a history, in the order of the devices.
    ///
    /// # Errors
    /// When no device has one, or one is not the history of an allocator. The entry is named.
    ///
    /// # Complexity
    /// O(n log n) in the number of entries.
    pub fn histories(&self) -> Result<Vec<Trace>, HistoryError> {
        if self.from_profiler() {
            return Err(HistoryError::Profiler);
        }
        let mut traces = Vec::new();
        for (index, entries) in self.traces.iter().enumerate() {
            if !entries.is_empty() {
                traces.push(Rebuild::trace(self, index, entries)?);
            }
        }
        if traces.is_empty() { Err(HistoryError::NoHistory) } else { Ok(traces) }
    }

    /// Where everything lay on a device when the snapshot was taken.
    pub fn layout(&self, device: DeviceIndex) -> Layout {
        let segments = self.segments.iter().filter(|segment| segment.device == device);
        let mut layout = Layout { segments: segments.map(segment_layout).collect() };
        layout.segments.sort_by_key(|segment| segment.addr);
        layout
    }

    pub(super) fn recorded_settings(&self) -> Option<RecordedSettings> {
        let settings = self.settings.as_ref()?;
        Some(RecordedSettings {
            conf: settings.conf.clone().unwrap_or_default(),
            max_split_size: settings
                .max_split_size
                .and_then(|size| u64::try_from(size).ok())
                .filter(|size| *size < u64::MAX / 2)
                .map(Bytes),
            garbage_collection_threshold: settings.garbage_collection_threshold.unwrap_or(0.0),
            expandable_segments: settings.expandable_segments.unwrap_or(false),
            roundup_power2_divisions: settings.roundup_power2_divisions,
        })
    }
}

fn segment_layout(segment: &Segment) -> SegmentLayout {
    let blocks = segment.blocks.iter().map(|block| BlockLayout {
        size: block.size,
        requested: block.requested_size.unwrap_or(block.size),
        state: block.state,
    });
    SegmentLayout {
        addr: segment.address,
        stream: segment.stream,
        pool: segment.pool_id.unwrap_or_default(),
        is_small: segment.segment_type == super::SegmentType::Small,
        is_expandable: segment.is_expandable.unwrap_or(false),
        blocks: blocks.collect(),
    }
}
