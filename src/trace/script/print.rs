//! [`print()`]: a trace in the line format.

use std::fmt;

use rustc_hash::FxHashMap;

use super::{cursor::PUNCTUATION, streams::UNDECLARED};
use crate::{
    base::{AllocId, Bytes, Id, PoolId, StreamHandle, StreamId},
    trace::{AllocOp, BlockState, Control, EventMode, Op, SegmentLayout, Stream, Trace},
};

/// The line format of `trace`, one statement a line. Allocations are called a, b, … z, a1, b1, … in
/// the order in which they appear. Recorded events are not part of it.
///
/// [`super::parse`] gives the same trace again, allocations numbered in that order.
pub fn print(trace: &Trace) -> impl fmt::Display {
    Printed { trace, names: Names::of(trace), streams: handles(trace) }
}

/// What an allocation is called: its position in the text.
struct Names(Vec<u32>);

impl Names {
    fn of(trace: &Trace) -> Self {
        let mut order = vec![0; trace.alloc_count() as usize];
        let allocs = trace.ops().iter().filter_map(|op| match op {
            Op::Alloc(alloc) => Some(alloc.id),
            _ => None,
        });
        for (position, id) in (0..).zip(trace.start_ids().iter().copied().chain(allocs)) {
            order[id.index()] = position;
        }
        Self(order)
    }

    fn name(&self, id: AllocId) -> Name {
        Name(self.0[id.index()])
    }
}

struct Name(u32);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = (b'a'..=b'z').map(char::from).nth((self.0 % 26) as usize).unwrap_or('x');
        match self.0 / 26 {
            0 => write!(f, "{letter}"),
            n => write!(f, "{letter}{n}"),
        }
    }
}

/// The largest unit that gives a whole number.
struct Size(Bytes);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.0 {
            0 => f.write_str("0"),
            n if n % (1 << 30) == 0 => write!(f, "{}GiB", n >> 30),
            n if n % (1 << 20) == 0 => write!(f, "{}MiB", n >> 20),
            n if n % (1 << 10) == 0 => write!(f, "{}KiB", n >> 10),
            n => write!(f, "{n}"),
        }
    }
}

/// A label: one word, or text in quotes.
struct Label<'a>(&'a str);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_word = |c: char| !c.is_whitespace() && !PUNCTUATION.contains(&c);
        if !self.0.is_empty() && self.0.chars().all(is_word) {
            return f.write_str(self.0);
        }
        quoted(f, self.0)
    }
}

/// A text that the line format takes as one argument.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0;
        let is_plain = !text.is_empty()
            && text.trim() == text
            && !text.starts_with('"')
            && !text.contains([';', '#', '\n', '\r']);
        if is_plain {
            return f.write_str(text);
        }
        quoted(f, text)
    }
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

fn handles(trace: &Trace) -> FxHashMap<StreamHandle, usize> {
    trace.streams().iter().enumerate().map(|(n, stream)| (stream.handle, n)).collect()
}

struct Printed<'a> {
    trace: &'a Trace,
    names: Names,
    streams: FxHashMap<StreamHandle, usize>,
}

impl fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.header(f)?;
        for op in self.trace.ops() {
            self.op(f, op)?;
        }
        Ok(())
    }
}

