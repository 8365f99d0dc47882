//! Takes out of a piece of a log what loggers, terminals, browsers and mailers put in: escape
//! codes, escapes of JSON and HTML, quote marks and prefixes of lines. What is left is kept twice: as
//! text, and [`Compact`] without any white space, so that it does not matter where lines were wrapped.

use std::sync::LazyLock;

use regex::Regex;

/// Text without white space, and where each of its bytes came from.
#[derive(Debug, Default)]
pub(super) struct Compact {
    /// The text. One space is kept between two digits that were apart on one line.
    pub(super) text: String,
    /// For each byte of `text`, its place in the raw piece.
    raw: Vec<usize>,
    /// For each byte of `text`, whether a line ended or white space stood before it.
    before: Vec<Before>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    Space,
    Line,
}

impl Compact {
    /// Where a byte of the text was in the raw piece; the end of the text is just behind its last.
    pub(super) fn raw_at(&self, at: usize) -> usize {
        match self.raw.get(at) {
            Some(raw) => *raw,
            None => self.raw.last().map_or(0, |last| last + 1),
        }
    }

    /// Whether a line begins at this byte of the text, or the text is at its end.
    pub(super) fn is_line_end(&self, at: usize) -> bool {
        self.before.get(at).is_none_or(|before| *before == Before::Line)
    }

    /// The text from `start` to `end` with its words apart again, on one line.
    pub(super) fn words(&self, start: usize, end: usize) -> String {
        let mut words = String::new();
        for (at, c) in self.text.char_indices().skip_while(|(at, _)| *at < start) {
            if at >= end {
                break;
            }
            if at > start && self.before[at] != Before::Nothing && !words.ends_with(' ') {
                words.push(' ');
            }
            words.push(c);
        }
        words
    }
}

/// One line of the cleaned piece.
#[derive(Debug)]
pub(super) struct Line {
    /// Its text, prefixes and all.
    pub(super) text: String,
    /// Where each byte of it was in the raw piece.
    pub(super) raw: Vec<usize>,
}

/// What a logger or mailer writes before a line, as often as it stands there.
static PREFIX: LazyLock<Regex> = LazyLock::new(|| {
    let parts = [
        r">+|[│┃|#*]+|//+",
        // [rank3]: and the like; never the sizes of a tensor.
        r"\[[^\]\[]{0,79}[A-Za-z:][^\]\[]{0,79}\]:?|\[\d+(?:,\d+)?\]:",
        r"\([^()]{0,60}\b(?:pid|rank|ip)=[^()]{0,60}\):?",
        r"\d{4}-\d\d-\d\d(?:[T ,]+\d\d:\d\d:\d\d[.,\d]*(?:Z|[+-]\d\d:?\d\d)?)?",
        r"\d{2,4}/\d\d/\d\d [\d:.,]+",
        r"\d\d:\d\d:\d\d[.,\d]*Z?",
        r"[A-Z][a-z]{2} +\d{1,2} \d\d:\d\d:\d\d [\w.-]+ [\w./-]+(?:\[\d+\])?:",
        r"(?:DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL|FATAL|E|W|I|stdout|stderr)\b[ :|-]+",
        r"(?i:rank) ?\d+[:|]|\d+: |[\w.-]{1,40} +\| ",
        r"\s+|\u{feff}",
    ];
    let prefix = format!("^(?:{})+", parts.join("|"));
    Regex::new(&prefix).expect("a constant that a test compiles")
});

/// A piece of a log, cleaned.
pub(super) fn clean(piece: &[u8]) -> (Compact, Vec<Line>) {
    let lines = lines(piece);
    let mut compact = Compact::default();
    for line in &lines {
        let skipped = PREFIX.find(&line.text).map_or(0, |found| found.end());
        let mut before = Before::Line;
        for (at, c) in line.text.char_indices().skip_while(|(at, _)| *at < skipped) {
            if c.is_whitespace() {
                before = if before == Before::Line { before } else { Before::Space };
                continue;
            }
            let is_after_digit = compact.text.ends_with(|c: char| c.is_ascii_digit());
            if before == Before::Space && c.is_ascii_digit() && is_after_digit {
                compact.push(' ', line.raw[at], Before::Nothing);
            }
            compact.push(c, line.raw[at], before);
            before = Before::Nothing;
        }
    }
    (compact, lines)
}

