//! From traces to columns.

use super::{PackError, columns, kind};
use crate::{
    base::{AllocId, Id, OpIndex, PoolId, Release, StreamHandle},
    source::snapshot::{DeviceOverview, Overview},
    trace::{
        Action, BlockState, Control, Event, Layout, Op, Recorded, RecordedSettings, SegmentLayout,
        Trace, VanishedSegment,
    },
};

pub(super) fn overview(overview: &Overview) -> columns::Overview {
    columns::Overview {
        releases: releases(overview.releases),
        frames: overview.frames as u64,
        stacks: overview.stacks as u64,
        has_settings: overview.has_settings,
        warnings: overview.warnings.clone(),
        devices: overview.devices.iter().map(device).collect(),
    }
}

fn releases((oldest, newest): (Release, Release)) -> (u8, u8) {
    (oldest.minor(), newest.minor())
}

fn device(device: &DeviceOverview) -> columns::Device {
    columns::Device {
        layout: layout(&device.layout),
        entries: device.entries.to_vec(),
        duration_us: device.duration_us,
    }
}

fn layout(layout: &Layout) -> Vec<columns::Segment> {
    layout.segments.iter().map(segment).collect()
}

fn segment(segment: &SegmentLayout) -> columns::Segment {
    let blocks = segment.blocks.iter().map(|block| columns::Block {
        size: block.size.0,
        requested: block.requested.0,
        state: match block.state {
            BlockState::ActiveAllocated => 0,
            BlockState::ActivePendingFree => 1,
            BlockState::Inactive => 2,
        },
    });
    columns::Segment {
        addr: segment.addr.0,
        stream: segment.stream.0,
        pool: pair(segment.pool),
        is_small: segment.is_small,
        is_expandable: segment.is_expandable,
        blocks: blocks.collect(),
    }
}

fn pair(pool: PoolId) -> (u64, u64) {
    (pool.0, pool.1)
}

/// # Errors
/// When the trace was not made from a history.
pub(super) fn trace(trace: &Trace) -> Result<columns::Trace, PackError> {
    let recorded = trace.recorded().ok_or(PackError::NotRecorded)?;
    let mut packer = Packer::new(trace);
    let mut events = Vec::new();
    for (at, op) in trace.ops().iter().enumerate() {
        events.clear();
        events.extend(recorded.events_of(OpIndex::from_index(at)));
        packer.op(op, &events);
    }
    let Packer { ops, events, .. } = packer;
    Ok(columns::Trace {
        device: trace.device().0,
        streams: trace.streams().iter().map(|stream| (stream.handle.0, stream.id)).collect(),
        pools: trace.pools().iter().copied().map(pair).collect(),
        controls: trace.controls().iter().map(control).collect::<Result<_, _>>()?,
        start: layout(trace.start()),
        ops,
        events,
        recorded: recording(recorded),
    })
}

fn control(control: &Control) -> Result<columns::Control, PackError> {
    match control {
        Control::Snapshot(None) => Ok(columns::Control::Snapshot),
        Control::EmptyPool(pool) => Ok(columns::Control::EmptyPool(pool.0, pool.1)),
        Control::PoolRelease(pool) => Ok(columns::Control::PoolRelease(pool.0, pool.1)),
        _ => Err(PackError::NotRecorded),
    }
}

struct Packer<'a> {
    trace: &'a Trace,
    ops: columns::Ops,
    events: columns::Events,
    /// The event of each allocation so far, where there is one.
    made: Vec<Option<Event>>,
}

impl<'a> Packer<'a> {
    fn new(trace: &'a Trace) -> Self {
        let made = vec![None; trace.start_ids().len()];
        Self { trace, ops: columns::Ops::default(), events: columns::Events::default(), made }
    }

