//! Properties of the model under random programs, judged by the model itself (`PyTorch::check`) and
//! by [`Check`], which sees its events alone.
//!
//! A run is bounded and repeats exactly. `FRAGSIM_CASES` multiplies the number of cases,
//! `FRAGSIM_SEED` starts elsewhere; a failure prints the seed and the smallest program that shows it.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use fragsim::{
    base::{
        Addr, AllocId, BlockId, Bytes, DeviceIndex, OpIndex, PoolId, RELEASES, Release, StreamId,
    },
    models::pytorch::{
        PyTorch, PyTorchConfig,
        conf::AllocConf,
        rounding::{SMALL_BUFFER, SMALL_SIZE},
    },
    observe::{Check, CheckRules, Violation},
    sim::{
        AddressPolicy, AllocError, Allocated, Allocator, Device, DeviceConfig, Failed, FlatHash,
        FlatKey, FreeCompleted, FreeIndex, FreeKey, FreeRequested, Observer, OnOom, Place, Segment,
        replay,
    },
    trace::{
        Action, BlockState, Control, Event, EventMode, FreeOp, Layout, Op, Stream, Trace,
        TraceBuilder, TraceError,
    },
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

// ---------------------------------------------------------------------------------------- programs

/// One step of a random program; what it names is taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Alloc {
        size: u64,
        stream: u16,
    },
    AllocIn {
        size: u64,
        stream: u16,
        pool: usize,
    },
    Free {
        which: usize,
    },
    /// A free that waits, as a recording shows it.
    FreePending {
        which: usize,
    },
    FreeCompleted {
        which: usize,
    },
    RecordStream {
        which: usize,
        stream: u16,
    },
    EmptyCache,
    EmptyPool {
        pool: usize,
    },
    Fraction(f64),
    Settings(&'static str),
    PoolCreate {
        pool: usize,
    },
    PoolBegin {
        pool: usize,
        stream: Option<u16>,
    },
    PoolEnd {
        pool: usize,
    },
    PoolRelease {
        pool: usize,
    },
    PoolUseOnOom {
        pool: usize,
        on: bool,
    },
    PoolNoSplit {
        pool: usize,
    },
    CaptureBegin {
        stream: u16,
    },
    CaptureEnd {
        stream: u16,
    },
    Events(EventMode),
    Complete {
        stream: Option<u16>,
    },
    ExternalMib(u64),
    TotalMib(u64),
    Snapshot,
}

/// A random program with everything around it.
#[derive(Clone)]
struct Program {
    release: Release,
    conf: AllocConf,
    total: Bytes,
    streams: u16,
    events: EventMode,
    addresses: AddressPolicy,
    /// Attempts to get device memory that fail.
    refuse: Vec<u64>,
    steps: Vec<Step>,
}

/// As a script, one step a line.
impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { release, conf, total, streams, events, addresses, refuse, steps } = self;
        writeln!(f, "{release}, {total}, {streams} streams, {events:?}, {addresses:?}")?;
        writeln!(f, "{conf:?}, refuse {refuse:?}")?;
        steps.iter().try_for_each(|step| writeln!(f, "  {step:?}"))
    }
}

const POOLS: [PoolId; 3] = [PoolId(0, 1), PoolId(0, 2), PoolId(1, 0)];

impl Program {
    fn trace(&self) -> Trace {
        self.build().expect("a program names only what is there")
    }

