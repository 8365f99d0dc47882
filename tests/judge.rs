//! The independent judge, which sees events alone, passes over all that was ever recorded and over
//! what the model does with the recorded programs.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it covers"
)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use fragsim::{
    base::{Bytes, DeviceIndex},
    models::pytorch::{PyTorch, PyTorchConfig},
    observe::{Check, CheckRules},
    sim::{Allocator, Device, DeviceConfig, OnOom, replay},
    study::verify::recorded_conf,
    trace::{Asked, Case, Control, Layout, Trace, script},
};

/// By what rules a case is judged: up to 2.3 a division of 1 leaves sizes unrounded, and before 2.8
/// events name no pools.
fn rules(case: &Case) -> CheckRules {
    const KEY: &str = "roundup_power2_divisions";
    let release = case.setup.release;
    let at_start = case.setup.settings.iter().any(|(_, text)| text.contains(KEY));
    let later = case.steps.iter().any(
        |step| matches!(&step.asked, Asked::Control(Control::Settings(text)) if text.contains(KEY)),
    );
    let is_unrounded = !release.at_least(4) && (at_start || later);
    CheckRules { step: Bytes(if is_unrounded { 1 } else { 512 }), names_pools: release.at_least(8) }
}

/// Judges the recorded events of a case, each device for itself; returns their number.
fn judge_case(case: &Case) -> Result<usize, String> {
    let names_devices = case.setup.release.at_least(2);
    let fresh = || Check::with_rules(&Layout::default(), rules(case));
    let mut devices: BTreeMap<DeviceIndex, Check> = BTreeMap::new();
    for step in &case.steps {
        for (device, event) in &step.events {
            let check = devices.entry(*device).or_insert_with(fresh);
            check.event(event).map_err(|violation| {
                format!("operation {} (line {}): {violation}", step.number, step.line)
            })?;
        }
    }
    let mut ends: BTreeMap<DeviceIndex, Layout> = BTreeMap::new();
    for (device, layout) in &case.end {
        // The history of 2.1 does not name the device; their addresses are apart.
        let device = if names_devices { *device } else { DeviceIndex(0) };
        ends.entry(device).or_default().segments.extend(layout.segments.iter().cloned());
    }
    if case.setup.caching {
        let all: BTreeSet<DeviceIndex> = devices.keys().chain(ends.keys()).copied().collect();
        for device in all {
            let check = devices.entry(device).or_insert_with(fresh);
            check
                .end(&ends.remove(&device).unwrap_or_default())
                .map_err(|violation| format!("device {device}: {violation}"))?;
        }
    }
    Ok(devices.values().map(Check::event_count).sum())
}

fn judge_cases(paths: &[PathBuf]) {
    let (mut events, mut violations) = (0, Vec::new());
    for path in paths {
        let name = path.to_string_lossy();
        match judge_case(&common::case(path)) {
            Ok(count) => events += count,
            Err(violation) => violations.push(format!("{name}: {violation}")),
        }
    }
    println!("{} cases, {events} events", paths.len());
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

fn is_case(path: &Path) -> bool {
    !path.to_string_lossy().contains("parser")
}

#[test]
fn events_of_the_shipped_cases_can_be() {
    let mut paths = common::files(&common::package("traces/golden"), ".jsonl.gz");
    paths.retain(|path| is_case(path));
    assert!(paths.len() > 700, "{}", paths.len());
    judge_cases(&paths);
}

#[test]
fn events_of_the_shared_cases_can_be() {
    let mut paths = common::shared_only("golden", ".jsonl.gz");
    paths.retain(|path| is_case(path));
    judge_cases(&paths);
}

/// Judges what was recorded of a program; returns the number of events.
fn judge_recorded(trace: &Trace) -> Result<usize, String> {
    let recorded = trace.recorded().expect("it was lifted from a recording");
    let rules = CheckRules { names_pools: recorded.events_name_pools, ..CheckRules::default() };
    let mut check = Check::with_rules(trace.start(), rules);
    for event in recorded.events.iter() {
        check.event(&event).map_err(|violation| violation.to_string())?;
    }
    check.end(&recorded.end).map_err(|violation| violation.to_string())?;
    Ok(check.event_count())
}

/// Judges what the model does with a program, on a device with addresses of its own; returns the
/// number of events.
fn judge_replayed(trace: &Trace, total: Bytes) -> Result<usize, String> {
    let release = trace.recorded().map(|recorded| recorded.releases.1).unwrap_or_default();
    let settings = trace.recorded().and_then(|recorded| recorded.settings.as_ref());
    let conf = recorded_conf(release, settings).map_err(|error| error.text)?;
    let config = PyTorchConfig { conf, ..PyTorchConfig::new(release) };
    let device = Device::new(DeviceConfig::new(trace.device(), total));
    let mut model = PyTorch::new(config, device, trace.streams(), trace.pools());
    let mut check = Check::new(trace.start());
    replay(trace, &mut model, &mut check, OnOom::Skip, None);
    model.check();
    match check.violation() {
        Some(violation) => Err(violation.to_string()),
        None => check
            .end(&model.layout())
            .map(|()| check.event_count())
            .map_err(|violation| violation.to_string()),
    }
}

fn judge_recordings(paths: &[PathBuf]) {
    let (mut recorded, mut replayed, mut violations) = (0, 0, Vec::new());
    let mut add =
        |path: &Path, what: &str, sum: &mut usize, found: Result<usize, String>| match found {
            Ok(count) => *sum += count,
            Err(violation) => violations.push(format!("{}: {what}: {violation}", path.display())),
        };
    for path in paths {
        for trace in common::histories(path) {
            add(path, "recorded", &mut recorded, judge_recorded(&trace));
            // Roomy, and so tight that memory is given back and requests fail.
            for total in [Bytes::gib(80), Bytes::mib(200)] {
                add(path, "replayed", &mut replayed, judge_replayed(&trace, total));
            }
        }
    }
    println!("{} files, {recorded} events recorded, {replayed} replayed", paths.len());
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn events_of_the_shipped_recordings_can_be() {
    let paths = common::files(&common::package("traces/recorded"), ".pickle.gz");
    assert!(paths.len() >= 12, "{paths:?}");
    judge_recordings(&paths);
}

#[test]
fn events_of_the_shared_recordings_can_be() {
    judge_recordings(&common::shared_only("recorded", ".pickle.gz"));
}

#[test]
fn events_of_the_scenarios_can_be() {
    judge_recordings(&common::shared_only("scenarios", ".pickle.gz"));
}

#[test]
fn events_of_the_public_snapshots_can_be() {
    let mut paths = common::shared_only("public", ".pickle.gz");
    paths.retain(|path| {
        let snapshot = fragsim::source::snapshot::load(path);
        snapshot.is_ok_and(|snapshot| snapshot.entries() > 0)
    });
    judge_recordings(&paths);
}

#[test]
fn events_of_the_example_traces_can_be() {
    for path in common::files(&common::package("traces"), ".fragsim") {
        let text = std::fs::read_to_string(&path).unwrap();
        let trace = script::parse(&text).unwrap_or_else(|error| panic!("{error}"));
        let judged = judge_replayed(&trace, Bytes::gib(80));
        assert!(judged.is_ok_and(|count| count > 0), "{}", path.display());
    }
}
