//! Every bad input has an exit status of 2 and a message that names the file, the place and what to
//! do. `verify`, `replay` and `inspect` say the same.

use std::fs;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use crate::support::{
    BASE, Files, entry, gzip, pickle, run, run_with, segment, snapshot, snapshot_with,
};

/// All three verbs refuse the file with this message (after the file's name).
fn check(name: &str, contents: &[u8], message: Expect) {
    let files = Files::new();
    let path = files.file(name, contents);
    let inspect = run(&["inspect", &path]);
    let replay = run(&["replay", &path]);
    let verify = run(&["verify", &path]);
    assert_eq!([verify.status, replay.status, inspect.status], [2; 3], "{}", inspect.out);
    let said = replay.err.strip_prefix(&format!("fragsim: {path}: ")).expect(&replay.err);
    message.assert_eq(said.trim_end());
    assert_eq!(verify.out, format!("unreadable {path}\n  {said}"));
    assert_eq!(verify.err, "");
    assert_eq!(inspect.err, replay.err);
    assert_eq!(replay.out + &inspect.out, "", "an error is all that is said");
}

fn check_snapshot(changes: &[(&str, Value)], message: Expect) {
    check("run.pickle", &pickle(&snapshot_with(changes)), message);
}

/// A history that contradicts itself: `inspect` still tells what the file holds.
fn check_history(changes: &[(&str, Value)], message: Expect) {
    let files = Files::new();
    let path = files.file("run.pickle", &pickle(&snapshot_with(changes)));
    let (verify, replay, inspect) =
        (run(&["verify", &path]), run(&["replay", &path]), run(&["inspect", &path]));
    assert_eq!([verify.status, replay.status], [2; 2], "{}", verify.out);
    let said =
        replay.err.strip_prefix(&format!("fragsim: {path}: ")).expect(&replay.err).trim_end();
    message.assert_eq(said);
    assert_eq!(verify.out, format!("unreadable {path}\n  {said}\n"));
    assert!(inspect.out.contains("reserved          2.00 MiB in 1 segments"), "{}", inspect.out);
    if said.contains("not the whole history") {
        assert!(inspect.out.contains(&format!("cannot be replayed: {said}")), "{}", inspect.out);
        assert_eq!(inspect.status, 2);
    } else {
        assert_eq!(inspect.status, 0, "nothing is damaged");
    }
}

/// Only the command line is wrong; standard error holds this.
fn check_args(args: &[&str], message: Expect) {
    let files = Files::new();
    let path = files.file("run.pickle", &pickle(&snapshot()));
    let args: Vec<&str> =
        args.iter().map(|arg| if *arg == "FILE" { &path } else { *arg }).collect();
    let ran = run(&args);
    assert_eq!(ran.status, 2, "{}{}", ran.out, ran.err);
    assert_eq!(ran.out, "");
    message.assert_eq(files.without_folder(&ran.err).trim_end());
}

// ---- files -------------------------------------------------------------------------------------

#[test]
fn an_empty_file() {
    check(
        "run.pickle",
        b"",
        expect!["is empty; was the program stopped before it wrote the file?"],
    );
}

#[test]
fn binary_rubbish() {
    check(
        "run.pickle",
        &[0xc8, 0xc9, 0, 1],
        expect![
            "byte 0 (0xc8): neither a pickle, nor JSON, nor text in UTF-8; give a file of torch.cuda.memory._dump_snapshot() or a trace"
        ],
    );
}

#[test]
fn text_under_the_name_of_a_pickle() {
    check(
        "run.pickle",
        b"hello world\n",
        expect![
            "not a pickle and not JSON, so read as a trace in text: line 1, column 1: unknown statement 'hello'; write one such as 'a = alloc 3MiB', 'free a' or 'empty_cache'"
        ],
    );
}

#[test]
fn a_cut_pickle() {
    check(
        "run.pickle",
        &pickle(&snapshot())[..300],
        expect!["byte 300: the pickle ends early: the file was cut; copy or record it again"],
    );
}

