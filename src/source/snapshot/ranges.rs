//! The segments of a device over its history: which memory there was at each entry, and which pool
//! it belonged to.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::{
    census::Census,
    raw::{Action, Entry, Segment, SegmentType},
};
use crate::base::{Addr, Bytes, PoolId, Span, StreamHandle};

/// What is known of a segment, or of the chain of ranges of an expandable segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub stream: StreamHandle,
    /// `None` where nothing tells.
    pub pool: Option<PoolId>,
    pub is_small: bool,
    pub is_expandable: bool,
}

/// One segment or mapped range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    pub size: Bytes,
    pub facts: Facts,
}

/// The memory that is there at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges {
    /// By address. Looked at for every entry of a history, changed for few.
    by_addr: Vec<(Addr, Mapped)>,
}

/// An entry that does not fit the memory that the rest of the history implies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Misfit(pub String);

impl Ranges {
    /// The state that a snapshot shows.
    pub(super) fn of(segments: &[&Segment]) -> Self {
        let by_addr = segments.iter().map(|segment| {
            let facts = Facts {
                stream: segment.stream,
                pool: Some(segment.pool_id.unwrap_or_default()),
                is_small: segment.segment_type == SegmentType::Small,
                is_expandable: segment.is_expandable.unwrap_or(false),
            };
            (segment.address, Mapped { size: segment.total_size, facts })
        });
        let mut by_addr: Vec<_> = by_addr.collect();
        by_addr.sort_by_key(|(addr, _)| *addr);
        // Segments of one address have no bytes but for one: the last counts.
        by_addr.reverse();
        by_addr.dedup_by_key(|(addr, _)| *addr);
        by_addr.reverse();
        Self { by_addr }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Addr, &Mapped)> {
        self.by_addr.iter().map(|(addr, mapped)| (*addr, mapped))
    }

    /// The last range that starts below `end`.
    #[inline]
    fn last_below(&self, end: Addr) -> Option<usize> {
        self.by_addr.partition_point(|(addr, _)| *addr < end).checked_sub(1)
    }

    fn insert(&mut self, addr: Addr, mapped: Mapped) {
        match self.by_addr.binary_search_by_key(&addr, |(addr, _)| *addr) {
            Ok(at) => self.by_addr[at].1 = mapped,
            Err(at) => self.by_addr.insert(at, (addr, mapped)),
        }
    }

    /// The range that holds all of `span`.
    pub(super) fn around(&self, span: Span) -> Option<(Addr, &Mapped)> {
        let at = self.by_addr.partition_point(|(addr, _)| *addr <= span.start).checked_sub(1)?;
        let (addr, mapped) = &self.by_addr[at];
        (Span::new(*addr, mapped.size).end() >= span.end()).then_some((*addr, mapped))
    }

    fn overlaps(&self, span: Span) -> Option<Addr> {
        let (addr, mapped) = self.by_addr[self.last_below(span.end())?];
        Span::new(addr, mapped.size).overlaps(span).then_some(addr)
    }

    /// Adds memory; ranges of expandable segments join those that they touch.
    pub(super) fn add(&mut self, span: Span, facts: Facts) -> Result<(), Misfit> {
        if let Some(other) = self.overlaps(span) {
            return Err(Misfit(format!("memory at {span} overlaps the segment at {other}")));
        }
        let mut joined = span;
        if facts.is_expandable {
            let same = |other: &Mapped| {
                other.facts.is_expandable
                    && other.facts.stream == facts.stream
                    && other.facts.is_small == facts.is_small
                    && (other.facts.pool == facts.pool
                        || other.facts.pool.is_none()
                        || facts.pool.is_none())
            };
            if let Ok(at) = self.by_addr.binary_search_by_key(&span.end(), |(addr, _)| *addr)
                && same(&self.by_addr[at].1)
            {
                joined.size += self.by_addr.remove(at).1.size;
            }
            if let Some(at) = self.last_below(span.start)
                && let (addr, below) = self.by_addr[at]
                && Span::new(addr, below.size).end() == span.start
                && same(&below)
            {
                joined = Span::new(addr, below.size + joined.size);
            }
        }
        self.insert(joined.start, Mapped { size: joined.size, facts });
        Ok(())
    }

