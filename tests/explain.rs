//! `explain`: measures against layouts, blocking sets against brute force, verdicts on recordings.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use std::{fs, path::Path};

use fragsim::{
    base::{AllocId, Bytes, OpIndex, Release, StreamId},
    models::pytorch::{PyTorch, PyTorchConfig, conf::AllocConf},
    observe::{Fragmentation, FragmentationSeries, Sample, fragmentation::Rules},
    sim::{Allocator, Device, DeviceConfig, replay_op},
    study::{
        explain::{
            BlockingSet, Change, Effort, Explanation, Objective, Question, Scene, Verdict, WhyNot,
            blocking_set, explain,
        },
        verify::{VerifyOptions, resolved},
        whatif::{Program, Start, Terms, whatif},
    },
    trace::{Trace, script},
};
use proptest::prelude::*;
use serde_json::Value;

fn terms(conf: &str, capacity: Bytes) -> Terms {
    let release = Release::NEWEST;
    let (conf, _) = AllocConf::from_string(release, conf).unwrap();
    Terms::new(release, conf, capacity)
}

fn program(trace: &Trace) -> Program {
    Program::of(trace, Start::AsRecorded).unwrap()
}

// ---- the blocking set against brute force --------------------------------------------------------

/// The smallest set of all: every subset of the live blocks is freed in a copy of the model.
fn by_trying(scene: &Scene, objective: Objective) -> Option<u64> {
    let live: Vec<(AllocId, Bytes)> =
        scene.before.live_allocs().map(|(id, span)| (id, span.size)).collect();
    assert!(live.len() <= 12, "{} blocks are too many to try all sets", live.len());
    let mut sets: Vec<(u64, Vec<AllocId>)> = Vec::new();
    for choice in 0..1_u32 << live.len() {
        let members = live.iter().enumerate().filter(|(at, _)| choice >> at & 1 == 1);
        let members: Vec<(AllocId, Bytes)> = members.map(|(_, member)| *member).collect();
        let price = match objective {
            Objective::Bytes => members.iter().map(|(_, size)| size.0).sum(),
            Objective::Count => members.len() as u64,
        };
        sets.push((price, members.iter().map(|(id, _)| *id).collect()));
    }
    sets.sort();
    sets.into_iter().find(|(_, ids)| scene.is_served_without(ids)).map(|(price, _)| price)
}

fn price(set: &BlockingSet, objective: Objective) -> u64 {
    match objective {
        Objective::Bytes => set.bytes.0,
        Objective::Count => set.ids.len() as u64,
    }
}

const CONFS: [&str; 5] = [
    "",
    "expandable_segments:True",
    "max_split_size_mb:21",
    "per_process_memory_fraction:0.7",
    "large_segment_size_mb:32",
];

