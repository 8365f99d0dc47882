//! The line format of traces, as people write them: `a = alloc 3MiB; free a`.
//!
//! [`parse`] reads it and [`print()`] writes it; `parse(print(t))` is `t`, its recorded events apart.
//! `traces/README.md` describes every statement.
//!
//! ```text
//!  script     = { line }
//!  line       = [ statement { ";" statement } ] [ "#" comment ]
//!  statement  = header (before the first operation) | operation
//!  operation  = NAME "=" "alloc" SIZE ["stream" N] ["pool" POOL] ["label" TEXT] | "free" NAME ["pending"] | …
//! ```

mod cursor;
mod names;
mod print;
mod streams;

use rustc_hash::FxHashMap;

pub(crate) use self::names::{NameState, Names};
pub use self::print::print;
use self::{
    cursor::{Cursor, Word},
    streams::Streams,
};
use super::{
    BlockLayout, BlockState, Control, EventMode, Layout, Op, PoolIndex, SegmentLayout, Stream,
    Trace, TraceBuilder, TraceError,
};
use crate::base::{Addr, AllocId, Bytes, DeviceIndex, PoolId, StreamHandle, StreamId, near};

/// Why a text is not a trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ScriptError {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The word there, at most 64 characters of it; empty at the end of a line.
    pub word: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Reads a trace from its line format.
///
/// # Errors
/// At the first statement that is not understood or not possible: see [`ScriptError`].
///
/// # Complexity
/// Linear in the length of the text.
///
/// # Examples
/// ```
/// use fragsim::trace::script;
/// let trace = script::parse("a = alloc 3MiB; free a\nempty_cache")?;
/// assert_eq!(trace.ops().len(), 3);
/// assert_eq!(script::print(&trace).to_string(), "a = alloc 3MiB\nfree a\nempty_cache\n");
///
/// let error = script::parse("a = alloc 3MiB\nfre a").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "line 2, column 1: unknown statement 'fre'; did you mean 'free'?"
/// );
/// # Ok::<(), script::ScriptError>(())
/// ```
pub fn parse(text: &str) -> Result<Trace, ScriptError> {
    read(text, None)
}

/// Reads a trace, and keeps what its text says beside the operations.
///
/// # Errors
/// As [`parse`].
///
/// # Examples
/// ```
/// use fragsim::trace::script;
/// let read = script::annotated("a = alloc 3MiB; free a  # and back\n")?;
/// assert_eq!(read.statements[1].text, "free a");
/// assert_eq!((read.names[0], read.comments[0]), ("a", "and back"));
/// # Ok::<(), script::ScriptError>(())
/// ```
pub fn annotated(text: &str) -> Result<Annotated<'_>, ScriptError> {
    let mut notes = Annotated::default();
    notes.trace = read(text, Some(&mut notes))?;
    Ok(notes)
}

/// A trace and what its text says beside the operations.
#[derive(Clone, Debug, Default)]
pub struct Annotated<'a> {
    /// The operations.
    pub trace: Trace,
    /// The statement of each operation.
    pub statements: Vec<Statement<'a>>,
    /// What each allocation is called, by its number.
    pub names: Vec<&'a str>,
    /// The comment of each line without its `#`; empty where there is none.
    pub comments: Vec<&'a str>,
}

/// The text of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement<'a> {
    /// Its line, from 0.
    pub line: usize,
    /// As it is written, without white space around it.
    pub text: &'a str,
}

fn read<'a>(text: &'a str, mut notes: Option<&mut Annotated<'a>>) -> Result<Trace, ScriptError> {
    let mut parser = Parser::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut last = Cursor::new("", 1);
    parser.keeps_names = notes.is_some();
    for (i, line) in text.split('\n').enumerate() {
        let mut cursor = Cursor::new(line, i + 1);
        while !cursor.is_line_end() {
            if !cursor.eat(';') {
                let before = cursor.clone();
                parser.statement(&mut cursor)?;
                cursor.end()?;
                let ops = parser.builder.as_ref().map_or(0, |builder| builder.ops().len());
                if let Some(notes) = notes.as_deref_mut().filter(|n| n.statements.len() < ops) {
                    let text = before.text_up_to(&cursor);
                    notes.statements.push(Statement { line: i, text });
                }
            }
        }
        if let Some(notes) = notes.as_deref_mut() {
            notes.comments.push(cursor.comment());
        }
        last = cursor;
    }
    let builder = match parser.builder.take() {
        Some(builder) => builder,
        None => parser.new_builder().map_err(|e| last.error(last.peek(), e))?,
    };
    if let Some(notes) = notes {
        notes.names = parser.all_names;
    }
    Ok(builder.build())
}

