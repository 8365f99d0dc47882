//! What would have helped: each remedy is replayed from the beginning, none is believed.

use super::{Origin, Scene, edit};
use crate::{
    base::{AllocId, Bytes, Id, OpIndex},
    models::pytorch::conf::AllocConf,
    sim::{Allocator, OnOom},
    study::whatif::{Program, Replayed, Terms, whatif},
    trace::{AllocOp, TraceError},
};

/// What is changed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "value")]
pub enum Change {
    /// `torch.cuda.empty_cache()` just before the request.
    EmptyCache,
    /// Other settings: all of them, as a string for `PYTORCH_CUDA_ALLOC_CONF`.
    Conf(String),
    /// A device of this capacity.
    Capacity(Bytes),
    /// The blocking set is freed just before the request; that many blocks.
    FreedBefore(usize),
    /// The blocking set comes from a private pool of its own (`torch.cuda.MemPool`); that many blocks.
    OwnPool(usize),
    /// Everything that is allocated where the blocking set was comes from a private pool of its own, as
    /// it would if those places were put into one; that many blocks.
    OwnPoolOfPlaces(usize),
}

/// What a change does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// The change.
    pub change: Change,
    /// Whether the request is served.
    pub is_served: bool,
    /// Whether the rest of the program is served, too; `None` where it was not replayed.
    pub completes: Option<bool>,
    /// The first operation of the program that fails, counted as in the program; it may come before
    /// the request, or after it.
    pub fails_at: Option<u64>,
    /// Most bytes handed out, and most reserved, up to the end or the failure; `None` where nothing
    /// was replayed.
    pub peaks: Option<[Bytes; 2]>,
}

/// A program, and the request in it that matters.
pub(super) struct Rerun {
    program: Program,
    /// Operations that the program has before those of the original.
    offset: u64,
    /// The request, if it is an operation.
    op: Option<u64>,
}

impl Rerun {
    /// `program` is the scene's, or the same with its start asked for.
    pub(super) fn of(scene: &Scene, original: &Program, program: &Program) -> Self {
        let mut program = program.clone();
        let ops = |program: &Program| program.trace.ops().len();
        let shift = ops(&program).saturating_sub(ops(original));
        program.failed = match (scene.origin, scene.failed) {
            (Origin::Recorded, Some(at)) => vec![program.failed[at]],
            (Origin::Asked, _) => {
                let fresh = AllocId(program.trace.alloc_count());
                let at = OpIndex::from_index(scene.index.index() + shift);
                vec![(at, AllocOp { id: fresh, ..scene.request })]
            }
            _ => Vec::new(),
        };
        let offset = program.asked().saturating_sub(original.asked());
        let op = (scene.origin == Origin::Program).then_some(scene.op + offset);
        Self { program, offset, op }
    }

    fn is_served(&self, replayed: &Replayed) -> bool {
        match self.op {
            Some(op) => replayed.first_failure_asked.is_none_or(|failed| failed > op),
            None => replayed.asked_again.first().is_some_and(|again| again.error.is_none()),
        }
    }

    /// The whole program.
    fn remedy(&self, change: Change, terms: &Terms) -> Remedy {
        let replayed = whatif(&self.program, terms);
        let peak = |stat: &crate::observe::Columns| {
            Bytes(u64::try_from(stat.all().peak).unwrap_or_default())
        };
        let stats = &replayed.stats;
        Remedy {
            change,
            is_served: self.is_served(&replayed),
            completes: Some(replayed.outcome.completed),
            fails_at: replayed.first_failure_asked.map(|op| op.saturating_sub(self.offset)),
            peaks: Some([peak(&stats.allocated_bytes), peak(&stats.reserved_bytes)]),
        }
    }

    /// Whether the request is served on a device of this capacity.
    fn is_served_with(&self, capacity: Bytes, terms: &Terms, until: OpIndex) -> bool {
        let terms = Terms { capacity, until: Some(until), ..terms.clone() };
        self.is_served(&whatif(&self.program, &terms))
    }
}

/// The terms of every rerun: as given, to the first failure.
fn strict(terms: &Terms) -> Terms {
    Terms { on_oom: OnOom::Stop, until: None, keeps_events: false, ..terms.clone() }
}

/// `empty_cache` just before the request.
pub(super) fn empty_cache(scene: &Scene) -> Remedy {
    let mut model = scene.before.clone();
    let is_served =
        model.empty_cache(&mut ()).is_ok() && model.malloc(&scene.request, &mut ()).is_ok();
    let change = Change::EmptyCache;
    Remedy { change, is_served, completes: None, fails_at: None, peaks: None }
}

