//! From columns to traces. Everything that a [`Trace`] promises is checked again.

use super::{
    PackedFault as Fault, columns,
    unpack_events::{Places, unpack_events},
    unpack_ops::{State, unpack_ops},
};
use crate::{
    base::{
        Addr, AllocId, Bytes, DeviceIndex, Id, OpIndex, PoolId, Release, Span, StreamHandle,
        StreamId,
    },
    source::{
        beside::beside,
        snapshot::{DeviceOverview, Overview},
    },
    trace::{
        BlockLayout, BlockState, Events, Layout, Recorded, RecordedSettings, SegmentLayout, Stream,
        Trace, TraceBuilder, VanishedSegment,
    },
};

/// Addresses end below this, and sizes do, as in a snapshot.
pub(super) const ADDR_LIMIT: u64 = 1 << 63;
pub(super) const SIZE_LIMIT: u64 = 1 << 60;

pub(super) fn check(holds: bool, what: &'static str) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(Fault::Contents(what)) }
}

/// The next value of a column.
#[inline]
pub(super) fn next<T: Copy>(column: &mut std::slice::Iter<'_, T>) -> Result<T, Fault> {
    column.next().copied().ok_or(Fault::Contents("the length of a column"))
}

pub(super) fn overview(overview: columns::Overview) -> Result<Overview, Fault> {
    check(overview.devices.len() <= 256, "a number of devices")?;
    let size = |n: u64| usize::try_from(n).map_err(|_| Fault::Contents("a count"));
    Ok(Overview {
        releases: releases(overview.releases)?,
        frames: size(overview.frames)?,
        stacks: size(overview.stacks)?,
        has_settings: overview.has_settings,
        warnings: overview.warnings,
        devices: overview.devices.into_iter().map(device).collect::<Result<_, _>>()?,
    })
}

fn releases((oldest, newest): (u8, u8)) -> Result<(Release, Release), Fault> {
    Release::new(oldest).zip(Release::new(newest)).ok_or(Fault::Contents("a release"))
}

fn device(device: columns::Device) -> Result<DeviceOverview, Fault> {
    Ok(DeviceOverview {
        layout: layout(device.layout)?,
        entries: device.entries.try_into().map_err(|_| Fault::Contents("kinds of entries"))?,
        duration_us: device.duration_us,
    })
}

/// Segments in the order of their addresses that do not overlap, as a snapshot's.
fn layout(segments: Vec<columns::Segment>) -> Result<Layout, Fault> {
    let mut next = 0;
    let mut layout = Layout::default();
    for segment in segments {
        check(segment.addr >= next, "the order of segments")?;
        next = segment.addr;
        let mut blocks = Vec::with_capacity(segment.blocks.len());
        for block in segment.blocks {
            check(block.size < SIZE_LIMIT && block.requested < SIZE_LIMIT, "the size of a block")?;
            next += block.size;
            check(block.size > 0 && next < ADDR_LIMIT, "the size of a block")?;
            blocks.push(BlockLayout {
                size: Bytes(block.size),
                requested: Bytes(block.requested),
                state: match block.state {
                    0 => BlockState::ActiveAllocated,
                    1 => BlockState::ActivePendingFree,
                    2 => BlockState::Inactive,
                    _ => return Err(Fault::Contents("the state of a block")),
                },
            });
        }
        layout.segments.push(SegmentLayout {
            addr: Addr(segment.addr),
            stream: StreamHandle(segment.stream),
            pool: PoolId(segment.pool.0, segment.pool.1),
            is_small: segment.is_small,
            is_expandable: segment.is_expandable,
            blocks,
        });
    }
    Ok(layout)
}

