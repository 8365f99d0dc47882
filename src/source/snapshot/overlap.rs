//! Blocks that are live at the same time must not overlap.

use std::collections::BTreeMap;

use super::{
    ranges::Misfit,
    raw::{Action, Entry},
    start::StartLive,
};
use crate::base::{Addr, Bytes, Span};

/// The first request that was served with memory that another block had; the sizes are those
/// requested, so that nothing has to be assumed. The same address twice is not looked at here.
pub(super) fn first_overlap(entries: &[Entry], start: &StartLive) -> Option<(usize, Misfit)> {
    let mut live: BTreeMap<Addr, Bytes> = start.requested().collect();
    for (at, entry) in entries.iter().enumerate() {
        match entry.action {
            Action::Alloc => {
                let span = Span::new(entry.addr, entry.size);
                let below = live.range(..span.end()).next_back();
                if let Some((&addr, &size)) = below
                    && addr != span.start
                    && Span::new(addr, size).overlaps(span)
                {
                    let text = format!("{span} overlaps the block at {addr}, which is not freed");
                    return Some((at, Misfit(text)));
                }
                live.insert(entry.addr, entry.size);
            }
            Action::FreeCompleted => {
                live.remove(&entry.addr);
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{source::snapshot::rows::EMPTY, trace::Layout};

    fn entry(action: Action, addr: u64, size: u64) -> Entry {
        Entry { action, addr: Addr(addr), size: Bytes(size), ..EMPTY }
    }

    fn first(entries: &[Entry]) -> Option<usize> {
        let start = StartLive::of(entries, &Layout::default()).unwrap();
        first_overlap(entries, &start).map(|(at, _)| at)
    }

    #[test]
    fn blocks_side_by_side_do_not_overlap() {
        let entries = [entry(Action::Alloc, 512, 512), entry(Action::Alloc, 0, 512)];
        assert_eq!(first(&entries), None);
    }

    #[test]
    fn a_block_over_the_end_or_the_start_of_another_overlaps_it() {
        let entries = [entry(Action::Alloc, 0, 513), entry(Action::Alloc, 512, 512)];
        assert_eq!(first(&entries), Some(1));
        let entries = [entry(Action::Alloc, 512, 512), entry(Action::Alloc, 0, 513)];
        assert_eq!(first(&entries), Some(1));
    }

    #[test]
    fn a_freed_block_leaves_room() {
        let entries = [
            entry(Action::Alloc, 0, 1024),
            entry(Action::FreeRequested, 0, 1024),
            entry(Action::FreeCompleted, 0, 1024),
            entry(Action::Alloc, 512, 512),
        ];
        assert_eq!(first(&entries), None);
    }

    #[test]
    fn a_block_that_was_there_at_the_start_takes_room_until_it_is_freed() {
        let entries = [
            entry(Action::Alloc, 512, 512),
            entry(Action::FreeRequested, 0, 1024),
            entry(Action::FreeCompleted, 0, 1024),
        ];
        assert_eq!(first(&entries), Some(0));
    }
}
