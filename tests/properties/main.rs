//! Properties of the model under random programs, judged by the model itself (`PyTorch::check`) and
//! by [`Check`], which sees its events alone.
//!
//! A run is bounded and repeats exactly. `FRAGSIM_CASES` multiplies the number of cases,
//! `FRAGSIM_SEED` starts elsewhere; a failure prints the seed and the smallest program that shows it.

mod programs;
mod runs;
mod structures;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use fragsim::{
    base::{Addr, Bytes, DeviceIndex, OpIndex, PoolId, RELEASES, Release, StreamHandle, StreamId},
    models::pytorch::{PyTorch, PyTorchConfig},
    observe::Check,
    sim::{
        AddressPolicy, AllocError, Allocated, Allocator, Device, DeviceConfig, Failed,
        FreeCompleted, FreeRequested, Observer, OnOom, Segment, replay,
    },
    trace::{
        Action, BlockLayout, BlockState, Control, Event, Layout, MAX_PRIVATE_POOLS, Op,
        SegmentLayout, Trace, TraceBuilder, TraceError,
    },
};
use proptest::{collection::vec, prelude::*};

use programs::{Kind, POOLS, Program, Step, program, program_of};
use runs::{Log, apply, drain, holds, is_part_released, judged};

#[test]
fn every_operation_keeps_all_invariants() {
    holds(6000, &program(120), |program| judged(&program, &program.trace()).map(drop));
}

/// Counts what the programs came to.
#[derive(Default)]
struct Reached(BTreeMap<&'static str, u32>);

impl Reached {
    fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }
}

impl Observer for Reached {
    fn alloc(&mut self, fact: &Allocated) {
        self.add(if fact.remainder.is_some() { "alloc, split" } else { "alloc, whole" });
        if fact.is_oversize {
            self.add("alloc, oversize");
        }
        if fact.place.pool.is_private() {
            self.add(if fact.place.is_expandable {
                "alloc, private expandable"
            } else {
                "alloc, private"
            });
        }
    }
    fn free_requested(&mut self, _: &FreeRequested) {
        self.add("free_requested");
    }
    fn free_completed(&mut self, fact: &FreeCompleted) {
        let merged = fact.merged.iter().filter(|size| **size > Bytes::ZERO).count();
        self.add(["free_completed", "free_completed, one side", "free_completed, two"][merged]);
    }
    fn segment_alloc(&mut self, _: &Segment) {
        self.add("segment_alloc");
    }
    fn segment_free(&mut self, fact: &Segment) {
        self.add(if fact.is_oversize { "segment_free, oversize" } else { "segment_free" });
    }
    fn segment_map(&mut self, _: &Segment) {
        self.add("segment_map");
    }
    fn segment_unmap(&mut self, _: &Segment) {
        self.add("segment_unmap");
    }
    fn oom(&mut self, _: &Failed) {
        self.add("oom");
    }
    fn oom_rejection(&mut self) {
        self.add("rejection");
    }
    fn alloc_retry(&mut self) {
        self.add("retry");
    }
}

/// The random programs are worth something: they come to everything that can happen.
#[test]
fn random_programs_come_to_every_rung() {
    let reached = RefCell::new(Reached::default());
    holds(1500, &program(120), |program| {
        let trace = program.trace();
        let mut allocator = program.allocator(&trace);
        let mut reached = reached.borrow_mut();
        let mut begun = 0;
        for op in trace.ops() {
            let before = reached.0.clone();
            let served = apply(&trace, op, &mut allocator, &mut *reached);
            if let (Op::Control(id), Ok(_)) = (op, &served) {
                match &trace.controls()[*id] {
                    Control::PoolBegin(..) => begun += 1,
                    Control::PoolEnd(_) => begun -= 1,
                    _ => {}
                }
            }
            let Op::Alloc(op) = op else { continue };
            match served {
                Err(AllocError::Failed(_)) => reached.add("failed assertion"),
                Err(AllocError::Refused(_)) => reached.add("refused"),
                _ => {}
            }
            let is_new = |what| reached.0.get(what) > before.get(what);
            let (released, retried) = (is_new("segment_free"), is_new("retry"));
            let is_private = is_new("alloc, private") || is_new("alloc, private expandable");
            let helped = retried && !is_new("oom");
            if released && !retried {
                reached.add("malloc releases before the retry");
            }
            if is_private && begun == 0 && op.pool.is_none() {
                reached.add("the fallback serves");
            }
            if helped {
                reached.add("the retry helps");
            }
        }
        Ok(())
    });
    let reached = reached.into_inner().0;
    assert_eq!(reached.len(), 22, "{reached:#?}");
    assert!(reached.values().all(|count| *count >= 10), "{reached:#?}");
}