/// Requests of these sizes (bytes, stream), of which some are freed; then one that is asked of a
/// device that has no more than is reserved, and a little.
fn scene(
    conf: &str,
    sizes: &[(u64, u16, bool)],
    asked: u64,
    room: u64,
    fixed_first: bool,
) -> Option<Scene> {
    let mut text = String::new();
    // Where max_split_size is lowered at run time the real allocator damages itself: nothing is
    // claimed of it.
    let fixed_first = fixed_first && !conf.contains("max_split_size");
    if fixed_first {
        text += "settings \"expandable_segments:False\"\n";
    }
    let mut live = 0;
    for (i, (size, stream, is_freed)) in sizes.iter().enumerate() {
        text += &format!("a{i} = alloc {size} stream {stream}\n");
        if fixed_first && i == sizes.len() / 2 {
            text += &format!("settings \"{conf}\"\n");
        }
        live += u32::from(!is_freed);
    }
    if live > 9 {
        return None;
    }
    for (i, (_, _, is_freed)) in sizes.iter().enumerate() {
        if *is_freed {
            text += &format!("free a{i}\n");
        }
    }
    let trace = script::parse(&text).unwrap();
    let program = program(&trace);
    let roomy = whatif(&program, &terms(conf, Bytes::gib(64)));
    let capacity = Bytes::mib((roomy.end.reserved().0 >> 20) + room);
    let question = Question::Request {
        before: program.asked(),
        size: Bytes(asked),
        stream: StreamId(0),
        pool: None,
    };
    let scene = Scene::of(&program, &terms(conf, capacity), &question).unwrap()?;
    scene.error.is_some().then_some(scene)
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![1..2_u64 << 20, 1..12_u64 << 20, 1..64_u64 << 20]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_set_is_smaller_than_the_blocking_set(
        conf in 0..CONFS.len(),
        sizes in proptest::collection::vec((size(), 0..2_u16, any::<bool>()), 1..16),
        asked in prop_oneof![1..96_u64 << 20, 1..1_u64 << 20],
        room in 0..24_u64,
        fixed_first in any::<bool>(),
    ) {
        let Some(mut scene) = scene(CONFS[conf], &sizes, asked, room, fixed_first) else { return Ok(()) };
        let request = scene.request;
        let asked = scene.before.asked(&request).unwrap();
        for objective in [Objective::Bytes, Objective::Count] {
            let truth = by_trying(&scene, objective);
            let found = blocking_set(&scene, &asked, objective);
            let (Some(truth), Some(found)) = (truth, &found) else {
                prop_assert_eq!(truth, found.map(|set| price(&set, objective)));
                continue;
            };
            prop_assert!(scene.is_served_without(&found.ids));
            prop_assert!(found.at_least <= truth, "{} is no bound for {truth}", found.at_least);
            let ours = price(found, objective);
            prop_assert!(truth <= ours);
            prop_assert!(!found.is_minimal || ours == truth, "{ours} is called minimal: {truth}");
            if !asked.maps_memory {
                prop_assert!(found.is_minimal, "{ours}, really {truth}");
            }
        }
    }
}

// ---- fragmentation over time ---------------------------------------------------------------------

fn measured(model: &PyTorch) -> (Bytes, Bytes, Bytes, Bytes) {
    let rules = Rules { round: |size| model.rounded(size), large_granule: Bytes::mib(20) };
    let all = Fragmentation::of(&model.layout(), &rules);
    (all.reserved, all.allocated, all.free, all.largest_free)
}

fn sampled(sample: &Sample) -> (Bytes, Bytes, Bytes, Bytes) {
    (sample.reserved, sample.allocated, sample.free, sample.largest_free)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// After each operation the series knows what the layout shows, and whatever it leaves out, the
    /// most and the least that there ever was are in it.
    #[test]
    fn the_series_follows_the_layout_and_keeps_every_extreme(
        conf in 0..CONFS.len(),
        steps in proptest::collection::vec((size(), 0..2_u16, 0..4_u8), 1..60),
    ) {
        let mut text = String::new();
        let mut live: Vec<usize> = Vec::new();
        for (i, (size, stream, what)) in steps.iter().enumerate() {
            match what {
                0 if !live.is_empty() => {
                    let gone = live.remove(usize::from(*stream) % live.len());
                    text += &format!("free a{gone}\n");
                }
                1 if i % 7 == 0 => text += "empty_cache\n",
                _ => {
                    text += &format!("a{i} = alloc {size} stream {stream}\n");
                    live.push(i);
                }
            }
        }
        let trace = script::parse(&text).unwrap();
        let terms = terms(CONFS[conf], Bytes::gib(64));
        let config = PyTorchConfig { conf: terms.conf.clone(), ..PyTorchConfig::new(terms.release) };
        let device = Device::new(DeviceConfig::new(trace.device(), terms.capacity));
        let mut model = PyTorch::new(config, device, trace.streams(), trace.pools());
        let mut series = FragmentationSeries::new(8);
        let mut seen: Vec<(Bytes, Bytes, Bytes, Bytes)> = Vec::new();
        for (i, op) in trace.ops().iter().enumerate() {
            series.at = OpIndex::from_index(i);
            replay_op(&trace, op, &mut model, &mut series);
            // A release alone is no moment of its own.
            if matches!(op, fragsim::trace::Op::EmptyCache) {
                continue;
            }
            prop_assert_eq!(sampled(&series.now()), measured(&model), "operation {}", i);
            seen.push(measured(&model));
        }
        prop_assert!(series.stretches().len() <= 8);
        let most = |of: fn(&Sample) -> Bytes, all: fn(&(Bytes, Bytes, Bytes, Bytes)) -> Bytes| {
            let kept = series.stretches().iter().flat_map(|stretch| {
                [stretch.reserved, stretch.allocated, stretch.free, stretch.scattered]
            });
            (kept.flatten().map(|sample| of(&sample)).max(), seen.iter().map(all).max())
        };
        let (kept, all) = most(|sample| sample.reserved, |seen| seen.0);
        prop_assert!(kept >= all);
        let (kept, all) = most(|sample| sample.allocated, |seen| seen.1);
        prop_assert!(kept >= all);
        let (kept, all) = most(|sample| sample.free, |seen| seen.2);
        prop_assert!(kept >= all);
        let (kept, all) = most(Sample::scattered, |seen| seen.2 - seen.3);
        prop_assert!(kept >= all);
    }
}

