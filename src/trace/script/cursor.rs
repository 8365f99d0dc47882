//! [`Cursor`]: words, numbers, sizes and pools of one line, each with its place.

use super::ScriptError;
use crate::base::{Bytes, PoolId};

/// Ends a word, beside white space.
pub(super) const PUNCTUATION: [char; 9] = ['=', ';', '#', '(', ')', ',', '|', '~', '"'];

/// Longer words are not looked at: no number, size or keyword is that long.
const LONGEST_NUMBER: usize = 64;

/// A word and the byte of its line at which it starts. Empty where punctuation or the end stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<'a> {
    pub text: &'a str,
    pub at: usize,
}

/// A place in a line.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    line: &'a str,
    at: usize,
    /// Number of the line, from 1.
    pub number: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(line: &'a str, number: usize) -> Self {
        Self { line, at: 0, number }
    }

    fn rest(&self) -> &'a str {
        &self.line[self.at..]
    }

    fn skip_space(&mut self) {
        self.at = self.line.len() - self.rest().trim_start().len();
    }

    /// The next word; it is consumed.
    pub(super) fn word(&mut self) -> Word<'a> {
        self.skip_space();
        let rest = self.rest();
        let end = rest.find(|c: char| c.is_whitespace() || PUNCTUATION.contains(&c));
        let word = Word { text: &rest[..end.unwrap_or(rest.len())], at: self.at };
        self.at += word.text.len();
        word
    }

    /// The next word; it stays.
    pub(super) fn peek(&self) -> Word<'a> {
        self.clone().word()
    }

    /// Consumes `c` if it stands next.
    pub(super) fn eat(&mut self, c: char) -> bool {
        self.skip_space();
        let is_next = self.rest().starts_with(c);
        if is_next {
            self.at += c.len_utf8();
        }
        is_next
    }

    /// Consumes `word` if it stands next.
    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let is_next = self.peek().text == word;
        if is_next {
            self.word();
        }
        is_next
    }

    /// Whether the line ends here, or a comment begins.
    pub(super) fn is_line_end(&mut self) -> bool {
        self.skip_space();
        self.rest().is_empty() || self.rest().starts_with('#')
    }

    /// The comment that begins here, without its `#` and white space around it.
    pub(super) fn comment(&mut self) -> &'a str {
        self.skip_space();
        self.rest().strip_prefix('#').unwrap_or_default().trim()
    }

    /// The text from here to another place in the same line, without white space around it.
    pub(super) fn text_up_to(&self, end: &Self) -> &'a str {
        self.line[self.at..end.at].trim()
    }

    /// Whether the statement ends here.
    pub(super) fn is_end(&mut self) -> bool {
        self.is_line_end() || self.rest().starts_with(';')
    }

    /// An error at `word`; where that is empty, at what stands in its place.
    pub(super) fn error(&self, word: Word<'_>, message: impl Into<String>) -> ScriptError {
        let column = self.line[..word.at].chars().count() + 1;
        let found = if word.text.is_empty() {
            self.line[word.at..].chars().next().map(String::from).unwrap_or_default()
        } else {
            word.text.chars().take(LONGEST_NUMBER).collect()
        };
        ScriptError { line: self.number, column, word: found, message: message.into() }
    }

    /// An error that says what should stand at `word`.
    pub(super) fn expected(&self, word: Word<'_>, what: &str) -> ScriptError {
        let mut error = self.error(word, "");
        error.message = if error.word.is_empty() {
            format!("the line ends where {what} should stand")
        } else {
            format!("'{}' stands where {what} should stand", error.word)
        };
        error
    }

    /// The statement must end here.
    pub(super) fn end(&mut self) -> Result<(), ScriptError> {
        if self.is_end() {
            return Ok(());
        }
        let word = self.peek();
        Err(self.expected(word, "the end of the statement (a new line or ';')"))
    }

    /// A number, decimal or hexadecimal after `0x`.
    pub(super) fn number<T: TryFrom<u64>>(&mut self, what: &str) -> Result<T, ScriptError> {
        let word = self.word();
        let number = match word.text.strip_prefix("0x") {
            _ if word.text.len() > LONGEST_NUMBER || word.text.starts_with('+') => None,
            Some(digits) if digits.starts_with('+') => None,
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => word.text.parse().ok(),
        };
        let number = number.ok_or_else(|| self.expected(word, what))?;
        T::try_from(number)
            .map_err(|_| self.error(word, format!("{number} is too large for {what}")))
    }

    /// A size: one word, or a number and its unit.
    pub(super) fn size(&mut self) -> Result<Bytes, ScriptError> {
        let word = self.word();
        if word.text.is_empty() || word.text.len() > LONGEST_NUMBER {
            return Err(self.expected(word, "a size such as 512, 20MiB or 1.5GiB"));
        }
        if word.text.ends_with(|c: char| c.is_ascii_digit()) {
            let unit = self.peek().text;
            let is_unit = unit.len() <= 5 && unit.starts_with(|c: char| c.is_ascii_alphabetic());
            if is_unit && let Ok(size) = format!("{}{unit}", word.text).parse() {
                self.word();
                return Ok(size);
            }
        }
        word.text
            .parse()
            .map_err(|error: crate::base::ParseBytesError| self.error(word, error.to_string()))
    }

    /// A pool: `(a,b)`, or `n` for `(0,n)`.
    pub(super) fn pool(&mut self) -> Result<PoolId, ScriptError> {
        const WHAT: &str = "a pool such as (0,1)";
        if !self.eat('(') {
            return self.number(WHAT).map(|n| PoolId(0, n));
        }
        let first = self.number("the first number of a pool such as (0,1)")?;
        self.punctuation(',', "the ',' of a pool such as (0,1)")?;
        let second = self.number("the second number of a pool such as (0,1)")?;
        self.punctuation(')', "the ')' of a pool such as (0,1)")?;
        Ok(PoolId(first, second))
    }

    /// A pool other than the default one.
    pub(super) fn private_pool(&mut self) -> Result<PoolId, ScriptError> {
        self.skip_space();
        let at = Word { text: "", at: self.at };
        let pool = self.pool()?;
        if pool.is_private() {
            return Ok(pool);
        }
        Err(self.error(at, "(0,0) is the default pool; name a private one, such as (0,1)"))
    }

    /// `c` must stand here.
    pub(super) fn punctuation(&mut self, c: char, what: &str) -> Result<(), ScriptError> {
        if self.eat(c) {
            return Ok(());
        }
        let word = self.peek();
        Err(self.expected(word, what))
    }

    /// What an allocation is for: a word, or text in quotes.
    pub(super) fn label(&mut self) -> Result<String, ScriptError> {
        self.skip_space();
        if self.rest().starts_with('"') {
            return self.text();
        }
        let word = self.word();
        if word.text.is_empty() {
            return Err(self.expected(word, "a label such as parameter"));
        }
        Ok(word.text.to_owned())
    }

    /// Text in quotes with `\"`, `\\`, `\n`, `\r`, `\t`; or else the rest of the statement.
    pub(super) fn text(&mut self) -> Result<String, ScriptError> {
        self.skip_space();
        let start = Word { text: "", at: self.at };
        if !self.eat('"') {
            let rest = self.rest();
            let plain = rest.find([';', '#']).map_or(rest, |end| &rest[..end]);
            self.at += plain.len();
            return Ok(plain.trim_end().to_owned());
        }
        let mut text = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += at + 1;
                    return Ok(text);
                }
                '\\' => match chars.next().map(|(_, escaped)| escaped) {
                    Some('n') => text.push('\n'),
                    Some('r') => text.push('\r'),
                    Some('t') => text.push('\t'),
                    Some(c @ ('"' | '\\')) => text.push(c),
                    _ => {
                        let word = Word { text: "", at: self.at + at };
                        return Err(self.expected(word, r#"one of \" \\ \n \r \t"#));
                    }
                },
                c => text.push(c),
            }
        }
        Err(self.error(start, "the quoted text has no end; add a '\"'"))
    }
}
