//! `torch.cuda.memory_summary()`: the table as PyTorch prints it.
//!
//! # Source
//! `torch/cuda/memory.py`, `memory_summary`, 2.15; the same since 2.1.

use std::fmt::Write;

use crate::observe::{Columns, DeviceStats, Stat};

const WIDTH: usize = 75;
const BYTE_UNITS: [&str; 6] = ["B  ", "KiB", "MiB", "GiB", "TiB", "PiB"];
const COUNT_UNITS: [&str; 3] = [" ", "K", "M"];

/// A number of bytes in the unit that suits `reference`.
#[expect(clippy::cast_precision_loss, reason = "PyTorch divides the reference as a float too")]
fn bytes_cell(value: i64, reference: i64) -> String {
    let (mut value, mut reference, mut unit) = (value, reference as f64, BYTE_UNITS[0]);
    for next in &BYTE_UNITS[1..] {
        if reference < 768.0 * 1024.0 {
            break;
        }
        value = value.div_euclid(1024);
        reference /= 1024.0;
        unit = next;
    }
    format!("{value:6} {unit}")
}

#[expect(clippy::cast_precision_loss, reason = "PyTorch divides the reference as a float too")]
fn count_cell(value: i64, reference: i64) -> String {
    let (mut value, mut reference, mut unit) = (value, reference as f64, COUNT_UNITS[0]);
    for next in &COUNT_UNITS[1..] {
        if reference < 750.0 * 1000.0 {
            break;
        }
        value = value.div_euclid(1000);
        reference /= 1000.0;
        unit = next;
    }
    format!("{value:7} {unit} ")
}

type Cell = fn(i64, i64) -> String;

fn row(out: &mut String, name: &str, stat: &Stat, reference: &Stat, cell: Cell) {
    let cells = [
        cell(stat.current, reference.current),
        cell(stat.peak, reference.peak),
        cell(stat.allocated, reference.allocated),
        cell(stat.freed(), reference.freed()),
    ];
    let _ = writeln!(out, "| {name:<21} | {} |", cells.join(" | "));
}

fn rule(out: &mut String, mark: char) {
    let _ = writeln!(out, "|{}|", mark.to_string().repeat(WIDTH));
}

/// The table of one device; `is_abbreviated` leaves the rows of the two pools out.
pub fn memory_summary(stats: &DeviceStats, device: u8, is_abbreviated: bool) -> String {
    let mut out = String::new();
    rule(&mut out, '=');
    let _ = writeln!(out, "| {:16} PyTorch CUDA memory summary, device ID {device:<17} |", "");
    rule(&mut out, '-');
    let _ = writeln!(
        out,
        "|  {:9} CUDA OOMs: {:<12} | {:6} cudaMalloc retries: {:<8}  |",
        "", stats.num_ooms, "", stats.num_alloc_retries
    );
    rule(&mut out, '=');
    out.push_str("|        Metric         | Cur Usage  | Peak Usage | Tot Alloc  | Tot Freed  |\n");
    let families: [(&str, &Columns, Cell); 9] = [
        ("Allocated memory", &stats.allocated_bytes, bytes_cell),
        ("Active memory", &stats.active_bytes, bytes_cell),
        ("Requested memory", &stats.requested_bytes, bytes_cell),
        ("GPU reserved memory", &stats.reserved_bytes, bytes_cell),
        ("Non-releasable memory", &stats.inactive_split_bytes, bytes_cell),
        ("Allocations", &stats.allocation, count_cell),
        ("Active allocs", &stats.active, count_cell),
        ("GPU reserved segments", &stats.segment, count_cell),
        ("Non-releasable allocs", &stats.inactive_split, count_cell),
    ];
    for (name, columns, cell) in families {
        rule(&mut out, '-');
        row(&mut out, name, &columns.all(), &columns.all(), cell);
        if !is_abbreviated {
            row(&mut out, "      from large pool", &columns.large_pool, &columns.all(), cell);
            row(&mut out, "      from small pool", &columns.small_pool, &columns.all(), cell);
        }
    }
    for (name, stat) in [
        ("Oversize allocations", &stats.oversize_allocations),
        ("Oversize GPU segments", &stats.oversize_segments),
    ] {
        rule(&mut out, '-');
        row(&mut out, name, stat, stat, count_cell);
    }
    rule(&mut out, '=');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_change_where_pytorch_changes_them() {
        assert_eq!(bytes_cell(768 * 1024 - 1, 768 * 1024 - 1), "786431 B  ");
        assert_eq!(bytes_cell(768 * 1024, 768 * 1024), "   768 KiB");
        assert_eq!(bytes_cell(512, 3 << 30), "     0 MiB");
        assert_eq!(count_cell(749_999, 749_999), " 749999   ");
        assert_eq!(count_cell(750_000, 750_000), "    750 K ");
    }

    #[test]
    fn every_line_has_the_width_of_the_rules() {
        let table = memory_summary(&DeviceStats::default(), 0, false);
        assert!(table.lines().all(|line| line.len() == WIDTH + 2), "{table}");
        assert_eq!(table.lines().count(), 6 + 9 * 4 + 2 * 2 + 1);
    }
}
