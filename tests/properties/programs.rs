//! Random programs: what they are made of, and how they become traces.

use std::fmt;

use fragsim::{
    base::{AllocId, Bytes, DeviceIndex, PoolId, RELEASES, Release, StreamId},
    models::pytorch::{PyTorch, PyTorchConfig, conf::AllocConf},
    observe::CheckRules,
    sim::{AddressPolicy, Device, DeviceConfig},
    trace::{Control, EventMode, Op, Stream, Trace, TraceBuilder, TraceError},
};
use proptest::{collection::vec, prelude::*, sample::select};

/// One step of a random program; what it names is taken modulo what there is.
#[derive(Clone, Debug)]
pub(crate) enum Step {
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
pub(crate) struct Program {
    pub(crate) release: Release,
    pub(crate) conf: AllocConf,
    pub(crate) total: Bytes,
    pub(crate) streams: u16,
    pub(crate) events: EventMode,
    pub(crate) addresses: AddressPolicy,
    /// Attempts to get device memory that fail.
    pub(crate) refuse: Vec<u64>,
    pub(crate) steps: Vec<Step>,
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

pub(crate) const POOLS: [PoolId; 3] = [PoolId(0, 1), PoolId(0, 2), PoolId(1, 0)];

impl Program {
    pub(crate) fn trace(&self) -> Trace {
        self.build().expect("a program names only what is there")
    }

    pub(crate) fn build(&self) -> Result<Trace, TraceError> {
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
    pub(crate) fn keeping_begun_pools(mut self) -> Self {
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

    pub(crate) fn device(&self) -> Device {
        let config = DeviceConfig {
            addresses: self.addresses,
            ..DeviceConfig::new(DeviceIndex(0), self.total)
        };
        let mut device = Device::new(config);
        device.refuse(&self.refuse);
        device
    }

    pub(crate) fn allocator(&self, trace: &Trace) -> PyTorch {
        let (conf, events) = (self.conf.clone(), self.events);
        let config = PyTorchConfig { conf, events, ..PyTorchConfig::new(self.release) };
        PyTorch::new(config, self.device(), trace.streams(), trace.pools())
    }

    /// Whether a setting could make the release leave sizes unrounded: see [`CheckRules::step`].
    pub(crate) fn rules(&self) -> CheckRules {
        let is_unrounded = !self.release.at_least(4)
            && (self.conf.roundup_power2_divisions.contains(&1)
                || self.sets("roundup_power2_divisions"));
        CheckRules { step: Bytes(if is_unrounded { 1 } else { 512 }), ..CheckRules::default() }
    }

    /// Whether a run-time setting names `key`.
    pub(crate) fn sets(&self, key: &str) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Settings(text) if text.contains(key)))
    }
}

impl Step {
    /// The control of a step, where the release has it.
    pub(crate) fn control(
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
pub(crate) const EDGES: [u64; 32] = [
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

pub(crate) fn size() -> BoxedStrategy<u64> {
    prop_oneof![
        4 => select(&EDGES[..]),
        2 => 1..=(1_u64 << 20),
        3 => (1_u64 << 20)..(21 << 20),
        1 => (0..10_u64).prop_flat_map(|log| (1_u64 << 19 << log)..=(1 << 20 << log)),
        1 => (1..40_u64).prop_map(|n| n << 20),
    ]
    .boxed()
}

pub(crate) fn mode() -> impl Strategy<Value = EventMode> {
    prop_oneof![
        Just(EventMode::Ready),
        Just(EventMode::Manual),
        (0..4_u32).prop_map(EventMode::Polls)
    ]
}

pub(crate) fn settings() -> impl Strategy<Value = &'static str> {
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
pub(crate) enum Kind {
    /// Requests, frees, other streams, `empty_cache`.
    Plain,
    /// And everything else that programs do.
    Full,
    /// A recording: its frees wait without saying for what.
    Recording,
}

pub(crate) fn step(kind: Kind) -> BoxedStrategy<Step> {
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

pub(crate) fn divisions() -> impl Strategy<Value = [u64; 16]> {
    let one = || select(&[0, 1, 2, 4, 8, 16][..]);
    prop_oneof![
        4 => Just([0; 16]),
        1 => one().prop_map(|n| [n; 16]),
        1 => proptest::array::uniform16(one()),
    ]
}

pub(crate) fn conf(release: Release) -> impl Strategy<Value = AllocConf> {
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

pub(crate) fn addresses() -> impl Strategy<Value = AddressPolicy> {
    prop_oneof![
        Just(AddressPolicy::Rising),
        Just(AddressPolicy::Falling),
        Just(AddressPolicy::FirstFit),
        any::<u64>().prop_map(|seed| AddressPolicy::Random { seed }),
    ]
}

/// First steps that lead to the rarer rungs: a limit, so that garbage is collected; a pool with free
/// blocks that may serve where nothing else does.
pub(crate) fn beginning() -> impl Strategy<Value = Vec<Step>> {
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

pub(crate) fn program_of(
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

pub(crate) fn program(steps: usize) -> BoxedStrategy<Program> {
    program_of(&[Kind::Plain, Kind::Full, Kind::Full, Kind::Recording], &RELEASES, steps)
}
