//! Settings side by side, for people and for programs.

use std::{cmp::Ordering, fmt::Write};

use serde::Serialize;

use crate::{
    base::{Bytes, Release},
    study::{
        compare::{Best, best},
        figures::Figures,
        price::Prices,
    },
};

use super::table::{Align, Table, delta, duration};

/// A program under several settings.
#[derive(Debug, Serialize)]
pub struct CompareDocument {
    /// The file as given.
    pub file: String,
    /// The device.
    pub device: u8,
    /// The release whose rules were applied.
    pub torch: String,
    /// Capacity in bytes; `null` where none was given or known: nothing is refused then.
    pub capacity: Option<u64>,
    /// Operations that the program has.
    pub ops_total: u64,
    /// One for each of the settings.
    pub rows: Vec<Row>,
    /// What cannot be known, or was assumed.
    pub notes: Vec<String>,
}

/// One replay.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The settings, as a string that can be pasted.
    pub conf: String,
    /// Whether everything was served.
    pub survives: bool,
    /// The operation that was not, counted from 0.
    pub died_at_op: Option<u64>,
    /// What it asked, in bytes.
    pub died_requested_bytes: Option<u64>,
    /// PyTorch's message.
    pub message: Option<String>,
    /// Operations done.
    pub ops: u64,
    /// Most bytes handed out.
    pub allocated_bytes_peak: u64,
    /// Most bytes reserved.
    pub reserved_bytes_peak: u64,
    /// Reserved beyond allocated, at the peaks.
    pub waste_bytes: u64,
    /// That, of what was reserved.
    pub waste_percent: f64,
    /// Times that everything was given back and the device asked again.
    pub retries: u64,
    /// `cudaMalloc`, refused ones included.
    pub cuda_malloc: u64,
    /// `cudaFree`.
    pub cuda_free: u64,
    /// Ranges mapped, refused ones included.
    pub map: u64,
    /// Ranges unmapped.
    pub unmap: u64,
    /// About what the calls take, in microseconds.
    pub price_us: f64,
    /// What it is best in among those that survive, parted by spaces.
    pub best_in: String,
}

fn names(best: Best) -> String {
    let all = [
        (best.reserved, "reserved"),
        (best.waste, "waste"),
        (best.retries, "retries"),
        (best.price, "price"),
    ];
    all.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect::<Vec<_>>().join(" ")
}

impl Row {
    /// The rows of all replays.
    pub fn all(confs: &[String], figures: &[Figures], prices: &Prices) -> Vec<Self> {
        let best = best(figures, prices);
        let rows = confs.iter().zip(figures).zip(best);
        rows.map(|((conf, figures), best)| Self::new(conf, figures, best, prices)).collect()
    }

    /// A row that is compared with no other.
    pub(super) fn alone(conf: &str, figures: &Figures, prices: &Prices) -> Self {
        let best = Best { reserved: false, waste: false, retries: false, price: false };
        Self::new(conf, figures, best, prices)
    }

    fn new(conf: &str, figures: &Figures, best: Best, prices: &Prices) -> Self {
        let death = figures.death.as_ref();
        let (waste, reserved) = (figures.waste(), figures.reserved.reserved);
        Self {
            conf: conf.to_owned(),
            survives: figures.survives(),
            died_at_op: death.map(|death| death.op),
            died_requested_bytes: death.and_then(|death| Some(death.requested?.0)),
            message: death.map(|death| death.error.to_string()),
            ops: figures.ops,
            allocated_bytes_peak: figures.allocated.allocated.0,
            reserved_bytes_peak: reserved.0,
            waste_bytes: waste.0,
            waste_percent: (1000.0 * waste.ratio(reserved)).round() / 10.0,
            retries: figures.retries,
            cuda_malloc: figures.calls.malloc,
            cuda_free: figures.calls.free,
            map: figures.calls.map,
            unmap: figures.calls.unmap,
            price_us: prices.of(figures),
            best_in: names(best),
        }
    }

