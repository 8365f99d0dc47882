//! Lessons: what each claims is what its replay shows, and no figure of a text stands on its own.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use expect_test::expect_file;
use fragsim::lesson::{Lesson, SHELF, Told};
use regex::Regex;
use serde_json::Value;

fn told(name: &str) -> Told {
    let entry = SHELF.iter().find(|entry| entry.name == name).unwrap();
    Told::new(entry.read().unwrap()).unwrap()
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn what_every_lesson_claims_is_what_its_replay_shows() {
    let mut wrong = Vec::new();
    for entry in SHELF {
        let told = match entry.read().and_then(Told::new) {
            Ok(told) => told,
            Err(error) => {
                wrong.push(error.to_string());
                continue;
            }
        };
        assert!(!told.claims.is_empty(), "{} claims nothing", entry.name);
        for claim in &told.claims {
            for (_, what) in &claim.checks {
                wrong.extend(what.as_ref().map(|what| format!("{}: {what}", entry.name)));
            }
        }
        for made in told.popular.iter().flat_map(|popular| &popular.made) {
            if !made.agrees() {
                let (made, real) = (&made.command, &made.name);
                wrong.push(format!("{}: '{made}' takes not what {real} took", entry.name));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn a_claim_that_is_not_so_is_found_out() {
    let text = "+++\ntitle = 't'\n[[run]]\nname = 'run'\n[[claim]]\nsays = 's'\ncheck = ['run.reserved == 1MiB']\n+++\n";
    let lesson = Lesson::read("t", text, &|_| Ok("a = alloc 1MiB".into())).unwrap();
    let told = Told::new(lesson).unwrap();
    assert!(!told.claims[0].holds());
    let (_, wrong) = &told.claims[0].checks[0];
    assert_eq!(
        wrong.as_deref(),
        Some("'run.reserved == 1MiB': 2.00 MiB on the left, 1024.00 KiB on the right")
    );
}

#[test]
fn there_are_thirty_two_and_every_file_belongs_to_one() {
    assert_eq!(SHELF.len(), 32);
    let mut used = BTreeSet::new();
    for entry in SHELF {
        used.insert(format!("{}.md", entry.name));
        for run in &told(entry.name).runs {
            used.insert(format!("{}.fragsim", run.spec.source.name));
        }
    }
    let folder = common::package("traces/lessons");
    let mut files = BTreeSet::new();
    for ending in [".md", ".fragsim"] {
        let found = common::files(&folder, ending);
        files.extend(found.iter().map(|f| f.file_name().unwrap().to_string_lossy().into_owned()));
    }
    files.remove("README.md");
    assert_eq!(used, files);
}

/// What a text says of sizes and shares, the replay must have made.
#[test]
fn no_text_has_a_figure_of_its_own() {
    let places = Regex::new(r"\{[^}]*\}").unwrap();
    let figure = Regex::new(r"\d+(\.\d+)?\s?(%|bytes|[KMG]i?B)").unwrap();
    let mut wrong = Vec::new();
    for entry in SHELF {
        let lesson = entry.read().unwrap();
        let popular = lesson.popular.iter().flat_map(|p| [&p.real, &p.fails]);
        let claims = lesson.claims.iter().map(|claim| &claim.says);
        let about = lesson.runs.iter().map(|run| &run.about);
        let all = lesson.text.iter().chain(&lesson.look).chain(popular).chain(claims).chain(about);
        for text in all {
            // "1 byte takes …" names what the trace asks, in its own words.
            let bare = places.replace_all(text, "");
            let found = figure.find_iter(&bare).filter(|f| f.as_str() != "513 bytes");
            wrong.extend(found.map(|f| format!("{}: '{}' in '{text}'", entry.name, f.as_str())));
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_lesson_names_where_it_was_met() {
    let thread = Regex::new(r"^[\w.-]+/[\w.-]+#\d+$").unwrap();
    let mut wrong = Vec::new();
    for entry in SHELF {
        let lesson = entry.read().unwrap();
        if lesson.threads.is_empty() {
            wrong.push(format!("{} names no thread", entry.name));
        }
        let odd = lesson.threads.iter().filter(|t| !thread.is_match(&t.at));
        wrong.extend(odd.map(|t| format!("{}: '{}' is no thread", entry.name, t.at)));
    }
    assert_none(&wrong);
}

/// The figures of recorded runs are those of the recordings.
#[test]
fn the_recorded_figures_are_those_of_the_recordings() {
    let Some(shared) = common::shared("scenarios") else { return };
    let text = fs::read_to_string(common::package("traces/lessons/scenarios.json")).unwrap();
    let runs: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    assert!(runs.len() > 50);
    for (name, run) in &runs {
        let recorded = fs::read_to_string(shared.join(format!("{name}.json"))).unwrap();
        let recorded: Value = serde_json::from_str(&recorded).unwrap();
        for level in ["requested", "allocated", "active", "reserved"] {
            assert_eq!(run[level], recorded["peak"][level], "{name} {level}");
        }
        assert_eq!(run["retries"], recorded["stats"]["num_alloc_retries"], "{name}");
        assert_eq!(run["oom"], recorded["oom"].is_string(), "{name}");
        assert_eq!(run["capacity"], recorded["total"], "{name}");
    }
}

fn fragsim(args: &[&str]) -> (i32, String) {
    let ran = Command::new(env!("CARGO_BIN_EXE_fragsim"))
        .args(args)
        .current_dir(common::package(""))
        .output()
        .unwrap();
    let text = [ran.stdout, ran.stderr].concat();
    (ran.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn plain_text_is_as_it_was_read() {
    for name in ["no_block", "streams", "no_grad"] {
        let (code, text) = fragsim(&["lesson", name]);
        assert_eq!(code, 0);
        let path = common::package("tests/lessons").join(format!("{name}.txt"));
        expect_file![path].assert_eq(&text);
    }
}

#[test]
fn a_lesson_is_found_by_name_by_number_and_in_a_file() {
    let (code, list) = fragsim(&["lesson", "--list"]);
    assert_eq!(code, 0);
    assert!(SHELF.iter().all(|entry| list.contains(entry.name)));
    let (_, json) = fragsim(&["lesson", "--list", "--format", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["lessons"].as_array().unwrap().len(), SHELF.len());
    assert_eq!(fragsim(&["lesson", "4"]), fragsim(&["lesson", "no_block"]));
    let (code, own) = fragsim(&["lesson", "traces/lessons/no_block.md"]);
    assert_eq!(code, 0);
    assert!(own.starts_with("Enough memory free"), "{own}");
    for (name, says) in [
        ("33", "there is no lesson 33"),
        ("blok", "there is no lesson 'blok'"),
        ("no_blocks", "did you mean 'no_block'?"),
        ("nowhere.md", "nowhere.md"),
    ] {
        let (code, text) = fragsim(&["lesson", name]);
        assert_eq!(code, 2, "{text}");
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn a_lesson_of_ones_own_that_claims_what_is_not_so_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.md");
    fs::write(folder.path().join("own.fragsim"), "a = alloc 3MiB").unwrap();
    let lesson = "+++\ntitle = 'Own'\n[[run]]\nname = 'run'\n[[claim]]\nsays = 'It takes {run.reserved}.'\ncheck = ['run.reserved < 3MiB']\n+++\n";
    fs::write(&path, lesson).unwrap();
    let (code, text) = fragsim(&["lesson", path.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(text.contains("- NOT SO: It takes 20.00 MiB."), "{text}");
    assert!(text.contains("not so: 'run.reserved < 3MiB': 20.00 MiB on the left"), "{text}");
}

/// A browser, if there is one.
fn chromium() -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = std::env::split_paths(&paths)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|path| path.is_file());
    if found.is_none() {
        println!("no Chromium is installed: pages are not opened");
    }
    found
}

#[test]
fn a_page_loads_nothing() {
    let (_, page) = fragsim(&["lesson", "no_block", "--html", "-"]);
    assert!(page.contains("Content-Security-Policy\" content=\"default-src 'none';"));
    for loads in [" src=", " href=", "url(", "@import", "<link", "<img", "fetch(", "import("] {
        assert!(!page.contains(loads), "{loads}");
    }
}

#[test]
fn a_browser_steps_through_a_page() {
    let Some(browser) = chromium() else { return };
    for name in ["no_block", "streams", "expandable"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lesson.html");
        assert_eq!(fragsim(&["lesson", name, "--html", path.to_str().unwrap()]).0, 0);
        let ran = Command::new(&browser)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
            .args(["--window-size=1280,1800", "--virtual-time-budget=60000", "--dump-dom"])
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .arg(format!("file://{}#test", path.display()))
            .output()
            .unwrap();
        let dom = String::from_utf8_lossy(&ran.stdout);
        let found = dom.split("<pre id=\"check\" hidden=\"\">").nth(1);
        let found = found.and_then(|text| text.split("</pre>").next()).unwrap();
        let found = found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        let found: Value = serde_json::from_str(&found).unwrap();
        assert_eq!(found["errors"], serde_json::json!([]), "{name}: {found}");
        assert_eq!(found["resources"], 0, "{name}");
        let told = told(name);
        for (run, shown) in told.runs.iter().zip(found["runs"].as_array().unwrap()) {
            let moments = shown["moments"].as_array().unwrap();
            assert_eq!(moments.len(), run.steps.len() + 1);
            for (done, moment) in moments.iter().enumerate() {
                let levels = run.levels(done);
                let scene = run.scene(done);
                let parts: usize = scene.segments.iter().map(|segment| segment.parts.len()).sum();
                assert_eq!(moment["drawn"], scene.segments.len(), "{name} {done}");
                assert_eq!(moment["parts"], parts, "{name} {done}");
                assert_eq!(moment["live"], levels.allocated.0, "{name} {done}");
                assert_eq!(moment["reserved"], levels.reserved.0, "{name} {done}");
                let number = |key: &str| moment[key].as_f64().unwrap();
                assert!(number("widest") <= number("room") + 1.0, "{name} {done}: {moment}");
            }
        }
        let end = told.runs[0].steps.len();
        let keys = serde_json::json!({ "one": 1, "end": end, "back": end - 1 });
        assert_eq!((&found["keys"], &found["slid"]), (&keys, &2.into()), "{name}");
        assert!(found["claims"].as_array().unwrap().iter().all(|holds| *holds == true));
    }
}
