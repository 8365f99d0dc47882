//! Opens any input.

use std::{
    io::{BufRead, Read},
    path::Path,
};

use anyhow::{Context, bail};

use crate::{
    source::{
        golden,
        input::{self, Kind},
        json,
        snapshot::{self, Snapshot},
    },
    trace::{Case, Trace, script},
};

/// What a file holds.
pub(super) enum Input {
    /// A snapshot of a process.
    Snapshot(Box<Snapshot>),
    /// A golden case.
    Case(Box<Case>),
    /// Operations of one device.
    Trace(Box<Trace>),
}

/// The largest text in the line format.
const TEXT_LIMIT: u64 = 1 << 30;

/// Reads a file of any kind; `-` is standard input.
pub(super) fn open(path: &Path) -> anyhow::Result<Input> {
    let mut reader = input::open(path)?;
    let name = || path.display().to_string();
    match input::sniff(&mut reader).with_context(name)? {
        Kind::Json => {
            let is_trace = starts_as_trace(&mut reader).with_context(name)?;
            if is_trace {
                let trace = json::read(reader).with_context(name)?;
                return Ok(Input::Trace(Box::new(trace)));
            }
            let case = golden::read(reader).with_context(name)?;
            Ok(Input::Case(Box::new(case)))
        }
        Kind::Pickle => {
            let snapshot = snapshot::read_to_end(reader).with_context(name)?;
            Ok(Input::Snapshot(Box::new(snapshot)))
        }
        Kind::Html => bail!(
            "{}: this is the page of a viewer; give the pickle that it was made from",
            path.display()
        ),
        Kind::Zip => bail!(
            "{}: this is a zip archive (a checkpoint of torch.save?), not a memory snapshot; make one with torch.cuda.memory._dump_snapshot()",
            path.display()
        ),
        Kind::Text => {
            let mut text = String::new();
            let read = reader.take(TEXT_LIMIT).read_to_string(&mut text);
            read.with_context(|| format!("{}: neither a pickle nor text", path.display()))?;
            let trace = script::parse(&text).with_context(name)?;
            Ok(Input::Trace(Box::new(trace)))
        }
    }
}

/// Whether JSON begins with the header of our own trace format.
fn starts_as_trace(reader: &mut impl BufRead) -> std::io::Result<bool> {
    let start = reader.fill_buf()?;
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or(start);
    let head = String::from_utf8_lossy(&line[..line.len().min(512)]);
    Ok(head.contains("\"fragsim-trace\""))
}
