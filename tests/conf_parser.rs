//! The settings parser against the real ones.
//!
//! `traces/golden/parser` holds what the parsers of fifteen releases made of strings, see the README
//! there. `FRAGSIM_PARSER_GOLDEN=DIR` adds the files of another folder.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its files has failed")]

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
};

use fragsim::{
    base::{Bytes, RELEASES, Release},
    models::pytorch::conf::{
        AllocConf, Backend, ConfError, ConfErrorKind, KEYS, Key, Reserve, ValueKind, Warning, When,
        find, lookup,
    },
};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

/// A process started in an environment.
#[derive(Deserialize)]
struct Start {
    env: BTreeMap<String, String>,
    config: Option<Value>,
    error: Option<String>,
    fatal: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
}

/// A process started without settings that is given some while it runs.
#[derive(Deserialize)]
struct Run {
    steps: Vec<Step>,
    warnings: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Step {
    set: String,
    err: Option<String>,
    fatal: Option<String>,
    config: Option<Value>,
}

fn folders() -> Vec<PathBuf> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/golden/parser");
    let extra = std::env::var_os("FRAGSIM_PARSER_GOLDEN").map(PathBuf::from);
    std::iter::once(ours).chain(extra).collect()
}

/// The lines of every file whose name is `prefix`, a release, `.jsonl.gz`.
fn recorded<T: for<'de> Deserialize<'de>>(prefix: &str) -> Vec<(Release, T)> {
    let mut lines = Vec::new();
    for folder in folders() {
        for release in RELEASES {
            let path = folder.join(format!("{prefix}t2{:02}.jsonl.gz", release.minor()));
            let Ok(file) = std::fs::File::open(&path) else { continue };
            let mut text = String::new();
            flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
            lines.extend(text.lines().map(|line| (release, serde_json::from_str(line).unwrap())));
        }
    }
    lines
}

/// The settings as the recordings list them; a release lists only what its snapshots hold.
fn listed(conf: &AllocConf) -> Value {
    json!({
        "garbage_collection_threshold": conf.garbage_collection_threshold,
        "max_split_size": conf.max_split_size,
        "pinned_num_register_threads": conf.pinned_num_register_threads,
        "expandable_segments": conf.expandable_segments,
        "release_lock_on_malloc": conf.release_lock_on_cudamalloc,
        "pinned_use_host_register": conf.pinned_use_cuda_host_register,
        "graph_capture_record_stream_reuse": conf.graph_capture_record_stream_reuse,
        "last_allocator_settings": conf.last_settings,
        "roundup_power2_divisions": conf.roundup_power2_divisions,
        "max_round_threshold": conf.pinned_max_round_threshold,
        "max_cached_size": conf.pinned_max_cached_size,
    })
}

/// The first listed setting that differs.
fn difference(conf: &AllocConf, recorded: &Value) -> Option<String> {
    let ours = listed(conf);
    recorded.as_object()?.iter().find_map(|(key, want)| {
        let got = &ours[key];
        let same = match (got.as_f64(), want.as_f64()) {
            // The recording prints doubles with 17 digits or fewer, and whole ones as integers.
            (Some(a), Some(b)) if key.ends_with("threshold") => a == b,
            _ => got == want,
        };
        (!same).then(|| format!("{key}: {got}, recorded {want}"))
    })
}

/// The error that differs from the recorded one.
fn error_difference(
    outcome: Result<(), &ConfError>,
    error: Option<&str>,
    fatal: Option<&str>,
) -> Option<String> {
    let want = match (error, fatal) {
        (None, None) => Ok(()),
        (Some(text), _) => Err((ConfErrorKind::Refused, text)),
        // A process killed by a signal leaves the number of it instead of a message.
        (_, Some(text)) if text.starts_with("rc-") => Err((ConfErrorKind::Aborts, "")),
        (_, Some(text)) => Err((ConfErrorKind::Aborts, text)),
    };
    let got = outcome.map_err(|error| (error.kind, error.text.as_str()));
    // Up to 2.6 the parser compares the memory behind the last token. That kills the process unless
    // an earlier string has left something there; we always say that it dies.
    let chance =
        Err((ConfErrorKind::Refused, "Error parsing CachingAllocator settings, expected ,"));
    if got == Err((ConfErrorKind::Aborts, "")) && want == chance {
        return None;
    }
    (got != want).then(|| format!("{got:?}, recorded {want:?}"))
}