#[test]
fn refusals_of_the_device_keep_all_invariants() {
    let refused = (program(80), vec(0..40_u64, 1..20));
    holds(2000, &refused, |(mut program, refuse)| {
        program.refuse = refuse;
        judged(&program, &program.trace()).map(drop)
    });
}

/// The one exception: expandable memory of a private pool without owners. PyTorch deletes such a pool
/// when its successful mappings are as many as its unmappings, which is not to say that nothing of
/// it is mapped (ALLOCATOR.md, 5.6); what is left then is never looked at again.
#[test]
fn after_all_is_freed_and_emptied_nothing_is_reserved() {
    let (empty, lost) = (Cell::new(0_u32), Cell::new(0_u32));
    holds(3000, &program(120), |program| {
        let program = program.keeping_begun_pools();
        let trace = program.trace();
        let Some((mut allocator, mut check, _)) = judged(&program, &trace)? else {
            return Ok(());
        };
        let drained = drain(&program, &trace, &mut allocator, &mut check);
        if check.violation().is_some_and(|violation| is_part_released(&program, violation)) {
            return Ok(());
        }
        prop_assert_eq!(drained, Ok(()));
        prop_assert_eq!(check.violation(), None);
        allocator.check();
        let layout = allocator.layout();
        prop_assert_eq!(check.end(&layout), Ok(()));
        prop_assert_eq!(check.held().count(), 0);
        if layout.segments.is_empty() {
            empty.set(empty.get() + 1);
            return Ok(());
        }
        lost.set(lost.get() + 1);
        for segment in &layout.segments {
            prop_assert!(program.release.at_least(5), "{}", layout);
            prop_assert!(segment.is_expandable && segment.pool.is_private(), "{}", layout);
        }
        Ok(())
    });
    let (empty, lost) = (empty.get(), lost.get());
    assert!(lost * 10 < empty, "{lost} programs left memory behind, {empty} did not");
}

#[test]
fn the_same_program_does_the_same_again() {
    holds(1500, &program(120), |program| {
        let trace = program.trace();
        let mut allocator = program.allocator(&trace);
        let run = |allocator: &mut PyTorch| {
            let mut log = Log::default();
            let outcome = replay(&trace, allocator, &mut log, OnOom::Skip, None);
            (log, outcome, allocator.layout(), allocator.device().calls())
        };
        let first = run(&mut allocator);
        prop_assert_eq!(&run(&mut program.allocator(&trace)), &first);
        allocator.reset();
        prop_assert_eq!(allocator.layout(), Layout::default());
        prop_assert_eq!(&run(&mut allocator), &first);
        Ok(())
    });
}

#[test]
fn replay_does_what_its_operations_do_and_stops_where_it_is_told() {
    holds(1000, &(program(80), 0..90_u32), |(program, until)| {
        let trace = program.trace();
        let mut by_hand = (program.allocator(&trace), Log::default());
        let end = trace.ops().len().min(until as usize);
        let mut failures = Vec::new();
        for (i, op) in trace.ops()[..end].iter().enumerate() {
            if let Err(error) = apply(&trace, op, &mut by_hand.0, &mut by_hand.1) {
                failures.push((OpIndex::from_index(i), error));
            }
        }
        let (mut allocator, mut log) = (program.allocator(&trace), Log::default());
        let outcome = replay(&trace, &mut allocator, &mut log, OnOom::Skip, Some(OpIndex(until)));
        prop_assert_eq!(&log, &by_hand.1);
        prop_assert_eq!(outcome.failures as usize, failures.len());
        let first = outcome.first_failure.map(|stop| (stop.op, stop.error));
        prop_assert_eq!(&first, &failures.first().cloned());
        prop_assert_eq!(outcome.ops as usize, end);

        let (mut stopped, mut early) = (program.allocator(&trace), Log::default());
        let outcome = replay(&trace, &mut stopped, &mut early, OnOom::Stop, Some(OpIndex(until)));
        prop_assert!(log.0.starts_with(&early.0));
        let ops = first.map_or(end, |(op, _)| op.0 as usize + 1);
        prop_assert_eq!(outcome.ops as usize, ops);
        Ok(())
    });
}

