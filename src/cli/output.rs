//! Where text goes: colours only where they belong, and no panic when nobody reads on.

use std::io::{self, IsTerminal, Write};

use anstream::adapter::strip_str;
use anyhow::Context;
use clap::ColorChoice;

/// Standard output, with colours taken out where it is no terminal.
pub(super) struct Output {
    stream: io::BufWriter<io::Stdout>,
    has_colors: bool,
}

fn has_colors(color: ColorChoice, is_terminal: bool) -> bool {
    match color {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        }
    }
}

impl Output {
    pub(super) fn stdout(color: ColorChoice) -> Self {
        let is_terminal = io::stdout().is_terminal();
        let stream = io::BufWriter::with_capacity(1 << 16, io::stdout());
        Self { stream, has_colors: has_colors(color, is_terminal) }
    }

    /// Writes a text.
    pub(super) fn write(&mut self, text: &str) -> anyhow::Result<()> {
        let written = if self.has_colors {
            self.stream.write_all(text.as_bytes())
        } else {
            strip_str(text).try_for_each(|part| self.stream.write_all(part.as_bytes()))
        };
        written.context("standard output cannot be written")
    }

    /// Writes a text and a newline.
    pub(super) fn line(&mut self, text: &str) -> anyhow::Result<()> {
        self.write(text)?;
        self.write("\n")
    }

    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        self.stream.flush().context("standard output cannot be written")
    }
}

/// Whether an error only says that the reader of our output has gone.
pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let is_pipe = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(is_pipe)
}

/// An error and its causes in one line; what a cause repeats of the text before it is left out.
pub(super) fn in_words(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// One error on standard error.
pub(super) fn complain(color: ColorChoice, message: &str) {
    let name = if has_colors(color, io::stderr().is_terminal()) {
        "\u{1b}[31mfragsim:\u{1b}[0m"
    } else {
        "fragsim:"
    };
    let _ = writeln!(io::stderr(), "{name} {message}");
}

/// A message on standard error that is no error.
pub(super) fn say(message: &str) {
    let _ = writeln!(io::stderr(), "fragsim: {message}");
}
