//! Does it hold elsewhere? Settings on programs that were not searched.

use crate::{
    base::Bytes,
    models::pytorch::conf::AllocConf,
    study::{
        figures::{Figures, Replayer},
        grid,
        whatif::{Program, Terms},
    },
};

use super::{TuneError, TuneOptions};

/// How far sizes go up and down.
const SPREAD: f64 = 0.1;

/// On what settings were checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// The second half of the program.
    SecondHalf,
    /// Another rank: its place among those given.
    Rank(usize),
    /// Every size within 10 % of what it was; the seed.
    Sizes(u64),
}

/// Two settings on one program: those one starts from, and the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// The program.
    pub kind: CheckKind,
    /// Whether it survives under the settings one starts from.
    pub start_survives: bool,
    /// What it reserves under them.
    pub start_reserved: Bytes,
    /// Whether it survives.
    pub survives: bool,
    /// What it reserves.
    pub reserved: Bytes,
}

/// All settings on one program.
pub(super) struct Row {
    kind: CheckKind,
    figures: Vec<Figures>,
}

impl Row {
    /// Whether settings fail here: they die, or take more than those one starts from.
    pub(super) fn fails(&self, nth: usize) -> bool {
        let (start, other) = (&self.figures[0], &self.figures[nth]);
        !other.survives() || (start.survives() && other.reserved.reserved > start.reserved.reserved)
    }

    pub(super) fn of(&self, nth: usize) -> Check {
        let (start, other) = (&self.figures[0], &self.figures[nth]);
        Check {
            kind: self.kind,
            start_survives: start.survives(),
            start_reserved: start.reserved.reserved,
            survives: other.survives(),
            reserved: other.reserved.reserved,
        }
    }
}

/// All settings on all programs.
pub(super) struct Panel {
    pub(super) checks: Vec<Row>,
    pub(super) replays: u64,
}

/// Replays each of the settings on the second half, the other ranks and the programs of other sizes.
pub(super) fn panel(
    program: &Program,
    terms: &Terms,
    ranks: &[Program],
    confs: &[AllocConf],
    options: &TuneOptions,
) -> Result<Panel, TuneError> {
    let seeds = (0..u64::from(options.perturbations)).map(|n| options.seed.wrapping_add(n));
    let mut kinds = vec![CheckKind::SecondHalf];
    kinds.extend((0..ranks.len()).map(CheckKind::Rank));
    kinds.extend(seeds.map(CheckKind::Sizes));
    let work = |replayer: &mut Replayer, job: usize| -> Result<Vec<Figures>, TuneError> {
        let made;
        // Made here and dropped here: however many there are, one a thread is in memory.
        let program = match kinds[job] {
            CheckKind::Rank(rank) => &ranks[rank],
            CheckKind::SecondHalf => {
                made = program.second_half()?;
                &made
            }
            CheckKind::Sizes(seed) => {
                made = program.perturbed(seed, SPREAD)?;
                &made
            }
        };
        let figures = confs
            .iter()
            .map(|conf| replayer.figures(program, &Terms { conf: conf.clone(), ..terms.clone() }));
        Ok(figures.collect())
    };
    let mut checks = Vec::new();
    for (kind, figures) in
        kinds.iter().zip(grid::collect(kinds.len(), options.threads, Replayer::new, work))
    {
        checks.push(Row { kind: *kind, figures: figures?? });
    }
    let replays = (kinds.len() * confs.len()) as u64;
    Ok(Panel { checks, replays })
}