/// The driver of the recordings wants a history, which cudaMallocAsync does not have; by then the
/// string was accepted, or not looked at.
fn stopped_after_settings(error: &str) -> bool {
    error.starts_with("cudaMallocAsync does not yet support")
}

fn check_start(release: Release, start: &Start) -> Option<String> {
    let outcome = AllocConf::from_env(release, |name| start.env.get(name).cloned());
    if start.error.as_deref().is_some_and(stopped_after_settings) {
        let loaded = match &outcome {
            Ok((conf, _)) => conf.backend == Backend::CudaMallocAsync,
            Err(error) => error.kind == ConfErrorKind::Refused,
        };
        return (!loaded).then(|| format!("cudaMallocAsync was loaded, not {outcome:?}"));
    }
    let unit = outcome.as_ref().map(|_| ());
    let wrong = error_difference(unit, start.error.as_deref(), start.fatal.as_deref());
    wrong.or_else(|| {
        let (conf, warnings) = outcome.ok()?;
        let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        if warnings != start.warnings {
            return Some(format!("{warnings:?}, recorded {:?}", start.warnings));
        }
        difference(&conf, start.config.as_ref()?)
    })
}

fn check_starts(prefix: &str) -> usize {
    let lines = recorded::<Start>(prefix);
    let wrong: Vec<_> = lines
        .iter()
        .filter_map(|(release, start)| {
            check_start(*release, start).map(|why| format!("{release} {:?}: {why}", start.env))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), lines.len(), wrong.join("\n"));
    lines.len()
}

#[test]
fn every_recorded_string_means_the_same_at_start() {
    let ours = 15 * 118;
    assert!(check_starts("") >= ours);
}

#[test]
fn random_strings_mean_the_same_at_start() {
    assert!(check_starts("start_") >= 15 * 80);
}

fn check_run(release: Release, run: &Run) -> Option<String> {
    let mut conf = AllocConf::new(release);
    let mut warnings: Vec<Warning> = Vec::new();
    let mut exact_warnings = true;
    for step in &run.steps {
        let outcome = conf.parse(release, &step.set, When::Runtime);
        // Warnings before an error are printed too; an error here does not carry them.
        exact_warnings &= outcome.is_ok();
        let unit = outcome.as_ref().map(|_| ());
        let wrong = error_difference(unit, step.err.as_deref(), step.fatal.as_deref())
            .or_else(|| difference(&conf, step.config.as_ref()?));
        if let Some(why) = wrong {
            return Some(format!("{:?}: {why}", step.set));
        }
        warnings.extend(outcome.unwrap_or_default());
    }
    let once: Vec<_> = warnings
        .iter()
        .enumerate()
        .filter(|(i, w)| !w.once || warnings[..*i].iter().all(|v| v.function != w.function))
        .map(|(_, w)| w.to_string())
        .collect();
    let recorded = run.warnings.as_ref()?;
    (exact_warnings && once != *recorded).then(|| format!("{once:?}, recorded {recorded:?}"))
}

#[test]
fn settings_at_run_time_add_up_the_same() {
    assert!(check_runs("run_") >= 15 * 20);
}

#[test]
fn settings_in_the_middle_of_recorded_cases_add_up_the_same() {
    assert_eq!(check_runs("set_"), 15 * 2);
}

fn check_runs(prefix: &str) -> usize {
    let lines = recorded::<Run>(prefix);
    let wrong: Vec<_> = lines
        .iter()
        .filter_map(|(release, run)| check_run(*release, run).map(|why| format!("{release} {why}")))
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), lines.len(), wrong.join("\n"));
    lines.len()
}

