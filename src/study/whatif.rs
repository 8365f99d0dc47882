//! What would have happened: a trace through the model under other settings, another capacity or
//! another release.

use crate::{
    base::{AllocId, Bytes, DeviceIndex, Id, OpIndex, Release},
    models::pytorch::{PyTorch, PyTorchConfig, conf::AllocConf},
    observe::{DeviceStats, Peak, Record},
    sim::{
        AddressPolicy, AllocError, Allocator, Device, DeviceCalls, DeviceConfig, OnOom, Outcome,
        StoppedBy, replay_op,
    },
    trace::{
        Action, AllocOp, BlockState, Control, EventMode, FreeOp, Layout, Op, Trace, TraceBuilder,
        TraceError,
    },
};

/// What a trace asks, ready to be asked again.
#[derive(Clone, Debug)]
pub struct Program {
    /// The operations. Requests that failed when the trace was recorded are left out, and so are
    /// marks of snapshots.
    pub trace: Trace,
    /// The requests that failed then: asked before the operation with this index, without being
    /// served.
    pub failed: Vec<(OpIndex, AllocOp)>,
    /// Blocks live at the start that were made into requests.
    pub reallocated: u32,
}

/// How the blocks that were live before the first operation come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// As they lay: the layout is taken over.
    AsRecorded,
    /// They are asked for first, in the order of their addresses: under other rules they would lie
    /// elsewhere.
    Reallocate,
}

impl Program {
    /// What `trace` asks.
    ///
    /// # Errors
    /// When there are too many operations to number.
    pub fn of(trace: &Trace, start: Start) -> Result<Self, TraceError> {
        let mut builder = TraceBuilder::new(trace.device());
        for stream in trace.streams() {
            builder.stream(*stream)?;
        }
        for pool in trace.pools() {
            builder.pool(*pool)?;
        }
        let mut names: Vec<Option<AllocId>> = vec![None; trace.alloc_count() as usize];
        let mut reallocated = 0;
        match start {
            Start::AsRecorded => {
                let ids = builder.start(trace.start().clone())?;
                for (old, new) in trace.start_ids().iter().zip(ids) {
                    names[old.index()] = Some(*new);
                }
            }
            Start::Reallocate => {
                reallocated = reallocate(trace, &mut builder, &mut names)?;
            }
        }
        let mut failed = Vec::new();
        for (i, op) in trace.ops().iter().enumerate() {
            let last = trace
                .recorded()
                .and_then(|recorded| recorded.events_of(OpIndex::from_index(i)).next_back());
            let has_failed = last.is_some_and(|event| event.action == Action::Oom);
            match op {
                Op::Alloc(alloc) if has_failed => failed.push((builder.next_op(), *alloc)),
                Op::Alloc(alloc) => {
                    let id = builder.alloc(alloc.size, alloc.stream, alloc.pool)?;
                    names[alloc.id.index()] = Some(id);
                }
                Op::Free(free) => {
                    if let Some(id) = names[free.id.index()] {
                        builder.free(id, free.pending)?;
                    }
                }
                Op::FreeCompleted(id) => {
                    if let Some(id) = names[id.index()] {
                        builder.push(Op::FreeCompleted(id))?;
                    }
                }
                Op::RecordStream(id, stream) => {
                    if let Some(id) = names[id.index()] {
                        builder.record_stream(id, *stream)?;
                    }
                }
                Op::EmptyCache => builder.push(Op::EmptyCache)?,
                Op::Control(id) => match &trace.controls()[*id] {
                    Control::Snapshot(_) if trace.recorded().is_some() => {}
                    control => builder.control(control.clone())?,
                },
            }
        }
        Ok(Self { trace: builder.build(), failed, reallocated })
    }

    /// Operations that the program asks: all but completions, which the outside tells.
    pub fn asked(&self) -> u64 {
        self.trace.ops().iter().filter(|op| is_asked(op)).count() as u64
    }
}

fn is_asked(op: &Op) -> bool {
    !matches!(op, Op::FreeCompleted(_))
}

fn reallocate(
    trace: &Trace,
    builder: &mut TraceBuilder,
    names: &mut [Option<AllocId>],
) -> Result<u32, TraceError> {
    let mut ids = trace.start_ids().iter();
    let mut count = 0;
    for segment in &trace.start().segments {
        let stream = builder.stream_of(segment.stream)?;
        let pool = builder.pool(segment.pool)?;
        for block in segment.blocks.iter().filter(|b| b.state != BlockState::Inactive) {
            let id = builder.alloc(block.requested.max(Bytes(1)), stream, pool)?;
            count += 1;
            if let Some(old) = ids.next() {
                names[old.index()] = Some(id);
            }
            if block.state == BlockState::ActivePendingFree {
                builder.free(id, true)?;
            }
        }
    }
    Ok(count)
}

