//! The JSON-lines format of traces (`.jsonl`): a header object, then one object an operation.
//!
//! ```text
//!  {"format":"fragsim-trace","version":1}
//!  {"op":"alloc","id":0,"size":3145728}
//!  {"op":"free","id":0}
//! ```
//! `traces/README.md` describes every key. Version 1 holds what a program asked and where it started;
//! what a real allocator recorded ([`Trace::recorded`]) is not part of it.

mod schema;

use std::io::{self, BufRead, Read, Write};

use rustc_hash::FxHashMap;
use serde::Serialize;

use self::schema::{
    Block, FORMAT, Header, Kind, Line, Mode, Probe, Segment, State, VERSION, default_streams,
};
use crate::{
    base::{Bytes, Id, PoolId, StreamHandle, StreamId},
    trace::{
        AllocOp, BlockLayout, BlockState, Control, EventMode, Layout, Op, PoolIndex, SegmentLayout,
        Stream, Trace, TraceBuilder,
        script::{NameState, Names, check_segment},
    },
};

/// The longest line that is read: 64 MiB, for the header of a trace that starts from a full device.
pub const MAX_LINE: u64 = 64 << 20;

/// Why a JSON-lines file is not a trace.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The file cannot be read.
    #[error("line {line}: {source}")]
    Read {
        /// The line, from 1.
        line: usize,
        /// Why.
        source: io::Error,
    },
    /// A line is longer than [`MAX_LINE`].
    #[error("line {line} is longer than {MAX_LINE} bytes")]
    TooLong {
        /// The line, from 1.
        line: usize,
    },
    /// The first line is not the header of such a file.
    #[error(
        "line {line}: not a trace: the first line must be a header such as {{\"format\":\"{FORMAT}\",\"version\":{VERSION}}}"
    )]
    NotATrace {
        /// The line, from 1.
        line: usize,
    },
    /// The format has a version that this package does not know.
    #[error("line {line}: version {version} of the format; this program reads version {VERSION}")]
    Version {
        /// The line, from 1.
        line: usize,
        /// What the header says.
        version: u64,
    },
    /// A line is not understood, or not possible.
    #[error("line {line}: {message}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what to do.
        message: String,
    },
}

/// Reads a trace.
///
/// # Errors
/// At the first line that is not understood or not possible: see [`JsonError`].
///
/// # Complexity
/// Linear in the length of the file; one line is in memory at a time.
///
/// # Examples
/// ```
/// use fragsim::source::json;
/// let file = br#"{"format":"fragsim-trace","version":1}
/// {"op":"alloc","id":0,"size":3145728}
/// {"op":"free","id":0}
/// "#;
/// let trace = json::read(&file[..])?;
/// assert_eq!(trace.ops().len(), 2);
/// # Ok::<(), json::JsonError>(())
/// ```
pub fn read(input: impl BufRead) -> Result<Trace, JsonError> {
    let mut lines = Lines { input, buffer: Vec::new(), number: 0 };
    let Some((number, line)) = lines.next()? else { return Err(JsonError::NotATrace { line: 1 }) };
    let mut reader = header(line, number)?;
    while let Some((number, line)) = lines.next()? {
        let line = serde_json::from_slice(line).map_err(json_message);
        line.and_then(|line| reader.op(line, number))
            .map_err(|message| JsonError::Line { line: number, message })?;
    }
    Ok(reader.builder.build())
}

/// Writes a trace, without what was recorded. `output` gets many small writes: buffer it.
///
/// # Errors
/// When `output` fails, or the trace holds a number that JSON has no word for.
pub fn write(trace: &Trace, mut output: impl Write) -> io::Result<()> {
    write_line(&mut output, &header_of(trace)?)?;
    trace.ops().iter().try_for_each(|op| write_line(&mut output, &line_of(trace, op)?))
}

/// Lines that are not blank, with their numbers from 1.
struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    number: usize,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> Result<Option<(usize, &[u8])>, JsonError> {
        loop {
            self.buffer.clear();
            self.number += 1;
            let line = self.number;
            let mut bounded = Read::take(&mut self.input, MAX_LINE + 1);
            bounded
                .read_until(b'\n', &mut self.buffer)
                .map_err(|source| JsonError::Read { line, source })?;
            if self.buffer.is_empty() {
                return Ok(None);
            }
            if self.buffer.len() as u64 > MAX_LINE {
                return Err(JsonError::TooLong { line });
            }
            if !self.buffer.trim_ascii().is_empty() {
                return Ok(Some((line, self.buffer.trim_ascii())));
            }
        }
    }
}

