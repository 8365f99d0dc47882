//! The model beside allocators that solve a neighbouring problem, on the same churn.
//!
//! ```text
//! cargo bench --bench neighbours
//! ```
//! `neighbours/<contestant>/<sizes>/<live blocks>`, in pairs of a free and a request. Each contestant
//! frees and replaces the same blocks in the same order, from a settled state.
//!
//! None of them answers what the model answers, which is what PyTorch would do, address by address:
//!
//! - **offset-allocator** hands out places in one range of fixed size, from 256 bins of sizes (three bits
//!   of mantissa), the last block of a bin first: not the best fit in the order of size, tie-break and
//!   address. It knows no pools, no streams, no segments that come and go, no settings and no events of
//!   what it did, and it holds only as many blocks as was said when it was made.
//! - **rlsf** (TLSF) hands out real memory from two levels of bins, and keeps its records in that memory.
//!   It takes what fits well, from a bin above the size asked, in the order of last use; it knows none of
//!   the above either. Its safe interface is that of a global allocator, which takes a lock for every
//!   call: `neighbours/lock` is the price of an uncontended lock here. As its memory is real, its sizes
//!   are a part of the others': 32 bytes to 64 KiB, so that the system has given it before the clock
//!   starts.

use std::{
    hint::black_box,
    mem::MaybeUninit,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fragsim::{
    base::{Bytes, Id as _},
    models::pytorch::PyTorch,
    trace::{Op, Trace},
};

mod common;

use common::churn::{self, Sizes};

#[global_allocator]
static GLOBAL: rlsf::GlobalTlsf = rlsf::GlobalTlsf::new();

/// An allocator that can be taken through a range of operations.
trait Contestant {
    const NAME: &'static str;
    fn new(trace: &Trace, sizes: Sizes) -> Self;
    fn go_on(&mut self, trace: &Trace, range: std::ops::Range<usize>);
}

struct Model(PyTorch);

impl Contestant for Model {
    const NAME: &'static str = "fragsim";

    fn new(trace: &Trace, _: Sizes) -> Self {
        let mut new = common::allocator(trace, "").expect("the settings are known");
        common::settle(trace, 0, &mut new);
        Self(new)
    }

    fn go_on(&mut self, trace: &Trace, range: std::ops::Range<usize>) {
        common::go_on(trace, range, &mut self.0, &mut ());
    }
}

/// An allocator that knows requests and frees alone.
trait Neighbour {
    const NAME: &'static str;
    type Block;
    fn new(sizes: Sizes) -> Self;
    fn malloc(&mut self, size: Bytes) -> Option<Self::Block>;
    fn free(&mut self, block: Self::Block);
}

/// A neighbour and what it has handed out.
struct Through<N: Neighbour>(N, Vec<Option<N::Block>>);

impl<N: Neighbour> Contestant for Through<N> {
    const NAME: &'static str = N::NAME;

    fn new(trace: &Trace, sizes: Sizes) -> Self {
        Self(N::new(sizes), (0..trace.alloc_count()).map(|_| None).collect())
    }

    fn go_on(&mut self, trace: &Trace, range: std::ops::Range<usize>) {
        let Self(allocator, blocks) = self;
        for op in &trace.ops()[range] {
            match op {
                Op::Alloc(op) => {
                    let block = allocator.malloc(op.size).expect("nothing is short");
                    blocks[op.id.index()] = Some(block);
                }
                Op::Free(op) => {
                    let block = blocks[op.id.index()].take().expect("it is live");
                    allocator.free(block);
                }
                _ => unreachable!("churn asks and frees"),
            }
        }
    }
}

impl Neighbour for offset_allocator::Allocator {
    const NAME: &'static str = "offset-allocator";
    type Block = offset_allocator::Allocation;

    /// In units of 512 bytes: 2 TiB, and a million blocks.
    fn new(_: Sizes) -> Self {
        Self::with_max_allocs(u32::MAX, 1 << 20)
    }

    fn malloc(&mut self, size: Bytes) -> Option<Self::Block> {
        self.allocate(u32::try_from(size.0.div_ceil(512)).ok()?)
    }

    fn free(&mut self, block: Self::Block) {
        self.free(block);
    }
}

/// The global allocator, and which part of a size it is asked for.
struct Tlsf(u64);

impl Neighbour for Tlsf {
    const NAME: &'static str = "rlsf";
    type Block = Box<[MaybeUninit<u8>]>;

    fn new(sizes: Sizes) -> Self {
        Self(if sizes == Sizes::Small { 16 } else { 1024 })
    }

    fn malloc(&mut self, size: Bytes) -> Option<Self::Block> {
        Some(black_box(Box::new_uninit_slice(usize::try_from(size.0 / self.0).ok()?)))
    }

    fn free(&mut self, block: Self::Block) {
        drop(block);
    }
}

fn bench_contestant<C: Contestant>(criterion: &mut Criterion) {
    const PAIRS: usize = 20_000;
    let mut group = criterion.benchmark_group("neighbours");
    for (name, sizes) in [("small", Sizes::Small), ("large", Sizes::Large)] {
        for live in [1_000, 10_000] {
            let churn = churn::pairs(sizes, live, PAIRS);
            group.throughput(Throughput::Elements(PAIRS as u64));
            let id = BenchmarkId::new(C::NAME, format_args!("{name}/{live}"));
            group.bench_function(id, |bencher| {
                let settled = || {
                    let mut new = C::new(&churn.trace, sizes);
                    new.go_on(&churn.trace, 0..churn.from);
                    new
                };
                bencher.iter_batched_ref(
                    settled,
                    |contestant| contestant.go_on(&churn.trace, churn.timed()),
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

fn bench_lock(criterion: &mut Criterion) {
    let count = Mutex::new(0u64);
    let mut group = criterion.benchmark_group("neighbours");
    group.throughput(Throughput::Elements(1));
    group.bench_function("lock", |bencher| {
        bencher.iter(|| *black_box(&count).lock().unwrap_or_else(PoisonError::into_inner) += 1);
    });
    group.finish();
}

fn settings() -> Criterion {
    let short = Duration::from_secs(1);
    Criterion::default().sample_size(20).warm_up_time(short / 2).measurement_time(short)
}

criterion_group! {
    name = benches;
    config = settings();
    targets =
        bench_contestant::<Model>,
        bench_contestant::<Through<offset_allocator::Allocator>>,
        bench_contestant::<Through<Tlsf>>,
        bench_lock
}
criterion_main!(benches);
