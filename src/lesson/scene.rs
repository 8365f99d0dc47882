//! [`Scene`]: segments and blocks at one moment, with names.

use crate::{
    base::{Addr, AllocId, Bytes, Id, Span},
    observe::{BlockLife, Lives},
    sim::Place,
};

/// What a part of a segment is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// Handed out.
    Live,
    /// Freed by the program, waiting for another stream.
    Pending,
    /// In the free list.
    Free,
    /// Address space of an expandable segment without memory.
    Unmapped,
}

/// A part of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its addresses.
    pub span: Span,
    /// What it is.
    pub kind: PartKind,
    /// The allocation that it belongs to.
    pub id: Option<AllocId>,
    /// What that is called; empty for free memory.
    pub name: String,
}

/// A segment, or all ranges of an expandable one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentShown {
    /// From its first address to its last, with what is unmapped between.
    pub span: Span,
    /// Where it belongs.
    pub place: Place,
    /// Its parts, which tile it.
    pub parts: Vec<Part>,
}

impl SegmentShown {
    /// Bytes of memory in it.
    pub fn reserved(&self) -> Bytes {
        let mapped = self.parts.iter().filter(|part| part.kind != PartKind::Unmapped);
        mapped.map(|part| part.span.size).sum()
    }
}

/// Everything at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    /// The segments: the small ones first, then by pool, stream and address.
    pub segments: Vec<SegmentShown>,
}

/// What allocations of one kind have in common: `act.3` is an `act`, `b2` a `b`.
pub fn label(name: &str) -> &str {
    match name.split_once('.') {
        Some((label, _)) => label,
        None => {
            let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
            if stem.is_empty() { name } else { stem }
        }
    }
}

impl Scene {
    pub(super) fn at(lives: &Lives, names: &[String], time: u32) -> Self {
        let there = lives.segments.iter().filter(|s| s.born <= time && time < s.died);
        let mut ranges: Vec<(Span, Place)> = there.map(|s| (s.span, s.place)).collect();
        ranges.sort_by_key(|(span, place)| (!place.is_small, place.pool, place.stream, span.start));
        let mut segments: Vec<SegmentShown> = Vec::new();
        for (span, place) in ranges {
            let before = segments.last_mut().filter(|s| place.is_expandable && s.place == place);
            match before {
                Some(segment) => {
                    segment.gap_to(span.start);
                    segment.span = Span::new(segment.span.start, span.end() - segment.span.start);
                }
                None => segments.push(SegmentShown { span, place, parts: Vec::new() }),
            }
        }
        let mut blocks: Vec<&BlockLife> =
            lives.blocks.iter().filter(|b| b.born <= time && time < b.died).collect();
        blocks.sort_by_key(|block| block.span.start);
        for segment in &mut segments {
            let unmapped = std::mem::take(&mut segment.parts);
            let own = blocks.iter().filter(|block| segment.span.contains(block.span.start));
            let taken = own.map(|block| Part {
                span: block.span,
                kind: if block.freed <= time { PartKind::Pending } else { PartKind::Live },
                id: block.id,
                name: block.id.and_then(|id| names.get(id.index())).cloned().unwrap_or_default(),
            });
            let mut taken: Vec<Part> = taken.chain(unmapped).collect();
            taken.sort_by_key(|part| part.span.start);
            let mut at = segment.span.start;
            for part in taken {
                segment.free_up_to(at, part.span.start);
                at = part.span.end();
                segment.parts.push(part);
            }
            segment.free_up_to(at, segment.span.end());
        }
        Self { segments }
    }

    /// The largest free block.
    pub fn largest_free(&self) -> Bytes {
        let parts = self.segments.iter().flat_map(|segment| &segment.parts);
        let free = parts.filter(|part| part.kind == PartKind::Free);
        free.map(|part| part.span.size).max().unwrap_or(Bytes::ZERO)
    }
}

impl SegmentShown {
    /// Up to `next` nothing is mapped.
    fn gap_to(&mut self, next: Addr) {
        if self.span.end() < next {
            let span = Span::new(self.span.end(), next - self.span.end());
            self.parts.push(Part { span, kind: PartKind::Unmapped, id: None, name: String::new() });
        }
    }

    fn free_up_to(&mut self, at: Addr, next: Addr) {
        if at < next {
            let span = Span::new(at, next - at);
            self.parts.push(Part { span, kind: PartKind::Free, id: None, name: String::new() });
        }
    }
}
