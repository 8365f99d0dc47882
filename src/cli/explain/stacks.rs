//! Where the allocations of a recording were made.

use rustc_hash::FxHashSet;

use crate::{
    base::{AllocId, DeviceIndex, Id},
    source::snapshot::{Action, Frame, Snapshot, StackId, StrId},
    trace::{BlockState, Op, SegmentLayout, Trace},
};

/// The stacks of a snapshot's allocations, by their names in its program.
pub(super) struct Stacks<'a> {
    snapshot: Option<&'a Snapshot>,
    /// Of the blocks that were live at the start and still are, then of the requests that were served.
    stacks: Vec<Option<StackId>>,
    /// Of the requests that failed.
    failed: Vec<Option<StackId>>,
}

impl<'a> Stacks<'a> {
    /// Names are given in the order of the blocks at the start, and then in that of the entries.
    pub(super) fn of(snapshot: Option<&'a Snapshot>, trace: &Trace) -> Self {
        let Some(snapshot) = snapshot else {
            return Self { snapshot, stacks: Vec::new(), failed: Vec::new() };
        };
        let device = trace.device();
        let blocks = trace.start().segments.iter().flat_map(SegmentLayout::blocks_at);
        let active = blocks.filter(|(_, block)| block.state != BlockState::Inactive);
        // Of blocks that were freed something else may lie at the address by the end.
        let freed: FxHashSet<AllocId> = trace.ops().iter().filter_map(freed).collect();
        let known = active.zip(trace.start_ids()).map(|((addr, _), id)| {
            if freed.contains(id) { None } else { stack_at(snapshot, device, addr) }
        });
        let mut stacks: Vec<Option<StackId>> = known.collect();
        let entries = snapshot.traces.get(device.index()).map_or(&[][..], Vec::as_slice);
        let served = entries.iter().filter(|entry| entry.action == Action::Alloc);
        stacks.extend(served.map(|entry| snapshot.stack_of(entry)));
        let failed = entries.iter().filter(|entry| entry.action == Action::Oom);
        let failed = failed.map(|entry| snapshot.stack_of(entry)).collect();
        Self { snapshot: Some(snapshot), stacks, failed }
    }

    /// Where an allocation was made, innermost first: the lines of the program itself before those of
    /// libraries. Empty if nothing tells.
    pub(super) fn frames(&self, id: AllocId) -> Vec<String> {
        self.shown(self.stacks.get(id.index()).copied().flatten())
    }

    /// Where a request was made that failed when it was recorded; counted from 0.
    pub(super) fn frames_of_failed(&self, nth: usize) -> Vec<String> {
        self.shown(self.failed.get(nth).copied().flatten())
    }

    fn shown(&self, stack: Option<StackId>) -> Vec<String> {
        let (Some(snapshot), Some(stack)) = (self.snapshot, stack) else { return Vec::new() };
        let text = |id: Option<StrId>| id.map_or("", |id| snapshot.text(id));
        let show =
            |frame: &Frame| format!("{}:{} {}", text(frame.filename), frame.line, text(frame.name));
        let is_own = |frame: &&Frame| {
            let file = text(frame.filename);
            let is_library = ["/torch/", "site-packages/", "dist-packages/", "<frozen"];
            file.contains(".py") && !is_library.iter().any(|part| file.contains(part))
        };
        let own = snapshot.stack(stack).filter(is_own);
        let others = snapshot.stack(stack).filter(|frame| !is_own(frame));
        own.chain(others).map(show).collect()
    }
}

fn freed(op: &Op) -> Option<AllocId> {
    match op {
        Op::Free(free) => Some(free.id),
        _ => None,
    }
}

/// Of a block that was there before the history and still is.
fn stack_at(snapshot: &Snapshot, device: DeviceIndex, addr: crate::base::Addr) -> Option<StackId> {
    let mut segments = snapshot.segments.iter().filter(|segment| segment.device == device);
    let segment = segments
        .find(|segment| segment.address <= addr && addr < segment.address + segment.total_size)?;
    segment.blocks.iter().find(|block| block.address == addr)?.stack
}
