//! Every workload: runs in seconds, is exact in the checker, comes back from every format, and says
//! clearly what it cannot do.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use fragsim::{
    base::{Bytes, Release},
    models::pytorch::{PyTorch, PyTorchConfig, conf::AllocConf},
    observe::Check,
    sim::{Allocator as _, Device, DeviceConfig, OnOom, replay},
    source::{json, packed},
    study::estimate::{Budget, CONTEXT, budget},
    study::whatif::Terms,
    trace::{EventMode, Trace, script},
    workload::{self, Synthesized, Workload, catalogue, synthesize},
};
use proptest::prelude::*;

/// Every workload with its defaults and with each preset.
fn all() -> Vec<(String, Box<dyn Workload>)> {
    let mut all: Vec<(String, Box<dyn Workload>)> = Vec::new();
    for entry in catalogue() {
        all.push((entry.name.to_owned(), (entry.make)()));
        for preset in entry.presets {
            let program = entry.preset(preset.name).unwrap();
            all.push((format!("{} {}", entry.name, preset.name), program));
        }
    }
    all
}

fn run(name: &str, program: &dyn Workload) -> Synthesized {
    synthesize(program).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[track_caller]
fn assert_same(name: &str, a: &Trace, b: &Trace) {
    assert_eq!(
        (a.device(), a.streams(), a.pools()),
        (b.device(), b.streams(), b.pools()),
        "{name}"
    );
    assert!(a.ops() == b.ops(), "{name}: operations");
    assert_eq!(a.controls(), b.controls(), "{name}");
    assert!(a.labels() == b.labels(), "{name}: labels");
}

fn json_of(trace: &Trace) -> Vec<u8> {
    let mut bytes = Vec::new();
    json::write(trace, &mut bytes).unwrap();
    bytes
}

#[test]
fn every_workload_runs_in_seconds_is_exact_and_comes_back_from_every_format() {
    for (name, program) in all() {
        let began = Instant::now();
        let ran = run(&name, program.as_ref());
        let made = began.elapsed();
        let ops: usize = ran.traces.iter().map(|trace| trace.ops().len()).sum();
        println!("{name}: {ops} operations, made in {made:?}");
        assert!(made < Duration::from_secs(20), "{name} took {made:?}");
        assert!(ops > 0, "{name} does nothing");
        for trace in &ran.traces {
            assert!(trace.ops().is_empty() || !trace.labels().is_empty(), "{name} has no labels");
            check(&name, trace);
            let text = script::print(trace).to_string();
            assert_same(&name, &script::parse(&text).unwrap(), trace);
            assert_same(&name, &json::read(json_of(trace).as_slice()).unwrap(), trace);
        }
        let bytes = packed::program_to_bytes(&ran.traces).unwrap();
        let unpacked = packed::from_bytes(&bytes).unwrap().traces;
        assert_eq!(unpacked.len(), ran.traces.len());
        for (a, b) in unpacked.iter().zip(&ran.traces) {
            assert_same(&name, a, b);
        }
    }
}

/// The judge sees no overlap, no hole, no byte lost; and what is left at the end is given back.
fn check(name: &str, trace: &Trace) {
    let release = Release::NEWEST;
    let device = Device::new(DeviceConfig::new(trace.device(), Bytes::gib(1 << 14)));
    let config = PyTorchConfig {
        release,
        conf: AllocConf::new(release),
        caching: true,
        events: EventMode::Ready,
    };
    let mut model = PyTorch::new(config, device, trace.streams(), trace.pools());
    let mut judge = Check::new(trace.start());
    let outcome = replay(trace, &mut model, &mut judge, OnOom::Stop, None);
    assert!(outcome.completed, "{name}: {:?}", outcome.first_failure);
    assert_eq!(judge.violation(), None, "{name}");
    judge.end(&model.layout()).unwrap_or_else(|fault| panic!("{name}: {fault:?}"));
}

#[test]
fn the_same_parameters_give_the_same_bytes() {
    for entry in catalogue() {
        let program = (entry.make)();
        let [a, b] = [0, 1].map(|_| run(entry.name, program.as_ref()));
        for (a, b) in a.traces.iter().zip(&b.traces) {
            assert!(json_of(a) == json_of(b), "{}", entry.name);
        }
    }
}

#[test]
fn every_parameter_is_documented_and_takes_its_own_value() {
    for (name, mut program) in all() {
        let parameters = program.parameters();
        for parameter in &parameters {
            assert!(
                parameter.about.ends_with('.'),
                "{name} {}: {}",
                parameter.name,
                parameter.about
            );
            let twice = parameters.iter().filter(|other| other.name == parameter.name).count();
            assert_eq!(twice, 1, "{name} {}", parameter.name);
        }
        for (parameter, value) in program.values() {
            let taken = workload::set(program.as_mut(), parameter, &value);
            taken.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        program.check().unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

fn estimate(name: &str, values: &[(&str, &str)]) -> Budget {
    let mut program = (workload::find(name).unwrap().make)();
    for (name, value) in values {
        workload::set(program.as_mut(), name, value).unwrap();
    }
    let ran = run(name, program.as_ref());
    let release = Release::NEWEST;
    let terms = Terms::new(release, AllocConf::new(release), Bytes::gib(1 << 14));
    budget(&ran.traces[0], &terms, CONTEXT).unwrap()
}

fn most(budget: &Budget, label: &str) -> u64 {
    budget.labels.iter().find(|sum| sum.label == label).map_or(0, |sum| sum.peak.0)
}

/// GPT-2 small has 124,439,808 parameters: vocabulary 50257, 1024 places, 12 blocks of width 768.
#[test]
fn weights_gradients_and_states_are_those_of_the_usual_estimates() {
    let (layers, d, vocab, places) = (12_u64, 768_u64, 50257_u64, 1024_u64);
    let block = 12 * d * d + 13 * d;
    let parameters = vocab * d + places * d + layers * block + 2 * d;
    assert_eq!(parameters, 124_439_808);
    let values = [("context", "1024"), ("batch", "1"), ("seq", "128"), ("autocast", "none")];
    let budget = estimate("train", &values);
    let live = |label: &str| {
        budget.labels.iter().find(|sum| sum.label == label).map_or(0, |sum| sum.live.0)
    };
    assert_eq!(live("parameter"), 4 * parameters);
    assert_eq!(most(&budget, "gradient"), 4 * parameters);
    let states = most(&budget, "optimizer_state");
    // Adam keeps two numbers a parameter; with `capturable` its step counts live on the device.
    assert!(states >= 8 * parameters && states - 8 * parameters < 4096, "{states}");
    assert_eq!(
        budget.total(),
        Bytes(
            budget.labels.iter().map(|sum| sum.live.0).sum::<u64>()
                + budget.rounding.0
                + budget.cached().0
                + CONTEXT.0
        )
    );
}

/// Values that no program should be given, and some that it should.
fn extreme() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("0"),
        Just("1"),
        Just("2"),
        Just("3"),
        Just("7"),
        Just("64"),
        Just("1000"),
        Just("65536"),
        Just("4294967296"),
        Just("9223372036854775807"),
        Just("18446744073709551615"),
        Just("18446744073709551616"),
        Just("-1"),
        Just("1e9"),
        Just("0.5"),
        Just("-0.0"),
        Just("NaN"),
        Just("inf"),
        Just("true"),
        Just("false"),
        Just("fp32"),
        Just(""),
        Just("1,2,3"),
        Just("x"),
    ]
    .prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, ..ProptestConfig::default() })]

    /// What cannot be is said with the name of a parameter. What is allowed is not run here: a large
    /// program is no error.
    #[test]
    fn extreme_values_are_refused_by_name(
        entry in 0..catalogue().len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), extreme()), 1..4),
    ) {
        let mut program = (catalogue()[entry].make)();
        let parameters = program.parameters();
        for (which, value) in changes {
            let name = which.get(&parameters).name;
            if let Err(error) = workload::set(program.as_mut(), name, &value) {
                prop_assert!(error.to_string().starts_with(name), "{error}");
            }
        }
        if let Err(error) = program.check() {
            let text = error.to_string();
            let names = parameters.iter().any(|parameter| text.contains(parameter.name));
            prop_assert!(names, "{text}: names no parameter");
        }
    }
}

/// One parameter at a time at an extreme value: an error, or a program that ends.
#[test]
fn no_extreme_value_panics_or_hangs() {
    for entry in catalogue() {
        for parameter in (entry.make)().parameters() {
            for value in [
                "0",
                "1",
                "2",
                "9223372036854775807",
                "18446744073709551615",
                "0.000001",
                "1e300",
                "0",
            ] {
                let mut program = (entry.make)();
                if workload::set(program.as_mut(), parameter.name, value).is_err() {
                    continue;
                }
                let began = Instant::now();
                let ran = synthesize(program.as_ref());
                let took = began.elapsed();
                let what = format!("{} {} {value}", entry.name, parameter.name);
                assert!(took < Duration::from_secs(30), "{what}: {took:?}");
                if let Err(error) = ran {
                    assert!(error.to_string().len() < 500, "{what}: {error}");
                }
            }
        }
    }
}
