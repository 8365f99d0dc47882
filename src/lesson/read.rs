//! A lesson's file: a head in TOML between two lines of `+++`, and a text behind it.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;

use super::play::{Beside, Source};
use crate::{
    base::{Bytes, Release},
    models::pytorch::conf::AllocConf,
    trace::script,
};

/// A lesson takes every step in its hands; more than these nobody steps through.
pub const MAX_OPS: usize = 1000;

/// Why a file is no lesson.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lesson '{lesson}', {place}: {what}")]
pub struct LessonError {
    /// Its name.
    pub lesson: String,
    /// Where in it.
    pub place: String,
    /// What is wrong, and what to do.
    pub what: String,
}

impl LessonError {
    pub(super) fn new(lesson: &str, place: &str, what: impl Into<String>) -> Self {
        Self { lesson: lesson.into(), place: place.into(), what: what.into() }
    }
}

/// A lesson as it is written.
#[derive(Clone, Debug)]
pub struct Lesson {
    /// By which it is called.
    pub name: String,
    /// One line.
    pub title: String,
    /// Paragraphs, with places to fill.
    pub text: Vec<String>,
    /// What to look at in the replay.
    pub look: Vec<String>,
    /// The runs; never empty.
    pub runs: Vec<RunSpec>,
    /// What it claims.
    pub claims: Vec<Claim>,
    /// The popular claim that it is about.
    pub popular: Option<Popular>,
    /// Where somebody met it.
    pub threads: Vec<Thread>,
}

/// A sentence and what must be so for it to be true.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The sentence, with places to fill.
    pub says: String,
    /// Checks; never empty.
    pub check: Vec<String>,
}

/// What guides say, and what is so.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Popular {
    /// As guides say it.
    pub claim: String,
    /// Whether it holds, in a few words.
    pub verdict: String,
    /// What real runs showed, with places to fill.
    pub real: String,
    /// When and why it fails.
    pub fails: String,
    /// The same programs, made by formulas.
    #[serde(default)]
    pub made: Vec<MadeSpec>,
}

/// A program of `fragsim synth` that answers to a recorded run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MadeSpec {
    /// The workload and its parameters, as they follow `fragsim synth`.
    pub synth: String,
    /// The recorded run, by its name in `scenarios.json`.
    pub real: String,
}

/// A thread or page where it was met.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thread {
    /// `owner/repository#number`, or an address that begins with `https://`.
    pub at: String,
    /// What is to be found there.
    pub says: String,
}

impl Thread {
    /// Its address.
    pub fn url(&self) -> Cow<'_, str> {
        match self.at.split_once('#') {
            Some((repository, number)) if !self.at.starts_with("https://") => {
                // GitHub leads from an issue's address to the pull request of that number.
                format!("https://github.com/{repository}/issues/{number}").into()
            }
            _ => self.at.as_str().into(),
        }
    }
}

