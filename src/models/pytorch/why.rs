//! Why what is free does not serve a request: the search's own rules, asked block by block.
//!
//! Nothing here decides anything. [`refuses_size`] is the rule that `get_free_block` itself
//! applies; the rest says which list the search would look into and what a release would give back.

use super::{
    MAX_REQUEST, PyTorch, conf::AllocConf, pool::PoolIdx, pools::PrivatePools,
    rounding::get_allocation_size,
};
use crate::{
    base::{Addr, AllocId, Bytes, PoolId, Span},
    sim::Place,
    trace::AllocOp,
};

/// Why a free block does not serve a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyNot {
    /// It belongs to a private pool, and the request does not.
    PrivatePool,
    /// The request belongs to a private pool, and the block to another one or to none.
    OtherPool,
    /// It is in the other half: for requests of at most 1 MiB, or for larger ones.
    OtherHalf,
    /// It was made for another stream.
    OtherStream,
    /// It was freed, but work on another stream may still use it.
    Pending,
    /// It is expandable memory, and `expandable_segments` is off.
    Expandable,
    /// It is too small.
    TooSmall,
    /// It is not below `max_split_size` and the request is: it is not split for it.
    Oversize,
    /// The request is not below `max_split_size`, and the block leaves more than
    /// `max_non_split_rounding_mb` over.
    TooMuchLeft,
}

/// A request as the allocator sees it.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Bytes asked for.
    pub requested: Bytes,
    /// Size of the block that it needs.
    pub rounded: Bytes,
    /// Size of the segment that it would need, without expandable segments; limits count this.
    pub segment: Bytes,
    /// The list that is searched.
    pub place: Place,
    /// Whether new memory would come from an expandable segment.
    pub maps_memory: bool,
    search: Search,
}

/// Where a request looks for a free block, and for which.
#[derive(Clone, Copy, Debug)]
struct Search {
    pool: PoolIdx,
    size: Bytes,
    is_expandable: bool,
}

/// A part of the segments that nobody uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreePart {
    /// The block.
    pub span: Span,
    /// Where it belongs.
    pub place: Place,
    /// Why the search does not take it; `None` if it would, were nothing else free.
    pub why: Option<WhyNot>,
}

/// The rules of the search on a block that is large enough; `None` if it is taken.
///
/// # Source
/// `DeviceCachingAllocator::get_free_block`.
#[inline(always)]
pub(super) fn refuses_size(conf: &AllocConf, asked: Bytes, size: Bytes) -> Option<WhyNot> {
    let oversize = conf.max_split_size;
    if asked < oversize {
        return (size >= oversize).then_some(WhyNot::Oversize);
    }
    // The sum wraps for slack beyond every size, as PyTorch's does.
    let slack = conf.max_non_split_rounding_size;
    (size.0 >= asked.0.wrapping_add(slack.0)).then_some(WhyNot::TooMuchLeft)
}

impl PyTorch {
    /// What this request is to the allocator, which takes its stream for the current one from now
    /// on. `None` if no block can serve it: it is empty or beyond every device, memory is not cached,
    /// or its private pool does not exist yet.
    pub fn asked(&mut self, op: &AllocOp) -> Option<Asked> {
        if op.size == Bytes::ZERO || op.size >= MAX_REQUEST || !self.config.caching {
            return None;
        }
        self.current_stream = op.stream;
        let size = self.rounded(op.size);
        let pool = match op.pool {
            Some(pool) => self.known_private_pool(self.pool_ids[pool], size)?,
            None => self.get_pool(size, op.stream),
        };
        let half = &self.pools[pool];
        let is_expandable = self.conf.expandable_segments;
        let maps_memory =
            is_expandable && (half.private.is_none() || self.rules.expandable_private_pools);
        Some(Asked {
            requested: op.size,
            rounded: size,
            segment: get_allocation_size(size, self.conf.large_segment_size),
            place: Place {
                stream: self.streams[op.stream].handle,
                pool: self.private.id_of(half.private),
                is_small: half.is_small,
                is_expandable: maps_memory,
            },
            maps_memory,
            search: Search { pool, size, is_expandable },
        })
    }

