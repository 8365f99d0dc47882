//! One self-contained page that shows replays: `report.html`.
//!
//! The page holds everything it needs, names no address of a network, and forbids its own scripts to
//! open one. What comes of a trace is data: rows and texts are packed in letters that mean nothing to
//! a browser, the rest is JSON whose `<`, `>` and `&` are escaped, and the scripts put texts into the
//! page as text alone.

mod columns;
mod verdict;

use std::io::{self, Write};

use rustc_hash::FxHashMap;
use serde::Serialize;

use self::{columns::Shape, verdict::Verdict};
use super::replay::ReplayDocument;
use crate::{
    base::{AllocId, Bytes},
    observe::{Lives, MarkKind},
    study::{
        explain::Failed,
        timeline::{SearchRules, Timeline},
        whatif::Terms,
    },
};

/// Blocks that a page shows of one replay: some 6 MB of it.
pub const MAX_BLOCKS: usize = 1_500_000;

/// Frames that a page shows of one stack.
const MAX_FRAMES: usize = 48;

/// One replay on its way to a page.
#[derive(Debug)]
pub struct Shown<'a> {
    /// What `replay` says of it.
    pub document: &'a ReplayDocument,
    /// Under which terms.
    pub terms: &'a Terms,
    /// The replay; its lives may be a part of the whole.
    pub timeline: &'a Timeline,
    /// Why its first request fails that is not served, if one fails.
    pub failed: Option<Failed>,
    /// From which time to which the lives are shown, counted as [`Lives`] counts.
    pub window: (u32, u32),
}

/// Where allocations were made.
pub trait Stacks {
    /// A key that is the same for the same stack; `None` if nothing tells.
    fn key(&self, id: AllocId) -> Option<u64>;
    /// The frames of an allocation, innermost first: text, and whether it is a line of the program
    /// itself rather than of a library.
    fn frames(&self, id: AllocId) -> Vec<(String, bool)>;
    /// Whether they are not stacks but labels, a frame each: what the allocations are for.
    fn are_labels(&self) -> bool {
        false
    }
}

/// No stacks.
impl Stacks for () {
    fn key(&self, _id: AllocId) -> Option<u64> {
        None
    }

    fn frames(&self, _id: AllocId) -> Vec<(String, bool)> {
        Vec::new()
    }
}

#[derive(Serialize)]
struct PageDocument<'a> {
    fragsim: &'static str,
    file: &'a str,
    device: u8,
    torch: &'a str,
    notes: &'a [String],
    /// Whether what stands for stacks are labels.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    labels: bool,
    runs: Vec<RunDocument<'a>>,
}

#[derive(Serialize)]
struct RunDocument<'a> {
    conf: &'a str,
    verdict: Verdict,
    replay: &'a ReplayDocument,
    /// First and last time of the rows, and of the replay.
    window: [u32; 2],
    time_total: u64,
    marks: Vec<MarkDocument>,
    rules: SearchRules,
    shape: Shape,
}

#[derive(Serialize)]
struct MarkDocument {
    time: u64,
    /// `oom`, `refused` (a request that failed in the recording fails again), `served` (it would be
    /// served) or `retry`.
    kind: &'static str,
    size: Option<u64>,
}

/// Distinct frames and stacks, numbered from 1.
#[derive(Default)]
struct StackTable {
    frames: Vec<(String, bool)>,
    frame_ids: FxHashMap<(String, bool), u32>,
    stacks: Vec<Vec<u32>>,
    by_key: FxHashMap<u64, u64>,
}

impl StackTable {
    fn number(&mut self, stacks: &impl Stacks, id: Option<AllocId>) -> u64 {
        let Some((id, key)) = id.and_then(|id| Some((id, stacks.key(id)?))) else { return 0 };
        if let Some(number) = self.by_key.get(&key) {
            return *number;
        }
        let frames: Vec<u32> =
            stacks.frames(id).into_iter().take(MAX_FRAMES).map(|frame| self.frame(frame)).collect();
        self.stacks.push(frames);
        let number = self.stacks.len() as u64;
        self.by_key.insert(key, number);
        number
    }

    fn frame(&mut self, frame: (String, bool)) -> u32 {
        if let Some(id) = self.frame_ids.get(&frame) {
            return *id;
        }
        let id = u32::try_from(self.frames.len()).unwrap_or(u32::MAX);
        self.frames.push(frame.clone());
        self.frame_ids.insert(frame, id);
        id
    }

    fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let texts: Vec<&str> = self.frames.iter().map(|(text, _)| text.as_str()).collect();
        let own: Vec<u8> = self.frames.iter().map(|(_, own)| u8::from(*own)).collect();
        serde_json::to_vec(&(texts, own, &self.stacks))
    }
}

fn marks(lives: &Lives, document: &ReplayDocument) -> Vec<MarkDocument> {
    let seen = lives.marks.iter().map(|mark| match mark.kind {
        MarkKind::Oom { size, .. } => {
            MarkDocument { time: u64::from(mark.time), kind: "oom", size: Some(size.0) }
        }
        MarkKind::Retry => MarkDocument { time: u64::from(mark.time), kind: "retry", size: None },
    });
    let again = document.recorded_failures.iter().map(|failure| MarkDocument {
        time: failure.op,
        kind: if failure.served { "served" } else { "refused" },
        size: Some(failure.requested_bytes),
    });
    // Thousands of retries would hide everything else, and make the page large.
    let (retries, others): (Vec<_>, Vec<_>) =
        seen.chain(again).partition(|mark| mark.kind == "retry");
    let step = retries.len().div_ceil(2000).max(1);
    others.into_iter().take(10_000).chain(retries.into_iter().step_by(step)).collect()
}

