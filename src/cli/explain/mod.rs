//! `fragsim explain`.

mod message;

use super::{Answer, args::ExplainArgs, output::Output};

pub(super) fn run(args: &ExplainArgs, output: &mut Output) -> anyhow::Result<Answer> {
    message::run(args, output)
}
