//! [`Axes`]: a box with numbers at its left and lower edge.

use plotters::prelude::DrawingBackend;

use super::sheet::{Anchor, Look, PlotError, Sheet};

/// What an axis counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Bytes: steps are powers of two.
    Bytes,
    /// Whole things.
    Count,
}

/// From numbers to places on a sheet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axes {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
    pub(super) x: (f64, f64),
    pub(super) y: (f64, f64),
}

impl Axes {
    pub(super) fn x(&self, value: f64) -> f64 {
        let share = (value - self.x.0) / (self.x.1 - self.x.0).max(f64::MIN_POSITIVE);
        self.left + share.clamp(0.0, 1.0) * (self.right - self.left)
    }

    pub(super) fn y(&self, value: f64) -> f64 {
        let share = (value - self.y.0) / (self.y.1 - self.y.0).max(f64::MIN_POSITIVE);
        self.bottom - share.clamp(0.0, 1.0) * (self.bottom - self.top)
    }

    /// Lines and numbers of the left axis.
    pub(super) fn draw_y<B: DrawingBackend>(
        &self,
        sheet: &Sheet<'_, B>,
        unit: Unit,
    ) -> Result<(), PlotError> {
        let look = Look::new(13.0, sheet.theme.quiet).at(Anchor::Right);
        for tick in ticks(self.y, (self.bottom - self.top) / 55.0, unit) {
            let y = self.y(tick);
            sheet.line(&[(self.left, y), (self.right, y)], sheet.theme.line, 1.0)?;
            sheet.text(&label(tick, unit), (self.left - 8.0, y), look)?;
        }
        Ok(())
    }

    /// Numbers of the lower axis, and what they count.
    pub(super) fn draw_x<B: DrawingBackend>(
        &self,
        sheet: &Sheet<'_, B>,
        unit: Unit,
        name: &str,
    ) -> Result<(), PlotError> {
        let look = Look::new(13.0, sheet.theme.quiet).at(Anchor::Middle);
        for tick in ticks(self.x, (self.right - self.left) / 110.0, unit) {
            let x = self.x(tick);
            sheet.line(&[(x, self.bottom), (x, self.bottom + 5.0)], sheet.theme.edge, 1.0)?;
            sheet.text(&label(tick, unit), (x, self.bottom + 17.0), look)?;
        }
        sheet.line(
            &[(self.left, self.bottom), (self.right, self.bottom)],
            sheet.theme.edge,
            1.0,
        )?;
        sheet.text(name, (f64::midpoint(self.left, self.right), self.bottom + 38.0), look)
    }
}

/// About so many round numbers within a range.
fn ticks((low, high): (f64, f64), about: f64, unit: Unit) -> Vec<f64> {
    let wanted = (high - low) / about.max(1.0);
    let mut step = 1.0;
    match unit {
        Unit::Bytes => {
            while step < wanted {
                step *= 2.0;
            }
        }
        Unit::Count => {
            // 1, 2, 5, 10, 20, 50 …
            let mut factors = [2.0, 2.5, 2.0].into_iter().cycle();
            while step < wanted {
                step *= factors.next().unwrap_or(10.0);
            }
        }
    }
    let mut ticks = Vec::new();
    let mut tick = (low / step).ceil() * step;
    while tick <= high && ticks.len() < 100 {
        ticks.push(tick);
        tick += step;
    }
    ticks
}

const UNITS: [(&str, f64); 4] =
    [("TiB", 1_099_511_627_776.0), ("GiB", 1_073_741_824.0), ("MiB", 1_048_576.0), ("KiB", 1024.0)];

/// A round number as people write it.
pub(super) fn label(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Bytes => {
            let Some((name, size)) = UNITS.iter().find(|(_, size)| value >= *size) else {
                return if value == 0.0 { "0".to_owned() } else { format!("{value} B") };
            };
            let text = format!("{:.2}", value / size);
            format!("{} {name}", text.trim_end_matches('0').trim_end_matches('.'))
        }
        Unit::Count => {
            let digits = format!("{value:.0}");
            let mut text = String::new();
            for (i, digit) in digits.chars().enumerate() {
                if i > 0 && (digits.len() - i).is_multiple_of(3) {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
    }
}

/// A figure of a replay as a place on an axis.
#[expect(clippy::cast_precision_loss, reason = "drawn, not shown: a pixel is coarser")]
pub(super) fn number(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_step_by_powers_of_two() {
        let gib = 1_073_741_824.0;
        let shown: Vec<String> = ticks((0.0, 6.5 * gib), 4.0, Unit::Bytes)
            .iter()
            .map(|t| label(*t, Unit::Bytes))
            .collect();
        assert_eq!(shown, ["0", "2 GiB", "4 GiB", "6 GiB"]);
        assert_eq!(label(1.5 * gib, Unit::Bytes), "1.5 GiB");
    }

    #[test]
    fn counts_step_by_one_two_five() {
        assert_eq!(ticks((0.0, 31_414.0), 8.0, Unit::Count)[1], 5000.0);
        assert_eq!(label(1_234_567.0, Unit::Count), "1,234,567");
        assert_eq!(ticks((0.0, 0.0), 8.0, Unit::Count), [0.0]);
    }
}
