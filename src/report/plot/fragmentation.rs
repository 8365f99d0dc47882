//! What is free over time.

use plotters::prelude::DrawingBackend;

use super::{
    axes::{Axes, Unit, number},
    memory::{below, below_stairs, highest, stairs},
    sheet::{Anchor, Look, MARGIN, PlotError, Sheet},
};
use crate::{
    base::Bytes, observe::Stretch, report::replay::ReplayDocument, study::timeline::Timeline,
};

pub(super) fn draw<B: DrawingBackend>(
    sheet: &Sheet<'_, B>,
    document: &ReplayDocument,
    timeline: &Timeline,
) -> Result<(), PlotError> {
    let theme = &sheet.theme;
    sheet.title("Free inside the cache, over time", &below(document))?;
    sheet.legend(
        (MARGIN, 84.0),
        &[
            ("free blocks, all", theme.reserved),
            ("of that, outside the largest free block", theme.scattered),
        ],
    )?;
    let series = &timeline.fragmentation;
    let stretches = series.stretches();
    let most = stretches.iter().map(|stretch| stretch.free[1].free.0).max().unwrap_or(0);
    let end = stretches.last().map_or(1.0, |stretch| f64::from(stretch.last.op.0) + 1.0);
    let axes = Axes {
        left: 92.0,
        top: 108.0,
        right: sheet.width() - MARGIN,
        bottom: sheet.height() - 58.0,
        x: (0.0, end.max(1.0)),
        y: (0.0, highest(most, None)),
    };
    let line = |of: fn(&Stretch) -> Bytes| {
        let begins = stretches.iter().map(|stretch| f64::from(stretch.first.op.0));
        let ends = begins.clone().skip(1).chain([end]);
        let values: Vec<(f64, f64, u64)> = begins
            .zip(ends)
            .zip(stretches)
            .map(|((from, to), stretch)| (from, to, of(stretch).0))
            .collect();
        stairs(&axes, &values)
    };
    let free = line(|stretch| stretch.free[1].free);
    let scattered = line(|stretch| stretch.scattered[1].scattered());
    sheet.polygon(&below_stairs(&axes, free.clone()), theme.reserved_fill)?;
    axes.draw_y(sheet, Unit::Bytes)?;
    sheet.line(&free, theme.reserved, 1.5)?;
    sheet.line(&scattered, theme.scattered, 1.8)?;
    axes.draw_x(sheet, Unit::Count, "operations done")?;
    let worst = series.worst();
    if worst.scattered() > Bytes::ZERO {
        let place = (axes.x(f64::from(worst.op.0)), axes.y(number(worst.scattered().0)));
        sheet.dot(place, 5.0, theme.bad)?;
        let text = format!(
            "worst: {} scattered when operation {} needed new memory",
            worst.scattered(),
            worst.op
        );
        let look = Look::new(14.0, theme.bad).bold().at(Anchor::Right);
        sheet.text(&text, (axes.right, 84.0), look)?;
    }
    Ok(())
}
