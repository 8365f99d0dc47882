//! Every golden case: what the real allocators of fifteen releases did, the model does.
//!
//! Each answer, event, statistic and layout is compared. The cases of 2.11 and 2.15 ship, and the
//! short ones of the other releases; the rest is compared where it is at hand. `FRAGSIM_FRESH` names
//! a folder of cases made by `tests/oracle/fresh.py`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it covers"
)]

mod common;

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use fragsim::study::verify::{DAMAGED, Difference, verify_case};

/// Compares cases; returns the number of operations.
fn verify(paths: &[PathBuf]) -> u64 {
    let (mut ops, mut differences) = (0, Vec::new());
    for path in paths {
        let verdict = verify_case(&common::case(path));
        ops += verdict.ops;
        differences.extend(verdict.difference.map(|found| told(path, &found)));
    }
    let (bad, all) = (differences.len(), paths.len());
    assert!(bad == 0, "{bad} of {all} cases differ\n{}", differences.join("\n"));
    ops
}

fn told(path: &Path, found: &Difference) -> String {
    let cut = |text: &str| text.chars().take(600).collect::<String>();
    let mut text = format!("{}: {}: {}\n", path.display(), found.place, found.asked);
    writeln!(text, "  recorded {}", cut(&found.recorded)).unwrap();
    writeln!(text, "  modelled {}", cut(&found.modelled)).unwrap();
    text
}

/// What ships of a release, and that it does ship.
fn shipped(tag: &str, least: usize) {
    let paths = common::files(&common::package("traces/golden").join(tag), ".jsonl.gz");
    assert!(paths.len() >= least, "{} cases of {tag} ship, not {least}", paths.len());
    println!("{tag}: {} cases, {} operations", paths.len(), verify(&paths));
}

/// What does not ship of it.
fn shared(tag: &str) {
    let paths = common::shared_only(&format!("golden/{tag}"), ".jsonl.gz");
    println!("{tag}: {} more cases, {} operations", paths.len(), verify(&paths));
}

/// A test of each release, so that they run side by side.
macro_rules! releases {
    ($($tag:ident $least:literal),+ $(,)?) => {
        mod shipped_cases {
            $(#[test] fn $tag() { super::shipped(stringify!($tag), $least); })+
        }
        mod shared_cases {
            $(#[test] fn $tag() { super::shared(stringify!($tag)); })+
        }
    };
}

releases! {
    t201 42, t202 42, t203 42, t204 43, t205 43, t206 43, t207 43, t208 43,
    t209 43, t210 44, t211 85, t212 47, t213 47, t214 47, t215 98,
}

/// Cases made a moment ago, that nobody has looked at. Where the real allocator damages its own state
/// first, nothing can be said: that is told, not counted.
#[test]
fn fresh_cases() {
    let Some(folder) = std::env::var_os("FRAGSIM_FRESH") else {
        println!("FRAGSIM_FRESH is not set: no fresh cases");
        return;
    };
    let paths = common::files(Path::new(&folder), ".jsonl.gz");
    assert!(!paths.is_empty(), "no cases in {}", folder.display());
    let (mut exact, mut damaged, mut differences) = (0, 0, Vec::new());
    for path in &paths {
        match verify_case(&common::case(path)).difference {
            None => exact += 1,
            Some(found) if found.likely == DAMAGED => {
                damaged += 1;
                println!("not counted, as {DAMAGED}:\n{}", told(path, &found));
            }
            Some(found) => differences.push(told(path, &found)),
        }
    }
    println!("{exact} exact, {damaged} undefined, {} differ", differences.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
