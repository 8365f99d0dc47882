//! What a replay came to, in a sentence or two.

use serde::Serialize;

use crate::{
    base::Bytes, report::replay::ReplayDocument, sim::AllocError, study::whatif::Replayed,
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
    pub(super) fn of(document: &ReplayDocument, replayed: &Replayed) -> Self {
        let Some((at, asked, error)) = first_failure(replayed) else {
            return Self::survives(document, replayed);
        };
        let what = asked.map_or_else(String::new, |size| format!(" of {size}"));
        let headline = match error {
            AllocError::Failed(_) => format!("Fails at operation {at}"),
            _ => format!("Out of memory at operation {at}: a request{what} is not served"),
        };
        let because = match error {
            AllocError::Oom(oom) => because(oom.requested, oom.allocated, oom.reserved, oom.free),
            AllocError::Refused(_) | AllocError::Failed(_) => error.to_string(),
        };
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

/// Why there was no room. `segment` is what the device was asked for.
fn because(segment: Bytes, allocated: Bytes, reserved: Bytes, free: Bytes) -> String {
    let idle = reserved.saturating_sub(allocated);
    let sum = idle + free;
    if sum >= segment {
        format!(
            "Fragmentation: {segment} are needed in one piece. With everything given back that can be, {idle} of the {reserved} reserved are not allocated and the device has {free} left: {sum} together, but in pieces that are too small or that this request may not use."
        )
    } else {
        format!(
            "Full: {segment} are needed. {allocated} are allocated, and all that is not ({idle} reserved, {free} left on the device) is {sum}: too little even in one piece."
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_do_in_one_piece_is_fragmentation() {
        let said = |free| because(Bytes::mib(26), Bytes::mib(12), Bytes::mib(40), Bytes(free));
        assert!(said(0).starts_with("Fragmentation: 26.00 MiB"));
        let full = because(Bytes::mib(29), Bytes::mib(12), Bytes::mib(40), Bytes(0));
        assert!(full.starts_with("Full: 29.00 MiB"));
    }
}
