//! `fragsim sweep`.

mod grids;
mod journal;
#[cfg(feature = "parquet")]
mod parquet;
mod table;

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;

use self::{journal::Journal, table::SweepFormat};
use super::{
    Answer,
    many::{self, Base, ManyArgs, PriceArgs},
    output::{Output, in_words, say},
};
use crate::{
    base::{Bytes, RELEASES, Release},
    models::pytorch::conf::AllocConf,
    study::{
        compare::COMMON,
        figures::{Figures, Replayer},
        grid,
        price::Prices,
        sweep::{Condition, SweepRow},
        whatif::Terms,
    },
};

/// More replays than this are estimated first.
const MANY: usize = 100_000;
/// Rows that are shown for which a condition holds.
const SHOWN: usize = 10;

/// Replay many runs under many settings on many devices
///
/// Every trace under each of the settings at each capacity, on all cores; a row each. A trace that
/// cannot be read is a row that says why. With --output an interrupted sweep goes on where it was
/// when the same command is given again, and the file appears when it is whole.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    fragsim sweep ranks/*.pickle.gz --common --capacity-grid 16GiB..80GiB/8GiB -o sweep.parquet\n  \
    fragsim sweep run.pickle --conf-grid 'max_split_size_mb:{64,128,256},{,garbage_collection_threshold:0.8}'\n  \
    fragsim sweep run.pickle --conf '' --conf expandable_segments:True --capacity-grid A10,L40S --format jsonl\n  \
    fragsim sweep nightly/*.pickle --fail-if 'peak_reserved > 70GiB' --fail-if dies\n\n\
    Exit status: 0 done, 1 a condition of --fail-if holds, 2 a trace or the command line is unusable.")]
pub(super) struct SweepArgs {
    /// Snapshots, golden cases, or traces in fragsim's own formats
    #[arg(required = true, value_name = "TRACE")]
    pub traces: Vec<PathBuf>,
    /// Settings as in PYTORCH_CUDA_ALLOC_CONF; may be given often
    #[arg(long, value_name = "STRING")]
    pub conf: Vec<String>,
    /// Settings with alternatives in braces, every combination of which is tried; quote it
    #[arg(long, value_name = "GRID")]
    pub conf_grid: Vec<String>,
    /// The lines that people try first
    #[arg(long)]
    pub common: bool,
    /// Capacities: sizes, cards and ranges such as 8GiB..24GiB/2GiB, parted by commas; otherwise what
    /// each recording shows, or no limit
    #[arg(long, value_name = "GRID", value_parser = grids::capacities, allow_hyphen_values = true)]
    pub capacity_grid: Option<grids::Capacities>,
    /// Where to write; otherwise standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The form of the table; otherwise the one that the name of the file asks for, or CSV
    #[arg(long, value_enum)]
    pub format: Option<SweepFormat>,
    /// A condition that makes the exit status 1: 'peak_reserved > 70GiB', 'retries > 0', 'dies'
    #[arg(long, value_name = "CONDITION")]
    pub fail_if: Vec<Condition>,
    /// Go on even if there are more than 100,000 replays
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub many: ManyArgs,
    #[command(flatten)]
    pub prices: PriceArgs,
}

/// A trace that is in use: jobs that still need it, and what it is once somebody read it.
struct Slot {
    left: usize,
    read: Option<Result<Arc<Base>, String>>,
}

/// The jobs of a sweep: every trace, under each of the settings, at each capacity.
struct Sweep<'a> {
    args: &'a SweepArgs,
    /// `None` stands for the settings of the recording.
    confs: Vec<Option<String>>,
    /// `None` stands for what the recording shows.
    capacities: Vec<Option<Bytes>>,
    prices: Prices,
    slots: Vec<Mutex<Slot>>,
}

pub(super) fn run(args: &SweepArgs, output: &mut Output) -> anyhow::Result<Answer> {
    let sweep = Sweep::new(args)?;
    let format = format(args)?;
    let jobs = sweep.jobs()?;
    if jobs > MANY && !args.yes {
        bail!("{}", sweep.estimate(jobs));
    }
    let mut tally = Tally::default();
    match &args.output {
        None => {
            let mut is_first = true;
            sweep.run(0, jobs, |row| {
                tally.add(&row, &args.fail_if);
                match format {
                    SweepFormat::JsonLines => output.line(&serde_json::to_string(&row)?)?,
                    _ => output.write(&table::csv_line(&row, is_first)?)?,
                }
                is_first = false;
                Ok(())
            })?;
            output.flush()?;
        }
        Some(file) => {
            let mut journal = Journal::open(file, &sweep.name()?)?;
            let done = journal.done;
            if done > 0 {
                for row in journal.rows()?.take(done) {
                    tally.add(&row?, &args.fail_if);
                }
                say(&format!("{done} of {jobs} replays are in the journal: going on"));
            }
            let mut flushed = Instant::now();
            sweep.run(done, jobs, |row| {
                tally.add(&row, &args.fail_if);
                journal.add(&row)?;
                if flushed.elapsed() > Duration::from_secs(1) {
                    journal.flush()?;
                    flushed = Instant::now();
                }
                Ok(())
            })?;
            journal.finish(file, |rows, out| table::write(format, rows, out))?;
        }
    }
    tally.say(args);
    Ok(match tally {
        Tally { unusable: 1.., .. } => Answer::Unusable,
        Tally { failing: 1.., .. } => Answer::No,
        _ => Answer::Yes,
    })
}

/// The form of the table.
fn format(args: &SweepArgs) -> anyhow::Result<SweepFormat> {
    let named = args.output.as_deref().and_then(SweepFormat::of);
    let format = match (args.format, named, &args.output) {
        (Some(format), _, _) | (None, Some(format), _) => format,
        (None, None, None) => SweepFormat::Csv,
        (None, None, Some(file)) => bail!(
            "{}: the name does not say the form; end it in .csv, .jsonl or .parquet, or give --format",
            file.display()
        ),
    };
    if format == SweepFormat::Parquet && args.output.is_none() {
        bail!("Parquet needs a file: give --output FILE");
    }
    if format == SweepFormat::Parquet && !cfg!(feature = "parquet") {
        bail!("this build writes no Parquet; build it with --features parquet");
    }
    Ok(format)
}

impl<'a> Sweep<'a> {
    fn new(args: &'a SweepArgs) -> anyhow::Result<Self> {
        let mut confs: Vec<String> = args.conf.clone();
        for conf in &confs {
            check_conf(conf, args.many.on.torch)?;
        }
        for grid in &args.conf_grid {
            let lines =
                grids::lines(grid).map_err(|error| anyhow::anyhow!("--conf-grid {error}"))?;
            confs.extend(usable(lines, args.many.on.torch)?);
        }
        if args.common {
            let takes = |conf: &&str| match args.many.on.torch {
                Some(release) => AllocConf::from_string(release, conf).is_ok(),
                None => true,
            };
            confs.extend(COMMON.into_iter().filter(takes).map(str::to_owned));
        }
        let mut seen = std::collections::HashSet::new();
        confs.retain(|conf| seen.insert(conf.clone()));
        let confs: Vec<Option<String>> =
            if confs.is_empty() { vec![None] } else { confs.into_iter().map(Some).collect() };
        let capacities = match &args.capacity_grid {
            None => vec![None],
            Some(sizes) => sizes.0.iter().copied().map(Some).collect(),
        };
        let jobs = confs.len().saturating_mul(capacities.len());
        let slot = |_: &PathBuf| Mutex::new(Slot { left: jobs, read: None });
        let slots = args.traces.iter().map(slot).collect();
        Ok(Self { args, confs, capacities, prices: args.prices.read()?, slots })
    }

    fn jobs_a_trace(&self) -> usize {
        self.confs.len() * self.capacities.len()
    }

    fn jobs(&self) -> anyhow::Result<usize> {
        let jobs = self.confs.len().checked_mul(self.capacities.len());
        jobs.and_then(|jobs| jobs.checked_mul(self.args.traces.len()))
            .context("more replays than can be counted")
    }

    /// What a journal says of the sweep that it belongs to.
    fn name(&self) -> anyhow::Result<String> {
        let mut traces = Vec::new();
        for trace in &self.args.traces {
            if trace.as_os_str() == "-" {
                bail!(
                    "a trace on standard input cannot be read again to go on: give it as a file, or leave --output out"
                );
            }
            let seen = std::fs::metadata(trace).ok();
            let changed = seen.as_ref().and_then(|seen| seen.modified().ok());
            let changed = changed.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
            let changed = changed.map(|time| time.as_nanos().to_string());
            traces.push((trace.display().to_string(), seen.map(|seen| seen.len()), changed));
        }
        let many = &self.args.many;
        Ok(serde_json::json!({
            "fragsim sweep": env!("CARGO_PKG_VERSION"),
            "traces": traces,
            "conf": self.args.conf,
            "conf_grid": self.args.conf_grid,
            "common": self.args.common,
            "capacity": self.capacities,
            "torch": many.on.torch.map(|release| release.to_string()),
            "device": many.on.device,
            "context": many.on.context,
            "external": many.on.external,
            "prices": self.prices,
        })
        .to_string())
    }

    /// How long all jobs would take, from some of the first.
    fn estimate(&self, jobs: usize) -> String {
        let started = Instant::now();
        let mut replayer = Replayer::new();
        // The first one reads the trace.
        self.row(&mut replayer, 0);
        let loading = started.elapsed();
        // Some of its jobs, from the first to the last.
        let (started, mut tried) = (Instant::now(), 0_u32);
        let a_trace = self.jobs_a_trace();
        for job in (0..a_trace).step_by(a_trace.div_ceil(20)) {
            self.row(&mut replayer, job);
            tried += 1;
            if started.elapsed() > Duration::from_secs(2) {
                break;
            }
        }
        let each = started.elapsed() / tried.max(1);
        let threads = u32::try_from(self.args.many.threads().get()).unwrap_or(u32::MAX);
        let all = u32::try_from(jobs).map_or(Duration::MAX, |jobs| each.saturating_mul(jobs));
        let reading = loading * u32::try_from(self.args.traces.len()).unwrap_or(u32::MAX);
        let all = all.saturating_add(reading) / threads;
        format!(
            "{jobs} replays would take about {} on {threads} threads ({:.2} ms each); give --yes to go on, or make the grid smaller",
            in_hours(all),
            each.as_secs_f64() * 1e3
        )
    }

    /// Does the jobs from `done` on and hands their rows over, in order.
    fn run(
        &self,
        done: usize,
        jobs: usize,
        mut each: impl FnMut(SweepRow) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let a_trace = self.jobs_a_trace();
        for (trace, slot) in self.slots.iter().enumerate() {
            let (first, last) = (trace * a_trace, (trace + 1) * a_trace);
            lock(slot).left = last.saturating_sub(done.max(first));
        }
        let bar = many::bar((jobs - done) as u64, "replays");
        let mut failed = None;
        grid::for_each(
            jobs - done,
            self.args.many.threads(),
            Replayer::new,
            |replayer, job| self.row(replayer, done + job),
            |job, row| {
                bar.inc(1);
                let row = row.unwrap_or_else(|panic| SweepRow {
                    error: Some(panic.to_string()),
                    ..self.blank(done + job)
                });
                match each(row) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => {
                        failed = Some(error);
                        ControlFlow::Break(())
                    }
                }
            },
        );
        bar.finish_and_clear();
        failed.map_or(Ok(()), Err)
    }

    /// Which trace, settings and capacity a job is.
    fn parts(&self, job: usize) -> (usize, Option<&str>, Option<Bytes>) {
        let (trace, rest) = (job / self.jobs_a_trace(), job % self.jobs_a_trace());
        let (conf, capacity) = (rest / self.capacities.len(), rest % self.capacities.len());
        (trace, self.confs[conf].as_deref(), self.capacities[capacity])
    }

    /// The row of a job before anything is known of it.
    fn blank(&self, job: usize) -> SweepRow {
        let (trace, conf, capacity) = self.parts(job);
        SweepRow {
            file: self.args.traces[trace].display().to_string(),
            torch: self.args.many.on.torch.map(|release| release.to_string()).unwrap_or_default(),
            conf: conf.unwrap_or_default().to_owned(),
            capacity_bytes: capacity.map(|capacity| capacity.0),
            ..SweepRow::default()
        }
    }

    fn row(&self, replayer: &mut Replayer, job: usize) -> SweepRow {
        let (trace, _, _) = self.parts(job);
        let base = self.base(trace);
        let row = match base {
            Ok(base) => self.replay(replayer, job, &base),
            Err(error) => SweepRow { error: Some(error), ..self.blank(job) },
        };
        self.release(trace);
        row
    }

    /// The row of a trace that could be read; without a replay where its release refuses the settings,
    /// or the capacity is too small for its start.
    fn replay(&self, replayer: &mut Replayer, job: usize, base: &Base) -> SweepRow {
        let (_, conf, capacity) = self.parts(job);
        let capacity = capacity.or(base.capacity);
        let row = SweepRow {
            device: Some(base.program.trace.device().0),
            torch: base.terms.release.to_string(),
            capacity_bytes: capacity.map(|capacity| capacity.0),
            ..self.blank(job)
        };
        match self.figures(replayer, conf, capacity, base) {
            Ok((conf, figures)) => SweepRow { conf, ..row }.with(&figures, &self.prices),
            Err(error) => SweepRow { error: Some(error), ..row },
        }
    }

    fn figures(
        &self,
        replayer: &mut Replayer,
        conf: Option<&str>,
        capacity: Option<Bytes>,
        base: &Base,
    ) -> Result<(String, Figures), String> {
        let release = base.terms.release;
        let conf = match conf {
            None => base.terms.conf.clone(),
            Some(text) => many::parsed(text, release).map_err(|error| in_words(&error))?,
        };
        let needed = base.program.trace.start().reserved() + base.terms.context;
        if let Some(capacity) = capacity.filter(|capacity| *capacity < needed) {
            return Err(format!(
                "a capacity of {capacity} is too small: {needed} are taken before the first operation"
            ));
        }
        let terms =
            Terms { conf, capacity: capacity.unwrap_or(base.terms.capacity), ..base.terms.clone() };
        let figures = replayer.figures(&base.program, &terms);
        Ok((many::written(&terms.conf, release), figures))
    }

    /// A trace, read by whoever needs it first.
    fn base(&self, trace: usize) -> Result<Arc<Base>, String> {
        let mut slot = lock(&self.slots[trace]);
        let read = slot.read.get_or_insert_with(|| {
            let path = &self.args.traces[trace];
            let has_conf = self.confs.iter().all(Option::is_some);
            let read = many::read(path, &self.args.many, None, has_conf);
            read.map(Arc::new).map_err(|error| without_name(&in_words(&error), path))
        });
        read.clone()
    }

    /// A job has done with a trace; after the last one it is dropped.
    fn release(&self, trace: usize) {
        let mut slot = lock(&self.slots[trace]);
        slot.left = slot.left.saturating_sub(1);
        if slot.left == 0 {
            slot.read = None;
        }
    }
}

fn lock(slot: &Mutex<Slot>) -> std::sync::MutexGuard<'_, Slot> {
    // A panic while reading leaves nothing behind: the next one reads again.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The row names the file itself.
fn without_name(words: &str, path: &Path) -> String {
    words.strip_prefix(&format!("{}: ", path.display())).unwrap_or(words).to_owned()
}

/// Settings must be ones that the release takes, or some release where none is given.
fn check_conf(conf: &str, torch: Option<Release>) -> anyhow::Result<()> {
    let takes = |release: Release| AllocConf::from_string(release, conf).is_ok();
    match torch {
        None if RELEASES.into_iter().any(takes) => Ok(()),
        torch => many::parsed(conf, torch.unwrap_or(Release::NEWEST)).map(drop),
    }
}

/// The lines of a grid without the combinations that are no settings; an error if all are none.
fn usable(mut lines: Vec<String>, torch: Option<Release>) -> anyhow::Result<Vec<String>> {
    let all = lines.len();
    let mut first = None;
    lines.retain(|line| match check_conf(line, torch) {
        Ok(()) => true,
        Err(error) => {
            first.get_or_insert(error);
            false
        }
    });
    match first {
        Some(error) if lines.is_empty() => Err(error),
        Some(error) => {
            let left_out = all - lines.len();
            say(&format!(
                "{left_out} of {all} settings of the grid are refused and left out, the first as {}",
                in_words(&error)
            ));
            Ok(lines)
        }
        None => Ok(lines),
    }
}

fn in_hours(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..=99 => format!("{seconds} s"),
        100..=5999 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3600)),
    }
}

/// What became of the rows.
#[derive(Debug, Default)]
struct Tally {
    survive: u64,
    die: u64,
    /// Traces that could not be read.
    unusable: u64,
    /// Settings that a release refuses, capacities too small for a start.
    left_out: u64,
    failing: u64,
    shown: Vec<String>,
    errors: Vec<String>,
}

impl Tally {
    fn add(&mut self, row: &SweepRow, conditions: &[Condition]) {
        match row.survives {
            Some(true) => self.survive += 1,
            Some(false) => self.die += 1,
            None => {
                match row.device {
                    None => self.unusable += 1,
                    Some(_) => self.left_out += 1,
                }
                let error = row.error.as_deref().unwrap_or("no reason is known");
                let said = format!("{}: {error}", row.file);
                if self.errors.len() < SHOWN && !self.errors.contains(&said) {
                    self.errors.push(said);
                }
            }
        }
        let mut fails = false;
        for condition in conditions.iter().filter(|condition| condition.holds(row)) {
            fails = true;
            if self.shown.len() < SHOWN {
                let conf = if row.conf.is_empty() { "default settings" } else { &row.conf };
                let capacity = row.capacity_bytes.map(|capacity| format!(", {}", Bytes(capacity)));
                self.shown.push(format!(
                    "{condition}: {} with {conf}{}: {} reserved at the peak, {} retries{}",
                    row.file,
                    capacity.unwrap_or_default(),
                    Bytes(row.reserved_bytes_peak.unwrap_or_default()),
                    row.retries.unwrap_or_default(),
                    if row.survives == Some(false) { ", dies" } else { "" }
                ));
            }
        }
        self.failing += u64::from(fails);
    }

    /// In words, on standard error.
    fn say(&self, args: &SweepArgs) {
        for error in &self.errors {
            say(error);
        }
        for shown in &self.shown {
            say(shown);
        }
        if self.failing > self.shown.len() as u64 {
            say(&format!("… and others: a condition holds for {} replays", self.failing));
        }
        let to = args.output.as_ref().map(|file| format!(" in {}", file.display()));
        say(&format!(
            "{} rows{}: {} survive, {} die, {} could not be replayed",
            self.survive + self.die + self.unusable + self.left_out,
            to.unwrap_or_default(),
            self.survive,
            self.die,
            self.unusable + self.left_out
        ));
    }
}
