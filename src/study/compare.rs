//! The same program under several settings, side by side.

use std::num::NonZeroUsize;

use crate::{base::Release, models::pytorch::conf::AllocConf};

use super::{
    figures::{Figures, Replayer},
    grid::{self, JobPanic},
    price::Prices,
    whatif::{Program, Terms},
};

/// The lines that people try first.
pub const COMMON: [&str; 9] = [
    "",
    "expandable_segments:True",
    "max_split_size_mb:128",
    "max_split_size_mb:512",
    "garbage_collection_threshold:0.8",
    "garbage_collection_threshold:0.8,per_process_memory_fraction:0.95",
    "roundup_power2_divisions:4",
    "roundup_power2_divisions:[256:1,512:2,1024:4,>:8]",
    "large_segment_size_mb:64",
];

/// Those of [`COMMON`] that a release takes.
pub fn common(release: Release) -> impl Iterator<Item = (&'static str, AllocConf)> {
    COMMON
        .into_iter()
        .filter_map(move |text| Some((text, AllocConf::from_string(release, text).ok()?.0)))
}

/// Replays a program under each of these terms, in their order.
///
/// # Errors
/// The first job that failed by a bug.
pub fn compare(
    program: &Program,
    terms: &[Terms],
    threads: NonZeroUsize,
) -> Result<Vec<Figures>, JobPanic> {
    let work = |replayer: &mut Replayer, job: usize| replayer.figures(program, &terms[job]);
    grid::collect(terms.len(), threads, Replayer::new, work).into_iter().collect()
}

/// What a row can be best in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Best {
    /// Nobody that survives reserves less.
    pub reserved: bool,
    /// Nobody that survives wastes less.
    pub waste: bool,
    /// Nobody that survives retries less often.
    pub retries: bool,
    /// Nobody that survives pays less.
    pub price: bool,
}

/// What each row is best in. Rows that die are best in nothing; nor is anybody where all are alike.
pub fn best(rows: &[Figures], prices: &Prices) -> Vec<Best> {
    let alive = || rows.iter().filter(|row| row.survives());
    let least = |of: &dyn Fn(&Figures) -> f64| {
        let values = || alive().map(of);
        let least = values().fold(f64::INFINITY, f64::min);
        (values().any(|value| value > least)).then_some(least)
    };
    let is_least = |row: &Figures, of: &dyn Fn(&Figures) -> f64, least: Option<f64>| {
        row.survives() && least.is_some_and(|least| of(row) <= least)
    };
    let reserved = |row: &Figures| bytes(row.reserved.reserved.0);
    let waste = |row: &Figures| bytes(row.waste().0);
    let retries = |row: &Figures| bytes(row.retries);
    let price = |row: &Figures| prices.of(row);
    let lowest = [least(&reserved), least(&waste), least(&retries), least(&price)];
    rows.iter()
        .map(|row| Best {
            reserved: is_least(row, &reserved, lowest[0]),
            waste: is_least(row, &waste, lowest[1]),
            retries: is_least(row, &retries, lowest[2]),
            price: is_least(row, &price, lowest[3]),
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "compared, not shown; figures are below 2^53")]
fn bytes(value: u64) -> f64 {
    value as f64
}
