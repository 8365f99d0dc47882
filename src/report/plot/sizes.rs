//! What is asked for, by size.

use plotters::{prelude::DrawingBackend, style::RGBColor};

use super::{
    axes::{Axes, Unit, label, number},
    memory::below,
    sheet::{Anchor, Look, MARGIN, PlotError, Sheet},
};
use crate::{base::Bytes, report::replay::ReplayDocument, study::sizes::SizeClass};

pub(super) fn draw<B: DrawingBackend>(
    sheet: &Sheet<'_, B>,
    document: &ReplayDocument,
    classes: &[SizeClass],
) -> Result<(), PlotError> {
    let theme = sheet.theme;
    sheet.title("Requests by size", &below(document))?;
    let total: u64 = classes.iter().map(|class| class.requests).sum();
    let bytes: Bytes = classes.iter().map(|class| class.bytes).sum();
    let text = format!("{} requests, {bytes} in all", label(number(total), Unit::Count));
    let look = Look::new(14.0, theme.quiet);
    sheet.text(&text, (MARGIN, 84.0), look)?;
    type Panel = (&'static str, RGBColor, Unit, fn(&SizeClass) -> u64);
    let panels: [Panel; 2] = [
        ("requests", theme.allocated, Unit::Count, |class| class.requests),
        ("bytes asked for", theme.requested, Unit::Bytes, |class| class.bytes.0),
    ];
    let (top, bottom) = (128.0, sheet.height() - 58.0);
    let middle = f64::midpoint(top, bottom);
    let spans = [(top, middle - 22.0), (middle + 22.0, bottom)];
    for ((name, color, unit, of), (top, bottom)) in panels.into_iter().zip(spans) {
        let most = classes.iter().map(of).max().unwrap_or(0).max(1);
        let count = number(classes.len().max(1) as u64);
        let axes = Axes {
            left: 92.0,
            top,
            right: sheet.width() - MARGIN,
            bottom,
            x: (0.0, count),
            y: (0.0, number(most) * 1.08),
        };
        axes.draw_y(sheet, unit)?;
        sheet.text(name, (axes.left, top - 14.0), Look::new(14.0, theme.text).bold())?;
        let step = (axes.right - axes.left) / count;
        for (i, class) in classes.iter().enumerate() {
            let left = axes.left + step * number(i as u64);
            let y = axes.y(number(of(class)));
            if of(class) > 0 {
                let width = (step * 0.82).min(80.0);
                sheet.rect(
                    (left + (step - width) / 2.0, y.min(bottom - 1.0)),
                    (width, (bottom - y).max(1.0)),
                    color,
                )?;
            }
            if bottom + 30.0 > middle + 60.0 {
                let look = Look::new(12.0, theme.quiet).at(Anchor::Middle);
                sheet.text(&short(class.at_least), (left + step / 2.0, bottom + 15.0), look)?;
            }
        }
        sheet.line(&[(axes.left, bottom), (axes.right, bottom)], theme.edge, 1.0)?;
    }
    let look = Look::new(13.0, theme.quiet).at(Anchor::Middle);
    let below = "size from this power of two up to the next";
    sheet.text(below, (sheet.width() / 2.0, sheet.height() - 18.0), look)
}

/// A power of two, short.
fn short(size: Bytes) -> String {
    label(number(size.0), Unit::Bytes).replace("iB", "").replace(' ', "")
}