    fn build(&self) -> Result<Trace, TraceError> {
        let mut builder = TraceBuilder::new(DeviceIndex(0));
        for n in 1..self.streams {
            builder.stream(Stream::numbered(StreamId(n)))?;
        }
        let stream = |n: u16| StreamId(n % self.streams);
        let mut live: Vec<AllocId> = Vec::new();
        let mut pending: Vec<AllocId> = Vec::new();
        let since = |minor: u8| self.release.at_least(minor);
        for step in &self.steps {
            match *step {
                Step::Alloc { size, stream: s } => {
                    let id = builder.alloc(Bytes(size), stream(s), None)?;
                    live.extend((size > 0).then_some(id));
                }
                Step::AllocIn { size, stream: s, pool } => {
                    let pool = builder.pool(POOLS[pool])?;
                    let id = builder.alloc(Bytes(size), stream(s), pool)?;
                    live.extend((size > 0).then_some(id));
                }
                Step::Free { which } if !live.is_empty() => {
                    builder.free(live.swap_remove(which % live.len()), false)?;
                }
                Step::FreePending { which } if !live.is_empty() => {
                    let id = live.swap_remove(which % live.len());
                    pending.push(id);
                    builder.free(id, true)?;
                }
                Step::FreeCompleted { which } if !pending.is_empty() => {
                    let id = pending.swap_remove(which % pending.len());
                    builder.push(Op::FreeCompleted(id))?;
                }
                Step::RecordStream { which, stream: s } if !live.is_empty() => {
                    builder.record_stream(live[which % live.len()], stream(s))?;
                }
                Step::EmptyCache => builder.push(Op::EmptyCache)?,
                ref step => {
                    if let Some(control) = step.control(since, stream) {
                        builder.control(control)?;
                    }
                }
            }
        }
        Ok(builder.build())
    }

    /// Without what no program of PyTorch's does, and PyTorch does not stand: giving up a pool while
    /// requests are routed to it. It may be deleted during the very request that it serves.
    fn keeping_begun_pools(mut self) -> Self {
        let mut begun = [false; POOLS.len()];
        self.steps.retain(|step| {
            match *step {
                Step::PoolBegin { pool, .. } => begun[pool] = true,
                Step::PoolEnd { pool } => begun[pool] = false,
                Step::PoolRelease { pool } => return !begun[pool],
                _ => {}
            }
            true
        });
        self
    }

    fn device(&self) -> Device {
        let config = DeviceConfig {
            addresses: self.addresses,
            ..DeviceConfig::new(DeviceIndex(0), self.total)
        };
        let mut device = Device::new(config);
        device.refuse(&self.refuse);
        device
    }

    fn allocator(&self, trace: &Trace) -> PyTorch {
        let (conf, events) = (self.conf.clone(), self.events);
        let config = PyTorchConfig { conf, events, ..PyTorchConfig::new(self.release) };
        PyTorch::new(config, self.device(), trace.streams(), trace.pools())
    }

    /// Whether a setting could make the release leave sizes unrounded: see [`CheckRules::step`].
    fn rules(&self) -> CheckRules {
        let is_unrounded = !self.release.at_least(4)
            && (self.conf.roundup_power2_divisions.contains(&1)
                || self.sets("roundup_power2_divisions"));
        CheckRules { step: Bytes(if is_unrounded { 1 } else { 512 }), ..CheckRules::default() }
    }

    /// Whether a run-time setting names `key`.
    fn sets(&self, key: &str) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Settings(text) if text.contains(key)))
    }
}

impl Step {
    /// The control of a step, where the release has it.
    fn control(
        &self,
        since: impl Fn(u8) -> bool,
        stream: impl Fn(u16) -> StreamId,
    ) -> Option<Control> {
        Some(match *self {
            Self::EmptyPool { pool } if since(8) => Control::EmptyPool(POOLS[pool]),
            Self::Fraction(fraction) => Control::SetFraction(fraction),
            Self::Settings(text) => Control::Settings(text.into()),
            Self::PoolCreate { pool } => Control::PoolCreate(POOLS[pool]),
            Self::PoolBegin { pool, stream: s } => Control::PoolBegin(POOLS[pool], s.map(stream)),
            Self::PoolEnd { pool } => Control::PoolEnd(POOLS[pool]),
            Self::PoolRelease { pool } => Control::PoolRelease(POOLS[pool]),
            Self::PoolUseOnOom { pool, on } if since(8) => Control::PoolUseOnOom(POOLS[pool], on),
            Self::PoolNoSplit { pool } if since(10) => Control::PoolNoSplit(POOLS[pool]),
            Self::CaptureBegin { stream: s } => Control::CaptureBegin(stream(s)),
            Self::CaptureEnd { stream: s } => Control::CaptureEnd(stream(s)),
            Self::Events(mode) => Control::Events(mode),
            Self::Complete { stream: s } => Control::Complete(s.map(stream)),
            Self::ExternalMib(mib) => Control::External(Bytes::mib(mib)),
            Self::TotalMib(mib) => Control::Total(Bytes::mib(mib)),
            Self::Snapshot => Control::Snapshot(None),
            _ => return None,
        })
    }
}

