//! `fragsim explain`: of a message in a log, or of a recording or trace.

mod message;
mod snapshot;

use anyhow::Context;

pub(super) use snapshot::TraceArgs;

use super::{Answer, args::ExplainArgs, load, output::Output};
use crate::source::input;

pub(super) fn run(args: &ExplainArgs, output: &mut Output) -> anyhow::Result<Answer> {
    let Some(path) = &args.file else { return message::run(args, None, output) };
    let mut reader = input::open(path)?;
    let is_trace = load::is_trace(path, &mut reader, args.trace.asks_for_a_replay())
        .with_context(|| path.display().to_string())?;
    if is_trace {
        snapshot::run(args, path, load::read(path, reader)?, output)
    } else {
        message::run(args, Some(reader), output)
    }
}
