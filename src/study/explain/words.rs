//! What the usual advice gets wrong, in sentences.

use super::{
    Arithmetic, Scene, Verdict,
    remedies::{Change, Remedy},
};
use crate::{
    base::Bytes, models::pytorch::Asked, sim::Allocator, study::whatif::Terms, trace::BlockState,
};

/// The notes on an explanation.
pub(super) fn notes(
    scene: &Scene,
    terms: &Terms,
    verdict: Verdict,
    sums: &Arithmetic,
    asked: Option<&Asked>,
    remedies: &[Remedy],
) -> Vec<String> {
    let mut notes = Vec::new();
    if verdict == Verdict::Served {
        return notes;
    }
    let mut note = |applies: bool, text: String| {
        if applies {
            notes.push(text);
        }
    };
    let conf = &terms.conf;
    note(
        conf.expandable_segments,
        "expandable_segments is on already: the advice to set it does not apply".into(),
    );
    let settings = |remedy: &&Remedy| matches!(remedy.change, Change::Conf(_));
    let tried = remedies.iter().filter(settings).count();
    let none_helps = tried > 0 && !remedies.iter().filter(settings).any(|remedy| remedy.is_served);
    note(
        none_helps && verdict == Verdict::Full,
        "no setting can help where what is handed out and the request are more than there is: the program needs less memory, or a larger card".into(),
    );
    note(
        none_helps && verdict != Verdict::Full,
        format!("none of the {tried} settings that were replayed serves the request"),
    );
    let emptied = remedies.iter().find(|remedy| remedy.change == Change::EmptyCache);
    note(
        emptied.is_some_and(|remedy| !remedy.is_served),
        "empty_cache() just before it changes nothing: the allocator gave back all it could before it failed".into(),
    );
    note(
        verdict == Verdict::Limit,
        "the limit is a share of the device that was set with set_per_process_memory_fraction or per_process_memory_fraction: raise it; what is free on the device beyond it cannot be had".into(),
    );
    note(
        verdict == Verdict::OtherProcesses,
        format!("other processes hold {}: no setting of this one gives that back", sums.external),
    );
    note(
        verdict == Verdict::PrivatePools,
        "memory of a private pool (CUDA graphs, MemPool) serves nothing else while somebody owns the pool: delete the graphs or pools that are done with".into(),
    );
    note(
        verdict == Verdict::Reserve,
        "raise or unset expandable_segments_reserve: one allocation cannot span two expandable segments".into(),
    );
    note(
        scene.after.device().total() != terms.capacity,
        "the trace sets the capacity itself: no larger card was tried".into(),
    );
    let requested = asked.map_or(Bytes::ZERO, |asked| asked.requested);
    let is_by_rounding = verdict == Verdict::Full
        && requested_bytes(scene) + requested <= sums.available
        && requested > Bytes::ZERO;
    note(
        is_by_rounding,
        "what was asked for would fit: rounding and unsplit remainders make the difference".into(),
    );
    notes.extend(conf.advice(terms.release));
    notes
}

/// What the program asked for, of all that is handed out.
fn requested_bytes(scene: &Scene) -> Bytes {
    let layout = scene.after.layout();
    let blocks = layout.segments.iter().flat_map(|segment| &segment.blocks);
    let live = blocks.filter(|block| block.state == BlockState::ActiveAllocated);
    live.map(|block| block.requested).sum()
}