// ---- recordings ----------------------------------------------------------------------------------

/// A recording's first failure, or the n-th question, under its own or other settings.
fn explained(
    trace: &Trace,
    start: Start,
    terms: &Terms,
    question: &Question,
) -> Option<(Scene, Explanation)> {
    let (trace, _) = resolved(trace.clone(), &VerifyOptions::default());
    let program = Program::of(&trace, start).unwrap();
    let fresh = Program::of(&trace, Start::Reallocate).unwrap();
    let mut scene = Scene::of(&program, terms, question).unwrap()?;
    let explanation = explain(&mut scene, &program, &fresh, terms, Effort::default()).unwrap();
    Some((scene, explanation))
}

/// Both sets serve the request, none of their members can be left out, and no one block that is
/// smaller does (no single one at all, if the smallest number is more).
fn confirm(scene: &Scene, explanation: &Explanation, what: &str) {
    let live: Vec<(AllocId, Bytes)> =
        scene.before.live_allocs().map(|(id, span)| (id, span.size)).collect();
    for set in explanation.blocking.iter().flatten() {
        assert!(scene.is_served_without(&set.ids), "{what}");
        for left_out in &set.ids {
            let rest: Vec<AllocId> = set.ids.iter().copied().filter(|id| id != left_out).collect();
            assert!(!scene.is_served_without(&rest), "{what}: {left_out} is not needed");
        }
    }
    let [Some(least), Some(fewest)] = &explanation.blocking else {
        panic!("{what}: no blocking set");
    };
    assert!(least.bytes <= fewest.bytes && fewest.ids.len() <= least.ids.len(), "{what}");
    for (id, size) in live {
        let would_be_smaller = size < least.bytes || fewest.ids.len() > 1;
        assert!(!would_be_smaller || !scene.is_served_without(&[id]), "{what}: {id} alone does");
    }
    let freed = explanation.remedies.iter().find(
        |remedy| matches!(remedy.change, Change::FreedBefore(count) if count == least.ids.len()),
    );
    assert!(freed.is_some_and(|remedy| remedy.is_served), "{what}: replayed");
}

fn release(text: &str) -> Release {
    text.parse().unwrap()
}