pub(super) fn trace(packed: columns::Trace) -> Result<Trace, Fault> {
    let mut builder = TraceBuilder::new(DeviceIndex(packed.device));
    for (at, (handle, id)) in packed.streams.iter().enumerate() {
        let stream = Stream { handle: StreamHandle(*handle), id: *id };
        let is_new = builder.stream(stream)?.index() == at;
        check(is_new && (at > 0 || stream == Stream::DEFAULT), "a stream")?;
    }
    let mut pools = Vec::with_capacity(packed.pools.len());
    for (at, (a, b)) in packed.pools.iter().enumerate() {
        let pool = builder.pool(PoolId(*a, *b))?.filter(|pool| pool.index() == at);
        pools.push(pool.ok_or(Fault::Contents("a pool"))?);
    }
    let start = layout(packed.start)?;
    let has_stream =
        |segment: &SegmentLayout| packed.streams.iter().any(|(h, _)| *h == segment.stream.0);
    check(start.segments.iter().all(has_stream), "the stream of a segment")?;
    let segments = start.segments.len();
    let blocks = start.segments.iter().flat_map(|segment| &segment.blocks);
    let states = blocks.filter_map(|block| match block.state {
        BlockState::ActiveAllocated => Some(State::Live),
        BlockState::ActivePendingFree => Some(State::Pending),
        BlockState::Inactive => None,
    });
    let states: Vec<State> = states.collect();
    let at_start = states.len();
    builder.start(start)?;
    let places = Places { streams: &packed.streams, pools: &packed.pools };
    let (events, builder) = beside(
        packed.ops.kinds.len(),
        || unpack_events(at_start, &packed.ops, &packed.events, places),
        || {
            let streams = packed.streams.len();
            unpack_ops(builder, states, &packed.ops, packed.controls, &pools, streams)
        },
    );
    let (mut builder, allocs) = builder?;
    let (events, first_event) = events?;
    let limits = Limits {
        ops: packed.ops.kinds.len(),
        allocs,
        at_start,
        segments,
        streams: packed.streams.len(),
    };
    builder.recorded(recorded(packed.recorded, events, first_event, &limits)?);
    Ok(builder.build())
}

/// How many there are of what a recording names.
struct Limits {
    ops: usize,
    allocs: usize,
    at_start: usize,
    segments: usize,
    streams: usize,
}

fn recorded(
    packed: columns::Recorded,
    events: Events,
    first_event: Vec<u32>,
    limits: &Limits,
) -> Result<Recorded, Fault> {
    let all_below = |all: &[u32], limit: usize| all.iter().all(|at| (*at as usize) < limit);
    check(all_below(&packed.guessed_sizes, limits.at_start), "a guessed size")?;
    check(all_below(&packed.completions, limits.allocs), "a completion")?;
    check(all_below(&packed.maybe_empty, limits.ops), "an empty_cache")?;
    let ends_in_range =
        |chain: &(u64, u64, u64)| chain.1.checked_add(chain.2).is_some_and(|end| end <= ADDR_LIMIT);
    check(packed.chains.iter().all(ends_in_range), "an expandable segment")?;
    let mut vanished = Vec::with_capacity(packed.vanished.len());
    for segment in packed.vanished {
        let start = segment.start.is_none_or(|at| (at as usize) < limits.segments);
        let ops = all_below(&[segment.made_by, segment.freed_by], limits.ops.max(1));
        let is_known = usize::from(segment.stream) < limits.streams;
        check(start && ops && is_known && all_below(&segment.allocs, limits.ops), "a segment")?;
        vanished.push(VanishedSegment {
            stream: StreamId(segment.stream),
            start: segment.start.map(|at| at as usize),
            made_by: OpIndex(segment.made_by),
            freed_by: OpIndex(segment.freed_by),
            allocs: segment.allocs.into_iter().map(OpIndex).collect(),
        });
    }
    Ok(Recorded {
        events,
        first_event,
        end: layout(packed.end)?,
        events_name_pools: packed.events_name_pools,
        releases: releases(packed.releases)?,
        settings: packed.settings.map(settings).transpose()?,
        guessed_sizes: packed.guessed_sizes.into_iter().map(|at| at as usize).collect(),
        completions: packed.completions.into_iter().map(AllocId).collect(),
        chains: packed
            .chains
            .into_iter()
            .map(|(stream, start, size)| {
                (StreamHandle(stream), Span::new(Addr(start), Bytes(size)))
            })
            .collect(),
        maybe_empty: packed.maybe_empty.into_iter().map(OpIndex).collect(),
        vanished,
        notes: packed.notes,
    })
}

fn settings(packed: columns::Settings) -> Result<RecordedSettings, Fault> {
    let divisions = packed.roundup_power2_divisions.map(<[u64; 16]>::try_from).transpose();
    Ok(RecordedSettings {
        conf: packed.conf,
        max_split_size: packed.max_split_size.map(Bytes),
        garbage_collection_threshold: packed.garbage_collection_threshold,
        expandable_segments: packed.expandable_segments,
        roundup_power2_divisions: divisions.map_err(|_| Fault::Contents("the divisions"))?,
    })
}
