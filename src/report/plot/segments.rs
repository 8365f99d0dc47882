//! Where everything lies at one moment: memory to scale, in lines like text.

use plotters::{prelude::DrawingBackend, style::RGBColor};
use rustc_hash::FxHashMap;

use super::{
    axes::number,
    memory::below,
    sheet::{Anchor, Look, MARGIN, PlotError, Sheet, label_color},
};
use crate::{
    base::{Addr, Bytes, OpIndex, PoolId, StreamHandle},
    report::replay::ReplayDocument,
    trace::{BlockState, Layout, SegmentLayout},
};

/// The labels of blocks, by where they lie.
#[derive(Clone, Debug, Default)]
pub struct BlockLabels {
    /// The labels.
    pub names: Vec<String>,
    /// Positions in `names`.
    pub of: FxHashMap<Addr, usize>,
}

impl BlockLabels {
    fn color(&self, addr: Addr) -> Option<RGBColor> {
        let label = *self.of.get(&addr)?;
        Some(label_color(self.names.get(label)?, label))
    }
}

const TOP: f64 = 108.0;
const LINE: f64 = 20.0;
const STEP: f64 = 26.0;
const HEAD: f64 = 26.0;
/// Lines that memory is drawn in, when there are few groups.
const LINES: f64 = 16.0;
/// Between two segments, and where nothing is mapped.
const GAP: f64 = 3.0;
const UNMAPPED: f64 = 13.0;

/// Segments of one pool, half and stream.
struct Group<'a> {
    key: (PoolId, bool, StreamHandle),
    segments: Vec<&'a SegmentLayout>,
}

impl Group<'_> {
    fn bytes(&self) -> Bytes {
        self.segments.iter().map(|segment| segment.size()).sum()
    }

    fn name(&self) -> String {
        let (pool, is_small, stream) = self.key;
        let pool =
            if pool.is_private() { format!("pool {pool}") } else { "default pool".to_owned() };
        let half = if is_small { "small" } else { "large" };
        let (bytes, count) = (self.bytes(), self.segments.len());
        let what = if count == 1 { "segment" } else { "segments" };
        format!("{pool}, {half}, stream {stream}: {bytes} in {count} {what}")
    }
}

fn groups(layout: &Layout) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for segment in &layout.segments {
        let key = (segment.pool, segment.is_small, segment.stream);
        match groups.iter_mut().find(|group| group.key == key) {
            Some(group) => group.segments.push(segment),
            None => groups.push(Group { key, segments: vec![segment] }),
        }
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.bytes()));
    groups
}

/// A part of a segment in one line.
struct Piece<'a> {
    x: f64,
    y: f64,
    from: f64,
    to: f64,
    segment: &'a SegmentLayout,
}

/// Everything in its place.
struct Arranged<'a> {
    pieces: Vec<Piece<'a>>,
    heads: Vec<(f64, String)>,
    unmapped: Vec<(f64, f64)>,
    bottom: f64,
    per_unit: f64,
}

fn arrange(layout: &Layout) -> Arranged<'_> {
    let groups = groups(layout);
    let width = f64::from(super::WIDTH) - 2.0 * MARGIN;
    let lines = (LINES - number(groups.len() as u64)).max(4.0);
    let per_unit = (number(layout.reserved().0) / (width * lines)).max(64.0);
    let mut all = Arranged {
        pieces: Vec::new(),
        heads: Vec::new(),
        unmapped: Vec::new(),
        bottom: TOP,
        per_unit,
    };
    for group in &groups {
        all.heads.push((all.bottom + HEAD / 2.0, group.name()));
        all.bottom += HEAD;
        let mut x = 0.0;
        let mut before: Option<&SegmentLayout> = None;
        for segment in &group.segments {
            let is_broken = segment.is_expandable && before.is_some_and(|b| b.is_expandable);
            if x > 0.0 && x + UNMAPPED > width {
                x = 0.0;
                all.bottom += STEP;
            }
            if x > 0.0 {
                if is_broken {
                    all.unmapped.push((MARGIN + x, all.bottom));
                }
                x += if is_broken { UNMAPPED } else { GAP };
            }
            let (mut from, size) = (0.0, number(segment.size().0));
            while from < size {
                if x >= width - 1.0 {
                    x = 0.0;
                    all.bottom += STEP;
                }
                let to = size.min(from + (width - x) * per_unit);
                all.pieces.push(Piece { x: MARGIN + x, y: all.bottom, from, to, segment });
                x += ((to - from) / per_unit).max(1.0);
                from = to;
            }
            before = Some(segment);
        }
        all.bottom += STEP + 4.0;
    }
    all
}

