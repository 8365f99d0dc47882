//! Replays of one program under many settings, none of them twice.
//!
//! Two settings that provably lead to the same decisions are one: a `max_split_size` above every block
//! there can be, divisions that round every size of the program alike, a large segment size that
//! nothing asks for, a garbage collection that never begins. Only what is exact counts as proof.

use std::num::NonZeroUsize;

use rustc_hash::FxHashMap;

use crate::{
    base::Bytes,
    models::pytorch::{
        conf::AllocConf,
        rounding::{DivisionOne, round_size},
    },
    study::{
        figures::{Figures, Replayer},
        grid::{self, JobPanic},
        whatif::{Program, Terms},
    },
    trace::{Control, SegmentLayout},
};

use super::space::{largest_block, needs_large_segments, sizes};

/// What of the settings makes a difference to a program.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Effect {
    expandable: bool,
    max_split: Bytes,
    non_split: Bytes,
    large_segment: Bytes,
    /// Which of the ways to round.
    rounding: usize,
    /// Bits of the doubles.
    collect: [u64; 2],
    /// Everything else, as a string.
    rest: String,
}

/// A program, the terms, and what is known already.
pub(super) struct Replays<'a> {
    program: &'a Program,
    terms: &'a Terms,
    threads: NonZeroUsize,
    /// Sizes that are asked, each once.
    sizes: Vec<Bytes>,
    /// The rounded sizes of each way to round.
    roundings: Vec<Vec<Bytes>>,
    /// Largest segment of the start.
    start: Bytes,
    /// Whether nothing changes the settings while the program runs.
    is_fixed: bool,
    known: FxHashMap<Effect, Figures>,
    /// Replays made.
    pub(super) made: u64,
}

impl<'a> Replays<'a> {
    pub(super) fn new(program: &'a Program, terms: &'a Terms, threads: NonZeroUsize) -> Self {
        let mut sizes: Vec<Bytes> = sizes(program).filter(|size| *size < Bytes(1 << 60)).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let controls = program.trace.controls();
        let changes =
            |control: &Control| matches!(control, Control::Settings(_) | Control::SetFraction(_));
        let start = program.trace.start().segments.iter().map(SegmentLayout::size).max();
        Self {
            program,
            terms,
            threads,
            sizes,
            roundings: Vec::new(),
            start: start.unwrap_or_default(),
            is_fixed: !controls.iter().any(changes),
            known: FxHashMap::default(),
            made: 0,
        }
    }

    /// The figures of each of these settings, in their order.
    pub(super) fn all(&mut self, confs: &[AllocConf]) -> Result<Vec<Figures>, JobPanic> {
        let effects: Vec<Effect> = confs.iter().map(|conf| self.effect(conf)).collect();
        let mut todo: Vec<usize> = Vec::new();
        for (i, effect) in effects.iter().enumerate() {
            let is_new = !self.known.contains_key(effect)
                && !todo.iter().any(|other| effects[*other] == *effect);
            if is_new {
                todo.push(i);
            }
        }
        let work = |replayer: &mut Replayer, job: usize| {
            let conf = confs[todo[job]].clone();
            replayer.figures(self.program, &Terms { conf, ..self.terms.clone() })
        };
        let done = grid::collect(todo.len(), self.threads, Replayer::new, work);
        for (i, figures) in todo.into_iter().zip(done) {
            self.made += 1;
            self.known.insert(effects[i].clone(), figures?);
        }
        Ok(effects.iter().filter_map(|effect| self.known.get(effect)).cloned().collect())
    }

    /// Which way of rounding these divisions are.
    fn rounding(&mut self, divisions: &[u64; 16]) -> usize {
        let one = DivisionOne::of(self.terms.release);
        let rounded: Vec<Bytes> =
            self.sizes.iter().map(|size| round_size(*size, divisions, one)).collect();
        let known = self.roundings.iter().position(|known| *known == rounded);
        known.unwrap_or_else(|| {
            self.roundings.push(rounded);
            self.roundings.len() - 1
        })
    }

