//! `fragsim report`.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::{Source, WatchArgs, Watched};
use crate::{
    base::Bytes,
    cli::{Answer, file::write_file, output::Output, stacks::Stacks},
    report::page::{self, MAX_BLOCKS, Shown},
    study::timeline::Detail,
};

/// Write a page that shows a run: memory over time, the segment map at any moment, settings side by side
///
/// One file that needs no network and opens none: it can be mailed, and what it shows stays in it. Under
/// each of the settings given the run is replayed; the first is shown first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    fragsim report run.pickle -o run.html\n  \
    fragsim report run.pickle --conf recorded --conf expandable_segments:True -o run.html\n  \
    fragsim report run.pickle --from 900000 --to 1000000 --capacity 24GiB -o end.html\n\n\
    Exit status: 0 written, 2 unusable input or the file cannot be written.")]
pub(in crate::cli) struct ReportArgs {
    #[command(flatten)]
    pub watch: WatchArgs,
    /// Settings as in PYTORCH_CUDA_ALLOC_CONF, one replay each; 'recorded' stands for those of the
    /// recording, '' for the defaults
    #[arg(long, value_name = "STRING")]
    pub conf: Vec<String>,
    /// The first operation whose blocks are shown; otherwise the first, or of a long run as many at the
    /// end as a page can hold
    #[arg(long, value_name = "OPERATION")]
    pub from: Option<u32>,
    /// The last operation whose blocks are shown
    #[arg(long, value_name = "OPERATION")]
    pub to: Option<u32>,
    /// The page to write; `-` is standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
}

/// More replays would make a page that no browser likes.
const MAX_RUNS: usize = 16;

pub(in crate::cli) fn run(args: &ReportArgs, output: &mut Output) -> anyhow::Result<Answer> {
    if args.conf.len() > MAX_RUNS {
        bail!("{} settings: a page shows at most {MAX_RUNS}", args.conf.len());
    }
    if args.from.zip(args.to).is_some_and(|(from, to)| from > to) {
        bail!("--from is behind --to: give the earlier operation first");
    }
    let uses_recorded =
        args.conf.is_empty() || args.conf.iter().any(|conf| conf == super::RECORDED);
    let source = Source::read(&args.watch, !uses_recorded)?;
    let confs: Vec<Option<&str>> = match args.conf.as_slice() {
        [] => vec![None],
        some => some.iter().map(|conf| Some(conf.as_str())).collect(),
    };
    let mut runs = Vec::new();
    for conf in confs {
        let prepared = source.prepare(&args.watch, conf, None)?;
        let watched = prepared.watch(Detail { buckets: 2048, lives: true });
        runs.push(cut(args, watched, MAX_BLOCKS)?);
    }
    if source.snapshot.is_none()
        && source.plan.trace.recorded().is_some()
        && let Some((watched, _)) = runs.first_mut()
    {
        watched.document.notes.push(
            "a packed recording holds no stacks: make the page of the snapshot itself to see where blocks were allocated".into(),
        );
    }
    let Some(first) = runs.first() else { bail!("nothing was replayed") };
    let stacks = Stacks::of(source.snapshot.as_deref(), &source.plan.trace);
    debug_assert!(first.0.program.trace.device() == source.plan.trace.device());
    let shown: Vec<Shown> = runs
        .iter()
        .map(|(watched, window)| Shown {
            document: &watched.document,
            terms: &watched.terms,
            timeline: &watched.timeline,
            failed: watched.failed(),
            window: *window,
        })
        .collect();
    let mut written = 0;
    write_file(&args.output, |out| {
        let mut counted = Counted { out, bytes: 0 };
        page::write(&shown, &stacks, &mut counted)?;
        written = counted.bytes;
        Ok(())
    })?;
    if args.output.as_os_str() != "-" {
        let ops = first.0.document.ops;
        output.line(&format!("{}: {}, {ops} operations", args.output.display(), Bytes(written)))?;
    }
    Ok(Answer::Yes)
}

/// Only what is asked for, and no more blocks than a page can hold; the times that are left.
fn cut(
    args: &ReportArgs,
    mut watched: Watched,
    limit: usize,
) -> anyhow::Result<(Watched, (u32, u32))> {
    let end = u32::try_from(watched.document.ops).unwrap_or(u32::MAX - 1);
    if let Some(from) = args.from.filter(|from| *from >= end.max(1)) {
        bail!("--from {from}: the replay has {end} operations, counted from 0");
    }
    let to = args.to.map_or(end, |to| to.saturating_add(1).min(end));
    let lives = std::mem::take(&mut watched.timeline.lives).between(args.from.unwrap_or(0), to);
    let from = args.from.unwrap_or(0).max(lives.latest_blocks(limit));
    watched.timeline.lives = lives.between(from, to);
    if from > 0 || to < end {
        watched.document.notes.push(format!(
            "the timeline and the map show operations {from} to {}; the figures are of the whole run",
            to.saturating_sub(1)
        ));
    }
    Ok((watched, (from, to)))
}

/// Counts what goes through.
struct Counted<W> {
    out: W,
    bytes: u64,
}

impl<W: std::io::Write> std::io::Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
