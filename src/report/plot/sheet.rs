//! [`Sheet`]: what is drawn on, in units of its own, with the colours of a theme.

use plotters::{
    coord::Shift,
    prelude::*,
    style::{
        FontStyle, register_font,
        text_anchor::{HPos, Pos, VPos},
    },
};

/// Why a picture was not drawn.
#[derive(Debug, thiserror::Error)]
#[error("the picture cannot be drawn: {0}")]
pub struct PlotError(String);

impl PlotError {
    pub(super) fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// The two themes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThemeName {
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

/// The colours of a theme: those of the page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    pub(super) back: RGBColor,
    pub(super) text: RGBColor,
    pub(super) quiet: RGBColor,
    pub(super) line: RGBColor,
    pub(super) reserved: RGBColor,
    pub(super) reserved_fill: RGBColor,
    pub(super) active: RGBColor,
    pub(super) allocated: RGBColor,
    pub(super) allocated_fill: RGBColor,
    pub(super) allocated_band: RGBColor,
    pub(super) requested: RGBColor,
    pub(super) scattered: RGBColor,
    pub(super) bad: RGBColor,
    pub(super) good: RGBColor,
    pub(super) free: RGBColor,
    pub(super) edge: RGBColor,
    pub(super) pending: RGBColor,
}

impl Theme {
    pub(super) fn of(name: ThemeName) -> Self {
        match name {
            ThemeName::Light => Self {
                back: RGBColor(255, 255, 255),
                text: RGBColor(27, 31, 36),
                quiet: RGBColor(89, 99, 110),
                line: RGBColor(218, 223, 229),
                reserved: RGBColor(139, 149, 161),
                reserved_fill: RGBColor(227, 231, 236),
                active: RGBColor(199, 119, 0),
                allocated: RGBColor(31, 111, 235),
                allocated_fill: RGBColor(150, 190, 248),
                allocated_band: RGBColor(197, 219, 252),
                requested: RGBColor(10, 127, 112),
                scattered: RGBColor(164, 56, 155),
                bad: RGBColor(198, 42, 18),
                good: RGBColor(26, 127, 55),
                free: RGBColor(238, 241, 244),
                edge: RGBColor(139, 149, 161),
                pending: RGBColor(224, 159, 31),
            },
            ThemeName::Dark => Self {
                back: RGBColor(15, 19, 24),
                text: RGBColor(228, 232, 238),
                quiet: RGBColor(152, 163, 176),
                line: RGBColor(50, 58, 69),
                reserved: RGBColor(123, 134, 148),
                reserved_fill: RGBColor(42, 49, 59),
                active: RGBColor(229, 161, 59),
                allocated: RGBColor(91, 155, 255),
                allocated_fill: RGBColor(36, 74, 130),
                allocated_band: RGBColor(28, 50, 84),
                requested: RGBColor(60, 199, 180),
                scattered: RGBColor(215, 123, 208),
                bad: RGBColor(255, 123, 102),
                good: RGBColor(86, 194, 113),
                free: RGBColor(31, 38, 47),
                edge: RGBColor(93, 104, 120),
                pending: RGBColor(229, 161, 59),
            },
        }
    }
}

/// The colour of a label, the same in both themes and in every picture: by its name, where that is
/// one of the workloads', else by its position.
pub(super) fn label_color(name: &str, position: usize) -> RGBColor {
    const COLORS: [(&str, RGBColor); 9] = [
        ("parameter", RGBColor(31, 111, 235)),
        ("gradient", RGBColor(224, 159, 31)),
        ("optimizer_state", RGBColor(164, 56, 155)),
        ("activation", RGBColor(26, 147, 111)),
        ("temporary", RGBColor(198, 72, 52)),
        ("kv_cache", RGBColor(92, 190, 214)),
        ("input", RGBColor(140, 110, 70)),
        ("workspace", RGBColor(110, 120, 135)),
        ("other", RGBColor(170, 178, 188)),
    ];
    let known = COLORS.iter().find(|(known, _)| *known == name);
    known.unwrap_or(&COLORS[position % COLORS.len()]).1
}

/// The name under which the fonts inside the program are known to the drawing library; in an SVG it
/// is the viewer's own.
const FAMILY: &str = "sans-serif";

