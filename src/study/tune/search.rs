//! The search over the grid: one key after another from the best few, until nothing gets better.

use std::cmp::Ordering;

use rustc_hash::FxHashMap;

use crate::{
    models::pytorch::conf::AllocConf,
    study::{figures::Figures, grid::JobPanic, price::Prices},
};

use super::{
    replays::Replays,
    space::{AXES, Choice, Point, Space},
};

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objective {
    /// To survive at this capacity, with as few settings as possible.
    Survive,
    /// To reserve as little as possible at the worst moment.
    Reserved,
    /// To spend as little as possible on calls of the driver.
    Calls,
    /// To see what can be had for what: reserved bytes against calls.
    Pareto,
}

/// How good some settings are; less is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Score {
    dies: bool,
    /// Operations that are not reached.
    left: u64,
    /// What the objective measures.
    pub(super) first: f64,
    second: f64,
    keys: usize,
}

impl Score {
    pub(super) fn new(
        objective: Objective,
        figures: &Figures,
        keys: usize,
        prices: &Prices,
        ops: u64,
    ) -> Self {
        let reserved = number(figures.reserved.reserved.0);
        let price = prices.of(figures);
        let (first, second) = match objective {
            Objective::Survive => (number(keys as u64), reserved),
            Objective::Reserved | Objective::Pareto => (reserved, price),
            Objective::Calls => (price, reserved),
        };
        let left = figures.death.as_ref().map_or(0, |death| ops.saturating_sub(death.op));
        Self { dies: !figures.survives(), left, first, second, keys }
    }

    pub(super) fn survives(&self) -> bool {
        !self.dies
    }

    pub(super) fn compare(&self, other: &Self) -> Ordering {
        let by_fate = self.dies.cmp(&other.dies).then(self.left.cmp(&other.left));
        by_fate
            .then(self.first.total_cmp(&other.first))
            .then(self.second.total_cmp(&other.second))
            .then(self.keys.cmp(&other.keys))
    }
}

#[expect(clippy::cast_precision_loss, reason = "compared, not shown; figures are below 2^53")]
pub(super) fn number(value: u64) -> f64 {
    value as f64
}

/// Some settings and what they come to.
#[derive(Clone, Debug)]
pub struct Tried {
    /// The settings.
    pub conf: AllocConf,
    /// How many keys they name.
    pub keys: usize,
    /// The replay.
    pub figures: Figures,
}

/// Keys that a line of settings names.
pub(super) fn keys(conf: &AllocConf) -> usize {
    // Commas inside of lists part no keys.
    let mut depth = 0_i32;
    let mut keys = usize::from(!conf.last_settings.is_empty());
    for c in conf.last_settings.chars() {
        depth += i32::from(c == '[') - i32::from(c == ']');
        keys += usize::from(c == ',' && depth == 0);
    }
    keys
}

/// The search of one program.
pub(super) struct Search<'a, 'b> {
    pub(super) space: &'a Space,
    pub(super) replays: &'a mut Replays<'b>,
    pub(super) prices: &'a Prices,
    pub(super) ops: u64,
    /// Everything tried, in the order in which it was; settings by their line.
    pub(super) tried: Vec<Tried>,
    by_line: FxHashMap<String, usize>,
}

impl<'a, 'b> Search<'a, 'b> {
    pub(super) fn new(
        space: &'a Space,
        replays: &'a mut Replays<'b>,
        prices: &'a Prices,
        ops: u64,
    ) -> Self {
        Self { space, replays, prices, ops, tried: Vec::new(), by_line: FxHashMap::default() }
    }

    pub(super) fn score(&self, objective: Objective, tried: usize) -> Score {
        let Tried { figures, keys, .. } = &self.tried[tried];
        Score::new(objective, figures, *keys, self.prices, self.ops)
    }

