//! [`Rebuild`]: one device's history on its way to a trace. What was there before it began.

use rustc_hash::FxHashMap;

use super::{
    census::Census,
    history, overlap,
    ranges::{Chains, Facts, Misfit, Ranges},
    raw::{Action, BlockState, Entry, Segment, Snapshot},
    shown,
    start::{StartLive, start_segment},
    traces::HistoryError,
};
use crate::{
    base::{Addr, AllocId, Bytes, DeviceIndex, OpIndex, PoolId, Span, StreamHandle},
    source::beside::beside,
    trace::{Layout, Recorded, SegmentLayout, Trace, TraceBuilder, VanishedSegment},
};

/// A history on its way to a trace.
pub(super) struct Rebuild<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) index: usize,
    pub(super) entries: &'a [Entry],
    census: Census,
    pub(super) builder: TraceBuilder,
    /// The memory there is now.
    pub(super) ranges: Ranges,
    pub(super) chains: Chains,
    /// What the segments made within the history are known to be, by the entry that made them.
    pub(super) made: FxHashMap<usize, Facts>,
    pub(super) live: FxHashMap<Addr, AllocId>,
    pub(super) pending: FxHashMap<Addr, AllocId>,
    /// Segments of unknown pool that are there now, by address.
    pub(super) vanishing: FxHashMap<Addr, VanishedSegment>,
    pub(super) released_pools: Vec<PoolId>,
    pub(super) recorded: Recorded,
    /// Number of events so far.
    pub(super) events: usize,
    /// Events of a pool that their entries do not name.
    pub(super) pools_of_events: Vec<(usize, PoolId)>,
    /// Whether a pool may be known that the entries do not name.
    pub(super) has_private_pools: bool,
}

impl<'a> Rebuild<'a> {
    /// Also the blocks that were live before the first entry, or an entry that contradicts the others.
    fn new(
        snapshot: &'a Snapshot,
        index: usize,
        entries: &'a [Entry],
    ) -> (Self, Result<StartLive, (usize, Misfit)>) {
        let device = DeviceIndex::from_index(index);
        let segments: Vec<&Segment> =
            snapshot.segments.iter().filter(|s| s.device == device).collect();
        let end = Ranges::of(&segments);
        let layout = snapshot.layout(device);
        let (start_live, (census, chains, events)) = beside(
            entries.len(),
            || StartLive::of(entries, &layout),
            || {
                let census = Census::of(entries, &snapshot.sites);
                let chains = Chains::of(&end, entries, &census, |entry| {
                    (snapshot.site(entry).stream, snapshot.pool(entry))
                });
                (census, chains, shown::events(snapshot, entries))
            },
        );
        let is_private = |segment: &&Segment| segment.pool_id.is_some_and(PoolId::is_private);
        let has_private_pools =
            segments.iter().any(is_private) || snapshot.pools.iter().any(|pool| pool.is_private());
        let events_name_pools = census.names_pools;
        let requests = [Action::Alloc, Action::Oom, Action::FreeRequested, Action::Snapshot];
        let ops = requests.iter().map(|action| census.count(*action)).sum();
        let mut builder = TraceBuilder::new(device);
        builder.reserve(ops);
        let this = Self {
            snapshot,
            index,
            entries,
            census,
            builder,
            ranges: end,
            chains,
            made: FxHashMap::default(),
            live: FxHashMap::default(),
            pending: FxHashMap::default(),
            vanishing: FxHashMap::default(),
            released_pools: Vec::new(),
            recorded: Recorded {
                end: layout,
                events,
                first_event: Vec::with_capacity(ops + 1),
                events_name_pools,
                releases: snapshot.release_range(),
                settings: snapshot.recorded_settings(),
                ..Recorded::default()
            },
            events: 0,
            pools_of_events: Vec::new(),
            has_private_pools,
        };
        (this, start_live)
    }