#[test]
fn recorded_failures_by_fragmentation_are_called_so_and_settings_cure_them() {
    for (file, torch, capacity) in
        [("frag.pickle.gz", "2.11", Bytes::gib(2)), ("varlen_oom.pickle.gz", "2.11", Bytes::gib(6))]
    {
        let trace = &common::histories(&common::package("traces/recorded").join(file))[0];
        let release = release(torch);
        let terms = Terms::new(release, AllocConf::new(release), capacity);
        let failure = Question::Failure(1);
        let (scene, explanation) = explained(trace, Start::AsRecorded, &terms, &failure).unwrap();
        assert_eq!(explanation.verdict, Verdict::Fragmentation, "{file}");
        assert!(explanation.blocking.iter().flatten().all(|set| set.is_minimal), "{file}");
        confirm(&scene, &explanation, file);
        // What is free and not usable is what PyTorch calls reserved but unallocated.
        let sums = &explanation.sums;
        let map = explanation.map.as_ref().unwrap();
        let free: Bytes = map.rows.iter().map(|row| row.bytes).sum();
        assert_eq!(free, sums.reserved - sums.allocated, "{file}");
        let message = explanation.message.as_ref().unwrap();
        assert!(message.contains(&format!("{free} is reserved by PyTorch but unallocated")));
        assert!(map.rows.iter().all(|row| row.why.is_some()), "{file}");
        let cure = explanation.cure().unwrap();
        assert_eq!(cure.change, Change::Conf("expandable_segments:True".into()), "{file}");
        assert_eq!((cure.is_served, cure.completes), (true, Some(true)), "{file}");
        // The card that is offered serves the request.
        let card = explanation.remedies.iter().find_map(|remedy| match remedy.change {
            Change::Capacity(capacity) if remedy.is_served => Some(capacity),
            _ => None,
        });
        let terms = Terms { capacity: card.unwrap(), ..terms };
        assert!(card.unwrap() > capacity);
        assert!(explained(trace, Start::AsRecorded, &terms, &failure).is_none(), "{file}");
    }
}

#[test]
fn what_is_truly_full_is_called_so_and_no_setting_helps() {
    let trace = &common::histories(&common::package("traces/recorded/mlp.pickle.gz"))[0];
    let release = release("2.11");
    let roomy = Terms::new(release, AllocConf::new(release), Bytes::gib(64));
    let program = Program::of(trace, Start::AsRecorded).unwrap();
    let peak = whatif(&program, &roomy).stats.allocated_bytes.all().peak;
    // Less than what is handed out at the peak.
    let capacity = Bytes::mib((u64::try_from(peak).unwrap() >> 20) - 2);
    let terms = Terms { capacity, ..roomy };
    let (scene, explanation) =
        explained(trace, Start::AsRecorded, &terms, &Question::Failure(1)).unwrap();
    assert_eq!(explanation.verdict, Verdict::Full);
    assert!(explanation.sums.needed() > capacity);
    assert!(explanation.cure().is_none());
    assert!(explanation.notes.iter().any(|note| note.contains("no setting can help")));
    let helps = |change: fn(&Change) -> bool| {
        explanation.remedies.iter().any(|remedy| remedy.is_served && change(&remedy.change))
    };
    assert!(!helps(|change| matches!(change, Change::Conf(_) | Change::EmptyCache)));
    assert!(helps(|change| matches!(change, Change::Capacity(_))));
    confirm(&scene, &explanation, "mlp");
}

/// A script whose last request fails, and why.
fn why(text: &str, conf: &str, capacity: Bytes, change: impl Fn(&mut Terms)) -> Explanation {
    let trace = script::parse(text).unwrap();
    let program = program(&trace);
    let mut terms = terms(conf, capacity);
    change(&mut terms);
    let mut scene = Scene::of(&program, &terms, &Question::Failure(1)).unwrap().unwrap();
    assert_eq!(scene.op + 1, program.asked(), "the last operation is the first that fails: {text}");
    explain(&mut scene, &program, &program, &terms, Effort::default()).unwrap()
}

fn verdict(text: &str, conf: &str, capacity: Bytes) -> Verdict {
    why(text, conf, capacity, |_| {}).verdict
}

