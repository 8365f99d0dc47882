//! How fast recordings are read.
//!
//! ```text
//! cargo bench --bench load                     everything
//! cargo bench --bench load -- load/packed      one kind alone
//! ```
//! `load/snapshot` is from the file to a snapshot, in bytes of the file; `load/histories` from there to
//! traces, in entries; `load/packed` from the packed form to traces, in operations. The inputs ship in
//! `traces/recorded`; a recording of a million entries is read too where `../shared` (or the folder that
//! `FRAGSIM_SHARED` names) has it. `load_peer.py` compares with Python.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fragsim::source::{packed, snapshot};

fn recordings() -> Vec<(String, PathBuf)> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ships = ["varlen_oom", "frag_expandable"];
    let mut found: Vec<_> = ships
        .map(|name| (name.to_owned(), package.join(format!("traces/recorded/{name}.pickle.gz"))))
        .into();
    let shared =
        std::env::var_os("FRAGSIM_SHARED").map_or_else(|| package.join("../shared"), PathBuf::from);
    let big = shared.join("data/recorded/big_1m.pickle.gz");
    if big.is_file() {
        found.push(("big_1m".to_owned(), big));
    }
    found
}

fn bench_load(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("load");
    for (name, path) in recordings() {
        let bytes = std::fs::metadata(&path).expect("the recording is there").len();
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function(BenchmarkId::new("snapshot", &name), |bencher| {
            bencher.iter(|| snapshot::load(&path).expect("it is a snapshot"));
        });
        let snapshot = snapshot::load(&path).expect("it is a snapshot");
        group.throughput(Throughput::Elements(snapshot.entries() as u64));
        group.bench_function(BenchmarkId::new("histories", &name), |bencher| {
            bencher.iter(|| snapshot.histories().expect("it holds a history"));
        });
        let traces = snapshot.histories().expect("it holds a history");
        let packed = packed::to_bytes(&snapshot.overview(), &traces).expect("it was recorded");
        let ops: usize = traces.iter().map(|trace| trace.ops().len()).sum();
        drop((snapshot, traces));
        group.throughput(Throughput::Elements(ops as u64));
        group.bench_function(BenchmarkId::new("packed", &name), |bencher| {
            bencher.iter(|| packed::from_bytes(&packed).expect("it was packed"));
        });
    }
    group.finish();
}

fn settings() -> Criterion {
    Criterion::default().sample_size(10).measurement_time(Duration::from_secs(3))
}

criterion_group! {
    name = benches;
    config = settings();
    targets = bench_load
}
criterion_main!(benches);
