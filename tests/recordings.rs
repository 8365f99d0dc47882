//! Recordings of whole programs.
use fragsim::{
    source::snapshot,
    study::verify::{VerifyOptions, verify_trace},
};
use std::path::{Path, PathBuf};

#[test]
fn debug_recordings() {
    let dirs = std::env::var("DIRS").unwrap_or("recorded recorded/t215 scenarios public".into());
    let (mut n, mut bad) = (0, 0);
    for dir in dirs.split(' ') {
        let dir = Path::new("../shared/data").join(dir);
        let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.to_string_lossy().ends_with("pickle.gz"))
            .collect();
        files.sort();
        for file in files {
            n += 1;
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            let snap = match snapshot::load(&file) {
                Ok(s) => s,
                Err(e) => {
                    println!("{name}: LOAD {e}");
                    bad += 1;
                    continue;
                }
            };
            let traces = match snap.histories() {
                Ok(t) => t,
                Err(e) => {
                    println!("{name}: HISTORY {e}");
                    bad += 1;
                    continue;
                }
            };
            for trace in traces {
                let v = verify_trace(&trace, &VerifyOptions::default());
                if let Some(d) = &v.difference {
                    bad += 1;
                    println!(
                        "{name}: torch {} ops {} of {}: {} | {}\n    recorded {}\n    modelled {}\n{}  notes {:?}",
                        v.release,
                        v.ops,
                        trace.ops().len(),
                        d.place,
                        d.asked,
                        d.recorded.chars().take(300).collect::<String>(),
                        d.modelled.chars().take(300).collect::<String>(),
                        d.around.chars().take(1500).collect::<String>(),
                        v.notes
                    );
                } else if !name.contains("__") || name.contains("assignm") {
                    println!("{name}: exact torch {} ops {} {:?}", v.release, v.ops, v.notes);
                }
            }
        }
    }
    println!("{bad} of {n} bad");
}