    /// The block size for a request of this size, which must be below [`MAX_REQUEST`].
    pub fn rounded(&self, size: Bytes) -> Bytes {
        self.round_size(size)
    }

    /// The lists that are searched for a request: its own, and those of the pools that help out.
    fn searched(&self, asked: &Asked) -> Vec<Search> {
        let mut lists = vec![asked.search];
        if self.pools[asked.search.pool].private.is_none() {
            for private in self.private.fallbacks() {
                let (large, small) = PrivatePools::halves(private);
                lists.push(Search {
                    pool: if asked.place.is_small { small } else { large },
                    is_expandable: asked.search.is_expandable && !self.rules.expandable_per_request,
                    ..asked.search
                });
            }
        }
        lists
    }

    /// Why a free block of this size would not serve the request, were it the only one in a list at
    /// `place`; `None` if it would.
    pub fn why_not(&self, asked: &Asked, place: &Place, size: Bytes) -> Option<WhyNot> {
        let lists = self.searched(asked);
        self.why_not_in(&lists, asked, place, size)
    }

    fn why_not_in(
        &self,
        lists: &[Search],
        asked: &Asked,
        place: &Place,
        size: Bytes,
    ) -> Option<WhyNot> {
        let of = |list: &Search| {
            let pool = &self.pools[list.pool];
            (self.private.id_of(pool.private), pool.is_small)
        };
        if !lists.iter().any(|list| of(list).0 == place.pool) {
            let is_default = !asked.place.pool.is_private();
            return Some(if is_default { WhyNot::PrivatePool } else { WhyNot::OtherPool });
        }
        let Some(list) = lists.iter().find(|list| of(list) == (place.pool, place.is_small)) else {
            return Some(WhyNot::OtherHalf);
        };
        if place.stream != asked.place.stream {
            return Some(WhyNot::OtherStream);
        }
        if size < list.size {
            return Some(WhyNot::TooSmall);
        }
        if place.is_expandable && !list.is_expandable {
            return Some(WhyNot::Expandable);
        }
        refuses_size(&self.conf, list.size, size)
    }

    /// Everything that is reserved and not handed out, in the order of the addresses, and why the
    /// search would not take it for this request.
    ///
    /// # Complexity
    /// O(n log n) in the number of blocks.
    pub fn free_parts(&self, asked: &Asked) -> Vec<FreePart> {
        let lists = self.searched(asked);
        let mut parts = Vec::new();
        for id in self.blocks.heads().flat_map(|head| self.blocks.chain(head)) {
            let block = &self.blocks[id];
            if block.is_allocated() || !block.is_mapped() {
                continue;
            }
            let place = self.place(id);
            let why = self.why_not_in(&lists, asked, &place, block.size);
            let is_elsewhere = matches!(
                why,
                Some(
                    WhyNot::PrivatePool
                        | WhyNot::OtherPool
                        | WhyNot::OtherHalf
                        | WhyNot::OtherStream
                )
            );
            let why = if block.is_pending() && !is_elsewhere { Some(WhyNot::Pending) } else { why };
            parts.push(FreePart { span: block.span(), place, why });
        }
        parts.sort_by_key(|part| part.span.start);
        parts
    }

    /// Whether a request that finds nothing makes the allocator give this pool's free segments back
    /// before it fails.
    pub fn gives_back(&self, pool: PoolId) -> bool {
        !self.capture_guard()
            && !self.assumes_capture
            && (!pool.is_private() || self.private.is_freeable(pool))
    }

    /// The step in which the expandable segment at `addr` gets and gives back memory.
    pub fn granule_at(&self, addr: Addr) -> Option<Bytes> {
        let segments = self.expandable.iter().filter(|segment| segment.covers(addr));
        segments.map(super::expandable::ExpandableSegment::granule).next()
    }

