//! What a lesson may ask of its replays: `run.reserved@full - run.allocated@full > 16MiB`.
//!
//! ```text
//!  check   = sum [ ("==" | "!=" | "<" | "<=" | ">" | ">=") sum ]      alone: it is not 0
//!  sum     = product { ("+" | "-") product }
//!  product = atom { "*" atom }
//!  atom    = SIZE | NUMBER | "(" sum ")" | HEAD "." FIGURE [ "(" WHAT ")" ] [ "@" MARK ]
//! ```
//! Whole numbers alone: bytes, counts and addresses, which do not mix.

use std::{cmp::Ordering, fmt};

use super::{Played, real};
use crate::{
    base::{Bytes, Release},
    models::pytorch::{
        conf::AllocConf,
        rounding::{MIN_BLOCK_SIZE, MIN_LARGE_ALLOC, ROUND_LARGE, SMALL_BUFFER, SMALL_SIZE},
    },
};

/// What a number is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    Count,
    Address,
}

/// A figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) number: i128,
    pub(super) unit: Unit,
}

impl Value {
    pub(super) fn bytes(bytes: Bytes) -> Self {
        Self { number: i128::from(bytes.0), unit: Unit::Bytes }
    }

    pub(super) fn count(number: impl Into<i128>) -> Self {
        Self { number: number.into(), unit: Unit::Count }
    }

    pub(super) fn address(number: u64) -> Self {
        Self { number: i128::from(number), unit: Unit::Address }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = u64::try_from(self.number.unsigned_abs()).unwrap_or(u64::MAX);
        let sign = if self.number < 0 { "-" } else { "" };
        match self.unit {
            Unit::Bytes => write!(f, "{sign}{}", Bytes(size)),
            Unit::Count => write!(f, "{}", self.number),
            Unit::Address => write!(f, "{size:#x}"),
        }
    }
}

/// A figure by its name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'a> {
    pub(super) head: &'a str,
    pub(super) figure: &'a str,
    pub(super) what: Option<&'a str>,
    pub(super) mark: Option<&'a str>,
}

/// Where figures come from.
pub(super) struct Facts<'a> {
    pub(super) runs: &'a [Played],
}

impl Facts<'_> {
    fn value(&self, name: Name<'_>) -> Result<Value, String> {
        match name.head {
            "rule" => rule(name.figure),
            "real" => real::value(name.figure, name.what.unwrap_or_default()),
            head => match self.runs.iter().find(|run| run.spec.name == head) {
                Some(run) => run.value(name),
                None => {
                    let known: Vec<&str> =
                        self.runs.iter().map(|run| run.spec.name.as_str()).collect();
                    Err(format!(
                        "there is no run '{head}'; there are {}, rule and real",
                        known.join(", ")
                    ))
                }
            },
        }
    }
}

/// The sizes that are built into the allocator.
fn rule(name: &str) -> Result<Value, String> {
    let size = match name {
        "min_block" => MIN_BLOCK_SIZE,
        "small_size" => SMALL_SIZE,
        "small_buffer" => SMALL_BUFFER,
        "large_buffer" => AllocConf::new(Release::NEWEST).large_segment_size,
        "min_large_alloc" => MIN_LARGE_ALLOC,
        "round_large" => ROUND_LARGE,
        // The default of `max_non_split_rounding_mb`.
        "slack" => AllocConf::new(Release::NEWEST).max_non_split_rounding_size,
        _ => {
            return Err(format!(
                "there is no rule '{name}'; there are min_block, small_size, small_buffer, large_buffer, min_large_alloc, round_large, slack"
            ));
        }
    };
    Ok(Value::bytes(size))
}

/// A figure or sum of figures.
pub(super) fn value(text: &str, facts: &Facts<'_>) -> Result<Value, String> {
    let mut parser = Parser { rest: text, facts };
    let value = parser.sum(0)?;
    parser.end()?;
    Ok(value)
}

/// Whether a check holds; if not, what its sides are.
pub(super) fn check(text: &str, facts: &Facts<'_>) -> Result<Option<String>, String> {
    let in_words = |what: String| format!("'{text}': {what}");
    let mut parser = Parser { rest: text, facts };
    let left = parser.sum(0).map_err(in_words)?;
    let Some(relation) = parser.relation() else {
        parser.end().map_err(in_words)?;
        return Ok((left.number == 0).then(|| format!("'{text}' is {left}")));
    };
    let right = parser.sum(0).map_err(in_words)?;
    parser.end().map_err(in_words)?;
    if left.unit != right.unit {
        return Err(in_words(format!("{left} and {right} cannot be compared")));
    }
    let holds = relation.holds(left.number.cmp(&right.number));
    Ok((!holds).then(|| format!("'{text}': {left} on the left, {right} on the right")))
}

#[derive(Clone, Copy)]
enum Relation {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

impl Relation {
    /// The longer ones first.
    const ALL: [(&'static str, Self); 6] = [
        ("==", Self::Equal),
        ("!=", Self::Unequal),
        ("<=", Self::AtMost),
        (">=", Self::AtLeast),
        ("<", Self::Less),
        (">", Self::More),
    ];

    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::Unequal => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::More => order.is_gt(),
            Self::AtLeast => order.is_ge(),
        }
    }
}

