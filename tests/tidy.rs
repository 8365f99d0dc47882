//! The rules of the house that the compiler does not check. The table of floors is the architecture:
//! a new arrow is a change here.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Each folder of `src`, lowest first, and what it may import besides itself.
const FLOORS: [(&str, &[&str]); 11] = [
    ("base", &[]),
    ("trace", &["base"]),
    ("source", &["base", "trace"]),
    ("sim", &["base", "trace"]),
    ("workload", &["base", "trace"]),
    ("models", &["base", "trace", "sim"]),
    ("observe", &["base", "trace", "sim"]),
    ("study", &["base", "trace", "sim", "models", "observe"]),
    ("lesson", &["base", "trace", "sim", "workload", "models", "observe"]),
    ("report", &["base", "trace", "sim", "observe", "study", "lesson"]),
    (
        "cli",
        &[
            "base", "trace", "source", "sim", "workload", "models", "observe", "study", "lesson",
            "report",
        ],
    ),
];

/// Files that are longer than [`MAX_LINES`], and why.
const LONG_FILES: [(&str, &str); 1] =
    [("src/observe/check.rs", "the judge stands in one file, a third of it are its tests")];
const MAX_LINES: usize = 700;

/// Paths as they are written in messages: from the package on, with slashes.
fn name(path: &Path) -> String {
    let package = common::package("");
    path.strip_prefix(&package).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn sources() -> Vec<PathBuf> {
    let files = common::files(&common::package("src"), ".rs");
    assert!(files.len() > 50, "only {} files in src", files.len());
    files
}

fn assert_none(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// Code without its comments.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn imports_only_go_down() {
    let mut broken = Vec::new();
    for file in sources() {
        let name = name(&file);
        let mut parts = name.split('/').skip(1);
        let (Some(folder), Some(_)) = (parts.next(), parts.next()) else { continue };
        let Some((floor, below)) = FLOORS.iter().find(|(floor, _)| *floor == folder) else {
            broken.push(format!("src/{folder} is on no floor: give it a row in FLOORS"));
            continue;
        };
        for seen in floors_seen(&text(&file)) {
            if seen != *floor && !below.contains(&seen.as_str()) {
                broken.push(format!("{name}: {floor} may not import {seen}"));
            }
        }
    }
    assert_none(&broken);
}

/// The floors that a file names: what follows each `crate::`, alone or in a group.
fn floors_seen(text: &str) -> BTreeSet<String> {
    let code = code(text);
    let mut seen = BTreeSet::new();
    for tail in code.split("crate::").skip(1) {
        match tail.strip_prefix('{') {
            None => drop(seen.insert(word(tail))),
            Some(group) => seen.extend(heads(group)),
        }
    }
    seen.retain(|seen| FLOORS.iter().any(|(floor, _)| floor == seen));
    seen
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first word of each member of a group whose opening brace was read.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut member, mut heads) = (1, String::new(), Vec::new());
    for c in group.chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth == 0 || (depth == 1 && c == ',') {
            heads.push(word(member.trim_start()));
            member.clear();
        } else {
            member.push(c);
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

#[test]
fn groups_are_seen_and_comments_are_not() {
    let seen = floors_seen(
        "use crate::{base::Bytes, sim::{self, observe::X}, trace};\n// crate::cli::x\nfn f() { crate::report::g() }",
    );
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["base", "report", "sim", "trace"]);
}

#[test]
fn every_file_is_part_of_the_program() {
    let mut broken = Vec::new();
    for file in sources() {
        let name = name(&file);
        if ["src/lib.rs", "src/main.rs"].contains(&name.as_str()) {
            continue;
        }
        let is_root = file.file_name().is_some_and(|name| name == "mod.rs");
        let module =
            if is_root { file.parent().unwrap().to_owned() } else { file.with_extension("") };
        let (folder, stem) = (module.parent().unwrap(), module.file_name().unwrap());
        let parents = [
            folder.join("mod.rs"),
            folder.with_extension("rs"),
            folder.join("lib.rs"),
            folder.join("main.rs"),
        ];
        let declared = format!("mod {};", stem.to_string_lossy());
        let declares = |parent: &PathBuf| {
            parent.is_file()
                && text(parent).lines().any(|line| {
                    let line = line.trim_start();
                    line.ends_with(&declared) && !line.starts_with("//")
                })
        };
        if !parents.iter().any(declares) {
            broken.push(format!("{name} belongs to no module: nothing says '{declared}'"));
        }
    }
    assert_none(&broken);
}

#[test]
fn only_the_command_line_prints() {
    let mut broken = Vec::new();
    for file in sources() {
        let name = name(&file);
        if name.starts_with("src/cli/") || name == "src/cli.rs" || name == "src/main.rs" {
            continue;
        }
        let code = code(&text(&file));
        for call in ["println!", "eprintln!", "print!(", "eprint!(", "dbg!("] {
            if code.contains(call) {
                broken.push(format!("{name}: {call} outside the command line"));
            }
        }
    }
    assert_none(&broken);
}

/// What is true on one machine is true on no other.
#[test]
fn no_file_names_a_place_on_somebodys_machine() {
    // In two parts, as this file is looked through, too.
    let places = [["/wo", "rk/"], ["/tm", "p/"], ["/ho", "me/"], ["/ro", "ot/"], ["/Us", "ers/"]];
    let mut files = sources();
    for folder in ["tests", "benches", "traces"] {
        for ending in [".rs", ".py", ".md", ".fragsim", ".jsonl"] {
            files.extend(common::files(&common::package(folder), ending));
        }
    }
    let top = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "Cargo.toml", ".ci/run"];
    files.extend(top.into_iter().map(common::package).filter(|path| path.is_file()));
    let mut broken = Vec::new();
    for file in files {
        let text = text(&file);
        for place in places.map(|parts| parts.concat()) {
            for (line, _) in text.lines().enumerate().filter(|(_, line)| line.contains(&place)) {
                broken.push(format!("{}:{}: names {place}", name(&file), line + 1));
            }
        }
    }
    assert_none(&broken);
}

#[test]
fn every_example_trace_says_what_it_shows() {
    let traces = common::files(&common::package("traces"), ".fragsim");
    assert!(!traces.is_empty());
    let mut broken = Vec::new();
    for file in traces {
        let text = text(&file);
        let first = text.lines().next().unwrap_or_default();
        if !first.starts_with("# ") || !first.ends_with('.') {
            broken.push(format!("{}: the first line is no sentence in a comment", name(&file)));
        }
    }
    assert_none(&broken);
}

#[test]
fn no_file_is_too_long_to_be_read_in_one_go() {
    let mut broken = Vec::new();
    for file in sources() {
        let (name, lines) = (name(&file), text(&file).lines().count());
        let is_known = LONG_FILES.iter().any(|(known, _)| *known == name);
        if lines > MAX_LINES && !is_known {
            broken.push(format!("{name} has {lines} lines: look for the second idea in it"));
        }
        if lines <= MAX_LINES && is_known {
            broken.push(format!("{name} is not long any more: take it out of LONG_FILES"));
        }
    }
    assert_none(&broken);
}

#[test]
fn every_file_opens_with_what_it_is() {
    let mut broken = Vec::new();
    for file in sources().into_iter().chain(common::files(&common::package("tests"), ".rs")) {
        let text = text(&file);
        let is_said = text.starts_with("//! ") || text.starts_with("#![doc = include_str!");
        if !is_said {
            broken.push(format!("{}: the first line does not say what the file is", name(&file)));
        }
    }
    assert_none(&broken);
}
