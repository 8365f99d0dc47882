//! The examples under `reports/` are what the program prints today.
#![cfg(feature = "cli")]
#![expect(clippy::unwrap_used, reason = "a test may stop at the first thing that fails")]

use std::{path::Path, process::Command};

/// The recordings that ship, in the order of a shell's patterns: those of the folder, then those of
/// its folders.
fn shipped() -> Vec<String> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = |dir: &str| -> Vec<String> {
        let entries = std::fs::read_dir(package.join(dir)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| format!("{dir}/{}", entry.unwrap().file_name().to_string_lossy()))
            .collect();
        names.sort();
        names
    };
    let top = list("traces/recorded");
    let (files, dirs): (Vec<String>, Vec<String>) =
        top.into_iter().partition(|name| name.ends_with(".pickle.gz"));
    let deeper = dirs.iter().filter(|dir| package.join(dir).is_dir()).flat_map(|dir| list(dir));
    files.into_iter().chain(deeper.filter(|name| name.ends_with(".pickle.gz"))).collect()
}

#[test]
fn the_certificate_is_what_verify_prints() {
    let output = Command::new(env!("CARGO_BIN_EXE_fragsim"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .arg("verify")
        .args(shipped())
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let kept = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("reports/certificate.txt"),
    );
    assert_eq!(printed, kept.unwrap());
    assert!(output.status.success());
}
