//! Runs of random programs: how a failing one is made smaller, and what is judged after each step.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use fragsim::{
    base::{Addr, AllocId, Bytes, StreamId},
    models::pytorch::{
        PyTorch,
        rounding::{SMALL_BUFFER, SMALL_SIZE},
    },
    observe::{Check, Violation},
    sim::{
        AllocError, Allocated, Allocator, Failed, FreeCompleted, FreeRequested, Observer, Place,
        Segment,
    },
    trace::{Action, BlockState, Control, Event, FreeOp, Layout, Op, Trace},
};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};

use crate::programs::{POOLS, Program, Step};

pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// A case that is made of steps, each of which may be left out.
pub(crate) trait Steps: Clone + fmt::Debug {
    fn count(&self) -> usize;
    fn without(&self, step: usize) -> Self;
}

impl Steps for Program {
    fn count(&self) -> usize {
        self.steps.len()
    }
    fn without(&self, step: usize) -> Self {
        Self { steps: self.steps.without(step), ..self.clone() }
    }
}

impl<T: Clone + fmt::Debug> Steps for Vec<T> {
    fn count(&self) -> usize {
        self.len()
    }
    fn without(&self, step: usize) -> Self {
        [&self[..step], &self[step + 1..]].concat()
    }
}

impl<S: Steps, T: Clone + fmt::Debug> Steps for (S, T) {
    fn count(&self) -> usize {
        self.0.count()
    }
    fn without(&self, step: usize) -> Self {
        (self.0.without(step), self.1.clone())
    }
}

