//! `fragsim plot`.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::{Args, ValueEnum};

use super::{Source, WatchArgs, Watched};
use crate::{
    base::OpIndex,
    cli::{Answer, file::write_file, output::Output},
    observe::NEVER,
    report::{
        plot::{BlockLabels, Picture, ThemeName},
        replay::ReplayDocument,
    },
    study::{
        sizes::sizes,
        timeline::{Detail, timeline},
        whatif::{Program, Terms, whatif},
    },
};

/// Draw a run: memory over time, fragmentation, the segment map, sizes, settings against each other
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    fragsim plot run.pickle -o memory.svg\n  \
    fragsim plot run.pickle --kind segments --at 31046 --theme dark -o map.png\n  \
    fragsim plot run.pickle --kind compare --conf recorded --conf expandable_segments:True -o settings.svg\n\n\
    The ending of the file decides: .svg or .png. Exit status: 0 written, 2 unusable input or the file\n\
    cannot be written.")]
pub(in crate::cli) struct PlotArgs {
    #[command(flatten)]
    pub watch: WatchArgs,
    /// What to draw
    #[arg(long, value_enum, default_value = "memory")]
    pub kind: PlotKind,
    /// Settings as in PYTORCH_CUDA_ALLOC_CONF; several for compare and pareto. 'recorded' stands for
    /// those of the recording, '' for the defaults
    #[arg(long, value_name = "STRING")]
    pub conf: Vec<String>,
    /// Before which operation segments are drawn; otherwise the first request that fails, or where most
    /// is reserved
    #[arg(long, value_name = "OPERATION")]
    pub at: Option<u32>,
    /// Light or dark
    #[arg(long, value_enum, default_value = "light")]
    pub theme: ThemeArg,
    /// The picture to write: .svg or .png; `-` is SVG on standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum PlotKind {
    /// Requested, allocated, active and reserved over time.
    Memory,
    /// What is free over time, and how much of it outside the largest free block.
    Fragmentation,
    /// Where everything lies at one moment.
    Segments,
    /// Requests by size.
    Sizes,
    /// Settings side by side.
    Compare,
    /// Settings by memory and calls of the driver.
    Pareto,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ThemeArg {
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

/// Buckets of a series in a picture: two pixels each, or less.
const BUCKETS: usize = 512;

/// Settings in one picture.
const MAX_CONFS: usize = 64;

pub(in crate::cli) fn run(args: &PlotArgs, output: &mut Output) -> anyhow::Result<Answer> {
    let is_png = is_png(&args.output)?;
    check(args)?;
    let uses_recorded = args.conf.is_empty() || args.conf.iter().any(|c| c == super::RECORDED);
    let source = Source::read(&args.watch, !uses_recorded)?;
    let confs: Vec<Option<&str>> = match args.conf.as_slice() {
        [] => vec![None],
        some => some.iter().map(|conf| Some(conf.as_str())).collect(),
    };
    let mut runs = Vec::new();
    for conf in confs {
        let prepared = source.prepare(&args.watch, conf, None)?;
        runs.push(prepared.watch(Detail { buckets: BUCKETS, lives: false }));
    }
    let Some(first) = runs.first() else { bail!("nothing was replayed") };
    let documents: Vec<&ReplayDocument> = runs.iter().map(|run| &run.document).collect();
    let (layout, labels, classes);
    let picture = match args.kind {
        PlotKind::Memory => Picture::Memory(&first.document, &first.timeline),
        PlotKind::Fragmentation => Picture::Fragmentation(&first.document, &first.timeline),
        PlotKind::Segments => {
            let at = args.at.map_or_else(|| moment(first), OpIndex);
            if u64::from(at.0) > first.document.ops {
                bail!(
                    "--at {at}: the replay has {} operations, counted from 0",
                    first.document.ops
                );
            }
            let mut terms = first.terms.clone();
            terms.until = Some(at);
            layout = whatif(&first.program, &terms).end;
            labels = block_labels(&first.program, &terms);
            Picture::Segments(&first.document, &layout, at, &labels)
        }
        PlotKind::Sizes => {
            classes = sizes(&first.program.trace);
            Picture::Sizes(&first.document, &classes)
        }
        PlotKind::Compare => Picture::Compare(&documents),
        PlotKind::Pareto => Picture::Pareto(&documents),
    };
    let theme = match args.theme {
        ThemeArg::Light => ThemeName::Light,
        ThemeArg::Dark => ThemeName::Dark,
    };
    let bytes = if is_png { picture.png(theme)? } else { picture.svg(theme)?.into_bytes() };
    write_file(&args.output, |out| out.write_all(&bytes))?;
    if args.output != Path::new("-") {
        output.line(&args.output.display().to_string())?;
    }
    Ok(Answer::Yes)
}

/// The labels of what is there at the end of a replay.
fn block_labels(program: &Program, terms: &Terms) -> BlockLabels {
    let known = program.trace.labels();
    if known.is_empty() {
        return BlockLabels::default();
    }
    let lives = timeline(program, terms, Detail { buckets: 2, lives: true }).lives;
    let there = lives.blocks.iter().filter(|block| block.died == NEVER);
    let of = there.filter_map(|block| Some((block.span.start, known.index(block.id?)?)));
    BlockLabels { names: known.names().to_vec(), of: of.collect() }
}

fn check(args: &PlotArgs) -> anyhow::Result<()> {
    let takes_many = matches!(args.kind, PlotKind::Compare | PlotKind::Pareto);
    if !takes_many && args.conf.len() > 1 {
        bail!("this picture shows one replay: give one --conf, or --kind compare");
    }
    if args.conf.len() > MAX_CONFS {
        bail!("{} settings: a picture shows at most {MAX_CONFS}", args.conf.len());
    }
    if args.at.is_some() && args.kind != PlotKind::Segments {
        bail!("--at is for --kind segments; the others show the whole run");
    }
    Ok(())
}

/// Whether a PNG is asked for.
fn is_png(path: &Path) -> anyhow::Result<bool> {
    if path == Path::new("-") {
        return Ok(false);
    }
    match path.extension().and_then(|ending| ending.to_str()).map(str::to_lowercase).as_deref() {
        Some("svg") => Ok(false),
        Some("png") => Ok(true),
        _ => bail!("{}: what to draw? name a file that ends in .svg or .png", path.display()),
    }
}

/// The first failure, or where most is reserved.
fn moment(run: &Watched) -> OpIndex {
    let again = run.document.recorded_failures.iter().find(|failure| !failure.served);
    let own = run.document.oom.as_ref().map(|oom| oom.op);
    let failed = match (again.map(|failure| failure.op), own) {
        (Some(again), Some(own)) => Some(again.min(own)),
        (again, own) => again.or(own),
    };
    let most = OpIndex(run.document.worst.reserved.op.saturating_add(1));
    failed.and_then(|op| u32::try_from(op).ok()).map_or(most, OpIndex)
}