/// The message of serde_json, which takes every line for the first one.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn json_message(error: serde_json::Error) -> String {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match message.strip_suffix(&place) {
        Some(message) if error.column() > 0 => format!("column {}: {message}", error.column()),
        Some(message) => message.to_owned(),
        None => message,
    }
}

/// Collects the operations of a file.
struct Reader {
    builder: TraceBuilder,
    names: Names<u64>,
    streams: usize,
    pools: FxHashMap<PoolId, Option<PoolIndex>>,
}

fn header(line: &[u8], number: usize) -> Result<Reader, JsonError> {
    let probe: Probe =
        serde_json::from_slice(line).map_err(|_| JsonError::NotATrace { line: number })?;
    if probe.format != FORMAT {
        return Err(JsonError::NotATrace { line: number });
    }
    if probe.version != VERSION {
        return Err(JsonError::Version { line: number, version: probe.version });
    }
    let header = serde_json::from_slice(line).map_err(json_message);
    header
        .and_then(|header| Reader::new(header, number))
        .map_err(|message| JsonError::Line { line: number, message })
}

impl Reader {
    fn new(header: Header, number: usize) -> Result<Self, String> {
        let mut builder = TraceBuilder::new(header.device);
        if header.streams.first() != default_streams().first() {
            return Err("the first of 'streams' must be the default stream, [0,0]".to_owned());
        }
        for (i, (handle, id)) in header.streams.iter().enumerate() {
            let stream = Stream { handle: *handle, id: *id };
            if builder.stream(stream).map_err(display)?.index() != i {
                return Err(format!("two of 'streams' have handle {}", handle.0));
            }
        }
        let mut pools = FxHashMap::default();
        for pool in header.pools {
            check_private(pool)?;
            pools.insert(pool, builder.pool(pool).map_err(display)?);
        }
        let mut names = Names::new();
        let mut active = Vec::new();
        let mut start = Layout::default();
        for segment in header.start {
            let segment = segment_from(segment, &header.streams, &mut active)?;
            check_segment(start.segments.last(), &segment)?;
            start.segments.push(segment);
        }
        let ids = builder.start(start).map_err(display)?.to_vec();
        for ((name, state, label), id) in active.into_iter().zip(ids) {
            names.check_unused(name)?;
            names.set(name, id, state, number);
            if let Some(label) = label {
                builder.label(id, &label).map_err(display)?;
            }
        }
        Ok(Self { builder, names, streams: header.streams.len(), pools })
    }

    fn op(&mut self, line: Line, number: usize) -> Result<(), String> {
        match line {
            Line::Alloc { id: name, size, stream, pool, label } => {
                self.names.check_unused(name)?;
                let stream = self.stream(stream)?;
                let pool = self.pool(pool)?;
                let id = self.builder.alloc(size, stream, pool).map_err(display)?;
                if let Some(label) = label {
                    self.builder.label(id, &label).map_err(display)?;
                }
                self.names.set(name, id, NameState::Live, number);
                Ok(())
            }
            Line::Free { id, pending } => {
                let id = self.names.free(id, number)?;
                self.builder.free(id, pending).map_err(display)
            }
            Line::Completed { id } => {
                let id = self.names.complete(id, number)?;
                self.builder.push(Op::FreeCompleted(id)).map_err(display)
            }
            Line::RecordStream { id, stream } => {
                let (id, stream) = (self.names.live(id)?, self.stream(stream)?);
                self.builder.record_stream(id, stream).map_err(display)
            }
            Line::EmptyCache { pool: None } => self.builder.push(Op::EmptyCache).map_err(display),
            rare => {
                let control = self.control(rare)?;
                self.builder.control(control).map_err(display)
            }
        }
    }

