//! The `fragsim` program: see `fragsim --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    fragsim::cli::main()
}
