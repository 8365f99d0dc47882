//! [`FreeMap`]: what is free at a moment, where it lies, and why each part does not serve the request.

use std::collections::BTreeMap;

use crate::{
    base::{Bytes, PoolId, Span, StreamHandle},
    models::pytorch::{Asked, FreePart, PyTorch, WhyNot},
    sim::Allocator,
    trace::ProcessUse,
};

/// Free blocks of one part of the cache that one reason keeps from serving the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FreeRow {
    /// The pool.
    pub pool: PoolId,
    /// Whether it is the half for blocks of at most 1 MiB.
    pub is_small: bool,
    /// The stream.
    pub stream: StreamHandle,
    /// Why; `None` if the search would take one of them.
    pub why: Option<WhyNot>,
    /// Number of blocks.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: Bytes,
    /// The largest.
    pub largest: Bytes,
}

/// What is free, and on the device what is not.
#[derive(Clone, Debug, PartialEq)]
pub struct FreeMap {
    /// By part and reason, most bytes first. Their sum is what is reserved and not handed out.
    pub rows: Vec<FreeRow>,
    /// The largest free block in the lists that the request searches.
    pub largest_hole: Option<Span>,
    /// Memory of the device that nobody has.
    pub device_free: Bytes,
    /// How much of that the limit of the memory fraction lets this process take; `None` without one.
    pub below_limit: Option<Bytes>,
    /// What other processes hold.
    pub external: Bytes,
    /// What this process's context takes.
    pub context: Bytes,
}

impl FreeMap {
    /// The map of an allocator as it stands.
    ///
    /// # Complexity
    /// O(n log n) in the number of blocks.
    pub fn of(model: &PyTorch, asked: &Asked) -> Self {
        let parts = model.free_parts(asked);
        let mut rows: BTreeMap<_, FreeRow> = BTreeMap::new();
        for part in &parts {
            let place = &part.place;
            let row = rows.entry((place.pool, place.is_small, place.stream, part.why));
            let row = row.or_insert(FreeRow {
                pool: place.pool,
                is_small: place.is_small,
                stream: place.stream,
                why: part.why,
                blocks: 0,
                bytes: Bytes::ZERO,
                largest: Bytes::ZERO,
            });
            row.blocks += 1;
            row.bytes += part.span.size;
            row.largest = row.largest.max(part.span.size);
        }
        let mut rows: Vec<FreeRow> = rows.into_values().collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.bytes));
        let searched = |part: &&FreePart| {
            !matches!(
                part.why,
                Some(
                    WhyNot::PrivatePool
                        | WhyNot::OtherPool
                        | WhyNot::OtherHalf
                        | WhyNot::OtherStream
                        | WhyNot::Pending
                )
            )
        };
        let holes = parts.iter().filter(searched).map(|part| part.span);
        let device = model.device();
        Self {
            rows,
            largest_hole: holes.max_by_key(|span| (span.size, std::cmp::Reverse(span.start))),
            device_free: device.free_bytes(),
            below_limit: model
                .allowed_maximum()
                .map(|limit| limit.saturating_sub(model.reserved()).min(device.free_bytes())),
            external: device
                .processes()
                .iter()
                .map(|process| match process {
                    ProcessUse::Other(_, bytes) => *bytes,
                    ProcessUse::This(_) => Bytes::ZERO,
                })
                .sum(),
            context: device.config().context,
        }
    }

    /// Bytes that one of these reasons keeps from serving.
    pub fn bytes_for(&self, is_reason: impl Fn(WhyNot) -> bool) -> Bytes {
        let rows = self.rows.iter().filter(|row| row.why.is_some_and(&is_reason));
        rows.map(|row| row.bytes).sum()
    }

    /// What a new segment can be made of: free on the device and below the limit.
    pub fn room(&self) -> Bytes {
        self.below_limit.unwrap_or(self.device_free)
    }
}
