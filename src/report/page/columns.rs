//! The rows of a replay as columns of small numbers, deflated: what a page unpacks again.
//!
//! A column is its numbers one after the other, seven bits a byte, the lowest first. Differences to
//! the row before may be negative and are folded: 0, -1, 1, -2 … become 0, 1, 2, 3 ….

use std::io::{self, Write};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, write::ZlibEncoder};

use crate::{
    observe::{FragmentationSeries, Lives, NEVER},
    sim::Place,
};

/// Columns on their way to a page.
pub(super) struct Columns {
    bytes: Vec<u8>,
}

impl Columns {
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.bytes.push(value.to_le_bytes()[0]);
    }

    fn column(&mut self, values: impl Iterator<Item = u64>) {
        values.for_each(|value| self.number(value));
    }

    /// Each as its difference to the one before.
    fn differences(&mut self, values: impl Iterator<Item = u64>) {
        let mut last = 0;
        for value in values {
            self.number(folded(value, last));
            last = value;
        }
    }
}

/// The difference as a number without a sign. Values are below 2^62, as addresses and sizes are.
fn folded(value: u64, last: u64) -> u64 {
    if value >= last { (value - last) << 1 } else { ((last - value) << 1) - 1 }
}

/// Since `from`, counted from 1; 0 for never.
fn since(from: u32, to: u32) -> u64 {
    if to == NEVER { 0 } else { u64::from(to) - u64::from(from) + 1 }
}

/// What the rows are measured in: 512 bytes, or single bytes where a start was recorded oddly.
fn unit(lives: &Lives) -> u64 {
    let blocks = lives.blocks.iter().map(|block| block.span);
    let mut spans = blocks.chain(lives.segments.iter().map(|segment| segment.span));
    let is_even = |n: u64| n.is_multiple_of(512);
    if spans.all(|span| is_even(span.start.0) && is_even(span.size.0)) { 512 } else { 1 }
}

/// What a page has to know to unpack the rows.
#[derive(Debug, serde::Serialize)]
pub(super) struct Shape {
    blocks: usize,
    segments: usize,
    stretches: usize,
    unit: u64,
    places: Vec<PlaceDocument>,
}

/// Where a row belongs.
#[derive(Debug, serde::Serialize)]
struct PlaceDocument {
    stream: String,
    pool: Option<String>,
    small: bool,
    expandable: bool,
}

/// Distinct places, in the order in which they are met.
#[derive(Default)]
struct Places(Vec<Place>);

impl Places {
    fn index(&mut self, place: Place) -> u64 {
        let at = self.0.iter().position(|known| *known == place).unwrap_or_else(|| {
            self.0.push(place);
            self.0.len() - 1
        });
        at as u64
    }
}

/// All rows, and how to read them. Stacks are numbered from 1, one for each block; 0 for none.
pub(super) fn pack(
    lives: &Lives,
    fragmentation: &FragmentationSeries,
    stacks: &[u64],
) -> io::Result<(Shape, String)> {
    let unit = unit(lives);
    let mut places = Places::default();
    let mut columns = Columns { bytes: Vec::new() };
    let blocks = &lives.blocks;
    columns.differences(blocks.iter().map(|block| u64::from(block.born)));
    columns.column(blocks.iter().map(|block| since(block.born, block.freed)));
    columns.column(blocks.iter().map(|block| since(block.freed, block.died)));
    columns.differences(blocks.iter().map(|block| block.span.start.0 / unit));
    columns.column(blocks.iter().map(|block| block.span.size.0 / unit));
    columns.column(blocks.iter().map(|block| folded(block.span.size.0, block.requested.0)));
    columns.column(blocks.iter().map(|block| places.index(block.place)));
    columns.differences(stacks.iter().copied());
    let segments = &lives.segments;
    columns.differences(segments.iter().map(|segment| u64::from(segment.born)));
    columns.column(segments.iter().map(|segment| since(segment.born, segment.died)));
    columns.differences(segments.iter().map(|segment| segment.span.start.0 / unit));
    columns.column(segments.iter().map(|segment| segment.span.size.0 / unit));
    columns.column(segments.iter().map(|segment| places.index(segment.place)));
    let stretches = fragmentation.stretches();
    columns.differences(stretches.iter().map(|stretch| u64::from(stretch.first.op.0)));
    columns.differences(stretches.iter().map(|stretch| stretch.free[0].free.0));
    columns.differences(stretches.iter().map(|stretch| stretch.free[1].free.0));
    columns.differences(stretches.iter().map(|stretch| stretch.scattered[0].scattered().0));
    columns.differences(stretches.iter().map(|stretch| stretch.scattered[1].scattered().0));
    let shape = Shape {
        blocks: blocks.len(),
        segments: segments.len(),
        stretches: stretches.len(),
        unit,
        places: places.0.iter().map(place_document).collect(),
    };
    Ok((shape, packed(&columns.bytes)?))
}

fn place_document(place: &Place) -> PlaceDocument {
    PlaceDocument {
        stream: place.stream.to_string(),
        pool: place.pool.is_private().then(|| place.pool.to_string()),
        small: place.is_small,
        expandable: place.is_expandable,
    }
}

/// Deflated, in letters that are safe anywhere in a page.
pub(super) fn packed(bytes: &[u8]) -> io::Result<String> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(bytes)?;
    Ok(STANDARD.encode(encoder.finish()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_folded() {
        assert_eq!([folded(5, 5), folded(4, 5), folded(6, 5), folded(3, 5)], [0, 1, 2, 3]);
    }

    #[test]
    fn numbers_are_written_seven_bits_a_byte() {
        let mut columns = Columns { bytes: Vec::new() };
        columns.column([0, 127, 128, 300].into_iter());
        assert_eq!(columns.bytes, [0, 0x7f, 0x80, 1, 0xac, 2]);
    }
}