    /// Takes memory away; from a range of an expandable segment any part.
    pub(super) fn take(&mut self, span: Span) -> Result<Facts, Misfit> {
        let (addr, mapped) = match self.around(span) {
            Some((addr, mapped)) => (addr, *mapped),
            None => return Err(Misfit(format!("there is no memory at {span}"))),
        };
        let whole = Span::new(addr, mapped.size);
        if whole != span && !mapped.facts.is_expandable {
            return Err(Misfit(format!("the segment at {addr} has {} bytes", mapped.size.0)));
        }
        if let Ok(at) = self.by_addr.binary_search_by_key(&addr, |(addr, _)| *addr) {
            self.by_addr.remove(at);
        }
        if whole.start < span.start {
            let size = span.start - whole.start;
            self.insert(addr, Mapped { size, ..mapped });
        }
        if span.end() < whole.end() {
            let size = whole.end() - span.end();
            self.insert(span.end(), Mapped { size, ..mapped });
        }
        Ok(mapped.facts)
    }
}

/// The chains of expandable segments of each stream: every range that was ever mapped, joined where
/// they touch. A chain grows from its start without a gap, so what touches belongs together. (Streams
/// never share a segment, but one may get the address space that another gave back.)
#[derive(Clone, Debug, Default)]
pub(super) struct Chains {
    by_stream: FxHashMap<StreamHandle, BTreeMap<Addr, (Bytes, Facts)>>,
}

impl Chains {
    pub(super) fn of(
        end: &Ranges,
        entries: &[Entry],
        census: &Census,
        place: impl Fn(&Entry) -> (StreamHandle, Option<PoolId>),
    ) -> Self {
        let mut chains = Self::default();
        let memory = census.memory.iter().map(|at| &entries[*at]);
        let maps = memory
            .filter(|entry| matches!(entry.action, Action::SegmentMap | Action::SegmentUnmap));
        for entry in maps {
            let (stream, pool) = place(entry);
            let facts = Facts {
                stream,
                pool,
                is_small: entry.size.0 % Bytes::mib(20).0 != 0,
                is_expandable: true,
            };
            chains.join(Span::new(entry.addr, entry.size), facts, false);
        }
        chains.judge_by_requests(entries, |entry| place(entry).0);
        for (addr, mapped) in end.iter().filter(|(_, mapped)| mapped.facts.is_expandable) {
            chains.join(Span::new(addr, mapped.size), mapped.facts, true);
        }
        chains
    }

    /// Requests tell which half of a pool a chain is: more than 1 MiB is never served by the small
    /// one. The size of its ranges is a poorer guess, kept where nothing was asked.
    fn judge_by_requests(&mut self, entries: &[Entry], stream: impl Fn(&Entry) -> StreamHandle) {
        if self.by_stream.is_empty() {
            return;
        }
        let mut largest: FxHashMap<(StreamHandle, Addr), Bytes> = FxHashMap::default();
        for entry in entries.iter().filter(|entry| entry.action == Action::Alloc) {
            let stream = stream(entry);
            if let Some(start) = self.start_of(stream, entry.addr) {
                let known = largest.entry((stream, start)).or_default();
                *known = entry.size.max(*known);
            }
        }
        for ((stream, start), size) in largest {
            if let Some((_, facts)) =
                self.by_stream.get_mut(&stream).and_then(|by_addr| by_addr.get_mut(&start))
            {
                facts.is_small = size <= Bytes::mib(1);
            }
        }
    }

    /// Each chain with its stream, in the order of streams and addresses.
    pub(super) fn iter(&self) -> impl Iterator<Item = (StreamHandle, Span)> {
        let mut streams: Vec<_> = self.by_stream.iter().collect();
        streams.sort_unstable_by_key(|(stream, _)| **stream);
        streams.into_iter().flat_map(|(stream, by_addr)| {
            by_addr.iter().map(|(addr, (size, _))| (*stream, Span::new(*addr, *size)))
        })
    }

