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

use std::{collections::VecDeque, ops::Range};

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
pub(super) fn operations(entries: &[Entry]) -> impl Iterator<Item = Operation> {
    let mut next = Operations { entries, at: 0, queue: VecDeque::new() };
    std::iter::from_fn(move || next.next())
}

/// The operations that are still to come.
struct Operations<'a> {
    entries: &'a [Entry],
    at: usize,
    /// What was found together.
    queue: VecDeque<Operation>,
}

impl Operations<'_> {
    fn next(&mut self) -> Option<Operation> {
        if let Some(operation) = self.queue.pop_front() {
            return Some(operation);
        }
        let (entries, from) = (self.entries, self.at);
        let mut at = from;
        let entry = entries.get(at)?;
        let kind = match entry.action {
            Action::FreeRequested => {
                let completes = completes(&entries[at..]);
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
                    if length > 0 {
                        self.at = at;
                        return self.request(from..at);
                    }
                    Kind::Malloc
                } else {
                    self.at = last.max(at + 1);
                    push_empties(&mut self.queue, entries, from..self.at);
                    return self.queue.pop_front();
                }
            }
        };
        self.at = at;
        Some(Operation { kind, entries: from..at })
    }

    /// A run of entries that ends with a request.
    fn request(&mut self, run: Range<usize>) -> Option<Operation> {
        let (entries, Range { start: from, end }) = (self.entries, run);
        let own = own_entries(&entries[from..end]);
        push_empties(&mut self.queue, entries, from..from + own);
        let unsure = unsure_entries(&entries[from + own..end]);
        if unsure > 0 {
            let entries = from + own..from + own + unsure;
            self.queue.push_back(Operation { kind: Kind::MaybeEmptyCache, entries });
        }
        self.queue.push_back(Operation { kind: Kind::Malloc, entries: from + own + unsure..end });
        self.queue.pop_front()
    }
}

/// Whether the entry after a free is its second half, and not the completion of a pending free that
/// the next operation waited for: that one has the stack of the releases behind it.
fn completes(run: &[Entry]) -> bool {
    let [free, next, rest @ ..] = run else { return false };
    let is_waited_for = next.context.is_some()
        && next.context != free.context
        && rest
            .first()
            .is_some_and(|behind| behind.context == next.context && is_release(behind.action));
    next.action == Action::FreeCompleted && next.addr == free.addr && !is_waited_for
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
fn push_empties(all: &mut VecDeque<Operation>, entries: &[Entry], range: Range<usize>) {
    let mut from = range.start;
    for at in range.clone() {
        let begins_anew = is_release(entries[at].action)
            && entries[at + 1..range.end]
                .first()
                .is_some_and(|next| next.action == Action::FreeCompleted);
        if begins_anew || at + 1 == range.end {
            all.push_back(Operation { kind: Kind::EmptyCache, entries: from..at + 1 });
            from = at + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::{
        base::{Addr, Bytes},
        source::snapshot::{rows::EMPTY, text::ContextId},
    };

    /// Entries in short: `m` and `u` map and unmap, `s` and `r` make and release a segment, `a`
    /// allocates, `o` runs out of memory, `f` requests a free, `c` completes one, `S` is a snapshot,
    /// `#` an annotation; then an address, and the stack after `@`.
    fn entries(text: &str) -> Vec<Entry> {
        let entry = |word: &str| {
            let (word, context) = word.split_once('@').map_or((word, None), |(word, stack)| {
                (word, ContextId::new(stack.parse().unwrap()))
            });
            let (kind, addr) = word.split_at(1);
            Entry {
                action: match kind {
                    "m" => Action::SegmentMap,
                    "u" => Action::SegmentUnmap,
                    "s" => Action::SegmentAlloc,
                    "r" => Action::SegmentFree,
                    "a" => Action::Alloc,
                    "o" => Action::Oom,
                    "f" => Action::FreeRequested,
                    "c" => Action::FreeCompleted,
                    "S" => Action::Snapshot,
                    "#" => Action::Annotate,
                    other => panic!("no entry is called {other}"),
                },
                addr: Addr(addr.parse().unwrap_or(0)),
                size: Bytes(1),
                context,
                ..EMPTY
            }
        };
        text.split_whitespace().map(entry).collect()
    }

    #[expect(clippy::needless_pass_by_value, reason = "a picture reads best as a value")]
    fn check(text: &str, expected: Expect) {
        let words: Vec<&str> = text.split_whitespace().collect();
        let show =
            |op: &Operation| format!("{:?}({})", op.kind, words[op.entries.clone()].join(" "));
        let entries = entries(text);
        let shown: Vec<String> = operations(&entries).map(|op| show(&op)).collect();
        expected.assert_eq(&shown.join(" "));
    }

    #[test]
    fn a_request_owns_the_new_memory_before_it() {
        check("s1 a1 a2 m3 m4 a3", expect!["Malloc(s1 a1) Malloc(a2) Malloc(m3 m4 a3)"]);
    }

    #[test]
    fn a_free_completes_at_once_or_waits() {
        check("f1 c1 f2 f3 c3", expect!["Free(f1 c1) Free(f2) Free(f3 c3)"]);
    }

    #[test]
    fn a_request_owns_the_completions_that_it_found() {
        check("a1 f1 f2 c1 c2 a3", expect!["Malloc(a1) Free(f1) Free(f2) Malloc(c1 c2 a3)"]);
    }

    #[test]
    fn a_request_releases_memory_to_ask_the_device_again() {
        check("r1@1 u2@1 s3@1 a3@1", expect!["Malloc(r1@1 u2@1 s3@1 a3@1)"]);
        check("r1 o0", expect!["Malloc(r1 o0)"]);
    }

    #[test]
    fn without_stacks_releases_before_new_memory_may_be_an_empty_cache() {
        check("r1 u2 s3 a3", expect!["MaybeEmptyCache(r1 u2) Malloc(s3 a3)"]);
        check("m1 r2 s3 a3", expect!["Malloc(m1 r2 s3 a3)"]);
    }

    #[test]
    fn a_release_without_new_memory_is_an_empty_cache() {
        check("r1 r2 a3", expect!["EmptyCache(r1 r2) Malloc(a3)"]);
        check("r1", expect!["EmptyCache(r1)"]);
    }

    #[test]
    fn a_release_under_another_stack_is_an_empty_cache() {
        check("r1@1 r2@2 s3@2 a3@2", expect!["EmptyCache(r1@1) Malloc(r2@2 s3@2 a3@2)"]);
    }

    #[test]
    fn completions_between_releases_show_a_second_empty_cache() {
        check("S0 c1 r1 c2 r2", expect!["Snapshot(S0) EmptyCache(c1 r1) EmptyCache(c2 r2)"]);
    }

    #[test]
    fn the_first_entry_of_a_full_ring_may_be_half_a_free() {
        check("c1 a2", expect!["FreeTail(c1) Malloc(a2)"]);
    }

    #[test]
    fn snapshots_and_annotations_stand_alone() {
        check("S0 a1 #0 f1 c1", expect!["Snapshot(S0) Malloc(a1) Annotate(#0) Free(f1 c1)"]);
    }
}
