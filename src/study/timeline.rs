//! [`Timeline`]: one replay watched all along, for pictures.

use crate::{
    base::{Bytes, OpIndex},
    models::pytorch::rounding::DivisionOne,
    observe::{Count, FragmentationSeries, Lives, MemorySeries},
    sim::OnOom,
    trace::Op,
};

use super::{
    explain::{Failed, Question, Scene},
    labels::{LabelSeries, over_time},
    whatif::{Program, Replayed, Terms, Watch, full},
};

/// How much of a replay is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detail {
    /// Buckets of each series.
    pub buckets: usize,
    /// Whether the lives of all blocks and segments are kept.
    pub lives: bool,
}

/// A replay over time.
#[derive(Debug)]
pub struct Timeline {
    /// What it came to.
    pub replayed: Replayed,
    /// Requested, allocated, active and reserved.
    pub memory: MemorySeries,
    /// What is live by label, in the buckets of `memory`; empty without labels, and where requests were
    /// left out of the replay.
    pub labels: LabelSeries,
    /// What is free, and how much of it lies outside the largest free block.
    pub fragmentation: FragmentationSeries,
    /// Blocks and segments; empty if they were not to be kept.
    pub lives: Lives,
}

/// Replays a program and watches it.
///
/// # Complexity
/// One replay.
pub fn timeline(program: &Program, terms: &Terms, detail: Detail) -> Timeline {
    let series = (MemorySeries::new(detail.buckets), FragmentationSeries::new(detail.buckets));
    let watchers = (Count::default(), series);
    let (mut replayed, (count, series), lives) = if detail.lives {
        let lives = Lives::new(program.trace.start_ids().to_vec());
        let (replayed, (watchers, lives)) = full(program, terms, (watchers, lives));
        (replayed, watchers, lives)
    } else {
        let (replayed, watchers) = full(program, terms, watchers);
        (replayed, watchers, Lives::default())
    };
    replayed.events = count.events;
    let labels = match (replayed.outcome.failures, terms.on_oom) {
        (1.., OnOom::Skip) => LabelSeries::default(),
        _ => over_time(&program.trace, series.0.buckets()),
    };
    Timeline { replayed, memory: series.0, labels, fragmentation: series.1, lives }
}

/// Why the first request fails that is not served, as [`explain`](super::explain) says it; `None`
/// where all are, or where the allocator does not get to see it.
///
/// # Complexity
/// Two replays up to it.
pub fn first_failure(program: &Program, terms: &Terms) -> Option<Failed> {
    Failed::of(&mut Scene::of(program, terms, &Question::Failure(1)).ok()??)
}

/// What decides whether a free block serves a request, and what it needs if none does. Of the
/// settings that a replay begins with.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SearchRules {
    /// Blocks from this size on are not split for smaller requests; `None` without such a rule.
    pub max_split_size: Option<Bytes>,
    /// Blocks of at least that size may be so much larger than a request.
    pub max_non_split_rounding: Option<Bytes>,
    /// The segment for medium sizes.
    pub large_segment: Bytes,
    /// `roundup_power2_divisions`.
    pub divisions: [u64; 16],
    /// The smallest of these that does anything.
    pub least_division: u64,
    /// Whether segments are expandable.
    pub expandable: bool,
    /// What the allocator can have at most; `None` without a capacity.
    pub available: Option<Bytes>,
}

impl SearchRules {
    /// Those of a replay on a device of this capacity, which may be unknown.
    pub fn of(terms: &Terms, replayed: &Replayed, capacity: Option<Bytes>) -> Self {
        let conf = &terms.conf;
        // Larger values mean that there is no such rule.
        let limit = |bytes: Bytes| (bytes < Bytes(1 << 52)).then_some(bytes);
        let outside = terms.context.checked_add(terms.external).unwrap_or(Bytes::MAX);
        let left = capacity.map(|capacity| capacity.saturating_sub(outside));
        Self {
            max_split_size: limit(conf.max_split_size),
            max_non_split_rounding: limit(conf.max_non_split_rounding_size),
            large_segment: conf.large_segment_size,
            divisions: conf.roundup_power2_divisions,
            least_division: DivisionOne::of(terms.release).least(),
            expandable: conf.expandable_segments,
            available: left.map(|left| left.min(replayed.limit.unwrap_or(Bytes::MAX))),
        }
    }
}

impl Watch for MemorySeries {
    #[inline]
    fn at(&mut self, number: OpIndex, _op: &Op) {
        self.begin(number);
    }
}

impl Watch for FragmentationSeries {
    #[inline]
    fn at(&mut self, number: OpIndex, _op: &Op) {
        self.at = number;
    }
}

impl Watch for Lives {
    #[inline]
    fn at(&mut self, number: OpIndex, op: &Op) {
        self.now = number.0.saturating_add(1);
        self.id = match op {
            Op::Alloc(alloc) => Some(alloc.id),
            _ => None,
        };
    }
}