/// One run of a lesson.
#[derive(Clone, Debug)]
pub struct RunSpec {
    /// By which its figures are called.
    pub name: String,
    /// What it is, in a few words.
    pub about: String,
    /// The program.
    pub source: Source,
    /// The settings as they are written.
    pub conf_text: String,
    /// The settings.
    pub conf: AllocConf,
    /// Whose rules.
    pub torch: Release,
    /// Capacity of the device.
    pub capacity: Bytes,
    /// What the process's context takes.
    pub context: Bytes,
    /// What other processes hold.
    pub external: Bytes,
    /// Whether the program goes on after a request that failed.
    pub goes_on: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    title: String,
    #[serde(default)]
    look: Vec<String>,
    #[serde(default)]
    run: Vec<RunHead>,
    #[serde(default)]
    claim: Vec<Claim>,
    popular: Option<Popular>,
    #[serde(default)]
    thread: Vec<Thread>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunHead {
    name: String,
    #[serde(default)]
    about: String,
    trace: Option<String>,
    #[serde(default)]
    conf: String,
    torch: Option<String>,
    capacity: Option<String>,
    context: Option<String>,
    external: Option<String>,
    #[serde(default)]
    goes_on: bool,
}

/// Without a capacity a device refuses nothing that a lesson asks.
const ROOMY: Bytes = Bytes::gib(80);

impl Lesson {
    /// Reads a lesson. `trace_of` gives the text of a trace by its name.
    ///
    /// # Errors
    /// At the first thing that is not understood.
    pub fn read(
        name: &str,
        text: &str,
        trace_of: &dyn Fn(&str) -> Result<String, String>,
    ) -> Result<Self, LessonError> {
        let fail = |place: &str, what: String| LessonError::new(name, place, what);
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace('\r', "");
        let parts = text.strip_prefix("+++\n").and_then(|rest| rest.split_once("\n+++\n"));
        let Some((head, body)) = parts else {
            let what = "it does not begin with a head in TOML between two lines of '+++'";
            return Err(fail("line 1", what.into()));
        };
        let head: Head = toml::from_str(head).map_err(|error| {
            let before = error.span().map(|span| &head[..span.start.min(head.len())]);
            // The line of '+++' is above the head.
            let line = before.map_or(1, |before| before.matches('\n').count() + 2);
            fail(&format!("line {line}"), error.message().to_owned())
        })?;
        if head.run.is_empty() {
            return Err(fail("head", "it has no [[run]]".into()));
        }
        let mut sources: BTreeMap<String, Source> = BTreeMap::new();
        let mut runs = Vec::new();
        for run in &head.run {
            let trace = run.trace.clone().unwrap_or_else(|| name.to_owned());
            let source = match sources.get(&trace) {
                Some(source) => source.clone(),
                None => {
                    let source = trace_of(&trace).and_then(|text| Source::read(&trace, text));
                    let source = source.map_err(|what| fail(&format!("trace '{trace}'"), what))?;
                    sources.insert(trace, source.clone());
                    source
                }
            };
            let run = RunSpec::of(run, source)
                .map_err(|what| fail(&format!("run '{}'", run.name), what))?;
            if runs.iter().any(|other: &RunSpec| other.name == run.name) {
                return Err(fail("head", format!("two runs are called '{}'", run.name)));
            }
            runs.push(run);
        }
        if let Some(claim) = head.claim.iter().find(|claim| claim.check.is_empty()) {
            let what = format!("'{}' has no check: nothing would show that it holds", claim.says);
            return Err(fail("claim", what));
        }
        Ok(Self {
            name: name.to_owned(),
            title: head.title,
            text: paragraphs(body),
            look: head.look,
            runs,
            claims: head.claim,
            popular: head.popular,
            threads: head.thread,
        })
    }
}

impl RunSpec {
    fn of(head: &RunHead, source: Source) -> Result<Self, String> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if head.name.is_empty()
            || !head.name.starts_with(|c: char| c.is_ascii_alphabetic())
            || !head.name.chars().all(is_name)
            || ["rule", "real"].contains(&head.name.as_str())
        {
            return Err(
                "a name is a letter, then letters, digits and '_'; not rule, not real".into()
            );
        }
        let torch = match &head.torch {
            Some(text) => text.parse().map_err(|error| format!("torch: {error}"))?,
            None => Release::default(),
        };
        let size = |key: &str, text: &Option<String>, otherwise: Bytes| match text {
            Some(text) => text.parse::<Bytes>().map_err(|error| format!("{key}: {error}")),
            None => Ok(otherwise),
        };
        let (conf, warnings) =
            AllocConf::from_string(torch, &head.conf).map_err(|error| format!("conf: {error}"))?;
        if let Some(warning) = warnings.first() {
            return Err(format!("conf: {warning:?}"));
        }
        let capacity = size("capacity", &head.capacity, ROOMY)?;
        if capacity == Bytes::ZERO || capacity > Bytes(1 << 60) {
            return Err(format!("capacity: no device has {capacity}"));
        }
        Ok(Self {
            name: head.name.clone(),
            about: head.about.clone(),
            source,
            conf_text: head.conf.clone(),
            conf,
            torch,
            capacity,
            context: size("context", &head.context, Bytes::ZERO)?,
            external: size("external", &head.external, Bytes::ZERO)?,
            goes_on: head.goes_on,
        })
    }
}

impl Source {
    /// Reads the program of a lesson: a trace in the line format. A comment beside an operation that
    /// begins with `@name` names the moment after it.
    fn read(name: &str, text: String) -> Result<Self, String> {
        let read = script::annotated(&text).map_err(|error| error.to_string())?;
        if read.trace.ops().is_empty() || read.trace.ops().len() > MAX_OPS {
            let ops = read.trace.ops().len();
            return Err(format!("it has {ops} operations; a lesson has 1 to {MAX_OPS}"));
        }
        let chapters = chapters(&read);
        let mut statements = Vec::new();
        let mut marks = BTreeMap::new();
        for (i, statement) in read.statements.iter().enumerate() {
            let comment = read.comments[statement.line];
            let (mark, note) = match comment.strip_prefix('@') {
                Some(rest) => {
                    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                    let (mark, note) = rest.split_at(end.unwrap_or(rest.len()));
                    (Some(mark), note.trim_start_matches([':', ',']).trim())
                }
                None => (None, comment),
            };
            if let Some(mark) = mark {
                let is_known = ["start", "end"].contains(&mark);
                let other = marks.insert(mark.to_owned(), (i + 1, statement.line));
                if is_known || other.is_some_and(|(_, line)| line != statement.line) {
                    let line = statement.line + 1;
                    return Err(format!("line {line}: another moment is called '@{mark}'"));
                }
            }
            statements.push(Beside {
                line: statement.line,
                text: statement.text.to_owned(),
                note: note.to_owned(),
                chapter: chapters[statement.line].clone(),
            });
        }
        Ok(Self {
            name: name.to_owned(),
            names: read.names.iter().map(|name| (*name).to_owned()).collect(),
            marks: marks.into_iter().map(|(mark, (at, _))| (mark, at)).collect(),
            trace: read.trace,
            statements,
            text,
        })
    }
}