#[test]
fn what_a_release_accepts_it_can_be_given_back() {
    let mut strings: Vec<String> =
        recorded::<Start>("").into_iter().flat_map(|(_, start)| start.env.into_values()).collect();
    strings.extend(recorded::<Start>("start_").into_iter().flat_map(|(_, s)| s.env.into_values()));
    strings.sort();
    strings.dedup();
    let mut accepted = 0;
    for release in RELEASES {
        for text in &strings {
            let Ok((conf, _)) = AllocConf::from_string(release, text) else { continue };
            let printed = conf.to_conf_string(release).expect(text);
            let (back, _) = AllocConf::from_string(release, &printed).expect(&printed);
            assert!(back.same_settings(&conf), "{release} {text:?} -> {printed:?}");
            accepted += 1;
        }
    }
    assert!(accepted > 15 * 40, "{accepted}");
}

#[test]
fn keys_are_known_from_their_first_release_on() {
    for release in RELEASES {
        for row in KEYS {
            let value = match row.kind {
                ValueKind::Mebibytes => "64",
                ValueKind::Count => "8",
                ValueKind::Fraction => "0.5",
                ValueKind::Bool => "True",
                ValueKind::Divisions => "4",
                ValueKind::Backend => "native",
                ValueKind::Reserve => "0.5",
                ValueKind::ReserveList => "[a:0.5]",
            };
            let text = format!("{}:{value}", row.name);
            assert_eq!(
                AllocConf::from_string(release, &text).is_ok(),
                lookup(row.name, release).is_some(),
                "{release} {text}"
            );
        }
    }
    assert_eq!(find("release_lock_on_hipmalloc").unwrap().key, Key::ReleaseLockOnCudaMalloc);
}

#[test]
fn a_later_string_forgets_some_settings_and_keeps_others() {
    let forgets = |minor: u8| {
        let release = Release::new(minor).unwrap();
        let mut conf = AllocConf::new(release);
        let text = "max_split_size_mb:64,max_non_split_rounding_mb:40,expandable_segments:True";
        conf.parse(release, text, When::Runtime).unwrap();
        conf.parse(release, "garbage_collection_threshold:0.5", When::Runtime).unwrap();
        assert_eq!(conf.max_split_size, Bytes::MAX);
        assert!(conf.expandable_segments);
        conf.max_non_split_rounding_size == Bytes::mib(20)
    };
    // Observed on the real allocators: whether a freed block of 200 MiB serves 150 MiB afterwards.
    assert_eq!([6, 9, 10, 11, 15].map(forgets), [false, false, false, true, true]);
}

#[test]
fn the_large_segment_size_comes_first_and_carries_the_rounding() {
    let release = Release::new(11).unwrap();
    let (conf, _) = AllocConf::from_string(
        release,
        "large_segment_size_mb:64,max_split_size_mb:40,large_segment_size_mb:32",
    )
    .unwrap();
    assert_eq!(conf.large_segment_size, Bytes::mib(32));
    assert_eq!(conf.max_non_split_rounding_size, Bytes::mib(32));
}

#[test]
fn a_reserve_that_is_none_keeps_the_last_one() {
    let release = Release::new(15).unwrap();
    let mut conf = AllocConf::new(release);
    conf.parse(release, "expandable_segments_reserve:0.25", When::Runtime).unwrap();
    let warnings = conf.parse(release, "expandable_segments_reserve:x", When::Runtime).unwrap();
    assert_eq!(warnings.len(), 1);
    assert_eq!(conf.expandable_segments_reserve, Some(Reserve::Fraction(0.25)));
}

/// What a user reads.
fn shown(minor: u8, text: &str) -> String {
    AllocConf::from_string(Release::new(minor).unwrap(), text).unwrap_err().to_string()
}

