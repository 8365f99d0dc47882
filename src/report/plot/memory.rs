//! Memory over time.

use plotters::{prelude::DrawingBackend, style::RGBColor};

use super::{
    axes::{Axes, Unit, number},
    sheet::{Anchor, Look, MARGIN, PlotError, Sheet, label_color},
};
use crate::{
    base::Bytes,
    observe::{Bucket, Levels},
    report::replay::ReplayDocument,
    study::{labels::LabelSeries, timeline::Timeline},
};

/// What stands below the title of any picture of one replay.
pub(super) fn below(document: &ReplayDocument) -> String {
    let conf = if document.conf.is_empty() { "default settings" } else { &document.conf };
    let capacity = document
        .capacity
        .map_or_else(String::new, |capacity| format!(", capacity {}", Bytes(capacity)));
    format!("{} · PyTorch {}{capacity} · {conf}", document.file, document.torch)
}

/// The upper end of an axis of bytes: the capacity too, where it is near.
pub(super) fn highest(most: u64, capacity: Option<u64>) -> f64 {
    let high = number(most.max(1024)) * 1.08;
    match capacity.map(number) {
        Some(capacity) if capacity < 1.6 * high => high.max(capacity * 1.08),
        _ => high,
    }
}

/// A line of stairs, from the places of the buckets.
pub(super) fn stairs(axes: &Axes, values: &[(f64, f64, u64)]) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = Vec::with_capacity(2 * values.len());
    for (from, to, value) in values {
        let y = axes.y(number(*value));
        // Stairs of one height are one line.
        if points.len() >= 2
            && let Some(last) = points.last_mut()
            && (last.1 - y).abs() < 0.01
        {
            last.0 = axes.x(*to);
            continue;
        }
        points.push((axes.x(*from), y));
        points.push((axes.x(*to), y));
    }
    points
}

/// The same down to the lower edge.
pub(super) fn below_stairs(axes: &Axes, mut points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    if let (Some(first), Some(last)) = (points.first().copied(), points.last().copied()) {
        points.push((last.0, axes.bottom));
        points.push((first.0, axes.bottom));
    }
    points
}

/// A level of each bucket, with the times from which and to which it holds.
fn levels(buckets: &[Bucket], of: impl Fn(&Bucket) -> Bytes) -> Vec<(f64, f64, u64)> {
    let value =
        |bucket: &Bucket| (f64::from(bucket.first.0), f64::from(bucket.last.0) + 1.0, of(bucket).0);
    buckets.iter().map(value).collect()
}

pub(super) fn draw<B: DrawingBackend>(
    sheet: &Sheet<'_, B>,
    document: &ReplayDocument,
    timeline: &Timeline,
) -> Result<(), PlotError> {
    let theme = &sheet.theme;
    sheet.title("Memory over time", &below(document))?;
    legend(sheet, &timeline.labels)?;
    let buckets = timeline.memory.buckets();
    let most = document.worst.reserved.reserved_bytes;
    let end = buckets.last().map_or(1.0, |bucket| f64::from(bucket.last.0) + 1.0);
    let axes = Axes {
        left: 92.0,
        top: 122.0,
        right: sheet.width() - MARGIN,
        bottom: sheet.height() - 58.0,
        x: (0.0, end.max(1.0)),
        y: (0.0, highest(most, document.capacity)),
    };
    type Of = fn(&Levels) -> Bytes;
    let max = |of: Of| stairs(&axes, &levels(buckets, |bucket| of(&bucket.max)));
    let min = |of: Of| stairs(&axes, &levels(buckets, |bucket| of(&bucket.min)));
    let reserved: Of = |levels| levels.reserved;
    let allocated: Of = |levels| levels.allocated;
    sheet.polygon(&below_stairs(&axes, max(reserved)), theme.reserved_fill)?;
    // Between its least and its most a level is anywhere within a bucket.
    if timeline.labels.names.is_empty() {
        sheet.polygon(&below_stairs(&axes, max(allocated)), theme.allocated_band)?;
        sheet.polygon(&below_stairs(&axes, min(allocated)), theme.allocated_fill)?;
    } else {
        draw_labels(sheet, &axes, buckets, &timeline.labels)?;
    }
    axes.draw_y(sheet, Unit::Bytes)?;
    let lines: [(Of, RGBColor); 4] = [
        (reserved, theme.reserved),
        (|levels| levels.active, theme.active),
        (allocated, theme.allocated),
        (|levels| levels.requested, theme.requested),
    ];
    // Over a pile of labels only what lies outside of it has a line.
    let shown = if timeline.labels.names.is_empty() { lines.len() } else { 1 };
    for (of, color) in lines.into_iter().take(shown) {
        sheet.line(&max(of), color, 1.5)?;
    }
    axes.draw_x(sheet, Unit::Count, "operations done")?;
    if let Some(capacity) = document.capacity {
        draw_capacity(sheet, &axes, capacity)?;
    }
    marks(sheet, &axes, document)
}

