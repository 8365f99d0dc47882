//! The page of `fragsim report`: what is in the file, and, where a Chromium is installed, what a
//! browser makes of it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use fragsim::base::Bytes;
use serde_json::Value;

fn fragsim(args: &[&str]) -> Vec<u8> {
    let ran = Command::new(env!("CARGO_BIN_EXE_fragsim"))
        .args(args)
        .current_dir(common::package(""))
        .output()
        .unwrap();
    assert_ne!(ran.status.code(), Some(2), "{args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    ran.stdout
}

fn page(trace: &str, more: &[&str], path: &Path) -> String {
    fragsim(&[&["report", trace, "-o", path.to_str().unwrap()], more].concat());
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_page_loads_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let text = page("traces/recorded/varlen_oom.pickle.gz", &[], &folder.path().join("a.html"));
    assert!(text.contains("Content-Security-Policy\" content=\"default-src 'none';"));
    for loads in [
        " src=",
        " href=",
        "url(",
        "@import",
        "<link",
        "<img",
        "<iframe",
        "XMLHttpRequest",
        "WebSocket",
        "fetch(",
        "import(",
    ] {
        assert!(!text.contains(loads), "{loads}");
    }
    // Addresses stand only in PyTorch's own messages, which are data.
    for (at, _) in text.match_indices("://") {
        let before = &text[at.saturating_sub(60)..at];
        assert!(
            before.contains("documentation for Memory Management") || before.contains("(https"),
            "{before}"
        );
    }
    assert!(text.contains("Permission is hereby granted, free of charge"));
}

/// Elements of a page are as many whatever a trace says.
#[test]
fn text_of_a_trace_makes_no_element() {
    let folder = tempfile::tempdir().unwrap();
    let named = |name: &str| {
        let path = folder.path().join(name);
        fs::copy(common::package("traces/stranded.fragsim"), &path).unwrap();
        let text = page(path.to_str().unwrap(), &[], &folder.path().join("page.html"));
        (text.matches('<').count(), text.contains("onerror=alert"))
    };
    let plain = named("plain.fragsim");
    let hostile = named("<img src=x onerror=alert(1)><script>alert(1)<!--.fragsim");
    assert_eq!(plain.0, hostile.0);
    assert!(hostile.1, "the name is in the page, as data");
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

/// What a page finds when it looks at itself.
fn looks_at_itself(browser: &Path, folder: &Path, page: &Path) -> Value {
    let ran = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
        .args(["--window-size=1280,1800", "--virtual-time-budget=60000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .arg(format!("file://{}#test", page.display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&ran.stdout);
    let found =
        dom.split("<pre id=\"check\" hidden=\"\">").nth(1).and_then(|t| t.split("</pre>").next());
    let found = found.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&ran.stderr)));
    let found = found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&found).unwrap_or_else(|error| panic!("{error}: '{found}'"))
}

fn stats(trace: &str, conf: &str, at: Option<&str>) -> Value {
    let conf: &[&str] = if conf == "recorded" { &[] } else { &["--conf", conf] };
    let at = at.map_or(Vec::new(), |at| vec!["--at", at]);
    let out = fragsim(&[&["replay", trace, "--format", "json"], conf, &at].concat());
    serde_json::from_slice(&out).unwrap()
}

/// Opens the page of a trace and holds what it shows against the replay.
fn check(trace: &str, confs: &[&str]) {
    let Some(browser) = chromium() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.html");
    let more: Vec<&str> = confs.iter().flat_map(|conf| ["--conf", conf]).collect();
    page(trace, &more, &path);
    let found = looks_at_itself(&browser, folder.path(), &path);
    assert_eq!(found["errors"], serde_json::json!([]), "{found}");
    assert_eq!(found["resources"], 0, "{found}");
    let names = ["requested", "allocated", "active", "reserved"];
    for (run, conf) in found["runs"].as_array().unwrap().iter().zip(confs) {
        let replay = stats(trace, conf, None);
        assert_eq!(run["whole"], true);
        for name in names {
            let peak = &replay["stats"][format!("{name}_bytes.all.peak")];
            assert_eq!(&run["most"][name], peak, "{trace} {conf} {name}");
        }
    }
    let moments = found["moments"].as_array().unwrap();
    assert_eq!(moments.len(), 3);
    for moment in moments.iter().chain([&found["first"]]) {
        let replay = stats(trace, confs[0], Some(&moment["time"].to_string()));
        for name in names {
            let now = &replay["stats"][format!("{name}_bytes.all.current")];
            assert_eq!(&moment[name], now, "{trace} {name} after {}", moment["time"]);
        }
        // The map is drawn from what is there, the chart from what came and went.
        assert_eq!(moment["in_blocks"], moment["active"], "{moment}");
        assert_eq!(moment["in_segments"], moment["reserved"], "{moment}");
        let number = |name: &str| moment[name].as_u64().unwrap();
        assert_eq!(number("free"), number("reserved") - number("active"));
    }
    // Each click chose another moment, and the map is another picture.
    for pair in moments.windows(2) {
        assert_ne!(pair[0]["time"], pair[1]["time"]);
        assert_ne!(pair[0]["pixels"], pair[1]["pixels"], "{pair:?}");
    }
    let block = &found["block"];
    let tip = block["tip"].as_str().unwrap();
    for key in ["size", "requested"] {
        let size = Bytes(block[key].as_u64().unwrap()).to_string();
        assert!(tip.contains(&size), "{key}: {tip}");
    }
    let zoomed: Vec<f64> = serde_json::from_value(found["zoomed"].clone()).unwrap();
    assert_eq!(zoomed[..2], zoomed[2..], "both charts show the same time");
    assert!(found["free_rows"].as_u64().unwrap() > 0);
}