/// Makes the fonts known. Doing it again changes nothing.
pub(super) fn register_fonts() -> Result<(), PlotError> {
    let fonts: [(FontStyle, &[u8]); 2] = [
        (FontStyle::Normal, include_bytes!("../../../assets/font/DejaVuSans.subset.ttf")),
        (FontStyle::Bold, include_bytes!("../../../assets/font/DejaVuSans-Bold.subset.ttf")),
    ];
    for (style, bytes) in fonts {
        let registered = register_font(FAMILY, style, bytes);
        registered.map_err(|_| PlotError("a font inside the program is damaged".into()))?;
    }
    Ok(())
}

/// Where a text stands to its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    /// The point is its left end.
    Left,
    /// The point is its middle.
    Middle,
    /// The point is its right end.
    Right,
}

/// How a text looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) size: f64,
    pub(super) color: RGBColor,
    pub(super) anchor: Anchor,
    pub(super) is_bold: bool,
}

impl Look {
    pub(super) fn new(size: f64, color: RGBColor) -> Self {
        Self { size, color, anchor: Anchor::Left, is_bold: false }
    }

    pub(super) fn at(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }

    pub(super) fn bold(self) -> Self {
        Self { is_bold: true, ..self }
    }
}

/// What is drawn on.
pub(super) struct Sheet<'a, B: DrawingBackend> {
    pub(super) area: &'a DrawingArea<B, Shift>,
    pub(super) theme: Theme,
    /// Pixels a unit.
    pub(super) scale: f64,
    pub(super) size: (u32, u32),
}

/// A pixel; everything is drawn within a few thousand of them.
#[expect(clippy::cast_possible_truncation, reason = "clamped to what fits")]
fn pixel(x: f64) -> i32 {
    x.round().clamp(-1e6, 1e6) as i32
}

