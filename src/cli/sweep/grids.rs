//! The grids of a sweep as they are typed: alternatives in braces, ranges of sizes.

use crate::{base::Bytes, cli::args::capacity};

/// Lines that a grid may have; a larger one is a mistake.
const MOST_LINES: usize = 1_000_000;

/// The lines of `a:{1,2},b:{x,y}`: every choice of one alternative a brace, the last brace first.
/// An alternative may be empty, and commas that part nothing go.
///
/// # Errors
/// When braces do not match, or there are more than a million lines.
pub(super) fn lines(grid: &str) -> Result<Vec<String>, String> {
    let mut lines = vec![String::new()];
    let mut rest = grid;
    while let Some(open) = rest.find(['{', '}']) {
        let tail = &rest[open..];
        if tail.starts_with('}') {
            return Err(format!("'{grid}': a '}}' without a '{{' before it"));
        }
        let Some(close) = tail.find('}') else {
            return Err(format!("'{grid}': a '{{' without a '}}' behind it"));
        };
        let inside = &tail[1..close];
        if inside.contains('{') {
            return Err(format!("'{grid}': braces within braces; write the alternatives in one"));
        }
        let alternatives = alternatives(inside);
        if lines.len().saturating_mul(alternatives.len()) > MOST_LINES {
            return Err(format!("'{grid}': more than {MOST_LINES} lines"));
        }
        let before = &rest[..open];
        lines = lines
            .iter()
            .flat_map(|line| alternatives.iter().map(move |one| format!("{line}{before}{one}")))
            .collect();
        rest = &tail[close + 1..];
    }
    let tidy = |line: &str| {
        let line = format!("{line}{rest}");
        let mut tidy = String::new();
        for c in line.trim().chars() {
            // A list keeps its commas: none of them stands beside another.
            if !(c == ',' && (tidy.is_empty() || tidy.ends_with(','))) {
                tidy.push(c);
            }
        }
        tidy.trim_end_matches(',').to_owned()
    };
    Ok(lines.iter().map(|line| tidy(line)).collect())
}

/// The alternatives of a brace; a list in brackets is one.
fn alternatives(inside: &str) -> Vec<&str> {
    let mut depth = 0;
    let mut from = 0;
    let mut all = Vec::new();
    for (i, c) in inside.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            ',' if depth <= 0 => {
                all.push(&inside[from..i]);
                from = i + 1;
            }
            _ => {}
        }
    }
    all.push(&inside[from..]);
    all
}

/// Capacities as they are typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Capacities(pub(super) Vec<Bytes>);

/// The sizes of `8GiB,12GiB..24GiB/4GiB,A10`.
///
/// # Errors
/// When a part is no size, no card and no range, or a range has no end.
pub(super) fn capacities(grid: &str) -> Result<Capacities, String> {
    let mut all = Vec::new();
    for part in grid.split(',').map(str::trim) {
        let Some((from, rest)) = part.split_once("..") else {
            all.push(capacity(part)?);
            continue;
        };
        let Some((to, step)) = rest.split_once('/') else {
            return Err(format!("'{part}': a range needs a step: write 8GiB..24GiB/2GiB"));
        };
        let (from, to) = (capacity(from.trim())?, capacity(to.trim())?);
        let step: Bytes = step.trim().parse().map_err(|error| format!("{error}"))?;
        if step == Bytes::ZERO {
            return Err(format!("'{part}': a step of 0 never ends"));
        }
        if to < from {
            return Err(format!("'{part}': {to} is below {from}; write the smaller one first"));
        }
        if (to.0 - from.0) / step.0 >= MOST_LINES as u64 {
            return Err(format!("'{part}': more than {MOST_LINES} capacities"));
        }
        let mut size = from;
        while size <= to {
            all.push(size);
            size += step;
        }
    }
    Ok(Capacities(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_of_alternatives_is_a_line() {
        let lines = |grid: &str| lines(grid).unwrap();
        assert_eq!(lines("a:{1,2},b:{x,y}"), ["a:1,b:x", "a:1,b:y", "a:2,b:x", "a:2,b:y"]);
        assert_eq!(lines("{,a:1},{,b:2}"), ["", "b:2", "a:1", "a:1,b:2"]);
        assert_eq!(lines("r:{4,[256:1,>:2]}"), ["r:4", "r:[256:1,>:2]"]);
        assert_eq!(lines("a:1"), ["a:1"]);
    }

    #[test]
    fn braces_that_do_not_match_are_refused() {
        assert!(lines("a:{1,2").unwrap_err().contains("without a '}'"));
        assert!(lines("a:1}").unwrap_err().contains("without a '{'"));
        assert!(lines("a:{1,{2}}").unwrap_err().contains("within braces"));
        let large = "{1,2,3,4,5,6,7,8,9,0}".repeat(7);
        assert!(lines(&large).unwrap_err().contains("more than 1000000 lines"));
    }

    #[test]
    fn sizes_cards_and_ranges_are_capacities() {
        let want = [Bytes::gib(8), Bytes::gib(10), Bytes::gib(12), Bytes(23_609_475_072)];
        assert_eq!(capacities("8GiB..13GiB/2GiB, A10").unwrap().0, want);
        assert!(capacities("8GiB..9GiB").unwrap_err().contains("needs a step"));
        assert!(capacities("8GiB..9GiB/0").unwrap_err().contains("never ends"));
        assert!(capacities("9GiB..8GiB/1").unwrap_err().contains("smaller one first"));
        assert!(capacities("1..9GiB/1").unwrap_err().contains("more than 1000000"));
        assert!(capacities("RTX 12").unwrap_err().contains("no card"));
    }
}
