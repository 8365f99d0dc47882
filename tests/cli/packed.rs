//! `fragsim pack`, and that every verb says the same of the packed file.

use std::{fs, path::PathBuf};

use expect_test::expect;

use crate::support::{Files, pickle, run, run_with, snapshot, text};

fn recordings() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("traces/recorded")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(".pickle.gz") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(found.len() > 5);
    found
}

#[test]
fn every_verb_says_the_same_of_the_packed_file() {
    let files = Files::new();
    for (number, path) in recordings().iter().enumerate() {
        let (name, packed) = (text(path), files.at(&format!("{number}.packed")));
        let ran = run(&["pack", name, "-o", &packed]);
        let history = run(&["replay", name, "--format", "json"]);
        if history.status == 2 {
            // What has no history cannot be replayed, and is not packed.
            assert_eq!((ran.status, ran.err), (2, history.err), "{name}");
            continue;
        }
        assert_eq!(ran.status, 0, "{name}: {}", ran.err);
        for verb in ["verify", "inspect", "replay"] {
            for format in ["text", "json"] {
                let ask = |file: &str| {
                    let ran = run(&[verb, file, "--format", format]);
                    (ran.status, ran.out.replace(file, "FILE"), ran.err.replace(file, "FILE"))
                };
                assert_eq!(ask(name), ask(&packed), "{verb} {name}");
            }
        }
    }
}

#[test]
fn the_packed_file_stands_beside_the_snapshot_and_replaces_nothing() {
    let files = Files::new();
    let file = files.file("run.pickle", &pickle(&snapshot()));
    let ran = run(&["pack", &file]);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    let first = fs::read(files.at("run.packed")).unwrap();
    let ran = run(&["pack", &file]);
    assert_eq!(ran.status, 2);
    expect![[r"
        fragsim: run.packed: is there already; write over it with --force
    "]]
    .assert_eq(&files.without_folder(&ran.err));
    assert_eq!(run(&["pack", &file, "--force"]).status, 0);
    assert_eq!(fs::read(files.at("run.packed")).unwrap(), first);
    let ran = run(&["pack", &file, "-o", &file, "--force"]);
    assert_eq!(ran.status, 2);
    expect![[r"
        fragsim: run.pickle: this is the recording itself; name another file
    "]]
    .assert_eq(&files.without_folder(&ran.err));
    let left: Vec<_> =
        fs::read_dir(files.at("")).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn standard_input_has_no_name_to_change() {
    let files = Files::new();
    let ran = run_with(&["pack", "-"], &pickle(&snapshot()));
    assert_eq!(ran.status, 2);
    expect![[r"
        fragsim: standard input has no name to be changed: name the file to write with --output
    "]]
    .assert_eq(&ran.err);
    let ran = run_with(&["pack", "-", "-o", &files.at("x")], &pickle(&snapshot()));
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    let packed = fs::read(files.at("x")).unwrap();
    assert_eq!(run_with(&["verify", "-"], &packed).status, 0);
}

#[test]
fn what_is_no_recording_is_not_packed() {
    let files = Files::new();
    let file = files.file("a.fragsim", b"a = alloc 1MiB\n");
    let ran = run(&["pack", &file]);
    assert_eq!(ran.status, 2);
    expect![[r"
        fragsim: a.fragsim: this is no snapshot; only a recording of torch.cuda.memory._dump_snapshot() is packed
    "]]
    .assert_eq(&files.without_folder(&ran.err));
}

#[test]
fn a_damaged_packed_file_is_named() {
    let files = Files::new();
    let file = files.file("run.pickle", &pickle(&snapshot()));
    assert_eq!(run(&["pack", &file]).status, 0);
    let bytes = fs::read(files.at("run.packed")).unwrap();
    let cut = files.file("cut", &bytes[..bytes.len() - 1]);
    let ran = run(&["inspect", &cut]);
    assert_eq!(ran.status, 2);
    assert!(files.without_folder(&ran.err).starts_with("fragsim: cut: byte "), "{}", ran.err);
}