const PARTS: [(&str, &str); 8] = [
    ("/*uplot.licence*/", include_str!("../../../assets/uplot/LICENSE")),
    ("/*uplot.css*/", include_str!("../../../assets/uplot/uPlot.min.css")),
    ("/*page.css*/", include_str!("../../../assets/page/page.css")),
    ("/*uplot.js*/", include_str!("../../../assets/uplot/uPlot.iife.min.js")),
    ("/*data.js*/", include_str!("../../../assets/page/data.js")),
    ("/*map.js*/", include_str!("../../../assets/page/map.js")),
    ("/*page.js*/", include_str!("../../../assets/page/page.js")),
    ("/*check.js*/", include_str!("../../../assets/page/check.js")),
];
const PAGE: &str = include_str!("../../../assets/page/page.html");

/// Writes a page.
///
/// # Errors
/// When `out` does.
///
/// # Complexity
/// O(n) in the blocks of all replays; the page takes about 6 bytes a block.
pub fn write(shown: &[Shown], stacks: &impl Stacks, out: &mut impl Write) -> io::Result<()> {
    let mut table = StackTable::default();
    let mut runs = Vec::new();
    let mut blobs = Vec::new();
    for run in shown {
        let lives = &run.timeline.lives;
        let numbers: Vec<u64> =
            lives.blocks.iter().map(|block| table.number(stacks, block.id)).collect();
        let (shape, blob) = columns::pack(lives, &run.timeline.fragmentation, &numbers)?;
        blobs.push(blob);
        runs.push(RunDocument {
            conf: &run.document.conf,
            verdict: Verdict::of(run.document, &run.timeline.replayed, run.failed.as_ref()),
            replay: run.document,
            window: [run.window.0, run.window.1],
            time_total: run.document.ops,
            marks: marks(lives, run.document),
            rules: SearchRules::of(
                run.terms,
                &run.timeline.replayed,
                run.document.capacity.map(Bytes),
            ),
            shape,
        });
    }
    let Some(first) = shown.first() else { return Ok(()) };
    let document = PageDocument {
        fragsim: env!("CARGO_PKG_VERSION"),
        file: &first.document.file,
        device: first.document.device,
        torch: &first.document.torch,
        notes: &first.document.notes,
        labels: stacks.are_labels(),
        runs,
    };
    let stacks = columns::packed(&table.to_json()?)?;
    assemble(out, PAGE, &PARTS, |out| {
        json_data(out, "meta", &document)?;
        data(out, "stacks", "text/plain", &stacks)?;
        for (i, blob) in blobs.iter().enumerate() {
            data(out, &format!("rows{i}"), "text/plain", blob)?;
        }
        Ok(())
    })
}

/// A page with its parts in their places; what has no part is the place for its data.
pub(super) fn assemble<W: Write>(
    out: &mut W,
    page: &str,
    parts: &[(&str, &str)],
    mut data: impl FnMut(&mut W) -> io::Result<()>,
) -> io::Result<()> {
    let mut rest = page;
    while let Some((before, mark, after)) = next_mark(rest) {
        out.write_all(before.as_bytes())?;
        match parts.iter().find(|(name, _)| *name == mark) {
            Some((name, part)) => out.write_all(without_banner(name, part).as_bytes())?,
            None => data(out)?,
        }
        rest = after;
    }
    out.write_all(rest.as_bytes())
}

/// A document as data that means nothing to a browser.
pub(super) fn json_data(
    out: &mut impl Write,
    id: &str,
    document: &impl Serialize,
) -> io::Result<()> {
    data(out, id, "application/json", &escaped(&serde_json::to_string(document)?))
}

/// The library without its first line, a comment with an address: its licence stands in the page.
fn without_banner<'a>(name: &str, part: &'a str) -> &'a str {
    let is_library = name == "/*uplot.js*/";
    match part.split_once('\n').filter(|(first, _)| is_library && first.starts_with("/*!")) {
        Some((_, rest)) => rest,
        None => part,
    }
}

fn data(out: &mut impl Write, id: &str, kind: &str, text: &str) -> io::Result<()> {
    writeln!(out, "<script type=\"{kind}\" id=\"{id}\">{text}</script>")
}

/// The text before the next place to fill, its name, and the text behind.
fn next_mark(page: &str) -> Option<(&str, &str, &str)> {
    let from = page.find("/*")?;
    let to = from + page[from..].find("*/")? + 2;
    Some((&page[..from], &page[from..to], &page[to..]))
}

/// JSON that ends no element, whatever its strings hold.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_ends_no_element() {
        let text = escaped(&serde_json::to_string("a</script><!--&\u{2028}").unwrap());
        assert_eq!(text, r#""a\u003c/script\u003e\u003c!--\u0026\u2028""#);
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), "a</script><!--&\u{2028}");
    }

    #[test]
    fn every_part_has_its_place_in_the_page() {
        for (mark, part) in PARTS {
            assert_eq!(PAGE.matches(mark).count(), 1, "{mark}");
            assert!(!part.contains("</script"), "{mark}");
        }
        assert!(PAGE.contains("/*data*/"));
    }
}
