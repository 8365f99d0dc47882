//! How fast programs are replayed and compared with their recordings; `load.rs` has how fast they are
//! read, `hot.rs` times one program without ceremony.
//!
//! ```text
//! cargo bench --bench replay                         everything
//! cargo bench --bench replay -- replay/bare          one kind of watching alone
//! cargo bench --bench replay -- churn                synthetic churn alone
//! ```
//! `replay/<watched by>/<recording>/<settings>` and `verify/<recording>` are over recordings that ship in
//! `traces/recorded`, and more where `../shared` (or the folder that `FRAGSIM_SHARED` names) has them;
//! throughput is in operations. `churn/<live blocks>/<settings>` frees and replaces one block after the
//! other; its throughput is in pairs.

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fragsim::{
    models::pytorch::PyTorch,
    observe::Record,
    sim::{Allocator as _, Observer, OnOom, replay},
    study::verify::{VerifyOptions, verify_trace},
    trace::Trace,
};

mod common;

use common::{
    CONFS, Run, SHIPPED, Watch,
    churn::{self, Churn, Sizes},
};

/// A whole program on an allocator that ran it before.
struct Whole<'a>(&'a Trace, &'a mut PyTorch);

impl Run for Whole<'_> {
    fn run<O: Observer>(self, observer: &mut O) {
        self.1.reset();
        let outcome = replay(self.0, self.1, observer, OnOom::Stop, None);
        assert!(black_box(outcome).completed, "nothing is short");
    }
}

/// Nobody watches, the statistics watch, everything is kept.
fn bench_replay(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("replay");
    for (name, path) in common::recordings() {
        let trace = common::recorded_program(&path).expect("the recording is one");
        group.throughput(Throughput::Elements(trace.ops().len() as u64));
        for (conf_name, conf) in CONFS {
            let mut allocator = common::allocator(&trace, conf).expect("the settings are known");
            for (watch_name, watch) in Watch::ALL {
                let id = BenchmarkId::new(watch_name, format_args!("{name}/{conf_name}"));
                group.bench_function(id, |bencher| {
                    bencher.iter(|| {
                        let mut kept = Record::default();
                        watch.with(&mut kept, Whole(&trace, &mut allocator));
                        kept
                    });
                });
            }
        }
    }
    group.finish();
}

/// From one live block to a million.
fn bench_churn(criterion: &mut Criterion) {
    const PAIRS: usize = 50_000;
    let mut group = criterion.benchmark_group("churn");
    for live in [1, 1_000, 100_000, 1_000_000] {
        let churn = churn::pairs(Sizes::Mixed, live, PAIRS);
        let Churn { trace, from } = &churn;
        group.throughput(Throughput::Elements(churn.timed().len() as u64 / 2));
        for (conf_name, conf) in CONFS {
            let mut settled: Option<PyTorch> = None;
            group.bench_function(BenchmarkId::new(live.to_string(), conf_name), |bencher| {
                let settled = settled.get_or_insert_with(|| {
                    let mut new = common::allocator(trace, conf).expect("the settings are known");
                    common::settle(trace, *from, &mut new);
                    new
                });
                bencher.iter_batched_ref(
                    || settled.clone(),
                    |allocator| common::go_on(trace, churn.timed(), allocator, &mut ()),
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

fn bench_verify(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("verify");
    for name in SHIPPED {
        let trace = common::history(&common::shipped(name)).expect("the recording ships");
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
    let short = Duration::from_secs(2);
    Criterion::default().sample_size(20).warm_up_time(short / 4).measurement_time(short)
}

criterion_group! {
    name = benches;
    config = settings();
    targets = bench_replay, bench_churn, bench_verify
}
criterion_main!(benches);
