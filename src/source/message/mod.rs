//! Finds out-of-memory messages in a text of any size, such as a log, and reads their figures.
//!
//! ```text
//!  bytes ──► anchors ──► piece of 16 KiB ──► clean ──► compact text ──► grammar ──► OomMessage
//! ```
//! Words that every message has are looked for in the raw bytes. Only around them is the text cleaned
//! of what loggers and terminals put in, and read without its white space, so that wrapped, quoted,
//! cut and escaped messages read alike. Memory is bounded, whatever the text holds.

mod bare;
mod clean;
mod grammar;
mod utf16;

use std::{
    io::{self, BufRead},
    sync::LazyLock,
};

use regex::{Regex, bytes};

use crate::trace::OomMessage;

/// A message and where it was.
#[derive(Clone, Debug)]
pub struct FoundMessage {
    /// What it says.
    pub message: OomMessage,
    /// The line on which it begins, counted from 1.
    pub line: u64,
    /// The rank that its line names.
    pub rank: Option<u32>,
    /// Its words on one line, without what loggers put in.
    pub text: String,
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Bytes of the whole text; of one in UTF-16 as they are in UTF-8.
    pub bytes: u64,
    /// The first line that says that the host, not a device, had no memory left.
    pub host_line: Option<u64>,
}

/// Bytes read at once.
const CHUNK: usize = 1 << 20;
/// Bytes behind an anchor that are looked at.
const AHEAD: usize = 16 << 10;
/// Bytes before an anchor in which its message may begin.
const BEHIND: usize = 1 << 10;
/// A message that begins in the last so many bytes of a piece may not be whole: it is read again.
const TAIL: usize = 4 << 10;
/// The longest text that is kept of one message.
const WORDS: usize = 1200;

/// Words of messages. They are many, so that a line that ends inside one of them leaves others whole;
/// between them may be blanks, escape codes, ends of lines and what stands before the next.
static ANCHOR: LazyLock<bytes::Regex> = LazyLock::new(|| {
    let words = [
        "out of memory",
        "Out of memory",
        "ried to allocate",
        "total capac",
        "already alloc",
        "allocated by PyT",
        "reserved in total",
        "reserved by PyT",
        "but unalloc",
        "OOM when",
        "allocating tensor",
        "RESOURCE_EXHAUSTED",
        "exceed allowed",
        "NOT allocate",
        "preemptively rejected",
        "Requested size",
        "than 1EB",
        "Currently allocated",
        "cuda runtime error",
        "MPS backend",
        "MPS allocated",
        "CPUAllocator",
    ];
    let anchor = format!("(?s-u){}", words.join("|").replace(' ', ".{1,60}?"));
    bytes::Regex::new(&anchor).expect("a constant that every test of this module compiles")
});

/// The host ran out of memory: another matter.
static HOST: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"notenoughmemory:youtriedtoallocate|DefaultCPUAllocator:(?:can'tallocatememory|notenoughmemory)")
        .expect("a constant that every test of this module compiles")
});

static RANK: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)\brank[ :=_]?(\d{1,6})\b")
        .expect("a constant that every test of this module compiles")
});

/// Reads `reader` to its end and hands every message to `on_found`, in order; `on_read` hears of
/// the bytes read so far. UTF-16 is read, too, and so is a text with some of it behind.
///
/// # Errors
/// When the reader fails.
///
/// # Complexity
/// Linear in the text; some megabytes of memory.
pub fn scan(
    reader: &mut dyn BufRead,
    on_found: &mut dyn FnMut(FoundMessage),
    on_read: &mut dyn FnMut(u64),
) -> io::Result<Scanned> {
    let mut scan = Scan {
        buffer: Vec::new(),
        next: 0,
        floor: 0,
        counted: 0,
        lines: 0,
        scanned: Scanned::default(),
    };
    let order = utf16::order(reader.fill_buf()?);
    let mut decoded;
    let reader = match order {
        Some(order) => {
            decoded = utf16::Utf16::new(reader, order);
            &mut decoded as &mut dyn BufRead
        }
        None => reader,
    };
    loop {
        let is_end = scan.fill(reader)?;
        on_read(scan.scanned.bytes);
        scan.search(is_end, on_found);
        if is_end {
            return Ok(scan.scanned);
        }
    }
}

struct Scan {
    /// A stretch of the text.
    buffer: Vec<u8>,
    /// Where in it the next anchor is looked for.
    next: usize,
    /// What is before this was read as a message.
    floor: usize,
    /// Up to here line ends are counted.
    counted: usize,
    /// Line ends before `counted`.
    lines: u64,
    scanned: Scanned,
}

