//! [`explain`]: everything about one failed request.

use std::collections::BTreeMap;

use rustc_hash::FxHashSet;

use super::{
    Arithmetic, BlockingSet, Failed, FreeMap, Held, Objective, Origin, Pin, Remedy, Scene, Verdict,
    blocking_set, held::Makers, pins, remedies, words,
};
use crate::{
    base::{AllocId, Bytes},
    models::pytorch::PyTorch,
    observe::fragmentation::{self, Fragmentation},
    sim::Allocator,
    study::whatif::{Program, Terms},
    trace::{AllocOp, Layout, TraceError},
};

/// The answer.
#[derive(Debug)]
pub struct Explanation {
    /// The operation that the request is, or before which it is made.
    pub op: u64,
    /// Where it comes from.
    pub origin: Origin,
    /// The request.
    pub request: AllocOp,
    /// PyTorch's message; `None` if it is served.
    pub message: Option<String>,
    /// Why.
    pub verdict: Verdict,
    /// The sums; all zero where the allocator does not get to see the request.
    pub sums: Arithmetic,
    /// What is free; `None` where the allocator does not get to see the request.
    pub map: Option<FreeMap>,
    /// Fragmentation at that moment.
    pub fragmentation: Fragmentation,
    /// The unusable free space index for this request: see [`fragmentation::unusable_free_index`].
    pub unusable: f64,
    /// The cheapest set in bytes, and the one of fewest blocks.
    pub blocking: [Option<BlockingSet>; 2],
    /// The segments that somebody pins, most free bytes first.
    pub pins: Vec<Pin>,
    /// All live blocks that are named above.
    pub held: BTreeMap<AllocId, Held>,
    /// What would have helped, and what not.
    pub remedies: Vec<Remedy>,
    /// What the usual advice gets wrong here, and what else there is to know.
    pub notes: Vec<String>,
}

/// How much is worked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Segments whose holders are named.
    pub pins: usize,
    /// Holders that are named of each.
    pub holders: usize,
    /// Whether remedies are replayed.
    pub remedies: bool,
}

impl Default for Effort {
    fn default() -> Self {
        Self { pins: 5, holders: 3, remedies: true }
    }
}

/// Explains a scene of `program` under `terms`. `fresh` is the same program with its start asked for,
/// for replays under other settings; `program` itself where the start is empty.
///
/// # Errors
/// When there are too many operations to number.
///
/// # Complexity
/// That of [`blocking_set`], and about thirty replays for the remedies.
pub fn explain(
    scene: &mut Scene,
    program: &Program,
    fresh: &Program,
    terms: &Terms,
    effort: Effort,
) -> Result<Explanation, TraceError> {
    let request = scene.request;
    let asked = scene.before.asked(&request);
    let short = Failed::of(scene);
    let failed = scene.error.is_some();
    let model = if failed { &scene.after } else { &scene.before };
    let layout = model.layout();
    let (sums, why, map) = match short {
        Some(Failed { verdict, sums, map }) => (sums, verdict, Some(map)),
        None if failed => (Arithmetic::default(), Verdict::Error, None),
        None => (Arithmetic::default(), Verdict::Served, None),
    };
    let mut pins = pins(scene);
    pins.truncate(effort.pins);
    let is_short = failed && why != Verdict::Error;
    let blocking = match &asked {
        Some(asked) if is_short => {
            [Objective::Bytes, Objective::Count].map(|what| blocking_set(scene, asked, what))
        }
        _ => [None, None],
    };
    let mut named: FxHashSet<AllocId> = FxHashSet::default();
    named.extend(blocking.iter().flatten().flat_map(|set| set.ids.iter()));
    named.extend(pins.iter().flat_map(|pin| pin.holders.iter().take(effort.holders)));
    let makers = Makers::of(program, named.iter().copied());
    let before = scene.before.layout();
    let held = named.iter().filter_map(|id| Some((*id, makers.held(scene, &before, *id)?)));
    let held = held.collect();
    let remedies = match effort.remedies && is_short {
        true => all_remedies(scene, program, fresh, terms, blocking[0].as_ref())?,
        false => Vec::new(),
    };
    let rounded = asked.as_ref().map_or(request.size, |asked| asked.rounded);
    Ok(Explanation {
        op: scene.op,
        origin: scene.origin,
        request,
        message: scene.error.as_ref().map(ToString::to_string),
        verdict: why,
        sums,
        fragmentation: measures(model, &layout),
        unusable: fragmentation::unusable_free_index(&layout, rounded),
        notes: words::notes(scene, terms, why, &sums, asked.as_ref(), &remedies),
        map,
        blocking,
        pins,
        held,
        remedies,
    })
}

fn measures(model: &PyTorch, layout: &Layout) -> Fragmentation {
    let large_granule = model.conf().large_segment_size;
    let round = |size: Bytes| model.rounded(size);
    Fragmentation::of(layout, &fragmentation::Rules { round, large_granule })
}

fn all_remedies(
    scene: &Scene,
    program: &Program,
    fresh: &Program,
    terms: &Terms,
    set: Option<&BlockingSet>,
) -> Result<Vec<Remedy>, TraceError> {
    let same = remedies::Rerun::of(scene, program, program);
    let other = remedies::Rerun::of(scene, program, fresh);
    let mut all = remedies::settings(scene, &other, terms);
    all.push(remedies::empty_cache(scene));
    if let Some(set) = set {
        all.push(remedies::freed_before(scene, program, &set.ids, terms)?);
        let change = remedies::Change::OwnPool(set.ids.len());
        all.extend(remedies::own_pool(&other, &set.ids, change, terms));
    }
    all.extend(remedies::larger_card(scene, &same, terms));
    Ok(all)
}

impl Explanation {
    /// Replays one remedy more: `blocks`, which are all that is allocated where the cheapest set was,
    /// come from a private pool of their own. Nothing is added where they are no more than that set,
    /// or were there before the history.
    pub fn try_own_pool(
        &mut self,
        scene: &Scene,
        program: &Program,
        fresh: &Program,
        terms: &Terms,
        blocks: &[AllocId],
    ) {
        let in_set = self.blocking[0].as_ref().map_or(0, |set| set.ids.len());
        if self.remedies.is_empty() || blocks.len() <= in_set {
            return;
        }
        let rerun = remedies::Rerun::of(scene, program, fresh);
        let change = remedies::Change::OwnPoolOfPlaces(blocks.len());
        let place = self
            .remedies
            .iter()
            .position(|remedy| matches!(remedy.change, remedies::Change::OwnPool(_)));
        if let Some(remedy) = remedies::own_pool(&rerun, blocks, change, terms) {
            self.remedies.insert(place.map_or(self.remedies.len(), |place| place + 1), remedy);
        }
    }

    /// The setting to paste: of those under which the request is served one that completes the
    /// program, and of those the one that reserves least.
    pub fn cure(&self) -> Option<&Remedy> {
        let settings = self.remedies.iter().filter(|remedy| {
            remedy.is_served && matches!(remedy.change, remedies::Change::Conf(_))
        });
        settings.min_by_key(|remedy| {
            (remedy.completes != Some(true), remedy.peaks.map(|peaks| peaks[1]))
        })
    }
}
