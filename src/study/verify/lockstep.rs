//! Recordings of whole programs: one operation after the other, the driver's part from the
//! recording, every decision from the model.

use super::{DAMAGED, Difference, LayoutVerdict, Verdict};
use crate::{
    base::{Bytes, OpIndex, PoolId, Release},
    models::pytorch::{PyTorch, PyTorchConfig, conf::AllocConf},
    observe::Record,
    sim::{Allocator, Device, DeviceConfig, RecordedCall, SegmentAddresses, StoppedBy, replay_op},
    trace::{Action, BlockState, Control, Event, Events, Layout, Op, Recorded, Trace},
};

/// Address space enough for every device: the capacity of a recording is unknown, and only the
/// driver's refusals, which are recorded, tell of it.
const UNKNOWN_CAPACITY: Bytes = Bytes(1 << 44);

/// Under what a recording is compared.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub release: Release,
    pub conf: AllocConf,
    /// Of the device, if the user knows it: limits and garbage collection follow from it.
    pub capacity: Option<Bytes>,
    /// Operations of [`Recorded::maybe_empty`] that are an `empty_cache` whatever the state says.
    pub empties: Vec<OpIndex>,
}

/// How far a comparison came.
pub(super) struct Run {
    pub verdict: Verdict,
    /// The operation that differs.
    pub stopped_at: Option<OpIndex>,
    /// Entries of the history before the first difference.
    pub equal_events: usize,
    /// Operations that the request after them did itself: see [`Recorded::maybe_empty`] and
    /// [`waits_for_completions`].
    pub not_asked: Vec<OpIndex>,
    /// What the recording has where it differs.
    pub expected: Option<Event>,
    /// Whether `expandable_segments` was on there.
    pub was_expandable: bool,
}

/// What the driver did during one operation.
fn calls(events: &[Event]) -> Vec<RecordedCall> {
    let span = |event: &Event| crate::base::Span::new(event.addr, event.size);
    let call = |event: &Event| match event.action {
        Action::SegmentAlloc => Some(RecordedCall::Malloc(span(event))),
        Action::SegmentFree => Some(RecordedCall::Free(event.addr)),
        Action::SegmentMap => Some(RecordedCall::Map(span(event))),
        Action::SegmentUnmap => Some(RecordedCall::Unmap(span(event))),
        _ => None,
    };
    events.iter().filter_map(call).collect()
}

