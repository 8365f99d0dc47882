//! The settings that suit a program, for people and for programs.

use std::fmt::Write;

use serde::Serialize;

use crate::{
    base::{Bytes, Release},
    study::{
        price::Prices,
        tune::{Check, CheckKind, Emptied, Objective, Tried, TuneOptions, Tuned},
        whatif::{Program, Terms},
    },
};

use super::{
    compare::{Row, capacity_text, conf_text},
    table::{Align, Table, delta, duration},
};

/// What a search came to.
#[derive(Debug, Serialize)]
pub struct TuneDocument {
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
    /// What was wanted: `survive`, `reserved`, `calls`, `pareto`.
    pub objective: &'static str,
    /// `found`, `not needed`, `nothing helps`.
    pub verdict: &'static str,
    /// The line to paste; `null` where there is none.
    pub line: Option<String>,
    /// The settings one starts from.
    pub start: Row,
    /// The settings of the line.
    pub best: Option<Row>,
    /// Where nothing survives, the settings that come furthest.
    pub furthest: Option<Row>,
    /// The settings of which no other is better in both, where asked for.
    pub front: Vec<Row>,
    /// How the line did where it was not searched.
    pub checks: Vec<CheckDocument>,
    /// A call of `torch.cuda.empty_cache()` that helps, where asked for.
    pub empty_cache: Option<EmptyCacheDocument>,
    /// Where nothing survives: the settings and the capacity with which it would.
    pub needed: Option<NeededDocument>,
    /// Points of the grid.
    pub grid: u64,
    /// Replays of the search.
    pub replays: u64,
    /// Replays of the checks.
    pub check_replays: u64,
    /// The other ranks.
    pub ranks: Vec<String>,
    /// What cannot be known, or was assumed.
    pub notes: Vec<String>,
}

/// A check.
#[derive(Debug, Serialize)]
pub struct CheckDocument {
    /// `second half`, `rank N`, `sizes seed N`.
    pub on: String,
    /// Whether it survives under the settings one starts from.
    pub start_survives: bool,
    /// Most bytes reserved under them.
    pub start_reserved_bytes_peak: u64,
    /// Whether it survives under the line.
    pub survives: bool,
    /// Most bytes reserved under the line.
    pub reserved_bytes_peak: u64,
}

impl From<&Check> for CheckDocument {
    fn from(check: &Check) -> Self {
        Self {
            on: match check.kind {
                CheckKind::SecondHalf => "second half".to_owned(),
                CheckKind::Rank(rank) => format!("rank {}", rank + 1),
                CheckKind::Sizes(seed) => format!("sizes seed {seed}"),
            },
            start_survives: check.start_survives,
            start_reserved_bytes_peak: check.start_reserved.0,
            survives: check.survives,
            reserved_bytes_peak: check.reserved.0,
        }
    }
}

/// A call of `torch.cuda.empty_cache()`.
#[derive(Debug, Serialize)]
pub struct EmptyCacheDocument {
    /// The operation before which it stands.
    pub before_op: u64,
    /// Whether the program survives with it.
    pub survives: bool,
    /// Most bytes reserved with it.
    pub reserved_bytes_peak: u64,
    /// About what the calls take with it, in microseconds.
    pub price_us: f64,
}

/// What would do.
#[derive(Debug, Serialize)]
pub struct NeededDocument {
    /// The settings.
    pub conf: String,
    /// The capacity from which on the program survives under them.
    pub capacity: u64,
}

/// A line of the CSV form: what the row stands for, and the row.
#[derive(Debug, Serialize)]
pub struct NamedRow {
    role: &'static str,
    conf: String,
    survives: bool,
    died_at_op: Option<u64>,
    allocated_bytes_peak: u64,
    reserved_bytes_peak: u64,
    waste_bytes: u64,
    retries: u64,
    price_us: f64,
}