/// Keywords, for suggestions.
const KEYWORDS: [&str; 26] = [
    "alloc",
    "capture_begin",
    "capture_end",
    "complete",
    "completed",
    "device",
    "empty_cache",
    "events",
    "external",
    "free",
    "no_split",
    "pool",
    "pool_begin",
    "pool_create",
    "pool_end",
    "pool_release",
    "record_stream",
    "reset_accumulated",
    "reset_peak",
    "set_fraction",
    "settings",
    "snapshot",
    "start",
    "stream",
    "total",
    "use_on_oom",
];

/// In characters; keeps messages readable.
const LONGEST_NAME: usize = 200;

struct Parser<'a> {
    device: DeviceIndex,
    streams: Streams,
    /// Pools declared in the header.
    declared_pools: Vec<PoolId>,
    start: Layout,
    /// Active blocks of `start`.
    start_count: u32,
    /// Labels of some of them.
    start_labels: Vec<(AllocId, String)>,
    names: Names<&'a str>,
    /// The name of each allocation, if they are asked for.
    all_names: Vec<&'a str>,
    keeps_names: bool,
    pools: FxHashMap<PoolId, Option<PoolIndex>>,
    /// There from the first operation on; nothing of the header may change then.
    builder: Option<TraceBuilder>,
}

impl<'a> Parser<'a> {
    fn new() -> Self {
        Self {
            device: DeviceIndex(0),
            streams: Streams::new(),
            declared_pools: Vec::new(),
            start: Layout::default(),
            start_count: 0,
            start_labels: Vec::new(),
            names: Names::new(),
            all_names: Vec::new(),
            keeps_names: false,
            pools: FxHashMap::default(),
            builder: None,
        }
    }

    fn statement(&mut self, c: &mut Cursor<'a>) -> Result<(), ScriptError> {
        let word = c.word();
        if word.text.is_empty() {
            return Err(c.expected(word, "a statement such as 'a = alloc 3MiB' or 'free a'"));
        }
        if c.eat('=') {
            return self.alloc(c, word);
        }
        match word.text {
            "device" | "stream" | "pool" | "start" => self.header(c, word),
            "free" => self.free(c, word),
            "completed" => {
                let (name, word) = Self::name(c)?;
                let id = self.names.complete(name, c.number).map_err(|e| c.error(word, e))?;
                self.push(c, word, Op::FreeCompleted(id))
            }
            "record_stream" => {
                let (name, word) = Self::name(c)?;
                let id = self.names.live(name).map_err(|e| c.error(word, e))?;
                let stream = self.stream(c)?;
                self.push(c, word, Op::RecordStream(id, stream))
            }
            "empty_cache" if c.is_end() => self.push(c, word, Op::EmptyCache),
            _ => {
                let control = self.control(c, word)?;
                let builder = self.begin(c, word)?;
                builder.control(control).map_err(|e| c.error(word, e.to_string()))
            }
        }
    }