/// Under what a program is replayed.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Whose rules.
    pub release: Release,
    /// The settings.
    pub conf: AllocConf,
    /// Whether memory is cached.
    pub caching: bool,
    /// When events on other streams are done.
    pub events: EventMode,
    /// Capacity of the device.
    pub capacity: Bytes,
    /// What the process's context takes.
    pub context: Bytes,
    /// What other processes hold.
    pub external: Bytes,
    /// How the driver chooses addresses.
    pub addresses: AddressPolicy,
    /// What to do when a request fails.
    pub on_oom: OnOom,
    /// Stop before this operation, counted as [`Program::asked`] counts.
    pub until: Option<OpIndex>,
    /// Whether every event is kept.
    pub keeps_events: bool,
}

impl Terms {
    /// The defaults of a release on a device of this capacity.
    pub fn new(release: Release, conf: AllocConf, capacity: Bytes) -> Self {
        Self {
            release,
            conf,
            caching: true,
            events: EventMode::Ready,
            capacity,
            context: Bytes::ZERO,
            external: Bytes::ZERO,
            addresses: AddressPolicy::Rising,
            on_oom: OnOom::Stop,
            until: None,
            keeps_events: false,
        }
    }

    fn device(&self, index: DeviceIndex) -> Device {
        Device::new(DeviceConfig {
            context: self.context,
            external: self.external,
            addresses: self.addresses,
            ..DeviceConfig::new(index, self.capacity)
        })
    }
}

/// What became of a request that failed when it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedAgain {
    /// The operation before which it was asked, counted as [`Program::asked`] counts.
    pub op: OpIndex,
    /// The request.
    pub asked: AllocOp,
    /// `None` if it would be served now.
    pub error: Option<AllocError>,
}

/// What happened.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// How far it went.
    pub outcome: Outcome,
    /// Operations that the program asked, of those done.
    pub asked: u64,
    /// Which of them failed first, counted from 0.
    pub first_failure_asked: Option<u64>,
    /// All statistics at the end.
    pub stats: DeviceStats,
    /// Peaks and the worst moment.
    pub peak: Peak,
    /// Number of events.
    pub events: u64,
    /// The events, if they were to be kept.
    pub record: Record,
    /// How often the driver was called.
    pub calls: DeviceCalls,
    /// Where everything lies at the end.
    pub end: Layout,
    /// The requests that failed when they were recorded.
    pub asked_again: Vec<AskedAgain>,
    /// Whether the real allocator would have damaged its own state: see [`PyTorch::is_damaged`].
    pub is_damaged: bool,
}

/// Replays a program.
///
/// # Complexity
/// One step an operation; a copy of the allocator for each request that failed in the recording.
pub fn whatif(program: &Program, terms: &Terms) -> Replayed {
    let trace = &program.trace;
    let config = PyTorchConfig {
        release: terms.release,
        conf: terms.conf.clone(),
        caching: terms.caching,
        events: terms.events,
    };
    let device = terms.device(trace.device());
    let mut model = PyTorch::new(config, device, trace.streams(), trace.pools());
    let mut stats = DeviceStats::new(terms.conf.max_split_size);
    let mut peak = Peak::default();
    let mut record = Record::default();
    let mut events = 0;
    let mut outcome = Outcome { ops: 0, completed: true, failures: 0, first_failure: None };
    let mut asked: u64 = 0;
    let mut first_failure_asked = None;
    let mut asked_again = Vec::new();
    model.start(trace, &mut (&mut stats, &mut peak));
    let until = terms.until.map_or(u64::MAX, |op| u64::from(op.0));
    let mut failed = program.failed.iter().peekable();
    for (i, op) in trace.ops().iter().enumerate() {
        if asked >= until {
            break;
        }
        let at = OpIndex::from_index(i);
        let number = OpIndex(u32::try_from(asked).unwrap_or(u32::MAX));
        while let Some((_, request)) = failed.next_if(|(op, _)| *op <= at) {
            asked_again.push(ask_again(&model, number, request, trace));
        }
        peak.at = number;
        outcome.ops += 1;
        asked += u64::from(is_asked(op));
        let failure = replay_op(trace, op, &mut model, &mut (&mut stats, (&mut peak, &mut record)));
        events += record.events.len() as u64;
        if !terms.keeps_events {
            record.events.clear();
        } else {
            events = record.events.len() as u64;
        }
        if let Some(failure) = failure {
            outcome.completed = false;
            first_failure_asked.get_or_insert(asked.saturating_sub(1));
            outcome.failures += 1;
            outcome.first_failure.get_or_insert(StoppedBy { op: at, ..failure });
            if terms.on_oom == OnOom::Stop {
                break;
            }
        }
    }
    if outcome.completed && asked < until {
        let number = OpIndex(u32::try_from(asked).unwrap_or(u32::MAX));
        for (_, request) in failed {
            asked_again.push(ask_again(&model, number, request, trace));
        }
    }
    Replayed {
        outcome,
        asked,
        first_failure_asked,
        stats,
        peak,
        events,
        record,
        calls: model.device().calls(),
        end: model.layout(),
        asked_again,
        is_damaged: model.is_damaged(),
    }
}