#[test]
fn an_error_says_what_where_and_the_cure() {
    assert_eq!(
        shown(15, "expandable_segments:True,max_split_mb:64"),
        "Unrecognized key 'max_split_mb' in CUDA allocator config.\n  \
         at byte 25 of the settings: expandable_segments:True,>>>max_split_mb:64\n  \
         did you mean 'max_split_size_mb'?"
    );
    assert_eq!(
        shown(9, "large_segment_size_mb:64"),
        "Unrecognized CachingAllocator option: large_segment_size_mb\n  \
         at byte 0 of the settings: >>>large_segment_size_mb:64\n  \
         'large_segment_size_mb' is first known in 2.11, and this is 2.9"
    );
    assert_eq!(
        shown(12, "expandable_segments:true"),
        "Expected 'True' or 'False' at index 2 in ConfigTokenizer but got 'true'\n  \
         at byte 20 of the settings: expandable_segments:>>>true\n  \
         write 'expandable_segments:True'"
    );
    assert_eq!(
        shown(6, "roundup_power2_divisions:[256:4"),
        "PyTorch 2.6 dies on this string without a message\n  \
         at byte 31 of the settings: roundup_power2_divisions:[256:4>>>\n  \
         the list has no end; write its ']'"
    );
    let abort = shown(15, "max_split_size_mb");
    assert!(abort.contains("\n  PyTorch 2.15 aborts on this string at start\n"), "{abort}");
    assert!(abort.ends_with("\n  write 'max_split_size_mb:128'"), "{abort}");
}

/// Any settings that some string of the release can give.
fn settings(release: Release) -> impl Strategy<Value = AllocConf> {
    let bools = proptest::array::uniform7(any::<bool>());
    let sizes =
        (proptest::option::of(21..5000_u64), proptest::option::of(21..5000_u64), 11..300_u64);
    let table = prop_oneof![
        Just([0; 16]),
        (0..8_u32).prop_map(|n| [1 << n; 16]),
        proptest::array::uniform16(prop_oneof![Just(0), (0..8_u32).prop_map(|n| 1_u64 << n)]),
    ];
    let reserve = || {
        prop_oneof![(1e-3..9.0).prop_map(Reserve::Fraction), (1e-3..99.0).prop_map(Reserve::Gib)]
    };
    let reserves = (
        proptest::option::of(reserve()),
        proptest::collection::vec(("[a-z]{1,4}", reserve()), 0..3),
    );
    let host =
        (0..8_u32, 0..99_u64, proptest::option::of(0..99_u64), proptest::option::of(0..99_u64));
    let shares = (prop_oneof![Just(0.0), 1e-6..0.999], prop_oneof![Just(1.0), 0.0..=1.0]);
    (bools, sizes, table, reserves, host, shares).prop_map(
        move |(bools, sizes, mut table, reserves, host, shares)| {
            let mut conf = AllocConf::new(release);
            let known = |name| lookup(name, release).is_some();
            if known("large_segment_size_mb") {
                conf.large_segment_size = Bytes::mib(sizes.2);
                conf.max_non_split_rounding_size = conf.large_segment_size;
            }
            let above = |n: u64| Bytes(conf.large_segment_size.0 + (n << 20));
            let (split, round) = (sizes.0.map(above), sizes.1.map(above));
            conf.max_split_size = split.unwrap_or(Bytes::MAX);
            if let (Some(round), true) = (round, known("max_non_split_rounding_mb")) {
                conf.max_non_split_rounding_size = round;
            }
            if !release.at_least(4) {
                // The first entry of a list fills what is below it, and may not be 0.
                table[0] = if table == [0; 16] { 0 } else { table[0].max(1) };
            }
            conf.roundup_power2_divisions = table;
            conf.garbage_collection_threshold = shares.0;
            conf.expandable_segments = bools[0];
            conf.release_lock_on_cudamalloc = bools[1] && known("release_lock_on_cudamalloc");
            conf.graph_capture_record_stream_reuse =
                bools[2] && known("graph_capture_record_stream_reuse");
            conf.throw_on_cudamalloc_oom = bools[3] && known("throw_on_cudamalloc_oom");
            conf.pinned_use_cuda_host_register = bools[4] && known("pinned_use_cuda_host_register");
            conf.pinned_use_background_threads = bools[5] && known("pinned_use_background_threads");
            conf.pinned_free_catch_all = bools[6] && known("pinned_free_catch_all");
            if known("pinned_num_register_threads") {
                conf.pinned_num_register_threads = 1 << host.0;
            }
            if known("pinned_reserve_segment_size_mb") {
                conf.pinned_reserve_segment_size_mb = host.1;
                conf.per_process_memory_fraction = shares.1;
            }
            if known("pinned_max_cached_size_mb") {
                conf.pinned_max_round_threshold = host.2.map_or(Bytes::MAX, Bytes::mib);
                conf.pinned_max_cached_size = host.3.map_or(Bytes::MAX, Bytes::mib);
            }
            if known("expandable_segments_reserve") {
                conf.expandable_segments_reserve = reserves.0;
                let classes: BTreeMap<_, _> = reserves.1.into_iter().collect();
                conf.expandable_segments_reserve_by_class = classes.into_iter().collect();
            }
            conf
        },
    )
}

