//! `fragsim tune`.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::{
    Answer,
    args::CapacityArgs,
    many::{self, ManyArgs, PriceArgs, TableFormat},
    output::Output,
    progress,
};
use crate::{
    base::Bytes,
    report::{
        to_json,
        tune::{TuneDocument, text},
    },
    study::{
        fit::fit,
        tune::{Objective, Space, TuneOptions, empty_cache, tune},
        whatif::{Program, Terms},
    },
};

/// Replays that finding the capacity that would do may take, where nothing helps.
const FIT_BUDGET: u64 = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ObjectiveArg {
    /// Survive, with as few settings as possible.
    Survive,
    /// Reserve as little as possible at the worst moment.
    Reserved,
    /// Spend as little as possible on calls of the driver.
    Calls,
    /// Show what can be had for what: reserved bytes against calls.
    Pareto,
}

/// Find the settings that suit a run best
///
/// Searches every key of PYTORCH_CUDA_ALLOC_CONF that decides what the allocator does, alone and
/// together, and prints one line that can be pasted; or that nothing helps, where that is so. The
/// best few are checked on what was not searched: the second half of the run, other ranks, and runs
/// whose sizes are up to 10 % larger or smaller.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    fragsim tune run.pickle --capacity 24GiB\n  \
    fragsim tune run.pickle --objective reserved\n  \
    fragsim tune rank0.pickle --rank rank1.pickle --rank rank2.pickle --capacity A10\n  \
    fragsim tune run.pickle --objective pareto --format csv\n\n\
    Exit status: 0 it survives, with the line if there is one, 1 nothing helps, 2 unusable input.")]
pub(super) struct TuneArgs {
    /// A snapshot, a golden case, or a trace in fragsim's own formats; `-` is standard input
    #[arg(value_name = "TRACE")]
    pub trace: PathBuf,
    /// The settings to start from; otherwise those of the recording
    #[arg(long, value_name = "STRING")]
    pub conf: Option<String>,
    /// What is wanted; otherwise to survive, or where the run does already, to reserve little
    #[arg(long, value_enum, value_name = "WHAT")]
    pub objective: Option<ObjectiveArg>,
    /// A trace of another rank to check on; may be given often
    #[arg(long, value_name = "TRACE")]
    pub rank: Vec<PathBuf>,
    /// Runs with other sizes to check on
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub perturbations: u32,
    /// Seed of the first of them
    #[arg(long, value_name = "N", default_value = "1")]
    pub seed: u64,
    /// Also look for a place where a call of torch.cuda.empty_cache() helps
    #[arg(long)]
    pub empty_cache: bool,
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

pub(super) fn run(args: &TuneArgs, output: &mut Output) -> anyhow::Result<Answer> {
    let prices = args.prices.read()?;
    let base = many::base(&args.trace, &args.many, args.capacity.capacity, args.conf.is_some())?;
    let release = base.terms.release;
    let conf = match &args.conf {
        Some(text) => many::parsed(text, release)?,
        None => base.terms.conf.clone(),
    };
    let terms = Terms { conf, ..base.terms };
    let mut ranks = Vec::new();
    for rank in &args.rank {
        ranks.push(many::base(rank, &args.many, args.capacity.capacity, true)?.program);
    }
    let program = &base.program;
    let threads = args.many.threads();
    let objective = match args.objective {
        Some(ObjectiveArg::Survive) => Objective::Survive,
        Some(ObjectiveArg::Reserved) => Objective::Reserved,
        Some(ObjectiveArg::Calls) => Objective::Calls,
        Some(ObjectiveArg::Pareto) => Objective::Pareto,
        None => default_objective(program, &terms),
    };
    let perturbations = args.perturbations;
    let options = TuneOptions { objective, prices, perturbations, seed: args.seed, threads };
    let space = Space::of(program, &terms.conf, release);
    let tuned = progress::during("searching", || tune(program, &terms, &space, &ranks, &options))?;
    let best = tuned.best.as_ref().map(|best| best.conf.clone());
    let emptied = if args.empty_cache {
        let conf = best.unwrap_or_else(|| terms.conf.clone());
        let terms = Terms { conf, ..terms.clone() };
        progress::during("searching", || empty_cache(program, &terms, objective, &prices, threads))?
    } else {
        None
    };
    let needed: Option<(String, Bytes)> = match &tuned.furthest {
        None => None,
        Some(furthest) => {
            let terms = Terms { conf: furthest.conf.clone(), ..terms.clone() };
            let found = progress::during("searching", || fit(program, &terms, FIT_BUDGET, threads))
                .context("looking for the capacity that would do")?;
            found.smallest.map(|size| (many::written(&furthest.conf, release), size))
        }
    };
    let mut document = TuneDocument::new(&tuned, &options, program, &terms, release);
    document.file = args.trace.display().to_string();
    document.capacity = base.capacity.map(|capacity| capacity.0);
    document.notes = base.notes;
    document.ranks = args.rank.iter().map(|rank| rank.display().to_string()).collect();
    document.set_empty_cache(emptied.as_ref(), &prices);
    document.set_needed(needed);
    match args.format {
        TableFormat::Json => output.line(&to_json(&document))?,
        TableFormat::Csv => output.write(&many::to_csv(document.rows())?)?,
        TableFormat::Text => output.write(&text(&document))?,
    }
    Ok(if document.survives() { Answer::Yes } else { Answer::No })
}

/// To survive where the run dies, to reserve little where it does not.
fn default_objective(program: &Program, terms: &Terms) -> Objective {
    let figures = crate::study::figures::Replayer::new().figures(program, terms);
    if figures.survives() { Objective::Reserved } else { Objective::Survive }
}
