//! What is wrong with a settings string: PyTorch's own words, where, and what to write instead.

use std::fmt;

use crate::base::Release;

use super::{suggest::suggestion, tokens::Tokens};

/// How PyTorch takes the string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConfErrorKind {
    /// An exception with this text.
    Refused,
    /// The process dies, no program can catch it: while the library is loaded (2.10 and later, at
    /// start-up), or by reading memory behind an unfinished list (2.6 and before; at run time it may
    /// survive by chance and say `expected ,`).
    Aborts,
}

/// A settings string that PyTorch does not accept.
///
/// [`text`](Self::text) is PyTorch's message, letter for letter, with the source line that the wheel
/// of that release names. The rest is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfError {
    /// Exception or death.
    pub kind: ConfErrorKind,
    /// PyTorch's message; empty where the process dies without one.
    pub text: String,
    /// Byte of the string where the parser stood, up to its length.
    pub position: usize,
    /// The token there; `None` at the end of the string.
    pub token: Option<Box<str>>,
    /// The cure, if we know one.
    pub suggestion: Option<String>,
    /// Whose rules these are.
    pub release: Release,
    /// The environment variable that holds the string, if it came from the environment.
    pub variable: Option<&'static str>,
    /// The string.
    pub settings: Box<str>,
}

impl std::error::Error for ConfError {}

impl fmt::Display for ConfError {
    /// PyTorch's message on the first line, then the place, then the cure.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text.trim_end();
        match (self.kind, text) {
            (ConfErrorKind::Refused, _) => write!(f, "{text}")?,
            (ConfErrorKind::Aborts, "") => {
                write!(f, "PyTorch {} dies on this string without a message", self.release)?;
            }
            (ConfErrorKind::Aborts, _) => {
                write!(f, "{text}\n  PyTorch {} aborts on this string at start", self.release)?;
            }
        }
        let variable = self.variable.unwrap_or("the settings");
        let (before, after) = excerpt(&self.settings, self.position);
        write!(f, "\n  at byte {} of {variable}: {before}>>>{after}", self.position)?;
        match &self.suggestion {
            Some(cure) => write!(f, "\n  {cure}"),
            None => Ok(()),
        }
    }
}

/// The text around `position`, at most 40 characters to each side, fit for one line.
fn excerpt(text: &str, position: usize) -> (String, String) {
    let (before, after) = text.split_at_checked(position).unwrap_or((text, ""));
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut left: Vec<char> = before.chars().rev().take(40).collect();
    left.reverse();
    (left.into_iter().map(plain).collect(), after.chars().take(40).map(plain).collect())
}

/// An error inside a parser: it knows tokens, not the string.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) text: String,
    /// Token where the parser stood.
    pub(super) token: usize,
    /// What the cure may build on.
    pub(super) cause: Cause,
    pub(super) aborts: bool,
}

/// Why a parser stopped, as far as the cure depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The token is no key of this release.
    UnknownKey,
    /// A token should follow, or another one should stand here.
    Separator,
    /// The value of the key has the wrong form.
    Value,
    /// The value of the key has the right form, but may not be this one.
    Range,
    /// A `[` without `]`.
    OpenList,
    /// The backend that is loaded is another.
    Backend,
}

impl Fault {
    pub(super) fn new(cause: Cause, token: usize, text: impl Into<String>) -> Self {
        Self { text: text.into(), token, cause, aborts: false }
    }

    pub(super) fn aborting(self) -> Self {
        Self { aborts: true, ..self }
    }

    pub(super) fn into_error(self, tokens: &Tokens, settings: &str, release: Release) -> ConfError {
        ConfError {
            kind: if self.aborts { ConfErrorKind::Aborts } else { ConfErrorKind::Refused },
            position: tokens.offset(self.token),
            token: tokens.get(self.token).map(Box::from),
            suggestion: suggestion(&self, tokens, release),
            text: self.text,
            release,
            variable: None,
            settings: settings.into(),
        }
    }
}

/// A line that PyTorch writes to the log (`TORCH_WARN`) and goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The text, without time and place.
    pub text: String,
    /// The C++ function that the line names at its end.
    pub function: &'static str,
    /// Whether a process prints it only the first time.
    pub once: bool,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Warning: {} (function {})", self.text, self.function)
    }
}
