//! `fragsim lesson`.

mod draw;
mod stepper;

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;

use super::{Answer, args::Format, file::write_file, output::Output};
use crate::{
    lesson::{Lesson, SHELF, Told, find},
    report::{
        lesson::{LessonDocument, ListDocument, lesson_text, list_text, page},
        to_csv, to_json,
    },
};

/// Learn how memory fragments: small programs to step through, each with what it shows
///
/// On a terminal a lesson is stepped through with the arrow keys: segments and blocks to scale, what
/// the allocator did and why, the counters. Elsewhere, or with --plain, it is printed. Every figure is
/// computed by replay, and every claim is checked; exit status 1 says that one does not hold.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    fragsim lesson                               the list\n  \
    fragsim lesson no_block                      on a terminal: arrow keys, q quits\n  \
    fragsim lesson 12 --plain\n  \
    fragsim lesson 12 --html lesson.html         one page with a slider; needs no network\n  \
    fragsim lesson mine.md                       your own, with its trace mine.fragsim beside it\n\n\
    Exit status: 0 all it claims is so, 1 something is not, 2 unusable input.")]
pub(super) struct LessonArgs {
    /// A lesson, by its name or number, or a file of your own; without it, the list
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Show all lessons
    #[arg(long, conflicts_with_all = ["name", "plain", "html"])]
    pub list: bool,
    /// Print it, also on a terminal
    #[arg(long, conflicts_with = "html")]
    pub plain: bool,
    /// Write it as a page; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value = "text", conflicts_with = "html")]
    pub format: Format,
}

pub(super) fn run(args: &LessonArgs, output: &mut Output) -> anyhow::Result<Answer> {
    let Some(name) = args.name.as_deref().filter(|_| !args.list) else {
        if args.html.is_some() || args.plain {
            bail!("which lesson? name one of 'fragsim lesson --list'");
        }
        let list = ListDocument::new();
        match args.format {
            Format::Text => output.write(&list_text(&list))?,
            Format::Json => output.line(&to_json(&list))?,
            Format::Csv => output.write(&to_csv(&list, "lessons")?)?,
        }
        return Ok(Answer::Yes);
    };
    let (lesson, number) = open(name)?;
    let told = Told::new(lesson)?;
    let holds = told.claims.iter().all(crate::lesson::ToldClaim::holds);
    let answer = if holds { Answer::Yes } else { Answer::No };
    if let Some(path) = &args.html {
        write_file(path, |mut out| page::write(&told, &mut out))?;
        if path.as_os_str() != "-" {
            output.line(&format!("{}: {}", path.display(), told.lesson.title))?;
        }
        return Ok(answer);
    }
    match args.format {
        Format::Json => output.line(&to_json(&LessonDocument::new(&told)))?,
        Format::Csv => output.write(&to_csv(&LessonDocument::new(&told), "claims")?)?,
        Format::Text if !args.plain && is_for_stepping() => stepper::run(&told)?,
        Format::Text => output.write(&lesson_text(&told, number))?,
    }
    Ok(answer)
}

/// Whether somebody sits at a terminal that can move its cursor.
fn is_for_stepping() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    io::stdout().is_terminal() && io::stdin().is_terminal() && !is_dumb
}

/// A lesson of the shelf with its number, or one from a file.
fn open(name: &str) -> anyhow::Result<(Lesson, Option<usize>)> {
    let path = Path::new(name);
    let is_file = path.extension().is_some_and(|ending| ending == "md");
    if !is_file {
        let at = find(name).map_err(anyhow::Error::msg)?;
        return Ok((SHELF[at].read()?, Some(at + 1)));
    }
    let text = limited(path)?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let folder = path.parent().unwrap_or(Path::new(""));
    let lesson = Lesson::read(&stem, &text, &|trace| {
        let is_beside = !trace.contains(['/', '\\']);
        if !is_beside {
            return Err("a trace lies beside its lesson: name it without a folder".into());
        }
        let path = folder.join(format!("{trace}.fragsim"));
        limited(&path).map_err(|error| super::output::in_words(&error))
    })?;
    Ok((lesson, None))
}

/// A lesson is read by people: no file of it is long.
const LIMIT: u64 = 1 << 20;

fn limited(path: &Path) -> anyhow::Result<String> {
    let name = || path.display().to_string();
    let mut text = String::new();
    let file = File::open(path).with_context(name)?;
    file.take(LIMIT + 1).read_to_string(&mut text).with_context(name)?;
    if text.len() as u64 > LIMIT {
        bail!("{}: longer than 1 MiB; a lesson is a short text and a small trace", path.display());
    }
    Ok(text)
}
