//! From columns to traces. Everything that a [`Trace`] promises is checked again.

use std::num::NonZeroU32;

use super::{
    PackedFault as Fault, columns,
    encode::{expected_alloc, expected_free},
    kind,
};
use crate::{
    base::{
        Addr, AllocId, Bytes, DeviceIndex, Id, OpIndex, PoolId, Release, Span, StreamHandle,
        StreamId,
    },
    source::snapshot::{DeviceOverview, Overview},
    trace::{
        Action, BlockLayout, BlockState, Control, Event, Events, Layout, Op, PoolIndex, Recorded,
        RecordedSettings, SegmentLayout, Stream, Trace, TraceBuilder, VanishedSegment,
    },
};

/// Addresses end below this, and sizes do, as in a snapshot.
const ADDR_LIMIT: u64 = 1 << 63;
const SIZE_LIMIT: u64 = 1 << 60;

fn check(holds: bool, what: &'static str) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(Fault::Contents(what)) }
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

/// The position of an event. Four bytes, and `Option<EventIndex>` too.
#[derive(Clone, Copy)]
struct EventIndex(NonZeroU32);

impl EventIndex {
    fn of(index: usize) -> Option<Self> {
        u32::try_from(index + 1).ok().and_then(NonZeroU32::new).map(Self)
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// What became of an allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Live,
    Pending,
    Gone,
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
        let pool = builder.pool(PoolId(*a, *b))?;
        check(pool.is_some_and(|pool| pool.index() == at), "a pool")?;
        pools.push(pool);
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
    builder.start(start)?;
    builder.reserve(packed.ops.kinds.len());
    let at_start = states.len();
    let mut unpacker = Unpacker {
        events: Events::with_capacity(packed.ops.kinds.len() + packed.ops.kinds.len() / 2),
        first_event: Vec::with_capacity(packed.ops.kinds.len() + 1),
        made: vec![None; at_start],
        builder,
        states,
        pools: &pools,
        streams: &packed.streams,
    };
    unpacker.ops(&packed.ops, &packed.events, packed.controls)?;
    let Unpacker { builder, events, first_event, made, .. } = unpacker;
    let limits = Limits {
        ops: first_event.len() - 1,
        allocs: made.len(),
        at_start,
        segments,
        streams: packed.streams.len(),
    };
    let mut builder = builder;
    builder.recorded(recorded(packed.recorded, events, first_event, &limits)?);
    Ok(builder.build())
}

struct Unpacker<'a> {
    builder: TraceBuilder,
    events: Events,
    first_event: Vec<u32>,
    /// Where the event of each allocation so far is, if it is the expected one.
    made: Vec<Option<EventIndex>>,
    states: Vec<State>,
    pools: &'a [Option<PoolIndex>],
    streams: &'a [(u64, u64)],
}

/// The next value of a column.
fn next<T: Copy>(column: &mut std::slice::Iter<'_, T>) -> Result<T, Fault> {
    column.next().copied().ok_or(Fault::Contents("the length of a column"))
}

impl Unpacker<'_> {
    fn ops(
        &mut self,
        ops: &columns::Ops,
        events: &columns::Events,
        controls: Vec<columns::Control>,
    ) -> Result<(), Fault> {
        let mut controls = controls.into_iter();
        let (mut sizes, mut streams) = (ops.sizes.iter(), ops.streams.iter());
        let (mut pools, mut addrs) = (ops.pools.iter(), ops.addrs.iter());
        let (mut ages, mut counts) = (ops.ages.iter(), ops.counts.iter());
        let mut written = 0;
        for &kind in &ops.kinds {
            let first = u32::try_from(self.events.len());
            self.first_event.push(first.map_err(|_| Fault::Contents("the number of events"))?);
            match kind {
                kind::ALLOC_PLAIN | kind::ALLOC => {
                    let (size, stream) = (Bytes(next(&mut sizes)?), next(&mut streams)?);
                    let (handle, pool) = (self.stream(stream)?, self.pool(next(&mut pools)?)?);
                    let id = self.builder.alloc(size, StreamId(stream), pool.0)?;
                    check(id.index() == self.made.len(), "the number of an allocation")?;
                    let mut made = None;
                    if kind == kind::ALLOC_PLAIN {
                        made = EventIndex::of(self.events.len());
                        let event = expected_alloc(Addr(next(&mut addrs)?), size, handle, pool.1);
                        self.push(event)?;
                    }
                    self.made.push(made);
                    self.states.push(State::Live);
                }
                kind::FREE_PLAIN | kind::FREE | kind::FREE_PENDING => {
                    let id = self.named(next(&mut ages)?, State::Live)?;
                    let is_pending = kind == kind::FREE_PENDING;
                    self.builder.free(id, is_pending)?;
                    self.states[id.index()] = if is_pending { State::Pending } else { State::Gone };
                    if kind == kind::FREE_PLAIN {
                        let made = self.made[id.index()];
                        let made = made.ok_or(Fault::Contents("the events of a free"))?;
                        let made = self.events.get(made.index());
                        let made = made.ok_or(Fault::Contents("the events of a free"))?;
                        self.events.extend(expected_free(made));
                    }
                }
                kind::FREE_COMPLETED => {
                    let id = self.named(next(&mut ages)?, State::Pending)?;
                    self.states[id.index()] = State::Gone;
                    self.builder.push(Op::FreeCompleted(id))?;
                }
                kind::RECORD_STREAM => {
                    let id = self.named(next(&mut ages)?, State::Live)?;
                    let stream = next(&mut streams)?;
                    self.stream(stream)?;
                    self.builder.record_stream(id, StreamId(stream))?;
                }
                kind::EMPTY_CACHE => self.builder.push(Op::EmptyCache)?,
                kind::CONTROL => {
                    let control = controls.next().ok_or(Fault::Contents("a control"))?;
                    self.builder.control(match control {
                        columns::Control::Snapshot => Control::Snapshot(None),
                        columns::Control::EmptyPool(a, b) => Control::EmptyPool(PoolId(a, b)),
                        columns::Control::PoolRelease(a, b) => Control::PoolRelease(PoolId(a, b)),
                    })?;
                }
                _ => return Err(Fault::Contents("the kind of an operation")),
            }
            if kind != kind::ALLOC_PLAIN && kind != kind::FREE_PLAIN {
                for _ in 0..next(&mut counts)? {
                    self.push(event(events, written)?)?;
                    written += 1;
                }
            }
        }
        let last = u32::try_from(self.events.len());
        self.first_event.push(last.map_err(|_| Fault::Contents("the number of events"))?);
        Ok(())
    }

    #[inline]
    fn push(&mut self, event: Event) -> Result<(), Fault> {
        check(event.addr.0 < ADDR_LIMIT && event.size.0 < SIZE_LIMIT, "an event")?;
        self.events.push(event);
        Ok(())
    }

    fn stream(&self, index: u16) -> Result<StreamHandle, Fault> {
        let stream = self.streams.get(usize::from(index));
        stream.map(|stream| StreamHandle(stream.0)).ok_or(Fault::Contents("a stream"))
    }

    fn pool(&self, number: u16) -> Result<(Option<PoolIndex>, PoolId), Fault> {
        let Some(index) = usize::from(number).checked_sub(1) else {
            return Ok((None, PoolId::DEFAULT));
        };
        let pool = self.pools.get(index).copied().flatten();
        let pool = pool.ok_or(Fault::Contents("a pool"))?;
        Ok((Some(pool), self.builder.pool_id(pool)))
    }

    /// The allocation of that age, which is in that state.
    #[inline]
    fn named(&self, age: u32, state: State) -> Result<AllocId, Fault> {
        let index = self.made.len().checked_sub(age as usize).filter(|i| *i < self.made.len());
        let index = index.ok_or(Fault::Contents("the name of an allocation"))?;
        check(self.states[index] == state, "the name of an allocation")?;
        Ok(AllocId::from_index(index))
    }
}

fn event(events: &columns::Events, at: usize) -> Result<Event, Fault> {
    let missing = Fault::Contents("the length of a column");
    let row = || {
        let action = Action::ALL.get(usize::from(*events.actions.get(at)?)).copied()?;
        let pool = events.pools.get(at)?;
        Some(Event {
            action,
            addr: Addr(*events.addrs.get(at)?),
            size: Bytes(*events.sizes.get(at)?),
            stream: StreamHandle(*events.streams.get(at)?),
            pool: PoolId(pool.0, pool.1),
        })
    };
    row().ok_or(missing)
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
