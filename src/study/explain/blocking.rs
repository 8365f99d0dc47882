//! The blocking set: the live blocks whose freeing would have let the request fit.
//!
//! ```text
//!  a hole:    [. 3][ a 2 ][. 4][b 9]     free a: 9 MiB in one piece serve 8 MiB
//!  a release: [. 3][ a 2 ][. 15]         free a: the segment goes back, the device serves the request
//! ```
//! A request is met by a hole in one of the lists that it searches, or by the device, once what is
//! free as a whole went back to it. With `cudaMalloc` segments nothing lies between the two: holes are
//! in one segment, segments go back whole. So the cheapest hole (all windows of neighbours are looked
//! at) and the cheapest release (`release.rs`: a knapsack, solved exactly) are the cheapest sets there
//! are. With expandable segments a request may also grow into memory that is mapped already; the
//! knapsack is solved for every site where it could, and the cheapest of them bounds all sets. The set
//! that is given is called minimal only where it is as cheap as that bound.
//!
//! Every set that is given was freed in a copy of the model, and the request was served.

use rustc_hash::FxHashMap;

use super::{Scene, cover::Cost, held};
use crate::{
    base::{Addr, AllocId, Bytes},
    models::pytorch::Asked,
    sim::{Allocator, Place},
    trace::{BlockLayout, BlockState, Layout, SegmentLayout},
};

/// What is to be as small as possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// The bytes that are freed; of equal sets the one with fewer blocks.
    Bytes,
    /// The number of blocks; of equal sets the one with fewer bytes.
    Count,
}

/// How freeing a set serves the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// The freed blocks and their free neighbours are one block that is large enough.
    Hole,
    /// Segments or granules become free as a whole, and the device has enough again.
    Release,
}

/// A set of live blocks. Freed before the request, it is served; no member can be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockingSet {
    /// The members, in the order of their addresses.
    pub ids: Vec<AllocId>,
    /// Their bytes.
    pub bytes: Bytes,
    /// How it helps.
    pub route: Route,
    /// No set is smaller than this, in bytes or blocks, as the objective says.
    pub at_least: u64,
    /// Whether this one is that small.
    pub is_minimal: bool,
}

/// How many windows are tried where the model refuses the cheaper ones.
const TRIES: usize = 16;

/// The cheapest set; `None` if there is none, or none was found.
///
/// # Complexity
/// O(n + items × units): n blocks, items are segments and granules, units are what is missing in steps
/// of the common divisor of their sizes. A copy of the allocator for each set that is tried: a few, and
/// one for each member.
pub fn blocking_set(scene: &Scene, asked: &Asked, objective: Objective) -> Option<BlockingSet> {
    let ground = Ground::of(scene, asked, objective);
    let hole = ground.cheapest_hole();
    let release = ground.cheapest_release();
    // The empty set does not serve it, or nothing would be asked here.
    let bound = hole.bound.min(release.bound).max(ground.cheapest_block());
    let found = [(hole.ids, Route::Hole), (release.ids, Route::Release)];
    let found = found.into_iter().filter_map(|(ids, route)| Some((ids?, route)));
    let (ids, route) = found.min_by_key(|(ids, _)| ground.cost_of(ids))?;
    let ids = ground.without_idlers(ids);
    let cost = ground.cost_of(&ids);
    let bytes = ids.iter().filter_map(|id| scene.before.block_of(*id)).map(|span| span.size).sum();
    Some(BlockingSet {
        ids,
        bytes,
        route,
        at_least: bound.0.min(cost.0),
        is_minimal: cost.0 <= bound.0,
    })
}

/// The cheapest of one kind, and what none of that kind can beat.
pub(super) struct Found {
    pub(super) ids: Option<Vec<AllocId>>,
    pub(super) bound: Cost,
}

/// What the search for a set looks at.
pub(super) struct Ground<'a> {
    pub(super) scene: &'a Scene,
    pub(super) asked: &'a Asked,
    objective: Objective,
    pub(super) layout: Layout,
    pub(super) names: FxHashMap<Addr, AllocId>,
}

impl<'a> Ground<'a> {
    fn of(scene: &'a Scene, asked: &'a Asked, objective: Objective) -> Self {
        let layout = scene.before.layout();
        Self { scene, asked, objective, layout, names: held::names(scene) }
    }

    pub(super) fn price(&self, size: Bytes) -> Cost {
        match self.objective {
            Objective::Bytes => Cost(size.0, 1),
            Objective::Count => Cost(1, size.0),
        }
    }

