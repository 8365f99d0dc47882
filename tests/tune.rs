//! Searches over many replays: held against trying everything, and against what was really run.

#![expect(clippy::unwrap_used, reason = "a test's panic is its report; helpers are tests too")]
#![expect(clippy::print_stdout, reason = "says what was found, and which data is absent")]

mod common;

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use fragsim::{
    base::{Bytes, Release},
    models::pytorch::conf::AllocConf,
    source::snapshot,
    study::{
        compare::compare,
        grid::all_cores,
        price::Prices,
        tune::{Objective, Space, Tried, TuneOptions, Tuned, exhaustive, tune},
        verify::{VerifyOptions, recorded_conf, resolved},
        whatif::{Program, Start, Terms},
    },
};
use serde_json::Value;

/// A recording as a program, and the terms that it was recorded under, without a limit.
fn recording(path: &Path) -> (Program, Terms) {
    let traces = snapshot::load(path).unwrap().histories().unwrap();
    let (trace, _) = resolved(traces[0].clone(), &VerifyOptions::default());
    let recorded = trace.recorded().unwrap();
    let release = recorded.releases.1;
    let conf = recorded_conf(release, recorded.settings.as_ref()).unwrap();
    let program = Program::of(&trace, Start::Reallocate).unwrap();
    (program, Terms::new(release, conf, Bytes::gib(1 << 14)))
}

fn options(objective: Objective) -> TuneOptions {
    let prices = Prices::default();
    TuneOptions { objective, prices, perturbations: 4, seed: 1, threads: all_cores() }
}

fn tuned(program: &Program, terms: &Terms, objective: Objective) -> Tuned {
    let space = Space::of(program, &terms.conf, terms.release);
    tune(program, terms, &space, &[], &options(objective)).unwrap()
}

// ---- against trying everything -------------------------------------------------------------------

/// The best that any point of the grid does.
fn least(all: &[Tried], of: impl Fn(&Tried) -> f64) -> f64 {
    let alive = all.iter().filter(|tried| tried.figures.survives());
    alive.map(of).fold(f64::INFINITY, f64::min)
}

#[expect(clippy::cast_precision_loss, reason = "a ratio")]
fn reserved(tried: &Tried) -> f64 {
    tried.figures.reserved.reserved.0 as f64
}

/// The search, and every point of its grid: as good within one percent, by a tenth of the replays.
fn check(name: &str, capacity: Option<Bytes>, thin: &[usize]) {
    let (program, mut terms) =
        recording(&common::package("traces/recorded").join(format!("{name}.pickle.gz")));
    terms.capacity = capacity.unwrap_or(terms.capacity);
    let mut space = Space::of(&program, &terms.conf, terms.release);
    for axis in thin {
        space.axes[*axis] = space.axes[*axis].iter().step_by(2).copied().collect();
    }
    let all = exhaustive(&program, &terms, &space, all_cores()).unwrap();
    let prices = Prices::default();
    let price = |tried: &Tried| prices.of(&tried.figures);
    for objective in [Objective::Reserved, Objective::Calls] {
        let tuned = tune(&program, &terms, &space, &[], &options(objective)).unwrap();
        let found = tuned.best.as_ref().unwrap_or(&tuned.start);
        let (best, got) = match objective {
            Objective::Reserved => (least(&all, reserved), reserved(found)),
            _ => (least(&all, price), price(found)),
        };
        println!(
            "{name} {objective:?}: {got} for {best} with {}, {} replays of {}",
            found.conf.last_settings,
            tuned.replays,
            all.len()
        );
        assert!(got <= 1.01 * best, "{name} {objective:?}: {got}, where {best} can be had");
        assert!(
            tuned.replays * 10 <= tuned.grid,
            "{name} {objective:?}: {} replays",
            tuned.replays
        );
        assert_eq!(tuned.grid, space.len());
    }
}

#[test]
fn a_search_finds_what_trying_everything_finds_by_a_tenth_of_the_replays() {
    // To try everything takes long: of some keys every second value.
    check("varlen_oom", Some(Bytes::gib(6)), &[1, 3]);
    check("frag", None, &[3]);
    check("frag", Some(Bytes::gib(2)), &[3]);
}

/// Objective, line and figures do not depend on the number of threads.
#[test]
fn a_search_finds_the_same_on_any_number_of_threads() {
    let path = common::package("traces/recorded/frag.pickle.gz");
    let (program, terms) = recording(&path);
    let terms = Terms { capacity: Bytes::gib(2), ..terms };
    let space = Space::of(&program, &terms.conf, terms.release);
    let run = |threads: usize| {
        let threads = NonZeroUsize::new(threads).unwrap();
        let options = TuneOptions { threads, ..options(Objective::Survive) };
        format!("{:?}", tune(&program, &terms, &space, &[], &options).unwrap())
    };
    let one = run(1);
    for threads in [2, 3, 8] {
        assert_eq!(run(threads), one, "{threads} threads");
    }
}

