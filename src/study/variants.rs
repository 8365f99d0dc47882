//! Programs like a given one: a part of it, other sizes, `empty_cache` at other places. What holds for
//! a program only by luck does not hold for these.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustc_hash::FxHashMap;

use crate::{
    base::{Bytes, Id, OpIndex},
    trace::{AllocOp, Control, Op, TraceError},
};

use super::{copying::Copying, whatif::Program};

/// How a variant differs.
struct Changes<'a> {
    /// Whether an operation stays.
    keeps: &'a dyn Fn(usize, &Op) -> bool,
    /// Whether a request that failed in the recording and stands before this operation stays.
    keeps_failed: &'a dyn Fn(OpIndex) -> bool,
    /// What is asked instead of a size.
    size: &'a dyn Fn(Bytes) -> Bytes,
    /// Operations before which `empty_cache` is called, in order.
    empties: &'a [OpIndex],
}

impl Program {
    fn changed(&self, changes: &Changes) -> Result<Self, TraceError> {
        let trace = &self.trace;
        let mut copying = Copying::of(trace)?;
        copying.keep_start()?;
        let mut failed = Vec::new();
        let mut to_fail = self.failed.iter().peekable();
        let mut empties = changes.empties.iter().peekable();
        for (i, op) in trace.ops().iter().enumerate() {
            let at = OpIndex::from_index(i);
            while empties.next_if(|empty| **empty <= at).is_some() {
                copying.builder.push(Op::EmptyCache)?;
            }
            while let Some((before, request)) = to_fail.next_if(|(before, _)| *before <= at) {
                if (changes.keeps_failed)(*before) {
                    let size = (changes.size)(request.size);
                    failed.push((copying.builder.next_op(), AllocOp { size, ..*request }));
                }
            }
            if !(changes.keeps)(i, op) {
                continue;
            }
            copying.push(op, changes.size)?;
        }
        for (before, request) in to_fail {
            if (changes.keeps_failed)(*before) {
                let size = (changes.size)(request.size);
                failed.push((copying.builder.next_op(), AllocOp { size, ..*request }));
            }
        }
        Ok(Self { trace: copying.build()?, failed, reallocated: self.reallocated })
    }

    /// The second half of the operations. What is live at its beginning is asked for first, in the
    /// order in which it was; management calls of the first half stay.
    ///
    /// # Errors
    /// When there are too many operations to number.
    pub fn second_half(&self) -> Result<Self, TraceError> {
        let ops = self.trace.ops();
        let middle = ops.len() / 2;
        let mut is_gone = vec![false; self.trace.alloc_count() as usize];
        for op in &ops[..middle] {
            if let Op::Free(free) = op {
                is_gone[free.id.index()] = true;
            }
        }
        let keeps = |i: usize, op: &Op| match op {
            _ if i >= middle => true,
            Op::Alloc(alloc) => !is_gone[alloc.id.index()],
            Op::RecordStream(id, _) => !is_gone[id.index()],
            Op::Control(id) => {
                !matches!(self.trace.controls()[*id], Control::EmptyPool(_) | Control::Snapshot(_))
            }
            // The start keeps its blocks until they are freed.
            Op::Free(free) => self.trace.start_ids().contains(&free.id),
            Op::FreeCompleted(_) | Op::EmptyCache => false,
        };
        self.changed(&Changes {
            keeps: &keeps,
            keeps_failed: &|before| before.index() >= middle,
            size: &|size| size,
            empties: &[],
        })
    }

    /// The same program with other sizes: each size becomes one within `spread` of it (0.1 is 10 %),
    /// the same one wherever it is asked. The same seed gives the same program.
    ///
    /// # Errors
    /// When there are too many operations to number.
    pub fn perturbed(&self, seed: u64, spread: f64) -> Result<Self, TraceError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut sizes: FxHashMap<Bytes, Bytes> = FxHashMap::default();
        let asked = self.trace.ops().iter().filter_map(|op| match op {
            Op::Alloc(alloc) => Some(alloc.size),
            _ => None,
        });
        for size in asked.chain(self.failed.iter().map(|(_, request)| request.size)) {
            sizes.entry(size).or_insert_with(|| {
                let factor: f64 = rng.random_range(-spread..=spread);
                let largest = Bytes((1 << 62) - 1);
                let changed = size.scale(1.0 + factor).min(largest);
                if size == Bytes::ZERO { size } else { changed.max(Bytes(1)) }
            });
        }
        self.changed(&Changes {
            keeps: &|_, _| true,
            keeps_failed: &|_| true,
            size: &|size| sizes.get(&size).copied().unwrap_or(size),
            empties: &[],
        })
    }

    /// The same program with calls of `empty_cache` before these operations, which must rise.
    ///
    /// # Errors
    /// When there are too many operations to number.
    pub fn with_empty_cache(&self, before: &[OpIndex]) -> Result<Self, TraceError> {
        self.changed(&Changes {
            keeps: &|_, _| true,
            keeps_failed: &|_| true,
            size: &|size| size,
            empties: before,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{study::whatif::Start, trace::script};

    fn program(text: &str) -> Program {
        Program::of(&script::parse(text).unwrap(), Start::AsRecorded).unwrap()
    }

    fn sizes(program: &Program) -> Vec<u64> {
        let allocs = program.trace.ops().iter().filter_map(|op| match op {
            Op::Alloc(alloc) => Some(alloc.size.0),
            _ => None,
        });
        allocs.collect()
    }

    #[test]
    fn the_second_half_starts_with_what_is_live() {
        let whole = program("a = alloc 1; b = alloc 2; free a; c = alloc 3; d = alloc 4; free b");
        let half = whole.second_half().unwrap();
        assert_eq!(sizes(&half), [2, 3, 4]);
        assert_eq!(half.trace.ops().len(), 4);
    }

    #[test]
    fn equal_sizes_stay_equal_and_every_size_stays_near() {
        let text = "a = alloc 10000000; b = alloc 2000; c = alloc 10000000; d = alloc 1; free a";
        let perturbed = program(text).perturbed(3, 0.1).unwrap();
        let sizes = sizes(&perturbed);
        assert_eq!(sizes[0], sizes[2]);
        assert!((9_000_000..=11_000_000).contains(&sizes[0]) && sizes[0] != 10_000_000);
        assert!((1800..=2200).contains(&sizes[1]) && sizes[3] == 1);
        let again = program(text).perturbed(3, 0.1).unwrap();
        assert_eq!(perturbed.trace.ops(), again.trace.ops());
    }

    #[test]
    fn the_cache_is_emptied_where_it_is_said() {
        let emptied = program("a = alloc 1; free a").with_empty_cache(&[OpIndex(1)]).unwrap();
        assert_eq!(emptied.trace.ops()[1], Op::EmptyCache);
        assert_eq!(emptied.trace.ops().len(), 3);
    }
}
