//! The smallest device on which a program survives.
//!
//! Survival is not monotone in capacity: less memory makes the allocator release its cache sooner,
//! and what it builds then may lie better. So the capacities below the one that is always enough are
//! looked through, from the top down:
//!
//! ```text
//!  floor                                   always enough          as much as it takes unhindered
//!    │ cannot │ dies │ survives │ dies │ survives ───────────────────────────────────────► capacity
//!                      an island         ▲ smallest
//! ```
//! A replay says itself between which capacities it would be the same ([`Figures::levels`]), so one
//! replay settles all of them, to the byte. With expandable segments, memory fractions and the like a
//! capacity decides more than refusals; there every step of 2 MiB is tried instead. Where that would
//! be too many replays the steps are wider, and the answer says so.

use std::num::NonZeroUsize;

use crate::{
    base::Bytes,
    models::pytorch::rounding::{DivisionOne, round_size},
    trace::{Control, Op},
};

use super::{
    figures::{Figures, Replayer},
    grid::{self, JobPanic},
    whatif::{Program, Terms},
};

/// What the device hands out memory in.
const GRANULE: Bytes = Bytes::mib(2);
/// Stands for a device without limits.
const UNLIMITED: Bytes = Bytes(1 << 50);
/// The capacities are looked through in so many parts: a number of its own, so that the answer does
/// not depend on the number of threads.
const PARTS: u64 = 16;

/// Capacities at which a program survives, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The first of them.
    pub from: Bytes,
    /// The first after them.
    pub to: Bytes,
    /// Whether the program survives there.
    pub survives: bool,
}

/// How the capacities were looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// Every capacity, to the byte.
    Every,
    /// At least one in so many bytes.
    Of(Bytes),
}

/// Where a program survives.
#[derive(Clone, Debug)]
pub struct Fit {
    /// From here on it survives at every capacity that was tried; `None` if it does not even without
    /// a limit.
    pub smallest: Option<Bytes>,
    /// Stretches below it where it survives too, largest first.
    pub islands: Vec<Stretch>,
    /// Below this it cannot: the live blocks alone are larger.
    pub floor: Bytes,
    /// The replay without a limit.
    pub roomy: Figures,
    /// How the capacities were looked through.
    pub steps: Steps,
    /// Replays that it took.
    pub replays: u64,
}

