//! What the verbs that replay often have in common.

use std::{io::IsTerminal, num::NonZeroUsize, path::Path, time::Duration};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    args::DeviceArgs,
    plan::{NO_LIMIT, Source, plan},
    progress,
};
use crate::{
    base::{Bytes, OpIndex, Release},
    models::pytorch::conf::AllocConf,
    study::{
        grid,
        price::Prices,
        whatif::{Program, Start, Terms},
    },
    trace::{Control, Op},
};

/// How tables are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum TableFormat {
    /// For people.
    Text,
    /// One JSON document.
    Json,
    /// Comma-separated values with a line of names.
    Csv,
}

/// Options of all verbs that replay often.
#[derive(Debug, Args)]
pub(super) struct ManyArgs {
    #[command(flatten)]
    pub on: DeviceArgs,
    /// Threads to replay on; otherwise one a core
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
}

impl ManyArgs {
    pub(super) fn threads(&self) -> NonZeroUsize {
        self.threads.unwrap_or_else(grid::all_cores)
    }
}

/// What calls of the driver cost.
#[derive(Debug, Args)]
pub(super) struct PriceArgs {
    /// Microseconds of the driver's calls as a JSON object, such as {"cudaMalloc": 120}
    #[arg(long, value_name = "FILE")]
    pub prices: Option<std::path::PathBuf>,
    /// Microseconds of one call: cudaMalloc=120; of cudaMalloc, cudaFree, map, unmap, synchronize
    #[arg(long, value_name = "CALL=US")]
    pub price: Vec<String>,
}

impl PriceArgs {
    pub(super) fn read(&self) -> anyhow::Result<Prices> {
        let mut prices = match &self.prices {
            None => Prices::default(),
            Some(path) => {
                let name = || path.display().to_string();
                let text = std::fs::read_to_string(path).with_context(name)?;
                Prices::from_json(&text).with_context(name)?
            }
        };
        for price in &self.price {
            prices.set(price).with_context(|| format!("--price {price}"))?;
        }
        Ok(prices)
    }
}

/// A program, and the terms that its recording and the command line give.
pub(super) struct Base {
    /// What is replayed. Blocks that were live at the start of a recording are asked for first:
    /// under other settings they would lie elsewhere.
    pub program: Program,
    /// The terms, under the recorded settings.
    pub terms: Terms,
    /// The capacity, if one is given or known.
    pub capacity: Option<Bytes>,
    /// What cannot be known, or was assumed.
    pub notes: Vec<String>,
}

/// Reads a trace, with a sign of life; see [`read`].
pub(super) fn base(
    trace: &Path,
    many: &ManyArgs,
    capacity: Option<Bytes>,
    has_conf: bool,
) -> anyhow::Result<Base> {
    progress::during("reading", || read(trace, many, capacity, has_conf))
}

/// Reads a trace; `has_conf` says that the settings of the recording do not count.
pub(super) fn read(
    trace: &Path,
    many: &ManyArgs,
    capacity: Option<Bytes>,
    has_conf: bool,
) -> anyhow::Result<Base> {
    let source = Source { trace, device: many.on.device, has_conf, torch: many.on.torch };
    let plan = plan(&source)?;
    let mut notes = plan.notes;
    let release = many.on.torch.or(plan.release).unwrap_or_default();
    let conf = plan.conf.unwrap_or_else(|| AllocConf::new(release));
    let start = if plan.trace.recorded().is_some() { Start::Reallocate } else { Start::AsRecorded };
    let mut program = Program::of(&plan.trace, start)?;
    let written_capacity = take_capacity(&mut program);
    if program.trace.ops().is_empty() {
        bail!("{}: there is nothing to replay: it has no operations", trace.display());
    }
    if program.reallocated > 0 {
        notes.push(format!(
            "{} blocks were live before the history began: they are asked for first, in the order of their addresses",
            program.reallocated
        ));
    }
    if capacity.is_none()
        && let Some(shown) = plan.capacity
        && plan.trace.recorded().is_some()
    {
        notes.push(format!(
            "capacity {shown} is what the recording shows at its out-of-memory error (free and reserved, without the context); give --capacity for another"
        ));
    }
    let capacity = capacity.or(written_capacity).or(plan.capacity);
    let context = many.on.context.max(plan.context);
    let kept = program.trace.start().reserved();
    let needed = kept.checked_add(context);
    if let Some(capacity) = capacity.filter(|c| needed.is_none_or(|needed| *c < needed)) {
        bail!(
            "{}: a capacity of {capacity} is too small: {kept} are reserved before the first operation, and the context takes {context}",
            trace.display()
        );
    }
    let terms = Terms {
        caching: plan.caching,
        events: plan.events,
        context,
        external: many.on.external,
        addresses: plan.addresses.unwrap_or_default(),
        ..Terms::new(release, conf, capacity.unwrap_or(NO_LIMIT))
    };
    Ok(Base { program, terms, capacity, notes })
}

/// The capacity that a trace names before its first request, which is taken out: here the capacity is
/// what is asked about.
fn take_capacity(program: &mut Program) -> Option<Bytes> {
    let trace = &program.trace;
    let head = trace.ops().iter().take_while(|op| matches!(op, Op::Control(_)));
    let total = head.enumerate().find_map(|(i, op)| match op {
        Op::Control(id) => match trace.controls()[*id] {
            Control::Total(total) => Some((i, total)),
            _ => None,
        },
        _ => None,
    });
    let (at, total) = total?;
    let at = OpIndex::from_index(at);
    program.trace.remove_op(at);
    for (before, _) in &mut program.failed {
        before.0 -= u32::from(*before > at);
    }
    Some(total)
}

/// Settings as a line that can be pasted.
pub(super) fn written(conf: &AllocConf, release: Release) -> String {
    conf.to_conf_string(release).unwrap_or_else(|unprintable| unprintable.nearest)
}

/// The settings of a `--conf`, for the release.
pub(super) fn parsed(text: &str, release: Release) -> anyhow::Result<AllocConf> {
    let parsed = AllocConf::from_string(release, text);
    Ok(parsed.with_context(|| format!("--conf {text}"))?.0)
}

/// A bar over many replays, where somebody sees it.
pub(super) fn bar(jobs: u64, what: &'static str) -> ProgressBar {
    if jobs < 2 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(jobs).with_message(what);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}, {eta} left") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A table of CSV from rows that serialize alike.
pub(super) fn to_csv<T: serde::Serialize>(
    rows: impl IntoIterator<Item = T>,
) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row)?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}
