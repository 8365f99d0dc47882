//! [`Verdict`]: why the request failed, in one word, and the sums behind it.

use super::{FreeMap, Scene};
use crate::{
    base::{Bytes, PoolId},
    models::pytorch::{Asked, WhyNot},
    sim::{AllocError, Allocator},
    trace::{BlockState, OomHint},
};

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It did not: it is served.
    Served,
    /// Enough is free, in pieces that cannot be used.
    Fragmentation,
    /// What is handed out and the request are more than there is, however they lie.
    #[serde(rename = "truly full")]
    Full,
    /// It would fit, were it not for what other processes hold.
    #[serde(rename = "other processes")]
    OtherProcesses,
    /// It would fit, were it not for the limit of the memory fraction.
    #[serde(rename = "fraction limit")]
    Limit,
    /// Enough was freed, but other streams may still use it and nothing is waited for.
    #[serde(rename = "pending frees")]
    PendingFrees,
    /// Enough is free in private pools that somebody owns.
    #[serde(rename = "private pools")]
    PrivatePools,
    /// Enough is free in segments of other streams.
    #[serde(rename = "other streams")]
    OtherStreams,
    /// Enough is cached as whole segments, but during a capture nothing is given back.
    Capture,
    /// The request is larger than the address space that an expandable segment reserves.
    Reserve,
    /// The allocator failed otherwise.
    Error,
}

/// The sums, at the moment when the allocator gave up. Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Arithmetic {
    /// Capacity of the device.
    pub capacity: Bytes,
    /// What this process's context takes.
    pub context: Bytes,
    /// What other processes hold.
    pub external: Bytes,
    /// The limit of the memory fraction.
    pub limit: Option<Bytes>,
    /// What the allocator can have at most: the capacity less context and others, or the limit.
    pub available: Bytes,
    /// Handed out.
    pub allocated: Bytes,
    /// Freed, but still waited for.
    pub pending: Bytes,
    /// Of all segments.
    pub reserved: Bytes,
    /// The block that the request needs.
    pub rounded: Bytes,
    /// The segment that was asked of the device for it.
    pub segment: Bytes,
    /// Free on the device and below the limit.
    pub room: Bytes,
    /// What the segment exceeds that by.
    pub missing: Bytes,
}

impl Arithmetic {
    /// The sums of a scene.
    pub fn of(scene: &Scene, asked: &Asked, map: &FreeMap) -> Self {
        let model = if scene.error.is_some() { &scene.after } else { &scene.before };
        let layout = model.layout();
        let capacity = model.device().total();
        let limit = model.allowed_maximum();
        let left = capacity.saturating_sub(map.context).saturating_sub(map.external);
        Self {
            capacity,
            context: map.context,
            external: map.external,
            limit,
            available: limit.map_or(left, |limit| limit.min(left)),
            allocated: layout.bytes_in(BlockState::ActiveAllocated),
            pending: layout.bytes_in(BlockState::ActivePendingFree),
            reserved: model.reserved(),
            rounded: asked.rounded,
            segment: asked.segment,
            room: map.room(),
            missing: asked.segment.saturating_sub(map.room()),
        }
    }

    /// What is handed out, and the request.
    pub fn needed(&self) -> Bytes {
        self.allocated.checked_add(self.rounded).unwrap_or(Bytes::MAX)
    }
}

/// Why a request is not served, in short.
#[derive(Clone, Debug, PartialEq)]
pub struct Failed {
    /// In one word.
    pub verdict: Verdict,
    /// With these sums.
    pub sums: Arithmetic,
    /// And this free.
    pub map: FreeMap,
}

impl Failed {
    /// Of a scene; of one that is served the same, with that verdict. `None` where the allocator does
    /// not get to see the request.
    pub fn of(scene: &mut Scene) -> Option<Self> {
        let asked = scene.before.asked(&scene.request)?;
        let model = if scene.error.is_some() { &scene.after } else { &scene.before };
        let map = FreeMap::of(model, &asked);
        let sums = Arithmetic::of(scene, &asked, &map);
        Some(Self { verdict: verdict(scene, &sums, &map), sums, map })
    }
}

/// Why the request of a scene failed.
pub fn verdict(scene: &Scene, sums: &Arithmetic, map: &FreeMap) -> Verdict {
    match &scene.error {
        None => return Verdict::Served,
        Some(AllocError::Refused(_)) => return Verdict::Limit,
        Some(AllocError::Failed(_)) => return Verdict::Error,
        Some(AllocError::Oom(oom)) if matches!(oom.hint, OomHint::BeyondReserve(_)) => {
            return Verdict::Reserve;
        }
        Some(AllocError::Oom(_)) => {}
    }
    let needed = sums.needed();
    if needed > sums.available {
        let alone = sums.capacity.saturating_sub(sums.context);
        return match () {
            () if needed <= alone.saturating_sub(sums.external) => Verdict::Limit,
            () if needed <= alone => Verdict::OtherProcesses,
            () => Verdict::Full,
        };
    }
    let is_enough = |bytes: Bytes| bytes >= sums.missing && bytes > Bytes::ZERO;
    if !scene.after.gives_back(PoolId::DEFAULT) && is_enough(whole_segments(scene)) {
        return Verdict::Capture;
    }
    let elsewhere = |why: WhyNot| {
        matches!(
            why,
            WhyNot::Pending | WhyNot::PrivatePool | WhyNot::OtherPool | WhyNot::OtherStream
        )
    };
    if is_enough(map.bytes_for(|why| !elsewhere(why))) {
        return Verdict::Fragmentation;
    }
    let pools = |why| matches!(why, WhyNot::PrivatePool | WhyNot::OtherPool);
    match () {
        () if is_enough(map.bytes_for(|why| why == WhyNot::Pending)) => Verdict::PendingFrees,
        () if is_enough(map.bytes_for(pools)) => Verdict::PrivatePools,
        () if is_enough(map.bytes_for(|why| why == WhyNot::OtherStream)) => Verdict::OtherStreams,
        () => Verdict::Fragmentation,
    }
}

/// Bytes of segments of the default pool that hold nothing.
fn whole_segments(scene: &Scene) -> Bytes {
    let layout = scene.after.layout();
    let empty = layout.segments.iter().filter(|segment| {
        !segment.pool.is_private()
            && segment.blocks.iter().all(|block| block.state != BlockState::ActiveAllocated)
    });
    empty.map(crate::trace::SegmentLayout::size).sum()
}
