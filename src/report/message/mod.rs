//! What an out-of-memory message says and why it came to it, in text and as a document.

mod document;
mod words;

use std::fmt::Write;

use crate::{
    base::ByteRange,
    study::message::{Account, Certainty, Diagnosis},
    trace::OomMessage,
};

pub use document::{FiguresDocument, MessageDocument, MessagesDocument};

/// One message, why it failed, and where it was.
#[derive(Clone, Debug)]
pub struct Shown<'a> {
    /// What it says.
    pub message: &'a OomMessage,
    /// Why.
    pub diagnosis: &'a Diagnosis,
    /// Its words.
    pub text: &'a str,
    /// The line of its last occurrence.
    pub line: u64,
    /// How often it was said.
    pub count: u64,
    /// The ranks that said it.
    pub ranks: &'a [u32],
}

/// One message in full.
pub fn text(shown: &Shown<'_>) -> String {
    let diagnosis = shown.diagnosis;
    let first = diagnosis.cause.name().to_uppercase();
    let colour = if diagnosis.certainty == Certainty::Open { "33" } else { "31" };
    let mut out = String::new();
    let _ = writeln!(
        out,
        "\u{1b}[1;{colour}m{first}\u{1b}[0m: {}",
        words::headline(shown.message, diagnosis)
    );
    let _ = writeln!(out, "  {}", words::certainty(diagnosis));
    let _ = writeln!(out, "  {}", place(shown));
    let rows = rows(shown.message, &diagnosis.account);
    if !rows.is_empty() {
        out.push('\n');
    }
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    for row in &rows {
        let line = format!("  {:<width$}  {:>13}  {}", row.name, row.size.to_string(), row.note);
        let _ = writeln!(out, "{}", line.trim_end());
    }
    section(&mut out, "also in the way", &words::contributing(diagnosis));
    section(
        &mut out,
        "the figures contradict each other",
        &words::contradictions(&diagnosis.account),
    );
    section(&mut out, "what to do", &words::remedies(shown.message, diagnosis));
    section(&mut out, "to know more next time", &words::steps(shown.message, diagnosis));
    out
}

fn section(out: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{title}");
    for line in lines {
        for (index, part) in line.lines().enumerate() {
            // What can be pasted stands on a line of its own.
            let mark = if index == 0 { "  - " } else { "        " };
            let _ = writeln!(out, "{mark}{part}");
        }
    }
}

/// One message in one line, for those that are not the last.
pub fn line(shown: &Shown<'_>) -> String {
    let diagnosis = shown.diagnosis;
    let asked = diagnosis.account.requested;
    let asked = asked.map_or_else(String::new, |size| format!(", asked {size}"));
    let sure = match diagnosis.certainty {
        Certainty::Open => "",
        Certainty::Likely => " (likely)",
        Certainty::Certain => " (certain)",
    };
    format!("{}{sure}: {}{asked}", diagnosis.cause.name(), place(shown))
}

fn place(shown: &Shown<'_>) -> String {
    let mut place = shown.message.backend.name().to_owned();
    if let Some(device) = shown.message.device {
        let _ = write!(place, ", device {device}");
    }
    if let Some([oldest, newest]) = shown.message.torch {
        let name = |(major, minor): (u8, u8)| format!("{major}.{minor}");
        let _ = match (oldest == newest, newest) {
            (true, _) => write!(place, ", worded as PyTorch {}", name(oldest)),
            (false, (2, 15)) => write!(place, ", worded as PyTorch {} or later", name(oldest)),
            _ => write!(place, ", worded as PyTorch {} to {}", name(oldest), name(newest)),
        };
    }
    let _ = match shown.count {
        1 => write!(place, ", line {}", shown.line),
        count => write!(place, ", said {count} times, last on line {}", shown.line),
    };
    if !shown.ranks.is_empty() {
        let ranks: Vec<String> = shown.ranks.iter().take(16).map(ToString::to_string).collect();
        let more = if shown.ranks.len() > 16 { ", ..." } else { "" };
        let name = if shown.ranks.len() == 1 { "rank" } else { "ranks" };
        let _ = write!(place, ", {name} {}{more}", ranks.join(", "));
    }
    place
}

struct Row {
    name: &'static str,
    size: ByteRange,
    note: String,
}

fn rows(message: &OomMessage, account: &Account) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |name, size: Option<ByteRange>, note: String| {
        if let Some(size) = size {
            rows.push(Row { name, size, note });
        }
    };
    let figures = &message.figures;
    let doubt = |size: Option<ByteRange>| {
        let half = size.map_or(0, |size| (size.high() - size.low()) / 2);
        if half >= 1 << 19 {
            let half = ByteRange::printed(&half.to_string(), 0).unwrap_or(ByteRange::ZERO);
            format!(", to within {half}")
        } else {
            String::new()
        }
    };
    if message.tensor.as_ref().is_some_and(|tensor| tensor.element.is_none()) {
        row("asked, as float", words::as_float(account), "the message names no type".into());
    } else {
        row("asked", account.requested, words::needed(message, account));
    }
    row("capacity", account.total, String::new());
    row("allowed", figures.allowed.filter(|limit| limit.high() < 1 << 63), String::new());
    row("free on the device", account.free, String::new());
    row(
        "reserved",
        account.reserved,
        match figures.reserved {
            Some(_) => String::new(),
            None => "allocated and unallocated together".into(),
        },
    );
    row(
        "allocated",
        account.allocated,
        match figures.private_pools {
            Some(_) => "without the free blocks of private pools".into(),
            None => String::new(),
        },
    );
    row("private pools, free", account.private_pools, "only for what runs in them".into());
    let holes = match figures.unallocated {
        Some(_) => "reserved, in holes between live blocks".into(),
        None => format!(
            "reserved - allocated, in holes between live blocks{}",
            doubt(account.unallocated)
        ),
    };
    row("unallocated", account.unallocated, holes);
    row("free in all", account.all_free, "free + unallocated".into());
    let (name, note) = match account.shortfall {
        Some(lacks) if lacks.middle() > 0 => ("missing", "asked - free in all"),
        _ => ("to spare", "free in all - asked"),
    };
    let lacks = account
        .shortfall
        .map(|lacks| if lacks.middle() > 0 { lacks } else { ByteRange::ZERO - lacks });
    row(name, lacks, format!("{note}{}", doubt(account.shortfall)));
    row("other allocations", figures.other_allocations, "by Metal, for this process".into());
    let held = match figures.other_allocations {
        Some(other) => account.allocated.map(|allocated| allocated + other),
        None => account.reserved.or(account.allocated),
    };
    let wanted = held.zip(account.requested).map(|(held, asked)| held + asked);
    let has_limit = figures.allowed.is_some_and(|limit| limit.high() < 1 << 63);
    row(
        "wanted in all",
        wanted.filter(|_| has_limit),
        "held + asked, against what is allowed".into(),
    );
    let outside = "capacity - free - reserved: context, libraries, other processes";
    row("outside PyTorch", account.outside, outside.into());
    row("  of this process", account.context, "CUDA context, libraries, NCCL".into());
    let others =
        if account.others_are_listed { "as the message lists them" } else { "what is left" };
    // Nothing, within rounding, is nothing to show.
    let held = account.others.filter(|held| held.low() > 0);
    row("  of others", held, others.into());
    rows
}