impl NamedRow {
    fn new(role: &'static str, row: &Row) -> Self {
        Self {
            role,
            conf: row.conf.clone(),
            survives: row.survives,
            died_at_op: row.died_at_op,
            allocated_bytes_peak: row.allocated_bytes_peak,
            reserved_bytes_peak: row.reserved_bytes_peak,
            waste_bytes: row.waste_bytes,
            retries: row.retries,
            price_us: row.price_us,
        }
    }
}

impl TuneDocument {
    /// The document of a search; what the search does not know is left empty.
    pub fn new(
        tuned: &Tuned,
        options: &TuneOptions,
        program: &Program,
        terms: &Terms,
        release: Release,
    ) -> Self {
        let row = |tried: &Tried| {
            let conf = match tried.conf.to_conf_string(terms.release) {
                Ok(text) => text,
                Err(unprintable) => unprintable.nearest,
            };
            Row::alone(&conf, &tried.figures, &options.prices)
        };
        let best = tuned.best.as_ref().map(row);
        let survives = tuned.start.figures.survives();
        Self {
            file: String::new(),
            device: program.trace.device().0,
            torch: release.to_string(),
            capacity: None,
            ops_total: program.asked(),
            objective: match options.objective {
                Objective::Survive => "survive",
                Objective::Reserved => "reserved",
                Objective::Calls => "calls",
                Objective::Pareto => "pareto",
            },
            verdict: match (&best, survives) {
                (Some(_), _) => "found",
                (None, true) if options.objective == Objective::Survive => "not needed",
                (None, _) => "nothing helps",
            },
            line: best.as_ref().map(|best| line(&best.conf)),
            start: row(&tuned.start),
            best,
            furthest: tuned.furthest.as_ref().map(row),
            front: tuned.front.iter().map(row).collect(),
            checks: tuned.checks.iter().map(CheckDocument::from).collect(),
            empty_cache: None,
            needed: None,
            grid: tuned.grid,
            replays: tuned.replays,
            check_replays: tuned.check_replays,
            ranks: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a call of `empty_cache` that helps.
    pub fn set_empty_cache(&mut self, emptied: Option<&Emptied>, prices: &Prices) {
        self.empty_cache = emptied.map(|emptied| EmptyCacheDocument {
            before_op: emptied.before,
            survives: emptied.figures.survives(),
            reserved_bytes_peak: emptied.figures.reserved.reserved.0,
            price_us: prices.of(&emptied.figures),
        });
    }

    /// Adds what would do, where nothing does here.
    pub fn set_needed(&mut self, needed: Option<(String, Bytes)>) {
        self.needed = needed.map(|(conf, size)| NeededDocument { conf, capacity: size.0 });
    }

    /// Whether the program survives with what is advised.
    pub fn survives(&self) -> bool {
        self.start.survives
            || self.best.is_some()
            || self.empty_cache.as_ref().is_some_and(|emptied| emptied.survives)
    }

    /// The settings, and what they stand for.
    pub fn rows(&self) -> Vec<NamedRow> {
        let mut rows = vec![NamedRow::new("start", &self.start)];
        rows.extend(self.best.iter().map(|row| NamedRow::new("best", row)));
        rows.extend(self.furthest.iter().map(|row| NamedRow::new("furthest", row)));
        rows.extend(self.front.iter().map(|row| NamedRow::new("front", row)));
        rows
    }
}

/// The settings as a shell takes them.
fn line(conf: &str) -> String {
    let quote = if conf.contains(['[', '>']) { "'" } else { "" };
    format!("PYTORCH_CUDA_ALLOC_CONF={quote}{conf}{quote}")
}

/// What a person reads.
pub fn text(document: &TuneDocument) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{} on cuda:{}, PyTorch {}, {}, {} operations; wanted: {}\n",
        document.file,
        document.device,
        document.torch,
        capacity_text(document.capacity),
        document.ops_total,
        match document.objective {
            "survive" => "to survive",
            "reserved" => "to reserve little",
            "calls" => "few and cheap calls of the driver",
            _ => "what can be had for what",
        }
    );
    match (&document.line, document.verdict) {
        (Some(line), _) => {
            let _ = writeln!(out, "\u{1b}[1m{line}\u{1b}[0m\n");
        }
        (None, "not needed") => out.push_str("nothing to change: it survives as it is\n\n"),
        (None, _) => nothing_text(document, &mut out),
    }
    out.push_str(&rows_text(document));
    checks_text(document, &mut out);
    if let Some(emptied) = &document.empty_cache {
        let fate = if emptied.survives { "it survives" } else { "it dies" };
        let _ = writeln!(
            out,
            "  with torch.cuda.empty_cache() before operation {} {fate}, reserves {} and pays {}",
            emptied.before_op,
            Bytes(emptied.reserved_bytes_peak),
            duration(emptied.price_us)
        );
    }
    let _ = writeln!(
        out,
        "  searched a grid of {} settings by {} replays; {} more for the checks",
        document.grid, document.replays, document.check_replays
    );
    for note in &document.notes {
        let _ = writeln!(out, "  note: {note}");
    }
    out
}

