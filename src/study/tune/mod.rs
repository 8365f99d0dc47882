//! Which settings suit a program best.
//!
//! ```text
//!  space.rs    the grid: every key that matters, the values that the program's sizes tell apart
//!  search.rs   each key alone, then one after another from the best, then between the values
//!  replays.rs  replays on all cores; what provably changes nothing is not replayed again
//!  checks.rs   does it hold for the second half, other ranks, other sizes?
//!  empties.rs  calls of empty_cache, on request
//! ```
//! A search finds what is best for what was recorded. So the best few are checked on programs that
//! were not searched, and the one that fails least is the answer; where no setting is better than
//! those one starts from by more than a percent, the answer is that nothing helps.

mod checks;
mod empties;
mod replays;
mod search;
mod space;

use std::num::NonZeroUsize;

pub use self::{
    checks::{Check, CheckKind},
    empties::{Emptied, empty_cache},
    search::{Objective, Tried},
    space::{AXES, Choice, Point, Space},
};

use crate::{models::pytorch::conf::AllocConf, trace::TraceError};

use self::{
    checks::{Panel, panel},
    replays::Replays,
    search::{Score, Search, keys},
};
use super::{
    grid::JobPanic,
    price::Prices,
    whatif::{Program, Terms},
};

/// A gain below this share is none.
const WORTH: f64 = 0.01;
/// Settings within this share of the best are as good; the simplest of them is taken.
const AS_GOOD: f64 = 0.005;
/// Settings that are checked.
const CHECKED: usize = 6;

/// What is searched, and how.
#[derive(Clone, Debug)]
pub struct TuneOptions {
    /// What is wanted.
    pub objective: Objective,
    /// What calls cost.
    pub prices: Prices,
    /// Programs with other sizes to check on.
    pub perturbations: u32,
    /// Seed of the first of them.
    pub seed: u64,
    /// Threads to replay on.
    pub threads: NonZeroUsize,
}