    /// The trace of one device.
    pub(super) fn trace(
        snapshot: &'a Snapshot,
        index: usize,
        entries: &'a [Entry],
    ) -> Result<Trace, HistoryError> {
        let (rebuild, start_live) = Self::new(snapshot, index, entries);
        rebuild.refuse_skipped_actions()?;
        let start_live = start_live.map_err(|(entry, misfit)| rebuild.misfit(entry, &misfit))?;
        rebuild.rebuild(&start_live)
    }

    pub(super) fn place(&self, entry: usize) -> String {
        format!("device_traces[{}][{entry}]", self.index)
    }

    pub(super) fn misfit(&self, entry: usize, misfit: &Misfit) -> HistoryError {
        let name = self.entries[entry].action.name();
        HistoryError::Inconsistent {
            place: self.place(entry),
            what: format!("{name}: {}", misfit.0),
        }
    }

    fn rebuild(mut self, start_live: &StartLive) -> Result<Trace, HistoryError> {
        let entries = self.entries;
        let (overlap, followed) = beside(
            entries.len(),
            || overlap::first_overlap(entries, start_live),
            || self.follow(start_live),
        );
        if let Some((entry, misfit)) = overlap {
            return Err(self.misfit(entry, &misfit));
        }
        followed?;
        self.recorded.first_event.push(self.events_so_far());
        for (at, pool) in std::mem::take(&mut self.pools_of_events) {
            self.recorded.events.set_pool(at, pool);
        }
        let chains = std::mem::take(&mut self.vanishing).into_values();
        self.recorded.vanished.extend(chains);
        self.recorded.vanished.sort_by_key(|segment| (segment.made_by, segment.start));
        if !start_live.is_behind.is_empty() {
            self.recorded.notes.push(format!(
                "the snapshot was taken a little later than its history ends: {} blocks differ",
                start_live.is_behind.len()
            ));
        }
        self.builder.recorded(self.recorded);
        Ok(self.builder.build())
    }

    fn follow(&mut self, start_live: &StartLive) -> Result<(), HistoryError> {
        self.rewind()?;
        self.build_start(start_live)?;
        for operation in history::operations(self.entries) {
            self.operation(&operation)?;
        }
        Ok(())
    }

    /// `skip_actions` drops kinds of entries without a word.
    fn refuse_skipped_actions(&self) -> Result<(), HistoryError> {
        let count = |action: Action| self.census.count(action);
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

    pub(super) fn stream(&self, entry: &Entry) -> StreamHandle {
        self.snapshot.site(entry).stream
    }

    pub(super) fn facts_of(&self, entry: &Entry) -> Facts {
        let pool = self.snapshot.pool(entry);
        if matches!(entry.action, Action::SegmentMap | Action::SegmentUnmap)
            && let Some(facts) = self.chains.facts_at(self.stream(entry), entry.addr)
        {
            return Facts { pool: pool.or(facts.pool), ..facts };
        }
        Facts {
            stream: self.stream(entry),
            pool,
            is_small: entry.size == Bytes::mib(2),
            is_expandable: false,
        }
    }

    /// From the end of the history to its start.
    fn rewind(&mut self) -> Result<(), HistoryError> {
        let memory = std::mem::take(&mut self.census.memory);
        for at in memory.into_iter().rev() {
            let entry = &self.entries[at];
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
        for (index, segment) in segments.iter().enumerate() {
            let stream = self.builder.stream_of(segment.stream)?;
            let known = self.ranges.around(Span::new(segment.addr, Bytes(1)));
            let has_pool = known.is_none_or(|(_, mapped)| mapped.facts.pool.is_some());
            if has_pool || segment.is_expandable {
                continue;
            }
            let first = OpIndex(0);
            let vanishing = VanishedSegment {
                stream,
                start: Some(index),
                made_by: first,
                freed_by: first,
                allocs: Vec::new(),
            };
            self.vanishing.insert(segment.addr, vanishing);
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
}