/// Up to 2.12 nothing is waited for while any pool is begun.
#[test]
fn frees_that_other_streams_hold_up_are_pending() {
    let text = "events manual; a = alloc 8MiB; k = alloc 12MiB; record_stream a 1; free a; \
                pool_begin (0,1) stream 1; b = alloc 8MiB";
    let old = |terms: &mut Terms| {
        *terms = Terms::new(release("2.11"), terms.conf.clone(), terms.capacity);
    };
    let explanation = why(text, "", Bytes::mib(36), old);
    assert_eq!(explanation.verdict, Verdict::PendingFrees);
    assert_eq!(explanation.sums.pending, Bytes::mib(8));
    // Outside, the allocator waits for the other stream, but only after it looked for a block.
    let outside = why(&text.replace("pool_begin (0,1) stream 1; ", ""), "", Bytes::mib(36), old);
    assert_eq!((outside.verdict, outside.sums.pending), (Verdict::Fragmentation, Bytes::ZERO));
    assert!(outside.map.unwrap().rows.iter().any(|row| row.why.is_none()));
}

#[test]
fn free_memory_of_an_owned_pool_is_named() {
    let text = "pool_create (0,1); a = alloc 30MiB pool (0,1); free a; b = alloc 30MiB";
    assert_eq!(verdict(text, "", Bytes::mib(40)), Verdict::PrivatePools);
    // The default pool's free blocks, that a private pool asks for, go back to the device.
    let other = "pool_create (0,1); k = alloc 2MiB; a = alloc 18MiB; b = alloc 30MiB pool (0,1)";
    assert_eq!(verdict(other, "", Bytes::mib(40)), Verdict::Full);
}

#[test]
fn free_memory_of_another_stream_is_named_where_it_cannot_go_back() {
    // Half a segment of stream 1 is free, the other half keeps it.
    let text = "a = alloc 8MiB stream 1; k = alloc 8MiB stream 1; free a; b = alloc 8MiB";
    assert_eq!(verdict(text, "", Bytes::mib(24)), Verdict::Fragmentation);
    let streams = why(text, "", Bytes::mib(24), |_| {});
    let rows = streams.map.unwrap().rows;
    assert!(rows.iter().any(|row| row.why == Some(WhyNot::OtherStream)), "{rows:?}");
}

#[test]
fn during_a_capture_nothing_goes_back() {
    let text = "a = alloc 30MiB; free a; pool_begin (0,1) stream 1; capture_begin 1; \
                b = alloc 30MiB stream 1";
    assert_eq!(verdict(text, "", Bytes::mib(40)), Verdict::Capture);
}

#[test]
fn a_request_beyond_the_address_space_of_a_segment_is_named() {
    let conf = "expandable_segments:True,expandable_segments_reserve:1G";
    assert_eq!(verdict("a = alloc 2GiB", conf, Bytes::gib(8)), Verdict::Reserve);
}

#[test]
fn a_memory_fraction_is_told_from_a_small_device() {
    let conf = "per_process_memory_fraction:0.5";
    assert_eq!(verdict("a = alloc 30MiB; b = alloc 30MiB", conf, Bytes::mib(100)), Verdict::Limit);
    assert_eq!(verdict("a = alloc 30MiB; b = alloc 80MiB", conf, Bytes::mib(100)), Verdict::Full);
    // Set while the program runs, it counts as well.
    let text = "a = alloc 30MiB; set_fraction 0.5; b = alloc 30MiB";
    assert_eq!(verdict(text, "", Bytes::mib(100)), Verdict::Limit);
}

#[test]
fn other_processes_are_told_from_a_small_device() {
    let text = "a = alloc 30MiB; b = alloc 30MiB";
    let others = |bytes: Bytes| why(text, "", Bytes::mib(100), move |terms| terms.external = bytes);
    assert_eq!(others(Bytes::mib(50)).verdict, Verdict::OtherProcesses);
    assert!(others(Bytes::mib(50)).notes.iter().any(|note| note.contains("hold 50.00 MiB")));
    // Too much even if it were alone.
    let alone = why(text, "", Bytes::mib(50), |terms| terms.external = Bytes::mib(10));
    assert_eq!(alone.verdict, Verdict::Full);
    // With what the context takes, too.
    let context = why(text, "", Bytes::mib(100), |terms| terms.context = Bytes::mib(50));
    assert_eq!(context.verdict, Verdict::Full);
}

