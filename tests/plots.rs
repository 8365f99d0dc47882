//! Pictures: SVG is held against files that were looked at, PNG is looked into.
//!
//! `UPDATE_EXPECT=1 cargo test --test plots` writes the files anew: look at them before they are kept.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use std::{
    collections::BTreeSet,
    io::Read,
    path::Path,
    process::{Command, Output},
};

use expect_test::expect_file;
use flate2::read::ZlibDecoder;

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fragsim"))
        .args(args)
        .current_dir(common::package(""))
        .output()
        .unwrap()
}

/// The picture, as SVG.
fn svg(args: &[&str]) -> String {
    let ran = run(&[&["plot"], args, &["-o", "-"]].concat());
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let text = String::from_utf8(ran.stdout).unwrap();
    // One element a line, to be read in a diff.
    text.replace("><", ">\n<")
}

const STRANDED: &str = "traces/stranded.fragsim";
const TIGHT: [&str; 2] = ["--capacity", "40MiB"];

#[test]
fn memory_over_time_shows_the_capacity_and_the_failure() {
    let text = svg(&[&[STRANDED], &TIGHT[..]].concat());
    assert!(text.contains("capacity 40.00 MiB") && text.contains("out of memory: 16.00 MiB"));
    expect_file!["pictures/memory.svg"].assert_eq(&text);
}

#[test]
fn segments_are_drawn_to_scale() {
    expect_file!["pictures/segments.svg"].assert_eq(&svg(&[
        &[STRANDED, "--kind", "segments"],
        &TIGHT[..],
    ]
    .concat()));
}

#[test]
fn fragmentation_has_its_worst_moment() {
    let text = svg(&[STRANDED, "--kind", "fragmentation", "--theme", "dark"]);
    expect_file!["pictures/fragmentation.svg"].assert_eq(&text);
}

#[test]
fn sizes_are_counted() {
    expect_file!["pictures/sizes.svg"].assert_eq(&svg(&[STRANDED, "--kind", "sizes"]));
}

#[test]
fn settings_stand_side_by_side() {
    let trace = "traces/recorded/varlen_oom.pickle.gz";
    let settings = ["--conf", "recorded", "--conf", "expandable_segments:True"];
    let compare = svg(&[&[trace, "--kind", "compare"], &settings[..]].concat());
    assert!(
        compare.contains("expandable_segments:True") && compare.contains("everything is served")
    );
    expect_file!["pictures/compare.svg"].assert_eq(&compare);
    let pareto = svg(&[&[trace, "--kind", "pareto"], &settings[..]].concat());
    assert!(pareto.contains("1 that run out of memory are not shown"));
}

/// The pixels of a PNG whose rows are all differences to the row above.
fn pixels(png: &[u8]) -> (u32, u32, Vec<[u8; 3]>) {
    assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    let (width, height) = (number(16), number(20));
    let length = number(33) as usize;
    assert_eq!(&png[37..41], b"IDAT");
    let mut crc = flate2::Crc::new();
    crc.update(&png[37..41 + length]);
    assert_eq!(crc.sum(), number(41 + length));
    let mut rows = Vec::new();
    ZlibDecoder::new(&png[41..41 + length]).read_to_end(&mut rows).unwrap();
    let row = width as usize * 3;
    assert_eq!(rows.len(), (row + 1) * height as usize);
    let mut above = vec![0u8; row];
    let mut all = Vec::new();
    for line in rows.chunks(row + 1) {
        assert_eq!(line[0], 2);
        above
            .iter_mut()
            .zip(&line[1..])
            .for_each(|(above, diff)| *above = above.wrapping_add(*diff));
        all.extend(above.chunks(3).map(|p| <[u8; 3]>::try_from(p).unwrap()));
    }
    (width, height, all)
}

