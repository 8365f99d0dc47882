//! What the options do, exit statuses, and where output goes.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
};

use expect_test::expect;
use serde_json::json;

use crate::support::{
    BASE, Files, command, entry, gzip, pickle, run, run_with, segment, snapshot, snapshot_with,
};

const STRANDED: &str = "traces/stranded.fragsim";
const GROWING: &str = "traces/growing_batch.fragsim";

/// The snapshot with a second device, on which two requests were served.
fn two_devices() -> Vec<u8> {
    let second = json!([
        entry("segment_alloc", BASE, 2 << 20),
        entry("alloc", BASE, 500),
        entry("alloc", BASE + 512, 500),
        entry("free_requested", BASE + 512, 500),
        entry("free_completed", BASE + 512, 500),
    ]);
    pickle(&snapshot_with(&[("/device_traces/-", second), ("/segments/-", segment(1, BASE))]))
}

#[test]
fn the_exit_status_of_verify_is_0_exact_1_differs_2_unreadable() {
    let files = Files::new();
    let exact = files.file("exact.pickle", &pickle(&snapshot()));
    let wrong = snapshot_with(&[("/segments/0/blocks/0/requested_size", json!(499))]);
    let wrong = files.file("wrong.pickle", &pickle(&wrong));
    assert_eq!(run(&["verify", &exact]).status, 0);
    assert_eq!(run(&["verify", &wrong]).status, 1);
    assert_eq!(run(&["verify", &exact, &wrong]).status, 1);
    assert_eq!(run(&["verify", &files.at("absent")]).status, 2);
    assert_eq!(run(&["verify"]).status, 2);
}