    fn control(&mut self, c: &mut Cursor<'a>, word: Word<'a>) -> Result<Control, ScriptError> {
        Ok(match word.text {
            "empty_cache" => Control::EmptyPool(c.pool()?),
            "set_fraction" => Control::SetFraction(fraction(c)?),
            "settings" => Control::Settings(c.text()?),
            "pool_create" => Control::PoolCreate(c.private_pool()?),
            "pool_begin" => {
                let pool = c.private_pool()?;
                let stream = if c.eat_word("stream") { Some(self.stream(c)?) } else { None };
                Control::PoolBegin(pool, stream)
            }
            "pool_end" => Control::PoolEnd(c.private_pool()?),
            "pool_release" => Control::PoolRelease(c.private_pool()?),
            "use_on_oom" => Control::PoolUseOnOom(c.private_pool()?, on_or_off(c)?),
            "no_split" => Control::PoolNoSplit(c.private_pool()?),
            "capture_begin" => Control::CaptureBegin(self.stream(c)?),
            "capture_end" => Control::CaptureEnd(self.stream(c)?),
            "events" => Control::Events(event_mode(c)?),
            "complete" if c.eat_word("all") => Control::Complete(None),
            "complete" => Control::Complete(Some(self.stream(c)?)),
            "external" => Control::External(c.size()?),
            "total" => Control::Total(c.size()?),
            "reset_peak" => Control::ResetPeak,
            "reset_accumulated" => Control::ResetAccumulated,
            "snapshot" if c.is_end() => Control::Snapshot(None),
            "snapshot" => Control::Snapshot(Some(c.pool()?)),
            "alloc" => {
                return Err(c.error(word, "an allocation needs a name, as in 'a = alloc 3MiB'"));
            }
            unknown => return Err(c.error(word, unknown_statement(unknown))),
        })
    }

    fn header(&mut self, c: &mut Cursor<'a>, word: Word<'a>) -> Result<(), ScriptError> {
        if self.builder.is_some() {
            let message = format!("'{}' must stand before the first operation", word.text);
            return Err(c.error(word, message));
        }
        match word.text {
            "device" => self.device = DeviceIndex(c.number("a device number from 0 to 255")?),
            "pool" => self.declared_pools.push(c.private_pool()?),
            "stream" => self.declare_stream(c)?,
            _ => self.start_segment(c)?,
        }
        Ok(())
    }

    fn declare_stream(&mut self, c: &mut Cursor<'a>) -> Result<(), ScriptError> {
        let word = c.peek();
        let n = c.number("a stream number")?;
        let mut stream = Stream::numbered(StreamId(n));
        if c.eat_word("handle") {
            stream.handle = StreamHandle(c.number("a stream handle such as 0x7f0012345678")?);
            stream.id = stream.handle.0;
        }
        if c.eat_word("id") {
            stream.id = c.number("the id of a stream")?;
        }
        self.streams.declare(n, stream).map_err(|e| c.error(word, e))
    }

    /// `start ADDR large|small [expandable] [stream N] [pool P] | BLOCK …`
    fn start_segment(&mut self, c: &mut Cursor<'a>) -> Result<(), ScriptError> {
        let at = c.peek();
        let addr = Addr(c.number("the address of a segment, such as 0x7f0000000000")?);
        let word = c.word();
        let is_small = match word.text {
            "small" => true,
            "large" => false,
            _ => return Err(c.expected(word, "'large' or 'small'")),
        };
        let is_expandable = c.eat_word("expandable");
        let (stream, pool) = self.stream_and_pool(c)?;
        let stream = self.streams.rows()[usize::from(stream.0)].handle;
        let pool = pool.unwrap_or(PoolId::DEFAULT);
        let mut segment =
            SegmentLayout { addr, stream, pool, is_small, is_expandable, blocks: Vec::new() };
        while c.eat('|') {
            let block = self.start_block(c)?;
            segment.blocks.push(block);
        }
        c.end()?;
        check_segment(self.start.segments.last(), &segment).map_err(|e| c.error(at, e))?;
        self.start.segments.push(segment);
        Ok(())
    }

    /// `NAME SIZE`, `. SIZE` or `~ NAME SIZE`, each with the requested size in parentheses; a name may
    /// have a label behind it.
    fn start_block(&mut self, c: &mut Cursor<'a>) -> Result<BlockLayout, ScriptError> {
        let is_pending = c.eat('~');
        let state = if is_pending {
            BlockState::ActivePendingFree
        } else if c.eat_word(".") {
            BlockState::Inactive
        } else {
            BlockState::ActiveAllocated
        };
        if state != BlockState::Inactive {
            let (name, word) = Self::name(c)?;
            let id = AllocId(self.start_count);
            self.names.check_unused(name).map_err(|e| c.error(word, e))?;
            let state = if is_pending { NameState::PendingAtStart } else { NameState::Live };
            self.named(name, id, state, c);
            self.start_count = self.start_count.saturating_add(1);
        }
        let size = c.size()?;
        let mut requested = if state == BlockState::Inactive { Bytes::ZERO } else { size };
        if c.eat('(') {
            requested = c.size()?;
            c.punctuation(')', "the ')' after the requested size")?;
        }
        if state != BlockState::Inactive && c.eat_word("label") {
            let id = AllocId(self.start_count.saturating_sub(1));
            self.start_labels.push((id, c.label()?));
        }
        Ok(BlockLayout { size, requested, state })
    }