    /// Tries these settings; where each of them stands in `tried`.
    fn attempt(&mut self, confs: Vec<AllocConf>) -> Result<Vec<usize>, JobPanic> {
        let figures = self.replays.all(&confs)?;
        let mut places = Vec::new();
        for (conf, figures) in confs.into_iter().zip(figures) {
            let line = conf.last_settings.clone();
            let place = *self.by_line.entry(line).or_insert_with(|| {
                let keys = keys(&conf);
                self.tried.push(Tried { conf, keys, figures });
                self.tried.len() - 1
            });
            places.push(place);
        }
        Ok(places)
    }

    /// Tries these points; each with its place in `tried`. Points without a line are left out.
    fn attempt_points(&mut self, points: Vec<Point>) -> Result<Vec<(Point, usize)>, JobPanic> {
        let with_conf: Vec<(Point, AllocConf)> =
            points.into_iter().filter_map(|point| Some((point, self.space.conf(point)?))).collect();
        let (points, confs): (Vec<Point>, Vec<AllocConf>) = with_conf.into_iter().unzip();
        Ok(points.into_iter().zip(self.attempt(confs)?).collect())
    }

    /// The points of the same world that differ from this one in one key.
    fn neighbours(&self, point: Point) -> Vec<Point> {
        let mut all = Vec::new();
        for axis in 1..AXES.len() {
            for choice in 0..self.space.axes[axis].len() {
                let mut other = point;
                other[axis] = u8::try_from(choice).unwrap_or(u8::MAX);
                if other != point {
                    all.push(other);
                }
            }
        }
        all
    }

    /// Looks for the best settings. With and without expandable segments are two worlds, in which other
    /// keys help: in each of them every key alone, then one key after another from the best few; then
    /// between the values of the grid.
    pub(super) fn run(&mut self, objective: Objective) -> Result<(), JobPanic> {
        for world in 0..self.space.axes[0].len() {
            let mut start = Space::START;
            start[0] = u8::try_from(world).unwrap_or(u8::MAX);
            self.descend(objective, start)?;
        }
        self.refine(objective)
    }

    fn descend(&mut self, objective: Objective, start: Point) -> Result<(), JobPanic> {
        let mut points = vec![start];
        points.extend(self.neighbours(start));
        let mut seen = self.attempt_points(points)?;
        let mut ends = self.best(objective, &mut seen, WIDTH);
        // The best value of each key, all together: keys that help for different reasons add up.
        ends.push(self.combined(objective, start, &seen));
        for _ in 0..ROUNDS {
            let mut around = ends.clone();
            for point in &ends {
                around.extend(self.neighbours(*point));
            }
            let mut next = self.attempt_points(around)?;
            let best = self.best(objective, &mut next, WIDTH);
            if best == ends || self.room() == 0 {
                break;
            }
            ends = best;
        }
        Ok(())
    }

    /// Replays that the search may still take: no more than about a twelfth of the grid in all, where
    /// the grid is not small.
    fn room(&self) -> usize {
        let share = (self.space.len() / 12).max(LEAST);
        usize::try_from(share.saturating_sub(self.replays.made)).unwrap_or(usize::MAX)
    }

    /// The best points of `seen`, best first.
    fn best(
        &self,
        objective: Objective,
        seen: &mut Vec<(Point, usize)>,
        count: usize,
    ) -> Vec<Point> {
        seen.sort_by(|(a_point, a), (b_point, b)| {
            let by_score = self.score(objective, *a).compare(&self.score(objective, *b));
            by_score.then(a_point.cmp(b_point))
        });
        // Settings that come to the same are one.
        let mut best: Vec<(Point, usize)> = Vec::new();
        for (point, tried) in seen.iter() {
            let figures = &self.tried[*tried].figures;
            if best.len() < count
                && !best.iter().any(|(_, other)| self.tried[*other].figures == *figures)
            {
                best.push((*point, *tried));
            }
        }
        best.into_iter().map(|(point, _)| point).collect()
    }

