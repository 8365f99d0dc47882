//! What `plot`, `report` and `series` have in common: replays to be watched.

pub(super) mod plot;
pub(super) mod report;
pub(super) mod series;

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::{
    args::{Format, OnOomArg, ReplayArgs, TermsArgs},
    load,
    plan::{Plan, plan_and_snapshot},
    progress, replay,
};
use crate::{
    report::replay::{Heading, ReplayDocument},
    sim::StoppedBy,
    source::snapshot::Snapshot,
    study::{
        explain::Failed,
        timeline::{Detail, Timeline, first_failure, timeline},
        whatif::{Program, Terms},
    },
};

/// The settings of the recording, where several are named.
const RECORDED: &str = "recorded";

/// What is replayed.
#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// A snapshot, a golden case, or a trace in fragsim's own formats; `-` is standard input
    #[arg(value_name = "TRACE")]
    pub trace: PathBuf,
    #[command(flatten)]
    pub terms: TermsArgs,
    /// What to do when a request fails
    #[arg(long, value_name = "WHAT", value_enum, default_value = "stop")]
    pub on_oom: OnOomArg,
}

impl WatchArgs {
    /// What is replayed is what `replay` would replay.
    fn replay(&self, conf: Option<&str>, at: Option<u32>) -> ReplayArgs {
        ReplayArgs {
            trace: self.trace.clone(),
            conf: conf.filter(|conf| *conf != RECORDED).map(str::to_owned),
            terms: self.terms,
            on_oom: self.on_oom,
            no_caching: false,
            summary: false,
            at,
            events: None,
            repeat: None,
            format: Format::Text,
        }
    }
}

/// A trace that was read, to be replayed under one setting after another.
pub(super) struct Source {
    plan: Plan,
    snapshot: Option<Box<Snapshot>>,
}

/// A replay that is ready.
pub(super) struct Prepared {
    program: Program,
    terms: Terms,
    heading: Heading,
}

/// A replay that was watched.
pub(super) struct Watched {
    program: Program,
    terms: Terms,
    document: ReplayDocument,
    timeline: Timeline,
}

impl Source {
    /// Reads the trace. `has_conf` says that settings are given: those of the recording need not work
    /// then.
    fn read(args: &WatchArgs, has_conf: bool) -> anyhow::Result<Self> {
        let as_replay = args.replay(has_conf.then_some(""), None);
        let (plan, snapshot) = progress::during("reading", || {
            plan_and_snapshot(&as_replay.source(), load::open(&args.trace)?)
        })?;
        Ok(Self { plan, snapshot })
    }

    fn prepare(
        &self,
        args: &WatchArgs,
        conf: Option<&str>,
        at: Option<u32>,
    ) -> anyhow::Result<Prepared> {
        let as_replay = args.replay(conf, at);
        let prepared = replay::prepare(&as_replay, self.plan.clone());
        let (program, terms, heading) = match conf {
            Some(conf) => prepared.with_context(|| format!("--conf '{conf}'"))?,
            None => prepared?,
        };
        Ok(Prepared { program, terms, heading })
    }
}

impl Prepared {
    fn watch(self, detail: Detail) -> Watched {
        let timeline =
            progress::during("replaying", || timeline(&self.program, &self.terms, detail));
        let device = self.program.trace.device().0;
        let document = ReplayDocument::new(self.heading, device, &self.terms, &timeline.replayed);
        Watched { program: self.program, terms: self.terms, document, timeline }
    }
}

impl Watched {
    /// Why its first request fails that is not served.
    fn failed(&self) -> Option<Failed> {
        let replayed = &self.timeline.replayed;
        let fails_again = replayed.asked_again.iter().any(|again| again.error.is_some());
        let is_request = |failure: &StoppedBy| failure.asked.is_some();
        let fails = replayed.outcome.first_failure.as_ref().is_some_and(is_request);
        (fails || fails_again).then(|| first_failure(&self.program, &self.terms)).flatten()
    }
}