/// The comment above each line, or above those before it: comments alone in their lines, of which the
/// first, at the top, says what the trace is.
fn chapters(read: &script::Annotated<'_>) -> Vec<String> {
    let mut has_statement = vec![false; read.comments.len()];
    for statement in &read.statements {
        has_statement[statement.line] = true;
    }
    let mut chapters = Vec::new();
    let (mut chapter, mut is_open, mut is_top) = (String::new(), true, true);
    for (line, comment) in read.comments.iter().enumerate() {
        if has_statement[line] || comment.is_empty() {
            is_open = false;
            is_top = is_top && comment.is_empty() && !has_statement[line] && line == 0;
        } else if !is_top {
            if !is_open {
                chapter.clear();
            } else if !chapter.is_empty() {
                chapter.push(' ');
            }
            chapter.push_str(comment);
            is_open = true;
        }
        chapters.push(chapter.clone());
    }
    chapters
}

/// Paragraphs are what blank lines part; within one, lines are joined, but those of a list stay.
fn paragraphs(body: &str) -> Vec<String> {
    let joined = |paragraph: &str| {
        let mut text = String::new();
        for line in paragraph.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let is_item = line.starts_with("- ");
            if !text.is_empty() {
                text.push(if is_item { '\n' } else { ' ' });
            }
            text.push_str(line);
        }
        text
    };
    body.split("\n\n").map(joined).filter(|paragraph| !paragraph.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "# What it is.\n# More of that.\n\na = alloc 3MiB # @first: one\n# Then.\n# And then.\nb = alloc 1; free b\nfree a # back";

    fn read(head: &str) -> Result<Lesson, LessonError> {
        let text = format!("+++\ntitle = 't'\n{head}\n+++\nOne\ntwo.\n\n- a\n- b\n");
        Lesson::read("x", &text, &|name| match name {
            "x" => Ok(TRACE.to_owned()),
            _ => Err("there is no such file".into()),
        })
    }

    #[test]
    fn a_lesson_is_read() {
        let lesson = read("[[run]]\nname = 'run'").unwrap();
        assert_eq!(lesson.text, ["One two.", "- a\n- b"]);
        let source = &lesson.runs[0].source;
        assert_eq!(source.marks, BTreeMap::from([("first".to_owned(), 1)]));
        let beside: Vec<(&str, &str, &str)> = source
            .statements
            .iter()
            .map(|b| (b.text.as_str(), b.note.as_str(), b.chapter.as_str()))
            .collect();
        assert_eq!(
            beside,
            [
                ("a = alloc 3MiB", "one", ""),
                ("b = alloc 1", "", "Then. And then."),
                ("free b", "", "Then. And then."),
                ("free a", "back", "Then. And then."),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let run = "[[run]]\nname = 'run'\n";
        for (head, error) in [
            ("", "lesson 'x', head: it has no [[run]]"),
            ("[[run]]\nname = 'real'", "lesson 'x', run 'real': a name is a letter"),
            ("[[run]]\nname = 'a'\ntrace = 'y'", "lesson 'x', trace 'y': there is no such file"),
            ("[[run]]\nname = 'a'\nconf = 'max_split:1'", "lesson 'x', run 'a': conf: "),
            (
                "[[run]]\nname = 'a'\ncapacity = '0'",
                "lesson 'x', run 'a': capacity: no device has 0 bytes",
            ),
            ("[[run]]\nname = 'a'\ncapacty = '1'", "lesson 'x', line 5: unknown field `capacty`"),
            (&format!("{run}{run}"), "lesson 'x', head: two runs are called 'run'"),
            (
                &format!("{run}[[claim]]\nsays = 's'\ncheck = []"),
                "lesson 'x', claim: 's' has no check",
            ),
        ] {
            let found = read(head).unwrap_err().to_string();
            assert!(found.starts_with(error), "{found}");
        }
    }
}