    fn op(&mut self, op: &Op, events: &[Event]) {
        let kind = match op {
            Op::Alloc(alloc) => {
                let stream = self.trace.streams()[alloc.stream].handle;
                let pool = alloc.pool.map(|pool| self.trace.pools()[pool]).unwrap_or_default();
                self.ops.sizes.push(alloc.size.0);
                self.ops.streams.push(alloc.stream.0);
                let index = alloc.pool.map_or(0, |pool| pool.index() + 1);
                self.ops.pools.push(u16::try_from(index).unwrap_or(u16::MAX));
                let plain = match events {
                    [event] => Some(*event).filter(|event| {
                        *event == expected_alloc(event.addr, alloc.size, stream, pool)
                    }),
                    _ => None,
                };
                self.made.push(plain);
                match plain {
                    Some(event) => {
                        self.ops.addrs.push(event.addr.0);
                        kind::ALLOC_PLAIN
                    }
                    None => kind::ALLOC,
                }
            }
            Op::Free(free) => {
                let is_plain = !free.pending
                    && self.made[free.id.index()].is_some_and(|made| events == expected_free(made));
                self.name(free.id);
                match (free.pending, is_plain) {
                    (_, true) => kind::FREE_PLAIN,
                    (false, false) => kind::FREE,
                    (true, false) => kind::FREE_PENDING,
                }
            }
            Op::FreeCompleted(id) => {
                self.name(*id);
                kind::FREE_COMPLETED
            }
            Op::RecordStream(id, stream) => {
                self.name(*id);
                self.ops.streams.push(stream.0);
                kind::RECORD_STREAM
            }
            Op::EmptyCache => kind::EMPTY_CACHE,
            // They are numbered in the order of the operations.
            Op::Control(_) => kind::CONTROL,
        };
        self.ops.kinds.push(kind);
        if kind != kind::ALLOC_PLAIN && kind != kind::FREE_PLAIN {
            self.ops.counts.push(u32::try_from(events.len()).unwrap_or(u32::MAX));
            events.iter().for_each(|event| self.event(event));
        }
    }

    fn name(&mut self, id: AllocId) {
        let age = self.made.len() - id.index();
        self.ops.ages.push(u32::try_from(age).unwrap_or(u32::MAX));
    }

    fn event(&mut self, event: &Event) {
        self.events.actions.push(event.action as u8);
        self.events.addrs.push(event.addr.0);
        self.events.sizes.push(event.size.0);
        self.events.streams.push(event.stream.0);
        self.events.pools.push(pair(event.pool));
    }
}

/// The event of a request that the cache served.
pub(super) fn expected_alloc(
    addr: crate::base::Addr,
    size: crate::base::Bytes,
    stream: StreamHandle,
    pool: PoolId,
) -> Event {
    Event { action: Action::Alloc, addr, size, stream, pool }
}

/// The events of a free that need not wait; what else they show is what the allocation's does.
pub(super) const EXPECTED_FREE: [Action; 2] = [Action::FreeRequested, Action::FreeCompleted];

fn expected_free(made: Event) -> [Event; 2] {
    EXPECTED_FREE.map(|action| Event { action, ..made })
}

fn recording(recorded: &Recorded) -> columns::Recorded {
    let index = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    columns::Recorded {
        end: layout(&recorded.end),
        events_name_pools: recorded.events_name_pools,
        releases: releases(recorded.releases),
        settings: recorded.settings.as_ref().map(settings),
        guessed_sizes: recorded.guessed_sizes.iter().map(|at| index(*at)).collect(),
        completions: recorded.completions.iter().map(|id| id.0).collect(),
        chains: recorded
            .chains
            .iter()
            .map(|(stream, span)| (stream.0, span.start.0, span.size.0))
            .collect(),
        maybe_empty: recorded.maybe_empty.iter().map(|op| op.0).collect(),
        vanished: recorded.vanished.iter().map(vanished).collect(),
        notes: recorded.notes.clone(),
    }
}

fn settings(settings: &RecordedSettings) -> columns::Settings {
    columns::Settings {
        conf: settings.conf.clone(),
        max_split_size: settings.max_split_size.map(|size| size.0),
        garbage_collection_threshold: settings.garbage_collection_threshold,
        expandable_segments: settings.expandable_segments,
        roundup_power2_divisions: settings.roundup_power2_divisions.map(|all| all.to_vec()),
    }
}

fn vanished(segment: &VanishedSegment) -> columns::Vanished {
    columns::Vanished {
        stream: segment.stream.0,
        start: segment.start.map(|at| u32::try_from(at).unwrap_or(u32::MAX)),
        made_by: segment.made_by.0,
        freed_by: segment.freed_by.0,
        allocs: segment.allocs.iter().map(|op| op.0).collect(),
    }
}