impl<B: DrawingBackend> Sheet<'_, B> {
    pub(super) fn width(&self) -> f64 {
        f64::from(self.size.0)
    }

    pub(super) fn height(&self) -> f64 {
        f64::from(self.size.1)
    }

    fn is_bitmap(&self) -> bool {
        self.scale > 1.5
    }

    fn point(&self, (x, y): (f64, f64)) -> (i32, i32) {
        (pixel(x * self.scale), pixel(y * self.scale))
    }

    fn stroke(&self, width: f64) -> u32 {
        u32::try_from(pixel(width * self.scale).max(1)).unwrap_or(1)
    }

    pub(super) fn fill_all(&self) -> Result<(), PlotError> {
        self.area.fill(&self.theme.back).map_err(PlotError::of)
    }

    /// A filled rectangle, at least a pixel wide and high. Its right and lower edge belong to the next.
    pub(super) fn rect(
        &self,
        (x, y): (f64, f64),
        (width, height): (f64, f64),
        color: RGBColor,
    ) -> Result<(), PlotError> {
        let from = self.point((x, y));
        let to = self.point((x + width, y + height));
        // A bitmap's rectangle has its last pixel in it, an SVG's has not.
        let less = i32::from(self.is_bitmap());
        let more = 1 - less;
        let to = ((to.0 - less).max(from.0 + more), (to.1 - less).max(from.1 + more));
        self.area.draw(&Rectangle::new([from, to], color.filled())).map_err(PlotError::of)
    }

    /// The edge of a rectangle.
    pub(super) fn frame(
        &self,
        (x, y): (f64, f64),
        (width, height): (f64, f64),
        color: RGBColor,
    ) -> Result<(), PlotError> {
        let points = [(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)];
        self.line(&points, color, 1.0)
    }

    pub(super) fn line(
        &self,
        points: &[(f64, f64)],
        color: RGBColor,
        width: f64,
    ) -> Result<(), PlotError> {
        let points: Vec<(i32, i32)> = points.iter().map(|point| self.point(*point)).collect();
        let style = color.stroke_width(self.stroke(width));
        self.area.draw(&PathElement::new(points, style)).map_err(PlotError::of)
    }

    pub(super) fn dashed(
        &self,
        (x0, y0): (f64, f64),
        (x1, y1): (f64, f64),
        color: RGBColor,
        width: f64,
    ) -> Result<(), PlotError> {
        let length = (x1 - x0).hypot(y1 - y0);
        let mut at = 0.0;
        while at < length {
            let (a, b) = (at / length, (at + 6.0).min(length) / length);
            let point = |share: f64| (x0 + (x1 - x0) * share, y0 + (y1 - y0) * share);
            self.line(&[point(a), point(b)], color, width)?;
            at += 10.0;
        }
        Ok(())
    }

    pub(super) fn polygon(&self, points: &[(f64, f64)], color: RGBColor) -> Result<(), PlotError> {
        let points: Vec<(i32, i32)> = points.iter().map(|point| self.point(*point)).collect();
        self.area.draw(&Polygon::new(points, color.filled())).map_err(PlotError::of)
    }

    pub(super) fn dot(
        &self,
        at: (f64, f64),
        radius: f64,
        color: RGBColor,
    ) -> Result<(), PlotError> {
        let circle = Circle::new(self.point(at), pixel(radius * self.scale), color.filled());
        self.area.draw(&circle).map_err(PlotError::of)
    }

    fn font(&self, look: Look) -> FontDesc<'static> {
        let style = if look.is_bold { FontStyle::Bold } else { FontStyle::Normal };
        FontDesc::new(FontFamily::SansSerif, look.size * self.scale, style)
    }

    /// A text; `y` is its middle.
    pub(super) fn text(&self, text: &str, at: (f64, f64), look: Look) -> Result<(), PlotError> {
        let horizontal = match look.anchor {
            Anchor::Left => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::Right => HPos::Right,
        };
        // The library writes an SVG's letters a fifth smaller than it is told.
        let size = if self.is_bitmap() { look.size } else { look.size * 1.2 };
        let style = TextStyle::from(self.font(Look { size, ..look }))
            .color(&look.color)
            .pos(Pos::new(horizontal, VPos::Center));
        let shown: String = text.chars().map(shown).collect();
        // The library centres the box of a bitmap's letters, which reaches below their line.
        let down = if self.is_bitmap() { look.size * 0.14 } else { 0.0 };
        let at = self.point((at.0, at.1 + down));
        self.area.draw(&Text::new(shown, at, style)).map_err(PlotError::of)
    }

    /// How wide a text is.
    pub(super) fn text_width(&self, text: &str, look: Look) -> f64 {
        let size = self.font(look).box_size(text).unwrap_or((0, 0));
        f64::from(size.0) / self.scale
    }

    /// A text, cut with an ellipsis where it is wider than that.
    pub(super) fn fitted(&self, text: &str, width: f64, look: Look) -> String {
        if self.text_width(text, look) <= width {
            return text.to_owned();
        }
        let mut cut: Vec<char> = text.chars().collect();
        while !cut.is_empty() {
            cut.pop();
            let shown: String = cut.iter().chain(&['…']).collect();
            if self.text_width(&shown, look) <= width {
                return shown;
            }
        }
        String::new()
    }

    /// Title and what stands below it.
    pub(super) fn title(&self, title: &str, below: &str) -> Result<(), PlotError> {
        let width = self.width() - 2.0 * MARGIN;
        let look = Look::new(21.0, self.theme.text).bold();
        self.text(&self.fitted(title, width, look), (MARGIN, 28.0), look)?;
        let look = Look::new(14.0, self.theme.quiet);
        self.text(&self.fitted(below, width, look), (MARGIN, 54.0), look)
    }

    /// Coloured names in a row, from `x` on.
    pub(super) fn legend(
        &self,
        (mut x, y): (f64, f64),
        entries: &[(&str, RGBColor)],
    ) -> Result<(), PlotError> {
        let look = Look::new(14.0, self.theme.text);
        for (name, color) in entries {
            self.rect((x, y - 6.0), (14.0, 12.0), *color)?;
            self.text(name, (x + 20.0, y), look)?;
            x += 20.0 + self.text_width(name, look) + 24.0;
        }
        Ok(())
    }
}

/// Space at the left and right edge.
pub(super) const MARGIN: f64 = 24.0;

/// What the fonts have; a control character would break an SVG.
fn shown(c: char) -> char {
    let has_glyph =
        matches!(c, ' '..='~' | '·' | '×' | '–' | '—' | '…' | '≤' | '≥' | '→' | '←' | '−' | '●');
    if has_glyph { c } else { '\u{fffd}' }
}
