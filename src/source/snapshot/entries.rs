//! The entries of a file while it is read: another thread puts them one behind the other.
//!
//! ```text
//!   machine ── a block of entries ──► gatherer: all entries so far
//!           ◄── the block, empty ──
//! ```
//! Most of the time that an entry takes to be kept goes to memory that is touched for the first time;
//! so the machine works in a few blocks that are used again and again.

use std::{
    sync::mpsc::{Receiver, SyncSender, channel, sync_channel},
    thread::JoinHandle,
};

use super::raw::Entry;

/// Entries of a block.
const BLOCK: usize = 1 << 12;
/// Blocks that wait at most.
const BLOCKS: usize = 4;

/// Entries in order.
pub(super) struct Entries {
    /// The last ones; all, where nothing is handed over.
    near: Vec<Entry>,
    /// At so many the near ones are handed over.
    limit: usize,
    away: Option<Away>,
}

/// Entries that were handed over.
struct Away {
    count: usize,
    full: SyncSender<Vec<Entry>>,
    spare: Receiver<Vec<Entry>>,
    thread: JoinHandle<Vec<Entry>>,
}

impl Default for Entries {
    fn default() -> Self {
        Self { near: Vec::new(), limit: BLOCK, away: None }
    }
}

impl Entries {
    /// Number of entries.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.first_near() + self.near.len()
    }

    #[inline]
    fn first_near(&self) -> usize {
        self.away.as_ref().map_or(0, |away| away.count)
    }

    #[inline]
    pub(super) fn push(&mut self, entry: Entry) {
        if self.near.len() == self.limit {
            self.hand_over();
        }
        self.near.push(entry);
    }

    #[cold]
    fn hand_over(&mut self) {
        if self.away.is_none() {
            self.away = Away::new().ok();
        }
        let Some(away) = &mut self.away else {
            // No thread is to be had.
            self.limit = usize::MAX;
            return;
        };
        let empty = away.spare.try_recv().unwrap_or_else(|_| Vec::with_capacity(BLOCK));
        let full = std::mem::replace(&mut self.near, empty);
        away.count += full.len();
        // If nobody takes it, the thread has panicked: `gather` goes on with that.
        let _ = away.full.send(full);
    }

    /// The entry of a row, to be changed. In real files it is one of the last.
    pub(super) fn get_mut(&mut self, row: u32) -> &mut Entry {
        if (row as usize) < self.first_near() {
            self.gather();
        }
        let first = self.first_near();
        &mut self.near[row as usize - first]
    }

    /// All entries. From here on nothing is handed over.
    pub(super) fn gather(&mut self) -> &mut Vec<Entry> {
        self.limit = usize::MAX;
        if let Some(Away { full, thread, .. }) = self.away.take() {
            drop(full);
            let mut all = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.append(&mut self.near);
            self.near = all;
        }
        &mut self.near
    }

    /// The entry of a row. Call [`Entries::gather`] first.
    #[inline]
    pub(super) fn get(&self, row: u32) -> Entry {
        self.near[row as usize]
    }
}

impl Away {
    fn new() -> std::io::Result<Self> {
        let (full, blocks) = sync_channel::<Vec<Entry>>(BLOCKS);
        let (used, spare) = channel();
        let thread = std::thread::Builder::new().name("gather".into()).spawn(move || {
            let mut all = Vec::new();
            for mut block in blocks {
                all.append(&mut block);
                // Nobody wants it when the file has ended.
                let _ = used.send(block);
            }
            all
        })?;
        Ok(Self { count: 0, full, spare, thread })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::Addr, source::snapshot::rows::EMPTY};

    fn filled(count: usize) -> Entries {
        let mut entries = Entries::default();
        for addr in (0..count as u64).map(Addr) {
            entries.push(Entry { addr, ..EMPTY });
        }
        assert_eq!(entries.len(), count);
        entries
    }

    fn are_in_order(entries: &mut Entries) -> bool {
        entries.gather().iter().zip(0..).all(|(entry, addr)| entry.addr == Addr(addr))
    }

    #[test]
    fn entries_stay_in_order() {
        for count in [0, 1, BLOCK, BLOCK + 1, 9 * BLOCK + 5] {
            let mut entries = filled(count);
            assert!(are_in_order(&mut entries));
            assert_eq!(entries.len(), count);
        }
    }

    #[test]
    fn an_entry_that_was_handed_over_can_be_changed() {
        let mut entries = filled(3 * BLOCK + 1);
        let last = entries.get_mut(u32::try_from(3 * BLOCK).unwrap());
        assert_eq!(last.addr, Addr(3 * BLOCK as u64));
        entries.get_mut(7).addr = Addr(0);
        entries.push(Entry { addr: Addr(3 * BLOCK as u64 + 1), ..EMPTY });
        assert_eq!(entries.get(7).addr, Addr(0));
        entries.get_mut(7).addr = Addr(7);
        assert!(are_in_order(&mut entries));
        assert_eq!(entries.len(), 3 * BLOCK + 2);
    }
}
