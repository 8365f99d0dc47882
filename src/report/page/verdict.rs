//! What a replay came to, in a sentence or two.

use serde::Serialize;

use crate::{
    base::Bytes,
    report::{explain_text, replay::ReplayDocument},
    sim::AllocError,
    study::{explain::Failed, whatif::Replayed},
};

/// The words on top of a page.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    /// Whether everything was served.
    pub(super) survives: bool,
    /// One line.
    headline: String,
    /// With its arithmetic.
    because: String,
    /// When the first request failed: the time before it; `None` if none did.
    pub(super) at: Option<u64>,
    /// What it asked.
    pub(super) requested_bytes: Option<u64>,
}

/// The first request that is not served, of the program or of those that failed in the recording.
fn first_failure(replayed: &Replayed) -> Option<(u64, Option<Bytes>, &AllocError)> {
    let again = replayed.asked_again.iter().find_map(|again| {
        Some((u64::from(again.op.0), Some(again.asked.size), again.error.as_ref()?))
    });
    let own = replayed.outcome.first_failure.as_ref().map(|failure| {
        let at = replayed.first_failure_asked.unwrap_or_default();
        (at, failure.asked.map(|asked| asked.size), &failure.error)
    });
    match (again, own) {
        (Some(again), Some(own)) => Some(if again.0 <= own.0 { again } else { own }),
        (again, own) => again.or(own),
    }
}

impl Verdict {
    /// `why` is what `explain` says of the first request that fails.
    pub(super) fn of(document: &ReplayDocument, replayed: &Replayed, why: Option<&Failed>) -> Self {
        let Some((at, asked, error)) = first_failure(replayed) else {
            return Self::survives(document, replayed);
        };
        let what = asked.map_or_else(String::new, |size| format!(" of {size}"));
        let headline = match error {
            AllocError::Failed(_) => format!("Fails at operation {at}"),
            _ => format!("Out of memory at operation {at}: a request{what} is not served"),
        };
        let because = why.and_then(|why| explain_text::sentence(why.verdict, &why.sums));
        let because = because.unwrap_or_else(|| error.to_string());
        Self {
            survives: false,
            headline,
            because,
            at: Some(at),
            requested_bytes: asked.map(|size| size.0),
        }
    }

    fn survives(document: &ReplayDocument, replayed: &Replayed) -> Self {
        let peak = replayed.peak.reserved.reserved;
        let allocated = replayed.peak.allocated.allocated;
        let served = replayed.asked_again.len();
        let again = match served {
            0 => String::new(),
            1 => ", the request that failed in the recording too".to_owned(),
            n => format!(", the {n} requests that failed in the recording too"),
        };
        let (done, total) = (document.ops, document.ops_total);
        let headline = if done == total {
            format!("Everything is served{again}")
        } else {
            format!("Everything is served up to operation {done} of {total}{again}")
        };
        let because = format!(
            "At most {allocated} are allocated and at most {peak} reserved, {} more.",
            peak.saturating_sub(allocated)
        );
        Self { survives: true, headline, because, at: None, requested_bytes: None }
    }
}
