//! What one look at all entries of a history tells.

use super::raw::{Action, Entry};

/// The kinds of entries there are.
#[derive(Debug, Default)]
pub(super) struct Census {
    counts: [usize; Action::ALL.len()],
    /// The entries that made or took memory, in order.
    pub memory: Vec<usize>,
    /// Whether any entry names its pool.
    pub names_pools: bool,
}

impl Census {
    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut census = Self::default();
        for (at, entry) in entries.iter().enumerate() {
            census.counts[entry.action as usize] += 1;
            census.names_pools |= entry.pool.is_some();
            if entry.action.is_segment() {
                census.memory.push(at);
            }
        }
        census
    }

    /// Entries of one kind.
    pub(super) fn count(&self, action: Action) -> usize {
        self.counts[action as usize]
    }
}