#[test]
fn a_cut_gzip_file() {
    let mut packed = gzip(&pickle(&snapshot()));
    packed.truncate(200);
    let files = Files::new();
    let path = files.file("run.pickle.gz", &packed);
    let said = run(&["replay", &path]);
    assert_eq!(said.status, 2);
    let told = "the gzip stream ends early at byte 200: the file was cut; copy it again";
    assert!(said.err.contains(told), "{}", said.err);
    assert_eq!(said.err.matches(told).count(), 1, "{}", said.err);
}

#[test]
fn a_pickle_that_names_a_class() {
    let bytes = b"\x80\x04\x8c\x08__main__\x8c\x01C\x93)\x81.";
    check(
        "run.pickle",
        bytes,
        expect![
            "byte 15: opcode STACK_GLOBAL (__main__.C) would run code; a memory snapshot holds plain data only; give a file of torch.cuda.memory._dump_snapshot()"
        ],
    );
}

#[test]
fn a_pickle_that_calls_a_function() {
    let bytes = b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R.";
    check(
        "run.pickle",
        bytes,
        expect![
            "byte 2: opcode GLOBAL (posix.system) would run code; a memory snapshot holds plain data only; give a file of torch.cuda.memory._dump_snapshot()"
        ],
    );
}

#[test]
fn a_reduce_without_a_class() {
    check(
        "run.pickle",
        b"\x80\x02N)R.",
        expect![
            "byte 4: opcode REDUCE would run code; a memory snapshot holds plain data only; give a file of torch.cuda.memory._dump_snapshot()"
        ],
    );
}

#[test]
fn lists_inside_a_thousand_lists() {
    let bytes = [b"\x80\x04".to_vec(), b"](".repeat(1000), b"e".repeat(1000), b".".to_vec()];
    check(
        "run.pickle",
        &bytes.concat(),
        expect![
            "byte 1027: more than 512 containers inside each other; a snapshot has eight; the file is damaged, or no snapshot"
        ],
    );
}

/// A list claims its items only by holding them: what can be claimed is the length of a text.
#[test]
fn a_text_of_a_thousand_million_bytes() {
    let bytes = [&b"\x80\x04\x8d"[..], &1_000_000_000u64.to_le_bytes(), b"abc"].concat();
    check(
        "run.pickle",
        &bytes,
        expect![
            "byte 2: a text of 1000000000 bytes: at most 16777216 are read; the file is damaged, or no snapshot"
        ],
    );
}

#[test]
fn a_frame_of_a_thousand_million_bytes() {
    let bytes = [&b"\x80\x04\x95"[..], &1_000_000_000u64.to_le_bytes(), b"](K\x01"].concat();
    check(
        "run.pickle",
        &bytes,
        expect!["byte 15: the pickle ends early: the file was cut; copy or record it again"],
    );
}

/// Ten lists of ten lists of … one list: a thousand million items that take a hundred bytes.
#[test]
fn a_list_of_a_thousand_million_shared_items() {
    let mut bytes = b"\x80\x04]q\x00(".to_vec();
    bytes.extend(b"K\x01".repeat(10));
    bytes.push(b'e');
    for level in 0..9u8 {
        bytes.extend(b"]q");
        bytes.push(level + 1);
        bytes.push(b'(');
        bytes.extend([b'h', level].repeat(10));
        bytes.push(b'e');
    }
    bytes.push(b'.');
    check(
        "run.pickle",
        &bytes,
        expect![
            "[0]: is a list; expected a segment; the file is damaged, or not what torch.cuda.memory._dump_snapshot() wrote"
        ],
    );
}

#[test]
fn a_folder() {
    let files = Files::new();
    let folder = files.at("");
    let folder = folder.trim_end_matches('/');
    for verb in ["verify", "replay", "inspect"] {
        let ran = run(&[verb, folder]);
        assert_eq!(ran.status, 2);
        assert!((ran.out + &ran.err).contains("is a folder; name a file inside it"));
    }
}

