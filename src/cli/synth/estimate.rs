//! `fragsim estimate`.

use clap::Args;

use super::program::{self, ProgramArgs};
use crate::{
    base::{Bytes, Release},
    cli::{
        Answer,
        many::{self, TableFormat},
        output::Output,
        plan::NO_LIMIT,
        progress,
    },
    models::pytorch::conf::AllocConf,
    report::{
        estimate::{DeviceBudget, EstimateDocument, text},
        to_json,
    },
    study::{
        estimate::{CONTEXT, budget},
        whatif::Terms,
    },
    workload::synthesize,
};

/// Say what a program will take of a device before it runs
///
/// Weights, gradients, optimizer states, activations and the rest at the moment when most is handed
/// out; what the allocator adds, by replay; the CUDA context, by convention; the sum, and the cards
/// that have as much.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    fragsim estimate train --preset gpt2-small\n  \
    fragsim estimate train --layers 24 --width 1024 --heads 16 --batch 16 --conf expandable_segments:True\n  \
    fragsim estimate --config program.toml --format json\n\n\
    Exit status: 0 some card of `fragsim fit --gpus` has as much, 1 none has, 2 parameters that cannot be.")]
pub(in crate::cli) struct EstimateArgs {
    #[command(flatten)]
    pub program: ProgramArgs,
    /// Settings as in PYTORCH_CUDA_ALLOC_CONF
    #[arg(long, value_name = "STRING")]
    pub conf: Option<String>,
    /// Release of PyTorch whose allocator is replayed, 2.1 to 2.15
    #[arg(long, value_name = "RELEASE")]
    pub torch: Option<Release>,
    /// Memory that the CUDA context takes
    #[arg(long, value_name = "SIZE", default_value_t = CONTEXT)]
    pub cuda_context: Bytes,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    pub format: TableFormat,
}

pub(in crate::cli) fn run(args: &EstimateArgs, output: &mut Output) -> anyhow::Result<Answer> {
    let release = args.torch.unwrap_or_default();
    let conf = match &args.conf {
        Some(text) => many::parsed(text, release)?,
        None => AllocConf::new(release),
    };
    let named = args.program.program()?;
    program::check(&named)?;
    let ran = progress::during("making", || synthesize(named.program.as_ref()))?;
    let written = many::written(&conf, release);
    let terms = Terms::new(release, conf, NO_LIMIT);
    let mut devices = Vec::new();
    for trace in &ran.traces {
        let found = progress::during("replaying", || budget(trace, &terms, args.cuda_context))?;
        devices.push(DeviceBudget::new(usize::from(trace.device().0), found));
    }
    let document = EstimateDocument {
        workload: named.name,
        parameters: named.changed.into_iter().collect(),
        torch: release.to_string(),
        conf: written,
        devices,
    };
    match args.format {
        TableFormat::Json => output.line(&to_json(&document))?,
        TableFormat::Csv => {
            let rows = document.devices.iter().flat_map(DeviceBudget::rows);
            output.write(&many::to_csv(rows)?)?;
        }
        TableFormat::Text => output.write(&text(&document))?,
    }
    let fits = document.devices.iter().all(|device| !device.cards.is_empty());
    Ok(if fits { Answer::Yes } else { Answer::No })
}
