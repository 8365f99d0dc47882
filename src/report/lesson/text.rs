//! A lesson as plain text.

use std::fmt::Write;

use super::{
    document::ListDocument,
    strip::{HEAD, Labels, Scale, rows, short},
    words::sentences,
};
use crate::{
    base::Bytes,
    lesson::{Lesson, Made, Played, RunSpec, Told},
    report::table::{Align, Table},
};

/// Columns of plain text.
const WIDTH: usize = 100;

const BOLD: &str = "\u{1b}[1m";
const QUIET: &str = "\u{1b}[2m";
const RED: &str = "\u{1b}[31m";
const RESET: &str = "\u{1b}[0m";

/// The list of lessons.
pub fn list_text(list: &ListDocument) -> String {
    let mut text = String::new();
    let width = list.lessons.iter().map(|row| row.name.len()).max().unwrap_or_default();
    for row in &list.lessons {
        let _ =
            writeln!(text, "{:>4}  {BOLD}{:width$}{RESET}  {}", row.number, row.name, row.title);
    }
    text.push_str(
        "\nfragsim lesson NAME      step through one; on a terminal with the arrow keys\n",
    );
    text.push_str("fragsim lesson NAME --html lesson.html\n");
    text
}

/// The settings and the device of a run, in a line.
pub fn settings(spec: &RunSpec) -> String {
    let conf = if spec.conf_text.is_empty() { "default settings" } else { &spec.conf_text };
    let mut text = format!("{conf}, {}, PyTorch {}", short(spec.capacity), spec.torch);
    if spec.context > Bytes::ZERO {
        let _ = write!(text, ", context {}", short(spec.context));
    }
    if spec.external > Bytes::ZERO {
        let _ = write!(text, ", other processes {}", short(spec.external));
    }
    text
}

