//! [`Played`]: one run of a lesson, step by step.

use std::collections::BTreeMap;

use super::{
    Fact, RunSpec,
    expression::{Name, Value},
    scene::{Scene, label},
    told::Witness,
};
use crate::{
    base::{AllocId, Bytes, Id},
    models::pytorch::{PyTorch, PyTorchConfig, WhyNot},
    observe::{BlockLife, DeviceStats, Lives, StatsTally},
    sim::{AllocError, Allocator, Device, DeviceConfig, replay_op},
    trace::{Op, Trace},
};

/// The counters at one moment. Totals are those since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Levels {
    /// What the program asked for, of what is handed out or waiting.
    pub requested: Bytes,
    /// Bytes handed out.
    pub allocated: Bytes,
    /// Bytes handed out or waiting for another stream.
    pub active: Bytes,
    /// Bytes of all segments.
    pub reserved: Bytes,
    /// Free bytes in segments that are in use in part.
    pub inactive_split: Bytes,
    /// The largest of `allocated` so far.
    pub peak_allocated: Bytes,
    /// The largest of `active` so far.
    pub peak_active: Bytes,
    /// The largest of `reserved` so far.
    pub peak_reserved: Bytes,
    /// Free memory of the device, as `cudaMemGetInfo` tells.
    pub device_free: Bytes,
    /// Capacity of the device.
    pub capacity: Bytes,
    /// Blocks handed out.
    pub blocks: u64,
    /// Segments, or mapped ranges that lie apart.
    pub segments: u64,
    /// `cudaMalloc` calls that succeeded.
    pub cuda_malloc: u64,
    /// `cudaFree` calls.
    pub cuda_free: u64,
    /// Ranges mapped.
    pub map: u64,
    /// Ranges unmapped.
    pub unmap: u64,
    /// Times that everything was given back and the device asked again.
    pub retries: u64,
    /// Requests that failed.
    pub ooms: u64,
}

/// Free memory that could not serve a request, by the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub why: WhyNot,
    /// How many blocks.
    pub blocks: u64,
    /// How much together.
    pub bytes: Bytes,
    /// The largest of them.
    pub largest: Bytes,
}

/// One operation and what became of it.
#[derive(Debug)]
pub struct Step {
    /// Its line in the trace, from 0.
    pub line: usize,
    /// As it is written.
    pub text: String,
    /// The comment beside it.
    pub note: String,
    /// The comment above it, or above those before it.
    pub chapter: String,
    /// What the allocator did, in its order.
    pub facts: Vec<Fact>,
    /// Why it failed, if it did.
    pub error: Option<AllocError>,
    /// Of a request that found no free block: what was free.
    pub refusals: Vec<Refusal>,
    /// The allocation that it names.
    pub id: Option<AllocId>,
    /// What it asked for, if it is a request.
    pub asked: Option<Bytes>,
    /// The counters afterwards.
    pub after: Levels,
}

/// One run.
#[derive(Debug)]
pub struct Played {
    /// What is run, and how.
    pub spec: RunSpec,
    /// The operations that were done; the last one failed if the run dies.
    pub steps: Vec<Step>,
    /// The counters before the first.
    pub before: Levels,
    /// From when to when each block and segment was there.
    pub lives: Lives,
    /// The names of the allocations, by number.
    pub names: Vec<String>,
    /// Moments with a name: the steps done by then.
    pub marks: BTreeMap<String, usize>,
    /// Operations that the program has.
    pub ops_total: usize,
}

type Watchers = ((StatsTally, Lives), Witness);

impl Played {
    /// Replays a run.
    pub fn new(spec: &RunSpec) -> Self {
        let source = &spec.source;
        let trace = &source.trace;
        let config = PyTorchConfig { conf: spec.conf.clone(), ..PyTorchConfig::new(spec.torch) };
        let device = Device::new(DeviceConfig {
            context: spec.context,
            external: spec.external,
            ..DeviceConfig::new(trace.device(), spec.capacity)
        });
        let mut model = PyTorch::new(config, device, trace.streams(), trace.pools());
        let tally = StatsTally::new(spec.conf.max_split_size);
        let lives = Lives::new(trace.start_ids().to_vec());
        let mut watchers: Watchers = ((tally, lives), Witness::default());
        model.start(trace, &mut watchers);
        let before = levels(&watchers.0.0.stats(), &model);
        let mut steps: Vec<Step> = Vec::new();
        for (op, statement) in trace.ops().iter().zip(&source.statements) {
            let done = u32::try_from(steps.len()).unwrap_or(u32::MAX - 1);
            let refusals = refusals(op, &model);
            let (id, asked) = named(op);
            (watchers.0.1.now, watchers.0.1.id) =
                (done.saturating_add(1), id.filter(|_| asked.is_some()));
            let failure = replay_op(trace, op, &mut model, &mut watchers);
            let facts = std::mem::take(&mut watchers.1.facts);
            let asked_device = facts.iter().any(is_of_device);
            let died = failure.is_some() && !spec.goes_on;
            steps.push(Step {
                line: statement.line,
                text: statement.text.clone(),
                note: statement.note.clone(),
                chapter: statement.chapter.clone(),
                facts,
                error: failure.map(|failure| failure.error),
                refusals: if asked_device { refusals } else { Vec::new() },
                id,
                asked,
                after: levels(&watchers.0.0.stats(), &model),
            });
            if died {
                break;
            }
        }
        let marks = source.marks.iter().filter(|(_, at)| **at <= steps.len());
        let mut marks: BTreeMap<String, usize> =
            marks.map(|(name, at)| (name.clone(), *at)).collect();
        marks.insert("start".into(), 0);
        marks.insert("end".into(), steps.len());
        Self {
            spec: spec.clone(),
            before,
            lives: watchers.0.1,
            names: source.names.clone(),
            marks,
            ops_total: trace.ops().len(),
            steps,
        }
    }

