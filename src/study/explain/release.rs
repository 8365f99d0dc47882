//! The cheapest blocks whose freeing lets enough memory go back to the device.
//!
//! ```text
//!  granules   |  a  . |  .    .  |  b   .  |  unmapped …
//!                └─ a site: the request from here on needs the rest of this granule, one that is
//!                   free, and less new memory by what stays mapped at its two ends
//! ```
//! A request that needs a segment of its own has one site: the device. One that maps memory has one
//! behind each live block and at the beginning of each mapped range. What is live in a site must be
//! freed; what is still missing then is a knapsack over segments and granules. No set is cheaper than
//! the cheapest of all sites, as in each of them what stays mapped is assumed to help as much as it can.

use rustc_hash::FxHashSet;

use super::{
    blocking::{Found, Ground, Placed},
    cover::{Cost, Cover, Item},
};
use crate::{
    base::{Addr, AllocId, Bytes, Span},
    sim::Allocator,
    trace::{BlockState, SegmentLayout},
};

/// Where a request could get its memory.
struct Site {
    /// What is live there, and must be freed.
    paid: Vec<AllocId>,
    /// What that costs.
    cost: Cost,
    /// New memory that it needs, in bytes.
    need: Bytes,
}

/// A segment or granule, and what is live in it.
struct Group {
    /// What it gives back.
    gain: Bytes,
    /// Each live block, its price, and whether it begins in a range below this one.
    blocks: Vec<(AllocId, Cost, bool)>,
    /// Whether something in it cannot be freed.
    is_stuck: bool,
    /// Whether the group before it is the granule just below.
    has_neighbour: bool,
}

impl Group {
    /// As an item of a knapsack, where some blocks are freed anyway.
    fn item(&self, unit: u64, paid: &FxHashSet<AllocId>) -> Item {
        let mut costs = [Cost::default(); 2];
        for (id, price, begins_below) in &self.blocks {
            if !paid.contains(id) {
                costs[0] = costs[0].and(*price);
                if !begins_below {
                    costs[1] = costs[1].and(*price);
                }
            }
        }
        if self.is_stuck {
            costs = [Cost::NEVER; 2];
        }
        let gain = usize::try_from(self.gain.0 / unit).unwrap_or(usize::MAX);
        let [cost, behind] = costs;
        Item { gain, cost, cost_behind: self.has_neighbour.then_some(behind) }
    }
}

/// How many knapsacks are filled, one for each site that something is live in.
const COVERS: u32 = 256;
/// How often the unit may double where a knapsack is too large.
const DOUBLINGS: u32 = 8;

