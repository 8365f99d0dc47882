//! Which blocks were live before the history began.

use std::collections::hash_map::Entry as MapEntry;

use rustc_hash::FxHashMap;

use super::{
    ranges::{Mapped, Misfit},
    raw::{Action, BlockState, Entry},
};
use crate::{
    base::{Addr, Bytes, Span},
    trace::{BlockLayout, Layout, SegmentLayout},
};

/// A block that was live before the first entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Live {
    pub addr: Addr,
    pub requested: Bytes,
    /// Its exact size, where the snapshot still shows the block.
    pub size: Option<Bytes>,
    pub is_pending: bool,
    /// The entry that shows it.
    pub entry: Option<usize>,
}

/// What an address was last, in the history so far.
#[derive(Clone, Copy, Default)]
struct Touched {
    is_live: bool,
    is_pending: bool,
}

/// All blocks that were live before the first entry, in the order of their addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct StartLive {
    blocks: Vec<Live>,
    /// Blocks that are live by the history but not in the snapshot.
    pub is_behind: Vec<Addr>,
    /// Addresses that requests were served with, and the entries, sorted.
    served: Vec<(Addr, usize)>,
}

impl StartLive {
    /// What is freed without having been allocated was there at the start, and so was what the
    /// snapshot shows and the history never allocated.
    pub(super) fn of(entries: &[Entry], end: &Layout) -> Result<Self, (usize, Misfit)> {
        let mut start = Self::default();
        // What was in the history before: what is freed there again must be live.
        let mut touched: FxHashMap<Addr, Touched> = FxHashMap::default();
        for (at, entry) in entries.iter().enumerate() {
            let addr = entry.addr;
            match entry.action {
                Action::Alloc => touched.entry(addr).or_default().is_live = true,
                Action::FreeRequested => match touched.entry(addr) {
                    MapEntry::Occupied(known) if !known.get().is_live => {
                        let message = format!("free of {addr}, which is not allocated");
                        return Err((at, Misfit(message)));
                    }
                    MapEntry::Occupied(mut known) => {
                        known.insert(Touched { is_live: false, is_pending: true });
                    }
                    MapEntry::Vacant(unknown) => {
                        unknown.insert(Touched { is_live: false, is_pending: true });
                        start.push(entry, at, false);
                    }
                },
                Action::FreeCompleted => match touched.entry(addr) {
                    MapEntry::Occupied(mut known) if known.get().is_pending => {
                        known.get_mut().is_pending = false;
                    }
                    MapEntry::Occupied(_) => {
                        let message =
                            format!("completes the free of {addr}, which nobody requested");
                        return Err((at, Misfit(message)));
                    }
                    MapEntry::Vacant(unknown) => {
                        unknown.insert(Touched::default());
                        // A ring that overwrote the request of this very free.
                        let is_tail = at == 0;
                        start.push(entry, at, !is_tail);
                    }
                },
                _ => {}
            }
        }
        start.add_survivors(end, &touched);
        start.blocks.sort_by_key(|block| block.addr);
        // Asked for only where a block was there before and is freed.
        if start.blocks.iter().any(|block| block.entry.is_some()) {
            let served = entries.iter().zip(0..).filter(|(entry, _)| entry.action == Action::Alloc);
            start.served = served.map(|(entry, at)| (entry.addr, at)).collect();
            start.served.sort_unstable();
        }
        Ok(start)
    }

    /// Whether the first entry is the second half of a free, whose first half a full ring overwrote.
    pub(super) fn has_tail(entries: &[Entry]) -> bool {
        entries.first().is_some_and(|first| first.action == Action::FreeCompleted)
    }

    /// The blocks with what was requested for them.
    pub(super) fn requested(&self) -> impl Iterator<Item = (Addr, Bytes)> {
        self.blocks.iter().map(|block| (block.addr, block.requested))
    }

    /// Where a block ended that was freed later, if a request gives it away. While the block is live,
    /// the free space between it and `limit` (the next block, or the segment's end) begins where it
    /// ends, and a request takes the low end of a free block: so the first one that is served there
    /// begins at the block's end.
    pub(super) fn measured_end(&self, block: &Live, limit: Addr) -> Option<Addr> {
        let freed_at = block.entry?;
        let from = self.served.partition_point(|(addr, _)| *addr <= block.addr);
        let behind = self.served[from..].iter().take_while(|(addr, _)| *addr < limit);
        let first = behind.filter(|(_, at)| *at < freed_at).min_by_key(|(_, at)| *at);
        first.map(|(addr, _)| *addr).filter(|end| *end >= block.addr + block.requested)
    }

    fn push(&mut self, entry: &Entry, at: usize, is_pending: bool) {
        self.blocks.push(Live {
            addr: entry.addr,
            requested: entry.size,
            size: None,
            is_pending,
            entry: Some(at),
        });
    }