    /// Whether every request was served.
    pub fn completes(&self) -> bool {
        self.steps.iter().all(|step| step.error.is_none())
    }

    /// The step whose request failed first, from 0.
    pub fn first_failure(&self) -> Option<usize> {
        self.steps.iter().position(|step| step.error.is_some())
    }

    /// The text of the first failure.
    pub fn message(&self) -> Option<String> {
        self.steps.iter().find_map(|step| Some(step.error.as_ref()?.to_string()))
    }

    /// The counters when so many steps are done.
    pub fn levels(&self, done: usize) -> Levels {
        match done.min(self.steps.len()).checked_sub(1) {
            Some(last) => self.steps[last].after,
            None => self.before,
        }
    }

    /// What lies where when so many steps are done.
    pub fn scene(&self, done: usize) -> Scene {
        Scene::at(&self.lives, &self.names, time(done))
    }

    /// The block of that name when so many steps are done.
    fn block(&self, name: &str, done: usize) -> Option<&BlockLife> {
        let at = time(done);
        let is_there = |block: &&BlockLife| block.born <= at && block.died > at;
        let named = |block: &&BlockLife| {
            block.id.and_then(|id| self.names.get(id.index())).is_some_and(|own| own == name)
        };
        self.lives.blocks.iter().filter(is_there).rfind(named)
    }

    /// A figure of this run.
    pub(super) fn value(&self, name: Name<'_>) -> Result<Value, String> {
        let done = match name.mark {
            None => self.steps.len(),
            Some(mark) => *self.marks.get(mark).ok_or_else(|| {
                let known: Vec<&str> = self.marks.keys().map(String::as_str).collect();
                format!(
                    "run '{}' comes to no mark '{mark}'; it comes to {}",
                    self.spec.name,
                    known.join(", ")
                )
            })?,
        };
        if let Some(what) = name.what {
            return self.value_of(name.figure, what, done);
        }
        let now = self.levels(done);
        let count = |n: u64| Ok(Value::count(n));
        let bytes = |n: Bytes| Ok(Value::bytes(n));
        match name.figure {
            "requested" => bytes(now.requested),
            "allocated" => bytes(now.allocated),
            "active" => bytes(now.active),
            "pending" => bytes(now.active.saturating_sub(now.allocated)),
            "reserved" => bytes(now.reserved),
            "unallocated" => bytes(now.reserved.saturating_sub(now.allocated)),
            "free" => bytes(now.reserved.saturating_sub(now.active)),
            "inactive_split" => bytes(now.inactive_split),
            "largest_free" => bytes(self.scene(done).largest_free()),
            "peak_allocated" => bytes(now.peak_allocated),
            "peak_active" => bytes(now.peak_active),
            "peak_reserved" => bytes(now.peak_reserved),
            "device_free" => bytes(now.device_free),
            "device_used" => bytes(now.capacity.saturating_sub(now.device_free)),
            "capacity" => bytes(now.capacity),
            "context" => bytes(self.spec.context),
            "external" => bytes(self.spec.external),
            "blocks" => count(now.blocks),
            "segments" => count(now.segments),
            "cuda_malloc" => count(now.cuda_malloc),
            "cuda_free" => count(now.cuda_free),
            "map" => count(now.map),
            "unmap" => count(now.unmap),
            "retries" => count(now.retries),
            "ooms" => count(now.ooms),
            "completes" => count(u64::from(self.completes())),
            "dies" => count(u64::from(!self.completes())),
            other => Err(format!("there is no figure '{other}'; see traces/lessons/README.md")),
        }
    }

