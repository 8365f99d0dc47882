//! Pictures of replays, as SVG text or as PNG.
//!
//! Everything is drawn with [`plotters`] in a frame of our own: one unit is a pixel of the SVG and two
//! of the PNG. Letters come from fonts inside the program, so a picture has text on any machine.

mod axes;
mod compare;
mod fragmentation;
mod memory;
mod png;
mod segments;
mod sheet;
mod sizes;

use plotters::prelude::{BitMapBackend, IntoDrawingArea, SVGBackend};

use self::sheet::{Sheet, Theme};
use super::replay::ReplayDocument;
use crate::{
    base::OpIndex,
    study::{sizes::SizeClass, timeline::Timeline},
    trace::Layout,
};

pub use segments::BlockLabels;
pub use sheet::{PlotError, ThemeName};

/// What is drawn.
#[derive(Debug)]
pub enum Picture<'a> {
    /// Requested, allocated, active and reserved over time.
    Memory(&'a ReplayDocument, &'a Timeline),
    /// What is free over time, and how much of it lies outside the largest free block.
    Fragmentation(&'a ReplayDocument, &'a Timeline),
    /// Where everything lies before an operation, and the labels of what is there, if there are any.
    Segments(&'a ReplayDocument, &'a Layout, OpIndex, &'a BlockLabels),
    /// How often and how much is asked for, by size.
    Sizes(&'a ReplayDocument, &'a [SizeClass]),
    /// Settings side by side.
    Compare(&'a [&'a ReplayDocument]),
    /// Settings by the memory that they take and the calls of the driver that they need.
    Pareto(&'a [&'a ReplayDocument]),
}

/// Width of a picture.
const WIDTH: u32 = 1120;
/// Pixels of a PNG for one of an SVG.
const PNG_SCALE: u32 = 2;

impl Picture<'_> {
    /// Width and height in pixels of an SVG.
    fn size(&self) -> (u32, u32) {
        let height = match self {
            Self::Memory(..) | Self::Sizes(..) | Self::Pareto(_) => 560,
            Self::Fragmentation(..) => 440,
            Self::Segments(_, layout, _, _) => segments::height(layout),
            Self::Compare(documents) => compare::height(documents.len()),
        };
        (WIDTH, height)
    }

    fn draw<B: plotters::prelude::DrawingBackend>(
        &self,
        sheet: &Sheet<'_, B>,
    ) -> Result<(), PlotError> {
        sheet.fill_all()?;
        match self {
            Self::Memory(document, timeline) => memory::draw(sheet, document, timeline),
            Self::Fragmentation(document, timeline) => {
                fragmentation::draw(sheet, document, timeline)
            }
            Self::Segments(document, layout, at, labels) => {
                segments::draw(sheet, document, layout, *at, labels)
            }
            Self::Sizes(document, classes) => sizes::draw(sheet, document, classes),
            Self::Compare(documents) => compare::draw(sheet, documents),
            Self::Pareto(documents) => compare::pareto(sheet, documents),
        }
    }

    /// The picture as SVG.
    ///
    /// # Errors
    /// When the fonts inside the program cannot be read, which is our bug.
    pub fn svg(&self, theme: ThemeName) -> Result<String, PlotError> {
        sheet::register_fonts()?;
        let mut text = String::new();
        {
            let area = SVGBackend::with_string(&mut text, self.size()).into_drawing_area();
            self.draw(&Sheet {
                area: &area,
                theme: Theme::of(theme),
                scale: 1.0,
                size: self.size(),
            })?;
            area.present().map_err(PlotError::of)?;
        }
        Ok(text)
    }

    /// The picture as PNG, with twice as many pixels.
    ///
    /// # Errors
    /// As [`Self::svg`].
    pub fn png(&self, theme: ThemeName) -> Result<Vec<u8>, PlotError> {
        sheet::register_fonts()?;
        let size = self.size();
        let (width, height) = (size.0 * PNG_SCALE, size.1 * PNG_SCALE);
        let mut pixels = vec![0; width as usize * height as usize * 3];
        {
            let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
            let scale = f64::from(PNG_SCALE);
            self.draw(&Sheet { area: &area, theme: Theme::of(theme), scale, size })?;
            area.present().map_err(PlotError::of)?;
        }
        png::encode(&pixels, width, height).map_err(PlotError::of)
    }
}
