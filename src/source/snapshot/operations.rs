//! The operations of a history, one after the other: what was asked, and what else must have happened.

use super::{
    history::{Kind, Operation},
    ranges::Facts,
    raw::{Action, Entry},
    rebuild::Rebuild,
    traces::HistoryError,
};
use crate::{
    base::{Addr, AllocId, Bytes, Id, OpIndex, PoolId, Span},
    trace::{Control, Op, VanishedSegment},
};

impl Rebuild<'_> {
    pub(super) fn events_so_far(&self) -> u32 {
        u32::try_from(self.events).unwrap_or(u32::MAX)
    }

    /// The next operation of the trace begins here.
    fn begin_op(&mut self) {
        let at = self.events_so_far();
        self.recorded.first_event.push(at);
    }

    pub(super) fn operation(&mut self, operation: &Operation) -> Result<(), HistoryError> {
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
                let id = self.not_live(range.start)?;
                let is_pending = range.len() == 1;
                if is_pending {
                    self.pending.insert(first.addr, id);
                }
                self.begin_op();
                self.builder.free(id, is_pending)?;
            }
            Kind::FreeTail => {
                let id = self.not_live(range.start)?;
                self.begin_op();
                self.builder.free(id, false)?;
                // The half that was lost is an event too.
                self.pool_of_event(first);
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
            self.pool_of_event(&entries[at]);
        }
        Ok(())
    }

    /// The allocation that an entry frees is not live from here on.
    fn not_live(&mut self, at: usize) -> Result<AllocId, HistoryError> {
        let addr = self.entries[at].addr;
        self.live.remove(&addr).ok_or_else(|| HistoryError::Inconsistent {
            place: self.place(at),
            what: format!("free of {addr}, which is not allocated"),
        })
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
                    let stream = self.builder.stream_of(self.stream(entry))?;
                    let segment = VanishedSegment {
                        stream,
                        start: None,
                        made_by: op,
                        freed_by: op,
                        allocs: Vec::new(),
                    };
                    let key = self.chain_or_segment(entry.addr, &facts);
                    self.vanishing.entry(key).or_insert(segment);
                }
            }
            Action::SegmentFree | Action::SegmentUnmap => {
                let facts = self.ranges.take(span).map_err(|misfit| self.misfit(at, &misfit))?;
                let key = self.chain_or_segment(entry.addr, &facts);
                if let Some(gone) = self.vanishing.get_mut(&key) {
                    gone.freed_by = op;
                }
                if !facts.is_expandable
                    && let Some(gone) = self.vanishing.remove(&key)
                {
                    self.recorded.vanished.push(gone);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What names a segment of unknown pool: its address, or where its chain begins.
    pub(super) fn chain_or_segment(&self, addr: Addr, facts: &Facts) -> Addr {
        let chain = facts.is_expandable.then(|| self.chains.start_of(facts.stream, addr));
        chain.flatten().unwrap_or(addr)
    }

    fn malloc(&mut self, at: usize) -> Result<(), HistoryError> {
        let entry = &self.entries[at];
        let stream = self.builder.stream_of(self.stream(entry))?;
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
            vanishing.allocs.push(op);
        }
        Ok(())
    }

    /// The next event is that of this entry. Where the entry does not name its pool, the segment that
    /// it is in does.
    fn pool_of_event(&mut self, entry: &Entry) {
        if self.has_private_pools && self.snapshot.pool(entry).is_none() {
            let around = self.ranges.around(Span::new(entry.addr, Bytes(1)));
            let pool = around.and_then(|(_, mapped)| mapped.facts.pool);
            if let Some(pool) = pool.filter(|pool| pool.is_private()) {
                self.pools_of_events.push((self.events, pool));
            }
        }
        self.events += 1;
    }
}
