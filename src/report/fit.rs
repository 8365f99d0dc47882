//! On which devices a program survives, for people and for programs.

use std::fmt::Write;

use serde::Serialize;

use crate::{
    base::Bytes,
    study::{
        cards::{Card, holding},
        fit::{Fit, Steps},
    },
};

use super::{
    compare::conf_text,
    table::{Align, Table},
};

/// The smallest devices.
#[derive(Debug, Serialize)]
pub struct FitDocument {
    /// The file as given.
    pub file: String,
    /// The device of the trace.
    pub device: u8,
    /// The release whose rules were applied.
    pub torch: String,
    /// Operations that the program has.
    pub ops_total: u64,
    /// What the CUDA context was taken to hold; it is part of every capacity here.
    pub context_bytes: u64,
    /// One for each of the settings.
    pub rows: Vec<FitRow>,
    /// What cannot be known, or was assumed.
    pub notes: Vec<String>,
}

/// Where a program survives under some settings.
#[derive(Clone, Debug, Serialize)]
pub struct FitRow {
    /// The settings, as a string that can be pasted.
    pub conf: String,
    /// From this capacity on it survives; `null` if it does nowhere.
    pub smallest_bytes: Option<u64>,
    /// Below this it cannot: live blocks alone are larger.
    pub floor_bytes: u64,
    /// Most bytes reserved where nothing is short.
    pub unlimited_reserved_bytes: u64,
    /// Stretches below the smallest capacity where it survives, too: from, up to but without.
    pub islands: Vec<[u64; 2]>,
    /// Whether every capacity is accounted for; otherwise at least one in so many bytes was tried.
    pub step_bytes: u64,
    /// Replays that it took.
    pub replays: u64,
    /// Names of the cards that have enough, smallest first.
    pub cards: Vec<&'static str>,
    /// Why it dies without a limit, if it does.
    pub message: Option<String>,
}

/// A [`FitRow`] without lists.
#[derive(Debug, Serialize)]
pub struct FlatFitRow {
    conf: String,
    smallest_bytes: Option<u64>,
    floor_bytes: u64,
    unlimited_reserved_bytes: u64,
    islands: usize,
    step_bytes: u64,
    replays: u64,
    smallest_card: Option<&'static str>,
}

impl FitRow {
    /// The row of an answer.
    pub fn new(conf: String, fit: &Fit) -> Self {
        Self {
            conf,
            smallest_bytes: fit.smallest.map(|smallest| smallest.0),
            floor_bytes: fit.floor.0,
            unlimited_reserved_bytes: fit.roomy.reserved.reserved.0,
            islands: fit.islands.iter().map(|island| [island.from.0, island.to.0]).collect(),
            step_bytes: match fit.steps {
                Steps::Every => 1,
                Steps::Of(step) => step.0,
            },
            replays: fit.replays,
            cards: fit.smallest.into_iter().flat_map(holding).map(|card| card.name).collect(),
            message: fit.roomy.death.as_ref().map(|death| death.error.to_string()),
        }
    }

    /// As a line of a table.
    pub fn flat(&self) -> FlatFitRow {
        FlatFitRow {
            conf: self.conf.clone(),
            smallest_bytes: self.smallest_bytes,
            floor_bytes: self.floor_bytes,
            unlimited_reserved_bytes: self.unlimited_reserved_bytes,
            islands: self.islands.len(),
            step_bytes: self.step_bytes,
            replays: self.replays,
            smallest_card: self.cards.first().copied(),
        }
    }
}

/// The table of cards.
pub fn cards_text(cards: &[Card]) -> String {
    let mut table =
        Table::new(&[("card", Align::Left), ("memory", Align::Right), ("bytes", Align::Right)]);
    for card in cards {
        let cells = [card.name.to_owned(), card.total.to_string(), card.total.0.to_string()];
        table.row(cells.map(|cell| (cell, false)).to_vec());
    }
    table.text()
        + "\n  torch.cuda.get_device_properties(0).total_memory says what yours has; the CUDA context takes some hundred MiB of it\n"
}

/// What a person reads.
pub fn text(document: &FitDocument) -> String {
    let mut out = String::new();
    let context = if document.context_bytes == 0 {
        "without the CUDA context (add it with --context)".to_owned()
    } else {
        format!("with {} for the CUDA context", Bytes(document.context_bytes))
    };
    let _ = writeln!(
        out,
        "{} on cuda:{}, PyTorch {}, {} operations, {context}\n",
        document.file, document.device, document.torch, document.ops_total
    );
    let mut table = Table::new(&[
        ("", Align::Left),
        ("survives from", Align::Right),
        ("cannot below", Align::Right),
        ("takes unhindered", Align::Right),
        ("smallest card", Align::Left),
    ]);
    for row in &document.rows {
        let smallest =
            row.smallest_bytes.map_or_else(|| "nowhere".to_owned(), |size| Bytes(size).to_string());
        let card = row.cards.first().copied().unwrap_or(match row.smallest_bytes {
            Some(_) => "none of the table",
            None => "",
        });
        let cells = [
            conf_text(&row.conf).to_owned(),
            smallest,
            Bytes(row.floor_bytes).to_string(),
            Bytes(row.unlimited_reserved_bytes).to_string(),
            card.to_owned(),
        ];
        table.row(cells.map(|cell| (cell, false)).to_vec());
    }
    out.push_str(&table.text());
    out.push('\n');
    for row in &document.rows {
        let conf = conf_text(&row.conf);
        if let Some(message) = &row.message {
            let _ = writeln!(out, "  {conf}: dies without a limit, too: {}", message.trim_end());
        }
        if !row.islands.is_empty() {
            let shown = row.islands.iter().take(4).map(|[from, to]| {
                let (from, to) = (Bytes(*from), Bytes(*to));
                if to.saturating_sub(from) < Bytes::mib(10) {
                    format!("{to} (a stretch of {})", to.saturating_sub(from))
                } else {
                    format!("{from} to {to}")
                }
            });
            let shown = shown.collect::<Vec<_>>().join(", ");
            let more = row.islands.len().saturating_sub(4);
            let more = if more > 0 { format!(" and {more} more stretches") } else { String::new() };
            let _ = writeln!(
                out,
                "  {conf}: survives in places below, too: {shown}{more}; between them it dies, so do not rely on these"
            );
        }
        let _ = match row.step_bytes {
            1 => writeln!(
                out,
                "  {conf}: every capacity is accounted for, by {} replays",
                row.replays
            ),
            step => writeln!(
                out,
                "  {conf}: below the smallest, one capacity in {} was tried, by {} replays",
                Bytes(step),
                row.replays
            ),
        };
    }
    for note in &document.notes {
        let _ = writeln!(out, "  note: {note}");
    }
    out
}