/// Brackets within brackets; no lesson needs more.
const MAX_DEPTH: u32 = 16;
const TOO_LARGE: &str = "the figures are too large to reckon with";

struct Parser<'a, 'f> {
    rest: &'a str,
    facts: &'f Facts<'f>,
}

impl<'a> Parser<'a, '_> {
    fn eat(&mut self, token: &str) -> bool {
        let rest = self.rest.trim_start();
        match rest.strip_prefix(token) {
            Some(after) => {
                self.rest = after;
                true
            }
            None => false,
        }
    }

    fn end(&self) -> Result<(), String> {
        match self.rest.trim() {
            "" => Ok(()),
            rest => Err(format!("'{rest}' is not understood")),
        }
    }

    fn relation(&mut self) -> Option<Relation> {
        Relation::ALL.into_iter().find(|(token, _)| self.eat(token)).map(|(_, relation)| relation)
    }

    fn sum(&mut self, depth: u32) -> Result<Value, String> {
        let mut sum = self.product(depth)?;
        loop {
            let sign = match () {
                () if self.eat("+") => 1,
                () if self.eat("-") => -1,
                () => return Ok(sum),
            };
            let next = self.product(depth)?;
            sum.unit = match (sum.unit, next.unit) {
                (a, b) if a == b && (a != Unit::Address || sign < 0) => {
                    if a == Unit::Address {
                        Unit::Bytes
                    } else {
                        a
                    }
                }
                (Unit::Address, Unit::Bytes) => Unit::Address,
                _ => return Err(format!("{sum} and {next} cannot be added or taken away")),
            };
            let next = next.number.checked_mul(sign).ok_or(TOO_LARGE)?;
            sum.number = sum.number.checked_add(next).ok_or(TOO_LARGE)?;
        }
    }

    fn product(&mut self, depth: u32) -> Result<Value, String> {
        let mut product = self.atom(depth)?;
        while self.eat("*") {
            let next = self.atom(depth)?;
            product.unit = match (product.unit, next.unit) {
                (unit, Unit::Count) | (Unit::Count, unit) => unit,
                _ => return Err(format!("{product} and {next} cannot be multiplied")),
            };
            product.number = product.number.checked_mul(next.number).ok_or(TOO_LARGE)?;
        }
        Ok(product)
    }

    fn atom(&mut self, depth: u32) -> Result<Value, String> {
        if self.eat("(") {
            if depth == MAX_DEPTH {
                return Err("too many brackets".into());
            }
            let value = self.sum(depth + 1)?;
            return if self.eat(")") { Ok(value) } else { Err("a ')' is missing".into()) };
        }
        let word = self.word();
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            if let Ok(number) = word.parse::<u64>() {
                return Ok(Value::count(number));
            }
            let size: Bytes = word.parse().map_err(|error| format!("{error}"))?;
            return Ok(Value::bytes(size));
        }
        let Some((head, figure)) = word.split_once('.') else {
            return Err(format!("'{word}' is no figure; write one such as run.reserved"));
        };
        let what = self.rest.strip_prefix('(').and_then(|rest| rest.split_once(')'));
        let what = what.map(|(what, rest)| {
            self.rest = rest;
            what.trim()
        });
        let mark = self.rest.strip_prefix('@').is_some().then(|| {
            self.rest = &self.rest[1..];
            self.word()
        });
        self.facts.value(Name { head, figure, what, mark })
    }

    /// Letters, digits, `_` and `.`.
    fn word(&mut self) -> &'a str {
        let rest = self.rest.trim_start();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        self.rest = &rest[end..];
        &rest[..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(text: &str) -> Result<Option<String>, String> {
        check(text, &Facts { runs: &[] })
    }

    #[test]
    fn figures_add_and_compare() {
        assert_eq!(says("rule.small_buffer * 10 == rule.large_buffer"), Ok(None));
        assert_eq!(
            says("2MiB + 512 * 1 < 3"),
            Err("'2MiB + 512 * 1 < 3': 2.00 MiB and 512 cannot be added or taken away".into())
        );
        assert_eq!(says("(1 + 2) * 3 == 9"), Ok(None));
        assert_eq!(says("1.5GiB > 1GiB"), Ok(None));
        assert_eq!(
            says("rule.min_block >= 1KiB"),
            Ok(Some(
                "'rule.min_block >= 1KiB': 512 bytes on the left, 1024 bytes on the right".into()
            ))
        );
        assert_eq!(says("1 - 1"), Ok(Some("'1 - 1' is 0".into())));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, part) in [
            ("nobody.reserved > 1", "there is no run 'nobody'"),
            ("rule.x", "there is no rule 'x'"),
            ("1 +", "'' is no figure"),
            ("1 2", "'2' is not understood"),
            ("1MiB == 1", "cannot be compared"),
            ("((((((((((((((((((1", "too many brackets"),
            ("99999999999999999999TiB > 1", "'99999999999999999999TiB > 1': "),
        ] {
            let error = says(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