/// The settings that people try, on top of those in force. A setting that the release refuses or that
/// changes nothing is left out.
pub(super) fn settings(scene: &Scene, rerun: &Rerun, terms: &Terms) -> Vec<Remedy> {
    let mut tried: Vec<AllocConf> = vec![terms.conf.clone()];
    let mut remedies = Vec::new();
    let mut add = |change: &dyn Fn(&mut AllocConf)| {
        let mut conf = terms.conf.clone();
        change(&mut conf);
        let text = match conf.to_conf_string(terms.release) {
            Ok(text) => text,
            // Switching off what the environment has on leaves no string for some keys.
            Err(unprintable) => unprintable.nearest,
        };
        let Ok((conf, _)) = AllocConf::from_string(terms.release, &text) else { return };
        if tried.iter().any(|known| known.same_settings(&conf)) {
            return;
        }
        tried.push(conf.clone());
        remedies.push(rerun.remedy(Change::Conf(text), &Terms { conf, ..strict(terms) }));
    };
    add(&|conf| conf.expandable_segments = !conf.expandable_segments);
    let mib = scene.request.size.0 >> 20;
    for limit in [32, 64, 128, 256, 512, mib, mib + 1] {
        if limit > 20 {
            add(&|conf| conf.max_split_size = Bytes::mib(limit));
        }
    }
    if terms.conf.max_split_size != Bytes::MAX {
        add(&|conf| conf.max_split_size = Bytes::MAX);
    }
    for divisions in [2, 4, 8] {
        add(&|conf| conf.roundup_power2_divisions = [divisions; 16]);
    }
    if terms.conf.roundup_power2_divisions != [0; 16] {
        add(&|conf| conf.roundup_power2_divisions = [0; 16]);
    }
    add(&|conf| conf.garbage_collection_threshold = 0.8);
    remedies
}

/// How many capacities are tried between one that fails and one that serves.
const CAPACITIES: u32 = 12;

/// The smallest larger capacity that serves the request, by bisection: that one serves it, and one
/// that is 2 MiB smaller (or, on a wide range, a 4,096th of the range) does not. A still smaller one
/// may, as survival is not monotone in capacity.
pub(super) fn larger_card(scene: &Scene, rerun: &Rerun, terms: &Terms) -> Option<Remedy> {
    let terms = strict(terms);
    // Where the trace sets the capacity itself, no other one would count.
    if scene.after.device().total() != terms.capacity {
        return None;
    }
    let until = rerun.op.unwrap_or(scene.op + rerun.offset) + 1;
    let until = OpIndex(u32::try_from(until).ok()?);
    let serves = |capacity| rerun.is_served_with(capacity, &terms, until);
    let unlimited = Terms { capacity: Bytes(1 << 44), until: Some(until), ..terms.clone() };
    let peak = whatif(&rerun.program, &unlimited).stats.reserved_bytes.all().peak;
    let peak = Bytes(u64::try_from(peak).ok()?) + scene.request.size;
    let step = Bytes::mib(2);
    let mut high =
        (peak.max(terms.capacity) + terms.context + terms.external).round_up(step) + step;
    // With a memory fraction the limit must be that large, too.
    for _ in 0..8 {
        if serves(high) {
            break;
        }
        high = high.checked_add(high).filter(|high| *high < Bytes(1 << 50))?;
    }
    let mut low = terms.capacity;
    for _ in 0..CAPACITIES {
        let middle = (low + Bytes((high.saturating_sub(low)).0 / 2)).round_up(step);
        if middle >= high || middle <= low {
            break;
        }
        if serves(middle) { high = middle } else { low = middle }
    }
    let is_served = serves(high);
    is_served.then(|| rerun.remedy(Change::Capacity(high), &Terms { capacity: high, ..terms }))
}

/// The blocking set freed just before the request, the rest as it was.
///
/// # Errors
/// When there are too many operations to number.
pub(super) fn freed_before(
    scene: &Scene,
    program: &Program,
    set: &[AllocId],
    terms: &Terms,
) -> Result<Remedy, TraceError> {
    let mut rerun = Rerun::of(scene, program, program);
    let at = scene.index;
    rerun.program.trace = edit::freed_before(&rerun.program.trace, at, set)?;
    for (op, _) in &mut rerun.program.failed {
        *op = OpIndex::from_index(op.index() + set.len());
    }
    // The frees come before the request, and later ones of the same blocks are gone.
    rerun.op = rerun.op.map(|op| op + set.len() as u64);
    let mut remedy = rerun.remedy(Change::FreedBefore(set.len()), &strict(terms));
    // Behind the request the numbers are no longer those of the program.
    remedy.fails_at = remedy.fails_at.filter(|op| *op < scene.op);
    Ok(remedy)
}

/// The blocking set, or all that is allocated where it was, from a private pool of its own.
pub(super) fn own_pool(
    rerun: &Rerun,
    set: &[AllocId],
    change: Change,
    terms: &Terms,
) -> Option<Remedy> {
    let mut program = rerun.program.clone();
    let pool = program.trace.stand_in_pool()?;
    let ops = edit::made_by(&program.trace, set);
    if ops.len() != set.len() {
        return None;
    }
    program.trace.set_pool(&ops, Some(pool));
    let rerun = Rerun { program, ..*rerun };
    Some(rerun.remedy(change, &strict(terms)))
}