fn legend<B: DrawingBackend>(sheet: &Sheet<'_, B>, labels: &LabelSeries) -> Result<(), PlotError> {
    let theme = &sheet.theme;
    let mut entries: Vec<(&str, RGBColor)> = Vec::new();
    // From the top of the pile to its bottom, as it is drawn.
    for (i, name) in labels.names.iter().enumerate().rev() {
        entries.push((name, label_color(name, i)));
    }
    if entries.is_empty() {
        entries.extend([("requested", theme.requested), ("allocated", theme.allocated)]);
        entries.push(("active", theme.active));
    }
    entries.push(("reserved", theme.reserved));
    entries.truncate(12);
    sheet.legend((MARGIN, 84.0), &entries)
}

/// What was asked for, one label on the other.
fn draw_labels<B: DrawingBackend>(
    sheet: &Sheet<'_, B>,
    axes: &Axes,
    buckets: &[Bucket],
    labels: &LabelSeries,
) -> Result<(), PlotError> {
    // The whole pile first: what lies on it hides all but its own label.
    for (label, name) in labels.names.iter().enumerate().rev() {
        let value = |(bucket, row): (&Bucket, &Vec<u64>)| {
            let up_to =
                row.iter().take(label + 1).fold(0, |sum: u64, part| sum.saturating_add(*part));
            (f64::from(bucket.first.0), f64::from(bucket.last.0) + 1.0, up_to)
        };
        let pile: Vec<_> = buckets.iter().zip(&labels.rows).map(value).collect();
        let color = label_color(name, label);
        sheet.polygon(&below_stairs(axes, stairs(axes, &pile)), color)?;
    }
    Ok(())
}

fn draw_capacity<B: DrawingBackend>(
    sheet: &Sheet<'_, B>,
    axes: &Axes,
    capacity: u64,
) -> Result<(), PlotError> {
    if number(capacity) > axes.y.1 {
        return Ok(());
    }
    let y = axes.y(number(capacity));
    sheet.dashed((axes.left, y), (axes.right, y), sheet.theme.text, 1.0)?;
    let text = format!("capacity {}", Bytes(capacity));
    sheet.text(&text, (axes.left + 8.0, y - 10.0), Look::new(13.0, sheet.theme.text))
}

/// The failures, with what was asked.
fn marks<B: DrawingBackend>(
    sheet: &Sheet<'_, B>,
    axes: &Axes,
    document: &ReplayDocument,
) -> Result<(), PlotError> {
    let own = document.oom.iter().map(|oom| (oom.op + 1, oom.requested_bytes, false));
    let again = document
        .recorded_failures
        .iter()
        .map(|failure| (failure.op, Some(failure.requested_bytes), failure.served));
    let mut marks: Vec<_> = own.chain(again).collect();
    marks.sort_unstable_by_key(|mark| mark.0);
    let mut free_from = f64::NEG_INFINITY;
    for (time, size, is_served) in marks.into_iter().take(200) {
        let x = axes.x(number(time));
        let color = if is_served { sheet.theme.good } else { sheet.theme.bad };
        sheet.dashed((x, axes.top - 16.0), (x, axes.bottom), color, 2.0)?;
        let what = if is_served { "served now" } else { "out of memory" };
        let text = match size {
            Some(size) => format!("{what}: {}", Bytes(size)),
            None => what.to_owned(),
        };
        let look = Look::new(14.0, color).bold();
        let width = sheet.text_width(&text, look);
        // To the left of its line where there is no room on the right.
        let is_left = x + width + 12.0 > axes.right;
        let begins = if is_left { x - 8.0 - width } else { x + 8.0 };
        if begins < free_from {
            continue;
        }
        // Above the box, where it hides nothing.
        sheet.text(&text, (begins, axes.top - 8.0), look.at(Anchor::Left))?;
        free_from = begins + width + 16.0;
    }
    Ok(())
}
