//! What would have happened: against the real allocator, and by hand.

#![expect(clippy::unwrap_used, reason = "a test's panic is its report; helpers are tests too")]
#![expect(clippy::needless_pass_by_value, reason = "a picture reads best as a value")]
#![expect(clippy::print_stdout, reason = "says which data is absent")]

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use expect_test::{Expect, expect};
use fragsim::{
    base::{Bytes, Release},
    models::pytorch::conf::AllocConf,
    report::events,
    source::snapshot,
    study::{
        figures::Replayer,
        verify::{VerifyOptions, resolved},
        whatif::{Program, Replayed, Start, Terms, whatif},
    },
    trace::script,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Data that is too large to ship, if it is there.
fn shared(part: &str) -> Option<PathBuf> {
    let root = std::env::var_os("FRAGSIM_SHARED").map_or_else(|| "../shared".into(), PathBuf::from);
    let path = root.join("data").join(part);
    if path.exists() {
        return Some(path);
    }
    println!("{} is absent: not compared (FRAGSIM_SHARED names the folder)", path.display());
    None
}

/// The program of a recording, as it is asked under other terms.
fn program(path: &Path) -> Program {
    let mut traces = snapshot::load(path).unwrap().histories().unwrap();
    let (trace, _) = resolved(traces.swap_remove(0), &VerifyOptions::default());
    Program::of(&trace, Start::Reallocate).unwrap()
}

fn terms(release: Release, conf: &str, capacity: u64) -> Terms {
    let (conf, _) = AllocConf::from_string(release, conf).unwrap();
    Terms::new(release, conf, Bytes(capacity))
}

/// The message of the request that ended a replay.
fn message(replayed: &Replayed) -> Option<String> {
    replayed.outcome.first_failure.as_ref().map(|failure| failure.error.to_string())
}

// ---- the real allocator --------------------------------------------------------------------------

/// All that one line of `whatif.jsonl` says, where the replay says something else.
fn unlike(truth: &Value, replayed: &Replayed, release: Release) -> Vec<String> {
    let mut unlike = Vec::new();
    let mut compare = |what: &str, ours: Value, real: &Value| {
        if ours != *real {
            unlike.push(format!("{what}: {ours}, really {real}"));
        }
    };
    let (ours, real) = (replayed.stats.flat(release), &truth["stats"]);
    let families = [
        "allocation",
        "segment",
        "active",
        "inactive_split",
        "allocated_bytes",
        "reserved_bytes",
        "active_bytes",
        "inactive_split_bytes",
        "requested_bytes",
    ];
    let fields = ["current", "peak", "allocated", "freed"];
    for family in families {
        for (i, column) in ["all", "small_pool", "large_pool"].iter().enumerate() {
            for (k, field) in fields.iter().enumerate() {
                let key = format!("{family}.{column}.{field}");
                compare(&key, ours[&key].into(), &real[family][i][k]);
            }
        }
    }
    for family in ["oversize_allocations", "oversize_segments"] {
        for (k, field) in fields.iter().enumerate() {
            let key = format!("{family}.{field}");
            compare(&key, ours[&key].into(), &real[family][k]);
        }
    }
    for key in [
        "num_alloc_retries",
        "num_ooms",
        "num_sync_all_streams",
        "num_device_alloc",
        "num_device_free",
        "max_split_size",
    ] {
        compare(key, ours[key].into(), &real[key]);
    }
    compare("completed", replayed.outcome.completed.into(), &truth["completed"]);
    compare("ran", replayed.asked.into(), &truth["ran"]);
    compare("oom", message(replayed).into(), &truth["oom"]);
    compare("events", replayed.events.into(), &truth["events"]);
    let mut lines = Vec::new();
    events::write(&replayed.record.events, &mut lines).unwrap();
    let hash = Sha256::digest(&lines).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    compare("hash of the events", hash.into(), &truth["events_sha256"]);
    unlike
}

/// Where the replay of searches, in a model that has replayed other things before, says something
/// else.
fn lean_unlike(
    replayer: &mut Replayer,
    program: &Program,
    terms: &Terms,
    replayed: &Replayed,
) -> Vec<String> {
    let lean = replayer.figures(program, terms);
    let stats = &replayed.stats;
    let of = |number: i64| u64::try_from(number).unwrap();
    let pairs = [
        ("allocated", lean.allocated.allocated.0, of(stats.allocated_bytes.all().peak)),
        ("reserved", lean.reserved.reserved.0, of(stats.reserved_bytes.all().peak)),
        ("retries", lean.retries, of(stats.num_alloc_retries)),
        ("synchronizations", lean.synchronizations, of(stats.num_sync_all_streams)),
        ("operations", lean.ops, replayed.asked),
    ];
    let unlike = pairs.into_iter().filter(|(_, lean, full)| lean != full);
    let mut unlike: Vec<_> = unlike.map(|pair| format!("{pair:?}")).collect();
    let error = lean.death.as_ref().filter(|death| !death.failed_before).map(|d| &d.error);
    let full = replayed.outcome.first_failure.as_ref().map(|failure| &failure.error);
    if lean.calls != replayed.calls || error != full {
        unlike.push(format!("{:?} {error:?}, {:?} {full:?}", lean.calls, replayed.calls));
    }
    unlike
}

/// Recorded programs under thirteen settings and several capacities, as the real allocator of 2.11
/// replayed them.
#[test]
fn every_replay_by_the_real_allocator_has_the_same_outcome_counters_and_events() {
    let Some(path) = shared("whatif/whatif.jsonl") else { return };
    let release = "2.11".parse().unwrap();
    let mut by_source: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in fs::read_to_string(path).unwrap().lines() {
        let truth: Value = serde_json::from_str(line).unwrap();
        by_source.entry(truth["source"].as_str().unwrap().to_owned()).or_default().push(truth);
    }
    let mut compared = 0;
    let mut replayer = Replayer::new();
    for (source, truths) in by_source {
        let Some(path) = shared(&source) else { return };
        let program = program(&path);
        for truth in truths {
            let conf = truth["conf"].as_str().unwrap();
            let capacity = truth["capacity"].as_u64().unwrap();
            let terms = Terms { keeps_events: true, ..terms(release, conf, capacity) };
            let replayed = whatif(&program, &terms);
            let unlike = unlike(&truth, &replayed, release);
            assert!(unlike.is_empty(), "{source} '{conf}' {capacity}: {}", unlike.join("\n"));
            let unlike = lean_unlike(&mut replayer, &program, &terms, &replayed);
            assert!(unlike.is_empty(), "{source} '{conf}' {capacity}: {}", unlike.join("\n"));
            compared += 1;
        }
    }
    assert_eq!(compared, 234);
}

/// The same Python program really run under other settings and capacities, foretold from its roomy
/// run.
#[test]
fn every_other_run_of_a_program_is_foretold_from_its_roomy_recording() {
    for (folder, torch) in [("t211", "2.11"), ("t215", "2.15")] {
        for name in ["varlen", "kvcache"] {
            let recording = format!("matrix/{folder}/{name}_16G_00.pickle.gz");
            let Some(path) = shared(&recording) else { return };
            let program = program(&path);
            let mut compared = 0;
            for entry in fs::read_dir(path.parent().unwrap()).unwrap() {
                let run = entry.unwrap().path();
                let file = run.file_name().unwrap().to_str().unwrap();
                if file.starts_with(&format!("{name}_")) && file.ends_with(".json") {
                    foretell(&program, torch.parse().unwrap(), &run);
                    compared += 1;
                }
            }
            assert!(compared >= 12, "{folder} {name}: only {compared} runs");
        }
    }
}

fn foretell(program: &Program, release: Release, run: &Path) {
    let truth: Value = serde_json::from_slice(&fs::read(run).unwrap()).unwrap();
    let conf = truth["conf"].as_str().unwrap();
    let replayed = whatif(program, &terms(release, conf, truth["total"].as_u64().unwrap()));
    assert_eq!(!replayed.outcome.completed, truth.get("oom").is_some(), "{}", run.display());
    let ours = replayed.stats.flat(release);
    for key in ["allocated_bytes.all.peak", "reserved_bytes.all.peak", "num_alloc_retries"] {
        assert_eq!(Value::from(ours[key]), truth["stats"][key], "{}: {key}", run.display());
    }
}

// ---- by hand -------------------------------------------------------------------------------------

/// Six requests of 6 MiB in two segments of 20 MiB; what is left between the survivors is too narrow
/// for 16 MiB.
const STRANDED: &str = "a = alloc 6MiB; b = alloc 6MiB; c = alloc 6MiB; \
                        d = alloc 6MiB; e = alloc 6MiB; f = alloc 6MiB; \
                        free a; free c; free d; free f; g = alloc 16MiB";

/// Replays a trace and shows peaks, retries, segments and what failed.
fn check(trace: &str, conf: &str, capacity: &str, expected: Expect) {
    let trace = script::parse(trace).unwrap();
    let program = Program::of(&trace, Start::AsRecorded).unwrap();
    let capacity: Bytes = capacity.parse().unwrap();
    let replayed = whatif(&program, &terms(Release::NEWEST, conf, capacity.0));
    let stats = &replayed.stats;
    let failed =
        replayed.outcome.first_failure.map_or_else(String::new, |f| format!(", {} fails", f.op));
    let bytes = |n: i64| Bytes(n.try_into().unwrap());
    expected.assert_eq(&format!(
        "peak {} of {} reserved, {} retries, {} segments{failed}",
        bytes(stats.allocated_bytes.all().peak),
        bytes(stats.reserved_bytes.all().peak),
        stats.num_alloc_retries,
        stats.segment.all().current,
    ));
}

/// 6 × 6 MiB in two segments of 20 MiB, then 16 MiB of its own.
#[test]
fn with_room_the_request_gets_a_segment_of_its_own() {
    check(
        STRANDED,
        "",
        "1GiB",
        expect!["peak 36.00 MiB of 56.00 MiB reserved, 0 retries, 3 segments"],
    );
}

/// Both segments hold a survivor: nothing can be released, 56 MiB are not there.
#[test]
fn without_room_the_request_fails_although_28_mib_are_free() {
    check(
        STRANDED,
        "",
        "40MiB",
        expect!["peak 36.00 MiB of 40.00 MiB reserved, 1 retries, 2 segments, 10 fails"],
    );
}

/// One range, of which two granules of 20 MiB are mapped; `b` lies at 6 MiB and `e` at 24 MiB. Behind
/// `e` there are 10 MiB, and another granule is mapped to make 16; that needs 60 MiB.
#[test]
fn with_expandable_segments_only_the_missing_part_is_mapped() {
    check(
        STRANDED,
        "expandable_segments:True",
        "1GiB",
        expect!["peak 36.00 MiB of 60.00 MiB reserved, 0 retries, 0 segments"],
    );
    check(
        STRANDED,
        "expandable_segments:True",
        "40MiB",
        expect!["peak 36.00 MiB of 40.00 MiB reserved, 1 retries, 0 segments, 10 fails"],
    );
}

/// Segments of 40 MiB: one holds all six, and 4 MiB are left of it.
#[test]
fn larger_segments_hold_more_requests() {
    check(
        STRANDED,
        "large_segment_size_mb:40",
        "1GiB",
        expect!["peak 36.00 MiB of 56.00 MiB reserved, 0 retries, 2 segments"],
    );
}

/// Two divisions between 4 and 8 MiB: 5 MiB become 6. One division rounds nothing.
#[test]
fn divisions_round_a_request_up() {
    check(
        "a = alloc 5MiB",
        "roundup_power2_divisions:2",
        "1GiB",
        expect!["peak 6.00 MiB of 20.00 MiB reserved, 0 retries, 1 segments"],
    );
    check(
        "a = alloc 5MiB",
        "roundup_power2_divisions:1",
        "1GiB",
        expect!["peak 5.00 MiB of 20.00 MiB reserved, 0 retries, 1 segments"],
    );
}

/// A block of 20 MiB is no candidate for 1.5 MiB where only blocks below 20 MiB are split.
#[test]
fn a_block_of_max_split_size_is_not_split() {
    let trace = "a = alloc 20MiB; free a; b = alloc 1.5MiB";
    check(
        trace,
        "",
        "1GiB",
        expect!["peak 20.00 MiB of 20.00 MiB reserved, 0 retries, 1 segments"],
    );
    check(
        trace,
        "max_split_size_mb:20",
        "1GiB",
        expect!["peak 20.00 MiB of 40.00 MiB reserved, 0 retries, 2 segments"],
    );
}

/// What is cached goes back to the device before a request fails.
#[test]
fn a_retry_releases_what_is_cached() {
    check(
        "a = alloc 30MiB; free a; b = alloc 40MiB",
        "",
        "50MiB",
        expect!["peak 40.00 MiB of 40.00 MiB reserved, 1 retries, 1 segments"],
    );
}