    /// Everything handed out that the trace has a name for.
    pub fn live_allocs(&self) -> impl Iterator<Item = (AllocId, Span)> {
        let live = self.live.iter().enumerate();
        live.filter_map(|(i, block)| Some((AllocId::from_index(i), self.blocks[(*block)?].span())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        base::{BlockId, DeviceIndex, Release, StreamId},
        models::pytorch::{PyTorchConfig, conf::AllocConf},
        sim::{Allocator, Device, DeviceConfig},
        trace::{FreeOp, Stream},
    };

    const CONFS: [&str; 5] = [
        "",
        "expandable_segments:True",
        "max_split_size_mb:24",
        "max_split_size_mb:21",
        "roundup_power2_divisions:4",
    ];

    /// A state after these requests, of which every second one in `freed` was given back.
    fn state(conf: &str, sizes: &[(u64, u16, bool)]) -> PyTorch {
        let release = Release::NEWEST;
        let conf = AllocConf::from_string(release, conf).unwrap().0;
        let streams = [0, 1].map(|n| Stream::numbered(StreamId(n)));
        let streams = crate::base::Table::from_rows(streams.to_vec());
        let device = Device::new(DeviceConfig::new(DeviceIndex(0), Bytes::gib(4)));
        let config = PyTorchConfig { conf, ..PyTorchConfig::new(release) };
        let mut model = PyTorch::new(config, device, &streams, &crate::base::Table::default());
        for (i, (size, stream, _)) in sizes.iter().enumerate() {
            let id = AllocId::from_index(i);
            let op = AllocOp { id, stream: StreamId(*stream), pool: None, size: Bytes(*size) };
            model.malloc(&op, &mut ()).unwrap();
        }
        for (i, (_, _, is_freed)) in sizes.iter().enumerate() {
            if *is_freed {
                model.free(&FreeOp { id: AllocId::from_index(i), pending: false }, &mut ());
            }
        }
        model
    }

    /// The state with only this block in the free lists.
    fn alone(model: &PyTorch, kept: Addr) -> PyTorch {
        let mut model = model.clone();
        let ids: Vec<BlockId> = model.blocks.heads().collect();
        let ids: Vec<BlockId> =
            ids.into_iter().flat_map(|head| model.blocks.chain(head).collect::<Vec<_>>()).collect();
        for id in ids {
            let block = &model.blocks[id];
            if block.is_free() && block.is_mapped() && block.addr != kept {
                model.pools.erase(&mut model.blocks, id);
            }
        }
        model
    }

    fn size() -> impl Strategy<Value = u64> {
        prop_oneof![1..3_u64 << 20, 1..48_u64 << 20, 20_u64 << 20..=72 << 20]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_block_is_usable_if_the_search_takes_it_where_nothing_else_is_free(
            conf in 0..CONFS.len(),
            sizes in proptest::collection::vec((size(), 0..2_u16, any::<bool>()), 1..24),
            asked in size(),
            stream in 0..2_u16,
        ) {
            let mut model = state(CONFS[conf], &sizes);
            let id = AllocId(1000);
            let op = AllocOp { id, stream: StreamId(stream), pool: None, size: Bytes(asked) };
            let asked = model.asked(&op).unwrap();
            for part in model.free_parts(&asked) {
                let list = model.pools.known_list(asked.search.pool, op.stream);
                let params = list.map(|list| model.params(&op, asked.rounded, list));
                let only = alone(&model, part.span.start);
                let takes = params.and_then(|params| only.find_free_block(&params));
                let takes = takes.map(|found| model.blocks[found.id].addr);
                prop_assert_eq!(part.why.is_none(), takes == Some(part.span.start), "{:?}", part);
            }
        }
    }

    #[test]
    fn each_reason_is_named() {
        let mib = |n: u64| n << 20;
        let mut model = state(
            "max_split_size_mb:24",
            &[(mib(30), 0, true), (mib(12), 0, true), (mib(12), 1, true), (512, 0, true)],
        );
        let op =
            |size| AllocOp { id: AllocId(9), stream: StreamId(0), pool: None, size: Bytes(size) };
        let mut why = |size| {
            let asked = model.asked(&op(size)).unwrap();
            model.free_parts(&asked).iter().map(|part| part.why).collect::<Vec<_>>()
        };
        let other = [Some(WhyNot::OtherStream), Some(WhyNot::OtherHalf)];
        assert_eq!(why(mib(11)), [[Some(WhyNot::Oversize), None], other].concat());
        assert_eq!(why(mib(26)), [[None, Some(WhyNot::TooSmall)], other].concat());
        let half = Some(WhyNot::OtherHalf);
        assert_eq!(why(512), [half, half, half, None]);
    }
}
