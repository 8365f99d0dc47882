//! `explain` of a trace with an out-of-memory error, or of a request at one of its operations.

use std::path::Path;

use anyhow::{Context, bail};
use clap::Args;

use super::super::{
    Answer,
    args::{ExplainArgs, Format, OnOomArg, ReplayArgs, TermsArgs},
    load::Input,
    output::Output,
    plan::plan_and_snapshot,
    progress, replay,
    stacks::Stacks,
};
use crate::{
    base::{Bytes, PoolId, StreamId},
    report::{
        explain::{ExplainDocument, ExplainHeading},
        explain_text, to_csv, to_json,
    },
    study::{
        explain::{Effort, Origin, Question, Scene, Verdict, explain},
        whatif::{Program, Start},
    },
    trace::{PoolIndex, Trace, TraceError},
};

/// What is asked of a recording or trace.
#[derive(Debug, Args)]
pub(in crate::cli) struct TraceArgs {
    /// Ask a request before this operation, counted from 0 as `replay` counts; with --request
    #[arg(long, value_name = "OPERATION", requires = "request")]
    pub at: Option<u64>,
    /// The size of that request, such as 2GiB
    #[arg(long, value_name = "SIZE", requires = "at", allow_hyphen_values = true)]
    pub request: Option<Bytes>,
    /// The stream of that request, numbered as in the trace; 0 is the default stream
    #[arg(long, value_name = "N", requires = "at", default_value = "0")]
    pub stream: u16,
    /// The private pool that is to serve it, as replays print it: '(0,1)'; otherwise the default pool
    #[arg(long, value_name = "POOL", requires = "at", value_parser = pool)]
    pub pool: Option<PoolId>,
    /// Which failure to explain, where several requests fail, counted from 1
    #[arg(long, value_name = "N", default_value = "1", conflicts_with = "at", value_parser = clap::value_parser!(u32).range(1..))]
    pub failure: u32,
    /// Settings as in PYTORCH_CUDA_ALLOC_CONF; otherwise those of the recording
    #[arg(long, value_name = "STRING")]
    pub conf: Option<String>,
    #[command(flatten)]
    pub terms: TermsArgs,
    /// Do not replay remedies
    #[arg(long)]
    pub no_remedies: bool,
}

impl TraceArgs {
    /// Whether anything is given that only a trace can answer.
    pub(super) fn asks_for_a_replay(&self) -> bool {
        let TermsArgs { of, on, .. } = self.terms;
        self.at.is_some() || self.conf.is_some() || of.capacity.is_some() || on.torch.is_some()
    }

    /// What is replayed is what `replay` would replay.
    fn replay(&self, path: &Path, format: Format) -> ReplayArgs {
        ReplayArgs {
            trace: path.to_owned(),
            conf: self.conf.clone(),
            terms: self.terms,
            on_oom: OnOomArg::Stop,
            no_caching: false,
            summary: false,
            at: None,
            events: None,
            repeat: None,
            format,
        }
    }
}

/// What a packed recording has to say where stacks are missed.
const NO_STACKS: &str = "a packed recording holds no stacks: explain the snapshot itself to see where blocks were allocated";

/// `(0,1)`, `0,1` or `0.1`.
fn pool(text: &str) -> Result<PoolId, String> {
    let plain = text.trim().trim_start_matches('(').trim_end_matches(')');
    let parts = plain.split_once([',', '.']);
    let parts = parts.and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
    match parts {
        Some((a, b)) if PoolId(a, b).is_private() => Ok(PoolId(a, b)),
        Some(_) => Err("that is the default pool: leave --pool out".into()),
        None => Err("write it as (0,1)".into()),
    }
}

/// The number of a pool that the trace names.
fn number_of(trace: &mut Trace, pool: PoolId) -> anyhow::Result<PoolIndex> {
    let known = trace.named_pools();
    if !known.contains(&pool) {
        let known: Vec<String> = known.iter().map(ToString::to_string).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(" ") };
        bail!("--pool {pool}: no such private pool; those of the trace: {known}");
    }
    trace.number_pool(pool).context("the trace has too many private pools")
}