fn nothing_text(document: &TuneDocument, out: &mut String) {
    let _ = if document.start.survives {
        writeln!(out, "nothing helps: no setting is better by more than 1 %\n")
    } else {
        writeln!(
            out,
            "nothing helps: under none of the settings does it survive with {}",
            capacity_text(document.capacity)
        )
    };
    if let Some(needed) = &document.needed {
        let _ = writeln!(
            out,
            "  {} survives from {} on; less memory or a larger device is what is left\n",
            conf_text(&needed.conf),
            Bytes(needed.capacity)
        );
    }
}

fn rows_text(document: &TuneDocument) -> String {
    let mut table = Table::new(&[
        ("", Align::Left),
        ("survives", Align::Left),
        ("allocated", Align::Right),
        ("reserved", Align::Right),
        ("", Align::Right),
        ("retries", Align::Right),
        ("calls cost about", Align::Right),
    ]);
    let start = &document.start;
    let others = document.best.iter().chain(&document.furthest).chain(&document.front);
    for (i, row) in [start].into_iter().chain(others).enumerate() {
        let fate = match row.died_at_op {
            None => "yes".to_owned(),
            Some(op) => format!("no: at {op}"),
        };
        let against = if i == 0 {
            String::new()
        } else {
            delta(row.reserved_bytes_peak, start.reserved_bytes_peak)
        };
        let cells = [
            conf_text(&row.conf).to_owned(),
            fate,
            Bytes(row.allocated_bytes_peak).to_string(),
            Bytes(row.reserved_bytes_peak).to_string(),
            against,
            row.retries.to_string(),
            duration(row.price_us),
        ];
        table.row(cells.map(|cell| (cell, false)).to_vec());
    }
    table.text() + "\n"
}

/// The checks in a line each, those of other sizes together.
fn checks_text(document: &TuneDocument, out: &mut String) {
    let fate = |survives: bool| if survives { "survives" } else { "dies" };
    let (sizes, others): (Vec<_>, Vec<_>) =
        document.checks.iter().partition(|check| check.on.starts_with("sizes"));
    for check in others {
        let _ = writeln!(
            out,
            "  checked on the {}: {} with {} reserved (without the line: {}, {})",
            check.on,
            fate(check.survives),
            Bytes(check.reserved_bytes_peak),
            fate(check.start_survives),
            Bytes(check.start_reserved_bytes_peak)
        );
    }
    if sizes.is_empty() {
        return;
    }
    let survive = sizes.iter().filter(|check| check.survives).count();
    let before = sizes.iter().filter(|check| check.start_survives).count();
    let less = sizes
        .iter()
        .filter(|check| {
            check.survives
                && (!check.start_survives
                    || check.reserved_bytes_peak <= check.start_reserved_bytes_peak)
        })
        .count();
    let _ = writeln!(
        out,
        "  checked on {} runs with sizes up to 10 % larger or smaller: {survive} survive (without the line: {before}), {less} are better or as good",
        sizes.len()
    );
}
