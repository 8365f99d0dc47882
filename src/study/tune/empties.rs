//! Where a call of `torch.cuda.empty_cache()` would help.

use std::num::NonZeroUsize;

use crate::{
    base::{Bytes, Id, OpIndex},
    study::{
        figures::{Figures, Replayer},
        grid,
        price::Prices,
        whatif::{Program, Terms},
    },
    trace::Op,
};

use super::{
    TuneError, WORTH,
    search::{Objective, Score},
};

/// Places that are tried.
const PLACES: usize = 24;

/// A call of `empty_cache` that helps.
#[derive(Clone, Debug)]
pub struct Emptied {
    /// The operation before which it stands, counted as [`Program::asked`] counts.
    pub before: u64,
    /// What the program comes to with it.
    pub figures: Figures,
}

/// Tries a call of `empty_cache` where least is live, in each of some parts of the program, and says
/// which of them helps most; `None` if none is worth it.
///
/// # Errors
/// When a replay fails by a bug, or there are too many operations to number.
///
/// # Complexity
/// A replay for each of 24 places.
pub fn empty_cache(
    program: &Program,
    terms: &Terms,
    objective: Objective,
    prices: &Prices,
    threads: NonZeroUsize,
) -> Result<Option<Emptied>, TuneError> {
    let places = lulls(program);
    // The first job is the program as it is.
    let work = |replayer: &mut Replayer, job: usize| -> Result<Figures, TuneError> {
        Ok(match job.checked_sub(1) {
            None => replayer.figures(program, terms),
            Some(place) => {
                let emptied = program.with_empty_cache(&[places[place]])?;
                replayer.figures(&emptied, terms)
            }
        })
    };
    let mut figures = Vec::new();
    for result in grid::collect(places.len() + 1, threads, Replayer::new, work) {
        figures.push(result??);
    }
    let ops = program.asked();
    let score = |figures: &Figures| Score::new(objective, figures, 0, prices, ops);
    let before = score(&figures[0]);
    let best = (1..figures.len()).min_by(|a, b| score(&figures[*a]).compare(&score(&figures[*b])));
    let Some(best) = best else { return Ok(None) };
    let after = score(&figures[best]);
    let helps = match (before.survives(), after.survives()) {
        (_, false) | (true, true) if objective == Objective::Survive => false,
        (_, false) => false,
        (false, true) => true,
        (true, true) => after.first < before.first * (1.0 - WORTH),
    };
    let place = places[best - 1];
    let asked = program.trace.ops()[..place.index()]
        .iter()
        .filter(|op| !matches!(op, Op::FreeCompleted(_)))
        .count();
    let figures = figures.swap_remove(best);
    Ok(helps.then_some(Emptied { before: asked as u64, figures }))
}

/// The operations before which least is live, one in each part of the program.
fn lulls(program: &Program) -> Vec<OpIndex> {
    let ops = program.trace.ops();
    let part = ops.len().div_ceil(PLACES).max(1);
    let mut sizes = vec![Bytes::ZERO; program.trace.alloc_count() as usize];
    let mut live: u128 = 0;
    let mut lulls: Vec<(usize, u128)> = Vec::new();
    for (i, op) in ops.iter().enumerate() {
        if i > 0 {
            match lulls.get_mut(i / part) {
                None => lulls.push((i, live)),
                Some(least) if live < least.1 => *least = (i, live),
                Some(_) => {}
            }
        } else {
            lulls.push((i, u128::MAX));
        }
        match op {
            Op::Alloc(alloc) => {
                sizes[alloc.id.index()] = alloc.size;
                live += u128::from(alloc.size.0);
            }
            Op::Free(free) => {
                let size = std::mem::take(&mut sizes[free.id.index()]);
                live -= u128::from(size.0);
            }
            _ => {}
        }
    }
    lulls.into_iter().map(|(i, _)| OpIndex::from_index(i)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::Release, models::pytorch::conf::AllocConf, study::whatif::Start, trace::script,
    };

    /// Two segments of 30 MiB are cached, and `c` splits one of them for good. Emptied before `c`, it
    /// gets a segment of its own.
    #[test]
    fn a_call_that_lets_a_program_survive_is_found() {
        let text = "a = alloc 30MiB; b = alloc 20MiB; free a; c = alloc 11MiB; free b; \
                    d = alloc 38MiB";
        let program = Program::of(&script::parse(text).unwrap(), Start::AsRecorded).unwrap();
        let terms = Terms::new(Release::NEWEST, AllocConf::new(Release::NEWEST), Bytes::mib(52));
        let threads = NonZeroUsize::MIN;
        let found =
            empty_cache(&program, &terms, Objective::Survive, &Prices::default(), threads).unwrap();
        let found = found.unwrap();
        assert_eq!(found.before, 3);
        assert!(found.figures.survives());
        let roomy = Terms { capacity: Bytes::gib(1), ..terms };
        let none =
            empty_cache(&program, &roomy, Objective::Survive, &Prices::default(), threads).unwrap();
        assert!(none.is_none());
    }
}