    pub(super) fn cost_of(&self, ids: &[AllocId]) -> Cost {
        let spans = ids.iter().filter_map(|id| self.scene.before.block_of(*id));
        spans.map(|span| self.price(span.size)).fold(Cost::default(), Cost::and)
    }

    fn cheapest_block(&self) -> Cost {
        let live = self.scene.before.live_allocs();
        live.map(|(_, span)| self.price(span.size)).min().unwrap_or(Cost::NEVER)
    }

    /// What freeing a block costs.
    pub(super) fn cost(&self, addr: Addr, size: Bytes, state: BlockState) -> Cost {
        match state {
            BlockState::Inactive => Cost::default(),
            BlockState::ActiveAllocated if self.names.contains_key(&addr) => self.price(size),
            BlockState::ActiveAllocated | BlockState::ActivePendingFree => Cost::NEVER,
        }
    }

    fn place(segment: &SegmentLayout) -> Place {
        Place {
            stream: segment.stream,
            pool: segment.pool,
            is_small: segment.is_small,
            is_expandable: segment.is_expandable,
        }
    }

    /// The cheapest run of neighbours that makes a hole which the search takes.
    fn cheapest_hole(&self) -> Found {
        let mut windows: Vec<(Cost, usize, usize, usize)> = Vec::new();
        for (at, segment) in self.layout.segments.iter().enumerate() {
            let place = Self::place(segment);
            let why_not = |size| self.scene.before.why_not(self.asked, &place, size);
            if segment.size() < self.asked.rounded {
                continue;
            }
            self.windows(segment, |cost, from, to, size| {
                if why_not(size).is_none() {
                    windows.push((cost, at, from, to));
                }
            });
        }
        windows.sort_unstable();
        let bound = windows.first().map_or(Cost::NEVER, |window| window.0);
        let served = windows.iter().take(TRIES).find_map(|&(_, at, from, to)| {
            let blocks = self.layout.segments[at].blocks_at().skip(from).take(to - from);
            let ids: Vec<AllocId> =
                blocks.filter_map(|(addr, _)| self.names.get(&addr).copied()).collect();
            self.scene.is_served_without(&ids).then_some(ids)
        });
        Found { ids: served, bound }
    }

    /// Each shortest run of blocks that is large enough: its cost, the blocks, and the size of the
    /// hole, with what is free on its two sides.
    fn windows(&self, segment: &SegmentLayout, mut each: impl FnMut(Cost, usize, usize, Bytes)) {
        let blocks: Vec<Placed> = segment.blocks_at().map(Placed::of).collect();
        let cost = |at: usize| self.cost(blocks[at].addr, blocks[at].size, blocks[at].state);
        let free = |at: Option<usize>| {
            let block = at.and_then(|at| blocks.get(at));
            let block = block.filter(|block| block.state == BlockState::Inactive);
            block.map_or(Bytes::ZERO, |block| block.size)
        };
        let (mut to, mut size, mut price) = (0, Bytes::ZERO, Cost::default());
        for from in 0..blocks.len() {
            if to <= from {
                (to, size, price) = (from, Bytes::ZERO, Cost::default());
            }
            while size < self.asked.rounded && to < blocks.len() && cost(to) != Cost::NEVER {
                size += blocks[to].size;
                price = price.and(cost(to));
                to += 1;
            }
            if size >= self.asked.rounded {
                let hole = size + free(from.checked_sub(1)) + free(Some(to));
                each(price, from, to, hole);
            }
            if to > from {
                let gone = cost(from);
                size -= blocks[from].size;
                price = Cost(price.0 - gone.0, price.1 - gone.1);
            }
        }
    }

    /// The set without members that need not be freed.
    fn without_idlers(&self, mut ids: Vec<AllocId>) -> Vec<AllocId> {
        // Large ones first; sets of many members are not worth the copies.
        const MOST: usize = 256;
        if ids.len() <= MOST {
            ids.sort_by_key(|id| {
                std::cmp::Reverse(self.scene.before.block_of(*id).map(|span| span.size))
            });
            for id in ids.clone() {
                let rest: Vec<AllocId> = ids.iter().copied().filter(|other| *other != id).collect();
                if self.scene.is_served_without(&rest) {
                    ids = rest;
                }
            }
        }
        ids.sort_by_key(|id| self.scene.before.block_of(*id).map(|span| span.start));
        ids
    }
}

/// A block and where it lies.
#[derive(Clone, Copy)]
pub(super) struct Placed {
    pub(super) addr: Addr,
    pub(super) size: Bytes,
    pub(super) state: BlockState,
}

impl Placed {
    pub(super) fn of((addr, block): (Addr, &BlockLayout)) -> Self {
        Self { addr, size: block.size, state: block.state }
    }
}
