//! Lessons: what each claims is what its replay shows.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

use fragsim::lesson::{SHELF, Told};

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
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