    fn control(&self, line: Line) -> Result<Control, String> {
        Ok(match line {
            Line::EmptyCache { pool } => Control::EmptyPool(pool.unwrap_or_default()),
            Line::SetFraction { fraction } => Control::SetFraction(fraction),
            Line::Settings { text } => Control::Settings(text),
            Line::PoolCreate { pool } => Control::PoolCreate(check_private(pool)?),
            Line::PoolBegin { pool, stream } => Control::PoolBegin(
                check_private(pool)?,
                stream.map(|stream| self.stream(stream)).transpose()?,
            ),
            Line::PoolEnd { pool } => Control::PoolEnd(check_private(pool)?),
            Line::PoolRelease { pool } => Control::PoolRelease(check_private(pool)?),
            Line::UseOnOom { pool, on } => Control::PoolUseOnOom(check_private(pool)?, on),
            Line::NoSplit { pool } => Control::PoolNoSplit(check_private(pool)?),
            Line::CaptureBegin { stream } => Control::CaptureBegin(self.stream(stream)?),
            Line::CaptureEnd { stream } => Control::CaptureEnd(self.stream(stream)?),
            Line::Events { mode } => Control::Events(match mode {
                Mode::Ready => EventMode::Ready,
                Mode::Manual => EventMode::Manual,
                Mode::Polls(polls) => EventMode::Polls(polls),
            }),
            Line::Complete { stream } => {
                Control::Complete(stream.map(|stream| self.stream(stream)).transpose()?)
            }
            Line::External { size } => Control::External(size),
            Line::Total { size } => Control::Total(size),
            Line::ResetPeak {} => Control::ResetPeak,
            Line::ResetAccumulated {} => Control::ResetAccumulated,
            Line::Snapshot { pool } => Control::Snapshot(pool),
            Line::Alloc { .. }
            | Line::Free { .. }
            | Line::Completed { .. }
            | Line::RecordStream { .. } => unreachable!("the caller has done these"),
        })
    }

    fn stream(&self, stream: StreamId) -> Result<StreamId, String> {
        check_stream(stream, self.streams)
    }