#[test]
fn verify_goes_on_after_a_broken_file() {
    let files = Files::new();
    let exact = files.file("exact.pickle", &pickle(&snapshot()));
    let broken = files.file("broken.pickle", &pickle(&snapshot())[..300]);
    let ran = run(&["verify", &exact, &broken, &exact]);
    assert_eq!(ran.status, 2);
    expect![[r#"
        exact exact.pickle  torch 2.11  1 operations, addresses 1/1, segment allocs 1/1, frees 0/0, layout identical
        unreadable broken.pickle
          byte 300: the pickle ends early: the file was cut; copy or record it again
        exact exact.pickle  torch 2.11  1 operations, addresses 1/1, segment allocs 1/1, frees 0/0, layout identical
        2 of 3 files exact; 2 addresses re-decided alike; 1 unreadable
    "#]]
    .assert_eq(&files.without_folder(&ran.out));
    let quiet = run(&["verify", "--quiet", &exact, &broken]);
    assert!(!quiet.out.contains("exact.pickle"), "{}", quiet.out);
    let document = run(&["verify", "--format", "json", &exact, &broken]).json();
    assert_eq!(document["files"][0]["exact"], true);
    assert_eq!(document["files"][1]["exact"], false);
    assert!(document["files"][1]["error"].as_str().unwrap().starts_with("byte 300: "));
}

#[test]
fn the_exit_status_of_replay_is_0_served_1_failed_2_unusable() {
    assert_eq!(run(&["replay", GROWING]).status, 0);
    assert_eq!(run(&["replay", STRANDED]).status, 1);
    assert_eq!(run(&["replay", STRANDED, "--on-oom", "skip"]).status, 1);
    assert_eq!(run(&["replay", "absent"]).status, 2);
}

#[test]
fn the_exit_status_of_inspect_is_0_or_2() {
    assert_eq!(run(&["inspect", STRANDED]).status, 0);
    assert_eq!(run(&["inspect", "absent"]).status, 2);
}

#[test]
fn help_shows_examples_and_exit_statuses() {
    for verb in ["verify", "replay", "inspect"] {
        let ran = run(&[verb, "--help"]);
        assert_eq!(ran.status, 0);
        assert!(ran.out.contains(&format!("Examples:\n  fragsim {verb} ")), "{}", ran.out);
        assert!(ran.out.contains("Exit status: 0 "), "{}", ran.out);
        assert_eq!(ran.err, "");
    }
    let ran = run(&["--help"]);
    assert!(ran.out.contains("_dump_snapshot(\"run.pickle\")"));
}

#[test]
fn version_is_the_one_of_the_package() {
    assert_eq!(run(&["--version"]).out, concat!("fragsim ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn colours_are_only_where_they_are_wanted() {
    let files = Files::new();
    let path = files.file("run.pickle", &pickle(&snapshot()));
    let has_escape = |args: &[&str]| run(args).out.contains('\u{1b}');
    assert!(!has_escape(&["verify", &path]), "a pipe is no terminal");
    assert!(has_escape(&["verify", &path, "--color", "always"]));
    assert!(!has_escape(&["verify", &path, "--color", "never"]));
    assert!(!has_escape(&["verify", &path, "--color", "always", "--format", "json"]));
    let asked = command(&["verify", &path, "--color", "always"]).env("NO_COLOR", "1").output();
    assert!(asked.unwrap().stdout.contains(&0x1b), "what is typed counts more than NO_COLOR");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let files = Files::new();
    let many: String = (0..200_000).map(|i| format!("a{i} = alloc 512; free a{i}\n")).collect();
    let path = files.file("many.fragsim", many.as_bytes());
    let mut child = command(&["replay", &path, "--events", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    let mut reader = BufReader::with_capacity(64, child.stdout.take().unwrap());
    reader.read_line(&mut first).unwrap();
    drop(reader);
    let output = child.wait_with_output().unwrap();
    assert!(first.starts_with("[\"segment_alloc\","), "{first}");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error() {
    for args in
        [&["replay", GROWING][..], &["inspect", GROWING], &["replay", GROWING, "--events", "-"]]
    {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = command(args).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("fragsim: standard output cannot be written: "), "{said}");
    }
}

#[test]
fn standard_input_may_be_plain_or_packed() {
    let plain = pickle(&snapshot());
    for input in [plain.clone(), gzip(&plain), zstd::encode_all(&plain[..], 1).unwrap()] {
        let ran = run_with(&["verify", "-"], &input);
        assert_eq!((ran.status, ran.err.as_str()), (0, ""));
        assert!(ran.out.starts_with("exact -  torch 2.11"), "{}", ran.out);
    }
    for input in [&b"a = alloc 3MiB; free a\n"[..], &gzip(b"a = alloc 3MiB; free a\n")] {
        let ran = run_with(&["replay", "-"], input);
        assert!(ran.out.contains("completed: all 2 operations were served"), "{}", ran.out);
    }
    let lines = b"{\"format\":\"fragsim-trace\",\"version\":1}\n{\"op\":\"alloc\",\"id\":0,\"size\":3145728}\n";
    for input in [&lines[..], &gzip(lines)] {
        let ran = run_with(&["replay", "-"], input);
        assert!(ran.out.contains("completed: all 1 operations were served"), "{}", ran.out);
    }
}

#[test]
fn at_stops_before_an_operation() {
    let whole = run(&["replay", STRANDED, "--format", "json"]).json();
    let part = run(&["replay", STRANDED, "--at", "11", "--format", "json"]).json();
    assert_eq!((&whole["ops"], &part["ops"]), (&json!(12), &json!(11)));
    assert_eq!((&whole["completed"], &part["completed"]), (&json!(false), &json!(true)));
    let text = run(&["replay", STRANDED, "--at", "11"]).out;
    assert!(text.contains("stopped before operation 11 of 12: all were served"), "{text}");
    assert_eq!(run(&["replay", GROWING, "--at", "4000000000"]).status, 0);
}

/// The operation that the answer names is the one that `--at` takes.
#[test]
fn at_counts_as_the_answer_counts() {
    let trace = b"total 20MiB\na = alloc 1KiB\nb = alloc 1KiB stream 1\nfree b pending\ncompleted b\nc = alloc 30MiB\n";
    let died = run_with(&["replay", "-", "--format", "json"], trace).json();
    let op = died["oom"]["op"].to_string();
    let before = run_with(&["replay", "-", "--at", &op, "--format", "json"], trace).json();
    assert_eq!(before["completed"], true);
    let next = (died["oom"]["op"].as_u64().unwrap() + 1).to_string();
    let after = run_with(&["replay", "-", "--at", &next, "--format", "json"], trace).json();
    assert_eq!(after["completed"], false);
}

#[test]
fn summary_prints_the_table_of_memory_summary() {
    let ran = run_with(&["replay", "-", "--summary"], b"a = alloc 3MiB; b = alloc 1KiB; free a\n");
    expect![[r#"
        |===========================================================================|
        |                  PyTorch CUDA memory summary, device ID 0                 |
        |---------------------------------------------------------------------------|
        |            CUDA OOMs: 0            |        cudaMalloc retries: 0         |
        |===========================================================================|
        |        Metric         | Cur Usage  | Peak Usage | Tot Alloc  | Tot Freed  |
        |---------------------------------------------------------------------------|
        | Allocated memory      |   1024 B   |   3073 KiB |   3073 KiB |   3072 KiB |
        |       from large pool |      0 B   |   3072 KiB |   3072 KiB |   3072 KiB |
        |       from small pool |   1024 B   |      1 KiB |      1 KiB |      0 KiB |
        |---------------------------------------------------------------------------|
        | Active memory         |   1024 B   |   3073 KiB |   3073 KiB |   3072 KiB |
        |       from large pool |      0 B   |   3072 KiB |   3072 KiB |   3072 KiB |
        |       from small pool |   1024 B   |      1 KiB |      1 KiB |      0 KiB |
        |---------------------------------------------------------------------------|
        | Requested memory      |   1024 B   |   3073 KiB |   3073 KiB |   3072 KiB |
        |       from large pool |      0 B   |   3072 KiB |   3072 KiB |   3072 KiB |
        |       from small pool |   1024 B   |      1 KiB |      1 KiB |      0 KiB |
        |---------------------------------------------------------------------------|
        | GPU reserved memory   |  22528 KiB |  22528 KiB |  22528 KiB |      0 B   |
        |       from large pool |  20480 KiB |  20480 KiB |  20480 KiB |      0 B   |
        |       from small pool |   2048 KiB |   2048 KiB |   2048 KiB |      0 B   |
        |---------------------------------------------------------------------------|
        | Non-releasable memory |   2047 KiB |  19455 KiB |  19455 KiB |  17408 KiB |
        |       from large pool |      0 KiB |  17408 KiB |  17408 KiB |  17408 KiB |
        |       from small pool |   2047 KiB |   2047 KiB |   2047 KiB |      0 KiB |
        |---------------------------------------------------------------------------|
        | Allocations           |       1    |       2    |       2    |       1    |
        |       from large pool |       0    |       1    |       1    |       1    |
        |       from small pool |       1    |       1    |       1    |       0    |
        |---------------------------------------------------------------------------|
        | Active allocs         |       1    |       2    |       2    |       1    |
        |       from large pool |       0    |       1    |       1    |       1    |
        |       from small pool |       1    |       1    |       1    |       0    |
        |---------------------------------------------------------------------------|
        | GPU reserved segments |       2    |       2    |       2    |       0    |
        |       from large pool |       1    |       1    |       1    |       0    |
        |       from small pool |       1    |       1    |       1    |       0    |
        |---------------------------------------------------------------------------|
        | Non-releasable allocs |       1    |       2    |       2    |       1    |
        |       from large pool |       0    |       1    |       1    |       1    |
        |       from small pool |       1    |       1    |       1    |       0    |
        |---------------------------------------------------------------------------|
        | Oversize allocations  |       0    |       0    |       0    |       0    |
        |---------------------------------------------------------------------------|
        | Oversize GPU segments |       0    |       0    |       0    |       0    |
        |===========================================================================|
    "#]]
    .assert_eq(&ran.out);
    let args = ["replay", "-", "--summary", "--format", "json"];
    let document = run_with(&args, b"a = alloc 3MiB; b = alloc 1KiB; free a\n").json();
    assert_eq!(document["summary"], ran.out);
}

#[test]
fn events_are_json_lines() {
    let files = Files::new();
    let path = files.at("events.jsonl");
    let printed = run_with(&["replay", "-", "--events", "-"], b"a = alloc 3MiB; free a\n").out;
    expect![[r#"
        ["segment_alloc",105553116266496,20971520,0]
        ["alloc",105553116266496,3145728,0]
        ["free_requested",105553116266496,3145728,0]
        ["free_completed",105553116266496,3145728,0]
    "#]]
    .assert_eq(&printed);
    let ran = run_with(&["replay", "-", "--events", &path], b"a = alloc 3MiB; free a\n");
    assert!(ran.out.contains("completed"), "{}", ran.out);
    assert_eq!(fs::read_to_string(&path).unwrap(), printed);
}

#[test]
fn skip_leaves_a_request_out_and_goes_on() {
    let trace = b"total 20MiB\na = alloc 30MiB\nb = alloc 1MiB\nfree a\nc = alloc 40MiB\n";
    let ran = run_with(&["replay", "-", "--on-oom", "skip", "--format", "json"], trace);
    assert_eq!(ran.status, 1);
    let document = ran.json();
    assert_eq!(document["failures"], 2);
    assert_eq!((&document["ops"], &document["oom"]["op"]), (&json!(5), &json!(1)));
    assert_eq!(document["stats"]["num_ooms"], 2);
    assert_eq!(document["stats"]["allocated_bytes.all.current"], 1 << 20);
    let stopped = run_with(&["replay", "-", "--format", "json"], trace).json();
    assert_eq!((&stopped["ops"], &stopped["failures"]), (&json!(2), &json!(1)));
}

#[test]
fn device_chooses_one_of_several() {
    let files = Files::new();
    let path = files.file("two.pickle", &two_devices());
    let ops = |args: &[&str]| {
        let document = run(&[&["replay", &path, "--format", "json"], args].concat()).json();
        (document["device"].clone(), document["ops"].clone())
    };
    assert_eq!(ops(&[]), (json!(0), json!(1)));
    assert_eq!(ops(&["--device", "0"]), (json!(0), json!(1)));
    assert_eq!(ops(&["--device", "1"]), (json!(1), json!(3)));
    let verified = run(&["verify", &path, "--format", "json"]).json();
    assert_eq!(verified["files"][0]["addresses"], json!([3, 3]));
    let inspected = run(&["inspect", &path, "--format", "json"]).json();
    assert_eq!(inspected["devices"][1]["device"], 1);
}

#[test]
fn repeat_gives_the_time_of_each() {
    let document = run(&["replay", GROWING, "--repeat", "3", "--format", "json"]).json();
    assert_eq!(document["timing"]["replay_s"].as_array().unwrap().len(), 3);
    assert!(run(&["replay", GROWING, "--format", "json"]).json()["timing"].is_null());
}

#[test]
fn torch_selects_the_rules() {
    let message = |torch| {
        let args = ["replay", STRANDED, "--torch", torch, "--format", "json"];
        run(&args).json()["oom"]["message"].as_str().unwrap().to_owned()
    };
    assert!(message("2.1").contains("total capacty of"), "2.1 misspelt it");
    assert!(message("2.10").contains("PYTORCH_ALLOC_CONF="));
    assert_eq!(
        message("2.15"),
        run(&["replay", STRANDED, "--format", "json"]).json()["oom"]["message"]
    );
}

#[test]
fn conf_prints_back_as_it_can_be_pasted() {
    let conf = "expandable_segments:True";
    let document = run(&["replay", STRANDED, "--conf", conf, "--format", "json"]).json();
    assert_eq!(document["conf"], conf);
}

#[test]
fn what_a_snapshot_holds_too_much_is_named_and_left_out() {
    let files = Files::new();
    let odd = snapshot_with(&[("/surprise", json!(1)), ("/segments/0/colour", json!("red"))]);
    let path = files.file("odd.pickle", &[pickle(&odd), b"more".to_vec()].concat());
    for verb in ["verify", "replay", "inspect"] {
        let ran = run(&[verb, &path]);
        assert_eq!(ran.status, 0, "{}", ran.err);
        for note in [
            "note: unknown key 'surprise' of a snapshot is ignored",
            "note: unknown key 'colour' of a segment is ignored",
            "note: 4 bytes after the end of the pickle are ignored",
        ] {
            assert!(ran.out.contains(note), "{verb} lacks {note}: {}", ran.out);
        }
    }
}

#[test]
fn a_golden_case_is_verified_and_replayed() {
    let case = [
        r#"{"case":"one","env":{},"torch":"2.11.0","devices":1,"total":1073741824,"context":0,"streams":[[0,0]]}"#,
        r#"{"i":0,"op":["a",1,500],"r":140000000000000,"ev":[["segment_alloc",140000000000000,2097152,0],["alloc",140000000000000,500,0]]}"#,
        r#"{"final":true,"segments":[],"stats":{}}"#,
    ];
    let ran = run_with(&["replay", "-", "--format", "json"], case.join("\n").as_bytes());
    let document = ran.json();
    assert_eq!((&document["torch"], &document["capacity"]), (&json!("2.11"), &json!(1 << 30)));
    assert_eq!(document["stats"]["requested_bytes.all.current"], 500);
    // The device gives another address than this made-up case says.
    let ran = run_with(&["verify", "-", "--torch", "2.6"], case.join("\n").as_bytes());
    assert_eq!(ran.status, 1, "{}", ran.err);
    assert!(ran.out.contains("first difference: operation 0 (line 2)"), "{}", ran.out);
    assert!(ran.out.contains("--torch, --conf and --capacity are not used"), "{}", ran.out);
}
