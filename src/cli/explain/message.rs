//! `fragsim explain` of a message or a log.

use std::{
    collections::HashMap,
    io::{self, BufRead},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use super::super::{
    Answer,
    args::{ExplainArgs, Format},
    output::Output,
    progress,
};
use crate::{
    report::{
        message::{self as report, MessagesDocument, Shown},
        to_csv, to_json,
    },
    source::{
        input::{self, Kind},
        message::{FoundMessage, Scanned, scan},
    },
    study::message::{Diagnosis, diagnose},
    trace::OomMessage,
};

/// Different messages that are kept; of more, the oldest go.
const KEPT: usize = 1000;
/// Messages that are shown after the last one, each in a line.
const LISTED: usize = 20;
/// Ranks that are kept of one message.
const RANKS: usize = 4096;

/// Scans the message or file that is named; `reader`, where the file is open already.
pub(super) fn run(
    args: &ExplainArgs,
    reader: Option<Box<dyn BufRead + Send>>,
    output: &mut Output,
) -> anyhow::Result<Answer> {
    let (name, mut reader) = match (reader, &args.file) {
        (Some(reader), Some(file)) => (file.display().to_string(), reader),
        _ => open(args)?,
    };
    let mut groups = Groups::default();
    let bar = progress::bytes("reading");
    let scanned = scan(&mut *reader, &mut |found| groups.add(found), &mut |bytes| {
        bar.set_position(bytes);
    });
    bar.finish_and_clear();
    let scanned = scanned.with_context(|| name.clone())?;
    let found = groups.turn;
    let groups = groups.latest_first();
    let Some(last) = groups.first() else { bail!("{name}: {}", nothing(args, scanned)) };
    match args.format {
        Format::Json | Format::Csv => {
            let messages = groups.iter().map(|group| group.shown().document()).collect();
            let document = MessagesDocument { file: name, bytes: scanned.bytes, found, messages };
            match args.format {
                Format::Csv => output.write(&to_csv(&document, "messages")?)?,
                _ => output.line(&to_json(&document))?,
            }
        }
        Format::Text => {
            output.write(&report::text(&last.shown()))?;
            list(&groups[1..], output)?;
        }
    }
    Ok(Answer::Yes)
}

/// The other messages, a line each.
fn list(others: &[Group], output: &mut Output) -> anyhow::Result<()> {
    if others.is_empty() {
        return Ok(());
    }
    output.line("\nother messages, latest first")?;
    for other in others.iter().take(LISTED) {
        output.line(&format!("  {}", report::line(&other.shown())))?;
    }
    if others.len() > LISTED {
        let more = others.len() - LISTED;
        output.line(&format!("  and {more} more; --format json has all"))?;
    }
    Ok(())
}

/// What is read, and its name in messages.
fn open(args: &ExplainArgs) -> anyhow::Result<(String, Box<dyn BufRead + Send>)> {
    let path = match (&args.file, &args.message) {
        (Some(file), _) => file.clone(),
        (None, Some(text)) if text == "-" || is_file(text) => PathBuf::from(text),
        (None, Some(text)) => {
            let text = io::Cursor::new(text.clone().into_bytes());
            return Ok(("the message".into(), Box::new(text)));
        }
        (None, None) => bail!("give a file, or the message with --message"),
    };
    let mut reader = input::open(&path)?;
    let name = path.display().to_string();
    match input::sniff(&mut reader).with_context(|| name.clone())? {
        Kind::Pickle | Kind::Zip | Kind::Packed => bail!(
            "{name}: this is no text; --message is for messages and logs; give a recording without it"
        ),
        Kind::Json | Kind::Html | Kind::Text => Ok((name, reader)),
    }
}

/// Whether a text is the name of a file: short, on one line, and there is such a file.
fn is_file(text: &str) -> bool {
    text.len() < 4096 && !text.contains(['\n', '\0']) && Path::new(text).is_file()
}

/// What to do where there is no message.
fn nothing(args: &ExplainArgs, scanned: Scanned) -> String {
    let mut words = "no out-of-memory message of a GPU found".to_owned();
    if let Some(line) = scanned.host_line {
        words.push_str(&format!(
            "; line {line} says that the host ran out of memory, which no GPU setting changes"
        ));
    } else if args.message.is_some() {
        words.push_str(
            "; give the text from \"CUDA out of memory. Tried to allocate\" on, or an existing file",
        );
    } else {
        words.push_str("; was standard error written to the log (2>&1)?");
    }
    words
}

/// Equal messages.
#[derive(Debug)]
struct Group {
    message: OomMessage,
    diagnosis: Diagnosis,
    text: String,
    line: u64,
    count: u64,
    ranks: Vec<u32>,
    /// When it was said last.
    turn: u64,
}

impl Group {
    fn shown(&self) -> Shown<'_> {
        Shown {
            message: &self.message,
            diagnosis: &self.diagnosis,
            text: &self.text,
            line: self.line,
            count: self.count,
            ranks: &self.ranks,
        }
    }
}

#[derive(Debug, Default)]
struct Groups {
    groups: HashMap<OomMessage, Group>,
    turn: u64,
}

impl Groups {
    fn add(&mut self, found: FoundMessage) {
        self.turn += 1;
        let turn = self.turn;
        let group = self.groups.entry(found.message).or_insert_with_key(|message| Group {
            message: message.clone(),
            diagnosis: diagnose(message),
            text: String::new(),
            line: 0,
            count: 0,
            ranks: Vec::new(),
            turn,
        });
        (group.turn, group.line, group.text) = (turn, found.line, found.text);
        group.count += 1;
        if let Some(rank) = found.rank
            && group.ranks.len() < RANKS
            && let Err(place) = group.ranks.binary_search(&rank)
        {
            group.ranks.insert(place, rank);
        }
        if self.groups.len() >= 2 * KEPT {
            self.forget();
        }
    }

    /// Drops the older half.
    fn forget(&mut self) {
        let mut turns: Vec<u64> = self.groups.values().map(|group| group.turn).collect();
        turns.sort_unstable();
        let least = turns.get(turns.len() / 2).copied().unwrap_or(0);
        self.groups.retain(|_, group| group.turn >= least);
    }

    fn latest_first(self) -> Vec<Group> {
        let mut groups: Vec<Group> = self.groups.into_values().collect();
        groups.sort_unstable_by_key(|group| std::cmp::Reverse(group.turn));
        groups.truncate(KEPT);
        groups
    }
}
