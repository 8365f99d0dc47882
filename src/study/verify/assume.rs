//! What a program did that no history records, where one assumption explains what differs: a private
//! pool that hands out its blocks whole, or `expandable_segments` switched while it ran.

use super::lockstep::{self, Run, Terms};
use crate::{
    base::OpIndex,
    trace::{Action, Control, Op, Recorded, Trace},
};

/// How many assumptions are made at most.
const LIMIT: usize = 32;

/// The facts, in the order of their operations, and the run that they explain; `None` if none helps.
pub(super) fn explain(
    trace: &Trace,
    recorded: &Recorded,
    terms: &Terms,
    facts: &[(OpIndex, Control)],
    first: &Run,
) -> Option<(Vec<(OpIndex, Control)>, Run)> {
    let mut best: Option<(Vec<(OpIndex, Control)>, Run)> = None;
    for _ in 0..LIMIT {
        let (known, run) = match &best {
            Some((known, run)) => (known.as_slice(), run),
            None => (facts, first),
        };
        if run.verdict.is_exact() {
            break;
        }
        let Some(fact) = suggestion(trace, terms, run) else { break };
        if known.contains(&fact) {
            break;
        }
        let mut next = known.to_vec();
        let at = next.partition_point(|(op, _)| *op <= fact.0);
        next.insert(at, fact);
        let better = lockstep::run(trace, recorded, terms, &next);
        if better.equal_events <= run.equal_events && !better.verdict.is_exact() {
            break;
        }
        best = Some((next, better));
    }
    best
}

/// What the difference points to.
fn suggestion(trace: &Trace, terms: &Terms, run: &Run) -> Option<(OpIndex, Control)> {
    let at = run.stopped_at?;
    let Op::Alloc(request) = trace.ops().get(at.0 as usize)? else { return None };
    let switch = |on: bool| {
        let mut conf = terms.conf.clone();
        conf.expandable_segments = on;
        let text = conf.to_conf_string(terms.release).unwrap_or_else(|error| error.nearest);
        // The switch itself must be named: the option keeps its value otherwise.
        let text = if on || text.contains("expandable_segments") {
            text
        } else if text.is_empty() {
            "expandable_segments:False".to_owned()
        } else {
            format!("{text},expandable_segments:False")
        };
        (at, Control::Settings(text))
    };
    match run.expected.map(|event| event.action) {
        Some(Action::SegmentAlloc) if run.was_expandable => Some(switch(false)),
        Some(Action::SegmentMap) if !run.was_expandable => Some(switch(true)),
        _ => {
            let pool = request.pool?;
            Some((OpIndex(0), Control::PoolNoSplit(trace.pools()[pool])))
        }
    }
}

/// In words, for the certificate.
pub(super) fn describe(control: &Control) -> Option<String> {
    match control {
        Control::PoolNoSplit(pool) => Some(format!("pool {pool} hands out its blocks whole")),
        Control::Settings(text) => Some(format!("the settings became '{text}'")),
        _ => None,
    }
}
