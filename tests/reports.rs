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

/// Pages are left out: how well they are packed depends on the library that packs them.
#[test]
#[cfg(unix)]
fn the_pictures_are_what_plot_draws() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new("sh")
        .arg(package.join("reports/make.sh"))
        .args([Path::new(env!("CARGO_BIN_EXE_fragsim")), folder.path()])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut pictures = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let name = entry.unwrap().file_name();
        let [drawn, kept] = [folder.path(), &package.join("reports")]
            .map(|folder| std::fs::read_to_string(folder.join(&name)));
        if name.to_string_lossy().ends_with(".svg") {
            assert!(drawn.unwrap() == kept.unwrap(), "{}: run reports/make.sh", name.display());
            pictures += 1;
        }
    }
    assert_eq!(pictures, 8);
}