impl Scan {
    /// Lets go of what is done with and reads on; whether that was the end.
    fn fill(&mut self, reader: &mut dyn BufRead) -> io::Result<bool> {
        let keep = self.next.saturating_sub(BEHIND).min(self.buffer.len());
        self.line_of(keep);
        self.buffer.drain(..keep);
        self.next -= keep;
        self.counted -= keep;
        self.floor = self.floor.saturating_sub(keep);
        let want = self.buffer.len() + CHUNK;
        while self.buffer.len() < want {
            let chunk = match reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() {
                return Ok(true);
            }
            let count = chunk.len().min(want - self.buffer.len());
            let fresh = self.buffer.len();
            self.buffer.extend_from_slice(&chunk[..count]);
            reader.consume(count);
            // No text has a byte 0, but one that something in UTF-16 was appended to.
            if memchr::memchr(0, &self.buffer[fresh..]).is_some() {
                let text: Vec<u8> = self.buffer.drain(fresh..).filter(|byte| *byte != 0).collect();
                self.buffer.extend(text);
            }
            self.scanned.bytes += count as u64;
        }
        Ok(false)
    }

    /// Looks through what is there; stops where a piece is not whole yet.
    fn search(&mut self, is_end: bool, on_found: &mut dyn FnMut(FoundMessage)) {
        loop {
            let Some(anchor) = ANCHOR.find_at(&self.buffer, self.next) else {
                // An anchor may be cut by the end of what is there.
                self.next = self.next.max(self.buffer.len().saturating_sub(64));
                return;
            };
            let end = anchor.start() + AHEAD;
            if end > self.buffer.len() && !is_end {
                self.next = anchor.start();
                return;
            }
            let start = self.line_start(anchor.start().saturating_sub(BEHIND).max(self.floor));
            let end = end.min(self.buffer.len());
            let is_last = is_end && end == self.buffer.len();
            self.next = self.piece(start, end, anchor.end(), is_last, on_found);
        }
    }

    /// The start of a line at or after `at`, if one is near: a piece should not begin inside a word.
    fn line_start(&self, at: usize) -> usize {
        if at == self.floor {
            return at;
        }
        // Only a short stretch, so that nothing before the anchor is lost on long lines.
        let near = &self.buffer[at..(at + BEHIND / 2).min(self.buffer.len())];
        memchr::memchr(b'\n', near).map_or(at, |end| at + end + 1)
    }

    /// Reads the messages of a piece; where to look on.
    fn piece(
        &mut self,
        start: usize,
        end: usize,
        least: usize,
        is_last: bool,
        on_found: &mut dyn FnMut(FoundMessage),
    ) -> usize {
        let (compact, lines) = clean::clean(&self.buffer[start..end]);
        let whole_until = if is_last { end } else { end - TAIL };
        let mut found: Vec<(usize, usize, OomMessage, String)> = Vec::new();
        for parsed in grammar::messages(&compact) {
            let raw = start + compact.raw_at(parsed.start);
            let raw_end = start + compact.raw_at(parsed.end.saturating_sub(1)) + 1;
            let words = compact.words(parsed.start, parsed.end.min(parsed.start + WORDS));
            found.push((raw, raw_end, parsed.message, words));
        }
        for line in &lines {
            if let Some((at, message)) = bare::message(line) {
                let raw = start + line.raw[at];
                let raw_end = start + line.raw.last().map_or(0, |last| last + 1);
                // The head of a message whose figures stand on the next line.
                if !found.iter().any(|(from, to, ..)| raw < *to && *from < raw_end) {
                    let words = line.text[at..].trim_end().chars().take(200).collect();
                    found.push((raw, raw_end, message, words));
                }
            }
        }
        found.sort_by_key(|(raw, ..)| *raw);
        if self.scanned.host_line.is_none()
            && let Some(host) = HOST.find(&compact.text)
        {
            let line = self.line_of(start + compact.raw_at(host.start()));
            self.scanned.host_line = Some(line);
        }
        let mut next = least.max(if is_last { end } else { whole_until });
        for (raw, raw_end, message, text) in found {
            // The first message of a piece is whole: more than a message follows its anchor.
            if raw >= whole_until && raw > least {
                return raw.max(least);
            }
            let rank = self.rank_before(raw);
            let line = self.line_of(raw);
            on_found(FoundMessage { message, line, rank, text });
            self.floor = self.floor.max(raw_end);
            next = next.max(raw_end);
        }
        next
    }

    /// The rank that the line names before this place.
    fn rank_before(&self, at: usize) -> Option<u32> {
        let from = at.saturating_sub(300);
        let before = &self.buffer[from..at];
        let line = memchr::memrchr(b'\n', before).map_or(before, |end| &before[end + 1..]);
        let line = String::from_utf8_lossy(line);
        RANK.captures_iter(&line).last().and_then(|found| found[1].parse().ok())
    }

    /// The number of the line of this place. Places are asked for in about rising order.
    fn line_of(&mut self, at: usize) -> u64 {
        let count = |bytes: &[u8]| memchr::memchr_iter(b'\n', bytes).count() as u64;
        if at < self.counted {
            return self.lines - count(&self.buffer[at..self.counted]) + 1;
        }
        self.lines += count(&self.buffer[self.counted..at]);
        self.counted = at;
        self.lines + 1
    }
}

/// All messages of a text.
pub fn find(text: &str) -> Vec<FoundMessage> {
    let mut found = Vec::new();
    let scanned = scan(&mut text.as_bytes(), &mut |message| found.push(message), &mut |_| {});
    debug_assert!(scanned.is_ok(), "a slice cannot fail to be read");
    found
}
