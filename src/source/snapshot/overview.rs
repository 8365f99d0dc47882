//! What is said of a snapshot as a whole, without its entries.

use super::raw::{Action, Entry, Snapshot};
use crate::{
    base::{DeviceIndex, Release},
    trace::Layout,
};

/// A snapshot in short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// The oldest and the newest release that can have written it.
    pub releases: (Release, Release),
    /// Number of distinct frames.
    pub frames: usize,
    /// Number of distinct stacks.
    pub stacks: usize,
    /// Whether it tells its settings (2.3 and later).
    pub has_settings: bool,
    /// What a reader should know, see [`Snapshot::warnings`].
    pub warnings: Vec<String>,
    /// Each device up to the last that has a segment or a trace.
    pub devices: Vec<DeviceOverview>,
}

/// One device of a snapshot in short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceOverview {
    /// Where everything lay when it was taken.
    pub layout: Layout,
    /// Number of entries of each kind, in the order of [`Action::ALL`].
    pub entries: [u64; Action::ALL.len()],
    /// Microseconds from the earliest entry to the latest, where entries have times.
    pub duration_us: Option<i64>,
}

impl DeviceOverview {
    fn of(layout: Layout, trace: &[Entry]) -> Self {
        let mut overview = Self { layout, ..Self::default() };
        for entry in trace {
            overview.entries[entry.action as usize] += 1;
        }
        let times = || trace.iter().filter_map(|entry| entry.time_us).map(i64::from);
        let ends = times().max().zip(times().min());
        overview.duration_us = ends.map(|(last, first)| last.saturating_sub(first));
        overview
    }

    /// Whether it has no entries.
    pub fn is_without_history(&self) -> bool {
        self.entries.iter().all(|count| *count == 0)
    }
}

impl Snapshot {
    /// What is said of this snapshot as a whole.
    ///
    /// # Complexity
    /// O(n) in the number of entries and blocks.
    pub fn overview(&self) -> Overview {
        let device = |index: usize| {
            let layout = self.layout(DeviceIndex::from_index(index));
            DeviceOverview::of(layout, self.traces.get(index).map_or(&[][..], Vec::as_slice))
        };
        Overview {
            releases: self.release_range(),
            frames: self.frames.len(),
            stacks: self.stacks.len(),
            has_settings: self.settings.is_some(),
            warnings: self.warnings.clone(),
            devices: (0..self.devices()).map(device).collect(),
        }
    }
}
