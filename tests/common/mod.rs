//! Where the data of the tests lies, and what every test over data shares.
//!
//! What ships is in `traces`. More of it may stand beside the package in `../shared`, or where
//! `FRAGSIM_SHARED` says; a test that finds none there says so and passes on what ships.

#![allow(dead_code, reason = "each file of tests uses its own part")]

use std::{
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use fragsim::{
    source::{golden, snapshot},
    trace::{Case, Trace},
};

/// A folder of the package.
pub(crate) fn package(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

/// A folder of the data that does not ship; `None`, with a line that says so, where it is absent.
pub(crate) fn shared(folder: &str) -> Option<PathBuf> {
    let shared = std::env::var_os("FRAGSIM_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let data = shared.join("data").join(folder);
    if data.is_dir() {
        return Some(data);
    }
    println!("{} is absent: only what ships is tested", data.display());
    None
}

/// The files below a folder whose names end so, sorted.
pub(crate) fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The files of `folder` below the shared data that do not ship in `traces/<folder>`, byte for byte.
pub(crate) fn shared_only(folder: &str, ending: &str) -> Vec<PathBuf> {
    let Some(root) = shared(folder) else { return Vec::new() };
    let shipped = package("traces").join(folder);
    let ships = |path: &PathBuf| {
        let twin = path.strip_prefix(&root).map(|name| shipped.join(name));
        twin.is_ok_and(|twin| twin.is_file() && fs::read(twin).unwrap() == fs::read(path).unwrap())
    };
    files(&root, ending).into_iter().filter(|path| !ships(path)).collect()
}

/// A golden case.
pub(crate) fn case(path: &Path) -> Case {
    let file = File::open(path).unwrap();
    let case = golden::read(BufReader::new(MultiGzDecoder::new(file)));
    case.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The histories of a recording.
pub(crate) fn histories(path: &Path) -> Vec<Trace> {
    let snapshot = snapshot::load(path).unwrap_or_else(|error| panic!("{error}"));
    snapshot.histories().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