    /// `start` with the value of each other key that is best alone.
    fn combined(&self, objective: Objective, start: Point, seen: &[(Point, usize)]) -> Point {
        let mut all = start;
        for axis in 1..AXES.len() {
            let alone = seen.iter().filter(|(point, _)| {
                (0..AXES.len()).all(|other| other == axis || point[other] == start[other])
            });
            let best = alone.min_by(|(_, a), (_, b)| {
                self.score(objective, *a).compare(&self.score(objective, *b))
            });
            if let Some((point, _)) = best {
                all[axis] = point[axis];
            }
        }
        all
    }

    /// Values between those of the grid, around the best settings: sizes halfway to their neighbours,
    /// and divisions for one interval of sizes after another.
    fn refine(&mut self, objective: Objective) -> Result<(), JobPanic> {
        for _ in 0..REFINEMENTS {
            let Some(best) = self.best_tried(objective) else { return Ok(()) };
            if objective == Objective::Survive && self.score(objective, best).survives() {
                return Ok(());
            }
            let conf = self.tried[best].conf.clone();
            let others: Vec<AllocConf> = self
                .between(&conf)
                .into_iter()
                .chain(self.intervals(&conf))
                .filter_map(|conf| self.space.checked(conf))
                .take(self.room())
                .collect();
            self.attempt(others)?;
            if self.best_tried(objective) == Some(best) {
                return Ok(());
            }
        }
        Ok(())
    }

    pub(super) fn best_tried(&self, objective: Objective) -> Option<usize> {
        (0..self.tried.len()).min_by(|a, b| {
            self.score(objective, *a).compare(&self.score(objective, *b)).then(a.cmp(b))
        })
    }

    /// Sizes halfway between the one that is set and the next ones of the grid.
    fn between(&self, conf: &AllocConf) -> Vec<AllocConf> {
        let mut all = Vec::new();
        let mut halves = |axis: usize, value: u64, set: &dyn Fn(&mut AllocConf, u64)| {
            let known = self.space.axes[axis].iter().filter_map(|choice| match choice {
                Choice::MaxSplit(size) => *size,
                Choice::LargeSegment(size) => Some(*size),
                _ => None,
            });
            let known: Vec<u64> = known.collect();
            let below = known.iter().filter(|known| **known < value).max();
            let above = known.iter().filter(|known| **known > value).min();
            for other in [below, above].into_iter().flatten() {
                let half = other.midpoint(value);
                if half != value && half != *other {
                    let mut changed = conf.clone();
                    set(&mut changed, half);
                    all.push(changed);
                }
            }
        };
        if conf.max_split_size != crate::base::Bytes::MAX {
            let set = |conf: &mut AllocConf, size| Choice::MaxSplit(Some(size)).set(conf);
            halves(1, conf.max_split_size.0 >> 20, &set);
        }
        if self.space.axes[3].len() > 1 {
            let set = |conf: &mut AllocConf, size| {
                let follows = conf.max_non_split_rounding_size == conf.large_segment_size;
                Choice::LargeSegment(size).set(conf);
                if follows {
                    Choice::NonSplit(None).set(conf);
                }
            };
            halves(3, conf.large_segment_size.0 >> 20, &set);
        }
        all
    }

    /// Other divisions for one interval of sizes.
    fn intervals(&self, conf: &AllocConf) -> Vec<AllocConf> {
        let table = conf.roundup_power2_divisions;
        if self.space.axes[2].len() <= 1 || table == [0; 16] {
            return Vec::new();
        }
        let mut all = Vec::new();
        for (interval, value) in table.into_iter().enumerate() {
            for divisions in [0, 2, 4, 8, 16] {
                if value != divisions {
                    let mut changed = conf.clone();
                    changed.roundup_power2_divisions[interval] = divisions;
                    all.push(changed);
                }
            }
        }
        all
    }
}

/// Replays that a search may take however small the grid is.
const LEAST: u64 = 100;
/// Settings from which the search goes on after each key was tried alone.
const WIDTH: usize = 2;
/// Times that every key is tried again at most.
const ROUNDS: usize = 4;
/// Times that values between those of the grid are tried at most.
const REFINEMENTS: usize = 3;
