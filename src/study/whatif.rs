//! What would have happened: a trace through the model under other settings, another capacity or
//! another release.

use crate::{
    base::{AllocId, Bytes, DeviceIndex, OpIndex, Release},
    models::pytorch::{PyTorch, PyTorchConfig, conf::AllocConf},
    observe::{Count, DeviceStats, Peak, Record, StatsTally},
    sim::{
        AddressPolicy, AllocError, Allocator, CapacityLevels, Device, DeviceCalls, DeviceConfig,
        Observer, OnOom, Outcome, StoppedBy, replay_op,
    },
    trace::{AllocOp, EventMode, Layout, Op, Trace},
};

pub use super::program::{Program, Start};

use super::program::is_asked;

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

    /// The device of these terms.
    pub(super) fn device(&self, index: DeviceIndex) -> DeviceConfig {
        DeviceConfig {
            context: self.context,
            external: self.external,
            addresses: self.addresses,
            ..DeviceConfig::new(index, self.capacity)
        }
    }

    /// The model of these terms.
    pub(super) fn config(&self) -> PyTorchConfig {
        PyTorchConfig {
            release: self.release,
            conf: self.conf.clone(),
            caching: self.caching,
            events: self.events,
        }
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
    /// The limit of the memory fraction at the end.
    pub limit: Option<Bytes>,
    /// The requests that failed when they were recorded.
    pub asked_again: Vec<AskedAgain>,
    /// Whether the real allocator would have damaged its own state: see [`PyTorch::is_damaged`].
    pub is_damaged: bool,
}

/// A watcher that is told which operation is being done.
pub(super) trait Watch: Observer {
    /// The operation, counted as [`Program::asked`] counts, and what it is.
    #[inline]
    fn at(&mut self, _number: OpIndex, _op: &Op) {}
}

impl Watch for Count {}
impl Watch for StatsTally {}
impl Watch for Record {}

impl Watch for Peak {
    #[inline]
    fn at(&mut self, number: OpIndex, _op: &Op) {
        self.at = number;
    }
}

impl<A: Watch, B: Watch> Watch for (A, B) {
    #[inline]
    fn at(&mut self, number: OpIndex, op: &Op) {
        self.0.at(number, op);
        self.1.at(number, op);
    }
}

/// How far a program came, and what became of the requests that failed in the recording.
pub(super) struct Course {
    pub(super) outcome: Outcome,
    pub(super) asked: u64,
    pub(super) first_failure_asked: Option<u64>,
    pub(super) asked_again: Vec<AskedAgain>,
    /// Of the device, as those requests saw it.
    pub(super) levels_of_asked_again: CapacityLevels,
}

impl Course {
    /// Whether a request would be served now; the allocator itself is left as it is.
    #[cold]
    fn ask_again(&mut self, model: &PyTorch, op: OpIndex, request: &AllocOp, trace: &Trace) {
        let mut copy = model.clone();
        // The request has no name in the program: a fresh one for the copy.
        let asked = AllocOp { id: AllocId(trace.alloc_count()), ..*request };
        let served = copy.malloc(&asked, &mut ());
        self.levels_of_asked_again = self.levels_of_asked_again.and(copy.device().levels());
        self.asked_again.push(AskedAgain { op, asked, error: served.err() });
    }
}

/// All operations of a program through a model that is new.
#[inline]
pub(super) fn drive<W: Watch>(
    program: &Program,
    terms: &Terms,
    model: &mut PyTorch,
    watch: &mut W,
) -> Course {
    let trace = &program.trace;
    let mut course = Course {
        outcome: Outcome { ops: 0, completed: true, failures: 0, first_failure: None },
        asked: 0,
        first_failure_asked: None,
        asked_again: Vec::new(),
        levels_of_asked_again: CapacityLevels::default(),
    };
    model.start(trace, watch);
    let until = terms.until.map_or(u64::MAX, |op| u64::from(op.0));
    let mut failed = program.failed.iter().peekable();
    for (i, op) in trace.ops().iter().enumerate() {
        if course.asked >= until {
            break;
        }
        let at = OpIndex::from_index(i);
        let number = OpIndex(u32::try_from(course.asked).unwrap_or(u32::MAX));
        while let Some((_, request)) = failed.next_if(|(op, _)| *op <= at) {
            course.ask_again(model, number, request, trace);
        }
        watch.at(number, op);
        course.outcome.ops += 1;
        course.asked += u64::from(is_asked(op));
        if let Some(failure) = replay_op(trace, op, model, watch) {
            course.outcome.completed = false;
            course.first_failure_asked.get_or_insert(course.asked.saturating_sub(1));
            course.outcome.failures += 1;
            course.outcome.first_failure.get_or_insert(StoppedBy { op: at, ..failure });
            if terms.on_oom == OnOom::Stop {
                break;
            }
        }
    }
    if course.outcome.completed && course.asked < until {
        let number = OpIndex(u32::try_from(course.asked).unwrap_or(u32::MAX));
        for (_, request) in failed {
            course.ask_again(model, number, request, trace);
        }
    }
    course
}

/// Replays a program.
///
/// # Complexity
/// One step an operation; a copy of the allocator for each request that failed in the recording.
pub fn whatif(program: &Program, terms: &Terms) -> Replayed {
    if terms.keeps_events {
        let (mut replayed, record) = full(program, terms, Record::default());
        replayed.events = record.events.len() as u64;
        replayed.record = record;
        replayed
    } else {
        let (mut replayed, count) = full(program, terms, Count::default());
        replayed.events = count.events;
        replayed
    }
}

/// The replay, and what `events` saw of it.
pub(super) fn full<E: Watch>(program: &Program, terms: &Terms, events: E) -> (Replayed, E) {
    let trace = &program.trace;
    let device = Device::new(terms.device(trace.device()));
    let mut model = PyTorch::new(terms.config(), device, trace.streams(), trace.pools());
    let tally = StatsTally::new(terms.conf.max_split_size);
    let mut full = ((tally, Peak::default()), events);
    let course = drive(program, terms, &mut model, &mut full);
    let ((tally, peak), events) = full;
    let replayed = Replayed {
        outcome: course.outcome,
        asked: course.asked,
        first_failure_asked: course.first_failure_asked,
        stats: tally.stats(),
        peak,
        events: 0,
        record: Record::default(),
        calls: model.device().calls(),
        end: model.layout(),
        limit: model.allowed_maximum(),
        asked_again: course.asked_again,
        is_damaged: model.is_damaged(),
    };
    (replayed, events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{Addr, DeviceIndex, StreamHandle, StreamId},
        trace::{Action, Event, Recorded, TraceBuilder, script},
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