/// Whether a request would be served now; the allocator itself is left as it is.
fn ask_again(model: &PyTorch, at: OpIndex, request: &AllocOp, trace: &Trace) -> AskedAgain {
    let mut copy = model.clone();
    // The request has no name in the program: a fresh one for the copy.
    let asked = AllocOp { id: AllocId(trace.alloc_count()), ..*request };
    let served = copy.malloc(&asked, &mut ());
    if served.is_ok() {
        copy.free(&FreeOp { id: asked.id, pending: false }, &mut ());
    }
    AskedAgain { op: at, asked, error: served.err() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{Addr, Release, StreamHandle, StreamId},
        trace::{Event, Recorded, script},
    };

    /// `a` is served, 30 MiB are refused, `a` is freed.
    fn recorded() -> Trace {
        let mut builder = TraceBuilder::new(DeviceIndex(0));
        let id = builder.alloc(Bytes::mib(3), StreamId(0), None).unwrap();
        builder.alloc(Bytes::mib(30), StreamId(0), None).unwrap();
        builder.free(id, false).unwrap();
        let event = |action| Event {
            action,
            addr: Addr(0),
            size: Bytes(1),
            stream: StreamHandle(0),
            pool: crate::base::PoolId::DEFAULT,
        };
        builder.recorded(Recorded {
            events: [
                event(Action::Alloc),
                event(Action::Oom),
                event(Action::FreeRequested),
                event(Action::FreeCompleted),
            ]
            .into_iter()
            .collect(),
            first_event: vec![0, 1, 2, 4],
            ..Recorded::default()
        });
        builder.build()
    }

    fn replay(trace: &Trace, start: Start, capacity: Bytes) -> Replayed {
        let program = Program::of(trace, start).unwrap();
        let release = Release::NEWEST;
        whatif(&program, &Terms::new(release, AllocConf::new(release), capacity))
    }

    #[test]
    fn a_request_that_failed_in_the_recording_is_no_part_of_the_program() {
        let program = Program::of(&recorded(), Start::AsRecorded).unwrap();
        assert_eq!(program.asked(), 2);
        let (before, request) = program.failed[0];
        assert_eq!((before, request.size), (OpIndex(1), Bytes::mib(30)));
    }

    #[test]
    fn a_request_that_failed_in_the_recording_is_asked_again_at_its_place() {
        let tight = replay(&recorded(), Start::AsRecorded, Bytes::mib(40));
        assert!(tight.asked_again[0].error.as_ref().is_some_and(AllocError::is_oom));
        assert_eq!(tight.asked_again[0].op, OpIndex(1));
        let roomy = replay(&recorded(), Start::AsRecorded, Bytes::gib(1));
        assert_eq!(roomy.asked_again[0].error, None);
        for replayed in [tight, roomy] {
            assert!(replayed.outcome.completed);
            assert_eq!(replayed.stats.num_ooms, 0);
            assert_eq!(replayed.stats.reserved_bytes.all().peak, 20 << 20);
        }
    }

    const STARTED: &str = "start 0x7f0000000000 large | . 10MiB | a 3MiB(3000000) | . 7MiB\nfree a";

    #[test]
    fn a_start_is_taken_over_as_it_lay() {
        let trace = script::parse(STARTED).unwrap();
        let program = Program::of(&trace, Start::AsRecorded).unwrap();
        assert_eq!((program.reallocated, program.asked()), (0, 1));
        assert_eq!(program.trace.start(), trace.start());
    }

    #[test]
    fn blocks_of_the_start_are_asked_for_as_they_were_requested() {
        let trace = script::parse(STARTED).unwrap();
        let program = Program::of(&trace, Start::Reallocate).unwrap();
        assert_eq!((program.reallocated, program.asked()), (1, 2));
        assert!(program.trace.start().segments.is_empty());
        let replayed = replay(&trace, Start::Reallocate, Bytes::gib(1));
        assert_eq!(replayed.stats.requested_bytes.all().peak, 3_000_000);
        assert_eq!(replayed.stats.allocated_bytes.all().current, 0);
    }
}
