//! Settings side by side, and against each other.

use plotters::prelude::DrawingBackend;

use super::{
    axes::{Axes, Unit, number},
    sheet::{Anchor, Look, MARGIN, PlotError, Sheet},
};
use crate::{base::Bytes, report::replay::ReplayDocument};

const ROW: f64 = 62.0;

/// The height of a picture of so many rows.
pub(super) fn height(rows: usize) -> u32 {
    170 + 62 * u32::try_from(rows.min(90)).unwrap_or(90)
}

fn conf(document: &ReplayDocument) -> &str {
    if document.conf.is_empty() { "(default settings)" } else { &document.conf }
}

/// What became of it, and whether that is well.
fn fate(document: &ReplayDocument) -> (String, bool) {
    let again = document.recorded_failures.iter().find(|failure| !failure.served);
    match (&document.oom, again) {
        (_, Some(failure)) => {
            let size = Bytes(failure.requested_bytes);
            (format!("out of memory at operation {}: {size}", failure.op), false)
        }
        (Some(oom), None) => {
            let size = oom.requested_bytes.map_or_else(String::new, |s| format!(": {}", Bytes(s)));
            (format!("out of memory at operation {}{size}", oom.op), false)
        }
        (None, None) => ("everything is served".to_owned(), true),
    }
}

fn title<B: DrawingBackend>(
    sheet: &Sheet<'_, B>,
    title: &str,
    documents: &[&ReplayDocument],
) -> Result<(), PlotError> {
    let Some(first) = documents.first() else { return Ok(()) };
    let capacity = first.capacity.map_or_else(String::new, |c| format!(" · capacity {}", Bytes(c)));
    sheet.title(title, &format!("{} · PyTorch {}{capacity}", first.file, first.torch))
}

pub(super) fn draw<B: DrawingBackend>(
    sheet: &Sheet<'_, B>,
    documents: &[&ReplayDocument],
) -> Result<(), PlotError> {
    let theme = &sheet.theme;
    title(sheet, "Settings side by side", documents)?;
    sheet.legend(
        (MARGIN, 84.0),
        &[("peak allocated", theme.allocated), ("peak reserved", theme.reserved)],
    )?;
    let capacity = documents.first().and_then(|document| document.capacity);
    let most = documents.iter().map(|document| document.worst.reserved.reserved_bytes).max();
    let axes = Axes {
        left: MARGIN,
        top: 108.0,
        right: sheet.width() - 200.0,
        bottom: sheet.height() - 58.0,
        x: (0.0, super::memory::highest(most.unwrap_or(0), capacity)),
        y: (0.0, 1.0),
    };
    for (i, document) in documents.iter().enumerate() {
        let y = axes.top + ROW * number(i as u64);
        let name = Look::new(14.0, theme.text).bold();
        let (fate, is_well) = fate(document);
        let look = Look::new(14.0, if is_well { theme.good } else { theme.bad });
        let room = axes.right - axes.left - sheet.text_width(&fate, look) - 24.0;
        let shown = sheet.fitted(conf(document), room, name);
        sheet.text(&shown, (axes.left, y + 12.0), name)?;
        let after = axes.left + sheet.text_width(&shown, name) + 16.0;
        sheet.text(&fate, (after, y + 12.0), look)?;
        let worst = &document.worst;
        let bar = |bytes: u64| axes.x(number(bytes)) - axes.left;
        let (reserved, allocated) =
            (worst.reserved.reserved_bytes, worst.allocated.allocated_bytes);
        sheet.rect((axes.left, y + 25.0), (bar(reserved), 20.0), theme.reserved)?;
        sheet.rect((axes.left, y + 25.0), (bar(allocated), 20.0), theme.allocated)?;
        let calls = document.device_calls;
        let calls = calls.malloc + calls.free + calls.map + calls.unmap;
        let right = sheet.width() - MARGIN;
        let look = Look::new(14.0, theme.text).at(Anchor::Right);
        sheet.text(&format!("{} reserved", Bytes(reserved)), (right, y + 18.0), look)?;
        let look = Look::new(13.0, theme.quiet).at(Anchor::Right);
        let retries = document.stats.get("num_alloc_retries").copied().unwrap_or(0);
        let text = format!("{calls} device calls, {retries} retries");
        sheet.text(&text, (right, y + 37.0), look)?;
    }
    axes.draw_x(sheet, Unit::Bytes, "bytes")?;
    if let Some(capacity) = capacity.filter(|capacity| number(*capacity) <= axes.x.1) {
        let x = axes.x(number(capacity));
        sheet.dashed((x, axes.top), (x, axes.bottom), theme.text, 1.0)?;
        let look = Look::new(13.0, theme.text).at(Anchor::Right);
        sheet.text(&format!("capacity {}", Bytes(capacity)), (x, axes.top - 10.0), look)?;
    }
    Ok(())
}

