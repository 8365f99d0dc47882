//! Cuts a settings string into tokens: `,`, `:`, `[`, `]` by themselves and the runs between them.

use crate::base::Release;

/// One token and where it begins.
#[derive(Clone, Debug)]
struct Token {
    text: String,
    /// Byte offset of its first character in the string.
    at: usize,
}

/// The tokens of one string.
#[derive(Clone, Debug)]
pub(super) struct Tokens {
    tokens: Vec<Token>,
    /// Length of the string in bytes: where a missing token would be.
    end: usize,
}

impl Tokens {
    /// White space vanishes wherever it stands, even inside a word: only the space character up to
    /// 2.9, every character of C's `isspace` from 2.10.
    pub(super) fn new(text: &str, release: Release) -> Self {
        let dropped = |c: char| if release.at_least(10) { is_c_space(c) } else { c == ' ' };
        let mut tokens = Vec::new();
        let mut word: Option<Token> = None;
        for (at, c) in text.char_indices() {
            if matches!(c, ',' | ':' | '[' | ']') {
                tokens.extend(word.take());
                tokens.push(Token { text: c.to_string(), at });
            } else if !dropped(c) {
                word.get_or_insert_with(|| Token { text: String::new(), at }).text.push(c);
            }
        }
        tokens.extend(word);
        Self { tokens, end: text.len() }
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn get(&self, i: usize) -> Option<&str> {
        self.tokens.get(i).map(|token| token.text.as_str())
    }

    pub(super) fn is(&self, i: usize, text: &str) -> bool {
        self.get(i) == Some(text)
    }

    /// Where token `i` begins; the end of the string if there is none.
    pub(super) fn offset(&self, i: usize) -> usize {
        self.tokens.get(i).map_or(self.end, |token| token.at)
    }
}

/// `isspace` of the C locale.
pub(super) fn is_c_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, minor: u8, want: &[&str]) {
        let tokens = Tokens::new(text, Release::new(minor).unwrap());
        let got: Vec<_> = (0..tokens.len()).filter_map(|i| tokens.get(i)).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn space_inside_a_word_vanishes() {
        check(" expandable_ segments : Tr ue", 1, &["expandable_segments", ":", "True"]);
    }

    #[test]
    fn a_tab_stays_in_the_word_until_2_9() {
        check("a\tb:1", 9, &["a\tb", ":", "1"]);
        check("a\tb:1", 10, &["ab", ":", "1"]);
    }

    #[test]
    fn a_token_knows_its_byte() {
        let tokens = Tokens::new("é : [1", Release::NEWEST);
        assert_eq!((0..6).map(|i| tokens.offset(i)).collect::<Vec<_>>(), [0, 3, 5, 6, 7, 7]);
    }
}