/// Runs `test` on `cases` values; panics with seed and smallest value at the first failure.
pub(crate) fn holds<S: Strategy<Value: Steps>>(
    cases: u32,
    strategy: &S,
    test: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let seed = number("FRAGSIM_SEED").unwrap_or(0);
    let times = u32::try_from(number("FRAGSIM_CASES").unwrap_or(1)).expect("a small number");
    let config = Config {
        cases: cases * times,
        failure_persistence: None,
        max_shrink_iters: 5_000,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    match TestRunner::new_with_rng(config, rng).run(strategy, &test) {
        Ok(()) => {}
        Err(TestError::Fail(why, found)) => {
            let smallest = shortened(found, &test);
            panic!("FRAGSIM_SEED={seed}: {why}\nsmallest case: {smallest:#?}")
        }
        Err(TestError::Abort(why)) => panic!("FRAGSIM_SEED={seed}: aborted: {why}"),
    }
}

/// Leaves out steps, last first, for as long as the test still fails: what a step names moves with
/// the steps before it, so proptest alone stops early.
pub(crate) fn shortened<V: Steps>(mut case: V, test: impl Fn(V) -> Result<(), TestCaseError>) -> V {
    let fails = |case: &V| {
        let run = AssertUnwindSafe(|| test(case.clone()));
        !matches!(catch_unwind(run), Ok(Ok(())))
    };
    loop {
        let count = case.count();
        for step in (0..count).rev() {
            let shorter = case.without(step);
            if fails(&shorter) {
                case = shorter;
            }
        }
        if case.count() == count {
            return case;
        }
    }
}

/// All events of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Log(pub(crate) Vec<Event>);

impl Log {
    pub(crate) fn add(&mut self, action: Action, addr: Addr, size: Bytes, place: &Place) {
        self.0.push(Event { action, addr, size, stream: place.stream, pool: place.pool });
    }

    /// Without the addresses.
    pub(crate) fn decisions(&self) -> Vec<Event> {
        self.0.iter().map(|event| Event { addr: Addr(0), ..*event }).collect()
    }
}

impl Observer for Log {
    fn alloc(&mut self, fact: &Allocated) {
        self.add(Action::Alloc, fact.span.start, fact.requested, &fact.place);
    }
    fn free_requested(&mut self, fact: &FreeRequested) {
        self.add(Action::FreeRequested, fact.span.start, fact.requested, &fact.place);
    }
    fn free_completed(&mut self, fact: &FreeCompleted) {
        self.add(Action::FreeCompleted, fact.span.start, fact.requested, &fact.place);
    }
    fn segment_alloc(&mut self, fact: &Segment) {
        self.add(Action::SegmentAlloc, fact.span.start, fact.span.size, &fact.place);
    }
    fn segment_free(&mut self, fact: &Segment) {
        self.add(Action::SegmentFree, fact.span.start, fact.span.size, &fact.place);
    }
    fn segment_map(&mut self, fact: &Segment) {
        self.add(Action::SegmentMap, fact.span.start, fact.span.size, &fact.place);
    }
    fn segment_unmap(&mut self, fact: &Segment) {
        self.add(Action::SegmentUnmap, fact.span.start, fact.span.size, &fact.place);
    }
    fn oom(&mut self, fact: &Failed) {
        self.add(Action::Oom, fact.addr(), fact.size, &fact.place);
    }
}

/// One operation, as `replay` does it.
pub(crate) fn apply<O: Observer>(
    trace: &Trace,
    op: &Op,
    allocator: &mut PyTorch,
    observer: &mut O,
) -> Result<Option<Addr>, AllocError> {
    match op {
        Op::Alloc(alloc) => return allocator.malloc(alloc, observer),
        Op::Free(free) => allocator.free(free, observer),
        Op::FreeCompleted(id) => allocator.complete(*id),
        Op::RecordStream(id, stream) => allocator.record_stream(*id, *stream),
        Op::EmptyCache => allocator.empty_cache(observer)?,
        Op::Control(id) => allocator.control(&trace.controls()[*id], observer)?,
    }
    Ok(None)
}

/// Whether a block was given to `cudaFree` that is the low end of its segment only.
///
/// `release_available_cached_blocks` takes any free block that is not below `max_split_size` for a
/// whole segment. It is not where the setting was lowered meanwhile, or where expandable segments are
/// on: then oversize blocks from `cudaMalloc` are split all the same (ALLOCATOR.md, 3.6 and 3.10).
/// PyTorch loses the rest of the segment; what follows is not defined there.
pub(crate) fn is_part_released(program: &Program, violation: &Violation) -> bool {
    let Violation::NotASegment { event, segment: Some(segment), .. } = violation else {
        return false;
    };
    let lowers = program.sets("max_split_size");
    let has_oversize = lowers || program.conf.max_split_size != Bytes::MAX;
    let has_expandable =
        program.conf.expandable_segments || program.sets("expandable_segments:True");
    (lowers || has_oversize && has_expandable)
        && !segment.is_mapped_range
        && event.addr == segment.span.start
        && event.size < segment.span.size
}

/// A run that was judged: allocator, judge and events.
pub(crate) type Judged = (PyTorch, Check, Log);

/// Runs a program and judges after each operation; `None` where it came to what
/// [`is_part_released`] tells of.
pub(crate) fn judged(program: &Program, trace: &Trace) -> Result<Option<Judged>, TestCaseError> {
    let mut allocator = program.allocator(trace);
    let mut watchers = (Check::with_rules(trace.start(), program.rules()), Log::default());
    allocator.start(trace, &mut watchers);
    for (i, op) in trace.ops().iter().enumerate() {
        let served = apply(trace, op, &mut allocator, &mut watchers);
        let check = &watchers.0;
        if let Some(violation) = check.violation() {
            if is_part_released(program, violation) {
                return Ok(None);
            }
            return Err(TestCaseError::fail(format!("op {i} {op:?}: {violation}")));
        }
        allocator.check();
        let layout = allocator.layout();
        if let Err(violation) = check.end(&layout) {
            return Err(TestCaseError::fail(format!("op {i} {op:?}: {violation}\n{layout}")));
        }
        prop_assert_eq!(check.reserved(), allocator.reserved(), "op {} {:?}", i, op);
        judge_device(&allocator, i)?;
        judge_answer(op, &served, &allocator, &watchers.1)?;
        judge_blocks(program, &layout)?;
    }
    let (check, log) = watchers;
    Ok(Some((allocator, check, log)))
}

/// The device holds what the allocator reserves: sizes here are multiples of its granularity.
pub(crate) fn judge_device(allocator: &PyTorch, i: usize) -> Result<(), TestCaseError> {
    let device = allocator.device();
    let others = match device.processes()[..] {
        [_, fragsim::trace::ProcessUse::Other(_, bytes)] => bytes,
        _ => Bytes::ZERO,
    };
    let free = device.total().saturating_sub(allocator.reserved() + others);
    prop_assert_eq!(device.free_bytes(), free, "op {}: free memory of the device", i);
    Ok(())
}

/// What `malloc` returns is what it told.
pub(crate) fn judge_answer(
    op: &Op,
    served: &Result<Option<Addr>, AllocError>,
    allocator: &PyTorch,
    log: &Log,
) -> Result<(), TestCaseError> {
    let (Op::Alloc(op), last) = (op, log.0.last()) else { return Ok(()) };
    match served {
        Ok(None) => prop_assert_eq!(op.size, Bytes::ZERO),
        Ok(Some(addr)) => {
            let last = last.expect("an alloc is told");
            prop_assert_eq!((last.action, last.addr, last.size), (Action::Alloc, *addr, op.size));
            let block = allocator.block_of(op.id).expect("it is live");
            prop_assert!(block.start == *addr && block.size >= op.size);
        }
        Err(AllocError::Oom(_)) => {
            prop_assert_eq!(last.map(|last| last.action), Some(Action::Oom));
            prop_assert_eq!(allocator.block_of(op.id), None);
        }
        Err(AllocError::Refused(_) | AllocError::Failed(_)) => {
            prop_assert_eq!(allocator.block_of(op.id), None);
        }
    }
    Ok(())
}

/// What the spec says of blocks in memory from `cudaMalloc` while expandable segments are never on:
/// blocks of the large pool are above 1 MiB; small ones carry no slack, large ones 1 MiB at most
/// unless oversize blocks or pools without splitting are about.
pub(crate) fn judge_blocks(program: &Program, layout: &Layout) -> Result<(), TestCaseError> {
    for segment in layout.segments.iter().filter(|s| !s.is_expandable) {
        prop_assert_eq!(segment.is_small, segment.size() == SMALL_BUFFER, "{}", layout);
    }
    let conf = &program.conf;
    if conf.expandable_segments || program.sets("expandable_segments:True") {
        prop_assert!(
            program.steps.iter().any(|s| matches!(s, Step::Settings(_)))
                || !program.release.at_least(5)
                || layout.segments.iter().all(|s| s.is_expandable)
        );
        return Ok(());
    }
    let has_no_split = program.steps.iter().any(|s| matches!(s, Step::PoolNoSplit { .. }));
    let is_plain = conf.roundup_power2_divisions.iter().all(|n| *n == 0)
        && !program.sets("roundup_power2_divisions");
    let has_oversize = conf.max_split_size != Bytes::MAX || program.sets("max_split_size");
    for segment in &layout.segments {
        prop_assert!(!segment.is_expandable);
        for block in &segment.blocks {
            prop_assert!(segment.is_small || block.size > SMALL_SIZE, "{}", layout);
            if !is_plain || has_no_split || block.state == BlockState::Inactive {
                continue;
            }
            let slack = block.size - block.requested.max(Bytes(1)).round_up(Bytes(512));
            let most = if segment.is_small { Bytes::ZERO } else { SMALL_SIZE };
            prop_assert!(slack <= most || (!segment.is_small && has_oversize), "{}", layout);
        }
    }
    Ok(())
}

/// Ends captures and routing, gives up pools, frees everything, waits for everything, empties.
pub(crate) fn drain<O: Observer>(
    program: &Program,
    trace: &Trace,
    allocator: &mut PyTorch,
    observer: &mut O,
) -> Result<(), AllocError> {
    allocator.device_mut().refuse(&[]);
    for step in &program.steps {
        if let Step::CaptureBegin { stream } = step {
            let stream = StreamId(stream % program.streams);
            allocator.control(&Control::CaptureEnd(stream), observer)?;
        }
    }
    for pool in POOLS {
        while allocator.control(&Control::PoolEnd(pool), observer).is_ok() {}
        while allocator.pool_use_count(pool) > 0 {
            allocator.control(&Control::PoolRelease(pool), observer)?;
        }
    }
    for id in 0..trace.alloc_count() {
        allocator.free(&FreeOp { id: AllocId(id), pending: false }, observer);
    }
    allocator.control(&Control::Complete(None), observer)?;
    allocator.empty_cache(observer)
}
