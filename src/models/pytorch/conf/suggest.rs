//! The cure for a refused string.

use crate::base::Release;

use super::{
    error::{Cause, Fault},
    keys::{KEYS, Key, KeyInfo, STRANGERS, ValueKind, find, lookup},
    tokens::Tokens,
};

/// What to write instead, if that can be told.
pub(super) fn suggestion(fault: &Fault, tokens: &Tokens, release: Release) -> Option<String> {
    let token = tokens.get(fault.token);
    match fault.cause {
        Cause::UnknownKey => unknown_key(token?, release),
        Cause::OpenList => Some("the list has no end; write its ']'".to_owned()),
        Cause::Backend => {
            Some("the backend is chosen when the process starts and stays; leave it out".to_owned())
        }
        Cause::Separator => separator(fault.token, tokens, release),
        Cause::Value => wrong_value(key_before(fault.token, tokens, release)?, token),
        Cause::Range => range(key_before(fault.token, tokens, release)?.key, release),
    }
}

/// The last known key at or before token `i`.
fn key_before(i: usize, tokens: &Tokens, release: Release) -> Option<&'static KeyInfo> {
    (0..=i.min(tokens.len())).rev().find_map(|at| lookup(tokens.get(at)?, release))
}

fn unknown_key(name: &str, release: Release) -> Option<String> {
    if let Some(row) = find(name) {
        return Some(format!("'{name}' is first known in 2.{}, and this is {release}", row.first));
    }
    if let Some((_, why)) = STRANGERS.iter().find(|(stranger, _)| *stranger == name) {
        return Some((*why).to_owned());
    }
    if matches!(name, "," | ":" | "[" | "]") {
        return Some(format!("a key should stand here, not '{name}'; write key:value,key:value"));
    }
    if let Some((key, value)) = name.split_once('=') {
        let row = nearest(key, release)?;
        let value = if value.is_empty() { row.kind.example() } else { value };
        return Some(format!("a colon comes after the key: '{}:{value}'", row.name));
    }
    let row = nearest(name, release)?;
    let since = if row.known_to(release) {
        String::new()
    } else {
        format!(" (first known in 2.{}, and this is {release})", row.first)
    };
    Some(format!("did you mean '{}'?{since}", row.name))
}

/// The key that looks most like `name`: of this release if one is near, else of any.
fn nearest(name: &str, release: Release) -> Option<&'static KeyInfo> {
    // A key has at most 36 characters; what is much longer resembles none.
    if name.len() > 64 {
        return None;
    }
    let lower = name.to_ascii_lowercase();
    let best = |known: bool| {
        let rows = KEYS.iter().filter(|row| row.known_to(release) == known);
        rows.map(|row| (edit_distance(&lower, row.name), row))
            .min_by_key(|(distance, _)| *distance)
            .filter(|(distance, row)| *distance <= row.name.len() / 3)
    };
    match (best(true), best(false)) {
        (Some((near, _)), Some((nearer, row))) if nearer < near => Some(row),
        (Some((_, row)), _) | (None, Some((_, row))) => Some(row),
        (None, None) => None,
    }
}

/// Levenshtein distance in characters.
///
/// # Complexity
/// Product of the lengths; the caller bounds both.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn separator(at: usize, tokens: &Tokens, release: Release) -> Option<String> {
    let before = at.checked_sub(1).and_then(|i| tokens.get(i));
    if let Some(row) = before.and_then(|name| lookup(name, release)) {
        return Some(format!("write '{}:{}'", row.name, row.kind.example()));
    }
    let Some(here) = tokens.get(at) else {
        return key_before(at, tokens, release)
            .map(|row| {
                format!("the string ends too early; {} wants {}", row.name, row.kind.wanted())
            })
            .or_else(|| Some("the string ends too early; write key:value".to_owned()));
    };
    // Two items without a comma are one word once the space has gone: 64garbage_collection_…
    if let Some(row) = before.and_then(|word| KEYS.iter().find(|row| ends_with_key(word, row.name)))
    {
        return Some(format!("a comma is missing before '{}'", row.name));
    }
    Some(format!("a separator is missing before '{here}'; write key:value,key:value"))
}

fn ends_with_key(word: &str, key: &str) -> bool {
    word.len() > key.len() && word.ends_with(key)
}

fn wrong_value(row: &KeyInfo, token: Option<&str>) -> Option<String> {
    let token = token?;
    let lower = token.to_ascii_lowercase();
    if row.kind == ValueKind::Bool {
        match lower.as_str() {
            "true" | "1" | "yes" | "on" => return Some(format!("write '{}:True'", row.name)),
            "false" | "0" | "no" | "off" => return Some(format!("write '{}:False'", row.name)),
            _ => {}
        }
    }
    if row.kind == ValueKind::Backend {
        for name in ["native", "cudaMallocAsync"] {
            if lower == name.to_ascii_lowercase() {
                return Some(format!("write '{}:{name}'", row.name));
            }
        }
    }
    Some(format!("{} wants {}", row.name, row.kind.wanted()))
}

fn range(key: Key, release: Release) -> Option<String> {
    let shared = release.at_least(10);
    let text = match key {
        Key::MaxSplitSize | Key::MaxNonSplitRounding if release.at_least(11) => {
            "the least is the large segment size, 20 unless large_segment_size_mb says otherwise"
        }
        Key::MaxSplitSize | Key::MaxNonSplitRounding if shared => "the least is 20",
        Key::MaxSplitSize | Key::MaxNonSplitRounding => "the least is 21",
        Key::LargeSegmentSize => "the least is 11",
        Key::GarbageCollectionThreshold => {
            "write a number above 0 and below 1; to switch it off, leave the key out"
        }
        Key::RoundupPower2Divisions => {
            "sizes and divisions are powers of two; to switch rounding off, leave the key out"
        }
        Key::PinnedNumRegisterThreads => "write 1, 2, 4, 8, 16, 32, 64 or 128",
        Key::PerProcessMemoryFraction => "write a number from 0 to 1",
        Key::PinnedReserveSegmentSize => "write 1 or more; to reserve nothing, leave the key out",
        _ => return None,
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("same", "same"), 0);
    }

    fn cure(name: &str, minor: u8) -> Option<String> {
        unknown_key(name, Release::new(minor).unwrap())
    }

    #[test]
    fn a_misspelt_key_finds_the_right_one() {
        assert_eq!(cure("max_split_mb", 6).as_deref(), Some("did you mean 'max_split_size_mb'?"));
        assert_eq!(
            cure("MAX_SPLIT_SIZE_MB", 6).as_deref(),
            Some("did you mean 'max_split_size_mb'?")
        );
        assert_eq!(
            cure("max_split_size_mb=128", 6).as_deref(),
            Some("a colon comes after the key: 'max_split_size_mb:128'")
        );
        assert_eq!(cure("foo", 6), None);
    }

    #[test]
    fn a_key_of_a_later_release_says_so() {
        assert_eq!(
            cure("large_segment_size_mb", 6).as_deref(),
            Some("'large_segment_size_mb' is first known in 2.11, and this is 2.6")
        );
        assert_eq!(
            cure("large_segment_size", 6).as_deref(),
            Some("did you mean 'large_segment_size_mb'? (first known in 2.11, and this is 2.6)")
        );
    }
}
