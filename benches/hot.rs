//! Times one program, or runs it once for a profiler: what the scripts beside this file run.
//!
//! ```text
//! cargo bench --bench hot -- time PROGRAM [CONF [bare|stats|record|fresh [RUNS [PAIRS]]]]
//! cargo bench --bench hot -- once PROGRAM [CONF]
//! cargo bench --bench hot -- ops RECORDING
//! ```
//! PROGRAM is a recording (a file), `small/LIVE`, `large/LIVE` or `mixed/LIVE` (pairs of a free and a
//! request among so many live blocks), or, for `once`, `malloc` or `free` (requests or frees alone, on a
//! free list that has what is asked). CONF is as in `PYTORCH_CUDA_ALLOC_CONF`; `""` is the default.
//!
//! `time` prints a line of JSON: `ops` operations and the seconds of each run, replay only. The memory
//! of the model is kept between runs; with `record` that of the events too, with `fresh` it is new for
//! each run. `once` runs what is measured in `replay_range`, and all before it elsewhere. `ops` prints
//! requests and frees for the rig of the real allocator: `a ID SIZE STREAM`, `f ID`.

use std::{
    io::{self, BufWriter, Write as _},
    ops::Range,
    path::Path,
    process::ExitCode,
    time::Instant,
};

use fragsim::{
    base::Id as _,
    models::pytorch::PyTorch,
    observe::Record,
    sim::{Allocator as _, Observer},
    trace::{Op, Trace},
};

mod common;

use common::{
    Run, Watch,
    churn::{self, Sizes},
};

/// What is run, and which parts of it are measured.
struct Program {
    trace: Trace,
    measured: Vec<Range<usize>>,
}

impl Program {
    fn of(name: &str, pairs: usize) -> Result<Self, String> {
        if let Some(kind) = ["free", "malloc"].iter().position(|kind| *kind == name) {
            let (trace, rounds) = churn::rounds(1000, 100);
            let measured = rounds.into_iter().map(|round| round[kind].clone()).collect();
            return Ok(Self { trace, measured });
        }
        let synthetic = name.split_once('/').and_then(|(sizes, live)| {
            let (_, sizes) = Sizes::ALL.into_iter().find(|(name, _)| *name == sizes)?;
            Some((sizes, live.parse().ok().filter(|live| *live > 0)?))
        });
        if let Some((sizes, live)) = synthetic {
            let churn = churn::pairs(sizes, live, pairs);
            return Ok(Self { measured: vec![churn.timed()], trace: churn.trace });
        }
        let trace = common::recorded_program(Path::new(name))?;
        Ok(Self { measured: std::iter::once(0..trace.ops().len()).collect(), trace })
    }

    fn ops(&self) -> usize {
        self.measured.iter().map(ExactSizeIterator::len).sum()
    }
}

/// Seconds of the measured parts, on an allocator that stands before the first.
struct Measured<'a>(&'a Program, &'a mut PyTorch, &'a mut f64);

impl Run for Measured<'_> {
    fn run<O: Observer>(self, observer: &mut O) {
        let Self(Program { trace, measured }, allocator, seconds) = self;
        let mut at = measured.first().map_or(0, |range| range.start);
        for range in measured {
            common::pass(trace, at..range.start, allocator);
            let started = Instant::now();
            common::go_on(trace, range.clone(), allocator, observer);
            *seconds += started.elapsed().as_secs_f64();
            at = range.end;
        }
    }
}

fn time(args: &[&str], out: &mut impl io::Write) -> Result<(), String> {
    let [name, rest @ ..] = args else { return Err("which program?".into()) };
    let number = |at: usize, default| match rest.get(at).map(|text| text.parse::<usize>()) {
        None => Ok(default),
        Some(Ok(number)) if number > 0 => Ok(number),
        Some(_) => Err(format!("'{}' is no number above 0", rest[at])),
    };
    let (conf, watch) = (rest.first().unwrap_or(&""), *rest.get(1).unwrap_or(&"bare"));
    let (runs, pairs) = (number(2, 5)?, number(3, 300_000)?);
    let is_fresh = watch == "fresh";
    let watched = if is_fresh { "record" } else { watch };
    let found = Watch::ALL.into_iter().find(|(name, _)| *name == watched);
    let (_, by) = found.ok_or_else(|| format!("'{watch}' is not bare, stats, record or fresh"))?;
    let program = Program::of(name, pairs)?;
    let mut allocator = common::allocator(&program.trace, conf)?;
    let mut kept = Record::default();
    let from = program.measured.first().map_or(0, |range| range.start);
    let mut seconds = Vec::new();
    for _ in 0..runs {
        allocator.reset();
        common::settle(&program.trace, from, &mut allocator);
        kept.events.clear();
        if is_fresh {
            kept = Record::default();
        }
        let mut run = 0.;
        by.with(&mut kept, Measured(&program, &mut allocator, &mut run));
        seconds.push(run);
    }
    let line = serde_json::json!({
        "program": name, "conf": conf, "watch": watch, "ops": program.ops(), "s": seconds,
    });
    writeln!(out, "{line}").map_err(|error| error.to_string())
}

fn once(args: &[&str], out: &mut impl io::Write) -> Result<(), String> {
    let [name, rest @ ..] = args else { return Err("which program?".into()) };
    let program = Program::of(name, 50_000)?;
    let mut allocator = common::allocator(&program.trace, rest.first().unwrap_or(&""))?;
    let from = program.measured.first().map_or(0, |range| range.start);
    common::settle(&program.trace, from, &mut allocator);
    Measured(&program, &mut allocator, &mut 0.).run(&mut ());
    writeln!(out, "{}", program.ops()).map_err(|error| error.to_string())
}

fn ops(args: &[&str], out: &mut impl io::Write) -> Result<(), String> {
    let [path] = args else { return Err("which recording?".into()) };
    for op in common::recorded_program(Path::new(path))?.ops() {
        let line = match op {
            Op::Alloc(op) if op.pool.is_none() => {
                writeln!(out, "a {} {} {}", op.id.index(), op.size.0, op.stream.index())
            }
            Op::Free(op) => writeln!(out, "f {}", op.id.index()),
            other => return Err(format!("{path}: the rig cannot replay {other:?}")),
        };
        line.map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut out = BufWriter::new(io::stdout().lock());
    let done = match args.as_slice() {
        ["time", rest @ ..] => time(rest, &mut out),
        ["once", rest @ ..] => once(rest, &mut out),
        ["ops", rest @ ..] => ops(rest, &mut out),
        // All benches are run: this one has nothing to say for itself.
        [] => Ok(()),
        [other, ..] => Err(format!("'{other}' is not time, once or ops")),
    };
    match done.and_then(|()| out.flush().map_err(|error| error.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            _ = writeln!(io::stderr(), "hot: {error}");
            ExitCode::from(2)
        }
    }
}
