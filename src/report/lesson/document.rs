//! A lesson for programs, and the rows of its page.

use serde::Serialize;

use super::{strip::Labels, words::sentences};
use crate::lesson::{Levels, Made, PartKind, Played, SHELF, Told};

/// All lessons.
#[derive(Debug, Serialize)]
pub struct ListDocument {
    /// Each in a line.
    pub lessons: Vec<ListRow>,
}

/// A lesson in a list.
#[derive(Debug, Serialize)]
pub struct ListRow {
    /// From 1.
    pub number: usize,
    /// By which it is called.
    pub name: &'static str,
    /// One line.
    pub title: String,
    /// The settings that it is about, one a run, and the programs.
    pub runs: Vec<String>,
    /// The popular claim that it is about.
    pub popular: Option<String>,
}

impl ListDocument {
    /// Those that ship.
    pub fn new() -> Self {
        let row = |(at, entry): (usize, &crate::lesson::ShelfEntry)| {
            let lesson = entry.read().ok()?;
            Some(ListRow {
                number: at + 1,
                name: entry.name,
                title: lesson.title,
                runs: lesson.runs.into_iter().map(|run| run.name).collect(),
                popular: lesson.popular.map(|popular| popular.claim),
            })
        };
        Self { lessons: SHELF.iter().enumerate().filter_map(row).collect() }
    }
}

impl Default for ListDocument {
    fn default() -> Self {
        Self::new()
    }
}

/// A lesson and what its replays came to.
#[derive(Debug, Serialize)]
pub struct LessonDocument {
    /// The version of this program.
    pub fragsim: &'static str,
    /// By which it is called.
    pub name: String,
    /// One line.
    pub title: String,
    /// Paragraphs.
    pub text: Vec<String>,
    /// What to look at.
    pub look: Vec<String>,
    /// Whether every claim holds.
    pub holds: bool,
    /// What it claims.
    pub claims: Vec<ClaimDocument>,
    /// A popular claim beside what was found.
    pub popular: Option<PopularDocument>,
    /// The runs.
    pub runs: Vec<RunDocument>,
    /// Where it was met.
    pub threads: Vec<ThreadDocument>,
}

/// A claim.
#[derive(Debug, Serialize)]
pub struct ClaimDocument {
    /// The sentence.
    pub says: String,
    /// Whether its checks hold.
    pub holds: bool,
    /// The checks.
    pub checks: Vec<String>,
}

/// A popular claim.
#[derive(Debug, Serialize)]
pub struct PopularDocument {
    /// As guides say it.
    pub claim: String,
    /// What real runs showed.
    pub real: String,
    /// When and why it fails.
    pub fails: String,
    /// In a few words.
    pub verdict: String,
    /// The same programs made by formulas.
    pub made: Vec<MadeDocument>,
}

/// A program made by formulas, beside the recorded run that it answers to.
#[derive(Debug, Serialize)]
pub struct MadeDocument {
    /// What makes it.
    pub command: String,
    /// The recorded run.
    pub real_run: String,
    /// Peak of what was handed out, in bytes.
    pub peak_allocated: u64,
    /// The same of the recorded run.
    pub real_peak_allocated: u64,
}

/// A thread.
#[derive(Debug, Serialize)]
pub struct ThreadDocument {
    /// Its name.
    pub at: String,
    /// Its address.
    pub url: String,
    /// What is to be found there.
    pub says: String,
}

/// A run.
#[derive(Debug, Serialize)]
pub struct RunDocument {
    /// By which its figures are called.
    pub name: String,
    /// What it is.
    pub about: String,
    /// The program.
    pub trace: String,
    /// The settings.
    pub conf: String,
    /// Whose rules.
    pub torch: String,
    /// Capacity of the device in bytes.
    pub capacity: u64,
    /// Whether every request was served.
    pub completes: bool,
    /// Operations that the program has.
    pub ops_total: usize,
    /// PyTorch's message, if a request failed.
    pub message: Option<String>,
    /// The counters before the first operation.
    pub before: Levels,
    /// The operations.
    pub steps: Vec<StepDocument>,
    /// Moments with a name: steps done by then.
    pub marks: std::collections::BTreeMap<String, usize>,
}

/// An operation.
#[derive(Debug, Serialize)]
pub struct StepDocument {
    /// Its line in the trace, from 1.
    pub line: usize,
    /// As it is written.
    pub op: String,
    /// The comment beside it.
    pub note: String,
    /// The comment above it.
    pub chapter: String,
    /// What the allocator did.
    pub did: Vec<String>,
    /// Whether it failed.
    pub failed: bool,
    /// The counters afterwards.
    #[serde(flatten)]
    pub after: Levels,
}