/// From 2.12 on no address decides between segments, where none is expandable: SNAPSHOT.md, 8.
#[test]
fn from_2_12_on_addresses_decide_nothing() {
    let programs = (program_of(&[Kind::Plain, Kind::Full], &RELEASES[11..], 120), any::<u64>());
    holds(1500, &programs, |(mut program, seed)| {
        program.conf.expandable_segments = false;
        program.steps.retain(|step| !matches!(step, Step::Settings(_)));
        let trace = program.trace();
        let mut run = |addresses| {
            program.addresses = addresses;
            let mut log = Log::default();
            let mut allocator = program.allocator(&trace);
            let outcome = replay(&trace, &mut allocator, &mut log, OnOom::Skip, None);
            (log.decisions(), outcome.failures, outcome.first_failure.map(|stop| stop.op))
        };
        let rising = run(AddressPolicy::Rising);
        prop_assert_eq!(&run(AddressPolicy::Falling), &rising);
        prop_assert_eq!(&run(AddressPolicy::FirstFit), &rising);
        prop_assert_eq!(&run(AddressPolicy::Random { seed }), &rising);
        Ok(())
    });
}

/// In every release only the order of addresses counts: all of them moved by one distance, all else
/// is the same.
#[test]
fn only_the_order_of_addresses_counts() {
    let programs = (program(120), 1..1_000_000_u64);
    holds(1500, &programs, |(program, pages)| {
        let distance = Bytes(pages << 21);
        let trace = program.trace();
        let run = |distance: Bytes| {
            let mut config = program.device().config().clone();
            config.base = config.base + distance;
            config.reserve_base = config.reserve_base + distance;
            let conf = PyTorchConfig {
                conf: program.conf.clone(),
                events: program.events,
                ..PyTorchConfig::new(program.release)
            };
            let device = Device::new(config);
            let mut allocator = PyTorch::new(conf, device, trace.streams(), trace.pools());
            let mut log = Log::default();
            replay(&trace, &mut allocator, &mut log, OnOom::Skip, None);
            log.0
        };
        let moved = |event: Event| match event.action {
            Action::Oom => event,
            _ => Event { addr: event.addr + distance, ..event },
        };
        let here: Vec<Event> = run(Bytes::ZERO).into_iter().map(moved).collect();
        prop_assert_eq!(run(distance), here);
        Ok(())
    });
}

/// Not so with expandable segments: the search prefers the block with the least room to grow into,
/// and the last one may grow into all the reserved addresses, 9/8 of the device.
#[test]
fn more_memory_changes_nothing_where_none_was_missing() {
    let compared = Cell::new(0_u32);
    let programs = (program(80), 1..5_u64);
    holds(2000, &programs, |(mut program, times)| {
        let has_limits = |step: &Step| {
            matches!(step, Step::Fraction(_) | Step::TotalMib(_) | Step::ExternalMib(_))
                || matches!(step, Step::Settings(text) if text.contains("expandable"))
        };
        program.steps.retain(|step| !has_limits(step));
        program.conf.per_process_memory_fraction = 1.0;
        program.conf.throw_on_cudamalloc_oom = false;
        program.conf.expandable_segments = false;
        program.total = Bytes(program.total.0 * 4);
        let trace = program.trace();
        let run = |total| {
            let program = Program { total, ..program.clone() };
            let mut allocator = program.allocator(&trace);
            let mut log = Log::default();
            let outcome = replay(&trace, &mut allocator, &mut log, OnOom::Skip, None);
            (log.decisions(), outcome, allocator.device().calls())
        };
        let (small, big) = (run(program.total), run(Bytes(program.total.0 * (times + 1))));
        if small.2.malloc_failed > 0 {
            return Ok(());
        }
        compared.set(compared.get() + 1);
        prop_assert_eq!(small, big);
        Ok(())
    });
    assert!(compared.get() > 100, "only {} programs had all the memory they want", compared.get());
}