impl Printed<'_> {
    fn header(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trace = self.trace;
        if trace.device().0 != 0 {
            writeln!(f, "device {}", trace.device())?;
        }
        let streams = trace.streams();
        let is_last_unused = self.last_stream_named() + 1 < streams.len();
        for (n, stream) in streams.iter().enumerate().skip(1) {
            let is_numbered = *stream == Stream::numbered(StreamId::from_index(n));
            let is_needed = is_last_unused && n + 1 == streams.len();
            if streams.len() > UNDECLARED || !is_numbered || is_needed {
                writeln!(f, "stream {n} handle {} id {}", stream.handle, stream.id)?;
            }
        }
        if !self.are_pools_in_order() {
            for pool in trace.pools() {
                writeln!(f, "pool {pool}")?;
            }
        }
        let mut ids = trace.start_ids().iter();
        for segment in &trace.start().segments {
            self.segment(f, segment, &mut ids)?;
        }
        Ok(())
    }

    /// The largest stream number that the text will name.
    fn last_stream_named(&self) -> usize {
        let start = self.trace.start().segments.iter().filter_map(|s| self.streams.get(&s.stream));
        let ops = self.trace.ops().iter().filter_map(|op| match op {
            Op::Alloc(alloc) => Some(alloc.stream.index()),
            Op::RecordStream(_, stream) => Some(stream.index()),
            Op::Control(id) => match &self.trace.controls()[*id] {
                Control::PoolBegin(_, stream) | Control::Complete(stream) => stream.map(Id::index),
                Control::CaptureBegin(stream) | Control::CaptureEnd(stream) => Some(stream.index()),
                _ => None,
            },
            Op::Free(_) | Op::FreeCompleted(_) | Op::EmptyCache => None,
        });
        start.copied().chain(ops).max().unwrap_or(0)
    }

    /// Whether reading the requests numbers the pools as they are numbered.
    fn are_pools_in_order(&self) -> bool {
        let mut seen = 0;
        for op in self.trace.ops() {
            if let Op::Alloc(AllocOp { pool: Some(pool), .. }) = op {
                if pool.index() > seen {
                    return false;
                }
                seen = seen.max(pool.index() + 1);
            }
        }
        seen == self.trace.pools().len()
    }

    fn segment<'i>(
        &self,
        f: &mut fmt::Formatter<'_>,
        segment: &SegmentLayout,
        ids: &mut impl Iterator<Item = &'i AllocId>,
    ) -> fmt::Result {
        let kind = if segment.is_small { "small" } else { "large" };
        write!(f, "start {} {kind}", segment.addr)?;
        if segment.is_expandable {
            f.write_str(" expandable")?;
        }
        match self.streams.get(&segment.stream) {
            Some(0) => {}
            Some(n) => write!(f, " stream {n}")?,
            // Against the promise of a trace; better seen than left out.
            None => write!(f, " stream {}", segment.stream)?,
        }
        if segment.pool.is_private() {
            write!(f, " pool {}", segment.pool)?;
        }
        for block in &segment.blocks {
            let mark = match block.state {
                BlockState::ActiveAllocated => " |",
                BlockState::ActivePendingFree => " | ~",
                BlockState::Inactive => " | .",
            };
            f.write_str(mark)?;
            let (mut usual, mut id) = (Bytes::ZERO, None);
            if block.state != BlockState::Inactive {
                usual = block.size;
                id = ids.next();
                if let Some(id) = id {
                    write!(f, " {}", self.names.name(*id))?;
                }
            }
            write!(f, " {}", Size(block.size))?;
            if block.requested != usual {
                write!(f, "({})", Size(block.requested))?;
            }
            if let Some(label) = id.and_then(|id| self.trace.labels().get(*id)) {
                write!(f, " label {}", Label(label))?;
            }
        }
        writeln!(f)
    }

    fn op(&self, f: &mut fmt::Formatter<'_>, op: &Op) -> fmt::Result {
        match op {
            Op::Alloc(alloc) => {
                write!(f, "{} = alloc {}", self.names.name(alloc.id), Size(alloc.size))?;
                if alloc.stream.0 != 0 {
                    write!(f, " stream {}", alloc.stream)?;
                }
                if let Some(pool) = alloc.pool {
                    write!(f, " pool {}", self.trace.pools()[pool])?;
                }
                if let Some(label) = self.trace.labels().get(alloc.id) {
                    write!(f, " label {}", Label(label))?;
                }
                writeln!(f)
            }
            Op::Free(free) => {
                let pending = if free.pending { " pending" } else { "" };
                writeln!(f, "free {}{pending}", self.names.name(free.id))
            }
            Op::FreeCompleted(id) => writeln!(f, "completed {}", self.names.name(*id)),
            Op::RecordStream(id, stream) => {
                writeln!(f, "record_stream {} {stream}", self.names.name(*id))
            }
            Op::EmptyCache => writeln!(f, "empty_cache"),
            Op::Control(id) => control(f, &self.trace.controls()[*id]),
        }
    }
}

fn control(f: &mut fmt::Formatter<'_>, control: &Control) -> fmt::Result {
    let pool = |f: &mut fmt::Formatter<'_>, word: &str, pool: &PoolId| writeln!(f, "{word} {pool}");
    match control {
        Control::EmptyPool(id) => pool(f, "empty_cache", id),
        Control::SetFraction(fraction) => writeln!(f, "set_fraction {fraction:?}"),
        Control::Settings(text) => writeln!(f, "settings {}", Text(text)),
        Control::PoolCreate(id) => pool(f, "pool_create", id),
        Control::PoolBegin(id, None) => pool(f, "pool_begin", id),
        Control::PoolBegin(id, Some(stream)) => writeln!(f, "pool_begin {id} stream {stream}"),
        Control::PoolEnd(id) => pool(f, "pool_end", id),
        Control::PoolRelease(id) => pool(f, "pool_release", id),
        Control::PoolUseOnOom(id, true) => writeln!(f, "use_on_oom {id} on"),
        Control::PoolUseOnOom(id, false) => writeln!(f, "use_on_oom {id} off"),
        Control::PoolNoSplit(id) => pool(f, "no_split", id),
        Control::CaptureBegin(stream) => writeln!(f, "capture_begin {stream}"),
        Control::CaptureEnd(stream) => writeln!(f, "capture_end {stream}"),
        Control::Events(EventMode::Ready) => writeln!(f, "events ready"),
        Control::Events(EventMode::Manual) => writeln!(f, "events manual"),
        Control::Events(EventMode::Polls(polls)) => writeln!(f, "events polls {polls}"),
        Control::Complete(Some(stream)) => writeln!(f, "complete {stream}"),
        Control::Complete(None) => writeln!(f, "complete all"),
        Control::External(size) => writeln!(f, "external {}", Size(*size)),
        Control::Total(size) => writeln!(f, "total {}", Size(*size)),
        Control::ResetPeak => writeln!(f, "reset_peak"),
        Control::ResetAccumulated => writeln!(f, "reset_accumulated"),
        Control::Snapshot(None) => writeln!(f, "snapshot"),
        Control::Snapshot(Some(id)) => pool(f, "snapshot", id),
    }
}
