//! Splits a history into the operations that made it.
//!
//! Every `malloc`, `free` and `empty_cache` runs under the allocator's lock, so its entries are
//! contiguous, and they follow a grammar:
//!
//! ```text
//! malloc  := free_completed* release* map* … ( alloc | oom )
//! free    := free_requested [ free_completed of the same block ]
//! empty   := free_completed* release*
//! release := segment_free | segment_unmap
//! ```
//! What precedes an `alloc` may be its own or an `empty_cache` just before it. A release that is not
//! followed by new memory is an `empty_cache`'s, and so is one whose stack is not the request's: all
//! entries of a request share its stack. What cannot be told apart leaves the same state.

use std::ops::Range;

use super::raw::{Action, Entry};

/// One operation: the kind, and its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    pub kind: Kind,
    pub entries: Range<usize>,
}

/// What the operation was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ends in an `alloc` or `oom`.
    Malloc,
    /// Completions and releases before the new memory of a request, without a stack that tells whose
    /// they are.
    MaybeEmptyCache,
    /// Begins with a `free_requested`.
    Free,
    /// The second half of a free, at the very beginning.
    FreeTail,
    /// Only completions and releases.
    EmptyCache,
    /// One `snapshot`.
    Snapshot,
    /// One `annotate`: decides nothing.
    Annotate,
}

const fn is_release(action: Action) -> bool {
    matches!(action, Action::SegmentFree | Action::SegmentUnmap)
}

const fn is_new_memory(action: Action) -> bool {
    matches!(action, Action::SegmentAlloc | Action::SegmentMap)
}

/// All operations of a history, in order; together they cover it.
pub(super) fn operations(entries: &[Entry]) -> Vec<Operation> {
    let mut all = Vec::new();
    let mut at = 0;
    while let Some(entry) = entries.get(at) {
        let from = at;
        let kind = match entry.action {
            Action::FreeRequested => {
                let completes = entries.get(at + 1).is_some_and(|next| {
                    next.action == Action::FreeCompleted && next.addr == entry.addr
                });
                at += 1 + usize::from(completes);
                Kind::Free
            }
            Action::Snapshot => {
                at += 1;
                Kind::Snapshot
            }
            Action::Annotate => {
                at += 1;
                Kind::Annotate
            }
            // A full ring overwrites the oldest entry: this free has lost its request.
            Action::FreeCompleted if at == 0 => {
                at += 1;
                Kind::FreeTail
            }
            _ => {
                let prefix =
                    |action: Action| action == Action::FreeCompleted || action.is_segment();
                let length = entries[at..].iter().take_while(|e| prefix(e.action)).count();
                let last = at + length;
                let ends = entries.get(last).map(|entry| entry.action);
                if matches!(ends, Some(Action::Alloc | Action::Oom)) {
                    at = last + 1;
                    let own = own_entries(&entries[from..at]);
                    push_empties(&mut all, entries, from..from + own);
                    let unsure = unsure_entries(&entries[from + own..at]);
                    if unsure > 0 {
                        let entries = from + own..from + own + unsure;
                        all.push(Operation { kind: Kind::MaybeEmptyCache, entries });
                    }
                    all.push(Operation { kind: Kind::Malloc, entries: from + own + unsure..at });
                } else {
                    at = last.max(at + 1);
                    push_empties(&mut all, entries, from..at);
                }
                continue;
            }
        };
        all.push(Operation { kind, entries: from..at });
    }
    all
}

/// Where the request's own entries begin in a run that ends with it.
fn own_entries(run: &[Entry]) -> usize {
    let Some((request, before)) = run.split_last() else { return 0 };
    let Some(last_release) = before.iter().rposition(|entry| is_release(entry.action)) else {
        return 0;
    };
    // A request releases memory only to ask the device again.
    let gets_memory = request.action == Action::Oom
        || before[last_release..].iter().any(|entry| is_new_memory(entry.action));
    if !gets_memory {
        return last_release + 1;
    }
    // Releases under another stack are those of an `empty_cache` before it.
    let is_foreign = |entry: &Entry| {
        is_release(entry.action) && request.context.is_some() && entry.context != request.context
    };
    before.iter().rposition(is_foreign).map_or(0, |foreign| foreign + 1)
}

/// How many of a request's entries may be an `empty_cache`'s: those up to the last release, where no
/// stack tells and the request itself did not fail.
fn unsure_entries(run: &[Entry]) -> usize {
    let Some((request, before)) = run.split_last() else { return 0 };
    if request.context.is_some() || request.action == Action::Oom {
        return 0;
    }
    // Memory that came before a release was the request's, and so is the release.
    let first_new = before.iter().position(|e| is_new_memory(e.action)).unwrap_or(before.len());
    let last_release = before.iter().rposition(|entry| is_release(entry.action));
    last_release.filter(|last| *last < first_new).map_or(0, |last| last + 1)
}

/// One `empty_cache`; or several, where completions between releases show that it began anew. (The
/// stacks tell nothing here: without its own, a release carries that of the segment.)
fn push_empties(all: &mut Vec<Operation>, entries: &[Entry], range: Range<usize>) {
    let mut from = range.start;
    for at in range.clone() {
        let begins_anew = is_release(entries[at].action)
            && entries[at + 1..range.end]
                .first()
                .is_some_and(|next| next.action == Action::FreeCompleted);
        if begins_anew || at + 1 == range.end {
            all.push(Operation { kind: Kind::EmptyCache, entries: from..at + 1 });
            from = at + 1;
        }
    }
}