/// Finds the smallest capacity, with about `budget` replays at most.
///
/// # Errors
/// When a replay fails by a bug.
///
/// # Complexity
/// At most about `budget` replays, on all threads; one stretch each.
pub fn fit(
    program: &Program,
    terms: &Terms,
    budget: u64,
    threads: NonZeroUsize,
) -> Result<Fit, JobPanic> {
    let at = |replayer: &mut Replayer, capacity: Bytes| {
        replayer.figures(program, &Terms { capacity, ..terms.clone() })
    };
    let mut replayer = Replayer::new();
    let roomy = at(&mut replayer, UNLIMITED);
    let held = terms.context + terms.external;
    let floor = held + floor(program, terms);
    let top = roomy.levels.granted.max(floor);
    let nothing = Fit {
        smallest: None,
        islands: Vec::new(),
        floor,
        steps: Steps::Every,
        replays: 1,
        roomy: roomy.clone(),
    };
    if !roomy.survives() {
        return Ok(nothing);
    }
    let is_exact = is_settled_by_levels(program, terms);
    // Where more than refusals decides, the unhindered replay settles nothing below infinity: some
    // capacities above what it took are looked at, too.
    let top =
        if is_exact { top } else { top.round_up(GRANULE) + Bytes(top.0 / 8).round_up(GRANULE) };
    let width = Bytes(top.saturating_sub(floor).0.div_ceil(PARTS)).round_up(GRANULE);
    // Most parts need few replays: each may take twice its share, and wider steps from there on.
    let share = (2 * budget / PARTS).max(2);
    let work = |replayer: &mut Replayer, part: usize| {
        let to = Bytes(top.0.saturating_sub(part as u64 * width.0));
        let bottom = floor.max(to.saturating_sub(width));
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut to = to;
        let mut stride = if is_exact {
            Bytes(1)
        } else {
            Bytes(width.0 / share).max(Bytes(1)).round_up(GRANULE)
        };
        while to > bottom {
            // The highest capacity below what is known.
            let probe = Bytes(to.0 - 1);
            let figures = at(replayer, probe);
            let from = if is_exact {
                figures.levels.granted.min(probe)
            } else {
                Bytes(probe.0 / GRANULE.0 * GRANULE.0)
            };
            let from = from.max(bottom);
            stretches.push(Stretch { from, to, survives: figures.survives() });
            if is_exact && stretches.len() as u64 == share / 2 {
                stride = Bytes(2 * (from - bottom).0 / share).max(Bytes(1));
            }
            to = from.min(to.saturating_sub(stride)).max(bottom);
        }
        stretches
    };
    let parts = usize::try_from(PARTS).unwrap_or(1);
    let mut tried = Vec::new();
    for part in grid::collect(parts, threads, Replayer::new, work) {
        tried.extend(part?);
    }
    let mut replays = 1 + tried.len() as u64;
    let gaps = tried.windows(2).map(|pair| pair[0].from.saturating_sub(pair[1].to));
    let widest = gaps.max().unwrap_or_default();
    let steps = match (is_exact, widest) {
        (true, Bytes::ZERO) => Steps::Every,
        (true, widest) => Steps::Of(widest),
        (false, widest) => Steps::Of(widest + GRANULE),
    };
    let mut stretches = joined(&tried);
    let mut smallest = match stretches.first() {
        Some(first) if first.survives => stretches.remove(0).from,
        _ => top,
    };
    // Between the lowest that survives and the next that was tried may lie a step that was not looked
    // into.
    let mut dies = stretches.first().map_or(floor, |next| next.to);
    while smallest.saturating_sub(dies) > Bytes::ZERO {
        let probe = Bytes(dies.0 + (smallest.0 - dies.0) / 2);
        let figures = at(&mut replayer, probe);
        replays += 1;
        if figures.survives() {
            smallest = if is_exact { figures.levels.granted.min(probe) } else { probe };
        } else {
            dies = probe + Bytes(1);
        }
    }
    let islands = stretches.into_iter().filter(|stretch| stretch.survives).collect();
    Ok(Fit { smallest: Some(smallest), islands, steps, replays, ..nothing })
}

/// Whether refusals are all that the capacity decides.
fn is_settled_by_levels(program: &Program, terms: &Terms) -> bool {
    let conf = &terms.conf;
    let is_plain = !conf.expandable_segments
        && conf.per_process_memory_fraction >= 1.0
        && !conf.throw_on_cudamalloc_oom;
    let decides = |control: &Control| {
        matches!(
            control,
            Control::SetFraction(_)
                | Control::Settings(_)
                | Control::External(_)
                | Control::Total(_)
        )
    };
    let trace = &program.trace;
    let decides = |op: &Op| matches!(op, Op::Control(id) if decides(&trace.controls()[*id]));
    is_plain && !trace.ops().iter().any(decides)
}

/// The most bytes that live blocks take at once, each as small as it can be.
fn floor(program: &Program, terms: &Terms) -> Bytes {
    let divisions = &terms.conf.roundup_power2_divisions;
    let one = DivisionOne::of(terms.release);
    let trace = &program.trace;
    // Settings that change at run time may round less.
    let is_fixed = !trace.controls().iter().any(|control| matches!(control, Control::Settings(_)));
    let block = |size: Bytes| {
        if is_fixed && size < Bytes(1 << 60) { round_size(size, divisions, one) } else { size }
    };
    let mut sizes = vec![Bytes::ZERO; trace.alloc_count() as usize];
    let start = trace.start().segments.iter().flat_map(|segment| &segment.blocks);
    let start = start.filter(|block| block.state != crate::trace::BlockState::Inactive);
    let mut live = Bytes::ZERO;
    for (id, block) in trace.start_ids().iter().zip(start) {
        sizes[id.0 as usize] = block.size;
        live += block.size;
    }
    let mut most = live;
    let mut failed = program.failed.iter().peekable();
    for (i, op) in trace.ops().iter().enumerate() {
        while let Some((_, request)) = failed.next_if(|(at, _)| at.0 as usize <= i) {
            most = most.max(live + block(request.size));
        }
        match op {
            Op::Alloc(alloc) if alloc.size > Bytes::ZERO => {
                let size = block(alloc.size);
                sizes[alloc.id.0 as usize] = size;
                live = live.checked_add(size).unwrap_or(Bytes::MAX);
                most = most.max(live);
            }
            Op::Free(free) => {
                live = live.saturating_sub(std::mem::take(&mut sizes[free.id.0 as usize]));
            }
            _ => {}
        }
    }
    failed.fold(most, |most, (_, request)| most.max(live + block(request.size)))
}