    fn pool(&mut self, pool: PoolId) -> Result<Option<PoolIndex>, String> {
        if let Some(known) = self.pools.get(&pool) {
            return Ok(*known);
        }
        let index = self.builder.pool(pool).map_err(display)?;
        self.pools.insert(pool, index);
        Ok(index)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn display(error: impl ToString) -> String {
    error.to_string()
}

fn check_stream(stream: StreamId, count: usize) -> Result<StreamId, String> {
    if stream.index() < count {
        return Ok(stream);
    }
    Err(format!(
        "stream {stream} is not one of the {count} in 'streams' of the header; add it there"
    ))
}

fn check_private(pool: PoolId) -> Result<PoolId, String> {
    if pool.is_private() {
        return Ok(pool);
    }
    Err("pool [0,0] is the default pool; name a private one, such as [0,1]".to_owned())
}

fn segment_from(
    segment: Segment,
    streams: &[(StreamHandle, u64)],
    active: &mut Vec<(u64, NameState, Option<String>)>,
) -> Result<SegmentLayout, String> {
    let stream = check_stream(segment.stream, streams.len())?;
    let mut blocks = Vec::with_capacity(segment.blocks.len());
    for Block { state, id, size, requested, label } in segment.blocks {
        let (name_state, state) = match state {
            State::ActiveAllocated => (Some(NameState::Live), BlockState::ActiveAllocated),
            State::ActivePendingFree => {
                (Some(NameState::PendingAtStart), BlockState::ActivePendingFree)
            }
            State::Inactive => (None, BlockState::Inactive),
        };
        match (name_state, id) {
            (Some(name_state), Some(id)) => active.push((id, name_state, label)),
            (None, None) if label.is_some() => {
                return Err("an inactive block has no 'label'".to_owned());
            }
            (None, None) => {}
            (Some(_), None) => {
                return Err(format!("a block of state '{}' needs an 'id'", state.name()));
            }
            (None, Some(id)) => return Err(format!("an inactive block has no 'id'; it has {id}")),
        }
        let usual = if name_state.is_some() { size } else { Bytes::ZERO };
        blocks.push(BlockLayout { size, requested: requested.unwrap_or(usual), state });
    }
    Ok(SegmentLayout {
        addr: segment.addr,
        stream: streams[stream.index()].0,
        pool: segment.pool,
        is_small: matches!(segment.kind, Kind::Small),
        is_expandable: segment.expandable,
        blocks,
    })
}

fn write_line(output: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *output, line)?;
    output.write_all(b"\n")
}

fn header_of(trace: &Trace) -> io::Result<Header> {
    let streams = trace.streams().iter().map(|stream| (stream.handle, stream.id)).collect();
    let mut ids = trace.start_ids().iter();
    let numbers: FxHashMap<_, _> =
        trace.streams().iter().enumerate().map(|(n, stream)| (stream.handle, n)).collect();
    let segment = |segment: &SegmentLayout| -> io::Result<Segment> {
        let stream = numbers.get(&segment.stream).ok_or_else(|| {
            let message = format!("segment at {}: unknown stream {}", segment.addr, segment.stream);
            io::Error::new(io::ErrorKind::InvalidInput, message)
        })?;
        let blocks = segment.blocks.iter().map(|block| {
            let is_active = block.state != BlockState::Inactive;
            let id = if is_active { ids.next() } else { None };
            let label = id.and_then(|id| trace.labels().get(*id)).map(str::to_owned);
            let id = id.map(|id| u64::from(id.0));
            let usual = if is_active { block.size } else { Bytes::ZERO };
            let requested = (block.requested != usual).then_some(block.requested);
            Block { state: block.state.into(), id, size: block.size, requested, label }
        });
        Ok(Segment {
            addr: segment.addr,
            kind: if segment.is_small { Kind::Small } else { Kind::Large },
            expandable: segment.is_expandable,
            stream: StreamId::from_index(*stream),
            pool: segment.pool,
            blocks: blocks.collect(),
        })
    };
    Ok(Header {
        format: FORMAT.to_owned(),
        version: VERSION,
        device: trace.device(),
        streams,
        pools: trace.pools().as_slice().to_vec(),
        start: trace.start().segments.iter().map(segment).collect::<io::Result<_>>()?,
    })
}

fn line_of(trace: &Trace, op: &Op) -> io::Result<Line> {
    Ok(match op {
        Op::Alloc(AllocOp { id, stream, pool, size }) => Line::Alloc {
            id: id.0.into(),
            size: *size,
            stream: *stream,
            pool: pool.map_or(PoolId::DEFAULT, |pool| trace.pools()[pool]),
            label: trace.labels().get(*id).map(str::to_owned),
        },
        Op::Free(free) => Line::Free { id: free.id.0.into(), pending: free.pending },
        Op::FreeCompleted(id) => Line::Completed { id: id.0.into() },
        Op::RecordStream(id, stream) => Line::RecordStream { id: id.0.into(), stream: *stream },
        Op::EmptyCache => Line::EmptyCache { pool: None },
        Op::Control(id) => control_line(&trace.controls()[*id])?,
    })
}

fn control_line(control: &Control) -> io::Result<Line> {
    Ok(match control {
        Control::EmptyPool(pool) => Line::EmptyCache { pool: Some(*pool) },
        Control::SetFraction(fraction) if fraction.is_finite() => {
            Line::SetFraction { fraction: *fraction }
        }
        Control::SetFraction(fraction) => {
            let message = format!("set_fraction {fraction}: JSON has no word for this number");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Control::Settings(text) => Line::Settings { text: text.clone() },
        Control::PoolCreate(pool) => Line::PoolCreate { pool: *pool },
        Control::PoolBegin(pool, stream) => Line::PoolBegin { pool: *pool, stream: *stream },
        Control::PoolEnd(pool) => Line::PoolEnd { pool: *pool },
        Control::PoolRelease(pool) => Line::PoolRelease { pool: *pool },
        Control::PoolUseOnOom(pool, on) => Line::UseOnOom { pool: *pool, on: *on },
        Control::PoolNoSplit(pool) => Line::NoSplit { pool: *pool },
        Control::CaptureBegin(stream) => Line::CaptureBegin { stream: *stream },
        Control::CaptureEnd(stream) => Line::CaptureEnd { stream: *stream },
        Control::Events(EventMode::Ready) => Line::Events { mode: Mode::Ready },
        Control::Events(EventMode::Manual) => Line::Events { mode: Mode::Manual },
        Control::Events(EventMode::Polls(polls)) => Line::Events { mode: Mode::Polls(*polls) },
        Control::Complete(stream) => Line::Complete { stream: *stream },
        Control::External(size) => Line::External { size: *size },
        Control::Total(size) => Line::Total { size: *size },
        Control::ResetPeak => Line::ResetPeak {},
        Control::ResetAccumulated => Line::ResetAccumulated {},
        Control::Snapshot(pool) => Line::Snapshot { pool: *pool },
    })
}