/// Explains a request of what was read from `path`.
pub(super) fn run(
    all: &ExplainArgs,
    path: &Path,
    input: Input,
    output: &mut Output,
) -> anyhow::Result<Answer> {
    let (args, format) = (&all.trace, all.format);
    let as_replay = args.replay(path, format);
    let (mut plan, snapshot) = progress::during("rebuilding the history", || {
        plan_and_snapshot(&as_replay.source(), input)
    })?;
    let pool = args.pool.map(|pool| number_of(&mut plan.trace, pool)).transpose()?;
    let stacks = Stacks::of(snapshot.as_deref(), &plan.trace);
    let is_packed = snapshot.is_none() && plan.trace.recorded().is_some();
    let fresh = Program::of(&plan.trace, Start::Reallocate)?;
    let (program, terms, heading) = replay::prepare(&as_replay, plan)?;
    let question = match (args.at, args.request) {
        (Some(before), Some(size)) => {
            if size == Bytes::ZERO {
                bail!("--request 0: a request of no bytes takes nothing; give a size such as 2GiB");
            }
            Question::Request { before, size, stream: StreamId(args.stream), pool }
        }
        _ => Question::Failure(args.failure),
    };
    let name = || path.display().to_string();
    let scene = Scene::of(&program, &terms, &question).with_context(name)?;
    let Some(mut scene) = scene else {
        return nothing_fails(args, format, &heading, output);
    };
    let effort = Effort { remedies: !args.no_remedies, ..Effort::default() };
    let explanation = progress::during("replaying remedies", || {
        let mut found = explain(&mut scene, &program, &fresh, &terms, effort)?;
        let set = found.blocking[0].as_ref().map_or(&[][..], |set| &set.ids);
        if let Some(blocks) = stacks.of_the_same_places(set) {
            found.try_own_pool(&scene, &program, &fresh, &terms, &blocks);
        }
        Ok::<_, TraceError>(found)
    })?;
    let heading = ExplainHeading {
        file: heading.file,
        device: program.trace.device().0,
        torch: terms.release.to_string(),
        conf: heading.conf,
        capacity: heading.capacity,
        notes: match is_packed {
            false => heading.notes,
            true => [heading.notes, vec![NO_STACKS.to_owned()]].concat(),
        },
        frames: match (scene.origin, scene.failed) {
            (Origin::Recorded, Some(nth)) => stacks.frames_of_failed(nth),
            (Origin::Program, _) => stacks.frames(scene.request.id),
            _ => Vec::new(),
        },
    };
    let document = ExplainDocument::new(heading, &explanation, &scene, |id| stacks.frames(id));
    match format {
        Format::Json => output.line(&to_json(&document))?,
        Format::Csv => output.write(&to_csv(&document, "")?)?,
        Format::Text => output.write(&explain_text::text(&document))?,
    }
    Ok(if document.verdict == Verdict::Served { Answer::Yes } else { Answer::No })
}

fn nothing_fails(
    args: &TraceArgs,
    format: Format,
    heading: &crate::report::replay::Heading,
    output: &mut Output,
) -> anyhow::Result<Answer> {
    let within = heading
        .capacity
        .map_or_else(|| "no capacity limit".to_owned(), |capacity| format!("capacity {capacity}"));
    let document = || {
        serde_json::json!({
            "file": heading.file,
            "conf": heading.conf,
            "capacity": heading.capacity,
            "verdict": Verdict::Served,
            "notes": heading.notes,
        })
    };
    match format {
        Format::Json => output.line(&to_json(&document()))?,
        Format::Csv => output.write(&to_csv(&document(), "")?)?,
        Format::Text => {
            let what = match args.failure {
                1 => format!("nothing to explain: all {} operations are served", heading.ops_total),
                n => format!("nothing to explain: fewer than {n} requests fail"),
            };
            output.line(&format!(
                "{}: {what} ({within})\n  give another --capacity, or ask: --at OPERATION --request SIZE",
                heading.file
            ))?;
            for note in &heading.notes {
                output.line(&format!("  note: {note}"))?;
            }
        }
    }
    Ok(Answer::Yes)
}