/// The height of a picture of this layout.
pub(super) fn height(layout: &Layout) -> u32 {
    let bottom = arrange(layout).bottom + 24.0;
    // Thousands of groups would make a picture that nobody can look at.
    (160..=6000).rev().find(|height| f64::from(*height) <= bottom).unwrap_or(160)
}

pub(super) fn draw<B: DrawingBackend>(
    sheet: &Sheet<'_, B>,
    document: &ReplayDocument,
    layout: &Layout,
    at: OpIndex,
    labels: &BlockLabels,
) -> Result<(), PlotError> {
    let theme = &sheet.theme;
    sheet.title(&format!("Segments before operation {at}"), &below(document))?;
    let mut entries = vec![("waits for another stream", theme.pending), ("free", theme.free)];
    if labels.of.is_empty() {
        entries.insert(0, ("handed out", theme.allocated));
    } else {
        let there = |i: &usize| labels.of.values().any(|label| label == i);
        let shown = (0..labels.names.len()).filter(there).take(8);
        let shown = shown.map(|i| (labels.names[i].as_str(), label_color(&labels.names[i], i)));
        entries = shown.chain([("free", theme.free)]).collect();
    }
    sheet.legend((MARGIN, 84.0), &entries)?;
    let all = arrange(layout);
    let free = layout.bytes_in(BlockState::Inactive);
    let scale = format!(
        "{} reserved, {free} of it free · 100 pixels are {}",
        layout.reserved(),
        Bytes(1).scale(all.per_unit * 100.0)
    );
    let look = Look::new(14.0, theme.quiet).at(Anchor::Right);
    sheet.text(&scale, (sheet.width() - MARGIN, 84.0), look)?;
    if layout.segments.is_empty() {
        let look = Look::new(14.0, theme.quiet);
        return sheet.text("no memory is reserved here", (MARGIN, TOP + 14.0), look);
    }
    for (y, name) in &all.heads {
        sheet.text(name, (MARGIN, *y), Look::new(14.0, theme.quiet))?;
    }
    for (x, y) in &all.unmapped {
        for dx in [3.0, 6.0, 9.0] {
            sheet.rect((x + dx, y + LINE / 2.0), (2.0, 2.0), theme.edge)?;
        }
    }
    for piece in &all.pieces {
        draw_piece(sheet, piece, all.per_unit, labels)?;
    }
    Ok(())
}

fn draw_piece<B: DrawingBackend>(
    sheet: &Sheet<'_, B>,
    piece: &Piece<'_>,
    per_unit: f64,
    labels: &BlockLabels,
) -> Result<(), PlotError> {
    let theme = &sheet.theme;
    let width = ((piece.to - piece.from) / per_unit).max(1.0);
    sheet.rect((piece.x, piece.y), (width, LINE), theme.free)?;
    // Blocks narrower than a pixel: how full each pixel is, from below. None vanishes.
    let mut narrow: Option<(f64, f64)> = None;
    let draw_narrow = |narrow: &mut Option<(f64, f64)>| match narrow.take() {
        None => Ok(()),
        Some((x, share)) => {
            let full = (LINE * share.min(1.0)).max(1.0);
            sheet.rect((piece.x + x, piece.y + LINE - full), (1.0, full), theme.allocated)
        }
    };
    let offset = |addr: Addr| number((addr - piece.segment.addr).0);
    for (addr, block) in piece.segment.blocks_at() {
        let (start, end) = (offset(addr), offset(addr + block.size));
        if block.state == BlockState::Inactive || end <= piece.from || start >= piece.to {
            continue;
        }
        let x0 = ((start - piece.from) / per_unit).max(0.0);
        let x1 = ((end - piece.from) / per_unit).min(width);
        if x1 - x0 < 1.5 {
            let at = x0.floor();
            match &mut narrow {
                Some((x, share)) if (*x - at).abs() < 0.5 => *share += x1 - x0,
                _ => {
                    draw_narrow(&mut narrow)?;
                    narrow = Some((at, x1 - x0));
                }
            }
            continue;
        }
        draw_narrow(&mut narrow)?;
        let color = match block.state {
            BlockState::ActivePendingFree => theme.pending,
            _ => labels.color(addr).unwrap_or(theme.allocated),
        };
        let (left, right) = (x0.round(), x1.round().max(x0.round() + 1.0));
        // A hair of the background between neighbours.
        let hair = if right - left > 3.0 { 1.0 } else { 0.0 };
        sheet.rect((piece.x + left, piece.y), (right - left - hair, LINE), color)?;
    }
    draw_narrow(&mut narrow)?;
    sheet.frame((piece.x, piece.y), (width, LINE), theme.edge)
}