    fn effect(&mut self, conf: &AllocConf) -> Effect {
        let rounding = self.rounding(&conf.roundup_power2_divisions);
        let rest = AllocConf {
            expandable_segments: false,
            max_split_size: Bytes::MAX,
            max_non_split_rounding_size: Bytes::ZERO,
            large_segment_size: Bytes::ZERO,
            roundup_power2_divisions: [0; 16],
            garbage_collection_threshold: 0.0,
            per_process_memory_fraction: 1.0,
            last_settings: String::new(),
            ..conf.clone()
        };
        let mut effect = Effect {
            expandable: conf.expandable_segments,
            max_split: conf.max_split_size,
            non_split: conf.max_non_split_rounding_size,
            large_segment: conf.large_segment_size,
            rounding,
            collect: [
                conf.garbage_collection_threshold.to_bits(),
                conf.per_process_memory_fraction.to_bits(),
            ],
            rest: format!("{rest:?}"),
        };
        if self.is_fixed {
            self.simplify(&mut effect, conf);
        }
        effect
    }

    fn simplify(&self, effect: &mut Effect, conf: &AllocConf) {
        let rounded = &self.roundings[effect.rounding];
        if !effect.expandable {
            if effect.max_split > largest_block(rounded, effect.large_segment, self.start) {
                effect.max_split = Bytes::MAX;
            }
            if !needs_large_segments(rounded) {
                effect.large_segment = Bytes::ZERO;
            }
        }
        // Only oversize requests look at it.
        if effect.max_split == Bytes::MAX {
            effect.non_split = Bytes::ZERO;
        }
        // Without a limit nothing is collected.
        let none = [0.0_f64.to_bits(), 1.0_f64.to_bits()];
        if conf.per_process_memory_fraction >= 1.0 {
            effect.collect = none;
        }
        // A limit that the same replay without one stays below, with nothing refused, and a collection
        // that never begins.
        let limit = self.terms.capacity.scale(conf.per_process_memory_fraction);
        let threshold = conf.garbage_collection_threshold;
        let begins = if threshold > 0.0 { limit.scale(threshold) } else { limit };
        let free = Effect { collect: none, ..effect.clone() };
        if !conf.throw_on_cudamalloc_oom
            && let Some(figures) = self.known.get(&free)
            && figures.reserved.reserved <= begins.min(limit)
            && figures.levels.refused == Bytes::MAX
        {
            effect.collect = none;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::Release, study::whatif::Start, trace::script};

    /// Settings that count as one give the same figures; the number of replays shows that they did.
    #[test]
    fn settings_that_change_nothing_are_replayed_once_and_say_the_same() {
        let trace = "a = alloc 30MiB; b = alloc 12MiB; c = alloc 500; free a; d = alloc 14MiB; \
                     e = alloc 40MiB; free b; free d; f = alloc 12MiB; g = alloc 13MiB";
        let program = Program::of(&script::parse(trace).unwrap(), Start::AsRecorded).unwrap();
        let release = Release::NEWEST;
        let lines = [
            "",
            "max_split_size_mb:41",
            "max_split_size_mb:4000",
            "large_segment_size_mb:64",
            "max_non_split_rounding_mb:64",
            "garbage_collection_threshold:0.5",
            "garbage_collection_threshold:0.9,per_process_memory_fraction:0.99",
            "roundup_power2_divisions:[1:4,2:0,>:0]",
        ];
        let others = ["max_split_size_mb:21", "expandable_segments:True"];
        let conf = |text: &str| AllocConf::from_string(release, text).unwrap().0;
        let terms = Terms::new(release, conf(""), Bytes::mib(150));
        let mut replays = Replays::new(&program, &terms, NonZeroUsize::MIN);
        let mut alone = Replayer::new();
        for line in lines.iter().chain(&others) {
            let figures = &replays.all(&[conf(line)]).unwrap()[0];
            let terms = Terms { conf: conf(line), ..terms.clone() };
            assert_eq!(*figures, alone.figures(&program, &terms), "{line}");
        }
        assert_eq!(replays.made, 3);
    }
}
