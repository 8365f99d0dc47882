//! What a program did that no history records, where one assumption explains what differs: a private
//! pool that hands out its blocks whole, `expandable_segments` switched while it ran, or an
//! `empty_cache` that, without stacks, looked like a request's own releases.

use super::lockstep::{self, Run, Terms};
use crate::{
    base::OpIndex,
    trace::{Action, Control, Op, Recorded, Trace},
};

/// How many assumptions are made at most.
const LIMIT: usize = 32;

/// What explains more of a recording.
pub(super) struct Explained {
    /// Calls that the history does not record, in the order of their operations.
    pub facts: Vec<(OpIndex, Control)>,
    pub terms: Terms,
    pub run: Run,
}

/// One assumption.
enum Guess {
    /// A call that the history does not record.
    Call(OpIndex, Control),
    /// Releases before new memory were an `empty_cache` after all.
    Empty(OpIndex),
}

/// The assumptions that explain what differs; `None` if none helps.
pub(super) fn explain(
    trace: &Trace,
    recorded: &Recorded,
    terms: &Terms,
    facts: &[(OpIndex, Control)],
    first: &Run,
) -> Option<Explained> {
    let mut best: Option<Explained> = None;
    for _ in 0..LIMIT {
        let (known, known_terms, run) = match &best {
            Some(best) => (best.facts.as_slice(), &best.terms, &best.run),
            None => (facts, terms, first),
        };
        if run.verdict.is_exact() {
            break;
        }
        let Some(guess) = guess(trace, recorded, known_terms, run) else { break };
        let (mut facts, mut terms) = (known.to_vec(), known_terms.clone());
        match guess {
            Guess::Empty(op) => terms.empties.push(op),
            Guess::Call(op, call) if !facts.contains(&(op, call.clone())) => {
                let at = facts.partition_point(|(known, _)| *known <= op);
                facts.insert(at, (op, call));
            }
            Guess::Call(..) => break,
        }
        let better = lockstep::run(trace, recorded, &terms, &facts);
        if better.equal_events <= run.equal_events && !better.verdict.is_exact() {
            break;
        }
        best = Some(Explained { facts, terms, run: better });
    }
    best
}

/// What the difference points to.
fn guess(trace: &Trace, recorded: &Recorded, terms: &Terms, run: &Run) -> Option<Guess> {
    let at = run.stopped_at?;
    // The request's own reading of the releases before it did not hold.
    if let Some(unsure) = run.not_asked.last().filter(|op| op.0 + 1 == at.0)
        && recorded.maybe_empty.binary_search(unsure).is_ok()
    {
        return Some(Guess::Empty(*unsure));
    }
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
        Guess::Call(at, Control::Settings(text))
    };
    match run.expected.map(|event| event.action) {
        Some(Action::SegmentAlloc) if run.was_expandable => Some(switch(false)),
        Some(Action::SegmentMap) if !run.was_expandable => Some(switch(true)),
        _ => {
            let pool = request.pool?;
            Some(Guess::Call(OpIndex(0), Control::PoolNoSplit(trace.pools()[pool])))
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
