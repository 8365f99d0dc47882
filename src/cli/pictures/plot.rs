//! `fragsim plot`.

use clap::Args;

use super::WatchArgs;
use crate::cli::{Answer, output::Output};

/// Draw
#[derive(Debug, Args)]
pub(in crate::cli) struct PlotArgs {
    #[command(flatten)]
    pub watch: WatchArgs,
}

pub(in crate::cli) fn run(_args: &PlotArgs, _output: &mut Output) -> anyhow::Result<Answer> {
    anyhow::bail!("not yet")
}
