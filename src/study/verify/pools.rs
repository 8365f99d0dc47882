//! Which pool a segment belonged to, where nothing tells.
//!
//! Up to 2.11 the entries of a history do not name pools; only the segments that are left when the
//! snapshot is taken do. A segment of a private pool that came and went looks like any other. But
//! the model, taking it for one of the default pool, would sooner or later serve a request from
//! other memory than the real allocator did. So at each difference the segments that can be behind
//! it are tried in the other pools, and the assignment that explains most is kept.

use super::lockstep::{self, Run, Terms};
use crate::{
    base::{OpIndex, PoolId, StreamId},
    trace::{Control, Op, PoolIndex, Recorded, Trace},
};

/// How often a recording is run at most to find its pools.
const MAX_RUNS: usize = 600;

/// A recording with pools for its vanished segments.
#[allow(dead_code, reason = "what a replay of such a recording starts from")]
pub(super) struct Resolved {
    pub trace: Trace,
    /// When the owners of a pool must have let it go, for its memory to be given back.
    pub releases: Vec<(OpIndex, Control)>,
    pub run: Run,
    /// How many segments were found to belong to private pools.
    pub moved: usize,
}

/// The assumption for each vanished segment.
type Assumed = Vec<Option<PoolIndex>>;

struct Search<'a> {
    trace: &'a Trace,
    recorded: &'a Recorded,
    terms: &'a Terms,
    runs: usize,
}

/// Finds pools for the vanished segments, starting from a run that took all for the default pool's.
pub(super) fn resolve(
    trace: &Trace,
    recorded: &Recorded,
    terms: &Terms,
    first: Run,
) -> Option<Resolved> {
    if recorded.vanished.is_empty() || first.verdict.is_exact() {
        return None;
    }
    let mut trace = trace.clone();
    let stand_in = trace.stand_in_pool()?;
    let mut search = Search { trace: &trace, recorded, terms, runs: 0 };
    let mut assumed: Assumed = vec![None; recorded.vanished.len()];
    let mut best = first;
    while let Some(at) = best.stopped_at.or_else(|| end_of(&best, &trace))
        && let Some((better, run)) = search.improve(&assumed, &best, at, stand_in)
    {
        assumed = better;
        best = run;
        if best.verdict.is_exact() {
            break;
        }
    }
    let moved = assumed.iter().flatten().count();
    if moved == 0 {
        return None;
    }
    let (resolved, releases) = search.assume(&assumed);
    Some(Resolved { trace: resolved, releases, run: best, moved })
}

/// A run that only differs at its end is still looked at.
fn end_of(run: &Run, trace: &Trace) -> Option<OpIndex> {
    let is_open = !run.verdict.is_exact();
    is_open.then(|| OpIndex::from_index(trace.ops().len()))
}

impl Search<'_> {
    /// The trace under an assumption, and when its pools were let go.
    fn assume(&self, assumed: &Assumed) -> (Trace, Vec<(OpIndex, Control)>) {
        let mut trace = self.trace.clone();
        let mut releases: Vec<(OpIndex, PoolId)> = Vec::new();
        for (segment, pool) in self.recorded.vanished.iter().zip(assumed) {
            let Some(pool) = *pool else { continue };
            trace.set_pool(&segment.allocs, Some(pool));
            let id = trace.pools()[pool];
            if let Some(start) = segment.start {
                trace.set_start_pool(start, id);
            }
            match releases.iter_mut().find(|(_, known)| *known == id) {
                Some((at, _)) => *at = (*at).min(segment.freed_by),
                None => releases.push((segment.freed_by, id)),
            }
        }
        // What the history shows itself is part of the trace already.
        let shown = |id: PoolId| {
            trace.ops().iter().any(|op| match op {
                Op::Control(control) => trace.controls()[*control] == Control::PoolRelease(id),
                _ => false,
            })
        };
        releases.retain(|(_, id)| !shown(*id));
        releases.sort_unstable();
        let release = |(at, id)| (at, Control::PoolRelease(id));
        (trace, releases.into_iter().map(release).collect())
    }

    fn run(&mut self, assumed: &Assumed) -> Run {
        self.runs += 1;
        let (trace, releases) = self.assume(assumed);
        lockstep::run(&trace, self.recorded, self.terms, &releases)
    }

    /// Some segments moved to another pool so that the comparison comes further: one, or where that
    /// does not help, those that were given back together, or all of a stream from one on.
    fn improve(
        &mut self,
        assumed: &Assumed,
        best: &Run,
        at: OpIndex,
        stand_in: PoolIndex,
    ) -> Option<(Assumed, Run)> {
        let vanished = &self.recorded.vanished;
        // The latest segments first: what made the difference is near it.
        let mut candidates: Vec<usize> =
            (0..assumed.len()).filter(|i| vanished[*i].made_by <= at).collect();
        candidates.sort_by_key(|i| std::cmp::Reverse(vanished[*i].made_by));
        let singles: Vec<Vec<usize>> = candidates.iter().map(|i| vec![*i]).collect();
        let with = |i: usize, belongs: &dyn Fn(usize) -> bool| -> Vec<usize> {
            let same_stream = |j: &usize| vanished[*j].stream == vanished[i].stream;
            candidates.iter().copied().filter(same_stream).filter(|j| belongs(*j)).collect()
        };
        let together = candidates.iter().filter(|i| vanished[**i].freed_by >= at);
        let together = together
            .map(|i| with(*i, &|j| vanished[j].freed_by == vanished[*i].freed_by))
            .collect();
        let suffixes = candidates.iter();
        let suffixes =
            suffixes.map(|i| with(*i, &|j| vanished[j].made_by >= vanished[*i].made_by)).collect();
        [singles, together, suffixes]
            .iter()
            .find_map(|groups| self.best_move(assumed, best, groups, stand_in))
    }

    /// The move of one of the groups that brings the comparison furthest.
    fn best_move(
        &mut self,
        assumed: &Assumed,
        best: &Run,
        groups: &[Vec<usize>],
        stand_in: PoolIndex,
    ) -> Option<(Assumed, Run)> {
        let known = (0..self.trace.pools().len()).filter_map(PoolIndex::from_index);
        let known = known.filter(|pool| *pool != stand_in).map(Some);
        let known: Vec<Option<PoolIndex>> = known.collect();
        // A pool that nothing in the file shows is believed of side streams, or where others are.
        let is_believable = !known.is_empty()
            || groups.iter().flatten().any(|i| self.recorded.vanished[*i].stream != StreamId(0));
        let stand_in = is_believable.then_some(Some(stand_in));
        let pools: Vec<Option<PoolIndex>> =
            known.into_iter().chain([None]).chain(stand_in).collect();
        let mut found: Option<(Assumed, Run)> = None;
        for group in groups {
            for pool in &pools {
                let mut next = assumed.clone();
                group.iter().for_each(|i| next[*i] = *pool);
                if next == *assumed {
                    continue;
                }
                if self.runs >= MAX_RUNS {
                    return found;
                }
                let run = self.run(&next);
                if run.verdict.is_exact() {
                    return Some((next, run));
                }
                let reached = found.as_ref().map_or(best.equal_events, |(_, run)| run.equal_events);
                if run.equal_events > reached {
                    found = Some((next, run));
                }
            }
        }
        found
    }
}
