//! Sizes as a file writes them: `12`, `"4*width"`, `"(tokens + 1) * 3 * MiB"`.

use std::collections::BTreeMap;

use crate::base::near;

/// Names of numbers.
pub(super) type Names = BTreeMap<String, u64>;

/// Units, which are names that are always there.
const UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// The longest text of a size, and the deepest nest of parentheses.
const LONGEST: usize = 1000;
const DEEPEST: usize = 32;

/// The number that a text means: `+ - * /` and parentheses over numbers, names and units.
///
/// # Errors
/// What is wrong with it, and what to do.
pub(super) fn eval(text: &str, names: &Names) -> Result<u64, String> {
    if text.len() > LONGEST {
        return Err(format!("a size of more than {LONGEST} characters"));
    }
    let mut reader = Reader { rest: text, text, names, depth: 0 };
    let value = reader.sum()?;
    match reader.rest.trim_start() {
        "" => Ok(value),
        rest => Err(reader.wrong(format!("'{rest}' stands where an operator should"))),
    }
}

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
    names: &'a Names,
    depth: usize,
}

impl Reader<'_> {
    fn wrong(&self, what: impl std::fmt::Display) -> String {
        format!("'{}': {what}", self.text)
    }

    fn eat(&mut self, c: char) -> bool {
        let rest = self.rest.trim_start();
        let found = rest.strip_prefix(c);
        self.rest = found.unwrap_or(rest);
        found.is_some()
    }

    fn sum(&mut self) -> Result<u64, String> {
        let mut value = self.product()?;
        loop {
            let found = if self.eat('+') {
                value.checked_add(self.product()?)
            } else if self.eat('-') {
                let other = self.product()?;
                let found = value.checked_sub(other);
                if found.is_none() {
                    return Err(self.wrong(format!("{value} - {other} is below 0")));
                }
                found
            } else {
                return Ok(value);
            };
            value = found.ok_or_else(|| self.wrong("more than 2^64"))?;
        }
    }

    fn product(&mut self) -> Result<u64, String> {
        let mut value = self.one()?;
        loop {
            let found = if self.eat('*') {
                value.checked_mul(self.one()?)
            } else if self.eat('/') {
                let other = self.one()?;
                if other == 0 {
                    return Err(self.wrong("divides by 0"));
                }
                Some(value / other)
            } else {
                return Ok(value);
            };
            value = found.ok_or_else(|| self.wrong("more than 2^64"))?;
        }
    }

    fn one(&mut self) -> Result<u64, String> {
        if self.eat('(') {
            self.depth += 1;
            if self.depth > DEEPEST {
                return Err(self.wrong("too many parentheses"));
            }
            let value = self.sum()?;
            self.depth -= 1;
            return if self.eat(')') { Ok(value) } else { Err(self.wrong("a ')' is missing")) };
        }
        let rest = self.rest.trim_start();
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        self.rest = behind;
        if word.is_empty() {
            return Err(self.wrong("a number or a name should stand here"));
        }
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            let digits = word.replace('_', "");
            return digits
                .parse()
                .map_err(|_| self.wrong(format!("'{word}' is not a whole number")));
        }
        let unit = UNITS.iter().find(|(name, _)| *name == word).map(|(_, value)| *value);
        self.names.get(word).copied().or(unit).ok_or_else(|| {
            let known = self.names.keys().map(String::as_str).chain(UNITS.map(|(name, _)| name));
            match near(word, known) {
                Some(known) => {
                    self.wrong(format!("'{word}' is not in [sizes]; did you mean '{known}'?"))
                }
                None => self.wrong(format!("'{word}' is not in [sizes]")),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_numbers_of_names() {
        let names = Names::from([("width".to_owned(), 64), ("n".to_owned(), 3)]);
        let eval = |text: &str| eval(text, &names);
        assert_eq!(eval("4*width + 2 * (n - 1)"), Ok(260));
        assert_eq!(eval("20*MiB"), Ok(20 << 20));
        assert_eq!(eval("1_000 / n"), Ok(333));
        for (text, error) in [
            ("widht", "'widht': 'widht' is not in [sizes]; did you mean 'width'?"),
            ("n - 4", "'n - 4': 3 - 4 is below 0"),
            ("n n", "'n n': 'n' stands where an operator should"),
            ("4*", "'4*': a number or a name should stand here"),
            ("(n", "'(n': a ')' is missing"),
            ("n/(n-3)", "'n/(n-3)': divides by 0"),
            ("GiB*GiB*GiB", "'GiB*GiB*GiB': more than 2^64"),
        ] {
            assert_eq!(eval(text), Err(error.to_owned()));
        }
        assert!(eval(&"(".repeat(500)).is_err());
    }
}