/// Compares a recording with the model, up to the first difference. `facts` are calls that no
/// history records, each before an operation, in order.
pub(super) fn run(
    trace: &Trace,
    recorded: &Recorded,
    terms: &Terms,
    facts: &[(OpIndex, Control)],
) -> Run {
    let mut facts = facts;
    let mut verdict = Verdict { release: terms.release, ..Verdict::default() };
    verdict.expect(recorded.events.iter());
    let total = terms.capacity.unwrap_or(UNKNOWN_CAPACITY);
    let mut device = Device::new(DeviceConfig::new(trace.device(), total));
    device.follow(SegmentAddresses::Recorded { calls: Vec::new(), done: 0 });
    let config = PyTorchConfig { conf: terms.conf.clone(), ..PyTorchConfig::new(terms.release) };
    let mut model = PyTorch::new(config, device, trace.streams(), trace.pools());
    let mut record = Record::default();
    model.start(trace, &mut record);
    // Where the events begin that the next operation has to explain.
    let mut open = 0;
    let mut expected = Vec::new();
    let mut not_empty = Vec::new();
    let mut not_polled: Vec<OpIndex> = Vec::new();
    // The request whose completions were waited for, not found done.
    let mut waited_for: Option<usize> = None;
    for (i, op) in trace.ops().iter().enumerate() {
        let at = OpIndex::from_index(i);
        let end = recorded.first_event[i + 1] as usize;
        expected.clear();
        expected.extend(recorded.events.range(open..end));
        while let Some(((_, fact), rest)) = facts.split_first().filter(|((op, _), _)| *op <= at) {
            // A pool that was never made cannot be let go; the comparison will tell.
            let _ = model.control(fact, &mut record);
            facts = rest;
        }
        if waited_for.is_none_or(|request| request < i) {
            waited_for = waits_for_completions(trace, recorded, i, &model);
        }
        if waited_for.is_some() && matches!(op, Op::FreeCompleted(_)) {
            not_polled.push(at);
            continue;
        }
        let is_unsure =
            recorded.maybe_empty.binary_search(&at).is_ok() && !terms.empties.contains(&at);
        if is_unsure && !next_is_cached(trace, i, &model) {
            // The request would have gone to the device anyway: what was released was its own doing.
            not_empty.push(at);
            continue;
        }
        model.device_mut().follow(SegmentAddresses::Recorded { calls: calls(&expected), done: 0 });
        model.assume_capture(fails_at_once(&expected));
        record.events.clear();
        let op = &outside_view(trace, op, &model);
        let failure = replay_op(trace, op, &mut model, &mut record);
        verdict.ops += 1;
        let found = compare(recorded, &expected, &record.events, failure.as_ref());
        if let Some((n, recorded_event, modelled_event)) = found {
            let first = open + n;
            let show = |event: Option<Event>| {
                event.map_or_else(|| "nothing more".to_owned(), |event| event.to_string())
            };
            let modelled = match (&modelled_event, &failure) {
                (None, Some(failure)) => failure.error.to_string(),
                _ => show(modelled_event),
            };
            verdict.difference = Some(Difference {
                place: format!("operation {at}, device_traces[{}][{first}]", trace.device()),
                asked: describe(trace, op),
                recorded: show(recorded_event),
                modelled,
                around: around(&model, op, recorded_event, modelled_event),
                likely: if model.is_damaged() { DAMAGED.into() } else { String::new() },
            });
            not_empty.append(&mut not_polled);
            not_empty.sort_unstable();
            return Run {
                verdict,
                stopped_at: Some(at),
                equal_events: first,
                not_asked: not_empty,
                expected: recorded_event,
                was_expandable: model.conf().expandable_segments,
            };
        }
        verdict.confirm(&expected);
        open = end;
    }
    let end = model.layout();
    verdict.layout = LayoutVerdict::Identical;
    if let Some((recorded, modelled)) = layout_difference(&recorded.end, &end) {
        verdict.layout = LayoutVerdict::Differs;
        verdict.difference = Some(Difference {
            place: "the end".into(),
            asked: "final layout".into(),
            recorded,
            modelled,
            around: String::new(),
            likely: String::new(),
        });
    }
    not_empty.append(&mut not_polled);
    not_empty.sort_unstable();
    Run {
        verdict,
        stopped_at: None,
        equal_events: recorded.events.len(),
        not_asked: not_empty,
        expected: None,
        was_expandable: false,
    }
}

/// Whether the next request after operation `i` would be served from the cache.
fn next_is_cached(trace: &Trace, i: usize, model: &PyTorch) -> bool {
    let next = trace.ops()[i + 1..].iter().find_map(|op| match op {
        Op::Alloc(alloc) => Some(alloc),
        _ => None,
    });
    next.is_some_and(|next| model.is_cached(next))
}

/// Completions before a release may have been found done when the request began, or waited for when
/// it failed. The state tells: had they been found done, and could the request then have been served,
/// nothing would have been released. The request, if they were waited for.
fn waits_for_completions(
    trace: &Trace,
    recorded: &Recorded,
    i: usize,
    model: &PyTorch,
) -> Option<usize> {
    let ops = &trace.ops()[i..];
    let ids = ops.iter().map_while(|op| match op {
        Op::FreeCompleted(id) => Some(*id),
        _ => None,
    });
    let ids: Vec<_> = ids.collect();
    let Some(Op::Alloc(request)) = ops.get(ids.len()).filter(|_| !ids.is_empty()) else {
        return None;
    };
    let at = i + ids.len();
    let mut events = recorded.events_of(OpIndex::from_index(at));
    let releases =
        |event: Event| matches!(event.action, Action::SegmentFree | Action::SegmentUnmap);
    if !events.any(releases) {
        return None;
    }
    let mut copy = model.clone();
    ids.into_iter().for_each(|id| copy.complete(id));
    copy.poll();
    copy.is_cached(request).then_some(at)
}

/// A request that gives up without releasing or waiting for anything: a capture is under way, which
/// a history does not say. (Where there was nothing to release it makes no difference.)
fn fails_at_once(expected: &[Event]) -> bool {
    let releases = |event: &Event| {
        matches!(event.action, Action::SegmentFree | Action::SegmentUnmap | Action::FreeCompleted)
    };
    expected.last().is_some_and(|event| event.action == Action::Oom)
        && !expected.iter().any(releases)
}

/// An operation that gave back memory of one private pool alone may have been asked of that pool, or
/// of everything when nothing else could be given back. Only the state tells.
fn outside_view(trace: &Trace, op: &Op, model: &PyTorch) -> Op {
    match op {
        Op::Control(id) => match trace.controls()[*id] {
            Control::EmptyPool(_) if !model.has_releasable() => Op::EmptyCache,
            _ => *op,
        },
        _ => *op,
    }
}

