//! `fragsim compare`.

use std::path::PathBuf;

use clap::Args;

use super::{
    Answer,
    args::CapacityArgs,
    many::{self, ManyArgs, PriceArgs, TableFormat},
    output::Output,
    progress,
};
use crate::{
    report::{
        compare::{CompareDocument, Row, text},
        to_json,
    },
    study::{
        compare::{common, compare},
        whatif::Terms,
    },
};

/// Replay a run under several settings and put them side by side
///
/// One row each: whether it survives or where it dies, the peaks, what is reserved beyond what is
/// allocated, retries, calls of the driver and about what they cost. Differences are to the first
/// row. Without --conf the settings of the recording are compared with the common ones.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    fragsim compare run.pickle --common --capacity 24GiB\n  \
    fragsim compare run.pickle --conf '' --conf expandable_segments:True --capacity A10\n  \
    fragsim compare run.pickle --conf max_split_size_mb:64 --common --format csv > rows.csv\n  \
    fragsim compare run.pickle --common --price cudaMalloc=120 --price map=40\n\n\
    Exit status: 0 all survive, 1 some die, 2 unusable input.")]
pub(super) struct CompareArgs {
    /// A snapshot, a golden case, or a trace in fragsim's own formats; `-` is standard input
    #[arg(value_name = "TRACE")]
    pub trace: PathBuf,
    /// Settings as in PYTORCH_CUDA_ALLOC_CONF, one row each; '' is the default
    #[arg(long, value_name = "STRING")]
    pub conf: Vec<String>,
    /// The lines that people try first, a row each
    #[arg(long)]
    pub common: bool,
    #[command(flatten)]
    pub capacity: CapacityArgs,
    #[command(flatten)]
    pub many: ManyArgs,
    #[command(flatten)]
    pub prices: PriceArgs,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    pub format: TableFormat,
}

pub(super) fn run(args: &CompareArgs, output: &mut Output) -> anyhow::Result<Answer> {
    let prices = args.prices.read()?;
    let has_conf = !args.conf.is_empty();
    let mut base = many::base(&args.trace, &args.many, args.capacity.capacity, has_conf)?;
    let release = base.terms.release;
    let mut confs = Vec::new();
    for text in &args.conf {
        confs.push(many::parsed(text, release)?);
    }
    if !has_conf {
        confs.push(base.terms.conf.clone());
    }
    if args.common || !has_conf {
        for (_, conf) in common(release) {
            if !confs.iter().any(|known| known.same_settings(&conf)) {
                confs.push(conf);
            }
        }
    }
    for conf in &confs {
        for note in conf.advice(release) {
            let note = format!("{}: {note}", many::written(conf, release));
            base.notes.push(note);
        }
    }
    let terms: Vec<Terms> =
        confs.iter().map(|conf| Terms { conf: conf.clone(), ..base.terms.clone() }).collect();
    let figures =
        progress::during("replaying", || compare(&base.program, &terms, args.many.threads()))?;
    let names: Vec<String> = confs.iter().map(|conf| many::written(conf, release)).collect();
    let document = CompareDocument::new(
        args.trace.display().to_string(),
        base.program.trace.device().0,
        release,
        base.capacity,
        base.program.asked(),
        Row::all(&names, &figures, &prices),
        base.notes,
    );
    match args.format {
        TableFormat::Json => output.line(&to_json(&document))?,
        TableFormat::Csv => output.write(&many::to_csv(&document.rows)?)?,
        TableFormat::Text => output.write(&text(&document))?,
    }
    Ok(if document.rows.iter().all(|row| row.survives) { Answer::Yes } else { Answer::No })
}
