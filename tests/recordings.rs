//! Every recording of a whole program: what the real allocator did, the model does, entry by entry.
//!
//! And that the comparison can fail: a recording in which one number was changed is not exact.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it covers"
)]

mod common;

use std::path::{Path, PathBuf};

use fragsim::{
    base::{AllocId, Bytes},
    source::snapshot,
    study::verify::{LayoutVerdict, Verdict, VerifyOptions, verify_trace},
    trace::{Action, Event, Op, Recorded, Trace, TraceBuilder, TraceError},
};

/// Compares recordings of which each has a history; returns the numbers of histories and operations.
fn verify(paths: &[PathBuf]) -> (usize, u64) {
    let (mut histories, mut ops, mut differences) = (0, 0, Vec::new());
    for path in paths {
        for trace in common::histories(path) {
            let verdict = verify_trace(&trace, &VerifyOptions::default());
            histories += 1;
            ops += verdict.ops;
            match told(path, &verdict) {
                Some(difference) => differences.push(difference),
                None => assert_complete(path, &trace, &verdict),
            }
        }
    }
    let bad = differences.len();
    assert!(bad == 0, "{bad} of {histories} histories differ\n{}", differences.join("\n"));
    (histories, ops)
}

fn told(path: &Path, verdict: &Verdict) -> Option<String> {
    let found = verdict.difference.as_ref()?;
    Some(format!(
        "{} as {}: {}: {}\n  recorded {}\n  modelled {}\n{}",
        path.display(),
        verdict.release,
        found.place,
        found.asked,
        found.recorded,
        found.modelled,
        found.around
    ))
}

/// A verdict without a difference has compared everything.
fn assert_complete(path: &Path, trace: &Trace, verdict: &Verdict) {
    let at = path.display();
    assert_eq!(verdict.ops, trace.ops().len() as u64, "{at}");
    assert_eq!(verdict.layout, LayoutVerdict::Identical, "{at}");
    let Verdict { addresses, segment_allocs, segment_frees, segment_maps, .. } = verdict;
    let Verdict { segment_unmaps, pending_frees, ooms, .. } = verdict;
    for tally in [segment_frees, segment_maps, segment_unmaps, pending_frees, ooms] {
        assert_eq!(tally.equal, tally.total, "{at}: {verdict:?}");
    }
    assert_eq!(addresses.equal, addresses.total, "{at}");
    assert_eq!(segment_allocs.equal, segment_allocs.total, "{at}");
    assert!(verdict.ops > 0, "{at} holds no operation");
}

fn shipped() -> PathBuf {
    common::package("traces/recorded")
}

#[test]
fn shipped_recordings_are_exact() {
    let paths = common::files(&shipped(), ".pickle.gz");
    assert!(paths.len() >= 12, "{paths:?}");
    let (histories, ops) = verify(&paths);
    println!("{} files, {histories} histories, {ops} operations", paths.len());
}

/// One part of so many of a shared folder.
fn shared(folder: &str, part: usize, parts: usize) {
    let Some(folder) = common::shared(folder) else { return };
    let paths = common::files(&folder, ".pickle.gz");
    assert!(!paths.is_empty(), "no recordings in {}", folder.display());
    let part: Vec<PathBuf> = paths.into_iter().skip(part).step_by(parts).collect();
    let (histories, ops) = verify(&part);
    println!("{} files, {histories} histories, {ops} operations", part.len());
}

#[test]
fn recorded_programs_are_exact() {
    shared("recorded", 0, 1);
}

#[test]
fn recordings_under_other_settings_are_exact() {
    shared("matrix", 0, 1);
}

#[test]
fn scenarios_are_exact_first_quarter() {
    shared("scenarios", 0, 4);
}

#[test]
fn scenarios_are_exact_second_quarter() {
    shared("scenarios", 1, 4);
}

#[test]
fn scenarios_are_exact_third_quarter() {
    shared("scenarios", 2, 4);
}

#[test]
fn scenarios_are_exact_fourth_quarter() {
    shared("scenarios", 3, 4);
}

/// Those that others published are exact, or hold no history, or were never a recording.
#[test]
fn public_snapshots_are_exact_or_say_why_not() {
    let Some(folder) = common::shared("public") else { return };
    let (mut exact, mut silent) = (0, 0);
    for path in common::files(&folder, ".pickle.gz") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let loaded = snapshot::load(&path);
        if name.starts_with("facebookresearch__mosaic__") {
            let error = loaded.unwrap_err().to_string();
            assert!(error.contains("segments[0].blocks: the blocks of the segment at"), "{error}");
            continue;
        }
        let snapshot = loaded.unwrap_or_else(|error| panic!("{error}"));
        match snapshot.histories() {
            Ok(_) => {
                verify(&[path]);
                exact += 1;
            }
            Err(error) => {
                assert_eq!(error, snapshot::HistoryError::NoHistory, "{name}");
                assert_eq!(snapshot.entries(), 0, "{name}");
                silent += 1;
            }
        }
    }
    println!("{exact} exact, {silent} without a history");
    assert!(exact >= 18, "{exact}");
}

