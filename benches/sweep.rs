//! How fast many replays are, on one thread and on two, and what each watcher costs.
//!
//! ```text
//! cargo bench --bench sweep                     everything
//! cargo bench --bench sweep -- sweep/           100 replays on 1 and 2 threads
//! cargo bench --bench sweep -- figures          one replay, by what is watched
//! ```
//! The input is a recording that ships in `traces/recorded`: throughput is in operations.

use std::{hint::black_box, num::NonZeroUsize, path::Path, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fragsim::{
    base::{Bytes, Release},
    models::pytorch::conf::AllocConf,
    source::snapshot,
    study::{
        figures::Replayer,
        grid,
        verify::{VerifyOptions, resolved},
        whatif::{Program, Start, Terms, whatif},
    },
};

/// Replays of one sweep: enough that starting threads does not show.
const REPLAYS: usize = 100;

/// The larger half of the shipped recordings' operations: batches of changing length.
fn varlen() -> Program {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/recorded/varlen_oom.pickle.gz");
    let snapshot = snapshot::load(path).expect("the recording ships");
    let traces = snapshot.histories().expect("it holds a history");
    let (trace, _) = resolved(traces[0].clone(), &VerifyOptions::default());
    Program::of(&trace, Start::Reallocate).expect("it has few operations")
}

fn terms(conf: &str, capacity: Bytes) -> Terms {
    let release: Release = "2.11".parse().expect("a release");
    let (conf, _) = AllocConf::from_string(release, conf).expect("the release takes it");
    Terms::new(release, conf, capacity)
}

/// The same replays on one thread and on two, at capacities that all differ.
fn bench_sweep(criterion: &mut Criterion) {
    let program = varlen();
    let capacity = |job: usize| Bytes::gib(8) + Bytes::mib(job as u64);
    let work = |replayer: &mut Replayer, job: usize| {
        replayer.figures(&program, &terms("", capacity(job))).reserved
    };
    let mut group = criterion.benchmark_group("sweep/varlen");
    group.throughput(Throughput::Elements((REPLAYS * program.trace.ops().len()) as u64));
    for threads in [1, 2] {
        let threads = NonZeroUsize::new(threads).expect("not zero");
        group.bench_function(BenchmarkId::from_parameter(threads), |bencher| {
            bencher.iter(|| black_box(grid::collect(REPLAYS, threads, Replayer::new, work)));
        });
    }
    group.finish();
}

/// What a search watches, and what `whatif` does.
fn bench_figures(criterion: &mut Criterion) {
    let program = varlen();
    let mut group = criterion.benchmark_group("figures/varlen");
    group.throughput(Throughput::Elements(program.trace.ops().len() as u64));
    for (name, conf) in [("default", ""), ("expandable", "expandable_segments:True")] {
        let terms = terms(conf, Bytes::gib(16));
        let mut replayer = Replayer::new();
        group.bench_function(BenchmarkId::new("lean", name), |bencher| {
            bencher.iter(|| black_box(replayer.figures(&program, &terms)));
        });
        group.bench_function(BenchmarkId::new("full", name), |bencher| {
            bencher.iter(|| black_box(whatif(&program, &terms)));
        });
        let recording = Terms { keeps_events: true, ..terms.clone() };
        group.bench_function(BenchmarkId::new("with_events", name), |bencher| {
            bencher.iter(|| black_box(whatif(&program, &recording)));
        });
    }
    group.finish();
}

fn settings() -> Criterion {
    Criterion::default().sample_size(10).measurement_time(Duration::from_secs(5))
}

criterion_group! {
    name = benches;
    config = settings();
    targets = bench_sweep, bench_figures
}
criterion_main!(benches);