    /// Joins a range in; what a snapshot says (`is_certain`) counts for the whole chain.
    fn join(&mut self, span: Span, facts: Facts, is_certain: bool) {
        let by_addr = self.by_stream.entry(facts.stream).or_default();
        let (mut whole, mut known) = (span, facts);
        while let Some((&addr, &(size, other))) = by_addr.range(..=whole.end()).next_back() {
            let theirs = Span::new(addr, size);
            if theirs.end() < whole.start {
                break;
            }
            by_addr.remove(&addr);
            let start = whole.start.min(theirs.start);
            whole = Span::new(start, whole.end().max(theirs.end()) - start);
            if !is_certain {
                known.is_small |= other.is_small;
                known.pool = known.pool.or(other.pool);
            }
        }
        by_addr.insert(whole.start, (whole.size, known));
    }

    fn at(&self, stream: StreamHandle, addr: Addr) -> Option<(Addr, Facts)> {
        let by_addr = self.by_stream.get(&stream)?;
        let (&start, &(size, facts)) = by_addr.range(..=addr).next_back()?;
        Span::new(start, size).contains(addr).then_some((start, facts))
    }

    /// Where the chain of a stream at `addr` begins.
    pub(super) fn start_of(&self, stream: StreamHandle, addr: Addr) -> Option<Addr> {
        self.at(stream, addr).map(|(start, _)| start)
    }

    /// What is known of the chain of a stream at `addr`.
    pub(super) fn facts_at(&self, stream: StreamHandle, addr: Addr) -> Option<Facts> {
        self.at(stream, addr).map(|(_, facts)| facts)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const PLAIN: Facts =
        Facts { stream: StreamHandle(0), pool: None, is_small: false, is_expandable: false };
    const RANGE: Facts = Facts { is_expandable: true, ..PLAIN };

    fn span(start: u64, size: u64) -> Span {
        Span::new(Addr(start), Bytes(size))
    }

    fn with(spans: &[(u64, u64)], facts: Facts) -> Ranges {
        let mut ranges = Ranges::default();
        for (start, size) in spans {
            ranges.add(span(*start, *size), facts).unwrap();
        }
        ranges
    }

    #[expect(clippy::needless_pass_by_value, reason = "a picture reads best as a value")]
    fn check(ranges: &Ranges, expected: Expect) {
        let shown: Vec<String> =
            ranges.iter().map(|(addr, m)| format!("{}+{}", addr.0, m.size.0)).collect();
        expected.assert_eq(&shown.join(" "));
    }

    #[test]
    fn expandable_ranges_that_touch_are_one() {
        check(&with(&[(0, 10), (20, 10), (10, 10)], RANGE), expect!["0+30"]);
        check(&with(&[(0, 10), (20, 10), (10, 10)], PLAIN), expect!["0+10 10+10 20+10"]);
    }

    #[test]
    fn ranges_of_two_streams_stay_apart() {
        let mut ranges = with(&[(0, 10)], RANGE);
        ranges.add(span(10, 10), Facts { stream: StreamHandle(7), ..RANGE }).unwrap();
        check(&ranges, expect!["0+10 10+10"]);
    }

    #[test]
    fn any_part_of_an_expandable_range_can_be_unmapped() {
        let mut ranges = with(&[(0, 30)], RANGE);
        ranges.take(span(10, 10)).unwrap();
        check(&ranges, expect!["0+10 20+10"]);
    }

    #[test]
    fn a_segment_goes_as_a_whole() {
        let mut ranges = with(&[(0, 30)], PLAIN);
        let misfit = ranges.take(span(10, 10)).unwrap_err();
        expect!["the segment at 0x0 has 30 bytes"].assert_eq(&misfit.0);
        let misfit = ranges.take(span(40, 10)).unwrap_err();
        expect!["there is no memory at 0x28+10"].assert_eq(&misfit.0);
        ranges.take(span(0, 30)).unwrap();
        check(&ranges, expect![""]);
    }

    #[test]
    fn memory_is_not_there_twice() {
        let misfit = with(&[(0, 30)], PLAIN).add(span(20, 20), PLAIN).unwrap_err();
        expect!["memory at 0x14+20 overlaps the segment at 0x0"].assert_eq(&misfit.0);
    }
}
