//! From a snapshot to [`Trace`]s: the operations of each device, rebuilt from its history.
//!
//! The state before the history is rebuilt backwards from the snapshot: each entry that made or
//! took memory is undone, and what was freed or is live without ever being allocated was there at
//! the start. What cannot be known is written down in [`Recorded::notes`].

use rustc_hash::FxHashMap;

use super::{
    history::{self, Kind, Operation},
    overlap,
    ranges::{Chains, Facts, Mapped, Misfit, Ranges},
    raw::{Action, BlockState, Entry, Segment, Snapshot},
    start::{Live, StartLive},
};
use crate::{
    base::{Addr, AllocId, Bytes, DeviceIndex, Id, OpIndex, PoolId, Span},
    trace::{
        BlockLayout, Control, Event, Layout, Op, Recorded, RecordedSettings, SegmentLayout, Trace,
        TraceBuilder, TraceError, VanishedSegment,
    },
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
                traces.push(Lift::new(self, index, entries).lift()?);
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

    fn recorded_settings(&self) -> Option<RecordedSettings> {
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

/// A segment of which it is not known which pool it belongs to, while it is there.
struct Vanishing {
    segment: VanishedSegment,
}

struct Lift<'a> {
    snapshot: &'a Snapshot,
    index: usize,
    entries: &'a [Entry],
    builder: TraceBuilder,
    /// The memory there is now.
    ranges: Ranges,
    chains: Chains,
    /// What the segments made within the history are known to be, by the entry that made them.
    made: FxHashMap<usize, Facts>,
    live: FxHashMap<Addr, AllocId>,
    pending: FxHashMap<Addr, AllocId>,
    /// Segments of unknown pool that are there now, by address.
    vanishing: FxHashMap<Addr, Vanishing>,
    released_pools: Vec<PoolId>,
    recorded: Recorded,
}

impl<'a> Lift<'a> {
    fn new(snapshot: &'a Snapshot, index: usize, entries: &'a [Entry]) -> Self {
        let device = DeviceIndex::from_index(index);
        let segments: Vec<&Segment> =
            snapshot.segments.iter().filter(|s| s.device == device).collect();
        let end = Ranges::of(&segments);
        let chains = Chains::of(&end, entries, |entry| snapshot.pool(entry));
        Self {
            snapshot,
            index,
            entries,
            builder: TraceBuilder::new(device),
            ranges: end,
            chains,
            made: FxHashMap::default(),
            live: FxHashMap::default(),
            pending: FxHashMap::default(),
            vanishing: FxHashMap::default(),
            released_pools: Vec::new(),
            recorded: Recorded {
                end: snapshot.layout(device),
                events_name_pools: entries.iter().any(|entry| entry.pool.is_some()),
                releases: snapshot.release_range(),
                settings: snapshot.recorded_settings(),
                ..Recorded::default()
            },
        }
    }

    fn place(&self, entry: usize) -> String {
        format!("device_traces[{}][{entry}]", self.index)
    }

    fn misfit(&self, entry: usize, misfit: &Misfit) -> HistoryError {
        let name = self.entries[entry].action.name();
        HistoryError::Inconsistent {
            place: self.place(entry),
            what: format!("{name}: {}", misfit.0),
        }
    }

    fn lift(mut self) -> Result<Trace, HistoryError> {
        self.refuse_skipped_actions()?;
        let start_live = StartLive::of(self.entries, &self.recorded.end)
            .map_err(|(entry, misfit)| self.misfit(entry, &misfit))?;
        if let Some((entry, misfit)) = overlap::first_overlap(self.entries, &start_live) {
            return Err(self.misfit(entry, &misfit));
        }
        self.rewind()?;
        self.build_start(&start_live)?;
        for operation in history::operations(self.entries) {
            self.operation(&operation)?;
        }
        self.recorded.first_event.push(self.events_so_far());
        let chains = std::mem::take(&mut self.vanishing).into_values();
        self.recorded.vanished.extend(chains.map(|chain| chain.segment));
        self.recorded.vanished.sort_by_key(|segment| segment.made_by);
        if !start_live.is_behind.is_empty() {
            self.recorded.notes.push(format!(
                "the snapshot was taken a little later than its history ends: {} blocks differ",
                start_live.is_behind.len()
            ));
        }
        self.builder.recorded(self.recorded);
        Ok(self.builder.build())
    }

    /// `skip_actions` drops kinds of entries without a word.
    fn refuse_skipped_actions(&self) -> Result<(), HistoryError> {
        let count = |action: Action| self.entries.iter().filter(|e| e.action == action).count();
        let skipped = |missing: Action| {
            let place = format!("device_traces[{}]", self.index);
            Err(HistoryError::Skipped { place, missing: missing.name() })
        };
        let (allocs, requested, completed) =
            (count(Action::Alloc), count(Action::FreeRequested), count(Action::FreeCompleted));
        if allocs == 0 && requested > 1 && completed > 1 && !self.recorded.end.segments.is_empty() {
            let freed_twice = {
                let mut seen = rustc_hash::FxHashSet::default();
                self.entries
                    .iter()
                    .filter(|e| e.action == Action::FreeRequested)
                    .any(|e| !seen.insert(e.addr))
            };
            if freed_twice {
                return skipped(Action::Alloc);
            }
        }
        if requested > 1 && completed == 0 && !self.all_frees_are_pending() {
            return skipped(Action::FreeCompleted);
        }
        if completed > 1 && requested == 0 {
            return skipped(Action::FreeRequested);
        }
        Ok(())
    }

    /// Whether the snapshot still shows every freed block as waiting.
    fn all_frees_are_pending(&self) -> bool {
        let blocks = self.recorded.end.segments.iter().flat_map(SegmentLayout::blocks_at);
        let pending: rustc_hash::FxHashSet<Addr> = blocks
            .filter(|(_, block)| block.state == BlockState::ActivePendingFree)
            .map(|(addr, _)| addr)
            .collect();
        let mut frees = self.entries.iter().filter(|e| e.action == Action::FreeRequested);
        frees.all(|entry| pending.contains(&entry.addr))
    }

    fn facts_of(&self, entry: &Entry) -> Facts {
        let pool = self.snapshot.pool(entry);
        if matches!(entry.action, Action::SegmentMap | Action::SegmentUnmap)
            && let Some(facts) = self.chains.facts_at(entry.stream, entry.addr)
        {
            return Facts { pool: pool.or(facts.pool), ..facts };
        }
        Facts {
            stream: entry.stream,
            pool,
            is_small: entry.size == Bytes::mib(2),
            is_expandable: false,
        }
    }

    /// From the end of the history to its start.
    fn rewind(&mut self) -> Result<(), HistoryError> {
        for (at, entry) in self.entries.iter().enumerate().rev() {
            let span = Span::new(entry.addr, entry.size);
            let done = match entry.action {
                Action::SegmentAlloc | Action::SegmentMap => self.ranges.take(span).map(|facts| {
                    self.made.insert(at, facts);
                }),
                Action::SegmentFree | Action::SegmentUnmap => {
                    self.ranges.add(span, self.facts_of(entry))
                }
                _ => Ok(()),
            };
            done.map_err(|misfit| self.misfit(at, &misfit))?;
        }
        Ok(())
    }

    /// The layout before the first entry.
    fn build_start(&mut self, start_live: &StartLive) -> Result<(), HistoryError> {
        let mut guessed = Vec::new();
        let mut addrs = Vec::new();
        let mut segments = Vec::new();
        for (addr, mapped) in self.ranges.iter() {
            let inside = start_live.inside(Span::new(addr, mapped.size));
            let first = addrs.len();
            let limit = self.recorded.settings.as_ref().and_then(|s| s.max_split_size);
            addrs.extend(inside.iter().map(|live| (live.addr, live.is_pending)));
            let (segment, unsure) = start_segment(addr, mapped, inside, start_live, limit)
                .map_err(|misfit| HistoryError::Inconsistent {
                    place: format!("device_traces[{}]", self.index),
                    what: misfit.0,
                })?;
            guessed.extend(unsure.into_iter().map(|i| first + i));
            segments.push(segment);
        }
        if let Some(stray) = start_live.first_outside(|span| self.ranges.around(span).is_some()) {
            let what = format!(
                "the block at {} was there before the history, but in no segment that it or the snapshot shows",
                stray.addr
            );
            let place = stray.entry.map_or_else(|| "segments".to_owned(), |at| self.place(at));
            return Err(HistoryError::Inconsistent { place, what });
        }
        self.note_start(&segments, guessed.len());
        for segment in &segments {
            self.builder.stream_of(segment.stream)?;
        }
        let ids = self.builder.start(Layout { segments })?.to_vec();
        for (id, (addr, is_pending)) in ids.into_iter().zip(addrs) {
            let map = if is_pending { &mut self.pending } else { &mut self.live };
            map.insert(addr, id);
        }
        self.recorded.guessed_sizes = guessed;
        self.recorded.chains = self.chains.iter().collect();
        Ok(())
    }

    fn note_start(&mut self, segments: &[SegmentLayout], guessed: usize) {
        if segments.is_empty() {
            return;
        }
        let blocks = segments.iter().flat_map(|s| &s.blocks);
        let live = blocks.filter(|b| b.state != BlockState::Inactive).count();
        self.recorded.notes.push(format!(
            "the history begins with {} segments and {live} live blocks already there; how old they are, past peaks and settings before are unknown",
            segments.len()
        ));
        if guessed > 0 {
            self.recorded.notes.push(format!(
                "{guessed} of these blocks were freed before the snapshot was taken: their sizes follow from what was requested"
            ));
        }
    }

    fn events_so_far(&self) -> u32 {
        u32::try_from(self.recorded.events.len()).unwrap_or(u32::MAX)
    }

    /// The next operation of the trace begins here.
    fn begin_op(&mut self) {
        let at = self.events_so_far();
        self.recorded.first_event.push(at);
    }

    fn operation(&mut self, operation: &Operation) -> Result<(), HistoryError> {
        let range = operation.entries.clone();
        let entries = self.entries;
        let first = &entries[range.start];
        let mut op = self.builder.next_op();
        match operation.kind {
            Kind::Annotate => return Ok(()),
            Kind::Snapshot => {
                self.begin_op();
                self.builder.control(Control::Snapshot(None))?;
            }
            Kind::Free => {
                let id =
                    self.live.remove(&first.addr).ok_or_else(|| HistoryError::Inconsistent {
                        place: self.place(range.start),
                        what: format!("free of {}, which is not allocated", first.addr),
                    })?;
                let is_pending = range.len() == 1;
                if is_pending {
                    self.pending.insert(first.addr, id);
                }
                self.begin_op();
                self.builder.free(id, is_pending)?;
            }
            Kind::FreeTail => {
                let Some(id) = self.live.remove(&first.addr) else { return Ok(()) };
                self.begin_op();
                self.builder.free(id, false)?;
                let requested = Event { action: Action::FreeRequested, ..self.event(first) };
                self.recorded.events.push(requested);
                self.recorded.notes.push(
                    "the first entry is the second half of a free: the ring was full, and what came before is lost".into(),
                );
            }
            Kind::EmptyCache | Kind::MaybeEmptyCache => {
                self.completions(&range, false)?;
                self.pools_released_by(&range)?;
                op = self.builder.next_op();
                if operation.kind == Kind::MaybeEmptyCache {
                    self.recorded.maybe_empty.push(op);
                }
                self.begin_op();
                match self.only_pool_of(&range) {
                    Some(pool) => self.builder.control(Control::EmptyPool(pool))?,
                    None => self.builder.push(Op::EmptyCache)?,
                }
            }
            Kind::Malloc => {
                self.completions(&range, true)?;
                self.pools_released_by(&range)?;
                op = self.builder.next_op();
            }
        }
        // The memory follows the entries; a request is looked up in what there is after them.
        for at in range.clone() {
            self.follow_memory(at, op)?;
        }
        if operation.kind == Kind::Malloc {
            self.malloc(range.end - 1)?;
        }
        for at in range {
            let event = self.event(&entries[at]);
            self.recorded.events.push(event);
        }
        Ok(())
    }

    /// Names the frees that complete in these entries. Those that come first in a request were found
    /// done by asking; later ones, and those of an `empty_cache`, were waited for.
    fn completions(
        &mut self,
        range: &std::ops::Range<usize>,
        is_request: bool,
    ) -> Result<(), HistoryError> {
        let mut polled = is_request;
        for at in range.clone() {
            let entry = &self.entries[at];
            if entry.action != Action::FreeCompleted {
                polled = false;
                continue;
            }
            let id =
                self.pending.remove(&entry.addr).ok_or_else(|| HistoryError::Inconsistent {
                    place: self.place(at),
                    what: format!("completes the free of {}, which nobody requested", entry.addr),
                })?;
            self.recorded.completions.push(id);
            if polled {
                self.begin_op();
                self.builder.push(Op::FreeCompleted(id))?;
            }
        }
        Ok(())
    }

    /// Memory of a private pool goes back only when nobody owns the pool any more.
    fn pools_released_by(&mut self, range: &std::ops::Range<usize>) -> Result<(), HistoryError> {
        let limit = self.recorded.settings.as_ref().and_then(|settings| settings.max_split_size);
        let last = &self.entries[range.end - 1];
        let own_pool = matches!(last.action, Action::Alloc | Action::Oom)
            .then(|| self.snapshot.pool(last))
            .flatten();
        for at in range.clone() {
            let entry = &self.entries[at];
            if !matches!(entry.action, Action::SegmentFree | Action::SegmentUnmap) {
                continue;
            }
            let around = self.ranges.around(Span::new(entry.addr, entry.size));
            let pool = around.and_then(|(_, mapped)| mapped.facts.pool).unwrap_or_default();
            // With max_split_size a request gives oversize blocks of its own pool back.
            let is_own = own_pool == Some(pool) && limit.is_some_and(|limit| entry.size >= limit);
            if pool.is_private() && !is_own && !self.released_pools.contains(&pool) {
                self.released_pools.push(pool);
                self.begin_op();
                self.builder.control(Control::PoolRelease(pool))?;
            }
        }
        Ok(())
    }

    /// The private pool that all entries belong to, if there is one: an `empty_cache` of that pool.
    fn only_pool_of(&self, range: &std::ops::Range<usize>) -> Option<PoolId> {
        let releases =
            |entry: &Entry| matches!(entry.action, Action::SegmentFree | Action::SegmentUnmap);
        if !self.entries[range.clone()].iter().any(releases) {
            return None;
        }
        let mut only = None;
        for entry in &self.entries[range.clone()] {
            let (_, mapped) = self.ranges.around(Span::new(entry.addr, Bytes(1)))?;
            let pool = mapped.facts.pool.filter(|pool| pool.is_private())?;
            if only.is_some_and(|only| only != pool) {
                return None;
            }
            only = Some(pool);
        }
        only
    }

    /// What an entry does to the memory there is.
    fn follow_memory(&mut self, at: usize, op: OpIndex) -> Result<(), HistoryError> {
        let entry = &self.entries[at];
        let span = Span::new(entry.addr, entry.size);
        match entry.action {
            Action::SegmentAlloc | Action::SegmentMap => {
                let facts = self.made.get(&at).copied().unwrap_or_else(|| self.facts_of(entry));
                if let Some(pool) = facts.pool {
                    // New memory: somebody owns the pool, or a new one of this id.
                    self.released_pools.retain(|released| *released != pool);
                }
                self.ranges.add(span, facts).map_err(|misfit| self.misfit(at, &misfit))?;
                if facts.pool.is_none() {
                    let stream = self.builder.stream_of(entry.stream)?;
                    let segment =
                        VanishedSegment { stream, made_by: op, freed_by: op, allocs: Vec::new() };
                    let key = self.chain_or_segment(entry.addr, &facts);
                    self.vanishing.entry(key).or_insert(Vanishing { segment });
                }
            }
            Action::SegmentFree | Action::SegmentUnmap => {
                let facts = self.ranges.take(span).map_err(|misfit| self.misfit(at, &misfit))?;
                let key = self.chain_or_segment(entry.addr, &facts);
                if let Some(gone) = self.vanishing.get_mut(&key) {
                    gone.segment.freed_by = op;
                }
                if !facts.is_expandable
                    && let Some(gone) = self.vanishing.remove(&key)
                {
                    self.recorded.vanished.push(gone.segment);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What names a segment of unknown pool: its address, or where its chain begins.
    fn chain_or_segment(&self, addr: Addr, facts: &Facts) -> Addr {
        let chain = facts.is_expandable.then(|| self.chains.start_of(facts.stream, addr));
        chain.flatten().unwrap_or(addr)
    }

    fn malloc(&mut self, at: usize) -> Result<(), HistoryError> {
        let entry = &self.entries[at];
        let stream = self.builder.stream_of(entry.stream)?;
        let mut pool = self.snapshot.pool(entry).unwrap_or_default();
        let mut unknown = None;
        if entry.action == Action::Alloc {
            if let Some(id) = self.live.get(&entry.addr).or_else(|| self.pending.get(&entry.addr)) {
                let what = format!(
                    "alloc at {}, where allocation {} still is: its free is missing",
                    entry.addr,
                    id.index()
                );
                return Err(HistoryError::Inconsistent { place: self.place(at), what });
            }
            let span = Span::new(entry.addr, entry.size);
            let (addr, mapped) = self.ranges.around(span).ok_or_else(|| {
                HistoryError::Inconsistent {
                    place: self.place(at),
                    what: format!(
                        "alloc at {}, where there is no segment: entries of segments are missing (skip_actions?)",
                        entry.addr
                    ),
                }
            })?;
            match mapped.facts.pool {
                // An entry that names its pool knows best: address space may have changed hands.
                _ if self.recorded.events_name_pools => {}
                Some(known) => pool = known,
                None => unknown = Some(self.chain_or_segment(addr, &mapped.facts)),
            }
        }
        let pool = self.builder.pool(pool)?;
        self.begin_op();
        let op = self.builder.next_op();
        let id = self.builder.alloc(entry.size, stream, pool)?;
        if entry.action == Action::Alloc {
            self.live.insert(entry.addr, id);
        }
        if let Some(vanishing) = unknown.and_then(|addr| self.vanishing.get_mut(&addr)) {
            vanishing.segment.allocs.push(op);
        }
        Ok(())
    }

    fn event(&self, entry: &Entry) -> Event {
        let around = self.ranges.around(Span::new(entry.addr, Bytes(1)));
        let segment_pool = around.and_then(|(_, mapped)| mapped.facts.pool);
        Event {
            action: entry.action,
            addr: entry.addr,
            size: entry.size,
            stream: entry.stream,
            pool: self.snapshot.pool(entry).or(segment_pool).unwrap_or_default(),
        }
    }
}

/// One segment as it was at the start, from the blocks known to be live in it.
/// Also which of its live blocks have a size that is only computed.
fn start_segment(
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
