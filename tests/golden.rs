//! Every golden case: what the real allocators of fifteen releases did, the model does.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use fragsim::{source::golden, study::verify::verify_case};

fn cases(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(dir) else { return found };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(cases(&path));
        } else if path.to_string_lossy().ends_with(".jsonl.gz") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn debug_cases() {
    let dir = std::env::var("CASES").unwrap_or("../shared/data/golden".into());
    let all = cases(Path::new(&dir));
    let mut bad = 0;
    for path in &all {
        if path.to_string_lossy().contains("parser") {
            continue;
        }
        let file = BufReader::new(MultiGzDecoder::new(File::open(path).unwrap()));
        let case = match golden::read(file) {
            Ok(c) => c,
            Err(e) => {
                println!("{}: {e}", path.display());
                bad += 1;
                continue;
            }
        };
        let verdict = verify_case(&case);
        if let Some(d) = verdict.difference {
            bad += 1;
            if bad < 60 {
                if std::env::var("AROUND").is_ok() {
                    println!("AROUND\n{}", d.around);
                }
                println!("LIKELY {}", d.likely);
                println!(
                    "{}: {} | {}\n   recorded {}\n   modelled {}",
                    path.display(),
                    d.place,
                    d.asked,
                    d.recorded.chars().take(600).collect::<String>(),
                    d.modelled.chars().take(600).collect::<String>()
                );
            }
        }
    }
    println!("{bad} of {} differ", all.len());
}