// --------------------------------------------------------------------------------------- strategies

/// Sizes at which a rule changes: rounding, the small pool, segment sizes, what is kept of a split.
const EDGES: [u64; 32] = [
    0,
    1,
    511,
    512,
    513,
    1024,
    (1 << 20) - 512,
    (1 << 20) - 1,
    1 << 20,
    (1 << 20) + 1,
    (1 << 20) + 512,
    3 << 19,
    (2 << 20) - 512,
    2 << 20,
    (2 << 20) + 1,
    (9 << 20) + 513,
    (10 << 20) - 512,
    (10 << 20) - 1,
    10 << 20,
    (10 << 20) + 1,
    12 << 20,
    (19 << 20) - 512,
    19 << 20,
    (19 << 20) + 512,
    (20 << 20) - 1,
    20 << 20,
    (20 << 20) + 1,
    30 << 20,
    (32 << 20) + 1,
    64 << 20,
    100 << 20,
    1 << 60,
];

fn size() -> BoxedStrategy<u64> {
    prop_oneof![
        4 => select(&EDGES[..]),
        2 => 1..=(1_u64 << 20),
        3 => (1_u64 << 20)..(21 << 20),
        1 => (0..10_u64).prop_flat_map(|log| (1_u64 << 19 << log)..=(1 << 20 << log)),
        1 => (1..40_u64).prop_map(|n| n << 20),
    ]
    .boxed()
}

fn mode() -> impl Strategy<Value = EventMode> {
    prop_oneof![
        Just(EventMode::Ready),
        Just(EventMode::Manual),
        (0..4_u32).prop_map(EventMode::Polls)
    ]
}

fn settings() -> impl Strategy<Value = &'static str> {
    select(
        &[
            "",
            "expandable_segments:True",
            "expandable_segments:False",
            "max_split_size_mb:32",
            "max_split_size_mb:21,expandable_segments:True",
            "garbage_collection_threshold:0.3",
            "roundup_power2_divisions:4",
        ][..],
    )
}

/// What a program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Requests, frees, other streams, `empty_cache`.
    Plain,
    /// And everything else that programs do.
    Full,
    /// A recording: its frees wait without saying for what.
    Recording,
}