impl Ground<'_> {
    /// The cheapest set that lets the device serve the request.
    pub(super) fn cheapest_release(&self) -> Found {
        let groups = self.groups();
        let Some(exact) = groups.iter().map(|group| group.gain.0).reduce(gcd) else {
            return Found { ids: None, bound: Cost::NEVER };
        };
        let mut sites = self.sites();
        sites.sort_by_key(|site| site.cost);
        let most = sites.iter().map(|site| self.missing(site)).max().unwrap_or_default();
        let nothing_paid = FxHashSet::default();
        let cover = |unit: u64, paid: &FxHashSet<AllocId>, bytes: Bytes| {
            let items: Vec<Item> = groups.iter().map(|group| group.item(unit, paid)).collect();
            Cover::of(&items, units(bytes, unit)?)
        };
        let units_of = |doublings: u32| exact.checked_shl(doublings).unwrap_or(exact).max(1);
        let found = (0..=DOUBLINGS).find_map(|doublings| {
            let unit = units_of(doublings);
            Some((unit, cover(unit, &nothing_paid, most)?))
        });
        let Some((unit, shared)) = found else {
            return Found { ids: None, bound: Cost::default() };
        };
        let (mut best, mut best_cost): (Option<Vec<AllocId>>, Cost) = (None, Cost::NEVER);
        let (mut bound, mut covers) = (Cost::NEVER, 0);
        for site in &sites {
            if site.cost >= best_cost {
                break;
            }
            let missing = self.missing(site);
            let paid: FxHashSet<AllocId> = site.paid.iter().copied().collect();
            let own = if paid.is_empty() {
                None
            } else {
                covers += 1;
                if covers > COVERS {
                    // This site and those behind it cost no less than what is live in it.
                    bound = bound.min(site.cost);
                    break;
                }
                cover(unit, &paid, missing)
            };
            let cover = own.as_ref().unwrap_or(&shared);
            let Some(units) = units(missing, unit) else { continue };
            let least = site.cost.and(cover.cost(units));
            bound = bound.min(least);
            if least >= best_cost {
                continue;
            }
            let Some(choice) = cover.choice(units) else { continue };
            let mut ids = site.paid.clone();
            ids.extend(choice.iter().flat_map(|at| groups[*at].blocks.iter().map(|block| block.0)));
            ids.sort_unstable();
            ids.dedup();
            if self.scene.is_served_without(&ids) {
                best_cost = self.cost_of(&ids);
                best = Some(ids);
            }
        }
        // A coarser unit finds sets that are good enough, and bounds nothing.
        let bound = if unit == exact { bound.min(best_cost) } else { Cost::default() };
        Found { ids: best, bound }
    }

    /// Bytes that must go back for a site.
    fn missing(&self, site: &Site) -> Bytes {
        let model = &self.scene.before;
        // A limit counts the size of a segment, whatever is mapped.
        let beyond = model.allowed_maximum().map_or(Bytes::ZERO, |limit| {
            let total = self.asked.segment.checked_add(model.reserved()).unwrap_or(Bytes::MAX);
            total.saturating_sub(limit)
        });
        site.need.saturating_sub(model.device().free_bytes()).max(beyond)
    }

    fn sites(&self) -> Vec<Site> {
        let free = |need| Site { paid: Vec::new(), cost: Cost::default(), need };
        if !self.asked.maps_memory {
            let granularity = self.scene.before.device().config().granularity;
            return vec![free(self.asked.segment.round_up(granularity))];
        }
        let granule = if self.asked.place.is_small {
            Bytes::mib(2)
        } else {
            self.scene.before.conf().large_segment_size
        };
        // In a segment of its own, or behind everything.
        let mut sites = vec![free(self.asked.rounded.round_up(granule))];
        for (start, size) in self.scene.before.expandable_segments() {
            let reserve = Span::new(start, size);
            let here = |segment: &&SegmentLayout| {
                segment.is_expandable
                    && reserve.contains(segment.addr)
                    && (segment.stream, segment.pool, segment.is_small)
                        == (
                            self.asked.place.stream,
                            self.asked.place.pool,
                            self.asked.place.is_small,
                        )
            };
            let ranges: Vec<&SegmentLayout> = self.layout.segments.iter().filter(here).collect();
            if let Some(granule) = self.scene.before.granule_at(start) {
                self.sites_in(reserve, granule, &ranges, &mut sites);
            }
        }
        sites
    }

    /// The sites of one expandable segment: behind each block that is not free, and at the beginning
    /// of each mapped range.
    fn sites_in(
        &self,
        reserve: Span,
        granule: Bytes,
        ranges: &[&SegmentLayout],
        sites: &mut Vec<Site>,
    ) {
        let blocks = ranges.iter().flat_map(|range| range.blocks_at()).map(Placed::of);
        let active: Vec<Placed> =
            blocks.filter(|block| block.state != BlockState::Inactive).collect();
        let mut starts: Vec<Addr> = ranges.iter().map(|range| range.addr).collect();
        starts.extend(active.iter().map(|block| block.addr + block.size));
        for start in starts {
            let span = Span::new(start, self.asked.rounded);
            if span.end() > reserve.end() {
                continue;
            }
            let low = active.partition_point(|block| block.addr + block.size <= span.start);
            let high = active.partition_point(|block| block.addr < span.end());
            let (mut paid, mut cost) = (Vec::new(), Cost::default());
            // Pending blocks are waited for before anything is released.
            let live = active[low..high].iter();
            for block in live.filter(|block| block.state == BlockState::ActiveAllocated) {
                cost = cost.and(self.cost(block.addr, block.size, block.state));
                paid.extend(self.names.get(&block.addr));
            }
            if cost == Cost::NEVER {
                continue;
            }
            let (from, to) = (start - reserve.start, span.end() - reserve.start);
            let first = from.0 / granule.0;
            let last = to.0.div_ceil(granule.0);
            let is_shared = |at: Option<&Placed>, from: u64| {
                at.is_some_and(|block| {
                    let begins = (block.addr - reserve.start).0;
                    begins < from + granule.0 && from < begins + block.size.0
                })
            };
            let below =
                is_shared(low.checked_sub(1).and_then(|at| active.get(at)), first * granule.0);
            let above = is_shared(active.get(high), (last - 1) * granule.0);
            let kept = match last - first {
                1 => u64::from(below || above),
                _ => u64::from(below) + u64::from(above),
            };
            sites.push(Site { paid, cost, need: Bytes((last - first - kept) * granule.0) });
        }
    }

    /// What a release could give back, were it free: segments and granules.
    fn groups(&self) -> Vec<Group> {
        let model = &self.scene.before;
        let granularity = model.device().config().granularity;
        let mut groups = Vec::new();
        for segment in &self.layout.segments {
            if !model.gives_back(segment.pool) {
                continue;
            }
            let all: Vec<Placed> = segment.blocks_at().map(Placed::of).collect();
            let Some(granule) = model.granule_at(segment.addr).filter(|_| segment.is_expandable)
            else {
                groups.push(self.group(
                    &all,
                    segment.addr,
                    segment.size().round_up(granularity),
                    false,
                ));
                continue;
            };
            let (mut from, end) = (segment.addr, segment.span().end());
            while from < end && granule <= end - from {
                let to = from + granule;
                let low = all.partition_point(|block| block.addr + block.size <= from);
                let high = all.partition_point(|block| block.addr < to);
                groups.push(self.group(&all[low..high], from, granule, from > segment.addr));
                from = to;
            }
        }
        groups
    }

    /// The live ones of the blocks that lie, wholly or in part, in a range from here; pending ones are
    /// waited for before anything is released.
    fn group(&self, all: &[Placed], from: Addr, gain: Bytes, has_neighbour: bool) -> Group {
        let mut group = Group { gain, blocks: Vec::new(), is_stuck: false, has_neighbour };
        for block in all.iter().filter(|block| block.state == BlockState::ActiveAllocated) {
            match self.names.get(&block.addr) {
                Some(id) => {
                    let price = self.price(block.size);
                    group.blocks.push((*id, price, block.addr < from));
                }
                None => group.is_stuck = true,
            }
        }
        group
    }
}

fn units(bytes: Bytes, unit: u64) -> Option<usize> {
    usize::try_from(bytes.0.div_ceil(unit)).ok()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
