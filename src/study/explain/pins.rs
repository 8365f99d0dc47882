//! Who pins the segments: those that would give most back, and what is live in each.

use super::{Scene, held};
use crate::{
    base::{AllocId, Bytes, PoolId, Span, StreamHandle},
    sim::Allocator,
    trace::BlockState,
};

/// A segment that cannot be given back, because something in it is live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The segment, or the mapped range of an expandable one.
    pub segment: Span,
    /// Its stream.
    pub stream: StreamHandle,
    /// Its pool.
    pub pool: PoolId,
    /// Free bytes in it: what comes back beyond the bytes of those who hold it.
    pub free: Bytes,
    /// Bytes of those who hold it.
    pub held: Bytes,
    /// Those who hold it, largest first.
    pub holders: Vec<AllocId>,
}

/// The segments that something holds, those with most free bytes first.
///
/// # Complexity
/// O(n log n) in the number of blocks.
pub fn pins(scene: &Scene) -> Vec<Pin> {
    let model = if scene.error.is_some() { &scene.after } else { &scene.before };
    let names = held::names(scene);
    let mut pins = Vec::new();
    for segment in &model.layout().segments {
        let (mut free, mut held, mut holders) = (Bytes::ZERO, Bytes::ZERO, Vec::new());
        for (addr, block) in segment.blocks_at() {
            if block.state == BlockState::Inactive {
                free += block.size;
            } else {
                held += block.size;
                holders.extend(names.get(&addr).map(|id| (std::cmp::Reverse(block.size), *id)));
            }
        }
        if free > Bytes::ZERO && !holders.is_empty() {
            holders.sort_unstable();
            pins.push(Pin {
                segment: segment.span(),
                stream: segment.stream,
                pool: segment.pool,
                free,
                held,
                holders: holders.into_iter().map(|(_, id)| id).collect(),
            });
        }
    }
    pins.sort_by_key(|pin| (std::cmp::Reverse(pin.free), pin.segment.start));
    pins
}