fn any_release() -> impl Strategy<Value = Release> {
    (1..=15_u8).prop_map(|minor| Release::new(minor).unwrap())
}

/// Text that looks like settings often enough to get far.
fn settings_like() -> impl Strategy<Value = String> {
    let names: Vec<&'static str> = KEYS.iter().map(|row| row.name).collect();
    let piece = prop_oneof![
        4 => proptest::sample::select(names).prop_map(str::to_owned),
        5 => "[,:\\[\\]]",
        3 => "-?[0-9]{1,21}",
        1 => "[-+.0-9eExXpPgG]{1,12}",
        2 => proptest::sample::select(vec!["True", "False", ">", "native", "64", "nan", "inf", "0x1p"])
            .prop_map(str::to_owned),
        1 => "\\PC{0,5}",
        1 => "[ \\t\\n]",
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn settings_survive_their_string(
        (release, conf) in any_release().prop_flat_map(|r| (Just(r), settings(r)))
    ) {
        let text = conf.to_conf_string(release).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let (back, _) = AllocConf::from_string(release, &text).unwrap();
        prop_assert!(back.same_settings(&conf), "{} {}", release, text);
    }

    #[test]
    fn no_text_breaks_a_parser(
        release in any_release(),
        texts in proptest::collection::vec(prop_oneof![settings_like(), any::<String>()], 1..4),
        startup in any::<bool>(),
    ) {
        let mut conf = AllocConf::new(release);
        for text in texts {
            let when = if startup { When::Startup } else { When::Runtime };
            match conf.parse(release, &text, when) {
                Ok(_) => prop_assert_eq!(&conf.last_settings, &text),
                Err(error) => {
                    prop_assert!(error.position <= text.len());
                    prop_assert!(!error.to_string().is_empty());
                }
            }
            let fresh = AllocConf::from_string(release, &text);
            if let Ok((fresh, _)) = fresh {
                let printed = fresh.to_conf_string(release);
                prop_assert!(printed.is_ok(), "{} {:?} {:?}", release, text, printed);
            }
            let _ = conf.advice(release);
            let _ = conf.to_conf_string(release);
        }
    }
}

#[test]
fn a_megabyte_of_anything_is_read_at_once() {
    for piece in ["[", ":", "a", "foo:1,", "max_split_size_mb:64,", "\u{e9}", "9", " "] {
        let text = piece.repeat((1 << 20) / piece.len());
        for text in [text.clone(), format!("roundup_power2_divisions:[{text}")] {
            for minor in [1, 9, 10, 15] {
                let release = Release::new(minor).unwrap();
                let _ = AllocConf::from_string(release, &text).map_err(|error| error.to_string());
            }
        }
    }
}
