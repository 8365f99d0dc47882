//! The certificate: one line a file, more where something differs.

use std::fmt::Write;

use serde::Serialize;

use self::colors::{bad, good};
use crate::study::verify::{Difference, LayoutVerdict, Tally, Verdict};

/// All files of one run.
#[derive(Debug, Serialize)]
pub struct VerifyDocument {
    /// One entry a file, in the order given.
    pub files: Vec<FileDocument>,
}

/// One file: `exact` and the tallies as `[alike, recorded]`.
#[derive(Debug, Serialize)]
pub struct FileDocument {
    /// The path as given.
    pub file: String,
    /// Whether everything is alike.
    pub exact: bool,
    /// Why the file could not be compared; everything else is empty then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The release whose rules were applied, such as `2.11`.
    pub torch: Option<String>,
    /// Operations compared.
    pub ops: u64,
    /// Addresses handed out.
    pub addresses: [u64; 2],
    /// `segment_alloc` entries.
    pub segment_allocs: [u64; 2],
    /// `segment_free` entries.
    pub segment_frees: [u64; 2],
    /// `segment_map` entries.
    pub segment_maps: [u64; 2],
    /// `segment_unmap` entries.
    pub segment_unmaps: [u64; 2],
    /// Frees that completed later than they were requested.
    pub pending_frees: [u64; 2],
    /// Out-of-memory errors.
    pub ooms: [u64; 2],
    /// `identical`, `differs`, or `not reached`.
    pub layout: &'static str,
    /// Facts that the file does not hold and that were inferred.
    pub inferred: Vec<String>,
    /// What cannot be known from the file.
    pub notes: Vec<String>,
    /// The first thing that is not alike.
    pub first_difference: Option<DifferenceDocument>,
}

/// The first thing that is not alike.
#[derive(Debug, Serialize)]
pub struct DifferenceDocument {
    /// Where.
    pub place: String,
    /// What was asked there.
    pub asked: String,
    /// What the recording says.
    pub recorded: String,
    /// What the model says.
    pub modelled: String,
    /// The state around it.
    pub around: String,
    /// What may be behind it.
    pub likely: String,
}

const fn pair(tally: Tally) -> [u64; 2] {
    [tally.equal, tally.total]
}

fn layout_word(layout: LayoutVerdict) -> &'static str {
    match layout {
        LayoutVerdict::Identical => "identical",
        LayoutVerdict::Differs => "differs",
        LayoutVerdict::NotReached => "not reached",
    }
}

impl FileDocument {
    /// The certificate of one file.
    pub fn new(file: String, verdict: &Verdict) -> Self {
        Self {
            file,
            exact: verdict.is_exact(),
            error: None,
            torch: Some(verdict.release.to_string()),
            ops: verdict.ops,
            addresses: pair(verdict.addresses),
            segment_allocs: pair(verdict.segment_allocs),
            segment_frees: pair(verdict.segment_frees),
            segment_maps: pair(verdict.segment_maps),
            segment_unmaps: pair(verdict.segment_unmaps),
            pending_frees: pair(verdict.pending_frees),
            ooms: pair(verdict.ooms),
            layout: layout_word(verdict.layout),
            inferred: verdict.inferred.clone(),
            notes: verdict.notes.clone(),
            first_difference: verdict.difference.as_ref().map(DifferenceDocument::new),
        }
    }

    /// A file that could not be compared.
    pub fn unreadable(file: String, error: String) -> Self {
        Self {
            error: Some(error),
            exact: false,
            torch: None,
            ..Self::new(file, &Verdict::default())
        }
    }
}

impl DifferenceDocument {
    fn new(difference: &Difference) -> Self {
        Self {
            place: difference.place.clone(),
            asked: difference.asked.clone(),
            recorded: difference.recorded.clone(),
            modelled: difference.modelled.clone(),
            around: difference.around.clone(),
            likely: difference.likely.clone(),
        }
    }
}

/// The lines that a person reads about one file.
pub fn file_text(document: &FileDocument) -> String {
    let mut text = String::new();
    let line = &mut text;
    if let Some(error) = &document.error {
        let _ = writeln!(line, "{} {}\n  {error}", bad("unreadable"), document.file);
        return text;
    }
    let verdict = if document.exact { good("exact") } else { bad("differs") };
    let _ = write!(line, "{verdict} {}", document.file);
    if let Some(torch) = &document.torch {
        let _ = write!(line, "  torch {torch}");
    }
    let _ = write!(line, "  {} operations", document.ops);
    for (name, [equal, total], always) in [
        ("addresses", document.addresses, true),
        ("segment allocs", document.segment_allocs, true),
        ("frees", document.segment_frees, true),
        ("maps", document.segment_maps, false),
        ("unmaps", document.segment_unmaps, false),
        ("pending frees", document.pending_frees, false),
        ("ooms", document.ooms, false),
    ] {
        if always || total > 0 {
            let _ = write!(line, ", {name} {equal}/{total}");
        }
    }
    let _ = writeln!(line, ", layout {}", document.layout);
    for fact in &document.inferred {
        let _ = writeln!(line, "  inferred: {fact}");
    }
    for note in &document.notes {
        let _ = writeln!(line, "  note: {note}");
    }
    if let Some(difference) = &document.first_difference {
        let _ = writeln!(line, "  first difference: {}", difference.place);
        let _ = writeln!(line, "    asked     {}", difference.asked);
        let _ = writeln!(line, "    recorded  {}", good(&difference.recorded));
        let _ = writeln!(line, "    modelled  {}", bad(&difference.modelled));
        for row in difference.around.lines().take(8) {
            let _ = writeln!(line, "    around    {}", shortened(row));
        }
        let _ = writeln!(line, "    likely    {}", difference.likely);
    }
    text
}

fn shortened(row: &str) -> String {
    const WIDTH: usize = 160;
    match row.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{} …", &row[..end]),
        None => row.to_owned(),
    }
}

/// The last line over several files.
pub fn summary_text(document: &VerifyDocument) -> String {
    let count = |wanted: &dyn Fn(&FileDocument) -> bool| {
        document.files.iter().filter(|file| wanted(file)).count()
    };
    let exact = count(&|file| file.exact);
    let unreadable = count(&|file| file.error.is_some());
    let differ = document.files.len() - exact - unreadable;
    let addresses: u64 = document.files.iter().map(|file| file.addresses[0]).sum();
    let mut text = format!(
        "{exact} of {} files exact; {addresses} addresses re-decided alike",
        document.files.len()
    );
    if differ > 0 {
        let _ = write!(text, "; {differ} differ");
    }
    if unreadable > 0 {
        let _ = write!(text, "; {unreadable} unreadable");
    }
    text
}

/// Colours as plain escape codes; whoever prints takes them out where they do not belong.
mod colors {
    pub(super) fn good(text: &str) -> String {
        format!("\u{1b}[32m{text}\u{1b}[0m")
    }

    pub(super) fn bad(text: &str) -> String {
        format!("\u{1b}[31m{text}\u{1b}[0m")
    }
}