    /// A figure of one allocation, or of all with a label.
    fn value_of(&self, figure: &str, what: &str, done: usize) -> Result<Value, String> {
        let steps = || self.steps[..done].iter().filter(|step| step.asked.is_some());
        let is_named = |step: &&Step| {
            step.id.and_then(|id| self.names.get(id.index())).is_some_and(|name| name == what)
        };
        match figure {
            "fails" | "serves" | "request" => {
                let Some(step) = steps().rfind(is_named) else {
                    return Err(format!("'{what}' was not asked for by then"));
                };
                if figure == "request" {
                    return Ok(Value::bytes(step.asked.unwrap_or_default()));
                }
                let wanted =
                    if figure == "fails" { step.error.is_some() } else { step.error.is_none() };
                return Ok(Value::count(u64::from(wanted)));
            }
            "label" => {
                let at = time(done);
                let is_there = |block: &&BlockLife| block.born <= at && block.freed > at;
                let has_label = |block: &&BlockLife| {
                    let name = block.id.and_then(|id| self.names.get(id.index()));
                    name.is_some_and(|name| label(name) == what)
                };
                let blocks = self.lives.blocks.iter().filter(is_there).filter(has_label);
                return Ok(Value::bytes(blocks.map(|block| block.span.size).sum()));
            }
            _ => {}
        }
        let Some(block) = self.block(what, done) else {
            return Err(format!("there is no block '{what}' at that moment"));
        };
        Ok(match figure {
            "block" => Value::bytes(block.span.size),
            "asked" => Value::bytes(block.requested),
            "addr" => Value::address(block.span.start.0),
            "small" => Value::count(u64::from(block.place.is_small)),
            "pending" => Value::count(u64::from(block.freed <= time(done))),
            "segment" => {
                let scene = self.scene(done);
                let segment = scene.segments.iter().find(|s| s.span.contains(block.span.start));
                Value::bytes(segment.map_or(Bytes::ZERO, |segment| segment.span.size))
            }
            other => {
                return Err(format!(
                    "there is no figure '{other}' of an allocation; see traces/lessons/README.md"
                ));
            }
        })
    }
}

fn time(done: usize) -> u32 {
    u32::try_from(done).unwrap_or(u32::MAX - 1)
}

/// Whether a free block did not do.
fn is_of_device(fact: &Fact) -> bool {
    matches!(fact, Fact::SegmentAlloc(_) | Fact::SegmentMap(_) | Fact::Oom(_) | Fact::Retry)
}

fn named(op: &Op) -> (Option<AllocId>, Option<Bytes>) {
    match op {
        Op::Alloc(alloc) => (Some(alloc.id), Some(alloc.size)),
        Op::Free(free) => (Some(free.id), None),
        Op::FreeCompleted(id) | Op::RecordStream(id, _) => (Some(*id), None),
        Op::EmptyCache | Op::Control(_) => (None, None),
    }
}

/// What is free before a request, by the reason why it does not serve; what would serve is left out.
fn refusals(op: &Op, model: &PyTorch) -> Vec<Refusal> {
    let Op::Alloc(alloc) = op else { return Vec::new() };
    // The question makes the request's stream the current one: asked of a copy.
    let mut copy = model.clone();
    let Some(asked) = copy.asked(alloc) else { return Vec::new() };
    let mut refusals: BTreeMap<WhyNot, Refusal> = BTreeMap::new();
    for part in copy.free_parts(&asked) {
        let Some(why) = part.why else { continue };
        let none = Refusal { why, blocks: 0, bytes: Bytes::ZERO, largest: Bytes::ZERO };
        let refusal = refusals.entry(why).or_insert(none);
        refusal.blocks += 1;
        refusal.bytes += part.span.size;
        refusal.largest = refusal.largest.max(part.span.size);
    }
    refusals.into_values().collect()
}

fn levels(stats: &DeviceStats, model: &PyTorch) -> Levels {
    let calls = model.device().calls();
    let positive = |n: i64| u64::try_from(n).unwrap_or_default();
    let bytes = |n: i64| Bytes(positive(n));
    Levels {
        requested: bytes(stats.requested_bytes.all().current),
        allocated: bytes(stats.allocated_bytes.all().current),
        active: bytes(stats.active_bytes.all().current),
        reserved: bytes(stats.reserved_bytes.all().current),
        inactive_split: bytes(stats.inactive_split_bytes.all().current),
        peak_allocated: bytes(stats.allocated_bytes.all().peak),
        peak_active: bytes(stats.active_bytes.all().peak),
        peak_reserved: bytes(stats.reserved_bytes.all().peak),
        device_free: model.device().free_bytes(),
        capacity: model.device().total(),
        blocks: positive(stats.allocation.all().current),
        segments: u64::try_from(model.layout().segments.len()).unwrap_or_default(),
        cuda_malloc: calls.malloc,
        cuda_free: calls.free,
        map: calls.map,
        unmap: calls.unmap,
        retries: positive(stats.num_alloc_retries),
        ooms: positive(stats.num_ooms),
    }
}

/// A program of a lesson.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// The text that it was read from.
    pub text: String,
    /// The operations.
    pub trace: Trace,
    /// What stands beside each.
    pub statements: Vec<Beside>,
    /// The names of the allocations, by number.
    pub names: Vec<String>,
    /// Moments with a name: the steps done by then.
    pub marks: BTreeMap<String, usize>,
}

/// What a text says of one operation.
#[derive(Clone, Debug)]
pub struct Beside {
    /// Its line, from 0.
    pub line: usize,
    /// The statement.
    pub text: String,
    /// The comment beside it.
    pub note: String,
    /// The comment above it, or above those before it.
    pub chapter: String,
}