    fn is_best_in(&self, what: &str) -> bool {
        self.best_in.split(' ').any(|name| name == what)
    }

    fn calls(&self) -> String {
        let all = [
            (self.cuda_malloc, "malloc"),
            (self.cuda_free, "free"),
            (self.map, "map"),
            (self.unmap, "unmap"),
        ];
        let some = all.iter().filter(|(count, _)| *count > 0);
        some.map(|(count, name)| format!("{count} {name}")).collect::<Vec<_>>().join(" ")
    }
}

impl CompareDocument {
    /// The document of these rows.
    pub fn new(
        file: String,
        device: u8,
        release: Release,
        capacity: Option<Bytes>,
        ops_total: u64,
        rows: Vec<Row>,
        notes: Vec<String>,
    ) -> Self {
        Self {
            file,
            device,
            torch: release.to_string(),
            capacity: capacity.map(|capacity| capacity.0),
            ops_total,
            rows,
            notes,
        }
    }
}

/// A capacity in words.
pub(super) fn capacity_text(capacity: Option<u64>) -> String {
    capacity.map_or_else(
        || "no capacity limit".to_owned(),
        |capacity| format!("capacity {}", Bytes(capacity)),
    )
}

/// Settings in words.
pub(super) fn conf_text(conf: &str) -> &str {
    if conf.is_empty() { "(default settings)" } else { conf }
}

/// The table that a person reads; the best of each column is bold.
pub fn text(document: &CompareDocument) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{} on cuda:{}, PyTorch {}, {}, {} operations\n",
        document.file,
        document.device,
        document.torch,
        capacity_text(document.capacity),
        document.ops_total
    );
    let mut table = Table::new(&[
        ("", Align::Left),
        ("survives", Align::Left),
        ("allocated", Align::Right),
        ("reserved", Align::Right),
        ("", Align::Right),
        ("waste", Align::Right),
        ("retries", Align::Right),
        ("driver calls", Align::Left),
        ("about", Align::Right),
        ("", Align::Right),
    ]);
    let first = document.rows.first();
    for (i, row) in document.rows.iter().enumerate() {
        let against = first.filter(|_| i > 0);
        let fate = match (row.survives, row.died_requested_bytes) {
            (true, _) => "yes".to_owned(),
            (false, Some(size)) => {
                format!("no: {} at {}", Bytes(size), row.died_at_op.unwrap_or_default())
            }
            (false, None) => format!("no: at {}", row.died_at_op.unwrap_or_default()),
        };
        table.row(vec![
            (conf_text(&row.conf).to_owned(), false),
            (fate, false),
            (Bytes(row.allocated_bytes_peak).to_string(), false),
            (Bytes(row.reserved_bytes_peak).to_string(), row.is_best_in("reserved")),
            (
                against.map_or_else(String::new, |first| {
                    delta(row.reserved_bytes_peak, first.reserved_bytes_peak)
                }),
                false,
            ),
            (format!("{:.1} %", row.waste_percent), row.is_best_in("waste")),
            (row.retries.to_string(), row.is_best_in("retries")),
            (row.calls(), false),
            (duration(row.price_us), row.is_best_in("price")),
            (
                against.map_or_else(String::new, |first| {
                    let change = row.price_us - first.price_us;
                    match change.partial_cmp(&0.0) {
                        Some(Ordering::Equal) => "same".to_owned(),
                        Some(Ordering::Less) => format!("-{}", duration(-change)),
                        _ => format!("+{}", duration(change)),
                    }
                }),
                false,
            ),
        ]);
    }
    out.push_str(&table.text());
    if document.rows.iter().any(|row| !row.survives) {
        out.push_str("\n  no: SIZE at N  the request of SIZE at operation N was not served; peaks and calls are those until then\n");
    }
    for note in &document.notes {
        let _ = writeln!(out, "  note: {note}");
    }
    out
}