    /// Ends the header, if that is not done yet.
    fn begin(&mut self, c: &Cursor<'a>, at: Word<'a>) -> Result<&mut TraceBuilder, ScriptError> {
        if self.builder.is_none() {
            self.builder = Some(self.new_builder().map_err(|e| c.error(at, e))?);
        }
        Ok(self.builder.as_mut().expect("made above"))
    }

    /// What the header says.
    fn new_builder(&mut self) -> Result<TraceBuilder, String> {
        let mut builder = TraceBuilder::new(self.device);
        self.streams.use_declared()?;
        for stream in self.streams.rows() {
            builder.stream(*stream).map_err(|e| e.to_string())?;
        }
        for pool in &self.declared_pools {
            self.pools.insert(*pool, builder.pool(*pool).map_err(|e| e.to_string())?);
        }
        builder.start(std::mem::take(&mut self.start)).map_err(|e| e.to_string())?;
        for (id, label) in std::mem::take(&mut self.start_labels) {
            builder.label(id, &label).map_err(|e| e.to_string())?;
        }
        Ok(builder)
    }

    fn push(&mut self, c: &Cursor<'a>, at: Word<'a>, op: Op) -> Result<(), ScriptError> {
        self.begin(c, at)?.push(op).map_err(|e| c.error(at, e.to_string()))
    }

    fn alloc(&mut self, c: &mut Cursor<'a>, name: Word<'a>) -> Result<(), ScriptError> {
        check_name(c, name)?;
        let word = c.word();
        if word.text != "alloc" {
            return Err(c.expected(word, "'alloc'"));
        }
        self.names.check_unused(name.text).map_err(|e| c.error(name, e))?;
        let at = c.peek();
        let size = c.size()?;
        let (stream, pool) = self.stream_and_pool(c)?;
        let pool = match pool {
            Some(pool) => self.pool_index(c, at, pool)?,
            None => None,
        };
        let label_at = c.peek();
        let label = if c.eat_word("label") { Some(c.label()?) } else { None };
        let builder = self.begin(c, at)?;
        let id = builder.alloc(size, stream, pool).map_err(|e| match e {
            TraceError::TooLarge { .. } => c.error(
                at,
                format!("'{}' is too much for one request; the largest is 2^62 - 1", at.text),
            ),
            other => c.error(at, other.to_string()),
        })?;
        if let Some(label) = label {
            builder.label(id, &label).map_err(|e| c.error(label_at, e.to_string()))?;
        }
        self.named(name.text, id, NameState::Live, c);
        Ok(())
    }

    /// Allocations are numbered in the order in which they are named.
    fn named(&mut self, name: &'a str, id: AllocId, state: NameState, c: &Cursor<'_>) {
        self.names.set(name, id, state, c.number);
        if self.keeps_names {
            self.all_names.push(name);
        }
    }

    fn free(&mut self, c: &mut Cursor<'a>, at: Word<'a>) -> Result<(), ScriptError> {
        let (name, word) = Self::name(c)?;
        let id = self.names.free(name, c.number).map_err(|e| c.error(word, e))?;
        let pending = c.eat_word("pending");
        self.begin(c, at)?.free(id, pending).map_err(|e| c.error(word, e.to_string()))
    }

    fn name(c: &mut Cursor<'a>) -> Result<(&'a str, Word<'a>), ScriptError> {
        let word = c.word();
        check_name(c, word)?;
        Ok((word.text, word))
    }

