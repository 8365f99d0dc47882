//! What one look at all entries of a history tells.

use super::raw::{Action, Entry, Site};
use crate::base::Id;

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
    pub(super) fn of(entries: &[Entry], sites: &[Site]) -> Self {
        let mut census = Self::default();
        let named: Vec<bool> = sites.iter().map(|site| site.pool.is_some()).collect();
        for (at, entry) in entries.iter().enumerate() {
            census.counts[entry.action as usize] += 1;
            census.names_pools |= named.get(entry.site.index()).is_some_and(|named| *named);
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
