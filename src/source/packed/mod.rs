//! The packed form of a recording: its traces, ready to be replayed, in one small file.
//!
//! ```text
//!   magic (8)   version (4)   form (4)   length unpacked (8)   CRC-32 (4)   body
//! ```
//! Numbers are little-endian. The checksum is over all that stands before it and the body. The body
//! is the [bitcode](https://docs.rs/bitcode) encoding of `columns::File`, in a zstd frame (form 1)
//! or as it is (form 0). Of a program that was never recorded, the body is the encoding of its traces
//! as JSON lines, in a zstd frame (form 3) or as it is (form 2).
//!
//! Of the formats tried on the recording `big_1m` (73 MB of pickle; 713,000 operations with 1,069,000
//! events), both unpack the columns of `columns.rs` in a small part of the time that it takes to build
//! the trace from them (medians of five, on a machine that was busy with other things), and bitcode is
//! the smaller one:
//!
//! | body | as it is | zstd 1 | zstd 3 | zstd 9 | unpacked and decoded |
//! | --- | --- | --- | --- | --- | --- |
//! | bitcode 0.6 | 4,725,253 B | 169,664 B | 178,715 B | 158,012 B | 15 to 21 ms |
//! | postcard 1.1 | 5,053,693 B | 299,269 B | 223,193 B | 176,750 B | 11 to 15 ms |
//!
//! Of a snapshot it keeps what `verify`, `replay` and `inspect` look at; where the program was at
//! each call is not in it. It is made to be opened again soon, not to be kept for years: a version is
//! read by the releases of fragsim that know it, and the snapshot remains the source.

mod columns;
mod decode;
mod encode;
mod program;
mod unpack_events;
mod unpack_ops;

use std::io::Read;

use super::snapshot::Overview;
use crate::trace::{Trace, TraceError};

/// The first bytes of a packed file. No text and no pickle begins so.
pub const MAGIC: [u8; 8] = *b"\x89fragsim";
/// The version that is written, and the only one that is read.
pub const VERSION: u32 = 1;

const HEAD: usize = 28;
/// How the body stands in the file.
const STORED: u32 = 0;
const ZSTD: u32 = 1;
const PROGRAM_STORED: u32 = 2;
const PROGRAM_ZSTD: u32 = 3;
/// A body in zstd may unpack to this many times its size, and to [`SMALL`] in any case.
const RATIO: u64 = 256;
const SMALL: u64 = 16 << 20;

/// What an operation is, and whether its events are written out.
mod kind {
    pub(super) const ALLOC_PLAIN: u8 = 0;
    pub(super) const FREE_PLAIN: u8 = 1;
    pub(super) const ALLOC: u8 = 2;
    pub(super) const FREE: u8 = 3;
    pub(super) const FREE_PENDING: u8 = 4;
    pub(super) const FREE_COMPLETED: u8 = 5;
    pub(super) const RECORD_STREAM: u8 = 6;
    pub(super) const EMPTY_CACHE: u8 = 7;
    pub(super) const CONTROL: u8 = 8;
}

/// A recording, or a program that was never recorded, as it stands in a packed file.
#[derive(Clone, Debug)]
pub struct Packed {
    /// What is said of it as a whole.
    pub overview: Overview,
    /// The operations of every device that has a history, in the order of the devices.
    pub traces: Vec<Trace>,
}

impl Packed {
    /// Whether no recording is behind it.
    pub fn is_program(&self) -> bool {
        self.traces.iter().all(|trace| trace.recorded().is_none())
    }
}

/// Why a recording cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A trace that no recording holds.
    #[error("the trace was not made from a snapshot; only a recording can be packed")]
    NotRecorded,
    /// The compressor failed.
    #[error("the traces cannot be compressed: {0}")]
    Compress(std::io::Error),
}