/// The judge is awake: of what really happened, nothing can be left out and nothing said twice.
#[test]
fn the_judge_sees_every_event_that_is_missing_or_repeated() {
    holds(1000, &(program(60), any::<prop::sample::Index>()), |(program, which)| {
        let trace = program.trace();
        let Some((allocator, _, log)) = judged(&program, &trace)? else { return Ok(()) };
        let decides = |event: &Event| event.action != Action::Oom;
        let events: Vec<Event> = log.0.into_iter().filter(decides).collect();
        if events.is_empty() {
            return Ok(());
        }
        let at = which.index(events.len());
        let passes = |events: &[Event]| {
            let mut check = Check::with_rules(trace.start(), program.rules());
            let verdict = events.iter().try_for_each(|event| check.event(event));
            verdict.and_then(|()| check.end(&allocator.layout())).is_ok()
        };
        prop_assert!(passes(&events));
        let mut missing = events.clone();
        missing.remove(at);
        prop_assert!(!passes(&missing), "without {}", events[at]);
        let mut repeated = events.clone();
        repeated.insert(at, events[at]);
        prop_assert!(!passes(&repeated), "twice {}", events[at]);
        let mut moved = events.clone();
        moved[at].addr = moved[at].addr + Bytes(1);
        prop_assert!(!passes(&moved), "moved {}", events[at]);
        Ok(())
    });
}

#[test]
fn emptying_one_pool_forgets_no_completion_in_another() {
    let run = || {
        let mut builder = TraceBuilder::new(DeviceIndex(0));
        builder.control(Control::PoolCreate(POOLS[0]))?;
        builder.control(Control::PoolRelease(POOLS[0]))?;
        let a = builder.alloc(Bytes(512), StreamId(0), None)?;
        builder.free(a, true)?;
        builder.push(Op::FreeCompleted(a))?;
        builder.control(Control::EmptyPool(POOLS[0]))?;
        builder.alloc(Bytes(512), StreamId(0), None)?;
        Ok::<Trace, TraceError>(builder.build())
    };
    let trace = run().unwrap();
    let device = Device::new(DeviceConfig::new(DeviceIndex(0), Bytes::gib(1)));
    let config = PyTorchConfig::new(Release::NEWEST);
    let mut allocator = PyTorch::new(config, device, trace.streams(), trace.pools());
    replay(&trace, &mut allocator, &mut (), OnOom::Stop, None);
    assert_eq!(allocator.layout().bytes_in(BlockState::ActivePendingFree), Bytes::ZERO);
}

/// PyTorch has no limit here, the model has: it says so and goes on.
#[test]
fn more_private_pools_than_can_be_numbered_are_refused() {
    let count = MAX_PRIVATE_POOLS as u64;
    let mut builder = TraceBuilder::new(DeviceIndex(0));
    for pool in 1..=count + 1 {
        builder.control(Control::PoolCreate(PoolId(0, pool))).unwrap();
    }
    builder.control(Control::PoolBegin(PoolId(0, count), None)).unwrap();
    builder.alloc(Bytes(512), StreamId(0), None).unwrap();
    let trace = builder.build();
    let device = Device::new(DeviceConfig::new(DeviceIndex(0), Bytes::gib(1)));
    let config = PyTorchConfig::new(Release::NEWEST);
    let mut allocator = PyTorch::new(config, device, trace.streams(), trace.pools());
    let outcome = replay(&trace, &mut allocator, &mut (), OnOom::Skip, None);
    assert_eq!(outcome.failures, 1);
    assert_eq!(outcome.first_failure.unwrap().op, OpIndex(u32::try_from(count).unwrap()));
    assert_eq!(allocator.layout().segments[0].pool, PoolId(0, count));

    let segment = |pool| SegmentLayout {
        addr: Addr(pool << 21),
        stream: StreamHandle(0),
        pool: PoolId(0, pool),
        is_small: true,
        is_expandable: false,
        blocks: vec![BlockLayout {
            size: Bytes::mib(2),
            requested: Bytes::ZERO,
            state: BlockState::Inactive,
        }],
    };
    let start = Layout { segments: (1..=count + 1).map(segment).collect() };
    assert!(TraceBuilder::new(DeviceIndex(0)).start(start).is_err());
}