    /// `[stream N] [pool P]`, in either order.
    fn stream_and_pool(
        &mut self,
        c: &mut Cursor<'a>,
    ) -> Result<(StreamId, Option<PoolId>), ScriptError> {
        let (mut stream, mut pool) = (None, None);
        loop {
            let word = c.peek();
            if c.eat_word("stream") {
                if stream.replace(self.stream(c)?).is_some() {
                    return Err(c.error(word, "the stream is given twice"));
                }
            } else if c.eat_word("pool") {
                if pool.replace(c.pool()?).is_some() {
                    return Err(c.error(word, "the pool is given twice"));
                }
            } else {
                return Ok((stream.unwrap_or_default(), pool));
            }
        }
    }

    fn stream(&mut self, c: &mut Cursor<'a>) -> Result<StreamId, ScriptError> {
        let word = c.peek();
        let n: u16 = c.number("a stream number")?;
        let known = self.streams.rows().len();
        let id = self.streams.id(n).map_err(|e| c.error(word, e))?;
        if let Some(builder) = &mut self.builder {
            for stream in &self.streams.rows()[known..] {
                builder.stream(*stream).map_err(|e| c.error(word, e.to_string()))?;
            }
        }
        Ok(id)
    }

    fn pool_index(
        &mut self,
        c: &Cursor<'a>,
        at: Word<'a>,
        pool: PoolId,
    ) -> Result<Option<PoolIndex>, ScriptError> {
        if let Some(known) = self.pools.get(&pool) {
            return Ok(*known);
        }
        let index = self.begin(c, at)?.pool(pool).map_err(|e| c.error(at, e.to_string()))?;
        self.pools.insert(pool, index);
        Ok(index)
    }
}

fn check_name(c: &Cursor<'_>, word: Word<'_>) -> Result<(), ScriptError> {
    let is_start = word.text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    if !is_start || !word.text.chars().all(is_inside) {
        return Err(c.expected(word, "a name (a letter, then letters, digits, '_' or '.')"));
    }
    if word.text.len() > LONGEST_NAME {
        return Err(c.error(word, format!("a name has at most {LONGEST_NAME} characters")));
    }
    Ok(())
}

fn fraction(c: &mut Cursor<'_>) -> Result<f64, ScriptError> {
    let word = c.word();
    match word.text.parse::<f64>() {
        Ok(fraction) if fraction.is_finite() => Ok(fraction),
        _ => Err(c.expected(word, "a fraction such as 0.5")),
    }
}

fn on_or_off(c: &mut Cursor<'_>) -> Result<bool, ScriptError> {
    let word = c.word();
    match word.text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(c.expected(word, "'on' or 'off'")),
    }
}

fn event_mode(c: &mut Cursor<'_>) -> Result<EventMode, ScriptError> {
    let word = c.word();
    match word.text {
        "ready" => Ok(EventMode::Ready),
        "manual" => Ok(EventMode::Manual),
        "polls" => Ok(EventMode::Polls(c.number("a number of polls")?)),
        _ => Err(c.expected(word, "'ready', 'manual' or 'polls N'")),
    }
}

/// Whether `segment` may follow `previous` in a start layout: it has blocks, none of them empty,
/// lies behind, and ends below 2^64.
pub(crate) fn check_segment(
    previous: Option<&SegmentLayout>,
    segment: &SegmentLayout,
) -> Result<(), String> {
    let addr = segment.addr;
    if segment.blocks.is_empty() {
        return Err(format!("the segment at {addr} has no blocks"));
    }
    if segment.blocks.iter().any(|block| block.size == Bytes::ZERO) {
        return Err(format!("the segment at {addr} has a block of 0 bytes"));
    }
    let end = segment.blocks.iter().try_fold(addr.0, |end, block| end.checked_add(block.size.0));
    if end.is_none() {
        return Err(format!("the segment at {addr} ends beyond 64 bits"));
    }
    match previous {
        Some(previous) if previous.span().end() > addr => Err(format!(
            "the segment at {addr} must lie behind the one before it, which is {}",
            previous.span()
        )),
        _ => Ok(()),
    }
}

fn unknown_statement(word: &str) -> String {
    let word: String = word.chars().take(64).collect();
    match near(&word, KEYWORDS) {
        Some(known) => format!("unknown statement '{word}'; did you mean '{known}'?"),
        None => format!(
            "unknown statement '{word}'; write one such as 'a = alloc 3MiB', 'free a' or 'empty_cache'"
        ),
    }
}
