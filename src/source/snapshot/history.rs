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
//! What precedes an `alloc` may be its own or an `empty_cache` just before it. The stack tells: all
//! entries of one operation share one. Without stacks, a release that is followed by new memory is
//! the request's own retry, any other is an `empty_cache`.

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
    /// Begins with a `free_requested`.
    Free,
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
                    all.push(Operation { kind: Kind::Malloc, entries: from + own..at });
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
    let last_release = before.iter().rposition(|entry| is_release(entry.action));
    let Some(last_release) = last_release else { return 0 };
    if let (Some(own), Some(theirs)) = (request.context, before[last_release].context) {
        if own == theirs {
            // Releases with another stack further up are an `empty_cache`'s.
            let foreign = before
                .iter()
                .rposition(|e| is_release(e.action) && e.context.is_some_and(|c| c != own));
            return foreign.map_or(0, |foreign| foreign + 1);
        }
        return last_release + 1;
    }
    let gets_memory = request.action == Action::Oom
        || before[last_release..].iter().any(|entry| is_new_memory(entry.action));
    if gets_memory { 0 } else { last_release + 1 }
}

/// One `empty_cache`, or several where the stack changes between releases.
fn push_empties(all: &mut Vec<Operation>, entries: &[Entry], range: Range<usize>) {
    let mut from = range.start;
    for at in range.clone() {
        let next_release = entries[at + 1..range.end].iter().find(|e| is_release(e.action));
        let changes = is_release(entries[at].action)
            && next_release.is_some_and(|next| next.context != entries[at].context);
        if changes || at + 1 == range.end {
            all.push(Operation { kind: Kind::EmptyCache, entries: from..at + 1 });
            from = at + 1;
        }
    }
}