#[test]
fn where_nothing_helps_it_is_said() {
    let (program, terms) = recording(&common::package("traces/recorded/mlp.pickle.gz"));
    let tight = Terms { capacity: Bytes::mib(16), ..terms.clone() };
    let tuned = tuned(&program, &tight, Objective::Survive);
    assert!(tuned.best.is_none() && tuned.furthest.is_some());
}

// ---- against what was really run -----------------------------------------------------------------

/// A real run of a program.
struct Run {
    file: PathBuf,
    conf: String,
    truth: Value,
}

/// The real runs of a program at one capacity.
fn runs(folder: &str, name: &str) -> Vec<Run> {
    let Some(root) = common::shared("matrix") else { return Vec::new() };
    let mut runs = Vec::new();
    for file in common::files(&root.join(folder), ".json") {
        let stem = file.file_stem().unwrap().to_str().unwrap();
        if stem.rsplit_once('_').is_some_and(|(run, _)| run == name) {
            let truth: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
            let conf = truth["conf"].as_str().unwrap().to_owned();
            runs.push(Run { file, conf, truth });
        }
    }
    runs
}

fn matrix(file: &str) -> Option<(Program, Terms)> {
    Some(recording(&common::shared("matrix")?.join(file)))
}

#[test]
fn compared_figures_are_those_of_the_real_runs() {
    for folder in ["t211", "t215"] {
        for name in ["varlen", "kvcache"] {
            let Some((program, terms)) = matrix(&format!("{folder}/{name}_16G_00.pickle.gz"))
            else {
                return;
            };
            for capacity in ["16G", "7G", "6G", "1800M", "900M", "800M"] {
                let runs = runs(folder, &format!("{name}_{capacity}"));
                let terms: Vec<Terms> = runs
                    .iter()
                    .map(|run| {
                        let (conf, _) = AllocConf::from_string(terms.release, &run.conf).unwrap();
                        let capacity = Bytes(run.truth["total"].as_u64().unwrap());
                        Terms { conf, capacity, ..terms.clone() }
                    })
                    .collect();
                let rows = compare(&program, &terms, all_cores()).unwrap();
                for (run, row) in runs.iter().zip(rows) {
                    let stats = &run.truth["stats"];
                    let real = |key: &str| stats[key].as_u64().unwrap();
                    let file = run.file.display();
                    assert_eq!(row.survives(), run.truth.get("oom").is_none(), "{file}");
                    assert_eq!(
                        row.allocated.allocated.0,
                        real("allocated_bytes.all.peak"),
                        "{file}"
                    );
                    assert_eq!(row.reserved.reserved.0, real("reserved_bytes.all.peak"), "{file}");
                    assert_eq!(row.retries, real("num_alloc_retries"), "{file}");
                }
            }
        }
    }
}

/// The line that the search gives, among the lines that were really run.
fn line_for(file: &str, capacity: Bytes) -> Option<(Tuned, String)> {
    let (program, terms) = matrix(file)?;
    let tuned = tuned(&program, &Terms { capacity, ..terms }, Objective::Survive);
    let line = tuned.best.as_ref().unwrap().conf.last_settings.clone();
    Some((tuned, line))
}

fn real<'a>(runs: &'a [Run], line: &str, release: Release) -> &'a Run {
    let same = |run: &&Run| {
        let conf = AllocConf::from_string(release, &run.conf).unwrap().0;
        conf.same_settings(&AllocConf::from_string(release, line).unwrap().0)
    };
    runs.iter().find(same).unwrap_or_else(|| panic!("'{line}' was not really run"))
}

#[test]
fn the_line_for_varlen_at_6_gib_is_one_under_which_the_real_run_survives() {
    for (folder, torch) in [("t211", "2.11"), ("t215", "2.15")] {
        for recorded in ["varlen_16G_00", "varlen_6G_00"] {
            let file = format!("{folder}/{recorded}.pickle.gz");
            let Some((tuned, line)) = line_for(&file, Bytes::gib(6)) else { return };
            assert!(!tuned.start.figures.survives());
            let runs = runs(folder, "varlen_6G");
            let run = real(&runs, &line, torch.parse().unwrap());
            assert!(run.truth.get("oom").is_none(), "{file}: '{line}' really dies");
        }
    }
}

/// The program goes on until it dies: under a better line it came further, and so beyond what was
/// recorded.
#[test]
fn the_line_for_frag_at_2_gib_is_one_under_which_the_real_run_goes_on() {
    for (folder, torch) in [("t211", "2.11"), ("t215", "2.15")] {
        let file = format!("{folder}/frag_2G_00.pickle.gz");
        let Some((tuned, line)) = line_for(&file, Bytes::gib(2)) else { return };
        assert!(!tuned.start.figures.survives());
        let runs = runs(folder, "frag_2G");
        let release = torch.parse().unwrap();
        let step = |line: &str| real(&runs, line, release).truth["step"].as_u64().unwrap();
        assert!(step(&line) > 2 * step(""), "{file}: '{line}' really dies as early");
    }
}
