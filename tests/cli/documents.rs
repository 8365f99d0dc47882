//! The JSON documents: their keys, their types, and real numbers in them.

use std::{collections::BTreeMap, fs};

use expect_test::expect;
use serde_json::Value;

use crate::support::{BASE, Files, entry, pickle, run, shared, snapshot, snapshot_with, text};

/// Every key with the type of its value, one a line, `stats` left out.
pub(crate) fn shape(value: &Value) -> String {
    fn walk(value: &Value, at: &str, out: &mut Vec<String>) {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(number) if number.is_f64() => "real",
            Value::Number(_) => "whole",
            Value::String(_) => "text",
            Value::Array(items) => {
                match items.first() {
                    Some(first @ (Value::Object(_) | Value::Array(_))) => {
                        walk(first, &format!("{at}[]"), out);
                    }
                    _ => out.push(format!("{at}: list of {}", items.len())),
                }
                return;
            }
            Value::Object(pairs) => {
                for (key, value) in pairs.iter().filter(|(key, _)| *key != "stats") {
                    walk(value, &format!("{at}.{key}"), out);
                }
                return;
            }
        };
        out.push(format!("{at}: {kind}"));
    }
    let mut out = Vec::new();
    walk(value, "", &mut out);
    out.join("\n")
}

#[test]
fn verify_gives_the_keys_of_a_certificate() {
    let files = Files::new();
    let path = files.file("run.pickle", &pickle(&snapshot()));
    let ran = run(&["verify", &path, "--format", "json"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    expect![[r#"
        .files[].addresses: list of 2
        .files[].exact: bool
        .files[].file: text
        .files[].first_difference: null
        .files[].inferred: list of 0
        .files[].layout: text
        .files[].notes: list of 0
        .files[].ooms: list of 2
        .files[].ops: whole
        .files[].pending_frees: list of 2
        .files[].segment_allocs: list of 2
        .files[].segment_frees: list of 2
        .files[].segment_maps: list of 2
        .files[].segment_unmaps: list of 2
        .files[].torch: text"#]]
    .assert_eq(&shape(&ran.json()));
}

#[test]
fn a_difference_is_told_with_both_sides() {
    let files = Files::new();
    // The model serves a small request at the start of its segment, never in the middle.
    let moved = snapshot_with(&[
        ("/device_traces/0/1/addr", 0x7f00_0000_0400_u64.into()),
        (
            "/segments/0/blocks",
            serde_json::json!([
                {"address": 0x7f00_0000_0000_u64, "size": 1024, "requested_size": 0, "state": "inactive", "frames": []},
                {"address": 0x7f00_0000_0400_u64, "size": 512, "requested_size": 500, "state": "active_allocated", "frames": []},
                {"address": 0x7f00_0000_0600_u64, "size": (2 << 20) - 1536, "requested_size": 0, "state": "inactive", "frames": []},
            ]),
        ),
    ]);
    let path = files.file("run.pickle", &pickle(&moved));
    let ran = run(&["verify", &path, "--format", "json"]);
    assert_eq!(ran.status, 1, "{}", ran.err);
    let document = ran.json();
    assert_eq!(document["files"][0]["exact"], false);
    expect![[r#"
        {
          "around": "0x7f0000000000 2.00 MiB small | 512 bytes | . 2.00 MiB\n1 free blocks of at least 500 bytes in all pools and streams\n",
          "asked": "alloc 500 bytes on stream 0x0",
          "likely": "settings that changed during the history (the file holds those at its end), another release, or more than one thread",
          "modelled": "alloc 0x7f0000000000 size 500",
          "place": "operation 0, device_traces[0][1]",
          "recorded": "alloc 0x7f0000000400 size 500"
        }"#]].assert_eq(
        &serde_json::to_string_pretty(&document["files"][0]["first_difference"]).unwrap(),
    );
    let ran = run(&["verify", &path]);
    expect![[r#"
        differs run.pickle  torch 2.11  1 operations, addresses 0/1, segment allocs 0/1, frees 0/0, layout not reached
          first difference: operation 0, device_traces[0][1]
            asked     alloc 500 bytes on stream 0x0
            recorded  alloc 0x7f0000000400 size 500
            modelled  alloc 0x7f0000000000 size 500
            around    0x7f0000000000 2.00 MiB small | 512 bytes | . 2.00 MiB
            around    1 free blocks of at least 500 bytes in all pools and streams
            likely    settings that changed during the history (the file holds those at its end), another release, or more than one thread
    "#]].assert_eq(&files.without_folder(&ran.out));
}

#[test]
fn replay_gives_the_keys_of_an_outcome() {
    let ran = run(&["replay", "traces/growing_batch.fragsim", "--format", "json"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    expect![[r#"
        .capacity: null
        .completed: bool
        .conf: text
        .device: whole
        .device_calls.free: whole
        .device_calls.malloc: whole
        .device_calls.malloc_failed: whole
        .device_calls.map: whole
        .device_calls.map_failed: whole
        .device_calls.reserve: whole
        .device_calls.unmap: whole
        .events: whole
        .failures: whole
        .file: text
        .notes: list of 0
        .oom: null
        .ops: whole
        .ops_total: whole
        .recorded_failures: list of 0
        .torch: text
        .worst.allocated.allocated_bytes: whole
        .worst.allocated.op: whole
        .worst.allocated.reserved_bytes: whole
        .worst.reserved.allocated_bytes: whole
        .worst.reserved.op: whole
        .worst.reserved.reserved_bytes: whole
        .worst.stranded.allocated_bytes: whole
        .worst.stranded.op: whole
        .worst.stranded.reserved_bytes: whole"#]]
    .assert_eq(&shape(&ran.json()));
}

#[test]
fn replay_tells_of_the_request_that_failed() {
    let ran = run(&["replay", "traces/stranded.fragsim", "--format", "json"]);
    assert_eq!(ran.status, 1, "{}", ran.err);
    let document = ran.json();
    assert_eq!(document["completed"], false);
    expect![[r#"
        {
          "allocated_bytes": 12582912,
          "device_free_bytes": 0,
          "is_oom": true,
          "message": "CUDA out of memory. Tried to allocate 16.00 MiB. GPU 0 has a total capacity of 40.00 MiB of which 0 bytes is free. Including non-PyTorch memory, this process has 40.00 MiB memory in use. Of the allocated memory 12.00 MiB is allocated by PyTorch, and 28.00 MiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation for Memory Management  (https://docs.pytorch.org/docs/stable/notes/cuda.html#optimizing-memory-usage-with-pytorch-cuda-alloc-conf)",
          "op": 11,
          "requested_bytes": 16777216,
          "reserved_bytes": 41943040,
          "segment_bytes": 16777216
        }"#]].assert_eq(&serde_json::to_string_pretty(&document["oom"]).unwrap());
}

#[test]
fn inspect_gives_the_keys_of_a_description() {
    let files = Files::new();
    let path = files.file("run.pickle", &pickle(&snapshot()));
    let ran = run(&["inspect", &path, "--format", "json"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    expect![[r#"
        .conf: text
        .devices[].allocated_bytes: whole
        .devices[].cached_bytes: whole
        .devices[].device: whole
        .devices[].expandable: bool
        .devices[].history.blocks_before: whole
        .devices[].history.duration_us: whole
        .devices[].history.entries.alloc: whole
        .devices[].history.entries.segment_alloc: whole
        .devices[].history.error: null
        .devices[].history.from_the_start: bool
        .devices[].history.operations: whole
        .devices[].history.segments_before: whole
        .devices[].largest_free_bytes: whole
        .devices[].live_blocks: whole
        .devices[].pending_bytes: whole
        .devices[].private_pools: list of 0
        .devices[].reserved_bytes: whole
        .devices[].segments: whole
        .devices[].streams: list of 1
        .file: text
        .kind: text
        .stacks: list of 2
        .torch: list of 2
        .warnings: list of 0"#]]
    .assert_eq(&shape(&ran.json()));
}

#[test]
fn replay_tells_a_person_what_happened() {
    expect![[r#"
        traces/growing_batch.fragsim on cuda:0, PyTorch 2.15, no capacity limit, default settings

        completed: all 6 operations were served

          peak allocated        40.00 MiB at operation 4
          peak active           40.00 MiB
          peak reserved         90.00 MiB at operation 4
          overhead at the peaks 50.00 MiB reserved beyond the peak of allocated (55.6 %)
          worst fragmentation   50.00 MiB of 50.00 MiB reserved could not serve operation 4 (100.0 %)
          retries               0
          device calls          3 cudaMalloc
          history entries       12
    "#]].assert_eq(&run(&["replay", "traces/growing_batch.fragsim"]).out);
    expect![[r#"
        traces/stranded.fragsim on cuda:0, PyTorch 2.15, no capacity limit, default settings

        OUT OF MEMORY at operation 11 of 12
          CUDA out of memory. Tried to allocate 16.00 MiB. GPU 0 has a total capacity of 40.00 MiB of which 0 bytes is free. Including non-PyTorch memory, this process has 40.00 MiB memory in use. Of the allocated memory 12.00 MiB is allocated by PyTorch, and 28.00 MiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation for Memory Management  (https://docs.pytorch.org/docs/stable/notes/cuda.html#optimizing-memory-usage-with-pytorch-cuda-alloc-conf)
          1 failed in all and were skipped

          peak allocated        36.00 MiB at operation 6
          peak active           36.00 MiB
          peak reserved         40.00 MiB at operation 4
          overhead at the peaks 4.00 MiB reserved beyond the peak of allocated (10.0 %)
          worst fragmentation   28.00 MiB of 40.00 MiB reserved could not serve operation 11 (70.0 %)
          retries               1
          device calls          4 cudaMalloc, 2 of them refused
          history entries       17
    "#]]
        .assert_eq(&run(&["replay", "traces/stranded.fragsim", "--on-oom", "skip"]).out);
}

#[test]
fn inspect_tells_a_person_what_is_there() {
    let files = Files::new();
    let path = files.file("run.pickle", &pickle(&snapshot()));
    expect![[r#"
        run.pickle: snapshot
          PyTorch           2.10 to 2.11 can have written it
          settings          defaults
          stacks            1 different ones of 0 frames
        cuda:0
          reserved          2.00 MiB in 1 segments
          allocated         512 bytes in 1 blocks
          cached            2.00 MiB, the largest block 2.00 MiB
          history           2 entries, 1 operations
                            alloc 1, segment_alloc 1
                            over 0.000 s
                            begins with an empty device: it is whole
    "#]]
    .assert_eq(&files.without_folder(&run(&["inspect", &path]).out));
    expect![[r#"
        traces/start_layout.fragsim: trace
        cuda:0
          reserved          40.00 MiB in 2 segments
          allocated         19.00 MiB in 3 blocks
          cached            21.00 MiB, the largest block 17.00 MiB
          history           4 entries, 4 operations
                            alloc 2, free 2
                            begins with 2 segments and 3 live blocks already there
    "#]]
    .assert_eq(&run(&["inspect", "traces/start_layout.fragsim"]).out);
}

/// A history whose beginning is missing: what it begins with is told.
#[test]
fn inspect_and_verify_tell_what_the_history_does_not_hold() {
    let files = Files::new();
    let freed = |action| entry(action, BASE + 512, 500);
    let path = files.file(
        "run.pickle",
        &pickle(&snapshot_with(&[(
            "/device_traces/0",
            serde_json::json!([freed("free_requested"), freed("free_completed")]),
        )])),
    );
    expect![[r#"
        run.pickle: snapshot
          PyTorch           2.10 to 2.11 can have written it
          settings          defaults
          stacks            1 different ones of 0 frames
        cuda:0
          reserved          2.00 MiB in 1 segments
          allocated         512 bytes in 1 blocks
          cached            2.00 MiB, the largest block 2.00 MiB
          history           2 entries, 1 operations
                            free_completed 1, free_requested 1
                            over 0.000 s
                            begins with 1 segments and 2 live blocks already there
          note: the history begins with 1 segments and 2 live blocks already there; how old they are, past peaks and settings before are unknown
          note: 1 of these blocks were freed before the snapshot was taken: their sizes follow from what was requested
    "#]].assert_eq(&files.without_folder(&run(&["inspect", &path]).out));
    expect![[r#"
        exact run.pickle  torch 2.11  1 operations, addresses 0/0, segment allocs 0/0, frees 0/0, layout identical
          note: the history begins with 1 segments and 2 live blocks already there; how old they are, past peaks and settings before are unknown
          note: 1 of these blocks were freed before the snapshot was taken: their sizes follow from what was requested
    "#]].assert_eq(&files.without_folder(&run(&["verify", &path]).out));
}

#[test]
fn the_same_command_twice_gives_the_same_bytes() {
    let files = Files::new();
    let path = files.file("run.pickle", &pickle(&snapshot()));
    for args in [
        &["verify", &path, "--format", "json"][..],
        &["verify", &path],
        &["replay", &path, "--format", "json"],
        &["replay", "traces/stranded.fragsim", "--format", "json", "--events", "-"],
        &["replay", "traces/stranded.fragsim", "--addresses", "random:7", "--events", "-"],
        &["inspect", &path, "--format", "json"],
    ] {
        let (first, second) = (run(args), run(args));
        assert_eq!(first.out, second.out, "{args:?}");
        assert!(!first.out.is_empty(), "{args:?}: {}", first.err);
    }
}

fn numbers(value: &Value) -> BTreeMap<String, i64> {
    let pairs = value.as_object().unwrap().iter();
    pairs.map(|(key, value)| (key.clone(), value.as_i64().unwrap())).collect()
}

/// Replays a recording under its own settings and capacity; the statistics that differ from those
/// that the real `torch.cuda.memory_stats()` gave at its end.
fn differences(recording: &str, json: &str, torch: &str) -> Option<String> {
    let (recording, json) = (shared(recording)?, shared(json)?);
    let about: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    let capacity = about["total"].to_string();
    let args =
        ["replay", text(&recording), "--torch", torch, "--capacity", &capacity, "--format", "json"];
    let ran = run(&args);
    let (ours, real) = (numbers(&ran.json()["stats"]), numbers(&about["stats"]));
    assert_eq!(ours.keys().collect::<Vec<_>>(), real.keys().collect::<Vec<_>>());
    let unlike = ours.iter().filter(|(key, value)| real[*key] != **value);
    let lines = unlike.map(|(key, value)| format!("{key}: {value}, really {}", real[key]));
    Some(lines.collect::<Vec<_>>().join("\n"))
}

/// `_snapshot()` was taken at the very end, nothing failed.
#[test]
fn all_statistics_of_a_recorded_program_are_those_of_memory_stats() {
    for (folder, torch, names) in [
        (
            "recorded",
            "2.11",
            &[
                "big_1m",
                "gpt",
                "gpt_ckpt",
                "hf_gpt2",
                "kvcache",
                "mlp",
                "resnet",
                "streams",
                "streams_pending",
            ][..],
        ),
        ("recorded/t215", "2.15", &["gpt", "kvcache", "mlp", "streams"]),
    ] {
        for name in names {
            let recording = format!("{folder}/{name}.pickle.gz");
            let about = format!("{folder}/{name}.json");
            let Some(unlike) = differences(&recording, &about, torch) else { return };
            assert_eq!(unlike, "", "{recording}");
        }
    }
}

/// One `empty_cache` of the program found nothing to release: it left no entry, and only its
/// synchronisation is missing.
#[test]
fn an_empty_cache_that_released_nothing_leaves_no_entry_to_count() {
    let unlike = differences("recorded/graphs_end.pickle.gz", "recorded/graphs.json", "2.11");
    let Some(unlike) = unlike else { return };
    expect!["num_sync_all_streams: 2, really 3"].assert_eq(&unlike);
}

/// A request that failed in the recording is not part of the replay, and so its retry, its count
/// and, where segments went back to the device, what it released are missing.
#[test]
fn a_request_that_failed_in_the_recording_is_not_counted() {
    let Some(unlike) = differences("recorded/frag.pickle.gz", "recorded/frag.json", "2.11") else {
        return;
    };
    expect![[r#"
        num_alloc_retries: 10, really 11
        num_ooms: 0, really 1
        num_sync_all_streams: 10, really 11"#]]
    .assert_eq(&unlike);
}

/// The text that PyTorch raised when it was recorded.
#[test]
fn a_recorded_failure_fails_again_with_the_same_words() {
    let Some(recording) = shared("recorded/varlen_oom.pickle.gz") else { return };
    let about = fs::read(recording.with_file_name("varlen_oom.json")).unwrap();
    let about: Value = serde_json::from_slice(&about).unwrap();
    let capacity = about["total"].to_string();
    let ran = run(&["replay", text(&recording), "--capacity", &capacity, "--format", "json"]);
    assert_eq!(ran.status, 1);
    let document = ran.json();
    let message = document["recorded_failures"][0]["message"].as_str().unwrap();
    assert_eq!(message.trim_end(), about["oom"].as_str().unwrap().trim_end());
    assert_eq!(document["recorded_failures"].as_array().unwrap().len(), 1);

    let roomy = run(&["replay", text(&recording), "--capacity", "16GiB"]);
    assert_eq!(roomy.status, 0);
    assert!(roomy.out.contains("SERVED now: the request of 996.15 MiB"), "{}", roomy.out);
}