/// The first pair that differs, with its position.
fn compare(
    recorded: &Recorded,
    expected: &[Event],
    modelled: &Events,
    failure: Option<&StoppedBy>,
) -> Option<(usize, Option<Event>, Option<Event>)> {
    let comparable = |event: &Event| {
        let pool = if recorded.events_name_pools { event.pool } else { PoolId::DEFAULT };
        // The free memory of the device is not known.
        let addr = if event.action == Action::Oom { crate::base::Addr(0) } else { event.addr };
        // Whoever took the snapshot may have taken one of a single pool.
        let size = if event.action == Action::Snapshot { Bytes::ZERO } else { event.size };
        Event { pool, addr, size, ..*event }
    };
    let longest = expected.len().max(modelled.len());
    let pair = |n: usize| (expected.get(n).copied(), modelled.get(n));
    for n in 0..longest {
        let (a, b) = pair(n);
        if a.as_ref().map(comparable) != b.as_ref().map(comparable) {
            return Some((n, a, b));
        }
    }
    // A failure that leaves no entry must not pass for a success that leaves none.
    let fails = expected.last().is_some_and(|event| event.action == Action::Oom);
    (failure.is_some() && !fails).then_some((longest, None, None))
}

fn describe(trace: &Trace, op: &Op) -> String {
    match op {
        Op::Alloc(alloc) => format!(
            "alloc {}{} on stream {}{}",
            alloc.size,
            if alloc.size > Bytes::kib(1) {
                format!(" ({} bytes)", alloc.size.0)
            } else {
                String::new()
            },
            trace.streams()[alloc.stream].handle,
            alloc.pool.map(|pool| format!(" in pool {}", trace.pools()[pool])).unwrap_or_default()
        ),
        Op::Free(_) => "free".into(),
        Op::FreeCompleted(_) => "completion of a pending free".into(),
        Op::RecordStream(..) => "record_stream".into(),
        Op::EmptyCache => "empty_cache".into(),
        Op::Control(id) => format!("{:?}", trace.controls()[*id]),
    }
}

/// The segments that the two sides speak of, and what is free for a request.
fn around(model: &PyTorch, op: &Op, recorded: Option<Event>, modelled: Option<Event>) -> String {
    let layout = model.layout();
    let mut shown = Layout::default();
    for event in [recorded, modelled].into_iter().flatten() {
        if let Some(segment) = layout.segment_at(event.addr)
            && !shown.segments.contains(segment)
        {
            shown.segments.push(segment.clone());
        }
    }
    let mut text = shown.to_string();
    if let Op::Alloc(alloc) = op {
        let blocks = layout.segments.iter().flat_map(|s| &s.blocks);
        let free = blocks.filter(|b| b.state == BlockState::Inactive && b.size >= alloc.size);
        let count = free.count();
        text +=
            &format!("{count} free blocks of at least {} in all pools and streams\n", alloc.size);
    }
    text
}

fn layout_difference(recorded: &Layout, modelled: &Layout) -> Option<(String, String)> {
    // What a free block's last owner asked is not compared: blocks that were free when the history
    // began have a past that nothing tells.
    let lines = |layout: &Layout| -> Vec<String> {
        let line = |s: &crate::trace::SegmentLayout| {
            let blocks: Vec<String> = s
                .blocks
                .iter()
                .map(|b| match b.state {
                    BlockState::Inactive => format!(". {}", b.size.0),
                    BlockState::ActivePendingFree => format!("~ {}({})", b.size.0, b.requested.0),
                    BlockState::ActiveAllocated => format!("{}({})", b.size.0, b.requested.0),
                })
                .collect();
            format!(
                "{} {} stream {} pool {}{} | {}",
                s.addr,
                if s.is_small { "small" } else { "large" },
                s.stream,
                s.pool,
                if s.is_expandable { " expandable" } else { "" },
                blocks.join(" | ")
            )
        };
        layout.segments.iter().map(line).collect()
    };
    let (recorded, modelled) = (lines(recorded), lines(modelled));
    let longest = recorded.len().max(modelled.len());
    let at = (0..longest).find(|i| recorded.get(*i) != modelled.get(*i))?;
    let show = |all: &[String]| all.get(at).cloned().unwrap_or_else(|| "no more segments".into());
    Some((show(&recorded), show(&modelled)))
}