impl Compact {
    fn push(&mut self, c: char, raw: usize, before: Before) {
        self.text.push(c);
        for part in 0..c.len_utf8() {
            self.raw.push(raw);
            self.before.push(if part == 0 { before } else { Before::Nothing });
        }
    }
}

/// The lines of a piece without escapes of any kind.
fn lines(piece: &[u8]) -> Vec<Line> {
    let mut lines = vec![Line { text: String::new(), raw: Vec::new() }];
    let mut at = 0;
    while at < piece.len() {
        let (read, length) = next(&piece[at..]);
        match read {
            Some('\n') => lines.push(Line { text: String::new(), raw: Vec::new() }),
            Some(c) => {
                if let Some(line) = lines.last_mut() {
                    line.text.push(c);
                    line.raw.extend(std::iter::repeat_n(at, c.len_utf8()));
                }
            }
            None => {}
        }
        at += length.max(1);
    }
    lines
}

/// The first character that is meant, if any, and how many bytes wrote it.
fn next(bytes: &[u8]) -> (Option<char>, usize) {
    match bytes {
        [b'\r', b'\n', ..] => (Some('\n'), 2),
        [b'\r' | b'\n', ..] => (Some('\n'), 1),
        [0x1b, rest @ ..] => (None, 1 + escape_code(rest)),
        [b'\\', ..] => backslash(bytes),
        [b'&', ..] => entity(bytes),
        [b'<', ..] => tag(bytes),
        [0, ..] => (None, 1),
        [first, ..] if first.is_ascii() => (Some(char::from(*first)), 1),
        _ => {
            let head = &bytes[..bytes.len().min(4)];
            match head.utf8_chunks().next() {
                Some(chunk) => match chunk.valid().chars().next() {
                    Some(c) => (Some(c), c.len_utf8()),
                    None => (Some(char::REPLACEMENT_CHARACTER), chunk.invalid().len()),
                },
                None => (None, 1),
            }
        }
    }
}

/// The length of a terminal's escape code after its ESC.
fn escape_code(rest: &[u8]) -> usize {
    match rest {
        [b'[', code @ ..] => {
            let end = code.iter().take(32).position(|byte| (0x40..=0x7e).contains(byte));
            end.map_or(1, |end| end + 2)
        }
        [b']', code @ ..] => {
            let end = code.iter().take(256).position(|byte| *byte == 7 || *byte == 0x1b);
            end.map_or(1, |end| end + 2)
        }
        _ => 0,
    }
}

/// Escapes of JSON and of Python's `repr`, once or several times escaped. A backslash before
/// anything else is one, as in paths of Windows.
fn backslash(bytes: &[u8]) -> (Option<char>, usize) {
    let slashes = bytes.iter().take(9).take_while(|byte| **byte == b'\\').count();
    let rest = &bytes[slashes..];
    let code = |digits: usize| {
        let text = std::str::from_utf8(rest.get(1..=digits)?).ok()?;
        u32::from_str_radix(text, 16).ok().and_then(char::from_u32)
    };
    match rest.first() {
        Some(b'n' | b'r') => (Some('\n'), slashes + 1),
        Some(b't') => (Some(' '), slashes + 1),
        Some(quote @ (b'"' | b'\'' | b'/')) => (Some(char::from(*quote)), slashes + 1),
        Some(b'u') if code(4).is_some() => escaped(code(4), slashes + 5, bytes),
        Some(b'x') if code(2).is_some() => escaped(code(2), slashes + 3, bytes),
        Some(b'0') if rest.starts_with(b"033[") => (None, slashes + 3 + escape_code(&rest[3..])),
        _ => (Some('\\'), 1),
    }
}

/// A character by its number; the start of an escape code takes its code along.
fn escaped(c: Option<char>, length: usize, bytes: &[u8]) -> (Option<char>, usize) {
    match c {
        Some('\u{1b}') => (None, length + bytes.get(length..).map_or(0, escape_code)),
        Some('\r') => (Some('\n'), length),
        other => (other, length),
    }
}