fn step(kind: Kind) -> BoxedStrategy<Step> {
    let alloc = (size(), prop_oneof![3 => Just(0), 1 => 0..4_u16])
        .prop_map(|(size, stream)| Step::Alloc { size, stream });
    let which = || 0..64_usize;
    let stream = || 0..4_u16;
    let pool = || 0..POOLS.len();
    let free = which().prop_map(|which| Step::Free { which });
    let elsewhere =
        (which(), stream()).prop_map(|(which, stream)| Step::RecordStream { which, stream });
    let waits = which().prop_map(|which| Step::FreePending { which });
    let completed = which().prop_map(|which| Step::FreeCompleted { which });
    let alloc_in = (size(), stream(), pool()).prop_map(|(size, stream, pool)| Step::AllocIn {
        size,
        stream,
        pool,
    });
    let complete = prop::option::of(stream()).prop_map(|stream| Step::Complete { stream });
    let rare = prop_oneof![
        2 => pool().prop_map(|pool| Step::EmptyPool { pool }),
        2 => select(&[0.0, 0.05, 0.3, 0.6, 0.9, 1.0, 1.5][..]).prop_map(Step::Fraction),
        2 => settings().prop_map(Step::Settings),
        3 => pool().prop_map(|pool| Step::PoolCreate { pool }),
        6 => (pool(), prop::option::of(stream()))
            .prop_map(|(pool, stream)| Step::PoolBegin { pool, stream }),
        6 => pool().prop_map(|pool| Step::PoolEnd { pool }),
        6 => pool().prop_map(|pool| Step::PoolRelease { pool }),
        2 => (pool(), any::<bool>()).prop_map(|(pool, on)| Step::PoolUseOnOom { pool, on }),
        1 => pool().prop_map(|pool| Step::PoolNoSplit { pool }),
        2 => stream().prop_map(|stream| Step::CaptureBegin { stream }),
        3 => stream().prop_map(|stream| Step::CaptureEnd { stream }),
        2 => mode().prop_map(Step::Events),
        2 => (0..128_u64).prop_map(Step::ExternalMib),
        1 => (32..512_u64).prop_map(Step::TotalMib),
        1 => Just(Step::Snapshot),
    ];
    match kind {
        Kind::Plain => prop_oneof![
            12 => alloc,
            9 => free,
            2 => elsewhere,
            1 => complete,
            1 => Just(Step::EmptyCache),
        ]
        .boxed(),
        Kind::Full => prop_oneof![
            24 => alloc,
            16 => free,
            5 => elsewhere,
            3 => complete,
            2 => Just(Step::EmptyCache),
            14 => rare,
        ]
        .boxed(),
        Kind::Recording => prop_oneof![
            10 => alloc,
            4 => alloc_in,
            8 => free,
            4 => waits,
            3 => completed,
            1 => Just(Step::EmptyCache),
        ]
        .boxed(),
    }
}

fn divisions() -> impl Strategy<Value = [u64; 16]> {
    let one = || select(&[0, 1, 2, 4, 8, 16][..]);
    prop_oneof![
        4 => Just([0; 16]),
        1 => one().prop_map(|n| [n; 16]),
        1 => proptest::array::uniform16(one()),
    ]
}

fn conf(release: Release) -> impl Strategy<Value = AllocConf> {
    let mib = |sizes: &'static [u64]| select(sizes).prop_map(Bytes::mib);
    (
        prop_oneof![2 => Just(Bytes::MAX), 1 => mib(&[20, 21, 32, 64, 200])],
        mib(&[20, 20, 20, 22, 64]),
        mib(&[20, 20, 12, 32, 64]),
        prop_oneof![Just(0.0), select(&[0.1, 0.5, 0.9][..])],
        divisions(),
        any::<bool>(),
        any::<bool>(),
        prop::bool::weighted(0.1),
        prop_oneof![3 => Just(1.0), 1 => select(&[0.1, 0.5, 0.9][..])],
    )
        .prop_map(
            move |(split, slack, segment, gc, divisions, expandable, reuse, throw, part)| {
                let mut conf = AllocConf::new(release);
                conf.max_split_size = split;
                conf.garbage_collection_threshold = gc;
                conf.roundup_power2_divisions = divisions;
                conf.expandable_segments = expandable;
                if release.at_least(6) {
                    conf.max_non_split_rounding_size = slack;
                }
                if release.at_least(9) {
                    conf.graph_capture_record_stream_reuse = reuse;
                }
                if release.at_least(10) {
                    conf.per_process_memory_fraction = part;
                }
                if release.at_least(11) {
                    conf.large_segment_size = segment;
                }
                if release.at_least(12) {
                    conf.throw_on_cudamalloc_oom = throw;
                }
                conf
            },
        )
}

fn addresses() -> impl Strategy<Value = AddressPolicy> {
    prop_oneof![
        Just(AddressPolicy::Rising),
        Just(AddressPolicy::Falling),
        Just(AddressPolicy::FirstFit),
        any::<u64>().prop_map(|seed| AddressPolicy::Random { seed }),
    ]
}