/// Neighbours that say the same, as one.
fn joined(stretches: &[Stretch]) -> Vec<Stretch> {
    let mut joined: Vec<Stretch> = Vec::new();
    for stretch in stretches {
        match joined.last_mut() {
            Some(last) if last.survives == stretch.survives => last.from = stretch.from,
            _ => joined.push(*stretch),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::Release, models::pytorch::conf::AllocConf, study::whatif::Start, trace::script,
    };

    fn fitted(trace: &str, conf: &str) -> Fit {
        let program = Program::of(&script::parse(trace).unwrap(), Start::AsRecorded).unwrap();
        let (conf, _) = AllocConf::from_string(Release::NEWEST, conf).unwrap();
        let terms = Terms::new(Release::NEWEST, conf, Bytes::gib(1));
        fit(&program, &terms, 1000, NonZeroUsize::MIN).unwrap()
    }

    /// Every capacity below 100 MiB by itself, in steps of 2 MiB.
    fn survivors(trace: &str, conf: &str) -> Vec<bool> {
        let program = Program::of(&script::parse(trace).unwrap(), Start::AsRecorded).unwrap();
        let (conf, _) = AllocConf::from_string(Release::NEWEST, conf).unwrap();
        let mut replayer = Replayer::new();
        let mut at = |mib| {
            let terms = Terms::new(Release::NEWEST, conf.clone(), Bytes::mib(mib));
            replayer.figures(&program, &terms).survives()
        };
        (0..50).map(|step| at(2 * step + 1)).collect()
    }

    fn check(trace: &str, conf: &str) {
        let fit = fitted(trace, conf);
        let smallest = fit.smallest.unwrap();
        for (step, survives) in survivors(trace, conf).into_iter().enumerate() {
            let capacity = Bytes::mib(2 * step as u64 + 1);
            let is_island =
                fit.islands.iter().any(|island| island.from <= capacity && capacity < island.to);
            assert_eq!(survives, capacity >= smallest || is_island, "{conf} at {capacity}");
        }
    }

    const STRANDED: &str = "a = alloc 6MiB; b = alloc 6MiB; c = alloc 6MiB; \
                            d = alloc 6MiB; e = alloc 6MiB; f = alloc 6MiB; \
                            free a; free c; free d; free f; g = alloc 16MiB";

    #[test]
    fn the_smallest_capacity_is_the_one_that_trying_all_of_them_finds() {
        for conf in ["", "expandable_segments:True", "max_split_size_mb:21"] {
            check(STRANDED, conf);
        }
        assert_eq!(fitted(STRANDED, "").smallest, Some(Bytes::mib(56)));
        assert_eq!(fitted(STRANDED, "").steps, Steps::Every);
    }

    /// With 34 MiB the first segment is released before the second, and what comes then fits; with
    /// a little more the cache is kept until it is in the way.
    #[test]
    fn survival_is_not_monotone_in_capacity() {
        let trace = "a = alloc 12MiB; free a; b = alloc 20MiB; c = alloc 2MiB; free b; \
                     d = alloc 30MiB";
        check(trace, "");
    }

    #[test]
    fn a_program_that_dies_without_a_limit_fits_nowhere() {
        let fit = fitted("a = alloc 2000000TiB", "");
        assert_eq!(fit.smallest, None);
    }
}
