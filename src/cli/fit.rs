//! `fragsim fit`.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::{
    Answer,
    many::{self, ManyArgs, TableFormat},
    output::Output,
    plan::NO_LIMIT,
    progress,
};
use crate::{
    report::{
        fit::{FitDocument, FitRow, cards_text, text},
        to_json,
    },
    study::{cards::CARDS, fit::fit, whatif::Terms},
};

/// Operations that the search for one of the settings may replay: some seconds.
const OPS_BUDGET: u64 = 40_000_000;

/// Find the smallest device on which a run survives
///
/// For each of the settings: the capacity from which on it always survives, the cards that have as
/// much, and the stretches below where it survives too: less memory makes the allocator give its
/// cache back sooner, which sometimes helps. Do not rely on those.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    fragsim fit run.pickle\n  \
    fragsim fit run.pickle --conf '' --conf expandable_segments:True --context 500MiB\n  \
    fragsim fit run.pickle --format json\n  \
    fragsim fit --gpus\n\n\
    Exit status: 0 it fits somewhere under each of the settings, 1 it does not, 2 unusable input.")]
pub(super) struct FitArgs {
    /// A snapshot, a golden case, or a trace in fragsim's own formats; `-` is standard input
    #[arg(value_name = "TRACE", required_unless_present = "gpus")]
    pub trace: Option<PathBuf>,
    /// Settings as in PYTORCH_CUDA_ALLOC_CONF, one row each; otherwise those of the recording
    #[arg(long, value_name = "STRING")]
    pub conf: Vec<String>,
    /// List the cards that are known, and what a program can have of their memory
    #[arg(long, conflicts_with_all = ["trace", "conf"])]
    pub gpus: bool,
    #[command(flatten)]
    pub many: ManyArgs,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    pub format: TableFormat,
}

pub(super) fn run(args: &FitArgs, output: &mut Output) -> anyhow::Result<Answer> {
    if args.gpus {
        let rows = CARDS.iter().map(|card| (card.name, card.total.0));
        match args.format {
            TableFormat::Text => output.write(&cards_text(&CARDS))?,
            TableFormat::Csv => {
                output.line("name,total_bytes")?;
                output.write(&many::to_csv(rows)?)?;
            }
            TableFormat::Json => {
                let rows: Vec<_> = rows
                    .map(|(name, total)| serde_json::json!({"name": name, "total_bytes": total}))
                    .collect();
                output.line(&to_json(&serde_json::json!({ "cards": rows })))?;
            }
        }
        return Ok(Answer::Yes);
    }
    let Some(trace) = &args.trace else { bail!("give a trace, or --gpus") };
    // The capacity is what is asked for: that of the recording does not count.
    let base = many::base(trace, &args.many, Some(NO_LIMIT), !args.conf.is_empty())?;
    let release = base.terms.release;
    let mut confs = Vec::new();
    for text in &args.conf {
        confs.push(many::parsed(text, release)?);
    }
    if confs.is_empty() {
        confs.push(base.terms.conf.clone());
    }
    let ops = base.program.trace.ops().len() as u64;
    let budget = (OPS_BUDGET / ops.max(1)).clamp(64, 4000);
    let mut rows = Vec::new();
    for conf in confs {
        let name = many::written(&conf, release);
        let terms = Terms { conf, ..base.terms.clone() };
        let found = progress::during("replaying", || {
            fit(&base.program, &terms, budget, args.many.threads())
        })?;
        rows.push(FitRow::new(name, &found));
    }
    let document = FitDocument {
        file: trace.display().to_string(),
        device: base.program.trace.device().0,
        torch: release.to_string(),
        ops_total: base.program.asked(),
        context_bytes: base.terms.context.0,
        rows,
        notes: base.notes,
    };
    match args.format {
        TableFormat::Json => output.line(&to_json(&document))?,
        TableFormat::Csv => output.write(&many::to_csv(document.rows.iter().map(FitRow::flat))?)?,
        TableFormat::Text => output.write(&text(&document))?,
    }
    let fits = document.rows.iter().all(|row| row.smallest_bytes.is_some());
    Ok(if fits { Answer::Yes } else { Answer::No })
}
