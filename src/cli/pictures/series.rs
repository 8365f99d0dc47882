//! `fragsim series`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Source, WatchArgs};
use crate::{
    cli::{Answer, file::write_file},
    report::series,
    study::timeline::Detail,
};

/// Write memory over time for other programs: CSV, JSON or trace events
///
/// Requested, allocated, active and reserved bytes, allocations and segments, under the names of
/// torch.cuda.memory_stats(). Where there are more operations than rows, a row stands for several and
/// holds the least and the most of each level within: no peak is lost.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    fragsim series run.pickle > memory.csv\n  \
    fragsim series run.pickle --conf expandable_segments:True --rows 1000000 -o memory.csv\n  \
    fragsim series run.pickle --format trace-events -o memory.json     open it in ui.perfetto.dev\n\n\
    In trace events an operation is a microsecond.\n\
    Exit status: 0 written, 2 unusable input or the file cannot be written.")]
pub(in crate::cli) struct SeriesArgs {
    #[command(flatten)]
    pub watch: WatchArgs,
    /// Settings as in PYTORCH_CUDA_ALLOC_CONF; otherwise those of the recording
    #[arg(long, value_name = "STRING")]
    pub conf: Option<String>,
    /// At most so many rows
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..=100_000_000))]
    pub rows: u32,
    /// What to write
    #[arg(long, value_enum, default_value = "csv")]
    pub format: SeriesFormat,
    /// The file to write; `-` is standard output
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum SeriesFormat {
    /// A table.
    Csv,
    /// One JSON document.
    Json,
    /// Counters, segments, retries and failures, for Perfetto or chrome://tracing.
    TraceEvents,
}

pub(in crate::cli) fn run(args: &SeriesArgs) -> anyhow::Result<Answer> {
    let source = Source::read(&args.watch, args.conf.is_some())?;
    let detail = Detail {
        buckets: usize::try_from(args.rows).unwrap_or(usize::MAX),
        lives: args.format == SeriesFormat::TraceEvents,
    };
    let watched = source.prepare(&args.watch, args.conf.as_deref(), None)?.watch(detail);
    let (document, timeline) = (&watched.document, &watched.timeline);
    write_file(&args.output, |mut out| match args.format {
        SeriesFormat::Csv => series::csv(timeline, &mut out),
        SeriesFormat::Json => series::json(document, timeline, &mut out),
        SeriesFormat::TraceEvents => series::trace_events(document, timeline, &mut out),
    })?;
    Ok(Answer::Yes)
}