    fn add_survivors(&mut self, end: &Layout, touched: &FxHashMap<Addr, Touched>) {
        let mut shown: FxHashMap<Addr, BlockState> = FxHashMap::default();
        for (addr, block) in end.segments.iter().flat_map(SegmentLayout::blocks_at) {
            if block.state == BlockState::Inactive {
                continue;
            }
            shown.insert(addr, block.state);
            if !touched.contains_key(&addr) {
                self.blocks.push(Live {
                    addr,
                    requested: block.requested,
                    size: Some(block.size),
                    is_pending: block.state == BlockState::ActivePendingFree,
                    entry: None,
                });
            }
        }
        let live = touched.iter().filter(|(_, known)| known.is_live).map(|(addr, _)| *addr);
        self.is_behind = live.filter(|addr| !shown.contains_key(addr)).collect();
        self.is_behind.sort_unstable();
    }

    /// The blocks inside a segment.
    pub(super) fn inside(&self, span: Span) -> &[Live] {
        let from = self.blocks.partition_point(|block| block.addr < span.start);
        let to = self.blocks.partition_point(|block| block.addr < span.end());
        &self.blocks[from..to]
    }

    /// The first block that lies in no segment.
    pub(super) fn first_outside(&self, is_inside: impl Fn(Span) -> bool) -> Option<&Live> {
        self.blocks.iter().find(|block| !is_inside(Span::new(block.addr, Bytes(1))))
    }
}

/// One segment as it was at the start, from the blocks known to be live in it.
/// Also which of its live blocks have a size that is only computed.
pub(super) fn start_segment(
    addr: Addr,
    mapped: &Mapped,
    live: &[Live],
    all: &StartLive,
    max_split_size: Option<Bytes>,
) -> Result<(SegmentLayout, Vec<usize>), Misfit> {
    let mut unsure = Vec::new();
    let end = Span::new(addr, mapped.size).end();
    let mut blocks = Vec::new();
    let mut next = addr;
    let free = |size| BlockLayout { size, requested: Bytes::ZERO, state: BlockState::Inactive };
    for (i, block) in live.iter().enumerate() {
        if block.addr < next {
            let message = format!("the blocks before {} overlap it", block.addr);
            return Err(Misfit(message));
        }
        if block.addr > next {
            blocks.push(free(block.addr - next));
        }
        let limit = live.get(i + 1).map_or(end, |above| above.addr);
        let room = limit - block.addr;
        let measured = || all.measured_end(block, limit).map(|end| end - block.addr);
        let size = block.size.or_else(measured).unwrap_or_else(|| {
            let size = block.requested.max(Bytes(1)).round_up(Bytes(512));
            let slack = room.saturating_sub(size);
            // A large block keeps a remainder of at most 1 MiB, and no block there is smaller.
            let keeps_rest = !mapped.facts.is_small && !mapped.facts.is_expandable;
            let is_oversize = max_split_size.is_some_and(|limit| size >= limit);
            if keeps_rest && (slack <= Bytes::mib(1) || is_oversize) {
                return size.max(room);
            }
            unsure.push(i);
            size
        });
        if size > room {
            let message = format!("the block at {} does not fit below {limit}", block.addr);
            return Err(Misfit(message));
        }
        let state = if block.is_pending {
            BlockState::ActivePendingFree
        } else {
            BlockState::ActiveAllocated
        };
        blocks.push(BlockLayout { size, requested: block.requested, state });
        next = block.addr + size;
    }
    if next < end {
        blocks.push(free(end - next));
    }
    let segment = SegmentLayout {
        addr,
        stream: mapped.facts.stream,
        pool: mapped.facts.pool.unwrap_or_default(),
        is_small: mapped.facts.is_small,
        is_expandable: mapped.facts.is_expandable,
        blocks,
    };
    Ok((segment, unsure))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::snapshot::rows::EMPTY;

    fn entry(action: Action, addr: u64, size: u64) -> Entry {
        Entry { action, addr: Addr(addr), size: Bytes(size), ..EMPTY }
    }

    fn freed(addr: u64, size: u64) -> [Entry; 2] {
        [entry(Action::FreeRequested, addr, size), entry(Action::FreeCompleted, addr, size)]
    }

    /// The end of the first block that was there at the start, as far as `limit`.
    fn end(entries: &[Entry], limit: u64) -> Option<u64> {
        let start = StartLive::of(entries, &Layout::default()).unwrap();
        start.measured_end(&start.blocks[0], Addr(limit)).map(|addr| addr.0)
    }

    #[test]
    fn what_is_served_behind_a_block_shows_where_it_ends() {
        let [requested, completed] = freed(0, 700);
        assert_eq!(end(&[entry(Action::Alloc, 1024, 512), requested, completed], 4096), Some(1024));
    }

    #[test]
    fn what_is_served_after_the_block_was_freed_shows_nothing() {
        let [requested, completed] = freed(0, 700);
        assert_eq!(end(&[requested, completed, entry(Action::Alloc, 1024, 512)], 4096), None);
    }

    #[test]
    fn what_is_served_behind_the_next_block_shows_nothing() {
        let [requested, completed] = freed(0, 700);
        assert_eq!(end(&[entry(Action::Alloc, 8192, 512), requested, completed], 4096), None);
    }

    #[test]
    fn the_first_request_that_is_served_there_counts() {
        let [requested, completed] = freed(0, 700);
        let entries =
            [entry(Action::Alloc, 2048, 9), entry(Action::Alloc, 3072, 9), requested, completed];
        assert_eq!(end(&entries, 4096), Some(2048));
    }
}
