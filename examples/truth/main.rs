//! Prints the table of synthetic against real: what real PyTorch programs took, and what the workloads
//! take that are given the same parameters.
//!
//! ```sh
//! cargo run --release --example truth -- ../shared/data/scenarios -o reports/truth.md
//! cargo run --release --example truth -- ../shared/data/scenarios --only precision_gpt
//! ```
//! Exit status: 0 all that is mapped is within its bounds, 1 some is not, 2 the folder is unusable.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command")]
#![allow(unreachable_pub, missing_docs, reason = "modules that a test shares")]

mod bounds;
mod judge;
mod maps;
mod table;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

struct Args {
    folder: PathBuf,
    output: Option<PathBuf>,
    only: String,
}

fn args() -> Result<Args, String> {
    let mut found = Args {
        folder: PathBuf::from("../shared/data/scenarios"),
        output: None,
        only: String::new(),
    };
    let mut given = std::env::args().skip(1);
    while let Some(arg) = given.next() {
        let mut value = || given.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "-o" | "--output" => found.output = Some(PathBuf::from(value()?)),
            "--only" => found.only = value()?,
            _ if arg.starts_with('-') => {
                return Err(format!(
                    "unknown argument '{arg}': truth [FOLDER] [-o FILE] [--only NAME]"
                ));
            }
            folder => found.folder = PathBuf::from(folder),
        }
    }
    Ok(found)
}

fn write(output: Option<&Path>, text: &str) -> std::io::Result<()> {
    match output {
        Some(path) => fs::write(path, text),
        None => match std::io::stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        },
    }
}

fn main() -> ExitCode {
    let ran = args().and_then(|args| {
        let runs = judge::runs(&args.folder, &args.only)?;
        write(args.output.as_deref(), &table::table(&runs)).map_err(|error| error.to_string())?;
        Ok(runs)
    });
    match ran {
        Ok(runs) => {
            let off: Vec<_> = runs.iter().filter(|run| !run.faults().is_empty()).collect();
            for run in &off {
                let faults = run.faults().join(", ");
                eprintln!("truth: {} {}: off: {faults}", run.scenario, run.variation);
            }
            ExitCode::from(u8::from(!off.is_empty()))
        }
        Err(error) => {
            eprintln!("truth: {error}");
            ExitCode::from(2)
        }
    }
}
