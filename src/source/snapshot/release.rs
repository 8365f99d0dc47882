//! Which releases could have written a snapshot, by the keys that it has and lacks.

use super::{
    keys::Key,
    raw::{Format, KeysSeen, Snapshot},
};
use crate::base::Release;

impl Snapshot {
    /// The oldest and the newest release that could have written this file.
    ///
    /// A key that is there proves its release or a later one. A key that is absent proves an
    /// earlier one only where that release always writes it: an empty trace says nothing about the
    /// keys of entries, and `forward_frames`, `internal_metadata` and annotations are optional.
    /// Shapes older than 2.1 give 2.1, the oldest release modelled. Where the keys contradict each
    /// other (files that other tools made), what is there counts and the newest release stays open.
    pub fn release_range(&self) -> (Release, Release) {
        if self.format < Format::Current {
            return (Release::OLDEST, Release::OLDEST);
        }
        let oldest = release(first(&self.seen));
        let newest = release(last(&self.seen, self.entries() > 0));
        if oldest <= newest { (oldest, newest) } else { (oldest, Release::NEWEST) }
    }
}

fn release(minor: u8) -> Release {
    Release::new(minor).unwrap_or_default()
}

/// The first minor release that has everything seen.
fn first(seen: &KeysSeen) -> u8 {
    let facts = [
        (seen.annotate || seen.top.has(Key::HostSegments) || seen.top.has(Key::HostTraces), 14),
        (seen.entry.has(Key::InternalMetadata), 15),
        (seen.settings.has(Key::MaxRoundThreshold) || seen.settings.has(Key::MaxCachedSize), 13),
        (seen.entry.has(Key::PoolId), 12),
        (seen.entry.has(Key::ForwardFrames) || seen.block.has(Key::ForwardFrames), 11),
        (seen.entry.has(Key::UserMetadata), 10),
        (seen.settings.has(Key::GraphCaptureRecordStreamReuse), 9),
        (seen.entry.has(Key::CompileContext), 8),
        (seen.top.has(Key::ExternalAnnotations), 5),
        (seen.top.has(Key::AllocatorSettings), 3),
        (seen.entry.has(Key::TimeUs), 2),
    ];
    facts.iter().filter(|(there, _)| *there).map(|&(_, minor)| minor).max().unwrap_or(1)
}

/// The last minor release that would leave out what is missing.
fn last(seen: &KeysSeen, has_entries: bool) -> u8 {
    let has_settings = seen.top.has(Key::AllocatorSettings);
    let facts = [
        (has_entries && !seen.entry.has(Key::TimeUs), 1),
        (!has_settings, 2),
        (!seen.top.has(Key::ExternalAnnotations), 4),
        (has_entries && !seen.entry.has(Key::CompileContext), 7),
        (has_settings && !seen.settings.has(Key::GraphCaptureRecordStreamReuse), 8),
        (has_entries && !seen.entry.has(Key::UserMetadata), 9),
        (has_entries && !seen.entry.has(Key::PoolId), 11),
        (has_settings && !seen.settings.has(Key::MaxRoundThreshold), 12),
        (!seen.top.has(Key::HostSegments), 13),
    ];
    facts.iter().filter(|(absent, _)| *absent).map(|&(_, minor)| minor).min().unwrap_or(15)
}