/// First steps that lead to the rarer rungs: a limit, so that garbage is collected; a pool with free
/// blocks that may serve where nothing else does.
fn beginning() -> impl Strategy<Value = Vec<Step>> {
    let limit = select(&[0.6, 0.9, 1.0][..]).prop_map(|part| vec![Step::Fraction(part)]);
    let pool = 0;
    let fallback = vec![
        Step::PoolCreate { pool },
        Step::PoolUseOnOom { pool, on: true },
        Step::PoolBegin { pool, stream: None },
        Step::Alloc { size: 30 << 20, stream: 0 },
        Step::Alloc { size: 512, stream: 0 },
        Step::PoolEnd { pool },
        Step::Free { which: 0 },
    ];
    prop_oneof![5 => Just(Vec::new()), 2 => limit, 1 => Just(fallback)]
}

fn program_of(
    kinds: &'static [Kind],
    releases: &'static [Release],
    steps: usize,
) -> BoxedStrategy<Program> {
    (select(releases), select(kinds))
        .prop_flat_map(move |(release, kind)| {
            (
                conf(release),
                select(&[64, 96, 128, 256, 1024, 8192][..]),
                1..=4_u16,
                mode(),
                addresses(),
                beginning(),
                vec(step(kind), 1..steps),
            )
                .prop_map(
                    move |(conf, mib, streams, events, addresses, first, steps)| Program {
                        release,
                        conf,
                        total: Bytes::mib(mib),
                        streams,
                        events,
                        addresses,
                        refuse: Vec::new(),
                        steps: first.into_iter().chain(steps).collect(),
                    },
                )
        })
        .boxed()
}

fn program(steps: usize) -> BoxedStrategy<Program> {
    program_of(&[Kind::Plain, Kind::Full, Kind::Full, Kind::Recording], &RELEASES, steps)
}

