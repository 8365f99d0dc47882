//! One real run beside its synthetic twin.

use std::{fs, path::Path};

use fragsim::{
    base::{Bytes, Release},
    models::pytorch::conf::AllocConf,
    study::whatif::{Program, Replayed, Start, Terms, whatif},
    trace::{EventMode, Op, Trace},
    workload::{self, Synthesized},
};
use serde_json::Value;

/// Figures of one device over a whole run, in bytes, and allocations a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    pub requested: u64,
    pub allocated: u64,
    pub reserved: u64,
    /// Mean over the marked steps after the first; of one step, that one's.
    pub allocs: f64,
}

/// One device of a run, real and synthetic.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    pub device: usize,
    pub real: Figures,
    pub synthetic: Figures,
}

/// What became of a run.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// No workload answers to it.
    Unmapped,
    /// The workload refused its values, or had no device that was needed.
    Refused(String),
    /// Both ran; the steps done before an out-of-memory error, of each.
    Compared { pairs: Vec<Pair>, oom_step: [Option<u64>; 2] },
}

/// A run.
#[derive(Clone, Debug)]
pub struct Run {
    pub scenario: String,
    pub variation: String,
    pub program: String,
    pub workload: Option<&'static str>,
    pub verdict: Verdict,
}

/// All runs of a folder, in the order of their names. `.json` files without a program are no runs.
pub fn runs(folder: &Path, wanted: &str) -> Result<Vec<Run>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "json"));
    files.sort();
    let mut runs = Vec::new();
    for file in files {
        let named = |error: String| format!("{}: {error}", file.display());
        let text = fs::read_to_string(&file).map_err(|error| named(error.to_string()))?;
        let meta: Value = serde_json::from_str(&text).map_err(|error| named(error.to_string()))?;
        let name = meta["name"].as_str().unwrap_or_default();
        if meta["program"].is_string() && name.contains(wanted) {
            runs.push(run(&meta));
        }
    }
    Ok(runs)
}

fn run(meta: &Value) -> Run {
    let text = |key: &str| meta[key].as_str().unwrap_or_default().to_owned();
    let mapped = super::maps::map(meta);
    let workload = mapped.as_ref().map(|(name, _)| *name);
    let verdict = match mapped {
        None => Verdict::Unmapped,
        Some((name, values)) => match synthetic(name, &values) {
            Ok(ran) => compare(meta, &ran).unwrap_or_else(Verdict::Refused),
            Err(error) => Verdict::Refused(error),
        },
    };
    Run {
        scenario: text("scenario"),
        variation: text("variation"),
        program: text("program"),
        workload,
        verdict,
    }
}

fn synthetic(name: &str, values: &[(String, String)]) -> Result<Synthesized, String> {
    let ran = workload::find(name).and_then(|entry| {
        let mut program = (entry.make)();
        for (name, value) in values {
            workload::set(program.as_mut(), name, value)?;
        }
        workload::synthesize(program.as_ref())
    });
    ran.map_err(|error| error.to_string())
}

fn compare(meta: &Value, ran: &Synthesized) -> Result<Verdict, String> {
    let terms = terms(meta)?;
    let devices = usize::try_from(meta["devices"].as_u64().unwrap_or(1)).unwrap_or(1);
    let mut pairs = Vec::new();
    let mut oom = None;
    for device in 0..devices {
        let Some(trace) = ran.traces.get(device) else {
            if real(meta, device).requested == 0 {
                continue; // a device that the real program had, and did not use
            }
            return Err(format!("it has {} devices, the real run has {devices}", ran.traces.len()));
        };
        let program = Program::of(trace, Start::AsRecorded).map_err(|error| error.to_string())?;
        let replayed = whatif(&program, &terms);
        let (served, died) = served(trace, &replayed);
        let ends: Vec<usize> = ran.marks.iter().map(|mark| mark.ops[device]).collect();
        if died {
            let steps = ends.iter().filter(|end| **end <= served).count() as u64;
            oom = Some(oom.map_or(steps, |known: u64| known.min(steps)));
        }
        let real = real(meta, device);
        if real == Figures::default() && trace.ops().is_empty() {
            continue;
        }
        let stats = &replayed.stats;
        let peak = |stat: &fragsim::observe::Stat| u64::try_from(stat.peak).unwrap_or(0);
        let synthetic = Figures {
            requested: peak(&stats.requested_bytes.all()),
            allocated: peak(&stats.allocated_bytes.all()),
            reserved: peak(&stats.reserved_bytes.all()),
            allocs: a_step(&allocs(trace, &ends, served)),
        };
        pairs.push(Pair { device, real, synthetic });
    }
    Ok(Verdict::Compared { pairs, oom_step: [meta["oom_step"].as_u64(), oom] })
}

/// Under what the real run ran.
fn terms(meta: &Value) -> Result<Terms, String> {
    let release = Release::new(11).ok_or("PyTorch 2.11 is not known")?;
    let (conf, _) = AllocConf::from_string(release, meta["conf"].as_str().unwrap_or_default())
        .map_err(|error| error.to_string())?;
    let total = meta["total"].as_u64().ok_or("the run has no capacity")?;
    let mut terms = Terms::new(release, conf, Bytes(total));
    if meta["events"] == "manual" {
        terms.events = EventMode::Manual;
    }
    Ok(terms)
}

/// Operations that were served, and whether the next one failed.
fn served(trace: &Trace, replayed: &Replayed) -> (usize, bool) {
    match &replayed.outcome.first_failure {
        Some(failure) => (usize::try_from(failure.op.0).unwrap_or(usize::MAX), true),
        None => (trace.ops().len(), false),
    }
}

fn allocs(trace: &Trace, ends: &[usize], served: usize) -> Vec<u64> {
    let mut from = 0;
    let mut steps = Vec::new();
    for end in ends.iter().copied().filter(|end| *end <= served) {
        let ops = &trace.ops()[from..end];
        steps.push(ops.iter().filter(|op| matches!(op, Op::Alloc(_))).count() as u64);
        from = end;
    }
    steps
}

fn a_step(steps: &[u64]) -> f64 {
    let steps = if steps.len() > 1 { &steps[1..] } else { steps };
    let count = u32::try_from(steps.len()).unwrap_or(u32::MAX).max(1);
    let sum = u32::try_from(steps.iter().sum::<u64>()).unwrap_or(u32::MAX);
    f64::from(sum) / f64::from(count)
}

fn real(meta: &Value, device: usize) -> Figures {
    let peak = |key: &str| {
        let stats = match device {
            0 => &meta["stats"],
            _ => &meta[format!("stats_device{device}")],
        };
        stats[format!("{key}.all.peak")].as_u64().unwrap_or(0)
    };
    let steps = meta["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of_step = |step: &Value| match device {
        0 => step["allocs"].as_u64().unwrap_or(0),
        _ => step[format!("device{device}")]["allocs"].as_u64().unwrap_or(0),
    };
    Figures {
        requested: peak("requested_bytes"),
        allocated: peak("allocated_bytes"),
        reserved: peak("reserved_bytes"),
        allocs: a_step(&steps.iter().map(of_step).collect::<Vec<_>>()),
    }
}
