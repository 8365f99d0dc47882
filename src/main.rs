//! The `fragsim` program.
fn main() {}
