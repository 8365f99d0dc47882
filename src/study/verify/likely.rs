//! What may be behind a difference, in one sentence.

use super::lockstep::Terms;
use crate::{
    base::Release,
    trace::{Action, Recorded, Trace},
};

/// The likeliest cause that the recording itself points to.
pub(super) fn cause(
    trace: &Trace,
    recorded: &Recorded,
    terms: &Terms,
    exact_on: Option<Release>,
) -> String {
    if let Some(release) = exact_on {
        return format!("another release: with the rules of {release} everything is exact");
    }
    let collects = terms.conf.garbage_collection_threshold > 0.0;
    if collects && terms.capacity.is_none() {
        return "garbage collection: what it does depends on the device's capacity and the memory fraction, which the file does not hold; give --capacity".into();
    }
    if recorded.events.iter().any(|event| event.action == Action::Oom) && terms.capacity.is_none() {
        return "a memory limit: set_per_process_memory_fraction is not recorded; or settings that changed during the history".into();
    }
    if !trace.start().segments.is_empty() {
        return "the state before the history began, which is not fully known; or settings that changed during it".into();
    }
    if !recorded.vanished.is_empty() {
        return "private pools: the file does not say which pool some segments belonged to".into();
    }
    "settings that changed during the history (the file holds those at its end), another release, or more than one thread".into()
}
