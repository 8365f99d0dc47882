//! What the benches share: recordings, programs and allocators to replay them with.

#![allow(dead_code, reason = "each bench uses its own part")]

pub(crate) mod binned;
pub(crate) mod churn;

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use fragsim::{
    base::{Bytes, DeviceIndex, Release},
    models::pytorch::{PyTorch, PyTorchConfig, conf::AllocConf},
    observe::{Record, StatsTally},
    sim::{Allocator as _, Device, DeviceConfig, Observer, OnOom, replay_op, replay_range},
    source::snapshot,
    study::whatif::{Program, Start},
    trace::Trace,
};

/// The settings under which programs are replayed: a name and the text.
pub(crate) const CONFS: [(&str, &str); 2] =
    [("default", ""), ("expandable", "expandable_segments:True")];

/// Recordings that ship: batches of changing length, without and with expandable segments.
pub(crate) const SHIPPED: [&str; 2] = ["varlen_oom", "frag_expandable"];

/// Recordings that may stand beside the package: a million entries, a cache that grows, a training.
const BESIDE: [&str; 3] = ["big_1m", "kvcache", "gpt"];

/// A recording that ships.
pub(crate) fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("traces/recorded/{name}.pickle.gz"))
}

/// The recordings to replay with their names: those that ship, and those of `../shared` (or of the
/// folder that `FRAGSIM_SHARED` names) that are there.
pub(crate) fn recordings() -> Vec<(&'static str, PathBuf)> {
    let shared = std::env::var_os("FRAGSIM_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let beside = |name| (name, shared.join(format!("data/recorded/{name}.pickle.gz")));
    let found = BESIDE.map(beside).into_iter().filter(|(_, path)| path.is_file());
    SHIPPED.map(|name| (name, shipped(name))).into_iter().chain(found).collect()
}

/// The first history of a recording.
pub(crate) fn history(path: &Path) -> Result<Trace, String> {
    let name = path.display();
    let snapshot = snapshot::load(path).map_err(|error| format!("{name}: {error}"))?;
    let histories = snapshot.histories().map_err(|error| format!("{name}: {error}"))?;
    histories.into_iter().next().ok_or_else(|| format!("{name} holds no history"))
}

/// What a recording asks. What was live at its start is asked for first.
pub(crate) fn recorded_program(path: &Path) -> Result<Trace, String> {
    let program = Program::of(&history(path)?, Start::Reallocate);
    Ok(program.map_err(|error| format!("{}: {error}", path.display()))?.trace)
}

/// The device: 16 TiB, so that nothing is short.
fn device() -> DeviceConfig {
    DeviceConfig::new(DeviceIndex(0), Bytes::gib(1 << 14))
}

/// PyTorch 2.11 under these settings on that device, for the streams and pools of `trace`.
pub(crate) fn allocator(trace: &Trace, conf: &str) -> Result<PyTorch, String> {
    let release: Release = "2.11".parse().map_err(|error| format!("2.11: {error}"))?;
    let conf = AllocConf::from_string(release, conf).map_err(|error| error.to_string())?.0;
    let config = PyTorchConfig { conf, ..PyTorchConfig::new(release) };
    Ok(PyTorch::new(config, Device::new(device()), trace.streams(), trace.pools()))
}

/// Brings a new allocator to operation `until` of a trace.
pub(crate) fn settle(trace: &Trace, until: usize, allocator: &mut PyTorch) {
    allocator.start(trace, &mut ());
    pass(trace, 0..until, allocator);
}

/// Operations that are not measured. They go by another way than the loop of `replay_range`: a profiler
/// that is told the name of that loop sees nothing of them.
pub(crate) fn pass(trace: &Trace, range: Range<usize>, allocator: &mut PyTorch) {
    for op in &trace.ops()[range] {
        let failure = replay_op(trace, op, allocator, &mut ());
        assert!(failure.is_none(), "nothing is short: {failure:?}");
    }
}

/// Replays operations of a trace on an allocator that stands before them.
pub(crate) fn go_on<O: Observer>(
    trace: &Trace,
    range: Range<usize>,
    allocator: &mut PyTorch,
    observer: &mut O,
) {
    let outcome = replay_range(trace, range, allocator, observer, OnOom::Stop);
    assert!(outcome.completed, "nothing is short: {:?}", outcome.first_failure);
}

/// Who watches a replay.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Watch {
    /// Nobody.
    Bare,
    /// The statistics.
    Stats,
    /// Every event is kept.
    Record,
}

impl Watch {
    pub(crate) const ALL: [(&str, Self); 3] =
        [("bare", Self::Bare), ("stats", Self::Stats), ("record", Self::Record)];

    /// Has `run` watched; what is kept is dropped outside of it.
    pub(crate) fn with(self, kept: &mut Record, run: impl Run) {
        match self {
            Self::Bare => run.run(&mut ()),
            Self::Stats => run.run(&mut StatsTally::new(Bytes::MAX)),
            Self::Record => run.run(kept),
        }
    }
}

/// Something that runs with any observer.
pub(crate) trait Run {
    fn run<O: Observer>(self, observer: &mut O);
}
