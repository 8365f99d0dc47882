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
        packed::{self, Packed},
        snapshot::{self, HistoryError, PickleError, PickleFault, Snapshot, SnapshotError},
    },
    trace::{Case, Trace, script},
};

/// What a file holds.
pub(super) enum Input {
    /// A snapshot of a process.
    Snapshot(Box<Snapshot>),
    /// The traces of one, packed.
    Packed(Box<Packed>),
    /// A golden case.
    Case(Box<Case>),
    /// Operations of one device.
    Trace(Box<Trace>),
}

/// The largest text in the line format.
const TEXT_LIMIT: u64 = 1 << 30;

/// Reads a file of any kind; `-` is standard input.
pub(super) fn open(path: &Path) -> anyhow::Result<Input> {
    read(path, input::open(path)?)
}

/// Whether a file is for [`read`], and not a log or another text: a pickle, a trace or case in JSON, a
/// file that is named as a trace in text; any text, if it must be a trace.
pub(super) fn is_trace(
    path: &Path,
    reader: &mut impl BufRead,
    must_be: bool,
) -> std::io::Result<bool> {
    Ok(match input::sniff(reader)? {
        Kind::Pickle | Kind::Packed | Kind::Zip => true,
        Kind::Json => must_be || !matches!(json_kind(reader)?, JsonKind::Other),
        Kind::Text => must_be || path.extension().is_some_and(|ending| ending == "fragsim"),
        Kind::Html => must_be,
    })
}

/// Reads a file that is open already; `path` is its name.
pub(super) fn read(path: &Path, mut reader: impl BufRead) -> anyhow::Result<Input> {
    let name = || path.display().to_string();
    match input::sniff(&mut reader).with_context(name)? {
        Kind::Json => match json_kind(&mut reader).with_context(name)? {
            JsonKind::Trace => {
                let trace = json::read(reader).with_context(name)?;
                Ok(Input::Trace(Box::new(trace)))
            }
            JsonKind::Case => {
                let case = golden::read(reader).with_context(name)?;
                Ok(Input::Case(Box::new(case)))
            }
            JsonKind::Other => bail!(
                "{}: line 1: JSON, but neither a trace (its first line is {{\"format\":\"fragsim-trace\",\"version\":1}}) nor a golden case (\"case\" in its first line); of a snapshot give the pickle itself",
                path.display()
            ),
        },
        Kind::Pickle => {
            let snapshot = snapshot::read_to_end(reader).map_err(|error| {
                let cure = cure(&error);
                anyhow::anyhow!("{}: {error}{cure}", path.display())
            })?;
            Ok(Input::Snapshot(Box::new(snapshot)))
        }
        Kind::Packed => {
            let mut packed = packed::read(reader).with_context(name)?;
            if packed.is_program()
                && packed.traces.len() == 1
                && let Some(trace) = packed.traces.pop()
            {
                return Ok(Input::Trace(Box::new(trace)));
            }
            Ok(Input::Packed(Box::new(packed)))
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
            let mut bytes = Vec::new();
            reader.take(TEXT_LIMIT).read_to_end(&mut bytes).with_context(name)?;
            let text = String::from_utf8(bytes).map_err(|error| not_text(path, &error))?;
            let trace = script::parse(&text).with_context(|| as_text(path))?;
            Ok(Input::Trace(Box::new(trace)))
        }
    }
}

/// The traces and the warnings of a snapshot, which is let go: of a large one it takes as much memory
/// as its traces.
pub(super) fn traces_of(
    mut snapshot: Box<Snapshot>,
) -> Result<(Vec<Trace>, Vec<String>), HistoryError> {
    // What lies behind the context of an entry is asked for by nobody from here on.
    snapshot.contexts = Vec::new();
    let traces = snapshot.histories()?;
    Ok((traces, snapshot.warnings))
}

/// What to do about a pickle that is no snapshot, where the error does not say.
fn cure(error: &SnapshotError) -> &'static str {
    use PickleFault::{Code, Depth, Full, Late, Length, Number, TooLong, Wide};
    match error {
        SnapshotError::Format(_) => {
            "; the file is damaged, or not what torch.cuda.memory._dump_snapshot() wrote"
        }
        SnapshotError::Pickle(PickleError { fault: Code { .. }, .. }) => {
            "; give a file of torch.cuda.memory._dump_snapshot()"
        }
        SnapshotError::Pickle(PickleError {
            fault: TooLong { .. } | Wide(_) | Number(_) | Length(_) | Depth | Late | Full,
            ..
        }) => "; the file is damaged, or no snapshot",
        _ => "",
    }
}

fn not_text(path: &Path, error: &std::string::FromUtf8Error) -> anyhow::Error {
    let at = error.utf8_error().valid_up_to();
    let byte = error.as_bytes().get(at).copied().unwrap_or_default();
    anyhow::anyhow!(
        "{}: byte {at} ({byte:#04x}): neither a pickle, nor JSON, nor text in UTF-8; give a file of torch.cuda.memory._dump_snapshot() or a trace",
        path.display()
    )
}

/// The name of a file that is read as a trace; where it is called otherwise, why it is read so.
fn as_text(path: &Path) -> String {
    let name = path.display();
    let is_named_so =
        path.extension().is_some_and(|ending| ending == "fragsim") || path.as_os_str() == "-";
    if is_named_so {
        name.to_string()
    } else {
        format!("{name}: not a pickle and not JSON, so read as a trace in text")
    }
}

/// What a JSON file is, by its first line.
enum JsonKind {
    Trace,
    Case,
    Other,
}

fn json_kind(reader: &mut impl BufRead) -> std::io::Result<JsonKind> {
    let start = reader.fill_buf()?;
    let start = start.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(start).trim_ascii_start();
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or(start);
    let head = String::from_utf8_lossy(&line[..line.len().min(512)]);
    Ok(match () {
        () if head.contains("\"fragsim-trace\"") => JsonKind::Trace,
        () if head.contains("\"case\"") => JsonKind::Case,
        () => JsonKind::Other,
    })
}
