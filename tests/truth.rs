//! Synthetic against real: each workload that answers to a recorded program keeps to what that took.
//! `examples/truth` prints the same as a table.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]
#![allow(
    missing_docs,
    dead_code,
    unreachable_pub,
    reason = "modules of a command, of which the test uses a part"
)]

mod common;

#[path = "../examples/truth/bounds.rs"]
mod bounds;
#[path = "../examples/truth/judge.rs"]
mod judge;
#[path = "../examples/truth/maps.rs"]
mod maps;

use bounds::{ALLOCATED_MEDIAN, changes, families, median};

#[test]
fn workloads_take_what_the_real_programs_took() {
    let Some(folder) = common::shared("scenarios") else { return };
    let runs = judge::runs(&folder, "").unwrap();
    let mut broken = Vec::new();
    for run in &runs {
        let faults = run.faults();
        if !faults.is_empty() {
            broken.push(format!("{} {}: {}", run.scenario, run.variation, faults.join(", ")));
        }
    }
    for (program, runs) in families(&runs) {
        let pairs = runs.iter().flat_map(|run| run.pairs());
        if let Some(off) = median(pairs.map(|pair| pair.off()[1]).collect())
            && off > ALLOCATED_MEDIAN
        {
            broken.push(format!("{program}: the median of allocated is off by {off:.3}"));
        }
    }
    for change in changes(&runs) {
        if !change.allocated.holds() || !change.reserved.holds() {
            let [base, variation] = [change.base, change.variation].map(|run| &run.variation);
            broken.push(format!(
                "{} {base} to {variation}: allocated {:?}, reserved {:?}",
                change.base.scenario, change.allocated, change.reserved
            ));
        }
    }
    let compared = runs.iter().filter(|run| !run.pairs().is_empty()).count();
    println!("{compared} of {} runs have a workload", runs.len());
    assert!(compared > 0);
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn what_is_off_is_seen() {
    let figures =
        |allocated| judge::Figures { requested: 100, allocated, reserved: 100, allocs: 10.0 };
    let pair =
        |synthetic| judge::Pair { device: 0, real: figures(100), synthetic: figures(synthetic) };
    assert!(pair(104).faults().is_empty());
    assert_eq!(pair(106).faults(), ["allocated"]);
    assert_eq!(median(vec![0.1, -0.3, 0.2]), Some(0.2));
    let holds = |real, synthetic| bounds::Difference { real, synthetic }.holds();
    assert!(holds(0.2, 0.16) && !holds(0.2, 0.1) && !holds(0.02, -0.001));
}
