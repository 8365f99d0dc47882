//! `fragsim synth`.

pub(super) mod estimate;
pub(super) mod program;

mod config;
mod list;
mod write;

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, ValueEnum};

use self::program::ProgramArgs;
use super::{
    Answer,
    many::TableFormat,
    output::{self, Output},
    plan::NO_LIMIT,
    progress,
};
use crate::{
    base::{Bytes, Release},
    models::pytorch::conf::AllocConf,
    report::synth::{SynthSummary, text},
    study::{
        labels,
        whatif::{Program, Start, Terms, whatif},
    },
    trace::Trace,
    workload::{Synthesized, synthesize},
};

/// Make the trace of a program that never ran, from the formulas of its operators
///
/// Sizes follow from the operators of PyTorch 2.11, lifetimes from the order of forward, backward and
/// step; every allocation is labelled. The same parameters give the same bytes. What real programs
/// took is in reports/truth.md, beside what these say.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    fragsim synth --list\n  \
    fragsim synth train --help\n  \
    fragsim synth train --layers 24 --width 1024 --heads 16 --batch 8 -o train.fragsim\n  \
    fragsim synth train --preset gpt2-small -o - | fragsim replay - --capacity 16GiB\n  \
    fragsim synth --config program.toml -o program.jsonl.zst\n\n\
    The form follows the name: .fragsim (text), .jsonl, .packed; and .gz or .zst behind it.\n\
    Exit status: 0 done, 2 parameters that cannot be, or the file cannot be written.")]
pub(super) struct SynthArgs {
    #[command(flatten)]
    pub program: ProgramArgs,
    /// The trace to write; `-` is standard output. Of several devices, each gets a file with its number
    #[arg(long, short, value_name = "TRACE", required_unless_present = "list")]
    pub output: Option<PathBuf>,
    /// The form to write, where the name does not say it
    #[arg(long, value_name = "FORM", value_enum)]
    pub to: Option<Form>,
    /// Only the trace of this device
    #[arg(long, value_name = "N")]
    pub device: Option<u8>,
    /// Nothing on standard error but errors
    #[arg(long, short)]
    pub quiet: bool,
    /// Show all workloads
    #[arg(long, conflicts_with_all = ["workload", "output", "config"])]
    pub list: bool,
    /// How to print the list
    #[arg(long, value_enum, default_value = "text")]
    pub format: TableFormat,
}

/// The form of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// The line format, for people.
    Fragsim,
    /// JSON lines.
    Jsonl,
    /// Packed: small, opens at once.
    Packed,
}

pub(super) fn run(args: &SynthArgs, output: &mut Output) -> anyhow::Result<Answer> {
    if args.list {
        list::run(args.format, output)?;
        return Ok(Answer::Yes);
    }
    let Some(path) = &args.output else { bail!("name the trace to write with --output") };
    let target = write::Target::of(path, args.to)?;
    let named = args.program.program()?;
    program::check(&named)?;
    let Synthesized { traces, marks } =
        progress::during("making", || synthesize(named.program.as_ref()))?;
    let traces = chosen(traces, args.device)?;
    let written = progress::during("writing", || target.write(&traces))?;
    if args.quiet {
        return Ok(Answer::Yes);
    }
    for (file, bytes) in written.iter().filter(|(file, _)| file.as_os_str() != "-") {
        output::say(&format!("{}: {}", file.display(), Bytes(*bytes)));
    }
    for trace in &traces {
        let device = usize::from(trace.device().0);
        let steps = marks.iter().map(|mark| mark.ops.get(device).copied().unwrap_or(0)).collect();
        output::say(&text(&summary(&named.name, trace, steps)?));
    }
    Ok(Answer::Yes)
}

/// The devices that are written.
fn chosen(traces: Vec<Trace>, device: Option<u8>) -> anyhow::Result<Vec<Trace>> {
    let Some(device) = device else { return Ok(traces) };
    let count = traces.len();
    let kept: Vec<Trace> = traces.into_iter().filter(|t| t.device().0 == device).collect();
    if kept.is_empty() {
        bail!("--device {device}: the program uses {count} devices, numbered from 0");
    }
    Ok(kept)
}

fn summary(workload: &str, trace: &Trace, steps: Vec<usize>) -> anyhow::Result<SynthSummary> {
    let release = Release::NEWEST;
    let program = Program::of(trace, Start::AsRecorded)?;
    let terms = Terms::new(release, AllocConf::new(release), NO_LIMIT);
    let replayed = progress::during("replaying", || whatif(&program, &terms));
    let labels = labels::at_peak(&program.trace, &replayed);
    Ok(SynthSummary::new(workload.to_owned(), trace, steps, labels, &replayed))
}