/// What is free at the end, and why it does not serve: the page sums and judges for itself, and must
/// say what the model says.
#[test]
fn the_free_table_of_a_page_is_that_of_explain() {
    let Some(browser) = chromium() else { return };
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("places.fragsim");
    let text = "stream 1 handle 0x100\nevents manual\n\
        a = alloc 3MiB; b = alloc 30MiB; c = alloc 12MiB; d = alloc 5MiB; e = alloc 700KiB; f = alloc 512\n\
        g = alloc 3MiB stream 1; h = alloc 100KiB stream 1\n\
        pool_create (0,1); p = alloc 14MiB pool (0,1); q = alloc 1MiB pool (0,1)\n\
        record_stream d 1; free a; free b; free c; free d; free e; free g; free p; free q\n\
        z = alloc 1KiB\n";
    fs::write(&trace, text).unwrap();
    let trace = trace.to_str().unwrap();
    for conf in [
        "",
        "expandable_segments:True",
        "max_split_size_mb:21",
        "max_split_size_mb:21,max_non_split_rounding_mb:21",
        "roundup_power2_divisions:4",
        "large_segment_size_mb:64",
    ] {
        let path = folder.path().join("page.html");
        page(trace, &["--conf", conf, "--capacity", "64GiB"], &path);
        let found = looks_at_itself(&browser, folder.path(), &path);
        assert_eq!(found["errors"], serde_json::json!([]), "{found}");
        let asked = found["free"].as_array().unwrap();
        assert!(asked.len() >= 24, "{asked:?}");
        let mut reasons = std::collections::BTreeSet::new();
        for table in asked {
            let bytes = table["bytes"].to_string();
            let stream = if table["stream"] == "0x100" { "1" } else { "0" };
            let pool = table["pool"].as_str().map_or(vec![], |pool| vec!["--pool", pool]);
            let common =
                ["explain", trace, "--conf", conf, "--capacity", "64GiB", "--format", "json"];
            let question = ["--at", "22", "--request", bytes.as_str(), "--stream", stream];
            let out = fragsim(&[&common[..], &question, &pool].concat());
            let said: Value = serde_json::from_slice(&out).unwrap();
            let rows = |rows: &Value, small: &str| -> Vec<String> {
                let row = |row: &Value| {
                    let pool = row["pool"].to_string().replace('"', "");
                    let pool = pool.trim_start_matches(['[', '(']).trim_end_matches([']', ')']);
                    let pool = if pool == "null" { "0,0" } else { pool };
                    let stream = &row["stream"].to_string().replace('"', "");
                    let stream = stream.parse().map_or(stream.clone(), |n: u64| format!("{n:#x}"));
                    let [why, bytes] = [&row["why"], &row["bytes"]];
                    let [blocks, largest] = [&row["blocks"], &row["largest"]];
                    format!("{pool} {} {stream} {why} {bytes} {blocks} {largest}", row[small])
                };
                let mut rows: Vec<String> = rows.as_array().unwrap().iter().map(row).collect();
                rows.sort();
                rows
            };
            let (page, model) = (rows(&table["rows"], "small"), rows(&said["free"], "is_small"));
            assert_eq!(page, model, "{conf}: {bytes} on stream {stream}, pool {pool:?}");
            reasons
                .extend(table["rows"].as_array().unwrap().iter().map(|row| row["why"].to_string()));
        }
        assert!(reasons.len() >= 7, "{conf}: {reasons:?}");
    }
}

#[test]
fn a_browser_shows_a_recorded_run_that_dies() {
    check("traces/recorded/varlen_oom.pickle.gz", &["recorded", "expandable_segments:True"]);
}

#[test]
fn a_browser_shows_expandable_segments() {
    check("traces/recorded/frag_expandable.pickle.gz", &["recorded"]);
}

#[test]
fn a_browser_shows_blocks_that_wait_for_another_stream() {
    check("traces/recorded/streams_pending.pickle.gz", &["recorded"]);
}

#[test]
fn a_hostile_name_is_shown_as_text() {
    let Some(browser) = chromium() else { return };
    let folder = tempfile::tempdir().unwrap();
    let name = "<img src=x onerror=document.title=1><b>.fragsim";
    let trace = folder.path().join(name);
    fs::copy(common::package("traces/stranded.fragsim"), &trace).unwrap();
    let path = folder.path().join("page.html");
    page(trace.to_str().unwrap(), &["--capacity", "40MiB"], &path);
    let found = looks_at_itself(&browser, folder.path(), &path);
    assert_eq!((&found["errors"], &found["resources"]), (&serde_json::json!([]), &0.into()));
    let headline = found["headline"].as_str().unwrap();
    assert_eq!(headline, "Out of memory at operation 11: a request of 16.00 MiB is not served");
}