// ------------------------------------------------------------------------------------------ runners

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// A case that is made of steps, each of which may be left out.
trait Steps: Clone + fmt::Debug {
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
fn holds<S: Strategy<Value: Steps>>(
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
fn shortened<V: Steps>(mut case: V, test: impl Fn(V) -> Result<(), TestCaseError>) -> V {
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
struct Log(Vec<Event>);

impl Log {
    fn add(&mut self, action: Action, addr: Addr, size: Bytes, place: &Place) {
        self.0.push(Event { action, addr, size, stream: place.stream, pool: place.pool });
    }

    /// Without the addresses.
    fn decisions(&self) -> Vec<Event> {
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
fn apply<O: Observer>(
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
fn is_part_released(program: &Program, violation: &Violation) -> bool {
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
type Judged = (PyTorch, Check, Log);

/// Runs a program and judges after each operation; `None` where it came to what
/// [`is_part_released`] tells of.
fn judged(program: &Program, trace: &Trace) -> Result<Option<Judged>, TestCaseError> {
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
fn judge_device(allocator: &PyTorch, i: usize) -> Result<(), TestCaseError> {
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
fn judge_answer(
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
fn judge_blocks(program: &Program, layout: &Layout) -> Result<(), TestCaseError> {
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
fn drain<O: Observer>(
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

// --------------------------------------------------------------------------------------- properties

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

// ------------------------------------------------------------------------------------- structures

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key(u64);

impl FlatKey for Key {
    fn hash(self) -> u64 {
        self.0
    }
}

#[derive(Clone, Debug)]
enum TableStep {
    Insert(u64),
    Remove(u64),
    Change(u64),
    Clear,
}

#[test]
fn a_flat_hash_holds_what_a_hash_map_holds() {
    // Few keys, dense or far apart, so that many land in the same slots.
    let key = || {
        prop_oneof![
            0..40_u64,
            (0..40_u64).prop_map(|n| 1 << 56 | (3 + 32 * n)),
            (0..40_u64).prop_map(|n| n << 58),
        ]
    };
    let step = prop_oneof![
        12 => key().prop_map(TableStep::Insert),
        8 => key().prop_map(TableStep::Remove),
        2 => key().prop_map(TableStep::Change),
        1 => Just(TableStep::Clear),
    ];
    holds(1000, &vec(step, 1..300), |steps| {
        let mut table = FlatHash::default();
        let mut map = HashMap::new();
        for (i, step) in steps.into_iter().enumerate() {
            match step {
                TableStep::Insert(key) => {
                    let is_new = !map.contains_key(&key);
                    map.entry(key).or_insert(i);
                    prop_assert_eq!(table.insert(Key(key), i), is_new);
                }
                TableStep::Remove(key) => {
                    prop_assert_eq!(table.remove(Key(key)), map.remove(&key));
                }
                TableStep::Change(key) => {
                    let mine = map.get_mut(&key);
                    prop_assert_eq!(table.contains(Key(key)), mine.is_some());
                    let theirs = table.get_mut(Key(key));
                    prop_assert_eq!(&theirs, &mine);
                    if let (Some(theirs), Some(mine)) = (theirs, mine) {
                        (*theirs, *mine) = (i, i);
                    }
                }
                TableStep::Clear => {
                    table.clear();
                    map.clear();
                }
            }
            prop_assert_eq!((table.len(), table.is_empty()), (map.len(), map.is_empty()));
            let keys: Vec<Key> = table.keys().collect();
            prop_assert_eq!(keys.len(), map.len());
            for (key, value) in &map {
                prop_assert_eq!(table.get_mut(Key(*key)).copied(), Some(*value));
            }
            let mut walked = Vec::new();
            let mut slot = 0;
            while let Some((at, key)) = table.key_from(slot) {
                walked.push(key);
                slot = at + 1;
            }
            prop_assert_eq!(walked, keys);
        }
        Ok(())
    });
}

/// A seeded run against the plainest twin there is: a vector that is kept sorted.
#[test]
fn a_free_index_orders_as_a_sorted_vector_does() {
    let seed = number("FRAGSIM_SEED").unwrap_or(0);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut index = FreeIndex::default();
    let mut plain: Vec<FreeKey> = Vec::new();
    let block = |key: FreeKey| {
        BlockId::from_index(usize::try_from(key.addr.0).expect("addresses are small here"))
    };
    for round in 0..20_000 {
        let key = FreeKey {
            size: Bytes(512 * rng.random_range(1..12)),
            order: rng.random_range(0..3),
            addr: Addr(rng.random_range(1..200)),
        };
        let place = plain.binary_search(&key);
        if rng.random_bool(if round % 4000 < 2000 { 0.6 } else { 0.4 }) {
            assert_eq!(index.insert(key, block(key)), place.is_err(), "FRAGSIM_SEED={seed}");
            if let Err(at) = place {
                plain.insert(at, key);
            }
        } else {
            assert_eq!(index.remove(key), place.is_ok(), "FRAGSIM_SEED={seed}");
            if let Ok(at) = place {
                plain.remove(at);
            }
        }
        let found = |key: Option<&FreeKey>| key.map(|key| (*key, block(*key)));
        let size = Bytes(rng.random_range(0..7000));
        let first = found(plain.iter().find(|key| key.size >= size));
        assert_eq!(index.lower_bound(size), first, "FRAGSIM_SEED={seed}");
        let after = found(plain.iter().find(|other| **other > key));
        assert_eq!(index.after(key), after, "FRAGSIM_SEED={seed}");
        let before = found(plain.iter().rev().find(|other| **other < key));
        assert_eq!(index.before(Some(key)), before, "FRAGSIM_SEED={seed}");
        assert_eq!(index.before(None), found(plain.last()), "FRAGSIM_SEED={seed}");
        assert_eq!((index.len(), index.is_empty()), (plain.len(), plain.is_empty()));
    }
    assert!(index.iter().map(|(key, _)| key).eq(plain), "FRAGSIM_SEED={seed}");
    index.clear();
    assert!(index.is_empty());
}
