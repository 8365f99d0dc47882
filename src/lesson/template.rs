//! Places in a text that a replay fills: `{run.reserved@full}`, `{a against b}`, `{a of b}`.

use super::expression::{Facts, Unit, Value, value};

/// A text with its figures in place.
pub type Filled = String;

/// Fills every place; `{{` is a brace. `{a against b}` is how much more `a` is than `b`, `{a of b}` its
/// share, both in percent; `{a times b}` says how often `b` goes into `a`; `{message(run)}` is the text of
/// the first failure.
pub(super) fn fill(text: &str, facts: &Facts<'_>) -> Result<Filled, String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        if let Some(after) = after.strip_prefix('{') {
            filled.push('{');
            rest = after;
            continue;
        }
        let Some((place, after)) = after.split_once('}') else {
            return Err(format!("'{{{after}' has no end; add a '}}'"));
        };
        filled.push_str(&one(place, facts).map_err(|what| format!("{{{place}}}: {what}"))?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn one(place: &str, facts: &Facts<'_>) -> Result<String, String> {
    if let Some(run) = place.strip_prefix("message(").and_then(|rest| rest.strip_suffix(')')) {
        let run = facts.runs.iter().find(|played| played.spec.name == run);
        let run = run.ok_or("there is no such run")?;
        return run.message().ok_or_else(|| "nothing fails in this run".to_owned());
    }
    let both = |sides: (&str, &str)| -> Result<(Value, Value), String> {
        let (left, right) = (value(sides.0, facts)?, value(sides.1, facts)?);
        if left.unit != right.unit || right.number <= 0 {
            return Err(format!("{left} cannot be held against {right}"));
        }
        Ok((left, right))
    };
    if let Some(sides) = place.split_once(" against ") {
        let (left, right) = both(sides)?;
        let percent = percent(left.number - right.number, right.number)?;
        return Ok(if percent > 0 { format!("+{percent} %") } else { format!("{percent} %") });
    }
    if let Some(sides) = place.split_once(" of ") {
        let (left, right) = both(sides)?;
        return Ok(format!("{} %", percent(left.number, right.number)?));
    }
    if let Some(sides) = place.split_once(" times ") {
        let (left, right) = both(sides)?;
        let tenths = rounded(left.number.checked_mul(10), right.number)?;
        return Ok(format!("{}.{}", tenths / 10, tenths % 10));
    }
    let found = value(place, facts)?;
    Ok(if found.unit == Unit::Count { in_words(found.number) } else { found.to_string() })
}

/// Small counts are read more easily as they are; long ones in groups of three.
fn in_words(number: i128) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

fn percent(part: i128, whole: i128) -> Result<i128, String> {
    rounded(part.checked_mul(100), whole)
}

/// To the nearest whole number, halves away from 0.
fn rounded(part: Option<i128>, whole: i128) -> Result<i128, String> {
    let part = part.ok_or("the figures are too large to reckon with")?;
    let half = whole / 2;
    Ok(if part < 0 { (part - half) / whole } else { (part + half) / whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled() {
        let fill = |text| fill(text, &Facts { runs: &[] });
        assert_eq!(
            fill("{rule.large_buffer}, {{a}, {rule.small_size of rule.small_buffer}").as_deref(),
            Ok("20.00 MiB, {a}, 50 %")
        );
        assert_eq!(fill("{1MiB against 3MiB}, {4 against 3}").as_deref(), Ok("-67 %, +33 %"));
        assert_eq!(fill("{7MiB times 2MiB} {1234567}").as_deref(), Ok("3.5 1,234,567"));
        assert!(fill("{1MiB").unwrap_err().contains("no end"));
        assert!(fill("{1 of 0}").unwrap_err().contains("cannot be held against"));
    }
}