/// One run of a program, as it really went: which verdict and sets its death has.
fn foretell(trace: &Trace, release: Release, run: &Path) -> Option<Verdict> {
    let truth: Value = serde_json::from_slice(&fs::read(run).unwrap()).unwrap();
    let (conf, _) = AllocConf::from_string(release, truth["conf"].as_str().unwrap()).unwrap();
    let terms = Terms::new(release, conf, Bytes(truth["total"].as_u64().unwrap()));
    let what = run.display().to_string();
    let found = explained(trace, Start::Reallocate, &terms, &Question::Failure(1));
    assert_eq!(found.is_some(), truth.get("oom").is_some(), "{what}");
    let (scene, explanation) = found?;
    let sums = &explanation.sums;
    let is_full = sums.needed() > sums.available;
    assert_eq!(explanation.verdict == Verdict::Full, is_full, "{what}");
    assert!(is_full || explanation.verdict == Verdict::Fragmentation, "{what}");
    assert!(!is_full || explanation.cure().is_none(), "{what}: a setting helps");
    confirm(&scene, &explanation, &what);
    // The cure that is offered was really run, too, under another name: it survived there.
    if let Some(cure) = explanation.cure().filter(|cure| cure.completes == Some(true))
        && let Change::Conf(conf) = &cure.change
    {
        let twins = common::files(run.parent().unwrap(), ".json").into_iter().filter_map(|path| {
            let twin: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            let is_twin = twin["conf"] == *conf && twin["total"] == truth["total"];
            (is_twin && twin["scenario"] == truth["scenario"]).then_some(twin)
        });
        for twin in twins {
            assert!(twin.get("oom").is_none(), "{what}: {conf} does not really help");
        }
    }
    Some(explanation.verdict)
}

#[test]
fn every_run_that_really_died_is_explained() {
    for (folder, torch) in [("t211", "2.11"), ("t215", "2.15")] {
        let Some(root) = common::shared(&format!("matrix/{folder}")) else { return };
        for name in ["varlen", "kvcache"] {
            let trace = &common::histories(&root.join(format!("{name}_16G_00.pickle.gz")))[0];
            for run in common::files(&root, ".json") {
                let file = run.file_name().unwrap().to_string_lossy().into_owned();
                if file.starts_with(&format!("{name}_")) {
                    let verdict = foretell(trace, release(torch), &run);
                    println!("{folder}/{file}: {verdict:?}");
                }
            }
        }
    }
}

/// The recordings of runs that died tell it in PyTorch's own words; the scene has the same.
#[test]
fn recorded_deaths_are_explained_from_their_own_recording() {
    let mut explained_ones = 0;
    let recordings =
        ["matrix/t211", "matrix/t215", "recorded"].into_iter().filter_map(common::shared);
    for json in recordings.flat_map(|root| common::files(&root, ".json")) {
        let recording = json.with_extension("pickle.gz");
        let truth: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
        let (Some(message), true) = (truth.get("oom"), recording.is_file()) else { continue };
        let what = json.display().to_string();
        let release = release(truth["torch"].as_str().unwrap());
        let conf = AllocConf::from_string(release, truth["conf"].as_str().unwrap()).unwrap().0;
        let terms = Terms::new(release, conf, Bytes(truth["total"].as_u64().unwrap()));
        let trace = &common::histories(&recording)[0];
        let (scene, explanation) =
            explained(trace, Start::AsRecorded, &terms, &Question::Failure(1)).unwrap();
        assert_eq!(explanation.message.as_deref(), message.as_str(), "{what}");
        let sums = &explanation.sums;
        let expected =
            if sums.needed() > sums.available { Verdict::Full } else { Verdict::Fragmentation };
        assert_eq!(explanation.verdict, expected, "{what}");
        confirm(&scene, &explanation, &what);
        println!("{what}: {:?}, {:?}", explanation.verdict, explanation.blocking);
        explained_ones += 1;
    }
    println!("{explained_ones} recorded deaths explained");
}