/// Why a packed file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PackedFault {
    /// The file cannot be read.
    #[error("cannot be read on: {0}")]
    Read(std::io::Error),
    /// Another file.
    #[error("byte 0: not a packed recording; fragsim pack makes one from a snapshot")]
    Foreign,
    /// The file ends too early.
    #[error(
        "byte {0}: the packed recording ends early: the file was cut; copy it again, or pack the snapshot again"
    )]
    Cut(u64),
    /// Written by another fragsim.
    #[error(
        "byte 8: a packed recording of version {0}; this fragsim reads version {VERSION}: pack the snapshot again"
    )]
    Version(u32),
    /// The checksum differs, or what it covers cannot be.
    #[error(
        "byte {at}: the packed recording is damaged ({what}); copy it again, or pack the snapshot again"
    )]
    Damaged {
        /// Where it was found.
        at: u64,
        /// What was found.
        what: String,
    },
    /// The body is sound but says what cannot be.
    #[error("byte 28: the packed recording contradicts itself ({0}); pack the snapshot again")]
    Contents(&'static str),
    /// The body is sound but holds no trace.
    #[error("byte 28: the packed recording contradicts itself ({0}); pack the snapshot again")]
    Trace(#[from] TraceError),
}

/// The packed form of a recording.
///
/// # Errors
/// When a trace was not made from a snapshot.
///
/// # Complexity
/// O(n) in the number of operations and events.
pub fn to_bytes(overview: &Overview, traces: &[Trace]) -> Result<Vec<u8>, PackError> {
    let traces = traces.iter().map(encode::trace).collect::<Result<_, _>>()?;
    let file = columns::File { overview: encode::overview(overview), traces };
    let body = bitcode::encode(&file);
    drop(file);
    enclose(body, [STORED, ZSTD])
}

/// The packed form of programs that were never recorded, one trace a device: what was asked, and the
/// labels.
///
/// # Errors
/// When a trace holds a number that has no packed form.
///
/// # Complexity
/// O(n) in the number of operations.
pub fn program_to_bytes(traces: &[Trace]) -> Result<Vec<u8>, PackError> {
    enclose(program::encode(traces)?, [PROGRAM_STORED, PROGRAM_ZSTD])
}

/// Puts the head before a body, which is compressed where that may be read again.
fn enclose(body: Vec<u8>, [stored, zstd]: [u32; 2]) -> Result<Vec<u8>, PackError> {
    let small = zstd::bulk::compress(&body, LEVEL).map_err(PackError::Compress)?;
    let is_small = may_unpack_to(small.len()) >= body.len() as u64 && small.len() < body.len();
    let length = body.len() as u64;
    let (form, body) = if is_small { (zstd, small) } else { (stored, body) };
    let mut bytes = Vec::with_capacity(HEAD + body.len());
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(form.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.extend(checksum(&bytes, &body).to_le_bytes());
    bytes.extend(body);
    Ok(bytes)
}

const LEVEL: i32 = 3;

fn may_unpack_to(packed: usize) -> u64 {
    (packed as u64).saturating_mul(RATIO).max(SMALL)
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(head);
    crc.update(body);
    crc.sum()
}

/// Reads the packed form of a recording.
///
/// # Errors
/// When it is cut, damaged, of another version or no packed form. The checksum is looked at before
/// anything is unpacked, and a body may unpack to at most 256 times its size (to 16 MiB in any case).
/// It finds damage; it does not keep anybody from making up a recording that no allocator made.
///
/// # Complexity
/// O(n) in the number of operations and events.
pub fn read(mut reader: impl Read) -> Result<Packed, PackedFault> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(PackedFault::Read)?;
    from_bytes(&bytes)
}

/// Reads the packed form of a recording, as [`read`].
///
/// # Errors
/// As [`read`].
pub fn from_bytes(bytes: &[u8]) -> Result<Packed, PackedFault> {
    let start = &bytes[..bytes.len().min(MAGIC.len())];
    if !MAGIC.starts_with(start) {
        return Err(PackedFault::Foreign);
    }
    let Some((head, body)) = bytes.split_at_checked(HEAD) else {
        return Err(PackedFault::Cut(bytes.len() as u64));
    };
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if word(8) != VERSION {
        return Err(PackedFault::Version(word(8)));
    }
    if word(24) != checksum(&head[..24], body) {
        let what = "its checksum differs: it was cut or changed".to_owned();
        return Err(PackedFault::Damaged { at: bytes.len() as u64, what });
    }
    let length = u64::from(word(16)) | u64::from(word(20)) << 32;
    let damaged = |what: String| PackedFault::Damaged { at: HEAD as u64, what };
    match word(12) {
        form @ (STORED | PROGRAM_STORED) => decoded(form, body),
        form @ (ZSTD | PROGRAM_ZSTD) => {
            let length =
                usize::try_from(length).ok().filter(|_| length <= may_unpack_to(body.len()));
            let length = length.ok_or_else(|| damaged("its length cannot be".to_owned()))?;
            let body =
                zstd::bulk::decompress(body, length).map_err(|error| damaged(error.to_string()))?;
            decoded(form, &body)
        }
        form => Err(damaged(format!("form {form} of the body is not known"))),
    }
}

fn decoded(form: u32, body: &[u8]) -> Result<Packed, PackedFault> {
    if form >= PROGRAM_STORED {
        return Ok(Packed { overview: Overview::default(), traces: program::decode(body)? });
    }
    let file: columns::File = bitcode::decode(body)
        .map_err(|error| PackedFault::Damaged { at: HEAD as u64, what: error.to_string() })?;
    let overview = decode::overview(file.overview)?;
    let traces = file.traces.into_iter().map(decode::trace).collect::<Result<_, _>>()?;
    Ok(Packed { overview, traces })
}