#[test]
fn a_png_has_two_pixels_for_each_and_letters_without_a_font() {
    let folder = tempfile::tempdir().unwrap();
    for (theme, back) in [("light", [255, 255, 255]), ("dark", [15, 19, 24])] {
        let path = folder.path().join(format!("{theme}.png"));
        let ran = run(&["plot", STRANDED, "--theme", theme, "-o", path.to_str().unwrap()]);
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let (width, height, all) = pixels(&std::fs::read(&path).unwrap());
        assert_eq!((width, height, all[0]), (2240, 1120, back));
        // The title: many shades between the letters and what lies behind them.
        let title = (20..90).flat_map(|y| &all[y * 2240 + 48..y * 2240 + 500]);
        let shades: BTreeSet<&[u8; 3]> = title.collect();
        assert!(shades.len() > 8, "{theme}: {shades:?}");
    }
}

/// The levels at the end and their peaks are those of `memory_stats()`.
fn check_series(trace: &str, more: &[&str]) {
    let ran = run(&[&["series", trace, "--rows", "7"], more].concat());
    assert!(ran.status.success());
    let text = String::from_utf8(ran.stdout).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    assert!(rows.len() <= 8 && rows.iter().all(|row| row.len() == rows[0].len()), "{text}");
    let column = |name: &str| rows[0].iter().position(|column| *column == name).unwrap();
    let replay = run(&[&["replay", trace, "--format", "json"], more].concat());
    let replay: serde_json::Value = serde_json::from_slice(&replay.stdout).unwrap();
    let stat = |name: &str| replay["stats"][name].to_string();
    let levels = [
        "requested_bytes.all",
        "allocated_bytes.all",
        "active_bytes.all",
        "reserved_bytes.all",
        "allocation.all",
        "segment.all",
    ];
    for level in levels {
        let now = rows.last().unwrap()[column(&format!("{level}.current"))];
        assert_eq!(now, stat(&format!("{level}.current")), "{trace}: {level}");
        let most = rows[1..].iter().map(|row| row[column(&format!("{level}.max"))]);
        let most: u64 = most.map(|n| n.parse().unwrap()).max().unwrap();
        assert_eq!(most.to_string(), stat(&format!("{level}.peak")), "{trace}: {level}");
    }
    for total in ["num_ooms", "num_alloc_retries"] {
        let counts = rows[1..].iter().map(|row| row[column(total)].parse::<u64>().unwrap());
        assert_eq!(counts.sum::<u64>().to_string(), stat(total), "{trace}: {total}");
    }
}

#[test]
fn a_series_ends_and_peaks_as_the_replay_does() {
    check_series(STRANDED, &TIGHT);
    for name in ["varlen_oom", "frag_expandable", "streams_pending", "graphs_end"] {
        check_series(&format!("traces/recorded/{name}.pickle.gz"), &[]);
    }
}

#[test]
fn trace_events_are_json_and_every_slice_ends() {
    let ran = run(&["series", "traces/recorded/mlp.pickle.gz", "--format", "trace-events"]);
    let value: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let events = value["traceEvents"].as_array().unwrap();
    let count = |phase: &str| events.iter().filter(|event| event["ph"] == phase).count();
    assert!(count("b") > 0 && count("C") > 0);
    assert_eq!(count("b"), count("e"));
}

#[test]
fn what_cannot_be_drawn_is_said() {
    let said = |args: &[&str]| {
        let ran = run(args);
        assert_eq!(ran.status.code(), Some(2), "{args:?}");
        String::from_utf8(ran.stderr).unwrap()
    };
    assert!(said(&["plot", STRANDED, "-o", "a.jpg"]).contains(".svg or .png"));
    assert!(said(&["plot", STRANDED, "--at", "3", "-o", "-"]).contains("--kind segments"));
    let two = ["plot", STRANDED, "--conf", "", "--conf", "", "-o", "-"];
    assert!(said(&two).contains("--kind compare"));
    let beyond = ["plot", STRANDED, "--kind", "segments", "--at", "99", "-o", "-"];
    assert!(said(&beyond).contains("the replay has"));
    assert!(said(&["plot", STRANDED, "-o", "no/such/folder/a.svg"]).contains("cannot be written"));
    if Path::new("/dev/full").exists() {
        assert!(said(&["plot", STRANDED, "-o", "/dev/stdin/a.svg"]).contains("cannot be written"));
        assert!(said(&["series", STRANDED, "-o", "/dev/full"]).contains("cannot be written"));
        assert!(Path::new("/dev/full").metadata().is_ok_and(|file| !file.is_file()));
    }
}
