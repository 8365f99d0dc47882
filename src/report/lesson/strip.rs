//! Segments and blocks to scale, in characters: for terminals and for plain text.
//!
//! ```text
//!  large   20 MiB [a======|b======|c======|.]     one column is 1 MiB
//! ```

use std::collections::BTreeMap;

use crate::{
    base::{Bytes, StreamHandle},
    lesson::{Part, PartKind, Played, Scene, SegmentShown, label},
};

/// How a character is painted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Frames and words.
    Plain,
    /// A live block, by the number of its label.
    Live(usize),
    /// A block that waits for another stream.
    Pending,
    /// Free memory.
    Free,
    /// Address space without memory.
    Unmapped,
}

impl Paint {
    /// What fills a part where there are no colours.
    const fn fill(self) -> char {
        match self {
            Self::Live(_) => '=',
            Self::Pending => '~',
            Self::Free => '.',
            Self::Plain | Self::Unmapped => ' ',
        }
    }
}

/// One segment in a line.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its pool and size.
    pub head: String,
    /// The segment.
    pub cells: Vec<(char, Paint)>,
    /// Its stream and private pool, where it has one.
    pub tail: String,
    /// Whether something in it is new or has just gone.
    pub is_changed: bool,
}

/// Bytes in a column, the same for every moment of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Of segments for blocks of at most 1 MiB.
    pub small: Bytes,
    /// Of the others.
    pub large: Bytes,
}

/// Characters of [`Row::head`].
pub const HEAD: usize = 17;

impl Scale {
    /// The finest with which every segment that the run ever has fits into `width` columns.
    pub fn of(played: &Played, width: usize) -> Self {
        let mut largest = [Bytes(512); 2];
        for done in 0..=played.steps.len() {
            for segment in &played.scene(done).segments {
                let half = &mut largest[usize::from(segment.place.is_small)];
                *half = (*half).max(segment.span.size);
            }
        }
        let columns = u64::try_from(width.max(8)).unwrap_or(8);
        let step = |size: Bytes| Bytes(size.0.div_ceil(columns).max(512).next_power_of_two());
        Self { small: step(largest[1]), large: step(largest[0]) }
    }

    const fn of_segment(self, segment: &SegmentShown) -> Bytes {
        if segment.place.is_small { self.small } else { self.large }
    }

    /// What a column stands for, in words.
    pub fn words(self, scene: &Scene) -> String {
        let has = |is_small: bool| scene.segments.iter().any(|s| s.place.is_small == is_small);
        let (small, large) = (short(self.small), short(self.large));
        match (has(true), has(false)) {
            (true, true) if small != large => {
                format!("one column is {small} (small), {large} (large)")
            }
            (true, false) => format!("one column is {small}"),
            (false, false) => String::new(),
            _ => format!("one column is {large}"),
        }
    }
}

/// A size without digits that say nothing.
pub fn short(size: Bytes) -> String {
    const UNITS: [(u64, &str); 4] =
        [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let Some((unit, name)) = UNITS.into_iter().find(|(unit, _)| size.0 >= *unit) else {
        return format!("{} B", size.0);
    };
    let hundredths = (u128::from(size.0) * 100 + u128::from(unit) / 2) / u128::from(unit);
    match (hundredths / 100, hundredths % 100) {
        (whole, 0) => format!("{whole} {name}"),
        (whole, rest) if rest % 10 == 0 => format!("{whole}.{} {name}", rest / 10),
        (whole, rest) => format!("{whole}.{rest:02} {name}"),
    }
}

/// The labels of a run in the order of their first block: each has a colour.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    numbers: BTreeMap<String, usize>,
    /// The labels.
    pub names: Vec<String>,
}

impl Labels {
    /// Those of a run.
    pub fn of(played: &Played) -> Self {
        let mut labels = Self::default();
        for name in &played.names {
            let label = label(name);
            if !labels.numbers.contains_key(label) {
                labels.numbers.insert(label.to_owned(), labels.names.len());
                labels.names.push(label.to_owned());
            }
        }
        labels
    }

    /// The number of a name's label.
    pub fn number(&self, name: &str) -> usize {
        self.numbers.get(label(name)).copied().unwrap_or_default()
    }
}

/// The segments of a moment, one a row; `before` is the moment that it is held against.
pub fn rows(scene: &Scene, before: &Scene, labels: &Labels, scale: Scale) -> Vec<Row> {
    let row = |segment: &SegmentShown| {
        let kind = if segment.place.is_small { "small" } else { "large" };
        let mut tail = Vec::new();
        if segment.place.is_expandable {
            tail.push("expandable".to_owned());
        }
        if segment.place.stream != StreamHandle(0) {
            tail.push("side stream".to_owned());
        }
        if segment.place.pool.is_private() {
            tail.push(format!("pool {}", segment.place.pool));
        }
        Row {
            head: format!("{kind} {:>10} ", short(segment.reserved())),
            cells: cells(segment, labels, scale.of_segment(segment)),
            tail: tail.join(", "),
            is_changed: !before.segments.contains(segment),
        }
    };
    scene.segments.iter().map(row).collect()
}

fn cells(segment: &SegmentShown, labels: &Labels, per_column: Bytes) -> Vec<(char, Paint)> {
    let mut cells = Vec::new();
    for (i, part) in segment.parts.iter().enumerate() {
        let paint = match part.kind {
            PartKind::Live => Paint::Live(labels.number(&part.name)),
            PartKind::Pending => Paint::Pending,
            PartKind::Free => Paint::Free,
            PartKind::Unmapped => Paint::Unmapped,
        };
        let columns = columns(segment, part, per_column);
        let edge = if i == 0 { '[' } else { '|' };
        // A part of one column has no room for its edge, but the first shows where the segment begins.
        let shows_edge = i == 0 || columns > 1;
        if shows_edge {
            cells.push((edge, paint));
        }
        let room = if columns > 1 { columns - 1 } else { 1 };
        let named = part.name.chars().map(Some).chain(std::iter::repeat(None)).take(room);
        cells.extend(named.map(|c| (c.unwrap_or(paint.fill()), paint)));
    }
    cells.push((']', Paint::Plain));
    cells
}

/// From where it begins to where it ends, each rounded to a column; none vanishes.
fn columns(segment: &SegmentShown, part: &Part, per_column: Bytes) -> usize {
    let at = |size: Bytes| (size.0 + per_column.0 / 2) / per_column.0;
    let from = at(part.span.start - segment.span.start);
    let to = at(part.span.end() - segment.span.start);
    usize::try_from(to - from).unwrap_or(usize::MAX).clamp(1, 4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (size, text) in [
            (Bytes(512), "512 B"),
            (Bytes::kib(1), "1 KiB"),
            (Bytes::mib(20), "20 MiB"),
            (Bytes((3 << 20) / 2), "1.5 MiB"),
            (Bytes(1_300_000), "1.24 MiB"),
            (Bytes::gib(80), "80 GiB"),
        ] {
            assert_eq!(short(size), text);
        }
    }
}
