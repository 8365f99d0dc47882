//! [`near`]: what a misspelt word may have meant.

/// The known word that `word` most probably means: at most three edits away, and less than half of
/// the word.
///
/// # Complexity
/// O(length of the word × length of all known words).
///
/// # Examples
/// ```
/// use fragsim::base::near;
/// assert_eq!(near("layer", ["layers", "width"]), Some("layers"));
/// assert_eq!(near("x", ["layers", "width"]), None);
/// ```
pub fn near<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: String = word.chars().take(64).collect();
    let nearest = known.into_iter().map(|known| (edits(&word, known), known)).min()?;
    // Half of a short word is another word.
    Some(nearest).filter(|(n, known)| *n <= 3 && n * 2 < known.len().max(4)).map(|(_, known)| known)
}

/// Insertions, deletions and substitutions that make `b` of `a`.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.chars().enumerate() {
            let substituted = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.chars().count()]
}