/// The same operations with another record of what happened.
fn with_recorded(trace: &Trace, recorded: Recorded) -> Result<Trace, TraceError> {
    let mut builder = TraceBuilder::new(trace.device());
    for stream in trace.streams().as_slice() {
        builder.stream(*stream)?;
    }
    for pool in trace.pools().as_slice() {
        builder.pool(*pool)?;
    }
    builder.start(trace.start().clone())?;
    for op in trace.ops() {
        match *op {
            Op::Alloc(op) => {
                let id: AllocId = builder.alloc(op.size, op.stream, op.pool)?;
                assert_eq!(id, op.id, "ids are numbered in order");
            }
            Op::Free(op) => builder.free(op.id, op.pending)?,
            Op::Control(id) => builder.control(trace.controls()[id].clone())?,
            op => builder.push(op)?,
        }
    }
    builder.recorded(recorded);
    Ok(builder.build())
}

fn only_history(name: &str) -> Trace {
    common::histories(&shipped().join(name)).swap_remove(0)
}

/// What the judge says of a recording in which something was changed.
fn judged(trace: &Trace, change: impl FnOnce(&mut Recorded)) -> Verdict {
    let recorded = trace.recorded().unwrap();
    // Nothing is left to be inferred: one run tells.
    let options = VerifyOptions {
        release: Some(recorded.releases.1),
        capacity: Some(Bytes(1 << 44)),
        ..VerifyOptions::default()
    };
    let mut changed = recorded.clone();
    change(&mut changed);
    verify_trace(&with_recorded(trace, changed).unwrap(), &options)
}

/// The place that the judge names, as an index into the history; the number of entries for the end.
fn place(trace: &Trace, verdict: &Verdict) -> Option<usize> {
    let place = &verdict.difference.as_ref()?.place;
    let Some((_, index)) = place.rsplit_once('[') else {
        assert_eq!(place, "the end");
        return Some(trace.recorded().unwrap().events.len());
    };
    Some(index.trim_end_matches(']').parse().unwrap())
}

/// Does what `change` says to every `step`-th entry of its own, and expects to be told where.
fn every_change_is_found(name: &str, step: usize, change: impl Fn(&mut Recorded, usize)) {
    let trace = only_history(name);
    assert!(judged(&trace, |_| ()).is_exact(), "{name}");
    let events: Vec<Event> = trace.recorded().unwrap().events.iter().collect();
    for at in (0..events.len()).step_by(step) {
        let verdict = judged(&trace, |recorded| change(recorded, at));
        let found = place(&trace, &verdict);
        let event = events[at];
        // Addresses and refusals are the driver's: the model follows them, and comes to something
        // else from there on.
        if event.action.is_segment() {
            assert!(
                found.is_some_and(|found| found >= at),
                "{name}: entry {at} {event}: {found:?}"
            );
        } else {
            assert_eq!(found, Some(at), "{name}: entry {at} {event}");
        }
    }
}

const CHANGED: [(&str, usize); 4] = [
    ("mlp.pickle.gz", 1),
    ("streams_pending.pickle.gz", 1),
    ("graphs_end.pickle.gz", 1),
    ("frag_expandable.pickle.gz", 101),
];

#[test]
fn one_changed_address_is_found() {
    for (name, step) in CHANGED {
        every_change_is_found(name, step, |recorded, at| {
            // The address of a failure is not compared: it is the device's free memory.
            let mut event = recorded.events.get(at).unwrap();
            if event.action == Action::Oom {
                event.size += Bytes(512);
            }
            event.addr = event.addr + Bytes(512);
            recorded.events.set(at, event);
        });
    }
}

#[test]
fn one_changed_size_is_found() {
    for (name, step) in CHANGED {
        every_change_is_found(name, step, |recorded, at| {
            // That of a snapshot is not compared: it may have been one of a single pool.
            let mut event = recorded.events.get(at).unwrap();
            event.stream.0 += u64::from(event.action == Action::Snapshot);
            event.size += Bytes(1);
            recorded.events.set(at, event);
        });
    }
}

#[test]
fn one_missing_entry_is_found() {
    for (name, step) in CHANGED {
        every_change_is_found(name, step, |recorded, at| {
            let mut events: Vec<Event> = recorded.events.iter().collect();
            events.remove(at);
            recorded.events = events.into_iter().collect();
            let after = recorded.first_event.iter_mut().filter(|first| **first as usize > at);
            after.for_each(|first| *first -= 1);
        });
    }
}

#[test]
fn one_changed_block_of_the_final_layout_is_found() {
    let trace = only_history("mlp.pickle.gz");
    let count = trace.recorded().unwrap().end.segments.len();
    for at in 0..count {
        let verdict = judged(&trace, |recorded| {
            let block = &mut recorded.end.segments[at].blocks[0];
            block.size += Bytes(512);
        });
        assert_eq!(verdict.layout, LayoutVerdict::Differs);
        let missing = judged(&trace, |recorded| drop(recorded.end.segments.remove(at)));
        assert_eq!(missing.layout, LayoutVerdict::Differs);
    }
}

#[test]
fn a_history_that_repeats_an_operation_is_not_exact() {
    let trace = only_history("mlp.pickle.gz");
    let last = trace.ops().len() - 1;
    let verdict = judged(&trace, |recorded| {
        let from = recorded.first_event[last] as usize;
        let again: Vec<Event> = recorded.events.iter().skip(from).collect();
        recorded.events.extend(again);
        *recorded.first_event.last_mut().unwrap() = u32::try_from(recorded.events.len()).unwrap();
    });
    let at = verdict.difference.unwrap().place;
    assert!(at.starts_with(&format!("operation {},", fragsim::base::OpIndex::from_index(last))));
}