fn entity(bytes: &[u8]) -> (Option<char>, usize) {
    let end = bytes.iter().take(10).position(|byte| *byte == b';');
    let name = end.and_then(|end| std::str::from_utf8(&bytes[1..end]).ok());
    let c = match name {
        Some("gt") => Some('>'),
        Some("lt") => Some('<'),
        Some("amp") => Some('&'),
        Some("quot") => Some('"'),
        Some("apos") => Some('\''),
        Some("nbsp") => Some(' '),
        Some(name) => name.strip_prefix('#').and_then(|code| match code.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok().and_then(char::from_u32),
            None => code.parse().ok().and_then(char::from_u32),
        }),
        None => None,
    };
    match (c, end) {
        (Some(c), Some(end)) => (Some(c), end + 1),
        _ => (Some('&'), 1),
    }
}

/// A tag of HTML: `<br>` and the like end a line, others are nothing.
fn tag(bytes: &[u8]) -> (Option<char>, usize) {
    let head = &bytes[..bytes.len().min(200)];
    let is_tag = match head {
        [_, b'/', c, ..] | [_, c, ..] => c.is_ascii_alphabetic(),
        _ => false,
    };
    let end = head.iter().skip(1).position(|byte| *byte == b'>' || *byte == b'<' || *byte == b'\n');
    match end.map(|end| end + 1) {
        Some(end) if is_tag && head[end] == b'>' => {
            let name = head[1..end].to_ascii_lowercase();
            let ends_line = [&b"br"[..], b"/p", b"/div", b"/li"];
            let is_break = ends_line.iter().any(|ending| name.starts_with(ending));
            (is_break.then_some('\n'), end + 1)
        }
        _ => (Some('<'), 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(piece: &str, compact: &str) {
        assert_eq!(clean(piece.as_bytes()).0.text, compact);
    }

    #[test]
    fn marks_of_terminals_browsers_and_json_vanish() {
        check("\u{1b}[31mout of\u{1b}[0m memory", "outofmemory");
        check(r"out\u001b[31m of\nmem\tory \x1b[0m!", "outofmemory!");
        check("a &gt;&gt; b&nbsp;&#39;c&#x2f;<br>d<b>e</b> < f", "a>>b'c/de<f");
        check(r"at ..\src\THC\x.cpp", r"at..\src\THC\x.cpp");
        check("\u{1b}", "");
        check("\\", "\\");
        check("&", "&");
        check("<", "<");
    }

    #[test]
    fn what_stands_before_lines_vanishes() {
        check("> > a\n>> b", "ab");
        check("[rank3]: a\n[rank3]: b", "ab");
        check("2024-05-01 12:00:01,123 ERROR a\n2024-05-01T12:00:01Z 391.31 MiB", "a391.31MiB");
        check("[2024-05-01 12:00:01] 1.00\n12:00:01.5 GiB", "1.00GiB");
        check("worker-1  | a\nworker-1  | b", "ab");
        check("(EngineCore_0 pid=12) ERROR 05-01 b", "05-01b");
        check("Nov  3 10:00:01 host python[12]: a", "a");
        check("shape\n[32, 512]", "shape[32,512]");
        check("3: a\n3: b", "ab");
    }

    #[test]
    fn a_number_broken_by_a_line_is_one_and_two_numbers_on_a_line_are_two() {
        check("2\n2.26 GiB", "22.26GiB");
        check("22.\n26 GiB", "22.26GiB");
        check("rank 12 391.31 MiB", "rank12 391.31MiB");
    }

    #[test]
    fn places_are_kept() {
        let (compact, _) = clean("a\n> b c".as_bytes());
        assert_eq!([0, 1, 2, 3].map(|at| compact.raw_at(at)), [0, 4, 6, 7]);
        assert_eq!(compact.words(0, 3), "a b c");
        assert!(compact.is_line_end(1) && !compact.is_line_end(2) && compact.is_line_end(3));
    }
}
