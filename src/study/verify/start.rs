//! Sizes of blocks that were there before the history and freed within it: what was asked, rounded
//! as the settings say.

use crate::{
    base::{Bytes, Release},
    models::pytorch::{
        conf::AllocConf,
        rounding::{DivisionOne, SMALL_SIZE, round_size},
    },
    trace::{BlockLayout, BlockState, Recorded, Trace},
};

/// The trace with those sizes, where the settings round further than to 512 bytes; `None` if nothing
/// changes.
pub(super) fn rounded(
    trace: &Trace,
    recorded: &Recorded,
    conf: &AllocConf,
    release: Release,
) -> Option<Trace> {
    if recorded.guessed_sizes.is_empty() || conf.roundup_power2_divisions.iter().all(|d| *d == 0) {
        return None;
    }
    let mut start = trace.start().clone();
    let mut live = 0;
    for segment in &mut start.segments {
        // The large pool keeps remainders of 1 MiB or less within the block.
        let kept = if segment.is_small || segment.is_expandable { Bytes::ZERO } else { SMALL_SIZE };
        for i in 0..segment.blocks.len() {
            if segment.blocks[i].state == BlockState::Inactive {
                continue;
            }
            let is_guess = recorded.guessed_sizes.binary_search(&live).is_ok();
            live += 1;
            if is_guess {
                let asked = segment.blocks[i].requested;
                let one = DivisionOne::of(release);
                let size = round_size(asked, &conf.roundup_power2_divisions, one);
                grow(&mut segment.blocks, i, size, kept);
            }
        }
        segment.blocks.retain(|block| block.size > Bytes::ZERO);
    }
    Some(trace.clone().with_start(start))
}

/// The block takes from the free one behind it, all of it if at most `kept` would remain.
fn grow(blocks: &mut [BlockLayout], i: usize, size: Bytes, kept: Bytes) {
    let Some(missing) = size.0.checked_sub(blocks[i].size.0).filter(|missing| *missing > 0) else {
        return;
    };
    let Some(behind) = blocks.get(i + 1).filter(|b| b.state == BlockState::Inactive) else {
        return;
    };
    let Some(rest) = behind.size.0.checked_sub(missing).map(Bytes) else { return };
    let rest = if rest <= kept { Bytes::ZERO } else { rest };
    blocks[i].size += blocks[i + 1].size - rest;
    blocks[i + 1].size = rest;
}
