//! Where the allocations of a recording were made.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    base::{Addr, AllocId, Id},
    report::page,
    source::snapshot::{Action, Frame, Snapshot, StackId, StrId},
    trace::{BlockState, Op, SegmentLayout, Trace},
};

/// The stacks of a snapshot's allocations, by their names in its program.
pub(super) struct Stacks<'a> {
    snapshot: Option<&'a Snapshot>,
    /// Of the blocks that were live at the start, then of the requests that were served.
    stacks: Vec<Option<StackId>>,
}

impl<'a> Stacks<'a> {
    /// Names are given in the order of the blocks at the start, and then in that of the entries.
    pub(super) fn of(snapshot: Option<&'a Snapshot>, trace: &Trace) -> Self {
        let Some(snapshot) = snapshot else { return Self { snapshot, stacks: Vec::new() } };
        let device = trace.device();
        let segments = snapshot.segments.iter().filter(|segment| segment.device == device);
        let blocks = segments.flat_map(|segment| &segment.blocks);
        let at_end: FxHashMap<Addr, Option<StackId>> =
            blocks.map(|block| (block.address, block.stack)).collect();
        // Of blocks that were freed something else may lie at the address by the end.
        let freed: FxHashSet<AllocId> = trace.ops().iter().filter_map(freed).collect();
        let start = trace.start().segments.iter().flat_map(SegmentLayout::blocks_at);
        let active = start.filter(|(_, block)| block.state != BlockState::Inactive);
        let known = active.zip(trace.start_ids()).map(|((addr, _), id)| {
            if freed.contains(id) { None } else { at_end.get(&addr).copied().flatten() }
        });
        let mut stacks: Vec<Option<StackId>> = known.collect();
        let entries = snapshot.traces.get(device.index()).map_or(&[][..], Vec::as_slice);
        let served = entries.iter().filter(|entry| entry.action == Action::Alloc);
        stacks.extend(served.map(|entry| snapshot.stack_of(entry)));
        Self { snapshot: Some(snapshot), stacks }
    }

    fn stack(&self, id: AllocId) -> Option<StackId> {
        self.stacks.get(id.index()).copied().flatten()
    }
}

impl page::Stacks for Stacks<'_> {
    fn key(&self, id: AllocId) -> Option<u64> {
        Some(self.stack(id)?.index() as u64)
    }

    fn frames(&self, id: AllocId) -> Vec<(String, bool)> {
        let (Some(snapshot), Some(stack)) = (self.snapshot, self.stack(id)) else {
            return Vec::new();
        };
        let text = |id: Option<StrId>| id.map_or("", |id| snapshot.text(id));
        let show = |frame: &Frame| {
            let file = text(frame.filename);
            let shown = match (file, frame.line) {
                ("" | "??", 0) => text(frame.name).to_owned(),
                (file, line) => format!("{file}:{line} {}", text(frame.name)),
            };
            (shown, is_own(file))
        };
        snapshot.stack(stack).map(show).collect()
    }
}

/// Whether a file is the program's own, and no library's.
fn is_own(file: &str) -> bool {
    let is_library = ["/torch/", "site-packages/", "dist-packages/", "<frozen", "/lib/python"];
    file.contains(".py") && !is_library.iter().any(|part| file.contains(part))
}

fn freed(op: &Op) -> Option<AllocId> {
    match op {
        Op::Free(free) => Some(free.id),
        _ => None,
    }
}
