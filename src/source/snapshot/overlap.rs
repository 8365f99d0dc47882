//! Blocks that are live at the same time must not overlap.

use std::collections::BTreeMap;

use super::{
    ranges::Misfit,
    raw::{Action, Entry},
    start::StartLive,
};
use crate::base::{Addr, Bytes, Span};

/// The first request that was served with memory that another block had; the sizes are those
/// requested, so that nothing has to be assumed. The same address twice is not looked at here.
pub(super) fn first_overlap(entries: &[Entry], start: &StartLive) -> Option<(usize, Misfit)> {
    let mut live: BTreeMap<Addr, Bytes> = start.requested().collect();
    for (at, entry) in entries.iter().enumerate() {
        match entry.action {
            Action::Alloc => {
                let span = Span::new(entry.addr, entry.size);
                let below = live.range(..span.end()).next_back();
                if let Some((&addr, &size)) = below
                    && addr != span.start
                    && Span::new(addr, size).overlaps(span)
                {
                    let text = format!("{span} overlaps the block at {addr}, which is not freed");
                    return Some((at, Misfit(text)));
                }
                live.insert(entry.addr, entry.size);
            }
            Action::FreeCompleted => {
                live.remove(&entry.addr);
            }
            _ => {}
        }
    }
    None
}
