//! `torch.cuda.memory._snapshot()` pickles.
//!
//! ```text
//!   bytes ─► pickle (a machine for plain data) ─► heap (shared, condensed) ─► lift (checked) ─► raw::Snapshot
//! ```
//! The machine knows opcodes, the heap knows which dicts are trace entries and stack frames, the
//! lift knows the format. None of them knows what an allocator does.
//!
//! # Examples
//! ```
//! use fragsim::source::snapshot;
//! // {"segments": [], "device_traces": [[]]}
//! let bytes = b"\x80\x02}(X\x08\x00\x00\x00segments]X\x0d\x00\x00\x00device_traces]]au.";
//! let snapshot = snapshot::read(&bytes[..])?;
//! assert_eq!(snapshot.entries(), 0);
//! # Ok::<(), snapshot::SnapshotError>(())
//! ```

mod census;
mod entries;
mod fault;
mod heap;
mod history;
mod keys;
mod lift;
mod lift_segments;
mod lift_settings;
mod lift_traces;
mod memo;
mod operations;
mod overlap;
mod overview;
pub mod pickle;
mod ranges;
pub mod raw;
mod raw_stacks;
mod rebuild;
mod release;
mod rows;
mod shape;
mod shown;
mod sites;
mod start;
mod text;
mod traces;
mod window;

use std::{
    io::BufRead,
    path::{Path, PathBuf},
};

pub use self::overview::{DeviceOverview, Overview};
pub use self::traces::HistoryError;
pub use self::{
    keys::{Key, KeySet},
    lift::FormatError,
    pickle::{PickleError, PickleFault},
    raw::{
        Action, Annotation, Block, BlockState, Entry, Format, Frame, KeysSeen, Segment,
        SegmentType, Settings, Site, Snapshot, Stage,
    },
    text::{ContextId, FrameId, PoolRef, SiteId, StackId, Stacks, StrId, Strings},
};
use super::input::{self, InputError};

/// Why a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file cannot be opened.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The bytes are no pickle of plain data.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    /// The pickle is no snapshot.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Either of the two, with the file's name.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: Box<Self>,
    },
}

/// Reads one snapshot from unpacked bytes, up to the end of the pickle.
///
/// # Errors
/// When the bytes are no pickle, hold anything but plain data, or are no snapshot. No input makes
/// it panic.
///
/// # Complexity
/// O(bytes) time. Memory is what is distinct: a stack frame or stack that a million entries share
/// is kept once.
pub fn read(reader: impl BufRead) -> Result<Snapshot, SnapshotError> {
    parse(reader, false)
}

/// Reads one snapshot like [`read`], and goes on to the end of the input, so that a damaged
/// compressed file is found out by its checksum.
///
/// # Errors
/// As [`read`], and when the input cannot be unpacked.
pub fn read_to_end(reader: impl BufRead) -> Result<Snapshot, SnapshotError> {
    parse(reader, true)
}

/// Reads the snapshot in a file (or standard input, for `-`), packed or not.
///
/// Unlike [`read`] it goes on to the end of the file, so that a damaged compressed file is found
/// out by its checksum.
///
/// # Errors
/// As [`read`], and when the file cannot be opened or unpacked. Messages name the file.
pub fn load(path: impl AsRef<Path>) -> Result<Snapshot, SnapshotError> {
    let path = path.as_ref();
    parse(input::open(path)?, true)
        .map_err(|error| SnapshotError::File { path: path.to_owned(), error: Box::new(error) })
}

fn parse(reader: impl BufRead, drain: bool) -> Result<Snapshot, SnapshotError> {
    let (heap, root, rest) = pickle::unpickle(reader, drain)?;
    let mut snapshot = lift::lift(heap, root)?;
    if rest > 0 {
        snapshot.warnings.push(format!("{rest} bytes after the end of the pickle are ignored"));
    }
    Ok(snapshot)
}
