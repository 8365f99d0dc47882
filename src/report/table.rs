//! Tables for a terminal: columns as wide as they need, some cells bold.

use crate::base::Bytes;

/// Where the text of a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// Rows of cells; a cell is a text and whether it is bold.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<(String, bool)>>,
}

impl Table {
    pub(super) fn new(columns: &[(&str, Align)]) -> Self {
        let columns = columns.iter().map(|(name, align)| ((*name).to_owned(), *align)).collect();
        Self { columns, rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: Vec<(String, bool)>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// The lines, indented by two.
    pub(super) fn text(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].0.chars().count());
            cells.chain([self.columns[column].0.chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        let names = self.columns.iter().map(|(name, _)| (name.clone(), false)).collect();
        for row in [&names].into_iter().chain(&self.rows) {
            let mut line = String::from("  ");
            for (((cell, bold), width), (_, align)) in row.iter().zip(&widths).zip(&self.columns) {
                let space = " ".repeat(width - cell.chars().count());
                let cell = if *bold { format!("\u{1b}[1m{cell}\u{1b}[0m") } else { cell.clone() };
                match align {
                    Align::Left => line.push_str(&format!("{cell}{space}")),
                    Align::Right => line.push_str(&format!("{space}{cell}")),
                }
                // A column without anything in it takes no room.
                if *width > 0 {
                    line.push_str("  ");
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// How much more or less than another size, with its sign.
pub(super) fn delta(size: u64, other: u64) -> String {
    if size == other {
        "same".to_owned()
    } else if size > other {
        format!("+{}", Bytes(size - other))
    } else {
        format!("-{}", Bytes(other - size))
    }
}

/// Microseconds in the unit that suits them.
pub(super) fn duration(us: f64) -> String {
    if us < 1e3 {
        format!("{us:.0} us")
    } else if us < 1e6 {
        format!("{:.1} ms", us / 1e3)
    } else {
        format!("{:.2} s", us / 1e6)
    }
}