impl MadeDocument {
    fn new(made: &Made) -> Self {
        Self {
            command: made.command.clone(),
            real_run: made.name.clone(),
            peak_allocated: made.allocated.0,
            real_peak_allocated: made.real.0,
        }
    }
}

impl LessonDocument {
    /// Of a lesson that was told.
    pub fn new(told: &Told) -> Self {
        let claims: Vec<ClaimDocument> = told
            .claims
            .iter()
            .map(|claim| ClaimDocument {
                says: claim.says.clone(),
                holds: claim.holds(),
                checks: claim.checks.iter().map(|(check, _)| check.clone()).collect(),
            })
            .collect();
        Self {
            fragsim: env!("CARGO_PKG_VERSION"),
            name: told.lesson.name.clone(),
            title: told.lesson.title.clone(),
            text: told.text.clone(),
            look: told.look.clone(),
            holds: claims.iter().all(|claim| claim.holds),
            claims,
            popular: told.popular.as_ref().map(|popular| PopularDocument {
                claim: popular.claim.clone(),
                real: popular.real.clone(),
                fails: popular.fails.clone(),
                verdict: popular.verdict.clone(),
                made: popular.made.iter().map(MadeDocument::new).collect(),
            }),
            runs: told.runs.iter().map(RunDocument::new).collect(),
            threads: told
                .lesson
                .threads
                .iter()
                .map(|thread| ThreadDocument {
                    at: thread.at.clone(),
                    url: thread.url().into_owned(),
                    says: thread.says.clone(),
                })
                .collect(),
        }
    }
}

impl RunDocument {
    fn new(played: &Played) -> Self {
        let spec = &played.spec;
        let steps = played.steps.iter().map(|step| StepDocument {
            line: step.line + 1,
            op: step.text.clone(),
            note: step.note.clone(),
            chapter: step.chapter.clone(),
            did: sentences(step, played),
            failed: step.error.is_some(),
            after: step.after,
        });
        Self {
            name: spec.name.clone(),
            about: spec.about.clone(),
            trace: spec.source.name.clone(),
            conf: spec.conf_text.clone(),
            torch: spec.torch.to_string(),
            capacity: spec.capacity.0,
            completes: played.completes(),
            ops_total: played.ops_total,
            message: played.message(),
            before: played.before,
            steps: steps.collect(),
            marks: played.marks.clone(),
        }
    }
}

/// What a page draws: of each moment of each run the segments with their parts.
#[derive(Debug, Serialize)]
pub(super) struct PageDocument {
    pub(super) lesson: LessonDocument,
    /// The text of each trace.
    pub(super) traces: std::collections::BTreeMap<String, String>,
    pub(super) rows: Vec<RunRows>,
}

#[derive(Debug, Serialize)]
pub(super) struct RunRows {
    labels: Vec<String>,
    /// The largest segment of each half that is ever there: small, large.
    largest: [u64; 2],
    /// One a moment, the first before any operation.
    scenes: Vec<Vec<SegmentRow>>,
}

#[derive(Debug, Serialize)]
struct SegmentRow {
    addr: u64,
    size: u64,
    reserved: u64,
    small: bool,
    expandable: bool,
    stream: u64,
    pool: Option<String>,
    /// Kind (`live`, `pending`, `free`, `unmapped`), size, name, number of the label.
    parts: Vec<(&'static str, u64, String, usize)>,
}

impl RunRows {
    pub(super) fn new(played: &Played) -> Self {
        let labels = Labels::of(played);
        let mut largest = [0; 2];
        let mut scenes = Vec::new();
        for done in 0..=played.steps.len() {
            let mut rows = Vec::new();
            for segment in played.scene(done).segments {
                let half = &mut largest[usize::from(!segment.place.is_small)];
                *half = segment.span.size.0.max(*half);
                let parts = segment.parts.iter().map(|part| {
                    let kind = match part.kind {
                        PartKind::Live => "live",
                        PartKind::Pending => "pending",
                        PartKind::Free => "free",
                        PartKind::Unmapped => "unmapped",
                    };
                    (kind, part.span.size.0, part.name.clone(), labels.number(&part.name))
                });
                rows.push(SegmentRow {
                    addr: segment.span.start.0,
                    size: segment.span.size.0,
                    reserved: segment.reserved().0,
                    small: segment.place.is_small,
                    expandable: segment.place.is_expandable,
                    stream: segment.place.stream.0,
                    pool: segment.place.pool.is_private().then(|| segment.place.pool.to_string()),
                    parts: parts.collect(),
                });
            }
            scenes.push(rows);
        }
        Self { labels: labels.names, largest, scenes }
    }
}