/// What a search came to.
#[derive(Clone, Debug)]
pub struct Tuned {
    /// The settings one starts from.
    pub start: Tried,
    /// The best settings found; `None` if none is worth a change.
    pub best: Option<Tried>,
    /// The settings that come furthest, where none survives.
    pub furthest: Option<Tried>,
    /// Settings of which no other is better in both reserved bytes and price by a percent, least
    /// reserved first; only for [`Objective::Pareto`].
    pub front: Vec<Tried>,
    /// How the best settings, and those one starts from, did elsewhere.
    pub checks: Vec<Check>,
    /// Points of the grid that the release takes as settings.
    pub grid: u64,
    /// Replays of the program that the search took.
    pub replays: u64,
    /// Replays that the checks took.
    pub check_replays: u64,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// A bug.
    #[error(transparent)]
    Job(#[from] JobPanic),
    /// A variant of the program has too many operations.
    #[error(transparent)]
    Trace(#[from] TraceError),
}

/// Searches `space` for the settings that suit a program best; `ranks` are programs of the same job.
///
/// # Errors
/// When a replay fails by a bug, or there are too many operations to number.
///
/// # Complexity
/// Some hundred replays for the search, and ten for each of the few settings that are checked.
pub fn tune(
    program: &Program,
    terms: &Terms,
    space: &Space,
    ranks: &[Program],
    options: &TuneOptions,
) -> Result<Tuned, TuneError> {
    let mut replays = Replays::new(program, terms, options.threads);
    let mut search = Search::new(space, &mut replays, &options.prices, program.asked());
    search.run(options.objective)?;
    if options.objective == Objective::Pareto {
        search.run(Objective::Calls)?;
    }
    // The search begins with them.
    let start = search.tried[0].clone();
    let candidates = candidates(&search, options.objective);
    let front = match options.objective {
        Objective::Pareto => front(&search.tried, &options.prices),
        _ => Vec::new(),
    };
    let furthest = search.best_tried(options.objective).map(|best| search.tried[best].clone());
    let score = |tried: &Tried| {
        let Tried { figures, keys, .. } = tried;
        Score::new(options.objective, figures, *keys, &options.prices, program.asked())
    };
    let start_score = score(&start);
    let (made, grid) = (search.replays.made, space.valid());
    let is_better = |tried: &Tried| match (options.objective, start.figures.survives()) {
        (_, false) => tried.figures.survives(),
        (Objective::Survive, true) => false,
        _ => score(tried).first < start_score.first * (1.0 - WORTH),
    };
    let candidates: Vec<Tried> = candidates.into_iter().filter(is_better).collect();
    let mut tuned = Tuned {
        start,
        best: None,
        furthest: furthest.filter(|tried| !tried.figures.survives()),
        front,
        checks: Vec::new(),
        grid,
        replays: made,
        check_replays: 0,
    };
    if candidates.is_empty() {
        return Ok(tuned);
    }
    let mut confs: Vec<AllocConf> = vec![tuned.start.conf.clone()];
    confs.extend(candidates.iter().map(|tried| tried.conf.clone()));
    let Panel { checks, replays } = panel(program, terms, ranks, &confs, options)?;
    tuned.check_replays = replays;
    let failures = |nth: usize| checks.iter().filter(|check| check.fails(nth + 1)).count();
    let best = (0..candidates.len()).min_by(|a, b| {
        let by_checks = failures(*a).cmp(&failures(*b));
        let by_keys = candidates[*a].keys.cmp(&candidates[*b].keys);
        by_checks.then(by_keys).then(score(&candidates[*a]).compare(&score(&candidates[*b])))
    });
    if let Some(best) = best {
        tuned.checks = checks.into_iter().map(|check| check.of(best + 1)).collect();
        tuned.best = Some(candidates[best].clone());
    }
    Ok(tuned)
}

/// The few settings worth checking, best first.
fn candidates(search: &Search, objective: Objective) -> Vec<Tried> {
    let mut alive: Vec<(Score, &Tried)> = (0..search.tried.len())
        .map(|i| (search.score(objective, i), &search.tried[i]))
        .filter(|(score, _)| score.survives())
        .collect();
    alive.sort_by(|(a, _), (b, _)| a.compare(b));
    if objective == Objective::Survive {
        return alive.into_iter().take(CHECKED).map(|(_, tried)| tried.clone()).collect();
    }
    let Some(best) = alive.first().map(|(score, _)| score.first) else { return Vec::new() };
    alive.retain(|(score, _)| score.first <= best * (1.0 + AS_GOOD));
    alive.sort_by(|(a_score, a), (b_score, b)| a.keys.cmp(&b.keys).then(a_score.compare(b_score)));
    alive.into_iter().take(CHECKED).map(|(_, tried)| tried.clone()).collect()
}

/// The survivors of which no other is better in both, by more than a hair.
fn front(tried: &[Tried], prices: &Prices) -> Vec<Tried> {
    let mut alive: Vec<(u64, f64, &Tried)> = tried
        .iter()
        .filter(|tried| tried.figures.survives())
        .map(|tried| (tried.figures.reserved.reserved.0, prices.of(&tried.figures), tried))
        .collect();
    alive.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.keys.cmp(&b.2.keys)));
    let mut front: Vec<Tried> = Vec::new();
    let mut cheapest = f64::INFINITY;
    for (_, price, tried) in alive {
        // A percent is nothing to choose by.
        if price < cheapest * (1.0 - WORTH) {
            cheapest = price;
            front.push(tried.clone());
        }
    }
    front
}

/// Tries every point of a grid: what a search is held against.
///
/// # Errors
/// When a replay fails by a bug.
pub fn exhaustive(
    program: &Program,
    terms: &Terms,
    space: &Space,
    threads: NonZeroUsize,
) -> Result<Vec<Tried>, JobPanic> {
    let confs: Vec<AllocConf> = space.points().filter_map(|point| space.conf(point)).collect();
    let figures = Replays::new(program, terms, threads).all(&confs)?;
    let tried = confs.into_iter().zip(figures);
    Ok(tried.map(|(conf, figures)| Tried { keys: keys(&conf), conf, figures }).collect())
}
