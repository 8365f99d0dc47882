//! How fast free blocks are found, put in and taken out.
//!
//! ```text
//! cargo bench --bench free_index                               everything
//! cargo bench --bench free_index -- free_index/insert          one operation alone
//! cargo bench --bench free_index -- '/1000000/'                one number of blocks alone
//! ```
//! `free_index/<operation>/<contestant>/<free blocks>/<sizes>`, in operations. The contestants are the
//! index of the model (`fragsim`), the one before it (`binned`: bins as sorted vectors) and the standard
//! ordered map (`tree`). All hold the same blocks, at addresses of no order, and are asked the same; the
//! number of blocks stays the same throughout. A block that is taken out comes back only after others (a
//! tenth of all, but at least 100) were taken out, so that the caches do not know it too well.

use std::{
    collections::BTreeMap,
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fragsim::{
    base::{Addr, BlockId, Bytes, Span},
    sim::{Block, BlockArena, FreeIndex, FreeKey},
};

mod common;

use common::{
    binned::Binned,
    churn::{Random, Sizes},
};

/// An ordered index of the blocks of an arena.
trait Contestant {
    const NAME: &'static str;
    fn new(blocks: BlockArena) -> Self;
    fn insert(&mut self, id: BlockId);
    fn remove(&mut self, id: BlockId);
    fn lower_bound(&self, size: Bytes) -> Option<BlockId>;
}

struct Present(FreeIndex, BlockArena);

impl Contestant for Present {
    const NAME: &'static str = "fragsim";

    fn new(blocks: BlockArena) -> Self {
        Self(FreeIndex::default(), blocks)
    }

    fn insert(&mut self, id: BlockId) {
        self.0.insert(id, self.1.view());
    }

    fn remove(&mut self, id: BlockId) {
        assert!(self.0.remove(id, self.1.view()), "it is there");
    }

    fn lower_bound(&self, size: Bytes) -> Option<BlockId> {
        Some(self.0.lower_bound(size, &self.1)?.id)
    }
}

fn key_of(blocks: &BlockArena, id: BlockId) -> FreeKey {
    let block = &blocks[id];
    FreeKey { size: block.size, order: 0, addr: block.addr }
}

struct Before(Binned, BlockArena);

impl Contestant for Before {
    const NAME: &'static str = "binned";

    fn new(blocks: BlockArena) -> Self {
        Self(Binned::default(), blocks)
    }

    fn insert(&mut self, id: BlockId) {
        self.0.insert(key_of(&self.1, id), id);
    }

    fn remove(&mut self, id: BlockId) {
        assert!(self.0.remove(key_of(&self.1, id)), "it is there");
    }

    fn lower_bound(&self, size: Bytes) -> Option<BlockId> {
        self.0.lower_bound(size)
    }
}

struct Tree(BTreeMap<FreeKey, BlockId>, BlockArena);

impl Contestant for Tree {
    const NAME: &'static str = "tree";

    fn new(blocks: BlockArena) -> Self {
        Self(BTreeMap::new(), blocks)
    }

    fn insert(&mut self, id: BlockId) {
        self.0.insert(key_of(&self.1, id), id);
    }

    fn remove(&mut self, id: BlockId) {
        assert!(self.0.remove(&key_of(&self.1, id)).is_some(), "it is there");
    }

    fn lower_bound(&self, size: Bytes) -> Option<BlockId> {
        let from = FreeKey { size, order: 0, addr: Addr(0) };
        self.0.range(from..).next().map(|(_, id)| *id)
    }
}

fn rounded(sizes: Sizes, random: &mut Random) -> Bytes {
    Bytes(sizes.draw(random).next_multiple_of(512))
}

/// Free blocks in an index, and some that wait outside for their turn.
struct Ring<C> {
    index: C,
    ids: Vec<BlockId>,
    /// How many blocks are in the index: those from `at` on.
    inside: usize,
    at: usize,
    /// Sizes to look for.
    asked: Vec<Bytes>,
}

impl<C: Contestant> Ring<C> {
    fn new(inside: usize, sizes: Sizes) -> Self {
        let mut random = Random::default();
        let count = inside + (inside / 10).max(100);
        let mut places: Vec<u64> = (0..count as u64).collect();
        for last in (1..count).rev() {
            places.swap(last, random.below(last + 1));
        }
        let mut blocks = BlockArena::new(false);
        let mut create = |place| {
            let start = Addr(place << 27);
            blocks.create(Block::whole(Span { start, size: rounded(sizes, &mut random) }, 0))
        };
        let ids: Vec<BlockId> = places.into_iter().map(&mut create).collect();
        let mut index = C::new(blocks);
        for id in &ids[..inside] {
            index.insert(*id);
        }
        let asked = (0..1 << 16).map(|_| rounded(sizes, &mut random)).collect();
        Self { index, ids, inside, at: 0, asked }
    }

    /// Takes out a few blocks and puts as many others in; the time of either.
    fn step(&mut self, count: usize) -> [Duration; 2] {
        let len = self.ids.len();
        let started = Instant::now();
        for i in 0..count {
            self.index.remove(self.ids[(self.at + i) % len]);
        }
        let removed = started.elapsed();
        let started = Instant::now();
        for i in 0..count {
            self.index.insert(self.ids[(self.at + self.inside + i) % len]);
        }
        self.at = (self.at + count) % len;
        [removed, started.elapsed()]
    }

    /// The time of one kind of step, for `iters` blocks.
    fn steps(&mut self, iters: u64, which: usize) -> Duration {
        // Enough that reading the clock does not show, but no more than wait outside.
        let most = (self.ids.len() - self.inside).min(1000);
        let mut left = usize::try_from(iters).expect("as many as time allows");
        let mut time = Duration::ZERO;
        while left > 0 {
            let count = left.min(most);
            time += self.step(count)[which];
            left -= count;
        }
        time
    }
}

fn bench_contestant<C: Contestant>(criterion: &mut Criterion) {
    for inside in [100, 10_000, 1_000_000] {
        for (name, sizes) in [("small", Sizes::Small), ("large", Sizes::Large)] {
            let mut ring: Option<Ring<C>> = None;
            let id = |operation| {
                BenchmarkId::new(
                    format!("{operation}/{}", C::NAME),
                    format_args!("{inside}/{name}"),
                )
            };
            let mut group = criterion.benchmark_group("free_index");
            group.throughput(Throughput::Elements(1));
            group.bench_function(id("lower_bound"), |bencher| {
                let ring = ring.get_or_insert_with(|| Ring::new(inside, sizes));
                let mut asked = ring.asked.iter().cycle();
                bencher.iter(|| {
                    let size = asked.next().copied().unwrap_or_default();
                    black_box(ring.index.lower_bound(size))
                });
            });
            for (which, operation) in ["remove", "insert"].into_iter().enumerate() {
                group.bench_function(id(operation), |bencher| {
                    let ring = ring.get_or_insert_with(|| Ring::new(inside, sizes));
                    bencher.iter_custom(|iters| ring.steps(iters, which));
                });
            }
            group.finish();
        }
    }
}

/// The contestants are measured only if they give the same answers.
fn agree() {
    for sizes in [Sizes::Small, Sizes::Large] {
        let mut present = Ring::<Present>::new(1000, sizes);
        let mut before = Ring::<Before>::new(1000, sizes);
        let mut tree = Ring::<Tree>::new(1000, sizes);
        for _ in 0..100 {
            present.step(50);
            before.step(50);
            tree.step(50);
            for size in &tree.asked[..1000] {
                let answer = tree.index.lower_bound(*size);
                assert_eq!(present.index.lower_bound(*size), answer);
                assert_eq!(before.index.lower_bound(*size), answer);
            }
        }
    }
}

fn bench_all(criterion: &mut Criterion) {
    agree();
    bench_contestant::<Present>(criterion);
    bench_contestant::<Before>(criterion);
    bench_contestant::<Tree>(criterion);
}

fn settings() -> Criterion {
    let short = Duration::from_millis(700);
    Criterion::default().sample_size(20).warm_up_time(short / 2).measurement_time(short)
}

criterion_group! {
    name = benches;
    config = settings();
    targets = bench_all
}
criterion_main!(benches);