/// A text broken into lines of at most `width` columns; line breaks in it stay.
pub fn wrapped(text: &str, width: usize, indent: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for piece in text.split('\n') {
        // What goes on behind the mark of a list item stands below its text.
        let hang = if piece.starts_with("- ") { "  " } else { "" };
        let mut line = indent.to_owned();
        for (words, word) in piece.split_whitespace().enumerate() {
            if words > 0 && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::replace(&mut line, format!("{indent}{hang}")));
            } else if words > 0 {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// What a lesson says before and beside its replay, a paragraph each.
pub fn pages(told: &Told) -> Vec<String> {
    let mut pages = told.text.clone();
    if let Some(popular) = &told.popular {
        pages.push(format!("The claim: {}", popular.claim));
        pages.push(format!("Verdict: {}.", popular.verdict));
        pages.push(format!("Real runs: {}", popular.real));
        if !popular.made.is_empty() {
            let made: Vec<String> = popular.made.iter().map(made_line).collect();
            pages.push(format!("By formulas, peak allocated:\n{}", made.join("\n")));
        }
        pages.push(format!("When and why it fails: {}", popular.fails));
    }
    if !told.look.is_empty() {
        let look: Vec<String> = told.look.iter().map(|look| format!("- {look}")).collect();
        pages.push(format!("Look at:\n{}", look.join("\n")));
    }
    if !told.claims.is_empty() {
        let claims: Vec<String> = told
            .claims
            .iter()
            .map(|claim| {
                let mark = if claim.holds() { "" } else { "NOT SO: " };
                format!("- {mark}{}", claim.says)
            })
            .collect();
        pages.push(format!("What the replay shows (checked):\n{}", claims.join("\n")));
    }
    if !told.lesson.threads.is_empty() {
        let threads = told.lesson.threads.iter();
        let threads: Vec<String> =
            threads.map(|thread| format!("- {}: {}", thread.at, thread.says)).collect();
        pages.push(format!("Where it was met:\n{}", threads.join("\n")));
    }
    pages
}

fn made_line(made: &Made) -> String {
    let off = if made.agrees() { "" } else { " NOT SO:" };
    format!("-{off} {}; the real run took {}: `{}`", made.allocated, made.real, made.command)
}

/// The whole lesson; `number` is its place on the shelf.
pub fn lesson_text(told: &Told, number: Option<usize>) -> String {
    let Lesson { name, title, .. } = &told.lesson;
    let number = number.map_or_else(String::new, |n| format!("{n}. "));
    let mut text = format!("{BOLD}{number}{title}{RESET}  {QUIET}({name}){RESET}\n");
    let before = told.text.len()
        + told.popular.as_ref().map_or(0, |popular| 4 + usize::from(!popular.made.is_empty()))
        + usize::from(!told.look.is_empty());
    let pages = pages(told);
    let (before, behind) = pages.split_at(before.min(pages.len()));
    for page in before {
        paragraph(&mut text, page);
    }
    for (i, run) in told.runs.iter().enumerate() {
        // The same program again under other settings is told by its figures alone.
        let is_new = told.runs[..i].iter().all(|r| r.spec.source.name != run.spec.source.name);
        text.push('\n');
        run_text(&mut text, run, is_new);
    }
    if told.runs.len() > 1 {
        text.push('\n');
        text.push_str(&side_by_side(&told.runs));
    }
    for page in behind {
        paragraph(&mut text, page);
    }
    for claim in &told.claims {
        for wrong in claim.checks.iter().filter_map(|(_, wrong)| wrong.as_ref()) {
            let _ = writeln!(text, "{RED}not so: {wrong}{RESET}");
        }
    }
    text
}

fn paragraph(text: &mut String, page: &str) {
    text.push('\n');
    for line in wrapped(page, WIDTH, "") {
        text.push_str(&line);
        text.push('\n');
    }
}

/// The moments whose picture is drawn: those with a name, the first failure, and the end.
pub fn plain_marks(played: &Played) -> Vec<usize> {
    let mut marks: Vec<usize> = played.marks.values().copied().filter(|done| *done > 0).collect();
    marks.extend(played.first_failure().map(|step| step + 1));
    marks.sort_unstable();
    marks.dedup();
    marks
}

fn run_text(text: &mut String, played: &Played, with_steps: bool) {
    let spec = &played.spec;
    let about = if spec.about.is_empty() { String::new() } else { format!(": {}", spec.about) };
    let _ = writeln!(text, "{BOLD}{}{RESET}{about}  {QUIET}({}){RESET}", spec.name, settings(spec));
    let labels = Labels::of(played);
    let scale = Scale::of(played, WIDTH - HEAD - 24);
    let marks = plain_marks(played);
    let width =
        played.steps.iter().map(|step| step.text.chars().count()).max().unwrap_or(0).min(34);
    let mut chapter = "";
    for (i, step) in played.steps.iter().enumerate() {
        let is_marked = marks.contains(&(i + 1));
        if with_steps || step.error.is_some() {
            if step.chapter != chapter {
                chapter = &step.chapter;
                for line in wrapped(chapter, WIDTH, "  # ") {
                    let _ = writeln!(text, "{QUIET}{line}{RESET}");
                }
            }
            let mut told = sentences(step, played).join("; ");
            // A comment beside several operations stands behind the last.
            let is_last = played.steps.get(i + 1).is_none_or(|next| next.line != step.line);
            if !step.note.is_empty() && is_last {
                told = format!("{told}  # {}", step.note);
            }
            let lines = wrapped(&told, WIDTH.saturating_sub(width + 8), "");
            for (k, line) in lines.iter().enumerate() {
                let (number, op) = if k == 0 {
                    ((i + 1).to_string(), step.text.as_str())
                } else {
                    (String::new(), "")
                };
                let (on, off) = if step.error.is_some() { (RED, RESET) } else { ("", "") };
                let _ = writeln!(text, "{number:>4}  {op:width$}  {on}{line}{off}");
            }
        }
        if is_marked && (with_steps || i + 1 == played.steps.len()) {
            picture(text, played, i + 1, &labels, scale);
        }
    }
}

fn picture(text: &mut String, played: &Played, done: usize, labels: &Labels, scale: Scale) {
    let scene = played.scene(done);
    let levels = played.levels(done);
    for row in rows(&scene, &scene, labels, scale) {
        let cells: String = row.cells.iter().map(|(c, _)| *c).collect();
        let _ = writeln!(text, "      {}{cells} {QUIET}{}{RESET}", row.head, row.tail);
    }
    let words = scale.words(&scene);
    let _ = writeln!(
        text,
        "      {QUIET}allocated {}, reserved {}, free on the device {}{}{words}{RESET}",
        levels.allocated,
        levels.reserved,
        levels.device_free,
        if words.is_empty() { "" } else { "; " },
    );
}

fn side_by_side(runs: &[Played]) -> String {
    let mut table = Table::new(&[
        ("", Align::Left),
        ("survives", Align::Left),
        ("peak allocated", Align::Right),
        ("peak reserved", Align::Right),
        ("retries", Align::Right),
        ("cudaMalloc", Align::Right),
        ("mapped", Align::Right),
    ]);
    for run in runs {
        let end = run.levels(run.steps.len());
        let survives = match run.first_failure() {
            Some(step) => format!("no: at step {}", step + 1),
            None => "yes".to_owned(),
        };
        table.row(vec![
            (run.spec.name.clone(), false),
            (survives, false),
            (end.peak_allocated.to_string(), false),
            (end.peak_reserved.to_string(), false),
            (end.retries.to_string(), false),
            (end.cuda_malloc.to_string(), false),
            (end.map.to_string(), false),
        ]);
    }
    table.text()
}