#[test]
fn no_such_file() {
    check_args(
        &["inspect", "no/such.pickle"],
        expect![
            "fragsim: no/such.pickle: no such file; check the path, or write - to read standard input"
        ],
    );
}

#[test]
#[cfg(unix)]
fn no_permission() {
    use std::os::unix::fs::PermissionsExt;
    let files = Files::new();
    let path = files.file("run.pickle", &pickle(&snapshot()));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&path).is_ok() {
        println!("this user may read everything (root): not tested");
        return;
    }
    for verb in ["verify", "replay", "inspect"] {
        let ran = run(&[verb, &path]);
        assert_eq!(ran.status, 2);
        assert!((ran.out + &ran.err).contains("may not be read; check its permissions"));
    }
}

#[test]
fn a_zip_archive() {
    check(
        "run.pt",
        b"PK\x03\x04\x14\x00\x00\x00",
        expect![
            "this is a zip archive (a checkpoint of torch.save?), not a memory snapshot; make one with torch.cuda.memory._dump_snapshot()"
        ],
    );
}

#[test]
fn a_web_page() {
    check(
        "run.html",
        b"<!DOCTYPE html><html></html>",
        expect!["this is the page of a viewer; give the pickle that it was made from"],
    );
}

#[test]
fn json_of_another_kind() {
    check(
        "run.json",
        b"{\"segments\": []}",
        expect![[
            r#"line 1: JSON, but neither a trace (its first line is {"format":"fragsim-trace","version":1}) nor a golden case ("case" in its first line); of a snapshot give the pickle itself"#
        ]],
    );
}