/// Memory against calls: what is down and to the left is better in both.
pub(super) fn pareto<B: DrawingBackend>(
    sheet: &Sheet<'_, B>,
    documents: &[&ReplayDocument],
) -> Result<(), PlotError> {
    let theme = &sheet.theme;
    title(sheet, "Memory against calls of the driver", documents)?;
    let points: Vec<(u64, u64, &ReplayDocument)> = documents
        .iter()
        .filter(|document| fate(document).1)
        .map(|document| {
            let calls = document.device_calls;
            let calls = calls.malloc + calls.free + calls.map + calls.unmap;
            (document.worst.reserved.reserved_bytes, calls, *document)
        })
        .collect();
    let dead = documents.len() - points.len();
    let text = match (points.len(), dead) {
        (0, _) => "none of the settings survives".to_owned(),
        (_, 0) => {
            "better is down and to the left; the line joins what nothing beats in both".to_owned()
        }
        (_, n) => format!(
            "better is down and to the left; the line joins what nothing beats in both; {n} that run out of memory are not shown"
        ),
    };
    sheet.text(&text, (MARGIN, 84.0), Look::new(14.0, theme.quiet))?;
    let range = |values: Vec<u64>| {
        let (low, high) = (values.iter().min(), values.iter().max());
        let (low, high) = (number(*low.unwrap_or(&0)), number(*high.unwrap_or(&1)));
        let space = ((high - low) * 0.15).max(high * 0.01).max(1.0);
        ((low - space).max(0.0), high + space)
    };
    let axes = Axes {
        left: 92.0,
        top: 116.0,
        right: sheet.width() - MARGIN,
        bottom: sheet.height() - 58.0,
        x: range(points.iter().map(|point| point.0).collect()),
        y: range(points.iter().map(|point| point.1).collect()),
    };
    axes.draw_y(sheet, Unit::Count)?;
    axes.draw_x(sheet, Unit::Bytes, "peak reserved")?;
    let name = "device calls";
    sheet.text(name, (axes.left + 6.0, axes.top - 6.0), Look::new(13.0, theme.quiet))?;
    let is_beaten = |a: &(u64, u64, &ReplayDocument)| {
        points.iter().any(|b| b.0 <= a.0 && b.1 <= a.1 && (b.0 < a.0 || b.1 < a.1))
    };
    let mut front: Vec<(u64, u64)> =
        points.iter().filter(|point| !is_beaten(point)).map(|point| (point.0, point.1)).collect();
    front.sort_unstable();
    front.dedup();
    let place = |x: u64, y: u64| (axes.x(number(x)), axes.y(number(y)));
    let mut stairs = Vec::new();
    for (x, y) in &front {
        if let Some((_, before)) = stairs.last().copied() {
            stairs.push((axes.x(number(*x)), before));
        }
        stairs.push(place(*x, *y));
    }
    if stairs.len() > 1 {
        sheet.line(&stairs, theme.good, 2.0)?;
    }
    let mut taken: Vec<(f64, f64, f64)> = Vec::new();
    for point in &points {
        let at = place(point.0, point.1);
        let color = if is_beaten(point) { theme.reserved } else { theme.good };
        sheet.dot(at, 6.0, color)?;
        name_point(sheet, &axes, &mut taken, at, conf(point.2))?;
    }
    Ok(())
}

/// A name beside its point, where no other name stands.
fn name_point<B: DrawingBackend>(
    sheet: &Sheet<'_, B>,
    axes: &Axes,
    taken: &mut Vec<(f64, f64, f64)>,
    (x, y): (f64, f64),
    name: &str,
) -> Result<(), PlotError> {
    let look = Look::new(13.0, sheet.theme.text);
    let name = sheet.fitted(name, 420.0, look);
    let width = sheet.text_width(&name, look);
    let left = if x + width + 14.0 > axes.right { x - width - 12.0 } else { x + 12.0 };
    for step in [0.0, -18.0, 18.0, -36.0, 36.0, -54.0, 54.0] {
        let middle = y + step;
        let is_free = taken
            .iter()
            .all(|(l, r, m)| (m - middle).abs() >= 17.0 || *r < left || left + width < *l);
        if is_free && middle > axes.top - 20.0 && middle < axes.bottom - 6.0 {
            taken.push((left, left + width, middle));
            return sheet.text(&name, (left, middle), look);
        }
    }
    Ok(())
}
