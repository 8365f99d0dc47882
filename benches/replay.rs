//! How fast programs are replayed and compared with their recordings; `load.rs` has how fast they are read.
//!
//! ```text
//! cargo bench                          everything
//! cargo bench -- replay/unwatched   one kind alone
//! ```
//! The inputs are recordings that ship in `traces/recorded`; throughput is in operations.

use std::{hint::black_box, path::Path, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fragsim::{
    base::Bytes,
    models::pytorch::{PyTorch, PyTorchConfig},
    observe::{DeviceStats, Record},
    sim::{Allocator, Device, DeviceConfig, Observer, OnOom, replay},
    source::snapshot,
    study::verify::{VerifyOptions, recorded_conf, verify_trace},
    trace::Trace,
};

/// Batches of changing length, without and with expandable segments.
const RECORDINGS: [&str; 2] = ["varlen_oom", "frag_expandable"];

fn file(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("traces/recorded/{name}.pickle.gz"))
}

fn history(name: &str) -> Trace {
    let snapshot = snapshot::load(file(name)).expect("the recording ships");
    snapshot.histories().expect("it holds a history").swap_remove(0)
}

/// An allocator under the recorded settings, on a device where nothing is short.
fn allocator(trace: &Trace) -> PyTorch {
    let recorded = trace.recorded().expect("it was recorded");
    let release = recorded.releases.1;
    let conf = recorded_conf(release, recorded.settings.as_ref()).expect("the release took it");
    let config = PyTorchConfig { conf, ..PyTorchConfig::new(release) };
    let device = Device::new(DeviceConfig::new(trace.device(), Bytes::gib(80)));
    PyTorch::new(config, device, trace.streams(), trace.pools())
}

fn replayed<O: Observer>(trace: &Trace, allocator: &mut PyTorch, mut observer: O) -> O {
    allocator.reset();
    let outcome = replay(trace, allocator, &mut observer, OnOom::Skip, None);
    black_box(outcome);
    observer
}

/// Nobody watches, the statistics watch, everything is kept.
fn bench_replay(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("replay");
    for name in RECORDINGS {
        let trace = history(name);
        let mut allocator = allocator(&trace);
        let max_split_size = allocator.conf().max_split_size;
        group.throughput(Throughput::Elements(trace.ops().len() as u64));
        group.bench_function(BenchmarkId::new("unwatched", name), |bencher| {
            bencher.iter(|| replayed(&trace, &mut allocator, ()));
        });
        group.bench_function(BenchmarkId::new("stats", name), |bencher| {
            bencher.iter(|| replayed(&trace, &mut allocator, DeviceStats::new(max_split_size)));
        });
        group.bench_function(BenchmarkId::new("record", name), |bencher| {
            bencher.iter(|| replayed(&trace, &mut allocator, Record::default()));
        });
    }
    group.finish();
}

fn bench_verify(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("verify");
    for name in RECORDINGS {
        let trace = history(name);
        let release = trace.recorded().map(|recorded| recorded.releases.1);
        let options = VerifyOptions { release, ..VerifyOptions::default() };
        group.throughput(Throughput::Elements(trace.ops().len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| assert!(verify_trace(&trace, &options).is_exact()));
        });
    }
    group.finish();
}

fn settings() -> Criterion {
    Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3))
}

criterion_group! {
    name = benches;
    config = settings();
    targets = bench_replay, bench_verify
}
criterion_main!(benches);
