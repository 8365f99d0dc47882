//! Floor 4: lessons. Each is a short text, a small program and statements that its replay must bear
//! out.
//!
//! ```text
//!  traces/lessons/NAME.md ───────► Lesson ─── text with places to fill, claims with checks
//!  traces/lessons/NAME.fragsim ──► Played ─── one replay a run: steps, levels, lives
//!                                    └──────► every figure that the text shows
//! ```
//! A text holds no figure of its own: `{run.reserved}` is computed by the replay, `{real.reserved(…)}`
//! is a recorded run's, and a claim without a check is refused.

mod expression;
mod made;
mod play;
mod read;
mod real;
mod scene;
mod shelf;
mod template;
mod told;

pub use self::{
    made::Made,
    play::{Beside, Levels, Played, Refusal, Source, Step},
    read::{Claim, Lesson, LessonError, MAX_OPS, MadeSpec, Popular, RunSpec, Thread},
    real::RealRun,
    scene::{Part, PartKind, Scene, SegmentShown, label},
    shelf::{SHELF, ShelfEntry, find},
    template::Filled,
    told::Fact,
};

use self::{expression::Facts, template::fill};

/// A lesson whose runs were replayed.
#[derive(Debug)]
pub struct Told {
    /// The lesson.
    pub lesson: Lesson,
    /// Its runs, in their order; never empty.
    pub runs: Vec<Played>,
    /// The text, a paragraph each.
    pub text: Vec<String>,
    /// What to look at.
    pub look: Vec<String>,
    /// The claims and whether they hold.
    pub claims: Vec<ToldClaim>,
    /// The popular claim, if the lesson is about one.
    pub popular: Option<ToldPopular>,
}

/// A claim with its figures, and what its checks came to.
#[derive(Debug)]
pub struct ToldClaim {
    /// The sentence.
    pub says: String,
    /// Each check as it is written, and `None` if it holds; otherwise both sides of it.
    pub checks: Vec<(String, Option<String>)>,
}

impl ToldClaim {
    /// Whether every check holds.
    pub fn holds(&self) -> bool {
        self.checks.iter().all(|(_, wrong)| wrong.is_none())
    }
}

/// A popular claim beside what was found.
#[derive(Debug)]
pub struct ToldPopular {
    /// What is said.
    pub claim: String,
    /// What the recorded runs of real programs showed.
    pub real: String,
    /// When and why it fails.
    pub fails: String,
    /// In a few words.
    pub verdict: String,
    /// The same programs made by formulas, beside the recorded runs.
    pub made: Vec<Made>,
}

impl Told {
    /// Replays a lesson and fills its text.
    ///
    /// # Errors
    /// Where a placeholder or a check names something that is not there.
    pub fn new(lesson: Lesson) -> Result<Self, LessonError> {
        let runs: Vec<Played> = lesson.runs.iter().map(Played::new).collect();
        let facts = Facts { runs: &runs };
        let filled = |place: &str, text: &str| {
            fill(text, &facts).map_err(|what| LessonError::new(&lesson.name, place, what))
        };
        let all = |place: &str, texts: &[String]| -> Result<Vec<String>, LessonError> {
            texts.iter().map(|text| filled(place, text)).collect()
        };
        let mut claims = Vec::new();
        for claim in &lesson.claims {
            let says = filled("claim", &claim.says)?;
            let check = |check: &String| {
                let wrong = expression::check(check, &facts)
                    .map_err(|what| LessonError::new(&lesson.name, "check", what))?;
                Ok((check.clone(), wrong))
            };
            let checks = claim.check.iter().map(check).collect::<Result<_, LessonError>>()?;
            claims.push(ToldClaim { says, checks });
        }
        let popular = match &lesson.popular {
            Some(popular) => Some(ToldPopular {
                claim: popular.claim.clone(),
                real: filled("real", &popular.real)?,
                fails: filled("fails", &popular.fails)?,
                verdict: popular.verdict.clone(),
                made: popular
                    .made
                    .iter()
                    .map(|made| Made::new(&made.synth, &made.real))
                    .collect::<Result<_, _>>()
                    .map_err(|what| LessonError::new(&lesson.name, "made", what))?,
            }),
            None => None,
        };
        let text = all("text", &lesson.text)?;
        let look = all("look", &lesson.look)?;
        Ok(Self { text, look, claims, popular, runs, lesson })
    }
}