#[test]
fn nothing_on_standard_input() {
    let ran = run_with(&["verify", "-"], b"");
    assert_eq!(ran.status, 2);
    expect![[r#"
        unreadable -
          standard input: is empty; was the program stopped before it wrote the file?
    "#]]
    .assert_eq(&ran.out);
}

// ---- snapshots ---------------------------------------------------------------------------------

#[test]
fn a_pickle_of_a_number() {
    check(
        "run.pickle",
        b"\x80\x04K\x2a.",
        expect![
            "the snapshot: is a whole number; expected a dict with 'segments'; the file is damaged, or not what torch.cuda.memory._dump_snapshot() wrote"
        ],
    );
}

#[test]
fn a_pickle_of_another_dict() {
    check(
        "run.pickle",
        &pickle(&json!({"model": {}})),
        expect![
            "the snapshot: has no key 'segments'; the file is damaged, or not what torch.cuda.memory._dump_snapshot() wrote"
        ],
    );
}

#[test]
fn a_negative_size_in_a_history() {
    check_snapshot(
        &[("/device_traces/0/1/size", json!(-500))],
        expect![
            "device_traces[0][1].size: is -500; it cannot be negative; the file is damaged, or not what torch.cuda.memory._dump_snapshot() wrote"
        ],
    );
}

#[test]
fn a_negative_size_of_a_segment() {
    check_snapshot(
        &[("/segments/0/total_size", json!(-5))],
        expect![
            "segments[0].total_size: is -5; it cannot be negative; the file is damaged, or not what torch.cuda.memory._dump_snapshot() wrote"
        ],
    );
}

#[test]
fn a_negative_size_of_a_block() {
    check_snapshot(
        &[("/segments/0/blocks/0/size", json!(-512))],
        expect![
            "segments[0].blocks[0].size: is -512; it cannot be negative; the file is damaged, or not what torch.cuda.memory._dump_snapshot() wrote"
        ],
    );
}

#[test]
fn an_address_at_the_end_of_the_address_space() {
    check_snapshot(
        &[("/device_traces/0/1/addr", json!(u64::MAX))],
        expect![
            "device_traces[0][1].addr: is 0xffffffffffffffff; addresses are below 2^63; the file is damaged, or not what torch.cuda.memory._dump_snapshot() wrote"
        ],
    );
}

#[test]
fn blocks_that_overlap() {
    let changes = [("/segments/0/blocks/1/address", json!(BASE + 256))];
    check_snapshot(
        &changes,
        expect![
            "segments[0].blocks[1]: the block at 0x7f0000000100 overlaps the one before it by 256 bytes; the file is damaged, or not what torch.cuda.memory._dump_snapshot() wrote"
        ],
    );
}

#[test]
fn blocks_that_do_not_fill_their_segment() {
    let changes = [("/segments/0/blocks/1/size", json!(1 << 20))];
    check_snapshot(
        &changes,
        expect![
            "segments[0].blocks: the blocks of the segment at 0x7f0000000000 add up to 1049088 bytes, but its total_size is 2097152; this is no state of an allocator: the file was made up by a tool, or edited; the file is damaged, or not what torch.cuda.memory._dump_snapshot() wrote"
        ],
    );
}

#[test]
fn segments_that_overlap() {
    check_snapshot(
        &[("/segments/-", segment(0, BASE + (1 << 20)))],
        expect![
            "segments[1]: the segment at 0x7f0000100000 overlaps the one at 0x7f0000000000 (cuda:0); the file is damaged, or not what torch.cuda.memory._dump_snapshot() wrote"
        ],
    );
}

#[test]
fn a_text_where_a_list_belongs() {
    check_snapshot(
        &[("/segments", json!("x"))],
        expect![
            "segments: is text; expected a list; the file is damaged, or not what torch.cuda.memory._dump_snapshot() wrote"
        ],
    );
}

#[test]
fn a_text_where_a_number_belongs() {
    check_snapshot(
        &[("/device_traces/0/1/size", json!("big"))],
        expect![
            "device_traces[0][1].size: is text; expected a whole number; the file is damaged, or not what torch.cuda.memory._dump_snapshot() wrote"
        ],
    );
}

#[test]
fn an_action_that_does_not_exist() {
    check_snapshot(
        &[("/device_traces/0/1/action", json!("allocc"))],
        expect![
            "device_traces[0][1].action: 'allocc' is no action that an allocator records; the file is damaged, or not what torch.cuda.memory._dump_snapshot() wrote"
        ],
    );
}

#[test]
fn a_state_that_does_not_exist() {
    check_snapshot(
        &[("/segments/0/blocks/0/state", json!("gone"))],
        expect![
            "segments[0].blocks[0].state: is 'gone'; expected active_allocated, active_pending_free or inactive; the file is damaged, or not what torch.cuda.memory._dump_snapshot() wrote"
        ],
    );
}

// ---- histories ---------------------------------------------------------------------------------

#[test]
fn a_free_of_a_block_in_no_segment() {
    let changes = [("/device_traces/0/-", entry("free_requested", BASE + (1 << 30), 512))];
    check_history(
        &changes,
        expect![
            "device_traces[0][2]: the block at 0x7f0040000000 was there before the history, but in no segment that it or the snapshot shows; this is not the whole history of one allocator: record it again, without skip_actions, and leave the file as it is"
        ],
    );
}

#[test]
fn a_block_that_is_freed_twice() {
    let changes = [
        ("/device_traces/0/-", entry("free_requested", BASE, 500)),
        ("/device_traces/0/-", entry("free_completed", BASE, 500)),
        ("/device_traces/0/-", entry("free_requested", BASE, 500)),
    ];
    check_history(
        &changes,
        expect![
            "device_traces[0][4]: free_requested: free of 0x7f0000000000, which is not allocated; this is not the whole history of one allocator: record it again, without skip_actions, and leave the file as it is"
        ],
    );
}

#[test]
fn an_allocation_over_a_live_one() {
    let changes = [("/device_traces/0/-", entry("alloc", BASE + 256, 512))];
    check_history(
        &changes,
        expect![
            "device_traces[0][2]: alloc: 0x7f0000000100+512 overlaps the block at 0x7f0000000000, which is not freed; this is not the whole history of one allocator: record it again, without skip_actions, and leave the file as it is"
        ],
    );
}

#[test]
fn an_allocation_where_a_live_one_begins() {
    let changes = [("/device_traces/0/-", entry("alloc", BASE, 512))];
    check_history(
        &changes,
        expect![
            "device_traces[0][2]: alloc at 0x7f0000000000, where allocation 0 still is: its free is missing; this is not the whole history of one allocator: record it again, without skip_actions, and leave the file as it is"
        ],
    );
}

#[test]
fn an_allocation_outside_of_all_segments() {
    let changes = [("/device_traces/0/-", entry("alloc", BASE + (1 << 30), 512))];
    check_history(
        &changes,
        expect![
            "device_traces[0][2]: alloc at 0x7f0040000000, where there is no segment: entries of segments are missing (skip_actions?); this is not the whole history of one allocator: record it again, without skip_actions, and leave the file as it is"
        ],
    );
}

#[test]
fn a_history_without_one_kind_of_entries() {
    let freed = |at| entry("free_requested", BASE + at, 500);
    let changes = [
        ("/device_traces/0/-", freed(0)),
        ("/device_traces/0/-", entry("alloc", BASE, 500)),
        ("/device_traces/0/-", freed(0)),
        ("/device_traces/0/-", entry("alloc", BASE, 500)),
    ];
    check_history(
        &changes,
        expect![
            "device_traces[0] holds no 'free_completed' entries although there must be some: the history was recorded with skip_actions and cannot be replayed; record it again without"
        ],
    );
}

#[test]
fn no_history() {
    check_history(
        &[("/device_traces/0", json!([]))],
        expect![
            "the snapshot holds no history; record one with torch.cuda.memory._record_memory_history() before the run"
        ],
    );
}

#[test]
fn entries_made_from_profiler_data() {
    let changes = [("/device_traces/0/1/category", json!("ACTIVATION"))];
    check_history(
        &changes,
        expect![
            "the entries have a 'category': this was made from profiler data, with invented addresses, and is no history of an allocator; use a file of torch.cuda.memory._dump_snapshot()"
        ],
    );
}

/// No release takes the settings that the file reports: nothing can be compared.
#[test]
fn settings_in_the_recording_with_an_unknown_key() {
    let conf = ("/allocator_settings/PYTORCH_CUDA_ALLOC_CONF", json!("max_split_mb:20"));
    let files = Files::new();
    let path = files.file("run.pickle", &pickle(&snapshot_with(&[conf])));
    let verify = run(&["verify", &path]);
    assert_eq!(verify.status, 2);
    expect![[r#"
        unreadable run.pickle
          the settings do not work in PyTorch 2.11, so nothing can be compared; give others with --conf: Unrecognized key 'max_split_mb' in CUDA allocator config.
          at byte 0 of the settings: >>>max_split_mb:20
          did you mean 'max_split_size_mb'?
    "#]]
    .assert_eq(&files.without_folder(&verify.out));
    let replay = run(&["replay", &path]);
    assert_eq!(replay.status, 2);
    expect![[r#"
        fragsim: run.pickle: the recording's settings do not work in PyTorch 2.11; give others with --conf: Unrecognized key 'max_split_mb' in CUDA allocator config.
          at byte 0 of the settings: >>>max_split_mb:20
          did you mean 'max_split_size_mb'?
    "#]]
    .assert_eq(&files.without_folder(&replay.err));
    assert_eq!(run(&["verify", &path, "--conf", ""]).status, 0);
    assert_eq!(run(&["replay", &path, "--conf", ""]).status, 0);
    assert!(run(&["inspect", &path]).out.contains("did you mean 'max_split_size_mb'?"));
}

// ---- traces and golden cases -------------------------------------------------------------------

#[test]
fn a_free_of_a_name_that_was_never_allocated() {
    check(
        "t.fragsim",
        b"a = alloc 3MiB\nfree b\n",
        expect!["line 2, column 6: 'b' is not live: it was never allocated"],
    );
}

#[test]
fn a_name_that_is_freed_twice() {
    check(
        "t.fragsim",
        b"a = alloc 3MiB\nfree a\nfree a\n",
        expect!["line 3, column 6: 'a' is not live: it was freed in line 2"],
    );
}

#[test]
fn a_negative_size_in_a_trace() {
    check(
        "t.fragsim",
        b"a = alloc -3MiB\n",
        expect![
            "line 1, column 11: '-3MiB' is not a size: a size cannot be negative; write bytes or a number with a unit, such as 512, 20MiB or 1.5GiB"
        ],
    );
}

#[test]
fn a_misspelt_statement() {
    check(
        "t.fragsim",
        b"a = alloc 3MiB\nfre a\n",
        expect!["line 2, column 1: unknown statement 'fre'; did you mean 'free'?"],
    );
}

#[test]
fn start_segments_that_overlap() {
    let trace = b"start 0x1000 small | a 2MiB\nstart 0x2000 small | b 2MiB\n";
    check(
        "t.fragsim",
        trace,
        expect![
            "line 2, column 7: the segment at 0x2000 must lie behind the one before it, which is 0x1000+2097152"
        ],
    );
}

#[test]
fn a_json_line_that_frees_what_was_never_allocated() {
    let trace = b"{\"format\":\"fragsim-trace\",\"version\":1}\n{\"op\":\"free\",\"id\":3}\n";
    check("t.jsonl", trace, expect!["line 2: '3' is not live: it was never allocated"]);
}

#[test]
fn a_version_of_the_format_that_is_not_known() {
    let trace = b"{\"format\":\"fragsim-trace\",\"version\":9}\n";
    check(
        "t.jsonl",
        trace,
        expect!["line 1: version 9 of the format; this program reads version 1"],
    );
}

const CASE: &str = r#"{"case":"one","env":{},"torch":"2.11.0","devices":1,"total":1073741824,"context":0,"streams":[[0,0]]}
{"i":0,"op":["a",1,500],"r":140000000000000,"ev":[["alloc",140000000000000,500,0]]}
"#;

#[test]
fn a_golden_case_without_its_last_line() {
    check(
        "case.jsonl",
        CASE.as_bytes(),
        expect!["the file ends after line 2 without its final line: it was cut; copy it again"],
    );
}

#[test]
fn a_golden_case_that_is_cut_in_a_line() {
    check(
        "case.jsonl",
        &CASE.as_bytes()[..150],
        expect!["line 2, column 48: the line ends in the middle: the file was cut; copy it again"],
    );
}

#[test]
fn a_golden_case_of_an_unknown_release() {
    let case = CASE.replace("2.11.0", "3.7");
    check(
        "case.jsonl",
        case.as_bytes(),
        expect!["line 1: '3.7' is not a modelled PyTorch release; write one from 2.1 to 2.15"],
    );
}

// ---- the command line --------------------------------------------------------------------------

#[test]
fn a_setting_with_a_typo() {
    check_args(
        &["replay", "FILE", "--conf", "max_split_mb:20"],
        expect![[r#"
            fragsim: Unrecognized key 'max_split_mb' in CUDA allocator config.
              at byte 0 of the settings: >>>max_split_mb:20
              did you mean 'max_split_size_mb'?"#]],
    );
    check_args(
        &["verify", "FILE", "--conf", "max_split_mb:20"],
        expect![[r#"
        fragsim: Unrecognized key 'max_split_mb' in CUDA allocator config.
          at byte 0 of the settings: >>>max_split_mb:20
          did you mean 'max_split_size_mb'?"#]],
    );
}

#[test]
fn a_capacity_of_nothing() {
    check_args(
        &["replay", "FILE", "--capacity", "0"],
        expect![[r#"
        error: invalid value '0' for '--capacity <SIZE>': a device has some memory: give its capacity, such as 24GiB

        For more information, try '--help'."#]],
    );
    check_args(
        &["verify", "FILE", "--capacity", "0"],
        expect![[r#"
        error: invalid value '0' for '--capacity <SIZE>': a device has some memory: give its capacity, such as 24GiB

        For more information, try '--help'."#]],
    );
}

#[test]
fn a_negative_capacity() {
    check_args(
        &["replay", "FILE", "--capacity", "-5GiB"],
        expect![[r#"
        error: invalid value '-5GiB' for '--capacity <SIZE>': '-5GiB' is not a size: a size cannot be negative; write bytes or a number with a unit, such as 512, 20MiB or 1.5GiB

        For more information, try '--help'."#]],
    );
}

#[test]
fn a_capacity_below_what_the_recording_begins_with() {
    let files = Files::new();
    let first = [("/device_traces/0/0", entry("alloc", BASE + 512, 100))];
    let mut part = snapshot_with(&first);
    part["device_traces"][0].as_array_mut().unwrap().truncate(1);
    part["segments"][0]["blocks"] = json!([
        {"address": BASE, "size": 512, "requested_size": 500, "state": "active_allocated", "frames": []},
        {"address": BASE + 512, "size": 512, "requested_size": 100, "state": "active_allocated", "frames": []},
        {"address": BASE + 1024, "size": (2 << 20) - 1024, "requested_size": 0, "state": "inactive", "frames": []},
    ]);
    let path = files.file("run.pickle", &pickle(&part));
    let ran = run(&["replay", &path, "--capacity", "1MiB"]);
    assert_eq!(ran.status, 2, "{}", ran.out);
    expect![[r#"
        fragsim: run.pickle: a capacity of 1024.00 KiB is too small: 2.00 MiB are reserved before the first operation, and the context takes 0 bytes
    "#]]
    .assert_eq(&files.without_folder(&ran.err));
    let context = u64::MAX.to_string();
    assert_eq!(run(&["replay", &path, "--capacity", "1GiB", "--context", &context]).status, 2);
}

#[test]
fn a_release_that_is_not_modelled() {
    check_args(
        &["replay", "FILE", "--torch", "2.16"],
        expect![[r#"
        error: invalid value '2.16' for '--torch <RELEASE>': '2.16' is not a modelled PyTorch release; write one from 2.1 to 2.15

        For more information, try '--help'."#]],
    );
}

#[test]
fn a_device_that_the_file_does_not_have() {
    check_args(
        &["replay", "FILE", "--device", "1"],
        expect![
            "fragsim: run.pickle: it has no history of device 1, only of device 0; choose one with --device"
        ],
    );
    check_args(
        &["replay", "traces/stranded.fragsim", "--device", "1"],
        expect![
            "fragsim: traces/stranded.fragsim: it has no operations of device 1, only of device 0"
        ],
    );
}

#[test]
fn events_that_cannot_be_written() {
    check_args(
        &["replay", "FILE", "--events", "/no/such/folder/events.jsonl"],
        expect![
            "fragsim: /no/such/folder/events.jsonl: cannot be written: No such file or directory (os error 2)"
        ],
    );
}

#[test]
fn a_trace_given_to_verify() {
    check_verify_of_a_trace(expect![[r#"
        unreadable traces/stranded.fragsim
          a trace says what was asked, not what an allocator did: there is nothing to compare; use fragsim replay
    "#]]);
}

fn check_verify_of_a_trace(message: Expect) {
    let ran = run(&["verify", "traces/stranded.fragsim"]);
    assert_eq!(ran.status, 2);
    message.assert_eq(&ran.out);
}

#[test]
fn an_unknown_verb_and_an_unknown_option() {
    assert_eq!(run(&["verfy", "x"]).status, 2);
    assert!(run(&["verfy", "x"]).err.contains("verify"), "the right one is proposed");
    assert_eq!(run(&["replay", "x", "--capcity", "1"]).status, 2);
    assert!(run(&["replay", "x", "--capcity", "1"]).err.contains("--capacity"));
}
