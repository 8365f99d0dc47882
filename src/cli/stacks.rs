//! Where the allocations of a recording were made.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    base::{Addr, AllocId, Id},
    report::page,
    source::snapshot::{Action, Frame, Snapshot, StackId, StrId},
    trace::{BlockState, Labels, Op, SegmentLayout, Trace},
};

/// The stacks of a snapshot's allocations, by their names in its program.
pub(super) struct Stacks<'a> {
    snapshot: Option<&'a Snapshot>,
    /// Of the blocks that were live at the start, then of the requests that were served.
    stacks: Vec<Option<StackId>>,
    /// Of the requests that failed.
    failed: Vec<Option<StackId>>,
    /// Of a program that was never recorded: what its allocations are for.
    labels: Labels,
}

impl<'a> Stacks<'a> {
    /// Names are given in the order of the blocks at the start, and then in that of the entries.
    pub(super) fn of(snapshot: Option<&'a Snapshot>, trace: &Trace) -> Self {
        let Some(snapshot) = snapshot else {
            let labels = trace.labels().clone();
            return Self { snapshot, stacks: Vec::new(), failed: Vec::new(), labels };
        };
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
        let of = |action: Action| entries.iter().filter(move |entry| entry.action == action);
        stacks.extend(of(Action::Alloc).map(|entry| snapshot.stack_of(entry)));
        let failed = of(Action::Oom).map(|entry| snapshot.stack_of(entry)).collect();
        Self { snapshot: Some(snapshot), stacks, failed, labels: Labels::default() }
    }

    /// Where an allocation was made, innermost first: the lines of the program itself before those of
    /// libraries; or its label, where there is no recording. Empty if nothing tells.
    pub(super) fn frames(&self, id: AllocId) -> Vec<String> {
        if let Some(label) = self.labels.get(id) {
            return vec![format!("label {label}")];
        }
        own_first(self.shown(self.stack(id)))
    }

    /// Where a request was made that failed when it was recorded; counted from 0.
    pub(super) fn frames_of_failed(&self, nth: usize) -> Vec<String> {
        own_first(self.shown(self.failed.get(nth).copied().flatten()))
    }

    /// All allocations that were made where one of these was, themselves included; `None` if of one
    /// nothing tells where.
    pub(super) fn of_the_same_places(&self, ids: &[AllocId]) -> Option<Vec<AllocId>> {
        let places: Option<FxHashSet<StackId>> = ids.iter().map(|id| self.stack(*id)).collect();
        let places = places?;
        let stacks = self.stacks.iter().enumerate();
        let here = stacks.filter(|(_, stack)| stack.is_some_and(|stack| places.contains(&stack)));
        Some(here.map(|(i, _)| AllocId::from_index(i)).collect())
    }

    fn stack(&self, id: AllocId) -> Option<StackId> {
        self.stacks.get(id.index()).copied().flatten()
    }

    /// Each frame, and whether it is the program's own.
    fn shown(&self, stack: Option<StackId>) -> Vec<(String, bool)> {
        let (Some(snapshot), Some(stack)) = (self.snapshot, stack) else { return Vec::new() };
        let text = |id: Option<StrId>| id.map_or("", |id| snapshot.text(id));
        let show = |frame: &Frame| {
            let file = text(frame.filename);
            (in_words(file, frame.line, text(frame.name)), is_own(file))
        };
        snapshot.stack(stack).map(show).collect()
    }
}

impl page::Stacks for Stacks<'_> {
    fn are_labels(&self) -> bool {
        !self.labels.is_empty()
    }

    fn key(&self, id: AllocId) -> Option<u64> {
        match self.snapshot {
            Some(_) => Some(self.stack(id)?.index() as u64),
            None => Some(self.labels.index(id)? as u64),
        }
    }

    fn frames(&self, id: AllocId) -> Vec<(String, bool)> {
        if let Some(label) = self.labels.get(id) {
            return vec![(label.to_owned(), true)];
        }
        self.shown(self.stack(id))
    }
}

fn own_first(frames: Vec<(String, bool)>) -> Vec<String> {
    let (own, others): (Vec<_>, Vec<_>) = frames.into_iter().partition(|(_, is_own)| *is_own);
    own.into_iter().chain(others).map(|(text, _)| text).collect()
}

/// A frame of C++ has no file.
fn in_words(file: &str, line: u32, name: &str) -> String {
    match (file, line) {
        ("" | "??", 0) => name.to_owned(),
        (file, line) => format!("{file}:{line} {name}"),
    }
}

/// Whether a file is the program's own, and no library's.
fn is_own(file: &str) -> bool {
    let file = file.replace('\\', "/");
    let is_notebook = file.starts_with("<ipython-input") || file.starts_with("<stdin>");
    let is_library = ["/torch/", "site-packages/", "dist-packages/", "<frozen"];
    let is_library = is_library.iter().any(|part| file.contains(part));
    is_notebook || file.contains(".py") && !is_library && !is_standard(&file)
}

/// Whether a file is of Python's own library: `…/lib/python3.11/…`, on Windows `…/Python311/Lib/…`.
fn is_standard(file: &str) -> bool {
    let file = file.to_ascii_lowercase();
    let mut after = file.split("/python").skip(1);
    after.any(|rest| {
        let version = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let has_version = version.len() < rest.len();
        let before = &file[..file.len() - rest.len() - "/python".len()];
        has_version && (before.ends_with("/lib") || version.starts_with("/lib/"))
    })
}

fn freed(op: &Op) -> Option<AllocId> {
    match op {
        Op::Free(free) => Some(free.id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_files_are_told_from_those_of_libraries() {
        let own = [
            "/data/me/train.py",
            "train.py",
            "/data/me/lib/python/train.py",
            "/data/me/python3/lib.py",
            "C:\\me\\train.py",
            "/var/ipykernel_77/1234.py",
            "<ipython-input-3-abc>",
            "<stdin>",
        ];
        for file in own {
            assert!(is_own(file), "{file}");
        }
        let others = [
            "/usr/lib/python3.11/threading.py",
            "/opt/conda/lib/python3.10/runpy.py",
            "C:\\Users\\me\\Python311\\Lib\\threading.py",
            "/v/lib/python3.12/site-packages/torch/nn/modules/module.py",
            "C:\\v\\Lib\\site-packages\\torch\\nn\\functional.py",
            "<frozen runpy>",
            "<eval_with_key>.1",
            "/pytorch/c10/cuda/CUDACachingAllocator.cpp",
            "??",
            "",
        ];
        for file in others {
            assert!(!is_own(file), "{file}");
        }
    }

    #[test]
    fn a_frame_without_a_file_is_its_name() {
        assert_eq!(in_words("??", 0, "at::empty"), "at::empty");
        assert_eq!(in_words("", 0, "at::empty"), "at::empty");
        assert_eq!(in_words("a.py", 0, "f"), "a.py:0 f");
    }
}
